//! `zoo.cfg`: reading it, judging it, and the typed [`Config`] that comes out.
//!
//! An operator's file for Apache ZooKeeper is read with the same grammar and the same meaning, so
//! it starts this server unchanged. Three things differ on purpose: a key that does nothing is
//! reported (Apache is silent, and typing errors are its most common configuration fault), a bad
//! value of a known key is an error, and a few defaults are safer (see [`Config`]).
//!
//! The way of a setting: [`properties`] splits the text into entries, `settings` resolves names,
//! precedence and legal values against the table in [`keys`], `load` checks what a single value
//! cannot show and fills the [`Config`]. Nothing here opens a socket or creates a file, and host
//! names are not resolved.
//!
//! ```
//! use zk_server::config::{Config, Overrides};
//!
//! let dir = tempfile::tempdir()?;
//! let file = dir.path().join("zoo.cfg");
//! let data_dir = dir.path().display();
//! std::fs::write(&file, format!("dataDir={data_dir}\nclientPort=2181\nticktime=2000\n"))?;
//! let (config, warnings) = Config::load(&file, &Overrides::default(), false)?;
//! assert_eq!(config.client_port, Some(2181));
//! let expected = "zoo.cfg:3: unknown key `ticktime` ignored; did you mean `tickTime`?";
//! assert!(warnings[0].to_string().ends_with(expected));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt;
use std::path::PathBuf;

mod assemble;
mod ensemble;
mod error;
mod four_letter;
pub mod keys;
mod load;
mod overrides;
pub mod properties;
mod quorum;
pub(crate) mod rewrite;
mod settings;
#[cfg(test)]
mod tests;
mod value;

pub use error::{ConfigError, Origin, Problem, PropertySource, Shown, Warning};
pub use four_letter::{FourLetterWhitelist, FourLetterWord};
pub use load::{CONFIG_BYTES_MAX, Reader};
pub use overrides::{Overrides, Property};
pub use quorum::{HostPort, Membership, PeerAddress, PeerType, QuorumConfig, ServerId, ServerSpec};
pub use value::{Kind, Value};

