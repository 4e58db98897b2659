//! Connections between election ports: which one of two servers survives, the hello, frames.
//!
//! Between two servers there is one connection, the one that the server with the larger id has dialed. Whoever
//! has something to say dials; the server with the smaller id closes again right after its hello, and the other
//! one dials back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::electorate::Electorate;
use crate::config::{HostPort, PeerAddress};
use crate::zab::ensemble::Ensemble;
use crate::zab::wire::{Hello, HelloForm, Notification, WireError, next_frame};
use crate::zab::{Membership, PeerConn, ServerId};

/// Accepted connections that have not said who they are.
const NAMELESS_MAX: usize = 64;
/// Servers that no configuration lists: observers to be, and servers whose configuration is newer than ours.
const STRANGERS_MAX: usize = 16;

/// Settings of a [`ConnTable`].
#[derive(Debug, Clone)]
pub struct ConnOptions {
    /// This server.
    pub me: ServerId,
    /// Addresses of the own election port as the configuration has them, for the hello.
    pub addresses: Vec<HostPort>,
    /// `multiAddress.enabled`: the hello may have several addresses. Old servers do not understand that.
    pub multi_address: bool,
    /// An accepted connection has to say who it is within this time.
    pub hello_timeout_ms: u64,
}

/// What a [`ConnTable`] wants done.
#[derive(Debug, PartialEq)]
pub enum ConnOutput {
    /// Connect to the election port of a server, and answer with [`ConnTable::dialed`] or
    /// [`ConnTable::dial_failed`], exactly once, within a bounded time.
    Dial {
        /// Whom.
        to: ServerId,
        /// Where, if it is not where the configurations say (the committed one first, then the newer one).
        address: Option<SocketAddr>,
    },
    /// Write, and call [`ConnTable::written`] when nothing is left to write.
    Write {
        /// Where to.
        conn: PeerConn,
        /// One message.
        bytes: Bytes,
    },
    /// Close, after what was to be written before. The table has forgotten the connection.
    Close {
        /// Which.
        conn: PeerConn,
        /// Why, for the log.
        reason: CloseReason,
    },
    /// A notification for [`Election::notification`](super::Election::notification).
    Deliver {
        /// The sender, as it said in its hello.
        from: ServerId,
        /// The message.
        notification: Notification,
    },
}

/// Why a connection ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The server with the larger id dials.
    #[error("server {0} will dial, its id is larger")]
    TheyDial(ServerId),
    /// The server with the larger id dials: this one.
    #[error("dialing server {0} instead, its id is smaller")]
    WeDial(ServerId),
    /// A newer connection of the same server took its place.
    #[error("a newer connection to server {0} took its place")]
    Replaced(ServerId),
    /// The addresses of the server have changed.
    #[error("the addresses of server {0} have changed")]
    Moved(ServerId),
    /// More connections than there is room for came after it.
    #[error("too many connections from unknown servers")]
    Crowded,
    /// It did not say who it is in time.
    #[error("no hello in time")]
    Silent,
    /// It claims the id of this server.
    #[error("it claims to be server {0}, which is this one")]
    OwnId(ServerId),
    /// It has no id.
    #[error("a server without a usable id ({0})")]
    NoId(ServerId),
    /// A server that no configuration lists wants to be dialed at an address that is not its own.
    #[error("server {0} is not configured and gives no address of its own")]
    NowhereToDial(ServerId),
    /// The bytes make no sense.
    #[error(transparent)]
    Malformed(#[from] WireError),
}

impl CloseReason {
    /// Whether the peer did something wrong, so that an operator should know.
    pub fn is_fault(&self) -> bool {
        use CloseReason::*;
        match self {
            TheyDial(_) | WeDial(_) | Replaced(_) | Moved(_) => false,
            Crowded | Silent | OwnId(_) | NoId(_) | NowhereToDial(_) | Malformed(_) => true,
        }
    }
}

/// The connections of the election port. Time is in milliseconds of a monotonic clock.
#[derive(Debug)]
pub struct ConnTable {
    options: ConnOptions,
    electorate: Electorate,
    conns: BTreeMap<PeerConn, Conn>,
    peers: BTreeMap<ServerId, Peer>,
}

#[derive(Debug)]
struct Conn {
    stage: Stage,
    /// What arrived and is not a complete message yet.
    buffer: BytesMut,
    remote: IpAddr,
    /// Something is being written.
    busy: bool,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// Accepted; the hello is awaited.
    Nameless {
        until_ms: u64,
    },
    Up(ServerId),
}

