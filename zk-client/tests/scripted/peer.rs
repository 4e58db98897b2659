//! The scripted server: the test accepts a connection, reads requests and writes whatever it likes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use zk_client::{Client, ConnectBuilder, Connector, Host, OpCode, SessionId, Stat, Transport};
use zk_proto::jute::frame;
use zk_proto::{
    ConnectRequest, ConnectResponse, ErrorCode, EventType, Reader, ReplyHeader, Request, RequestHeader,
    Response, WatcherEvent, Zxid, xid,
};

pub const T: Duration = Duration::from_secs(12);
pub const SESSION: SessionId = SessionId(0x1234);
pub const PASSWORD: [u8; 16] = [7; 16];

/// Where the client's connections arrive.
pub struct Listener {
    connections: mpsc::UnboundedReceiver<(Host, DuplexStream)>,
}

struct InMemory {
    connections: mpsc::UnboundedSender<(Host, DuplexStream)>,
    /// Bytes that the client can write before the server reads.
    window: Arc<AtomicUsize>,
}

#[async_trait]
impl Connector for InMemory {
    async fn connect(&self, host: &Host, _timeout: Duration) -> io::Result<Box<dyn Transport>> {
        let (ours, theirs) = duplex(self.window.load(Ordering::Relaxed));
        self.connections
            .send((host.clone(), theirs))
            .map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        Ok(Box::new(ours))
    }
}

/// A client of one scripted server, not started yet.
pub fn script() -> (ConnectBuilder, Listener) {
    script_of("server:1", 1 << 20)
}

/// A client whose connections take `window` bytes before the server has to read.
pub fn script_of(connect: &str, window: usize) -> (ConnectBuilder, Listener) {
    let (sender, connections) = mpsc::unbounded_channel();
    let connector = InMemory { connections: sender, window: Arc::new(AtomicUsize::new(window)) };
    let builder = Client::connect(connect).connector(connector).session_timeout(T).seed(1);
    (builder, Listener { connections })
}

/// A client that is connected, and the server's side of it.
pub async fn connected() -> (Client, Peer, Listener) {
    let (builder, listener) = script();
    connect(builder, listener).await
}

pub async fn connect(builder: ConnectBuilder, mut listener: Listener) -> (Client, Peer, Listener) {
    let client = builder.lazy().expect("a valid builder");
    let mut peer = listener.accept().await;
    peer.welcome(SESSION).await;
    client.connected().await.expect("a session");
    (client, peer, listener)
}

impl Listener {
    pub async fn accept(&mut self) -> Peer {
        self.accept_from().await.1
    }

    /// The next connection, and the server that the client meant.
    pub async fn accept_from(&mut self) -> (Host, Peer) {
        let (host, stream) = self.connections.recv().await.expect("the client lives");
        (host, Peer { stream, zxid: 100 })
    }

    /// Whether no connection has arrived.
    pub fn is_quiet(&mut self) -> bool {
        self.connections.try_recv().is_err()
    }

    /// Accepts a reconnect in the same session.
    pub async fn accept_again(&mut self) -> Peer {
        let mut peer = self.accept().await;
        let request = peer.connect_request().await;
        assert_eq!(request.session_id, SESSION);
        peer.answer_connect(SESSION, T).await;
        peer
    }
}

/// A connect request, without its borrows.
#[derive(Debug)]
pub struct Asked {
    pub session_id: SessionId,
    pub last_zxid: i64,
    pub passwd: Vec<u8>,
    pub read_only: Option<bool>,
}

/// The server's side of a connection.
pub struct Peer {
    pub stream: DuplexStream,
    /// The zxid of the next reply.
    pub zxid: i64,
}

/// A received request frame.
#[derive(Debug)]
pub struct Received {
    pub xid: i32,
    pub op: OpCode,
    frame: Vec<u8>,
}

impl Received {
    pub fn request(&self) -> Request<'_> {
        Request::decode(self.op, &mut Reader::new(&self.frame[8..])).expect("a valid request")
    }

    /// Length of the frame without its length prefix.
    pub fn len(&self) -> usize {
        self.frame.len()
    }

    /// The first path in the request.
    pub fn path(&self) -> String {
        Reader::new(&self.frame[8..]).string().expect("a string").expect("not null").into_owned()
    }
}

impl Peer {
    pub async fn read_frame(&mut self) -> io::Result<Vec<u8>> {
        let length = self.stream.read_i32().await?;
        let mut frame = vec![0; length as usize];
        self.stream.read_exact(&mut frame).await?;
        Ok(frame)
    }

    pub async fn connect_request(&mut self) -> Asked {
        let frame = self.read_frame().await.expect("a connect request");
        let request = ConnectRequest::decode(&mut Reader::new(&frame)).expect("a valid connect request");
        Asked {
            session_id: request.session_id,
            last_zxid: request.last_zxid_seen.0,
            passwd: request.passwd.expect("a password").to_vec(),
            read_only: request.read_only,
        }
    }

