//! The lines that look at what a server holds: sessions, watches, nodes. Each group has a fresh server.

use std::time::Duration;

use serde_json::json;

use super::{SESSION_TIMEOUT_MS, Scale, Turn, detail};
use crate::bench::engine::{Extent, Pace};
use crate::bench::error::{Error, Result};
use crate::bench::space::Space;
use crate::bench::swarm::Swarm;
use crate::bench::workload::{self, Bulk, Workload};
use crate::bench::{hold, snapshot};

const MEGABYTE: f64 = 1_000_000.0;

/// S3, S4.
pub fn idle_sessions(turn: &mut Turn<'_>) -> Result<()> {
    const INTERVAL: Duration = Duration::from_secs(4);
    turn.server.start()?;
    let (address, pid) = (turn.server.address(), turn.server.pid());
    let Scale { sessions, idle, .. } = turn.scale();
    let timeout_ms = 3 * INTERVAL.as_millis() as i32;
    // What the first sessions make a server load and allocate is not the price of a session.
    let first = Swarm::open(address, sessions / 10, timeout_ms)?;
    first.close();
    let before = turn.server.live_memory()?;
    let mut swarm = Swarm::open(address, sessions, timeout_ms)?;
    let after = turn.server.live_memory()?;
    if turn.wants("S3") {
        let bytes = (after as f64 - before as f64) / sessions as f64;
        turn.record("S3", "bytes", bytes, json!({ "sessions": sessions, "before": before, "after": after }))?;
    }
    if turn.wants("S4") {
        let held = hold::idle(&mut swarm, idle, INTERVAL, pid)?;
        turn.add_faults(&held.faults);
        let cores = held.cores.unwrap_or(f64::NAN);
        let detail = json!({ "sessions": sessions, "ping": held.pings.summary() });
        turn.record("S4", "cores", cores, detail)?;
    }
    swarm.close();
    Ok(())
}

/// S5.
pub fn many_sessions(turn: &mut Turn<'_>) -> Result<()> {
    const INTERVAL: Duration = Duration::from_secs(10);
    turn.server.start()?;
    let (address, pid) = (turn.server.address(), turn.server.pid());
    let Scale { sessions_many, idle, .. } = turn.scale();
    let sessions = hold::sessions_possible(sessions_many);
    let empty = turn.server.memory()?.rss;
    let mut swarm = Swarm::open(address, sessions, 3 * INTERVAL.as_millis() as i32)?;
    let held = hold::idle(&mut swarm, idle, INTERVAL, pid)?;
    turn.add_faults(&held.faults);
    let rss = turn.server.memory()?.rss;
    swarm.close();
    let mut detail = json!({
        "sessions": sessions,
        "empty_rss": empty,
        "rss": rss,
        "ping": held.pings.summary(),
    });
    let mut scale = 1.0;
    if sessions < sessions_many {
        scale = sessions_many as f64 / sessions as f64;
        detail["note"] = json!(format!(
            "measured with {sessions} sessions, which is all that the limit of open files allows here, \
             and scaled to {sessions_many}"
        ));
    }
    turn.record("S5", "cores", held.cores.unwrap_or(f64::NAN) * scale, detail.clone())?;
    let megabytes = (empty as f64 + (rss as f64 - empty as f64) * scale) / MEGABYTE;
    turn.record("S5", "rss", megabytes, detail)
}

/// F3.
pub fn watches(turn: &mut Turn<'_>) -> Result<()> {
    turn.server.start()?;
    let address = turn.server.address();
    let (sessions, keys) = turn.scale().watching;
    let space = Space::new("/bench", keys, 100);
    space.create_keys(address)?;
    let before = turn.server.live_memory()?;
    let watches = hold::arm_watches(address, &space, sessions, SESSION_TIMEOUT_MS)?;
    turn.add_faults(&watches.faults);
    let after = turn.server.live_memory()?;
    let bytes = (after as f64 - before as f64) / watches.count as f64;
    let detail = json!({ "watches": watches.count, "before": before, "after": after });
    drop(watches.conns);
    turn.record("F3", "bytes", bytes, detail)
}

