//! What operators see of the watches: the words `wchs`, `wchc`, `wchp` and the counter of `mntr`.
//!
//! As in Apache the three words speak of the data table only: watches armed by getChildren do not appear.

use super::ConnId;
use super::entry::{DATA_TABLE, Place, Watchers};
use super::table::WatchTable;

/// The numbers of `wchs`. They cover the data table only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WatchSummary {
    /// Connections that watch something.
    pub connections: usize,
    /// Different paths that are watched.
    pub paths: usize,
    /// Pairs of a path and a connection.
    pub watches: usize,
}

impl WatchTable {
    /// The counter `watch_count`: pairs of a path and a connection, of the data and the child table, so that a
    /// persistent watch counts twice.
    pub fn watch_count(&self) -> usize {
        self.tally.data as usize + self.tally.child as usize
    }

    /// The numbers of `wchs`. Takes time in proportion to all watches.
    pub fn summary(&self) -> WatchSummary {
        let mut connections = Vec::new();
        let mut paths = 0;
        let places = self.nodes.values().chain(self.paths.slots.iter().map(|(_, slot)| &slot.watchers));
        for watchers in places {
            let before = connections.len();
            self.data_watchers(*watchers, &mut connections);
            paths += usize::from(connections.len() > before);
        }
        let watches = connections.len();
        connections.sort_unstable();
        connections.dedup();
        WatchSummary { connections: connections.len(), paths, watches }
    }

    /// For every connection, ascending, the paths that it watches in the data table: the word `wchc`. `path_of`
    /// tells the path of a node.
    pub fn by_connection(
        &self,
        mut path_of: impl FnMut(u32) -> String,
    ) -> impl Iterator<Item = (ConnId, Vec<String>)> {
        let mut conns: Vec<_> = self.conns.iter().map(|(conn, places)| (*conn, *places)).collect();
        conns.sort_unstable_by_key(|(conn, _)| *conn);
        conns.into_iter().filter_map(move |(conn, places)| {
            let mut paths = places.list(&self.place_lists);
            paths.retain(|place| self.flags(*place, conn) & DATA_TABLE != 0);
            let paths: Vec<String> = paths.into_iter().map(|place| self.path(place, &mut path_of)).collect();
            (!paths.is_empty()).then_some((conn, paths))
        })
    }

    /// For every path that is watched in the data table, the connections that do so, ascending: the word `wchp`.
    /// Nodes come first, by index, then paths of no node. `path_of` tells the path of a node.
    pub fn by_path(
        &self,
        mut path_of: impl FnMut(u32) -> String,
    ) -> impl Iterator<Item = (String, Vec<ConnId>)> {
        let mut places: Vec<_> = self.nodes.iter().map(|(node, w)| (Place::Node(*node), *w)).collect();
        places.sort_unstable_by_key(|(place, _)| *place);
        places.extend(self.paths.slots.iter().map(|(id, slot)| (Place::Path(id), slot.watchers)));
        places.into_iter().filter_map(move |(place, watchers)| {
            let mut conns = Vec::new();
            self.data_watchers(watchers, &mut conns);
            (!conns.is_empty()).then(|| (self.path(place, &mut path_of), conns))
        })
    }

    fn data_watchers(&self, watchers: Watchers, conns: &mut Vec<ConnId>) {
        watchers.for_each(&self.watcher_lists, |entry| {
            if entry.flags() & DATA_TABLE != 0 {
                conns.push(entry.conn());
            }
        });
    }

    fn path(&self, place: Place, path_of: &mut impl FnMut(u32) -> String) -> String {
        match place {
            Place::Node(node) => path_of(node),
            Place::Path(id) => self.paths.slots.get(id).path.to_string(),
        }
    }
}
