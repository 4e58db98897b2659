//! Packed nodes: 56 bytes each, plus the name and data in one allocation, plus 56 bytes for nodes that have
//! been changed, own children, an ACL or an owner.
//!
//! Slots live in chunks of fixed size, so that growing never moves a node, and a node's slot is always behind
//! its parent's: a walk in slot order meets parents first (snapshots rely on it).

use std::collections::BTreeSet;

/// Index of a node's slot. The root is 0.
pub type NodeIdx = u32;

/// The root's slot.
pub const ROOT: NodeIdx = 0;

/// "No node" in links.
pub const NIL: u32 = u32::MAX;

const CHUNK_BITS: u32 = 12;
const CHUNK: usize = 1 << CHUNK_BITS;
const NULL_DATA: u32 = 1 << 31;

pub use crate::storage::NodeStat;

impl NodeStat {
    /// A node created by `zxid` at `time`.
    pub fn created(zxid: i64, time: i64, owner: i64) -> Self {
        NodeStat {
            czxid: zxid,
            mzxid: zxid,
            pzxid: zxid,
            ctime: time,
            mtime: time,
            version: 0,
            cversion: 0,
            aversion: 0,
            ephemeral_owner: owner,
        }
    }

    /// What a client sees: raw counters and owners translated.
    pub fn client_stat(&self, data_length: usize, num_children: u32) -> zk_proto::Stat {
        zk_proto::Stat {
            czxid: self.czxid,
            mzxid: self.mzxid,
            ctime: self.ctime,
            mtime: self.mtime,
            version: self.version,
            cversion: self.cversion.wrapping_mul(2).wrapping_sub(num_children as i32),
            aversion: self.aversion,
            ephemeral_owner: match super::owner::classify(self.ephemeral_owner) {
                super::owner::Owner::Session(session) => session,
                _ => 0,
            },
            data_length: data_length as i32,
            num_children: num_children as i32,
            pzxid: self.pzxid,
        }
    }
}

/// A node as created and never touched since has no `Extra`.
#[derive(Debug, Clone, Copy)]
struct Extra {
    mzxid: i64,
    pzxid: i64,
    mtime: i64,
    owner: i64,
    version: i32,
    cversion: i32,
    aversion: i32,
    first_child: u32,
    num_children: u32,
    acl: u32,
}

#[derive(Debug)]
struct Node {
    /// Name, then data.
    blob: Box<[u8]>,
    czxid: i64,
    ctime: i64,
    parent: NodeIdx,
    prefix_crc: u32,
    extra: u32,
    next: u32,
    prev: u32,
    /// Bytes of the name; the top bit says that the data is null. `u32::MAX`: the slot is free.
    name_len: u32,
}

const FREE: u32 = u32::MAX;

/// The slots.
#[derive(Debug, Default)]
pub struct Slab {
    chunks: Vec<Vec<Node>>,
    free: BTreeSet<NodeIdx>,
    extras: Vec<Vec<Extra>>,
    free_extras: Vec<u32>,
    live: usize,
}

impl Slab {
    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Slots ever used: all indices are below.
    pub fn slots(&self) -> u32 {
        match self.chunks.split_last() {
            None => 0,
            Some((last, full)) => (full.len() * CHUNK + last.len()) as u32,
        }
    }

    /// Whether the slot holds a node.
    pub fn is_live(&self, idx: NodeIdx) -> bool {
        idx < self.slots() && self.node(idx).name_len != FREE
    }

    fn node(&self, idx: NodeIdx) -> &Node {
        &self.chunks[(idx >> CHUNK_BITS) as usize][idx as usize & (CHUNK - 1)]
    }

    fn node_mut(&mut self, idx: NodeIdx) -> &mut Node {
        &mut self.chunks[(idx >> CHUNK_BITS) as usize][idx as usize & (CHUNK - 1)]
    }

    fn extra(&self, e: u32) -> &Extra {
        &self.extras[(e >> CHUNK_BITS) as usize][e as usize & (CHUNK - 1)]
    }

    fn extra_of(&self, node: &Node) -> Option<&Extra> {
        (node.extra != NIL).then(|| self.extra(node.extra))
    }

