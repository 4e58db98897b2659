//! What a learner asks of the world around it, and why it ends.

use std::sync::Arc;

use zk_proto::{SessionId, Zxid};

use crate::zab::ensemble::Ensemble;
use crate::zab::wire::WireError;
use crate::zab::{Epoch, PeerConn, PeerState, Proposal, ServerId};

/// What the shell is to do, in order.
///
/// Disk operations are those of the one log owner and run in the order in which they appear here; each is
/// answered by the input that its description names.
#[derive(Debug)]
pub enum Output {
    /// Connect to the quorum port of this server (addresses are resolved for each try). Answered by
    /// [`connected`](super::Learner::connected) or [`dial_failed`](super::Learner::dial_failed).
    Dial(ServerId),
    /// Write these bytes.
    Send {
        /// The connection to the leader.
        conn: PeerConn,
        /// Whole packets.
        bytes: Vec<u8>,
    },
    /// Close the connection.
    Close(PeerConn),

    /// Disk: make this the accepted epoch. Answered by [`accepted_written`](super::Learner::accepted_written).
    WriteAccepted(Epoch),
    /// Disk: cut everything behind this transaction out of the log, and rebuild the tree (and the history
    /// window) from what is left. Answered by [`truncated`](super::Learner::truncated).
    Truncate(Zxid),
    /// What follows the SNAP packet on the connection is a tree: read it aside. Answered by
    /// [`snapshot_received`](super::Learner::snapshot_received). Dropped when the learner ends first.
    ReceiveSnapshot {
        /// The transaction up to which the tree is complete.
        zxid: Zxid,
    },
    /// The received tree replaces the replica's tree, sessions and history window; nothing is on disk yet.
    AdoptSnapshot {
        /// The transaction up to which the tree is complete.
        zxid: Zxid,
    },
    /// Apply these to the tree although they are not on disk: they are all committed, and nobody reads the tree
    /// before [`Output::Ready`]. They belong to the history window, too. Answered by
    /// [`staged`](super::Learner::staged).
    StageCommit {
        /// The transactions from the base of the synchronisation to NEWLEADER, gap-free.
        txns: Vec<Proposal>,
        /// Whether the tree's digest after each must be the carried one. Not so behind a received tree, which
        /// may hold effects of transactions that follow it.
        check_digests: bool,
    },
    /// Disk: append what was staged (nothing, perhaps), make the whole log durable, then make this the current
    /// epoch. Answered by [`history_durable`](super::Learner::history_durable).
    CommitSync(Epoch),
    /// Disk: make the tree, as it is now, the base of everything on disk, and this the current epoch, in one
    /// durable step. What was staged is in the tree. Answered by
    /// [`history_durable`](super::Learner::history_durable).
    Install {
        /// The last transaction in the tree.
        zxid: Zxid,
        /// The leader's epoch.
        epoch: Epoch,
    },
    /// Disk: append. Enqueue it in the replica and the history window. Answered by
    /// [`durable`](super::Learner::durable).
    Propose(Proposal),
    /// Everything up to here is committed: the replica applies what is durable, too.
    Commit(Zxid),

    /// The ensemble has this leader's history: serve clients.
    Ready {
        /// The leader's epoch, for the own vote.
        epoch: Epoch,
        /// Everything up to here is committed.
        committed: Zxid,
    },
    /// The leader's answer about a session that a client wants to go on with.
    Revalidated {
        /// The session.
        session: SessionId,
        /// Whether it is alive, and this server's now.
        valid: bool,
    },
    /// The oldest sync that was forwarded may be answered as soon as everything up to here is applied.
    SyncDone {
        /// Committed by then.
        after: Zxid,
    },
    /// A newer configuration was proposed: it is the last seen one now.
    ConfigSeen(Arc<Ensemble>),
    /// A newer configuration is in force.
    Activate {
        /// The configuration.
        ensemble: Arc<Ensemble>,
        /// Who shall lead it; `None`: as it comes.
        designated: Option<ServerId>,
    },
    /// Something that a person should know, although following goes on or will be tried again.
    Alarm(Alarm),
    /// It is over: drop the learner. The connection was closed by a [`Output::Close`] before, if there was one.
    Ended(Ended),
}

/// How following ended, and how to go on.
#[derive(Debug)]
pub struct Ended {
    /// Why.
    pub reason: Reason,
    /// Dial the same leader again with a new learner; `false`: see [`next`](Self::next).
    pub redial: bool,
    /// Who does what next, when a reconfiguration has said it; `None`: look for a leader (unless `redial`).
    pub next: Option<(PeerState, ServerId)>,
    /// Tree, sessions and history window hold something that the disk does not: rebuild them from the disk once
    /// all its operations are finished. (`false`: then they are what the disk holds once the operations asked
    /// for are finished. Completions that arrive after the end still count: for the epochs, for example.)
    pub rebuild: bool,
    /// To be given to the next learner.
    pub memory: Memory,
}

/// What a learner has to know about the attempts before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// The own history cannot be repaired by what the leader sent: ask it for its tree.
    pub ask_snapshot: bool,
    /// How often in a row the same leader's synchronisation was refused.
    pub refused: u32,
    /// The own tree differs from the leader's, and the leader's has not been fetched yet.
    pub diverged: bool,
    /// The epoch in which a tree was fetched because a digest differed. It happens once per epoch: Apache's
    /// trees can differ in their digests for harmless reasons, and the next tree would have the same.
    pub resynced_in: Option<Epoch>,
}

