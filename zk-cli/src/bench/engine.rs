//! Drives scripts over many connections, as fast as answers come (closed loop) or at a fixed rate (open loop).
//!
//! Each thread owns its connections and waits for all of them in one epoll. Per wake-up of a connection there
//! is one read, which takes every reply that has come, and one write, which carries all requests that follow.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use zk_proto::Zxid;

use super::conn::{Conn, SCRATCH_BYTES, State};
use super::epoll::{Epoll, Events, Timer};
use super::error::{Context, Error, Result};
use super::process;
use super::script::{Script, Verdict};
use super::stats::{Faults, Latencies, Timeline};
use super::swarm::Swarm;
use super::wire;
use super::workload::Target;

/// How long replies are awaited after the end.
const DRAIN: Duration = Duration::from_secs(20);

/// Arrivals of an open loop that may wait on one connection before the load counts as too high.
const LATE_MAX: usize = 1_000_000;

/// When requests are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// A connection keeps `depth` requests under way: the next goes out when an answer comes in.
    Closed {
        /// Requests under way per connection.
        depth: usize,
    },
    /// Requests are due at fixed moments, whatever the answers do, and go over the connections in turn.
    /// Latency counts from the due moment, so waiting behind a slow answer counts too.
    Open {
        /// Requests per second, all connections together.
        per_second: f64,
    },
}

/// When a load ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Extent {
    /// After a time.
    Time {
        /// Load before the measurement begins.
        warmup: Duration,
        /// Length of the measurement.
        duration: Duration,
    },
    /// After a number of requests, all measured.
    Count {
        /// Requests of each connection.
        per_connection: u64,
    },
}

/// What load to make.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Connections, each with a session of its own.
    pub connections: usize,
    /// Threads of the load generator.
    pub threads: usize,
    /// When requests are sent.
    pub pace: Pace,
    /// When it ends.
    pub extent: Extent,
    /// Timeout of the sessions.
    pub session_timeout_ms: i32,
}

/// What a server process, or those of an ensemble together, have spent during a measurement.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// CPU time, s.
    pub cpu_s: f64,
    /// Memory at the end.
    pub memory: process::Memory,
}

/// What came of a load.
pub struct Outcome {
    /// Latencies by kind of request.
    pub kinds: Vec<(&'static str, Latencies)>,
    /// Requests answered within the measurement.
    pub answered: u64,
    /// When the measurement began.
    pub start: Instant,
    /// Length of the measurement.
    pub elapsed: Duration,
    /// Completions over time.
    pub timeline: Timeline,
    /// What went wrong, warm-up and end included.
    pub faults: Faults,
    /// What the server spent, when its pid is known.
    pub cost: Option<Cost>,
    /// CPU time of the load generator, s.
    pub client_cpu_s: f64,
    /// The connections, their sessions open.
    pub conns: Vec<Conn>,
}

impl Outcome {
    /// Answers per second.
    pub fn per_second(&self) -> f64 {
        self.answered as f64 / self.elapsed.as_secs_f64()
    }

    /// Answers per second of the server's CPU time.
    pub fn per_cpu_second(&self) -> Option<f64> {
        self.cost.map(|cost| self.answered as f64 / cost.cpu_s)
    }

    /// Ends the sessions, so that the server is rid of them and of what they own. The answers are not awaited:
    /// a server that fails here does so after the measurement.
    pub fn close_sessions(&mut self) {
        for mut conn in self.conns.drain(..) {
            let xid = conn.take_xid();
            wire::append_close(&mut conn.out, xid);
            let _ = conn.flush();
        }
    }

