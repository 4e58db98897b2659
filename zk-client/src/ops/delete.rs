//! Deleting nodes.

use zk_proto::OpCode;
use zk_proto::jute::Writer;
use zk_proto::path::join;

use super::background::Cleaned;
use super::{check_path, decode_empty};
use crate::call::{Call, Plan, Reply, SubmitMode, several_requests};
use crate::client::Client;
use crate::error::{Result, ServerCode};
use crate::session::Cleanup;

/// Deletes a node. **Not** cancel safe for exactly-once logic: dropped after it was enqueued, it may be
/// applied or not.
#[must_use = "nothing is sent until this is awaited or sent"]
pub struct Delete<'a> {
    client: &'a Client,
    path: &'a str,
    version: i32,
    recursive: bool,
    if_exists: bool,
    idempotent: bool,
}

impl Client {
    /// Deletes a node without children.
    pub fn delete<'a>(&'a self, path: &'a str) -> Delete<'a> {
        Delete { client: self, path, version: -1, recursive: false, if_exists: false, idempotent: false }
    }
}

impl<'a> Delete<'a> {
    /// Only if the data's version is this one; `BadVersion` otherwise. -1 (the default) for any.
    pub fn version(mut self, version: i32) -> Self {
        self.version = version;
        self
    }

    /// Also everything below the node. Not atomic; nodes that others create below it meanwhile are deleted
    /// too. The version counts for the node itself.
    pub fn recursive(mut self) -> Self {
        self.recursive = true;
        self
    }

    /// A node that does not exist is no error.
    pub fn if_exists(mut self) -> Self {
        self.if_exists = true;
        self
    }

    /// Repeats after an unknown outcome; not finding the node then counts as success.
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// Leaves the deletion to the client, which repeats it over reconnects for as long as the session lives.
    /// The node must be an ephemeral one of this session, with a name that is used once.
    pub fn in_background(self) -> Cleaned {
        self.client.clean_up(Cleanup::Delete { path: self.path.to_owned(), czxid: None })
    }

    fn is_one_request(&self) -> bool {
        !(self.recursive || self.idempotent)
    }

    fn call(self, mode: SubmitMode) -> Result<Call<'a, ()>> {
        let Delete { client, path, version, if_exists, .. } = self;
        check_path(OpCode::Delete, path)?;
        let plan = Plan {
            client,
            op: OpCode::Delete,
            path: path.into(),
            decode: if if_exists { decode_if_exists } else { decode_empty },
            watch: None,
            is_read: false,
            operations: 0,
            mode,
        };
        Call::submit(plan, |w, _| {
            client.root.put(w, path);
            w.put_int(version);
        })
    }

    fn run(self) -> impl Future<Output = Result<()>> + Send + 'static {
        let Delete { client, path, version, recursive, if_exists, idempotent } = self;
        let (client, path) = (client.clone(), path.to_owned());
        async move {
            let mut unknown = false;
            loop {
                let deleted = client.delete(&path).version(version).await;
                let Err(error) = deleted else { return Ok(()) };
                if error.is_no_node() && (if_exists || unknown) {
                    return Ok(());
                }
                if error.is_not_empty() && recursive {
                    client.delete_below(&path).await?;
                    continue;
                }
                if !idempotent {
                    return Err(error);
                }
                unknown |= error.may_have_been_applied();
                client.before_repeating(error).await?;
            }
        }
    }
}

several_requests!(Delete, ());

/// Deletions that a recursive delete has under way at a time.
const DELETE_BATCH: usize = 256;

fn decode_if_exists(reply: &Reply<'_>) -> Result<()> {
    match reply.code {
        ServerCode::NO_NODE => Ok(()),
        _ => reply.ok(),
    }
}

impl Client {
    /// Deletes everything below `path`, deepest first: a node is deleted when it is met again on the way up.
    async fn delete_below(&self, path: &str) -> Result<()> {
        let mut open = vec![path.to_owned()];
        while let Some(node) = open.last() {
            let names = match self.children(node).await {
                Err(e) if e.is_no_node() => {
                    open.pop();
                    continue;
                }
                listed => listed?.0,
            };
            let depth = open.len();
            let children: Vec<String> = names.iter().map(|name| join(node, name)).collect();
            // Many at once: most children are leaves.
            for batch in children.chunks(DELETE_BATCH) {
                let deletions: Vec<_> =
                    batch.iter().map(|child| self.delete(child).if_exists().send()).collect();
                for (deletion, child) in deletions.into_iter().zip(batch) {
                    match deletion.await {
                        Err(e) if e.is_not_empty() => open.push(child.clone()),
                        deleted => deleted?,
                    }
                }
            }
            if open.len() == depth {
                // The node has no children left; whoever met it deletes it.
                open.pop();
            }
        }
        Ok(())
    }
}
