//! Clients: each has a session, asks for one thing after the other, goes to another server when its connection is
//! lost, and looks hard at every answer.

use std::collections::{BTreeMap, VecDeque};

use fastrand::Rng;
use zk_proto::{
    Acl, CreateMode, CreateRequest, ErrorCode, MultiOp, OpCode, Reader, ReplyHeader, Request, Response,
    SessionId, WatcherEvent, Zxid, xid,
};

use super::port::{ToClient, ToServer};
use super::{Event, MS, SECOND, Us, Violation, World};

/// Registers that all clients read and write.
const REGISTERS: usize = 5;
/// Requests of one client that are not answered.
const PIPELINE: usize = 4;

/// What a request was.
#[derive(Debug, Clone, PartialEq)]
enum Asked {
    Parents,
    Set { register: usize, value: u64 },
    Get { register: usize },
    Watch { register: usize },
    CreateSequential,
    CreateEphemeral { path: String },
    Delete { path: String, ephemeral: bool },
    Multi { registers: [usize; 2], value: u64 },
    Sync,
    Children,
    Close,
    Ping,
}

impl Asked {
    fn is_write(&self) -> bool {
        !matches!(self, Asked::Get { .. } | Asked::Watch { .. } | Asked::Sync | Asked::Children | Asked::Ping)
    }
}

#[derive(Debug)]
struct Pending {
    xid: i32,
    op: OpCode,
    asked: Asked,
    since: Us,
    /// Everything up to here was answered to somebody before this was asked for.
    floor: Zxid,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Apart,
    Connecting { since: Us },
    Connected,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Client {
    id: usize,
    rng: Rng,
    interval: Us,
    token: u64,
    state: State,
    link: Option<usize>,
    session: Option<(SessionId, [u8; 16])>,
    last_zxid: Zxid,
    next_xid: i32,
    pending: VecDeque<Pending>,
    prepared: bool,
    values: u64,
    /// What reads after the last sync must show at least.
    synced: Option<Zxid>,
    /// Registers that are watched, and what they were when that began.
    watched: BTreeMap<usize, Zxid>,
    sequential: VecDeque<String>,
    ephemeral: VecDeque<String>,
    names: u64,
    /// What it has written: a register's value at a transaction.
    written: BTreeMap<(usize, i64), u64>,
}

/// Session timeout.
const TIMEOUT_MS: i32 = 4000;

impl Client {
    pub fn new(id: usize, rng: Rng, interval: Us) -> Self {
        Client {
            id,
            rng,
            interval,
            token: 0,
            state: State::Apart,
            link: None,
            session: None,
            last_zxid: Zxid::ZERO,
            next_xid: 1,
            pending: VecDeque::new(),
            prepared: false,
            values: 0,
            synced: None,
            watched: BTreeMap::new(),
            sequential: VecDeque::new(),
            ephemeral: VecDeque::new(),
            names: 0,
            written: BTreeMap::new(),
        }
    }

    fn apart(&mut self) {
        self.state = State::Apart;
        self.link = None;
        self.pending.clear();
        self.watched.clear();
        self.synced = None;
    }

    fn new_session(&mut self) {
        self.session = None;
        self.ephemeral.clear();
        // A new session is a new client to the ensemble; what it has seen it has seen, though.
    }

    fn next(&mut self, quiet: bool) -> Option<Asked> {
        if self.pending.len() >= PIPELINE {
            return None;
        }
        if quiet {
            return self.pending.is_empty().then_some(Asked::Ping);
        }
        if !self.prepared {
            return Some(Asked::Parents);
        }
        let register = self.rng.usize(0..REGISTERS);
        self.values += 1;
        let value = (self.id as u64) << 48 | self.values;
        Some(match self.rng.u8(0..100) {
            0..25 => Asked::Set { register, value },
            25..50 => Asked::Get { register },
            50..62 => Asked::Sync,
            62..70
                if !self.watched.contains_key(&register)
                    && !self.is_pending(|a| matches!(a, Asked::Watch { .. })) =>
            {
                Asked::Watch { register }
            }
            70..78 if self.sequential.len() < 4 => Asked::CreateSequential,
            78..84 if self.ephemeral.len() < 3 => {
                self.names += 1;
                Asked::CreateEphemeral { path: format!("/e/c{}-{}", self.id, self.names) }
            }
            84..89 => match self.sequential.pop_front() {
                Some(path) => Asked::Delete { path, ephemeral: false },
                None => Asked::Get { register },
            },
            89..92 => match self.ephemeral.pop_front() {
                Some(path) => Asked::Delete { path, ephemeral: true },
                None => Asked::Get { register },
            },
            92..97 => Asked::Multi { registers: [register, (register + 1) % REGISTERS], value },
            97 | 98 => Asked::Children,
            99 if self.rng.u8(0..8) == 0 => Asked::Close,
            _ => Asked::Set { register, value },
        })
    }

