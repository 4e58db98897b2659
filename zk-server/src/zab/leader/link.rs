//! What the leader knows of one connected learner.

use std::collections::VecDeque;

use zk_proto::Zxid;

use super::{Epoch, Proposal, ServerId, ToLeader};

/// Connections that have not said who they are: more are closed at once.
pub(super) const UNKNOWN_MAX: usize = 256;
/// What may wait for the end of a snapshot, in multiples of the normal limit: sending it takes its time.
pub(super) const STREAMING_BACKLOG: usize = 4;

/// How far a learner has come. A packet that does not belong to the step closes the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It has to say who it is.
    Info,
    /// It waits for LEADERINFO.
    LeaderInfo,
    /// It has to accept the epoch.
    AckEpoch,
    /// It has accepted; a quorum has not, or its transfer cannot be chosen yet.
    Waiting,
    /// The log is being read for it.
    Reading,
    /// The tree is being pinned for it.
    Pinning,
    /// It gets all live packets; NEWLEADER is on its way and has to be acknowledged.
    Syncing,
    /// It has the whole history.
    Synced,
}

impl Step {
    /// For the log.
    pub(super) fn name(self) -> &'static str {
        match self {
            Step::Info => "first packet",
            Step::LeaderInfo | Step::Waiting | Step::Reading | Step::Pinning => "waiting",
            Step::AckEpoch => "answer to LEADERINFO",
            Step::Syncing => "answer to NEWLEADER",
            Step::Synced => "synchronised",
        }
    }
}

/// What a transfer costs, for the limits on concurrent ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TransferKind {
    /// Transactions, after a truncation or not.
    Diff,
    /// The tree.
    Snapshot,
}

/// Records of the log that were read for a learner.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) records: Vec<Proposal>,
    pub(super) attempts: u32,
}

/// One learner's connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) step: Step,
    pub(super) sid: Option<ServerId>,
    /// It sent FOLLOWERINFO: it gets proposals and acknowledges them, whether it votes or not.
    pub(super) follower: bool,
    /// End of its log, from its ACKEPOCH.
    pub(super) last: Zxid,
    /// The epoch of its history, from its ACKEPOCH.
    pub(super) current: Option<Epoch>,
    /// What was chosen for it, until it has acknowledged NEWLEADER.
    pub(super) transfer: Option<TransferKind>,
    pub(super) reading: Reading,
    /// The committed part of the history at its cut.
    pub(super) cut: Zxid,
    /// The last transaction that was put into its outbox.
    pub(super) sent: Zxid,
    /// Its highest acknowledgement. Acknowledgements come in log order, so this one stands for all before it.
    /// Counts when the step is [`Step::Synced`].
    pub(super) acked: Zxid,
    /// The proposal that has to be acknowledged in time, and when it was sent.
    pub(super) unacked: Option<(Zxid, u64)>,
    /// When it was last heard, or was first expected to say something.
    pub(super) heard_ms: u64,
    pub(super) up_to_date: bool,
    /// A snapshot is being sent: the outbox waits behind it.
    pub(super) streaming: bool,
    pub(super) backlog: usize,
    pub(super) outbox: Vec<u8>,
    /// What was proposed and committed since NEWLEADER: it follows UPTODATE. A learner of 3.8.0 fails on a COMMIT
    /// between the two (ZOOKEEPER-4394), begins again, and logs twice what it was sent; under load it may do so for
    /// a long time.
    pub(super) held: Vec<u8>,
    /// The confirmation round of each unanswered PING. A learner answers those behind UPTODATE, all of them, in
    /// order.
    pub(super) pings: VecDeque<u64>,
    /// The newest confirmation round that it has answered.
    pub(super) confirmed: u64,
}

impl Link {
    pub(super) fn new(now_ms: u64) -> Self {
        Link {
            step: Step::Info,
            sid: None,
            follower: false,
            last: Zxid::ZERO,
            current: None,
            transfer: None,
            reading: Reading::default(),
            cut: Zxid::ZERO,
            sent: Zxid::ZERO,
            acked: Zxid::ZERO,
            unacked: None,
            heard_ms: now_ms,
            up_to_date: false,
            streaming: false,
            backlog: 0,
            outbox: Vec::new(),
            held: Vec::new(),
            pings: VecDeque::new(),
            confirmed: 0,
        }
    }

    /// Whether it gets what is proposed and committed from now on.
    pub(super) fn forwards(&self) -> bool {
        matches!(self.step, Step::Syncing | Step::Synced)
    }

    /// Sends what was proposed or committed, as soon as the learner can take it.
    pub(super) fn forward(&mut self, packets: &[u8]) {
        let to = if self.up_to_date { &mut self.outbox } else { &mut self.held };
        to.extend_from_slice(packets);
    }

    /// What it provably has on its disk.
    pub(super) fn counted_ack(&self) -> Option<Zxid> {
        (self.step == Step::Synced && self.follower).then_some(self.acked)
    }

    pub(super) fn ping_answered(&mut self) {
        if let Some(round) = self.pings.pop_front() {
            self.confirmed = self.confirmed.max(round);
        }
    }

    /// Starts the clock of an acknowledgement that is due.
    pub(super) fn expect_ack(&mut self, now_ms: u64) {
        if self.unacked.is_none() && self.step == Step::Synced && self.follower && self.sent > self.acked {
            self.unacked = Some((self.sent, now_ms));
        }
    }

    /// Takes an acknowledgement of a transaction that was sent to it.
    pub(super) fn take_ack(&mut self, zxid: Zxid, now_ms: u64) {
        self.acked = self.acked.max(zxid);
        if self.unacked.is_some_and(|(due, _)| due <= self.acked) {
            self.unacked = None;
            self.expect_ack(now_ms);
        }
    }
}

/// The packet's name.
pub(super) fn name(packet: &ToLeader) -> &'static str {
    match packet {
        ToLeader::FollowerInfo(_) => "FOLLOWERINFO",
        ToLeader::ObserverInfo(_) => "OBSERVERINFO",
        ToLeader::AckEpoch { .. } => "ACKEPOCH",
        ToLeader::Ack(_) => "ACK",
        ToLeader::Request { .. } => "REQUEST",
        ToLeader::Ping { .. } => "PING",
        ToLeader::Revalidate { .. } => "REVALIDATE",
        ToLeader::Other(_) => "a packet of an unknown type",
    }
}
