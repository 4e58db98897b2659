//! Learners and our leader, with disks and connections of any speed: whatever each begins with, in the end all
//! hold the leader's history, on disk and in the tree, and no acknowledgement was ahead of its disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fastrand::Rng;

use super::*;
use crate::zab::history::History;
use crate::zab::leader::{self, BrokenChain, Elected, Leader, LeaderOptions};

/// A state: all transactions since the beginning. Each payload ends with the sum over all before it.
type Log = Vec<Proposal>;

fn sum(log: &[Proposal]) -> u64 {
    log.iter().fold(0, |sum, txn| {
        txn.payload.iter().fold(sum, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)))
    })
}

fn append(log: &mut Log, zxid: Zxid) -> Proposal {
    let txn = txn_of(zxid, -1, &sum(log).to_be_bytes());
    log.push(txn.clone());
    txn
}

/// Whether the transaction was made for this state.
fn fits(log: &[Proposal], txn: &Proposal) -> bool {
    txn.payload.ends_with(&sum(log).to_be_bytes())
}

fn last(log: &[Proposal]) -> Zxid {
    log.last().map_or(Zxid::ZERO, |txn| txn.zxid)
}

/// On the way from the leader to a learner.
enum Item {
    Bytes(Vec<u8>),
    Tree(Log),
}

enum Op {
    Accepted(Epoch),
    Truncate(Zxid),
    CommitSync(Log, Epoch),
    Install(Log, Epoch),
    Append(Proposal),
}

struct Node {
    id: i64,
    learner: Learner,
    conn: PeerConn,
    connected: bool,
    // Disk
    epochs: Epochs,
    disk: Log,
    ops: VecDeque<Op>,
    // Memory
    tree: Log,
    pending: VecDeque<Proposal>,
    committed: Zxid,
    received: Option<Log>,
    staged: Log,
    // Network
    inbound: VecDeque<Item>,
    buffer: BytesMut,
    attempts: u32,
}

struct Cluster {
    rng: Rng,
    leader: Leader,
    history: History,
    log: Log,
    active: Option<Epoch>,
    /// Committed and durable: what a pinned tree holds.
    applied: Zxid,
    committed: Zxid,
    ops: VecDeque<leader::Output>,
    appended: VecDeque<Zxid>,
    nodes: Vec<Node>,
    next_conn: u64,
    /// To the leader, by connection.
    outbound: BTreeMap<PeerConn, BytesMut>,
    ways: BTreeSet<&'static str>,
    seed: u64,
}

impl Cluster {
    fn new(seed: u64) -> Cluster {
        let mut rng = Rng::with_seed(seed);
        let mut common = Log::new();
        for counter in 1..=rng.u32(0..8) {
            append(&mut common, z(1, counter));
        }
        let mut log = common.clone();
        let second = rng.bool();
        for counter in 1..=rng.u32(0..5) {
            let next = if second { z(2, counter) } else { z(1, common.len() as u32 + counter) };
            append(&mut log, next);
        }
        let current = Epoch(if second { 2 } else { 1 });
        let epochs = Epochs { accepted: Epoch(2), current };
        // The window begins anywhere.
        let begin = rng.usize(0..=log.len());
        let mut history = History::new(last(&log[..begin]), 500);
        log[begin..].iter().for_each(|txn| history.push(txn.clone()));
        let members = ensemble(0, &THREE);
        let options =
            LeaderOptions { snapshot_instead_of_truncation_bytes: rng.u64(0..2), ..LeaderOptions::default() };
        let elected =
            Elected { me: ServerId(2), epochs, last: last(&log), committed: members, last_seen: None };
        let mut out = Vec::new();
        let mut leader = Leader::new(elected, options, 0, &mut out);
        leader.snapshot_size(1);
        let nodes = [1, 3].map(|id| {
            let mut disk = log[..rng.usize(0..=log.len())].to_vec();
            if second && rng.bool() {
                // What it logged at the end of the epoch before and nobody else.
                disk = common.clone();
                for extra in 1..=rng.u32(0..3) {
                    append(&mut disk, z(1, common.len() as u32 + extra));
                }
            }
            let current = Epoch(last(&disk).epoch().max(1));
            Node::new(id, disk, Epochs { accepted: Epoch(2), current })
        });
        let mut cluster = Cluster {
            rng,
            leader,
            history,
            applied: last(&log),
            committed: last(&log),
            log,
            active: None,
            ops: VecDeque::new(),
            appended: VecDeque::new(),
            nodes: nodes.into(),
            next_conn: 0,
            outbound: BTreeMap::new(),
            ways: BTreeSet::new(),
            seed,
        };
        cluster.leader_outputs(out);
        cluster
    }

