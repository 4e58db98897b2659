//! Shows that the simulator finds mistakes: makes one after the other, and counts the seeds until it is noticed.
//!
//! ```text
//! cargo run --profile sim -p zk-tests --features mutations --bin mutations
//! ```

use std::process::ExitCode;

use zk_server::mutation::{self, Mutation};
use zk_tests::sim::{Swarm, Tracing, run};

/// A mistake that is not noticed with so many seeds is not noticed.
const SEEDS_MAX: u64 = 300;

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|_| {}));
    let mut all_found = true;
    println!("| mistake | seeds | noticed as |\n|---|---|---|");
    let only = std::env::args().nth(1);
    for mutation in Mutation::ALL {
        if only.as_ref().is_some_and(|only| *only != format!("{mutation:?}")) {
            continue;
        }
        mutation::set(Some(mutation));
        let violation = |seed| run(Swarm::draw(seed), Tracing::Off).violation.map(|text| (seed, text));
        let found = (1..=SEEDS_MAX).find_map(violation);
        match found {
            Some((seeds, text)) => {
                let line = text.lines().next().unwrap_or_default();
                println!("| {mutation:?} | {seeds} | {} |", line.chars().take(120).collect::<String>());
            }
            None => {
                println!("| {mutation:?} | more than {SEEDS_MAX} | not noticed |");
                all_found = false;
            }
        }
    }
    if all_found { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
