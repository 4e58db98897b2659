//! Fuzz targets: for each parser of bytes from outside a function that takes any bytes and panics when a
//! promise is broken. `tests/fuzz.rs` runs them on mutated seeds in every `cargo test`; `fuzz/` runs the same
//! functions under libFuzzer.

mod connection;
mod disk;
pub mod mutate;
mod proto;
mod text;
mod txn;

use peak_alloc::PeakAlloc;

/// A parser under attack.
pub struct Target {
    /// Name, as of its libFuzzer binary and its directory of seeds.
    pub name: &'static str,
    /// Valid inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// What it may allocate beside four times the input. [`MIB`] for a parser.
    pub fixed_bytes: usize,
    /// Feeds one input; panics when the parser breaks a promise.
    pub run: fn(&[u8]),
}

/// 2^20 bytes.
pub const MIB: usize = 1 << 20;

/// All targets.
pub const TARGETS: &[Target] = &[
    proto::CONNECT_REQUEST,
    proto::CONNECT_RESPONSE,
    proto::REQUEST,
    proto::MULTI,
    proto::SET_WATCHES,
    proto::RESPONSE,
    proto::WATCH_EVENT,
    proto::ACL,
    proto::PATH,
    txn::TXN,
    txn::WRITES,
    disk::SNAPSHOT,
    disk::LOG,
    text::CONFIG,
    text::COMMAND_LINE,
    text::ACL_RULES,
    text::AUTH,
    text::QUOTA,
    // Last, since its server goes on running.
    connection::CONNECTION,
];

/// The target with this name.
///
/// # Panics
///
/// When there is none.
pub fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|t| t.name == name).unwrap_or_else(|| panic!("no fuzz target {name}"))
}

/// Feeds `input` to the target and checks that at no time more was allocated than four times the input plus
/// what the target may. The process must have [`PeakAlloc`] as its global allocator and be otherwise quiet.
///
/// # Panics
///
/// When the target does, or when more was allocated.
pub fn run_bounded(target: &Target, input: &[u8]) {
    PeakAlloc.reset_peak_usage();
    let before = PeakAlloc.current_usage();
    (target.run)(input);
    let allocated = PeakAlloc.peak_usage().saturating_sub(before);
    let bound = 4 * input.len() + target.fixed_bytes;
    assert!(allocated <= bound, "{allocated} bytes allocated for {} bytes of input", input.len());
}

/// Checks that [`PeakAlloc`] really is the global allocator, without which [`run_bounded`] would see nothing.
///
/// # Panics
///
/// When it is not.
pub fn assert_allocations_are_counted() {
    let before = PeakAlloc.current_usage();
    let block = std::hint::black_box(vec![1u8; 1 << 16]);
    assert!(PeakAlloc.current_usage() >= before + block.len(), "PeakAlloc is not the global allocator");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_its_libfuzzer_binary() {
        let fuzz = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
        let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).expect("fuzz/Cargo.toml");
        for Target { name, .. } in TARGETS {
            let source = fuzz.join(format!("fuzz_targets/{name}.rs"));
            let source =
                std::fs::read_to_string(&source).unwrap_or_else(|e| panic!("{}: {e}", source.display()));
            assert!(source.contains(&format!("zk_fuzz::target!(\"{name}\")")), "{name}");
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in fuzz/Cargo.toml");
        }
    }
}
