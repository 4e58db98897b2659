//! Whole elections in virtual time: servers with their connections, and just enough of what follows an election
//! to know whether it was worth something: followers join their leader, which needs a quorum of them and refuses
//! those whose history is better than its own.
//!
//! One seed decides everything. A failing seed is in the panic message.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::IpAddr;

use bytes::Bytes;

use super::*;
use crate::zab::PeerConn;
use crate::zab::election::{ConnOptions, ConnOutput, ConnTable};

/// How long a leader waits for followers, and a follower for its leader.
const PATIENCE_MS: u64 = 2000;
/// Faults happen until then.
const FAULTS_UNTIL_MS: u64 = 20_000;
/// From then on there has to be a leader that everybody follows. The longest pause of a server that waits for an
/// answer is 60 s.
const CALM_AT_MS: u64 = FAULTS_UNTIL_MS + 130_000;

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A dial of the first ends at the second.
    Dialed(ServerId, ServerId),
    DialFailed(ServerId, ServerId),
    Bytes(PeerConn, Bytes),
    Written(PeerConn),
    Closed(PeerConn),
    Tick(ServerId),
    /// A follower reaches its leader, or not. With the life in which it decided.
    Join(ServerId, ServerId, u64),
    /// A leader looks whether it has a quorum, a follower whether its leader still leads.
    Check(ServerId, u64),
    Fault,
}

struct Node {
    election: Election,
    table: ConnTable,
    /// On disk.
    epoch: u32,
    counter: u32,
    /// Counts searches, so that events of older ones are recognised.
    term: u64,
    followers: BTreeSet<ServerId>,
    /// Follows or leads, with the quorum of a leader.
    joined: Option<ServerId>,
    paused_until_ms: u64,
}

struct World {
    rng: fastrand::Rng,
    algorithm: Algorithm,
    ensemble: Arc<Ensemble>,
    now_ms: u64,
    queue: BinaryHeap<Reverse<(u64, u64, Event)>>,
    sequence: u64,
    nodes: BTreeMap<ServerId, Node>,
    /// Ends of connections: whose, and the other end.
    ends: BTreeMap<PeerConn, (ServerId, PeerConn)>,
    /// When the last bytes to an end arrive: they stay in order.
    arrival_ms: BTreeMap<PeerConn, u64>,
    next_conn: u64,
    epochs: u32,
}

impl World {
    fn new(algorithm: Algorithm, voters: i64, observers: i64, seed: u64, now_ms: u64) -> World {
        let ensemble = ensemble(voters, observers);
        let mut world = World {
            rng: fastrand::Rng::with_seed(seed),
            algorithm,
            ensemble,
            now_ms,
            queue: BinaryHeap::new(),
            sequence: 0,
            nodes: BTreeMap::new(),
            ends: BTreeMap::new(),
            arrival_ms: BTreeMap::new(),
            next_conn: 1,
            epochs: 3,
        };
        for id in 1..=voters + observers {
            let (epoch, counter) = (world.rng.u32(1..4), world.rng.u32(0..4));
            world.boot(ServerId(id), epoch, counter);
        }
        world
    }

    fn after(&mut self, ms: u64, event: Event) {
        self.at(self.now_ms + ms, event);
    }

