//! Taking over the leader's history: DIFF, TRUNC or SNAP, up to UPTODATE.
//!
//! What the leader sends before NEWLEADER is kept in memory. At NEWLEADER it is complete and free of gaps; what
//! is committed of it is applied, which compares the trees' digests; then the disk gets it, with the epoch file
//! behind it; and the completion of that is the acknowledgement. Proposals that are not committed by then take
//! the ordinary way behind it.

use crate::mutation::Mutation;
use bytes::Bytes;
use zk_proto::Zxid;

use super::in_flight::{Gap, InFlight, Proposed};
use super::{Alarm, Learner, Output, Phase, Reason, Role, name};
use crate::zab::wire::{ToLeader, ToLearner};
use crate::zab::{Epoch, Proposal};

/// How the leader brings this server to its history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transfer {
    /// By what is missing.
    Diff {
        /// How far the committed transactions before NEWLEADER will reach.
        announced: Zxid,
    },
    /// By undoing what is too much, then by what is missing.
    Trunc {
        /// Where the log was cut.
        target: Zxid,
    },
    /// By its tree.
    Snap {
        /// The transaction up to which the tree is complete.
        zxid: Zxid,
    },
}

/// The log holds no such transaction, or nothing on disk leads there: nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CannotTruncate;

impl Learner {
    pub(super) fn transfer_packet(&mut self, packet: ToLearner, out: &mut Vec<Output>) {
        match packet {
            ToLearner::Snap(zxid) => self.snap(zxid, out),
            ToLearner::Diff(_) | ToLearner::Trunc(_) if self.memory.ask_snapshot => {
                self.refuse(Reason::NoSnapshot(name(&packet)), out);
            }
            ToLearner::Diff(target) => self.diff(target, out),
            ToLearner::Trunc(target) => self.trunc(target, out),
            ToLearner::Ping(_) => {}
            _ => self.unexpected(&packet, out),
        }
    }

    fn diff(&mut self, target: Zxid, out: &mut Vec<Output>) {
        if target < self.last {
            return self.refuse(Reason::DiffBehind { target, last: self.last }, out);
        }
        self.transfer = Transfer::Diff { announced: target };
        self.phase = Phase::Syncing;
    }

    fn trunc(&mut self, target: Zxid, out: &mut Vec<Output>) {
        if target < self.committed_mark {
            let (epoch, committed) = (self.epoch, self.committed_mark);
            out.push(Output::Alarm(Alarm::TruncBelowCommitted { epoch, target, committed }));
            return self.refuse(Reason::TruncBelowCommitted { target, committed }, out);
        }
        if target > self.last {
            return self.refuse(Reason::CannotTruncate(target), out);
        }
        self.transfer = Transfer::Trunc { target };
        if target == self.last {
            self.phase = Phase::Syncing;
        } else {
            self.phase = Phase::Truncating;
            out.push(Output::Truncate(target));
        }
    }

    /// The log was cut and the tree rebuilt: the log ends with the given transaction. Or it cannot be cut.
    pub fn truncated(&mut self, now_ms: u64, result: Result<Zxid, CannotTruncate>, out: &mut Vec<Output>) {
        let Transfer::Trunc { target } = self.transfer else { return };
        if self.phase != Phase::Truncating {
            return;
        }
        self.phase = Phase::Syncing;
        match result {
            Ok(last) if last == target => {
                self.last = last;
                self.in_flight = InFlight::new(last);
                self.unpark(now_ms, out);
            }
            Ok(_) | Err(CannotTruncate) => self.refuse(Reason::CannotTruncate(target), out),
        }
    }

    fn snap(&mut self, zxid: Zxid, out: &mut Vec<Output>) {
        if zxid < self.committed_mark {
            let (epoch, committed) = (self.epoch, self.committed_mark);
            out.push(Output::Alarm(Alarm::SnapshotBelowCommitted { epoch, zxid, committed }));
        }
        self.transfer = Transfer::Snap { zxid };
        self.phase = Phase::Receiving;
        out.push(Output::ReceiveSnapshot { zxid });
    }

    /// The tree behind the SNAP packet has come completely.
    pub fn snapshot_received(&mut self, now_ms: u64) {
        let Transfer::Snap { zxid } = self.transfer else { return };
        if self.phase == Phase::Receiving {
            self.heard_ms = now_ms;
            self.in_flight = InFlight::new(zxid);
            self.phase = Phase::Syncing;
        }
    }

    pub(super) fn sync_packet(&mut self, now_ms: u64, packet: ToLearner, out: &mut Vec<Output>) {
        match packet {
            ToLearner::Proposal(proposal) => self.stage(proposal, out),
            // An activation needs no care here: the configuration of NEWLEADER is this one or a newer one.
            ToLearner::Commit(zxid) | ToLearner::CommitAndActivate { zxid, .. } => {
                self.stage_commit(zxid, out);
            }
            ToLearner::Inform(proposal) | ToLearner::InformAndActivate { proposal, .. }
                if self.role == Role::Observer =>
            {
                let zxid = proposal.zxid;
                self.stage(proposal, out);
                self.stage_commit(zxid, out);
            }
            ToLearner::NewLeader { zxid, config } => self.new_leader(now_ms, zxid, config, out),
            ToLearner::Ping(_) | ToLearner::Other(_) => {}
            _ => self.unexpected(&packet, out),
        }
    }

