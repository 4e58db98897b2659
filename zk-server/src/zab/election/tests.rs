//! Scenes that the tests of elections share.

mod connections;
mod defects;
mod fast;
mod query;
mod simulation;
mod vectors;

use std::sync::Arc;

use zk_proto::Zxid;

use super::{Algorithm, Election, ElectionOptions, Output, Start};
use crate::zab::ensemble::Ensemble;
use crate::zab::wire::Notification;
use crate::zab::{Epoch, PeerState, PeerType, ServerId};

/// Servers 1 to `voters` vote, `observers` more do not.
pub(super) fn ensemble(voters: i64, observers: i64) -> Arc<Ensemble> {
    let line = |id: i64| {
        let role = if id <= voters { "participant" } else { "observer" };
        format!("server.{id}=127.0.0.{id}:2888:3888:{role}\n")
    };
    let servers: String = (1..=voters + observers).map(line).collect();
    parsed(&format!("{servers}version=0"))
}

pub(super) fn parsed(text: &str) -> Arc<Ensemble> {
    Arc::new(Ensemble::parse(text).expect("a configuration"))
}

pub(super) fn start(ensemble: &Arc<Ensemble>, epoch: u32, counter: u32) -> Start {
    Start {
        last_zxid: Zxid::new(epoch, counter),
        current_epoch: Epoch(epoch),
        committed: ensemble.clone(),
        last_seen: None,
        peer_type: PeerType::Participant,
    }
}

/// One server of an ensemble, and what it said.
pub(super) struct Scene {
    pub election: Election,
    pub ensemble: Arc<Ensemble>,
    pub now_ms: u64,
}

impl Scene {
    /// Server `me`, not looking yet.
    pub fn new(me: i64, ensemble: Arc<Ensemble>) -> Scene {
        Scene::with(me, ensemble, ElectionOptions::default())
    }

    pub fn with(me: i64, ensemble: Arc<Ensemble>, options: ElectionOptions) -> Scene {
        Scene { election: Election::new(ServerId(me), options), ensemble, now_ms: 1000 }
    }

    pub fn query(me: i64, ensemble: Arc<Ensemble>) -> Scene {
        let options = ElectionOptions { algorithm: Algorithm::QueryRounds, ..ElectionOptions::default() };
        Scene::with(me, ensemble, options)
    }

    /// Looks for a leader, with a history of `epoch` that ends at `counter` in it.
    pub fn look(&mut self, epoch: u32, counter: u32) -> String {
        let mut out = Vec::new();
        self.election.start(self.now_ms, start(&self.ensemble, epoch, counter), &mut out);
        show(&out)
    }

    pub fn hear(&mut self, from: i64, n: Notification) -> String {
        show(&self.hear_raw(from, n))
    }

    pub fn hear_raw(&mut self, from: i64, n: Notification) -> Vec<Output> {
        let mut out = Vec::new();
        self.election.notification(self.now_ms, ServerId(from), n, &mut out);
        out
    }

    pub fn miss(&mut self, server: i64) -> String {
        let mut out = Vec::new();
        self.election.unreachable(self.now_ms, ServerId(server), &mut out);
        show(&out)
    }

    /// Lets time pass, from deadline to deadline.
    pub fn pass(&mut self, ms: u64) -> String {
        let until_ms = self.now_ms + ms;
        let mut out = Vec::new();
        while let Some(at_ms) = self.election.next_deadline_ms().filter(|at_ms| *at_ms <= until_ms) {
            assert!(at_ms >= self.now_ms, "a deadline in the past");
            self.now_ms = at_ms;
            self.election.tick(at_ms, &mut out);
            let next_ms = self.election.next_deadline_ms();
            assert!(next_ms.is_none_or(|next_ms| next_ms > at_ms), "a deadline that stays");
        }
        self.now_ms = until_ms;
        show(&out)
    }
}

/// A server that votes for `leader`, whose history of `epoch` ends at `counter`.
pub(super) fn looking(round: i64, leader: i64, epoch: u32, counter: u32) -> Notification {
    Notification {
        state: PeerState::Looking,
        leader,
        zxid: Zxid::new(epoch, counter).0,
        round,
        peer_epoch: i64::from(epoch),
        version: Notification::VERSION,
        config: bytes::Bytes::new(),
    }
}

pub(super) fn following(round: i64, leader: i64, epoch: u32, counter: u32) -> Notification {
    Notification { state: PeerState::Following, ..looking(round, leader, epoch, counter) }
}

pub(super) fn leading(round: i64, leader: i64, epoch: u32, counter: u32) -> Notification {
    Notification { state: PeerState::Leading, ..looking(round, leader, epoch, counter) }
}

/// Outputs in a line: `to 2: looking for 3 at 0x100000005 of 1, round 1; ...`.
pub(super) fn show(out: &[Output]) -> String {
    let one = |output: &Output| match output {
        Output::Send { to, notification: n } => {
            let state = format!("{:?}", n.state).to_lowercase();
            match n.leader {
                i64::MIN => format!("to {to}: {state}, round {}", n.round),
                leader => format!(
                    "to {to}: {state} {leader} at {:#x} of {}, round {}",
                    n.zxid, n.peer_epoch, n.round
                ),
            }
        }
        Output::Decided { leader, state } => {
            format!("decided: {} {leader}", format!("{state:?}").to_lowercase())
        }
        Output::Gossip(ensemble) => format!("gossip: version {:x}", ensemble.version),
        Output::VoterLooking(server) => format!("{server} is looking"),
    };
    out.iter().map(one).collect::<Vec<_>>().join("; ")
}
