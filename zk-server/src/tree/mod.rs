//! The znode tree. [`Tree::apply`] is the only way to change it, and it is deterministic: the same
//! transactions give the same tree on every server.
//!
//! Knows nothing of sockets, timers, or who leads.

pub mod acl;
mod apply;
mod child_lists;
pub mod digest;
mod index;
mod loader;
mod node;
pub mod owner;
mod quota;
mod snapshot;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use zk_proto::{Acl, Perms, Zxid};

pub use acl::AclList;
pub use apply::{Ignore, Observer};
pub use loader::TreeLoader;
pub use node::{NodeIdx, NodeStat, ROOT};
pub use quota::{Limits, QuotaCheck, QuotaNode, is_poison};
pub use snapshot::SnapshotPin;

use index::ChildIndex;
use node::Slab;
use owner::Owner;

/// The znodes of a server, with what is derived from them.
#[derive(Debug)]
pub struct Tree {
    slab: Slab,
    index: ChildIndex,
    acls: acl::AclTable,
    child_lists: child_lists::ChildLists,
    ephemerals: BTreeSet<(i64, NodeIdx)>,
    ephemeral_bytes: BTreeMap<i64, usize>,
    containers: BTreeSet<NodeIdx>,
    ttls: BTreeSet<NodeIdx>,
    sessions: BTreeMap<i64, i32>,
    quotas: quota::Quotas,
    pins: Vec<std::sync::Weak<SnapshotPin>>,
    digest: u64,
    digest_mismatches: u64,
    recorded_digests: VecDeque<(Zxid, u64)>,
    until_digest_record: u32,
    last_zxid: Zxid,
    bytes: u64,
}

/// A digest is kept for every so many transactions, and so many of them, for comparing servers by hand.
const DIGEST_RECORD_INTERVAL: u32 = 128;
const DIGEST_RECORDS_MAX: usize = 1024;

impl Tree {
    /// The tree of an empty database: `/`, `/zookeeper`, `/zookeeper/quota`, `/zookeeper/config`. `seed` should
    /// be unknown to clients; it has no visible effect.
    pub fn new(seed: u64) -> Self {
        let mut tree = Self::bare(seed);
        let stat = NodeStat::default();
        tree.add("/", None, Some(b""), &stat, acl::OPEN);
        tree.add("/zookeeper", Some(ROOT), Some(b""), &stat, acl::OPEN);
        let zookeeper = tree.find("/zookeeper").unwrap_or(ROOT);
        tree.add("/zookeeper/quota", Some(zookeeper), Some(b""), &stat, acl::OPEN);
        let read_only = tree.acls.acquire(&[Acl::read_only()]);
        let config_stat = NodeStat { aversion: -1, ..stat };
        tree.add("/zookeeper/config", Some(zookeeper), Some(b""), &config_stat, read_only);
        tree
    }

    /// A tree without any node, to be loaded.
    fn bare(seed: u64) -> Self {
        Tree {
            slab: Slab::default(),
            index: ChildIndex::new(seed),
            acls: acl::AclTable::default(),
            child_lists: child_lists::ChildLists::default(),
            ephemerals: BTreeSet::new(),
            ephemeral_bytes: BTreeMap::new(),
            containers: BTreeSet::new(),
            ttls: BTreeSet::new(),
            sessions: BTreeMap::new(),
            quotas: quota::Quotas::default(),
            pins: Vec::new(),
            digest: 0,
            digest_mismatches: 0,
            recorded_digests: VecDeque::new(),
            until_digest_record: DIGEST_RECORD_INTERVAL,
            last_zxid: Zxid::ZERO,
            bytes: 0,
        }
    }

    /// The node at `path`. The empty path is the root; anything else that is not a plain path finds nothing.
    pub fn find(&self, path: &str) -> Option<NodeIdx> {
        if path.is_empty() || path == "/" {
            return Some(ROOT);
        }
        let mut idx = ROOT;
        for name in path.strip_prefix('/')?.split('/') {
            idx = self.index.find(&self.slab, idx, name.as_bytes())?;
        }
        Some(idx)
    }

