//! Sessions: their ids, passwords and timeouts, and when they expire.
//!
//! Nothing here knows a connection or a clock: connections are opaque owners, and the time is an argument, in
//! milliseconds of a monotonic clock. A wall clock would expire every session when somebody sets it.

mod id;
mod password;
mod timeout;
mod tracker;

pub use id::SessionIdGenerator;
pub use password::{PASSWORD_BYTES, password, password_matches};
pub use timeout::TimeoutLimits;
pub use tracker::{NO_OWNER, SessionTracker};
