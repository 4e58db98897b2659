//! Operations on whole paths and trees.

use bytes::Bytes;
use zk_proto::path::join;
use zk_proto::{OpCode, Stat};

use super::check_path;
use super::create::Parents;
use crate::client::Client;
use crate::error::Result;

/// A node as [`Client::walk`] finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its path.
    pub path: String,
    /// Its data; a slice of the receive buffer.
    pub data: Bytes,
    /// Its `Stat`.
    pub stat: Stat,
}

/// Nodes that a walk reads at a time.
const WALK_BATCH: usize = 256;

impl Client {
    /// Creates the node and every missing parent as persistent nodes without data. Idempotent, so it repeats
    /// after a connection loss. Under a chroot, that is created too.
    pub async fn ensure_path(&self, path: &str) -> Result<()> {
        check_path(OpCode::Create2, path)?;
        loop {
            match self.create_parents(path, Parents::Persistent).await {
                Err(error) if error.is_retryable() => self.before_repeating(error).await?,
                done => return done,
            }
        }
    }

    /// Reads `root` and everything below it, parents before children, siblings in no particular order. Not a
    /// snapshot: nodes that change meanwhile are seen before or after, nodes that vanish are left out. Fails
    /// with `NoNode` if `root` does not exist.
    pub async fn walk(&self, root: &str) -> Result<Vec<Node>> {
        let (data, stat) = self.get(root).await?;
        let mut nodes = vec![Node { path: root.to_owned(), data, stat }];
        let mut next = 0;
        while next < nodes.len() {
            let with_children = nodes.iter().enumerate().skip(next).filter(|(_, n)| n.stat.num_children > 0);
            let (at, parents): (Vec<usize>, Vec<String>) =
                with_children.take(WALK_BATCH).map(|(at, node)| (at, node.path.clone())).unzip();
            next = at.last().map_or(nodes.len(), |last| last + 1);
            let lists: Vec<_> = parents.iter().map(|parent| self.children(parent).send()).collect();
            let mut paths = Vec::new();
            for (list, parent) in lists.into_iter().zip(&parents) {
                match list.await {
                    Err(e) if e.is_no_node() => {}
                    list => paths.extend(list?.0.iter().map(|name| join(parent, name))),
                }
            }
            for batch in paths.chunks(WALK_BATCH) {
                let reads: Vec<_> = batch.iter().map(|path| self.get(path).send()).collect();
                for (read, path) in reads.into_iter().zip(batch) {
                    match read.await {
                        Err(e) if e.is_no_node() => {}
                        read => {
                            let (data, stat) = read?;
                            nodes.push(Node { path: path.clone(), data, stat });
                        }
                    }
                }
            }
        }
        Ok(nodes)
    }
}
