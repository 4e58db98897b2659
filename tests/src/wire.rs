//! A client of the bare wire: frames in the order in which a test wants them, with nothing done behind its
//! back. Blocking, one thread per connection, every wait bounded.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use zk_proto::jute::{Reader, Writer, frame};
use zk_proto::{
    Acl, AddWatchMode, ConnectRequest, ConnectResponse, CreateRequest, ErrorCode, EventType, OpCode,
    ReplyHeader, Request, RequestHeader, Response, SessionId, Stat, WatcherEvent, Zxid, xid,
};

/// How long a test waits for something that must happen. Long, since it only matters when a test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A TCP connection that speaks frames.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    /// Frames put back to be read again.
    unread: VecDeque<Vec<u8>>,
    /// It was closed in the middle of a frame.
    cut: bool,
}

impl Wire {
    /// Connects; nothing is sent.
    ///
    /// # Panics
    ///
    /// When the server does not accept.
    pub fn connect(server: SocketAddr) -> Wire {
        Wire::try_connect(server).unwrap_or_else(|e| panic!("{server}: {e}"))
    }

    /// Connects; nothing is sent.
    pub fn try_connect(server: SocketAddr) -> io::Result<Wire> {
        let stream = TcpStream::connect_timeout(&server, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Wire { stream, unread: VecDeque::new(), cut: false })
    }

    /// The socket, for what a test wants to do to it.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends bytes as they are. A connection that the server has closed swallows them.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        match self.stream.write_all(bytes) {
            Err(e) if !closed_by_peer(&e) => panic!("send: {e}"),
            _ => {}
        }
    }

    /// Sends a frame with this body.
    pub fn send(&mut self, body: &[u8]) {
        let mut out = Vec::with_capacity(body.len() + 4);
        frame(&mut out, |w| w.extend_from_slice(body));
        self.send_raw(&out);
    }

    /// The body of the next frame; `None` when the server has closed the connection.
    ///
    /// # Panics
    ///
    /// When nothing comes for [`PATIENCE`], or half a frame before a close.
    pub fn recv(&mut self) -> Option<Vec<u8>> {
        let frame = self.recv_or_cut();
        assert!(!self.cut, "closed in the middle of a frame");
        frame
    }

    /// [`Wire::recv`] for a connection that the server may close at any byte.
    ///
    /// # Panics
    ///
    /// When nothing comes for [`PATIENCE`].
    pub fn recv_or_cut(&mut self) -> Option<Vec<u8>> {
        if let Some(frame) = self.unread.pop_front() {
            return Some(frame);
        }
        let mut length = [0; 4];
        if !self.recv_raw(&mut length) {
            return None;
        }
        let length = usize::try_from(i32::from_be_bytes(length)).expect("a server sends no negative length");
        let mut body = Vec::new();
        let mut limited = (&self.stream).take(length as u64);
        match limited.read_to_end(&mut body) {
            Err(e) if !closed_by_peer(&e) => panic!("in a frame: {e}"),
            _ => self.cut = body.len() < length,
        }
        (!self.cut).then_some(body)
    }

    /// Fills `bytes`; false when the connection was closed before the first of them.
    pub fn recv_raw(&mut self, bytes: &mut [u8]) -> bool {
        match self.stream.read_exact(bytes) {
            Ok(()) => true,
            Err(e) if closed_by_peer(&e) => false,
            Err(e) => panic!("nothing received: {e}"),
        }
    }

    /// Makes the next [`Wire::recv`] return `frame`.
    pub fn put_back(&mut self, frame: Vec<u8>) {
        self.unread.push_front(frame);
    }

    /// Waits for the server to close the connection without sending anything more.
    ///
    /// # Panics
    ///
    /// When it sends something, or leaves the connection open for [`PATIENCE`].
    pub fn assert_closed(&mut self) {
        if let Some(frame) = self.recv() {
            panic!("a frame instead of a close: {frame:02x?}");
        }
    }

    /// Whether nothing arrives for `time`: neither bytes nor a close.
    pub fn is_silent_for(&mut self, time: Duration) -> bool {
        if !self.unread.is_empty() {
            return false;
        }
        self.stream.set_read_timeout(Some(time)).expect("a time above zero");
        let result = self.stream.peek(&mut [0]);
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a time above zero");
        matches!(result, Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }

    /// Sends a four-letter word on a connection of its own and returns the answer.
    pub fn four_letter_word(server: SocketAddr, word: &str) -> String {
        let mut wire = Wire::connect(server);
        wire.send_raw(word.as_bytes());
        let mut answer = String::new();
        wire.stream.read_to_string(&mut answer).unwrap_or_else(|e| panic!("{word}: {e}"));
        answer
    }
}

