//! What goes into the leader as options, and what comes out of it.

use std::sync::Arc;

use bytes::Bytes;
use zk_proto::{SessionId, Zxid};

use super::{Ensemble, Epoch, PeerConn, ServerId};
use crate::auth::Identity;
use crate::zab::wire::WireError;

/// Settings of a leader; the names are those of the configuration.
#[derive(Debug, Clone)]
pub struct LeaderOptions {
    /// `tickTime`, ms.
    pub tick_ms: u64,
    /// `initLimit`, ticks: for each wait until the leadership is active, and for a learner to take over the history.
    pub init_limit_ticks: u32,
    /// `syncLimit`, ticks: longest silence of a learner, longest wait for the acknowledgement of a proposal.
    pub sync_limit_ticks: u32,
    /// `leader.maxTimeToWaitForEpoch`, ms: how long a voter that looks for a leader is ignored while no quorum has
    /// told its epoch. `None`: for `initLimit`.
    pub max_wait_for_epoch_ms: Option<u64>,
    /// `reconfigEnabled`.
    pub reconfig_enabled: bool,
    /// `standaloneEnabled`: a reconfiguration must leave two servers with a vote.
    pub standalone_enabled: bool,
    /// `multiAddress.enabled`: a reconfiguration may give a server several addresses.
    pub multi_address: bool,
    /// `forceSnapshotSync`.
    pub force_snapshot: bool,
    /// `snapshotSizeFactor`: log is read from disk for a learner up to this share of a snapshot's size; 0 for any
    /// size, `None` for never.
    pub snapshot_size_factor: Option<f64>,
    /// A diverged learner that can also be truncated gets a snapshot if that is not larger than this: Apache's
    /// learners may keep a snapshot of what they were told to truncate.
    pub snapshot_instead_of_truncation_bytes: u64,
    /// `leader.maxConcurrentSnapSyncs`: an observer that would be one more is closed.
    pub concurrent_snapshots_max: u32,
    /// `leader.maxConcurrentDiffSyncs`: an observer that would be one more is closed.
    pub concurrent_diffs_max: u32,
    /// A learner with more unsent bytes than this is closed.
    pub backlog_bytes_max: usize,
    /// Answer `sync` only after a quorum has confirmed that this server still leads. Costs a round trip; without it
    /// a deposed leader may answer until it notices.
    pub confirm_syncs: bool,
    /// When the counter of zxids has come this far, the leader steps down at the next moment without outstanding
    /// proposals, so that a new epoch begins before the last zxid is used up in the middle of work.
    pub roll_over_counter: u32,
}

impl Default for LeaderOptions {
    fn default() -> Self {
        LeaderOptions {
            tick_ms: 3000,
            init_limit_ticks: 10,
            sync_limit_ticks: 5,
            max_wait_for_epoch_ms: None,
            reconfig_enabled: false,
            standalone_enabled: true,
            multi_address: false,
            force_snapshot: false,
            snapshot_size_factor: Some(0.33),
            snapshot_instead_of_truncation_bytes: 16 << 20,
            concurrent_snapshots_max: 10,
            concurrent_diffs_max: 100,
            backlog_bytes_max: 256 << 20,
            confirm_syncs: true,
            roll_over_counter: 0xffff_0000,
        }
    }
}

impl LeaderOptions {
    pub(super) fn init_limit_ms(&self) -> u64 {
        self.tick_ms.saturating_mul(u64::from(self.init_limit_ticks))
    }

    pub(super) fn sync_limit_ms(&self) -> u64 {
        self.tick_ms.saturating_mul(u64::from(self.sync_limit_ticks))
    }
}

