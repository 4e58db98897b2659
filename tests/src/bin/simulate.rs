//! Runs the simulator by hand: one seed with a trace, or many seeds.
//!
//! ```text
//! cargo run --profile sim -p zk-tests --bin simulate -- --seed 17 --trace
//! cargo run --profile sim -p zk-tests --bin simulate -- --from 1 --seeds 1000 [--calm]
//! ```

use std::process::ExitCode;
use std::time::Instant;

use zk_tests::sim::{Swarm, Tracing, run};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        args.get(at + 1)?.parse::<u64>().ok()
    };
    let flag = |name: &str| args.iter().any(|arg| arg == name);
    let (first, seeds) = match value("--seed") {
        Some(seed) => (seed, 1),
        None => (value("--from").unwrap_or(1), value("--seeds").unwrap_or(100)),
    };
    let tracing = if flag("--trace") { Tracing::On } else { Tracing::Off };
    if tracing == Tracing::Off {
        std::panic::set_hook(Box::new(|_| {}));
    }
    let draw = if flag("--calm") { Swarm::calm } else { Swarm::draw };
    let began = Instant::now();
    let mut simulated = 0;
    let mut failures = 0;
    for seed in first..first + seeds {
        let swarm = draw(seed);
        if flag("--verbose") {
            println!("{swarm:?}");
        }
        let report = run(swarm, tracing);
        simulated += report.simulated_us;
        if let Some(violation) = &report.violation {
            failures += 1;
            println!("seed {seed}: {violation}\n  {:?}", report.counts);
            println!("  replay: cargo run --profile sim -p zk-tests --bin simulate -- --seed {seed} --trace");
        } else if seeds == 1 || flag("--verbose") {
            println!("seed {seed}: fine, hash {:016x}, {:?}", report.hash, report.counts);
        }
    }
    let (wall, simulated) = (began.elapsed().as_secs_f64(), simulated as f64 / 1e6);
    println!(
        "{seeds} seeds, {failures} failures, {simulated:.0} simulated s in {wall:.1} s: {:.0} per s",
        simulated / wall
    );
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
