//! One client connection: what is known of it, and its unsent output.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use mio::net::TcpStream;
use zk_proto::{OpCode, SessionId, Zxid};

use super::Term;
use super::limits::{OUTPUT_PAUSE_BYTES, WAITING_MAX_COST};
use super::peers::Peer;
use crate::admin::{ConnectionSession, ConnectionStats};
use crate::auth::ConnAuth;

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing complete has arrived: a connect request or a four-letter word is expected.
    New,
    /// A connect request is with the replica. Whether it had the field `readOnly`.
    Connecting { read_only_field: bool },
    /// Has a session.
    Open,
    /// A four-letter word is being answered.
    Word,
    /// Nothing more is read; it is closed when everything owed is sent.
    Closing,
    /// Everything is sent, and the client was told: it should close too.
    Lingering,
}

/// See the module. About 250 bytes.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) socket: TcpStream,
    pub(super) phase: Phase,
    /// The socket has more to read, as far as is known.
    pub(super) readable: bool,
    /// The client has closed its side.
    pub(super) read_closed: bool,
    /// The poller tells when the socket takes output again.
    pub(super) write_interest: bool,
    /// `input` begins with a complete frame.
    pub(super) has_backlog: bool,
    /// To be closed when the output is sent.
    pub(super) finish: bool,
    /// Stands in the queue of connections to go on with.
    pub(super) queued: bool,
    /// Stands in the list of connections with replies to send.
    pub(super) flushing: bool,
    /// Heard of since the last report.
    pub(super) touched: bool,
    /// The replica knows its id.
    pub(super) in_replica: bool,
    /// Its identities are enough for `enforce.auth`.
    pub(super) admitted: bool,
    /// Wait for the client to close after [`Phase::Closing`], lest the reply be lost.
    pub(super) linger: bool,
    port: u16,
    /// When its connect request was taken.
    pub(super) term: Term,
    /// Negotiated session timeout.
    pub(super) timeout_ms: i32,
    /// Requests that the replica has and has not answered.
    pub(super) in_core: u32,
    /// What they cost, see [`WAITING_MAX_COST`]; counted anew when all are answered.
    pub(super) waiting_cost: u32,
    /// Bytes of the large ones among them.
    pub(super) large_bytes: i64,
    /// Since when frames stand in the backlog (µs of the thread's clock).
    pub(super) backlog_since_us: Option<u64>,
    pub(super) session: SessionId,
    pub(super) peer: Arc<Peer>,
    pub(super) auth: Arc<ConnAuth>,
    /// Time of the last complete frame, or of the last change of phase (monotonic ms).
    pub(super) heard_ms: u64,
    /// An incomplete frame, or frames that have to wait.
    pub(super) input: Vec<u8>,
    output: Vec<u8>,
    /// Bytes of `output` that are sent.
    sent: usize,
    pub(super) sample: Option<Sample>,
    pub(super) counters: Counters,
}

/// One of the requests that wait for the replica, to know how long it takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// Replies that come before its own.
    pub(super) before: u32,
    /// When it arrived (µs of the thread's clock).
    pub(super) arrived_us: u64,
    pub(super) write: bool,
}

/// What the words `cons` and `stat` tell, since the last `crst`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counters {
    pub(super) established_ms: i64,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) last_op: Option<OpCode>,
    pub(super) last_cxid: i32,
    pub(super) last_zxid: i64,
    pub(super) last_response_ms: u64,
    pub(super) latency: Latency,
}

/// Latencies of a connection, ms.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Latency {
    last: u32,
    min: u32,
    max: u32,
    count: u32,
    sum: u64,
}

impl Latency {
    pub(super) fn record(&mut self, us: u64) {
        let ms = u32::try_from(us / 1000).unwrap_or(u32::MAX);
        self.min = if self.count == 0 { ms } else { self.min.min(ms) };
        self.max = self.max.max(ms);
        self.last = ms;
        self.count = self.count.saturating_add(1);
        self.sum += u64::from(ms);
    }
}

impl Counters {
    fn new(established_ms: i64) -> Self {
        Counters {
            established_ms,
            received: 0,
            sent: 0,
            last_op: None,
            last_cxid: -1,
            last_zxid: 0,
            last_response_ms: 0,
            latency: Latency::default(),
        }
    }

    /// Begins anew.
    pub(super) fn reset(&mut self) {
        *self = Counters::new(self.established_ms);
    }
}

/// What became of sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// Everything is out.
    All,
    /// The socket takes no more for now.
    Blocked,
    /// The connection is broken.
    Broken,
}

impl Conn {
    pub(super) fn new(
        socket: TcpStream,
        peer: Arc<Peer>,
        port: u16,
        admitted: bool,
        now_ms: u64,
        wall_ms: i64,
    ) -> Self {
        let auth = peer.auth.clone();
        Conn {
            socket,
            phase: Phase::New,
            readable: false,
            read_closed: false,
            write_interest: false,
            has_backlog: false,
            finish: false,
            queued: false,
            flushing: false,
            touched: false,
            in_replica: false,
            admitted,
            linger: false,
            port,
            term: Term::NONE,
            timeout_ms: 0,
            in_core: 0,
            waiting_cost: 0,
            large_bytes: 0,
            backlog_since_us: None,
            session: SessionId::NONE,
            peer,
            auth,
            heard_ms: now_ms,
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            sample: None,
            counters: Counters::new(wall_ms),
        }
    }

