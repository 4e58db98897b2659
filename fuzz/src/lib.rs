//! Glue between libFuzzer and the targets of `zk_tests::fuzz`.

use peak_alloc::PeakAlloc;

#[doc(hidden)]
pub use {libfuzzer_sys, zk_tests::fuzz};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// The entry point of libFuzzer for the target of this name.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        $crate::libfuzzer_sys::fuzz_target!(|input: &[u8]| {
            $crate::fuzz::run_bounded($crate::fuzz::target($name), input)
        });
    };
}
