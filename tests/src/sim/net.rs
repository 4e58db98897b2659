//! Connections between servers, as TCP makes them: a stream of bytes in each direction that is delayed, cut
//! anywhere and stalled, but never reordered; an end that may not hear of the other's end.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::BytesMut;
use zk_server::config::HostPort;
use zk_server::member::{Dial, Input, PeerPort};
use zk_server::tree::SnapshotPin;
use zk_server::zab::PeerConn;
use zk_server::zab::wire::{
    LearnerStream, QuorumPacket, SnapStreamEncoder, StreamItem, StreamOptions, WireError,
};

use super::node::{Crash, address, node_at};
use super::{Event, MS, NodeId, Us, Violation, World, trace};

/// Which end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Who dialed.
    Dialer,
    /// Who was dialed.
    Acceptor,
}

impl Side {
    fn other(self) -> Side {
        match self {
            Side::Dialer => Side::Acceptor,
            Side::Acceptor => Side::Dialer,
        }
    }
}

/// The name that an end of a connection has for its server.
fn name(conn: usize, side: Side) -> PeerConn {
    PeerConn(conn as u64 * 2 + side as u64)
}

fn named(conn: PeerConn) -> (usize, Side) {
    let side = if conn.0.is_multiple_of(2) { Side::Dialer } else { Side::Acceptor };
    ((conn.0 / 2) as usize, side)
}

/// Somebody connects.
#[derive(Debug, Clone)]
pub(super) struct Dialing {
    pub from: NodeId,
    generation: u64,
    to: NodeId,
    dial: Dial,
}

impl Dialing {
    fn port(&self) -> PeerPort {
        match self.dial {
            Dial::Election(_) => PeerPort::Election,
            Dial::Leader(_) => PeerPort::Quorum,
        }
    }
}

/// What is on its way to an end.
enum Piece {
    Bytes(Vec<u8>),
    /// The other end is closed.
    End,
}

enum Reader {
    Raw,
    Learner(BytesMut),
    Leader(Box<LearnerStream>),
}

struct End {
    node: NodeId,
    generation: u64,
    /// On their way, with the time at which they arrive.
    pieces: VecDeque<(Us, Piece)>,
    last_arrival: Us,
    /// Its server does not read.
    paused: bool,
    /// Its server has closed it, or is gone, or was told of the other's end.
    closed: bool,
    /// The server knows of the connection.
    known: bool,
    reader: Reader,
    /// A tree that is being sent, and what stands behind it.
    tree: Option<(SnapStreamEncoder, Vec<u8>)>,
    /// What was sent and not looked at by the observer.
    observed: BytesMut,
}

impl End {
    fn new(node: NodeId, generation: u64, reader: Reader) -> Self {
        End {
            node,
            generation,
            pieces: VecDeque::new(),
            last_arrival: 0,
            paused: false,
            closed: false,
            known: false,
            reader,
            tree: None,
            observed: BytesMut::new(),
        }
    }
}

struct Conn {
    port: PeerPort,
    ends: [End; 2],
}

/// All connections, and what does not get through.
pub(super) struct Network {
    nodes: usize,
    conns: Vec<Option<Box<Conn>>>,
    /// How many partitions stop bytes from one node to another, by port.
    blocked: Vec<[u32; 2]>,
    /// Delays are so many times longer.
    pub slow_factor: u64,
}

impl Network {
    pub fn new(nodes: usize) -> Self {
        Network { nodes, conns: Vec::new(), blocked: vec![[0; 2]; nodes * nodes], slow_factor: 1 }
    }

    fn is_blocked(&self, from: NodeId, to: NodeId, port: PeerPort) -> bool {
        self.blocked[from * self.nodes + to][port as usize] > 0
    }

    /// Whose turn an event of a connection is.
    pub fn owner(&self, conn: usize, side: Side) -> Option<NodeId> {
        let conn = self.conns.get(conn)?.as_ref()?;
        Some(conn.ends[side as usize].node)
    }

