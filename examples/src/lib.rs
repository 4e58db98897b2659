//! The parts of the runnable examples that tests use too.

#[path = "../master-worker/mod.rs"]
pub mod master_worker;
