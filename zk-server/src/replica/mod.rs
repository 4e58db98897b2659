//! The replica: sessions, PREPARE, the order of transactions and their application as one deterministic state
//! machine. Input comes through [`Replica::step`]; what it wants done goes out through [`Shell`].
//!
//! It has no clock, no socket, no file and no random numbers of its own. What it does depends on its [`Role`]: a
//! standalone server and a leader prepare transactions, a follower or observer passes requests on to its leader
//! and applies what comes back. See [`ensemble`] for the calls that only members of an ensemble need.

pub mod ensemble;
pub mod messages;
mod pipeline;
pub mod prepare;
pub mod read;
mod shared;
mod waiting;
mod watching;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use zk_proto::jute::frame;
use zk_proto::{ErrorCode, OpCode, ReplyHeader, SessionId, Zxid};

use self::ensemble::ReadOnlyItem;
pub use self::ensemble::{Role, Upstream};
use self::messages::{
    Input, IoThread, Item, ItemKind, Letter, Mail, Now, Shell, Submission, slot_of, thread_of,
};
pub use self::pipeline::Records;
use self::pipeline::{Deferred, DeferredKind, Origin, Pipeline};
use self::prepare::{Prepare, PrepareOptions, WriteRequest};
use self::read::{ReadEnv, ReadRequest, answer};
pub use self::shared::Shared;
use self::waiting::{Done, WaitingRequests, What};
use self::watching::WatchCollector;
use crate::auth::ConnAuth;
use crate::session::{self, SessionIdGenerator, SessionTracker};
use crate::tree::Tree;
use crate::txn;
use crate::watch::ConnId;

/// A batch of transactions is applied in sections of this many under the tree's write lock, so that readers
/// never wait for long.
const APPLY_SECTION: usize = 64;

/// Settings of the replica.
#[derive(Debug, Clone)]
pub struct ReplicaOptions {
    /// What PREPARE allows.
    pub prepare: PrepareOptions,
    /// Session expiry is rounded up to this, ms.
    pub tick_ms: u64,
    /// A snapshot is taken after this many transactions at the latest, and after half of it at the earliest.
    pub snap_count: u64,
    /// The same by bytes of log.
    pub snap_size_bytes: u64,
    /// Interval of the search for empty containers and expired TTL nodes, ms.
    pub container_check_ms: u64,
    /// At most so many of them are deleted per minute.
    pub container_max_per_minute: u64,
    /// Containers that never had a child are deleted after this many ms; 0: never.
    pub container_max_never_used_ms: i64,
    /// First session id to give out; from server id and clock.
    pub session_ids: SessionIdGenerator,
    /// Decides when exactly snapshots fall due.
    pub seed: u64,
    /// Number of I/O threads.
    pub io_threads: usize,
}

