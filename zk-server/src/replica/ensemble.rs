//! The replica as a member of an ensemble: what it does in each role, and what it wants of the others.
//!
//! The calls here come from `member`, which knows who leads. After each of them, as after
//! [`Replica::step`], the caller takes [`Replica::take_upstream`] and passes it on.

use std::sync::Arc;

use bytes::Bytes;
use zk_proto::{ErrorCode, OpCode, SessionId, Zxid};

use super::messages::{Letter, Now, Shell, thread_of};
use super::pipeline::{Deferred, DeferredKind, Origin};
use super::prepare::{Prepare, WriteRequest};
use super::{Done, Replica, What, all_sessions, encode_reply};
use crate::auth::{ConnAuth, Identity};
use crate::session::{NO_OWNER, SessionTracker};
use crate::tree::{SnapshotPin, Tree};
use crate::txn::{self, TxnHeader, kind};
use crate::watch::ConnId;
use crate::zab::ensemble::Ensemble;
use crate::zab::leader::ReconfigView;
use crate::zab::{Epoch, Proposal, ServerId};

/// The last counter of an epoch that a transaction may have: behind it comes the next epoch (ZOOKEEPER-1277).
pub(super) const COUNTER_MAX: u32 = u32::MAX - 1;

/// Who gives transactions their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// This server, and nobody else is asked.
    Standalone,
    /// This server, for an ensemble: what a quorum has is committed.
    Leading,
    /// The leader of this follower or observer.
    Learning,
    /// Nobody, for the time being: no client is served.
    Idle,
    /// Nobody, and clients may read what may be old.
    ReadOnly,
}

/// What the replica wants of the rest of the ensemble.
#[derive(Debug)]
pub enum Upstream {
    /// Leading: these were prepared and given to the log.
    Proposed(Vec<Proposal>),
    /// The same for one that changes the ensemble, in its place among the others.
    Reconfigured {
        /// The transaction.
        proposal: Proposal,
        /// What it brings into force.
        ensemble: Arc<Ensemble>,
    },
    /// Leading: the epoch has no zxid left; somebody has to lead a new one.
    EpochUsedUp,
    /// Leading: a client of this server wants [`Replica::sync_done`] called when everything proposed so far is
    /// committed and this server is known to lead still.
    Sync,
    /// Learning: for the leader. An `op` of sync is answered by [`Replica::sync_done`].
    Request {
        /// The session.
        session: SessionId,
        /// The request's xid; 0 for a new session.
        cxid: i32,
        /// The operation.
        op: OpCode,
        /// The record behind the header.
        body: Bytes,
        /// The client's identities, its address first.
        auth: Vec<Identity>,
    },
    /// Learning: is the session still open? Answered by [`Replica::revalidated`].
    Revalidate {
        /// The session.
        session: SessionId,
        /// Negotiated timeout, ms.
        timeout_ms: i32,
    },
}

/// What is not a read in [`Role::ReadOnly`].
#[derive(Debug)]
pub(super) enum ReadOnlyItem {
    CreateSession { timeout_ms: i32 },
    Reattach { session: SessionId, timeout_ms: i32, passwd_ok: bool },
    CloseSession { session: SessionId, xid: i32 },
}

/// A handshake that waits for the leader's word.
#[derive(Debug)]
pub(super) struct Revalidating {
    session: SessionId,
    pub(super) conn: ConnId,
    timeout_ms: i32,
}

/// A write that came over another server.
#[derive(Debug)]
pub struct RemoteRequest<'a> {
    /// The server that the client is connected to.
    pub from: ServerId,
    /// The client's session.
    pub session: SessionId,
    /// The request's xid.
    pub cxid: i32,
    /// The operation.
    pub op: i32,
    /// The record behind the header.
    pub body: &'a [u8],
    /// The client's identities.
    pub auth: &'a ConnAuth,
}

/// Sessions of other servers' clients are owned by the server, in numbers above those of connections.
fn owner_of(server: ServerId) -> u64 {
    // Ids are below 2^63; the highest number of all stands for no owner.
    ((1 << 63) | server.0 as u64).min(NO_OWNER - 1)
}

/// The connection of this server that owns a session, if one does.
pub(super) fn own_connection(owner: u64) -> Option<ConnId> {
    u32::try_from(owner).ok().map(ConnId)
}

impl Replica {
    /// What it does at present.
    pub fn role(&self) -> Role {
        self.role
    }

