//! Decoded values in the JSON shape of the recorded vectors; `tests/vectors/client/README.md` describes it.

use serde_json::{Map, Value, json};
use zk_proto::jute::Writer;
use zk_proto::{
    Acl, ConnectRequest, ConnectResponse, CreateRequest, MultiOp, MultiResult, OpCode, ReplyHeader, Request,
    Response, SetWatches, Stat, WatcherEvent,
};

/// Bytes of a hex string.
pub fn unhex(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2), "odd hex {hex:?}");
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect("hex digits")).collect()
}

/// Lower-case hex of bytes.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The operation with Apache's name for it.
pub fn op_by_name(name: &str) -> Option<OpCode> {
    (-20..=200).filter_map(OpCode::from_i32).find(|op| op.name() == name)
}

fn buffer(bytes: Option<&[u8]>) -> Value {
    bytes.map(hex).into()
}

pub fn connect_request(c: &ConnectRequest<'_>) -> Value {
    let fields = json!({
        "protocolVersion": c.protocol_version, "lastZxidSeen": c.last_zxid_seen.0, "timeOut": c.timeout_ms,
        "sessionId": c.session_id.0, "passwd": buffer(c.passwd),
    });
    with_read_only(fields, c.read_only)
}

pub fn connect_response(c: &ConnectResponse<'_>) -> Value {
    let fields = json!({
        "protocolVersion": c.protocol_version, "timeOut": c.timeout_ms, "sessionId": c.session_id.0,
        "passwd": buffer(c.passwd),
    });
    with_read_only(fields, c.read_only)
}

fn with_read_only(mut fields: Value, read_only: Option<bool>) -> Value {
    if let Some(read_only) = read_only {
        fields["readOnly"] = read_only.into();
    }
    fields
}

pub fn reply_header(h: &ReplyHeader) -> Map<String, Value> {
    let Value::Object(map) = json!({"xid": h.xid, "zxid": h.zxid.0, "err": h.err.0}) else { unreachable!() };
    map
}

