//! Carries out what [`Learner`](crate::zab::learner::Learner) decides.

use super::{Dial, DiskOp, Member, MemberShell, Next, Now, PeerConn, Phase, Serving, is_serving};
use crate::replica::Upstream;
use crate::tree::Tree;
use crate::zab::Proposal;
use crate::zab::learner::{Ended, Forward, Output};
use crate::zab::wire::{QuorumPacket, ToLearner};

impl Member {
    pub(super) fn packets(
        &mut self,
        now: Now,
        conn: PeerConn,
        packets: Vec<QuorumPacket>,
        shell: &mut dyn MemberShell,
    ) {
        match &self.phase {
            Phase::Leading(_) => self.lead_packets(now, conn, packets, shell),
            Phase::Learning(_) => self.learn_packets(now, conn, packets, shell),
            Phase::New | Phase::Looking(_) | Phase::Stopping(_) => {}
        }
    }

    fn learn_packets(
        &mut self,
        now: Now,
        conn: PeerConn,
        packets: Vec<QuorumPacket>,
        shell: &mut dyn MemberShell,
    ) {
        let touched = self.replica.take_touched();
        if let Phase::Learning(learner) = &mut self.phase {
            learner.touched(touched);
        }
        let mut out = Vec::new();
        for packet in packets {
            let Phase::Learning(learner) = &mut self.phase else { return };
            match ToLearner::try_from(packet) {
                Ok(packet) => learner.packet(now.mono_ms, conn, packet, &mut out),
                Err(error) => learner.undecodable(conn, error, &mut out),
            }
        }
        self.run_learner(now, out, shell);
        self.flow(conn, shell);
    }

    /// Reads the leader only as fast as the disk takes it.
    fn flow(&self, conn: PeerConn, shell: &mut dyn MemberShell) {
        if let Phase::Learning(learner) = &self.phase {
            shell.pause(conn, !learner.wants_input());
        }
    }

    pub(super) fn snapshot_received(&mut self, now: Now, conn: PeerConn, tree: Box<Tree>) {
        if let Phase::Learning(learner) = &mut self.phase
            && self.quorum.contains_key(&conn)
        {
            self.received = Some(tree);
            learner.snapshot_received(now.mono_ms);
        }
    }

    /// Passes on what clients of this server want decided.
    pub(super) fn learn_upstream(&mut self, now: Now, upstream: Vec<Upstream>, shell: &mut dyn MemberShell) {
        let Phase::Learning(learner) = &mut self.phase else { return };
        let mut out = Vec::new();
        for wanted in upstream {
            match wanted {
                Upstream::Request { session, cxid, op, body, auth } => {
                    let request = Forward { session, cxid, op: op as i32, body, auth };
                    learner.request(request, &mut out);
                }
                Upstream::Revalidate { session, timeout_ms } => {
                    learner.revalidate(session, timeout_ms, &mut out);
                }
                Upstream::Proposed(_)
                | Upstream::Reconfigured { .. }
                | Upstream::EpochUsedUp
                | Upstream::Sync => {}
            }
        }
        self.run_learner(now, out, shell);
    }

