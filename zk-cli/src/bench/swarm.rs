//! Many sessions on one thread: opened together, then held, asked or told.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use zk_proto::{ConnectResponse, Reader};

use super::conn::{Conn, SCRATCH_BYTES, State};
use super::epoll::{Epoll, Events, Timer};
use super::error::{Context, Error, Result};
use super::stats::{Faults, Latencies};
use super::wire;

/// Longest wait for something that must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often open sessions ping while others are being opened.
const PING_WHILE_OPENING: Duration = Duration::from_secs(3);

/// Connections that are begun again, per session, before there seems to be no server.
const AGAIN_MAX_EACH: u64 = 20;

/// Sessions that are opened at the same time when it does not matter: fewer than the shortest backlog.
const GENTLE: usize = 40;

/// Connects that are begun before the answers that have come meanwhile are looked at.
const CONNECT_BATCH: usize = 128;

/// Sessions that one thread holds.
pub struct Swarm {
    epoll: Epoll,
    events: Events,
    scratch: Vec<u8>,
    conns: Vec<Conn>,
    /// Connections that the server has closed.
    closed: Vec<usize>,
}

/// How the opening of sessions went.
pub struct Opening {
    /// From the begin of each connect to the answer that gives the session.
    pub latencies: Latencies,
    /// From the begin of the first connect to the last answer.
    pub elapsed: Duration,
    /// Connections that broke before their session was there, and were begun again.
    pub again: u64,
}

impl Swarm {
    /// Opens `count` sessions, [`GENTLE`] at a time.
    pub fn open(server: SocketAddr, count: usize, session_timeout_ms: i32) -> Result<Swarm> {
        Self::open_spread(|_| server, count, session_timeout_ms)
    }

    /// The same over several servers: `server` says where a session goes, by its index.
    pub fn open_spread(
        server: impl Fn(usize) -> SocketAddr,
        count: usize,
        session_timeout_ms: i32,
    ) -> Result<Swarm> {
        Ok(Self::open_by(server, count, GENTLE, session_timeout_ms)?.0)
    }

    /// Opens `count` sessions as fast as connects can be begun, without waiting for one another.
    pub fn open_at_once(
        server: SocketAddr,
        count: usize,
        session_timeout_ms: i32,
    ) -> Result<(Swarm, Opening)> {
        Self::open_by(|_| server, count, count, session_timeout_ms)
    }

    /// Opens `count` sessions, at most `parallel` at a time.
    /// A connection that breaks first (the kernel resets some when the server's backlog overflows) is begun
    /// again. Fails when a session is refused, or when for a minute none is opened.
    fn open_by(
        server: impl Fn(usize) -> SocketAddr,
        count: usize,
        parallel: usize,
        session_timeout_ms: i32,
    ) -> Result<(Swarm, Opening)> {
        let mut swarm = Swarm {
            epoll: Epoll::new().context("epoll")?,
            events: Events::new(),
            scratch: vec![0; SCRATCH_BYTES],
            conns: Vec::with_capacity(count),
            closed: Vec::new(),
        };
        let mut latencies = Latencies::new();
        let mut begun: Vec<Instant> = Vec::with_capacity(count);
        let mut has_session = vec![false; count];
        let (mut opened, mut again, mut pings) = (0usize, 0u64, 0usize);
        let mut refused = false;
        let start = Instant::now();
        let (mut last_opened, mut last_ping) = (start, start);
        while opened < count || pings > 0 {
            let may_begin = (count - begun.len()).min((opened + parallel).saturating_sub(begun.len()));
            for _ in 0..may_begin.min(CONNECT_BATCH) {
                begun.push(Instant::now());
                let index = begun.len() - 1;
                let conn = swarm.connect(server(index), index, session_timeout_ms)?;
                swarm.conns.push(conn);
            }
            let wait = if begun.len() < count.min(opened + parallel) {
                Duration::ZERO
            } else {
                Duration::from_millis(100)
            };
            swarm.pump(wait, |index, frame, _| {
                if has_session[index] {
                    pings = pings.saturating_sub(1);
                    return;
                }
                let answer = ConnectResponse::decode(&mut Reader::new(frame));
                refused |= !answer.is_ok_and(|answer| answer.timeout_ms > 0);
                latencies.record_duration(begun[index].elapsed());
                has_session[index] = true;
                opened += 1;
                last_opened = Instant::now();
            })?;
            if refused {
                return Err(Error::Refused);
            }
            // A server that is slow to accept may need longer for all than the first sessions live.
            if opened < count && last_ping.elapsed() > PING_WHILE_OPENING {
                last_ping = Instant::now();
                pings += swarm.ping(|index| has_session.get(index) == Some(&true))?;
            }
            for index in std::mem::take(&mut swarm.closed) {
                if has_session[index] {
                    return Err(Error::Closed("opening sessions"));
                }
                again += 1;
                if again > AGAIN_MAX_EACH * count as u64 {
                    return Err(Error::Closed("opening sessions"));
                }
                swarm.conns[index] = swarm.connect(server(index), index, session_timeout_ms)?;
            }
            if last_opened.elapsed() > PATIENCE {
                return Err(Error::Timeout { what: "opening sessions", seconds: PATIENCE.as_secs() });
            }
        }
        Ok((swarm, Opening { latencies, elapsed: start.elapsed(), again }))
    }

