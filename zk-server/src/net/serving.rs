//! Whether clients are served: not while a member of an ensemble has no leader, or only read-only ones.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Command, Net};

/// Who is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Serving {
    /// Nobody. Connections are accepted, and closed when they begin with anything but a four-letter word.
    Nobody,
    /// Everybody.
    All,
    /// Clients whose connect request says that they take a read-only server. Their reads are served; whatever
    /// needs a leader is answered `NOT_READ_ONLY`.
    ReadOnly,
}

/// A time during which the same clients are served. Connections do not outlive it: what comes after it may have
/// another tree, and other sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Term(u32);

impl Term {
    /// Of a connection that has not said who it is.
    pub(super) const NONE: Term = Term(0);
}

/// The present [`Serving`] and its term, shared by all threads.
#[derive(Debug)]
pub(crate) struct ServingState(AtomicU64);

impl ServingState {
    /// The first term.
    pub(crate) fn new(serving: Serving) -> Self {
        ServingState(AtomicU64::new(pack(Term(1), serving)))
    }

    /// Who is served now.
    pub(crate) fn serving(&self) -> Serving {
        self.get().1
    }

    pub(super) fn get(&self) -> (Term, Serving) {
        unpack(self.0.load(Ordering::Acquire))
    }

    /// Begins a new term. False if nothing changes.
    fn set(&self, serving: Serving) -> bool {
        let next = |now| {
            let (Term(term), before) = unpack(now);
            (before != serving).then(|| pack(Term(term.wrapping_add(1).max(1)), serving))
        };
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).is_ok()
    }
}

fn pack(Term(term): Term, serving: Serving) -> u64 {
    let serving = match serving {
        Serving::Nobody => 0,
        Serving::All => 1,
        Serving::ReadOnly => 2,
    };
    u64::from(term) << 8 | serving
}

fn unpack(packed: u64) -> (Term, Serving) {
    let serving = match packed & 0xff {
        1 => Serving::All,
        2 => Serving::ReadOnly,
        _ => Serving::Nobody,
    };
    (Term((packed >> 8) as u32), serving)
}

impl Net {
    /// Changes who is served. Every connection with a session is closed soon, and from this moment on none of them
    /// is shown the tree: call it before the tree is replaced. What those connections have submitted already may
    /// still reach the replica.
    ///
    /// In [`Serving::ReadOnly`] the replica gets the same items as ever, but of the writes only `closeSession`:
    /// the sessions that it creates must be local.
    pub(crate) fn serve(&self, serving: Serving) {
        if self.serving.set(serving) {
            self.inboxes.iter().for_each(|inbox| inbox.command(Command::NewTerm));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_a_new_term() {
        let state = ServingState::new(Serving::Nobody);
        assert_eq!(state.get(), (Term(1), Serving::Nobody));
        assert!(!state.set(Serving::Nobody));
        assert_eq!(state.get(), (Term(1), Serving::Nobody));
        assert!(state.set(Serving::ReadOnly));
        assert_eq!(state.get(), (Term(2), Serving::ReadOnly));
        assert!(state.set(Serving::All));
        assert_eq!(state.get(), (Term(3), Serving::All));
        state.0.store(pack(Term(u32::MAX), Serving::All), Ordering::Release);
        assert!(state.set(Serving::Nobody));
        assert_eq!(state.get(), (Term(1), Serving::Nobody), "0 is the term of nobody");
    }
}
