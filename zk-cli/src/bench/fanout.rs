//! One node, many watching sessions: how long until all are told, and until the setter has its answer.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use zk_proto::{EventType, Reader, Request, Response, WatcherEvent, xid};

use super::error::{Error, Result};
use super::session::Session;
use super::space::Space;
use super::stats::{Faults, Latencies};
use super::swarm::Swarm;
use super::wire::{self, Template};

/// How long events are awaited.
const PATIENCE: Duration = Duration::from_secs(30);

/// Latencies of fan-out, all from the moment the set is sent.
pub struct Fanout {
    /// Until the last watcher has its event; one per round.
    pub all_told: Latencies,
    /// Until each watcher has its event.
    pub told: Latencies,
    /// Until the setter has its reply.
    pub set_ack: Latencies,
    /// What went wrong.
    pub faults: Faults,
}

/// Lets `watchers` sessions watch one node below the space's root, and sets it `rounds` times; before each
/// round all arm their watch anew. The setter is a thread of its own, so that its answer is not delayed by
/// the reading of the events.
pub fn run(
    server: SocketAddr,
    space: &Space,
    watchers: usize,
    rounds: usize,
    session_timeout_ms: i32,
) -> Result<Fanout> {
    space.create_nodes(server, "watched", 1, &space.value)?;
    let path = format!("{}/watched/{}", space.root, wire::slot_text(0));
    let mut swarm = Swarm::open(server, watchers, session_timeout_ms)?;
    let arm = Template::new(&Request::GetData { path: path.as_str().into(), watch: true });
    let mut fanout = Fanout {
        all_told: Latencies::new(),
        told: Latencies::new(),
        set_ack: Latencies::new(),
        faults: Faults::default(),
    };
    let mut setter = Session::open(server, session_timeout_ms)?;
    let (go, gone) = mpsc::channel::<()>();
    let (acks_in, acks) = mpsc::channel::<Result<(Instant, Instant)>>();
    std::thread::scope(|scope| {
        let path = path.as_str();
        scope.spawn(move || {
            // Ends when `go` is dropped, which happens whichever way the loop below ends.
            while gone.recv().is_ok() {
                if acks_in.send(set(&mut setter, path, &space.value)).is_err() {
                    break;
                }
            }
            // The server forgets the session by itself if this fails.
            let _ = setter.close();
        });
        let go = go;
        for _ in 0..rounds {
            swarm.ask_all(
                "getData with a watch",
                |_, xid, out| arm.append(out, xid, || 0),
                |_, body| match body.len() {
                    0 => Err("no data"),
                    _ => Ok(()),
                },
                &mut fanout.faults,
            )?;
            if go.send(()).is_err() {
                return Err(Error::Closed("setting the watched node"));
            }
            let told_at = await_events(&mut swarm, path, &mut fanout.faults)?;
            let ack = acks.recv_timeout(PATIENCE);
            let (sent, answered) = ack.map_err(|_| Error::Closed("setting the watched node"))??;
            fanout.set_ack.record_duration(answered - sent);
            for moment in &told_at {
                fanout.told.record_duration(moment.saturating_duration_since(sent));
            }
            if let Some(last) = told_at.iter().max() {
                fanout.all_told.record_duration(last.saturating_duration_since(sent));
            }
        }
        Ok(())
    })?;
    swarm.close();
    Ok(fanout)
}

fn set(setter: &mut Session, path: &str, value: &[u8]) -> Result<(Instant, Instant)> {
    let request = Request::SetData { path: path.into(), data: Some(value), version: -1 };
    let sent = Instant::now();
    match setter.call(&request)? {
        Ok(Response::Stat(_)) => Ok((sent, Instant::now())),
        Ok(_) => Err(Error::Wrong("set is not answered with a Stat".into())),
        Err(code) => Err(Error::Op { what: format!("set {path}"), code }),
    }
}

/// Waits until every session has its event; the moments at which they came.
fn await_events(swarm: &mut Swarm, path: &str, faults: &mut Faults) -> Result<Vec<Instant>> {
    let deadline = Instant::now() + PATIENCE;
    let mut told = vec![false; swarm.len()];
    let mut told_at = Vec::with_capacity(swarm.len());
    while told_at.len() < swarm.len() {
        swarm.pump(Duration::from_millis(100), |index, frame, _| {
            let right = is_event(frame, path);
            if !right || std::mem::replace(&mut told[index], true) {
                faults.invalid("watch event", if right { "told twice" } else { "wrong content" });
            } else {
                told_at.push(Instant::now());
            }
        })?;
        if swarm.closed() > 0 {
            return Err(Error::Closed("waiting for watch events"));
        }
        if Instant::now() > deadline {
            faults.lost((swarm.len() - told_at.len()) as u64, "watch event that did not come");
            break;
        }
    }
    Ok(told_at)
}

fn is_event(frame: &[u8], path: &str) -> bool {
    let Ok((header, body)) = wire::split(frame) else { return false };
    let event = WatcherEvent::decode(&mut Reader::new(body));
    header.xid == xid::EVENT
        && event.is_ok_and(|event| event.kind == EventType::NodeDataChanged && event.path == path)
}
