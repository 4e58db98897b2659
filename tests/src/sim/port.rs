//! The client port of a node, as the I/O threads of a server do it: what is answered from the tree at once, what
//! goes to the replica, and what comes back.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use parking_lot::Mutex;
use zk_proto::{OpCode, SessionId, Zxid};
use zk_server::auth::{ConnAuth, Providers};
use zk_server::member::Serving;
use zk_server::replica::messages::{Item, ItemKind, Letter, Mail, Span, Submission, conn_id, slot_of};
use zk_server::replica::read::{ReadEnv, ReadRequest, answer};
use zk_server::watch::WatchTable;

use super::node::Crash;
use super::{Event, MS, NodeId, Us, Violation, World};

/// What a client sends.
#[derive(Debug)]
pub(super) enum ToServer {
    Connect { session: Option<(SessionId, [u8; 16])>, last_zxid: Zxid, timeout_ms: i32 },
    Request { xid: i32, op: OpCode, body: Vec<u8> },
    Closed,
}

/// What a server sends.
#[derive(Debug)]
pub(super) enum ToClient {
    Ready { session: SessionId, passwd: [u8; 16] },
    Refused,
    Frames(Vec<u8>),
    Closed,
}

/// A connection between a client and a server.
#[derive(Debug)]
pub(super) struct Link {
    pub client: usize,
    pub node: NodeId,
    generation: u64,
    slot: Option<u32>,
    server_open: bool,
    client_open: bool,
    arrival_at_server: Us,
    arrival_at_client: Us,
}

/// The server's end of a link.
#[derive(Debug)]
struct ServerConn {
    link: usize,
    session: SessionId,
    /// Items that the replica owes an answer.
    in_core: u32,
    /// The server reads it.
    open: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Port {
    slots: Vec<Option<ServerConn>>,
    free: Vec<u32>,
    submission: Submission,
    /// Somebody will come for the submission.
    planned: bool,
    heard: BTreeMap<SessionId, u64>,
}

impl Port {
    pub fn take_heard(&mut self) -> Vec<(SessionId, u64)> {
        std::mem::take(&mut self.heard).into_iter().collect()
    }

    pub fn take_submission(&mut self) -> Submission {
        self.planned = false;
        std::mem::take(&mut self.submission)
    }

    fn get(&mut self, slot: u32) -> Option<&mut ServerConn> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    fn enter(&mut self, conn: ServerConn) -> u32 {
        if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = Some(conn);
            return slot;
        }
        self.slots.push(Some(conn));
        self.slots.len() as u32 - 1
    }

    fn copy(&mut self, body: &[u8]) -> Span {
        let start = self.submission.bytes.len() as u32;
        self.submission.bytes.extend_from_slice(body);
        start..start + body.len() as u32
    }
}

fn auth() -> Arc<ConnAuth> {
    Arc::new(ConnAuth::new(SocketAddr::from((Ipv4Addr::new(10, 1, 0, 1), 1000))))
}

impl World {
    /// Connects a client to a node; what it sends next is the connect request.
    pub(super) fn link(&mut self, client: usize, node: NodeId) -> usize {
        self.links.push(Link {
            client,
            node,
            generation: self.nodes[node].generation,
            slot: None,
            server_open: true,
            client_open: true,
            arrival_at_server: 0,
            arrival_at_client: 0,
        });
        self.links.len() - 1
    }

    pub(super) fn send_to_server(&mut self, link: usize, message: ToServer) {
        let delay = self.rng.u64(50..1000);
        let open = &mut self.links[link];
        open.arrival_at_server = (self.now + delay).max(open.arrival_at_server);
        let at = open.arrival_at_server;
        self.plan_at(at, Event::ToServer { link, message });
    }

    fn send_to_client(&mut self, link: usize, message: ToClient) {
        let delay = self.rng.u64(50..1000);
        let open = &mut self.links[link];
        if !open.client_open {
            return;
        }
        open.arrival_at_client = (self.now + delay).max(open.arrival_at_client);
        let at = open.arrival_at_client;
        self.plan_at(at, Event::ToClient { link, message });
    }

