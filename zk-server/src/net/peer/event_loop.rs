//! The event loop of the thread `zk-peer`, and the life of a connection on it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Poll, Token};

use super::handle::{Command, Shared, WAKER, elapsed_ms};
use super::receive::Receiver;
use super::socket::PeerSocket;
use super::transport::Transport;
use super::{PeerEvent, Port};
use crate::net::accept::is_about_the_connection;
use crate::zab::PeerConn;

/// Events taken from the poller at a time.
const EVENTS: usize = 256;

/// Bytes read at a time.
const RECEIVE_BYTES: usize = 128 << 10;

/// Reads from one connection before it is the turn of the others.
const READS_PER_TURN: usize = 4;

/// Connections accepted per round.
const ACCEPTS_PER_ROUND: usize = 32;

/// How long nobody is accepted after the system had no file descriptor left.
const OUT_OF_FILES_PAUSE_MS: u64 = 100;

/// How long the last output of a connection may wait for the peer to read it.
const FINISH_MS: u64 = 5_000;

/// How long a connection stays that has been sent its last byte, for the peer to close it. Closing it earlier may
/// make the system throw that byte away.
const LINGER_MS: u64 = 1_000;

/// Complaints logged per second: an attack should not fill the log.
const COMPLAINTS_MAX: u32 = 10;

/// The thread wakes at least this often.
const SLEEP_MAX_MS: u64 = 1_000;

/// Told what happened.
pub(super) type OnEvents = Box<dyn FnMut(Vec<PeerEvent>) + Send>;

/// See the module.
pub(super) struct EventLoop {
    shared: Arc<Shared>,
    poll: Poll,
    on_events: OnEvents,
    events: Vec<PeerEvent>,
    conns: HashMap<PeerConn, Conn>,
    /// Connections with something to read.
    queue: VecDeque<PeerConn>,
    /// When connections have to be closed.
    deadlines: BTreeSet<(u64, PeerConn)>,
    /// Accepted connections by address.
    accepted: HashMap<IpAddr, usize>,
    accepted_total: usize,
    receive: Vec<u8>,
    accept_not_before_ms: u64,
    complaints: Complaints,
    started: Instant,
    now_ms: u64,
    stop: bool,
}

/// How much was complained of lately.
#[derive(Default)]
struct Complaints {
    second: u64,
    count: u32,
}