    /// The node's `Extra`, made when it has none.
    fn extra_mut(&mut self, idx: NodeIdx) -> &mut Extra {
        let node = self.node(idx);
        let e = if node.extra != NIL {
            node.extra
        } else {
            let extra = Extra {
                mzxid: node.czxid,
                pzxid: node.czxid,
                mtime: node.ctime,
                owner: 0,
                version: 0,
                cversion: 0,
                aversion: 0,
                first_child: NIL,
                num_children: 0,
                acl: super::acl::OPEN,
            };
            let e = match self.free_extras.pop() {
                Some(e) => {
                    self.extras[(e >> CHUNK_BITS) as usize][e as usize & (CHUNK - 1)] = extra;
                    e
                }
                None => push_chunked(&mut self.extras, extra),
            };
            self.node_mut(idx).extra = e;
            e
        };
        &mut self.extras[(e >> CHUNK_BITS) as usize][e as usize & (CHUNK - 1)]
    }

    /// Puts a node into a slot behind `parent`'s, not linked to it yet.
    pub fn insert(
        &mut self,
        parent: NodeIdx,
        name: &[u8],
        data: Option<&[u8]>,
        stat: &NodeStat,
        acl: u32,
        prefix_crc: u32,
    ) -> NodeIdx {
        let node = Node {
            blob: blob(name, data),
            czxid: stat.czxid,
            ctime: stat.ctime,
            parent,
            prefix_crc,
            extra: NIL,
            next: NIL,
            prev: NIL,
            name_len: name_len(name, data),
        };
        let reusable = self.free.range(parent.saturating_add(1)..).next().copied();
        let idx = match reusable {
            Some(idx) => {
                self.free.remove(&idx);
                *self.node_mut(idx) = node;
                idx
            }
            None => push_chunked(&mut self.chunks, node),
        };
        self.live += 1;
        if *stat != NodeStat::created(stat.czxid, stat.ctime, 0) || acl != super::acl::OPEN {
            self.set_stat(idx, stat);
            self.extra_mut(idx).acl = acl;
        }
        idx
    }

    /// Frees a slot. The node must be unlinked and childless.
    pub fn remove(&mut self, idx: NodeIdx) {
        let node = self.node_mut(idx);
        debug_assert_ne!(node.name_len, FREE);
        node.name_len = FREE;
        node.blob = Box::default();
        let extra = std::mem::replace(&mut node.extra, NIL);
        if extra != NIL {
            self.free_extras.push(extra);
        }
        self.free.insert(idx);
        self.live -= 1;
    }

    /// The name, without slash. Empty for the root.
    pub fn name(&self, idx: NodeIdx) -> &[u8] {
        let node = self.node(idx);
        &node.blob[..(node.name_len & !NULL_DATA) as usize]
    }

    /// The data; `None` is null.
    pub fn data(&self, idx: NodeIdx) -> Option<&[u8]> {
        let node = self.node(idx);
        (node.name_len & NULL_DATA == 0).then(|| &node.blob[node.name_len as usize..])
    }

    /// The parent; the root is its own.
    pub fn parent(&self, idx: NodeIdx) -> NodeIdx {
        self.node(idx).parent
    }

    /// CRC-32 of path and data, from which the node's digest goes on.
    pub fn prefix_crc(&self, idx: NodeIdx) -> u32 {
        self.node(idx).prefix_crc
    }

    /// Number of children.
    pub fn num_children(&self, idx: NodeIdx) -> u32 {
        self.extra_of(self.node(idx)).map_or(0, |e| e.num_children)
    }

    /// Slot of the ACL in the ACL table.
    pub fn acl(&self, idx: NodeIdx) -> u32 {
        self.extra_of(self.node(idx)).map_or(super::acl::OPEN, |e| e.acl)
    }

    /// The bookkeeping.
    pub fn stat(&self, idx: NodeIdx) -> NodeStat {
        let node = self.node(idx);
        match self.extra_of(node) {
            None => NodeStat::created(node.czxid, node.ctime, 0),
            Some(e) => NodeStat {
                czxid: node.czxid,
                mzxid: e.mzxid,
                pzxid: e.pzxid,
                ctime: node.ctime,
                mtime: e.mtime,
                version: e.version,
                cversion: e.cversion,
                aversion: e.aversion,
                ephemeral_owner: e.owner,
            },
        }
    }

    /// Zxid of the create.
    pub fn czxid(&self, idx: NodeIdx) -> i64 {
        self.node(idx).czxid
    }

    /// Replaces the bookkeeping.
    pub fn set_stat(&mut self, idx: NodeIdx, stat: &NodeStat) {
        let node = self.node_mut(idx);
        node.czxid = stat.czxid;
        node.ctime = stat.ctime;
        let extra = self.extra_mut(idx);
        extra.mzxid = stat.mzxid;
        extra.pzxid = stat.pzxid;
        extra.mtime = stat.mtime;
        extra.owner = stat.ephemeral_owner;
        extra.version = stat.version;
        extra.cversion = stat.cversion;
        extra.aversion = stat.aversion;
    }

