//! Identifiers: transaction and session ids.

use std::fmt;

/// A transaction id: epoch in the high 32 bits, counter in the low 32. Ordered as a signed integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Zxid(pub i64);

impl Zxid {
    /// Before any transaction.
    pub const ZERO: Zxid = Zxid(0);

    /// Puts an id together.
    pub fn new(epoch: u32, counter: u32) -> Self {
        Zxid((i64::from(epoch) << 32) | i64::from(counter))
    }

    /// The leader's epoch in which the transaction was proposed.
    pub fn epoch(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Position within the epoch.
    pub fn counter(self) -> u32 {
        self.0 as u32
    }

    /// The following id in the same epoch; `None` when the counter is used up and a new epoch is due.
    pub fn next(self) -> Option<Zxid> {
        (self.counter() != u32::MAX).then(|| Zxid(self.0 + 1))
    }
}

impl fmt::Display for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}

/// A session id. Shown as Apache does: hex of the 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SessionId(pub i64);

impl SessionId {
    /// "No session yet" in a connect request, "refused" in its answer.
    pub const NONE: SessionId = SessionId(0);
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}
