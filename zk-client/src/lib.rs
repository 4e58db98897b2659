//! Async client for Apache ZooKeeper and everything that speaks its protocol.

mod builder;
mod call;
mod client;
mod config;
mod driver;
mod ensemble;
mod error;
mod hosts;
mod metrics;
mod ops;
mod retry;
mod root;
mod session;
mod settings;
mod shared;
mod state;
#[cfg(feature = "testing")]
pub mod testing;
mod transport;
mod watch;

pub use builder::ConnectBuilder;
pub use call::{OpFuture, Pending};
pub use client::Client;
pub use config::{Acl, AclProvider, Auth, LeaseProof, OnExpired};
pub use error::{Error, Outcome, Result, ServerCode};
pub use hosts::{DEFAULT_PORT, Host, HostProvider, StaticHosts};
pub use metrics::MetricsSink;
pub use ops::{
    Children, Cleaned, Create, CreateOp, Created, Delete, Exists, Get, LeaseHold, Mode, Multi, MultiRead,
    MultiResult, Node, Parents, ReadResult, Reconfig, Set,
};
pub use retry::RetryPolicy;
pub use session::Cleanup;
pub use settings::ClientConfig;
pub use state::{SessionState, SessionStates, SessionTicket};
pub use transport::{Connector, TcpConnector, Transport};
pub use watch::{Event, EventKind, OneShot, Watch, WatchBuilder};
pub use zk_proto::{OpCode, Perms, SessionId, Stat};
