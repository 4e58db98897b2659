//! Replication: leader election and Zab, wire-compatible with Apache ZooKeeper 3.4.6 to 3.9.
//!
//! Everything here is a plain state machine: time, packets and disk completions are inputs, what is to be sent,
//! written or applied are outputs. No socket, thread, clock, file or random source; transactions are opaque bytes
//! with a zxid.
//!
//! | part | decides |
//! |---|---|
//! | `ensemble` | who belongs to the ensemble, what a quorum is; the text form of it |
//! | `wire` | the bytes on the election port and on the quorum port |
//! | `election` | who should lead; which election connections live |
//! | `leader` | epochs, synchronisation of learners, proposals, commits |
//! | `learner` | what a follower or observer does with its leader's packets, and when it acknowledges |
//! | `history` | the recent transactions that a leader sends to learners |
//!
//! **Durability invariant:** an acknowledgement is an output of the completion of the disk operation that it
//! stands for, and of nothing else.

pub mod election;
pub mod ensemble;
pub mod history;
pub mod leader;
pub mod learner;
pub mod wire;

use std::fmt;

use zk_proto::Zxid;

pub use crate::config::{Membership, PeerType, ServerId};

/// A term of leadership: the upper half of a zxid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u32);

impl Epoch {
    /// The last epoch there can be: zxids are signed.
    pub const MAX: Epoch = Epoch(i32::MAX as u32);

    /// The zxid that stands for the beginning of the epoch (its NEWLEADER); no transaction has it.
    pub fn start(self) -> Zxid {
        Zxid::new(self.0, 0)
    }

    /// The epoch of a transaction.
    pub fn of(zxid: Zxid) -> Epoch {
        Epoch(zxid.epoch())
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The two promises that a server keeps on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Epochs {
    /// The highest epoch that was accepted from a would-be leader: nothing of an older one is followed any more.
    pub accepted: Epoch,
    /// The epoch whose leader's history this server has taken over completely.
    pub current: Epoch,
}

/// A TCP connection to another server, named by the shell. Never reused while the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerConn(pub u64);

/// What a server does in its ensemble, as notifications show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerState {
    /// Looks for a leader.
    Looking,
    /// Follows, with or without a vote.
    Following,
    /// Leads.
    Leading,
    /// Follows as an observer.
    Observing,
}

/// A transaction as replication sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Its place in the history.
    pub zxid: Zxid,
    /// Header, body and digest: what a PROPOSAL carries and a log record holds.
    pub payload: bytes::Bytes,
}
