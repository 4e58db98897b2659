//! Answering reads from the tree, at the place in the order where the caller stands: on the I/O thread that owns
//! the connection, or in the replica when the read waits behind a write of its session.

use std::borrow::Cow;

use parking_lot::Mutex;
use zk_proto::jute::{Writer, frame};
use zk_proto::{
    Acl, DecodeError, ErrorCode, EventType, MultiOp, MultiResult, OpCode, Perms, Reader, ReplyHeader,
    Request, SessionId, SetWatches, WatcherEvent, Zxid, xid,
};

use crate::auth::{self, ConnAuth, Providers};
use crate::tree::{NodeIdx, Tree};
use crate::watch::{ConnId, Target, WatchMode, WatchTable};

/// A request that changes nothing but watches.
#[derive(Debug)]
pub struct ReadRequest<'a> {
    /// The connection that asks.
    pub conn: ConnId,
    /// Its session.
    pub session: SessionId,
    /// The request's xid.
    pub xid: i32,
    /// The operation.
    pub op: OpCode,
    /// The record behind the header.
    pub body: &'a [u8],
    /// The connection's identities.
    pub auth: &'a ConnAuth,
}

/// What is needed to answer.
#[derive(Debug, Clone, Copy)]
pub struct ReadEnv<'a> {
    /// The tree, locked by the caller.
    pub tree: &'a Tree,
    /// Where watches are armed; locked only when a request arms one.
    pub watches: &'a Mutex<WatchTable>,
    /// ACL rules.
    pub providers: &'a Providers,
}

/// Where the reply's body failed.
enum Failure {
    Code(ErrorCode),
    /// A failed multiRead whose reply has a body all the same.
    WithBody(ErrorCode),
}

impl From<ErrorCode> for Failure {
    fn from(code: ErrorCode) -> Self {
        Failure::Code(code)
    }
}

impl From<DecodeError> for Failure {
    fn from(_: DecodeError) -> Self {
        Failure::Code(ErrorCode::MARSHALLING_ERROR)
    }
}

/// Appends the reply frame, and in front of it the events that setWatches finds due.
pub fn answer(env: ReadEnv<'_>, req: &ReadRequest<'_>, out: &mut Vec<u8>) {
    let due = match req.op {
        OpCode::SetWatches | OpCode::SetWatches2 => set_watches(env, req, out),
        _ => Ok(()),
    };
    let at = out.len();
    let mut header = ReplyHeader {
        xid: if req.op == OpCode::Ping { xid::PING } else { req.xid },
        zxid: env.tree.last_zxid(),
        err: ErrorCode::OK,
    };
    frame(out, |out| {
        header.encode(out);
        let code = match due.and_then(|()| body(env, req, out)) {
            Ok(()) => return,
            Err(Failure::WithBody(code)) => code,
            Err(Failure::Code(code)) => {
                out.truncate(at + 4 + ReplyHeader::WIRE_LEN);
                code
            }
        };
        header.err = code;
        let err_at = at + 4 + ReplyHeader::WIRE_LEN - 4;
        out[err_at..err_at + 4].copy_from_slice(&header.err.0.to_be_bytes());
    });
}

fn body(env: ReadEnv<'_>, req: &ReadRequest<'_>, out: &mut Vec<u8>) -> Result<(), Failure> {
    let ReadEnv { tree, .. } = env;
    // Their watches are armed by now, or the failure is known.
    if matches!(req.op, OpCode::SetWatches | OpCode::SetWatches2) {
        return Ok(());
    }
    let request = match Request::decode(req.op, &mut Reader::new(req.body)) {
        Ok(request) => request,
        Err(DecodeError::Unexpected { .. }) if req.op == OpCode::MultiRead => {
            MultiResult::encode_end(out);
            return Err(Failure::WithBody(ErrorCode::MARSHALLING_ERROR));
        }
        Err(error) => return Err(error.into()),
    };
    match request {
        Request::Ping => {}
        Request::Exists { path, watch } => {
            if path.contains('\0') {
                return Err(ErrorCode::BAD_ARGUMENTS.into());
            }
            let found = tree.find(&path);
            if let Some(idx) = found {
                permit(env, req, idx, Perms::READ)?;
            }
            if watch {
                arm(env, req.conn, &path, found, WatchMode::Data);
            }
            tree.stat(found.ok_or(ErrorCode::NO_NODE)?).encode(out);
        }
        Request::GetData { path, watch } => {
            let idx = readable(env, req, &path)?;
            if watch {
                arm(env, req.conn, &path, Some(idx), WatchMode::Data);
            }
            out.put_buffer(tree.data(idx));
            tree.stat(idx).encode(out);
        }
        Request::GetChildren { path, watch } | Request::GetChildren2 { path, watch } => {
            let idx = readable(env, req, &path)?;
            if watch {
                arm(env, req.conn, &path, Some(idx), WatchMode::Child);
            }
            tree.put_children(idx, out);
            if req.op == OpCode::GetChildren2 {
                tree.stat(idx).encode(out);
            }
        }
        Request::GetAcl { path } => {
            let idx = tree.find(&path).ok_or(ErrorCode::NO_NODE)?;
            permit(env, req, idx, Perms::READ | Perms::ADMIN)?;
            let acl = tree.acl(idx);
            let shown = auth::redact_for_get_acl(acl, req.auth, env.providers);
            Acl::encode_list(Some(&shown), out);
            tree.stat(idx).encode(out);
        }
        Request::GetAllChildrenNumber { path } => {
            let idx = readable(env, req, &path)?;
            out.put_int(i32::try_from(tree.count_descendants(idx)).unwrap_or(i32::MAX));
        }
        Request::GetEphemerals { prefix } => {
            let prefix = prefix.as_deref().unwrap_or_default();
            let all = prefix.trim().is_empty() || prefix == "/";
            let paths: Vec<_> = tree
                .ephemerals(req.session.0)
                .map(|idx| tree.path(idx))
                .filter(|path| all || path.starts_with(prefix))
                .collect();
            out.put_len(paths.len());
            paths.iter().for_each(|path| out.put_str(path));
        }
        Request::Sync { path } => out.put_opt_str(path.as_deref()),
        Request::WhoAmI => {
            let ids = auth::who_am_i(req.auth);
            out.put_len(ids.len());
            for id in ids {
                out.put_str(&id.auth_scheme);
                out.put_str(&id.user);
            }
        }
        Request::AddWatch { path, mode } => {
            let path = path.unwrap_or_default();
            arm(env, req.conn, &path, tree.find(&path), mode.into());
            out.put_int(0);
        }
        Request::CheckWatches { path, kind } => {
            if !env.watches.lock().contains(target(&path, tree.find(&path)), req.conn, kind) {
                return Err(ErrorCode::NO_WATCHER.into());
            }
        }
        Request::RemoveWatches { path, kind } => {
            if !env.watches.lock().remove(target(&path, tree.find(&path)), req.conn, kind) {
                return Err(ErrorCode::NO_WATCHER.into());
            }
        }
        Request::MultiRead(ops) => {
            for op in &ops {
                multi_read(env, req, op).encode(out);
            }
            MultiResult::encode_end(out);
        }
        _ => return Err(ErrorCode::UNIMPLEMENTED.into()),
    }
    Ok(())
}

