//! A client that does one thing at a time, on the bytes of the protocol.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use zk_proto::jute::{Writer, frame};
use zk_proto::{
    Acl, AddWatchMode, ConnectRequest, ConnectResponse, CreateRequest, ErrorCode, EventType, OpCode, Reader,
    ReplyHeader, Request, RequestHeader, SessionId, Stat, WatcherEvent, Zxid, xid,
};
use zk_server::Server;

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A connection.
pub struct Wire {
    pub socket: TcpStream,
    buffer: Vec<u8>,
    next_xid: i32,
    pub session: SessionId,
    pub passwd: [u8; 16],
    pub timeout_ms: i32,
}

/// A reply or an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub xid: i32,
    pub zxid: i64,
    pub err: ErrorCode,
    pub body: Vec<u8>,
}

impl Reply {
    /// The event in it.
    pub fn event(&self) -> (EventType, String) {
        assert_eq!(self.xid, xid::EVENT, "{self:?}");
        let event = WatcherEvent::decode(&mut Reader::new(&self.body)).unwrap();
        (event.kind, event.path.into_owned())
    }

    /// The data of a getData reply.
    pub fn data(&self) -> Vec<u8> {
        assert_eq!(self.err, ErrorCode::OK);
        Reader::new(&self.body).buffer().unwrap().unwrap_or_default().to_vec()
    }

    /// The path of a create reply.
    pub fn path(&self) -> String {
        assert_eq!(self.err, ErrorCode::OK);
        Reader::new(&self.body).required_string("path").unwrap().into_owned()
    }

    /// The Stat of a setData or exists reply.
    pub fn stat(&self) -> Stat {
        assert_eq!(self.err, ErrorCode::OK);
        Stat::decode(&mut Reader::new(&self.body)).unwrap()
    }
}

/// A connect request for a new session.
pub fn new_session(timeout_ms: i32) -> ConnectRequest<'static> {
    ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: Zxid(0),
        timeout_ms,
        session_id: SessionId::NONE,
        passwd: Some(&[0; 16]),
        read_only: Some(false),
    }
}

/// The frame of a request.
pub fn encode(xid: i32, op: OpCode, body: &[u8]) -> Vec<u8> {
    raw(xid, op as i32, body)
}

/// The frame of a request with any code.
pub fn raw(xid: i32, op: i32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame(&mut out, |out| {
        RequestHeader { xid, op }.encode(out);
        out.extend_from_slice(body);
    });
    out
}

/// The body of a request.
pub fn body(request: &Request<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    request.encode(&mut out);
    out
}

pub fn create<'a>(path: &'a str, data: &'a [u8], flags: i32) -> Request<'a> {
    Request::Create(CreateRequest {
        op: OpCode::Create,
        path: path.into(),
        data: Some(data),
        acl: Some(vec![Acl::open()]),
        flags,
        ttl_ms: 0,
    })
}

pub fn set<'a>(path: &'a str, data: &'a [u8]) -> Request<'a> {
    Request::SetData { path: path.into(), data: Some(data), version: -1 }
}

pub fn get(path: &str, watch: bool) -> Request<'_> {
    Request::GetData { path: path.into(), watch }
}

pub fn delete(path: &str) -> Request<'_> {
    Request::Delete { path: path.into(), version: -1 }
}

pub fn add_watch(path: &str) -> Request<'_> {
    Request::AddWatch { path: Some(path.into()), mode: AddWatchMode::PersistentRecursive }
}