/// What the replica knows of a connection.
#[derive(Debug, Clone, Copy, Default)]
struct ConnState {
    /// Position of its last appended write, counted from the first ever; 0 when there is none.
    last_write: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Replica {
    shared: Arc<Shared>,
    options: ReplicaOptions,
    role: Role,
    prepare: Prepare,
    /// All sessions on a leader and a standalone server, those of its own clients elsewhere.
    sessions: SessionTracker,
    session_ids: SessionIdGenerator,
    pipeline: Pipeline,
    /// Answers that somebody else decides.
    waiting: WaitingRequests,
    /// Handshakes: sessions that a transaction of the leader will open.
    connecting: BTreeMap<SessionId, ConnId>,
    /// Handshakes: sessions whose owner the leader is asked for, oldest first.
    revalidating: VecDeque<ensemble::Revalidating>,
    /// Sessions heard of since the leader was told last.
    touched: BTreeMap<SessionId, i32>,
    /// Connections that wait for a sync, in the order in which the leader was asked.
    syncing: VecDeque<ConnId>,
    /// For the rest of the ensemble.
    upstream: Vec<Upstream>,
    conns: Vec<Vec<ConnState>>,
    mail: Vec<Mail>,
    reported_until: Vec<u64>,
    since_snapshot: SinceSnapshot,
    next_sweep_ms: Option<u64>,
    sweep: VecDeque<String>,
    body: Vec<u8>,
}

#[derive(Debug)]
struct SinceSnapshot {
    txns: u64,
    bytes: u64,
    txns_due: u64,
    bytes_due: u64,
    random: u64,
}

impl Replica {
    /// Takes over a recovered tree, as a standalone server; its sessions get a full timeout from `now` on.
    pub fn new(shared: Arc<Shared>, options: ReplicaOptions, now: Now) -> Self {
        let (prepare, sessions, last) = {
            let tree = shared.tree.read();
            let sessions = all_sessions(&tree, options.tick_ms, now);
            (Prepare::new(options.prepare.clone(), &tree), sessions, tree.last_zxid())
        };
        let threads = options.io_threads;
        let mut replica = Replica {
            shared,
            role: Role::Standalone,
            prepare,
            sessions,
            session_ids: options.session_ids.clone(),
            pipeline: Pipeline::new(last),
            waiting: WaitingRequests::default(),
            connecting: BTreeMap::new(),
            revalidating: VecDeque::new(),
            touched: BTreeMap::new(),
            syncing: VecDeque::new(),
            upstream: Vec::new(),
            conns: vec![Vec::new(); threads],
            mail: (0..threads).map(|_| Mail::default()).collect(),
            reported_until: vec![now.mono_ms; threads],
            since_snapshot: SinceSnapshot {
                txns: 0,
                bytes: 0,
                txns_due: 0,
                bytes_due: 0,
                random: options.seed,
            },
            next_sweep_ms: None,
            sweep: VecDeque::new(),
            body: Vec::new(),
            options,
        };
        replica.draw_snapshot_due();
        replica
    }

    /// The session tracker, for reports.
    pub fn sessions(&self) -> &SessionTracker {
        &self.sessions
    }

    /// Transactions that are appended and not applied.
    pub fn outstanding(&self) -> u64 {
        self.pipeline.outstanding()
    }

    /// Takes one input. Never blocks, except for the short locks of [`Shared`].
    pub fn step(&mut self, now: Now, input: Input, shell: &mut dyn Shell) {
        match input {
            Input::Submit(submission) => self.submit(now, submission),
            Input::Durable(zxid) => {
                self.pipeline.set_durable(zxid);
                self.apply_ready(shell);
            }
            Input::Touch { thread, until_ms, sessions } => {
                for (session, at_ms) in sessions {
                    self.sessions.touch(session, at_ms);
                    if self.role == Role::Learning
                        && let Some(timeout_ms) = self.sessions.timeout_ms(session)
                    {
                        self.touched.insert(session, timeout_ms);
                    }
                }
                if let Some(reported) = self.reported_until.get_mut(thread) {
                    *reported = (*reported).max(until_ms);
                }
            }
            Input::Tick => self.tick(now),
            Input::Expire(session) => self.expire_on_request(now, session),
        }
        self.append(shell);
        self.deliver(shell);
    }