    /// The client gives a link up.
    pub(super) fn hang_up(&mut self, link: usize) {
        if std::mem::replace(&mut self.links[link].client_open, false) {
            self.send_to_server(link, ToServer::Closed);
        }
    }

    pub(super) fn server_hears(&mut self, link: usize, message: ToServer) -> Result<(), Violation> {
        let (node, generation, server_open) = {
            let link = &self.links[link];
            (link.node, link.generation, link.server_open)
        };
        if self.nodes[node].generation != generation || self.nodes[node].process.is_none() {
            if self.nodes[node].powered {
                self.send_to_client(link, ToClient::Closed);
            }
            return Ok(());
        }
        if !server_open {
            return Ok(());
        }
        match message {
            ToServer::Closed => self.close_link(node, link),
            ToServer::Connect { session, last_zxid, timeout_ms } => {
                self.connect(node, link, session, last_zxid, timeout_ms);
            }
            ToServer::Request { xid, op, body } => self.request(node, link, xid, op, &body),
        }
        Ok(())
    }

    fn connect(
        &mut self,
        node: NodeId,
        link: usize,
        session: Option<(SessionId, [u8; 16])>,
        last_zxid: Zxid,
        timeout_ms: i32,
    ) {
        let Some(process) = &mut self.nodes[node].process else { return };
        if process.serving != Serving::Yes || last_zxid > process.shared.last_zxid() {
            self.close_link(node, link);
            return;
        }
        let conn = ServerConn { link, session: SessionId::NONE, in_core: 0, open: true };
        let slot = process.port.enter(conn);
        self.links[link].slot = Some(slot);
        let kind = match session {
            Some((session, passwd)) => ItemKind::Reattach { session, passwd, passwd_ok: true, timeout_ms },
            None => ItemKind::CreateSession { timeout_ms },
        };
        process.port.submission.items.push(Item { conn: conn_id(0, slot), kind });
        self.plan_submit(node);
    }

    fn request(&mut self, node: NodeId, link: usize, xid: i32, op: OpCode, body: &[u8]) {
        let now = self.nodes[node].clock(self.now).mono_ms;
        let Some(process) = &mut self.nodes[node].process else { return };
        let Some(slot) = self.links[link].slot else { return };
        let Some(conn) = process.port.get(slot) else { return };
        let session = conn.session;
        process.port.heard.insert(session, now);
        let write = !matches!(
            op,
            OpCode::GetData
                | OpCode::Exists
                | OpCode::Sync
                | OpCode::GetChildren
                | OpCode::Ping
                | OpCode::SetWatches
        );
        let Some(conn) = process.port.get(slot) else { return };
        if !write && conn.in_core == 0 && op != OpCode::Sync {
            let mut out = Vec::new();
            let tree = process.shared.tree.read();
            let providers = Providers::default();
            let env = ReadEnv { tree: &tree, watches: &process.shared.watches, providers: &providers };
            let auth = auth();
            answer(
                env,
                &ReadRequest { conn: conn_id(0, slot), session, xid, op, body, auth: &auth },
                &mut out,
            );
            drop(tree);
            self.send_to_client(link, ToClient::Frames(out));
            return;
        }
        conn.in_core += 1;
        let body = process.port.copy(body);
        let kind = if write {
            ItemKind::Write { session, xid, op, body, auth: auth() }
        } else {
            ItemKind::Read { session, xid, op, body, auth: auth() }
        };
        process.port.submission.items.push(Item { conn: conn_id(0, slot), kind });
        self.plan_submit(node);
    }

    fn plan_submit(&mut self, node: NodeId) {
        let delay = self.rng.u64(0..100);
        let generation = self.nodes[node].generation;
        let Some(process) = &mut self.nodes[node].process else { return };
        if !std::mem::replace(&mut process.port.planned, true) {
            self.plan(delay, Event::Submit { node, generation });
        }
    }