fn closed_by_peer(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

/// A watch event with the zxid of its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventType,
    /// Where.
    pub path: String,
    /// The transaction that caused it; -1 for one replayed by setWatches.
    pub zxid: i64,
}

/// A reply: its header and what follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Operation that it answers.
    pub op: OpCode,
    /// Header.
    pub header: ReplyHeader,
    /// Everything behind the header.
    pub body: Vec<u8>,
}

impl Reply {
    /// The body as the operation has it.
    ///
    /// # Panics
    ///
    /// When the reply is an error or the body is not exactly one record.
    pub fn ok(&self) -> Response<'_> {
        assert_eq!(self.header.err, ErrorCode::OK, "{}", self.op);
        let mut r = Reader::new(&self.body);
        let response = Response::decode(self.op, &mut r).unwrap_or_else(|e| panic!("{}: {e}", self.op));
        assert_eq!(r.remaining(), 0, "{}: surplus bytes", self.op);
        response
    }

    /// The error code; 0 for success.
    pub fn err(&self) -> i32 {
        self.header.err.0
    }

    /// The Stat of a response that has one.
    ///
    /// # Panics
    ///
    /// When the reply is an error or has none.
    pub fn stat(&self) -> Stat {
        match self.ok() {
            Response::Stat(stat)
            | Response::Create2 { stat, .. }
            | Response::Data { stat, .. }
            | Response::Acl { stat, .. }
            | Response::Children2 { stat, .. } => stat,
            other => panic!("no Stat in {other:?}"),
        }
    }
}

/// A session on a [`Wire`]: requests get increasing xids, events are set aside.
#[derive(Debug)]
pub struct Session {
    /// The connection.
    pub wire: Wire,
    /// The server.
    pub server: SocketAddr,
    /// Session id.
    pub id: SessionId,
    /// Password of the session.
    pub passwd: Vec<u8>,
    /// Negotiated timeout.
    pub timeout_ms: i32,
    /// Events that arrived before the replies seen so far.
    pub events: VecDeque<Event>,
    /// Zxid of the latest ordinary reply.
    pub last_zxid: Zxid,
    /// Requests without reply yet, in the order sent.
    pending: VecDeque<(i32, OpCode)>,
    next_xid: i32,
}

/// Timeout that sessions of tests ask for unless they are about timeouts.
pub const SESSION_TIMEOUT_MS: i32 = 30_000;

impl Session {
    /// Opens a new session.
    ///
    /// # Panics
    ///
    /// When the server refuses.
    pub fn open(server: SocketAddr) -> Session {
        Session::open_with_timeout(server, SESSION_TIMEOUT_MS)
    }

    /// Opens a new session that asks for this timeout.
    ///
    /// # Panics
    ///
    /// When the server refuses.
    pub fn open_with_timeout(server: SocketAddr, timeout_ms: i32) -> Session {
        Session::handshake(server, timeout_ms, SessionId::NONE, &[0; 16], Zxid::ZERO)
            .expect("a new session is not refused")
    }

    /// Attaches to the session of these credentials; `None` when the server refuses.
    pub fn attach(server: SocketAddr, id: SessionId, passwd: &[u8], last_zxid: Zxid) -> Option<Session> {
        Session::handshake(server, SESSION_TIMEOUT_MS, id, passwd, last_zxid)
    }

