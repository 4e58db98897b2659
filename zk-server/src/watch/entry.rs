//! How entries, lists of them and places are packed into 32 bits each.
//!
//! The two maps of the table (place -> watchers, connection -> places) hold mostly one thing per key, so a map
//! value is either that thing itself or the number of a list in a slab:
//!
//! | word | value |
//! |---|---|
//! | [`Watchers`] with flags | the only watcher: connection << 4, flags |
//! | [`Watchers`] with flags 0 | list number << 4 |
//! | [`Places`] `0…` | the only place: node |
//! | [`Places`] `10…` | the only place: path number |
//! | [`Places`] `11…` | list number |

use super::slab::Slab;
use super::sorted_set::SortedSet;
use super::{ConnId, WatchMode};

/// Modes of one entry, as bits.
pub(super) type Flags = u32;

pub(super) const DATA: Flags = 1;
pub(super) const CHILD: Flags = 2;
pub(super) const PERSISTENT: Flags = 4;
pub(super) const RECURSIVE: Flags = 8;
/// The modes that stand in Apache's data table.
pub(super) const DATA_TABLE: Flags = DATA | PERSISTENT | RECURSIVE;
/// The modes that stand in Apache's child table.
pub(super) const CHILD_TABLE: Flags = CHILD | PERSISTENT;

const FLAG_BITS: u32 = 4;
const ALL_FLAGS: Flags = (1 << FLAG_BITS) - 1;

impl WatchMode {
    pub(super) fn flags(self) -> Flags {
        match self {
            WatchMode::Data => DATA,
            WatchMode::Child => CHILD,
            WatchMode::Persistent => PERSISTENT,
            WatchMode::Recursive => RECURSIVE,
        }
    }
}

/// A connection and its modes at one place. Ordered by connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry(u32);

impl Entry {
    pub(super) fn new(conn: ConnId, flags: Flags) -> Self {
        Entry(conn.0 << FLAG_BITS | flags)
    }

    pub(super) fn conn(self) -> ConnId {
        ConnId(self.0 >> FLAG_BITS)
    }

    pub(super) fn flags(self) -> Flags {
        self.0 & ALL_FLAGS
    }
}

/// How many entries have a mode of the data table, of the child table, and RECURSIVE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    pub(super) data: u32,
    pub(super) child: u32,
    pub(super) recursive: u32,
}

impl Tally {
    /// Takes note that an entry changes its flags; 0 stands for no entry.
    pub(super) fn change(&mut self, old: Flags, new: Flags) {
        for (count, modes) in
            [(&mut self.data, DATA_TABLE), (&mut self.child, CHILD_TABLE), (&mut self.recursive, RECURSIVE)]
        {
            *count -= u32::from(old & modes != 0);
            *count += u32::from(new & modes != 0);
        }
    }

    /// Whether some entry has one of the modes.
    pub(super) fn any(&self, modes: Flags) -> bool {
        match modes {
            DATA_TABLE => self.data > 0,
            CHILD_TABLE => self.child > 0,
            RECURSIVE => self.recursive > 0,
            _ => true,
        }
    }
}

/// The watchers of one place, two or more.
#[derive(Debug)]
pub(super) struct WatcherList {
    set: SortedSet,
    tally: Tally,
}

/// The watchers of one place: never none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Watchers(u32);

/// The lists that [`Watchers`] refer to.
pub(super) type WatcherLists = Slab<WatcherList>;

impl Watchers {
    pub(super) fn one(entry: Entry) -> Self {
        Watchers(entry.0)
    }

    fn list(id: u32) -> Self {
        assert!(id < 1 << (32 - FLAG_BITS), "too many watched nodes");
        Watchers(id << FLAG_BITS)
    }

    /// The entry, or the number of the list.
    fn unpack(self) -> Result<Entry, u32> {
        if self.0 & ALL_FLAGS != 0 { Ok(Entry(self.0)) } else { Err(self.0 >> FLAG_BITS) }
    }

    /// The modes of a connection here; 0 when it has none.
    pub(super) fn flags_of(self, conn: ConnId, lists: &WatcherLists) -> Flags {
        let entry = match self.unpack() {
            Ok(entry) => Some(entry),
            Err(id) => lists.get(id).set.first_from(Entry::new(conn, 0).0).map(Entry),
        };
        entry.filter(|entry| entry.conn() == conn).map_or(0, Entry::flags)
    }

    /// Replaces the modes `old` of a connection, as [`Watchers::flags_of`] tells them, by `new`. `None` when
    /// nobody is left.
    pub(super) fn set(
        self,
        conn: ConnId,
        old: Flags,
        new: Flags,
        lists: &mut WatcherLists,
    ) -> Option<Watchers> {
        let (old_entry, new_entry) = (Entry::new(conn, old), Entry::new(conn, new));
        match self.unpack() {
            Ok(_) if old != 0 => (new != 0).then_some(Watchers(new_entry.0)),
            Ok(_) if new == 0 => Some(self),
            Ok(other) => {
                let mut tally = Tally::default();
                tally.change(0, other.flags());
                tally.change(0, new);
                Some(Watchers::list(
                    lists.insert(WatcherList { set: SortedSet::pair(other.0, new_entry.0), tally }),
                ))
            }
            Err(id) => {
                let list = lists.get_mut(id);
                if old != 0 {
                    list.set.remove(old_entry.0);
                }
                if new != 0 {
                    list.set.insert(new_entry.0);
                }
                list.tally.change(old, new);
                self.normalized(lists)
            }
        }
    }

