//! Details of the protocol that are easy to get wrong, one test each. What is not stated by a record's layout
//! was observed on Apache ZooKeeper 3.9.

use std::borrow::Cow;

use zk_proto::jute::{DecodeError, Reader, Writer, frame};
use zk_proto::{
    Acl, ConnectRequest, ConnectResponse, CreateMode, CreateRequest, ErrorCode, EventType, MAX_TTL_MS,
    MultiOp, MultiResult, OpCode, Perms, ReplyHeader, Request, Response, SessionId, Stat, WatcherEvent,
    WatcherType, Zxid, path, xid,
};

fn bytes(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

fn decode(op: OpCode, body: &[u8]) -> Result<Request<'_>, DecodeError> {
    Request::decode(op, &mut Reader::new(body))
}

// Primitives

#[test]
fn a_frame_has_its_length_in_front() {
    let mut out = vec![9];
    frame(&mut out, |w| w.put_str("ab"));
    frame(&mut out, |_| {});
    assert_eq!(out, [9, 0, 0, 0, 6, 0, 0, 0, 2, b'a', b'b', 0, 0, 0, 0]);
}

#[test]
fn any_byte_but_zero_is_true() {
    for (byte, value) in [(0, false), (1, true), (2, true), (0xff, true)] {
        assert_eq!(Reader::new(&[byte]).bool(), Ok(value));
    }
}

#[test]
fn null_and_empty_data_differ() {
    for data in [None, Some(&b""[..])] {
        let request = Request::SetData { path: "/a".into(), data, version: -1 };
        assert_eq!(decode(OpCode::SetData, &bytes(|w| request.encode(w))), Ok(request));
    }
}

#[test]
fn bad_utf8_becomes_a_character_that_no_path_may_contain() {
    let body = bytes(|w| {
        w.put_buffer(Some(b"/a\xff"));
        w.put_bool(false);
    });
    let Ok(Request::Exists { path, .. }) = decode(OpCode::Exists, &body) else { panic!("not decoded") };
    assert_eq!(path, "/a\u{fffd}");
    assert!(path::validate(&path).is_err());
}

#[test]
fn characters_beyond_the_bmp_are_read_in_both_spellings() {
    let plain = "😀".as_bytes().to_vec();
    let surrogates = vec![0xed, 0xa0, 0xbd, 0xed, 0xb8, 0x80];
    for id in [plain, surrogates] {
        let body = bytes(|w| {
            w.put_int(1);
            w.put_str("digest");
            w.put_buffer(Some(&id));
        });
        assert_eq!(Acl::decode(&mut Reader::new(&body)), Ok(Acl::new(Perms::READ, "digest", "😀")));
    }
}

#[test]
fn characters_beyond_the_bmp_are_plain_in_requests_and_surrogates_in_replies() {
    let acl = vec![Acl::new(Perms::READ, "digest", "😀:x")];
    let request = Request::SetAcl { path: "/a".into(), acl: Some(acl.clone()), version: -1 };
    let response = Response::Acl { acl, stat: Stat::default() };
    let contains = |haystack: &[u8], needle: &[u8]| haystack.windows(needle.len()).any(|w| w == needle);
    assert!(contains(&bytes(|w| request.encode(w)), "😀".as_bytes()));
    assert!(contains(&bytes(|w| response.encode(w)), b"\xed\xa0\xbd\xed\xb8\x80"));
}

#[test]
fn an_acl_count_below_minus_one_is_an_empty_list() {
    for (count, acl) in [(-1, None), (0, Some(vec![])), (-5, Some(vec![])), (i32::MIN, Some(vec![]))] {
        let body = bytes(|w| {
            w.put_str("/a");
            w.put_buffer(None);
            w.put_int(count);
            w.put_int(0);
        });
        let Ok(Request::Create(create)) = decode(OpCode::Create, &body) else { panic!("not decoded") };
        assert_eq!(create.acl, acl, "count {count}");
    }
}

#[test]
fn a_length_below_minus_one_is_an_error() {
    let body = bytes(|w| w.put_int(-2));
    let expected = DecodeError::NegativeLength { offset: 0, length: -2 };
    assert_eq!(decode(OpCode::GetAcl, &body), Err(expected));
    assert_eq!(expected.to_string(), "negative length -2 at offset 0");
}

