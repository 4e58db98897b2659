//! Request records.

use std::borrow::Cow;

use crate::acl::Acl;
use crate::code::OpCode;
use crate::jute::{DecodeError, Reader, Writer};
use crate::multi::{MultiOp, decode_ops, encode_ops};

/// Body of create, create2, createContainer and createTTL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateRequest<'a> {
    /// Which of the four operations this is.
    pub op: OpCode,
    /// Path of the node; with a sequential mode the prefix of it.
    pub path: Cow<'a, str>,
    /// Data; null and empty differ.
    pub data: Option<&'a [u8]>,
    /// ACL; null is as invalid as empty, but decodable.
    pub acl: Option<Vec<Acl<'a>>>,
    /// Raw flags, see [`crate::CreateMode`].
    pub flags: i32,
    /// Time to live in ms; on the wire for createTTL only.
    pub ttl_ms: i64,
}

impl<'a> CreateRequest<'a> {
    /// Reads the body of `op`.
    pub fn decode(op: OpCode, r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(CreateRequest {
            op,
            path: r.required_string("path")?,
            data: r.buffer()?,
            acl: Acl::decode_list(r)?,
            flags: r.i32()?,
            ttl_ms: if op == OpCode::CreateTtl { r.i64()? } else { 0 },
        })
    }

    /// Appends the body.
    pub fn encode(&self, w: &mut Vec<u8>) {
        w.put_utf8(&self.path);
        w.put_buffer(self.data);
        Acl::encode_request_list(self.acl.as_deref(), w);
        w.put_int(self.flags);
        if self.op == OpCode::CreateTtl {
            w.put_long(self.ttl_ms);
        }
    }
}

/// Body of reconfig. All strings may be null.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReconfigRequest<'a> {
    /// Servers to add, comma separated.
    pub joining_servers: Option<Cow<'a, str>>,
    /// Ids of servers to remove, comma separated.
    pub leaving_servers: Option<Cow<'a, str>>,
    /// The whole new membership.
    pub new_members: Option<Cow<'a, str>>,
    /// Version of the configuration that must be current; -1 for any.
    pub cur_config_id: i64,
}

/// Body of auth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthPacket<'a> {
    /// 0; ignored by servers.
    pub kind: i32,
    /// Authentication scheme.
    pub scheme: Option<Cow<'a, str>>,
    /// Credentials.
    pub auth: Option<&'a [u8]>,
}

/// Body of setWatches and setWatches2.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SetWatches<'a> {
    /// The client's last zxid: what changed after it fires at once.
    pub relative_zxid: i64,
    /// Data watches.
    pub data: Option<Vec<Cow<'a, str>>>,
    /// Watches for nodes that did not exist.
    pub exist: Option<Vec<Cow<'a, str>>>,
    /// Child watches.
    pub child: Option<Vec<Cow<'a, str>>>,
    /// Persistent watches; setWatches2 only.
    pub persistent: Option<Vec<Cow<'a, str>>>,
    /// Persistent recursive watches; setWatches2 only.
    pub persistent_recursive: Option<Vec<Cow<'a, str>>>,
}

/// Mode of addWatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum AddWatchMode {
    /// The node itself and its list of children.
    Persistent = 0,
    /// The node and everything below it.
    PersistentRecursive = 1,
}

/// Which watches checkWatches and removeWatches mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum WatcherType {
    /// One-shot child watches.
    Children = 1,
    /// One-shot data watches.
    Data = 2,
    /// All of this connection at the path.
    Any = 3,
    /// Persistent watches.
    Persistent = 4,
    /// Persistent recursive watches.
    PersistentRecursive = 5,
}

impl WatcherType {
    /// The type with this wire value.
    pub fn from_i32(v: i32) -> Option<Self> {
        Some(match v {
            1 => WatcherType::Children,
            2 => WatcherType::Data,
            3 => WatcherType::Any,
            4 => WatcherType::Persistent,
            5 => WatcherType::PersistentRecursive,
            _ => return None,
        })
    }
}

