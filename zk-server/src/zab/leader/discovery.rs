//! The epoch: a quorum tells which epochs it has accepted, the leader takes the next one, a quorum accepts it, and
//! nobody in that quorum knows more than the leader.

use zk_proto::Zxid;

use super::link::Step;
use super::{
    CloseReason, Epoch, History, Leader, Output, PeerConn, Phase, ServerId, StepDownReason, ToLearner,
};
use crate::zab::wire::{LearnerInfo, PROTOCOL_VERSION};

/// How far ahead of ours an accepted epoch is believed. A bogus claim can thus not use up the 31-bit epochs, nor
/// can a hundred of them.
const EPOCH_JUMP_MAX: u32 = 1 << 24;

impl Leader {
    /// FOLLOWERINFO or OBSERVERINFO.
    pub(super) fn info(
        &mut self,
        now_ms: u64,
        conn: PeerConn,
        follower: bool,
        info: LearnerInfo,
        out: &mut Vec<Output>,
    ) {
        let sid = info.server;
        let member = self.electorates.is_member(sid);
        let ours = self.electorates.committed.ensemble.version;
        let refusal = if info.protocol_version < PROTOCOL_VERSION {
            Some(CloseReason::Protocol(info.protocol_version))
        } else if sid == self.me {
            Some(CloseReason::OwnId(sid))
        } else if info.config_version > ours {
            Some(CloseReason::ConfigAhead { theirs: info.config_version, ours })
        } else if member && info.accepted.0 > self.epochs.accepted.0.saturating_add(EPOCH_JUMP_MAX) {
            Some(CloseReason::EpochJump(info.accepted))
        } else {
            None
        };
        if let Some(reason) = refusal {
            return self.close(conn, reason, out);
        }
        // Its acknowledgements are forgotten with the older connection: it may be told to truncate now.
        if let Some(older) = self.by_server.get(&sid).copied() {
            self.close(older, CloseReason::Replaced(sid), out);
        }
        let Some(link) = self.links.get_mut(&conn) else { return };
        link.sid = Some(sid);
        link.follower = follower;
        link.step = Step::LeaderInfo;
        self.by_server.insert(sid, conn);
        match self.phase {
            Phase::Discovery => {
                // Of members only: an unknown server must not push the epoch up.
                if member {
                    self.highest = self.highest.max(info.accepted);
                    self.heard.insert(sid);
                    self.choose_epoch(now_ms, out);
                }
            }
            Phase::Accepting | Phase::Down => {}
            // If it has accepted a higher epoch, it leaves by itself.
            Phase::EpochAcks | Phase::Synchronization | Phase::Broadcast => self.send_epoch(now_ms),
        }
    }

    /// Takes the next epoch as soon as a quorum was heard.
    pub(super) fn choose_epoch(&mut self, now_ms: u64, out: &mut Vec<Output>) {
        if !self.electorates.quorum(|sid| self.heard.contains(&sid)) {
            return;
        }
        if self.highest >= Epoch::MAX {
            return self.step_down(StepDownReason::EpochsExhausted, out);
        }
        self.epoch = Epoch(self.highest.0 + 1);
        self.enter(Phase::Accepting, now_ms);
        out.push(Output::WriteAccepted(self.epoch));
    }

    /// The accepted epoch is durable on the own disk.
    pub fn accepted_written(&mut self, now_ms: u64, epoch: Epoch, history: &History, out: &mut Vec<Output>) {
        if self.phase != Phase::Accepting || epoch != self.epoch {
            return;
        }
        self.epochs.accepted = epoch;
        self.phase = Phase::EpochAcks;
        self.accepted.insert(self.me);
        self.send_epoch(now_ms);
        self.count_epoch_acks(now_ms, history, out);
    }

    /// LEADERINFO to those who wait for it.
    fn send_epoch(&mut self, now_ms: u64) {
        let epoch = self.epoch;
        for link in self.links.values_mut().filter(|link| link.step == Step::LeaderInfo) {
            ToLearner::LeaderInfo { epoch }.encode(&mut link.outbox);
            link.step = Step::AckEpoch;
            link.heard_ms = now_ms;
        }
    }

    /// ACKEPOCH.
    pub(super) fn ack_epoch(
        &mut self,
        now_ms: u64,
        conn: PeerConn,
        last: Zxid,
        current: Option<Epoch>,
        history: &History,
        out: &mut Vec<Output>,
    ) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        let Some(sid) = link.sid else { return };
        link.last = last;
        link.current = current;
        link.step = Step::Waiting;
        // -1: a server without a database.
        let of_last = if last.0 < 0 { Epoch::default() } else { Epoch::of(last) };
        let beyond = current.is_some_and(|current| current > self.epoch) || of_last > self.epoch;
        if beyond || last.0 < -1 {
            return self.close(conn, CloseReason::Ahead { epoch: current, last }, out);
        }
        if self.phase != Phase::EpochAcks {
            return self.start_sync(now_ms, conn, history, out);
        }
        // -1 for the epoch: it has accepted this one before. Then its claim says nothing about its history.
        if let Some(current) = current {
            if (current, last) > self.summary {
                self.ahead.insert(sid);
                self.close(conn, CloseReason::Ahead { epoch: Some(current), last }, out);
                if !self.electorates.quorum(|sid| !self.ahead.contains(&sid)) {
                    self.step_down(StepDownReason::NotMostRecent, out);
                }
                return;
            }
            if last.0 >= 0 {
                self.accepted.insert(sid);
            }
        }
        self.count_epoch_acks(now_ms, history, out);
    }

    /// Goes on when a quorum has accepted the epoch.
    fn count_epoch_acks(&mut self, now_ms: u64, history: &History, out: &mut Vec<Output>) {
        if !self.electorates.quorum(|sid| self.accepted.contains(&sid)) {
            return;
        }
        self.enter(Phase::Synchronization, now_ms);
        self.establish_config(out);
        out.push(Output::CommitSync(self.epoch));
        let waiting: Vec<PeerConn> = self.waiting().collect();
        for conn in waiting {
            self.start_sync(now_ms, conn, history, out);
        }
    }

    /// Learners whose transfer is not chosen yet.
    pub(super) fn waiting(&self) -> impl Iterator<Item = PeerConn> {
        self.links.iter().filter(|(_, link)| link.step == Step::Waiting).map(|(conn, _)| *conn)
    }

    /// A voter looks for a leader, as its notification says.
    pub fn looking(&mut self, now_ms: u64, voter: ServerId, out: &mut Vec<Output>) {
        let Some(patience) = self.options.max_wait_for_epoch_ms else { return };
        let waited = now_ms.saturating_sub(self.started_ms);
        if self.phase == Phase::Discovery && self.electorates.is_voter(voter) && waited > patience {
            self.step_down(StepDownReason::Abandoned(voter), out);
        }
    }

    /// Enters a phase that must not take longer than the initial limit.
    pub(super) fn enter(&mut self, phase: Phase, now_ms: u64) {
        self.phase = phase;
        self.deadline_ms = now_ms.saturating_add(self.options.init_limit_ms());
    }
}
