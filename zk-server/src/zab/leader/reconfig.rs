//! New configurations: what may be proposed, which quorums decide, who leads afterwards.

use std::collections::BTreeSet;
use std::sync::Arc;

use zk_proto::Zxid;

use super::link::Step;
use super::{Ensemble, Leader, Output, Phase, Proposal, ReconfigRefusal, ServerId};

/// What decides whether a reconfiguration can be proposed, at one moment.
#[derive(Debug, Clone)]
pub struct ReconfigView {
    /// The configuration in force.
    pub current: Arc<Ensemble>,
    /// Another reconfiguration is proposed and not committed.
    pub in_progress: bool,
    /// The leader, and the followers that have taken over its history.
    pub synced: BTreeSet<ServerId>,
    /// So many servers with a vote have to be left.
    pub voters_min: usize,
    /// Whether a server may have several addresses.
    pub multi_address: bool,
}

impl ReconfigView {
    /// Whether `new` can be proposed, besides what only its text decides.
    ///
    /// # Errors
    /// See [`ReconfigRefusal`].
    pub fn check(&self, new: &Ensemble) -> Result<(), ReconfigRefusal> {
        match self.in_progress {
            true => Err(ReconfigRefusal::InProgress),
            false if new.is_quorum(&self.synced) => Ok(()),
            false => Err(ReconfigRefusal::NoQuorum),
        }
    }
}

impl Leader {
    /// What has to be known of the ensemble to prepare a reconfiguration now.
    pub fn reconfig_view(&self) -> ReconfigView {
        let synced = |sid: &ServerId| {
            self.link_of(*sid).is_some_and(|link| link.follower && link.step == Step::Synced)
        };
        let followers = self.by_server.keys().copied().filter(synced);
        ReconfigView {
            current: self.electorates.committed.ensemble.clone(),
            in_progress: self.phase != Phase::Broadcast || self.retired || self.electorates.pending.is_some(),
            synced: followers.chain([self.me]).collect(),
            voters_min: if self.options.standalone_enabled { 2 } else { 1 },
            multi_address: self.options.multi_address,
        }
    }

    /// Whether a reconfiguration to `new` can be proposed now, besides what only its text decides.
    ///
    /// # Errors
    /// See [`ReconfigRefusal`].
    pub fn can_reconfigure(&self, new: &Arc<Ensemble>) -> Result<(), ReconfigRefusal> {
        self.reconfig_view().check(new)
    }

    /// [`Leader::propose`] for a reconfiguration, in its place among the other proposals. `ensemble` is what it
    /// writes to `/zookeeper/config`, its version is the transaction's zxid. From here on the quorums of both
    /// configurations decide.
    pub fn propose_reconfig(
        &mut self,
        now_ms: u64,
        proposal: &Proposal,
        ensemble: Arc<Ensemble>,
        out: &mut Vec<Output>,
    ) {
        if self.phase != Phase::Broadcast {
            return;
        }
        debug_assert_eq!(ensemble.version, proposal.zxid.0);
        self.reconfig = Some(proposal.zxid);
        self.electorates.propose(ensemble.clone());
        self.propose(now_ms, std::slice::from_ref(proposal), out);
        out.push(Output::ConfigSeen(ensemble));
    }

    /// A configuration from files is given a version when a quorum takes over a history for the first time, so that
    /// it is newer than any other one from files (ZOOKEEPER-1783).
    pub(super) fn establish_config(&mut self, out: &mut Vec<Output>) {
        let committed = &self.electorates.committed.ensemble;
        if !self.options.reconfig_enabled || committed.version != 0 || self.electorates.pending.is_some() {
            return;
        }
        let established =
            Arc::new(Ensemble { version: self.epoch.start().0, membership: committed.membership.clone() });
        self.electorates.propose(established.clone());
        out.push(Output::ConfigSeen(established));
    }

    /// Puts the proposed configuration, if there is one, into force at `zxid`.
    pub(super) fn activate_config(&mut self, zxid: Zxid, out: &mut Vec<Output>) {
        if self.electorates.pending.is_none() {
            return;
        }
        let designated = self.designated(zxid);
        let Some(ensemble) = self.electorates.activate() else { return };
        self.retired = designated != self.me;
        out.push(Output::Activate { zxid, ensemble, designated });
    }

    /// Who leads when the proposed configuration comes into force with the commit of `zxid`: this server, if it is
    /// a voter with the same address for learners; else the voter that has the most.
    pub(super) fn designated(&self, zxid: Zxid) -> ServerId {
        let (old, new) = (&self.electorates.committed.ensemble, self.electorates.last_seen());
        // Compared as configured: what names resolve to may change (ZOOKEEPER-4708).
        let addresses = |ensemble: &Ensemble| {
            let server = ensemble.membership.servers.get(&self.me)?;
            Some(server.addresses.iter().map(|a| (a.host.clone(), a.quorum_port)).collect::<Vec<_>>())
        };
        if new.is_voter(self.me) && addresses(old).is_none_or(|old| addresses(new) == Some(old)) {
            return self.me;
        }
        let acked =
            |sid| self.link_of(sid)?.counted_ack().filter(|acked| *acked >= zxid || zxid.counter() == 0);
        let candidates = new.voters().filter(|sid| *sid != self.me);
        // The smaller id of equals.
        let best = candidates.filter_map(|sid| Some((acked(sid)?, std::cmp::Reverse(sid)))).max();
        best.map_or(self.me, |(_, sid)| sid.0)
    }
}