    fn leader_outputs(&mut self, mut out: Vec<leader::Output>) {
        self.leader.flush(0, &self.history, &mut out);
        for output in out {
            match output {
                leader::Output::Send { conn, bytes } => self.put(conn, Item::Bytes(bytes)),
                leader::Output::StreamSnapshot { conn } => {
                    let tree = self.log.iter().filter(|txn| txn.zxid <= self.applied).cloned().collect();
                    self.put(conn, Item::Tree(tree));
                    self.with_leader(|leader, _, _| leader.snapshot_sent(0, conn));
                }
                leader::Output::PinSnapshot { conn } => {
                    let applied = self.applied;
                    self.with_leader(|leader, history, out| {
                        leader.snapshot_pinned(0, conn, applied, history, out)
                    });
                }
                leader::Output::Close { conn, .. } => self.cut(conn),
                leader::Output::Active { epoch } => self.active = Some(epoch),
                leader::Output::Commit(zxid) => {
                    self.committed = zxid;
                    self.apply();
                }
                leader::Output::StepDown(reason) => panic!("seed {}: {reason}", self.seed),
                leader::Output::Activate { .. } | leader::Output::ConfigSeen(_) => {}
                op => self.ops.push_back(op),
            }
        }
    }

    fn with_leader(&mut self, input: impl FnOnce(&mut Leader, &History, &mut Vec<leader::Output>)) {
        let mut out = Vec::new();
        input(&mut self.leader, &self.history, &mut out);
        self.leader_outputs(out);
    }

    fn apply(&mut self) {
        let durable = self.appended.front().map_or(Zxid(i64::MAX), |next| Zxid(next.0 - 1));
        self.applied = self.committed.min(durable);
    }

    fn put(&mut self, conn: PeerConn, item: Item) {
        if let Some(node) = self.nodes.iter_mut().find(|node| node.conn == conn && node.connected) {
            node.inbound.push_back(item);
        }
    }

    /// The leader has closed a connection: the learner hears of it.
    fn cut(&mut self, conn: PeerConn) {
        self.outbound.remove(&conn);
        let Some(at) = self.nodes.iter().position(|node| node.conn == conn && node.connected) else { return };
        self.nodes[at].connected = false;
        self.node(at, |learner, out| learner.closed(conn, out));
    }

    /// An input of a learner, and what follows from it.
    fn node(&mut self, at: usize, input: impl FnOnce(&mut Learner, &mut Vec<Output>)) {
        let mut out = Vec::new();
        input(&mut self.nodes[at].learner, &mut out);
        self.node_outputs(at, out);
    }

    fn node_outputs(&mut self, at: usize, out: Vec<Output>) {
        for output in out {
            let node = &mut self.nodes[at];
            match output {
                Output::Dial(_) => {}
                Output::Send { conn, bytes } => {
                    self.outbound.entry(conn).or_default().extend_from_slice(&bytes);
                }
                Output::Close(conn) => {
                    node.connected = false;
                    node.inbound.clear();
                    self.outbound.remove(&conn);
                    self.with_leader(|leader, _, out| leader.closed(conn, out));
                }
                Output::WriteAccepted(epoch) => node.ops.push_back(Op::Accepted(epoch)),
                Output::Truncate(zxid) => {
                    self.ways.insert("TRUNC");
                    node.ops.push_back(Op::Truncate(zxid));
                }
                Output::ReceiveSnapshot { .. } => {}
                Output::AdoptSnapshot { zxid } => {
                    node.tree = node.received.take().unwrap();
                    assert!(last(&node.tree) <= zxid);
                    node.pending.clear();
                }
                Output::StageCommit { txns, check_digests } => {
                    self.ways.insert("DIFF");
                    let mut wrong = None;
                    for txn in txns {
                        if check_digests && !fits(&node.tree, &txn) {
                            wrong = wrong.or(Some(txn.zxid));
                        }
                        node.tree.push(txn.clone());
                        node.staged.push(txn);
                    }
                    self.node(at, |learner, out| learner.staged(0, wrong.map_or(Ok(()), Err), out));
                }
                Output::CommitSync(epoch) => {
                    let staged = std::mem::take(&mut node.staged);
                    node.ops.push_back(Op::CommitSync(staged, epoch));
                }
                Output::Install { zxid, epoch } => {
                    assert!(last(&node.tree) <= zxid);
                    self.ways.insert("SNAP");
                    node.staged.clear();
                    node.ops.push_back(Op::Install(node.tree.clone(), epoch));
                }
                Output::Propose(txn) => {
                    node.pending.push_back(txn.clone());
                    node.ops.push_back(Op::Append(txn));
                }
                Output::Commit(zxid) => {
                    node.committed = zxid;
                    node.apply();
                }
                Output::Ended(ended) => {
                    // What was asked of the disk is done before the next attempt.
                    node.connected = false;
                    while let Some(op) = node.ops.pop_front() {
                        node.perform(&op);
                    }
                    node.staged.clear();
                    node.received = None;
                    node.pending.clear();
                    if ended.rebuild {
                        node.tree = node.disk.clone();
                    } else {
                        // The tree holds the log's end when an attempt begins.
                        let applied = last(&node.tree);
                        let rest = node.disk.iter().filter(|txn| txn.zxid > applied).cloned();
                        node.tree.extend(rest.collect::<Vec<_>>());
                    }
                    assert_eq!(node.tree, node.disk, "seed {}: {ended:?}", self.seed);
                    node.learner = node.begin(ended.memory);
                }
                Output::Ready { committed, .. } => {
                    node.committed = committed;
                    node.apply();
                }
                other => {
                    let harmless =
                        matches!(other, Output::Alarm(_) | Output::ConfigSeen(_) | Output::Activate { .. });
                    assert!(harmless, "{other:?}");
                }
            }
        }
    }

