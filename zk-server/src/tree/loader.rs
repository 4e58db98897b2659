//! Building the tree from a snapshot and the log behind it.

use std::collections::BTreeMap;

use zk_proto::{Acl, Perms, Zxid};

use super::node::{NodeIdx, NodeStat, ROOT};
use super::{Ignore, Tree, acl};
use crate::storage::{LoadError, RecordHeader, Replay, ReplayError, SnapshotDigest, SnapshotSink};
use crate::txn::{self, DIGEST_VERSION};

/// A tree under construction: first the parts of a snapshot, then the transactions behind it, then
/// [`TreeLoader::finish`].
#[derive(Debug)]
pub struct TreeLoader {
    tree: Tree,
    seed: u64,
    acl_slots: BTreeMap<i64, u32>,
    last_parent: (String, NodeIdx),
    compare_digests_from: Option<Zxid>,
}

impl TreeLoader {
    /// An empty tree; `seed` as for [`Tree::new`].
    pub fn new(seed: u64) -> Self {
        TreeLoader {
            tree: Tree::bare(seed),
            seed,
            acl_slots: BTreeMap::new(),
            last_parent: (String::new(), ROOT),
            compare_digests_from: None,
        }
    }

    fn acl_slot(&mut self, id: i64) -> u32 {
        match self.acl_slots.get(&id) {
            // Counted for the table once, and for each node that uses it.
            Some(&slot) => {
                self.tree.acls.retain(slot);
                slot
            }
            None if id == -1 => acl::OPEN,
            // A fuzzy snapshot may lack it; the transaction that brings it follows. Until then nobody but a
            // super user gets in.
            None => self.tree.acls.acquire(&[Acl::new(Perms(0), "world", "anyone")]),
        }
    }

    /// The tree as it is now.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The finished tree.
    pub fn finish(mut self) -> Tree {
        if self.tree.is_empty() {
            self.tree = Tree::new(self.seed);
        }
        self.tree
    }
}

impl SnapshotSink for TreeLoader {
    fn begin(&mut self, _size_hint_bytes: u64) {
        *self = TreeLoader::new(self.seed);
    }

    fn session(&mut self, id: i64, timeout_ms: i32) {
        self.tree.sessions.insert(id, timeout_ms);
    }

    fn acl(&mut self, id: i64, acl: Vec<Acl<'static>>) {
        let slot = self.tree.acls.acquire(&acl);
        self.acl_slots.insert(id, slot);
    }

    fn node(
        &mut self,
        path: &str,
        data: Option<&[u8]>,
        acl_id: i64,
        stat: &NodeStat,
    ) -> Result<(), LoadError> {
        let missing_parent = || LoadError::MissingParent(path.to_owned());
        if path.is_empty() {
            if !self.tree.is_empty() {
                return Err(LoadError::Invalid("the root is there twice".into()));
            }
            let acl = self.acl_slot(acl_id);
            self.tree.add("/", None, data, stat, acl);
            return Ok(());
        }
        let Some((parent_path, name)) = zk_proto::path::split(path).filter(|_| path.starts_with('/')) else {
            return Err(LoadError::Invalid(format!("{path:?} is no path of a node").into()));
        };
        if self.tree.is_empty() {
            return Err(missing_parent());
        }
        if self.last_parent.0 != parent_path {
            let parent = self.tree.find(parent_path).ok_or_else(missing_parent)?;
            self.last_parent = (parent_path.into(), parent);
        }
        let parent = self.last_parent.1;
        if self.tree.child(parent, name).is_some() {
            return Err(LoadError::Invalid(format!("node {path:?} is there twice").into()));
        }
        let acl = self.acl_slot(acl_id);
        self.tree.add(path, Some(parent), data, stat, acl);
        Ok(())
    }
}

impl Replay for TreeLoader {
    fn snapshot_loaded(&mut self, zxid: Zxid, digest: Option<SnapshotDigest>) {
        for slot in std::mem::take(&mut self.acl_slots).into_values() {
            self.tree.acls.release(slot);
        }
        if self.tree.is_empty() {
            self.tree = Tree::new(self.seed);
        }
        self.tree.last_zxid = zxid;
        self.tree.rebuild_quotas();
        // A fuzzy snapshot is no tree that ever was until replay has passed the zxid of its digest.
        self.compare_digests_from = match digest {
            Some(digest) if digest.version == DIGEST_VERSION && digest.zxid >= zxid => Some(digest.zxid),
            _ => Some(zxid),
        };
    }

    fn apply(&mut self, header: &RecordHeader, payload: &[u8]) -> Result<(), ReplayError> {
        let (_, txn, digest) = txn::decode(payload)?;
        let compare = self.compare_digests_from.is_none_or(|from| header.zxid > from);
        self.tree.apply(header, &txn, digest.filter(|_| compare), &mut Ignore, None);
        Ok(())
    }
}