    /// The child of `parent` with this name.
    pub fn child(&self, parent: NodeIdx, name: &str) -> Option<NodeIdx> {
        self.index.find(&self.slab, parent, name.as_bytes())
    }

    /// Overwrites the node that shows the configuration of the ensemble, creating it in trees of old releases. Its
    /// zxid is the configuration's version. Not a transaction; the node counts in no digest.
    pub fn set_config(&mut self, text: &str, version: i64, wall_ms: i64) {
        let Some(idx) = self.find("/zookeeper/config") else { return };
        self.save_for_snapshots(idx);
        let stat = NodeStat { version: -1, mzxid: version, mtime: wall_ms, ..self.slab.stat(idx) };
        let crc = digest::prefix_crc("/zookeeper/config", Some(text.as_bytes()));
        let old_len = self.slab.data(idx).map_or(0, <[u8]>::len);
        self.bytes = self.bytes - old_len as u64 + text.len() as u64;
        self.slab.set_data(idx, Some(text.as_bytes()), crc);
        self.slab.set_stat(idx, &stat);
    }

    /// What the node holds that shows the configuration of the ensemble, and the zxid of the last change of it.
    pub fn config(&self) -> Option<(&[u8], i64)> {
        let idx = self.find("/zookeeper/config")?;
        Some((self.data(idx)?, self.node_stat(idx).mzxid))
    }

    /// Says which transaction the tree ends with, for one that was received from a leader: its stream does not
    /// tell.
    pub fn set_last_zxid(&mut self, zxid: Zxid) {
        self.last_zxid = zxid;
    }

    /// Whether the pin is of this tree: another one may have taken its place.
    pub fn has_pin(&self, pin: &SnapshotPin) -> bool {
        self.pins.iter().any(|known| std::ptr::eq(known.as_ptr(), pin))
    }

    /// The path of a node.
    pub fn path(&self, idx: NodeIdx) -> String {
        let mut out = String::new();
        self.write_path(idx, &mut out);
        if out.is_empty() {
            out.push('/');
        }
        out
    }

    /// Appends a node's path; nothing for the root.
    fn write_path(&self, idx: NodeIdx, out: &mut String) {
        let mut names = Vec::new();
        let mut at = idx;
        while at != ROOT {
            names.push(self.name(at));
            at = self.slab.parent(at);
        }
        for name in names.into_iter().rev() {
            out.push('/');
            out.push_str(name);
        }
    }

    /// The parent of a node; the root is its own.
    pub fn parent(&self, idx: NodeIdx) -> NodeIdx {
        self.slab.parent(idx)
    }