    /// Whether the next frame may be looked at.
    pub(super) fn takes_requests(&self, overloaded: bool) -> bool {
        match self.phase {
            Phase::New | Phase::Open => {
                self.unsent() < OUTPUT_PAUSE_BYTES
                    && (self.in_core == 0 || (!overloaded && self.waiting_cost < WAITING_MAX_COST))
            }
            // To throw it away.
            Phase::Closing | Phase::Lingering | Phase::Word => true,
            Phase::Connecting { .. } => false,
        }
    }

    /// Whether what arrives is thrown away.
    pub(super) fn is_deaf(&self) -> bool {
        matches!(self.phase, Phase::Closing | Phase::Lingering | Phase::Word)
    }

    /// Bytes of output that wait for the socket.
    pub(super) fn unsent(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Appends output, to be sent by [`Conn::flush`].
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.sent > OUTPUT_PAUSE_BYTES {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
        self.output.extend_from_slice(bytes);
    }

    /// Sends `bytes` behind everything that waits; keeps what the socket does not take.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Sent {
        if self.unsent() > 0 {
            self.push(bytes);
            return self.flush();
        }
        let mut done = 0;
        while done < bytes.len() {
            match self.socket.write(&bytes[done..]) {
                Ok(0) => return Sent::Broken,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.push(&bytes[done..]);
                    return Sent::Blocked;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Sent::Broken,
            }
        }
        Sent::All
    }

    /// Sends what waits.
    pub(super) fn flush(&mut self) -> Sent {
        while self.sent < self.output.len() {
            match self.socket.write(&self.output[self.sent..]) {
                Ok(0) => return Sent::Broken,
                Ok(n) => self.sent += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Sent::Blocked,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Sent::Broken,
            }
        }
        // An idle connection owns no buffer.
        self.output = Vec::new();
        self.sent = 0;
        Sent::All
    }

    /// The client's address.
    pub(super) fn remote(&self) -> SocketAddr {
        SocketAddr::new(self.peer.ip, self.port)
    }

    /// What the words `cons` and `stat` tell.
    pub(super) fn stats(&self, overloaded: bool) -> ConnectionStats {
        let Counters { established_ms, received, sent, last_op, last_cxid, last_zxid, .. } = self.counters;
        let Latency { last, min, max, count, sum } = self.counters.latency;
        let reads = if self.takes_requests(overloaded) { 1 } else { 0 };
        let writes = if self.unsent() > 0 { 4 } else { 0 };
        ConnectionStats {
            remote: self.remote(),
            interest_ops: reads | writes,
            queued: u64::from(self.in_core),
            received,
            sent,
            session: (self.session != SessionId::NONE).then(|| ConnectionSession {
                id: self.session,
                last_operation: last_op.map_or("NA", abbreviation),
                established_ms,
                timeout_ms: self.timeout_ms.max(0) as u32,
                last_cxid: (last_cxid >= 0).then_some(last_cxid),
                last_zxid: Zxid(last_zxid),
                last_response_ms: self.counters.last_response_ms,
                last_latency_ms: u64::from(last),
                min_latency_ms: u64::from(min),
                avg_latency_ms: sum / u64::from(count.max(1)),
                max_latency_ms: u64::from(max),
            }),
        }
    }
}

/// Apache's four-letter names of operations.
fn abbreviation(op: OpCode) -> &'static str {
    match op {
        OpCode::Create | OpCode::Create2 | OpCode::CreateTtl | OpCode::CreateContainer => "CREA",
        OpCode::Delete | OpCode::DeleteContainer => "DELE",
        OpCode::Exists => "EXIS",
        OpCode::GetData => "GETD",
        OpCode::SetData => "SETD",
        OpCode::GetAcl => "GETA",
        OpCode::SetAcl => "SETA",
        OpCode::GetChildren | OpCode::GetChildren2 => "GETC",
        OpCode::GetAllChildrenNumber => "GETACN",
        OpCode::GetEphemerals => "GETE",
        OpCode::Sync => "SYNC",
        OpCode::Ping => "PING",
        OpCode::Multi => "MULT",
        OpCode::MultiRead => "MLTR",
        OpCode::Reconfig => "RECO",
        OpCode::CheckWatches => "CHKW",
        OpCode::RemoveWatches => "REMW",
        OpCode::SetWatches => "SETW",
        OpCode::SetWatches2 => "STW2",
        OpCode::AddWatch => "ADDW",
        OpCode::WhoAmI => "HOMI",
        OpCode::CloseSession => "CLOS",
        _ => "UNKN",
    }
}
