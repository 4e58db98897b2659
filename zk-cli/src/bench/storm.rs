//! Connections that come and go: connect, open a session, ask once, close.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use zk_proto::{ConnectResponse, ErrorCode, OpCode, Reader, Request, Response};

use super::conn::{Conn, SCRATCH_BYTES, State};
use super::engine::{Cost, Outcome};
use super::epoll::{Epoll, Events};
use super::error::{Context, Error, Result};
use super::process;
use super::stats::{Faults, Latencies, Timeline};
use super::wire::{self, Template};

/// After this many failed connections in a row there is no server.
const FAILURES_MAX: u32 = 10_000;

/// The two requests of each visit.
const EXISTS_XID: i32 = 1;
const CLOSE_XID: i32 = 2;

/// How far a connection has come: which answer it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Connect,
    Exists,
    Close,
    Done,
    Broken,
}

struct Visit {
    conn: Conn,
    step: Step,
    begun: Instant,
}

/// Keeps `parallel` visits going for `warmup` + `duration`. One answer counted is one whole visit.
pub fn run(
    server: SocketAddr,
    parallel: usize,
    warmup: Duration,
    duration: Duration,
    session_timeout_ms: i32,
    pid: Option<u32>,
) -> Result<Outcome> {
    let mut storm = Storm {
        server,
        session_timeout_ms,
        exists: Template::new(&Request::Exists { path: "/zookeeper".into(), watch: false }),
        epoll: Epoll::new().context("epoll")?,
        visits: Vec::with_capacity(parallel),
        begun: 0,
        faults: Faults::default(),
    };
    for slot in 0..parallel {
        let visit = storm.begin(slot)?;
        storm.visits.push(visit);
    }
    let mut latencies = Latencies::new();
    let mut timeline = Timeline::default();
    let own_pid = std::process::id();
    let cpu = || -> Result<(Option<f64>, f64)> {
        Ok((pid.map(process::cpu_seconds).transpose()?, process::cpu_seconds(own_pid)?))
    };
    let mut failures = 0;
    let mut answered = 0;
    let mut events = Events::new();
    let mut scratch = vec![0; SCRATCH_BYTES];
    let warm_until = Instant::now() + warmup;
    let mut measured_from: Option<(Instant, (Option<f64>, f64))> = None;
    loop {
        let now = Instant::now();
        match measured_from {
            None if now >= warm_until => measured_from = Some((now, cpu()?)),
            Some((start, _)) if now >= start + duration => break,
            _ => {}
        }
        for ready in storm.epoll.wait(&mut events, Duration::from_millis(20)).context("epoll")? {
            storm.serve(ready.index, ready.readable, &mut scratch)?;
            let visit = &storm.visits[ready.index];
            match visit.step {
                Step::Done => {
                    failures = 0;
                    if let Some((start, _)) = measured_from {
                        answered += 1;
                        latencies.record_duration(visit.begun.elapsed());
                        timeline.add(start.elapsed(), 1);
                    }
                }
                Step::Broken => {
                    failures += 1;
                    storm.faults.lost(1, "connection broken before its end");
                    if failures > FAILURES_MAX {
                        return Err(Error::Closed("connecting"));
                    }
                }
                _ => continue,
            }
            // Dropping the old connection takes it out of the epoll too.
            storm.visits[ready.index] = storm.begin(ready.index)?;
        }
    }
    let (start, before) = measured_from.unwrap_or_else(|| (Instant::now(), (None, 0.0)));
    let after = cpu()?;
    let cost = match (pid, before.0, after.0) {
        (Some(pid), Some(before), Some(after)) => {
            Some(Cost { cpu_s: after - before, memory: process::memory(pid)? })
        }
        _ => None,
    };
    Ok(Outcome {
        kinds: vec![("visit", latencies)],
        answered,
        start,
        elapsed: start.elapsed(),
        timeline,
        faults: storm.faults,
        cost,
        client_cpu_s: after.1 - before.1,
        conns: Vec::new(),
    })
}

struct Storm {
    server: SocketAddr,
    session_timeout_ms: i32,
    exists: Template,
    epoll: Epoll,
    visits: Vec<Visit>,
    begun: usize,
    faults: Faults,
}

impl Storm {
    fn begin(&mut self, slot: usize) -> Result<Visit> {
        let begun = Instant::now();
        let mut conn = Conn::connect(self.server, self.begun).context("connect")?;
        self.begun += 1;
        wire::append_connect(&mut conn.out, self.session_timeout_ms);
        let all_sent = matches!(conn.flush(), Ok(true));
        self.epoll.add(&conn, slot, !all_sent).context("epoll")?;
        Ok(Visit { conn, step: Step::Connect, begun })
    }

    fn serve(&mut self, slot: usize, readable: bool, scratch: &mut Vec<u8>) -> Result<()> {
        let Visit { conn, step, .. } = &mut self.visits[slot];
        let had_output = !conn.out.is_empty();
        let mut state = State::Open;
        if readable {
            let (faults, exists) = (&mut self.faults, &self.exists);
            let read = conn.read(scratch, |frame, out| {
                *step = match *step {
                    Step::Connect => match ConnectResponse::decode(&mut Reader::new(frame)) {
                        Ok(answer) if answer.timeout_ms > 0 => {
                            exists.append(out, EXISTS_XID, || 0);
                            Step::Exists
                        }
                        _ => Step::Broken,
                    },
                    Step::Exists => {
                        check_exists(frame, faults);
                        wire::append_close(out, CLOSE_XID);
                        Step::Close
                    }
                    Step::Close => match wire::split(frame) {
                        Ok((header, _)) if header.xid == CLOSE_XID && header.err == ErrorCode::OK => {
                            Step::Done
                        }
                        _ => Step::Broken,
                    },
                    ended => ended,
                };
            });
            state = read.unwrap_or(State::Closed);
        }
        match (state, conn.flush()) {
            (State::Open, Ok(all_sent)) => {
                if had_output == all_sent {
                    self.epoll.set_writable(&*conn, slot, !all_sent).context("epoll")?;
                }
            }
            _ if *step == Step::Done => {}
            _ => *step = Step::Broken,
        }
        Ok(())
    }
}

fn check_exists(frame: &[u8], faults: &mut Faults) {
    match wire::split(frame) {
        Ok((header, body)) if header.xid == EXISTS_XID => match header.err.ok() {
            Ok(()) => {
                let mut reader = Reader::new(body);
                let stat = Response::decode(OpCode::Exists, &mut reader);
                if stat.is_err() || reader.remaining() > 0 {
                    faults.invalid("exists", "wrong content");
                }
            }
            Err(code) => faults.error("exists", code),
        },
        _ => faults.invalid("exists", "reply out of order"),
    }
}