#[test]
fn a_length_beyond_the_frame_is_an_error_that_says_where() {
    let body = bytes(|w| {
        w.put_int(1 << 20);
        w.extend_from_slice(b"/a");
    });
    let error = decode(OpCode::GetAcl, &body).expect_err("1 MiB is not there");
    assert_eq!(error, DecodeError::Truncated { offset: 4, needed: 1 << 20, left: 2 });
    assert_eq!(error.to_string(), "truncated: 1048576 bytes needed at offset 4, 2 left");
}

// Handshake

#[test]
fn handshake_records_have_the_lengths_of_old_and_new_clients() {
    for (passwd, read_only, length) in [
        (Some(&[0; 16][..]), Some(false), 45),
        (Some(&[0; 16][..]), None, 44),
        (Some(&[][..]), Some(true), 29),
        (None, None, 28),
    ] {
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: Zxid::ZERO,
            timeout_ms: 30_000,
            session_id: SessionId::NONE,
            passwd,
            read_only,
        };
        assert_eq!(bytes(|w| request.encode(w)).len(), length);
    }
}

#[test]
fn a_refusal_is_all_zeros_and_repeats_the_read_only_byte_only_when_it_was_sent() {
    let mut refusal = vec![0; 36];
    refusal[19] = 16;
    assert_eq!(bytes(|w| ConnectResponse::refused(false).encode(w)), refusal);
    refusal.push(0);
    assert_eq!(bytes(|w| ConnectResponse::refused(true).encode(w)), refusal);
}

// Headers and codes

#[test]
fn reserved_xids() {
    assert_eq!((xid::EVENT, xid::PING, xid::AUTH, xid::SET_WATCHES), (-1, -2, -4, -8));
}

#[test]
fn operation_codes() {
    let table = [
        (1, "create"),
        (2, "delete"),
        (3, "exists"),
        (4, "getData"),
        (5, "setData"),
        (6, "getACL"),
        (7, "setACL"),
        (8, "getChildren"),
        (9, "sync"),
        (11, "ping"),
        (12, "getChildren2"),
        (13, "check"),
        (14, "multi"),
        (15, "create2"),
        (16, "reconfig"),
        (17, "checkWatches"),
        (18, "removeWatches"),
        (19, "createContainer"),
        (20, "deleteContainer"),
        (21, "createTTL"),
        (22, "multiRead"),
        (100, "auth"),
        (101, "setWatches"),
        (102, "sasl"),
        (103, "getEphemerals"),
        (104, "getAllChildrenNumber"),
        (105, "setWatches2"),
        (106, "addWatch"),
        (107, "whoAmI"),
        (-10, "createSession"),
        (-11, "closeSession"),
    ];
    for (code, name) in table {
        let op = OpCode::from_i32(code).unwrap_or_else(|| panic!("no operation {code}"));
        assert_eq!((op as i32, op.name()), (code, name));
    }
    assert_eq!((-20..=200).filter_map(OpCode::from_i32).count(), table.len());
    for unknown in [0, -1, 10, 23, 99, 108, i32::MIN, i32::MAX] {
        assert_eq!(OpCode::from_i32(unknown), None);
    }
}

#[test]
fn error_codes() {
    for (code, name) in [
        (0, "Ok"),
        (-2, "RuntimeInconsistency"),
        (-4, "ConnectionLoss"),
        (-5, "MarshallingError"),
        (-6, "Unimplemented"),
        (-8, "BadArguments"),
        (-13, "NewConfigNoQuorum"),
        (-14, "ReconfigInProgress"),
        (-101, "NoNode"),
        (-102, "NoAuth"),
        (-103, "BadVersion"),
        (-108, "NoChildrenForEphemerals"),
        (-110, "NodeExists"),
        (-111, "NotEmpty"),
        (-112, "SessionExpired"),
        (-114, "InvalidACL"),
        (-115, "AuthFailed"),
        (-118, "SessionMoved"),
        (-119, "NotReadOnly"),
        (-120, "EphemeralOnLocalSession"),
        (-121, "NoWatcher"),
        (-123, "ReconfigDisabled"),
        (-124, "SessionClosedRequireSaslAuth"),
        (-125, "QuotaExceeded"),
        (-127, "ThrottledOp"),
    ] {
        assert_eq!(ErrorCode(code).name(), Some(name));
    }
    // A code that is not assigned is passed on as it is.
    assert_eq!(ErrorCode(-126).name(), None);
    assert_eq!(ErrorCode(-126).ok(), Err(ErrorCode(-126)));
    assert_eq!(ErrorCode(-126).to_string(), "error -126");
}