    /// Bytes on their way from a node, by connection.
    pub fn backlog(&self, node: NodeId) -> Vec<(PeerConn, usize)> {
        let mut backlog = Vec::new();
        for (id, conn) in self.conns.iter().enumerate() {
            let Some(conn) = conn else { continue };
            for side in [Side::Dialer, Side::Acceptor] {
                let pieces = &conn.ends[side.other() as usize].pieces;
                if conn.ends[side as usize].node == node && !pieces.is_empty() {
                    let bytes = |(_, piece): &(Us, Piece)| match piece {
                        Piece::Bytes(bytes) => bytes.len(),
                        Piece::End => 0,
                    };
                    backlog.push((name(id, side), pieces.iter().map(bytes).sum()));
                }
            }
        }
        backlog
    }

    /// Connections that are open at both ends.
    pub fn open(&self) -> Vec<usize> {
        let both =
            |conn: &Option<Box<Conn>>| conn.as_ref().is_some_and(|c| c.ends.iter().all(|end| !end.closed));
        (0..self.conns.len()).filter(|&conn| both(&self.conns[conn])).collect()
    }

    /// For people.
    pub fn describe(&self) -> String {
        let mut lines = Vec::new();
        for (id, conn) in self.conns.iter().enumerate() {
            let Some(conn) = conn else { continue };
            let [dialer, acceptor] = &conn.ends;
            let end = |end: &End| {
                let (closed, paused) =
                    (if end.closed { " closed" } else { "" }, if end.paused { " paused" } else { "" });
                format!("node {} ({} pieces coming{closed}{paused})", end.node + 1, end.pieces.len())
            };
            lines.push(format!("  conn {id} {:?}: {} -> {}", conn.port, end(dialer), end(acceptor)));
        }
        lines.join("\n")
    }
}

impl World {
    fn latency(&mut self) -> Us {
        let (low, high) = self.swarm.latency_us;
        self.rng.u64(low..=high) * self.net.slow_factor
    }

    pub(super) fn dial(&mut self, node: NodeId, dial: Dial, addresses: &[HostPort]) {
        let to = addresses.first().and_then(node_at);
        let generation = self.nodes[node].generation;
        self.trace.tell(|| format!("dials {dial:?}"));
        let delay = self.latency();
        match to.filter(|&to| to < self.nodes.len()) {
            Some(to) => self.plan(delay, Event::Dial(Dialing { from: node, generation, to, dial })),
            None => {
                let dialing = Dialing { from: node, generation, to: node, dial };
                self.plan(delay, Event::Dialed { dialing, conn: None, error: "no address" });
            }
        }
    }

    pub(super) fn dial_arrives(&mut self, dialing: Dialing) -> Result<(), Violation> {
        let (from, to, port) = (dialing.from, dialing.to, dialing.port());
        let delay = self.latency();
        if self.net.is_blocked(from, to, port)
            || self.net.is_blocked(to, from, port)
            || !self.nodes[to].powered
        {
            self.plan(1000 * MS, Event::Dialed { dialing, conn: None, error: "timed out" });
            return Ok(());
        }
        let open = self.nodes[to].process.as_ref().is_some_and(|p| port == PeerPort::Election || p.listening);
        if !open {
            self.plan(delay, Event::Dialed { dialing, conn: None, error: "refused" });
            return Ok(());
        }
        let readers = match port {
            PeerPort::Election => (Reader::Raw, Reader::Raw),
            PeerPort::Quorum => (
                Reader::Leader(Box::new(LearnerStream::new(StreamOptions::default()))),
                Reader::Learner(BytesMut::new()),
            ),
        };
        let ends = [
            End::new(from, dialing.generation, readers.0),
            End::new(to, self.nodes[to].generation, readers.1),
        ];
        let conn = self.net.conns.len();
        self.net.conns.push(Some(Box::new(Conn { port, ends })));
        self.plan(0, Event::Arrive { conn, side: Side::Acceptor });
        self.plan(delay, Event::Dialed { dialing, conn: Some(conn), error: "" });
        Ok(())
    }

    pub(super) fn dialed(
        &mut self,
        dialing: Dialing,
        conn: Option<usize>,
        error: &'static str,
    ) -> Result<(), Violation> {
        let node = dialing.from;
        let alive = self.nodes[node].generation == dialing.generation && self.nodes[node].process.is_some();
        if !alive {
            if let Some(conn) = conn {
                self.close(name(conn, Side::Dialer));
            }
            return Ok(());
        }
        let result = match conn {
            Some(conn) => {
                if let Some(conn) = &mut self.net.conns[conn] {
                    conn.ends[Side::Dialer as usize].known = true;
                }
                self.trace.mix(conn as u64);
                Ok((name(conn, Side::Dialer), address(dialing.to)))
            }
            None => Err(error.to_owned()),
        };
        trace::set_node(node + 1);
        self.trace.tell(|| format!("dialed {:?}: {result:?}", dialing.dial));
        self.step(node, Input::Dialed { dial: dialing.dial, result })?;
        if let Some(conn) = conn {
            self.plan(0, Event::Arrive { conn, side: Side::Dialer });
        }
        Ok(())
    }

