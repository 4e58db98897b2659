//! Scenarios that are written down step by step: servers by their number (from 1), and one client that does one
//! thing after the other.

use zk_proto::{
    Acl, CreateMode, CreateRequest, ErrorCode, OpCode, Perms, Reader, ReplyHeader, Request, SessionId, Zxid,
};
use zk_server::member::{PeerPort, Serving};

use super::node::Crash;
use super::port::{ToClient, ToServer};
use super::{MS, SECOND, Swarm, Us, Violation, World};

/// The client of a script, among those of the simulation.
pub(super) const SCRIPT: usize = usize::MAX;

/// How long a script waits for something that must happen.
const PATIENCE: Us = 30 * SECOND;

/// A quiet world for a script: nothing runs until it is started.
pub fn stage(voters: usize, observers: usize) -> Swarm {
    Swarm { voters, observers, clients: 0, autostart: false, ..Swarm::calm(1) }
}

/// A connection of the script's client.
#[derive(Debug)]
pub struct Connection {
    link: usize,
    /// Its session.
    pub session: SessionId,
    next_xid: i32,
}

/// The answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The server's zxid, and how it went.
    Reply(Zxid, ErrorCode),
    /// The connection was closed.
    Closed,
    /// Nothing came.
    Nothing,
}

impl World {
    /// Lets time pass.
    ///
    /// # Errors
    /// What must not happen.
    pub fn wait_ms(&mut self, ms: u64) -> Result<(), Violation> {
        self.run_until(self.now + ms * MS)
    }

    /// Starts servers, and waits until they serve.
    ///
    /// # Errors
    /// What must not happen, and if they do not serve in time.
    pub fn start_servers(&mut self, servers: &[usize]) -> Result<(), Violation> {
        self.power_on(servers)?;
        self.wait_until("they serve", |world| servers.iter().all(|&server| world.serves(server)))
    }

    /// Starts servers that may have nobody to follow.
    ///
    /// # Errors
    /// What must not happen.
    pub fn power_on(&mut self, servers: &[usize]) -> Result<(), Violation> {
        for &server in servers {
            self.start(server - 1)?;
        }
        Ok(())
    }

    /// kill -9.
    pub fn kill(&mut self, servers: &[usize]) {
        for &server in servers {
            self.crash(server - 1, Crash::Kill);
        }
    }

    /// Stops a server, or lets it go on.
    pub fn set_paused(&mut self, server: usize, paused: bool) {
        if paused {
            self.nodes[server - 1].paused.get_or_insert_default();
        } else {
            self.resume(server - 1);
        }
    }

    /// Lets nothing through from one server to another on one port, or everything again.
    pub fn set_cut(&mut self, from: usize, to: usize, port: PeerPort, cut: bool) {
        self.block(from - 1, to - 1, port, cut);
    }

    /// Whether a server serves clients.
    pub fn serves(&self, server: usize) -> bool {
        self.nodes[server - 1].process.as_ref().is_some_and(|process| process.serving == Serving::Yes)
    }

    /// Whether a server takes itself for an established leader.
    pub fn leads(&self, server: usize) -> bool {
        let process = self.nodes[server - 1].process.as_ref();
        let leading = process.and_then(|process| process.member.status().leading);
        leading.is_some_and(|leading| leading.active)
    }

    /// The server that leads.
    pub fn leader_server(&self) -> Option<usize> {
        self.leader().map(|node| node + 1)
    }

    /// The last transaction in a server's log, as far as it is durable.
    pub fn durable(&self, server: usize) -> Zxid {
        self.nodes[server - 1].model.durable()
    }

    /// Whether a server's tree has a node.
    pub fn has(&self, server: usize, path: &str) -> bool {
        let process = self.nodes[server - 1].process.as_ref();
        process.is_some_and(|process| process.shared.tree.read().find(path).is_some())
    }

