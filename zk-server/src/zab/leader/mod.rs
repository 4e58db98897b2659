//! The leader's side of Zab: epochs, synchronisation of learners, proposals, commits.
//!
//! | file | decides |
//! |---|---|
//! | `message` | options, outputs, reasons |
//! | `link` | what is known of one connected learner |
//! | `electorate` | what a quorum has reached |
//! | `discovery` | the epoch: who accepts it, and whether the own history may lead |
//! | `sync` | DIFF, TRUNC or SNAP; the cut; NEWLEADER and its acknowledgements |
//! | `broadcast` | proposals, acknowledgements, commits |
//! | `barrier` | `sync` of clients, confirmed by a quorum |
//! | `reconfig` | new configurations, the designated leader |
//! | `liveness` | PING, timeouts, loss of the quorum |
//!
//! The leader does not know the tree. Transactions are prepared and appended to the own log by the replica, which
//! also pushes them to [`History`]; [`Leader::propose`] then sends them. Nothing is sent before [`Leader::flush`],
//! which the shell calls after each batch of inputs: it decides the commits of the whole batch and hands out one
//! piece of bytes per learner.
//!
//! **Order on a connection:** everything for a learner goes through its one outbox, so that a NEWLEADER can never
//! overtake the history that it closes (ZOOKEEPER-3104). What is decided between NEWLEADER and UPTODATE follows the
//! latter.
//!
//! After [`Output::StepDown`] the machine is dead: every input is ignored, and the shell closes all connections.

mod barrier;
mod broadcast;
mod discovery;
mod electorate;
mod link;
mod liveness;
mod message;
mod reconfig;
mod sync;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use zk_proto::{SessionId, Zxid};

use super::ensemble::Ensemble;
use super::history::History;
use super::wire::{QuorumPacket, ToLeader, ToLearner};
use super::{Epoch, Epochs, PeerConn, Proposal, ServerId};

pub use message::{
    BrokenChain, CloseReason, LeaderOptions, LeaderStatus, LearnerStatus, Output, ReconfigRefusal,
    StepDownReason,
};

pub use reconfig::ReconfigView;

use barrier::Barrier;
use electorate::Electorates;
use link::{Link, Step};

/// How far the leadership has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// A quorum has to tell its accepted epochs.
    Discovery,
    /// The new epoch is being written to the own disk.
    Accepting,
    /// A quorum has to accept the new epoch.
    EpochAcks,
    /// A quorum has to take over the history.
    Synchronization,
    /// Active.
    Broadcast,
    /// Over.
    Down,
}

/// What a server brings along when it begins to lead.
#[derive(Debug, Clone)]
pub struct Elected {
    /// Its id.
    pub me: ServerId,
    /// Its epochs, as they are on its disk.
    pub epochs: Epochs,
    /// The end of its log, which is durable, applied to the tree and in the [`History`].
    pub last: Zxid,
    /// The configuration in force.
    pub committed: Arc<Ensemble>,
    /// A newer one that was proposed.
    pub last_seen: Option<Arc<Ensemble>>,
}

/// A server that was elected, from then until it steps down.
#[derive(Debug)]
pub struct Leader {
    me: ServerId,
    options: LeaderOptions,
    phase: Phase,
    /// When the leadership was begun.
    started_ms: u64,
    /// When the present phase has taken too long.
    deadline_ms: u64,
    next_ping_ms: u64,
    next_quorum_check_ms: u64,
    /// The own epochs as they are on disk.
    epochs: Epochs,
    /// The epoch and the end of the own history when the leadership began: nobody may know more.
    summary: (Epoch, Zxid),
    /// The new epoch, from [`Phase::Accepting`] on.
    epoch: Epoch,
    /// Discovery: the highest epoch that a member has accepted.
    highest: Epoch,
    /// Discovery: who has told its accepted epoch.
    heard: BTreeSet<ServerId>,
    /// Who has accepted the new epoch. Counts also after the connection has ended: the promise is on disk.
    accepted: BTreeSet<ServerId>,
    /// Who cannot follow because it knows more than this server.
    ahead: BTreeSet<ServerId>,
    /// Who has taken over the history. Counts also after the connection has ended.
    synced: BTreeSet<ServerId>,
    electorates: Electorates,
    /// The reconfiguration that is proposed and not committed.
    reconfig: Option<Zxid>,
    /// Another server was designated to lead: nothing more is committed here.
    retired: bool,
    links: BTreeMap<PeerConn, Link>,
    by_server: BTreeMap<ServerId, PeerConn>,
    /// End of the part of the history that is decided, or will be by the NEWLEADER quorum.
    committed: Zxid,
    /// The last transaction that was proposed, or inherited.
    proposed: Zxid,
    /// How far the own log is on disk.
    durable: Zxid,
    /// Size of a snapshot of the tree.
    snapshot_bytes: u64,
    barrier: Barrier,
    /// Encoded packets that go to several learners.
    scratch: Vec<u8>,
}