    /// The next operation of a learner's disk is finished.
    fn node_disk(&mut self, at: usize) {
        let Some(op) = self.nodes[at].ops.pop_front() else { return };
        self.nodes[at].perform(&op);
        self.nodes[at].apply();
        self.node(at, |learner, out| match op {
            Op::Accepted(epoch) => learner.accepted_written(0, epoch, out),
            Op::Truncate(zxid) => learner.truncated(0, Ok(zxid), out),
            Op::CommitSync(_, epoch) | Op::Install(_, epoch) => learner.history_durable(0, epoch, out),
            Op::Append(txn) => learner.durable(txn.zxid, out),
        });
    }

    fn connect(&mut self, at: usize) {
        if self.nodes[at].connected {
            return;
        }
        self.next_conn += 1;
        let conn = PeerConn(self.next_conn);
        let node = &mut self.nodes[at];
        node.attempts += 1;
        (node.conn, node.connected) = (conn, true);
        node.inbound.clear();
        node.buffer.clear();
        self.with_leader(|leader, _, out| leader.accepted(0, conn, out));
        self.node(at, |learner, out| learner.connected(0, conn, out));
    }

    /// Some of what the leader has sent arrives.
    fn deliver(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let conn = node.conn;
        match node.inbound.pop_front() {
            Some(Item::Tree(tree)) => {
                node.received = Some(tree);
                self.node(at, |learner, _| learner.snapshot_received(0));
            }
            Some(Item::Bytes(bytes)) => {
                node.buffer.extend_from_slice(&bytes);
                while self.nodes[at].connected && self.nodes[at].conn == conn {
                    let packet = QuorumPacket::decode(&mut self.nodes[at].buffer, 1 << 20).unwrap();
                    let Some(packet) = packet else { break };
                    let packet = ToLearner::try_from(packet).unwrap();
                    self.node(at, |learner, out| learner.packet(0, conn, packet, out));
                }
            }
            None => {}
        }
    }

    /// The leader reads what a learner has sent.
    fn hear(&mut self, at: usize) {
        let conn = self.nodes[at].conn;
        while let Some(buffer) = self.outbound.get_mut(&conn)
            && let Some(packet) = QuorumPacket::decode(buffer, 1 << 20).unwrap()
        {
            if let Ok(ToLeader::Ack(zxid)) = ToLeader::try_from(packet.clone()) {
                let node = &self.nodes[at];
                let durable =
                    if zxid.counter() == 0 { node.epochs.current.start() } else { last(&node.disk) };
                assert!(durable >= zxid, "seed {}: {zxid} acknowledged, not on disk", self.seed);
            }
            self.with_leader(|leader, history, out| leader.packet(0, conn, packet, history, out));
        }
    }

    fn leader_disk(&mut self) {
        if let Some(zxid) = self.appended.pop_front() {
            self.apply();
            return self.with_leader(|leader, _, _| leader.durable(zxid));
        }
        let broken = self.rng.bool();
        let Some(op) = self.ops.pop_front() else { return };
        let log = self.log.clone();
        self.with_leader(|leader, history, out| match op {
            leader::Output::WriteAccepted(epoch) => leader.accepted_written(0, epoch, history, out),
            leader::Output::CommitSync(epoch) => leader.history_durable(0, epoch, out),
            leader::Output::ReadChain { conn, from, to, .. } => {
                let known = from == Zxid::ZERO || log.iter().any(|txn| txn.zxid == from);
                let records = log.into_iter().filter(|txn| txn.zxid > from && txn.zxid <= to).collect();
                let chain = if broken || !known { Err(BrokenChain) } else { Ok(records) };
                leader.chain(0, conn, chain, history, out);
            }
            other => panic!("{other:?}"),
        });
    }

