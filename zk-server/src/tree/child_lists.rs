//! Encoded lists of children of large directories, kept between reads: walking a thousand nodes costs more than
//! copying their names.

use bytes::Bytes;
use hashbrown::HashMap;
use parking_lot::Mutex;
use zk_proto::jute::Writer;

use super::Tree;
use super::node::NodeIdx;

/// Smaller lists are encoded each time.
const CHILDREN_MIN: u32 = 64;
/// What is kept in all; when more comes, everything is dropped.
const BYTES_MAX: usize = 8 << 20;

/// The lists, by directory. Only reads add to it, only changes of the tree take away.
#[derive(Debug, Default)]
pub struct ChildLists {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    lists: HashMap<NodeIdx, Bytes, foldhash::fast::FixedState>,
    bytes: usize,
}

impl ChildLists {
    /// The children of `idx` have changed, or the node is gone.
    pub fn forget(&mut self, idx: NodeIdx) {
        let kept = self.kept.get_mut();
        if !kept.lists.is_empty()
            && let Some(list) = kept.lists.remove(&idx)
        {
            kept.bytes -= list.len();
        }
    }
}

impl Tree {
    /// Appends the names of a node's children as a jute vector.
    pub fn put_children(&self, idx: NodeIdx, out: &mut Vec<u8>) {
        if self.num_children(idx) < CHILDREN_MIN {
            self.encode_children(idx, out);
            return;
        }
        let kept = self.child_lists.kept.lock().lists.get(&idx).cloned();
        if let Some(list) = kept {
            out.extend_from_slice(&list);
            return;
        }
        let at = out.len();
        self.encode_children(idx, out);
        let list = Bytes::copy_from_slice(&out[at..]);
        if list.len() <= BYTES_MAX / 4 {
            let mut kept = self.child_lists.kept.lock();
            if kept.bytes + list.len() > BYTES_MAX {
                kept.lists.clear();
                kept.bytes = 0;
            }
            kept.bytes += list.len();
            if let Some(old) = kept.lists.insert(idx, list) {
                kept.bytes -= old.len();
            }
        }
    }

    fn encode_children(&self, idx: NodeIdx, out: &mut Vec<u8>) {
        out.put_len(self.num_children(idx) as usize);
        for child in self.children(idx) {
            out.put_str(self.name(child));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{NodeStat, ROOT};

    #[test]
    fn a_kept_list_is_never_out_of_date() {
        let mut tree = Tree::new(1);
        let stat = NodeStat::created(1, 1, 0);
        for i in 0..200 {
            tree.add(&format!("/n{i}"), Some(ROOT), None, &stat, super::super::acl::OPEN);
            let (mut kept, mut fresh) = (Vec::new(), Vec::new());
            tree.put_children(ROOT, &mut kept);
            tree.put_children(ROOT, &mut kept);
            tree.encode_children(ROOT, &mut fresh);
            assert_eq!(kept, [fresh.clone(), fresh].concat(), "after {i}");
        }
        for i in 0..200 {
            let path = format!("/n{i}");
            let idx = tree.find(&path).unwrap();
            tree.take(idx, &path);
            let (mut kept, mut fresh) = (Vec::new(), Vec::new());
            tree.put_children(ROOT, &mut kept);
            tree.encode_children(ROOT, &mut fresh);
            assert_eq!(kept, fresh, "without {i}");
        }
    }
}
