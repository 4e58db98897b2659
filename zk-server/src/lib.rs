//! Placeholder of the workspace skeleton.

pub mod storage;
pub mod watch;
