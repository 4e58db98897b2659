//! What a connection asks, and what the answers must be.

use zk_proto::{ErrorCode, ReplyHeader};

mod read;
#[cfg(test)]
mod tests;
mod tree;
mod write;

pub use read::{Children, Exists, Get};
pub use tree::{BulkCreate, Create, CreateDelete, LockCycle, create_request};
pub use write::{Mixed, MultiSet, Set};

/// The requests of one connection. A script is asked for the next request whenever one may go out, and gets
/// the answers in the same order.
pub trait Script {
    /// Kinds of requests whose latencies are kept apart.
    const KINDS: &'static [&'static str];

    /// What [`Script::check`] must know of a request.
    type Sent: Copy;

    /// Appends the frame of the next request to `out`; `None` when it depends on an answer still to come.
    fn next(&mut self, xid: i32, out: &mut Vec<u8>) -> Option<Self::Sent>;

    /// The index in [`Script::KINDS`] of a request.
    fn kind(_sent: &Self::Sent) -> usize {
        0
    }

    /// Looks at the answer to the oldest request under way; its xid has been checked.
    fn check(&mut self, sent: Self::Sent, header: ReplyHeader, body: &[u8]) -> Verdict;
}

/// What an answer is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As it must be.
    Right,
    /// Not what was asked for, and why.
    Wrong(&'static str),
    /// An error code that was not expected.
    Failed,
}

impl From<bool> for Verdict {
    fn from(right: bool) -> Self {
        if right { Verdict::Right } else { Verdict::Wrong("wrong content") }
    }
}

/// `right`, unless the header has an error.
fn unless_failed(header: ReplyHeader, right: impl FnOnce() -> bool) -> Verdict {
    if header.err == ErrorCode::OK { Verdict::from(right()) } else { Verdict::Failed }
}
