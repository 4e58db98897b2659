//! What a frame is, and where it goes: answered here, or to the replica.
//!
//! | frame | nothing unanswered before it | behind something unanswered |
//! |---|---|---|
//! | read, ping, sync, watches | answered from the tree | to the replica, answered behind that |
//! | write | to the replica | to the replica |
//! | undecodable write, unknown operation | refused here | refusal to the replica, to keep its place |
//! | auth, sasl | at once | at once: it overtakes |

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use zk_proto::jute::{Writer, frame};
use zk_proto::{
    AuthPacket, ConnectRequest, ErrorCode, OpCode, Reader, ReplyHeader, Request, RequestHeader, SessionId,
    Zxid,
};

use super::conn::{Phase, Sample};
use super::deliver::TreeGuard;
use super::limits::{DEFERRED_READ_COST, SUBMISSION_BYTES, SUBMISSION_ITEMS};
use super::{IoThread, Serving, WordRequest};
use crate::admin::metrics::Counter;
use crate::auth::AuthOutcome;
use crate::config::FourLetterWord;
use crate::replica::messages::{Item, ItemKind, Span};
use crate::replica::read::{ReadEnv, ReadRequest, answer};
use crate::watch::ConnId;

/// Stands in the header of a refusal for the last processed zxid at the time when it is its turn.
const CURRENT_ZXID: Zxid = Zxid(i64::MIN);

/// How a request is dealt with.
enum Route {
    Read,
    Write,
    Auth,
    Sasl,
    Refuse,
}

impl Route {
    fn of(op: OpCode) -> Route {
        use OpCode::*;
        match op {
            Create | Create2 | CreateContainer | CreateTtl | Delete | DeleteContainer | SetData | SetAcl
            | Multi | Reconfig | CloseSession => Route::Write,
            Auth => Route::Auth,
            Sasl => Route::Sasl,
            // A new session on an open connection (Apache allows it), and what is legal inside a multi only.
            CreateSession | Check => Route::Refuse,
            Exists | GetData | GetAcl | GetChildren | GetChildren2 | Sync | Ping | MultiRead
            | CheckWatches | RemoveWatches | SetWatches | SetWatches2 | GetEphemerals
            | GetAllChildrenNumber | AddWatch | WhoAmI => Route::Read,
            _ => Route::Refuse,
        }
    }
}

impl<'a> IoThread<'a> {
    /// Deals with a complete frame of a connection that takes requests. Locks the tree if it has to be read.
    pub(super) fn on_frame(&mut self, slot: u32, frame: &[u8], tree: &mut Option<TreeGuard<'a>>) {
        let Some(conn) = self.slots.get(slot) else { return };
        conn.counters.received += 1;
        self.recorder.packet_received();
        if conn.phase == Phase::New {
            self.on_connect_request(slot, frame);
            return;
        }
        let mut reader = Reader::new(frame);
        let Ok(RequestHeader { xid, op: code }) = RequestHeader::decode(&mut reader) else {
            self.close(slot, "frame without a header");
            return;
        };
        let body = &frame[RequestHeader::WIRE_LEN..];
        let Some(op) = OpCode::from_i32(code) else {
            tracing::debug!(remote = %conn.remote(), code, "unknown operation");
            self.refuse_and_close(slot, xid, Zxid(-1), ErrorCode::UNIMPLEMENTED);
            return;
        };
        conn.counters.last_op = Some(op);
        conn.counters.last_cxid = xid;
        let admitted = conn.admitted;
        match Route::of(op) {
            Route::Auth => self.on_auth(slot, xid, body),
            Route::Sasl => self.on_sasl(slot, xid, body),
            _ if !admitted => {
                self.refuse_and_close(slot, xid, Zxid(0), ErrorCode::SESSION_CLOSED_REQUIRE_SASL_AUTH);
            }
            Route::Refuse => self.refuse_and_close(slot, xid, Zxid(-1), ErrorCode::UNIMPLEMENTED),
            _ if self.is_stale(slot) => {
                self.recorder.count(Counter::StaleRequests);
                self.recorder.count(Counter::StaleRequestsDropped);
                self.close(slot, "its requests are older than its session's timeout");
            }
            _ if self.waited_too_long(slot, op) => {
                self.recorder.count(Counter::ThrottledOps);
                self.refuse(slot, xid, ErrorCode::THROTTLED_OP, tree);
            }
            _ if needs_leader(op) && self.net.serving.serving() == Serving::ReadOnly => {
                self.refuse(slot, xid, ErrorCode::NOT_READ_ONLY, tree);
            }
            Route::Read => self.on_read(slot, xid, op, body, tree),
            Route::Write => self.on_write(slot, xid, op, body, tree),
        }
    }

