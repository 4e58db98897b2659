//! Runs every fuzz target on its seeds and on mutations of them, for `FUZZ_SECONDS` (default 2) each. The
//! inputs are the same in every run unless `FUZZ_SEED` says otherwise. For coverage-guided fuzzing of the same
//! targets see `fuzz/README.md`.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::str::FromStr;
use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;
use zk_tests::fuzz::{MIB, TARGETS, Target, assert_allocations_are_counted, mutate, run_bounded};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// No parser may take this long, however slow the machine.
const INPUT_TIME_MAX: Duration = Duration::from_secs(5);

// One test for all targets: what a target allocates is counted for the whole process, so that nothing else may
// run beside it.
#[test]
fn no_input_breaks_a_parser() {
    assert_allocations_are_counted();
    assert_broken_parsers_are_noticed();
    let time = Duration::from_secs_f64(env_or("FUZZ_SECONDS", 2.0));
    let seed = env_or("FUZZ_SEED", 1);
    let only = std::env::var("FUZZ_TARGET").ok();
    for target in TARGETS.iter().filter(|t| only.as_deref().is_none_or(|name| name == t.name)) {
        let runs = fuzz(target, time, seed);
        println!("{:<20} {runs:>10} inputs", target.name);
    }
}

/// The harness itself: what must fail, fails.
fn assert_broken_parsers_are_noticed() {
    let broken = |run| Target { name: "broken", seeds: || vec![vec![]], fixed_bytes: MIB, run };
    for target in
        [broken(|_| panic!("on purpose")), broken(|_| drop(std::hint::black_box(vec![1u8; MIB + 4096])))]
    {
        let caught = catch_unwind(AssertUnwindSafe(|| run_bounded(&target, b"")));
        assert!(caught.is_err(), "a broken parser was not noticed");
    }
}

fn fuzz(target: &Target, time: Duration, seed: u64) -> u64 {
    let seeds = (target.seeds)();
    assert!(!seeds.is_empty(), "{} has no seeds", target.name);
    seeds.iter().for_each(|input| run_one(target, input));
    let mut rng = fastrand::Rng::with_seed(seed);
    let end = Instant::now() + time;
    let mut runs = seeds.len() as u64;
    while Instant::now() < end {
        for _ in 0..100 {
            run_one(target, &mutate::mutated(&seeds, &mut rng));
        }
        runs += 100;
    }
    runs
}

fn run_one(target: &Target, input: &[u8]) {
    let start = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(|| run_bounded(target, input)));
    if result.is_err() || start.elapsed() > INPUT_TIME_MAX {
        let hex: String = input.iter().map(|b| format!("{b:02x}")).collect();
        eprintln!("fuzz target {} fails or takes {:?} on {hex}", target.name, start.elapsed());
        resume_unwind(result.err().unwrap_or_else(|| Box::new("too slow")));
    }
}

fn env_or<T: FromStr>(name: &str, default: T) -> T {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => default,
    }
}
