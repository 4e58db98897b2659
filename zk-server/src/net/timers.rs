//! What an I/O thread does from time to time: report signs of life, let the replica's time pass, close
//! connections that have been silent for too long.

use std::time::Duration;

use zk_proto::SessionId;

use super::IoThread;
use super::conn::{Conn, Phase};
use super::limits::LINGER_MS;
use crate::admin::metrics::Counter;
use crate::replica::messages::Input;

/// All connections are looked at so often within the shortest silence that ends one.
const SWEEPS_PER_SILENCE: u64 = 4;

/// When what is due, in ms since the server's start.
#[derive(Debug, Default)]
pub(super) struct Timers {
    report_ms: u64,
    tick_ms: u64,
    /// The slot at which the sweep goes on.
    sweep_at: u32,
    /// Everything that arrived before this time has been read.
    heard_until_ms: u64,
    /// Wake-ups in a row with as many events as can be taken at a time, and when they began.
    saturated: usize,
    saturated_since_ms: u64,
}

impl IoThread<'_> {
    /// Notes up to when everything that arrived has been read: up to the wake-up, unless the poller had more
    /// events than were taken.
    pub(super) fn note_heard(&mut self, saturated: bool, events: usize) {
        let timers = &mut self.timers;
        let now_ms = self.now_ms.saturating_sub(1);
        if !saturated {
            timers.saturated = 0;
            timers.heard_until_ms = now_ms;
            return;
        }
        if timers.saturated == 0 {
            timers.saturated_since_ms = now_ms;
        }
        timers.saturated += 1;
        // The poller serves its queue in turn: after so many rounds everybody was there.
        if timers.saturated * events > self.slots.open() {
            timers.heard_until_ms = timers.saturated_since_ms;
            timers.saturated = 0;
        }
    }

    /// How long the thread may sleep.
    pub(super) fn until_next_timer(&self) -> Duration {
        let mut due_ms = self.timers.report_ms;
        if self.acceptor.is_some() {
            due_ms = due_ms.min(self.timers.tick_ms);
        }
        Duration::from_millis(due_ms.saturating_sub(self.now_ms)).max(Duration::from_millis(1))
    }

    /// Does what is due.
    pub(super) fn run_timers(&mut self) {
        let report_every_ms = self.net.options.report_every.as_millis() as u64;
        if self.now_ms >= self.timers.report_ms {
            self.timers.report_ms = self.now_ms + report_every_ms;
            self.report_signs_of_life();
            self.sweep(report_every_ms);
        }
        // One thread is enough, and the one that accepts is always there.
        if self.acceptor.is_some() && self.now_ms >= self.timers.tick_ms {
            self.timers.tick_ms = self.now_ms + self.net.options.tick_every.as_millis() as u64;
            self.net.upstream.submit(Input::Tick);
        }
    }

    fn report_signs_of_life(&mut self) {
        let mut sessions = Vec::with_capacity(self.touched.len());
        let mut touched = std::mem::take(&mut self.touched);
        for slot in touched.drain(..) {
            if let Some(conn) = self.slots.get(slot)
                && std::mem::take(&mut conn.touched)
                && conn.session != SessionId::NONE
            {
                sessions.push((conn.session, conn.heard_ms));
            }
        }
        self.touched = touched;
        let until_ms = self.timers.heard_until_ms;
        self.net.upstream.submit(Input::Touch { thread: self.index, until_ms, sessions });
    }

    /// Looks at some of the connections, so that all have their turn often enough.
    fn sweep(&mut self, every_ms: u64) {
        let end = self.slots.end();
        let turns = (self.net.options.sessionless_ms / SWEEPS_PER_SILENCE / every_ms.max(1)).max(1);
        let count = u64::from(end).div_ceil(turns);
        for _ in 0..count {
            let slot = self.timers.sweep_at;
            self.timers.sweep_at = if slot + 1 < end { slot + 1 } else { 0 };
            let Some(conn) = self.slots.get(slot) else { continue };
            let silent_ms = self.now_ms.saturating_sub(conn.heard_ms);
            let (phase, sessionless) = (conn.phase, conn.session == SessionId::NONE);
            let conn = &*conn;
            if silent_ms > silence_allowed_ms(conn, self.net.options.sessionless_ms) {
                if sessionless && phase == Phase::New {
                    self.recorder.count(Counter::SessionlessConnectionsExpired);
                }
                self.close(slot, "silent for too long");
            }
        }
    }

    /// How long a connection may be silent.
    pub(super) fn silence_allowed_ms(&self, conn: &Conn) -> u64 {
        silence_allowed_ms(conn, self.net.options.sessionless_ms)
    }
}

fn silence_allowed_ms(conn: &Conn, sessionless_ms: u64) -> u64 {
    match conn.phase {
        Phase::New | Phase::Closing | Phase::Word => sessionless_ms,
        // The replica owes an answer.
        Phase::Connecting { .. } => u64::MAX / 2,
        // Usually the session expires first, and takes the connection along; not when it has moved.
        Phase::Open => u64::from(conn.timeout_ms.unsigned_abs()) + sessionless_ms,
        Phase::Lingering => LINGER_MS,
    }
}