    /// Whether a request stood in the connection's backlog for longer than the configuration allows.
    fn waited_too_long(&mut self, slot: u32, op: OpCode) -> bool {
        let Some(allowed_us) = self.net.options.throttled_wait_us else { return false };
        self.waited_us(slot) > allowed_us && !matches!(op, OpCode::Ping | OpCode::CloseSession)
    }

    /// Whether a request is to be dropped because it stood in the backlog for longer than its session's timeout:
    /// the client has given it up.
    fn is_stale(&mut self, slot: u32) -> bool {
        let Some(conn) = self.slots.get(slot).filter(|_| self.net.options.drop_stale) else { return false };
        let timeout_us = u64::from(conn.timeout_ms.unsigned_abs()) * 1000;
        self.waited_us(slot) > timeout_us
    }

    /// Since when the connection's requests wait here.
    fn waited_us(&mut self, slot: u32) -> u64 {
        let since_us = self.slots.get(slot).and_then(|conn| conn.backlog_since_us);
        since_us.map_or(0, |since_us| self.now_us.saturating_sub(since_us))
    }

    /// The first frame of a connection.
    fn on_connect_request(&mut self, slot: u32, body: &[u8]) {
        let id = self.id(slot);
        self.recorder.count(Counter::ConnectionRequestCount);
        let Ok(request) = ConnectRequest::decode(&mut Reader::new(body)) else {
            self.close(slot, "not a connect request");
            return;
        };
        let (term, serving) = self.net.serving.get();
        match serving {
            Serving::All => {}
            Serving::ReadOnly if request.read_only == Some(true) => {}
            Serving::ReadOnly => return self.close(slot, "the client wants a server that writes"),
            Serving::Nobody => return self.close(slot, "not serving"),
        }
        // The client has seen a future that this server does not know (yet): it must go elsewhere.
        let last_zxid = self.net.shared.last_zxid();
        if request.last_zxid_seen.0 > last_zxid.0 {
            self.close(slot, "the client has seen a later zxid");
            return;
        }
        let renew = request.session_id != SessionId::NONE;
        if !self.net.throttle.lock().admits(self.now_ms, renew, fastrand::f64()) {
            self.recorder.count(Counter::ConnectionRejected);
            self.close(slot, "connect requests are throttled");
            return;
        }
        let timeout_ms = self.net.timeouts.negotiate(request.timeout_ms);
        let Some(conn) = self.slots.get(slot) else { return };
        conn.phase = Phase::Connecting { read_only_field: request.read_only.is_some() };
        conn.in_replica = true;
        conn.term = term;
        let kind = if renew {
            let passwd = request.passwd.and_then(|passwd| <[u8; 16]>::try_from(passwd).ok());
            ItemKind::Reattach {
                session: request.session_id,
                passwd: passwd.unwrap_or_default(),
                passwd_ok: passwd.is_some(),
                timeout_ms,
            }
        } else {
            ItemKind::CreateSession { timeout_ms }
        };
        self.submission.items.push(Item { conn: id, kind });
    }

    fn on_read(&mut self, slot: u32, xid: i32, op: OpCode, body: &[u8], tree: &mut Option<TreeGuard<'a>>) {
        let Some(conn) = self.slots.get(slot) else { return };
        // In an ensemble only the leader knows what a sync has to wait for.
        if conn.in_core > 0 || op == OpCode::Sync && self.net.options.member {
            let (session, auth) = (conn.session, conn.auth.clone());
            let body = self.copy(body);
            let kind = ItemKind::Read { session, xid, op, body, auth };
            self.submit_item(slot, kind, DEFERRED_READ_COST, false);
            return;
        }
        let Some(tree) = self.tree_for(slot, tree) else { return };
        let id = self.id(slot);
        let Some(conn) = self.slots.get(slot) else { return };
        let env = ReadEnv { tree, watches: &self.net.shared.watches, providers: &self.net.providers };
        let request = ReadRequest { conn: id, session: conn.session, xid, op, body, auth: &conn.auth };
        let start = self.scratch.len();
        answer(env, &request, &mut self.scratch);
        conn.counters.last_zxid = tree.last_zxid().0;
        let bytes = (self.scratch.len() - start) as u64;
        self.answered += 1;
        self.recorder.response_size(bytes);
        self.recorder.add(Counter::ResponseBytes, bytes);
    }

