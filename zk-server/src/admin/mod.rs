//! What an operator can see of a running server.
//!
//! * [`metrics`] is where the rest of the server records what happens.
//! * [`four_letter`] and [`mntr`] turn plain data into the texts of the four-letter words, byte for
//!   byte as Apache ZooKeeper prints them: monitoring tools, client libraries and shell scripts parse
//!   them. Which word is answered to whom is decided by
//!   [`FourLetterWhitelist`](crate::config::FourLetterWhitelist).
//!
//! The structs below are what those functions need to know. Whoever owns the connections, the tree
//! and the sessions fills them in; nothing here reaches into another room.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use zk_proto::{SessionId, Zxid};

use crate::config::Config;

pub mod four_letter;
pub mod metrics;
pub mod mntr;

/// The version that the server reports. Clients and probes parse the three numbers at the start to
/// find out what a server can do, so they name the Apache ZooKeeper release that this one equals.
pub const VERSION: &str =
    concat!("3.9.3-zk-server-", env!("CARGO_PKG_VERSION"), ", built on 2026-11-21 00:00 UTC");

/// What a server is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerMode {
    /// Alone.
    Standalone,
    /// Leads an ensemble.
    Leader,
    /// Follows a leader, and votes.
    Follower,
    /// Follows a leader without a vote.
    Observer,
    /// Has lost the ensemble and serves clients that only read.
    ReadOnly,
}

impl fmt::Display for ServerMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ServerMode::Standalone => "standalone",
            ServerMode::Leader => "leader",
            ServerMode::Follower => "follower",
            ServerMode::Observer => "observer",
            ServerMode::ReadOnly => "read-only",
        })
    }
}

/// The words `srvr` and `stat`, and the head of `mntr`.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerStats {
    /// Usually [`VERSION`].
    pub version: String,
    /// What the server is.
    pub mode: ServerMode,
    /// Packets, bytes and latencies since the last reset.
    pub traffic: metrics::Traffic,
    /// Open client connections, including the one that asks.
    pub connections: u64,
    /// Requests that are not answered yet.
    pub outstanding_requests: u64,
    /// The last transaction in the tree.
    pub last_zxid: Zxid,
    /// Nodes in the tree.
    pub node_count: u64,
    /// Sizes of proposals; only a leader has them.
    pub proposal_sizes: Option<ProposalSizes>,
}

/// Sizes of the proposals of a leader, in bytes; `None` before the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProposalSizes {
    /// The last one.
    pub last: Option<u64>,
    /// The smallest one.
    pub min: Option<u64>,
    /// The largest one.
    pub max: Option<u64>,
}

/// One client connection, for `cons` and `stat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionStats {
    /// Address of the client.
    pub remote: SocketAddr,
    /// What the server waits for on this connection: 1 to read, 4 to write, 5 for both, 0 when it
    /// does not read because too much is outstanding.
    pub interest_ops: u8,
    /// Requests that are not answered yet.
    pub queued: u64,
    /// Packets from the client.
    pub received: u64,
    /// Packets to the client.
    pub sent: u64,
    /// What is known once there is a session.
    pub session: Option<ConnectionSession>,
}

/// The session part of [`ConnectionStats`]. Times without a date are milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionSession {
    /// The session.
    pub id: SessionId,
    /// Last operation, in Apache's abbreviations: `GETD`, `CREA`, `PING`, `NA` before the first.
    pub last_operation: &'static str,
    /// When the connection was made, in milliseconds since 1970.
    pub established_ms: i64,
    /// Negotiated session timeout.
    pub timeout_ms: u32,
    /// Number of the last request; `None` before the first (and for pings, which have none).
    pub last_cxid: Option<i32>,
    /// Last transaction that the client has seen.
    pub last_zxid: Zxid,
    /// When the last reply was sent, on any clock that does not go back.
    pub last_response_ms: u64,
    /// How long it took.
    pub last_latency_ms: u64,
    /// The fastest.
    pub min_latency_ms: u64,
    /// The mean.
    pub avg_latency_ms: u64,
    /// The slowest.
    pub max_latency_ms: u64,
}

/// The word `conf`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfReport {
    /// Port for plain clients.
    pub client_port: Option<u16>,
    /// Port for TLS clients.
    pub secure_client_port: Option<u16>,
    /// `dataDir`, without `version-2`.
    pub data_dir: PathBuf,
    /// Bytes in it.
    pub data_dir_size: u64,
    /// `dataLogDir`, without `version-2`.
    pub data_log_dir: PathBuf,
    /// Bytes in it.
    pub data_log_size: u64,
    /// `tickTime`.
    pub tick_time_ms: u32,
    /// `maxClientCnxns`; 0 is no limit.
    pub max_client_cnxns: u32,
    /// Shortest session timeout.
    pub min_session_timeout_ms: u32,
    /// Longest session timeout.
    pub max_session_timeout_ms: u32,
    /// `clientPortListenBacklog`; -1 is the system's.
    pub listen_backlog: i64,
    /// Id of this server; 0 for a standalone one.
    pub server_id: i64,
    /// What only a member of an ensemble has.
    pub quorum: Option<QuorumReport>,
}

