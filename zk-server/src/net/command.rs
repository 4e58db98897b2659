//! What other threads ask of an I/O thread.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use mio::net::TcpStream;
use zk_proto::SessionId;

use super::peers::Peer;
use crate::admin::ConnectionStats;
use crate::config::FourLetterWord;
use crate::watch::ConnId;

/// See the module.
#[derive(Debug)]
pub(crate) enum Command {
    /// Take over a connection that was accepted.
    Adopt {
        /// The socket, not registered with any poller.
        socket: TcpStream,
        /// Where it comes from; counted in.
        peer: Arc<Peer>,
        /// The client's port.
        port: u16,
    },
    /// The text that answers a four-letter word: send it, then close.
    Answer {
        /// The connection.
        conn: ConnId,
        /// The text.
        text: String,
    },
    /// Tell about every connection.
    Report(Sender<ConnReport>),
    /// Begin the counters of the connections anew.
    ResetCounters,
    /// For the thread that accepts: do so at another address from now on.
    Listen {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
        /// Connections that may wait.
        backlog: u32,
    },
    /// Close every connection without a word.
    DropConnections,
    /// A new term has begun: close the connections of earlier ones.
    #[cfg_attr(not(test), allow(dead_code))] // see `super::serving`
    NewTerm,
    /// Neither read nor accept nor let time pass, until told otherwise.
    Pause(bool),
    /// Stop: answer what was read if `drain`, then end the thread.
    Stop {
        /// Whether to finish what was begun.
        drain: bool,
    },
}

/// A connection as the words `cons`, `stat`, `dump`, `wchc` and `wchp` need it.
#[derive(Debug)]
pub(crate) struct ConnReport {
    /// The connection.
    pub(crate) conn: ConnId,
    /// Its session, or [`SessionId::NONE`].
    pub(crate) session: SessionId,
    /// When it is closed if it stays silent, ms of the server's clock.
    pub(crate) silent_until_ms: u64,
    /// Its counters.
    pub(crate) stats: ConnectionStats,
}

/// A four-letter word that wants an answer.
#[derive(Debug)]
pub(crate) struct WordRequest {
    /// Who asks.
    pub(crate) conn: ConnId,
    /// From where.
    pub(crate) remote: SocketAddr,
    /// What.
    pub(crate) word: FourLetterWord,
}