    fn propose(&mut self) {
        let Some(epoch) = self.active else { return };
        let zxid = Zxid(last(&self.log).max(epoch.start()).0 + 1);
        let txn = append(&mut self.log, zxid);
        self.history.push(txn.clone());
        self.appended.push_back(zxid);
        self.with_leader(|leader, _, out| leader.propose(0, &[txn], out));
    }

    /// The most attempts that a learner took, and the ways in which they were synchronised.
    fn run(mut self) -> (u32, BTreeSet<&'static str>) {
        let (mut proposals, mut cuts) = (self.rng.u32(0..12), self.rng.u32(0..4));
        for step in 0..3000 {
            let at = self.rng.usize(0..2);
            match self.rng.u32(0..if step < 600 { 24 } else { 20 }) {
                0..2 => self.connect(at),
                2..8 => self.deliver(at),
                8..13 => self.hear(at),
                13..17 => self.node_disk(at),
                17..20 => self.leader_disk(),
                20..23 if proposals > 0 && self.active.is_some() => {
                    proposals -= 1;
                    self.propose();
                }
                // Before that, a lost connection can leave the leader waiting: who has accepted its epoch already
                // is not counted when it comes again.
                23 if cuts > 0 && self.active.is_some() && self.nodes[at].connected => {
                    cuts -= 1;
                    let conn = self.nodes[at].conn;
                    self.with_leader(|leader, _, out| leader.closed(conn, out));
                    self.cut(conn);
                }
                _ => {}
            }
        }
        for node in &self.nodes {
            let context = format!("seed {} node {}: {}", self.seed, node.id, node.learner.phase());
            assert!(node.learner.is_established(), "{context}");
            assert_eq!(node.disk, self.log, "{context}");
            assert_eq!(node.tree, self.log, "{context}");
            assert_eq!(node.learner.in_flight(), 0, "{context}");
        }
        (self.nodes.iter().map(|node| node.attempts).max().unwrap_or(0), self.ways)
    }
}

impl Node {
    fn new(id: i64, disk: Log, epochs: Epochs) -> Node {
        let start = Start { me: ServerId(id), ..start() };
        let learner = Learner::new(start, options(), 0, &mut Vec::new());
        let mut node = Node {
            id,
            learner,
            conn: PeerConn(0),
            connected: false,
            epochs,
            tree: disk.clone(),
            disk,
            ops: VecDeque::new(),
            pending: VecDeque::new(),
            committed: Zxid::ZERO,
            received: None,
            staged: Log::new(),
            inbound: VecDeque::new(),
            buffer: BytesMut::new(),
            attempts: 0,
        };
        node.learner = node.begin(Memory::default());
        node
    }

    fn begin(&self, memory: Memory) -> Learner {
        let (epochs, last) = (self.epochs, last(&self.disk));
        let committed = self.committed.min(last);
        let start = Start { me: ServerId(self.id), epochs, last, committed, memory, ..start() };
        Learner::new(start, options(), 0, &mut Vec::new())
    }

    fn perform(&mut self, op: &Op) {
        match op {
            Op::Accepted(epoch) => self.epochs.accepted = *epoch,
            Op::Truncate(zxid) => {
                self.disk.retain(|txn| txn.zxid <= *zxid);
                self.tree = self.disk.clone();
            }
            Op::CommitSync(staged, epoch) => {
                self.disk.extend(staged.iter().cloned());
                self.epochs.current = *epoch;
            }
            Op::Install(tree, epoch) => {
                self.disk = tree.clone();
                self.epochs.current = *epoch;
            }
            Op::Append(txn) => {
                assert!(last(&self.disk) < txn.zxid);
                self.disk.push(txn.clone());
            }
        }
    }

    /// Applies what is committed and durable.
    fn apply(&mut self) {
        let durable = last(&self.disk);
        while self.pending.front().is_some_and(|txn| txn.zxid <= self.committed.min(durable)) {
            let txn = self.pending.pop_front().unwrap();
            assert!(fits(&self.tree, &txn), "{}", txn.zxid);
            self.tree.push(txn);
        }
    }
}

#[test]
fn all_end_with_the_leaders_history() {
    let (mut most, mut seen) = (0, BTreeSet::new());
    for seed in 0..400 {
        let (attempts, ways) = Cluster::new(seed).run();
        most = most.max(attempts);
        seen.extend(ways);
    }
    assert_eq!(seen, BTreeSet::from(["DIFF", "SNAP", "TRUNC"]));
    assert!(most > 1, "connections were lost, too");
}