    fn is_pending(&self, is: impl Fn(&Asked) -> bool) -> bool {
        self.pending.iter().any(|pending| is(&pending.asked))
    }
}

fn register_path(register: usize) -> String {
    format!("/r{register}")
}

fn create<'a>(path: &str, data: &'a [u8], mode: CreateMode) -> CreateRequest<'a> {
    let acl = Some(vec![Acl::new(zk_proto::Perms(31), "world", "anyone")]);
    CreateRequest {
        op: OpCode::Create,
        path: path.to_owned().into(),
        data: Some(data),
        acl,
        flags: mode as i32,
        ttl_ms: 0,
    }
}

fn encode(asked: &Asked) -> (OpCode, Vec<u8>) {
    let mut body = Vec::new();
    let (path, bytes);
    let request = match asked {
        Asked::Parents => {
            let mut ops: Vec<MultiOp<'_>> = (0..REGISTERS)
                .map(|r| MultiOp::Create(create(&register_path(r), b"0", CreateMode::Persistent)))
                .collect();
            ops.push(MultiOp::Create(create("/q", b"", CreateMode::Persistent)));
            ops.push(MultiOp::Create(create("/e", b"", CreateMode::Persistent)));
            Request::Multi(ops)
        }
        Asked::Set { register, value } => {
            (path, bytes) = (register_path(*register), value.to_be_bytes());
            Request::SetData { path: path.into(), data: Some(&bytes), version: -1 }
        }
        Asked::Get { register } => Request::GetData { path: register_path(*register).into(), watch: false },
        Asked::Watch { register } => Request::Exists { path: register_path(*register).into(), watch: true },
        Asked::CreateSequential => Request::Create(create("/q/n-", b"x", CreateMode::PersistentSequential)),
        Asked::CreateEphemeral { path } => Request::Create(create(path, b"", CreateMode::Ephemeral)),
        Asked::Delete { path, .. } => Request::Delete { path: path.clone().into(), version: -1 },
        Asked::Multi { registers, value } => {
            bytes = value.to_be_bytes();
            let set = |r: &usize| MultiOp::SetData {
                path: register_path(*r).into(),
                data: Some(&bytes),
                version: -1,
            };
            Request::Multi(registers.iter().map(set).collect())
        }
        Asked::Sync => Request::Sync { path: Some("/r0".into()) },
        Asked::Children => Request::GetChildren { path: "/q".into(), watch: false },
        Asked::Close => Request::CloseSession,
        Asked::Ping => Request::Ping,
    };
    request.encode(&mut body);
    (request.op(), body)
}

impl World {
    pub(super) fn plan_client(&mut self, client: usize, delay: Us) {
        self.clients[client].token += 1;
        let token = self.clients[client].token;
        self.plan(delay, Event::Client { client, token });
    }

