//! The deterministic simulator: fresh seeds for a fixed time, seeds that once found something, and the divergences
//! that were reproduced on Apache's servers, as scripts.
//!
//! | variable | meaning |
//! |---|---|
//! | `ZK_SIM_SECONDS` | wall time for fresh seeds, default 20 |
//! | `ZK_SIM_SEED` | first fresh seed (default: from the clock), and the seed of `replay` |
//!
//! `ZK_SIM_SEED=17 cargo test -p zk-tests --test simulation -- replay --nocapture` shows all that happens with a
//! seed; `cargo run --profile sim -p zk-tests --bin simulate -- --seed 17 --trace` does the same, faster.

mod scenarios;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use zk_tests::sim::{Report, Swarm, Tracing, run};

/// Seeds that have found a bug when they were young. What a seed does changes with the simulator; the bugs have
/// tests of their own where they were.
const REGRESSIONS: [(u64, &str); 5] = [
    (12, "a sync was answered with a newer zxid than the write behind it"),
    (30, "the same on a server that is slow to hear of commits"),
    (23, "the answer to a handshake reached the next client in the slot"),
    (39, "a leader forgot what it had logged in the moment it stepped down, and sent a DIFF without it"),
    (46, "a leader that serves before its own epoch file is written"),
];

fn seed_from_environment() -> Option<u64> {
    std::env::var("ZK_SIM_SEED").ok()?.parse().ok()
}

fn assert_fine(report: &Report) {
    if let Some(violation) = &report.violation {
        let seed = report.seed;
        panic!(
            "seed {seed}: {violation}\n\
             replay: cargo run --profile sim -p zk-tests --bin simulate -- --seed {seed} --trace\n\
             or: ZK_SIM_SEED={seed} cargo test -p zk-tests --test simulation -- replay --nocapture"
        );
    }
}

#[test]
fn fresh_seeds() {
    let seconds = std::env::var("ZK_SIM_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(20);
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_millis() as u64);
    let first = seed_from_environment().unwrap_or(clock);
    let began = Instant::now();
    let (mut seeds, mut simulated_us) = (0, 0);
    while began.elapsed() < Duration::from_secs(seconds) {
        let report = run(Swarm::draw(first + seeds), Tracing::Off);
        assert_fine(&report);
        seeds += 1;
        simulated_us += report.simulated_us;
    }
    println!("{seeds} seeds from {first} on, {} simulated s", simulated_us / 1_000_000);
}

#[test]
fn seeds_that_found_something() {
    for (seed, _) in REGRESSIONS {
        assert_fine(&run(Swarm::draw(seed), Tracing::Off));
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [3, 4] {
        let hashes = [(); 2].map(|()| run(Swarm::draw(seed), Tracing::Off).hash);
        assert_eq!(hashes[0], hashes[1], "seed {seed}");
    }
}

#[test]
fn replay() {
    let tracing = if seed_from_environment().is_some() { Tracing::On } else { Tracing::Off };
    assert_fine(&run(Swarm::draw(seed_from_environment().unwrap_or(1)), tracing));
}