    /// What the ensemble has to be asked or told, oldest first.
    pub fn take_upstream(&mut self) -> Vec<Upstream> {
        std::mem::take(&mut self.upstream)
    }

    /// From now on nobody is served: what clients wait for they will not get. What is in the log, or on its way
    /// there, stays to be applied by [`Replica::apply_log`]; what was not given to the log yet is forgotten.
    pub fn idle(&mut self, shell: &mut dyn Shell) {
        self.role = Role::Idle;
        let mut waiting = self.pipeline.forget_waiting();
        self.pipeline.discard_open();
        waiting.extend(self.waiting.clear());
        for Deferred { conn, what } in waiting {
            if matches!(what, DeferredKind::Released) {
                self.letter(conn, Letter::Released { conn });
            }
        }
        self.connecting.clear();
        self.syncing.clear();
        self.revalidating.clear();
        self.touched.clear();
        self.upstream.clear();
        self.sweep.clear();
        self.sessions = SessionTracker::new(self.options.tick_ms);
        self.deliver(shell);
    }

    /// From idle: clients may read.
    pub fn read_only(&mut self) {
        if self.role == Role::Idle {
            self.role = Role::ReadOnly;
        }
    }

    /// A client in [`Role::ReadOnly`]: what it gets is decided here and now, and nobody else hears of it.
    pub(super) fn serve_read_only(&mut self, tree: &Tree, now: Now, conn: ConnId, item: ReadOnlyItem) {
        match item {
            ReadOnlyItem::CreateSession { timeout_ms } => {
                let session = self.session_ids.next_id();
                self.sessions.add(session, timeout_ms, u64::from(conn.0), now.mono_ms);
                self.session_ready(conn, session, timeout_ms);
            }
            ReadOnlyItem::Reattach { session, timeout_ms, passwd_ok } => {
                if passwd_ok && (tree.has_session(session.0) || self.sessions.is_tracked(session)) {
                    self.close_owner(session, Some(conn));
                    self.sessions.add(session, timeout_ms, u64::from(conn.0), now.mono_ms);
                    self.sessions.attach(session, timeout_ms, u64::from(conn.0), now.mono_ms);
                    self.session_ready(conn, session, timeout_ms);
                } else {
                    self.letter(conn, Letter::SessionRefused { conn });
                }
            }
            ReadOnlyItem::CloseSession { session, xid } => {
                self.sessions.remove(session);
                self.reply(conn, xid, tree.last_zxid(), ErrorCode::OK, &[], true);
            }
        }
    }

    /// Applies everything that is in the log, committed or not: a server between two leaders shows in its votes
    /// what it would recover after a crash. Everything appended must be durable.
    pub fn apply_log(&mut self, shell: &mut dyn Shell) {
        self.role = Role::Idle;
        self.pipeline.set_durable(Zxid(i64::MAX));
        self.pipeline.commit(Zxid(i64::MAX));
        self.apply_ready(shell);
        let last = self.last_zxid();
        self.pipeline.reset(last);
    }

    /// Puts another tree in the place of the present one: rebuilt from disk, or received from the leader. What
    /// is not applied is dropped.
    pub fn replace_tree(&mut self, tree: Tree) {
        let last = tree.last_zxid();
        *self.shared.tree.write() = tree;
        self.shared.reset_last_zxid(last);
        let staging = self.pipeline.is_staging();
        self.pipeline.reset(last);
        if staging {
            self.pipeline.stage();
        }
    }

    /// The tree at this moment, for a snapshot.
    pub fn pin(&self) -> Arc<SnapshotPin> {
        self.shared.tree.write().pin()
    }

    /// Shows a configuration of the ensemble to clients, in the node that Apache keeps for it. No transaction:
    /// every member does it by itself, and the node is in no digest.
    pub fn set_config(&mut self, text: &str, version: i64, wall_ms: i64) {
        let mut tree = self.shared.tree.write();
        let shown = tree.config();
        if shown != Some((text.as_bytes(), version)) {
            tree.set_config(text, version, wall_ms);
        }
    }

    /// The version of the configuration that clients see: of the last one in the tree's history.
    pub fn config_version(&self) -> i64 {
        self.shared.tree.read().config().map_or(0, |(_, version)| version)
    }

    /// About how many bytes a snapshot would have.
    pub fn snapshot_size(&self) -> u64 {
        const NODE_BYTES: u64 = 80;
        let tree = self.shared.tree.read();
        tree.approximate_data_size() + NODE_BYTES * tree.len() as u64
    }