    /// Sends a ping on each wanted session; how many that were.
    fn ping(&mut self, wanted: impl Fn(usize) -> bool) -> Result<usize> {
        let ping = wire::ping();
        let mut sent = 0;
        for (index, conn) in self.conns.iter_mut().enumerate().filter(|(index, _)| wanted(*index)) {
            conn.out.extend_from_slice(&ping);
            sent += 1;
            if matches!(conn.flush(), Ok(false)) {
                self.epoll.set_writable(&*conn, index, true).context("epoll")?;
            }
        }
        Ok(sent)
    }

    fn connect(&self, server: SocketAddr, index: usize, session_timeout_ms: i32) -> Result<Conn> {
        let mut conn = Conn::connect(server, index).context("connect")?;
        wire::append_connect(&mut conn.out, session_timeout_ms);
        // On loopback the handshake is mostly done by now, and then the first frame goes out at once.
        let all_sent = matches!(conn.flush(), Ok(true));
        self.epoll.add(&conn, index, !all_sent).context("epoll")?;
        Ok(conn)
    }

    /// Waits up to `timeout` for anything, and hands each frame that came to `each`, with the index of its
    /// session and the buffer for what to send.
    pub fn pump(
        &mut self,
        timeout: Duration,
        mut each: impl FnMut(usize, &[u8], &mut Vec<u8>),
    ) -> Result<()> {
        for ready in self.epoll.wait(&mut self.events, timeout).context("epoll")? {
            let Some(conn) = self.conns.get_mut(ready.index) else { continue };
            let had_output = !conn.out.is_empty();
            let mut state = Ok(State::Open);
            if ready.readable {
                state = conn.read(&mut self.scratch, |frame, out| each(ready.index, frame, out));
            }
            let flushed = conn.flush();
            match (state, flushed) {
                (Ok(State::Open), Ok(all_sent)) => {
                    if had_output == all_sent {
                        self.epoll.set_writable(&*conn, ready.index, !all_sent).context("epoll")?;
                    }
                }
                _ => {
                    self.closed.push(ready.index);
                    self.epoll.remove(&*conn).context("epoll")?;
                }
            }
        }
        Ok(())
    }

    /// Number of sessions that were opened.
    pub fn len(&self) -> usize {
        self.conns.len()
    }

    /// Number of connections that the server has closed.
    pub fn closed(&self) -> u64 {
        self.closed.len() as u64
    }

    /// The connections, each in a session of its own, in no epoll any more.
    pub fn into_conns(self) -> Result<Vec<Conn>> {
        for conn in &self.conns {
            self.epoll.remove(conn).context("epoll")?;
        }
        Ok(self.conns)
    }