/// Everything that can be configured, parsed and checked.
///
/// Field docs name the key of `zoo.cfg`. Where a default differs from Apache 3.9 they say so:
/// listen backlog, autopurge and hard quotas are on the safe side here.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `dataDir`: snapshots, `myid` and epoch files.
    pub data_dir: PathBuf,
    /// `dataLogDir`: transaction logs. Default: `data_dir`.
    pub data_log_dir: PathBuf,
    /// `datadir.autocreate`: create missing directories.
    pub data_dir_autocreate: bool,
    /// `db.autocreate`: start with an empty tree when there is no data. If false, an `initialize`
    /// marker file must say that this is intended.
    pub db_autocreate: bool,
    /// Content of `<dataDir>/myid`, if that file exists.
    pub server_id: Option<ServerId>,

    /// `clientPort`, or the client port in this server's `server.N` line. `None` only for a member
    /// of an ensemble that takes no clients.
    pub client_port: Option<u16>,
    /// `clientPortAddress`: name or address to listen on, not resolved. `None`: all interfaces.
    pub client_port_address: Option<String>,
    /// `clientPortListenBacklog`: connections that may wait for accept. Default 4096 (Apache: 50,
    /// which a reconnect storm overruns).
    pub client_listen_backlog: u32,
    /// `clientTcpKeepAlive`: TCP keep-alive on client connections.
    pub client_tcp_keep_alive: bool,
    /// `maxClientCnxns`: connections per client address. `None`: no limit.
    pub max_client_cnxns: Option<u32>,
    /// `maxCnxns`: connections in total. `None`: no limit.
    pub max_cnxns: Option<u32>,
    /// `nio.sessionlessCnxnTimeout`: a connection that sends no connect request is closed after
    /// this.
    pub sessionless_cnxn_timeout_ms: u32,

    /// `tickTime`: the unit of time; granularity of session expiry.
    pub tick_time_ms: u32,
    /// `minSessionTimeout`: shortest session timeout a client can get. Default: 2 ticks.
    pub min_session_timeout_ms: u32,
    /// `maxSessionTimeout`: longest session timeout a client can get. Default: 20 ticks.
    pub max_session_timeout_ms: u32,
    /// `localSessionsEnabled`: sessions that only one server of an ensemble knows.
    pub local_sessions_enabled: bool,
    /// `localSessionsUpgradingEnabled`: they become global at the first ephemeral node.
    pub local_sessions_upgrading_enabled: bool,
    /// `closeSessionTxn.enabled`: the transaction that closes a session names its ephemeral nodes.
    pub close_session_txn_enabled: bool,
    /// `readonlymode.enabled`: serve read-only clients without a quorum.
    pub read_only_mode_enabled: bool,

    /// `jute.maxbuffer`: largest request.
    pub jute_max_buffer_bytes: u32,
    /// `jute.maxbuffer.extrasize`: what a record may have on top of that once the server added its
    /// own fields. Default: `jute.maxbuffer`; at least 1024.
    pub jute_max_buffer_extra_bytes: u32,
    /// `globalOutstandingLimit`: requests in flight before the server stops reading.
    pub global_outstanding_limit: u32,
    /// `connection_throttle_*`: how fast new connections are admitted.
    pub connection_throttle: ConnectionThrottle,
    /// `request_throttle_*` and relatives: how many requests are worked on.
    pub request_throttle: RequestThrottle,
    /// `largeRequestThreshold`: size from which a request counts as large. `None`: no limit on
    /// them.
    pub large_request_threshold_bytes: Option<u64>,
    /// `largeRequestMaxBytes`: sum of all large requests in flight.
    pub large_request_max_bytes: u64,

    /// `forceSync`: acknowledge only what is on stable storage. False loses data with the power.
    pub force_sync: bool,
    /// `fsync.warningthresholdms`: a slower fsync is logged and counted.
    pub fsync_warning_threshold_ms: u32,
    /// `preAllocSize`: log files grow in steps of this.
    pub pre_alloc_size_kib: u32,
    /// `snapCount`: take a snapshot after about so many transactions (half to all of it, random, so
    /// that the servers of an ensemble do not snapshot together). At least 2.
    pub snap_count: u32,
    /// `snapSizeLimitInKb`: or after so many bytes of log. `None`: off.
    pub snap_size_limit_kib: Option<u64>,
    /// `txnLogSizeLimitInKb`: begin a new log file at this size. `None`: off.
    pub txn_log_size_limit_kib: Option<u64>,
    /// `snapshot.compression.method`.
    pub snapshot_compression: SnapshotCompression,
    /// `snapshot.trust.empty`: start from logs without any snapshot (data of Apache 3.4).
    pub snapshot_trust_empty: bool,
    /// `serializeLastProcessedZxid.enabled`: snapshots end with the zxid they contain.
    pub serialize_last_processed_zxid: bool,
    /// `autopurge.*`: on by default, five snapshots, hourly (Apache: off).
    pub autopurge: Autopurge,

    /// `digest.enabled`: keep and verify the running digest of the tree.
    pub digest_enabled: bool,
    /// `extendedTypesEnabled`: TTL nodes.
    pub extended_types_enabled: bool,
    /// `emulate353TTLNodes`: read TTL nodes in the layout of Apache 3.5.3.
    pub emulate_353_ttl_nodes: bool,
    /// `znode.container.*`: how empty containers and expired TTL nodes are removed.
    pub containers: ContainerSweep,
    /// `enforceQuota`: a write over a hard quota fails. Default true (Apache: only logged, which
    /// makes a hard quota mean nothing).
    pub enforce_quota: bool,
    /// `reconfigEnabled`: without it reconfig is answered ReconfigDisabled; with it a standalone server answers
    /// that it has no membership.
    pub reconfig_enabled: bool,

    /// `skipACL`: no permission checks at all.
    pub skip_acl: bool,
    /// `DigestAuthenticationProvider.enabled`: offer the digest scheme.
    pub digest_auth_enabled: bool,
    /// `DigestAuthenticationProvider.digestAlg`: hash of digest identities.
    pub digest_alg: DigestAlg,
    /// `DigestAuthenticationProvider.superDigest`: `user:base64(hash("user:password"))` of the
    /// identity that passes every ACL.
    pub super_digest: Option<Secret>,
    /// `enforce.auth.enabled` and `enforce.auth.schemes`: schemes of which a session must have
    /// authenticated one. `None`: not enforced.
    pub enforce_auth: Option<Vec<AuthScheme>>,
    /// `audit.enable`.
    pub audit_enabled: bool,

    /// `4lw.commands.whitelist`.
    pub four_letter_whitelist: FourLetterWhitelist,
    /// `admin.*`: the HTTP admin server. Off unless configured (Apache: on, on all interfaces).
    pub admin: AdminConfig,
    /// `metricsProvider.*`.
    pub metrics: MetricsConfig,

    /// The ensemble; `None` without any `server.N` line. A single listed server still runs alone:
    /// ask [`Config::is_distributed`].
    pub quorum: Option<QuorumConfig>,
}