fn acl_list(list: Option<&[Acl<'_>]>) -> Value {
    let entry = |a: &Acl<'_>| json!({"perms": a.perms.0, "scheme": a.scheme, "id": a.id});
    list.map(|list| list.iter().map(entry).collect::<Vec<_>>()).into()
}

fn create(c: &CreateRequest<'_>) -> Value {
    let mut v =
        json!({"path": c.path, "data": buffer(c.data), "acl": acl_list(c.acl.as_deref()), "flags": c.flags});
    if c.op == OpCode::CreateTtl {
        v["ttl"] = c.ttl_ms.into();
    }
    v
}

fn set_watches(s: &SetWatches<'_>, all_kinds: bool) -> Value {
    let mut v = json!({
        "relativeZxid": s.relative_zxid, "dataWatches": s.data, "existWatches": s.exist, "childWatches": s.child,
    });
    if all_kinds {
        v["persistentWatches"] = json!(s.persistent);
        v["persistentRecursiveWatches"] = json!(s.persistent_recursive);
    }
    v
}

fn multi_header(kind: i32, done: bool, err: i32) -> Value {
    json!({"type": kind, "done": done, "err": err})
}

fn multi_op(op: &MultiOp<'_>) -> Value {
    let mut v = multi_header(op.op() as i32, false, -1);
    v["request"] = match op {
        MultiOp::Create(c) => create(c),
        MultiOp::Delete { path, version } | MultiOp::Check { path, version } => {
            json!({"path": path, "version": version})
        }
        MultiOp::SetData { path, data, version } => {
            json!({"path": path, "data": buffer(*data), "version": version})
        }
        MultiOp::GetData { path, watch } | MultiOp::GetChildren { path, watch } => {
            json!({"path": path, "watch": watch})
        }
    };
    v
}

/// The `body` of a request.
pub fn request(r: &Request<'_>) -> Value {
    match r {
        Request::Create(c) => create(c),
        Request::Delete { path, version } | Request::Check { path, version } => {
            json!({"path": path, "version": version})
        }
        Request::DeleteContainer { path }
        | Request::GetAcl { path }
        | Request::GetAllChildrenNumber { path } => json!({"path": path}),
        Request::Exists { path, watch }
        | Request::GetData { path, watch }
        | Request::GetChildren { path, watch }
        | Request::GetChildren2 { path, watch } => json!({"path": path, "watch": watch}),
        Request::SetData { path, data, version } => {
            json!({"path": path, "data": buffer(*data), "version": version})
        }
        Request::SetAcl { path, acl, version } => {
            json!({"path": path, "acl": acl_list(acl.as_deref()), "version": version})
        }
        Request::Sync { path } => json!({"path": path}),
        Request::Ping | Request::WhoAmI | Request::CloseSession => json!({}),
        Request::Multi(ops) | Request::MultiRead(ops) => {
            let mut list: Vec<_> = ops.iter().map(multi_op).collect();
            list.push(multi_header(-1, true, -1));
            json!({"ops": list})
        }
        Request::Reconfig(r) => json!({
            "joiningServers": r.joining_servers, "leavingServers": r.leaving_servers,
            "newMembers": r.new_members, "curConfigId": r.cur_config_id,
        }),
        Request::CheckWatches { path, kind } | Request::RemoveWatches { path, kind } => {
            json!({"path": path, "type": *kind as i32})
        }
        Request::Auth(a) => json!({"type": a.kind, "scheme": a.scheme, "auth": buffer(a.auth)}),
        Request::SetWatches(s) => set_watches(s, false),
        Request::SetWatches2(s) => set_watches(s, true),
        Request::Sasl { token } => json!({"token": buffer(*token)}),
        Request::GetEphemerals { prefix } => json!({"prefixPath": prefix}),
        Request::AddWatch { path, mode } => json!({"path": path, "mode": *mode as i32}),
        Request::CreateSession { timeout_ms } => json!({"timeOut": timeout_ms}),
    }
}

fn stat(s: &Stat) -> Value {
    json!({
        "czxid": s.czxid, "mzxid": s.mzxid, "ctime": s.ctime, "mtime": s.mtime, "version": s.version,
        "cversion": s.cversion, "aversion": s.aversion, "ephemeralOwner": s.ephemeral_owner,
        "dataLength": s.data_length, "numChildren": s.num_children, "pzxid": s.pzxid,
    })
}

fn multi_result(r: &MultiResult<'_>) -> Value {
    let (kind, err, result) = match r {
        MultiResult::Create { path } => (1, 0, json!({"path": path})),
        MultiResult::Create2 { path, stat: s } => (15, 0, json!({"path": path, "stat": stat(s)})),
        MultiResult::Delete => (2, 0, json!({})),
        MultiResult::SetData { stat: s } => (5, 0, json!({"stat": stat(s)})),
        MultiResult::Check => (13, 0, json!({})),
        MultiResult::GetData { data, stat: s } => (4, 0, json!({"data": buffer(*data), "stat": stat(s)})),
        MultiResult::GetChildren { children } => (8, 0, json!({"children": children})),
        MultiResult::Error(code) => (-1, code.0, json!({"err": code.0})),
    };
    let mut v = multi_header(kind, false, err);
    v["result"] = result;
    v
}

/// The `body` of a response to `op`.
pub fn response(op: OpCode, r: &Response<'_>) -> Value {
    match r {
        Response::Empty => json!({}),
        Response::Create { path } => json!({"path": path}),
        Response::Create2 { path, stat: s } => json!({"path": path, "stat": stat(s)}),
        Response::Stat(s) => json!({"stat": stat(s)}),
        Response::Data { data, stat: s } => json!({"data": buffer(*data), "stat": stat(s)}),
        Response::Acl { acl, stat: s } => json!({"acl": acl_list(Some(acl)), "stat": stat(s)}),
        Response::Paths(paths) if op == OpCode::GetEphemerals => json!({"ephemerals": paths}),
        Response::Paths(paths) => json!({"children": paths}),
        Response::Children2 { children, stat: s } => json!({"children": children, "stat": stat(s)}),
        Response::Sync { path } => json!({"path": path}),
        Response::Multi(results) => {
            let mut list: Vec<_> = results.iter().map(multi_result).collect();
            list.push(multi_header(-1, true, -1));
            json!({"results": list})
        }
        Response::Sasl { token } => json!({"token": buffer(*token)}),
        Response::Int(v) if op == OpCode::AddWatch => json!({"err": v}),
        Response::Int(v) => json!({"totalNumber": v}),
        Response::WhoAmI(infos) => {
            let info = |i: &zk_proto::ClientInfo<'_>| json!({"authScheme": i.auth_scheme, "user": i.user});
            json!({"clientInfo": infos.iter().map(info).collect::<Vec<_>>()})
        }
    }
}

/// The `body` of an event.
pub fn event(e: &WatcherEvent<'_>) -> Value {
    json!({"type": e.kind as i32, "state": e.state, "path": e.path})
}

/// `write` into a fresh buffer.
pub fn encoded(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

/// A request header in front of a body.
pub fn request_frame(xid: i32, op: i32, body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    encoded(|w| {
        w.put_int(xid);
        w.put_int(op);
        body(w);
    })
}
