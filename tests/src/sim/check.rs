//! The observer who knows everything, and what must never happen.
//!
//! The chain of committed transactions is what any server has ever shown to clients: a server that serves has
//! applied a prefix of it, and the first one to show a transaction adds it. Everything else is compared with it.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use zk_proto::{SessionId, Zxid};
use zk_server::member::{DiskDone, DiskOp, Serving};
use zk_server::storage::RecordHeader;
use zk_server::storage::record::FRAME_OVERHEAD;
use zk_server::zab::wire::{QuorumPacket, kind};
use zk_server::zab::{Epoch, Epochs, Proposal};

use super::disk::Done;
use super::{NodeId, Violation, World};

/// A transaction, as far as it is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub zxid: Zxid,
    hash: u64,
    session: i64,
    cxid: i32,
}

impl Entry {
    fn of(zxid: Zxid, payload: &[u8]) -> Result<Entry, Violation> {
        let header =
            RecordHeader::decode(payload).map_err(|e| Violation(format!("transaction {zxid}: {e}")))?;
        if header.zxid != zxid {
            return Err(Violation(format!("the transaction at {zxid} says {}", header.zxid)));
        }
        Ok(Entry { zxid, hash: hash(payload), session: header.client_id, cxid: header.cxid })
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hash = bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = (hash.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
    hash
}

/// A history: what comes behind a base.
#[derive(Debug, Clone, Default)]
struct Log {
    base: Zxid,
    entries: Vec<Entry>,
    durable: Zxid,
}

impl Log {
    fn last(&self) -> Zxid {
        self.entries.last().map_or(self.base, |entry| entry.zxid)
    }

    /// Number of entries up to a transaction, if that is one of them or the base.
    fn position(&self, zxid: Zxid) -> Option<usize> {
        if zxid == self.base {
            return Some(0);
        }
        self.entries.binary_search_by_key(&zxid, |entry| entry.zxid).ok().map(|at| at + 1)
    }
}

/// What a node should have on its disk, and what it has shown.
#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    log: Log,
    /// What a crash may bring back while the history is being cut or replaced.
    before: Option<Log>,
    accepted: Epoch,
    current: Epoch,
    /// So many entries of the log are known to be committed, and how many of the chain that are.
    verified: usize,
    verified_chain: Option<usize>,
}

impl Model {
    /// Records are on their way to the log.
    pub fn append(&mut self, records: &Bytes, first: Zxid) -> Result<(), Violation> {
        let mut rest = &records[..];
        let mut zxid = first;
        while rest.len() > FRAME_OVERHEAD {
            let length = u32::from_be_bytes([rest[8], rest[9], rest[10], rest[11]]) as usize;
            let Some(payload) = rest.get(12..12 + length) else {
                return Err(Violation("an append that is no record".into()));
            };
            let header = RecordHeader::decode(payload).map_err(|e| Violation(e.to_string()))?;
            zxid = header.zxid;
            self.push(Entry::of(zxid, payload)?)?;
            rest = &rest[12 + length + 1..];
        }
        let _ = zxid;
        Ok(())
    }

    fn push(&mut self, entry: Entry) -> Result<(), Violation> {
        let last = self.log.last();
        let follows =
            entry.zxid.0 == last.0 + 1 || entry.zxid.epoch() > last.epoch() && entry.zxid.counter() == 1;
        if !follows {
            return Err(Violation(format!("chain: {} is appended behind {last}", entry.zxid)));
        }
        self.log.entries.push(entry);
        Ok(())
    }

    /// A disk operation is on its way.
    pub fn asked(&mut self, op: &DiskOp) -> Result<(), Violation> {
        match op {
            DiskOp::CommitSync { staged, .. } => {
                for proposal in staged {
                    self.push(Entry::of(proposal.zxid, &proposal.payload)?)?;
                }
            }
            DiskOp::Install { pin, .. } => {
                self.before = Some(self.log.clone());
                self.log =
                    Log { base: pin.zxid, entries: Vec::new(), durable: self.log.durable.min(pin.zxid) };
                self.verified = 0;
                self.verified_chain = None;
            }
            DiskOp::Truncate(_) => self.before = Some(self.log.clone()),
            _ => {}
        }
        Ok(())
    }

