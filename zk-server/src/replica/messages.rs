//! What goes into the replica and what comes out of it.
//!
//! A [`Submission`] is what one I/O thread has gathered since its last one: writes, and whatever else has to
//! keep its place behind a write of the same connection. A [`Mail`] is what the replica has for the
//! connections of one I/O thread, in apply order: replies, watch events, session changes.

use std::sync::Arc;

use bytes::Bytes;
use zk_proto::{Acl, OpCode, SessionId};

use crate::auth::ConnAuth;
use crate::watch::ConnId;

/// Index of an I/O thread.
pub type IoThread = usize;

/// Bits of a [`ConnId`] that name the connection's slot on its I/O thread; the bits above name the thread.
pub const CONN_SLOT_BITS: u32 = 22;

/// The connection in slot `slot` of I/O thread `thread`.
pub fn conn_id(thread: IoThread, slot: u32) -> ConnId {
    debug_assert!(slot < 1 << CONN_SLOT_BITS);
    ConnId(((thread as u32) << CONN_SLOT_BITS) | slot)
}

/// The I/O thread that owns a connection.
pub fn thread_of(conn: ConnId) -> IoThread {
    (conn.0 >> CONN_SLOT_BITS) as IoThread
}

/// The slot of a connection on its thread.
pub fn slot_of(conn: ConnId) -> u32 {
    conn.0 & ((1 << CONN_SLOT_BITS) - 1)
}

/// Time as the shell tells it: the replica has no clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct Now {
    /// Monotonic milliseconds since an arbitrary start.
    pub mono_ms: u64,
    /// Wall clock, ms since the Unix epoch; becomes the time of transactions.
    pub wall_ms: i64,
}

/// One request of a submission. `body` is a range of the submission's bytes.
#[derive(Debug)]
pub struct Item {
    /// Where it came from.
    pub conn: ConnId,
    /// What it is.
    pub kind: ItemKind,
}

/// Range of bytes within [`Submission::bytes`].
pub type Span = std::ops::Range<u32>;

/// The kinds of things that a connection submits.
#[derive(Debug)]
pub enum ItemKind {
    /// A new session is wanted (after the timeout was clamped).
    CreateSession {
        /// Negotiated timeout, ms.
        timeout_ms: i32,
    },
    /// A connection wants to go on with a session.
    Reattach {
        /// The session.
        session: SessionId,
        /// What the client gave as password.
        passwd: [u8; 16],
        /// Whether the given password had 16 bytes at all.
        passwd_ok: bool,
        /// Negotiated timeout, ms.
        timeout_ms: i32,
    },
    /// A write: create*, delete*, setData, setACL, multi, reconfig, closeSession. The body has been decoded
    /// once already, so it is known to be well formed; a multi alone may be undecodable (it takes a zxid).
    Write {
        /// The connection's session.
        session: SessionId,
        /// The request's xid.
        xid: i32,
        /// Operation code.
        op: zk_proto::OpCode,
        /// The record behind the header.
        body: Span,
        /// The connection's identities at this moment.
        auth: Arc<ConnAuth>,
    },
    /// A read (or sync, ping, setWatches, ...) that waits behind a write of its connection.
    Read {
        /// The connection's session.
        session: SessionId,
        /// The request's xid.
        xid: i32,
        /// Operation code.
        op: zk_proto::OpCode,
        /// The record behind the header.
        body: Span,
        /// The connection's identities at this moment.
        auth: Arc<ConnAuth>,
    },
    /// A reply frame (with its length prefix) that was built on the I/O thread and only has to keep its place.
    /// A zxid of `i64::MIN` in its header is replaced by the last processed zxid when it is its turn.
    Canned {
        /// The frame.
        frame: Span,
        /// Close the connection behind it.
        close: bool,
    },
    /// The connection is gone. Answered by [`Letter::Released`].
    Closed,
}

/// What one I/O thread hands over at a time, in the order in which it was read from the sockets.
#[derive(Debug, Default)]
pub struct Submission {
    /// Request bodies, copied once from the receive buffer.
    pub bytes: Vec<u8>,
    /// The requests.
    pub items: Vec<Item>,
}