    /// Latencies of the kind at `index` of [`Script::KINDS`].
    pub fn latencies(&self, index: usize) -> &Latencies {
        &self.kinds[index].1
    }
}

/// Moments of a run, seen from its start.
#[derive(Debug, Clone, Copy)]
struct Window {
    start: Instant,
    measure_from: Duration,
    measure_to: Duration,
}

struct Sent<T> {
    xid: i32,
    /// When it was sent, or was due, after the start.
    at: Duration,
    what: T,
}

struct Client<S: Script> {
    conn: Conn,
    script: S,
    sent: VecDeque<Sent<S::Sent>>,
    /// Due moments of what could not be sent yet.
    late: VecDeque<Duration>,
    /// Highest zxid that a reply has shown.
    last_zxid: Zxid,
    remaining: u64,
    closed: bool,
}

/// What one thread has seen.
struct Tally {
    kinds: Vec<Latencies>,
    answered: u64,
    timeline: Timeline,
    faults: Faults,
    conns: Vec<Conn>,
}

/// Opens the connections, runs the script that `make` gives for each (by its index) and measures.
pub fn run<S, F>(target: &Target, load: &Load, make: F) -> Result<Outcome>
where
    S: Script + Send,
    S::Sent: Send,
    F: Fn(usize) -> S,
{
    let address_of = |index| target.address_of(index);
    let swarm = Swarm::open_spread(address_of, load.connections, load.session_timeout_ms)?;
    let threads = load.threads.clamp(1, load.connections.max(1));
    let mut groups: Vec<Vec<Client<S>>> = (0..threads).map(|_| Vec::new()).collect();
    for (index, conn) in swarm.into_conns()?.into_iter().enumerate() {
        groups[index % threads].push(Client::new(conn, make(index), load));
    }
    let own_pid = std::process::id();
    let pids = &target.pids[..];
    let cpu = || process::cpu_seconds_of(pids);
    let start = Instant::now();
    let (measure_from, measure_to) = match load.extent {
        Extent::Time { warmup, duration } => (warmup, warmup + duration),
        Extent::Count { .. } => (Duration::ZERO, Duration::MAX),
    };
    let window = Window { start, measure_from, measure_to };

    std::thread::scope(|scope| {
        let mut workers = Vec::with_capacity(threads);
        for (index, clients) in groups.into_iter().enumerate() {
            let arrivals = Arrivals::new(load.pace, index, threads);
            let worker = Worker::new(clients, window, load.pace, arrivals)?;
            workers.push(scope.spawn(move || worker.run()));
        }
        sleep_until(start + measure_from);
        let (server_before, client_before) = (cpu()?, process::cpu_seconds(own_pid)?);
        let mut spent = None;
        if let Extent::Time { .. } = load.extent {
            sleep_until(start + measure_to);
            spent = Some((cpu()?, process::cpu_seconds(own_pid)?));
        }
        let mut outcome = Outcome {
            kinds: S::KINDS.iter().map(|&kind| (kind, Latencies::new())).collect(),
            answered: 0,
            start: start + measure_from,
            elapsed: measure_to.saturating_sub(measure_from),
            timeline: Timeline::default(),
            faults: Faults::default(),
            cost: None,
            client_cpu_s: 0.0,
            conns: Vec::with_capacity(load.connections),
        };
        for worker in workers {
            let tally = worker.join().expect("a load thread does not panic")?;
            for ((_, all), part) in outcome.kinds.iter_mut().zip(&tally.kinds) {
                all.merge(part);
            }
            outcome.answered += tally.answered;
            outcome.timeline.merge(&tally.timeline);
            outcome.faults.merge(tally.faults);
            outcome.conns.extend(tally.conns);
        }
        let (server_after, client_after) = match spent {
            Some(spent) => spent,
            None => {
                outcome.elapsed = start.elapsed();
                (cpu()?, process::cpu_seconds(own_pid)?)
            }
        };
        if !pids.is_empty() {
            let cpu_s = server_after - server_before;
            outcome.cost = Some(Cost { cpu_s, memory: process::memory_of(pids)? });
        }
        outcome.client_cpu_s = client_after - client_before;
        Ok(outcome)
    })
}

fn sleep_until(moment: Instant) {
    std::thread::sleep(moment.saturating_duration_since(Instant::now()));
}

/// The due moments of an open loop, for one thread.
struct Arrivals {
    interval: Option<Duration>,
    first: Duration,
    count: u32,
}

impl Arrivals {
    fn new(pace: Pace, thread: usize, threads: usize) -> Self {
        let interval = match pace {
            Pace::Closed { .. } => None,
            Pace::Open { per_second } => Some(Duration::from_secs_f64(threads as f64 / per_second)),
        };
        let first = interval.unwrap_or_default().mul_f64(thread as f64 / threads as f64);
        Arrivals { interval, first, count: 0 }
    }

