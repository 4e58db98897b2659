//! Exact snapshots while writes go on.
//!
//! A pin fixes the zxid. A background thread walks the slots in order, a few at a time under the tree's read
//! lock. Who changes a node that the walk has not reached yet first leaves the node's old form with the pin.
//! Since children are always in slots behind their parents, the walk meets parents first.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use zk_proto::Zxid;

use crate::mutation::Mutation;

use super::node::{NodeIdx, NodeStat, ROOT};
use super::{AclList, Tree, acl};

/// The ACL id that files use for `world:anyone` with all permissions.
const OPEN_ACL_ID: i64 = -1;

/// A tree at one zxid, see the module.
#[derive(Debug)]
pub struct SnapshotPin {
    /// The last transaction that the snapshot holds.
    pub zxid: Zxid,
    /// The tree's digest at that transaction.
    pub digest: u64,
    /// Sessions and their timeouts in ms.
    pub sessions: Vec<(i64, i32)>,
    /// The ACL table: ids and lists.
    pub acls: Vec<(i64, AclList)>,
    slots: u32,
    walk: Mutex<Walk>,
}

#[derive(Debug, Default)]
struct Walk {
    cursor: NodeIdx,
    saved: BTreeMap<NodeIdx, SavedNode>,
}

#[derive(Debug)]
struct SavedNode {
    path: String,
    data: Option<Box<[u8]>>,
    acl: u32,
    stat: NodeStat,
}

impl SnapshotPin {
    pub(super) fn new(tree: &Tree) -> Self {
        SnapshotPin {
            zxid: tree.last_zxid,
            digest: tree.digest,
            sessions: tree.sessions().filter(|_| !Mutation::SnapshotWithoutSessions.is_on()).collect(),
            acls: tree.acls.iter().map(|(slot, list)| (i64::from(slot), list.clone())).collect(),
            slots: tree.slab.slots(),
            walk: Mutex::default(),
        }
    }

    /// Emits the next nodes (path, data, ACL id, stat), at most `max` slots further, and tells whether more
    /// follow. The root's path is empty, as in snapshot files. Call it with the tree read-locked, and give the
    /// lock free between calls.
    pub fn next_nodes<E>(
        &self,
        tree: &Tree,
        max: u32,
        mut emit: impl FnMut(&str, Option<&[u8]>, i64, &NodeStat) -> Result<(), E>,
    ) -> Result<bool, E> {
        let mut walk = self.walk.lock();
        let end = self.slots.min(walk.cursor.saturating_add(max));
        let (mut path, mut parent, mut parent_len) = (String::new(), None, 0);
        for idx in walk.cursor..end {
            if let Some(saved) = walk.saved.remove(&idx) {
                emit(&saved.path, saved.data.as_deref(), acl_id(saved.acl), &saved.stat)?;
                continue;
            }
            if !tree.slab.is_live(idx) || tree.slab.czxid(idx) > self.zxid.0 {
                continue;
            }
            if idx == ROOT {
                path.clear();
            } else {
                let of = tree.slab.parent(idx);
                if parent != Some(of) {
                    path.clear();
                    tree.write_path(of, &mut path);
                    (parent, parent_len) = (Some(of), path.len());
                }
                path.truncate(parent_len);
                path.push('/');
                path.push_str(tree.name(idx));
            }
            emit(&path, tree.slab.data(idx), acl_id(tree.slab.acl(idx)), &tree.slab.stat(idx))?;
        }
        walk.cursor = end;
        Ok(end < self.slots)
    }
}

impl Tree {
    /// To be called before a node is changed or deleted.
    pub(super) fn save_for_snapshots(&mut self, idx: NodeIdx) {
        if self.pins.is_empty() {
            return;
        }
        self.pins.retain(|pin| pin.strong_count() > 0);
        for pin in self.pins.iter().filter_map(std::sync::Weak::upgrade) {
            if idx >= pin.slots || self.slab.czxid(idx) > pin.zxid.0 {
                continue;
            }
            let mut walk = pin.walk.lock();
            if idx >= walk.cursor && !walk.saved.contains_key(&idx) {
                let mut path = String::new();
                self.write_path(idx, &mut path);
                let saved = SavedNode {
                    path,
                    data: self.slab.data(idx).map(Into::into),
                    acl: self.slab.acl(idx),
                    stat: self.slab.stat(idx),
                };
                walk.saved.insert(idx, saved);
            }
        }
    }
}

fn acl_id(slot: u32) -> i64 {
    if slot == acl::OPEN { OPEN_ACL_ID } else { i64::from(slot) }
}