#[test]
fn an_event_is_a_reply_with_xid_minus_one_and_state_3() {
    let event = WatcherEvent::new(EventType::NodeDataChanged, "/a");
    let out = bytes(|w| {
        ReplyHeader { xid: xid::EVENT, zxid: Zxid::new(1, 2), err: ErrorCode::OK }.encode(w);
        event.encode(w);
    });
    assert_eq!(out[..16], [255, 255, 255, 255, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0]);
    assert_eq!(out[16..], [0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0, 2, b'/', b'a']);
    // State changes (-1) and removals (5 to 7) are local to a client and never on the wire.
    assert!([-1, 0, 5, 6, 7].into_iter().all(|kind| EventType::from_i32(kind).is_none()));
}

// Records

#[test]
fn create_flags() {
    use CreateMode::*;
    let modes = [
        Persistent,
        Ephemeral,
        PersistentSequential,
        EphemeralSequential,
        Container,
        PersistentWithTtl,
        PersistentSequentialWithTtl,
    ];
    for (flags, mode) in (0..).zip(modes) {
        assert_eq!(CreateMode::try_from(flags), Ok(mode));
        assert_eq!(mode.flags(), flags);
        assert_eq!(mode.is_sequential(), [2, 3, 6].contains(&flags));
    }
    assert!([-1, 7, i32::MAX].into_iter().all(|flags| CreateMode::try_from(flags).is_err()));
    assert_eq!(MAX_TTL_MS, 1_099_511_627_775);
}

#[test]
fn a_single_create_passes_any_flags_on() {
    for flags in [-1, 5, 7, i32::MAX] {
        let create = CreateRequest {
            op: OpCode::Create,
            path: "/a".into(),
            data: None,
            acl: Some(vec![Acl::open()]),
            flags,
            ttl_ms: 0,
        };
        let request = Request::Create(create);
        assert_eq!(decode(OpCode::Create, &bytes(|w| request.encode(w))), Ok(request));
    }
}

#[test]
fn only_create_ttl_has_the_ttl_on_the_wire() {
    let length = |op| {
        let create =
            CreateRequest { op, path: "/".into(), data: None, acl: None, flags: 5, ttl_ms: MAX_TTL_MS };
        bytes(|w| create.encode(w)).len()
    };
    assert_eq!(length(OpCode::CreateTtl), length(OpCode::Create) + 8);
    assert_eq!(length(OpCode::CreateContainer), length(OpCode::Create2));
}

#[test]
fn watcher_types_and_watch_modes_end_where_the_protocol_does() {
    for (value, kind) in [
        (1, WatcherType::Children),
        (2, WatcherType::Data),
        (3, WatcherType::Any),
        (4, WatcherType::Persistent),
        (5, WatcherType::PersistentRecursive),
    ] {
        assert_eq!(WatcherType::from_i32(value), Some(kind));
    }
    assert!([0, 6, -1, 9].into_iter().all(|value| WatcherType::from_i32(value).is_none()));
    for mode in [-1, 2, i32::MAX] {
        let body = bytes(|w| {
            w.put_str("/a");
            w.put_int(mode);
        });
        let expected = DecodeError::Unexpected { what: "addWatch mode", value: i64::from(mode) };
        assert_eq!(decode(OpCode::AddWatch, &body), Err(expected));
    }
}