    /// The next due moment; `None` in a closed loop.
    fn peek(&self) -> Option<Duration> {
        self.interval.map(|interval| self.first + interval * self.count)
    }
}

impl<S: Script> Client<S> {
    fn new(conn: Conn, script: S, load: &Load) -> Self {
        let depth = match load.pace {
            Pace::Closed { depth } => depth,
            Pace::Open { .. } => 64,
        };
        let remaining = match load.extent {
            Extent::Time { .. } => u64::MAX,
            Extent::Count { per_connection } => per_connection,
        };
        Client {
            conn,
            script,
            sent: VecDeque::with_capacity(depth),
            late: VecDeque::new(),
            last_zxid: Zxid::ZERO,
            remaining,
            closed: false,
        }
    }

    /// Encodes the next request, if the script has one now.
    fn next(&mut self, at: Duration) -> bool {
        if self.remaining == 0 || self.closed {
            return false;
        }
        let xid = self.conn.peek_xid();
        let Some(what) = self.script.next(xid, &mut self.conn.out) else { return false };
        self.conn.take_xid();
        self.remaining -= 1;
        self.sent.push_back(Sent { xid, at, what });
        true
    }

    /// Sends the late ones, oldest first, as far as the script goes.
    fn send_late(&mut self) {
        while let Some(&due) = self.late.front() {
            if !self.next(due) {
                break;
            }
            self.late.pop_front();
        }
    }
}

struct Worker<S: Script> {
    epoll: Epoll,
    timer: Timer,
    clients: Vec<Client<S>>,
    window: Window,
    pace: Pace,
    /// The load ends by count, not by time.
    counted: bool,
    arrivals: Arrivals,
    scratch: Vec<u8>,
    tally: Tally,
}

impl<S: Script> Worker<S> {
    fn new(clients: Vec<Client<S>>, window: Window, pace: Pace, arrivals: Arrivals) -> Result<Self> {
        let epoll = Epoll::new().context("epoll")?;
        for (index, client) in clients.iter().enumerate() {
            epoll.add(&client.conn, index, false).context("epoll")?;
        }
        Ok(Worker {
            timer: Timer::new(&epoll).context("timerfd")?,
            epoll,
            clients,
            window,
            pace,
            counted: window.measure_to == Duration::MAX,
            arrivals,
            scratch: vec![0; SCRATCH_BYTES],
            tally: Tally {
                kinds: S::KINDS.iter().map(|_| Latencies::new()).collect(),
                answered: 0,
                timeline: Timeline::default(),
                faults: Faults::default(),
                conns: Vec::new(),
            },
        })
    }

    fn run(mut self) -> Result<Tally> {
        let mut events = Events::new();
        self.begin()?;
        loop {
            let now = self.window.start.elapsed();
            let sending = now < self.window.measure_to;
            if sending {
                self.arrive(now)?;
            }
            if (!sending || self.counted) && (self.done(sending) || self.overdue(now)) {
                break;
            }
            for ready in self.epoll.wait(&mut events, Duration::from_millis(20)).context("epoll")? {
                self.serve(ready.index, ready.readable)?;
            }
        }
        for client in self.clients {
            self.tally.faults.lost(client.sent.len() as u64, "request not answered");
            self.tally.faults.lost(client.late.len() as u64, "request too late to be sent");
            self.tally.conns.push(client.conn);
        }
        Ok(self.tally)
    }

    fn done(&self, sending: bool) -> bool {
        self.clients.iter().all(|client| {
            let all_sent = client.late.is_empty() && (!sending || client.remaining == 0);
            client.closed || client.sent.is_empty() && all_sent
        })
    }

    fn overdue(&self, now: Duration) -> bool {
        now.saturating_sub(self.window.measure_to) > DRAIN
    }

    /// The first requests of a closed loop.
    fn begin(&mut self) -> Result<()> {
        if let Pace::Closed { depth } = self.pace {
            for index in 0..self.clients.len() {
                let now = self.window.start.elapsed();
                let client = &mut self.clients[index];
                while client.sent.len() < depth && client.next(now) {}
                self.flush(index, true)?;
            }
        }
        Ok(())
    }

