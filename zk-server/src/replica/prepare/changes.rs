//! Changes that are prepared but not applied: per path the newest form of the node.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use zk_proto::Acl;

use crate::tree::acl::is_open;
use crate::tree::owner::{Owner, classify};
use crate::tree::{AclList, NodeStat, Tree, digest};

/// What PREPARE has to know of a node.
#[derive(Debug, Clone)]
pub struct Pending {
    pub stat: NodeStat,
    pub num_children: u32,
    /// `None`: everybody may do everything.
    pub acl: Option<AclList>,
    pub prefix_crc: u32,
}

impl Pending {
    /// A node that is being created.
    pub fn created(path: &str, data: Option<&[u8]>, stat: NodeStat, acl: &[Acl<'_>]) -> Self {
        let mut node =
            Pending { stat, num_children: 0, acl: None, prefix_crc: digest::prefix_crc(path, data) };
        node.set_acl(acl);
        node
    }

    pub fn set_acl(&mut self, acl: &[Acl<'_>]) {
        self.acl = (!is_open(acl)).then(|| acl.iter().cloned().map(Acl::into_owned).collect());
    }

    fn of_tree(tree: &Tree, path: &str) -> Option<Self> {
        let idx = tree.find(path)?;
        Some(Pending {
            stat: tree.node_stat(idx),
            num_children: tree.num_children(idx),
            acl: (!tree.is_open(idx)).then(|| tree.acl(idx).clone()),
            prefix_crc: tree.prefix_crc(idx),
        })
    }
}

#[derive(Debug, Clone)]
struct Change {
    zxid: i64,
    /// `None`: deleted.
    node: Option<Pending>,
}

/// The pending changes, and the digest that the tree will have after them.
#[derive(Debug)]
pub struct Changes {
    by_path: HashMap<Arc<str>, Change, foldhash::fast::FixedState>,
    order: VecDeque<(i64, Arc<str>)>,
    digest: u64,
    undo: Option<Vec<(Arc<str>, Option<Change>)>>,
}

/// Where a multi began.
#[derive(Debug)]
pub struct Mark {
    digest: u64,
    order: usize,
}

impl Changes {
    pub fn new(digest: u64) -> Self {
        let hasher = foldhash::fast::FixedState::with_seed(digest);
        Changes { by_path: HashMap::with_hasher(hasher), order: VecDeque::new(), digest, undo: None }
    }

    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The node as it will be.
    pub fn node(&self, tree: &Tree, path: &str) -> Option<Pending> {
        match self.by_path.get(path) {
            Some(change) => change.node.clone(),
            None => Pending::of_tree(tree, path),
        }
    }

    pub fn exists(&self, tree: &Tree, path: &str) -> bool {
        match self.by_path.get(path) {
            Some(change) => change.node.is_some(),
            None => tree.find(path).is_some(),
        }
    }

    /// Whether the path has a pending change.
    pub fn is_pending(&self, path: &str) -> bool {
        self.by_path.contains_key(path)
    }

    /// Ephemeral nodes of a session among the pending changes.
    pub fn pending_ephemerals(&self, session: i64) -> Vec<String> {
        let owned = |change: &Change| {
            change.node.as_ref().is_some_and(|n| classify(n.stat.ephemeral_owner) == Owner::Session(session))
        };
        self.by_path.iter().filter(|(_, change)| owned(change)).map(|(path, _)| path.to_string()).collect()
    }

    pub fn put(&mut self, tree: &Tree, zxid: i64, path: &str, node: Pending) {
        let new = digest::node_digest(node.prefix_crc, &node.stat);
        self.change(tree, path, new, Change { zxid, node: Some(node) });
    }

    pub fn delete(&mut self, tree: &Tree, zxid: i64, path: &str) {
        self.change(tree, path, 0, Change { zxid, node: None });
    }

    fn change(&mut self, tree: &Tree, path: &str, new_digest: u64, change: Change) {
        let zxid = change.zxid;
        let digest_of = |p: &Pending| digest::node_digest(p.prefix_crc, &p.stat);
        let counts = digest::counts(path);
        let old_digest;
        let key;
        match self.by_path.get_key_value(path) {
            Some((existing, old)) => {
                old_digest = old.node.as_ref().map_or(0, digest_of);
                key = existing.clone();
            }
            None => {
                old_digest = tree
                    .find(path)
                    .map_or(0, |idx| digest::node_digest(tree.prefix_crc(idx), &tree.node_stat(idx)));
                key = Arc::from(path);
            }
        }
        if counts {
            self.digest = self.digest.wrapping_sub(old_digest).wrapping_add(new_digest);
        }
        let old = self.by_path.insert(key.clone(), change);
        if let Some(undo) = &mut self.undo {
            undo.push((key.clone(), old));
        }
        self.order.push_back((zxid, key));
    }

    /// Drops the changes of transactions up to `zxid`.
    pub fn applied(&mut self, zxid: i64) {
        while let Some((at, path)) = self.order.front() {
            if *at > zxid {
                break;
            }
            if self.by_path.get(path).is_some_and(|change| change.zxid == *at) {
                self.by_path.remove(path);
            }
            self.order.pop_front();
        }
    }

    /// From here on changes can be taken back with [`Changes::end`].
    pub fn begin(&mut self) -> Mark {
        self.undo = Some(Vec::new());
        Mark { digest: self.digest, order: self.order.len() }
    }

    /// Keeps the changes since `mark`, or takes them back.
    pub fn end(&mut self, mark: Mark, failed: bool) {
        let undo = self.undo.take().unwrap_or_default();
        if !failed {
            return;
        }
        for (path, old) in undo.into_iter().rev() {
            match old {
                Some(old) => self.by_path.insert(path, old),
                None => self.by_path.remove(&path),
            };
        }
        self.digest = mark.digest;
        self.order.truncate(mark.order);
    }
}
