//! The lines that load a warm server: one server serves them all, one after the other.

use std::time::Duration;

use serde_json::json;

use super::sample::Role;
use super::{SESSION_TIMEOUT_MS, Scale, Turn, detail, per_cpu_second};
use crate::bench::engine::{Extent, Pace};
use crate::bench::error::Result;
use crate::bench::space::Space;
use crate::bench::swarm::Swarm;
use crate::bench::workload::{self, Bulk, Workload};
use crate::bench::{fanout, storm};

const VALUE_BYTES: usize = 1024;
const CONNECTIONS: usize = 50;

/// Requests per second of the open loops of M1, at most.
const MODERATE_RATE: f64 = 20_000.0;

/// Lines whose value is answers per second of the server's CPU time: line, key, workload, depth.
const THROUGHPUTS: &[(&str, &str, Workload, usize)] = &[
    ("G1", "get", Workload::Get, 8),
    ("G2", "get", Workload::Get, 1),
    ("G3", "exists", Workload::Exists, 8),
    ("G3", "getChildren", Workload::Children(1000), 8),
    ("W1", "set", Workload::Set, 8),
    ("W2", "set", Workload::Set, 1),
    ("M2", "1:1", Workload::Mixed(0.5), 4),
    ("W4", "lock", Workload::Lock, 1),
    ("W4", "multi", Workload::Multi(5), 8),
    ("W4", "create-delete", Workload::CreateDelete, 8),
    ("W4", "create", Workload::Create, 8),
];

/// All of them that are wanted.
pub fn run(turn: &mut Turn<'_>) -> Result<()> {
    let started = turn.server.start()?;
    if turn.wants("R2") {
        turn.record("R2", "start", started.as_secs_f64() * 1000.0, json!(null))?;
    }
    let loads = super::GROUPS[0].lines.iter().any(|line| *line != "R2" && turn.wants(line));
    if !loads {
        return Ok(());
    }
    let mut warm = turn.load(CONNECTIONS, Pace::Closed { depth: 8 });
    warm.extent = Extent::Time { warmup: Duration::ZERO, duration: turn.scale().first_warmup };
    turn.run("warm", VALUE_BYTES, Workload::Mixed(0.5), &warm)?;

    for &(line, key, workload, depth) in THROUGHPUTS {
        if turn.wants(line) {
            let load = turn.load(CONNECTIONS, Pace::Closed { depth });
            let outcome = turn.run(&format!("{line}-{key}"), VALUE_BYTES, workload, &load)?;
            if turn.role == Role::Reference && depth == 8 {
                turn.comparison.most.entry(key).or_insert(outcome.per_second());
            }
            turn.record(line, key, per_cpu_second(&outcome)?, detail(&outcome))?;
        }
    }
    for (line, workload) in [("G4", Workload::Get), ("W3", Workload::Set)] {
        if turn.wants(line) {
            let load = turn.load(1, Pace::Closed { depth: 1 });
            let outcome = turn.run(line, VALUE_BYTES, workload, &load)?;
            turn.record(line, "p50", outcome.latencies(0).summary().p50_us, detail(&outcome))?;
        }
    }
    if turn.wants("M1") || turn.wants("M2") {
        mixed(turn)?;
    }
    if turn.wants("T1") {
        open_loop(turn, "get", Workload::Get)?;
        open_loop(turn, "set", Workload::Set)?;
    }
    if turn.wants("S1") {
        connect_storm(turn)?;
    }
    if turn.wants("S2") {
        open_at_once(turn)?;
    }
    if turn.wants("F1") || turn.wants("F2") {
        fan_out(turn)?;
    }
    if turn.wants("B1") {
        bulk_load(turn)?;
    }
    Ok(())
}

fn mixed(turn: &mut Turn<'_>) -> Result<()> {
    let load = turn.load(CONNECTIONS, Pace::Closed { depth: 4 });
    let outcome = turn.run("M2-9:1", VALUE_BYTES, Workload::Mixed(0.9), &load)?;
    if turn.wants("M2") {
        turn.record("M2", "9:1", per_cpu_second(&outcome)?, detail(&outcome))?;
    }
    if turn.wants("M1") {
        turn.record("M1", "get-p50", outcome.latencies(0).summary().p50_us, detail(&outcome))?;
        // A rate that neither of the two loads has trouble with, and at which few gets stand behind a set of
        // their own connection: what is left is whether they wait for those of others.
        let rate = MODERATE_RATE.min(outcome.per_second() / 2.0);
        let load = turn.load(CONNECTIONS, Pace::Open { per_second: rate });
        let mix = turn.run("M1-mix", VALUE_BYTES, Workload::Mixed(0.9), &load)?;
        let pure = turn.run("M1-get", VALUE_BYTES, Workload::Get, &load)?;
        let [mix_p50, pure_p50] = [&mix, &pure].map(|o| o.latencies(0).summary().p50_us);
        let detail = json!({ "rate": rate, "mix": detail(&mix), "pure": detail(&pure) });
        turn.record("M1", "beside-pure", mix_p50 / pure_p50, detail)?;
    }
    Ok(())
}

