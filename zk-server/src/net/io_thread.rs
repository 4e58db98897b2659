//! The event loop of an I/O thread, and the life of a connection on it.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use zk_proto::SessionId;

use super::accept::Acceptor;
use super::conn::{Conn, Phase};
use super::fan_out::FanOut;
use super::limits::{RECEIVE_BYTES, SUBMISSION_BYTES, SUBMISSION_ITEMS};
use super::peers::Peer;
use super::slots::Slots;
use super::timers::Timers;
use super::{Command, ConnReport, Inbox, Net, Term};
use crate::admin::metrics::Recorder;
use crate::replica::messages::{Input, Item, ItemKind, Mail, Submission, conn_id};
use crate::watch::ConnId;

/// Token of the thread's waker.
pub(super) const WAKER: Token = Token(usize::MAX);
/// Token of the listener. All other tokens are slots of connections.
pub(super) const LISTENER: Token = Token(usize::MAX - 1);

/// Events taken from the poller at a time.
const EVENTS: usize = 1024;

/// How often a paused thread looks whether it may go on.
const PAUSE_STEP: Duration = Duration::from_millis(2);

/// One I/O thread, see [`super`].
pub(crate) struct IoThread<'a> {
    pub(super) net: &'a Net,
    pub(super) index: usize,
    pub(super) poll: Poll,
    pub(super) acceptor: Option<Acceptor>,
    pub(super) slots: Slots,
    /// What a read from a socket fills.
    pub(super) receive: Vec<u8>,
    /// Replies of the connection that is being served, in front of the write.
    pub(super) scratch: Vec<u8>,
    /// Reads answered into the scratch buffer.
    pub(super) answered: u32,
    pub(super) submission: Submission,
    /// Items of the submission that get a reply.
    pub(super) owed: i64,
    /// An empty mail, for its buffers.
    pub(super) spare_mail: Mail,
    pub(super) fan_outs: VecDeque<FanOut>,
    /// Connections that can be gone on with without waiting for their socket.
    pub(super) queue: VecDeque<u32>,
    /// Connections that got replies from the replica.
    pub(super) replied: Vec<u32>,
    /// Connections heard of since the last report.
    pub(super) touched: Vec<u32>,
    /// Time since the server's start, as of the last wake-up.
    pub(super) now_us: u64,
    pub(super) now_ms: u64,
    pub(super) timers: Timers,
    pub(super) recorder: Recorder,
    paused: bool,
    /// Nothing is read any more; the thread ends when everything owed is sent, or at this time.
    pub(super) stop_at_ms: Option<u64>,
}

/// A poller and the inbox that wakes it: made before the threads, since everybody knows all inboxes.
pub(crate) fn poller() -> io::Result<(Poll, Inbox)> {
    let poll = Poll::new()?;
    let inbox = Inbox::new(super::inbox::waker(poll.registry())?);
    Ok((poll, inbox))
}

impl<'a> IoThread<'a> {
    /// A thread that serves nobody yet. `listener` for the one that accepts.
    pub(crate) fn new(
        net: &'a Net,
        index: usize,
        poll: Poll,
        listener: Option<std::net::TcpListener>,
        recorder: Recorder,
    ) -> io::Result<Self> {
        let mut acceptor = listener.map(Acceptor::new);
        if let Some(listener) = acceptor.iter_mut().find_map(|acceptor| acceptor.listener.as_mut()) {
            poll.registry().register(listener, LISTENER, Interest::READABLE)?;
        }
        Ok(IoThread {
            net,
            index,
            poll,
            acceptor,
            slots: Slots::new(),
            receive: vec![0; RECEIVE_BYTES],
            scratch: Vec::new(),
            answered: 0,
            submission: Submission::default(),
            owed: 0,
            spare_mail: Mail::default(),
            fan_outs: VecDeque::new(),
            queue: VecDeque::new(),
            replied: Vec::new(),
            touched: Vec::new(),
            now_us: 0,
            now_ms: 0,
            timers: Timers::default(),
            recorder,
            paused: false,
            stop_at_ms: None,
        })
    }