    /// The last transaction in the tree.
    pub fn last_zxid(&self) -> Zxid {
        self.shared.tree.read().last_zxid()
    }

    /// Leading: what there is to know of the ensemble, ahead of an input that may ask to change it.
    pub fn set_reconfig_view(&mut self, view: ReconfigView) {
        self.prepare.set_reconfig_view(view);
    }

    /// A term of leadership begins: everything in the tree is committed, and clients may be served.
    pub fn lead(&mut self, epoch: Epoch, now: Now) {
        let shared = self.shared.clone();
        let tree = shared.tree.read();
        self.role = Role::Leading;
        self.prepare = Prepare::new(self.options.prepare.clone(), &tree);
        self.prepare.begin_epoch(epoch.start());
        self.sessions = all_sessions(&tree, self.options.tick_ms, now);
        self.pipeline.reset(tree.last_zxid());
        self.pipeline.await_commits(epoch.start());
        self.next_sweep_ms = None;
        self.reported_until.fill(now.mono_ms);
        self.shared.set_last_zxid(epoch.start().max(tree.last_zxid()));
    }

    /// A synchronisation with a leader begins: nothing goes to the log, and what is committed is applied at once.
    pub fn begin_learning(&mut self) {
        let last = self.last_zxid();
        self.role = Role::Idle;
        self.pipeline.reset(last);
        self.pipeline.stage();
    }

    /// The synchronisation is complete as far as transactions go. Returns what has to go to the log before
    /// anything else; from now on transactions are logged when they come.
    pub fn end_staging(&mut self) -> Vec<Proposal> {
        self.pipeline.end_staging()
    }

    /// The history is the leader's and durable: clients may be served.
    pub fn serve_as_learner(&mut self, epoch: Epoch) {
        self.role = Role::Learning;
        self.sessions = SessionTracker::new(self.options.tick_ms);
        let last = self.last_zxid();
        self.shared.set_last_zxid(epoch.start().max(last));
    }

    /// A transaction of the leader. Refused if it cannot be understood: it would never be applied.
    ///
    /// # Errors
    /// What cannot be decoded.
    pub fn propose(&mut self, proposal: &Proposal) -> Result<(), zk_proto::DecodeError> {
        let (header, _, _) = txn::decode(&proposal.payload)?;
        if header.zxid != proposal.zxid {
            let value = header.zxid.0;
            return Err(zk_proto::DecodeError::Unexpected { what: "zxid of the transaction", value });
        }
        let bytes = self.pipeline.push(Origin::LookUp, |out| {
            out.extend_from_slice(&proposal.payload);
            Some(proposal.zxid)
        });
        self.count_for_snapshot(bytes.unwrap_or_default());
        Ok(())
    }

    /// Ends the batch that [`Replica::propose`] has put together, and sends it to the log unless a
    /// synchronisation runs. The transactions are added to `proposals` as they lie in memory here.
    pub fn flush_proposals(&mut self, proposals: &mut Vec<Proposal>, shell: &mut dyn Shell) {
        if let Some(records) = self.pipeline.take_batch(Some(proposals)) {
            shell.append(records.bytes, records.first, records.last);
        }
    }

    /// Everything up to `zxid` is committed. Returns whether all digests of what was applied were right.
    pub fn commit(&mut self, zxid: Zxid, shell: &mut dyn Shell) -> bool {
        self.pipeline.commit(zxid);
        let before = self.shared.tree.read().digest_mismatches();
        self.apply_ready(shell);
        self.deliver(shell);
        self.shared.tree.read().digest_mismatches() == before
    }

    /// A write of another server's client, for the leader to prepare.
    pub fn remote_request(&mut self, now: Now, request: &RemoteRequest<'_>) {
        let RemoteRequest { from, session, cxid, op, body, auth } = *request;
        let owner = owner_of(from);
        match op {
            kind::CREATE_SESSION => {
                let Some(timeout_ms) = body.first_chunk().map(|b| i32::from_be_bytes(*b)) else { return };
                // Also a local session that becomes a global one.
                self.sessions.add(session, timeout_ms, owner, now.mono_ms);
                self.sessions.set_owner(session, owner);
                self.push(Origin::Server, |prepare, out| {
                    Some(prepare.create_session(session.0, timeout_ms, now, out))
                });
            }
            _ => {
                let Some(op) = OpCode::from_i32(op) else { return };
                let session_check = match self.sessions.check_owner(session, owner) {
                    Err(ErrorCode::UNKNOWN_SESSION) => Err(ErrorCode::SESSION_EXPIRED),
                    other => other,
                };
                let closing = op == OpCode::CloseSession && session_check.is_ok();
                if op == OpCode::CloseSession && !closing {
                    // Already closing, or somebody else's by now: its end is not this client's to decide.
                    return;
                }
                if closing {
                    self.sessions.set_closing(session);
                }
                let shared = self.shared.clone();
                let tree = shared.tree.read();
                let request = WriteRequest { session: session.0, cxid, op, body, auth, session_check };
                self.push(Origin::Server, |prepare, out| Some(prepare.request(&tree, now, &request, out)));
            }
        }
    }