    pub(super) fn run_learner(&mut self, now: Now, out: Vec<Output>, shell: &mut dyn MemberShell) {
        let mut todo = std::collections::VecDeque::from(out);
        while let Some(output) = todo.pop_front() {
            let Phase::Learning(learner) = &mut self.phase else { return };
            let mut more = Vec::new();
            match output {
                Output::Dial(leader) => {
                    let addresses = self.addresses(leader, true);
                    shell.dial(Dial::Leader(leader), addresses);
                }
                Output::Send { conn, bytes } => shell.send(conn, bytes),
                Output::Close(conn) => {
                    self.quorum.remove(&conn);
                    shell.close(conn, "done with this leader");
                }
                Output::WriteAccepted(epoch) => shell.disk(DiskOp::WriteAccepted(epoch)),
                Output::Truncate(zxid) => {
                    tracing::info!(%zxid, "truncating the log to the leader's");
                    shell.disk(DiskOp::Truncate(zxid));
                }
                Output::ReceiveSnapshot { zxid } => {
                    tracing::info!(%zxid, "receiving the leader's tree");
                }
                Output::AdoptSnapshot { zxid } => {
                    if let Some(mut tree) = self.received.take() {
                        tree.set_last_zxid(zxid);
                        self.replica.replace_tree(*tree);
                        self.history.reset(zxid);
                        self.durable = self.durable.min(zxid);
                        self.write_config_node(now.wall_ms);
                    }
                }
                Output::StageCommit { txns, check_digests } => {
                    let result = self.stage(&txns, check_digests, shell);
                    if let Phase::Learning(learner) = &mut self.phase {
                        learner.staged(now.mono_ms, result, &mut more);
                    }
                }
                Output::CommitSync(epoch) => {
                    let staged = self.replica.end_staging();
                    shell.disk(DiskOp::CommitSync { staged, epoch });
                }
                Output::Install { epoch, .. } => {
                    // What was staged is in the tree, and so in the snapshot.
                    drop(self.replica.end_staging());
                    shell.disk(DiskOp::Install { pin: self.replica.pin(), epoch });
                }
                Output::Propose(proposal) => {
                    if let Err(error) = self.replica.propose(&proposal) {
                        tracing::error!(zxid = %proposal.zxid, %error, "the leader sent what is no transaction");
                        learner.diverged(proposal.zxid, &mut more);
                        self.stop(Next::Look, true, self.memory, shell);
                        return;
                    }
                }
                Output::Commit(zxid) => {
                    self.flush_learned(shell);
                    if !self.committed_up_to(zxid, shell)
                        && let Phase::Learning(learner) = &mut self.phase
                    {
                        learner.diverged(zxid, &mut more);
                    }
                }
                Output::Ready { epoch, committed } => {
                    tracing::info!(%epoch, zxid = %committed, leader = %learner.leader(), "following");
                    self.flush_learned(shell);
                    self.committed_up_to(committed, shell);
                    self.election.refresh(epoch);
                    self.forget_undecided_config(now, shell);
                    self.replica.serve_as_learner(epoch);
                    self.serve(Serving::Yes, shell);
                }
                Output::Revalidated { session, valid } => {
                    self.replica.revalidated(session, valid, now, shell);
                }
                Output::SyncDone { .. } => self.replica.sync_done(shell),
                Output::ConfigSeen(ensemble) => self.config_seen(now, ensemble, shell),
                Output::Activate { ensemble, .. } => self.config_in_force(now, ensemble, shell),
                Output::Alarm(alarm) => tracing::error!("{alarm}"),
                Output::Ended(ended) => {
                    self.learning_ended(ended, shell);
                    return;
                }
            }
            // What an output has led to comes before what was decided behind it.
            for output in more.into_iter().rev() {
                todo.push_front(output);
            }
        }
        self.flush_learned(shell);
    }

    fn learning_ended(&mut self, ended: Ended, shell: &mut dyn MemberShell) {
        let Phase::Learning(learner) = &self.phase else { return };
        let leader = learner.leader();
        tracing::warn!(reason = %ended.reason, %leader, "following ends");
        let next = match ended.next {
            Some((state, leader)) => Next::Become(state, leader),
            None if ended.redial => Next::Become(self.learning_state(), leader),
            None => Next::Look,
        };
        self.stop(next, ended.rebuild, ended.memory, shell);
    }

    /// Gives the log what was proposed since the last call.
    fn flush_learned(&mut self, shell: &mut dyn MemberShell) {
        let mut proposals = Vec::new();
        self.replica.flush_proposals(&mut proposals, shell);
        for proposal in proposals {
            self.history.push(proposal);
        }
    }

    /// Applies what a synchronisation has brought, before it is on disk. The error is the first transaction that
    /// cannot be applied, or after which the tree is not what it was for the leader.
    fn stage(
        &mut self,
        txns: &[Proposal],
        check_digests: bool,
        shell: &mut dyn MemberShell,
    ) -> Result<(), zk_proto::Zxid> {
        debug_assert!(!is_serving(self.replica.role()));
        for txn in txns {
            self.replica.propose(txn).map_err(|error| {
                tracing::error!(zxid = %txn.zxid, %error, "the leader sent what is no transaction");
                txn.zxid
            })?;
            self.flush_learned(shell);
            if !self.replica.commit(txn.zxid, shell) && check_digests {
                return Err(txn.zxid);
            }
        }
        Ok(())
    }
}