impl Config {
    /// Whether this server is to run as a member of an ensemble.
    pub fn is_distributed(&self) -> bool {
        self.quorum.as_ref().is_some_and(QuorumConfig::is_distributed)
    }
}

/// `connection_throttle_*`: a token bucket for new connections, and a probability with which they
/// are dropped that rises while the bucket is empty.
#[derive(Debug, Clone, PartialEq)]
pub struct ConnectionThrottle {
    /// Size of the bucket. `None`: no throttling.
    pub tokens: Option<u32>,
    /// Time between refills.
    pub fill_time_ms: u32,
    /// Tokens per refill.
    pub fill_count: u32,
    /// Time between changes of the drop probability. `None`: it stays zero.
    pub freeze_time_ms: Option<u32>,
    /// Added to the drop probability when the bucket is empty.
    pub drop_increase: f64,
    /// Subtracted from it when the bucket is fuller than `decrease_ratio`.
    pub drop_decrease: f64,
    /// See `drop_decrease`.
    pub decrease_ratio: f64,
    /// Tokens per connection by the kind of its session (global, renewed, local) instead of one.
    pub weights: Option<SessionWeights>,
}

/// Tokens that a connection takes by the kind of session it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionWeights {
    /// For a new global session.
    pub global: u32,
    /// For a session that is resumed.
    pub renew: u32,
    /// For a new local session.
    pub local: u32,
}

/// Limits on the requests that are worked on at a time, and what happens to late ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestThrottle {
    /// `request_throttle_max_requests`. `None`: no limit.
    pub max_requests: Option<u32>,
    /// `request_throttle_drop_stale`: drop requests that count as stale, and close their connections.
    pub drop_stale: bool,
    /// `request_stale_latency_check`: such as waited for longer than their session's timeout.
    pub stale_latency_check: bool,
    /// `throttled_op_wait_time`: a request that waited longer is refused. `None`: never.
    pub throttled_op_wait_time_ms: Option<u32>,
    /// `request_throttler.shutdownTimeout`: time to drain at shutdown.
    pub shutdown_timeout_ms: u32,
}

/// `autopurge.*`: removal of old snapshots and of the logs that only they need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Autopurge {
    /// Snapshots to keep, at least 3.
    pub snap_retain_count: u32,
    /// Time between purges. `None`: off.
    pub purge_interval_ms: Option<u64>,
}

/// `znode.container.*`: removal of empty containers and expired TTL nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContainerSweep {
    /// Time between sweeps.
    pub check_interval_ms: u32,
    /// Nodes removed per minute at most.
    pub max_per_minute: u32,
    /// Age at which a container that never had a child goes too. `None`: never.
    pub max_never_used_interval_ms: Option<u64>,
}

/// `snapshot.compression.method`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SnapshotCompression {
    /// Plain files.
    #[default]
    None,
    /// `gz`
    Gzip,
    /// `snappy`
    Snappy,
}

/// `DigestAuthenticationProvider.digestAlg`: the hash in `user:base64(hash("user:password"))`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DigestAlg {
    /// The one that every existing ACL uses.
    #[default]
    Sha1,
    /// `SHA-256`
    Sha256,
    /// `SHA-512`
    Sha512,
}

/// A way to authenticate that this build offers and that can be demanded of sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthScheme {
    /// The client's address: every connection has it.
    Ip,
    /// User and password.
    Digest,
}

/// `admin.*`: the HTTP admin server. Parsed only; this build has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// `admin.enableServer`; without it, whether its address or port is configured.
    pub enabled: bool,
    /// `admin.serverAddress`. Default: the loopback address (Apache: all interfaces).
    pub address: Option<String>,
    /// `admin.serverPort`.
    pub port: u16,
    /// `admin.commandURL`: prefix of the paths.
    pub command_url: String,
    /// `admin.idleTimeout`.
    pub idle_timeout_ms: u32,
}

/// `metricsProvider.*`. Parsed only; this build exports no metrics over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsConfig {
    /// Whether `metricsProvider.className` names Apache's Prometheus provider.
    pub prometheus: bool,
    /// `metricsProvider.httpHost`.
    pub http_host: String,
    /// `metricsProvider.httpPort`.
    pub http_port: u16,
}

/// A text that does not show itself in debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The text itself. Not for logs.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}
