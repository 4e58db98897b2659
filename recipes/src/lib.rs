//! Coordination recipes on top of [`zk_client`]: leader election and locks that say when they are lost, fence
//! what they protect, clean up after themselves when a future is dropped, and share their lines with Apache
//! Curator and kazoo.
//!
//! They use the public client API only, so they run against any ZooKeeper.
//!
//! * [`LeaderLatch`]: one of many leads, for the life of a process.
//! * [`DistributedLock`]: exclusive, first come first served.
//! * [`Held`]: what guards have in common: [`lost()`](Held::lost), [`fenced()`](Held::fenced),
//!   [`token()`](Held::token).

mod contender;
mod error;
mod held;
mod latch;
mod layout;
mod lock;
mod token;

pub use error::{RecipeError, Result};
pub use held::{Held, LossReason, OnSuspend};
pub use latch::{LatchBuilder, LeaderLatch, LeaderTerm, Leadership};
pub use layout::Layout;
pub use lock::{DistributedLock, LockBuilder, LockGuard, Participant};
pub use token::{FencingToken, Sequencer};
