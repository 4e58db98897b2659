//! Carries out what [`Leader`](crate::zab::leader::Leader) decides.

use std::collections::{HashMap, VecDeque};

use zk_proto::OpCode;

use super::{DiskOp, Member, MemberShell, Next, Now, PeerConn, Phase, Serving};
use crate::auth::{ConnAuth, Identity};
use crate::replica::Upstream;
use crate::replica::ensemble::RemoteRequest;
use crate::zab::Proposal;
use crate::zab::leader::{Output, StepDownReason};
use crate::zab::wire::{QuorumPacket, kind};

/// Identities of clients of other servers as this server understands them: each request brings them along, and
/// they are mostly the same.
#[derive(Debug, Default)]
pub(super) struct RemoteAuth {
    known: HashMap<Vec<Identity>, ConnAuth>,
}

impl RemoteAuth {
    /// More are not kept.
    const KNOWN_MAX: usize = 256;

    fn of(&mut self, identities: Vec<Identity>) -> &ConnAuth {
        if self.known.len() >= Self::KNOWN_MAX && !self.known.contains_key(&identities) {
            self.known.clear();
        }
        self.known.entry(identities).or_insert_with_key(|identities| ConnAuth::from_peer(identities))
    }
}

impl Member {
    pub(super) fn lead_packets(
        &mut self,
        now: Now,
        conn: PeerConn,
        packets: Vec<QuorumPacket>,
        shell: &mut dyn MemberShell,
    ) {
        for packet in packets {
            let asked = if packet.kind == kind::REQUEST { op_of(&packet) } else { None };
            if asked == Some(OpCode::Sync) {
                // It has to wait for the requests before it: the leader part must know what they have become.
                self.replica.flush(shell);
                self.settle(now, shell);
            }
            self.look_ahead(asked == Some(OpCode::Reconfig));
            let Phase::Leading(leader) = &mut self.phase else { return };
            let mut out = Vec::new();
            leader.packet(now.mono_ms, conn, packet, &self.history, &mut out);
            self.run_leader(now, out, shell);
        }
        // What the requests of one read have become goes to the log and to the learners together.
        self.replica.flush(shell);
    }

    /// Passes on what the replica has prepared and asked for, and sends what has gathered.
    pub(super) fn lead_upstream(&mut self, now: Now, upstream: Vec<Upstream>, shell: &mut dyn MemberShell) {
        let Phase::Leading(leader) = &mut self.phase else { return };
        let mut out = Vec::new();
        let mut syncs = 0;
        for wanted in upstream {
            match wanted {
                Upstream::Proposed(proposals) => {
                    for proposal in &proposals {
                        note_size(&mut self.proposal_bytes, proposal);
                        self.history.push(proposal.clone());
                    }
                    leader.propose(now.mono_ms, &proposals, &mut out);
                }
                Upstream::Reconfigured { proposal, ensemble } => {
                    tracing::info!(zxid = %proposal.zxid, "proposing another configuration of the ensemble");
                    note_size(&mut self.proposal_bytes, &proposal);
                    self.history.push(proposal.clone());
                    leader.propose_reconfig(now.mono_ms, &proposal, ensemble, &mut out);
                }
                Upstream::EpochUsedUp => leader.step_down(StepDownReason::RollOver, &mut out),
                Upstream::Sync => syncs += 1,
                Upstream::Request { .. } | Upstream::Revalidate { .. } => {}
            }
        }
        // Behind the proposals of the same input: a sync waits for the writes that its client has sent before.
        for _ in 0..syncs {
            self.sync_tickets += 1;
            leader.sync_local(self.sync_tickets);
        }
        leader.flush(now.mono_ms, &self.history, &mut out);
        self.run_leader(now, out, shell);
    }