    /// Attaches to this session by another connection.
    ///
    /// # Panics
    ///
    /// When the server refuses.
    pub fn reattach(&self) -> Session {
        Session::attach(self.server, self.id, &self.passwd, self.last_zxid).expect("the session lives")
    }

    fn handshake(
        server: SocketAddr,
        timeout_ms: i32,
        session_id: SessionId,
        passwd: &[u8],
        last_zxid_seen: Zxid,
    ) -> Option<Session> {
        let mut wire = Wire::connect(server);
        wire.send(&connect_request(timeout_ms, session_id, passwd, last_zxid_seen));
        let answer = wire.recv().expect("an answer to the connect request");
        let answer = ConnectResponse::decode(&mut Reader::new(&answer)).expect("a connect response");
        if answer.timeout_ms == 0 {
            assert_eq!(answer, ConnectResponse::refused(true));
            wire.assert_closed();
            return None;
        }
        Some(Session {
            server,
            id: answer.session_id,
            passwd: answer.passwd.expect("a password").to_vec(),
            timeout_ms: answer.timeout_ms,
            events: VecDeque::new(),
            last_zxid: last_zxid_seen,
            pending: VecDeque::new(),
            next_xid: 1,
            wire,
        })
    }

    /// Sends a request with the next xid, without waiting.
    pub fn send(&mut self, request: &Request<'_>) -> i32 {
        let xid = match request {
            Request::Ping => xid::PING,
            Request::Auth(_) => xid::AUTH,
            _ => self.next_xid,
        };
        self.send_as(xid, request)
    }

    /// Sends a request with this xid, without waiting.
    pub fn send_as(&mut self, xid: i32, request: &Request<'_>) -> i32 {
        let mut body = Vec::new();
        request.encode(&mut body);
        self.send_body(xid, request.op(), &body)
    }

    /// Sends any bytes as the body of a request, without waiting.
    pub fn send_body(&mut self, xid: i32, op: OpCode, body: &[u8]) -> i32 {
        self.wire.send(&request_frame(xid, op as i32, body));
        self.next_xid = self.next_xid.max(xid) + 1;
        // The reply to a ping has the xid of pings, whatever the request had.
        self.pending.push_back((if op == OpCode::Ping { xid::PING } else { xid }, op));
        xid
    }

    /// The next reply. Events in front of it go to [`Session::events`]. `None`: the connection was closed.
    ///
    /// # Panics
    ///
    /// When the reply belongs to no request that was sent.
    pub fn try_reply(&mut self) -> Option<Reply> {
        loop {
            let frame = self.wire.recv()?;
            let mut r = Reader::new(&frame);
            let header = ReplyHeader::decode(&mut r).expect("a reply header");
            if header.xid == xid::EVENT {
                let event = WatcherEvent::decode(&mut r).expect("an event");
                assert_eq!((r.remaining(), event.state), (0, WatcherEvent::SYNC_CONNECTED));
                self.events.push_back(Event {
                    kind: event.kind,
                    path: event.path.into_owned(),
                    zxid: header.zxid.0,
                });
                continue;
            }
            // Replies come in request order, except that an auth reply may overtake.
            let at = self.pending.iter().position(|&(xid, _)| xid == header.xid);
            let at = at.unwrap_or_else(|| panic!("a reply to nothing: {header:?}"));
            assert!(at == 0 || header.xid == xid::AUTH, "a reply out of order: {header:?}");
            let (_, op) = self.pending.remove(at).expect("it was found there");
            if header.xid > 0 && header.zxid.0 > 0 {
                self.last_zxid = header.zxid;
            }
            return Some(Reply { op, header, body: r.rest().to_vec() });
        }
    }

    /// The next reply.
    ///
    /// # Panics
    ///
    /// When the connection is closed instead.
    pub fn reply(&mut self) -> Reply {
        self.try_reply().expect("a reply and not a close")
    }

    /// Sends a request and waits for its reply.
    pub fn call(&mut self, request: &Request<'_>) -> Reply {
        self.send(request);
        self.reply()
    }