    /// The tree for an answer to a connection: all events that are older than what will be read are in its output.
    /// `None` if the connection was closed by mail.
    fn tree_for<'t>(&mut self, slot: u32, tree: &'t mut Option<TreeGuard<'a>>) -> Option<&'t TreeGuard<'a>> {
        if tree.is_none() {
            let guard = self.lock_tree();
            self.settle_events(slot);
            *tree = Some(guard);
        }
        let conn = self.slots.get(slot)?;
        // Asked with the tree locked: a tree that came with a new term is not shown to those of the old one.
        if conn.term != self.net.serving.get().0 {
            self.close(slot, "the server serves others now");
            return None;
        }
        tree.as_ref()
    }

    fn on_write(&mut self, slot: u32, xid: i32, op: OpCode, body: &[u8], tree: &mut Option<TreeGuard<'a>>) {
        // A multi that cannot be decoded takes a zxid all the same.
        if op != OpCode::Multi && Request::decode(op, &mut Reader::new(body)).is_err() {
            self.refuse(slot, xid, ErrorCode::MARSHALLING_ERROR, tree);
            return;
        }
        if !self.has_room_for(slot, body.len()) {
            self.recorder.count(Counter::LargeRequestsRejected);
            self.close(slot, "too many bytes in large requests");
            return;
        }
        let Some(conn) = self.slots.get(slot) else { return };
        let (session, auth) = (conn.session, conn.auth.clone());
        if op == OpCode::CloseSession {
            conn.phase = Phase::Closing;
        }
        let body = self.copy(body);
        let cost = body.len() as u32;
        self.submit_item(slot, ItemKind::Write { session, xid, op, body, auth }, cost, true);
    }

    /// Counts a large request in; false if there are too many already.
    fn has_room_for(&mut self, slot: u32, bytes: usize) -> bool {
        let (Some((large, max)), Some(conn)) = (self.net.options.large_requests, self.slots.get(slot)) else {
            return true;
        };
        if (bytes as u64) <= large {
            return true;
        }
        let bytes = bytes as i64;
        if self.net.large_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > max {
            self.net.large_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        conn.large_bytes += bytes;
        true
    }

    /// An auth packet: dealt with at once, its reply overtakes.
    fn on_auth(&mut self, slot: u32, xid: i32, body: &[u8]) {
        let Ok(Request::Auth(AuthPacket { scheme, auth: token, .. })) =
            Request::decode(OpCode::Auth, &mut Reader::new(body))
        else {
            self.close(slot, "undecodable auth packet");
            return;
        };
        let Some(conn) = self.slots.get(slot) else { return };
        let (code, close) = match self.net.providers.authenticate(&conn.auth, scheme.as_deref(), token) {
            AuthOutcome::Ok(auth) => {
                if auth != *conn.auth {
                    conn.auth = Arc::new(auth);
                }
                conn.admitted = self.net.providers.admits(&conn.auth);
                (ErrorCode::OK, false)
            }
            AuthOutcome::Failed => {
                tracing::warn!(remote = %conn.remote(), scheme = ?scheme, "authentication failed");
                self.net.auth_failed.fetch_add(1, Ordering::Relaxed);
                (ErrorCode::AUTH_FAILED, true)
            }
            AuthOutcome::Close => {
                self.close(slot, "expects another ensemble");
                return;
            }
        };
        reply(&mut self.scratch, xid, Zxid(0), code, |_| {});
        self.answered += 1;
        if close {
            self.finish(slot, true);
        }
    }

    /// A SASL packet: this server has no SASL, which is answered by an exchange that ends at once.
    fn on_sasl(&mut self, slot: u32, xid: i32, body: &[u8]) {
        match Request::decode(OpCode::Sasl, &mut Reader::new(body)) {
            Ok(Request::Sasl { token: Some(_) }) => {
                reply(&mut self.scratch, xid, Zxid(0), ErrorCode::OK, |out| out.put_buffer(None));
                self.answered += 1;
            }
            _ => self.close(slot, "undecodable sasl packet"),
        }
    }

    /// Answers an error in its place; the connection stays.
    fn refuse(&mut self, slot: u32, xid: i32, code: ErrorCode, tree: &mut Option<TreeGuard<'a>>) {
        let Some(conn) = self.slots.get(slot) else { return };
        if conn.in_core > 0 {
            let frame = self.canned(xid, CURRENT_ZXID, code);
            let cost = frame.len() as u32;
            self.submit_item(slot, ItemKind::Canned { frame, close: false }, cost, false);
            return;
        }
        let Some(tree) = self.tree_for(slot, tree) else { return };
        reply(&mut self.scratch, xid, tree.last_zxid(), code, |_| {});
        self.answered += 1;
    }

    /// Answers an error in its place, then closes the connection.
    fn refuse_and_close(&mut self, slot: u32, xid: i32, zxid: Zxid, code: ErrorCode) {
        let Some(conn) = self.slots.get(slot) else { return };
        if conn.in_core > 0 {
            conn.phase = Phase::Closing;
            let frame = self.canned(xid, zxid, code);
            let cost = frame.len() as u32;
            self.submit_item(slot, ItemKind::Canned { frame, close: true }, cost, false);
            return;
        }
        reply(&mut self.scratch, xid, zxid, code, |_| {});
        self.answered += 1;
        self.finish(slot, true);
    }

    /// Puts an item that gets a reply into the submission.
    fn submit_item(&mut self, slot: u32, kind: ItemKind, cost: u32, write: bool) {
        let id = self.id(slot);
        let now_us = self.now_us;
        let Some(conn) = self.slots.get(slot) else { return };
        if conn.sample.is_none() {
            conn.sample = Some(Sample { before: conn.in_core, arrived_us: now_us, write });
        }
        conn.in_core += 1;
        conn.waiting_cost = conn.waiting_cost.saturating_add(cost);
        self.owed += 1;
        self.submission.items.push(Item { conn: id, kind });
    }

    fn copy(&mut self, body: &[u8]) -> Span {
        let start = self.submission.bytes.len();
        self.submission.bytes.extend_from_slice(body);
        span(start..self.submission.bytes.len())
    }

    fn canned(&mut self, xid: i32, zxid: Zxid, code: ErrorCode) -> Span {
        let start = self.submission.bytes.len();
        reply(&mut self.submission.bytes, xid, zxid, code, |_| {});
        span(start..self.submission.bytes.len())
    }

    /// Whether the submission should go before more is added.
    pub(super) fn submission_is_full(&self) -> bool {
        self.submission.items.len() >= SUBMISSION_ITEMS || self.submission.bytes.len() >= SUBMISSION_BYTES
    }

    /// Recognizes a four-letter word in the first bytes of a connection.
    pub(super) fn try_word(&mut self, slot: u32, first: [u8; 4]) -> bool {
        let id = self.id(slot);
        let Some(word) = FourLetterWord::from_bytes(first) else { return false };
        let Some(conn) = self.slots.get(slot) else { return false };
        conn.phase = Phase::Word;
        conn.counters.received += 1;
        self.recorder.packet_received();
        let remote = conn.remote();
        self.net.upstream.word(WordRequest { conn: id, remote, word });
        true
    }

    /// Sends the answer to a four-letter word, then closes.
    pub(super) fn answer_word(&mut self, conn: ConnId, text: &str) {
        let Some(slot) = self.slot_of_own(conn) else { return };
        let Some(conn) = self.slots.get(slot).filter(|conn| conn.phase == Phase::Word) else { return };
        conn.push(text.as_bytes());
        self.finish(slot, true);
        if let Some(conn) = self.slots.get(slot) {
            let sent = conn.flush();
            self.after_sending(slot, sent);
        }
    }
}

/// What a server without a leader cannot do: writes, and waiting for what others have written.
fn needs_leader(op: OpCode) -> bool {
    // A session that was made without a leader ends without one.
    matches!(Route::of(op), Route::Write) && op != OpCode::CloseSession || op == OpCode::Sync
}

/// The submission is handed over long before its bytes do not fit 32 bits.
fn span(range: Range<usize>) -> Span {
    range.start as u32..range.end as u32
}

fn reply(out: &mut Vec<u8>, xid: i32, zxid: Zxid, err: ErrorCode, body: impl FnOnce(&mut Vec<u8>)) {
    frame(out, |out| {
        ReplyHeader { xid, zxid, err }.encode(out);
        body(out);
    });
}
