//! The lines of ensembles: three members on this machine, their CPU time counted together.

use serde_json::json;

use super::sample::Role;
use super::{SESSION_TIMEOUT_MS, Turn, detail, per_cpu_second};
use crate::bench::engine::{Extent, Outcome, Pace};
use crate::bench::ensemble::Ensemble;
use crate::bench::error::Result;
use crate::bench::failover;
use crate::bench::server::Definition;
use crate::bench::space::Space;
use crate::bench::stats::median;
use crate::bench::workload::{Target, Workload};

const VALUE_BYTES: usize = 1024;
const CONNECTIONS: usize = 50;
const DEPTH: usize = 8;

/// `tickTime` of E4's second half, ms.
const FAST_TICK_MS: u32 = 500;

/// All of them that are wanted.
pub fn run(turn: &mut Turn<'_>) -> Result<()> {
    let (reference, candidate) = (turn.comparison.reference.clone(), turn.comparison.candidate.clone());
    let own = turn.comparison.definition(turn.role).clone();
    let pure_rate = turn.wants("E5") && turn.role == Role::Reference;
    if turn.wants("E1") || turn.wants("E2") || turn.wants("E3") || pure_rate {
        pure(turn, &own)?;
    }
    if turn.wants("E5") && turn.role == Role::Candidate {
        // The last member leads.
        mixed(turn, "our-follower", &[&candidate, &reference, &reference])?;
        mixed(turn, "our-leader", &[&reference, &reference, &candidate])?;
    }
    if turn.wants("E4") {
        kill_leaders(turn, "gap", &own, None)?;
        kill_leaders(turn, "gap-fast", &own, Some(FAST_TICK_MS))?;
    }
    Ok(())
}

/// Starts an ensemble and loads it until it is warm.
fn start(turn: &mut Turn<'_>, definitions: &[&Definition], tick_ms: Option<u32>) -> Result<Ensemble> {
    let mut ensemble = Ensemble::new(definitions, turn.comparison.dir.as_deref(), tick_ms)?;
    ensemble.start()?;
    let mut warm = turn.load(CONNECTIONS, Pace::Closed { depth: DEPTH });
    warm.extent = Extent::Time { warmup: Default::default(), duration: turn.scale().first_warmup };
    turn.run_on(&ensemble.target(), "warm", VALUE_BYTES, Workload::Mixed(0.5), &warm)?;
    Ok(ensemble)
}

fn sets(turn: &mut Turn<'_>, target: &Target, name: &str) -> Result<Outcome> {
    let load = turn.load(CONNECTIONS, Pace::Closed { depth: DEPTH });
    turn.run_on(target, name, VALUE_BYTES, Workload::Set, &load)
}

/// E1, E2, E3, and what E5 is compared with.
fn pure(turn: &mut Turn<'_>, own: &Definition) -> Result<()> {
    let mut ensemble = start(turn, &[own; 3], None)?;
    let target = ensemble.target();
    if turn.wants("E1") || turn.wants("E5") {
        let outcome = sets(turn, &target, "E1")?;
        if turn.wants("E1") {
            turn.record("E1", "set", per_cpu_second(&outcome)?, detail(&outcome))?;
        }
        if turn.wants("E5") && turn.role == Role::Reference {
            for key in ["our-follower", "our-leader"] {
                record_rate(turn, key, &outcome)?;
            }
        }
    }
    if turn.wants("E2") {
        // Not the last member, so a follower.
        let follower = Target { others: Vec::new(), ..target.clone() };
        let load = turn.load(1, Pace::Closed { depth: 1 });
        let outcome = turn.run_on(&follower, "E2", VALUE_BYTES, Workload::Set, &load)?;
        turn.record("E2", "p50", outcome.latencies(0).summary().p50_us, detail(&outcome))?;
    }
    if turn.wants("E3") {
        let load = turn.load(CONNECTIONS, Pace::Closed { depth: DEPTH });
        let outcome = turn.run_on(&target, "E3", VALUE_BYTES, Workload::Get, &load)?;
        turn.record("E3", "get", per_cpu_second(&outcome)?, detail(&outcome))?;
    }
    ensemble.stop()
}

fn mixed(turn: &mut Turn<'_>, key: &str, definitions: &[&Definition]) -> Result<()> {
    let mut ensemble = start(turn, definitions, None)?;
    let outcome = sets(turn, &ensemble.target(), "E5")?;
    record_rate(turn, key, &outcome)?;
    ensemble.stop()
}

fn record_rate(turn: &mut Turn<'_>, key: &str, outcome: &Outcome) -> Result<()> {
    turn.record("E5", key, outcome.per_second(), detail(outcome))?;
    turn.record("E5", &format!("{key}-cpu"), per_cpu_second(outcome)?, detail(outcome))
}

/// E4: kills one leader after the other; each one is back before the next.
fn kill_leaders(turn: &mut Turn<'_>, key: &str, own: &Definition, tick_ms: Option<u32>) -> Result<()> {
    let mut ensemble = start(turn, &[own; 3], tick_ms)?;
    let addresses = ensemble.addresses();
    let space = Space::new("/bench/E4", 100, VALUE_BYTES);
    space.create_keys(addresses[0])?;
    let (mut gaps, mut writes) = (Vec::new(), 0);
    for _ in 0..turn.scale().failovers {
        let leader = ensemble.leader()?;
        let kill = || ensemble.member(leader).kill();
        let failover = failover::run(&addresses, &space, SESSION_TIMEOUT_MS, kill)?;
        gaps.push(failover.gap.as_secs_f64() * 1000.0);
        writes += failover.writes;
        ensemble.member(leader).start()?;
    }
    let gap = median(&gaps).unwrap_or(f64::NAN);
    turn.record("E4", key, gap, json!({ "gaps_ms": gaps, "writes": writes }))?;
    ensemble.stop()
}
