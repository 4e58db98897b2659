//! Every record survives encode and decode, whatever its fields hold; and no bytes make a decoder panic.

use std::borrow::Cow;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use zk_proto::jute::{DecodeError, Reader};
use zk_proto::{
    Acl, AddWatchMode, AuthPacket, ClientInfo, ConnectRequest, ConnectResponse, CreateRequest, ErrorCode,
    EventType, MultiOp, MultiResult, OpCode, Perms, ReconfigRequest, ReplyHeader, Request, RequestHeader,
    Response, SessionId, SetWatches, Stat, WatcherEvent, WatcherType, Zxid, path,
};

/// What borrowed records borrow from: proptest values must own their data.
fn leak(bytes: Vec<u8>) -> &'static [u8] {
    bytes.leak()
}

type Text = Cow<'static, str>;

/// Any text, characters beyond the BMP and U+FFFD included.
fn text() -> impl Strategy<Value = Text> {
    prop_oneof!["/[a-z]{1,8}(/[a-z0-9]{1,8}){0,3}", ".{0,20}", Just(String::new())].prop_map(Cow::Owned)
}

fn opt_text() -> impl Strategy<Value = Option<Text>> {
    option::of(text())
}

fn buffer() -> impl Strategy<Value = Option<&'static [u8]>> {
    option::of(vec(any::<u8>(), 0..40).prop_map(leak))
}

fn texts() -> impl Strategy<Value = Vec<Text>> {
    vec(text(), 0..6)
}

fn acl() -> impl Strategy<Value = Acl<'static>> {
    (any::<i32>(), opt_text(), opt_text()).prop_map(|(perms, scheme, id)| Acl {
        perms: Perms(perms),
        scheme,
        id,
    })
}

fn acls() -> impl Strategy<Value = Option<Vec<Acl<'static>>>> {
    option::of(vec(acl(), 0..4))
}

fn create(flags: impl Strategy<Value = i32>) -> impl Strategy<Value = CreateRequest<'static>> {
    let op = prop_oneof![
        Just(OpCode::Create),
        Just(OpCode::Create2),
        Just(OpCode::CreateContainer),
        Just(OpCode::CreateTtl)
    ];
    (op, text(), buffer(), acls(), flags, any::<i64>()).prop_map(|(op, path, data, acl, flags, ttl)| {
        // Only createTTL has the field on the wire.
        let ttl_ms = if op == OpCode::CreateTtl { ttl } else { 0 };
        CreateRequest { op, path, data, acl, flags, ttl_ms }
    })
}

fn write_op() -> impl Strategy<Value = MultiOp<'static>> {
    prop_oneof![
        create(0..=4).prop_map(MultiOp::Create),
        (text(), any::<i32>()).prop_map(|(path, version)| MultiOp::Delete { path, version }),
        (text(), buffer(), any::<i32>()).prop_map(|(path, data, version)| MultiOp::SetData {
            path,
            data,
            version
        }),
        (text(), any::<i32>()).prop_map(|(path, version)| MultiOp::Check { path, version }),
    ]
}

fn read_op() -> impl Strategy<Value = MultiOp<'static>> {
    prop_oneof![
        (text(), any::<bool>()).prop_map(|(path, watch)| MultiOp::GetData { path, watch }),
        (text(), any::<bool>()).prop_map(|(path, watch)| MultiOp::GetChildren { path, watch }),
    ]
}

fn set_watches(with_persistent: bool) -> impl Strategy<Value = SetWatches<'static>> {
    let lists = || option::of(texts());
    (any::<i64>(), lists(), lists(), lists(), lists(), lists()).prop_map(
        move |(relative_zxid, data, exist, child, persistent, persistent_recursive)| SetWatches {
            relative_zxid,
            data,
            exist,
            child,
            persistent: persistent.filter(|_| with_persistent),
            persistent_recursive: persistent_recursive.filter(|_| with_persistent),
        },
    )
}

fn watcher_type() -> impl Strategy<Value = WatcherType> {
    (1..=5).prop_map(|v| WatcherType::from_i32(v).expect("1 to 5 are watcher types"))
}