impl ConfReport {
    /// The settings of a server that runs alone. The sizes are the bytes in its two directories.
    pub fn standalone(config: &Config, data_dir_size: u64, data_log_size: u64) -> Self {
        ConfReport {
            client_port: config.client_port,
            secure_client_port: None,
            data_dir: config.data_dir.clone(),
            data_dir_size,
            data_log_dir: config.data_log_dir.clone(),
            data_log_size,
            tick_time_ms: config.tick_time_ms,
            max_client_cnxns: config.max_client_cnxns.unwrap_or(0),
            min_session_timeout_ms: config.min_session_timeout_ms,
            max_session_timeout_ms: config.max_session_timeout_ms,
            listen_backlog: config.client_listen_backlog.into(),
            server_id: 0,
            quorum: None,
        }
    }
}

/// The ensemble part of [`ConfReport`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumReport {
    /// `initLimit`, in ticks.
    pub init_limit: u32,
    /// `syncLimit`, in ticks.
    pub sync_limit: u32,
    /// `electionAlg`.
    pub election_algorithm: u8,
    /// Election port of this server.
    pub election_port: u16,
    /// Quorum port of this server.
    pub quorum_port: u16,
    /// Whether this server does not vote.
    pub observer: bool,
    /// The lines of the dynamic configuration, the last of them `version=<hex>`; only shown with
    /// `reconfigEnabled`.
    pub membership: Option<String>,
}

/// Things that expire together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpiryBucket<T> {
    /// When, in milliseconds since 1970.
    pub expires_ms: i64,
    /// What.
    pub members: Vec<T>,
}

/// The sessions in the word `dump`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionDump {
    /// Of the server that decides when sessions expire (standalone or leader): by expiry time, the
    /// next one first.
    Expiring(Vec<ExpiryBucket<SessionId>>),
    /// Of a server that only knows them: with their timeout in milliseconds, by id.
    Known(Vec<(SessionId, u32)>),
}

/// A connection in the word `dump`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpedConnection {
    /// Address of the client.
    pub remote: SocketAddr,
    /// Its session, if it has one.
    pub session: Option<SessionId>,
}

/// The word `dump`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dump {
    /// All sessions.
    pub sessions: SessionDump,
    /// Ephemeral nodes of every session that has some.
    pub ephemerals: Vec<(SessionId, Vec<String>)>,
    /// Connections by the time at which they are closed if they stay silent.
    pub connections: Vec<ExpiryBucket<DumpedConnection>>,
}

/// The word `wchs`. Like Apache, it counts data and exists watches only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchSummary {
    /// Sessions that watch something.
    pub sessions: u64,
    /// Paths that are watched.
    pub paths: u64,
    /// Watches.
    pub watches: u64,
}

/// The word `envi`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// Usually [`VERSION`].
    pub version: String,
    /// Name of the machine.
    pub host_name: String,
    /// Operating system, such as `Linux`.
    pub os_name: String,
    /// Processor, in Java's words: `amd64`, `aarch64`.
    pub os_arch: String,
    /// Release of the kernel.
    pub os_version: String,
    /// User that runs the server.
    pub user_name: String,
    /// Home directory of the user.
    pub user_home: String,
    /// Working directory.
    pub user_dir: String,
}

impl Environment {
    /// Of this process and machine; what cannot be found out is `unknown`.
    pub fn of_process() -> Self {
        let unknown = || "unknown".to_string();
        let kernel = |name: &str| {
            let text = std::fs::read_to_string(format!("/proc/sys/kernel/{name}"));
            text.map_or_else(|_| unknown(), |text| text.trim().to_string())
        };
        let var = |name: &str| std::env::var(name).unwrap_or_else(|_| unknown());
        let user_dir = std::env::current_dir();
        Environment {
            version: VERSION.into(),
            host_name: kernel("hostname"),
            os_name: kernel("ostype"),
            os_arch: match std::env::consts::ARCH {
                "x86_64" => "amd64".into(),
                other => other.into(),
            },
            os_version: kernel("osrelease"),
            user_name: var("USER"),
            user_home: var("HOME"),
            user_dir: user_dir.map_or_else(|_| unknown(), |dir| dir.display().to_string()),
        }
    }
}

/// One line of the word `hash`: the digest of the tree after a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeDigest {
    /// The transaction.
    pub zxid: Zxid,
    /// The digest.
    pub digest: i64,
}