    /// Sends bytes of a server.
    pub(super) fn send(&mut self, node: NodeId, conn: PeerConn, bytes: Vec<u8>) -> Result<(), Violation> {
        let (id, side) = named(conn);
        let Some(Some(open)) = self.net.conns.get_mut(id) else { return Ok(()) };
        let quorum = open.port == PeerPort::Quorum;
        let end = &mut open.ends[side as usize];
        if end.closed {
            return Ok(());
        }
        if quorum && side == Side::Dialer {
            end.observed.extend_from_slice(&bytes);
            loop {
                let open = self.net.conns[id].as_mut().map(|c| &mut c.ends[side as usize].observed);
                let Some(packet) = open.and_then(|bytes| QuorumPacket::decode(bytes, 1 << 24).ok().flatten())
                else {
                    break;
                };
                self.check_sent(node, &packet)?;
            }
        }
        let Some(open) = &mut self.net.conns[id] else { return Ok(()) };
        match &mut open.ends[side as usize].tree {
            Some((_, behind)) => behind.extend_from_slice(&bytes),
            None => self.transmit(id, side, bytes),
        }
        Ok(())
    }

    /// Puts bytes on their way, in one piece or in several.
    fn transmit(&mut self, conn: usize, from: Side, bytes: Vec<u8>) {
        if bytes.len() > 1 && self.rng.u8(..) < 16 {
            let at = self.rng.usize(1..bytes.len());
            let (first, second) = bytes.split_at(at);
            self.put_on_way(conn, from, Piece::Bytes(first.to_vec()));
            self.put_on_way(conn, from, Piece::Bytes(second.to_vec()));
        } else {
            self.put_on_way(conn, from, Piece::Bytes(bytes));
        }
    }

    fn put_on_way(&mut self, conn: usize, from: Side, piece: Piece) {
        let delay = self.latency();
        let Some(open) = &mut self.net.conns[conn] else { return };
        let end = &mut open.ends[from.other() as usize];
        let at = (self.now + delay).max(end.last_arrival);
        end.last_arrival = at;
        end.pieces.push_back((at, piece));
        self.plan_at(at, Event::Arrive { conn, side: from.other() });
    }

    /// A server closes its end: what it has sent arrives, then the end of the stream.
    pub(super) fn close(&mut self, conn: PeerConn) {
        let (id, side) = named(conn);
        let Some(Some(open)) = self.net.conns.get_mut(id) else { return };
        let end = &mut open.ends[side as usize];
        if end.closed {
            return;
        }
        end.closed = true;
        end.pieces.clear();
        end.tree = None;
        if open.ends[side.other() as usize].closed {
            self.net.conns[id] = None;
        } else {
            self.put_on_way(id, side, Piece::End);
        }
    }

