//! Describing a client before it connects.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::client::Client;
use crate::config::{AclProvider, Auth, Config, LeaseProof, OnExpired};
use crate::error::{Error, Result};
use crate::hosts::{self, HostProvider};
use crate::metrics::MetricsSink;
use crate::retry::RetryPolicy;
use crate::root::Root;
use crate::shared::{Handle, Shared};
use crate::state::{SessionTicket, connected};
use crate::transport::{Connector, TcpConnector};

/// A client that does not exist yet. Await it to connect, or call [`lazy`](ConnectBuilder::lazy).
#[must_use = "nothing happens until this is awaited"]
pub struct ConnectBuilder {
    hosts: String,
    chroot: Option<String>,
    config: Config,
}

impl ConnectBuilder {
    pub(crate) fn new(hosts: &str) -> Self {
        ConnectBuilder {
            hosts: hosts.to_owned(),
            chroot: None,
            config: Config {
                hosts: Vec::new(),
                host_provider: None,
                connector: Arc::new(TcpConnector),
                session_timeout: Duration::from_secs(10),
                connect_timeout: None,
                initial_connect_timeout: Duration::from_secs(30),
                request_timeout: None,
                close_timeout: None,
                read_only: false,
                reconnect: RetryPolicy::default(),
                on_expired: OnExpired::default(),
                resume: None,
                auth: Vec::new(),
                default_acl: None,
                max_in_flight: 1000,
                max_in_flight_bytes: 8 * 1024 * 1024,
                max_request_bytes: 0xfffff,
                max_reply_bytes: 64 * 1024 * 1024,
                lease_proof: LeaseProof::default(),
                lease_margin: None,
                track_ensemble: false,
                metrics: None,
                seed: None,
            },
        }
    }

    /// The session timeout to ask for; the servers clamp it. Default 10 s.
    pub fn session_timeout(mut self, timeout: Duration) -> Self {
        self.config.session_timeout = timeout;
        self
    }