    /// A client does the next thing.
    pub(super) fn client_turn(&mut self, id: usize, token: u64) -> Result<(), Violation> {
        if self.clients[id].token != token {
            return Ok(());
        }
        let now = self.now;
        let client = &mut self.clients[id];
        match client.state {
            State::Apart => {
                let node = client.rng.usize(0..self.nodes.len());
                client.state = State::Connecting { since: now };
                let (session, last_zxid) = (client.session, client.last_zxid);
                if !self.nodes[node].powered {
                    self.clients[id].state = State::Apart;
                    let pause = self.client_pause();
                    self.plan_client(id, pause);
                    return Ok(());
                }
                let link = self.link(id, node);
                self.clients[id].link = Some(link);
                super::trace::set_node(0);
                self.trace.tell(|| format!("client {id} goes to node {} with {session:?}", node + 1));
                self.send_to_server(link, ToServer::Connect { session, last_zxid, timeout_ms: TIMEOUT_MS });
                self.plan_client(id, SECOND);
            }
            State::Connecting { since } => {
                if now > since + 1500 * MS {
                    self.client_hangs_up(id);
                } else {
                    self.plan_client(id, SECOND);
                }
            }
            State::Connected => {
                let waited = client.pending.front().map_or(0, |pending| now - pending.since);
                if waited > 2 * SECOND {
                    self.client_hangs_up(id);
                    return Ok(());
                }
                if let Some(asked) = client.next(self.quiet) {
                    let follow_up = (asked == Asked::Sync)
                        .then(|| Asked::Get { register: client.rng.usize(0..REGISTERS) });
                    self.ask(id, asked);
                    if let Some(asked) = follow_up {
                        self.ask(id, asked);
                    }
                }
                let client = &mut self.clients[id];
                let mean = if self.quiet { SECOND } else { client.interval };
                let delay = client.rng.u64(1..=2 * mean);
                self.plan_client(id, delay);
            }
        }
        Ok(())
    }

    /// A client gives its connection up and looks for another server.
    pub(super) fn client_hangs_up(&mut self, id: usize) {
        if let Some(link) = self.clients[id].link {
            self.hang_up(link);
        }
        self.clients[id].apart();
        let pause = self.client_pause();
        self.plan_client(id, pause);
    }

    fn ask(&mut self, id: usize, asked: Asked) {
        let floor = self.floor();
        let client = &mut self.clients[id];
        let Some(link) = client.link else { return };
        let (op, body) = encode(&asked);
        let xid = if asked == Asked::Ping { xid::PING } else { client.next_xid };
        client.next_xid += 1;
        let node = self.links[link].node + 1;
        super::trace::set_node(0);
        self.trace.tell(|| format!("client {id} asks node {node}: {xid} {asked:?}"));
        client.pending.push_back(Pending { xid, op, asked, since: self.now, floor });
        self.send_to_server(link, ToServer::Request { xid, op, body });
    }

    pub(super) fn client_hears(&mut self, link: usize, message: ToClient) -> Result<(), Violation> {
        let id = self.links[link].client;
        if id == super::script::SCRIPT {
            self.script_inbox.push((link, message));
            return Ok(());
        }
        if self.clients[id].link != Some(link) {
            return Ok(());
        }
        match message {
            ToClient::Closed => {
                self.client_hangs_up(id);
                Ok(())
            }
            ToClient::Ready { session, passwd } => {
                super::trace::set_node(0);
                self.trace.tell(|| format!("client {id} has the session {session}"));
                self.counts.sessions += u64::from(self.clients[id].session.is_none());
                let client = &mut self.clients[id];
                if client.session.is_some_and(|(known, _)| known != session) {
                    return Err(Violation(format!("client {id} asked for a session and got {session}")));
                }
                client.session = Some((session, passwd));
                client.state = State::Connected;
                self.plan_client(id, 0);
                Ok(())
            }
            ToClient::Refused => {
                super::trace::set_node(0);
                self.trace.tell(|| format!("client {id} is refused"));
                self.clients[id].new_session();
                self.client_hangs_up(id);
                Ok(())
            }
            ToClient::Frames(bytes) => {
                let mut rest = &bytes[..];
                while let Some((length, behind)) = rest.split_first_chunk::<4>() {
                    let (frame, behind) = behind.split_at(u32::from_be_bytes(*length) as usize);
                    self.frame(id, frame)?;
                    rest = behind;
                }
                Ok(())
            }
        }
    }