    /// What has arrived at an end goes to its server.
    pub(super) fn arrive(&mut self, conn: usize, side: Side) -> Result<(), Violation> {
        loop {
            let Some(Some(open)) = self.net.conns.get(conn) else { return Ok(()) };
            let (port, from) = (open.port, open.ends[side.other() as usize].node);
            let blocked = self.net.is_blocked(from, open.ends[side as usize].node, port);
            let Some(Some(open)) = self.net.conns.get_mut(conn) else { return Ok(()) };
            let end = &mut open.ends[side as usize];
            let (node, generation) = (end.node, end.generation);
            if end.closed {
                // Whoever sends to what is gone hears of it, if there is a machine to tell it.
                let told = !end.pieces.is_empty() && self.nodes[node].powered;
                let sender_closed = open.ends[side.other() as usize].closed;
                if told {
                    open.ends[side as usize].pieces.clear();
                    if !sender_closed && !self.net.is_blocked(node, from, port) {
                        self.put_on_way(conn, side, Piece::End);
                    }
                }
                return Ok(());
            }
            if side == Side::Acceptor && !end.known {
                end.known = true;
                if self.nodes[node].generation != generation {
                    return Ok(());
                }
                self.trace.mix(conn as u64);
                let input = Input::Accepted { conn: name(conn, side), port, remote: address(from) };
                self.step(node, input)?;
                continue;
            }
            if !end.known || end.paused || end.pieces.front().is_none_or(|(at, _)| *at > self.now) {
                return Ok(());
            }
            if blocked {
                return Ok(());
            }
            let Some((_, piece)) = end.pieces.pop_front() else { return Ok(()) };
            trace::set_node(node + 1);
            match piece {
                Piece::Bytes(bytes) => {
                    let inputs = read(&mut end.reader, name(conn, side), bytes).map_err(|error| {
                        Violation(format!(
                            "node {}: what node {} sends makes no sense: {error}",
                            node + 1,
                            from + 1
                        ))
                    })?;
                    for input in inputs {
                        self.tell_input(from, &input);
                        self.step(node, input)?;
                    }
                }
                Piece::End => {
                    end.closed = true;
                    let both = open.ends[side.other() as usize].closed;
                    if both {
                        self.net.conns[conn] = None;
                    }
                    self.step(node, Input::Closed { conn: name(conn, side) })?;
                }
            }
        }
    }

    fn tell_input(&self, from: NodeId, input: &Input) {
        if let Input::Packets { packets, .. } = input {
            for packet in packets {
                self.trace.tell(|| {
                    let data = packet.data.as_ref().map_or(0, bytes::Bytes::len);
                    format!("from node {}: {} {:#x} +{data}", from + 1, kind_name(packet.kind), packet.zxid)
                });
            }
        }
    }

    pub(super) fn pause_conn(&mut self, conn: PeerConn, paused: bool) {
        let (id, side) = named(conn);
        let Some(Some(open)) = self.net.conns.get_mut(id) else { return };
        let end = &mut open.ends[side as usize];
        if std::mem::replace(&mut end.paused, paused) && !paused {
            self.plan(0, Event::Arrive { conn: id, side });
        }
    }

    pub(super) fn stream(&mut self, conn: PeerConn, pin: Arc<SnapshotPin>) {
        let (id, side) = named(conn);
        let Some(Some(open)) = self.net.conns.get_mut(id) else { return };
        open.ends[side as usize].tree = Some((SnapStreamEncoder::new(pin), Vec::new()));
        let delay = self.rng.u64(0..20) * MS;
        self.plan(delay, Event::Stream { conn: id, side });
    }

    pub(super) fn stream_piece(&mut self, conn: usize, side: Side) -> Result<(), Violation> {
        let Some(Some(open)) = self.net.conns.get_mut(conn) else { return Ok(()) };
        let end = &mut open.ends[side as usize];
        let (node, Some((encoder, behind))) = (end.node, &mut end.tree) else { return Ok(()) };
        let Some(process) = &self.nodes[node].process else { return Ok(()) };
        let mut bytes = Vec::new();
        let more = encoder.next(&process.shared.tree.read(), &mut bytes);
        let behind = std::mem::take(behind);
        self.transmit(conn, side, bytes);
        if more {
            if let Some(Some(open)) = self.net.conns.get_mut(conn)
                && let Some((_, kept)) = &mut open.ends[side as usize].tree
            {
                *kept = behind;
            }
            let delay = self.rng.u64(0..20) * MS;
            self.plan(delay, Event::Stream { conn, side });
            return Ok(());
        }
        if let Some(Some(open)) = self.net.conns.get_mut(conn) {
            open.ends[side as usize].tree = None;
        }
        if !behind.is_empty() {
            self.transmit(conn, side, behind);
        }
        trace::set_node(node + 1);
        self.step(node, Input::SnapshotSent { conn: name(conn, side) })
    }

    /// The process of a node is gone. After a power loss nobody is told.
    pub(super) fn node_gone(&mut self, node: NodeId, crash: Crash) {
        for id in 0..self.net.conns.len() {
            for side in [Side::Dialer, Side::Acceptor] {
                let Some(open) = &mut self.net.conns[id] else { continue };
                let end = &mut open.ends[side as usize];
                if end.node != node || end.closed {
                    continue;
                }
                match crash {
                    Crash::Kill => self.close(name(id, side)),
                    Crash::Power => {
                        end.closed = true;
                        end.tree = None;
                        // What has left the machine arrives; the other end may sit there for ever.
                        if open.ends[side.other() as usize].closed {
                            self.net.conns[id] = None;
                        }
                    }
                }
            }
        }
    }