    /// Ends what the calls since the last input have put together.
    pub fn flush(&mut self, shell: &mut dyn Shell) {
        self.append(shell);
        self.deliver(shell);
    }

    /// Another server has heard of a session.
    pub fn touch(&mut self, session: SessionId, now: Now) {
        self.sessions.touch(session, now.mono_ms);
    }

    /// A client has come to another server with its session. Returns whether it may go on with it.
    pub fn revalidate_for(
        &mut self,
        from: ServerId,
        session: SessionId,
        timeout_ms: i32,
        now: Now,
        shell: &mut dyn Shell,
    ) -> bool {
        if !self.sessions.is_tracked(session) || self.sessions.is_closing(session) {
            return false;
        }
        self.close_owner(session, None);
        self.sessions.attach(session, timeout_ms, owner_of(from), now.mono_ms);
        self.deliver(shell);
        true
    }

    /// The leader's word on a session, see [`Upstream::Revalidate`].
    pub fn revalidated(&mut self, session: SessionId, valid: bool, now: Now, shell: &mut dyn Shell) {
        let Some(at) = self.revalidating.iter().position(|waiting| waiting.session == session) else {
            return;
        };
        let Some(Revalidating { conn, timeout_ms, .. }) = self.revalidating.remove(at) else { return };
        if valid {
            self.close_owner(session, Some(conn));
            self.sessions.add(session, timeout_ms, u64::from(conn.0), now.mono_ms);
            self.sessions.attach(session, timeout_ms, u64::from(conn.0), now.mono_ms);
            self.touched.insert(session, timeout_ms);
            self.session_ready(conn, session, timeout_ms);
        } else {
            self.letter(conn, Letter::SessionRefused { conn });
        }
        self.deliver(shell);
    }

    /// The oldest sync that was asked for is done: its client may read when everything committed so far is
    /// applied.
    pub fn sync_done(&mut self, shell: &mut dyn Shell) {
        let Some(conn) = self.syncing.pop_front() else { return };
        let deferred = Deferred { conn, what: DeferredKind::Synced };
        if let Some(deferred) = self.pipeline.defer_behind_committed(deferred) {
            let shared = self.shared.clone();
            self.resolve(&shared.tree.read(), deferred);
        }
        self.deliver(shell);
    }

    /// Sessions heard of since the last call, with their timeouts in ms.
    pub fn take_touched(&mut self) -> Vec<(SessionId, i32)> {
        std::mem::take(&mut self.touched).into_iter().collect()
    }

    pub(super) fn forward(
        &mut self,
        conn: ConnId,
        session: SessionId,
        cxid: i32,
        op: OpCode,
        body: &[u8],
        auth: &ConnAuth,
    ) {
        if self.sessions.owner(session) != Some(u64::from(conn.0)) {
            // The session has moved to another connection, or has ended.
            self.letter(conn, Letter::Close { conn, session });
            return;
        }
        self.waiting.push(conn, What::Write { session, cxid, close: op == OpCode::CloseSession });
        let auth = auth.for_peer();
        self.upstream.push(Upstream::Request { session, cxid, op, body: Bytes::copy_from_slice(body), auth });
    }

    pub(super) fn forward_create_session(&mut self, conn: ConnId, session: SessionId, timeout_ms: i32) {
        self.connecting.insert(session, conn);
        self.waiting.push(conn, What::Connect { session, timeout_ms });
        let body = Bytes::copy_from_slice(&timeout_ms.to_be_bytes());
        let op = OpCode::CreateSession;
        self.upstream.push(Upstream::Request { session, cxid: 0, op, body, auth: Vec::new() });
    }

    pub(super) fn revalidate(&mut self, conn: ConnId, session: SessionId, timeout_ms: i32) {
        self.revalidating.push_back(Revalidating { session, conn, timeout_ms });
        self.upstream.push(Upstream::Revalidate { session, timeout_ms });
    }