fn request() -> impl Strategy<Value = Request<'static>> {
    let reads = || (text(), any::<bool>());
    let watches = || (text(), watcher_type());
    prop_oneof![
        create(any::<i32>()).prop_map(Request::Create),
        (text(), any::<i32>()).prop_map(|(path, version)| Request::Delete { path, version }),
        text().prop_map(|path| Request::DeleteContainer { path }),
        reads().prop_map(|(path, watch)| Request::Exists { path, watch }),
        reads().prop_map(|(path, watch)| Request::GetData { path, watch }),
        reads().prop_map(|(path, watch)| Request::GetChildren { path, watch }),
        reads().prop_map(|(path, watch)| Request::GetChildren2 { path, watch }),
        (text(), buffer(), any::<i32>()).prop_map(|(path, data, version)| Request::SetData {
            path,
            data,
            version
        }),
        text().prop_map(|path| Request::GetAcl { path }),
        (text(), acls(), any::<i32>()).prop_map(|(path, acl, version)| Request::SetAcl {
            path,
            acl,
            version
        }),
        opt_text().prop_map(|path| Request::Sync { path }),
        Just(Request::Ping),
        (text(), any::<i32>()).prop_map(|(path, version)| Request::Check { path, version }),
        vec(write_op(), 0..6).prop_map(Request::Multi),
        vec(read_op(), 0..6).prop_map(Request::MultiRead),
        (opt_text(), opt_text(), opt_text(), any::<i64>()).prop_map(
            |(joining_servers, leaving_servers, new_members, cur_config_id)| {
                Request::Reconfig(ReconfigRequest {
                    joining_servers,
                    leaving_servers,
                    new_members,
                    cur_config_id,
                })
            }
        ),
        watches().prop_map(|(path, kind)| Request::CheckWatches { path, kind }),
        watches().prop_map(|(path, kind)| Request::RemoveWatches { path, kind }),
        (any::<i32>(), opt_text(), buffer()).prop_map(|(kind, scheme, auth)| Request::Auth(AuthPacket {
            kind,
            scheme,
            auth
        })),
        set_watches(false).prop_map(Request::SetWatches),
        set_watches(true).prop_map(Request::SetWatches2),
        buffer().prop_map(|token| Request::Sasl { token }),
        opt_text().prop_map(|prefix| Request::GetEphemerals { prefix }),
        text().prop_map(|path| Request::GetAllChildrenNumber { path }),
        (opt_text(), any::<bool>()).prop_map(|(path, recursive)| Request::AddWatch {
            path,
            mode: if recursive { AddWatchMode::PersistentRecursive } else { AddWatchMode::Persistent },
        }),
        Just(Request::WhoAmI),
        any::<i32>().prop_map(|timeout_ms| Request::CreateSession { timeout_ms }),
        Just(Request::CloseSession),
    ]
}

fn stat() -> impl Strategy<Value = Stat> {
    (any::<[i64; 6]>(), any::<[i32; 5]>()).prop_map(|(l, i)| Stat {
        czxid: l[0],
        mzxid: l[1],
        ctime: l[2],
        mtime: l[3],
        version: i[0],
        cversion: i[1],
        aversion: i[2],
        ephemeral_owner: l[4],
        data_length: i[3],
        num_children: i[4],
        pzxid: l[5],
    })
}

fn multi_result() -> impl Strategy<Value = MultiResult<'static>> {
    prop_oneof![
        text().prop_map(|path| MultiResult::Create { path }),
        (text(), stat()).prop_map(|(path, stat)| MultiResult::Create2 { path, stat }),
        Just(MultiResult::Delete),
        stat().prop_map(|stat| MultiResult::SetData { stat }),
        Just(MultiResult::Check),
        (buffer(), stat()).prop_map(|(data, stat)| MultiResult::GetData { data, stat }),
        texts().prop_map(|children| MultiResult::GetChildren { children }),
        any::<i32>().prop_map(|code| MultiResult::Error(ErrorCode(code))),
    ]
}

/// A response and an operation that it answers.
fn response() -> impl Strategy<Value = (OpCode, Response<'static>)> {
    let info = (text(), text()).prop_map(|(auth_scheme, user)| ClientInfo { auth_scheme, user });
    prop_oneof![
        Just((OpCode::Delete, Response::Empty)),
        text().prop_map(|path| (OpCode::Create, Response::Create { path })),
        (text(), stat()).prop_map(|(path, stat)| (OpCode::CreateTtl, Response::Create2 { path, stat })),
        stat().prop_map(|stat| (OpCode::Exists, Response::Stat(stat))),
        (buffer(), stat()).prop_map(|(data, stat)| (OpCode::GetData, Response::Data { data, stat })),
        (vec(acl(), 0..4), stat()).prop_map(|(acl, stat)| (OpCode::GetAcl, Response::Acl { acl, stat })),
        texts().prop_map(|paths| (OpCode::GetEphemerals, Response::Paths(paths))),
        (texts(), stat())
            .prop_map(|(children, stat)| (OpCode::GetChildren2, Response::Children2 { children, stat })),
        opt_text().prop_map(|path| (OpCode::Sync, Response::Sync { path })),
        vec(multi_result(), 0..6).prop_map(|results| (OpCode::Multi, Response::Multi(results))),
        buffer().prop_map(|token| (OpCode::Sasl, Response::Sasl { token })),
        any::<i32>().prop_map(|v| (OpCode::GetAllChildrenNumber, Response::Int(v))),
        vec(info, 0..4).prop_map(|infos| (OpCode::WhoAmI, Response::WhoAmI(infos))),
    ]
}