    fn frame(&mut self, id: usize, frame: &[u8]) -> Result<(), Violation> {
        let wrong = |text: String| Violation(format!("client {id}: {text}"));
        let mut reader = Reader::new(frame);
        let header = ReplyHeader::decode(&mut reader).map_err(|e| wrong(e.to_string()))?;
        let client = &mut self.clients[id];
        if header.xid == xid::EVENT {
            let event = WatcherEvent::decode(&mut reader).map_err(|e| wrong(e.to_string()))?;
            let register = event.path.strip_prefix("/r").and_then(|r| r.parse::<usize>().ok());
            self.counts.watch_events += 1;
            return match register.and_then(|register| client.watched.remove(&register)) {
                Some(_) => Ok(()),
                None => Err(wrong(format!("an event without a watch: {event:?}"))),
            };
        }
        let Some(pending) = client.pending.pop_front() else {
            return Err(wrong("an answer to nothing".into()));
        };
        if pending.xid != header.xid {
            return Err(wrong(format!("asked {}, got the answer to {}", pending.xid, header.xid)));
        }
        super::trace::set_node(0);
        self.trace.tell(|| format!("client {id} hears: {} at {} {:?}", header.xid, header.zxid, header.err));
        self.trace.mix(header.zxid.0 as u64 ^ header.err.0 as u64);
        self.counts.replies += 1;
        if header.err == ErrorCode::SESSION_MOVED || header.err == ErrorCode::SESSION_EXPIRED {
            if header.err == ErrorCode::SESSION_EXPIRED {
                client.new_session();
            }
            self.client_hangs_up(id);
            return Ok(());
        }
        if header.zxid < client.last_zxid {
            return Err(wrong(format!(
                "has seen {}, and now an answer at {}",
                client.last_zxid, header.zxid
            )));
        }
        client.last_zxid = header.zxid;
        let session = client.session.map_or(SessionId::NONE, |(session, _)| session);
        let mut done = Zxid::ZERO;
        if pending.asked.is_write() {
            self.counts.writes += 1;
            done = self.checker.write_done(header.zxid, session, header.xid, pending.floor)?;
        }
        let client = &mut self.clients[id];
        let response = match header.err {
            ErrorCode::OK => {
                Some(Response::decode(pending.op, &mut reader).map_err(|e| wrong(e.to_string()))?)
            }
            _ => None,
        };
        match (pending.asked, response) {
            (Asked::Parents, _) => client.prepared = true,
            (Asked::Set { register, value }, Some(Response::Stat(stat))) => {
                if stat.mzxid != done.0 {
                    return Err(wrong(format!("set /r{register} at {done}, its stat says {}", stat.mzxid)));
                }
                client.written.insert((register, done.0), value);
            }
            (Asked::Multi { registers, value }, Some(Response::Multi(_))) => {
                for register in registers {
                    client.written.insert((register, done.0), value);
                }
            }
            (Asked::Get { register }, Some(Response::Data { data, stat })) => {
                if let Some(&watched) = client.watched.get(&register)
                    && stat.mzxid > watched.0
                {
                    return Err(wrong(format!(
                        "watch: reads /r{register} at {}, watches it at {watched} and got no event",
                        stat.mzxid
                    )));
                }
                if let Some(floor) = client.synced.take()
                    && header.zxid < floor
                    && self.swarm.confirm_syncs
                {
                    return Err(wrong(format!(
                        "linearizability: a sync was asked for when {floor} was answered, the read behind it shows {}",
                        header.zxid
                    )));
                }
                let by_us = client.written.get(&(register, stat.mzxid)).map(|value| value.to_be_bytes());
                if by_us.is_some_and(|value| data != Some(&value)) {
                    return Err(wrong(format!("/r{register} at {} is not what was written", stat.mzxid)));
                }
                while client.written.len() > 100 {
                    client.written.pop_first();
                }
            }
            (Asked::Sync, Some(_)) => {
                client.synced = Some(pending.floor);
                self.counts.synced_reads += 1;
            }
            (Asked::Watch { register }, Some(Response::Stat(stat))) => {
                client.watched.insert(register, Zxid(stat.mzxid));
            }
            (Asked::CreateSequential, Some(Response::Create { path })) => {
                let path = path.into_owned();
                client.sequential.push_back(path);
            }
            (Asked::CreateEphemeral { path }, Some(_)) => client.ephemeral.push_back(path),
            (Asked::Delete { path, ephemeral: true }, None) => {
                // Nobody else deletes it, and the session is open.
                return Err(wrong(format!("its ephemeral {path} is gone: {:?}", header.err)));
            }
            (Asked::Close, Some(_)) => {
                client.new_session();
                self.client_hangs_up(id);
            }
            _ => {}
        }
        Ok(())
    }
}
