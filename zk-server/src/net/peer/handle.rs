//! What the rest of the server does with connections to other servers.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Poll, Registry, Token, Waker};
use parking_lot::Mutex;

use super::dial::{Dial, Dialer};
use super::event_loop::EventLoop;
use super::snapshot;
use super::socket::{PeerSocket, Written};
use super::{PeerEvent, PeerOptions, Port};
use crate::config::HostPort;
use crate::net::accept;
use crate::zab::PeerConn;

/// Token of the thread's waker. All other tokens are numbers of connections and listeners.
pub(super) const WAKER: Token = Token(usize::MAX);

/// Connections that wait to be accepted.
const LISTEN_BACKLOG: u32 = 128;

/// The thread of the connections between servers. Stops, and closes all of them, when it is dropped.
#[derive(Debug)]
pub struct PeerNet {
    handle: PeerHandle,
    thread: Option<JoinHandle<()>>,
}

/// What can be done with the connections between servers. Cheap to clone; nothing here ever blocks, except that
/// [`PeerHandle::listen`] asks the system for a port.
#[derive(Debug, Clone)]
pub struct PeerHandle {
    shared: Arc<Shared>,
}

/// What the thread and the handles share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: PeerOptions,
    pub(super) sockets: Mutex<HashMap<PeerConn, Arc<PeerSocket>>>,
    pub(super) listeners: Mutex<Vec<Listener>>,
    pub(super) dialer: Mutex<Dialer>,
    pub(super) stopped: AtomicBool,
    commands: Mutex<VecDeque<Command>>,
    unflushed: Mutex<Vec<Arc<PeerSocket>>>,
    /// The thread sleeps, or is about to.
    parked: AtomicBool,
    waker: Waker,
    registry: Registry,
    /// Connections and listeners are numbered together, from 1.
    next_number: AtomicU64,
}

#[derive(Debug)]
pub(super) struct Listener {
    pub(super) token: Token,
    pub(super) port: Port,
    pub(super) listener: TcpListener,
    /// Connections wait, as far as is known.
    pub(super) ready: bool,
}

/// For the event loop, from other threads.
#[derive(Debug)]
pub(super) enum Command {
    /// Take over a connection that was dialed.
    Adopt { token: u64, port: Port, stream: TcpStream, remote: SocketAddr },
    /// Tell.
    Event(PeerEvent),
    /// Close at once.
    Close { conn: PeerConn, reason: String },
    /// Close at once, and complain.
    Reject { conn: PeerConn, reason: String },
    /// Throw away what arrives; close when everything is written, or after a while.
    Finish(PeerConn),
    /// Everything is written: wait for the peer to close, but not for long.
    Finished(PeerConn),
    /// Read again.
    Resume(PeerConn),
    /// End.
    Stop,
}

impl PeerNet {
    /// Starts the thread. It calls `on_events` with what happened, once per round, never with an empty list.
    /// While the callback runs nothing is read; it may use the handle.
    ///
    /// # Errors
    /// The system gives no poller or no thread.
    pub fn start(
        options: PeerOptions,
        on_events: impl FnMut(Vec<PeerEvent>) + Send + 'static,
    ) -> io::Result<PeerNet> {
        let poll = Poll::new()?;
        let shared = Arc::new(Shared {
            options,
            sockets: Mutex::default(),
            listeners: Mutex::default(),
            dialer: Mutex::default(),
            stopped: AtomicBool::new(false),
            commands: Mutex::default(),
            unflushed: Mutex::default(),
            parked: AtomicBool::new(false),
            waker: Waker::new(poll.registry(), WAKER)?,
            registry: poll.registry().try_clone()?,
            next_number: AtomicU64::new(1),
        });
        let event_loop = EventLoop::new(shared.clone(), poll, Box::new(on_events));
        let thread = std::thread::Builder::new().name("zk-peer".into()).spawn(move || event_loop.run())?;
        Ok(PeerNet { handle: PeerHandle { shared }, thread: Some(thread) })
    }

    /// For whoever uses the connections.
    pub fn handle(&self) -> PeerHandle {
        self.handle.clone()
    }

    /// Closes everything, and returns when the thread has ended: no event comes any more.
    pub fn shutdown(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        let shared = &self.handle.shared;
        shared.stopped.store(true, Ordering::SeqCst);
        shared.command(Command::Stop);
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // A panic of the thread was reported when it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for PeerNet {
    fn drop(&mut self) {
        self.stop();
    }
}

impl PeerHandle {
    /// Accepts connections on `address`, in addition to what is listened on already; port 0 takes a free one.
    /// Returns the address. The unspecified IPv6 address takes IPv4 connections as well.
    ///
    /// # Errors
    /// The system does not give the address. Trying again is left to the caller.
    pub fn listen(&self, port: Port, address: SocketAddr) -> io::Result<SocketAddr> {
        let listener = accept::listen(address, address.ip().is_unspecified(), LISTEN_BACKLOG)?;
        let address = listener.local_addr()?;
        let mut listener = TcpListener::from_std(listener);
        let token = Token(self.shared.next_number() as usize);
        let mut listeners = self.shared.listeners.lock();
        if self.shared.stopped.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        self.shared.registry.register(&mut listener, token, Interest::READABLE)?;
        listeners.push(Listener { token, port, listener, ready: false });
        Ok(address)
    }

    /// Stops accepting connections on a port. The address is free when this returns; connections stay.
    pub fn unlisten(&self, port: Port) {
        self.shared.listeners.lock().retain(|listener| listener.port != port);
    }

