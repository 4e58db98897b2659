//! Who watches which node, and who is told about a change.
//!
//! A watch belongs to a connection and a place: a node that exists, named by its index in the tree, or a path
//! that names no node (yet). [`WatchTable`] holds all of them. The applied changes of the tree are reported to
//! it ([`WatchTable::created`], [`WatchTable::deleted`], [`WatchTable::data_changed`]); it answers with
//! [`Fired`] events in the order in which they must reach the clients. It neither delivers nor filters: whether
//! a connection may read the node (the ACL filter of events) is for the caller to decide, and a one-shot watch
//! is used up either way, as in Apache ZooKeeper.
//!
//! Apache keeps two tables, *data* and *child*, each path -> connection -> modes. Here one entry per place and
//! connection carries the modes of both as flags:
//!
//! | armed by | mode | data table | child table | ends |
//! |---|---|---|---|---|
//! | getData, exists | [`WatchMode::Data`] | x | | with the first event there |
//! | getChildren | [`WatchMode::Child`] | | x | with the first event there |
//! | addWatch 0 | [`WatchMode::Persistent`] | x | x | by removeWatches |
//! | addWatch 1 | [`WatchMode::Recursive`] | x, for the subtree | | by removeWatches |
//!
//! No clock, no randomness: the same calls give the same answers in the same order.

mod entry;
mod fire;
mod report;
mod slab;
mod sorted_set;
mod table;
#[cfg(test)]
mod tests;

use zk_proto::{AddWatchMode, EventType};

pub use report::WatchSummary;
pub use table::WatchTable;

/// A connection, by its slot number in the process. Slots may be reused once
/// [`WatchTable::connection_closed`] was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u32);

impl ConnId {
    /// Slot numbers stay below this: 2^28, since an entry packs the slot and four flags into 32 bits.
    pub const LIMIT: u32 = 1 << 28;
}

/// The place that a watch is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target<'a> {
    /// An existing node, by its index in the tree; below [`Target::NODE_LIMIT`].
    Node(u32),
    /// A path that names no existing node: watched by exists or addWatch, or not a valid path at all.
    Path(&'a str),
}

impl Target<'_> {
    /// Node indexes stay below this: 2^31.
    pub const NODE_LIMIT: u32 = 1 << 31;
}

/// How a watch is armed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WatchMode {
    /// One-shot, data table: getData and exists.
    Data,
    /// One-shot, child table: getChildren.
    Child,
    /// Both tables until removed: addWatch 0.
    Persistent,
    /// Data table of the node and everything below it until removed: addWatch 1.
    Recursive,
}

impl From<AddWatchMode> for WatchMode {
    fn from(mode: AddWatchMode) -> Self {
        match mode {
            AddWatchMode::Persistent => WatchMode::Persistent,
            AddWatchMode::PersistentRecursive => WatchMode::Recursive,
        }
    }
}

/// The node that an event names. Its ACL is the one that decides who may see the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    /// The node that was created, deleted or set.
    Node,
    /// Its parent, whose list of children changed.
    Parent,
}

/// One event and everybody who gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fired {
    /// What happened.
    pub kind: EventType,
    /// To which node.
    pub which: Subject,
    /// Who is told: at least one connection, each once, ascending.
    pub watchers: Vec<ConnId>,
}