#[derive(Debug, Default)]
struct Peer {
    conn: Option<PeerConn>,
    dialing: bool,
    /// What to say next; a newer message takes its place.
    waiting: Option<Bytes>,
    /// What was said last. Said again on a new connection, because the old one may have lost it.
    last: Option<Bytes>,
}

impl ConnTable {
    /// No connections yet.
    pub fn new(options: ConnOptions) -> Self {
        let electorate = Electorate::new(Arc::new(Membership::default().into()), None);
        ConnTable { options, electorate, conns: BTreeMap::new(), peers: BTreeMap::new() }
    }

    /// Who belongs to the ensemble. Connections to servers whose addresses have changed end.
    pub fn set_ensembles(
        &mut self,
        committed: Arc<Ensemble>,
        last_seen: Option<Arc<Ensemble>>,
        out: &mut Vec<ConnOutput>,
    ) {
        let old = std::mem::replace(&mut self.electorate, Electorate::new(committed, last_seen));
        let connected = self.peers.iter().filter_map(|(server, peer)| Some((*server, peer.conn?)));
        let moved: Vec<(ServerId, PeerConn)> = connected
            .filter(|(server, _)| addresses(&old, *server) != addresses(&self.electorate, *server))
            .collect();
        for (server, conn) in moved {
            self.close(conn, CloseReason::Moved(server), out);
        }
        self.forget_strangers();
    }

    /// Says something to a server, now or when there is a connection. Nothing happens for a server that is neither
    /// configured nor connected.
    pub fn send(&mut self, to: ServerId, notification: &Notification, out: &mut Vec<ConnOutput>) {
        if to == self.options.me {
            return;
        }
        if self.electorate.contains(to) {
            self.peers.entry(to).or_default();
        }
        let Some(peer) = self.peers.get_mut(&to) else { return };
        let mut frame = Vec::new();
        notification.encode(&mut frame);
        let frame = Bytes::from(frame);
        peer.last = Some(frame.clone());
        peer.waiting = Some(frame);
        match peer.conn {
            Some(conn) => self.flush(conn, out),
            None if peer.dialing => {}
            None => {
                peer.dialing = true;
                out.push(ConnOutput::Dial { to, address: None });
            }
        }
    }

    /// The search for a leader is over: votes of it are not said again on new connections. (Answers are.)
    pub fn forget_votes(&mut self) {
        for peer in self.peers.values_mut() {
            peer.last = None;
        }
    }

    /// Someone connected.
    pub fn accepted(&mut self, now_ms: u64, conn: PeerConn, remote: IpAddr, out: &mut Vec<ConnOutput>) {
        let nameless = || self.conns.iter().filter(|(_, conn)| matches!(conn.stage, Stage::Nameless { .. }));
        if nameless().count() >= NAMELESS_MAX
            && let Some(oldest) = nameless().map(|(conn, _)| *conn).next()
        {
            self.close(oldest, CloseReason::Crowded, out);
        }
        let until_ms = now_ms.saturating_add(self.options.hello_timeout_ms);
        self.conns.insert(conn, Conn::new(Stage::Nameless { until_ms }, remote));
    }

    /// The connection that [`ConnOutput::Dial`] asked for.
    pub fn dialed(&mut self, conn: PeerConn, to: ServerId, remote: IpAddr, out: &mut Vec<ConnOutput>) {
        self.conns.insert(conn, Conn { busy: true, ..Conn::new(Stage::Up(to), remote) });
        out.push(ConnOutput::Write { conn, bytes: self.hello() });
        let peer = self.peers.entry(to).or_default();
        peer.dialing = false;
        if to > self.options.me {
            return self.close(conn, CloseReason::TheyDial(to), out);
        }
        self.up(to, conn, out);
    }

