//! The replica: sessions, PREPARE, the order of transactions and their application as one deterministic state
//! machine. Input comes through [`Replica::step`]; what it wants done goes out through [`Shell`].
//!
//! It has no clock, no socket, no file and no random numbers of its own. Standalone for now: an appended
//! transaction is committed as soon as it is durable.

pub mod messages;
pub mod prepare;
pub mod read;
mod shared;
mod watching;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use zk_proto::jute::frame;
use zk_proto::{ErrorCode, OpCode, ReplyHeader, SessionId, Zxid};

use self::messages::{
    Input, IoThread, Item, ItemKind, Letter, Mail, Now, Shell, Submission, slot_of, thread_of,
};
use self::prepare::{Prepare, PrepareOptions, WriteRequest};
use self::read::{ReadEnv, ReadRequest, answer};
pub use self::shared::Shared;
use self::watching::WatchCollector;
use crate::auth::ConnAuth;
use crate::session::{self, SessionIdGenerator, SessionTracker};
use crate::storage::record;
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

/// A transaction that was appended and is not applied yet.
#[derive(Debug)]
struct Appended {
    zxid: Zxid,
    /// The payload within its batch.
    payload: std::ops::Range<usize>,
    origin: Origin,
    /// Reads of the same connection that wait behind it.
    then: Vec<Deferred>,
}

/// Who waits for a transaction.
#[derive(Debug)]
enum Origin {
    /// A client's request.
    Request { conn: ConnId, xid: i32, close: bool },
    /// A handshake.
    Connect { conn: ConnId, session: SessionId, timeout_ms: i32 },
    /// The server itself: expiry, containers.
    Server,
}

/// A read behind a write of its connection.
#[derive(Debug)]
struct Deferred {
    conn: ConnId,
    what: DeferredKind,
}

#[derive(Debug)]
enum DeferredKind {
    Read { session: SessionId, xid: i32, op: OpCode, body: Vec<u8>, auth: Arc<ConnAuth> },
    Canned { frame: Vec<u8>, close: bool },
    Released,
}

