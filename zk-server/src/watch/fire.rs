//! Firing: which connections learn of a change, in which order.
//!
//! | change | walk 1 | walk 2 | walk 3 |
//! |---|---|---|---|
//! | create | data: NodeCreated | child of the parent: NodeChildrenChanged | |
//! | delete | data: NodeDeleted | child: NodeDeleted, minus those of walk 1 | child of the parent: NodeChildrenChanged |
//! | set data | data: NodeDataChanged | | |
//!
//! A walk tells the connections that stand in its table at the node itself and uses up their one-shot watches;
//! the data walk tells those with a recursive watch on an ancestor, too. Whoever walk 2 of a delete leaves out
//! loses the one-shot watch all the same.

use zk_proto::EventType;

use super::entry::{CHILD, CHILD_TABLE, DATA, DATA_TABLE, Flags, Place, RECURSIVE};
use super::table::WatchTable;
use super::{ConnId, Fired, Subject};

/// A table of Apache's: the modes that stand in it, and which of them end with an event.
struct Table {
    modes: Flags,
    one_shot: Flags,
}

const DATA_WATCHES: Table = Table { modes: DATA_TABLE, one_shot: DATA };
const CHILD_WATCHES: Table = Table { modes: CHILD_TABLE, one_shot: CHILD };

impl WatchTable {
    /// A node was created. `ancestors` are the nodes above it, parent first, root last; only the parent is asked
    /// for unless somebody watches recursively. Watches that waited at the path belong to the node from now on.
    /// Appends what fires to `out`.
    pub fn created(
        &mut self,
        node: u32,
        path: &str,
        ancestors: impl IntoIterator<Item = u32>,
        out: &mut Vec<Fired>,
    ) {
        if self.is_empty() {
            return;
        }
        self.bind(node, path);
        let mut ancestors = ancestors.into_iter();
        let parent = ancestors.next();
        let told = self.data_walk(node, parent.into_iter().chain(ancestors));
        report(EventType::NodeCreated, Subject::Node, told, out);
        self.parent_walk(parent, out);
    }

    /// A node was deleted, also by expiry or as a container or TTL node. `ancestors` as for
    /// [`WatchTable::created`]. Watches that survive the event wait at the path from now on, and the index may
    /// be used for another node. Appends what fires to `out`.
    pub fn deleted(
        &mut self,
        node: u32,
        path: &str,
        ancestors: impl IntoIterator<Item = u32>,
        out: &mut Vec<Fired>,
    ) {
        if self.is_empty() {
            return;
        }
        let mut ancestors = ancestors.into_iter();
        let parent = ancestors.next();
        let told = self.data_walk(node, parent.into_iter().chain(ancestors));
        let mut told_late = self.walk(node, &CHILD_WATCHES);
        told_late.retain(|conn| told.binary_search(conn).is_err());
        report(EventType::NodeDeleted, Subject::Node, told, out);
        report(EventType::NodeDeleted, Subject::Node, told_late, out);
        self.parent_walk(parent, out);
        self.unbind(node, path);
    }

    /// A node's data was set, also to the same bytes. `ancestors` as for [`WatchTable::created`]. Appends what
    /// fires to `out`.
    pub fn data_changed(
        &mut self,
        node: u32,
        ancestors: impl IntoIterator<Item = u32>,
        out: &mut Vec<Fired>,
    ) {
        if self.is_empty() {
            return;
        }
        let told = self.data_walk(node, ancestors);
        report(EventType::NodeDataChanged, Subject::Node, told, out);
    }

    fn parent_walk(&mut self, parent: Option<u32>, out: &mut Vec<Fired>) {
        if let Some(parent) = parent {
            let told = self.walk(parent, &CHILD_WATCHES);
            report(EventType::NodeChildrenChanged, Subject::Parent, told, out);
        }
    }

    /// The connections that the data table names for a change of a node, ascending.
    fn data_walk(&mut self, node: u32, ancestors: impl IntoIterator<Item = u32>) -> Vec<ConnId> {
        let mut told = self.walk(node, &DATA_WATCHES);
        if self.tally.recursive > 0 {
            let at_node = told.len();
            for ancestor in ancestors {
                if let Some(watchers) = self.nodes.get(&ancestor)
                    && watchers.any(RECURSIVE, &self.watcher_lists)
                {
                    watchers.for_each(&self.watcher_lists, |entry| {
                        if entry.flags() & RECURSIVE != 0 {
                            told.push(entry.conn());
                        }
                    });
                }
            }
            if told.len() > at_node {
                told.sort_unstable();
                told.dedup();
            }
        }
        told
    }

    /// The connections that stand in a table at exactly this node, ascending. Uses up their one-shot watches.
    fn walk(&mut self, node: u32, table: &Table) -> Vec<ConnId> {
        let mut told = Vec::new();
        let WatchTable { nodes, watcher_lists, tally, .. } = self;
        let Some(slot) = nodes.get_mut(&node) else { return told };
        if !slot.any(table.modes, watcher_lists) {
            return told;
        }
        let mut gone = Vec::new();
        let left = slot.retain(watcher_lists, |entry| {
            let old = entry.flags();
            if old & table.modes == 0 {
                return old;
            }
            told.push(entry.conn());
            let new = old & !table.one_shot;
            tally.change(old, new);
            if new == 0 {
                gone.push(entry.conn());
            }
            new
        });
        match left {
            Some(watchers) => *slot = watchers,
            None => drop(nodes.remove(&node)),
        }
        for conn in gone {
            self.unlink(conn, Place::Node(node));
        }
        told
    }
}

fn report(kind: EventType, which: Subject, watchers: Vec<ConnId>, out: &mut Vec<Fired>) {
    if !watchers.is_empty() {
        out.push(Fired { kind, which, watchers });
    }
}