impl Leader {
    /// Begins to lead. An ensemble of one needs no packet to get on: look at `out`.
    pub fn new(elected: Elected, options: LeaderOptions, now_ms: u64, out: &mut Vec<Output>) -> Leader {
        let Elected { me, epochs, last, committed, last_seen } = elected;
        let mut leader = Leader {
            me,
            phase: Phase::Discovery,
            started_ms: now_ms,
            deadline_ms: now_ms.saturating_add(options.init_limit_ms()),
            next_ping_ms: now_ms.saturating_add(options.tick_ms / 2),
            next_quorum_check_ms: now_ms.saturating_add(options.tick_ms),
            epochs,
            summary: (epochs.current, last),
            epoch: Epoch::default(),
            highest: epochs.accepted,
            heard: BTreeSet::from([me]),
            accepted: BTreeSet::new(),
            ahead: BTreeSet::new(),
            synced: BTreeSet::new(),
            electorates: Electorates::new(committed, last_seen),
            reconfig: None,
            retired: false,
            links: BTreeMap::new(),
            by_server: BTreeMap::new(),
            committed: last,
            proposed: last,
            durable: last,
            snapshot_bytes: 0,
            barrier: Barrier::default(),
            scratch: Vec::new(),
            options,
        };
        leader.choose_epoch(now_ms, out);
        leader
    }

    /// A learner has connected to the quorum port.
    pub fn accepted(&mut self, now_ms: u64, conn: PeerConn, out: &mut Vec<Output>) {
        if self.phase == Phase::Down {
            return;
        }
        let unknown = self.links.values().filter(|link| link.step == Step::Info).count();
        if unknown >= link::UNKNOWN_MAX {
            out.push(Output::Close { conn, sid: None, reason: CloseReason::TooMany });
            return;
        }
        self.links.insert(conn, Link::new(now_ms));
    }

    /// A packet has arrived. Unknown connections are ignored: they were closed by an earlier output.
    pub fn packet(
        &mut self,
        now_ms: u64,
        conn: PeerConn,
        packet: QuorumPacket,
        history: &History,
        out: &mut Vec<Output>,
    ) {
        if self.phase == Phase::Down {
            return;
        }
        let Some(link) = self.links.get_mut(&conn) else { return };
        link.heard_ms = now_ms;
        let packet = match ToLeader::try_from(packet) {
            Ok(packet) => packet,
            Err(error) => return self.close(conn, CloseReason::Wire(error), out),
        };
        match (link.step, packet) {
            (Step::Info, ToLeader::FollowerInfo(info)) => self.info(now_ms, conn, true, info, out),
            (Step::Info, ToLeader::ObserverInfo(info)) => self.info(now_ms, conn, false, info, out),
            (Step::AckEpoch, ToLeader::AckEpoch { last, current }) => {
                self.ack_epoch(now_ms, conn, last, current, history, out);
            }
            (Step::Syncing, ToLeader::Ack(zxid)) => self.ack_while_syncing(now_ms, conn, zxid, out),
            (Step::Synced, ToLeader::Ack(zxid)) => self.ack(now_ms, conn, zxid, out),
            (Step::Synced, packet) if self.phase == Phase::Broadcast => self.serve(conn, packet, out),
            (step, packet) => {
                let reason = CloseReason::Unexpected { what: link::name(&packet), step: step.name() };
                self.close(conn, reason, out);
            }
        }
    }