fn multi_read<'t>(env: ReadEnv<'t>, req: &ReadRequest<'_>, op: &MultiOp<'_>) -> MultiResult<'t> {
    let tree = env.tree;
    let result = match op {
        MultiOp::GetData { path, .. } => readable(env, req, path)
            .map(|idx| MultiResult::GetData { data: tree.data(idx), stat: tree.stat(idx) }),
        MultiOp::GetChildren { path, .. } => readable(env, req, path).map(|idx| MultiResult::GetChildren {
            children: tree.children(idx).map(|child| Cow::Borrowed(tree.name(child))).collect(),
        }),
        _ => Err(ErrorCode::UNIMPLEMENTED),
    };
    result.unwrap_or_else(MultiResult::Error)
}

fn readable(env: ReadEnv<'_>, req: &ReadRequest<'_>, path: &str) -> Result<NodeIdx, ErrorCode> {
    let idx = env.tree.find(path).ok_or(ErrorCode::NO_NODE)?;
    permit(env, req, idx, Perms::READ)?;
    Ok(idx)
}

fn permit(env: ReadEnv<'_>, req: &ReadRequest<'_>, idx: NodeIdx, perms: Perms) -> Result<(), ErrorCode> {
    if env.tree.permits(idx, perms, req.auth, env.providers) { Ok(()) } else { Err(ErrorCode::NO_AUTH) }
}

fn arm(env: ReadEnv<'_>, conn: ConnId, path: &str, found: Option<NodeIdx>, mode: WatchMode) {
    env.watches.lock().add(target(path, found), conn, mode);
}

/// Reads take the empty path for the root; its watches are kept under the empty path, where nothing ever fires.
fn target(path: &str, found: Option<NodeIdx>) -> Target<'_> {
    match found {
        Some(idx) if !path.is_empty() => Target::Node(idx),
        _ => Target::Path(path),
    }
}

/// Arms again what a client had armed on an earlier connection, and appends the events of what it missed.
fn set_watches(env: ReadEnv<'_>, req: &ReadRequest<'_>, out: &mut Vec<u8>) -> Result<(), Failure> {
    // Decoded list by list: a null list is an error only after the lists before it have taken effect.
    let watches = match Request::decode(req.op, &mut Reader::new(req.body))? {
        Request::SetWatches(watches) | Request::SetWatches2(watches) => watches,
        _ => return Ok(()),
    };
    let SetWatches { relative_zxid, data, exist, child, persistent, persistent_recursive } = watches;
    let required = |list: Option<Vec<_>>| list.ok_or(Failure::Code(ErrorCode::MARSHALLING_ERROR));
    let tree = env.tree;
    let mut event = |kind, path: &str| {
        frame(out, |out| {
            ReplyHeader { xid: xid::EVENT, zxid: Zxid(-1), err: ErrorCode::OK }.encode(out);
            WatcherEvent::new(kind, path).encode(out);
        });
    };
    for path in required(data)? {
        match tree.find(&path) {
            None => event(EventType::NodeDeleted, &path),
            Some(idx) if tree.node_stat(idx).mzxid > relative_zxid => {
                event(EventType::NodeDataChanged, &path)
            }
            found => arm(env, req.conn, &path, found, WatchMode::Data),
        }
    }
    for path in required(exist)? {
        match tree.find(&path) {
            Some(_) => event(EventType::NodeCreated, &path),
            None => arm(env, req.conn, &path, None, WatchMode::Data),
        }
    }
    for path in required(child)? {
        match tree.find(&path) {
            None => event(EventType::NodeDeleted, &path),
            Some(idx) if tree.node_stat(idx).pzxid > relative_zxid => {
                event(EventType::NodeChildrenChanged, &path);
            }
            found => arm(env, req.conn, &path, found, WatchMode::Child),
        }
    }
    if req.op == OpCode::SetWatches2 {
        for path in required(persistent)? {
            arm(env, req.conn, &path, tree.find(&path), WatchMode::Persistent);
        }
        for path in required(persistent_recursive)? {
            arm(env, req.conn, &path, tree.find(&path), WatchMode::Recursive);
        }
    }
    Ok(())
}