    /// A disk operation is done; `last` is the end of the log.
    pub fn done(&mut self, done: &Done, last: Zxid, epochs: Epochs) -> Result<(), Violation> {
        match done {
            Done::Appended(zxid) => self.log.durable = self.log.durable.max(*zxid),
            Done::Operation(DiskDone::Synced { .. }) => {
                self.log.durable = last;
                self.before = None;
            }
            Done::Operation(DiskDone::Truncated(result)) => {
                if result.is_ok() {
                    self.cut(last)?;
                    self.log.durable = self.log.durable.min(last);
                }
                self.before = None;
            }
            Done::Operation(_) | Done::Nothing => {}
        }
        self.epochs(epochs)
    }

    fn epochs(&mut self, epochs: Epochs) -> Result<(), Violation> {
        let Epochs { accepted, current } = epochs;
        if accepted < self.accepted || current < self.current || current > accepted {
            let (old_accepted, old_current) = (self.accepted, self.current);
            return Err(Violation(format!(
                "epochs on disk: accepted {accepted} after {old_accepted}, current {current} after {old_current}"
            )));
        }
        (self.accepted, self.current) = (accepted, current);
        Ok(())
    }

    fn cut(&mut self, last: Zxid) -> Result<(), Violation> {
        let Some(keep) = self.log.position(last) else {
            return Err(Violation(format!("the history ends at {last}, which was never in it")));
        };
        if keep < self.verified {
            return Err(Violation(format!("committed transactions behind {last} are cut off")));
        }
        self.log.entries.truncate(keep);
        Ok(())
    }

    /// Nothing of the history can be read any more.
    pub fn lost(&mut self) {
        *self = Model { accepted: self.accepted, current: self.current, ..Model::default() };
    }

    /// How far a crash would find it.
    pub fn durable(&self) -> Zxid {
        self.log.durable
    }

    /// What a start has found.
    pub fn recovered(&mut self, last: Zxid, recent: &[Proposal], epochs: Epochs) -> Result<(), Violation> {
        let now_possible = self.log.position(last).is_some() && self.log.durable <= last;
        if !now_possible {
            // In the middle of a truncation or installation: the old history, whole or cut.
            match self.before.take() {
                Some(before) if before.position(last).is_some() => {
                    self.log = before;
                    if self.verified > self.log.entries.len() {
                        self.verified = 0;
                        self.verified_chain = None;
                    }
                }
                before => {
                    let durable = self.log.durable;
                    return Err(Violation(format!(
                        "recovered up to {last}; durable was {durable}, the end {}, before that {:?}",
                        self.log.last(),
                        before.map(|log| (log.base, log.durable, log.last()))
                    )));
                }
            }
        }
        self.before = None;
        self.cut(last)?;
        self.log.durable = last;
        for proposal in recent {
            let Some(at) = self.log.position(proposal.zxid).and_then(|at| at.checked_sub(1)) else {
                continue;
            };
            if self.log.entries[at] != Entry::of(proposal.zxid, &proposal.payload)? {
                return Err(Violation(format!("recovered another transaction {}", proposal.zxid)));
            }
        }
        self.epochs(epochs)
    }

