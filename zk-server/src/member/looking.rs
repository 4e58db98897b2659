//! Elections, the connections under them, and the way from one role to the next.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Dial, DiskDone, DiskOp, Member, MemberShell, Next, Now, Phase, ReplicaInput, Serving, Stopping};
use zk_proto::Zxid;

use crate::config::HostPort;
use crate::replica::Upstream;
use crate::zab::election::{self, ConnOutput};
use crate::zab::ensemble::Ensemble;
use crate::zab::leader::{Elected, Leader};
use crate::zab::learner::{self, Learner, Memory};
use crate::zab::{PeerConn, PeerState, PeerType, ServerId};

impl Member {
    /// Begins an election. Nothing is served, and the tree is what the disk holds.
    pub(super) fn look(&mut self, now: Now, shell: &mut dyn MemberShell) {
        self.phase = Phase::Looking(now.mono_ms);
        tracing::info!(
            zxid = %self.replica.last_zxid(), epoch = %self.epochs.current, "looking for a leader"
        );
        let mut out = Vec::new();
        self.connections.set_ensembles(self.committed.clone(), self.last_seen.clone(), &mut out);
        self.run_connections(now, out, shell);
        let start = election::Start {
            // Apache knows this as the vote of a server that must not vote.
            last_zxid: if self.damaged { Zxid(-1) } else { self.replica.last_zxid() },
            current_epoch: self.epochs.current,
            committed: self.committed.clone(),
            last_seen: self.last_seen.clone(),
            peer_type: self.options.peer_type,
        };
        let mut out = Vec::new();
        self.election.start(now.mono_ms, start, &mut out);
        self.run_election(now, out, shell);
    }

    pub(super) fn run_election(&mut self, now: Now, out: Vec<election::Output>, shell: &mut dyn MemberShell) {
        for output in out {
            match output {
                election::Output::Send { to, notification } => {
                    let mut out = Vec::new();
                    self.connections.send(to, &notification, &mut out);
                    self.run_connections(now, out, shell);
                }
                election::Output::Decided { leader, state } => {
                    self.connections.forget_votes();
                    self.memory = self.memory.after_election();
                    self.memory.ask_snapshot |= self.damaged;
                    self.become_member(now, state, leader, shell);
                }
                election::Output::Gossip(ensemble) => self.config_in_force(now, ensemble, shell),
                election::Output::VoterLooking(voter) => {
                    if let Phase::Leading(leader) = &mut self.phase {
                        let mut out = Vec::new();
                        leader.looking(now.mono_ms, voter, &mut out);
                        self.run_leader(now, out, shell);
                    }
                }
            }
        }
    }

    pub(super) fn run_connections(&mut self, now: Now, out: Vec<ConnOutput>, shell: &mut dyn MemberShell) {
        for output in out {
            match output {
                ConnOutput::Dial { to, address } => {
                    let addresses = match address {
                        Some(address) => {
                            vec![HostPort { host: address.ip().to_string(), port: address.port() }]
                        }
                        None => self.addresses(to, false),
                    };
                    shell.dial(Dial::Election(to), addresses);
                }
                ConnOutput::Write { conn, bytes } => {
                    shell.send(conn, bytes.to_vec());
                    // The shell keeps what the socket does not take; notifications are few and small.
                    let mut out = Vec::new();
                    self.connections.written(conn, &mut out);
                    self.run_connections(now, out, shell);
                }
                ConnOutput::Close { conn, reason } if reason.is_fault() => {
                    shell.reject(conn, &reason.to_string());
                }
                ConnOutput::Close { conn, reason } => shell.close(conn, &reason.to_string()),
                ConnOutput::Deliver { from, notification } => {
                    let mut out = Vec::new();
                    self.election.notification(now.mono_ms, from, notification, &mut out);
                    self.run_election(now, out, shell);
                }
            }
        }
    }

