//! New configurations: what may be proposed, which quorums decide, who leads afterwards.

use std::sync::Arc;

use zk_proto::Zxid;

use super::electorate::Electorates;
use super::link::Step;
use super::{Ensemble, Leader, Output, Phase, Proposal, ReconfigRefusal, ServerId};

impl Leader {
    /// Whether a reconfiguration to `new` can be proposed now, besides what only its text decides.
    ///
    /// # Errors
    /// See [`ReconfigRefusal`].
    pub fn can_reconfigure(&self, new: &Arc<Ensemble>) -> Result<(), ReconfigRefusal> {
        if self.phase != Phase::Broadcast || self.retired || self.electorates.pending.is_some() {
            return Err(ReconfigRefusal::InProgress);
        }
        let synced = |sid| {
            sid == self.me || self.link_of(sid).is_some_and(|link| link.follower && link.step == Step::Synced)
        };
        let new = Electorates::new(new.clone(), None);
        if new.quorum(synced) { Ok(()) } else { Err(ReconfigRefusal::NoQuorum) }
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
