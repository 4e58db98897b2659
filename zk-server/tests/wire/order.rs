use zk_proto::{ErrorCode, MultiOp, OpCode, Request, xid};

use crate::client::{Wire, body, create, delete, encode, get, set};
use crate::server;

#[test]
fn replies_come_in_the_order_of_requests() {
    let server = server();
    let mut wire = Wire::connect(&server);
    wire.ok(&create("/n", b"0", 0));
    let requests: Vec<_> = (0..500)
        .map(|i| match i % 3 {
            0 => set("/n", b"data"),
            1 => get("/n", false),
            _ => get("/missing", false),
        })
        .collect();
    let xids = wire.ask_all(&requests);
    let replies: Vec<_> = xids.iter().map(|_| wire.reply()).collect();
    assert_eq!(replies.iter().map(|reply| reply.xid).collect::<Vec<_>>(), xids);
    assert!(replies.is_sorted_by_key(|reply| reply.zxid), "a session never goes back in time");
}

#[test]
fn a_read_between_two_writes_sees_exactly_the_first() {
    for _ in 0..20 {
        let server = server();
        let mut wire = Wire::connect(&server);
        wire.ok(&create("/n", b"", 0));
        for i in 0..50_u32 {
            let (before, after) = (format!("a{i}"), format!("b{i}"));
            wire.ask_all(&[set("/n", before.as_bytes()), get("/n", false), set("/n", after.as_bytes())]);
            wire.reply().stat();
            assert_eq!(wire.reply().data(), before.as_bytes());
            wire.reply().stat();
        }
    }
}

#[test]
fn pings_and_refusals_keep_their_place_and_auth_overtakes() {
    let dir = tempfile::tempdir().unwrap();
    let server = zk_server::Server::builder().data_dir(dir.path()).start().unwrap();
    let mut wire = Wire::connect(&server);
    let auth = {
        let mut body = vec![0, 0, 0, 0];
        body.extend([0, 0, 0, 6]);
        body.extend(b"digest");
        body.extend([0, 0, 0, 3]);
        body.extend(b"a:b");
        encode(xid::AUTH, OpCode::Auth, &body)
    };
    let frames = [
        encode(1, OpCode::Create, &body(&create("/a", b"", 0))),
        encode(xid::PING, OpCode::Ping, &[]),
        // Truncated: refused on the spot, if that were its turn.
        encode(2, OpCode::SetData, &[0, 0, 0, 9]),
        auth,
        encode(3, OpCode::Delete, &body(&delete("/a"))),
    ];
    wire.send(&frames.concat());
    let replies: Vec<_> = (0..5).map(|_| wire.reply()).collect();
    assert_eq!(replies.iter().map(|reply| reply.xid).collect::<Vec<_>>(), [xid::AUTH, 1, xid::PING, 2, 3]);
    assert_eq!(replies[3].err, ErrorCode::MARSHALLING_ERROR);
    assert_eq!(replies[3].zxid, replies[1].zxid, "it has the zxid of its turn, and takes none");
    assert_eq!(replies[0].zxid, 0);
}

#[test]
fn an_undecodable_write_takes_no_zxid_but_a_multi_does() {
    let server = server();
    let mut wire = Wire::connect(&server);
    let first = wire.ok(&create("/a", b"", 0)).zxid;
    wire.send(&encode(7, OpCode::SetData, &[0, 0, 0, 1]));
    let refused = wire.reply();
    assert_eq!((refused.err, refused.zxid), (ErrorCode::MARSHALLING_ERROR, first));
    wire.send(&encode(8, OpCode::Multi, &[0, 0]));
    let refused = wire.reply();
    assert_eq!((refused.err, refused.zxid), (ErrorCode::MARSHALLING_ERROR, first + 1));
    assert_eq!(wire.ok(&create("/b", b"", 0)).zxid, first + 2);
}

#[test]
fn nobody_sees_half_a_multi() {
    let server = server();
    let mut writer = Wire::connect(&server);
    writer.ok(&create("/a", b"0", 0));
    writer.ok(&create("/b", b"0", 0));
    let both = |text: &'static str| {
        let set = |path: &'static str| MultiOp::SetData {
            path: path.into(),
            data: Some(text.as_bytes()),
            version: -1,
        };
        Request::Multi(vec![set("/a"), set("/b")])
    };
    let read = |path: &'static str| MultiOp::GetData { path: path.into(), watch: false };
    let mut reader = Wire::connect(&server);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for i in 0..300 {
                writer.ok(&both(if i % 2 == 0 { "1" } else { "2" }));
            }
        });
        for _ in 0..300 {
            let reply = reader.ok(&Request::MultiRead(vec![read("/a"), read("/b")]));
            let half = (reply.body.len() - 9) / 2;
            // type, done, err, length, then the byte of data
            assert_eq!(reply.body[13], reply.body[half + 13]);
        }
    });
}

#[test]
fn what_was_read_before_the_connection_broke_is_executed() {
    let server = server();
    let mut wire = Wire::connect(&server);
    let paths: Vec<_> = (0..300).map(|i| format!("/n{i}")).collect();
    let requests: Vec<_> = paths.iter().map(|path| create(path, b"", 0)).collect();
    wire.ask_all(&requests);
    // The first reply tells that the server has read at least that.
    assert_eq!(wire.reply().err, ErrorCode::OK);
    drop(wire);
    let mut other = Wire::connect(&server);
    other.ok(&get("/n0", false));
}