/// What the leader wants done, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Write to a learner, behind everything that was written before.
    Send {
        /// To whom.
        conn: PeerConn,
        /// Whole packets.
        bytes: Vec<u8>,
    },
    /// Close a connection, also in the middle of a snapshot; it need not be reported as closed.
    Close {
        /// Which one.
        conn: PeerConn,
        /// Whose it is, if it has said so.
        sid: Option<ServerId>,
        /// For the log.
        reason: CloseReason,
    },
    /// Write the accepted epoch durably, then call [`super::Leader::accepted_written`].
    WriteAccepted(Epoch),
    /// Make the own history durable, then write the current epoch durably, then call
    /// [`super::Leader::history_durable`].
    CommitSync(Epoch),
    /// Read the own log: `from < zxid <= to`, provided that `from` is provably on its chain and it takes at most
    /// `bytes_max` bytes. Answer with [`super::Leader::chain`].
    ReadChain {
        /// For whom.
        conn: PeerConn,
        /// The last zxid that the learner has.
        from: Zxid,
        /// The last zxid wanted.
        to: Zxid,
        /// Give up beyond this size.
        bytes_max: u64,
    },
    /// Pin the tree, and at once, before anything else is applied, call [`super::Leader::snapshot_pinned`].
    PinSnapshot {
        /// For whom.
        conn: PeerConn,
    },
    /// Write the pinned tree as a raw stream behind what was sent (SNAP was the last packet), then call
    /// [`super::Leader::snapshot_sent`]. Nothing else is sent to the learner until then.
    StreamSnapshot {
        /// To whom.
        conn: PeerConn,
    },
    /// A quorum has taken over the history: all of it is committed. Serve clients; the next zxid is
    /// `epoch.start() + 1`. From now on the vote in notifications carries this epoch.
    Active {
        /// The epoch that has begun.
        epoch: Epoch,
    },
    /// Everything up to here is committed.
    Commit(Zxid),
    /// A request that a learner forwards.
    Request {
        /// From where.
        conn: PeerConn,
        /// From whom; it owns the session if nobody did.
        sid: ServerId,
        /// The client's session.
        session: SessionId,
        /// The client's request number.
        cxid: i32,
        /// Type of the request; not checked.
        op: i32,
        /// The record; not checked.
        body: Bytes,
        /// The client's identities; empty for requests of the server itself.
        auth: Vec<Identity>,
    },
    /// Sessions whose clients were heard by a learner.
    Touch {
        /// The learner.
        sid: ServerId,
        /// The sessions and their timeouts, ms.
        sessions: Vec<(SessionId, i32)>,
    },
    /// A client wants to go on with its session at a learner. Answer with [`super::Leader::revalidated`].
    Revalidate {
        /// From where.
        conn: PeerConn,
        /// The learner: the session's owner from now on.
        sid: ServerId,
        /// The session.
        session: SessionId,
        /// Its timeout, ms.
        timeout_ms: i32,
    },
    /// The `sync` with this ticket is done: answer when everything committed so far is applied.
    SyncDone(u64),
    /// Keep this configuration as the newest one that was proposed.
    ConfigSeen(Arc<Ensemble>),
    /// A new configuration is in force.
    Activate {
        /// The transaction that made it, or the start of the epoch.
        zxid: Zxid,
        /// The configuration.
        ensemble: Arc<Ensemble>,
        /// Who leads in it. Another server: this one commits nothing more and steps down when its followers left.
        designated: ServerId,
    },
    /// The leadership is over.
    StepDown(StepDownReason),
}

