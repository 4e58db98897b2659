//! The world around a member.

use std::sync::Arc;

use zk_proto::Zxid;

use super::Recovered;
use crate::config::{HostPort, ServerSpec};
use crate::replica::messages::Shell;
use crate::storage::member::{Broken, CannotTruncate};
use crate::tree::SnapshotPin;
use crate::zab::ensemble::Ensemble;
use crate::zab::{Epoch, PeerConn, Proposal, ServerId};

/// One of the two ports for other servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerPort {
    /// Elections.
    Election,
    /// Learners of a leader.
    Quorum,
}

/// A connection that is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dial {
    /// To the election port of a server.
    Election(ServerId),
    /// To the quorum port of the leader; the number names the attempt to follow it.
    Leader(ServerId),
}

/// Which clients are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serving {
    /// None: connections are closed at once.
    No,
    /// Those that are content with reading what may be old.
    ReadOnly,
    /// All.
    Yes,
}

/// Something for the owner of the disk. Operations run one at a time, in order, and in order with
/// [`Shell::append`]. An operation that fails ends the process, unless said otherwise here.
#[derive(Debug)]
pub enum DiskOp {
    /// Makes the accepted epoch durable.
    WriteAccepted(Epoch),
    /// Appends these records and makes them durable, then the current epoch.
    CommitSync {
        /// What a synchronisation has brought; nothing for a leader.
        staged: Vec<Proposal>,
        /// The epoch.
        epoch: Epoch,
    },
    /// Replaces the history by the pinned tree, and makes the current epoch durable.
    Install {
        /// The tree.
        pin: Arc<SnapshotPin>,
        /// The epoch.
        epoch: Epoch,
    },
    /// Cuts the log behind a transaction, and reads everything again. May refuse.
    Truncate(Zxid),
    /// Reads everything again.
    Rebuild(u64),
    /// Only to know that everything before it is done.
    Barrier(u64),
    /// Reads a part of the log. May refuse.
    ReadChain {
        /// For whom.
        conn: PeerConn,
        /// Behind this transaction.
        from: Zxid,
        /// Up to this one.
        to: Zxid,
        /// At most so many bytes.
        bytes_max: u64,
    },
    /// Remembers what is committed, sooner or later. No answer.
    NoteCommitted(Zxid),
    /// Writes a configuration into the operator's files. No answer: the log has it.
    WriteConfig {
        /// The configuration.
        ensemble: Arc<Ensemble>,
        /// Whether it is in force, or only proposed.
        in_force: bool,
    },
}

/// An operation is done.
#[derive(Debug)]
pub enum DiskDone {
    /// [`DiskOp::WriteAccepted`].
    Accepted(Epoch),
    /// [`DiskOp::CommitSync`] and [`DiskOp::Install`]: everything up to here, and the epoch.
    Synced {
        /// The end of the log.
        last: Zxid,
        /// The current epoch.
        epoch: Epoch,
    },
    /// [`DiskOp::Truncate`].
    Truncated(Result<Box<Recovered>, CannotTruncate>),
    /// [`DiskOp::Rebuild`].
    Rebuilt(u64, Box<Recovered>),
    /// [`DiskOp::Barrier`].
    Barrier(u64),
    /// [`DiskOp::ReadChain`].
    Chain {
        /// For whom.
        conn: PeerConn,
        /// The transactions.
        result: Result<Vec<Proposal>, Broken>,
    },
}

/// What a member asks of the world around it. Called while the member runs; must not call back.
pub trait MemberShell: Shell {
    /// Runs a disk operation; [`DiskOp`] says what the answer is.
    fn disk(&mut self, op: DiskOp);
    /// Connects to the first of these addresses that answers, and answers with `Input::Dialed`.
    fn dial(&mut self, dial: Dial, addresses: Vec<HostPort>);
    /// Writes to a connection.
    fn send(&mut self, conn: PeerConn, bytes: Vec<u8>);
    /// Writes what was sent since the last call.
    fn flush(&mut self);
    /// Bytes that wait to be written to a connection.
    fn backlog(&self, conn: PeerConn) -> usize;
    /// Closes a connection when what was sent is written. `Input::Closed` may follow or not.
    fn close(&mut self, conn: PeerConn, reason: &str);
    /// Closes a connection at once on which something came that no member would send.
    fn reject(&mut self, conn: PeerConn, reason: &str);
    /// Sends a tree behind what was sent, and answers with `Input::SnapshotSent`.
    fn stream_snapshot(&mut self, conn: PeerConn, pin: Arc<SnapshotPin>);
    /// Opens or closes the quorum port.
    fn listen(&mut self, open: bool);
    /// Stops or resumes reading a connection.
    fn pause(&mut self, conn: PeerConn, paused: bool);
    /// A reconfiguration gives this server other addresses. Until it leads or is dialed anew, nobody needs them.
    fn moved(&mut self, from: &ServerSpec, to: &ServerSpec) {
        let _ = (from, to);
    }
    /// Says which clients are served from now on. Those that are connected are closed, unless it is all.
    fn serve(&mut self, serving: Serving);
}