    /// Sends what is due in an open loop, and sets the timer for what follows.
    fn arrive(&mut self, now: Duration) -> Result<()> {
        let Some(mut due) = self.arrivals.peek() else { return Ok(()) };
        let mut first = None;
        while due <= now {
            let index = self.arrivals.count as usize % self.clients.len();
            first.get_or_insert(self.arrivals.count);
            self.arrivals.count += 1;
            let client = &mut self.clients[index];
            client.late.push_back(due);
            if client.late.len() > LATE_MAX {
                return Err(Error::Usage("the server cannot keep up with this rate at all".into()));
            }
            due = self.arrivals.peek().unwrap_or(Duration::MAX);
        }
        // One write per connection, however many requests became due on it.
        if let Some(first) = first {
            let touched = (self.arrivals.count - first).min(self.clients.len() as u32);
            for k in 0..touched {
                let index = (first + k) as usize % self.clients.len();
                let client = &mut self.clients[index];
                let had_output = !client.conn.out.is_empty();
                client.send_late();
                if !had_output {
                    self.flush(index, true)?;
                }
            }
        }
        self.timer.set(due.saturating_sub(self.window.start.elapsed())).context("timerfd")
    }

    /// Reads what has come on a connection, checks it, and sends what follows.
    fn serve(&mut self, index: usize, readable: bool) -> Result<()> {
        let Window { start, measure_from, measure_to } = self.window;
        let open_loop = matches!(self.pace, Pace::Open { .. });
        let Client { conn, script, sent, last_zxid, .. } = &mut self.clients[index];
        let had_output = !conn.out.is_empty();
        let mut state = State::Open;
        let mut now = start.elapsed();
        let mut counted = 0;
        if readable {
            let Tally { kinds, answered, faults, .. } = &mut self.tally;
            let mut first = true;
            let read = conn.read(&mut self.scratch, |frame, _| {
                if std::mem::take(&mut first) {
                    now = start.elapsed();
                }
                let Some((kind, at)) = check(script, sent, last_zxid, frame, faults) else { return };
                // In an open loop what was due within the window counts, however late its answer.
                let moment = if open_loop { at } else { now };
                if moment >= measure_from && moment < measure_to {
                    kinds[kind].record((now.saturating_sub(at)).as_nanos() as u64);
                }
                if now >= measure_from && now < measure_to {
                    *answered += 1;
                    counted += 1;
                }
            });
            state = read.unwrap_or(State::Closed);
        }
        if counted > 0 {
            self.tally.timeline.add(now - measure_from, counted);
        }
        let client = &mut self.clients[index];
        if state == State::Closed {
            return self.give_up(index);
        }
        match self.pace {
            Pace::Closed { depth } if now < measure_to => {
                while client.sent.len() < depth && client.next(now) {}
            }
            Pace::Closed { .. } => {}
            Pace::Open { .. } => client.send_late(),
        }
        self.flush(index, !had_output)
    }

    /// Sends; `was_empty` says that nothing was left unsent before.
    fn flush(&mut self, index: usize, was_empty: bool) -> Result<()> {
        let conn = &mut self.clients[index].conn;
        match conn.flush() {
            Ok(all_sent) if all_sent != was_empty => {
                self.epoll.set_writable(&*conn, index, !all_sent).context("epoll")
            }
            Ok(_) => Ok(()),
            Err(_) => self.give_up(index),
        }
    }

    fn give_up(&mut self, index: usize) -> Result<()> {
        let client = &mut self.clients[index];
        if !std::mem::replace(&mut client.closed, true) {
            self.tally.faults.lost(1, "connection closed by the server");
            self.epoll.remove(&client.conn).context("epoll")?;
        }
        Ok(())
    }
}

/// Checks a reply against the oldest request under way; its kind and moment, when it can be told.
fn check<S: Script>(
    script: &mut S,
    sent: &mut VecDeque<Sent<S::Sent>>,
    last_zxid: &mut Zxid,
    frame: &[u8],
    faults: &mut Faults,
) -> Option<(usize, Duration)> {
    let Ok((header, body)) = wire::split(frame) else {
        faults.invalid("reply", "no header");
        return None;
    };
    if header.xid < 0 {
        faults.invalid("reply", "event or ping that nobody asked for");
        return None;
    }
    let Some(Sent { xid, at, what }) = sent.pop_front() else {
        faults.invalid("reply", "nothing was asked");
        return None;
    };
    let kind = S::kind(&what);
    if xid != header.xid {
        faults.invalid(S::KINDS[kind], "reply out of order");
        return None;
    }
    if header.zxid < std::mem::replace(last_zxid, header.zxid) {
        faults.invalid(S::KINDS[kind], "zxid went back");
    }
    match script.check(what, header, body) {
        Verdict::Right => {}
        Verdict::Wrong(why) => faults.invalid(S::KINDS[kind], why),
        Verdict::Failed => faults.error(S::KINDS[kind], header.err),
    }
    Some((kind, at))
}
