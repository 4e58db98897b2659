//! The ZooKeeper client protocol as plain values: jute codec, request and reply records, error codes,
//! `Stat`, ACLs, watch events and path rules.
//!
//! No I/O, no async, no clock. Decoding borrows from the frame and never allocates ahead of the bytes
//! that are really there; encoding appends to a `Vec<u8>`. Byte layouts: ZooKeeper's `zookeeper.jute`
//! and the client protocol as spoken by Apache 3.4 to 3.9.

mod acl;
mod code;
mod connect;
mod create_mode;
mod event;
mod header;
mod id;
pub mod jute;
mod multi;
pub mod path;
mod request;
mod response;
mod stat;

pub use acl::{Acl, Perms};
pub use code::{ErrorCode, OpCode};
pub use connect::{ConnectRequest, ConnectResponse};
pub use create_mode::{CreateKind, CreateMode, MAX_TTL_MS, UnknownFlags};
pub use event::{EventType, WatcherEvent};
pub use header::{ReplyHeader, RequestHeader, xid};
pub use id::{SessionId, Zxid};
pub use jute::{DecodeError, Reader};
pub use multi::{MultiOp, MultiResult};
pub use request::{
    AddWatchMode, AuthPacket, CreateRequest, ReconfigRequest, Request, SetWatches, WatcherType,
};
pub use response::{ClientInfo, Response};
pub use stat::Stat;
