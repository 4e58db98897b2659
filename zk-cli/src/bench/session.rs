//! A session that asks one thing after the other and waits: prepares and cleans what a load needs.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use zk_proto::jute::frame;
use zk_proto::{
    ConnectResponse, CreateMode, ErrorCode, Reader, ReplyHeader, Request, RequestHeader, Response,
};

use super::error::{Context, Error, Result};
use super::script::create_request;
use super::wire;

/// Requests that are sent ahead of their replies.
const PIPELINE: usize = 200;

/// Longest frame that is believed.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// How long an answer is awaited.
const PATIENCE: Duration = Duration::from_secs(60);

/// A blocking session.
pub struct Session {
    stream: TcpStream,
    next_xid: i32,
    out: Vec<u8>,
    reply: Vec<u8>,
}

impl Session {
    /// Connects and opens a session.
    pub fn open(server: SocketAddr, session_timeout_ms: i32) -> Result<Self> {
        Self::open_within(server, session_timeout_ms, PATIENCE)
    }

    /// Connects and opens a session; each answer may take `patience`.
    pub fn open_within(server: SocketAddr, session_timeout_ms: i32, patience: Duration) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&server, patience).context(format!("connect to {server}"))?;
        stream.set_nodelay(true).context("socket option")?;
        stream.set_read_timeout(Some(patience)).context("socket option")?;
        let mut session = Session { stream, next_xid: 1, out: Vec::new(), reply: Vec::new() };
        wire::append_connect(&mut session.out, session_timeout_ms);
        session.send()?;
        session.receive()?;
        let answer = ConnectResponse::decode(&mut Reader::new(&session.reply))?;
        if answer.timeout_ms > 0 { Ok(session) } else { Err(Error::Refused) }
    }

    fn put(&mut self, request: &Request<'_>) -> i32 {
        let xid = self.next_xid;
        self.next_xid = xid.checked_add(1).unwrap_or(1);
        frame(&mut self.out, |w| {
            RequestHeader { xid, op: request.op() as i32 }.encode(w);
            request.encode(w);
        });
        xid
    }

    fn send(&mut self) -> Result<()> {
        self.stream.write_all(&self.out).context("write to the server")?;
        self.out.clear();
        Ok(())
    }

    /// Reads one frame into `self.reply`.
    fn receive(&mut self) -> Result<()> {
        let mut prefix = [0; 4];
        self.stream.read_exact(&mut prefix).context("read from the server")?;
        let len = usize::try_from(i32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
        if len > FRAME_BYTES_MAX {
            return Err(Error::Wrong("impossible frame length".into()));
        }
        self.reply.clear();
        let got = (&self.stream).take(len as u64).read_to_end(&mut self.reply);
        if got.context("read from the server")? < len {
            return Err(Error::Closed("sending a reply"));
        }
        Ok(())
    }

    /// Reads the reply to `xid`; events and pings before it are passed over.
    fn receive_reply(&mut self, xid: i32) -> Result<ReplyHeader> {
        loop {
            self.receive()?;
            let (header, _) = wire::split(&self.reply)?;
            if header.xid == xid {
                return Ok(header);
            }
            if header.xid >= 0 {
                return Err(Error::Wrong(format!("reply to {} instead of {xid}", header.xid)));
            }
        }
    }

    /// Sends a request and waits for its reply.
    pub fn call(&mut self, request: &Request<'_>) -> Result<std::result::Result<Response<'_>, ErrorCode>> {
        let xid = self.put(request);
        self.send()?;
        let header = self.receive_reply(xid)?;
        if header.err != ErrorCode::OK {
            return Ok(Err(header.err));
        }
        let (_, body) = wire::split(&self.reply)?;
        Ok(Ok(Response::decode(request.op(), &mut Reader::new(body))?))
    }

    /// Sends many requests, some ahead, and tells `done` the error code of each, by its number.
    fn pipeline<'a>(
        &mut self,
        requests: impl Iterator<Item = Request<'a>>,
        mut done: impl FnMut(usize, ErrorCode),
    ) -> Result<()> {
        let mut requests = requests.fuse();
        let mut xids = Vec::with_capacity(PIPELINE);
        let mut number = 0;
        loop {
            xids.clear();
            for request in requests.by_ref().take(PIPELINE) {
                let xid = self.put(&request);
                xids.push(xid);
            }
            if xids.is_empty() {
                return Ok(());
            }
            self.send()?;
            for &xid in &xids {
                let header = self.receive_reply(xid)?;
                done(number, header.err);
                number += 1;
            }
        }
    }

    /// Creates a node with all its parents. A node that is there stays as it is.
    pub fn ensure(&mut self, path: &str) -> Result<()> {
        for (slash, _) in path.match_indices('/').skip(1).chain([(path.len(), "")]) {
            let prefix = &path[..slash];
            let create = Request::Create(create_request(prefix, &[], CreateMode::Persistent));
            match self.call(&create)? {
                Ok(_) | Err(ErrorCode::NODE_EXISTS) => {}
                Err(code) => return Err(Error::Op { what: format!("create {prefix}"), code }),
            }
        }
        Ok(())
    }

    /// Creates nodes with this data; the parents must exist. Nodes that are there get the data.
    pub fn fill(&mut self, paths: &[String], data: &[u8]) -> Result<()> {
        let creates =
            paths.iter().map(|path| Request::Create(create_request(path, data, CreateMode::Persistent)));
        let mut there = Vec::new();
        let mut failed = None;
        self.pipeline(creates, |number, code| match code {
            ErrorCode::OK => {}
            ErrorCode::NODE_EXISTS => there.push(&paths[number]),
            code => failed = Some((&paths[number], code)),
        })?;
        let sets = there.iter().map(|path| Request::SetData {
            path: path.as_str().into(),
            data: Some(data),
            version: -1,
        });
        self.pipeline(sets, |number, code| {
            if code != ErrorCode::OK {
                failed = Some((there[number], code));
            }
        })?;
        match failed {
            Some((path, code)) => Err(Error::Op { what: format!("create {path}"), code }),
            None => Ok(()),
        }
    }

    /// Deletes a node and everything below it, as far as it is there.
    pub fn delete_tree(&mut self, path: &str) -> Result<()> {
        let list = Request::GetChildren { path: path.into(), watch: false };
        let children: Vec<String> = match self.call(&list)? {
            Ok(Response::Paths(names)) => names.iter().map(|name| zk_proto::path::join(path, name)).collect(),
            Ok(_) | Err(ErrorCode::NO_NODE) => return Ok(()),
            Err(code) => return Err(Error::Op { what: format!("list {path}"), code }),
        };
        let delete = |path: &str| Request::Delete { path: path.to_owned().into(), version: -1 };
        let mut not_empty = Vec::new();
        self.pipeline(children.iter().map(|child| delete(child)), |number, code| {
            if code == ErrorCode::NOT_EMPTY {
                not_empty.push(number);
            }
        })?;
        for number in not_empty {
            self.delete_tree(&children[number])?;
        }
        match self.call(&delete(path))? {
            Ok(_) | Err(ErrorCode::NO_NODE) => Ok(()),
            Err(code) => Err(Error::Op { what: format!("delete {path}"), code }),
        }
    }

    /// Ends the session.
    pub fn close(mut self) -> Result<()> {
        self.put(&Request::CloseSession);
        self.send()?;
        // The server answers and closes, or only closes; both are fine.
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest);
        Ok(())
    }
}
