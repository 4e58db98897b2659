//! What the replica shares with the I/O threads: the tree, the watches, the last zxid.

use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::{Mutex, RwLock};
use zk_proto::Zxid;

use crate::tree::Tree;
use crate::watch::WatchTable;

/// State that reads are answered from.
///
/// Lock order: `tree`, then `watches`. The replica changes the tree under the write lock and puts the watch
/// events of the change into the mail before it lets go; so who holds the read lock and has delivered its mail
/// cannot show a client a change before the event for it. No lock is held across an `.await`.
#[derive(Debug)]
pub struct Shared {
    /// The znodes. One writer: the replica.
    pub tree: RwLock<Tree>,
    /// The watches of this server's connections. Registered under the tree's read lock, fired under its write lock.
    pub watches: Mutex<WatchTable>,
    last_zxid: AtomicI64,
}

impl Shared {
    /// Shares a recovered tree.
    pub fn new(tree: Tree) -> Self {
        let last_zxid = AtomicI64::new(tree.last_zxid().0);
        Shared { tree: RwLock::new(tree), watches: Mutex::new(WatchTable::new()), last_zxid }
    }

    /// The last transaction applied to the tree, without a lock.
    pub fn last_zxid(&self) -> Zxid {
        Zxid(self.last_zxid.load(Ordering::Acquire))
    }

    /// The tree was replaced: its last transaction may be older than the last one.
    pub(crate) fn reset_last_zxid(&self, zxid: Zxid) {
        self.last_zxid.store(zxid.0, Ordering::Release);
    }

    /// Set by the replica before it releases the tree's write lock.
    pub(crate) fn set_last_zxid(&self, zxid: Zxid) {
        self.last_zxid.store(zxid.0, Ordering::Release);
    }
}
