//! The end of a client: closing, detaching, giving up.

use std::time::Duration;

use tokio::time::Instant;
use zk_proto::OpCode;

use super::outbox::Target;
use super::slots::Completion;
use super::{Failure, Phase, Session};
use crate::error::{Error, Outcome};
use crate::state::SessionState;

/// How to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseKind {
    /// The session ends too.
    Close,
    /// The session stays, for another process.
    Detach,
}

#[derive(Debug)]
pub(super) struct Closing {
    kind: CloseKind,
    /// The last moment; the first half of the time is for the cleanup queue.
    deadline: Instant,
    half: Instant,
    half_is_over: bool,
    after: Duration,
    sent: bool,
    pub(super) failed: Option<Error>,
}

impl Session {
    /// From now on no request is taken; the driver ends the session when everything is answered.
    pub(crate) fn close(&mut self, kind: CloseKind, now: Instant) {
        if self.phase == Phase::Over || self.closing.is_some() {
            return;
        }
        let after = self.config.close_timeout.unwrap_or(self.timeout);
        self.closing = Some(Closing {
            kind,
            deadline: now + after,
            half: now + after / 2,
            half_is_over: false,
            after,
            sent: false,
            failed: None,
        });
        if kind == CloseKind::Detach {
            self.cleanup.clear();
            self.holds.clear();
        }
        self.check_close(now);
        self.wake_driver();
    }

    pub(super) fn is_detaching(&self) -> bool {
        self.closing.as_ref().is_some_and(|closing| closing.kind == CloseKind::Detach)
    }

    /// What went wrong while closing.
    pub(crate) fn close_error(&self) -> Option<Error> {
        self.closing.as_ref().and_then(|closing| closing.failed.clone())
    }

    pub(super) fn close_deadline(&self) -> Option<Instant> {
        let closing = self.closing.as_ref()?;
        let waits_for_cleanup = !closing.half_is_over && !closing.sent && !self.cleanup.is_empty();
        Some(if waits_for_cleanup { closing.half } else { closing.deadline })
    }

    /// Takes the next step towards the end, if it is time for it.
    pub(super) fn check_close(&mut self, now: Instant) {
        let Some(closing) = &mut self.closing else { return };
        if self.phase == Phase::Over {
            return;
        }
        if now >= closing.deadline {
            let error = Error::Timeout {
                op: "close",
                path: String::new(),
                after: closing.after,
                outcome: if closing.sent { Outcome::Unknown } else { Outcome::NotSent },
            };
            closing.failed = Some(error);
            self.finish(Failure::Closed, u64::MAX);
            return;
        }
        closing.half_is_over = now >= closing.half;
        match (closing.kind, self.phase) {
            (CloseKind::Close, Phase::Down) if self.id == zk_proto::SessionId::NONE => {
                self.finish(Failure::Closed, 0);
            }
            (CloseKind::Close, Phase::Up) => {
                let cleaned = self.cleanup.is_empty() || self.read_only || closing.half_is_over;
                if cleaned && !closing.sent && !self.outbox.has_parked() {
                    closing.sent = true;
                    let target = Target::CloseSession;
                    let _ = self.outbox.push(OpCode::CloseSession, target, None, now, |_| {});
                }
            }
            (CloseKind::Detach, Phase::Down) => self.finish(Failure::Closed, 0),
            (CloseKind::Detach, Phase::Up) if self.outbox.is_idle() => self.finish(Failure::Closed, 0),
            _ => {}
        }
    }

    /// A closeSession on the old connection may or may not have been executed; the next connection tells.
    pub(super) fn close_connection_lost(&mut self) {
        if let Some(closing) = &mut self.closing {
            closing.sent = false;
            if closing.kind == CloseKind::Detach {
                self.finish(Failure::Closed, 0);
            }
        }
    }

    /// Nothing happens from here on: every request ends with `failure`, those that may have been written
    /// with an unknown outcome, and the driver stops.
    pub(crate) fn finish(&mut self, failure: Failure, written: u64) {
        if self.phase == Phase::Over {
            return;
        }
        self.phase = Phase::Over;
        self.over = Some(failure.clone());
        self.lease.reset();
        self.holds.clear();
        let last = match &failure {
            Failure::SessionExpired(_) => None, // published already
            Failure::AuthFailed(_) => Some(SessionState::AuthFailed),
            _ => Some(SessionState::Closed),
        };
        if let Some(last) = last {
            self.publish(last);
        }
        self.fail_all(written, |sent| match sent {
            true => Failure::ConnectionLoss(Outcome::Unknown),
            false => failure.clone(),
        });
        for slot in self.credentials.iter_mut().flat_map(|known| std::mem::take(&mut known.waiting)) {
            self.slots.complete(slot, Completion::Failed(failure.clone()), &mut self.wakers);
        }
        self.cleanup.clear();
        self.watches.closed(&mut self.wakers);
        self.states = None;
        self.wake_driver();
    }
}
