//! Deadlines: connecting, and a leader that says nothing.

use super::{Learner, Output, Phase, Reason};

/// The tries to connect.
#[derive(Debug)]
pub(super) struct Dial {
    /// When the first one was due.
    started_ms: u64,
    /// When the next one is due; `None` while one is running.
    next_ms: Option<u64>,
    /// How many were made.
    tries: u32,
}

impl Dial {
    pub(super) fn new(now_ms: u64, delay_ms: u64) -> Self {
        let first = now_ms.saturating_add(delay_ms);
        Dial { started_ms: first, next_ms: Some(first), tries: 0 }
    }
}

impl Learner {
    /// When [`tick`](Self::tick) has something to do at the latest, if nothing else happens.
    pub fn next_deadline(&self) -> Option<u64> {
        match self.phase {
            Phase::Dialing => {
                let limit = self.connect_deadline();
                Some(self.dial.next_ms.map_or(limit, |next| next.min(limit)))
            }
            _ => self.silence_limit().map(|limit| self.heard_ms.saturating_add(limit)),
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now_ms: u64, out: &mut Vec<Output>) {
        if self.next_deadline().is_none_or(|deadline| now_ms < deadline) {
            return;
        }
        if self.phase != Phase::Dialing {
            let silent = now_ms - self.heard_ms;
            self.end(Reason::Silent(silent), out);
        } else if now_ms >= self.connect_deadline() {
            self.end(Reason::CannotConnect, out);
        } else {
            self.dial.next_ms = None;
            self.dial.tries += 1;
            out.push(Output::Dial(self.leader));
        }
    }

    /// A try to connect has failed: another one follows soon, a few times.
    pub fn dial_failed(&mut self, now_ms: u64, out: &mut Vec<Output>) {
        if self.phase != Phase::Dialing || self.dial.next_ms.is_some() {
            return;
        }
        if self.dial.tries >= self.options.dial_tries {
            self.end(Reason::CannotConnect, out);
        } else {
            self.dial.next_ms = Some(now_ms.saturating_add(self.options.dial_retry_ms));
        }
    }

    fn connect_deadline(&self) -> u64 {
        self.dial.started_ms.saturating_add(self.ticks(self.options.connect_limit))
    }

    /// How long the leader may be silent, in ms; `None` while this server has the turn.
    fn silence_limit(&self) -> Option<u64> {
        match self.phase {
            Phase::Discovery | Phase::Transfer | Phase::Receiving | Phase::Syncing => {
                Some(self.ticks(self.options.init_limit))
            }
            Phase::Confirming | Phase::Broadcast => Some(self.ticks(self.options.sync_limit)),
            Phase::Dialing
            | Phase::Accepting
            | Phase::Truncating
            | Phase::Verifying
            | Phase::Persisting
            | Phase::Ended => None,
        }
    }

    fn ticks(&self, ticks: u64) -> u64 {
        self.options.tick_ms.saturating_mul(ticks)
    }
}