    /// Where a server listens: its election port, or its quorum port.
    pub(super) fn addresses(&self, server: ServerId, quorum: bool) -> Vec<HostPort> {
        let configs = [Some(&self.committed), self.last_seen.as_ref()];
        let specs = configs.into_iter().flatten().filter_map(|config| config.membership.servers.get(&server));
        let mut addresses = Vec::new();
        for address in specs.flat_map(|spec| &spec.addresses) {
            let port = if quorum { address.quorum_port } else { address.election_port };
            let address = HostPort { host: address.host.clone(), port };
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }

    pub(super) fn dialed(
        &mut self,
        now: Now,
        dial: Dial,
        result: Result<(PeerConn, IpAddr), String>,
        shell: &mut dyn MemberShell,
    ) {
        match (dial, result) {
            (Dial::Election(to), Ok((conn, remote))) => {
                let mut out = Vec::new();
                self.connections.dialed(conn, to, remote, &mut out);
                self.run_connections(now, out, shell);
            }
            (Dial::Election(to), Err(error)) => {
                tracing::debug!(server = %to, %error, "cannot reach the election port");
                self.connections.dial_failed(to);
                let mut out = Vec::new();
                self.election.unreachable(now.mono_ms, to, &mut out);
                self.run_election(now, out, shell);
            }
            (Dial::Leader(leader), result) => match &mut self.phase {
                Phase::Learning(learner) if learner.leader() == leader => {
                    let mut out = Vec::new();
                    match result {
                        Ok((conn, remote)) => {
                            self.quorum.insert(conn, remote);
                            learner.connected(now.mono_ms, conn, &mut out);
                        }
                        Err(error) => {
                            tracing::debug!(server = %leader, %error, "cannot reach the leader");
                            learner.dial_failed(now.mono_ms, &mut out);
                        }
                    }
                    self.run_learner(now, out, shell);
                }
                _ => {
                    if let Ok((conn, _)) = result {
                        shell.close(conn, "not following this leader any more");
                    }
                }
            },
        }
    }

    pub(super) fn closed(&mut self, now: Now, conn: PeerConn, shell: &mut dyn MemberShell) {
        if self.quorum.remove(&conn).is_none() {
            self.connections.closed(conn);
            return;
        }
        self.pins.remove(&conn);
        match &mut self.phase {
            Phase::Leading(leader) => {
                let mut out = Vec::new();
                leader.closed(conn, &mut out);
                self.run_leader(now, out, shell);
            }
            Phase::Learning(learner) => {
                let mut out = Vec::new();
                learner.closed(conn, &mut out);
                self.run_learner(now, out, shell);
            }
            Phase::New | Phase::Looking(_) | Phase::Stopping(_) => {}
        }
    }

    /// Takes a role that an election or a reconfiguration has given.
    pub(super) fn become_member(
        &mut self,
        now: Now,
        state: PeerState,
        leader: ServerId,
        shell: &mut dyn MemberShell,
    ) {
        tracing::info!(?state, %leader, "a leader is found");
        self.serve(Serving::No, shell);
        let last = self.replica.last_zxid();
        match state {
            PeerState::Looking => self.look(now, shell),
            PeerState::Leading => {
                let mut out = Vec::new();
                let elected = Elected {
                    me: self.options.me,
                    epochs: self.epochs,
                    last,
                    committed: self.committed.clone(),
                    last_seen: self.last_seen.clone(),
                };
                let leader = Leader::new(elected, self.options.leader.clone(), now.mono_ms, &mut out);
                self.phase = Phase::Leading(Box::new(leader));
                shell.listen(true);
                self.run_leader(now, out, shell);
            }
            PeerState::Following | PeerState::Observing => {
                self.replica.begin_learning();
                self.confirmed_last_seen = false;
                let mut out = Vec::new();
                let start = learner::Start {
                    me: self.options.me,
                    role: self.learner_role(state),
                    leader,
                    epochs: self.epochs,
                    last,
                    committed: self.mark,
                    ensemble: self.committed.clone(),
                    last_seen: self.last_seen.clone(),
                    memory: self.memory,
                };
                let learner = Learner::new(start, self.options.learner.clone(), now.mono_ms, &mut out);
                self.phase = Phase::Learning(Box::new(learner));
                self.run_learner(now, out, shell);
            }
        }
    }

    /// What this server is when another one leads.
    pub(super) fn learning_state(&self) -> PeerState {
        match self.committed.peer_type(self.options.me) {
            Some(PeerType::Observer) => PeerState::Observing,
            _ => PeerState::Following,
        }
    }

    fn learner_role(&self, state: PeerState) -> learner::Role {
        let configs = [Some(&self.committed), self.last_seen.as_ref()];
        let listed = configs.into_iter().flatten().find_map(|config| config.peer_type(self.options.me));
        match listed {
            Some(PeerType::Observer) => learner::Role::Observer,
            Some(PeerType::Participant) => learner::Role::Follower,
            None if state == PeerState::Observing => learner::Role::Observer,
            None => learner::Role::NonVoting,
        }
    }

    /// Ends what this member does; `next` begins when the disk is quiet.
    pub(super) fn stop(&mut self, next: Next, rebuild: bool, memory: Memory, shell: &mut dyn MemberShell) {
        if let Phase::Leading(_) = self.phase {
            shell.listen(false);
            // What was prepared in this very step is on its way to the log, whether anybody hears of it or not.
            for wanted in self.replica.take_upstream() {
                match wanted {
                    Upstream::Proposed(proposals) => {
                        proposals.into_iter().for_each(|proposal| self.history.push(proposal));
                    }
                    Upstream::Reconfigured { proposal, .. } => self.history.push(proposal),
                    _ => {}
                }
            }
        }
        for conn in std::mem::take(&mut self.quorum).into_keys() {
            shell.close(conn, "this server takes another role");
        }
        self.pins.clear();
        self.received = None;
        self.memory = memory;
        self.serve(Serving::No, shell);
        self.replica.idle(shell);
        let ticket = self.ticket();
        shell.disk(if rebuild { DiskOp::Rebuild(ticket) } else { DiskOp::Barrier(ticket) });
        self.phase = Phase::Stopping(Stopping { next, rebuild, ticket });
    }

    fn stopped(&mut self, now: Now, next: Next, shell: &mut dyn MemberShell) {
        match next {
            Next::Look => self.look(now, shell),
            Next::Become(state, leader) => {
                self.election.appointed(leader, state, self.replica.last_zxid());
                self.become_member(now, state, leader, shell);
            }
        }
    }

    pub(super) fn disk_done(&mut self, now: Now, done: DiskDone, shell: &mut dyn MemberShell) {
        let mut lead = Vec::new();
        let mut learn = Vec::new();
        match done {
            DiskDone::Accepted(epoch) => {
                self.epochs.accepted = self.epochs.accepted.max(epoch);
                match &mut self.phase {
                    Phase::Leading(leader) => {
                        leader.accepted_written(now.mono_ms, epoch, &self.history, &mut lead);
                    }
                    Phase::Learning(learner) => learner.accepted_written(now.mono_ms, epoch, &mut learn),
                    _ => {}
                }
            }
            DiskDone::Synced { last, epoch } => {
                self.epochs.current = self.epochs.current.max(epoch);
                self.damaged = false;
                self.replica_input(now, ReplicaInput::Durable(last), shell);
                match &mut self.phase {
                    Phase::Leading(leader) => leader.history_durable(now.mono_ms, epoch, &mut lead),
                    Phase::Learning(learner) => learner.history_durable(now.mono_ms, epoch, &mut learn),
                    _ => {}
                }
            }
            DiskDone::Truncated(result) => {
                let result = result.map(|recovered| {
                    self.adopt_recovered(*recovered, now.wall_ms);
                    self.replica.last_zxid()
                });
                if let Phase::Learning(learner) = &mut self.phase {
                    let result = result.map_err(|error| {
                        tracing::warn!(%error, "cannot truncate the log as the leader asks");
                        learner::CannotTruncate
                    });
                    learner.truncated(now.mono_ms, result, &mut learn);
                }
            }
            DiskDone::Rebuilt(done, recovered) => {
                if let Phase::Stopping(Stopping { next, ticket, .. }) = self.phase
                    && ticket == done
                {
                    self.adopt_recovered(*recovered, now.wall_ms);
                    self.stopped(now, next, shell);
                }
            }
            DiskDone::Barrier(done) => {
                if let Phase::Stopping(Stopping { next, ticket, rebuild: false }) = self.phase
                    && ticket == done
                {
                    self.replica.apply_log(shell);
                    self.stopped(now, next, shell);
                }
            }
            DiskDone::Chain { conn, result } => {
                if let Phase::Leading(leader) = &mut self.phase {
                    let result = result.map_err(|error| {
                        tracing::info!(%error, "no log for a learner, it gets a snapshot");
                        crate::zab::leader::BrokenChain
                    });
                    leader.chain(now.mono_ms, conn, result, &self.history, &mut lead);
                }
            }
        }
        self.run_leader(now, lead, shell);
        self.run_learner(now, learn, shell);
    }

    /// A configuration is in force.
    pub(super) fn config_in_force(&mut self, now: Now, ensemble: Arc<Ensemble>, shell: &mut dyn MemberShell) {
        if ensemble.version < self.committed.version {
            return;
        }
        let before = std::mem::replace(&mut self.committed, ensemble);
        let spec = |ensemble: &Ensemble| ensemble.membership.servers.get(&self.options.me).cloned();
        if let (Some(from), Some(to)) = (spec(&before), spec(&self.committed))
            && from != to
        {
            shell.moved(&from, &to);
        }
        if self.last_seen.as_ref().is_some_and(|seen| seen.version <= self.committed.version) {
            self.last_seen = None;
        }
        self.write_config_node(now.wall_ms);
        shell.disk(DiskOp::WriteConfig { ensemble: self.committed.clone(), in_force: true });
        self.configs_changed(now, shell);
    }

    /// A configuration was proposed.
    pub(super) fn config_seen(&mut self, now: Now, ensemble: Arc<Ensemble>, shell: &mut dyn MemberShell) {
        if ensemble.version <= self.committed.version {
            return;
        }
        shell.disk(DiskOp::WriteConfig { ensemble: ensemble.clone(), in_force: false });
        self.last_seen = Some(ensemble);
        self.confirmed_last_seen = true;
        self.configs_changed(now, shell);
    }

    /// The leader's history has taken the place of the own one: a configuration that was proposed in the own one and
    /// that the leader does not know was never decided, and will not be.
    pub(super) fn forget_undecided_config(&mut self, now: Now, shell: &mut dyn MemberShell) {
        if self.confirmed_last_seen || self.last_seen.take().is_none() {
            return;
        }
        // In its place, so that the next start does not find it.
        shell.disk(DiskOp::WriteConfig { ensemble: self.committed.clone(), in_force: false });
        self.configs_changed(now, shell);
    }

    fn configs_changed(&mut self, now: Now, shell: &mut dyn MemberShell) {
        self.election.set_ensembles(self.committed.clone(), self.last_seen.clone());
        let mut out = Vec::new();
        self.connections.set_ensembles(self.committed.clone(), self.last_seen.clone(), &mut out);
        self.run_connections(now, out, shell);
    }
}
