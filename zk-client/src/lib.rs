//! Async client for ZooKeeper: Apache's servers from 3.5 on, and everything that speaks their protocol.
//!
//! ```no_run
//! use std::time::Duration;
//! use zk_client::{Client, Parents};
//!
//! # async fn run() -> zk_client::Result<()> {
//! let zk = Client::connect("zk1:2181,zk2:2181,zk3:2181/app").session_timeout(Duration::from_secs(15)).await?;
//!
//! // Operations are builders: await them, or send them.
//! let job = zk.create("/jobs/job-", "payload").ephemeral().sequential().parents(Parents::Container).await?;
//! let (data, stat, changed) = zk.get("/config").watched().await?;
//! zk.set("/config", "new").version(stat.version).await?;
//! let event = changed.fired().await;
//! # drop((job, data, event));
//!
//! // `send` enqueues at once: two requests in flight, in this order.
//! let (a, b) = (zk.set("/p", "1").send(), zk.get("/p").send());
//! let (stat, (data, _)) = tokio::try_join!(a, b)?;
//! # drop((stat, data));
//!
//! // A persistent watch is a stream.
//! let mut tree = zk.watch("/services").recursive().await?;
//! while let Some(event) = tree.next().await {
//!     println!("{:?} {}", event.kind, event.path);
//! }
//! zk.close().await
//! # }
//! ```
//!
//! # What is guaranteed
//!
//! **Order.** All handles of a session share one connection and one queue. Requests go out in the order in which
//! they were enqueued: by `send()` at the call, by `.await` at the first poll. Replies come in the same order,
//! and a watch event is ready before the reply of any read that shows what it is about.
//!
//! **Nothing is sent twice.** When the connection is lost, every request enqueued on it fails with
//! [`Error::ConnectionLoss`], which says whether it may have been executed ([`Outcome`]). Requests that are
//! enqueued without a connection wait for one, up to the session timeout. What is repeated is repeated by the
//! caller: [`Client::retry`], or [`idempotent()`](Create::idempotent) and [`protected()`](Create::protected) on an
//! operation. (The one exception is the queue of deletions in the background, [`Client::clean_up`].)
//!
//! **Sessions.** The client keeps the session alive, reconnects for ever, and takes credentials and watches along
//! to each new connection. [`Client::states`] tells what is going on. An expired session is replaced by a new one
//! unless [`ConnectBuilder::on_expired`] says otherwise; code that relies on *its* session uses a
//! [pinned](Client::pinned) handle.
//!
//! **Cancellation.** A future that is dropped before it was polled has no effect. Dropped later, a read has none
//! but a watch to be removed; a write may or may not be applied, and says so in its documentation. Futures that
//! wait ([`OneShot::fired`], [`Watch::next`], [`SessionStates::changed`]) can be dropped at any time without
//! losing an event.
//!
//! **Bounds.** At most 1000 requests and about 8 MiB are in flight; further ones wait in order. A watch stream
//! holds at most 1024 events and says [`EventKind::Resync`] when it had to drop some.
//!
//! # Features
//!
//! - `serde`: JSON data ([`Client`]`::get_as`, `put_as`, `update`), [`ClientConfig`] from files, serializable
//!   [`SessionTicket`].
//! - `testing`: hooks that kill connections, expire sessions and hold recipes at named points.
//!
//! TLS and SASL are not built in; a [`Connector`] can put any transport under the client.

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