    fn submit(&mut self, now: Now, submission: Submission) {
        let shared = self.shared.clone();
        let tree = shared.tree.read();
        for Item { conn, kind } in submission.items {
            let bytes = |span: &messages::Span| &submission.bytes[span.start as usize..span.end as usize];
            if self.role == Role::Idle && !matches!(kind, ItemKind::Closed) {
                // Nobody decides; the connection is being closed.
                continue;
            }
            if self.role == Role::ReadOnly {
                let special = match &kind {
                    ItemKind::CreateSession { timeout_ms } => {
                        Some(ReadOnlyItem::CreateSession { timeout_ms: *timeout_ms })
                    }
                    ItemKind::Reattach { session, passwd, passwd_ok, timeout_ms } => {
                        let passwd_ok = *passwd_ok && session::password_matches(*session, passwd);
                        let (session, timeout_ms) = (*session, *timeout_ms);
                        Some(ReadOnlyItem::Reattach { session, timeout_ms, passwd_ok })
                    }
                    ItemKind::Write { session, xid, .. } => {
                        Some(ReadOnlyItem::CloseSession { session: *session, xid: *xid })
                    }
                    ItemKind::Read { .. } | ItemKind::Canned { .. } | ItemKind::Closed => None,
                };
                if let Some(item) = special {
                    self.serve_read_only(&tree, now, conn, item);
                    continue;
                }
            }
            match kind {
                ItemKind::Write { session, xid, op, body, auth } => {
                    self.write(&tree, now, conn, session, xid, op, bytes(&body), &auth);
                }
                ItemKind::Read { session, xid, op: OpCode::Sync, body, .. }
                    if matches!(self.role, Role::Leading | Role::Learning) =>
                {
                    self.sync(conn, session, xid, bytes(&body));
                }
                ItemKind::Read { session, xid, op, body, auth } => {
                    let read = DeferredKind::Read { session, xid, op, body: bytes(&body).to_vec(), auth };
                    self.defer(&tree, Deferred { conn, what: read });
                }
                ItemKind::Canned { frame, close } => {
                    let canned = DeferredKind::Canned { frame: bytes(&frame).to_vec(), close };
                    self.defer(&tree, Deferred { conn, what: canned });
                }
                ItemKind::CreateSession { timeout_ms } => self.create_session(now, conn, timeout_ms),
                ItemKind::Reattach { session, passwd, passwd_ok, timeout_ms } => {
                    self.reattach(now, conn, session, passwd_ok.then_some(passwd), timeout_ms);
                }
                ItemKind::Closed => {
                    // The leader's answer must not reach who has the slot by then.
                    self.revalidating.retain(|waiting| waiting.conn != conn);
                    self.defer(&tree, Deferred { conn, what: DeferredKind::Released });
                }
            }
        }
    }

    #[allow(clippy::too_many_arguments)] // the fields of the item
    fn write(
        &mut self,
        tree: &Tree,
        now: Now,
        conn: ConnId,
        session: SessionId,
        xid: i32,
        op: OpCode,
        body: &[u8],
        auth: &ConnAuth,
    ) {
        if self.role == Role::Learning {
            self.forward(conn, session, xid, op, body, auth);
            return;
        }
        if self.sessions.is_tracked(session) && self.sessions.owner(session) != Some(u64::from(conn.0)) {
            // The session has moved: closing is the only answer (ZOOKEEPER-710).
            self.letter(conn, Letter::Close { conn, session });
            return;
        }
        let closing = self.sessions.is_closing(session) || !self.sessions.is_tracked(session);
        let session_check = if closing { Err(ErrorCode::SESSION_EXPIRED) } else { Ok(()) };
        let close = op == OpCode::CloseSession;
        if close {
            self.sessions.set_closing(session);
        }
        let request = WriteRequest { session: session.0, cxid: xid, op, body, auth, session_check };
        let origin = if self.waiting.has(conn) {
            self.waiting.push(conn, What::Write { session, cxid: xid, close });
            Origin::LookUp
        } else {
            Origin::Request { conn, xid, close }
        };
        self.push(origin, |prepare, out| Some(prepare.request(tree, now, &request, out)));
    }

    fn create_session(&mut self, now: Now, conn: ConnId, timeout_ms: i32) {
        let session = self.session_ids.next_id();
        if self.role == Role::Learning {
            self.forward_create_session(conn, session, timeout_ms);
            return;
        }
        self.sessions.add(session, timeout_ms, u64::from(conn.0), now.mono_ms);
        let origin = Origin::Connect { conn, session, timeout_ms };
        self.push(origin, |prepare, out| Some(prepare.create_session(session.0, timeout_ms, now, out)));
    }

    fn reattach(
        &mut self,
        now: Now,
        conn: ConnId,
        session: SessionId,
        passwd: Option<[u8; 16]>,
        timeout_ms: i32,
    ) {
        let passwd_ok = passwd.is_some_and(|passwd| session::password_matches(session, &passwd));
        if self.role == Role::Learning && passwd_ok {
            self.revalidate(conn, session, timeout_ms);
            return;
        }
        let known = self.sessions.is_tracked(session) && !self.sessions.is_closing(session);
        // Unlike Apache we look at the password before we close the owner's connection.
        if !known || !passwd_ok {
            self.letter(conn, Letter::SessionRefused { conn });
            return;
        }
        self.close_owner(session, Some(conn));
        self.sessions.attach(session, timeout_ms, u64::from(conn.0), now.mono_ms);
        let passwd = session::password(session);
        self.letter(conn, Letter::SessionReady { conn, session, timeout_ms, passwd });
    }

