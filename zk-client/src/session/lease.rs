//! Until when the session is certain to live.
//!
//! The server counts the timeout from the last message that its *leader* heard of. `Ping` takes any answer
//! for that. `Commit` takes the latest message that was answered and then followed, on the same connection
//! and at least a third of the timeout later, by a committed write: the leader reads its learner's stream in
//! order, so it knew of the message before it saw the write, and the commit shows that it was still leading.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::LeaseProof;

#[derive(Debug)]
pub(crate) struct Lease {
    proof: LeaseProof,
    margin: Option<Duration>,
    timeout: Duration,
    /// Send time of the latest answered message.
    heard: Option<Instant>,
    /// Send time of the latest message that is proven to have reached the leader.
    proven: Option<Instant>,
    /// Send times of answered messages of this connection that no write has proven yet; coarse, so that
    /// their number stays small.
    candidates: VecDeque<Instant>,
    /// Send time of this connection's handshake: the leader hears of it at once, so any later write proves it.
    handshake: Option<Instant>,
}

/// Candidates are at least this fraction of the timeout apart.
const GRAIN: u32 = 32;

impl Lease {
    pub(crate) fn new(proof: LeaseProof, margin: Option<Duration>) -> Self {
        Lease {
            proof,
            margin,
            timeout: Duration::ZERO,
            heard: None,
            proven: None,
            candidates: VecDeque::new(),
            handshake: None,
        }
    }

    /// A connection begins with a handshake sent at `sent`. The session of a new one was created by a
    /// committed transaction, which proves itself.
    pub(crate) fn attached(&mut self, timeout: Duration, sent: Instant, is_new: bool) {
        self.timeout = timeout;
        self.candidates.clear();
        self.heard = Some(sent);
        if is_new {
            self.proven = Some(sent);
        }
        self.handshake = Some(sent);
    }

    /// The connection is gone: what was not proven on it never will be.
    pub(crate) fn detached(&mut self) {
        self.candidates.clear();
        self.handshake = None;
    }

    /// The session is gone.
    pub(crate) fn reset(&mut self) {
        self.detached();
        (self.heard, self.proven) = (None, None);
    }

    /// A message sent at `sent` was answered; `committed` when it was a write and is in effect.
    pub(crate) fn answered(&mut self, sent: Instant, committed: bool) {
        self.heard = self.heard.max(Some(sent));
        if self.proof == LeaseProof::Ping {
            return;
        }
        if committed {
            self.proven = self.proven.max(self.handshake.filter(|&handshake| handshake <= sent));
            while let Some(&candidate) = self.candidates.front() {
                if candidate + self.timeout / 3 > sent {
                    break;
                }
                self.proven = self.proven.max(Some(candidate));
                self.candidates.pop_front();
            }
        }
        if self.candidates.back().is_none_or(|&last| sent >= last + self.timeout / GRAIN) {
            // Without writes nothing is ever proven; older candidates lose their worth after a timeout.
            if self.candidates.len() > 2 * GRAIN as usize {
                self.candidates.pop_front();
            }
            self.candidates.push_back(sent);
        }
    }

    fn until(&self, from: Option<Instant>) -> Option<Instant> {
        let margin = self.margin.unwrap_or((self.timeout / 10).max(Duration::from_millis(100)));
        from.map(|from| from + self.timeout.saturating_sub(margin))
    }

    /// Until when the session is certain to live, by the chosen proof; `None` without a session.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.until(match self.proof {
            LeaseProof::Commit => self.proven,
            LeaseProof::Ping => self.heard,
        })
    }

    /// As [`deadline`](Self::deadline), by any answer.
    pub(crate) fn ping_deadline(&self) -> Option<Instant> {
        self.until(self.heard)
    }

    pub(crate) fn needs_writes(&self) -> bool {
        self.proof == LeaseProof::Commit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Duration = Duration::from_secs(12);
    const SEC: Duration = Duration::from_secs(1);

    fn lease(proof: LeaseProof) -> (Lease, Instant) {
        let start = Instant::now();
        let mut lease = Lease::new(proof, Some(SEC));
        lease.attached(T, start, true);
        (lease, start)
    }

    #[test]
    fn ping_proof_counts_from_the_last_answered_message() {
        let (mut lease, t0) = lease(LeaseProof::Ping);
        assert_eq!(lease.deadline(), Some(t0 + 11 * SEC));
        lease.answered(t0 + 3 * SEC, false);
        assert_eq!(lease.deadline(), Some(t0 + 14 * SEC));
    }

    #[test]
    fn commit_proof_needs_a_write_a_third_later() {
        let (mut lease, t0) = lease(LeaseProof::Commit);
        lease.answered(t0 + 3 * SEC, false);
        lease.answered(t0 + 4 * SEC, false);
        assert_eq!(lease.deadline(), Some(t0 + 11 * SEC), "answers alone prove nothing");
        lease.answered(t0 + 7 * SEC + SEC / 2, true);
        assert_eq!(lease.deadline(), Some(t0 + 14 * SEC), "the message at 3 s, not the one at 4 s");
        assert_eq!(lease.ping_deadline(), Some(t0 + 18 * SEC + SEC / 2));
    }

    #[test]
    fn a_reconnect_is_proven_by_the_next_write_and_forgets_what_was_open() {
        let (mut lease, t0) = lease(LeaseProof::Commit);
        lease.answered(t0 + 3 * SEC, false);
        lease.detached();
        lease.attached(T, t0 + 6 * SEC, false);
        assert_eq!(lease.deadline(), Some(t0 + 11 * SEC), "a follower may have answered the handshake alone");
        lease.answered(t0 + 7 * SEC, true);
        assert_eq!(lease.deadline(), Some(t0 + 17 * SEC));
    }

    #[test]
    fn steady_writes_keep_half_the_timeout() {
        let (mut lease, t0) = lease(LeaseProof::Commit);
        for i in 1..1000u32 {
            let now = t0 + T / 6 * i;
            lease.answered(now, true);
            let left = lease.deadline().unwrap() - now;
            assert!(left + SEC >= T / 2, "{left:?}");
        }
        assert!(lease.candidates.len() <= 4);
    }

    #[test]
    fn candidates_stay_bounded_without_writes() {
        let (mut lease, t0) = lease(LeaseProof::Commit);
        for i in 0..100_000u32 {
            lease.answered(t0 + Duration::from_millis(100) * i, false);
        }
        assert!(lease.candidates.len() <= 2 * GRAIN as usize + 1);
    }
}
