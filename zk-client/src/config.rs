//! Settings of a client, as the driver sees them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::hosts::{Host, HostProvider};
use crate::metrics::MetricsSink;
use crate::retry::RetryPolicy;
use crate::state::SessionTicket;
use crate::transport::Connector;

/// An entry of an access control list, independent of any buffer.
pub type Acl = zk_proto::Acl<'static>;

/// Credentials of a connection. Sent again on every reconnect, before anything else.
#[derive(Clone, PartialEq, Eq)]
pub struct Auth {
    /// Scheme: `digest`, `ip`, or whatever the servers have a provider for.
    pub scheme: String,
    /// The scheme's token.
    pub token: Vec<u8>,
}

impl Auth {
    /// Credentials of any scheme.
    pub fn new(scheme: impl Into<String>, token: impl Into<Vec<u8>>) -> Self {
        Auth { scheme: scheme.into(), token: token.into() }
    }

    /// User and password for ACLs of the `digest` scheme. Servers accept any pair: a wrong password gives
    /// another identity, not an error.
    pub fn digest(user: &str, password: &str) -> Self {
        Auth::new("digest", format!("{user}:{password}"))
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").field("scheme", &self.scheme).finish_non_exhaustive()
    }
}

/// What happens when a server confirms that the session is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnExpired {
    /// Open a new session. Pending requests fail with `SessionExpired`, one-shot watches fire `SessionLost`,
    /// persistent ones are added again and yield `SessionLost`, then `Resync`.
    #[default]
    NewSession,
    /// The client ends: every call fails with `SessionExpired`.
    Fail,
}

/// What proves that the session is alive, for [`Client::lease_deadline`](crate::Client::lease_deadline).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum LeaseProof {
    /// A committed write: holds also when the connected server has lost touch with the quorum. Costs a small
    /// write every sixth of the session timeout while something is held, nothing otherwise.
    #[default]
    Commit,
    /// Any answer. Free, but late by up to `syncLimit * tickTime` when the server is cut off from its leader.
    Ping,
}

/// Chooses the ACL of nodes that are created without one.
pub trait AclProvider: Send + Sync + 'static {
    /// The ACL for `path` (as the caller wrote it); must not be empty.
    fn acl(&self, path: &str) -> Vec<Acl>;
}

impl AclProvider for Vec<Acl> {
    fn acl(&self, _path: &str) -> Vec<Acl> {
        self.clone()
    }
}

/// Everything that stays fixed while a client runs.
pub(crate) struct Config {
    pub hosts: Vec<Host>,
    pub host_provider: Option<Arc<dyn HostProvider>>,
    pub connector: Arc<dyn Connector>,
    pub session_timeout: Duration,
    pub connect_timeout: Option<Duration>,
    pub initial_connect_timeout: Duration,
    pub request_timeout: Option<Duration>,
    pub close_timeout: Option<Duration>,
    pub read_only: bool,
    pub reconnect: RetryPolicy,
    pub on_expired: OnExpired,
    pub resume: Option<SessionTicket>,
    pub auth: Vec<Auth>,
    /// `None`: `world:anyone` may do everything.
    pub default_acl: Option<Arc<dyn AclProvider>>,
    pub max_in_flight: usize,
    pub max_in_flight_bytes: usize,
    pub max_request_bytes: usize,
    pub max_reply_bytes: usize,
    pub lease_proof: LeaseProof,
    pub lease_margin: Option<Duration>,
    pub track_ensemble: bool,
    pub metrics: Option<Arc<dyn MetricsSink>>,
    pub seed: Option<u64>,
}