    /// The server could not be reached. It is dialed again when there is something to say.
    pub fn dial_failed(&mut self, to: ServerId) {
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.dialing = false;
        }
        self.forget_strangers();
    }

    /// Bytes came.
    pub fn received(&mut self, conn: PeerConn, bytes: &[u8], out: &mut Vec<ConnOutput>) {
        let Some(state) = self.conns.get_mut(&conn) else { return };
        state.buffer.extend_from_slice(bytes);
        if let Stage::Nameless { .. } = state.stage {
            match Hello::decode(&state.buffer) {
                Ok(None) => return,
                Ok(Some((hello, length))) => {
                    let _ = state.buffer.split_to(length);
                    let remote = state.remote;
                    self.greeted(conn, remote, &hello, out);
                }
                Err(error) => return self.close(conn, error.into(), out),
            }
        }
        self.read_frames(conn, out);
    }

    /// Nothing is left to write on a connection.
    pub fn written(&mut self, conn: PeerConn, out: &mut Vec<ConnOutput>) {
        if let Some(state) = self.conns.get_mut(&conn) {
            state.busy = false;
            self.flush(conn, out);
        }
    }

    /// The connection is gone. Without effect for one that the table closed.
    pub fn closed(&mut self, conn: PeerConn) {
        let Some(Conn { stage: Stage::Up(server), .. }) = self.conns.remove(&conn) else { return };
        if let Some(peer) = self.peers.get_mut(&server)
            && peer.conn == Some(conn)
        {
            peer.conn = None;
        }
        self.forget_strangers();
    }

    /// Time has passed; call it at [`next_deadline_ms`](Self::next_deadline_ms) or more often.
    pub fn tick(&mut self, now_ms: u64, out: &mut Vec<ConnOutput>) {
        let late = |conn: &Conn| matches!(conn.stage, Stage::Nameless { until_ms } if until_ms <= now_ms);
        let late: Vec<PeerConn> = self.conns.iter().filter(|(_, c)| late(c)).map(|(conn, _)| *conn).collect();
        for conn in late {
            self.close(conn, CloseReason::Silent, out);
        }
    }

    /// When [`tick`](Self::tick) has something to do next.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let deadline_ms = |conn: &Conn| match conn.stage {
            Stage::Nameless { until_ms } => Some(until_ms),
            Stage::Up(_) => None,
        };
        self.conns.values().filter_map(deadline_ms).min()
    }

    /// Servers with a connection.
    pub fn connected(&self) -> impl Iterator<Item = ServerId> {
        self.peers.iter().filter(|(_, peer)| peer.conn.is_some()).map(|(server, _)| *server)
    }

    fn hello(&self) -> Bytes {
        let ConnOptions { me, addresses, multi_address, .. } = &self.options;
        let form = if *multi_address { HelloForm::V2 } else { HelloForm::V1 };
        let count = if *multi_address { usize::MAX } else { 1 };
        // A reconfiguration may have given this server other addresses than it was started with.
        let listed = self.electorate.all().find_map(|ensemble| ensemble.membership.servers.get(me));
        let listed: Option<Vec<HostPort>> = listed.map(|spec| {
            let election = |at: &PeerAddress| HostPort { host: at.host.clone(), port: at.election_port };
            spec.addresses.iter().map(election).collect()
        });
        let addresses = listed.as_ref().unwrap_or(addresses).iter().take(count).cloned().collect();
        let mut bytes = Vec::new();
        Hello { server: *me, form, addresses }.encode(&mut bytes);
        bytes.into()
    }

    /// An accepted connection has said who it is.
    fn greeted(&mut self, conn: PeerConn, remote: IpAddr, hello: &Hello, out: &mut Vec<ConnOutput>) {
        let server = hello.server;
        let known = self.electorate.contains(server);
        if server == self.options.me {
            return self.close(conn, CloseReason::OwnId(server), out);
        }
        if server == Hello::ANONYMOUS || server.0 < 0 {
            return self.close(conn, CloseReason::NoId(server), out);
        }
        if server > self.options.me {
            if !known && !self.make_room_for_stranger(server, out) {
                return self.close(conn, CloseReason::Crowded, out);
            }
            return self.up(server, conn, out);
        }
        // It has no connection any more, or it would not dial; or it never got ours.
        let address = self.address_to_dial(remote, hello);
        if !known && address.is_none() {
            return self.close(conn, CloseReason::NowhereToDial(server), out);
        }
        self.close(conn, CloseReason::WeDial(server), out);
        if !known && !self.make_room_for_stranger(server, out) {
            return;
        }
        let peer = self.peers.entry(server).or_default();
        let old = peer.conn;
        let dial = !std::mem::replace(&mut peer.dialing, true);
        if let Some(old) = old {
            self.close(old, CloseReason::Replaced(server), out);
        }
        if dial {
            out.push(ConnOutput::Dial { to: server, address });
        }
    }

    /// Where to dial a server that asked for it, if not where the configuration says.
    ///
    /// An address that the configuration lacks is believed only if the request came from there: otherwise anybody
    /// could have this server connect to anything.
    fn address_to_dial(&self, remote: IpAddr, hello: &Hello) -> Option<SocketAddr> {
        let configured = addresses(&self.electorate, hello.server);
        let is_configured = |address: &&HostPort| {
            configured
                .iter()
                .flat_map(|list| list.iter())
                .any(|configured| configured.host == address.host && configured.election_port == address.port)
        };
        if hello.dialable().any(|address| is_configured(&address)) {
            return None;
        }
        let own =
            |address: &HostPort| address.host.parse().ok().filter(|ip: &IpAddr| *ip == remote.to_canonical());
        hello.dialable().find_map(|address| Some(SocketAddr::new(own(address)?, address.port)))
    }

    /// Makes a connection the one to `server`.
    fn up(&mut self, server: ServerId, conn: PeerConn, out: &mut Vec<ConnOutput>) {
        let peer = self.peers.entry(server).or_default();
        peer.waiting = peer.waiting.take().or_else(|| peer.last.clone());
        if let Some(old) = peer.conn.replace(conn) {
            self.close(old, CloseReason::Replaced(server), out);
        }
        if let Some(state) = self.conns.get_mut(&conn) {
            state.stage = Stage::Up(server);
        }
        self.flush(conn, out);
    }

    /// Writes what waits, if the connection is idle.
    fn flush(&mut self, conn: PeerConn, out: &mut Vec<ConnOutput>) {
        if let Some(state) = self.conns.get_mut(&conn)
            && let Stage::Up(server) = state.stage
            && !state.busy
            && let Some(bytes) = self.peers.get_mut(&server).and_then(|peer| peer.waiting.take())
        {
            state.busy = true;
            out.push(ConnOutput::Write { conn, bytes });
        }
    }

    fn read_frames(&mut self, conn: PeerConn, out: &mut Vec<ConnOutput>) {
        while let Some(state) = self.conns.get_mut(&conn)
            && let Stage::Up(from) = state.stage
        {
            match next_frame(&mut state.buffer) {
                Ok(None) => return,
                Ok(Some(frame)) => match Notification::decode(&frame) {
                    Ok(notification) => out.push(ConnOutput::Deliver { from, notification }),
                    // Apache's servers keep the connection, too.
                    Err(error) => tracing::warn!(server = %from, %error, "vote ignored"),
                },
                Err(error) => return self.close(conn, error.into(), out),
            }
        }
    }

    fn close(&mut self, conn: PeerConn, reason: CloseReason, out: &mut Vec<ConnOutput>) {
        self.closed(conn);
        out.push(ConnOutput::Close { conn, reason });
    }

    /// Room for a server that no configuration lists, at the cost of the oldest of them. `false`: there is none.
    fn make_room_for_stranger(&mut self, server: ServerId, out: &mut Vec<ConnOutput>) -> bool {
        if self.peers.contains_key(&server) {
            return true;
        }
        let strangers: Vec<&Peer> = self.strangers().map(|(_, peer)| peer).collect();
        if strangers.len() < STRANGERS_MAX {
            return true;
        }
        let oldest = strangers.iter().filter(|peer| !peer.dialing).filter_map(|peer| peer.conn).min();
        if let Some(oldest) = oldest {
            self.close(oldest, CloseReason::Crowded, out);
        }
        oldest.is_some()
    }

    fn strangers(&self) -> impl Iterator<Item = (&ServerId, &Peer)> {
        self.peers.iter().filter(|(server, _)| !self.electorate.contains(**server))
    }

    /// Drops what is known about unlisted servers that are gone.
    fn forget_strangers(&mut self) {
        let gone = self.strangers().filter(|(_, peer)| peer.conn.is_none() && !peer.dialing);
        let gone: BTreeSet<ServerId> = gone.map(|(server, _)| *server).collect();
        self.peers.retain(|server, _| !gone.contains(server));
    }
}

impl Conn {
    fn new(stage: Stage, remote: IpAddr) -> Self {
        Conn { stage, buffer: BytesMut::new(), remote, busy: false }
    }
}

/// Everything that the configurations say about where a server is.
fn addresses(electorate: &Electorate, server: ServerId) -> Vec<&[PeerAddress]> {
    let specs = electorate.all().filter_map(|ensemble| ensemble.membership.servers.get(&server));
    specs.map(|spec| spec.addresses.as_slice()).collect()
}