    /// A connection breaks for one end, or for both.
    pub(super) fn break_connection(&mut self, conn: usize) -> Result<(), Violation> {
        let side = if self.rng.bool() { Side::Dialer } else { Side::Acceptor };
        let half_open = self.rng.bool();
        let Some(Some(open)) = self.net.conns.get_mut(conn) else { return Ok(()) };
        let end = &mut open.ends[side as usize];
        if end.closed || !end.known {
            return Ok(());
        }
        let node = end.node;
        end.closed = true;
        end.pieces.clear();
        end.tree = None;
        let other_closed = open.ends[side.other() as usize].closed;
        trace::set_node(node + 1);
        self.trace.tell(|| format!("connection {conn} breaks"));
        if other_closed {
            self.net.conns[conn] = None;
        } else if !half_open {
            self.put_on_way(conn, side, Piece::End);
        }
        self.step(node, Input::Closed { conn: name(conn, side) })
    }

    /// Stops bytes from one node to another, or lets them through again.
    pub(super) fn block(&mut self, from: NodeId, to: NodeId, port: PeerPort, blocked: bool) {
        let nodes = self.net.nodes;
        let count = &mut self.net.blocked[from * nodes + to][port as usize];
        if blocked {
            *count += 1;
            return;
        }
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.wake_connections();
        }
    }

    /// What was stalled goes on.
    pub(super) fn wake_connections(&mut self) {
        for conn in 0..self.net.conns.len() {
            let Some(open) = &self.net.conns[conn] else { continue };
            let waiting =
                [Side::Dialer, Side::Acceptor].map(|side| !open.ends[side as usize].pieces.is_empty());
            for (side, waiting) in [Side::Dialer, Side::Acceptor].into_iter().zip(waiting) {
                if waiting {
                    let delay = self.latency();
                    self.plan(delay, Event::Arrive { conn, side });
                }
            }
        }
    }
}

fn read(reader: &mut Reader, conn: PeerConn, bytes: Vec<u8>) -> Result<Vec<Input>, WireError> {
    let mut inputs = Vec::new();
    match reader {
        Reader::Raw => inputs.push(Input::Received { conn, bytes }),
        Reader::Learner(buffer) => {
            buffer.extend_from_slice(&bytes);
            let mut packets = Vec::new();
            while let Some(packet) = QuorumPacket::decode(buffer, StreamOptions::default().data_bytes_max)? {
                packets.push(packet);
            }
            if !packets.is_empty() {
                inputs.push(Input::Packets { conn, packets });
            }
        }
        Reader::Leader(stream) => {
            let mut packets = Vec::new();
            for item in stream.push(&bytes)? {
                match item {
                    StreamItem::Packet(packet) => packets.push(packet),
                    StreamItem::Snapshot { tree, .. } => {
                        if !packets.is_empty() {
                            inputs.push(Input::Packets { conn, packets: std::mem::take(&mut packets) });
                        }
                        inputs.push(Input::SnapshotReceived { conn, tree });
                    }
                }
            }
            if !packets.is_empty() {
                inputs.push(Input::Packets { conn, packets });
            }
            if inputs.is_empty() {
                inputs.push(Input::Heard { conn });
            }
        }
    }
    Ok(inputs)
}

fn kind_name(kind: i32) -> &'static str {
    const NAMES: [&str; 20] = [
        "?",
        "REQUEST",
        "PROPOSAL",
        "ACK",
        "COMMIT",
        "PING",
        "REVALIDATE",
        "SYNC",
        "INFORM",
        "COMMITANDACTIVATE",
        "NEWLEADER",
        "FOLLOWERINFO",
        "UPTODATE",
        "DIFF",
        "TRUNC",
        "SNAP",
        "OBSERVERINFO",
        "LEADERINFO",
        "ACKEPOCH",
        "INFORMANDACTIVATE",
    ];
    usize::try_from(kind).ok().and_then(|kind| NAMES.get(kind)).copied().unwrap_or("?")
}