    /// Closes the connection of this server that has the session, unless it is `but`.
    fn close_owner(&mut self, session: SessionId, but: Option<ConnId>) {
        let owner = self.sessions.owner(session).and_then(ensemble::own_connection);
        if let Some(old) = owner.filter(|old| Some(*old) != but) {
            self.letter(old, Letter::Close { conn: old, session });
        }
    }

    /// Appends a transaction to the batch that is being put together.
    fn push(&mut self, origin: Origin, prepare: impl FnOnce(&mut Prepare, &mut Vec<u8>) -> Option<Zxid>) {
        if self.role == Role::Leading && self.prepare.last_zxid().counter() >= ensemble::COUNTER_MAX {
            // The epoch is used up; clients lose the connection and find the next leader.
            self.upstream.push(Upstream::EpochUsedUp);
            return;
        }
        let conn = match origin {
            Origin::Request { conn, .. } | Origin::Connect { conn, .. } => Some(conn),
            Origin::LookUp | Origin::Server => None,
        };
        let position = self.pipeline.next_position();
        let prepared = self.pipeline.push(origin, |out| prepare(&mut self.prepare, out));
        let Some(bytes) = prepared else { return };
        self.count_for_snapshot(bytes);
        if let Some(conn) = conn {
            self.conn(conn).last_write = position;
        }
    }

    fn count_for_snapshot(&mut self, bytes: usize) {
        self.since_snapshot.txns += 1;
        self.since_snapshot.bytes += bytes as u64;
    }

    /// Does it now, or behind what the connection waits for.
    fn defer(&mut self, tree: &Tree, deferred: Deferred) {
        let position = self.conn(deferred.conn).last_write;
        let deferred = self.waiting.defer(deferred);
        if let Some(deferred) = deferred.and_then(|deferred| self.pipeline.defer(position, deferred)) {
            self.resolve(tree, deferred);
        }
    }

    /// Answers something that has waited long enough.
    fn resolve(&mut self, tree: &Tree, Deferred { conn, what }: Deferred) {
        let Some(mail) = self.mail.get_mut(thread_of(conn)) else { return };
        let start = mail.bytes.len() as u32;
        let close = match what {
            DeferredKind::Released => {
                mail.letters.push(Letter::Released { conn });
                return;
            }
            DeferredKind::Synced => {
                self.synced(tree, conn);
                return;
            }
            DeferredKind::Canned { mut frame, close } => {
                stamp_canned(&mut frame, tree.last_zxid());
                mail.bytes.extend_from_slice(&frame);
                close
            }
            DeferredKind::Read { session, xid, op, body, auth } => {
                let env = ReadEnv {
                    tree,
                    watches: &self.shared.watches,
                    providers: &self.options.prepare.providers,
                };
                let request = ReadRequest { conn, session, xid, op, body: &body, auth: &auth };
                answer(env, &request, &mut mail.bytes);
                false
            }
        };
        let frame = start..mail.bytes.len() as u32;
        mail.letters.push(Letter::Reply { conn, frame, close });
    }

    /// Hands the open batch to the log, and to the rest of the ensemble.
    fn append(&mut self, shell: &mut dyn Shell) {
        let mut proposals = Vec::new();
        let wanted = (self.role == Role::Leading).then_some(&mut proposals);
        if let Some(records) = self.pipeline.take_batch(wanted) {
            shell.append(records.bytes, records.first, records.last);
        }
        for ensemble in self.prepare.take_reconfigured() {
            let at = proposals.partition_point(|proposal| proposal.zxid.0 < ensemble.version);
            let behind = proposals.split_off((at + 1).min(proposals.len()));
            if let Some(proposal) = proposals.pop() {
                if !proposals.is_empty() {
                    self.upstream.push(Upstream::Proposed(std::mem::take(&mut proposals)));
                }
                self.upstream.push(Upstream::Reconfigured { proposal, ensemble });
            }
            proposals = behind;
        }
        if !proposals.is_empty() {
            self.upstream.push(Upstream::Proposed(proposals));
        }
    }

