//! Servers that break the protocol: the connection ends, the client does not.

use std::time::Duration;

use zk_client::{Client, Error, OpCode, SessionState};
use zk_proto::jute::Writer;
use zk_proto::{ErrorCode, EventType, Response, xid};

use crate::peer::{Peer, connected, script};

/// Sends `bytes` to a client with a read in flight; it must drop the connection and come back.
async fn ends_the_connection(name: &str, bytes: &[u8]) {
    let (zk, mut peer, mut listener) = connected().await;
    let read = zk.get("/a").send();
    peer.next().await;
    peer.write(bytes).await;
    let error = read.await.unwrap_err();
    assert!(matches!(error, Error::ConnectionLoss { .. }), "{name}: {error:?}");
    peer.closed().await;
    let mut peer = listener.accept_again().await;
    let read = zk.get("/a").send();
    peer.serve().await;
    read.await.unwrap_or_else(|e| panic!("{name}: {e}"));
}

#[tokio::test(start_paused = true)]
async fn broken_frames() {
    for (name, bytes) in [
        ("huge length", &[0x7f, 0xff, 0xff, 0xff, 0, 0][..]),
        ("negative length", &[0xff; 8]),
        ("above the limit", &[0x04, 0, 0, 1]),
        ("empty frame", &[0; 4]),
        ("short header", &[0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0]),
        ("unknown xid", &Peer::reply_bytes(77, 1, ErrorCode::OK, |_| {})),
        ("xid 0", &Peer::reply_bytes(0, 1, ErrorCode::OK, |_| {})),
        ("ping reply unasked", &Peer::reply_bytes(xid::PING, 1, ErrorCode::OK, |_| {})),
        ("auth reply unasked", &Peer::reply_bytes(xid::AUTH, 1, ErrorCode::OK, |_| {})),
        ("setWatches xid unasked", &Peer::reply_bytes(xid::SET_WATCHES, 1, ErrorCode::OK, |_| {})),
        ("event without body", &Peer::reply_bytes(xid::EVENT, 1, ErrorCode::OK, |_| {})),
        (
            "event of unknown type",
            &Peer::reply_bytes(xid::EVENT, 1, ErrorCode::OK, |w| {
                w.put_int(99);
                w.put_int(3);
                w.put_str("/a");
            }),
        ),
        (
            "event with a huge path",
            &Peer::reply_bytes(xid::EVENT, 1, ErrorCode::OK, |w| {
                w.put_int(1);
                w.put_int(3);
                w.put_int(i32::MAX);
            }),
        ),
    ] {
        ends_the_connection(name, bytes).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_makes_no_sense_fails_its_own_request_only() {
    let (zk, mut peer, mut listener) = connected().await;
    type Body = fn(&mut Vec<u8>);
    let bodies: [(&str, Body); 4] = [
        ("empty", |_| {}),
        ("truncated", |w| w.put_int(5)),
        ("huge data", |w| w.put_int(i32::MAX)),
        ("data without stat", |w| w.put_buffer(Some(b"x"))),
    ];
    for (name, body) in bodies {
        let read = zk.get("/a").send();
        let request = peer.next().await;
        peer.reply_raw(request.xid, 1, ErrorCode::OK, body).await;
        let error = read.await.unwrap_err();
        assert!(matches!(error, Error::Protocol(_)), "{name}: {error:?}");
    }
    let children = zk.children("/a").send();
    let request = peer.next().await;
    peer.reply_raw(request.xid, 1, ErrorCode::OK, |w| w.put_int(i32::MAX)).await;
    assert!(matches!(children.await.unwrap_err(), Error::Protocol(_)));
    // Too few, too many and wrong results of a multi.
    for results in [vec![], vec![zk_proto::MultiResult::Check; 2]] {
        let multi = zk.multi().check("/a", None).send();
        let request = peer.next().await;
        peer.reply(&request, &Response::Multi(results)).await;
        assert!(matches!(multi.await.unwrap_err(), Error::Protocol(_)));
    }
    let multi = zk.multi().check("/a", None).send();
    let request = peer.next().await;
    let read = zk_proto::MultiResult::GetChildren { children: Vec::new() };
    peer.reply(&request, &Response::Multi(vec![read])).await;
    assert!(matches!(multi.await.unwrap_err(), Error::Protocol(_)));
    // Unknown error codes stay what they are.
    let read = zk.get("/a").send();
    let request = peer.next().await;
    peer.fail(&request, ErrorCode(-4711)).await;
    assert_eq!(read.await.unwrap_err().code(), Some(ErrorCode(-4711)));
    assert!(listener.is_quiet());
}

#[tokio::test(start_paused = true)]
async fn surplus_bytes_behind_a_reply_are_ignored() {
    let (zk, mut peer, _listener) = connected().await;
    let exists = zk.exists("/a").send();
    let request = peer.next().await;
    peer.reply_raw(request.xid, 1, ErrorCode::OK, |w| {
        Response::Stat(zk_client::Stat::default()).encode(w);
        w.put_long(42);
    })
    .await;
    assert!(exists.await.unwrap().is_some());
    // An event for a path that nobody watches.
    peer.event(EventType::NodeCreated, "/nobody").await;
    let read = zk.get("/a").send();
    peer.serve().await;
    read.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn broken_handshakes_are_failed_attempts() {
    let (builder, mut listener) = script();
    let zk = builder.lazy().unwrap();
    // A bare reply header, as a read-only server without local sessions sends.
    let mut peer = listener.accept().await;
    peer.connect_request().await;
    peer.reply_raw(0, 0, ErrorCode::NOT_READ_ONLY, |_| {}).await;
    peer.closed().await;
    // A huge length; a refusal of a session that was not asked for; silence and then the end.
    let mut peer = listener.accept().await;
    peer.connect_request().await;
    peer.write(&[0x7f; 4]).await;
    peer.closed().await;
    let mut peer = listener.accept().await;
    peer.connect_request().await;
    peer.refuse().await;
    peer.closed().await;
    drop(listener.accept().await);
    let mut peer = listener.accept().await;
    peer.welcome(crate::peer::SESSION).await;
    assert_eq!(zk.connected().await.unwrap(), crate::peer::SESSION);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_accepts_and_drops_is_not_asked_without_pause() {
    let (builder, mut listener) = script();
    let zk = builder.lazy().unwrap();
    let start = tokio::time::Instant::now();
    let mut peer = listener.accept().await;
    peer.welcome(crate::peer::SESSION).await;
    for _ in 0..20 {
        drop(peer);
        peer = listener.accept_again().await;
    }
    assert!(start.elapsed() > Duration::from_secs(20), "{:?}", start.elapsed());
    assert!(!matches!(zk.state(), SessionState::Closed));
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_end_the_client() {
    let (zk, mut peer, _listener) = connected().await;
    let read = zk.get("/a").send();
    let auth = tokio::spawn({
        let zk = zk.clone();
        async move { zk.authenticate(zk_client::Auth::new("bad", "x")).await }
    });
    peer.next().await;
    assert_eq!(peer.next().await.op, OpCode::Auth);
    peer.reply_raw(xid::AUTH, 0, ErrorCode::AUTH_FAILED, |_| {}).await;
    assert!(matches!(auth.await.unwrap(), Err(Error::AuthFailed(_))));
    assert!(matches!(read.await, Err(Error::ConnectionLoss { .. })));
    assert_eq!(zk.state(), SessionState::AuthFailed);
    assert!(matches!(zk.get("/a").await, Err(Error::AuthFailed(_))));
    peer.closed().await;
    zk.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn bad_arguments_never_reach_a_server() {
    let (builder, mut listener) = script();
    let zk = builder.lazy().unwrap();
    for path in ["", "a", "/a/", "//", "/a/../b", "/\0", "/😀"] {
        assert!(matches!(zk.get(path).await, Err(Error::InvalidArgument(_))), "{path:?}");
        assert!(matches!(zk.create(path, "").send().await, Err(Error::InvalidArgument(_))), "{path:?}");
        assert!(zk.multi().delete(path, None).try_send().is_err(), "{path:?}");
        assert!(zk.watch(path).await.is_err() && zk.chroot(path).is_err(), "{path:?}");
    }
    assert!(Client::connect("").lazy().is_err() && Client::connect("a/b//c").lazy().is_err());
    drop(listener.accept().await);
}

/// Recorded frames with random damage, in answer to random requests: whatever comes, the client goes on.
#[tokio::test(start_paused = true)]
async fn damaged_frames() {
    let frames = crate::recorded::frames_to_client();
    let mut random = fastrand::Rng::with_seed(7);
    let (zk, mut peer, mut listener) = connected().await;
    for round in 0..3000 {
        let request = match random.u32(..6) {
            0 => tokio::spawn(drop_value(zk.get("/a").send())),
            1 => tokio::spawn(drop_value(zk.children("/a").send())),
            2 => tokio::spawn(drop_value(zk.multi().check("/a", None).send())),
            3 => tokio::spawn(drop_value(zk.multi_read().get("/a").send())),
            4 => tokio::spawn(drop_value(zk.create("/a", "").send())),
            _ => {
                let zk = zk.clone();
                tokio::spawn(async move { zk.acl("/a").await.map(drop) })
            }
        };
        let asked = peer.next().await;
        let mut frame = frames[random.usize(..frames.len())].clone();
        if random.u32(..4) > 0 {
            frame[..4].copy_from_slice(&asked.xid.to_be_bytes());
        }
        for _ in 0..random.u32(..4) {
            let at = random.usize(4..frame.len());
            frame[at] = random.u8(..);
        }
        if random.u32(..4) == 0 {
            frame.truncate(random.usize(..frame.len()));
        }
        let mut bytes = (frame.len() as u32).to_be_bytes().to_vec();
        bytes.extend(frame);
        peer.write(&bytes).await;
        // Either the request is answered in some way, or the connection is given up.
        let answered = tokio::time::timeout(Duration::from_millis(1), request).await;
        let ended = !matches!(answered, Ok(Ok(Ok(()) | Err(Error::Server { .. } | Error::Multi { .. }))));
        assert!(!matches!(answered, Ok(Ok(Err(Error::Closed)))), "round {round}: the driver is gone");
        if ended {
            drop(peer);
            peer = listener.accept_again().await;
        }
    }
    let read = zk.get("/a").send();
    peer.serve().await;
    read.await.unwrap();
}

async fn drop_value<T>(call: zk_client::Pending<T>) -> zk_client::Result<()> {
    call.await.map(drop)
}