    pub async fn answer_connect(&mut self, session_id: SessionId, timeout: Duration) {
        self.answer_connect_mode(session_id, timeout, false).await;
    }

    pub async fn answer_connect_mode(&mut self, session_id: SessionId, timeout: Duration, read_only: bool) {
        let response = ConnectResponse {
            protocol_version: 0,
            timeout_ms: timeout.as_millis() as i32,
            session_id,
            passwd: Some(&PASSWORD),
            read_only: Some(read_only),
        };
        let mut out = Vec::new();
        frame(&mut out, |w| response.encode(w));
        self.write(&out).await;
    }

    /// Gives the client a new session.
    pub async fn welcome(&mut self, session_id: SessionId) {
        let asked = self.connect_request().await;
        assert_eq!(asked.session_id, SessionId::NONE);
        assert_eq!(asked.passwd, [0; 16]);
        self.answer_connect(session_id, T).await;
    }

    /// Says that the session is gone.
    pub async fn refuse(&mut self) {
        let mut out = Vec::new();
        frame(&mut out, |w| ConnectResponse::refused(true).encode(w));
        self.write(&out).await;
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the client reads");
    }

    /// The next request, pings included.
    pub async fn any(&mut self) -> Received {
        let frame = self.read_frame().await.expect("a request");
        let header = RequestHeader::decode(&mut Reader::new(&frame)).expect("a request header");
        let op = OpCode::from_i32(header.op).expect("a known operation");
        Received { xid: header.xid, op, frame }
    }

    /// The next request that is not a ping; pings are answered.
    pub async fn next(&mut self) -> Received {
        loop {
            let received = self.any().await;
            if received.op != OpCode::Ping {
                return received;
            }
            self.reply_raw(xid::PING, self.zxid, ErrorCode::OK, |_| {}).await;
        }
    }

    /// The next request, which must be `op` on `path`.
    pub async fn expect(&mut self, op: OpCode, path: &str) -> Received {
        let received = self.next().await;
        assert_eq!((received.op, received.path().as_str()), (op, path));
        received
    }

    /// The bytes of a reply frame.
    pub fn reply_bytes(xid: i32, zxid: i64, err: ErrorCode, body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        frame(&mut out, |w| {
            ReplyHeader { xid, zxid: Zxid(zxid), err }.encode(w);
            body(w);
        });
        out
    }

    pub async fn reply_raw(&mut self, xid: i32, zxid: i64, err: ErrorCode, body: impl FnOnce(&mut Vec<u8>)) {
        self.write(&Self::reply_bytes(xid, zxid, err, body)).await;
    }

    pub async fn reply(&mut self, to: &Received, response: &Response<'_>) {
        self.zxid += 1;
        self.reply_raw(to.xid, self.zxid, ErrorCode::OK, |w| response.encode(w)).await;
    }

    pub async fn fail(&mut self, to: &Received, err: ErrorCode) {
        self.zxid += 1;
        self.reply_raw(to.xid, self.zxid, err, |_| {}).await;
    }

    /// Answers in the way that fits the operation, with empty or made-up content.
    pub async fn answer(&mut self, to: &Received) {
        let stat = Stat { ephemeral_owner: SESSION.0, ..Stat::default() };
        let path = || to.path().into();
        let response = match to.op {
            OpCode::Create2 | OpCode::CreateContainer => Response::Create2 { path: path(), stat },
            OpCode::Exists | OpCode::SetData | OpCode::SetAcl => Response::Stat(stat),
            OpCode::GetData => Response::Data { data: Some(b"data"), stat },
            OpCode::GetChildren => Response::Paths(Vec::new()),
            OpCode::GetChildren2 => Response::Children2 { children: Vec::new(), stat },
            OpCode::Sync => Response::Sync { path: Some(path()) },
            OpCode::AddWatch => Response::Int(0),
            OpCode::Multi => Response::Multi(vec![zk_proto::MultiResult::Check]),
            _ => Response::Empty,
        };
        self.reply(to, &response).await;
    }

    /// Receives and answers one request.
    pub async fn serve(&mut self) -> Received {
        let received = self.next().await;
        self.answer(&received).await;
        received
    }

    pub fn event_bytes(kind: EventType, path: &str) -> Vec<u8> {
        Self::reply_bytes(xid::EVENT, -1, ErrorCode::OK, |w| WatcherEvent::new(kind, path).encode(w))
    }

    pub async fn event(&mut self, kind: EventType, path: &str) {
        self.write(&Self::event_bytes(kind, path)).await;
    }

    /// Waits until the client has closed the connection; whatever it sends before is dropped.
    pub async fn closed(mut self) {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest).await;
    }

    /// Whether the client has written nothing for `time` (besides pings).
    pub async fn is_quiet(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.next()).await.is_err()
    }
}