/// One append to the log.
#[derive(Debug)]
struct Batch {
    bytes: Bytes,
    txns: VecDeque<Appended>,
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
    prepare: Prepare,
    sessions: SessionTracker,
    session_ids: SessionIdGenerator,
    batches: VecDeque<Batch>,
    /// Position of the first transaction in `batches`, and behind the last.
    applied: u64,
    appended: u64,
    durable: Zxid,
    conns: Vec<Vec<ConnState>>,
    mail: Vec<Mail>,
    reported_until: Vec<u64>,
    /// The append that is being put together.
    open: Vec<u8>,
    open_txns: VecDeque<Appended>,
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
    /// Takes over a recovered tree; its sessions get a full timeout from `now` on.
    pub fn new(shared: Arc<Shared>, options: ReplicaOptions, now: Now) -> Self {
        let (prepare, sessions, durable) = {
            let tree = shared.tree.read();
            let mut sessions = SessionTracker::new(options.tick_ms);
            for (id, timeout_ms) in tree.sessions() {
                sessions.add(SessionId(id), timeout_ms, session::NO_OWNER, now.mono_ms);
            }
            // Ephemerals of sessions that are not open (Apache has left such trees) go with the session that they
            // name, by a transaction: a tree must not change without one.
            for (owner, _) in tree.all_ephemerals().filter(|(owner, _)| !tree.has_session(*owner)) {
                if !sessions.is_tracked(SessionId(owner)) {
                    sessions.add(SessionId(owner), 1, session::NO_OWNER, now.mono_ms);
                }
            }
            (Prepare::new(options.prepare.clone(), &tree), sessions, tree.last_zxid())
        };
        let threads = options.io_threads;
        let mut replica = Replica {
            shared,
            prepare,
            sessions,
            session_ids: options.session_ids.clone(),
            batches: VecDeque::new(),
            applied: 1,
            appended: 1,
            durable,
            conns: vec![Vec::new(); threads],
            mail: (0..threads).map(|_| Mail::default()).collect(),
            reported_until: vec![now.mono_ms; threads],
            open: Vec::new(),
            open_txns: VecDeque::new(),
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
        self.appended - self.applied
    }

    /// Takes one input. Never blocks, except for the short locks of [`Shared`].
    pub fn step(&mut self, now: Now, input: Input, shell: &mut dyn Shell) {
        match input {
            Input::Submit(submission) => self.submit(now, submission),
            Input::Durable(zxid) => {
                self.durable = self.durable.max(zxid);
                self.apply_durable(shell);
            }
            Input::Touch { thread, until_ms, sessions } => {
                for (session, at_ms) in sessions {
                    self.sessions.touch(session, at_ms);
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
            match kind {
                ItemKind::Write { session, xid, op, body, auth } => {
                    self.write(&tree, now, conn, session, xid, op, bytes(&body), &auth);
                }
                ItemKind::Read { session, xid, op, body, auth } => {
                    let read = DeferredKind::Read { session, xid, op, body: bytes(&body).to_vec(), auth };
                    self.defer(&tree, Deferred { conn, what: read });
                }
                ItemKind::Canned { frame, close } => {
                    let canned = DeferredKind::Canned { frame: bytes(&frame).to_vec(), close };
                    self.defer(&tree, Deferred { conn, what: canned });
                }
                ItemKind::CreateSession { timeout_ms } => {
                    let session = self.session_ids.next_id();
                    self.sessions.add(session, timeout_ms, u64::from(conn.0), now.mono_ms);
                    let origin = Origin::Connect { conn, session, timeout_ms };
                    self.push(origin, |prepare, out| {
                        Some(prepare.create_session(session.0, timeout_ms, now, out))
                    });
                }
                ItemKind::Reattach { session, passwd, passwd_ok, timeout_ms } => {
                    self.reattach(now, conn, session, passwd_ok.then_some(passwd), timeout_ms);
                }
                ItemKind::Closed => self.defer(&tree, Deferred { conn, what: DeferredKind::Released }),
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
        self.push(Origin::Request { conn, xid, close }, |prepare, out| {
            Some(prepare.request(tree, now, &request, out))
        });
    }

    fn reattach(
        &mut self,
        now: Now,
        conn: ConnId,
        session: SessionId,
        passwd: Option<[u8; 16]>,
        timeout_ms: i32,
    ) {
        let known = self.sessions.is_tracked(session) && !self.sessions.is_closing(session);
        // Unlike Apache we look at the password before we close the owner's connection.
        if !known || !passwd.is_some_and(|passwd| session::password_matches(session, &passwd)) {
            self.letter(conn, Letter::SessionRefused { conn });
            return;
        }
        let owner = self.sessions.owner(session);
        self.sessions.attach(session, timeout_ms, u64::from(conn.0), now.mono_ms);
        if let Some(old) = owner.filter(|&old| old != session::NO_OWNER && old != u64::from(conn.0)) {
            let old = ConnId(old as u32);
            self.letter(old, Letter::Close { conn: old, session });
        }
        let passwd = session::password(session);
        self.letter(conn, Letter::SessionReady { conn, session, timeout_ms, passwd });
    }

    /// Appends a transaction to the batch that is being put together.
    fn push(&mut self, origin: Origin, prepare: impl FnOnce(&mut Prepare, &mut Vec<u8>) -> Option<Zxid>) {
        let at = self.open.len();
        let mut zxid = None;
        record::frame(&mut self.open, |out| zxid = prepare(&mut self.prepare, out));
        let Some(zxid) = zxid else {
            self.open.truncate(at);
            return;
        };
        let payload = at + record::PREFIX..self.open.len() - 1;
        self.since_snapshot.txns += 1;
        self.since_snapshot.bytes += (self.open.len() - at) as u64;
        if let Origin::Request { conn, .. } | Origin::Connect { conn, .. } = origin {
            self.conn(conn).last_write = self.appended;
        }
        self.appended += 1;
        self.open_txns.push_back(Appended { zxid, payload, origin, then: Vec::new() });
    }

    /// Does it now, or behind the connection's last write.
    fn defer(&mut self, tree: &Tree, deferred: Deferred) {
        let last_write = self.conn(deferred.conn).last_write;
        if last_write < self.applied {
            self.resolve(tree, deferred);
            return;
        }
        let mut behind = last_write - self.applied;
        for batch in &mut self.batches {
            let len = batch.txns.len() as u64;
            if behind < len {
                batch.txns[behind as usize].then.push(deferred);
                return;
            }
            behind -= len;
        }
        if let Some(appended) = self.open_txns.get_mut(behind as usize) {
            appended.then.push(deferred);
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

    /// Hands the open batch to the log.
    fn append(&mut self, shell: &mut dyn Shell) {
        let (Some(first), Some(last)) = (self.open_txns.front(), self.open_txns.back()) else { return };
        let (first, last) = (first.zxid, last.zxid);
        let capacity = self.open.len();
        let bytes = Bytes::from(std::mem::replace(&mut self.open, Vec::with_capacity(capacity.min(1 << 16))));
        let txns = std::mem::take(&mut self.open_txns);
        self.batches.push_back(Batch { bytes: bytes.clone(), txns });
        shell.append(bytes, first, last);
    }

    /// Applies what is durable, in sections, each with its letters delivered before readers see it.
    fn apply_durable(&mut self, shell: &mut dyn Shell) {
        let shared = self.shared.clone();
        while self.next_is_durable() {
            let mut tree = shared.tree.write();
            for _ in 0..APPLY_SECTION {
                if !self.next_is_durable() {
                    break;
                }
                self.apply_next(&mut tree);
            }
            shared.set_last_zxid(tree.last_zxid());
            if self.snapshot_due() {
                shell.snapshot(tree.pin());
            }
            self.deliver(shell);
        }
        self.prepare.applied(self.durable);
    }

    fn next_is_durable(&mut self) -> bool {
        while self.batches.front().is_some_and(|batch| batch.txns.is_empty()) {
            self.batches.pop_front();
        }
        self.batches
            .front()
            .and_then(|batch| batch.txns.front())
            .is_some_and(|appended| appended.zxid <= self.durable)
    }

    fn apply_next(&mut self, tree: &mut Tree) {
        let Some(batch) = self.batches.front_mut() else { return };
        let Some(Appended { zxid, payload, origin, then }) = batch.txns.pop_front() else { return };
        let bytes = batch.bytes.clone();
        // Encoded by PREPARE a moment ago: not decodable means that this process is broken.
        let (header, txn, digest) = txn::decode(&bytes[payload]).expect("a prepared transaction decodes");
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        let wanted = matches!(origin, Origin::Request { .. }).then_some(&mut body);
        let code = {
            let mut watches = self.shared.watches.lock();
            let mut collector = WatchCollector::new(&mut watches, &mut self.mail, zxid);
            tree.apply(&header, &txn, digest, &mut collector, wanted)
        };
        self.applied += 1;
        match origin {
            Origin::Request { conn, xid, close } => self.reply(conn, xid, zxid, code, &body, close),
            Origin::Connect { conn, session, timeout_ms } => {
                let passwd = session::password(session);
                self.letter(conn, Letter::SessionReady { conn, session, timeout_ms, passwd });
            }
            Origin::Server => {}
        }
        self.body = body;
        if header.kind == txn::kind::CLOSE_SESSION {
            let owner = self.sessions.owner(SessionId(header.client_id));
            self.sessions.remove(SessionId(header.client_id));
            if let (Origin::Server, Some(owner)) = (&origin, owner)
                && owner != session::NO_OWNER
            {
                let conn = ConnId(owner as u32);
                self.letter(conn, Letter::Close { conn, session: SessionId(header.client_id) });
            }
        }
        for deferred in then {
            self.resolve(tree, deferred);
        }
    }

    fn reply(&mut self, conn: ConnId, xid: i32, zxid: Zxid, code: ErrorCode, body: &[u8], close: bool) {
        let Some(mail) = self.mail.get_mut(thread_of(conn)) else { return };
        let start = mail.bytes.len() as u32;
        frame(&mut mail.bytes, |out| {
            ReplyHeader { xid, zxid, err: code }.encode(out);
            if code == ErrorCode::OK {
                out.extend_from_slice(body);
            }
        });
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
        if self.sessions.is_tracked(session) && !self.sessions.is_closing(session) {
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
