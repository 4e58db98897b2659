//! What sessions and watches cost a server while nothing happens.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::conn::Conn;
use super::engine::{self, Extent, Load, Pace};
use super::error::Result;
use super::process;
use super::script::Exists;
use super::space::Space;
use super::stats::{Faults, Latencies};
use super::swarm::Swarm;
use super::workload::Target;

/// File descriptors that are left for other things than sessions.
const SPARE_FILES: u64 = 500;

/// How many sessions can be held: one file each, here and in the server, which mostly has the same limit.
pub fn sessions_possible(wanted: usize) -> usize {
    let limit = process::raise_file_limit().saturating_sub(SPARE_FILES);
    wanted.min(usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Cost of idle sessions.
pub struct Idle {
    /// CPU time of the server per second, when its pid is known.
    pub cores: Option<f64>,
    /// Latencies of pings from their due moment.
    pub pings: Latencies,
    /// What went wrong.
    pub faults: Faults,
}

/// Holds the sessions of `swarm` for `duration`; each pings every `interval`. Before the measurement begins,
/// all have pinged once.
pub fn idle(swarm: &mut Swarm, duration: Duration, interval: Duration, pid: Option<u32>) -> Result<Idle> {
    let mut faults = Faults::default();
    swarm.idle(interval, interval, &mut faults)?;
    let cpu = || pid.map(process::cpu_seconds).transpose();
    let (start, before) = (Instant::now(), cpu()?);
    let pings = swarm.idle(duration, interval, &mut faults)?;
    let cores = match (before, cpu()?) {
        (Some(before), Some(after)) => Some((after - before) / start.elapsed().as_secs_f64()),
        _ => None,
    };
    Ok(Idle { cores, pings, faults })
}

/// Watches that are armed and held.
pub struct Watches {
    /// Number of watches.
    pub count: u64,
    /// What went wrong.
    pub faults: Faults,
    /// The sessions that hold them; dropped, the watches go.
    pub conns: Vec<Conn>,
}

/// Lets each of `sessions` watch every key of the space.
pub fn arm_watches(
    server: SocketAddr,
    space: &Space,
    sessions: usize,
    session_timeout_ms: i32,
) -> Result<Watches> {
    let load = Load {
        connections: sessions,
        threads: 1,
        pace: Pace::Closed { depth: 16 },
        extent: Extent::Count { per_connection: u64::from(space.keys) },
        session_timeout_ms,
    };
    let outcome = engine::run(&Target::server(server, None), &load, |_| Exists::watching(space))?;
    Ok(Watches { count: outcome.answered, faults: outcome.faults, conns: outcome.conns })
}