impl Complaints {
    /// Whether one more may be logged.
    fn one_more(&mut self, now_ms: u64) -> bool {
        let second = now_ms / 1000;
        if second != self.second {
            *self = Complaints { second, count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count <= COMPLAINTS_MAX
    }
}

struct Conn {
    socket: Arc<PeerSocket>,
    receiver: Receiver,
    /// The socket has more to read, as far as is known.
    readable: bool,
    queued: bool,
    /// What arrives is thrown away: the connection ends.
    deaf: bool,
    /// The peer has been sent the last byte.
    lingers: bool,
    /// When it is closed, and why.
    deadline: Option<(u64, &'static str)>,
    /// The address that it is counted for.
    accepted_from: Option<IpAddr>,
}

impl EventLoop {
    pub(super) fn new(shared: Arc<Shared>, poll: Poll, on_events: OnEvents) -> Self {
        EventLoop {
            shared,
            poll,
            on_events,
            events: Vec::new(),
            conns: HashMap::new(),
            queue: VecDeque::new(),
            deadlines: BTreeSet::new(),
            accepted: HashMap::new(),
            accepted_total: 0,
            receive: vec![0; RECEIVE_BYTES],
            accept_not_before_ms: 0,
            complaints: Complaints::default(),
            started: Instant::now(),
            now_ms: 0,
            stop: false,
        }
    }

    /// Runs until the server stops.
    pub(super) fn run(mut self) {
        let failure = match catch_unwind(AssertUnwindSafe(|| self.run_loop())) {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("it panicked".into()),
        };
        self.close_all();
        if let Some(reason) = failure {
            tracing::error!(reason, "the thread of the connections between servers fails");
            (self.on_events)(vec![PeerEvent::Failed { reason }]);
        }
    }

    fn run_loop(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        while !self.stop {
            self.wait(&mut events)?;
            self.now_ms = elapsed_ms(self.started);
            for event in &events {
                self.on_event(event);
            }
            self.run_commands();
            self.accept();
            for _ in 0..self.queue.len() {
                self.read_queued();
            }
            self.close_overdue();
            if !self.events.is_empty() && !self.stop {
                (self.on_events)(std::mem::take(&mut self.events));
            }
        }
        Ok(())
    }

    /// Sleeps until there is something to do.
    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let idle = self.shared.park() && self.queue.is_empty() && self.events.is_empty();
        let timeout_ms = if idle { self.sleep_ms() } else { 0 };
        let polled = self.poll.poll(events, Some(Duration::from_millis(timeout_ms)));
        self.shared.unpark();
        match polled {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                events.clear();
                Ok(())
            }
            other => other,
        }
    }

    fn sleep_ms(&self) -> u64 {
        let deadline_ms = self.deadlines.first().map_or(u64::MAX, |(at, _)| *at);
        let accept_ms = if self.shared.listeners.lock().iter().any(|listener| listener.ready) {
            self.accept_not_before_ms
        } else {
            u64::MAX
        };
        // Rounded up: waking a moment before a deadline would only mean to sleep again.
        deadline_ms.min(accept_ms).saturating_sub(self.now_ms).min(SLEEP_MAX_MS)
    }

    fn on_event(&mut self, event: &Event) {
        if event.token() == WAKER {
            return;
        }
        let conn = PeerConn(event.token().0 as u64);
        let Some(state) = self.conns.get_mut(&conn) else {
            // A listener, or a connection that is closed.
            let mut listeners = self.shared.listeners.lock();
            let listener = listeners.iter_mut().find(|listener| listener.token == event.token());
            listener.into_iter().for_each(|listener| listener.ready = true);
            return;
        };
        if event.is_writable() {
            let written = state.socket.writable();
            self.shared.after_writing(&state.socket, written);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            state.readable = true;
            self.enqueue(conn);
        }
    }

    fn run_commands(&mut self) {
        for command in self.shared.take_commands() {
            match command {
                Command::Adopt { token, port, stream, remote } => self.adopt(token, port, stream, remote),
                Command::Event(event) => self.tell(event),
                Command::Close { conn, reason } => self.close(conn, reason),
                Command::Reject { conn, reason } => self.reject(conn, reason),
                Command::Finish(conn) => self.finish(conn),
                Command::Finished(conn) => self.linger(conn),
                Command::Resume(conn) => self.enqueue(conn),
                Command::Stop => self.stop = true,
            }
        }
    }

    /// Passes an event on that was made elsewhere, unless its connection is closed already.
    fn tell(&mut self, event: PeerEvent) {
        match event {
            PeerEvent::SnapshotSent { conn }
            | PeerEvent::Drained { conn }
            | PeerEvent::Backlog { conn, .. }
                if !self.conns.contains_key(&conn) => {}
            event => self.events.push(event),
        }
    }

    /// Accepts some of the connections that wait.
    fn accept(&mut self) {
        if self.now_ms < self.accept_not_before_ms {
            return;
        }
        let mut accepted = Vec::new();
        for listener in self.shared.listeners.lock().iter_mut().filter(|listener| listener.ready) {
            while accepted.len() < ACCEPTS_PER_ROUND {
                match listener.listener.accept() {
                    Ok((stream, address)) => accepted.push((listener.port, stream, address)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        listener.ready = false;
                        break;
                    }
                    Err(error) if is_about_the_connection(&error) => {}
                    Err(error) => {
                        tracing::warn!(%error, port = %listener.port, "cannot accept connections of servers");
                        self.accept_not_before_ms = self.now_ms + OUT_OF_FILES_PAUSE_MS;
                        break;
                    }
                }
            }
        }
        for (port, stream, address) in accepted {
            self.admit(port, stream, address);
        }
    }

    /// Applies the limits on connections.
    fn admit(&mut self, port: Port, stream: TcpStream, address: SocketAddr) {
        let options = &self.shared.options;
        let ip = address.ip().to_canonical();
        let from_here = self.accepted.get(&ip).copied().unwrap_or(0);
        if self.accepted_total >= options.connections_max || from_here >= options.connections_per_address_max
        {
            if self.complaints.one_more(self.now_ms) {
                tracing::warn!(%ip, %port, from_here, total = self.accepted_total, "too many connections of servers");
            }
            return;
        }
        let deadline_ms = self.now_ms + options.first_packet_ms;
        let receiver = Receiver::accepted(port);
        match self.open(port, stream, address, receiver) {
            Ok(conn) => {
                *self.accepted.entry(ip).or_default() += 1;
                self.accepted_total += 1;
                if let Some(state) = self.conns.get_mut(&conn) {
                    state.accepted_from = Some(ip);
                }
                self.set_deadline(conn, Some((deadline_ms, "says nothing")));
                self.events.push(PeerEvent::Accepted { conn, port, remote: ip });
            }
            Err(error) => tracing::debug!(%error, %address, "a connection was gone before it was accepted"),
        }
    }

    /// Takes over a connection that was dialed.
    fn adopt(&mut self, token: u64, port: Port, stream: TcpStream, remote: SocketAddr) {
        let receiver = Receiver::dialed(port, &self.shared.options);
        let opened = self.open(port, stream, remote, receiver);
        let result = match opened {
            Ok(conn) => Ok((conn, remote.ip().to_canonical())),
            Err(error) => Err(format!("{remote}: {error}")),
        };
        self.events.push(PeerEvent::Dialed { token, result });
    }

    fn open(
        &mut self,
        port: Port,
        stream: TcpStream,
        remote: SocketAddr,
        receiver: Receiver,
    ) -> io::Result<PeerConn> {
        let options = &self.shared.options;
        let conn = PeerConn(self.shared.next_number());
        let mut transport =
            Transport::open(stream, remote, options.keep_alive, Duration::from_millis(options.silence_ms))?;
        transport.register(self.poll.registry(), Token(conn.0 as usize))?;
        let socket = Arc::new(PeerSocket::new(conn, port, transport, options.backlog_bytes));
        self.shared.sockets.lock().insert(conn, socket.clone());
        self.conns.insert(
            conn,
            Conn {
                socket,
                receiver,
                readable: false,
                queued: false,
                deaf: false,
                lingers: false,
                deadline: None,
                accepted_from: None,
            },
        );
        Ok(conn)
    }

    /// Puts a connection into the queue of those to be read.
    fn enqueue(&mut self, conn: PeerConn) {
        if let Some(state) = self.conns.get_mut(&conn)
            && state.readable
            && !state.queued
            && !state.socket.paused.load(Ordering::SeqCst)
        {
            state.queued = true;
            self.queue.push_back(conn);
        }
    }

    fn read_queued(&mut self) {
        let Some(conn) = self.queue.pop_front() else { return };
        let Some(state) = self.conns.get_mut(&conn) else { return };
        state.queued = false;
        for _ in 0..READS_PER_TURN {
            // Asked each time: the owner of the connection need not wait for a turn to end.
            if state.socket.paused.load(Ordering::SeqCst) {
                break;
            }
            match state.socket.transport.read(&mut self.receive) {
                Ok(0) => return self.close(conn, "closed by the peer".into()),
                Ok(_) if state.deaf => {}
                Ok(n) => {
                    let bytes = self.receive.get(..n).unwrap_or_default();
                    let options = &self.shared.options;
                    match state.receiver.receive(conn, bytes, options, &mut self.events) {
                        Ok(complete) => {
                            if complete && state.deadline.is_some() {
                                self.set_deadline(conn, None);
                                return self.enqueue(conn);
                            }
                        }
                        Err(reason) => return self.reject(conn, reason),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    state.readable = false;
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.close(conn, format!("cannot read: {error}")),
            }
        }
        self.enqueue(conn);
    }

    /// Nothing is expected from the peer any more; what waits for it is still written.
    fn finish(&mut self, conn: PeerConn) {
        let Some(state) = self.conns.get_mut(&conn) else { return };
        state.deaf = true;
        state.socket.paused.store(false, Ordering::SeqCst);
        self.set_deadline(conn, Some((self.now_ms + FINISH_MS, "does not read its last output")));
        self.enqueue(conn);
    }

    /// Everything is written: says so to the peer, and waits for it to close.
    fn linger(&mut self, conn: PeerConn) {
        let Some(state) = self.conns.get_mut(&conn) else { return };
        if std::mem::replace(&mut state.lingers, true) {
            return;
        }
        if let Err(error) = state.socket.transport.finish() {
            return self.close(conn, format!("cannot close: {error}"));
        }
        self.set_deadline(conn, Some((self.now_ms + LINGER_MS, "closed after the last byte")));
    }

    fn set_deadline(&mut self, conn: PeerConn, deadline: Option<(u64, &'static str)>) {
        let Some(state) = self.conns.get_mut(&conn) else { return };
        if let Some((at_ms, _)) = std::mem::replace(&mut state.deadline, deadline) {
            self.deadlines.remove(&(at_ms, conn));
        }
        self.deadlines.extend(deadline.map(|(at_ms, _)| (at_ms, conn)));
    }

    fn close_overdue(&mut self) {
        while let Some(&(at_ms, conn)) = self.deadlines.first().filter(|(at_ms, _)| *at_ms <= self.now_ms) {
            self.deadlines.remove(&(at_ms, conn));
            let reason = self.conns.get(&conn).and_then(|state| state.deadline).map_or("", |(_, why)| why);
            self.close(conn, reason.into());
        }
    }

    /// Closes a connection whose peer does not behave like a server.
    fn reject(&mut self, conn: PeerConn, reason: String) {
        if let Some(state) = self.conns.get(&conn)
            && self.complaints.one_more(self.now_ms)
        {
            tracing::warn!(
                peer = %state.socket.transport.remote(),
                port = %state.socket.port,
                reason,
                "closed a connection that is not used as servers use it"
            );
        }
        self.close(conn, reason);
    }

    /// Closes a connection, if it is open, and tells.
    fn close(&mut self, conn: PeerConn, reason: String) {
        self.set_deadline(conn, None);
        let Some(state) = self.conns.remove(&conn) else { return };
        self.shared.sockets.lock().remove(&conn);
        state.socket.close();
        if let Some(ip) = state.accepted_from {
            self.accepted_total -= 1;
            if let Some(count) = self.accepted.get_mut(&ip) {
                *count -= 1;
                if *count == 0 {
                    self.accepted.remove(&ip);
                }
            }
        }
        let (remote, port) = (state.socket.transport.remote(), state.socket.port);
        tracing::debug!(%remote, %port, reason, "connection between servers closed");
        self.events.push(PeerEvent::Closed { conn, reason });
    }

    /// Closes everything and tells nobody.
    fn close_all(&mut self) {
        self.shared.listeners.lock().clear();
        self.shared.sockets.lock().clear();
        for (_, state) in self.conns.drain() {
            state.socket.close();
        }
    }
}