/// The same rate for both servers: half of what the reference reaches at most.
fn open_loop(turn: &mut Turn<'_>, key: &'static str, workload: Workload) -> Result<()> {
    if !turn.comparison.most.contains_key(key) {
        let load = turn.load(CONNECTIONS, Pace::Closed { depth: 8 });
        let most = turn.run(&format!("most-{key}"), VALUE_BYTES, workload, &load)?.per_second();
        turn.comparison.most.insert(key, most);
    }
    let rate = turn.comparison.most[key] / 2.0;
    let load = turn.load(CONNECTIONS, Pace::Open { per_second: rate });
    let outcome = turn.run(&format!("T1-{key}"), VALUE_BYTES, workload, &load)?;
    let summary = outcome.latencies(0).summary();
    for (percentile, value) in [("p99", summary.p99_us), ("p999", summary.p999_us)] {
        turn.record("T1", &format!("{key}-{percentile}"), value, detail(&outcome))?;
    }
    Ok(())
}

fn connect_storm(turn: &mut Turn<'_>) -> Result<()> {
    let Scale { warmup, duration, .. } = turn.scale();
    let (address, pid) = (turn.server.address(), turn.server.pid());
    let outcome = storm::run(address, CONNECTIONS, warmup, duration, SESSION_TIMEOUT_MS, pid)?;
    turn.add_faults(&outcome.faults);
    turn.record("S1", "visits", per_cpu_second(&outcome)?, detail(&outcome))
}

fn open_at_once(turn: &mut Turn<'_>) -> Result<()> {
    let count = turn.scale().sessions;
    let (swarm, opening) = Swarm::open_at_once(turn.server.address(), count, SESSION_TIMEOUT_MS)?;
    swarm.close();
    let summary = opening.latencies.summary();
    let detail = json!({ "sessions": count, "seconds": opening.elapsed.as_secs_f64(), "again": opening.again, "open": summary });
    turn.record("S2", "open-p99", summary.p99_us / 1000.0, detail)
}

fn fan_out(turn: &mut Turn<'_>) -> Result<()> {
    let Scale { watchers, fanout_rounds, .. } = turn.scale();
    let address = turn.server.address();
    let space = Space::new("/bench/fan-out", 1, 100);
    for (watchers, key) in watchers.into_iter().zip(["ack-1000", "ack-5000"]) {
        let fanout = fanout::run(address, &space, watchers, fanout_rounds, SESSION_TIMEOUT_MS)?;
        turn.add_faults(&fanout.faults);
        let [all_told, told, ack] =
            [&fanout.all_told, &fanout.told, &fanout.set_ack].map(|latencies| latencies.summary());
        let detail = json!({ "watchers": watchers, "all_told": all_told, "told": told, "set_ack": ack });
        if turn.wants("F1") && key == "ack-1000" {
            turn.record("F1", "all-told", all_told.p50_us / 1000.0, detail.clone())?;
        }
        if turn.wants("F2") {
            turn.record("F2", key, ack.p50_us / 1000.0, detail)?;
        }
    }
    Ok(())
}

fn bulk_load(turn: &mut Turn<'_>) -> Result<()> {
    let nodes = turn.scale().nodes_bulk;
    for (name, nodes) in [("bulk-warm", nodes / 4), ("bulk", nodes)] {
        let bulk = Bulk::of(nodes);
        let space = Space::new(format!("/{name}"), 0, 100);
        let load = bulk.load(SESSION_TIMEOUT_MS);
        let outcome = workload::run(&turn.server.target(), &space, Workload::Bulk(bulk), &load)?;
        turn.add_faults(&outcome.faults);
        if name == "bulk" {
            let creates = per_cpu_second(&outcome)? * f64::from(bulk.batch);
            turn.record("B1", "creates", creates, detail(&outcome))?;
        }
    }
    Ok(())
}