    /// Whether it would know a committed transaction after a crash.
    fn has_durably(&self, entry: &Entry) -> bool {
        if self.log.durable < entry.zxid {
            return false;
        }
        entry.zxid <= self.log.base
            || self.log.position(entry.zxid).is_some_and(|at| self.log.entries[at - 1] == *entry)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Checker {
    voters: usize,
    chain: Vec<Entry>,
    /// Which transaction a request has become.
    requests: HashMap<(i64, i32), Zxid>,
    leaders: BTreeMap<u32, NodeId>,
    /// Digest of the tree at a transaction, and who has shown it first.
    digests: BTreeMap<i64, (u64, NodeId)>,
    /// The highest transaction that a client got an answer for.
    acknowledged: Zxid,
    late: Option<String>,
}

impl Checker {
    pub fn new(voters: usize) -> Self {
        Checker {
            voters,
            chain: Vec::new(),
            requests: HashMap::new(),
            leaders: BTreeMap::new(),
            digests: BTreeMap::new(),
            acknowledged: Zxid::ZERO,
            late: None,
        }
    }

    /// Something wrong that was noticed where it could not be told.
    pub fn late(&mut self, reason: String) {
        self.late.get_or_insert(reason);
    }

    pub fn committed(&self) -> usize {
        self.chain.len()
    }

    pub fn epochs(&self) -> usize {
        self.leaders.len()
    }

    /// The end of what any client may know to be done.
    pub fn acknowledged(&self) -> Zxid {
        self.acknowledged
    }

    fn position(&self, zxid: Zxid) -> Option<usize> {
        if zxid == Zxid::ZERO {
            return Some(0);
        }
        self.chain.binary_search_by_key(&zxid, |entry| entry.zxid).ok().map(|at| at + 1)
    }

    /// A server is established as a leader.
    pub fn leads(&mut self, epoch: Epoch, node: NodeId) -> Result<(), Violation> {
        match self.leaders.insert(epoch.0, node) {
            None => Ok(()),
            Some(other) => {
                Err(Violation(format!("epoch {epoch} is led by node {} and by node {}", other + 1, node + 1)))
            }
        }
    }

    /// A snapshot is begun.
    pub fn snapshot(&mut self, zxid: Zxid) -> Result<(), String> {
        // What is applied in this very step may be committed without having been compared yet.
        let newest = self.chain.last().map_or(Zxid::ZERO, |entry| entry.zxid);
        if self.position(zxid).is_none() && zxid <= newest {
            return Err(format!("a snapshot at {zxid}, which is not committed"));
        }
        Ok(())
    }

    /// A client got the answer to a write. Returns the transaction that it has become.
    pub fn write_done(
        &mut self,
        shown: Zxid,
        session: SessionId,
        cxid: i32,
        floor: Zxid,
    ) -> Result<Zxid, Violation> {
        let Some(&zxid) = self.requests.get(&(session.0, cxid)) else {
            return Err(Violation(format!(
                "request {cxid} of session {session} was answered at {shown}, and is not committed"
            )));
        };
        if zxid > shown {
            return Err(Violation(format!("a write was answered at {shown}, it is committed as {zxid}")));
        }
        if zxid <= floor {
            return Err(Violation(format!(
                "linearizability: a write was done at {zxid}, but {floor} was answered before it was asked for"
            )));
        }
        self.acknowledged = self.acknowledged.max(zxid);
        Ok(zxid)
    }

    /// The chain goes on.
    fn commit(&mut self, entry: Entry) -> Result<(), Violation> {
        self.chain.push(entry);
        let of_client = entry.session != 0 && entry.cxid > 0;
        if of_client && let Some(first) = self.requests.insert((entry.session, entry.cxid), entry.zxid) {
            return Err(Violation(format!(
                "request {} of session {:#x} is committed twice, as {first} and {}",
                entry.cxid, entry.session, entry.zxid
            )));
        }
        Ok(())
    }
}

impl World {
    /// Looks at a node after each step.
    pub(super) fn check_step(&mut self, node: NodeId) -> Result<(), Violation> {
        if let Some(late) = self.checker.late.take() {
            return Err(Violation(late));
        }
        let Some(process) = &self.nodes[node].process else { return Ok(()) };
        if process.serving != Serving::Yes {
            return Ok(());
        }
        let (last, digest, mismatches) = {
            let tree = process.shared.tree.read();
            (tree.last_zxid(), tree.digest(), tree.digest_mismatches())
        };
        if mismatches > 0 {
            return Err(Violation(format!("node {}: the tree is not what it was for the leader", node + 1)));
        }
        if self.verify(node, last)? {
            let (seen, by) = *self.checker.digests.entry(last.0).or_insert((digest, node));
            if seen != digest {
                return Err(Violation(format!(
                    "digest: the trees of nodes {} and {} differ at {last}",
                    node + 1,
                    by + 1
                )));
            }
        }
        Ok(())
    }

    /// Compares what a node shows with the chain. True if it shows something new.
    fn verify(&mut self, node: NodeId, last: Zxid) -> Result<bool, Violation> {
        let base = self.nodes[node].model.log.base;
        if self.nodes[node].model.verified_chain.is_none() && self.checker.position(base).is_none() {
            // A snapshot of what a leader has inherited, and what is decided only by this leader's quorum: somebody
            // else must have the transactions themselves.
            let has =
                |other: &NodeId| *other != node && self.nodes[*other].model.log.position(base) > Some(0);
            if let Some(other) = (0..self.nodes.len()).find(has) {
                self.verify(other, base)?;
            }
        }
        let model = &mut self.nodes[node].model;
        let mut at = match model.verified_chain {
            Some(at) => at,
            None => self.checker.position(base).ok_or_else(|| {
                Violation(format!(
                    "node {} serves a tree that began at {base}, which is not committed",
                    node + 1
                ))
            })?,
        };
        let mut new = Vec::new();
        let before = model.verified;
        while let Some(entry) = model.log.entries.get(model.verified)
            && entry.zxid <= last
        {
            match self.checker.chain.get(at) {
                Some(known) if known == entry => {}
                Some(known) => {
                    let known = *known;
                    return Err(Violation(format!(
                        "prefix: node {} shows {entry:?}, the others {known:?}",
                        node + 1
                    )));
                }
                None => {
                    self.checker.commit(*entry)?;
                    new.push(*entry);
                }
            }
            at += 1;
            model.verified += 1;
        }
        model.verified_chain = Some(at);
        let changed = model.verified != before;
        let shown = model.verified.checked_sub(1).map_or(base, |at| model.log.entries[at].zxid);
        if shown != last {
            return Err(Violation(format!("node {} shows {last}, its log has {shown} there", node + 1)));
        }
        for entry in new {
            let durable =
                self.nodes[..self.checker.voters].iter().filter(|n| n.model.has_durably(&entry)).count();
            if durable <= self.checker.voters / 2 {
                return Err(Violation(format!(
                    "node {} shows {}, which is on {durable} disks only",
                    node + 1,
                    entry.zxid
                )));
            }
        }
        Ok(changed)
    }

    /// Looks at what a learner tells its leader.
    pub(super) fn check_sent(&mut self, node: NodeId, packet: &QuorumPacket) -> Result<(), Violation> {
        let model = &self.nodes[node].model;
        let zxid = Zxid(packet.zxid);
        let said = |what: &str| Violation(format!("durable ack: node {} sends {what}", node + 1));
        match packet.kind {
            kind::ACK if zxid.counter() == 0 && model.current.0 != zxid.epoch() => {
                let current = model.current;
                return Err(said(&format!("the ACK of NEWLEADER {zxid}, its current epoch is {current}")));
            }
            kind::ACK if zxid.counter() == 0 => {}
            kind::ACK => {
                let durable = model.log.durable;
                if durable < zxid {
                    return Err(said(&format!("ACK {zxid}, durable is {durable}")));
                }
                if self.rng.f64() < self.swarm.look_at_disk {
                    self.look_at_disk(node, zxid)?;
                }
            }
            kind::ACK_EPOCH => {
                let (durable, last) = (model.log.durable, zxid);
                if last > durable {
                    return Err(said(&format!("ACKEPOCH with {last}, durable is {durable}")));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What would a power loss at this moment leave?
    fn look_at_disk(&mut self, node: NodeId, acknowledged: Zxid) -> Result<(), Violation> {
        let disk = self.nodes[node].disk.after_kill().restart(&mut self.rng);
        let last = super::disk::recovered_end(disk, self.swarm.history)
            .map_err(|e| Violation(format!("node {} could not start now: {e}", node + 1)))?;
        if last < acknowledged {
            return Err(Violation(format!(
                "durable ack: node {} acknowledges {acknowledged}, a power loss would leave {last}",
                node + 1
            )));
        }
        Ok(())
    }

    /// Whether all nodes run and are the same, and everything is in order.
    pub(super) fn all_equal(&mut self) -> Result<(), String> {
        let mut first: Option<(Zxid, u64, Vec<SessionId>)> = None;
        for (id, node) in self.nodes.iter().enumerate() {
            let Some(process) = &node.process else { return Err(format!("node {} does not run", id + 1)) };
            if process.serving != Serving::Yes {
                return Err(format!("node {} does not serve", id + 1));
            }
            let tree = process.shared.tree.read();
            if let Some((owner, _)) = tree.all_ephemerals().find(|(owner, _)| !tree.has_session(*owner)) {
                return Err(format!("node {} keeps an ephemeral of the closed session {owner:#x}", id + 1));
            }
            let state = (tree.last_zxid(), tree.digest(), Self::sessions_of(process));
            drop(tree);
            match &first {
                None => first = Some(state),
                Some(first) if *first == state => {}
                Some(first) => {
                    return Err(format!("node {} is at {:?}, node 1 at {:?}", id + 1, state.0, first.0));
                }
            }
        }
        let end = first.map_or(Zxid::ZERO, |(zxid, ..)| zxid);
        if end < self.checker.acknowledged {
            return Err(format!("{} was answered, all are at {end}", self.checker.acknowledged));
        }
        Ok(())
    }

    /// When a client may call a write done: everything answered so far is older.
    pub(super) fn floor(&self) -> Zxid {
        self.checker.acknowledged()
    }
}
