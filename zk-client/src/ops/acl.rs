//! Access control lists.

use zk_proto::jute::Writer;
use zk_proto::{OpCode, Stat};

use super::{check_path, decode_stat};
use crate::call::{Call, Plan, Reply, SubmitMode};
use crate::client::Client;
use crate::config::Acl;
use crate::error::Result;

impl Client {
    /// Reads the ACL and `Stat` of a node.
    pub async fn acl(&self, path: &str) -> Result<(Vec<Acl>, Stat)> {
        check_path(OpCode::GetAcl, path)?;
        let plan = Plan {
            client: self,
            op: OpCode::GetAcl,
            path: path.into(),
            decode: decode_acl,
            watch: None,
            is_read: true,
            operations: 0,
            mode: SubmitMode::default(),
        };
        Call::submit(plan, |w, _| self.root.put(w, path))?.await
    }

    /// Replaces the ACL of a node; with a version, only if that is the ACL's (`Stat::aversion`). Returns the
    /// node's new `Stat`. As cancel safe as `set`.
    pub async fn set_acl(&self, path: &str, acl: &[Acl], version: Option<i32>) -> Result<Stat> {
        check_path(OpCode::SetAcl, path)?;
        let plan = Plan {
            client: self,
            op: OpCode::SetAcl,
            path: path.into(),
            decode: decode_stat,
            watch: None,
            is_read: false,
            operations: 0,
            mode: SubmitMode::default(),
        };
        Call::submit(plan, |w, _| {
            self.root.put(w, path);
            Acl::encode_list(Some(acl), w);
            w.put_int(version.unwrap_or(-1));
        })?
        .await
    }
}

fn decode_acl(reply: &Reply<'_>) -> Result<(Vec<Acl>, Stat)> {
    reply.ok()?;
    let mut reader = reply.reader();
    let list = zk_proto::Acl::decode_list(&mut reader);
    let decoded = list.and_then(|list| {
        let list = list.unwrap_or_default().into_iter().map(zk_proto::Acl::into_owned).collect();
        Ok((list, Stat::decode(&mut reader)?))
    });
    decoded.map_err(|e| reply.garbled(e))
}