    /// Applies what is committed and durable, in sections, each with its letters delivered before readers see it.
    fn apply_ready(&mut self, shell: &mut dyn Shell) {
        let shared = self.shared.clone();
        let mut applied = None;
        while self.pipeline.next_is_ready() {
            let mut tree = shared.tree.write();
            for _ in 0..APPLY_SECTION {
                if !self.pipeline.next_is_ready() {
                    break;
                }
                self.apply_next(&mut tree);
            }
            shared.set_last_zxid(tree.last_zxid());
            applied = Some(tree.last_zxid());
            // Only what is known to be committed may ever be in a snapshot: not while a synchronisation runs.
            if self.role != Role::Idle && !self.pipeline.is_staging() && self.snapshot_due() {
                shell.snapshot(tree.pin());
            }
            self.deliver(shell);
        }
        if let Some(zxid) = applied {
            self.prepare.applied(zxid);
        }
    }

    fn apply_next(&mut self, tree: &mut Tree) {
        let Some((payload, appended)) = self.pipeline.pop() else { return };
        let pipeline::Appended { zxid, origin, then, .. } = appended;
        // Encoded by PREPARE a moment ago, or looked at when it came from the leader: not decodable means that
        // this process is broken.
        let (header, txn, digest) = txn::decode(&payload).expect("an appended transaction decodes");
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        let waiting = match origin {
            Origin::LookUp => self.who_waits(&header),
            _ => None,
        };
        let answered = waiting.is_some() || matches!(origin, Origin::Request { .. });
        let wanted = answered.then_some(&mut body);
        let code = {
            let mut watches = self.shared.watches.lock();
            let mut collector = WatchCollector::new(&mut watches, &mut self.mail, zxid);
            tree.apply(&header, &txn, digest, &mut collector, wanted)
        };
        match origin {
            Origin::Request { conn, xid, close } => self.reply(conn, xid, zxid, code, &body, close),
            Origin::Connect { conn, session, timeout_ms } => self.session_ready(conn, session, timeout_ms),
            Origin::LookUp | Origin::Server => {}
        }
        if header.kind == txn::kind::CLOSE_SESSION {
            let session = SessionId(header.client_id);
            if !answered {
                self.close_owner(session, None);
            }
            self.sessions.remove(session);
        }
        if let Some((conn, what)) = waiting {
            self.answer_waiting(tree, conn, what, zxid, code, &body);
        }
        self.body = body;
        for deferred in then {
            self.resolve(tree, deferred);
        }
    }

    fn session_ready(&mut self, conn: ConnId, session: SessionId, timeout_ms: i32) {
        let passwd = session::password(session);
        self.letter(conn, Letter::SessionReady { conn, session, timeout_ms, passwd });
    }

    fn reply(&mut self, conn: ConnId, xid: i32, zxid: Zxid, code: ErrorCode, body: &[u8], close: bool) {
        let Some(mail) = self.mail.get_mut(thread_of(conn)) else { return };
        let start = mail.bytes.len() as u32;
        encode_reply(&mut mail.bytes, xid, zxid, code, body);
        let frame = start..mail.bytes.len() as u32;
        mail.letters.push(Letter::Reply { conn, frame, close });
    }

    fn letter(&mut self, conn: ConnId, letter: Letter) {
        if let Some(mail) = self.mail.get_mut(thread_of(conn)) {
            mail.letters.push(letter);
        }
    }

    fn deliver(&mut self, shell: &mut dyn Shell) {
        for (thread, mail) in self.mail.iter_mut().enumerate() {
            if !mail.is_empty() {
                shell.deliver(thread as IoThread, mail);
                mail.bytes.clear();
                mail.letters.clear();
            }
        }
    }

    fn tick(&mut self, now: Now) {
        if !matches!(self.role, Role::Standalone | Role::Leading) {
            return;
        }
        let shared = self.shared.clone();
        let tree = shared.tree.read();
        // Only as far as every thread has reported signs of life.
        let until = self.reported_until.iter().copied().min().unwrap_or(now.mono_ms).min(now.mono_ms);
        for session in self.sessions.expire_until(until) {
            tracing::info!(%session, "session expired");
            self.expire(&tree, now, session);
        }
        self.sweep(&tree, now);
    }