    /// How long one server may take to accept. Default: the session timeout divided by the number of servers.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.config.connect_timeout = Some(timeout);
        self
    }

    /// How long awaiting this builder may take. Default 30 s.
    pub fn initial_connect_timeout(mut self, timeout: Duration) -> Self {
        self.config.initial_connect_timeout = timeout;
        self
    }

    /// How long each request may take. Default: no limit, since a silent connection is dropped after two
    /// thirds of the session timeout anyway.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.config.request_timeout = Some(timeout);
        self
    }

    /// How long [`Client::close`] may take. Default: the session timeout.
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.config.close_timeout = Some(timeout);
        self
    }

    /// A chroot below the one of the connect string.
    pub fn chroot(mut self, path: &str) -> Self {
        self.chroot = Some(path.to_owned());
        self
    }

    /// Adds credentials. Can be called several times.
    pub fn auth(mut self, auth: Auth) -> Self {
        self.config.auth.push(auth);
        self
    }

    /// Whether a server without quorum, which refuses writes, is better than none. The client keeps looking
    /// for a better one.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.config.read_only = read_only;
        self
    }

    /// Waits between rounds over all servers. Default: 100 ms doubling up to 5 s, half of it random, without
    /// end. A policy with an end closes the client when it ends.
    pub fn reconnect(mut self, policy: RetryPolicy) -> Self {
        self.config.reconnect = policy;
        self
    }

    /// What happens when the session expires. Default: a new session.
    pub fn on_expired(mut self, on_expired: OnExpired) -> Self {
        self.config.on_expired = on_expired;
        self
    }

    /// Takes over a session that [`Client::detach`] has left. When it has expired in the meantime,
    /// [`on_expired`](ConnectBuilder::on_expired) decides. Asks for the ticket's session timeout, unless another
    /// one is set after this.
    pub fn resume(mut self, ticket: SessionTicket) -> Self {
        if !ticket.timeout().is_zero() {
            self.config.session_timeout = ticket.timeout();
        }
        self.config.resume = Some(ticket);
        self
    }

    /// The ACL of nodes that are created without one. Default: `world:anyone` may do everything.
    pub fn default_acl(mut self, acl: impl AclProvider) -> Self {
        self.config.default_acl = Some(Arc::new(acl));
        self
    }

    /// Requests that may be under way at a time; others wait. Default 1000, as the server's own limit.
    pub fn max_in_flight(mut self, requests: usize) -> Self {
        self.config.max_in_flight = requests.max(1);
        self
    }

    /// Longest request. Default 1048575 bytes, as the server's `jute.maxbuffer`: a server closes the
    /// connection on longer ones.
    pub fn max_request_bytes(mut self, bytes: usize) -> Self {
        self.config.max_request_bytes = bytes;
        self
    }

    /// Longest reply. Default 64 MiB. Replies can be longer than any request.
    pub fn max_reply_bytes(mut self, bytes: usize) -> Self {
        self.config.max_reply_bytes = bytes;
        self
    }

    /// What moves [`Client::lease_deadline`]. Default: committed writes.
    pub fn lease_proof(mut self, proof: LeaseProof) -> Self {
        self.config.lease_proof = proof;
        self
    }

    /// What is taken off the lease for clocks that run at different rates. Default: a tenth of the session
    /// timeout, at least 100 ms.
    pub fn lease_margin(mut self, margin: Duration) -> Self {
        self.config.lease_margin = Some(margin);
        self
    }

    /// Whether to follow the ensemble's membership as `/zookeeper/config` shows it. Default: no.
    pub fn track_ensemble(mut self, track: bool) -> Self {
        self.config.track_ensemble = track;
        self
    }

    /// A list of servers that may change; it replaces the one of the connect string from the second round on.
    pub fn host_provider(mut self, provider: impl HostProvider) -> Self {
        self.config.host_provider = Some(Arc::new(provider));
        self
    }

    /// What makes connections, instead of TCP.
    pub fn connector(mut self, connector: impl Connector) -> Self {
        self.config.connector = Arc::new(connector);
        self
    }

    /// Who receives measurements.
    pub fn metrics(mut self, sink: impl MetricsSink) -> Self {
        self.config.metrics = Some(Arc::new(sink));
        self
    }

    /// Makes the order of servers and the GUIDs of protected nodes repeatable, for tests.
    pub fn seed(mut self, seed: u64) -> Self {
        self.config.seed = Some(seed);
        self
    }

    /// Starts the client without waiting for a server. Must be called within a tokio runtime.
    ///
    /// Fails only on arguments that cannot be right.
    pub fn lazy(self) -> Result<Client> {
        let (hosts, root) = hosts::parse(&self.hosts)?;
        let root = match &self.chroot {
            None => root,
            Some(path) => {
                root.join(path).map_err(|e| Error::InvalidArgument(format!("chroot {path:?}: {e}")))?
            }
        };
        if self.config.session_timeout.is_zero() {
            return Err(Error::InvalidArgument("the session timeout is zero".to_owned()));
        }
        Ok(start(Config { hosts, ..self.config }, root))
    }
}

fn start(config: Config, root: Root) -> Client {
    let shared = Shared::new(config);
    tokio::spawn(crate::driver::run(shared.clone()));
    Client { handle: Arc::new(Handle { shared }), root, pin: None, linearizable: false }
}

impl IntoFuture for ConnectBuilder {
    type Output = Result<Client>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<Client>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let after = self.config.initial_connect_timeout;
            let client = self.lazy()?;
            match timeout(after, connected(client.states(), || Ok(()))).await {
                Ok(Ok(_)) => Ok(client),
                Ok(Err(Error::Closed)) | Err(_) => {
                    let last = client.handle.with(|session| session.dial_error.clone());
                    Err(Error::Connect { after, last })
                }
                Ok(Err(error)) => Err(error),
            }
        })
    }
}