/// Why a connection of a learner is closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// Undecodable bytes.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A packet at the wrong time.
    #[error("{what} instead of: {step}")]
    Unexpected {
        /// The packet.
        what: &'static str,
        /// What was due.
        step: &'static str,
    },
    /// A learner from before 3.4.
    #[error("protocol version {0:#x} is too old")]
    Protocol(i32),
    /// The learner has the id of this server.
    #[error("it claims this server's own id {0}")]
    OwnId(ServerId),
    /// The same server has connected again.
    #[error("a newer connection of server {0} replaces it")]
    Replaced(ServerId),
    /// Its configuration is newer than ours.
    #[error("its configuration {theirs:#x} is newer than ours, {ours:#x}")]
    ConfigAhead {
        /// The learner's version.
        theirs: i64,
        /// The version in force here.
        ours: i64,
    },
    /// Its accepted epoch would exhaust the epochs.
    #[error("it claims to have accepted epoch {0}, which is too far ahead")]
    EpochJump(Epoch),
    /// It knows an epoch or transactions that this leader does not.
    #[error("it is ahead: history of epoch {epoch:?} up to {last}")]
    Ahead {
        /// Epoch of its history.
        epoch: Option<Epoch>,
        /// End of its log.
        last: Zxid,
    },
    /// It acknowledged something that it was not sent.
    #[error("it acknowledges {0}, which it was not sent")]
    BadAck(Zxid),
    /// Too many observers are being synchronised.
    #[error("{0} synchronisations run already")]
    Throttled(u32),
    /// Too many connections have not said who they are.
    #[error("too many connections")]
    TooMany,
    /// It does not take its bytes.
    #[error("{0} bytes wait for it")]
    Backlog(usize),
    /// It was silent for too long.
    #[error("nothing heard for {0} ms")]
    Silent(u64),
    /// It did not acknowledge a proposal in time.
    #[error("no acknowledgement of {0} in time")]
    AckOverdue(Zxid),
    /// It sends packets, but no answers to PINGs.
    #[error("{0} PINGs without answer")]
    PingsUnanswered(usize),
    /// The tree that was pinned for it does not lie in the window of recent transactions.
    #[error("the snapshot at {0} cannot be continued")]
    Snapshot(Zxid),
}

/// Why a leadership ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepDownReason {
    /// No quorum has told its epoch in time.
    #[error("no quorum has told its epoch in time")]
    EpochTimeout,
    /// A voter looks for a leader while no quorum has told its epoch.
    #[error("voter {0} looks for a leader again")]
    Abandoned(ServerId),
    /// No quorum has accepted the epoch in time.
    #[error("no quorum has accepted the epoch in time")]
    EpochAckTimeout,
    /// No quorum can accept the epoch, too many voters know more.
    #[error("other voters know more than this server")]
    NotMostRecent,
    /// No quorum has taken over the history in time.
    #[error("no quorum has taken over the history in time")]
    NewLeaderTimeout,
    /// No epoch is left.
    #[error("the epochs are used up")]
    EpochsExhausted,
    /// No quorum is connected any more.
    #[error("no quorum of followers is connected")]
    LostQuorum,
    /// The zxids of the epoch are used up.
    #[error("the zxids of the epoch are used up")]
    RollOver,
    /// A reconfiguration has designated another leader.
    #[error("another server was designated to lead")]
    NotDesignated,
    /// The server stops.
    #[error("shutdown")]
    Shutdown,
}

/// The log could not be read for a learner: `from` is not provably on its chain, it has a gap, or it is too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokenChain;

/// Why a reconfiguration cannot be proposed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReconfigRefusal {
    /// Not active, or another one is not committed yet: ReconfigInProgress.
    InProgress,
    /// No quorum of the new configuration is connected and synchronised: NewConfigNoQuorum.
    NoQuorum,
}

/// A leader, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderStatus {
    /// The epoch, when it is chosen.
    pub epoch: Option<Epoch>,
    /// Clients may be served.
    pub active: bool,
    /// The last committed zxid.
    pub committed: Zxid,
    /// The last proposed zxid.
    pub proposed: Zxid,
    /// The connected learners.
    pub learners: Vec<LearnerStatus>,
}

/// A connected learner, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LearnerStatus {
    /// Its connection.
    pub conn: PeerConn,
    /// Its id.
    pub sid: ServerId,
    /// It acknowledges proposals (an observer does not).
    pub follower: bool,
    /// It has a vote.
    pub voter: bool,
    /// It has the whole history.
    pub synced: bool,
    /// The last transaction that it has acknowledged.
    pub acked: Zxid,
}
