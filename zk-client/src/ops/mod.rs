//! The operations, one file per kind.

mod acl;
mod admin;
mod background;
mod children;
mod create;
mod create_task;
mod delete;
mod exists;
mod get;
mod multi;
mod multi_read;
mod paths;
mod set;
#[cfg(feature = "serde")]
mod typed;

pub use admin::Reconfig;
pub use background::{Cleaned, LeaseHold};
pub use children::Children;
pub use create::{Create, Created, Mode, Parents};
pub use delete::Delete;
pub use exists::Exists;
pub use get::Get;
pub use multi::{CreateOp, Multi, MultiResult};
pub use multi_read::{MultiRead, ReadResult};
pub use paths::Node;
pub use set::Set;

use zk_proto::{OpCode, Stat};

use crate::call::{Reply, invalid};
use crate::error::Result;

/// Refuses a path that no server takes.
fn check_path(op: OpCode, path: &str) -> Result<()> {
    zk_proto::path::validate(path).map_err(|e| invalid(op, path, e))
}

fn decode_stat(reply: &Reply<'_>) -> Result<Stat> {
    reply.ok()?;
    Stat::decode(&mut reply.reader()).map_err(|e| reply.garbled(e))
}

fn decode_empty(reply: &Reply<'_>) -> Result<()> {
    reply.ok()
}