    /// Runs until [`Command::Stop`].
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        self.read_clock();
        loop {
            self.wait(&mut events)?;
            self.read_clock();
            // Mail first: the replies in it have waited longest.
            self.take_mail();
            for event in &events {
                match event.token() {
                    WAKER => {}
                    LISTENER => self.acceptor.iter_mut().for_each(|acceptor| acceptor.ready = true),
                    Token(slot) => self.on_event(slot as u32, event),
                }
            }
            self.accept();
            for _ in 0..self.queue.len() {
                self.serve_queued();
            }
            self.submit();
            self.take_mail();
            self.fan_out_some();
            self.run_commands();
            let taken = events.iter().count();
            self.note_heard(taken >= EVENTS, taken);
            self.run_timers();
            if self.stop_at_ms.is_some_and(|at| self.now_ms >= at || self.is_drained()) {
                return Ok(());
            }
        }
    }

    /// Sleeps until there is something to do.
    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let busy = !self.queue.is_empty() || self.accepts_now() || !self.fan_outs.is_empty();
        let inbox = &self.net.inboxes[self.index];
        let timeout = if !inbox.park() || busy { Duration::ZERO } else { self.until_next_timer() };
        let polled = self.poll.poll(events, Some(timeout));
        inbox.unpark();
        match polled {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                events.clear();
                Ok(())
            }
            other => other,
        }
    }

    fn accepts_now(&self) -> bool {
        self.acceptor.as_ref().is_some_and(|a| a.ready && self.now_ms >= a.not_before_ms)
    }

    fn read_clock(&mut self) {
        self.now_us = elapsed_us(self.net.started);
        self.now_ms = self.now_us / 1000;
    }

    /// The id of a connection of this thread.
    pub(super) fn id(&self, slot: u32) -> ConnId {
        conn_id(self.index, slot)
    }

    /// Takes over an accepted connection.
    pub(super) fn adopt(&mut self, socket: TcpStream, peer: Arc<Peer>, port: u16) {
        let admitted = self.net.providers.admits(&peer.auth);
        let wall_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_millis() as i64);
        let conn = Conn::new(socket, peer, port, admitted, self.now_ms, wall_ms);
        let slot = match self.slots.insert(Box::new(conn)) {
            Ok(slot) => slot,
            Err(conn) => {
                tracing::warn!("too many connections for one I/O thread");
                self.uncount(&conn.peer);
                return;
            }
        };
        if let Some(conn) = self.slots.get(slot)
            && let Err(error) =
                self.poll.registry().register(&mut conn.socket, Token(slot as usize), Interest::READABLE)
        {
            tracing::warn!(%error, "cannot watch a socket");
            self.close(slot, "the system failed");
        }
    }

    fn uncount(&self, peer: &Peer) {
        self.net.peers.leave(peer);
        self.net.connections[self.index].fetch_sub(1, Ordering::Relaxed);
    }

    fn on_event(&mut self, slot: u32, event: &Event) {
        let Some(conn) = self.slots.get(slot) else { return };
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            conn.readable = true;
            conn.read_closed |= event.is_read_closed() || event.is_error();
        }
        if event.is_writable() && conn.unsent() > 0 {
            let sent = conn.flush();
            self.after_sending(slot, sent);
        }
        self.serve(slot);
    }

    /// Closes a connection after what it still has to be sent. With `linger`, waits for the client to close.
    pub(super) fn finish(&mut self, slot: u32, linger: bool) {
        if let Some(conn) = self.slots.get(slot) {
            conn.phase = Phase::Closing;
            conn.finish = true;
            conn.linger = linger;
            conn.heard_ms = self.now_ms;
            conn.input = Vec::new();
            conn.has_backlog = false;
        }
    }

    /// Closes a connection at once. Its watches are gone, its session lives on.
    pub(super) fn close(&mut self, slot: u32, why: &str) {
        let id = self.id(slot);
        let Some(conn) = self.slots.get(slot) else { return };
        let owed = conn.in_replica.then_some(conn.in_core);
        let Some(conn) = self.slots.close(slot, owed) else { return };
        tracing::debug!(remote = %conn.remote(), session = %conn.session, why, "connection closed");
        if conn.session != SessionId::NONE {
            self.net.shared.watches.lock().connection_closed(id);
        }
        if owed.is_some() {
            self.submission.items.push(Item { conn: id, kind: ItemKind::Closed });
        }
        self.net.large_bytes.fetch_sub(conn.large_bytes, Ordering::Relaxed);
        self.uncount(&conn.peer);
    }

    /// Hands the submission to the replica.
    pub(super) fn submit(&mut self) {
        if self.submission.items.is_empty() {
            return;
        }
        self.net.outstanding.fetch_add(std::mem::take(&mut self.owed), Ordering::Relaxed);
        // The next one will be about as large; growing it step by step would copy it again and again.
        let (bytes, items) = (self.submission.bytes.len(), self.submission.items.len());
        let next = Submission {
            bytes: Vec::with_capacity(bytes.min(SUBMISSION_BYTES)),
            items: Vec::with_capacity(items.min(SUBMISSION_ITEMS)),
        };
        let submission = std::mem::replace(&mut self.submission, next);
        self.net.upstream.submit(Input::Submit(submission));
    }

    fn run_commands(&mut self) {
        self.run_arrived_commands();
        while self.paused {
            std::thread::sleep(PAUSE_STEP);
            self.run_arrived_commands();
        }
    }

    fn run_arrived_commands(&mut self) {
        for command in self.net.inboxes[self.index].take_commands() {
            match command {
                Command::Adopt { socket, peer, port } => self.adopt(socket, peer, port),
                Command::Answer { conn, text } => self.answer_word(conn, &text),
                Command::Report(to) => self.report(&to),
                Command::ResetCounters => self.slots.iter_mut().for_each(|conn| conn.counters.reset()),
                Command::DropConnections => {
                    let slots: Vec<u32> = self.slots.iter().map(|(slot, _)| slot).collect();
                    slots.into_iter().for_each(|slot| self.close(slot, "dropped on request"));
                    self.submit();
                }
                Command::Listen { host, port, backlog } => self.listen_at(&host, port, backlog),
                Command::NewTerm => self.end_earlier_terms(),
                Command::Pause(paused) => self.paused = paused,
                Command::Stop { drain } => {
                    self.acceptor = None;
                    self.paused = false;
                    let drain = if drain { self.net.options.drain } else { Duration::ZERO };
                    self.stop_at_ms = Some(self.now_ms + drain.as_millis() as u64);
                }
            }
        }
    }

    /// Closes the connections whose connect request was taken in an earlier term. A four-letter word is still
    /// answered, and who has said nothing yet may stay.
    fn end_earlier_terms(&mut self) {
        // The present one, which may be younger than the command.
        let term = self.net.serving.get().0;
        let earlier = |conn: &Conn| conn.term != Term::NONE && conn.term != term;
        let slots: Vec<u32> =
            self.slots.iter().filter(|(_, conn)| earlier(conn)).map(|(slot, _)| slot).collect();
        slots.into_iter().for_each(|slot| self.close(slot, "the server serves others now"));
        self.submit();
    }

    fn report(&mut self, to: &std::sync::mpsc::Sender<ConnReport>) {
        let overloaded = self.is_overloaded();
        for (slot, conn) in self.slots.iter() {
            let report = ConnReport {
                conn: conn_id(self.index, slot),
                session: conn.session,
                silent_until_ms: conn.heard_ms + self.silence_allowed_ms(conn),
                stats: conn.stats(overloaded),
            };
            if to.send(report).is_err() {
                return;
            }
        }
    }

    /// Whether nothing is owed to anybody any more.
    fn is_drained(&self) -> bool {
        let done = |conn: &Conn| {
            conn.in_core == 0 && conn.unsent() == 0 && !matches!(conn.phase, Phase::Connecting { .. })
        };
        self.fan_outs.is_empty() && self.slots.iter().all(|(_, conn)| done(conn))
    }
}

pub(super) fn elapsed_us(start: Instant) -> u64 {
    start.elapsed().as_micros() as u64
}