    fn stage(&mut self, proposal: Proposal, out: &mut Vec<Output>) {
        if Epoch::of(proposal.zxid) > self.epoch {
            return self.refuse(Reason::ForeignEpoch { epoch: self.epoch, found: proposal.zxid }, out);
        }
        match self.in_flight.propose(proposal.zxid, None) {
            Ok(Proposed::Known) => {}
            Ok(Proposed::New) => self.staged.push_back(proposal),
            Err(Gap { after, found }) => self.refuse(Reason::Gap { after, found }, out),
        }
    }

    fn stage_commit(&mut self, zxid: Zxid, out: &mut Vec<Output>) {
        if self.phase == Phase::Syncing
            && let Err(wrong) = self.in_flight.commit(zxid)
        {
            self.end(Reason::CommitOutOfOrder { expected: wrong.expected, found: wrong.found }, out);
        }
    }

    fn new_leader(&mut self, now_ms: u64, zxid: Zxid, config: Option<Bytes>, out: &mut Vec<Output>) {
        if zxid != self.epoch.start() {
            return self.end(Reason::WrongEpoch { expected: self.epoch, found: zxid }, out);
        }
        let committed = self.in_flight.committed_to();
        if let Transfer::Diff { announced } = self.transfer
            && committed < announced
        {
            return self.refuse(Reason::Incomplete { announced, found: committed }, out);
        }
        if let Err(reason) = self.announce(config, out) {
            return self.end(reason, out);
        }
        self.covered = self.staged.partition_point(|proposal| proposal.zxid <= committed);
        let snapshot = match self.transfer {
            Transfer::Snap { zxid } => Some(zxid),
            Transfer::Diff { .. } | Transfer::Trunc { .. } => None,
        };
        if let Some(zxid) = snapshot {
            self.tree_ahead = true;
            out.push(Output::AdoptSnapshot { zxid });
        }
        if self.covered == 0 {
            return self.persist(now_ms, out);
        }
        self.tree_ahead = true;
        self.phase = Phase::Verifying;
        let txns = self.staged.drain(..self.covered).collect();
        out.push(Output::StageCommit { txns, check_digests: snapshot.is_none() });
    }

    /// All transactions of [`Output::StageCommit`] were applied. The error is the first one after which the
    /// tree's digest was not the carried one, or that cannot be applied at all.
    pub fn staged(&mut self, now_ms: u64, result: Result<(), Zxid>, out: &mut Vec<Output>) {
        if self.phase != Phase::Verifying {
            return;
        }
        match result {
            Err(zxid) if self.resync(zxid, out) => self.refuse(Reason::Diverged(zxid), out),
            _ => self.persist(now_ms, out),
        }
    }

    /// The tree is right: let the disk follow.
    fn persist(&mut self, now_ms: u64, out: &mut Vec<Output>) {
        self.phase = Phase::Persisting;
        // Once it is the disk's turn, it will hold what the tree holds, whatever becomes of this attempt.
        self.tree_ahead = false;
        let epoch = self.epoch;
        if Mutation::AckNewLeaderEarly.is_on() {
            self.send([ToLeader::Ack(epoch.start())], out);
        }
        out.push(match self.transfer {
            Transfer::Snap { .. } => Output::Install { zxid: self.in_flight.committed_to(), epoch },
            Transfer::Diff { .. } | Transfer::Trunc { .. } => Output::CommitSync(epoch),
        });
        for proposal in std::mem::take(&mut self.staged) {
            if let Err(reason) = self.see_config(&proposal, out) {
                return self.end(reason, out);
            }
            out.push(Output::Propose(proposal));
        }
        self.unpark(now_ms, out);
    }

    /// The history and then the epoch file are durable: this is what the acknowledgement of NEWLEADER says.
    pub fn history_durable(&mut self, now_ms: u64, epoch: Epoch, out: &mut Vec<Output>) {
        if self.phase != Phase::Persisting || epoch != self.epoch {
            return;
        }
        self.heard_ms = now_ms;
        self.epochs.current = epoch;
        self.in_flight.settle(self.covered);
        self.memory.refused = 0;
        self.memory.ask_snapshot = false;
        if self.memory.diverged && matches!(self.transfer, Transfer::Snap { .. }) {
            self.memory.diverged = false;
            self.memory.resynced_in = Some(epoch);
        }
        self.phase = Phase::Confirming;
        self.send([ToLeader::Ack(epoch.start())], out);
    }

    pub(super) fn up_to_date(&mut self, out: &mut Vec<Output>) {
        if let Some(ensemble) = self.announced.take() {
            self.activate(ensemble, None, out);
        }
        if self.phase == Phase::Ended {
            return;
        }
        self.phase = Phase::Broadcast;
        self.send([ToLeader::Ack(self.epoch.start())], out);
        self.acknowledge(out);
        out.push(Output::Ready { epoch: self.epoch, committed: self.in_flight.committed_to() });
    }
}