#[test]
fn null_paths_pass_where_apache_takes_them_and_nowhere_else() {
    let body = bytes(|w| {
        w.put_int(-1);
        w.put_long(0);
    });
    assert_eq!(decode(OpCode::Sync, &body), Ok(Request::Sync { path: None }));
    assert_eq!(decode(OpCode::GetEphemerals, &body), Ok(Request::GetEphemerals { prefix: None }));
    assert!(matches!(decode(OpCode::AddWatch, &body), Ok(Request::AddWatch { path: None, .. })));
    for op in [
        OpCode::Create,
        OpCode::Create2,
        OpCode::CreateTtl,
        OpCode::CreateContainer,
        OpCode::Delete,
        OpCode::DeleteContainer,
        OpCode::Exists,
        OpCode::GetData,
        OpCode::SetData,
        OpCode::GetAcl,
        OpCode::SetAcl,
        OpCode::GetChildren,
        OpCode::GetChildren2,
        OpCode::Check,
        OpCode::CheckWatches,
        OpCode::RemoveWatches,
        OpCode::GetAllChildrenNumber,
    ] {
        assert_eq!(decode(op, &body), Err(DecodeError::Null("path")), "{op}");
    }
}

#[test]
fn operations_without_a_record_ignore_what_follows_the_header() {
    for op in [OpCode::Ping, OpCode::WhoAmI, OpCode::CloseSession] {
        assert!(decode(op, &[]).is_ok());
        assert!(decode(op, b"garbage").is_ok());
    }
}

#[test]
fn an_add_watch_reply_has_four_body_bytes() {
    assert_eq!(bytes(|w| Response::Int(0).encode(w)), [0; 4]);
    assert_eq!(Response::decode(OpCode::AddWatch, &mut Reader::new(&[0; 4])), Ok(Response::Int(0)));
}

#[test]
fn a_reply_may_have_more_body_than_the_operation_reads() {
    // createContainer sent by a create without Stat is answered with path and Stat.
    let body = bytes(|w| Response::Create2 { path: "/c".into(), stat: Stat::default() }.encode(w));
    let mut r = Reader::new(&body);
    let expected = Response::Create { path: Cow::Borrowed("/c") };
    assert_eq!(Response::decode(OpCode::Create, &mut r), Ok(expected));
    assert_eq!(r.remaining(), Stat::WIRE_LEN);
}

#[test]
fn permissions_print_as_apaches_tools_do_and_keep_higher_bits() {
    assert_eq!(Perms::ALL.to_string(), "cdrwa");
    assert_eq!((Perms::READ | Perms::ADMIN).to_string(), "ra");
    let acl = Acl::new(Perms(255), "world", "anyone");
    assert_eq!(Acl::decode(&mut Reader::new(&bytes(|w| acl.encode(w)))), Ok(acl));
}

#[test]
fn session_ids_and_zxids_print_as_unsigned_hex() {
    assert_eq!(SessionId(-1).to_string(), "0xffffffffffffffff");
    assert_eq!(Zxid::new(3, 0x10).to_string(), "0x300000010");
    assert_eq!((Zxid::new(3, 16).epoch(), Zxid::new(3, 16).counter()), (3, 16));
    assert_eq!(Zxid::new(3, u32::MAX).next(), None);
    assert_eq!(Zxid::new(3, 7).next(), Some(Zxid::new(3, 8)));
}

// multi and multiRead

fn multi_header(w: &mut Vec<u8>, kind: i32, done: bool, err: i32) {
    w.put_int(kind);
    w.put_bool(done);
    w.put_int(err);
}

const END: [u8; 9] = [255, 255, 255, 255, 1, 255, 255, 255, 255];

#[test]
fn a_multi_header_has_nine_bytes_and_the_end_is_all_ones() {
    assert_eq!(bytes(|w| Request::Multi(vec![]).encode(w)), END);
    assert_eq!(bytes(|w| Response::Multi(vec![]).encode(w)), END);
    let ops = vec![MultiOp::Check { path: "/".into(), version: 3 }];
    let expected = [&[0, 0, 0, 13, 0, 255, 255, 255, 255, 0, 0, 0, 1, b'/', 0, 0, 0, 3][..], &END].concat();
    assert_eq!(bytes(|w| Request::Multi(ops).encode(w)), expected);
}