    /// The server closes its end of a link.
    fn close_link(&mut self, node: NodeId, link: usize) {
        if !std::mem::replace(&mut self.links[link].server_open, false) {
            return;
        }
        self.send_to_client(link, ToClient::Closed);
        let Some(slot) = self.links[link].slot else { return };
        let Some(process) = &mut self.nodes[node].process else { return };
        if let Some(conn) = process.port.get(slot) {
            conn.open = false;
            let conn = conn_id(0, slot);
            let watches: &Mutex<WatchTable> = &process.shared.watches;
            watches.lock().connection_closed(conn);
            process.port.submission.items.push(Item { conn, kind: ItemKind::Closed });
            self.plan_submit(node);
        }
    }

    /// Clients of a server that does not serve any more.
    pub(super) fn close_clients(&mut self, node: NodeId) {
        let Some(process) = &self.nodes[node].process else { return };
        let open: Vec<usize> =
            process.port.slots.iter().flatten().filter(|c| c.open).map(|c| c.link).collect();
        for link in open {
            self.close_link(node, link);
        }
    }

    /// The process of a server is gone.
    pub(super) fn links_gone(&mut self, node: NodeId, crash: Crash) {
        for link in 0..self.links.len() {
            let open = &mut self.links[link];
            if open.node == node && std::mem::replace(&mut open.server_open, false) && crash == Crash::Kill {
                self.send_to_client(link, ToClient::Closed);
            }
        }
    }

    /// What the replica has for clients.
    pub(super) fn mail(&mut self, node: NodeId, mail: Mail) {
        for letter in mail.letters {
            let Some(process) = &mut self.nodes[node].process else { return };
            let port = &mut process.port;
            match letter {
                Letter::Reply { conn, frame, close } => {
                    let Some(conn) = port.get(slot_of(conn)) else { continue };
                    conn.in_core = conn.in_core.saturating_sub(1);
                    let (link, open) = (conn.link, conn.open);
                    if open {
                        let bytes = mail.bytes[frame.start as usize..frame.end as usize].to_vec();
                        self.send_to_client(link, ToClient::Frames(bytes));
                        if close {
                            self.close_link(node, link);
                        }
                    }
                }
                Letter::Event { frame, conns, .. } => {
                    let open = |conn| port.get(slot_of(conn)).filter(|conn| conn.open).map(|conn| conn.link);
                    let links: Vec<usize> = conns.into_iter().filter_map(open).collect();
                    for link in links {
                        self.send_to_client(link, ToClient::Frames(frame.to_vec()));
                    }
                }
                Letter::SessionReady { conn, session, passwd, .. } => {
                    let Some(conn) = port.get(slot_of(conn)) else { continue };
                    conn.session = session;
                    let (link, open) = (conn.link, conn.open);
                    if open {
                        self.send_to_client(link, ToClient::Ready { session, passwd });
                    }
                }
                Letter::SessionRefused { conn } => {
                    let Some(conn) = port.get(slot_of(conn)) else { continue };
                    let link = conn.link;
                    self.send_to_client(link, ToClient::Refused);
                    self.close_link(node, link);
                }
                Letter::Close { conn, session } => {
                    let Some(conn) = port.get(slot_of(conn)) else { continue };
                    if conn.session == session && conn.open {
                        let link = conn.link;
                        self.close_link(node, link);
                    }
                }
                Letter::Released { conn } => {
                    process.shared.watches.lock().connection_closed(conn);
                    let slot = slot_of(conn);
                    if port.slots[slot as usize].take().is_some() {
                        port.free.push(slot);
                    }
                }
            }
        }
    }

    /// How long a client waits before it tries again.
    pub(super) fn client_pause(&mut self) -> Us {
        self.rng.u64(20..500) * MS
    }
}