    /// Sends the frame that `request` appends, given an xid, on every session, and waits for all replies.
    /// Each reply is checked by `check`, which gets index and body; wrong ones are counted in `faults`.
    pub fn ask_all(
        &mut self,
        what: &'static str,
        mut request: impl FnMut(usize, i32, &mut Vec<u8>),
        mut check: impl FnMut(usize, &[u8]) -> std::result::Result<(), &'static str>,
        faults: &mut Faults,
    ) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut expected = Vec::with_capacity(self.conns.len());
        for (index, conn) in self.conns.iter_mut().enumerate() {
            let xid = conn.take_xid();
            expected.push(xid);
            request(index, xid, &mut conn.out);
            if !conn.flush().context("write")? {
                self.epoll.set_writable(&*conn, index, true).context("epoll")?;
            }
        }
        let mut answered = 0;
        while answered < self.conns.len() {
            self.pump(Duration::from_millis(100), |index, frame, _| match wire::split(frame) {
                Ok((header, body)) if header.xid == expected[index] => {
                    answered += 1;
                    match header.err.ok() {
                        Ok(()) => {
                            if let Err(why) = check(index, body) {
                                faults.invalid(what, why);
                            }
                        }
                        Err(code) => faults.error(what, code),
                    }
                }
                Ok((header, _)) if header.xid == zk_proto::xid::PING => {}
                Ok(_) => faults.invalid(what, "reply out of order"),
                Err(_) => faults.invalid(what, "undecodable reply"),
            })?;
            if self.closed() > 0 {
                return Err(Error::Closed(what));
            }
            if Instant::now() > deadline {
                return Err(Error::Timeout { what, seconds: PATIENCE.as_secs() });
            }
        }
        Ok(())
    }

    /// Keeps the sessions alive for `duration`: each sends a ping every `interval`, evenly spread over all.
    /// Returns the latencies of the pings, counted from their due time.
    pub fn idle(&mut self, duration: Duration, interval: Duration, faults: &mut Faults) -> Result<Latencies> {
        let ping = wire::ping();
        let timer = Timer::new(&self.epoll).context("timerfd")?;
        let count = self.conns.len() as u32;
        let step = interval / count.max(1);
        let mut due_at = vec![Instant::now(); self.conns.len()];
        let mut waiting = vec![false; self.conns.len()];
        let mut latencies = Latencies::new();
        let start = Instant::now();
        let mut sent = 0u32;
        let closed_before = self.closed();
        while start.elapsed() < duration {
            let mut due = start + step * sent;
            while due <= Instant::now() {
                let index = (sent % count.max(1)) as usize;
                let conn = &mut self.conns[index];
                conn.out.extend_from_slice(&ping);
                if matches!(conn.flush(), Ok(false)) {
                    self.epoll.set_writable(&*conn, index, true).context("epoll")?;
                }
                if std::mem::replace(&mut waiting[index], true) {
                    faults.lost(1, "ping not answered before the next");
                }
                due_at[index] = due;
                sent += 1;
                due = start + step * sent;
            }
            timer.set(due.saturating_duration_since(Instant::now())).context("timerfd")?;
            self.pump(Duration::from_millis(100), |index, frame, _| match wire::split(frame) {
                Ok((header, _)) if header.xid == zk_proto::xid::PING && header.err.0 == 0 => {
                    waiting[index] = false;
                    latencies.record_duration(due_at[index].elapsed());
                }
                _ => faults.invalid("ping", "another reply"),
            })?;
        }
        faults.lost(self.closed() - closed_before, "idle session closed by the server");
        Ok(latencies)
    }

    /// Ends all sessions in order, so that the server is rid of them; gives up after a few seconds.
    pub fn close(mut self) {
        for (index, conn) in self.conns.iter_mut().enumerate() {
            let xid = conn.take_xid();
            wire::append_close(&mut conn.out, xid);
            if matches!(conn.flush(), Ok(false)) && self.epoll.set_writable(&*conn, index, true).is_err() {
                return;
            }
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.closed.len() < self.conns.len() && Instant::now() < deadline {
            if self.pump(Duration::from_millis(100), |_, _, _| {}).is_err() {
                return;
            }
        }
    }
}