#[test]
fn the_err_field_of_a_request_header_is_ignored() {
    let body = bytes(|w| {
        multi_header(w, 2, false, 77);
        w.put_str("/a");
        w.put_int(-1);
        multi_header(w, 12, true, 13);
    });
    let expected = Request::Multi(vec![MultiOp::Delete { path: "/a".into(), version: -1 }]);
    assert_eq!(decode(OpCode::Multi, &body), Ok(expected));
}

#[test]
fn a_multi_takes_writes_and_a_multi_read_takes_two_reads() {
    for code in -20..=120 {
        let body = bytes(|w| {
            multi_header(w, code, false, -1);
            // Enough zeros for any record: an empty path and zeros.
            w.extend_from_slice(&[0; 64]);
        });
        let refused = |result: Result<Request<'_>, DecodeError>| {
            result == Err(DecodeError::Unexpected { what: "operation in multi", value: i64::from(code) })
        };
        let writes = [1, 2, 5, 13, 15, 19, 21].contains(&code);
        let reads = [4, 8].contains(&code);
        assert_eq!(!refused(decode(OpCode::Multi, &body)), writes, "multi {code}");
        assert_eq!(!refused(decode(OpCode::MultiRead, &body)), reads, "multiRead {code}");
    }
}

#[test]
fn ttl_and_unknown_flags_under_an_operation_without_ttl_fail_the_whole_multi() {
    for op in [OpCode::Create, OpCode::Create2, OpCode::CreateContainer, OpCode::CreateTtl] {
        for flags in -1..=8 {
            let create = CreateRequest {
                op,
                path: "/a".into(),
                data: None,
                acl: Some(vec![Acl::open()]),
                flags,
                ttl_ms: if op == OpCode::CreateTtl { 1 } else { 0 },
            };
            let request = Request::Multi(vec![MultiOp::Create(create)]);
            let body = bytes(|w| request.encode(w));
            let result = decode(OpCode::Multi, &body);
            if op == OpCode::CreateTtl || (0..=4).contains(&flags) {
                assert_eq!(result, Ok(request));
            } else {
                assert!(matches!(result, Err(DecodeError::Unexpected { .. })), "{op} flags {flags}");
            }
        }
    }
}

#[test]
fn a_null_path_or_a_missing_end_fails_the_whole_multi() {
    let null_path = bytes(|w| {
        multi_header(w, 2, false, -1);
        w.put_int(-1);
        w.put_int(-1);
        w.extend_from_slice(&END);
    });
    assert_eq!(decode(OpCode::Multi, &null_path), Err(DecodeError::Null("path")));
    let no_end = bytes(|w| {
        multi_header(w, 2, false, -1);
        w.put_str("/a");
        w.put_int(-1);
    });
    assert!(matches!(decode(OpCode::Multi, &no_end), Err(DecodeError::Truncated { .. })));
    assert!(matches!(decode(OpCode::Multi, &[]), Err(DecodeError::Truncated { .. })));
    assert!(matches!(decode(OpCode::MultiRead, &[]), Err(DecodeError::Truncated { .. })));
}

#[test]
fn an_error_result_has_its_code_in_the_header_and_in_the_body() {
    let result = MultiResult::Error(ErrorCode::NO_NODE);
    let code = ErrorCode::NO_NODE.0.to_be_bytes();
    let expected = [&[255, 255, 255, 255, 0][..], &code, &code].concat();
    assert_eq!(bytes(|w| result.encode(w)), expected);
}

#[test]
fn success_results_have_the_type_of_the_operation_and_err_0() {
    let stat = Stat::default();
    for (result, kind) in [
        (MultiResult::Create { path: "/a".into() }, 1),
        (MultiResult::Create2 { path: "/a".into(), stat }, 15),
        (MultiResult::Delete, 2),
        (MultiResult::SetData { stat }, 5),
        (MultiResult::Check, 13),
        (MultiResult::GetData { data: None, stat }, 4),
        (MultiResult::GetChildren { children: vec![] }, 8),
    ] {
        assert_eq!(bytes(|w| result.encode(w))[..9], [0, 0, 0, kind, 0, 0, 0, 0, 0], "{result:?}");
    }
}
