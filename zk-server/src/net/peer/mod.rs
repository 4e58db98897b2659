//! Connections between servers: the sockets under elections and under the quorum.
//!
//! One thread, `zk-peer`, runs an event loop over all of them. It accepts, reads, cuts what it read into packets,
//! and hands the events of each round to one callback. It knows nothing of what a packet means.
//!
//! ```text
//! zk-peer:    sockets -> bytes or packets -> on_events(Vec<PeerEvent>)
//! any thread: PeerHandle::send(conn, bytes) ... PeerHandle::flush() -> one write per connection
//!             what the socket does not take is written by zk-peer when it does
//! helpers:    one short-lived thread per dial (names, connecting), one per snapshot that is being sent
//! ```
//!
//! **Writing needs no wake-up.** [`PeerHandle::flush`] writes on the thread that calls it: a proposal is in the
//! kernel when the step that made it ends. A connection's output is guarded by its own lock, so the order of
//! [`PeerHandle::send`] is the order on the wire, whoever writes.
//!
//! **A snapshot keeps its place.** [`PeerHandle::stream_snapshot`] puts a stream into the output whose bytes do not
//! exist yet: a helper thread produces them while the socket takes them, a bounded number ahead. What is sent
//! meanwhile stands behind it.
//!
//! **Order of events.** Of each connection: `Accepted` or `Dialed` first, `Closed` last and exactly once, whoever
//! closed it.
//!
//! A connection is a byte stream that is made in one place, [`transport`]: TLS belongs there. An authentication
//! exchange in front of the packets belongs into [`receive`].

mod dial;
mod event_loop;
mod handle;
mod receive;
mod snapshot;
mod socket;
#[cfg(test)]
mod tests;
mod transport;

use std::net::IpAddr;

use zk_proto::Zxid;

use crate::tree::Tree;
use crate::zab::PeerConn;
use crate::zab::wire::{QuorumPacket, StreamOptions};

pub use handle::{PeerHandle, PeerNet};
pub use snapshot::tree_source;

/// Which of a server's two ports for other servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    /// Leader election: arrives as [`PeerEvent::Received`].
    Election,
    /// Learners and their leader: arrives as [`PeerEvent::Packets`].
    Quorum,
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Port::Election => "election",
            Port::Quorum => "quorum",
        })
    }
}

/// What happened on the connections between servers.
#[derive(Debug)]
pub enum PeerEvent {
    /// Another server, or somebody who claims to be one, has connected.
    Accepted {
        /// The new connection.
        conn: PeerConn,
        /// On which port.
        port: Port,
        /// From where; an IPv4 address in its IPv6 form is an IPv4 address here.
        remote: IpAddr,
    },
    /// The end of [`PeerHandle::dial`]: a new connection, or why there is none.
    Dialed {
        /// As given to [`PeerHandle::dial`].
        token: u64,
        /// The connection and the address that it leads to, or what went wrong with each address.
        result: Result<(PeerConn, IpAddr), String>,
    },
    /// Bytes on an election connection, cut anywhere.
    Received {
        /// The connection.
        conn: PeerConn,
        /// At least one.
        bytes: Vec<u8>,
    },
    /// Packets on a quorum connection.
    Packets {
        /// The connection.
        conn: PeerConn,
        /// At least one, in order.
        packets: Vec<QuorumPacket>,
    },
    /// A part of a packet or of a tree has come over a quorum connection that was dialed.
    Heard {
        /// The connection.
        conn: PeerConn,
    },
    /// The stream behind a SNAP packet has arrived completely; the packet itself came before.
    SnapshotReceived {
        /// The connection, dialed on [`Port::Quorum`].
        conn: PeerConn,
        /// The zxid of the SNAP packet.
        zxid: Zxid,
        /// What was in the stream.
        tree: Box<Tree>,
    },
    /// Everything of a [`PeerHandle::stream_snapshot`] was taken by the socket.
    SnapshotSent {
        /// The connection.
        conn: PeerConn,
    },
    /// A [`PeerHandle::flush`] left something in the output, and now all of it is written. Comes for no flush that
    /// leaves [`PeerHandle::backlog`] at 0.
    Drained {
        /// The connection.
        conn: PeerConn,
    },
    /// More output waits than [`PeerOptions::backlog_bytes`]: the peer does not read as fast as we write. Comes
    /// again only when less than half of that has waited in between.
    Backlog {
        /// The connection.
        conn: PeerConn,
        /// Bytes that wait, without those of a snapshot.
        bytes: usize,
    },
    /// The connection is gone. Nothing more is heard of it.
    Closed {
        /// The connection.
        conn: PeerConn,
        /// Why, for the log.
        reason: String,
    },
    /// The thread has ended because the system failed it: this server hears of nobody any more.
    Failed {
        /// Why.
        reason: String,
    },
}

/// Settings of the connections between servers.
#[derive(Debug, Clone)]
pub struct PeerOptions {
    /// Accepted connections from one address, both ports together.
    pub connections_per_address_max: usize,
    /// Accepted connections in total, both ports together.
    pub connections_max: usize,
    /// An accepted connection is closed when so much time has passed without any byte on the election port, or
    /// without a complete packet on the quorum port.
    pub first_packet_ms: u64,
    /// See [`PeerEvent::Backlog`].
    pub backlog_bytes: usize,
    /// Bounds of what arrives on quorum connections.
    pub stream: StreamOptions,
    /// A peer that does not acknowledge what was sent for so long is gone.
    pub silence_ms: u64,
    /// TCP keep-alive, `tcpKeepAlive`.
    pub keep_alive: bool,
}

impl Default for PeerOptions {
    fn default() -> Self {
        PeerOptions {
            connections_per_address_max: 128,
            connections_max: 1024,
            first_packet_ms: 10_000,
            backlog_bytes: 16 << 20,
            stream: StreamOptions::default(),
            silence_ms: 15_000,
            keep_alive: false,
        }
    }
}