/// Fills the tree with `nodes` nodes of 100 B whose paths have 24 characters.
fn fill(turn: &mut Turn<'_>, nodes: u32) -> Result<u64> {
    let bulk = Bulk::of(nodes);
    let space = Space::new("/bench", 0, 100);
    let load = bulk.load(SESSION_TIMEOUT_MS);
    let outcome = workload::run(&turn.server.target(), &space, Workload::Bulk(bulk), &load)?;
    turn.add_faults(&outcome.faults);
    Ok(bulk.nodes())
}

/// p99 of sets at a moderate rate, µs.
fn set_p99(turn: &mut Turn<'_>) -> Result<f64> {
    let mut load = turn.load(20, Pace::Open { per_second: 5000.0 });
    load.extent = Extent::Time { warmup: turn.scale().first_warmup / 4, duration: turn.scale().duration };
    Ok(turn.run("sets", 1024, Workload::Set, &load)?.latencies(0).summary().p99_us)
}

/// N1, P1, R1, N2, and what N3 is compared with.
pub fn nodes(turn: &mut Turn<'_>) -> Result<()> {
    turn.server.start()?;
    let scale = turn.scale();
    let empty = turn.server.live_memory()?;
    let nodes = fill(turn, scale.nodes)?;
    if turn.wants("N1") {
        let (live, rss) = (turn.server.live_memory()?, turn.server.memory()?.rss);
        let bytes = (live as f64 - empty as f64) / nodes as f64;
        let detail = json!({ "nodes": nodes, "empty": empty, "live": live, "rss": rss });
        turn.record("N1", "bytes", bytes, detail)?;
    }
    if turn.wants("N3") && turn.role == super::Role::Candidate {
        let p99 = set_p99(turn)?;
        turn.comparison.most.insert("set-p99", p99);
    }
    if turn.wants("P1") {
        snapshot_under_load(turn)?;
    }
    if turn.wants("R1") || turn.wants("N2") {
        turn.server.kill()?;
        let restarted = turn.server.start()?;
        let rss = turn.server.memory()?.rss;
        if turn.wants("R1") {
            turn.record("R1", "restart", restarted.as_secs_f64(), json!({ "nodes": nodes }))?;
        }
        if turn.wants("N2") {
            turn.record("N2", "rss", rss as f64 / MEGABYTE, json!({ "nodes": nodes, "empty": empty }))?;
        }
    }
    Ok(())
}

fn snapshot_under_load(turn: &mut Turn<'_>) -> Result<()> {
    const RATE: f64 = 20_000.0;
    let space = Space::new("/bench/snapshot", 1000, 1024);
    let (target, data_dir) = (turn.server.target(), turn.server.data_dir());
    let duration = turn.scale().snapshot_load;
    let impact = snapshot::run(&target, &space, &data_dir, RATE, duration, SESSION_TIMEOUT_MS)?;
    let Some(impact) = impact else {
        return Err(Error::Usage("no snapshot was taken while the load lasted".into()));
    };
    turn.add_faults(&impact.outcome.faults);
    let mut detail = json!({
        "offered": impact.offered,
        "snapshots": impact.snapshots,
        "snapshot_seconds": impact.snapshot_time.as_secs_f64(),
        "load": detail(&impact.outcome),
    });
    if impact.offered < RATE {
        detail["note"] = json!(format!(
            "{} cannot take 20 k set/s; it got 70 % of what it can take",
            turn.comparison.definition(turn.role).name
        ));
    }
    turn.record("P1", "gap", impact.gap_max.as_secs_f64() * 1000.0, detail.clone())?;
    turn.record("P1", "loss", impact.loss * 100.0, detail)
}

/// N3.
pub fn many_nodes(turn: &mut Turn<'_>) -> Result<()> {
    turn.server.start()?;
    let nodes = fill(turn, turn.scale().nodes_many)?;
    let rss = turn.server.memory()?.rss;
    turn.record("N3", "rss", rss as f64 / MEGABYTE, json!({ "nodes": nodes }))?;
    let p99 = set_p99(turn)?;
    if let Some(&few) = turn.comparison.most.get("set-p99") {
        let detail = json!({ "nodes": nodes, "p99_us": p99, "p99_us_few": few });
        turn.record("N3", "set-p99", p99 / few, detail)?;
    }
    turn.server.kill()?;
    let restarted = turn.server.start()?;
    turn.record("N3", "restart", restarted.as_secs_f64(), json!({ "nodes": nodes }))
}
