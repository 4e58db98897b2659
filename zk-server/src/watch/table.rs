//! The table: arming, removing, and the bookkeeping that firing uses.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::hash_map::Entry as MapEntry;
use hashbrown::{HashMap, HashTable};

use zk_proto::WatcherType;

use super::entry::{
    CHILD, DATA, Entry, Flags, PERSISTENT, Place, PlaceLists, Places, RECURSIVE, Tally, WatcherLists,
    Watchers,
};
use super::slab::Slab;
use super::{ConnId, Target, WatchMode};

/// All watches of a server. See the [module](super) for the rules.
///
/// Arming, removing and asking take logarithmic time, [`WatchTable::connection_closed`] time in proportion to
/// the watches of that connection, and an event time in proportion to the entries at its node and at those
/// ancestors that are watched recursively. A watch takes about 20 bytes, on whatever it is.
#[derive(Debug)]
pub struct WatchTable {
    pub(super) nodes: HashMap<u32, Watchers, FixedState>,
    pub(super) paths: PathWatches,
    pub(super) conns: HashMap<ConnId, Places, FixedState>,
    pub(super) watcher_lists: WatcherLists,
    pub(super) place_lists: PlaceLists,
    /// Sum over all places.
    pub(super) tally: Tally,
}

/// The watched paths that name no node.
#[derive(Debug, Default)]
pub(super) struct PathWatches {
    pub(super) slots: Slab<PathSlot>,
    index: HashTable<u32>,
    hash: FixedState,
}

#[derive(Debug)]
pub(super) struct PathSlot {
    pub(super) path: Box<str>,
    pub(super) watchers: Watchers,
}

impl PathWatches {
    fn find(&self, path: &str) -> Option<u32> {
        if self.index.is_empty() {
            return None;
        }
        let found = self.index.find(self.hash.hash_one(path), |&id| &*self.slots.get(id).path == path);
        found.copied()
    }

    fn insert(&mut self, path: &str, watchers: Watchers) -> u32 {
        let id = self.slots.insert(PathSlot { path: path.into(), watchers });
        let PathWatches { slots, index, hash } = self;
        index.insert_unique(hash.hash_one(path), id, |&id| hash.hash_one(&*slots.get(id).path));
        id
    }

    fn remove(&mut self, id: u32) -> Watchers {
        let slot = self.slots.remove(id);
        if let Ok(entry) = self.index.find_entry(self.hash.hash_one(&*slot.path), |&other| other == id) {
            entry.remove();
        }
        slot.watchers
    }
}

impl Default for WatchTable {
    fn default() -> Self {
        WatchTable::with_hash_seed(0)
    }
}

impl WatchTable {
    /// An empty table.
    pub fn new() -> Self {
        WatchTable::default()
    }

    /// An empty table whose hash maps are seeded. Nothing that the table answers depends on the seed; a random
    /// one keeps clients from choosing paths that collide.
    pub fn with_hash_seed(seed: u64) -> Self {
        let hash = FixedState::with_seed(seed);
        WatchTable {
            nodes: HashMap::with_hasher(hash.clone()),
            paths: PathWatches { hash: hash.clone(), ..PathWatches::default() },
            conns: HashMap::with_hasher(hash),
            watcher_lists: Slab::default(),
            place_lists: Slab::default(),
            tally: Tally::default(),
        }
    }

    /// Whether nobody watches anything.
    pub fn is_empty(&self) -> bool {
        self.conns.is_empty()
    }

    /// Arms a watch. False if it was armed already, which changes nothing. Modes of one connection at one place
    /// stand beside each other.
    ///
    /// No change may be applied between the look-up that tells node from missing path, the answer to the read
    /// that arms the watch, and this call: it would go unnoticed.
    ///
    /// # Panics
    /// If the connection or the node is not below its limit.
    pub fn add(&mut self, target: Target<'_>, conn: ConnId, mode: WatchMode) -> bool {
        assert!(conn.0 < ConnId::LIMIT, "connection slot {} out of range", conn.0);
        if let Target::Node(node) = target {
            assert!(node < Target::NODE_LIMIT, "node index {node} out of range");
        }
        let place = match target {
            Target::Node(node) => Place::Node(node),
            Target::Path(path) => match self.paths.find(path) {
                Some(id) => Place::Path(id),
                None => {
                    self.tally.change(0, mode.flags());
                    let id = self.paths.insert(path, Watchers::one(Entry::new(conn, mode.flags())));
                    self.link(conn, Place::Path(id));
                    return true;
                }
            },
        };
        let old = self.flags(place, conn);
        let new = old | mode.flags();
        if new == old {
            return false;
        }
        self.set_flags(place, conn, old, new);
        if old == 0 {
            self.link(conn, place);
        }
        true
    }

    /// Removes the watches that removeWatches with this type means: [`WatcherType::Data`] and
    /// [`WatcherType::Children`] leave persistent ones in place. False if there were none; nothing has changed
    /// then.
    pub fn remove(&mut self, target: Target<'_>, conn: ConnId, kind: WatcherType) -> bool {
        let Some(place) = self.place(target) else { return false };
        let old = self.flags(place, conn);
        let new = old & !matched(kind);
        if new == old {
            return false;
        }
        self.set_flags(place, conn, old, new);
        if new == 0 {
            self.unlink(conn, place);
        }
        true
    }