    /// Connects to the first of `addresses` that answers. Names are resolved now; each of their addresses has
    /// `timeout_ms`. Ends with [`PeerEvent::Dialed`], which has `token`.
    pub fn dial(&self, token: u64, port: Port, addresses: Vec<HostPort>, timeout_ms: u64) {
        let timeout = Duration::from_millis(timeout_ms.max(1));
        super::dial::dial(&self.shared, Dial { token, port, addresses, timeout });
    }

    /// Appends bytes to a connection's output. They are written by the next [`PeerHandle::flush`]. Nothing happens
    /// if the connection is closed.
    pub fn send(&self, conn: PeerConn, bytes: Vec<u8>) {
        if let Some(socket) = self.shared.socket(conn)
            && socket.push(bytes)
        {
            self.shared.unflushed.lock().push(socket);
        }
    }

    /// Writes what was sent, one write per connection; what a socket does not take now is written when it does.
    pub fn flush(&self) {
        let unflushed = std::mem::take(&mut *self.shared.unflushed.lock());
        for socket in unflushed {
            let written = socket.flush();
            self.shared.after_writing(&socket, written);
        }
    }

    /// Bytes of output that wait, without those of snapshots; 0 for a closed connection.
    pub fn backlog(&self, conn: PeerConn) -> usize {
        self.shared.socket(conn).map_or(0, |socket| socket.backlog())
    }

    /// Puts a snapshot behind all output of a connection. `source` is called on a thread of its own and writes the
    /// raw stream that follows a SNAP packet; its writes wait while the peer does not read, and fail when the
    /// connection is closed. Ends with [`PeerEvent::SnapshotSent`]. A source that fails closes the connection:
    /// half a snapshot cannot be taken back.
    pub fn stream_snapshot(
        &self,
        conn: PeerConn,
        source: impl FnOnce(&mut dyn io::Write) -> io::Result<()> + Send + 'static,
    ) {
        if let Some(socket) = self.shared.socket(conn) {
            snapshot::stream(&self.shared, socket, Box::new(source));
        }
    }

    /// Reads nothing more from a connection until [`PeerHandle::resume`]. What was read already may still come as
    /// an event. That the peer has closed is not noticed meanwhile.
    pub fn pause(&self, conn: PeerConn) {
        if let Some(socket) = self.shared.socket(conn) {
            socket.paused.store(true, Ordering::SeqCst);
        }
    }

    /// Ends [`PeerHandle::pause`].
    pub fn resume(&self, conn: PeerConn) {
        if let Some(socket) = self.shared.socket(conn)
            && socket.paused.swap(false, Ordering::SeqCst)
        {
            self.shared.command(Command::Resume(conn));
        }
    }

    /// Closes a connection at once: output that waits is lost. `Closed` follows; in front of it may come what was
    /// read before.
    #[cfg_attr(not(test), allow(dead_code))] // members always have something to say first
    pub fn close(&self, conn: PeerConn, reason: impl Into<String>) {
        if let Some(socket) = self.shared.socket(conn) {
            // First, lest the loop finds the connection closed and gives another reason.
            self.shared.command(Command::Close { conn, reason: reason.into() });
            socket.close();
        }
    }

    /// Closes a connection like [`PeerHandle::close`], with a line in the log that names the peer: what it sent no
    /// server of this ensemble would send.
    pub fn reject(&self, conn: PeerConn, reason: impl Into<String>) {
        if let Some(socket) = self.shared.socket(conn) {
            self.shared.command(Command::Reject { conn, reason: reason.into() });
            socket.close();
        }
    }

    /// Closes a connection when its output is written, or after five seconds if the peer does not read it. What
    /// still arrives is thrown away. `Closed` follows.
    pub fn close_after_flush(&self, conn: PeerConn) {
        if let Some(socket) = self.shared.socket(conn) {
            self.shared.command(Command::Finish(conn));
            let written = socket.finish();
            self.shared.after_writing(&socket, written);
        }
    }
}

impl Shared {
    pub(super) fn next_number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn socket(&self, conn: PeerConn) -> Option<Arc<PeerSocket>> {
        self.sockets.lock().get(&conn).cloned()
    }

    /// Adds a command and wakes the thread if it sleeps.
    pub(super) fn command(&self, command: Command) {
        self.commands.lock().push_back(command);
        if self.parked.swap(false, Ordering::SeqCst)
            && let Err(error) = self.waker.wake()
        {
            // It wakes for its timers a moment later.
            tracing::warn!(%error, "cannot wake the thread of the connections between servers");
        }
    }

    pub(super) fn take_commands(&self) -> VecDeque<Command> {
        std::mem::take(&mut *self.commands.lock())
    }

    /// Announces that the thread goes to sleep; false if there is something to do first. To be followed by
    /// [`Shared::unpark`].
    pub(super) fn park(&self) -> bool {
        self.parked.store(true, Ordering::SeqCst);
        self.commands.lock().is_empty()
    }

    /// The thread is awake again.
    pub(super) fn unpark(&self) {
        self.parked.store(false, Ordering::SeqCst);
    }

    /// Tells what came of writing.
    pub(super) fn after_writing(&self, socket: &PeerSocket, written: Written) {
        let conn = socket.conn;
        for _ in 0..written.snapshots {
            self.command(Command::Event(PeerEvent::SnapshotSent { conn }));
        }
        if written.drained {
            self.command(Command::Event(PeerEvent::Drained { conn }));
        }
        if let Some(bytes) = written.backlog {
            self.command(Command::Event(PeerEvent::Backlog { conn, bytes }));
        }
        if written.finished {
            self.command(Command::Finished(conn));
        }
        if let Some(error) = written.broken {
            self.command(Command::Close { conn, reason: format!("cannot write: {error}") });
        }
    }
}

/// Time on the clock of the event loop.
pub(super) fn elapsed_ms(started: Instant) -> u64 {
    started.elapsed().as_millis() as u64
}