/// A decoded request, without its header. Borrows from the frame.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // the fields are those of the operation, named as in the protocol
pub enum Request<'a> {
    /// create, create2, createContainer, createTTL.
    Create(CreateRequest<'a>),
    /// delete.
    Delete { path: Cow<'a, str>, version: i32 },
    /// deleteContainer.
    DeleteContainer { path: Cow<'a, str> },
    /// exists.
    Exists { path: Cow<'a, str>, watch: bool },
    /// getData.
    GetData { path: Cow<'a, str>, watch: bool },
    /// setData.
    SetData { path: Cow<'a, str>, data: Option<&'a [u8]>, version: i32 },
    /// getACL.
    GetAcl { path: Cow<'a, str> },
    /// setACL.
    SetAcl { path: Cow<'a, str>, acl: Option<Vec<Acl<'a>>>, version: i32 },
    /// getChildren.
    GetChildren { path: Cow<'a, str>, watch: bool },
    /// getChildren2.
    GetChildren2 { path: Cow<'a, str>, watch: bool },
    /// sync. The path may be null.
    Sync { path: Option<Cow<'a, str>> },
    /// ping.
    Ping,
    /// check.
    Check { path: Cow<'a, str>, version: i32 },
    /// multi.
    Multi(Vec<MultiOp<'a>>),
    /// multiRead.
    MultiRead(Vec<MultiOp<'a>>),
    /// reconfig.
    Reconfig(ReconfigRequest<'a>),
    /// checkWatches.
    CheckWatches { path: Cow<'a, str>, kind: WatcherType },
    /// removeWatches.
    RemoveWatches { path: Cow<'a, str>, kind: WatcherType },
    /// auth.
    Auth(AuthPacket<'a>),
    /// setWatches.
    SetWatches(SetWatches<'a>),
    /// setWatches2.
    SetWatches2(SetWatches<'a>),
    /// sasl.
    Sasl { token: Option<&'a [u8]> },
    /// getEphemerals. The prefix may be null.
    GetEphemerals { prefix: Option<Cow<'a, str>> },
    /// getAllChildrenNumber.
    GetAllChildrenNumber { path: Cow<'a, str> },
    /// addWatch. The path may be null.
    AddWatch { path: Option<Cow<'a, str>>, mode: AddWatchMode },
    /// whoAmI.
    WhoAmI,
    /// createSession.
    CreateSession { timeout_ms: i32 },
    /// closeSession.
    CloseSession,
}

impl<'a> Request<'a> {
    /// Decodes the body of `op` from `r`, which stands behind the header. What follows the record is ignored,
    /// as Apache does.
    pub fn decode(op: OpCode, r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(match op {
            OpCode::Create | OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => {
                Request::Create(CreateRequest::decode(op, r)?)
            }
            OpCode::Delete => Request::Delete { path: path(r)?, version: r.i32()? },
            OpCode::DeleteContainer => Request::DeleteContainer { path: path(r)? },
            OpCode::Exists => Request::Exists { path: path(r)?, watch: r.bool()? },
            OpCode::GetData => Request::GetData { path: path(r)?, watch: r.bool()? },
            OpCode::SetData => Request::SetData { path: path(r)?, data: r.buffer()?, version: r.i32()? },
            OpCode::GetAcl => Request::GetAcl { path: path(r)? },
            OpCode::SetAcl => {
                Request::SetAcl { path: path(r)?, acl: Acl::decode_list(r)?, version: r.i32()? }
            }
            OpCode::GetChildren => Request::GetChildren { path: path(r)?, watch: r.bool()? },
            OpCode::GetChildren2 => Request::GetChildren2 { path: path(r)?, watch: r.bool()? },
            OpCode::Sync => Request::Sync { path: r.string()? },
            OpCode::Ping => Request::Ping,
            OpCode::Check => Request::Check { path: path(r)?, version: r.i32()? },
            OpCode::Multi => Request::Multi(decode_ops(r, false)?),
            OpCode::MultiRead => Request::MultiRead(decode_ops(r, true)?),
            OpCode::Reconfig => Request::Reconfig(ReconfigRequest {
                joining_servers: r.string()?,
                leaving_servers: r.string()?,
                new_members: r.string()?,
                cur_config_id: r.i64()?,
            }),
            OpCode::CheckWatches => Request::CheckWatches { path: path(r)?, kind: watcher_type(r)? },
            OpCode::RemoveWatches => Request::RemoveWatches { path: path(r)?, kind: watcher_type(r)? },
            OpCode::Auth => {
                Request::Auth(AuthPacket { kind: r.i32()?, scheme: r.string()?, auth: r.buffer()? })
            }
            OpCode::SetWatches => Request::SetWatches(SetWatches::decode(r, false)?),
            OpCode::SetWatches2 => Request::SetWatches2(SetWatches::decode(r, true)?),
            OpCode::Sasl => Request::Sasl { token: r.buffer()? },
            OpCode::GetEphemerals => Request::GetEphemerals { prefix: r.string()? },
            OpCode::GetAllChildrenNumber => Request::GetAllChildrenNumber { path: path(r)? },
            OpCode::AddWatch => {
                let path = r.string()?;
                let mode = match r.i32()? {
                    0 => AddWatchMode::Persistent,
                    1 => AddWatchMode::PersistentRecursive,
                    v => return Err(DecodeError::Unexpected { what: "addWatch mode", value: i64::from(v) }),
                };
                Request::AddWatch { path, mode }
            }
            OpCode::WhoAmI => Request::WhoAmI,
            OpCode::CreateSession => Request::CreateSession { timeout_ms: r.i32()? },
            OpCode::CloseSession => Request::CloseSession,
        })
    }

    /// The operation of this request.
    pub fn op(&self) -> OpCode {
        match self {
            Request::Create(c) => c.op,
            Request::Delete { .. } => OpCode::Delete,
            Request::DeleteContainer { .. } => OpCode::DeleteContainer,
            Request::Exists { .. } => OpCode::Exists,
            Request::GetData { .. } => OpCode::GetData,
            Request::SetData { .. } => OpCode::SetData,
            Request::GetAcl { .. } => OpCode::GetAcl,
            Request::SetAcl { .. } => OpCode::SetAcl,
            Request::GetChildren { .. } => OpCode::GetChildren,
            Request::GetChildren2 { .. } => OpCode::GetChildren2,
            Request::Sync { .. } => OpCode::Sync,
            Request::Ping => OpCode::Ping,
            Request::Check { .. } => OpCode::Check,
            Request::Multi(_) => OpCode::Multi,
            Request::MultiRead(_) => OpCode::MultiRead,
            Request::Reconfig(_) => OpCode::Reconfig,
            Request::CheckWatches { .. } => OpCode::CheckWatches,
            Request::RemoveWatches { .. } => OpCode::RemoveWatches,
            Request::Auth(_) => OpCode::Auth,
            Request::SetWatches(_) => OpCode::SetWatches,
            Request::SetWatches2(_) => OpCode::SetWatches2,
            Request::Sasl { .. } => OpCode::Sasl,
            Request::GetEphemerals { .. } => OpCode::GetEphemerals,
            Request::GetAllChildrenNumber { .. } => OpCode::GetAllChildrenNumber,
            Request::AddWatch { .. } => OpCode::AddWatch,
            Request::WhoAmI => OpCode::WhoAmI,
            Request::CreateSession { .. } => OpCode::CreateSession,
            Request::CloseSession => OpCode::CloseSession,
        }
    }

    /// Appends the body, without the header.
    pub fn encode(&self, w: &mut Vec<u8>) {
        match self {
            Request::Create(create) => create.encode(w),
            Request::Delete { path, version } | Request::Check { path, version } => {
                w.put_utf8(path);
                w.put_int(*version);
            }
            Request::DeleteContainer { path }
            | Request::GetAcl { path }
            | Request::GetAllChildrenNumber { path } => w.put_utf8(path),
            Request::Exists { path, watch }
            | Request::GetData { path, watch }
            | Request::GetChildren { path, watch }
            | Request::GetChildren2 { path, watch } => {
                w.put_utf8(path);
                w.put_bool(*watch);
            }
            Request::SetData { path, data, version } => {
                w.put_utf8(path);
                w.put_buffer(*data);
                w.put_int(*version);
            }
            Request::SetAcl { path, acl, version } => {
                w.put_utf8(path);
                Acl::encode_request_list(acl.as_deref(), w);
                w.put_int(*version);
            }
            Request::Sync { path } => w.put_opt_utf8(path.as_deref()),
            Request::Ping | Request::WhoAmI | Request::CloseSession => {}
            Request::Multi(ops) | Request::MultiRead(ops) => encode_ops(ops, w),
            Request::Reconfig(r) => {
                w.put_opt_utf8(r.joining_servers.as_deref());
                w.put_opt_utf8(r.leaving_servers.as_deref());
                w.put_opt_utf8(r.new_members.as_deref());
                w.put_long(r.cur_config_id);
            }
            Request::CheckWatches { path, kind } | Request::RemoveWatches { path, kind } => {
                w.put_utf8(path);
                w.put_int(*kind as i32);
            }
            Request::Auth(auth) => {
                w.put_int(auth.kind);
                w.put_opt_utf8(auth.scheme.as_deref());
                w.put_buffer(auth.auth);
            }
            Request::SetWatches(watches) => watches.encode(w, false),
            Request::SetWatches2(watches) => watches.encode(w, true),
            Request::Sasl { token } => w.put_buffer(*token),
            Request::GetEphemerals { prefix } => w.put_opt_utf8(prefix.as_deref()),
            Request::AddWatch { path, mode } => {
                w.put_opt_utf8(path.as_deref());
                w.put_int(*mode as i32);
            }
            Request::CreateSession { timeout_ms } => w.put_int(*timeout_ms),
        }
    }
}

impl<'a> SetWatches<'a> {
    fn decode(r: &mut Reader<'a>, with_persistent: bool) -> Result<Self, DecodeError> {
        let mut watches = SetWatches {
            relative_zxid: r.i64()?,
            data: path_list(r)?,
            exist: path_list(r)?,
            child: path_list(r)?,
            ..SetWatches::default()
        };
        if with_persistent {
            watches.persistent = path_list(r)?;
            watches.persistent_recursive = path_list(r)?;
        }
        Ok(watches)
    }

    fn encode(&self, w: &mut Vec<u8>, with_persistent: bool) {
        w.put_long(self.relative_zxid);
        let lists = [&self.data, &self.exist, &self.child, &self.persistent, &self.persistent_recursive];
        for list in &lists[..if with_persistent { 5 } else { 3 }] {
            match list {
                None => w.put_int(-1),
                Some(paths) => {
                    w.put_len(paths.len());
                    paths.iter().for_each(|path| w.put_utf8(path));
                }
            }
        }
    }
}

fn path<'a>(r: &mut Reader<'a>) -> Result<Cow<'a, str>, DecodeError> {
    r.required_string("path")
}

fn path_list<'a>(r: &mut Reader<'a>) -> Result<Option<Vec<Cow<'a, str>>>, DecodeError> {
    r.vector(path)
}

fn watcher_type(r: &mut Reader<'_>) -> Result<WatcherType, DecodeError> {
    let v = r.i32()?;
    WatcherType::from_i32(v).ok_or(DecodeError::Unexpected { what: "watcher type", value: i64::from(v) })
}