impl Wire {
    /// A connection without a session.
    pub fn tcp(server: &Server) -> Wire {
        let socket = TcpStream::connect(server.connect_string()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        Wire {
            socket,
            buffer: Vec::new(),
            next_xid: 1,
            session: SessionId::NONE,
            passwd: [0; 16],
            timeout_ms: 0,
        }
    }

    /// A connection with a new session.
    pub fn connect(server: &Server) -> Wire {
        Wire::connect_for(server, 10_000)
    }

    /// The same with a session timeout.
    pub fn connect_for(server: &Server, timeout_ms: i32) -> Wire {
        let mut wire = Wire::tcp(server);
        assert!(wire.handshake(&new_session(timeout_ms)), "refused");
        wire
    }

    /// A new connection for the session of `self`.
    pub fn reattach(&self, server: &Server) -> Option<Wire> {
        let mut wire = Wire::tcp(server);
        let request = ConnectRequest {
            session_id: self.session,
            passwd: Some(&self.passwd),
            ..new_session(self.timeout_ms)
        };
        wire.handshake(&request).then_some(wire)
    }

    /// Sends a connect request and takes the answer: whether the session is open.
    pub fn handshake(&mut self, request: &ConnectRequest<'_>) -> bool {
        let mut out = Vec::new();
        frame(&mut out, |out| request.encode(out));
        self.send(&out);
        let frame = self.frame().expect("an answer to the connect request");
        let response = ConnectResponse::decode(&mut Reader::new(&frame)).unwrap();
        assert_eq!(response.read_only, request.read_only.map(|_| false));
        self.session = response.session_id;
        self.timeout_ms = response.timeout_ms;
        self.passwd = response.passwd.unwrap().try_into().unwrap();
        response.timeout_ms != 0
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    /// Sends a request and returns its xid.
    pub fn ask(&mut self, request: &Request<'_>) -> i32 {
        let (xid, bytes) = self.prepare(request);
        self.send(&bytes);
        xid
    }

    /// Sends several requests with one write.
    pub fn ask_all(&mut self, requests: &[Request<'_>]) -> Vec<i32> {
        let (xids, frames): (Vec<_>, Vec<_>) = requests.iter().map(|request| self.prepare(request)).unzip();
        self.send(&frames.concat());
        xids
    }

    fn prepare(&mut self, request: &Request<'_>) -> (i32, Vec<u8>) {
        let xid = self.next_xid;
        self.next_xid += 1;
        (xid, encode(xid, request.op(), &body(request)))
    }

    /// Asks and takes the answer, which must be the next frame.
    pub fn call(&mut self, request: &Request<'_>) -> Reply {
        let xid = self.ask(request);
        let reply = self.reply();
        assert_eq!(reply.xid, xid, "{reply:?}");
        reply
    }

    /// Asks and expects success.
    pub fn ok(&mut self, request: &Request<'_>) -> Reply {
        let reply = self.call(request);
        assert_eq!(reply.err, ErrorCode::OK, "{request:?}");
        reply
    }

    pub fn ping(&mut self) {
        self.send(&encode(xid::PING, OpCode::Ping, &[]));
        assert_eq!(self.reply().xid, xid::PING);
    }

    /// The next reply or event.
    pub fn reply(&mut self) -> Reply {
        self.try_reply().expect("a reply, but the connection was closed")
    }

    /// The next reply or event, or `None` when the server has closed.
    pub fn try_reply(&mut self) -> Option<Reply> {
        let frame = self.frame()?;
        let mut reader = Reader::new(&frame);
        let ReplyHeader { xid, zxid, err } = ReplyHeader::decode(&mut reader).unwrap();
        Some(Reply { xid, zxid: zxid.0, err, body: frame[ReplyHeader::WIRE_LEN..].to_vec() })
    }

    /// The next frame, or `None` when the server has closed.
    pub fn frame(&mut self) -> Option<Vec<u8>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(prefix) = self.buffer.first_chunk::<4>() {
                let end = 4 + i32::from_be_bytes(*prefix) as usize;
                if self.buffer.len() >= end {
                    let frame = self.buffer[4..end].to_vec();
                    self.buffer.drain(..end);
                    return Some(frame);
                }
            }
            assert!(Instant::now() < deadline, "no frame in time");
            let mut chunk = [0; 65536];
            match self.socket.read(&mut chunk) {
                Ok(0) => return None,
                Ok(n) => self.buffer.extend_from_slice(&chunk[..n]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Everything until the server closes.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.buffer);
        match self.socket.read_to_end(&mut rest) {
            Ok(_) => rest,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => rest,
            Err(error) => panic!("not closed: {error}"),
        }
    }

    /// Whether nothing arrives for a moment.
    pub fn is_silent(&mut self) -> bool {
        self.socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let silent = match self.socket.peek(&mut [0]) {
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            Ok(_) => false,
        };
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        self.buffer.is_empty() && silent
    }

    pub fn add_auth(&mut self, scheme: &str, token: &[u8]) -> Reply {
        let mut body = Vec::new();
        body.put_int(0);
        body.put_str(scheme);
        body.put_buffer(Some(token));
        self.send(&encode(xid::AUTH, OpCode::Auth, &body));
        self.reply()
    }
}

/// What a four-letter word answers.
pub fn word(server: &Server, word: &str) -> String {
    let mut wire = Wire::tcp(server);
    wire.send(word.as_bytes());
    String::from_utf8(wire.rest()).unwrap()
}

/// Waits until something holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
