//! Behind NEWLEADER: proposals and commits as they happen, and what else passes between leader and learner.

use bytes::Bytes;
use zk_proto::{SessionId, Zxid};

use super::in_flight::{Gap, Proposed};
use super::{Alarm, Learner, Output, Phase, Reason, Role};
use crate::auth::Identity;
use crate::zab::wire::{ToLeader, ToLearner};
use crate::zab::{Epoch, Proposal};

/// A request of a client that the leader has to decide.
#[derive(Debug, Clone)]
pub struct Forward {
    /// The client's session.
    pub session: SessionId,
    /// The request's number within the session.
    pub cxid: i32,
    /// Operation code.
    pub op: i32,
    /// The request's record.
    pub body: Bytes,
    /// The client's identities, its address first; none when a session is created.
    pub auth: Vec<Identity>,
}

impl Learner {
    /// Packets between NEWLEADER and UPTODATE, and those that mean the same behind it.
    pub(super) fn live_packet(&mut self, packet: ToLearner, out: &mut Vec<Output>) {
        match (packet, self.role) {
            (ToLearner::Proposal(proposal), Role::Follower | Role::NonVoting) => {
                self.propose(proposal, out);
            }
            (ToLearner::Commit(zxid), Role::Follower | Role::NonVoting) => {
                self.commit(zxid, out);
            }
            (ToLearner::CommitAndActivate { zxid, leader }, Role::Follower | Role::NonVoting) => {
                self.commit_and_activate(zxid, leader, out);
            }
            (ToLearner::Inform(proposal), Role::Observer) => {
                let zxid = proposal.zxid;
                self.propose(proposal, out);
                self.commit(zxid, out);
            }
            (ToLearner::InformAndActivate { proposal, leader }, Role::Observer) => {
                let zxid = proposal.zxid;
                self.propose(proposal, out);
                self.commit_and_activate(zxid, leader, out);
            }
            (ToLearner::UpToDate, _) if self.phase == Phase::Confirming => self.up_to_date(out),
            // Not to be answered before UPTODATE: an Apache leader takes the answer for an acknowledgement.
            (ToLearner::Ping(_) | ToLearner::Other(_), _) => {}
            (packet, _) => self.unexpected(&packet, out),
        }
    }

    pub(super) fn broadcast_packet(&mut self, packet: ToLearner, out: &mut Vec<Output>) {
        match packet {
            ToLearner::Ping(zxid) => {
                let touched = std::mem::take(&mut self.touched).into_iter().collect();
                self.send([ToLeader::Ping { zxid, touched }], out);
            }
            ToLearner::Revalidate { session, valid } => out.push(Output::Revalidated { session, valid }),
            ToLearner::Sync => out.push(Output::SyncDone { after: self.in_flight.committed_to() }),
            other => self.live_packet(other, out),
        }
    }

    fn propose(&mut self, proposal: Proposal, out: &mut Vec<Output>) {
        let Proposal { zxid, .. } = proposal;
        // Which counter a leader begins with is its configuration's choice; which epoch is not.
        match self.in_flight.propose(zxid, Some(self.epoch)) {
            Ok(Proposed::Known) => {}
            Ok(Proposed::New) if Epoch::of(zxid) != self.epoch => {
                self.end(Reason::ForeignEpoch { epoch: self.epoch, found: zxid }, out);
            }
            Ok(Proposed::New) => {
                if let Err(reason) = self.see_config(&proposal, out) {
                    return self.end(reason, out);
                }
                out.push(Output::Propose(proposal));
            }
            Err(Gap { after, found }) => self.end(Reason::Gap { after, found }, out),
        }
    }

    /// Says whether the commit was news, and the learner goes on.
    fn commit(&mut self, zxid: Zxid, out: &mut Vec<Output>) -> bool {
        if self.phase == Phase::Ended {
            return false;
        }
        match self.in_flight.commit(zxid) {
            Ok(news) => {
                match out.last_mut() {
                    _ if !news => {}
                    Some(Output::Commit(last)) => *last = zxid,
                    _ => out.push(Output::Commit(zxid)),
                }
                news
            }
            Err(wrong) => {
                self.end(Reason::CommitOutOfOrder { expected: wrong.expected, found: wrong.found }, out);
                false
            }
        }
    }

    fn commit_and_activate(&mut self, zxid: Zxid, leader: i64, out: &mut Vec<Output>) {
        if self.commit(zxid, out)
            && let Some(ensemble) = self.pending_configs.remove(&zxid)
        {
            let designated = Some(crate::zab::ServerId(leader)).filter(|leader| ensemble.is_voter(*leader));
            self.activate(ensemble, designated, out);
        }
    }

    /// Everything proposed up to here is on disk.
    pub fn durable(&mut self, zxid: Zxid, out: &mut Vec<Output>) {
        self.in_flight.durable(zxid);
        // Never before NEWLEADER is acknowledged: Apache takes the first acknowledgement for that one.
        if self.phase == Phase::Broadcast {
            self.acknowledge(out);
        }
    }

    /// One packet for each transaction that has become durable: Apache counts them singly.
    pub(super) fn acknowledge(&mut self, out: &mut Vec<Output>) {
        let mut acks = Vec::new();
        self.in_flight.take_acks(|zxid| acks.push(ToLeader::Ack(zxid)));
        if self.role != Role::Observer {
            self.send(acks, out);
        }
    }

    /// The tree's digest after this transaction is not the carried one, or it cannot be applied.
    pub fn diverged(&mut self, zxid: Zxid, out: &mut Vec<Output>) {
        let applies = matches!(self.phase, Phase::Persisting | Phase::Confirming | Phase::Broadcast);
        if applies && self.resync(zxid, out) {
            self.refuse(Reason::Diverged(zxid), out);
        }
    }

    /// Raises the alarm, and says whether the leader's tree is to be fetched: once per epoch. The next one would
    /// differ as this one did.
    pub(super) fn resync(&mut self, zxid: Zxid, out: &mut Vec<Output>) -> bool {
        let resync = self.memory.resynced_in != Some(self.epoch);
        self.memory.diverged |= resync;
        if !std::mem::replace(&mut self.diverged_alarmed, true) {
            out.push(Output::Alarm(Alarm::Diverged { epoch: self.epoch, zxid, resync }));
        }
        resync
    }

    /// Sends a client's request to the leader. `false`: there is no established leader to send it to.
    pub fn request(&mut self, request: Forward, out: &mut Vec<Output>) -> bool {
        let Forward { session, cxid, op, body, auth } = request;
        self.is_established() && {
            self.send([ToLeader::Request { session, cxid, op, body, auth }], out);
            true
        }
    }

    /// Asks the leader whether a session is alive; the answer is an [`Output::Revalidated`]. `false`: there is
    /// no established leader to ask.
    pub fn revalidate(&mut self, session: SessionId, timeout_ms: i32, out: &mut Vec<Output>) -> bool {
        self.is_established() && {
            self.send([ToLeader::Revalidate { session, timeout_ms }], out);
            true
        }
    }

    /// Sessions that were heard of, with their timeouts in ms: the leader is told with the next PING.
    pub fn touched(&mut self, sessions: impl IntoIterator<Item = (SessionId, i32)>) {
        if self.is_established() {
            self.touched.extend(sessions);
        }
    }
}