    pub(super) fn sync(&mut self, conn: ConnId, session: SessionId, xid: i32, body: &[u8]) {
        self.waiting.push(conn, What::Sync { xid, path: body.to_vec() });
        self.syncing.push_back(conn);
        match self.role {
            Role::Learning => {
                let body = Bytes::copy_from_slice(body);
                let (op, auth) = (OpCode::Sync, Vec::new());
                self.upstream.push(Upstream::Request { session, cxid: xid, op, body, auth });
            }
            _ => self.upstream.push(Upstream::Sync),
        }
    }

    /// Which client of this server, if any, has asked for a transaction.
    pub(super) fn who_waits(&mut self, header: &TxnHeader) -> Option<(ConnId, What)> {
        let session = SessionId(header.client_id);
        if header.kind == kind::CREATE_SESSION {
            let conn = self.connecting.remove(&session)?;
            let what = self.waiting.find(
                conn,
                |what| matches!(what, What::Connect { session: waited, .. } if *waited == session),
            )?;
            return Some((conn, what));
        }
        let conn = self.sessions.owner(session).and_then(own_connection)?;
        let what = self.waiting.find(conn, |what| {
            matches!(what, What::Write { session: waited, cxid, .. }
                if *waited == session && *cxid == header.cxid)
        })?;
        Some((conn, what))
    }

    pub(super) fn answer_waiting(
        &mut self,
        tree: &Tree,
        conn: ConnId,
        what: What,
        zxid: Zxid,
        code: ErrorCode,
        body: &[u8],
    ) {
        if let What::Write { session, cxid, close } = what
            && let Some(then) = self.waiting.leave_first(conn, &what)
        {
            self.reply(conn, cxid, zxid, code, body, close);
            // The last answer that this connection gets.
            if code == ErrorCode::SESSION_MOVED {
                self.letter(conn, Letter::Close { conn, session });
            }
            for deferred in then {
                self.resolve(tree, deferred);
            }
            return;
        }
        let mut answer = Vec::new();
        match &what {
            What::Write { cxid, .. } => encode_reply(&mut answer, *cxid, zxid, code, body),
            What::Sync { xid, path } => encode_reply(&mut answer, *xid, zxid, code, path),
            What::Connect { session, timeout_ms } => {
                self.sessions.add(*session, *timeout_ms, u64::from(conn.0), 0);
                self.touched.insert(*session, *timeout_ms);
            }
        }
        for Done { what, mut answer, then } in self.waiting.answer(conn, &what, answer) {
            // Known since an older transaction, perhaps, but sent behind answers that show this one: the client
            // must not forget that it has seen it.
            stamp(&mut answer, tree.last_zxid());
            match what {
                What::Write { session, close, .. } => {
                    // The answer -118 (session moved) is the last one that this connection gets.
                    let moved = answer.get(16..20) == Some(&ErrorCode::SESSION_MOVED.0.to_be_bytes()[..]);
                    self.reply_with(conn, &answer, close);
                    if moved {
                        self.letter(conn, Letter::Close { conn, session });
                    }
                }
                What::Sync { .. } => self.reply_with(conn, &answer, false),
                What::Connect { session, timeout_ms } => self.session_ready(conn, session, timeout_ms),
            }
            for deferred in then {
                self.resolve(tree, deferred);
            }
        }
    }

    pub(super) fn synced(&mut self, tree: &Tree, conn: ConnId) {
        let Some(what) = self.waiting.find(conn, |what| matches!(what, What::Sync { .. })) else { return };
        self.answer_waiting(tree, conn, what, tree.last_zxid(), ErrorCode::OK, &[]);
    }

    fn reply_with(&mut self, conn: ConnId, answer: &[u8], close: bool) {
        let Some(mail) = self.mail.get_mut(thread_of(conn)) else { return };
        let start = mail.bytes.len() as u32;
        mail.bytes.extend_from_slice(answer);
        mail.letters.push(Letter::Reply { conn, frame: start..mail.bytes.len() as u32, close });
    }
}

/// Puts a zxid into the header of a reply frame.
fn stamp(frame: &mut [u8], zxid: Zxid) {
    const ZXID: std::ops::Range<usize> = 8..16;
    if let Some(at) = frame.get_mut(ZXID) {
        at.copy_from_slice(&zxid.0.to_be_bytes());
    }
}