    /// Replaces the data, and the CRC of path and data with it.
    pub fn set_data(&mut self, idx: NodeIdx, data: Option<&[u8]>, prefix_crc: u32) {
        let node = self.node_mut(idx);
        node.prefix_crc = prefix_crc;
        let name = (node.name_len & !NULL_DATA) as usize;
        let new_len = name + data.map_or(0, <[u8]>::len);
        if node.blob.len() == new_len {
            if let Some(data) = data {
                node.blob[name..].copy_from_slice(data);
            }
        } else {
            node.blob = blob(&node.blob[..name], data);
        }
        node.name_len = name as u32 | if data.is_none() { NULL_DATA } else { 0 };
    }

    /// Replaces the ACL's slot, returns the old one.
    pub fn set_acl(&mut self, idx: NodeIdx, acl: u32) -> u32 {
        if acl == super::acl::OPEN && self.node(idx).extra == NIL {
            return super::acl::OPEN;
        }
        std::mem::replace(&mut self.extra_mut(idx).acl, acl)
    }

    /// Links a node in front of its parent's children.
    pub fn link(&mut self, idx: NodeIdx) {
        let parent = self.node(idx).parent;
        let extra = self.extra_mut(parent);
        extra.num_children += 1;
        let next = std::mem::replace(&mut extra.first_child, idx);
        self.node_mut(idx).next = next;
        if next != NIL {
            self.node_mut(next).prev = idx;
        }
    }

    /// Takes a node out of its parent's children.
    pub fn unlink(&mut self, idx: NodeIdx) {
        let node = self.node_mut(idx);
        let parent = node.parent;
        let next = std::mem::replace(&mut node.next, NIL);
        let prev = std::mem::replace(&mut node.prev, NIL);
        if next != NIL {
            self.node_mut(next).prev = prev;
        }
        if prev != NIL {
            self.node_mut(prev).next = next;
        }
        let extra = self.extra_mut(parent);
        extra.num_children -= 1;
        if prev == NIL {
            extra.first_child = next;
        }
    }

    /// The children, in no particular (but deterministic) order.
    pub fn children(&self, idx: NodeIdx) -> impl Iterator<Item = NodeIdx> + '_ {
        let first = self.extra_of(self.node(idx)).map_or(NIL, |e| e.first_child);
        std::iter::successors((first != NIL).then_some(first), |&child| {
            let next = self.node(child).next;
            (next != NIL).then_some(next)
        })
    }
}

fn push_chunked<T>(chunks: &mut Vec<Vec<T>>, item: T) -> u32 {
    match chunks.last_mut() {
        Some(last) if last.len() < CHUNK => last.push(item),
        _ => {
            let mut chunk = Vec::with_capacity(CHUNK);
            chunk.push(item);
            chunks.push(chunk);
        }
    }
    ((chunks.len() - 1) * CHUNK + chunks.last().map_or(0, |c| c.len() - 1)) as u32
}

fn blob(name: &[u8], data: Option<&[u8]>) -> Box<[u8]> {
    let data = data.unwrap_or_default();
    let mut blob = Vec::with_capacity(name.len() + data.len());
    blob.extend_from_slice(name);
    blob.extend_from_slice(data);
    blob.into_boxed_slice()
}

fn name_len(name: &[u8], data: Option<&[u8]>) -> u32 {
    name.len() as u32 | if data.is_none() { NULL_DATA } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_as_small_as_promised() {
        assert_eq!(std::mem::size_of::<Node>(), 56);
        assert_eq!(std::mem::size_of::<Extra>(), 56);
    }

    #[test]
    fn a_reused_slot_is_behind_the_parent() {
        let mut slab = Slab::default();
        let stat = NodeStat::created(1, 1, 0);
        let add = |slab: &mut Slab, parent| {
            let idx = slab.insert(parent, b"n", None, &stat, super::super::acl::OPEN, 0);
            if idx != parent {
                slab.link(idx);
            }
            idx
        };
        let root = add(&mut slab, ROOT);
        let a = add(&mut slab, root);
        let b = add(&mut slab, root);
        slab.unlink(a);
        slab.remove(a);
        let c = add(&mut slab, b);
        assert!(c > b);
        assert_eq!(add(&mut slab, root), a);
        assert_eq!(slab.children(root).collect::<Vec<_>>(), [a, b]);
        assert_eq!(slab.len(), 4);
    }
}
