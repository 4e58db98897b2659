//! The bytes between servers: election port and quorum port.
//!
//! | file | bytes |
//! |---|---|
//! | `hello` | what the dialer of an election port says first |
//! | `notification` | votes, framed |
//! | `sasl` | the authentication that may come before either channel's first message |
//! | `packet` | the quorum port's packets, as they lie on the wire |
//! | `to_leader`, `to_learner` | what packets mean, one type per direction |
//! | `snap_stream` | the tree that follows a SNAP packet |
//! | `learner_stream` | everything that a leader sends: packets, trees, packets again |
//!
//! Decoders are incremental and stay in step with whatever pieces bytes arrive in. None trusts a length: no
//! room is made for bytes that have not arrived, and each has a bound. Any error means that the peer does not
//! speak the protocol: close the connection (a [`Notification`] alone may be dropped instead).
//!
//! Integers are big-endian; buffers and strings have an `int` length in front, -1 for null.

mod hello;
mod learner_stream;
mod notification;
mod packet;
mod sasl;
mod snap_stream;
mod to_leader;
mod to_learner;

#[cfg(test)]
mod tests;

use zk_proto::DecodeError;

pub use hello::{Hello, HelloForm};
pub use learner_stream::{LearnerStream, StreamItem, StreamOptions};
pub use notification::{Notification, next_frame};
pub use packet::{QuorumPacket, kind};
pub use sasl::{QuorumAuth, SaslStatus};
pub use snap_stream::{SnapProgress, SnapStreamDecoder, SnapStreamEncoder};
pub use to_leader::{LearnerInfo, ToLeader};
pub use to_learner::ToLearner;

use crate::storage::LoadError;

/// The version of Zab that a learner and a leader tell each other: 1.0. Smaller ones lack the epoch handshake.
pub const PROTOCOL_VERSION: i32 = 0x10000;

/// Why the bytes of a peer make no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The first long of an election connection is neither a version in use nor a server id.
    #[error("unknown version {0} of the hello")]
    HelloVersion(i64),
    /// The length of a hello's addresses is not in 1..=2048.
    #[error("hello with {0} bytes of addresses")]
    HelloLength(i32),
    /// A hello's addresses are not `host:port|host:port|...`.
    #[error("hello with the address {0:?}")]
    HelloAddress(String),
    /// The length of an election frame is not in 1..=524288.
    #[error("election frame of {0} bytes")]
    FrameLength(i32),
    /// No form of a notification has this length.
    #[error("notification of {0} bytes")]
    NotificationLength(usize),
    /// The configuration's length is negative, or larger than what is left of the notification.
    #[error("notification with {0} bytes of configuration")]
    NotificationConfigLength(i32),
    /// The state of a notification is none.
    #[error("notification with the state {0}")]
    NotificationState(i32),
    /// A length in a packet is negative or above the bound.
    #[error("packet of type {kind} with {length} {what}, at most {max} are taken")]
    Length {
        /// The packet's type.
        kind: i32,
        /// Of what.
        what: &'static str,
        /// The length found.
        length: i32,
        /// The bound.
        max: usize,
    },
    /// The data of a packet has not the form that its type prescribes.
    #[error("packet of type {kind} with bad data: {source}")]
    Data {
        /// The packet's type.
        kind: i32,
        /// What is wrong.
        source: DecodeError,
    },
    /// A field of a packet has a value that its type does not allow.
    #[error("packet of type {kind} with {what} {value:#x}")]
    Value {
        /// The packet's type.
        kind: i32,
        /// The field.
        what: &'static str,
        /// Its value.
        value: i64,
    },
    /// An authentication message does not begin with its magic number, or has an impossible status or length.
    #[error("authentication message with {what} {value:#x}")]
    Sasl {
        /// The field.
        what: &'static str,
        /// Its value.
        value: i64,
    },
    /// The tree behind a SNAP packet is malformed.
    #[error("snapshot stream broken at byte {offset}: {reason}")]
    Snapshot {
        /// Offset in the stream.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// No tree can hold a node of the stream.
    #[error("snapshot stream refused at byte {offset}: {source}")]
    Refused {
        /// Offset of the node in the stream.
        offset: u64,
        /// The reason.
        source: LoadError,
    },
    /// Bytes came after an error.
    #[error("the connection was already given up")]
    GivenUp,
}