impl Submission {
    /// Whether a write of this kind is among the requests.
    pub fn asks_for(&self, wanted: OpCode) -> bool {
        self.items.iter().any(|item| matches!(item.kind, ItemKind::Write { op, .. } if op == wanted))
    }
}

/// Input of the replica.
#[derive(Debug)]
pub enum Input {
    /// Requests of an I/O thread.
    Submit(Submission),
    /// Everything appended up to this zxid is on disk.
    Durable(zk_proto::Zxid),
    /// Sessions that were heard of, and up to when (monotonic ms) this report of the thread is complete.
    Touch {
        /// The reporting thread.
        thread: IoThread,
        /// All requests read before this moment are covered by reports up to this one.
        until_ms: u64,
        /// Session and time of its last sign of life.
        sessions: Vec<(SessionId, u64)>,
    },
    /// Time has passed: expire sessions, sweep containers and TTL nodes.
    Tick,
    /// Expire this session now, as if it had been silent: an operator or a test wants it.
    Expire(SessionId),
}

/// Something for one connection (or several), see [`Mail`].
#[derive(Debug)]
pub enum Letter {
    /// A reply frame, complete with length prefix, to append to the connection's output.
    Reply {
        /// The connection.
        conn: ConnId,
        /// Range in [`Mail::bytes`].
        frame: Span,
        /// One more of the connection's submitted items (not events) is answered; with `close`, close behind it.
        close: bool,
    },
    /// A watch event frame for connections of this thread. Each connection whose identities may not read the
    /// node (`acl`) is left out.
    Event {
        /// The frame, shared by all watchers.
        frame: Bytes,
        /// Who gets it.
        conns: Vec<ConnId>,
        /// ACL to check for READ; `None`: everybody may.
        acl: Option<Arc<[Acl<'static>]>>,
    },
    /// Answer of a handshake: the session is open (or re-attached).
    SessionReady {
        /// The connection.
        conn: ConnId,
        /// The session.
        session: SessionId,
        /// Negotiated timeout, ms.
        timeout_ms: i32,
        /// The session's password.
        passwd: [u8; 16],
    },
    /// Answer of a handshake: unknown, expired or not the caller's session. Refuse, then close.
    SessionRefused {
        /// The connection.
        conn: ConnId,
    },
    /// Close the connection without a word (session expired, or moved to another connection), if it still has
    /// this session: an owner may have closed its connection long ago, and another client may have its slot.
    Close {
        /// The connection.
        conn: ConnId,
        /// The session that it had.
        session: SessionId,
    },
    /// Nothing more will come for this closed connection: its slot may be used again.
    Released {
        /// The connection.
        conn: ConnId,
    },
}

/// Letters for the connections of one I/O thread, oldest first.
#[derive(Debug, Default)]
pub struct Mail {
    /// Bytes of the reply frames.
    pub bytes: Vec<u8>,
    /// The letters.
    pub letters: Vec<Letter>,
}

impl Mail {
    /// Whether there is nothing to deliver.
    pub fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    /// Appends `other` behind what is here.
    pub fn append(&mut self, other: &mut Mail) {
        if self.is_empty() {
            std::mem::swap(self, other);
            return;
        }
        let shift = self.bytes.len() as u32;
        self.bytes.append(&mut other.bytes);
        self.letters.extend(other.letters.drain(..).map(|letter| match letter {
            Letter::Reply { conn, frame, close } => {
                Letter::Reply { conn, frame: frame.start + shift..frame.end + shift, close }
            }
            other => other,
        }));
    }
}

/// What the replica asks of the world around it. Called while the replica runs; must not call back.
pub trait Shell {
    /// Append these framed records to the log and make them durable; answer with [`Input::Durable`].
    fn append(&mut self, records: Bytes, first: zk_proto::Zxid, last: zk_proto::Zxid);
    /// Deliver letters to the connections of a thread. Called while readers of the tree are locked out, so that
    /// nobody reads a change before its event is in the mail.
    fn deliver(&mut self, thread: IoThread, mail: &mut Mail);
    /// Begin a new log file with the next record and write the pinned snapshot.
    fn snapshot(&mut self, pin: Arc<crate::tree::SnapshotPin>);
}