    fn expire_on_request(&mut self, now: Now, session: SessionId) {
        if matches!(self.role, Role::Standalone | Role::Leading)
            && self.sessions.is_tracked(session)
            && !self.sessions.is_closing(session)
        {
            tracing::info!(%session, "session expired on request");
            let shared = self.shared.clone();
            self.expire(&shared.tree.read(), now, session);
        }
    }

    fn expire(&mut self, tree: &Tree, now: Now, session: SessionId) {
        self.sessions.set_closing(session);
        self.push(Origin::Server, |prepare, out| Some(prepare.expire_session(tree, session.0, now, out)));
    }

    /// Deletes empty containers and expired TTL nodes, evenly over the minute.
    fn sweep(&mut self, tree: &Tree, now: Now) {
        let interval = self.options.container_check_ms.max(1);
        let due = *self.next_sweep_ms.get_or_insert(now.mono_ms + interval);
        if now.mono_ms >= due && self.sweep.is_empty() {
            self.next_sweep_ms = Some(now.mono_ms + interval);
            self.sweep = tree.reapable(now.wall_ms, self.options.container_max_never_used_ms).into();
        }
        let per_tick = (self.options.container_max_per_minute * self.options.tick_ms / 4).div_ceil(60_000);
        for _ in 0..per_tick.max(1) {
            let Some(path) = self.sweep.pop_front() else { break };
            self.push(Origin::Server, |prepare, out| prepare.reap(tree, &path, now, out));
        }
    }

    fn snapshot_due(&mut self) -> bool {
        let since = &self.since_snapshot;
        if since.txns <= since.txns_due && since.bytes <= since.bytes_due {
            return false;
        }
        self.draw_snapshot_due();
        true
    }

    /// At a random point between half and all of the limits, so that the members of an ensemble do not all
    /// write snapshots at the same time.
    fn draw_snapshot_due(&mut self) {
        let mut draw = |limit: u64| {
            let since = &mut self.since_snapshot;
            since.random = since.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let half = (limit / 2).max(1);
            half.saturating_add((since.random >> 33) % half)
        };
        let (txns_due, bytes_due) = (draw(self.options.snap_count), draw(self.options.snap_size_bytes));
        let random = self.since_snapshot.random;
        self.since_snapshot = SinceSnapshot { txns: 0, bytes: 0, txns_due, bytes_due, random };
    }

    fn conn(&mut self, conn: ConnId) -> &mut ConnState {
        let conns = &mut self.conns[thread_of(conn)];
        let slot = slot_of(conn) as usize;
        if conns.len() <= slot {
            conns.resize(slot + 1, ConnState::default());
        }
        &mut conns[slot]
    }
}

/// The sessions of a tree, each with a full timeout from `now` on.
fn all_sessions(tree: &Tree, tick_ms: u64, now: Now) -> SessionTracker {
    let mut sessions = SessionTracker::new(tick_ms);
    for (id, timeout_ms) in tree.sessions() {
        sessions.add(SessionId(id), timeout_ms, session::NO_OWNER, now.mono_ms);
    }
    // Ephemerals of sessions that are not open (Apache has left such trees) go with the session that they name,
    // by a transaction: a tree must not change without one.
    for (owner, _) in tree.all_ephemerals().filter(|(owner, _)| !tree.has_session(*owner)) {
        if !sessions.is_tracked(SessionId(owner)) {
            sessions.add(SessionId(owner), 1, session::NO_OWNER, now.mono_ms);
        }
    }
    sessions
}

/// Appends a reply frame.
fn encode_reply(out: &mut Vec<u8>, xid: i32, zxid: Zxid, code: ErrorCode, body: &[u8]) {
    frame(out, |out| {
        ReplyHeader { xid, zxid, err: code }.encode(out);
        if code == ErrorCode::OK {
            out.extend_from_slice(body);
        }
    });
}

/// Puts the current zxid into a reply that was built before its turn, where it asks for one.
fn stamp_canned(frame: &mut [u8], zxid: Zxid) {
    const ZXID: std::ops::Range<usize> = 8..16;
    if let Some(at) = frame.get_mut(ZXID)
        && *at == i64::MIN.to_be_bytes()
    {
        at.copy_from_slice(&zxid.0.to_be_bytes());
    }
}

#[cfg(test)]
mod tests;