    /// [`Session::call`] with any bytes as the body.
    pub fn call_body(&mut self, op: OpCode, body: &[u8]) -> Reply {
        self.send_body(self.next_xid, op, body);
        self.reply()
    }

    /// Creates a node with [`create`]'s form of the request.
    pub fn create(&mut self, path: &str, data: &[u8], flags: i32) -> Reply {
        self.call(&create(path, data, flags))
    }

    /// Deletes a node.
    pub fn delete(&mut self, path: &str, version: i32) -> Reply {
        self.call(&Request::Delete { path: path.into(), version })
    }

    /// Reads a node's data.
    pub fn get(&mut self, path: &str, watch: bool) -> Reply {
        self.call(&Request::GetData { path: path.into(), watch })
    }

    /// Sets a node's data.
    pub fn set(&mut self, path: &str, data: &[u8], version: i32) -> Reply {
        self.call(&Request::SetData { path: path.into(), data: Some(data), version })
    }

    /// Stat of a node.
    pub fn exists(&mut self, path: &str, watch: bool) -> Reply {
        self.call(&Request::Exists { path: path.into(), watch })
    }

    /// Names of a node's children, sorted.
    ///
    /// # Panics
    ///
    /// When the server answers an error.
    pub fn children(&mut self, path: &str, watch: bool) -> Vec<String> {
        let reply = self.call(&Request::GetChildren { path: path.into(), watch });
        let Response::Paths(names) = reply.ok() else { panic!("not a list of names") };
        let mut names: Vec<_> = names.into_iter().map(|name| name.into_owned()).collect();
        names.sort();
        names
    }

    /// Arms a persistent watch.
    pub fn add_watch(&mut self, path: &str, mode: AddWatchMode) -> Reply {
        self.call(&Request::AddWatch { path: Some(path.into()), mode })
    }

    /// Adds the digest identity `user:password`.
    pub fn auth_digest(&mut self, credentials: &str) -> Reply {
        self.call(&Request::Auth(zk_proto::AuthPacket {
            kind: 0,
            scheme: Some("digest".into()),
            auth: Some(credentials.as_bytes()),
        }))
    }

    /// All events so far as (what, where). A ping makes sure that those of earlier writes of this session have
    /// arrived.
    pub fn take_events(&mut self) -> Vec<(EventType, String)> {
        self.call(&Request::Ping);
        self.events.drain(..).map(|e| (e.kind, e.path)).collect()
    }

    /// Closes the session and waits until the server has closed the connection.
    pub fn close(mut self) {
        let reply = self.call(&Request::CloseSession);
        assert_eq!(reply.err(), 0);
        self.wire.assert_closed();
    }
}

/// A create2 request for an open node.
pub fn create<'a>(path: &'a str, data: &'a [u8], flags: i32) -> Request<'a> {
    create_with_acl(path, data, flags, vec![Acl::open()])
}

/// A create2 request with an ACL.
pub fn create_with_acl<'a>(path: &'a str, data: &'a [u8], flags: i32, acl: Vec<Acl<'a>>) -> Request<'a> {
    Request::Create(CreateRequest {
        op: OpCode::Create2,
        path: path.into(),
        data: Some(data),
        acl: Some(acl),
        flags,
        ttl_ms: 0,
    })
}

/// The body of a connect request.
pub fn connect_request(timeout_ms: i32, id: SessionId, passwd: &[u8], last_zxid_seen: Zxid) -> Vec<u8> {
    let mut body = Vec::new();
    ConnectRequest {
        protocol_version: 0,
        last_zxid_seen,
        timeout_ms,
        session_id: id,
        passwd: Some(passwd),
        read_only: Some(false),
    }
    .encode(&mut body);
    body
}

/// A request header with `body` behind it.
pub fn request_frame(xid: i32, op: i32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(RequestHeader::WIRE_LEN + body.len());
    out.put_int(xid);
    out.put_int(op);
    out.extend_from_slice(body);
    out
}