    /// Whether there are watches that checkWatches with this type means.
    pub fn contains(&self, target: Target<'_>, conn: ConnId, kind: WatcherType) -> bool {
        self.place(target).is_some_and(|place| self.flags(place, conn) & matched(kind) != 0)
    }

    /// Forgets all watches of a connection. Its slot may be used for another one then.
    pub fn connection_closed(&mut self, conn: ConnId) {
        let Some(places) = self.conns.remove(&conn) else { return };
        for place in places.take(&mut self.place_lists) {
            let old = self.flags(place, conn);
            self.set_flags(place, conn, old, 0);
        }
        self.shrink();
    }

    /// Gives memory back after many watches have gone.
    fn shrink(&mut self) {
        fn sparse(len: usize, capacity: usize) -> bool {
            capacity > 1024 && len < capacity / 8
        }
        if sparse(self.nodes.len(), self.nodes.capacity()) {
            self.nodes.shrink_to(self.nodes.len() * 2);
        }
        if sparse(self.conns.len(), self.conns.capacity()) {
            self.conns.shrink_to(self.conns.len() * 2);
        }
        let PathWatches { slots, index, hash } = &mut self.paths;
        if sparse(index.len(), index.capacity()) {
            index.shrink_to(index.len() * 2, |&id| hash.hash_one(&*slots.get(id).path));
        }
    }

    fn place(&self, target: Target<'_>) -> Option<Place> {
        match target {
            Target::Node(node) => Some(Place::Node(node)),
            Target::Path(path) => self.paths.find(path).map(Place::Path),
        }
    }

    /// The modes of a connection at a place; 0 when it does not watch it.
    pub(super) fn flags(&self, place: Place, conn: ConnId) -> Flags {
        let watchers = match place {
            Place::Node(node) => self.nodes.get(&node).copied(),
            Place::Path(id) => Some(self.paths.slots.get(id).watchers),
        };
        watchers.map_or(0, |watchers| watchers.flags_of(conn, &self.watcher_lists))
    }

    /// Replaces the flags of a connection at a place; a path must be known. The connection's own list of places
    /// is the caller's business.
    fn set_flags(&mut self, place: Place, conn: ConnId, old: Flags, new: Flags) {
        self.tally.change(old, new);
        let lists = &mut self.watcher_lists;
        match place {
            Place::Node(node) => match self.nodes.entry(node) {
                MapEntry::Occupied(mut slot) => match slot.get().set(conn, old, new, lists) {
                    Some(watchers) => *slot.get_mut() = watchers,
                    None => drop(slot.remove()),
                },
                MapEntry::Vacant(slot) if new != 0 => {
                    slot.insert(Watchers::one(Entry::new(conn, new)));
                }
                MapEntry::Vacant(_) => {}
            },
            Place::Path(id) => {
                let slot = self.paths.slots.get_mut(id);
                match slot.watchers.set(conn, old, new, lists) {
                    Some(watchers) => slot.watchers = watchers,
                    None => drop(self.paths.remove(id)),
                }
            }
        }
    }

    /// Notes that a connection watches a place that it did not watch.
    fn link(&mut self, conn: ConnId, place: Place) {
        match self.conns.entry(conn) {
            MapEntry::Occupied(mut slot) => {
                *slot.get_mut() = slot.get().insert(place, &mut self.place_lists);
            }
            MapEntry::Vacant(slot) => {
                slot.insert(Places::one(place));
            }
        }
    }

    /// Notes that a connection does not watch a place any more.
    pub(super) fn unlink(&mut self, conn: ConnId, place: Place) {
        if let MapEntry::Occupied(mut slot) = self.conns.entry(conn) {
            match slot.get().remove(place, &mut self.place_lists) {
                Some(places) => *slot.get_mut() = places,
                None => drop(slot.remove()),
            }
        }
    }

    /// A path has become a node: its watches follow.
    pub(super) fn bind(&mut self, node: u32, path: &str) {
        debug_assert!(!self.nodes.contains_key(&node), "node {node} was not reported as deleted");
        let Some(id) = self.paths.find(path) else { return };
        let watchers = self.paths.remove(id);
        self.nodes.insert(node, watchers);
        self.relink(watchers, Place::Path(id), Place::Node(node));
    }

    /// A node has gone: what is left of its watches waits at the path.
    pub(super) fn unbind(&mut self, node: u32, path: &str) {
        debug_assert!(self.paths.find(path).is_none(), "{path} was watched as missing, but existed");
        let Some(watchers) = self.nodes.remove(&node) else { return };
        let id = self.paths.insert(path, watchers);
        self.relink(watchers, Place::Node(node), Place::Path(id));
    }

    fn relink(&mut self, watchers: Watchers, from: Place, to: Place) {
        let WatchTable { conns, place_lists, watcher_lists, .. } = self;
        watchers.for_each(watcher_lists, |entry| {
            if let Some(places) = conns.get_mut(&entry.conn()) {
                *places = places.replace(from, to, place_lists);
            }
        });
    }
}

/// The modes that a watcher type of checkWatches and removeWatches means.
fn matched(kind: WatcherType) -> Flags {
    match kind {
        WatcherType::Children => CHILD,
        WatcherType::Data => DATA,
        WatcherType::Persistent => PERSISTENT,
        WatcherType::PersistentRecursive => RECURSIVE,
        WatcherType::Any => DATA | CHILD | PERSISTENT | RECURSIVE,
    }
}