    /// The ancestors of a node: its parent first, the root last. None for the root.
    pub fn ancestors(&self, idx: NodeIdx) -> impl Iterator<Item = NodeIdx> + '_ {
        std::iter::successors((idx != ROOT).then(|| self.slab.parent(idx)), |&at| {
            (at != ROOT).then(|| self.slab.parent(at))
        })
    }

    /// The name of a node, without slash.
    pub fn name(&self, idx: NodeIdx) -> &str {
        // Names come from `&str` paths only.
        std::str::from_utf8(self.slab.name(idx)).unwrap_or_default()
    }

    /// The data of a node; `None` is null.
    pub fn data(&self, idx: NodeIdx) -> Option<&[u8]> {
        self.slab.data(idx)
    }

    /// The persisted bookkeeping.
    pub fn node_stat(&self, idx: NodeIdx) -> NodeStat {
        self.slab.stat(idx)
    }

    /// The Stat that clients see.
    pub fn stat(&self, idx: NodeIdx) -> zk_proto::Stat {
        let data_length = self.slab.data(idx).map_or(0, <[u8]>::len);
        self.slab.stat(idx).client_stat(data_length, self.slab.num_children(idx))
    }

    /// The ACL of a node.
    pub fn acl(&self, idx: NodeIdx) -> &AclList {
        self.acls.get(self.slab.acl(idx))
    }

    /// Whether everybody may do everything with a node.
    pub fn is_open(&self, idx: NodeIdx) -> bool {
        self.slab.acl(idx) == acl::OPEN
    }

    /// The children of a node, in no particular order.
    pub fn children(&self, idx: NodeIdx) -> impl Iterator<Item = NodeIdx> + '_ {
        self.slab.children(idx)
    }

    /// Number of children.
    pub fn num_children(&self, idx: NodeIdx) -> u32 {
        self.slab.num_children(idx)
    }

    /// CRC-32 of path and data, see [`digest`].
    pub fn prefix_crc(&self, idx: NodeIdx) -> u32 {
        self.slab.prefix_crc(idx)
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Never true: the root is always there.
    pub fn is_empty(&self) -> bool {
        self.slab.len() == 0
    }

    /// Number of nodes below `idx`.
    pub fn count_descendants(&self, idx: NodeIdx) -> u64 {
        if idx == ROOT {
            return self.slab.len() as u64 - 1;
        }
        let mut count = 0;
        let mut todo = vec![idx];
        while let Some(at) = todo.pop() {
            for child in self.slab.children(at) {
                count += 1;
                if self.slab.num_children(child) > 0 {
                    todo.push(child);
                }
            }
        }
        count
    }

    /// Sum of the bytes of paths' last components and data, as Apache's `approximate_data_size` estimates.
    pub fn approximate_data_size(&self) -> u64 {
        self.bytes
    }

    /// The last transaction applied.
    pub fn last_zxid(&self) -> Zxid {
        self.last_zxid
    }

    /// Sum of the nodes' digests.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Transactions whose recorded digest was not the tree's.
    pub fn digest_mismatches(&self) -> u64 {
        self.digest_mismatches
    }

    /// Digests of the recent past, oldest first: one for each 128 transactions, 1024 at most.
    pub fn recorded_digests(&self) -> impl Iterator<Item = (Zxid, u64)> + '_ {
        self.recorded_digests.iter().copied()
    }

    fn record_digest(&mut self) {
        self.until_digest_record -= 1;
        if self.until_digest_record == 0 {
            self.until_digest_record = DIGEST_RECORD_INTERVAL;
            if self.recorded_digests.len() == DIGEST_RECORDS_MAX {
                self.recorded_digests.pop_front();
            }
            self.recorded_digests.push_back((self.last_zxid, self.digest));
        }
    }

    /// Sessions with their timeouts in ms, by id.
    pub fn sessions(&self) -> impl Iterator<Item = (i64, i32)> + '_ {
        self.sessions.iter().map(|(&id, &timeout)| (id, timeout))
    }

    /// Whether a session is open, as far as transactions tell.
    pub fn has_session(&self, session: i64) -> bool {
        self.sessions.contains_key(&session)
    }

    /// The ephemeral nodes of a session.
    pub fn ephemerals(&self, session: i64) -> impl Iterator<Item = NodeIdx> + '_ {
        self.ephemerals.range((session, 0)..=(session, NodeIdx::MAX)).map(|&(_, idx)| idx)
    }

    /// Bytes that the paths of a session's ephemeral nodes take in the transaction that closes it.
    pub fn ephemeral_bytes(&self, session: i64) -> usize {
        self.ephemeral_bytes.get(&session).copied().unwrap_or(0)
    }

    /// All ephemeral nodes with their sessions, by session.
    pub fn all_ephemerals(&self) -> impl Iterator<Item = (i64, NodeIdx)> + '_ {
        self.ephemerals.iter().copied()
    }

    /// Number of ephemeral nodes.
    pub fn ephemerals_count(&self) -> usize {
        self.ephemerals.len()
    }

    /// Container nodes that have been used and are empty (or were never used for `never_used_ms`, if that is
    /// not 0), and TTL nodes that are empty and past their time, at wall clock `now_ms`.
    pub fn reapable(&self, now_ms: i64, never_used_ms: i64) -> Vec<String> {
        let containers = self.containers.iter().filter(|&&idx| {
            let stat = self.slab.stat(idx);
            let unused = never_used_ms > 0 && now_ms.saturating_sub(stat.mtime) > never_used_ms;
            self.slab.num_children(idx) == 0 && (stat.cversion > 0 || unused)
        });
        let ttls = self.ttls.iter().filter(|&&idx| {
            let stat = self.slab.stat(idx);
            match owner::classify(stat.ephemeral_owner) {
                Owner::Ttl(ttl) => {
                    self.slab.num_children(idx) == 0 && now_ms.saturating_sub(stat.mtime) > ttl
                }
                _ => false,
            }
        });
        containers.chain(ttls).map(|&idx| self.path(idx)).collect()
    }

    /// The quota that an access to `path` counts against, if there is one.
    pub fn quota(&self, path: &str) -> Option<QuotaNode> {
        self.quotas.find(self, path)
    }

    /// Fixes the current state for a snapshot; see [`SnapshotPin`].
    pub fn pin(&mut self) -> Arc<SnapshotPin> {
        let pin = Arc::new(SnapshotPin::new(self));
        self.pins.retain(|pin| pin.strong_count() > 0);
        self.pins.push(Arc::downgrade(&pin));
        pin
    }

    /// Puts a node into slab and index, and counts it.
    fn add(
        &mut self,
        path: &str,
        parent: Option<NodeIdx>,
        data: Option<&[u8]>,
        stat: &NodeStat,
        acl: u32,
    ) -> NodeIdx {
        let name = zk_proto::path::split(path).map_or("", |(_, name)| name);
        let crc = digest::prefix_crc(path, data);
        let idx = self.slab.insert(parent.unwrap_or(ROOT), name.as_bytes(), data, stat, acl, crc);
        if let Some(parent) = parent {
            self.child_lists.forget(parent);
            self.index.insert(&self.slab, idx);
            self.slab.link(idx);
        }
        if digest::counts(path) {
            self.digest = self.digest.wrapping_add(digest::node_digest(crc, stat));
        }
        self.bytes += (path.len() + data.map_or(0, <[u8]>::len)) as u64;
        match owner::classify(stat.ephemeral_owner) {
            Owner::None => {}
            Owner::Session(session) => {
                self.ephemerals.insert((session, idx));
                *self.ephemeral_bytes.entry(session).or_default() += path.len() + 4;
            }
            Owner::Container => {
                self.containers.insert(idx);
            }
            Owner::Ttl(_) => {
                self.ttls.insert(idx);
            }
        }
        idx
    }

    /// Takes a childless node out of everything.
    fn take(&mut self, idx: NodeIdx, path: &str) {
        let stat = self.slab.stat(idx);
        if digest::counts(path) {
            let old = digest::node_digest(self.slab.prefix_crc(idx), &stat);
            self.digest = self.digest.wrapping_sub(old);
        }
        self.bytes -= (path.len() + self.slab.data(idx).map_or(0, <[u8]>::len)) as u64;
        match owner::classify(stat.ephemeral_owner) {
            Owner::None => {}
            Owner::Session(session) => {
                self.ephemerals.remove(&(session, idx));
                if let Some(bytes) = self.ephemeral_bytes.get_mut(&session) {
                    *bytes = bytes.saturating_sub(path.len() + 4);
                    if *bytes == 0 {
                        self.ephemeral_bytes.remove(&session);
                    }
                }
            }
            Owner::Container => {
                self.containers.remove(&idx);
            }
            Owner::Ttl(_) => {
                self.ttls.remove(&idx);
            }
        }
        self.acls.release(self.slab.acl(idx));
        self.child_lists.forget(idx);
        self.child_lists.forget(self.slab.parent(idx));
        self.index.remove(&self.slab, idx);
        self.slab.unlink(idx);
        self.slab.remove(idx);
    }

    /// Changes a node's stat, keeping the digest.
    fn update_stat(&mut self, idx: NodeIdx, counts: bool, change: impl FnOnce(&mut NodeStat)) {
        let mut stat = self.slab.stat(idx);
        let crc = self.slab.prefix_crc(idx);
        let old = digest::node_digest(crc, &stat);
        change(&mut stat);
        if counts {
            self.digest = self.digest.wrapping_sub(old).wrapping_add(digest::node_digest(crc, &stat));
        }
        self.slab.set_stat(idx, &stat);
    }

    /// Whether `auth` has any of `perms` on a node.
    pub fn permits(
        &self,
        idx: NodeIdx,
        perms: Perms,
        auth: &crate::auth::ConnAuth,
        providers: &crate::auth::Providers,
    ) -> bool {
        self.is_open(idx) || crate::auth::check(self.acl(idx), perms, auth, providers)
    }
}
