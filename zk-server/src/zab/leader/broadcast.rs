//! Proposals, acknowledgements, commits.
//!
//! A batch is encoded once and copied into each follower's outbox. An acknowledgement is one comparison; what a
//! quorum has acknowledged is computed once per [`Leader::flush`].

use zk_proto::Zxid;

use super::{
    CloseReason, Epoch, History, Leader, Output, PeerConn, Phase, Proposal, ServerId, StepDownReason,
    ToLearner,
};

/// The last counter that a transaction may have; Apache's leaders step down there, too.
const LAST_COUNTER: u32 = u32::MAX - 1;

impl Leader {
    /// Sends transactions that were just appended (not yet durably) to the own log and pushed to the history.
    /// Their zxids go on from the last proposed one.
    pub fn propose(&mut self, now_ms: u64, proposals: &[Proposal], out: &mut Vec<Output>) {
        let (Some(first), Some(last)) = (proposals.first(), proposals.last()) else { return };
        if self.phase != Phase::Broadcast {
            return;
        }
        debug_assert_eq!(first.zxid.0, self.proposed.max(self.epoch.start()).0 + 1);
        if last.zxid.counter() > LAST_COUNTER || Epoch::of(last.zxid) != self.epoch {
            return self.step_down(StepDownReason::RollOver, out);
        }
        self.proposed = last.zxid;
        self.scratch.clear();
        for link in self.links.values_mut().filter(|link| link.forwards() && link.follower) {
            if self.scratch.is_empty() {
                proposals.iter().for_each(|txn| ToLearner::encode_proposal(txn, &mut self.scratch));
            }
            link.forward(&self.scratch);
            link.sent = last.zxid;
            link.expect_ack(now_ms);
        }
    }

    /// The own log is durable up to here: the own vote.
    pub fn durable(&mut self, zxid: Zxid) {
        self.durable = self.durable.max(zxid);
    }

    /// An ACK of a synchronised learner.
    pub(super) fn ack(&mut self, now_ms: u64, conn: PeerConn, zxid: Zxid, out: &mut Vec<Output>) {
        let start = self.epoch.start();
        let Some(link) = self.links.get_mut(&conn) else { return };
        // Of an older epoch: decided with NEWLEADER. The start of this one: the answer to UPTODATE.
        if zxid <= start || !link.follower {
            return;
        }
        if zxid > link.sent {
            return self.close(conn, CloseReason::BadAck(zxid), out);
        }
        link.take_ack(zxid, now_ms);
    }

    /// What the server has acknowledged, if it may be counted.
    fn acked(&self, sid: ServerId) -> Option<Zxid> {
        if sid == self.me { Some(self.durable) } else { self.link_of(sid)?.counted_ack() }
    }

    /// Commits whatever the acknowledgements allow, in order, up to the fix-point: a reconfiguration changes who
    /// decides about what follows it.
    pub(super) fn commit(&mut self, history: &History, out: &mut Vec<Output>) {
        while !self.retired {
            let end = self.committable();
            if end <= self.committed {
                return;
            }
            let designated = (self.reconfig == Some(end)).then(|| self.designated(end));
            self.publish(end, designated, history);
            self.committed = end;
            out.push(Output::Commit(end));
            if designated.is_some() {
                self.reconfig = None;
                self.activate_config(end, out);
            }
        }
    }

    /// The last transaction that can be committed without passing a reconfiguration.
    fn committable(&self) -> Zxid {
        let acked = |sid| self.acked(sid);
        let end = self.electorates.committed.reached(acked).unwrap_or_default().min(self.proposed);
        let (Some(reconfig), Some(pending)) = (self.reconfig, &self.electorates.pending) else { return end };
        // The reconfiguration and what follows it need both quorums.
        match pending.reached(acked) {
            Some(theirs) if theirs >= reconfig && end >= reconfig => reconfig,
            _ => end.min(Zxid(reconfig.0 - 1)),
        }
    }

    /// COMMIT to followers, INFORM to observers, for everything after the last commit up to `end`.
    fn publish(&mut self, end: Zxid, designated: Option<ServerId>, history: &History) {
        let committed = self.committed;
        let fresh = || history.since(committed).take_while(|txn| txn.zxid <= end);
        for observers in [false, true] {
            self.scratch.clear();
            for link in self.links.values_mut().filter(|link| link.forwards() && link.follower != observers) {
                if self.scratch.is_empty() {
                    for txn in fresh() {
                        let designated = designated.filter(|_| txn.zxid == end).map(|sid| sid.0);
                        encode_decision(txn, observers, designated, &mut self.scratch);
                    }
                }
                link.forward(&self.scratch);
            }
        }
    }

    /// The newest round of PINGs that a quorum has answered; this server counts with `own`.
    pub(super) fn confirmed_round(&self, own: u64) -> u64 {
        let answered = |sid: ServerId| {
            if sid == self.me { Some(own) } else { self.link_of(sid).map(|link| link.confirmed) }
        };
        self.electorates.reached(answered).unwrap_or_default()
    }
}

/// Appends what tells a learner that a transaction is committed.
fn encode_decision(txn: &Proposal, observer: bool, designated: Option<i64>, out: &mut Vec<u8>) {
    match (observer, designated) {
        (false, None) => ToLearner::encode_commit(txn.zxid, out),
        (true, None) => ToLearner::encode_inform(txn, out),
        (false, Some(leader)) => ToLearner::CommitAndActivate { zxid: txn.zxid, leader }.encode(out),
        (true, Some(leader)) => ToLearner::InformAndActivate { proposal: txn.clone(), leader }.encode(out),
    }
}