    /// Waits for something that must happen.
    ///
    /// # Errors
    /// What must not happen, and if it does not happen in time.
    pub fn wait_until(&mut self, what: &str, happened: impl Fn(&World) -> bool) -> Result<(), Violation> {
        let end = self.now + PATIENCE;
        while !happened(self) {
            if self.now >= end {
                return Err(Violation(format!("in vain: {what}\n{}", self.describe())));
            }
            self.wait_ms(10)?;
        }
        Ok(())
    }

    /// Waits until all servers are the same.
    ///
    /// # Errors
    /// What must not happen, and if they do not become the same.
    pub fn wait_until_equal(&mut self) -> Result<(), Violation> {
        let end = self.now + PATIENCE;
        while let Err(why) = self.all_equal() {
            if self.now >= end {
                return Err(Violation(format!("{why}\n{}", self.describe())));
            }
            self.wait_ms(100)?;
        }
        Ok(())
    }

    /// Opens a session.
    ///
    /// # Errors
    /// What must not happen, and if the server does not answer.
    pub fn connect_to(&mut self, server: usize) -> Result<Connection, Violation> {
        let link = self.link(SCRIPT, server - 1);
        let connect = ToServer::Connect { session: None, last_zxid: Zxid::ZERO, timeout_ms: 20_000 };
        self.send_to_server(link, connect);
        let end = self.now + PATIENCE;
        while self.now < end {
            self.wait_ms(1)?;
            let ready =
                |(on, message): &(usize, ToClient)| *on == link && matches!(message, ToClient::Ready { .. });
            if let Some(at) = self.script_inbox.iter().position(ready)
                && let (_, ToClient::Ready { session, .. }) = self.script_inbox.remove(at)
            {
                return Ok(Connection { link, session, next_xid: 1 });
            }
        }
        Err(Violation(format!("server {server} opens no session\n{}", self.describe())))
    }

    /// Asks for something without waiting for the answer.
    pub fn ask_for(&mut self, connection: &mut Connection, request: &Request<'_>) {
        let mut body = Vec::new();
        request.encode(&mut body);
        let xid = connection.next_xid;
        connection.next_xid += 1;
        self.send_to_server(connection.link, ToServer::Request { xid, op: request.op(), body });
    }

    /// Waits for the next answer, up to some time.
    ///
    /// # Errors
    /// What must not happen.
    pub fn answer_within(&mut self, connection: &Connection, ms: u64) -> Result<Answer, Violation> {
        let end = self.now + ms * MS;
        loop {
            let next = self.script_inbox.iter().position(|(on, _)| *on == connection.link);
            if let Some(at) = next {
                return Ok(match self.script_inbox.remove(at).1 {
                    ToClient::Frames(bytes) => {
                        let header = ReplyHeader::decode(&mut Reader::new(&bytes[4..]));
                        header.map_or(Answer::Nothing, |header| Answer::Reply(header.zxid, header.err))
                    }
                    _ => Answer::Closed,
                });
            }
            if self.now >= end {
                return Ok(Answer::Nothing);
            }
            self.wait_ms(1)?;
        }
    }

    /// Creates a node over a connection of its own, and waits for the answer.
    ///
    /// # Errors
    /// What must not happen, and anything but success.
    pub fn create_over(&mut self, server: usize, path: &str) -> Result<Zxid, Violation> {
        let mut connection = self.connect_to(server)?;
        self.ask_for(&mut connection, &create(path));
        match self.answer_within(&connection, PATIENCE / MS)? {
            Answer::Reply(zxid, ErrorCode::OK) => Ok(zxid),
            other => {
                Err(Violation(format!("create {path} over server {server}: {other:?}\n{}", self.describe())))
            }
        }
    }
}

/// A request to create a persistent node.
pub fn create(path: &str) -> Request<'static> {
    Request::Create(CreateRequest {
        op: OpCode::Create,
        path: path.to_owned().into(),
        data: Some(b""),
        acl: Some(vec![Acl::new(Perms(31), "world", "anyone")]),
        flags: CreateMode::Persistent as i32,
        ttl_ms: 0,
    })
}