    pub(super) fn run_leader(&mut self, now: Now, out: Vec<Output>, shell: &mut dyn MemberShell) {
        let mut todo = VecDeque::from(out);
        while let Some(output) = todo.pop_front() {
            let Phase::Leading(leader) = &mut self.phase else { return };
            match output {
                Output::Send { conn, bytes } => shell.send(conn, bytes),
                Output::Close { conn, sid, reason } => {
                    self.quorum.remove(&conn);
                    self.pins.remove(&conn);
                    match sid {
                        Some(sid) => {
                            tracing::warn!(server = %sid, %reason, "closing the connection of a learner");
                            shell.close(conn, &reason.to_string());
                        }
                        None => shell.reject(conn, &reason.to_string()),
                    }
                }
                Output::WriteAccepted(epoch) => shell.disk(DiskOp::WriteAccepted(epoch)),
                Output::CommitSync(epoch) => {
                    shell.disk(DiskOp::CommitSync { staged: Vec::new(), epoch });
                }
                Output::ReadChain { conn, from, to, bytes_max } => {
                    shell.disk(DiskOp::ReadChain { conn, from, to, bytes_max });
                }
                Output::PinSnapshot { conn } => {
                    let pin = self.replica.pin();
                    let mut more = Vec::new();
                    leader.snapshot_pinned(now.mono_ms, conn, pin.zxid, &self.history, &mut more);
                    self.pins.insert(conn, pin);
                    todo.extend(more);
                }
                Output::StreamSnapshot { conn } => {
                    if let Some(pin) = self.pins.remove(&conn) {
                        shell.stream_snapshot(conn, pin);
                    }
                }
                Output::Active { epoch } => {
                    tracing::info!(%epoch, "leading");
                    self.election.refresh(epoch);
                    self.active_since_ms = Some(now.mono_ms);
                    self.proposal_bytes = [None; 3];
                    self.replica.lead(epoch, now);
                    self.committed_up_to(self.replica.last_zxid(), shell);
                    if self.options.leader_serves {
                        self.serve(Serving::Yes, shell);
                    }
                }
                Output::Commit(zxid) => {
                    if !self.committed_up_to(zxid, shell) {
                        tracing::error!(%zxid, "the tree of this leader is not the one that it prepared for");
                    }
                }
                Output::Request { sid, session, cxid, op, body, auth, .. } => {
                    let auth = self.remote_auth.of(auth);
                    let request = RemoteRequest { from: sid, session, cxid, op, body: &body, auth };
                    self.replica.remote_request(now, &request);
                }
                Output::Touch { sessions, .. } => {
                    for (session, _) in sessions {
                        self.replica.touch(session, now);
                    }
                }
                Output::Revalidate { conn, sid, session, timeout_ms } => {
                    let valid = self.replica.revalidate_for(sid, session, timeout_ms, now, shell);
                    leader.revalidated(conn, session, valid);
                }
                Output::SyncDone(_) => self.replica.sync_done(shell),
                Output::ConfigSeen(ensemble) => self.config_seen(now, ensemble, shell),
                Output::Activate { ensemble, designated, .. } => {
                    self.successor = None;
                    if designated != self.options.me {
                        tracing::info!(leader = %designated, "another server was designated to lead");
                        self.successor = Some(designated);
                    }
                    self.config_in_force(now, ensemble, shell);
                }
                Output::StepDown(reason) => {
                    tracing::warn!(%reason, "leading ends");
                    let successor = self.successor.take().filter(|_| reason == StepDownReason::NotDesignated);
                    let next = successor.map(|leader| Next::Become(self.learning_state(), leader));
                    self.stop(next.unwrap_or(Next::Look), false, self.memory, shell);
                }
            }
        }
    }

    /// Before something that may ask for a reconfiguration: PREPARE has to know what there is.
    pub(super) fn look_ahead(&mut self, reconfig: bool) {
        if let Phase::Leading(leader) = &self.phase
            && reconfig
        {
            self.replica.set_reconfig_view(leader.reconfig_view());
        }
    }
}

/// Last, smallest and largest proposal.
fn note_size([last, min, max]: &mut [Option<u64>; 3], proposal: &Proposal) {
    let bytes = Some(proposal.payload.len() as u64);
    (*last, *min, *max) = (bytes, min.map_or(bytes, |_| (*min).min(bytes)), (*max).max(bytes));
}

/// What a learner's client asks for.
fn op_of(request: &QuorumPacket) -> Option<OpCode> {
    const OP: usize = 12;
    let bytes = request.data.as_ref()?.get(OP..)?.first_chunk()?;
    OpCode::from_i32(i32::from_be_bytes(*bytes))
}
