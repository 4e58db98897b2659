//! Finds a child by its parent and name: a hash index in many small shards, so that growing one of them is short.

use hashbrown::HashTable;
use std::hash::{BuildHasher, Hasher};

use super::node::{NodeIdx, Slab};

const SHARD_BITS: u32 = 12;

/// The index. Never iterated, so the seed changes nothing that can be seen.
#[derive(Debug)]
pub struct ChildIndex {
    shards: Vec<HashTable<NodeIdx>>,
    hasher: foldhash::fast::FixedState,
}

impl ChildIndex {
    /// An empty index. A seed that outsiders don't know keeps them from choosing names that collide.
    pub fn new(seed: u64) -> Self {
        ChildIndex {
            shards: (0..1 << SHARD_BITS).map(|_| HashTable::new()).collect(),
            hasher: foldhash::fast::FixedState::with_seed(seed),
        }
    }

    /// The child of `parent` with this name.
    pub fn find(&self, slab: &Slab, parent: NodeIdx, name: &[u8]) -> Option<NodeIdx> {
        let hash = hash(&self.hasher, parent, name);
        self.shards[shard(hash)]
            .find(hash, |&idx| slab.parent(idx) == parent && slab.name(idx) == name)
            .copied()
    }

    /// Adds a node. It must not be in the index.
    pub fn insert(&mut self, slab: &Slab, idx: NodeIdx) {
        let hasher = &self.hasher;
        let hash_of = |&idx: &NodeIdx| hash(hasher, slab.parent(idx), slab.name(idx));
        let h = hash_of(&idx);
        self.shards[shard(h)].insert_unique(h, idx, hash_of);
    }

    /// Removes a node, whose name and parent are still in its slot.
    pub fn remove(&mut self, slab: &Slab, idx: NodeIdx) {
        let h = hash(&self.hasher, slab.parent(idx), slab.name(idx));
        if let Ok(entry) = self.shards[shard(h)].find_entry(h, |&other| other == idx) {
            entry.remove();
        }
    }
}

fn hash(state: &foldhash::fast::FixedState, parent: NodeIdx, name: &[u8]) -> u64 {
    let mut hasher = state.build_hasher();
    hasher.write_u32(parent);
    hasher.write(name);
    hasher.finish()
}

/// From bits that the tables themselves use least.
fn shard(hash: u64) -> usize {
    (hash >> 40) as usize & ((1 << SHARD_BITS) - 1)
}
