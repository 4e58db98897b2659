//! How long nobody can write when the leader dies.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use zk_proto::Request;

use super::error::{Error, Result};
use super::session::Session;
use super::space::Space;
use super::wire::slot_text;

/// Clients that write, each one request at a time.
const WRITERS: usize = 8;

/// Load before the leader is killed.
const BEFORE: Duration = Duration::from_secs(2);

/// Writes count as resumed when there was no longer pause than [`PAUSE_MAX`] for this long.
const RESUMED: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// How long that is awaited.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long a client waits for an answer before it goes to another server.
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);

/// Pause of a client between two servers.
const RETRY_PAUSE: Duration = Duration::from_millis(2);

/// The gap that a failure has left.
#[derive(Debug, Clone, Copy)]
pub struct Failover {
    /// Longest time between two completed writes, around the failure and behind it.
    pub gap: Duration,
    /// Writes completed in all.
    pub writes: usize,
}

/// Lets clients set keys of the space over all `servers`, calls `kill`, and waits until writes go on. A client
/// whose connection breaks, or that gets no answer for a second, goes to the next server with a new session.
pub fn run(
    servers: &[SocketAddr],
    space: &Space,
    session_timeout_ms: i32,
    kill: impl FnOnce() -> Result<()>,
) -> Result<Failover> {
    let writes = Writes::default();
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (space, writes) = (&space, &writes);
            scope.spawn(move || write(servers, space, writer, session_timeout_ms, writes));
        }
        thread::sleep(BEFORE);
        let killed = Instant::now();
        let resumed = kill().and_then(|()| writes.await_resumed(killed));
        writes.stop.store(true, Ordering::Relaxed);
        resumed.map(|()| writes.gap(killed))
    })
}

/// When writes were completed.
#[derive(Debug, Default)]
struct Writes {
    moments: Mutex<Vec<Instant>>,
    stop: AtomicBool,
}

impl Writes {
    fn completed(&self) {
        self.moments.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
    }

    fn sorted(&self) -> Vec<Instant> {
        let mut moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner).clone();
        moments.sort_unstable();
        moments
    }

    fn await_resumed(&self, killed: Instant) -> Result<()> {
        while killed.elapsed() < PATIENCE {
            thread::sleep(RESUMED / 10);
            let now = Instant::now();
            let moments = self.sorted();
            let since = now - RESUMED;
            if since > killed && longest_gap(&moments, since, now) <= PAUSE_MAX {
                return Ok(());
            }
        }
        Err(Error::Timeout { what: "writing after the leader's end", seconds: PATIENCE.as_secs() })
    }

    fn gap(&self, killed: Instant) -> Failover {
        let moments = self.sorted();
        let last_before = moments.iter().rfind(|moment| **moment <= killed).copied().unwrap_or(killed);
        Failover { gap: longest_gap(&moments, last_before, Instant::now()), writes: moments.len() }
    }
}

/// The longest time between two of the sorted moments, and the ends `from` and `to`.
fn longest_gap(moments: &[Instant], from: Instant, to: Instant) -> Duration {
    let mut longest = Duration::ZERO;
    let mut last = from;
    for moment in moments.iter().copied().filter(|moment| *moment > from && *moment <= to).chain([to]) {
        longest = longest.max(moment - last);
        last = moment;
    }
    longest
}

fn write(servers: &[SocketAddr], space: &Space, writer: usize, timeout_ms: i32, writes: &Writes) {
    let path = format!("{}/key/{}", space.root, slot_text(writer as u32 % space.keys));
    let set = Request::SetData { path: path.as_str().into(), data: Some(&space.value), version: -1 };
    for server in servers.iter().cycle().skip(writer % servers.len()) {
        if let Ok(mut session) = Session::open_within(*server, timeout_ms, ANSWER_PATIENCE) {
            while !writes.stop.load(Ordering::Relaxed) && matches!(session.call(&set), Ok(Ok(_))) {
                writes.completed();
            }
        }
        if writes.stop.load(Ordering::Relaxed) {
            return;
        }
        thread::sleep(RETRY_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_counts_both_ends() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let moments = [at(1), at(5), at(40), at(45)];
        assert_eq!(longest_gap(&moments, at(5), at(50)), Duration::from_millis(35));
        assert_eq!(longest_gap(&moments, at(41), at(100)), Duration::from_millis(55));
        assert_eq!(longest_gap(&[], at(0), at(9)), Duration::from_millis(9));
    }
}