    fn at(&mut self, at_ms: u64, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse((at_ms, self.sequence, event)));
    }

    fn boot(&mut self, id: ServerId, epoch: u32, counter: u32) {
        let options = ElectionOptions {
            algorithm: self.algorithm,
            seed: self.rng.u64(..),
            ..ElectionOptions::default()
        };
        let addresses = vec![crate::config::HostPort { host: format!("127.0.0.{id}"), port: 3888 }];
        let conn_options = ConnOptions { me: id, addresses, multi_address: false, hello_timeout_ms: 5000 };
        let mut table = ConnTable::new(conn_options);
        table.set_ensembles(self.ensemble.clone(), None, &mut Vec::new());
        let term = self.nodes.get(&id).map_or(0, |node| node.term);
        let election = Election::new(id, options);
        let followers = BTreeSet::new();
        let node =
            Node { election, table, epoch, counter, term, followers, joined: None, paused_until_ms: 0 };
        self.nodes.insert(id, node);
        self.look(id);
    }

    /// Begins a search.
    fn look(&mut self, id: ServerId) {
        let node = self.nodes.get_mut(&id).expect("a node");
        node.term += 1;
        node.joined = None;
        node.followers.clear();
        let mut out = Vec::new();
        node.election.start(self.now_ms, start(&self.ensemble, node.epoch, node.counter), &mut out);
        self.act(id, out);
    }

    fn act(&mut self, id: ServerId, out: Vec<Output>) {
        for output in out {
            let node = self.nodes.get_mut(&id).expect("a node");
            match output {
                Output::Send { to, notification } => {
                    let mut out = Vec::new();
                    node.table.send(to, &notification, &mut out);
                    self.act_conns(id, out);
                }
                Output::Decided { leader, .. } => {
                    node.table.forget_votes();
                    let term = node.term;
                    if leader != id {
                        let delay_ms = self.rng.u64(1..100);
                        self.after(delay_ms, Event::Join(id, leader, term));
                    } else {
                        self.join(id, id);
                    }
                    self.after(PATIENCE_MS, Event::Check(id, term));
                }
                Output::Gossip(_) | Output::VoterLooking(_) => {}
            }
        }
        if let Some(at_ms) = self.nodes[&id].election.next_deadline_ms() {
            self.at(at_ms.max(self.now_ms), Event::Tick(id));
        }
    }

    fn act_conns(&mut self, id: ServerId, out: Vec<ConnOutput>) {
        for output in out {
            match output {
                ConnOutput::Dial { to, address } => {
                    assert_eq!(address, None, "all addresses are configured");
                    let delay_ms = self.rng.u64(1..20);
                    let fails = self.faulty() && self.rng.u8(0..10) == 0;
                    let event = if fails { Event::DialFailed(id, to) } else { Event::Dialed(id, to) };
                    self.after(delay_ms, event);
                }
                ConnOutput::Write { conn, bytes } => {
                    let delay_ms = self.rng.u64(0..5);
                    self.after(delay_ms, Event::Written(conn));
                    let Some((_, other)) = self.ends.get(&conn).copied() else { continue };
                    let at_ms = self.arrival(other);
                    self.at(at_ms, Event::Bytes(other, bytes));
                }
                ConnOutput::Close { conn, .. } => self.cut(conn),
                ConnOutput::Deliver { from, notification } => {
                    let mut out = Vec::new();
                    let node = self.nodes.get_mut(&id).expect("a node");
                    node.election.notification(self.now_ms, from, notification, &mut out);
                    self.act(id, out);
                }
            }
        }
    }

    /// When something sent now arrives, after what was sent before on the same connection.
    fn arrival(&mut self, to: PeerConn) -> u64 {
        let slow = self.faulty() && self.rng.u8(0..20) == 0;
        let delay_ms = self.rng.u64(1..if slow { 1500 } else { 30 });
        let at_ms = (self.now_ms + delay_ms).max(self.arrival_ms.get(&to).copied().unwrap_or(0));
        self.arrival_ms.insert(to, at_ms);
        at_ms
    }

    /// One end is closed; the other one hears of it after what was written before.
    fn cut(&mut self, conn: PeerConn) {
        if let Some((_, other)) = self.ends.remove(&conn) {
            let at_ms = self.arrival(other);
            self.at(at_ms, Event::Closed(other));
        }
    }

    fn faulty(&self) -> bool {
        self.now_ms < FAULTS_UNTIL_MS
    }

    fn credentials(&self, id: ServerId) -> (u32, u32, ServerId) {
        (self.nodes[&id].epoch, self.nodes[&id].counter, id)
    }

    /// What the handshake between learner and leader would say.
    fn join(&mut self, id: ServerId, leader: ServerId) {
        let (mine, its) = (self.credentials(id), self.credentials(leader));
        // An established leader truncates a history that is longer than its own.
        let established = self.nodes[&leader].joined == Some(leader);
        let behind = (mine.0, mine.1) <= (its.0, its.1) || established && mine.0 <= its.0;
        let welcome = behind && self.nodes[&leader].election.state() == PeerState::Leading;
        if !welcome {
            return;
        }
        let at = self.nodes.get_mut(&leader).expect("a node");
        at.followers.insert(id);
        if !self.ensemble.is_quorum(&at.followers) {
            return;
        }
        let followers = at.followers.clone();
        if !established {
            self.epochs += 1;
        }
        let epoch = if established { at.epoch } else { self.epochs };
        let counter = at.counter;
        for follower in followers {
            let node = self.nodes.get_mut(&follower).expect("a node");
            (node.epoch, node.counter, node.joined) = (epoch, counter, Some(leader));
            node.election.refresh(Epoch(epoch));
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Dialed(from, to) => {
                let [near, far] = [self.next_conn, self.next_conn + 1].map(PeerConn);
                self.next_conn += 2;
                self.ends.insert(near, (from, far));
                self.ends.insert(far, (to, near));
                let remote = IpAddr::from([127, 0, 0, 1]);
                let mut out = Vec::new();
                self.nodes.get_mut(&to).expect("a node").table.accepted(self.now_ms, far, remote, &mut out);
                self.act_conns(to, out);
                let mut out = Vec::new();
                self.nodes.get_mut(&from).expect("a node").table.dialed(near, to, remote, &mut out);
                self.act_conns(from, out);
            }
            Event::DialFailed(from, to) => {
                let node = self.nodes.get_mut(&from).expect("a node");
                node.table.dial_failed(to);
                let mut out = Vec::new();
                node.election.unreachable(self.now_ms, to, &mut out);
                self.act(from, out);
            }
            Event::Bytes(conn, bytes) => {
                let Some((id, _)) = self.ends.get(&conn).copied() else { return };
                let mut out = Vec::new();
                self.nodes.get_mut(&id).expect("a node").table.received(conn, &bytes, &mut out);
                self.act_conns(id, out);
            }
            Event::Written(conn) => {
                let Some((id, _)) = self.ends.get(&conn).copied() else { return };
                let mut out = Vec::new();
                self.nodes.get_mut(&id).expect("a node").table.written(conn, &mut out);
                self.act_conns(id, out);
            }
            Event::Closed(conn) => {
                if let Some((id, _)) = self.ends.remove(&conn) {
                    self.nodes.get_mut(&id).expect("a node").table.closed(conn);
                }
            }
            Event::Tick(id) => {
                let node = self.nodes.get_mut(&id).expect("a node");
                if node.election.next_deadline_ms().is_some_and(|at_ms| at_ms <= self.now_ms) {
                    let mut out = Vec::new();
                    node.election.tick(self.now_ms, &mut out);
                    self.act(id, out);
                }
            }
            Event::Join(id, leader, term) if self.nodes[&id].term == term => {
                self.join(id, leader);
                // As a learner that is refused a connection tries again.
                let node = &self.nodes[&id];
                if node.joined.is_none() && !self.nodes[&leader].followers.contains(&id) {
                    self.after(100, Event::Join(id, leader, term));
                }
            }
            Event::Check(id, term) if self.nodes[&id].term == term => {
                let node = &self.nodes[&id];
                let well = match node.election.state() {
                    PeerState::Leading => {
                        let mine = |other: &&ServerId| self.nodes[*other].joined == Some(id);
                        let followers = node.followers.iter().filter(mine).copied().collect();
                        self.ensemble.is_quorum(&followers)
                    }
                    _ => node.joined.is_some_and(|leader| {
                        self.nodes[&leader].joined == Some(leader)
                            && self.nodes[&leader].followers.contains(&id)
                    }),
                };
                if well {
                    self.after(PATIENCE_MS / 4, Event::Check(id, term));
                } else {
                    self.look(id);
                }
            }
            Event::Join(..) | Event::Check(..) => {}
            Event::Fault => self.fault(),
        }
    }

    fn fault(&mut self) {
        let victim = ServerId(self.rng.i64(1..=self.nodes.len() as i64));
        match self.rng.u8(0..4) {
            // kill -9 and restart, with what was on disk.
            0 | 1 => {
                let conns: Vec<PeerConn> =
                    self.ends.iter().filter(|(_, (id, _))| *id == victim).map(|(conn, _)| *conn).collect();
                conns.into_iter().for_each(|conn| self.cut(conn));
                // Dials of the dead process come to nothing.
                self.queue.retain(|Reverse((_, _, event))| {
                    !matches!(event, Event::Dialed(from, _) | Event::DialFailed(from, _) if *from == victim)
                });
                let (epoch, counter, _) = self.credentials(victim);
                // It may have received something before it died.
                let more = self.rng.u32(0..2);
                self.boot(victim, epoch, counter + more);
            }
            2 => {
                let nth = self.rng.usize(0..self.ends.len().max(1));
                let Some((conn, id)) = self.ends.iter().nth(nth).map(|(conn, (id, _))| (*conn, *id)) else {
                    return;
                };
                self.cut(conn);
                self.nodes.get_mut(&id).expect("a node").table.closed(conn);
            }
            _ => {
                let node = self.nodes.get_mut(&victim).expect("a node");
                node.paused_until_ms = self.now_ms + self.rng.u64(1..4000);
            }
        }
    }

    /// Whose process has to run for an event.
    fn actor(&self, event: &Event) -> Option<ServerId> {
        match event {
            Event::Dialed(id, _) | Event::DialFailed(id, _) => Some(*id),
            Event::Bytes(conn, _) | Event::Written(conn) | Event::Closed(conn) => {
                self.ends.get(conn).map(|(id, _)| *id)
            }
            Event::Tick(id) | Event::Join(id, ..) | Event::Check(id, _) => Some(*id),
            Event::Fault => None,
        }
    }

    fn run(&mut self, until_ms: u64) {
        while let Some(Reverse((at_ms, _, _))) = self.queue.peek()
            && *at_ms <= until_ms
        {
            let Some(Reverse((at_ms, sequence, event))) = self.queue.pop() else { return };
            self.now_ms = at_ms;
            let paused_until_ms = self.actor(&event).map_or(0, |id| self.nodes[&id].paused_until_ms);
            if paused_until_ms > at_ms {
                // With its number, so that the order stays.
                self.queue.push(Reverse((paused_until_ms, sequence, event)));
            } else {
                self.handle(event);
            }
        }
        self.now_ms = until_ms;
    }

    /// The leader that all follow, if there is one.
    fn leader(&self) -> Option<ServerId> {
        let leaders: BTreeSet<Option<ServerId>> = self.nodes.values().map(|node| node.joined).collect();
        let only = leaders.first().copied().flatten().filter(|_| leaders.len() == 1)?;
        let roles = self.nodes.iter().all(|(id, node)| {
            let state = node.election.state();
            (state == PeerState::Leading) == (*id == only) && state != PeerState::Looking
        });
        roles.then_some(only)
    }

    fn states(&self) -> String {
        let line = |(id, node): (&ServerId, &Node)| {
            let (state, vote) = (node.election.state(), node.election.vote());
            format!("{id}: {state:?} {vote:?}, joined {:?}, has {}.{}", node.joined, node.epoch, node.counter)
        };
        self.nodes.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// Runs of each kind.
const SEEDS: u64 = 25;
/// Voters and observers.
const SIZES: [(i64, i64); 4] = [(3, 0), (5, 0), (7, 0), (3, 2)];

/// Without faults the first decision stands, and the best of a quorum leads.
fn elects_the_best_of_a_quorum(algorithm: Algorithm) {
    for (voters, observers) in SIZES {
        for seed in 0..SEEDS {
            let mut world = World::new(algorithm, voters, observers, seed, FAULTS_UNTIL_MS);
            let before: Vec<_> = (1..=voters).map(|id| world.credentials(ServerId(id))).collect();
            let what = format!("{algorithm:?}, {voters}+{observers} servers, seed {seed}");
            world.run(FAULTS_UNTIL_MS + 10_000);
            let leader = world.leader().unwrap_or_else(|| panic!("{what}: no leader\n{}", world.states()));
            let its = before[usize::try_from(leader.0 - 1).expect("an index")];
            let not_better = before.iter().filter(|other| **other <= its).count();
            assert!(not_better > before.len() / 2, "{what}: {leader} of {before:?}");
            assert_eq!(world.epochs, 4, "{what}: one leadership only");
        }
    }
}

fn always_ends_in_one_leader(algorithm: Algorithm) {
    for (voters, observers) in SIZES {
        for seed in 0..SEEDS {
            let mut world = World::new(algorithm, voters, observers, seed, 0);
            let mut at_ms = 0;
            while at_ms < FAULTS_UNTIL_MS {
                world.at(at_ms, Event::Fault);
                at_ms += world.rng.u64(1..2000);
            }
            world.run(CALM_AT_MS);
            let what = format!("{algorithm:?}, {voters}+{observers} servers, seed {seed}");
            let leader = world.leader();
            assert!(leader.is_some(), "{what}: no leader\n{}", world.states());
            // And it stays.
            let epochs = world.epochs;
            world.run(CALM_AT_MS + 20_000);
            assert_eq!((world.leader(), world.epochs), (leader, epochs), "{what}\n{}", world.states());
        }
    }
}

#[test]
fn fast_leader_election_elects_the_best_of_a_quorum() {
    elects_the_best_of_a_quorum(Algorithm::FastLeader);
}

#[test]
fn fast_leader_election_always_ends_in_one_leader() {
    always_ends_in_one_leader(Algorithm::FastLeader);
}

#[test]
fn query_rounds_elect_the_best_of_a_quorum() {
    elects_the_best_of_a_quorum(Algorithm::QueryRounds);
}

#[test]
fn query_rounds_always_end_in_one_leader() {
    always_ends_in_one_leader(Algorithm::QueryRounds);
}