impl Memory {
    /// For a learner that follows an election.
    pub fn after_election(self) -> Self {
        Memory { ask_snapshot: self.diverged, refused: 0, ..self }
    }
}

/// Why following ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// No try to connect has succeeded.
    #[error("cannot connect to the leader")]
    CannotConnect,
    /// The connection is gone.
    #[error("the leader has closed the connection")]
    Closed,
    /// Nothing was heard for too long.
    #[error("nothing heard from the leader for {0} ms")]
    Silent(u64),
    /// Undecodable bytes.
    #[error("the leader sent nonsense: {0}")]
    Wire(#[from] WireError),
    /// A packet that has no place in this phase.
    #[error("the leader sent {packet} while {phase}")]
    Unexpected {
        /// The packet's name.
        packet: &'static str,
        /// What the learner was doing.
        phase: &'static str,
    },
    /// The leader's epoch is older than one accepted before.
    #[error("the leader's epoch {found} is older than the accepted epoch {accepted}")]
    OldEpoch {
        /// The accepted epoch.
        accepted: Epoch,
        /// The leader's.
        found: Epoch,
    },
    /// NEWLEADER of another epoch than LEADERINFO.
    #[error("NEWLEADER {found} from the leader of epoch {expected}")]
    WrongEpoch {
        /// The epoch of LEADERINFO.
        expected: Epoch,
        /// The zxid of NEWLEADER.
        found: Zxid,
    },
    /// A transaction does not follow the one before it.
    #[error("transaction {found} was proposed behind {after}")]
    Gap {
        /// The last one that is here.
        after: Zxid,
        /// The one that came.
        found: Zxid,
    },
    /// A transaction of an epoch that the leader does not lead.
    #[error("transaction {found} was proposed by the leader of epoch {epoch}")]
    ForeignEpoch {
        /// The leader's epoch.
        epoch: Epoch,
        /// The transaction.
        found: Zxid,
    },
    /// A commit for something else than the next proposal.
    #[error("commit of {found}, expected {}", DisplayOption(*.expected))]
    CommitOutOfOrder {
        /// The oldest proposal that is not committed.
        expected: Option<Zxid>,
        /// The zxid of the COMMIT.
        found: Zxid,
    },
    /// The leader announced transactions up to `announced` and sent fewer.
    #[error("the leader announced transactions up to {announced} and sent them up to {found}")]
    Incomplete {
        /// The zxid of DIFF.
        announced: Zxid,
        /// The last committed transaction before NEWLEADER.
        found: Zxid,
    },
    /// DIFF up to a transaction before the own last one.
    #[error("DIFF up to {target}, but the own history ends with {last}")]
    DiffBehind {
        /// The zxid of DIFF.
        target: Zxid,
        /// The own last transaction.
        last: Zxid,
    },
    /// TRUNC below what is known committed.
    #[error("TRUNC to {target} would cut off transactions that were committed, up to {committed}")]
    TruncBelowCommitted {
        /// The zxid of TRUNC.
        target: Zxid,
        /// The highest transaction known committed.
        committed: Zxid,
    },
    /// The log cannot be cut there.
    #[error("cannot truncate to {0}")]
    CannotTruncate(Zxid),
    /// The tree is not what the leader's was after the same transaction.
    #[error("the tree after transaction {0} differs from the leader's")]
    Diverged(Zxid),
    /// A tree was asked for, something else came.
    #[error("asked for a snapshot, the leader sent {0}")]
    NoSnapshot(&'static str),
    /// The configuration in NEWLEADER or in a reconfiguration is malformed.
    #[error("malformed configuration: {0}")]
    Config(String),
    /// A reconfiguration has changed this server's role or the leader.
    #[error("the configuration of version {0:x} is in force")]
    Reconfigured(i64),
}

/// A zxid that may be absent, for a sentence.
struct DisplayOption(Option<Zxid>);

impl std::fmt::Display for DisplayOption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(zxid) => zxid.fmt(f),
            None => f.write_str("none"),
        }
    }
}

/// Something for the log that a person should see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Alarm {
    /// The leader wanted to cut off committed transactions: it has a hole in its history, or the ensemble has
    /// lost them.
    #[error(
        "the leader of epoch {epoch} wants transactions behind {target} undone, committed up to {committed}"
    )]
    TruncBelowCommitted {
        /// The leader's epoch.
        epoch: Epoch,
        /// The zxid of TRUNC.
        target: Zxid,
        /// The highest transaction known committed here.
        committed: Zxid,
    },
    /// The leader's tree is older than what is known committed here.
    #[error("the leader of epoch {epoch} sends a tree of {zxid}, committed up to {committed}")]
    SnapshotBelowCommitted {
        /// The leader's epoch.
        epoch: Epoch,
        /// The tree's last transaction.
        zxid: Zxid,
        /// The highest transaction known committed here.
        committed: Zxid,
    },
    /// The tree differs from the leader's.
    #[error("the tree after transaction {zxid} differs from that of the leader of epoch {epoch}{}",
        if *.resync { ": fetching the leader's" } else { ", again: serving on" })]
    Diverged {
        /// The leader's epoch.
        epoch: Epoch,
        /// The first transaction after which it was seen.
        zxid: Zxid,
        /// Whether the leader's tree will be fetched.
        resync: bool,
    },
}