fn encoded(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

/// Decodes all of `bytes`.
fn whole<'a, T>(
    bytes: &'a [u8],
    decode: impl FnOnce(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<T, TestCaseError> {
    let mut r = Reader::new(bytes);
    let value = decode(&mut r).map_err(|e| TestCaseError::fail(e.to_string()))?;
    prop_assert_eq!(r.remaining(), 0);
    Ok(value)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn connect_requests(
        protocol_version: i32, zxid: i64, timeout_ms: i32, id: i64, passwd in buffer(), read_only: Option<bool>,
    ) {
        let record = ConnectRequest {
            protocol_version, last_zxid_seen: Zxid(zxid), timeout_ms, session_id: SessionId(id), passwd, read_only,
        };
        let bytes = encoded(|w| record.encode(w));
        prop_assert_eq!(whole(&bytes, ConnectRequest::decode)?, record);
    }

    #[test]
    fn connect_responses(
        protocol_version: i32, timeout_ms: i32, id: i64, passwd in buffer(), read_only: Option<bool>,
    ) {
        let record =
            ConnectResponse { protocol_version, timeout_ms, session_id: SessionId(id), passwd, read_only };
        let bytes = encoded(|w| record.encode(w));
        prop_assert_eq!(whole(&bytes, ConnectResponse::decode)?, record);
    }

    #[test]
    fn headers(xid: i32, op: i32, zxid: i64, err: i32) {
        let request = RequestHeader { xid, op };
        prop_assert_eq!(whole(&encoded(|w| request.encode(w)), RequestHeader::decode)?, request);
        let reply = ReplyHeader { xid, zxid: Zxid(zxid), err: ErrorCode(err) };
        let bytes = encoded(|w| reply.encode(w));
        prop_assert_eq!(bytes.len(), ReplyHeader::WIRE_LEN);
        prop_assert_eq!(whole(&bytes, ReplyHeader::decode)?, reply);
    }

    #[test]
    fn requests(record in request()) {
        let bytes = encoded(|w| record.encode(w));
        prop_assert_eq!(whole(&bytes, |r| Request::decode(record.op(), r))?, record.clone());
        // Every record ends where its last field ends: one byte less is never enough.
        for cut in 0..bytes.len() {
            prop_assert!(Request::decode(record.op(), &mut Reader::new(&bytes[..cut])).is_err());
        }
    }

    #[test]
    fn responses((op, record) in response()) {
        let bytes = encoded(|w| record.encode(w));
        prop_assert_eq!(whole(&bytes, |r| Response::decode(op, r))?, record.clone());
        for cut in 0..bytes.len() {
            prop_assert!(Response::decode(op, &mut Reader::new(&bytes[..cut])).is_err());
        }
    }

    #[test]
    fn events(kind in 1..=4, state: i32, path in text()) {
        let kind = EventType::from_i32(kind).expect("1 to 4 are event types");
        let record = WatcherEvent { kind, state, path };
        let bytes = encoded(|w| record.encode(w));
        prop_assert_eq!(whole(&bytes, WatcherEvent::decode)?, record);
    }

    #[test]
    fn stats_and_acls(stat in stat(), list in acls()) {
        let bytes = encoded(|w| stat.encode(w));
        prop_assert_eq!(bytes.len(), Stat::WIRE_LEN);
        prop_assert_eq!(whole(&bytes, Stat::decode)?, stat);
        let bytes = encoded(|w| Acl::encode_list(list.as_deref(), w));
        prop_assert_eq!(whole(&bytes, Acl::decode_list)?, list);
    }

    #[test]
    fn any_bytes_decode_or_fail(bytes in vec(any::<u8>(), 0..200), op in -12..110) {
        let _ = ConnectRequest::decode(&mut Reader::new(&bytes));
        let _ = ConnectResponse::decode(&mut Reader::new(&bytes));
        let _ = WatcherEvent::decode(&mut Reader::new(&bytes));
        if let Some(op) = OpCode::from_i32(op) {
            let _ = Request::decode(op, &mut Reader::new(&bytes));
            let _ = Response::decode(op, &mut Reader::new(&bytes));
        }
    }

    #[test]
    fn a_valid_path_splits_and_joins(path in "(/[a-zA-Z0-9é._-]{1,6}){1,4}") {
        if path::validate(&path).is_ok() {
            let (parent, name) = path::split(&path).expect("it is not the root");
            prop_assert!(path::validate(parent).is_ok());
            prop_assert!(!name.is_empty() && !name.contains('/'));
            prop_assert_eq!(path::join(parent, name), path);
        }
    }
}