    /// What a synchronised learner wants besides acknowledging.
    fn serve(&mut self, conn: PeerConn, packet: ToLeader, out: &mut Vec<Output>) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        let Some(sid) = link.sid else { return };
        match packet {
            ToLeader::Ping { touched, .. } => {
                link.ping_answered();
                if !touched.is_empty() {
                    out.push(Output::Touch { sid, sessions: touched });
                }
            }
            ToLeader::Request { op, .. } if op == zk_proto::OpCode::Sync as i32 => {
                self.barrier.wait(barrier::Waiter::Learner(conn), self.proposed);
            }
            ToLeader::Request { session, cxid, op, body, auth } => {
                out.push(Output::Request { conn, sid, session, cxid, op, body, auth });
            }
            ToLeader::Revalidate { session, timeout_ms } => {
                out.push(Output::Revalidate { conn, sid, session, timeout_ms });
            }
            ToLeader::Other(_) => {}
            packet => {
                let reason = CloseReason::Unexpected { what: link::name(&packet), step: Step::Synced.name() };
                self.close(conn, reason, out);
            }
        }
    }

    /// The answer to [`Output::Revalidate`].
    pub fn revalidated(&mut self, conn: PeerConn, session: SessionId, valid: bool) {
        if let Some(link) = self.links.get_mut(&conn) {
            ToLearner::Revalidate { session, valid }.encode(&mut link.outbox);
        }
    }

    /// A connection has ended, or was closed because of its bytes.
    pub fn closed(&mut self, conn: PeerConn, out: &mut Vec<Output>) {
        self.forget(conn);
        if self.retired && self.phase == Phase::Broadcast && !self.quorum_is_connected() {
            self.step_down(StepDownReason::NotDesignated, out);
        }
    }

    /// How many bytes of a learner's are not yet taken by its socket; told whenever it changes much, at least once
    /// per tick. While a snapshot is sent, a change also shows that the learner takes it.
    pub fn backlog(&mut self, now_ms: u64, conn: PeerConn, bytes: usize, out: &mut Vec<Output>) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        if link.streaming {
            if link.backlog != bytes {
                link.heard_ms = now_ms;
            }
            link.backlog = bytes;
        } else if bytes > self.options.backlog_bytes_max {
            self.close(conn, CloseReason::Backlog(bytes), out);
        }
    }

    /// The size of a snapshot of the tree, roughly: whether a learner gets log or snapshot depends on it.
    pub fn snapshot_size(&mut self, bytes: u64) {
        self.snapshot_bytes = bytes;
    }

    /// Decides what the inputs since the last call have decided, and hands out what is to be sent: at most one
    /// [`Output::Send`] per learner. To be called after each batch of inputs, and again when its outputs were
    /// answered: a snapshot may be wanted, too.
    pub fn flush(&mut self, now_ms: u64, history: &History, out: &mut Vec<Output>) {
        if self.phase == Phase::Broadcast {
            self.commit(history, out);
            self.retry_parked(now_ms, history, out);
            self.answer_barriers(out);
        }
        if self.phase == Phase::Down {
            return;
        }
        let limit = self.options.backlog_bytes_max.saturating_mul(link::STREAMING_BACKLOG);
        let mut hopeless = Vec::new();
        for (&conn, link) in &mut self.links {
            let waiting = link.held.len() + if link.streaming { link.outbox.len() } else { 0 };
            if waiting > limit {
                hopeless.push((conn, waiting));
            } else if !link.streaming && !link.outbox.is_empty() {
                out.push(Output::Send { conn, bytes: std::mem::take(&mut link.outbox) });
            }
        }
        for (conn, bytes) in hopeless {
            self.close(conn, CloseReason::Backlog(bytes), out);
        }
    }

    /// Whether a quorum has taken over the history: clients may be served.
    pub fn is_active(&self) -> bool {
        self.phase == Phase::Broadcast
    }

    /// What operators see.
    pub fn status(&self) -> LeaderStatus {
        let learners = self.links.iter().filter_map(|(&conn, link)| {
            Some(LearnerStatus {
                conn,
                sid: link.sid?,
                follower: link.follower,
                voter: self.electorates.is_voter(link.sid?),
                synced: link.step == Step::Synced,
                acked: link.acked,
            })
        });
        LeaderStatus {
            epoch: (self.phase > Phase::Discovery && self.phase != Phase::Down).then_some(self.epoch),
            active: self.is_active(),
            committed: self.committed,
            proposed: self.proposed,
            learners: learners.collect(),
        }
    }

    /// Ends the leadership from outside: shutdown, or the own log has failed, or no zxid is left.
    pub fn step_down(&mut self, reason: StepDownReason, out: &mut Vec<Output>) {
        if self.phase != Phase::Down {
            self.phase = Phase::Down;
            self.links.clear();
            self.by_server.clear();
            out.push(Output::StepDown(reason));
        }
    }

    fn close(&mut self, conn: PeerConn, reason: CloseReason, out: &mut Vec<Output>) {
        if self.phase == Phase::Down {
            return;
        }
        let sid = self.links.get(&conn).and_then(|link| link.sid);
        out.push(Output::Close { conn, sid, reason });
        self.closed(conn, out);
    }

    fn forget(&mut self, conn: PeerConn) {
        let sid = self.links.remove(&conn).and_then(|link| link.sid);
        if let Some(sid) = sid
            && self.by_server.get(&sid) == Some(&conn)
        {
            self.by_server.remove(&sid);
        }
    }

    /// The connected learner with this id.
    fn link_of(&self, sid: ServerId) -> Option<&Link> {
        self.by_server.get(&sid).and_then(|conn| self.links.get(conn))
    }
}
