//! A whole server: its threads, their wiring, starting and stopping.
//!
//! | thread | does |
//! |---|---|
//! | `zk-io-0`, `zk-io-1`, ... | serve connections ([`crate::net`]); the first one also accepts them and lets time pass |
//! | `zk-log` | writes and syncs the transaction log |
//! | `zk-snapshot` | writes snapshots, deletes old files |
//! | `zk-admin` | answers four-letter words |
//!
//! The replica runs on whichever of them has something for it, see [`core`].

mod builder;
mod core;
mod ensemble;
mod options;
mod peers;
#[cfg(test)]
mod serving_tests;
mod snapshots;
mod start;
mod words;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::thread::JoinHandle;

use futures::channel::oneshot;
use parking_lot::Mutex;
use zk_proto::{SessionId, Zxid};

pub use self::builder::ServerBuilder;
use self::core::{Core, Log};
pub use self::ensemble::{Ensemble, EnsembleBuilder};
pub use self::start::StartError;
use crate::admin::metrics::Metrics;
use crate::config::Config;
use crate::member::{Member, MemberStatus};
pub use crate::net::ListenError;
use crate::net::peer::PeerNet;
use crate::net::{Command, Net, Upstream, WordRequest};
use crate::replica::messages::{Input, thread_of};
use crate::storage::DirLock;

/// A running server. Stops when it is dropped.
///
/// It has its own threads, so it does not matter whether it is used inside an async runtime or not. Several can
/// run in one process.
///
/// ```
/// let server = zk_server::Server::builder().memory().start()?;
/// println!("connect to {}", server.connect_string());
/// # Ok::<(), zk_server::StartError>(())
/// ```
#[derive(Debug)]
pub struct Server {
    state: Arc<State>,
    threads: Threads,
}

/// What the threads of a server share.
struct State {
    config: Config,
    in_memory: bool,
    metrics: Metrics,
    net: Arc<Net>,
    core: Arc<Core>,
    upstream: Arc<ToCore>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("address", &self.net.address).finish_non_exhaustive()
    }
}

/// To be joined, in this order.
#[derive(Debug, Default)]
struct Threads {
    io: Vec<JoinHandle<()>>,
    snapshots: Option<JoinHandle<()>>,
    words: Option<JoinHandle<()>>,
    peers: Option<PeerNet>,
    lock: Option<DirLock>,
}

/// What the I/O threads see of the rest.
struct ToCore {
    core: Arc<Core>,
    inboxes: Arc<[crate::net::Inbox]>,
    words: Mutex<Option<SyncSender<WordRequest>>>,
}

impl Upstream for ToCore {
    fn submit(&self, input: Input) {
        self.core.submit(input);
    }

    fn word(&self, request: WordRequest) {
        let refused = match &*self.words.lock() {
            Some(words) => match words.try_send(request) {
                Ok(()) => return,
                Err(TrySendError::Full(request) | TrySendError::Disconnected(request)) => request,
            },
            None => request,
        };
        // Too many at a time: closed without an answer.
        if let Some(inbox) = self.inboxes.get(thread_of(refused.conn)) {
            inbox.command(Command::Answer { conn: refused.conn, text: String::new() });
        }
    }
}

impl Server {
    /// Begins the description of a server: by default one for tests and development, on a free port of the
    /// loopback address.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    /// Where clients on this machine find the server, such as `127.0.0.1:2181`.
    pub fn connect_string(&self) -> String {
        let address = self.local_addr();
        let ip = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            // Listens to IPv4 as well.
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            ip => ip,
        };
        SocketAddr::new(ip, address.port()).to_string()
    }

    /// The address that the server listens on. A reconfiguration can change it.
    pub fn local_addr(&self) -> SocketAddr {
        *self.state.net.address.lock()
    }

    /// The configuration in effect.
    pub fn config(&self) -> &Config {
        &self.state.config
    }

    /// What is counted and measured.
    pub fn metrics(&self) -> &Metrics {
        &self.state.metrics
    }

    /// The last transaction in the tree.
    pub fn last_zxid(&self) -> Zxid {
        self.state.net.shared.last_zxid()
    }

    /// Sum of the digests of all nodes, as Apache computes it (version 2): the same for the same tree.
    pub fn tree_digest(&self) -> u64 {
        self.state.net.shared.tree.read().digest()
    }

    /// What the server does in its ensemble; `None` for a standalone server.
    pub fn member_status(&self) -> Option<MemberStatus> {
        self.state.core.with_member(Member::status)
    }

    /// Stops the server: accepts and reads nothing more, answers what it has read, makes everything durable,
    /// closes the connections. Sessions live on in the data directory until they expire after the next start.
    ///
    /// Returns when all threads have ended. The server stops even if the future is dropped.
    pub async fn shutdown(mut self) {
        let (done, stopped) = oneshot::channel();
        let state = self.state.clone();
        let threads = std::mem::take(&mut self.threads);
        let stopper = std::thread::Builder::new().name("zk-stop".into()).spawn(move || {
            stop(&state, threads, true);
            // Whoever waited may have lost interest.
            let _ = done.send(());
        });
        match stopper {
            Ok(_) => stopped.await.unwrap_or(()),
            // Cannot even start a thread: the threads are detached, but the log must be written.
            Err(_) => stop(&self.state, Threads::default(), true),
        }
    }

    /// [`Server::shutdown`] for callers that may block.
    pub fn shutdown_blocking(mut self) {
        stop(&self.state, std::mem::take(&mut self.threads), true);
    }

    /// Stops the server without answering what it has read: to clients it looks like a crash. What was
    /// acknowledged is durable.
    pub fn kill(mut self) {
        stop(&self.state, std::mem::take(&mut self.threads), false);
    }

    /// Expires a session as if its client had been silent for too long.
    pub fn expire_session(&self, session: SessionId) {
        self.state.core.submit(Input::Expire(session));
    }

    /// Closes all client connections. The clients may come back.
    pub fn drop_connections(&self) {
        self.command_all(|| Command::DropConnections);
    }

    /// Lets the server hang: it keeps its connections, but neither reads nor writes, and no session expires.
    pub fn pause(&self) {
        self.command_all(|| Command::Pause(true));
    }

    /// Ends [`Server::pause`].
    pub fn resume(&self) {
        self.command_all(|| Command::Pause(false));
    }

    fn command_all(&self, command: impl Fn() -> Command) {
        self.state.net.inboxes.iter().for_each(|inbox| inbox.command(command()));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        stop(&self.state, std::mem::take(&mut self.threads), true);
    }
}

/// Stops everything and waits for it. Stopping again does nothing.
fn stop(state: &State, threads: Threads, drain: bool) {
    let Threads { io, snapshots, words, peers, lock } = threads;
    state.net.inboxes.iter().for_each(|inbox| inbox.command(Command::Stop { drain }));
    let join = |thread: JoinHandle<()>| {
        // A panic of the thread was reported when it happened.
        let _ = thread.join();
    };
    io.into_iter().for_each(join);
    *state.upstream.words.lock() = None;
    // Writes and syncs what was appended.
    if let Log::Disk(log) = state.core.close() {
        log.shutdown();
    }
    if let Some(peers) = peers {
        peers.shutdown();
    }
    snapshots.into_iter().chain(words).for_each(join);
    drop(lock);
}