    /// Whether some entry has one of `modes`: [`DATA_TABLE`], [`CHILD_TABLE`] or [`RECURSIVE`].
    pub(super) fn any(self, modes: Flags, lists: &WatcherLists) -> bool {
        match self.unpack() {
            Ok(entry) => entry.flags() & modes != 0,
            Err(id) => lists.get(id).tally.any(modes),
        }
    }

    /// Shows every entry, by ascending connection.
    pub(super) fn for_each(self, lists: &WatcherLists, mut show: impl FnMut(Entry)) {
        match self.unpack() {
            Ok(entry) => show(entry),
            Err(id) => lists.get(id).set.iter().for_each(|entry| show(Entry(entry))),
        }
    }

    /// Shows every entry, by ascending connection, to `keep`, and leaves only the modes that it answers.
    /// `None` when nobody is left.
    pub(super) fn retain(
        self,
        lists: &mut WatcherLists,
        mut keep: impl FnMut(Entry) -> Flags,
    ) -> Option<Watchers> {
        match self.unpack() {
            Ok(entry) => match keep(entry) {
                0 => None,
                flags => Some(Watchers::one(Entry::new(entry.conn(), flags))),
            },
            Err(id) => {
                let WatcherList { set, tally } = lists.get_mut(id);
                set.retain(|word| {
                    let entry = Entry(*word);
                    let flags = keep(entry);
                    tally.change(entry.flags(), flags);
                    *word = Entry::new(entry.conn(), flags).0;
                    flags != 0
                });
                self.normalized(lists)
            }
        }
    }

    /// Gives up a list that is not needed any more.
    fn normalized(self, lists: &mut WatcherLists) -> Option<Watchers> {
        let Err(id) = self.unpack() else { return Some(self) };
        let set = &lists.get(id).set;
        if set.len() > 1 {
            return Some(self);
        }
        let last = set.first_from(0).map(Watchers);
        lists.remove(id);
        last
    }
}

/// A place inside the table: a node or the number of a watched path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Place {
    Node(u32),
    Path(u32),
}

const PATH_TAG: u32 = 0b10 << 30;
const LIST_TAG: u32 = 0b11 << 30;
const TAG_MASK: u32 = 0b11 << 30;

impl Place {
    fn pack(self) -> u32 {
        match self {
            Place::Node(node) => node,
            Place::Path(path) => {
                assert!(path < 1 << 30, "too many watched paths");
                PATH_TAG | path
            }
        }
    }

    fn unpack(word: u32) -> Self {
        if word & TAG_MASK == PATH_TAG { Place::Path(word & !TAG_MASK) } else { Place::Node(word) }
    }
}

/// The places that one connection watches: never none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Places(u32);

/// The lists that [`Places`] refer to: two or more places each.
pub(super) type PlaceLists = Slab<SortedSet>;

impl Places {
    pub(super) fn one(place: Place) -> Self {
        Places(place.pack())
    }

    fn list_at(id: u32) -> Self {
        assert!(id < 1 << 30, "too many watching connections");
        Places(LIST_TAG | id)
    }

    fn unpack(self) -> Result<Place, u32> {
        if self.0 & TAG_MASK == LIST_TAG { Err(self.0 & !TAG_MASK) } else { Ok(Place::unpack(self.0)) }
    }

    /// Adds a place that is not here yet.
    pub(super) fn insert(self, place: Place, lists: &mut PlaceLists) -> Places {
        match self.unpack() {
            Ok(other) => {
                let id = lists.insert(SortedSet::pair(other.pack(), place.pack()));
                Places::list_at(id)
            }
            Err(id) => {
                lists.get_mut(id).insert(place.pack());
                self
            }
        }
    }

    /// Takes a place out that is here. `None` when it was the last one.
    pub(super) fn remove(self, place: Place, lists: &mut PlaceLists) -> Option<Places> {
        let id = self.unpack().err()?;
        let set = lists.get_mut(id);
        set.remove(place.pack());
        if set.len() > 1 {
            return Some(self);
        }
        let last = set.first_from(0).map(Places);
        lists.remove(id);
        last
    }

    /// Replaces a place that is here by one that is not.
    pub(super) fn replace(self, from: Place, to: Place, lists: &mut PlaceLists) -> Places {
        match self.unpack() {
            Ok(_) => Places::one(to),
            Err(id) => {
                let set = lists.get_mut(id);
                set.remove(from.pack());
                set.insert(to.pack());
                self
            }
        }
    }

    /// All places; gives up the list.
    pub(super) fn take(self, lists: &mut PlaceLists) -> Vec<Place> {
        match self.unpack() {
            Ok(place) => vec![place],
            Err(id) => lists.remove(id).iter().map(Place::unpack).collect(),
        }
    }

    /// All places: nodes first, each kind ascending.
    pub(super) fn list(self, lists: &PlaceLists) -> Vec<Place> {
        match self.unpack() {
            Ok(place) => vec![place],
            Err(id) => lists.get(id).iter().map(Place::unpack).collect(),
        }
    }
}
