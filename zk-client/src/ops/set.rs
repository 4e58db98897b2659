//! Replacing a node's data.

use bytes::Bytes;
use zk_proto::jute::Writer;
use zk_proto::{OpCode, Stat};

use super::{check_path, decode_stat};
use crate::call::{Call, Plan, SubmitMode, several_requests};
use crate::client::Client;
use crate::error::Result;

/// Replaces the data of a node. **Not** cancel safe for exactly-once logic: dropped after it was enqueued, it
/// may be applied or not.
#[must_use = "nothing is sent until this is awaited or sent"]
pub struct Set<'a> {
    client: &'a Client,
    path: &'a str,
    data: Bytes,
    version: i32,
    idempotent: bool,
}

impl Client {
    /// Replaces the data of a node, and returns its new `Stat`.
    pub fn set<'a>(&'a self, path: &'a str, data: impl Into<Bytes>) -> Set<'a> {
        Set { client: self, path, data: data.into(), version: -1, idempotent: false }
    }
}

impl<'a> Set<'a> {
    /// Only if the data's version is this one; `BadVersion` otherwise. -1 (the default) for any.
    pub fn version(mut self, version: i32) -> Self {
        self.version = version;
        self
    }

    /// Repeats after an unknown outcome. With a version, finding the next version with the same data then
    /// counts as success, though it may be the doing of another client that wrote the same.
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    fn is_one_request(&self) -> bool {
        !self.idempotent
    }

    fn call(self, mode: SubmitMode) -> Result<Call<'a, Stat>> {
        let Set { client, path, data, version, .. } = self;
        check_path(OpCode::SetData, path)?;
        let plan = Plan {
            client,
            op: OpCode::SetData,
            path: path.into(),
            decode: decode_stat,
            watch: None,
            is_read: false,
            operations: 0,
            mode,
        };
        Call::submit(plan, |w, _| {
            client.root.put(w, path);
            w.put_buffer(Some(&data));
            w.put_int(version);
        })
    }

    /// Repeats until the outcome is known.
    fn run(self) -> impl Future<Output = Result<Stat>> + Send + 'static {
        let Set { client, path, data, version, .. } = self;
        let (client, path) = (client.clone(), path.to_owned());
        async move {
            let mut unknown = false;
            loop {
                let error = match client.set(&path, data.clone()).version(version).await {
                    Ok(stat) => return Ok(stat),
                    Err(error) => error,
                };
                if unknown && error.is_bad_version() {
                    let (now, stat) = client.get(&path).await?;
                    if now == data && stat.version == version.wrapping_add(1) {
                        return Ok(stat);
                    }
                    return Err(error);
                }
                unknown |= error.may_have_been_applied();
                client.before_repeating(error).await?;
            }
        }
    }
}

several_requests!(Set, Stat);
