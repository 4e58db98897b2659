//! What is sent again on a new connection, and what happens when the session is gone.

use std::time::Duration;

use zk_client::{Auth, Error, EventKind, OnExpired, OpCode, SessionId, SessionState};
use zk_proto::{ErrorCode, EventType, Request, xid};

use crate::peer::{SESSION, T, connect, connected, script, script_of};

#[tokio::test(start_paused = true)]
async fn auth_then_watches_then_requests() {
    let (builder, listener) = script();
    let client = builder.auth(Auth::digest("a", "1")).lazy().unwrap();
    let (zk, mut listener) = (client, listener);
    let mut peer = listener.accept().await;
    peer.welcome(SESSION).await;
    assert_eq!(peer.next().await.op, OpCode::Auth);
    assert!(!matches!(zk.state(), SessionState::Connected { .. }), "not before the credentials are taken");
    peer.reply_raw(xid::AUTH, 0, ErrorCode::OK, |_| {}).await;
    zk.connected().await.unwrap();
    let auth = tokio::spawn({
        let zk = zk.clone();
        async move { zk.authenticate(Auth::digest("b", "2")).await }
    });
    assert_eq!(peer.next().await.op, OpCode::Auth);
    peer.reply_raw(xid::AUTH, 0, ErrorCode::OK, |_| {}).await;
    auth.await.unwrap().unwrap();
    let watched = async {
        let get = zk.get("/data").watched().await.unwrap();
        let children = zk.children("/child").watched().await.unwrap();
        let exists = zk.exists("/none").watched().await.unwrap();
        (get.2, children.2, exists.1)
    };
    let server = async {
        peer.serve().await;
        peer.serve().await;
        let exists = peer.next().await;
        peer.fail(&exists, ErrorCode::NO_NODE).await;
    };
    let (_watches, ()) = tokio::join!(watched, server);
    let last_zxid = peer.zxid;
    // Zxids of events and pings do not count.
    peer.event(EventType::NodeCreated, "/other").await;
    let mut states = zk.states();
    drop(peer);
    states.changed().await.unwrap();
    let queued = (zk.set("/q1", "").send(), zk.get("/q2").send());

    let mut peer = listener.accept().await;
    let asked = peer.connect_request().await;
    assert_eq!((asked.session_id, asked.last_zxid), (SESSION, last_zxid));
    peer.answer_connect(SESSION, T).await;
    for user in ["a:1", "b:2"] {
        let auth = peer.next().await;
        assert_eq!((auth.op, auth.xid), (OpCode::Auth, xid::AUTH));
        let Request::Auth(packet) = auth.request() else { unreachable!() };
        assert_eq!(packet.auth, Some(user.as_bytes()));
    }
    let set = peer.next().await;
    assert!(set.xid > 0);
    let Request::SetWatches(watches) = set.request() else { panic!("{set:?}") };
    assert_eq!(watches.relative_zxid, last_zxid);
    assert_eq!(watches.data.unwrap(), ["/data"]);
    assert_eq!(watches.exist.unwrap(), ["/none"]);
    assert_eq!(watches.child.unwrap(), ["/child"]);
    let (first, second) = (peer.next().await, peer.next().await);
    assert_eq!((first.path().as_str(), second.path().as_str()), ("/q1", "/q2"));
    // Auth replies overtake; an event comes in front of the setWatches reply.
    peer.reply_raw(xid::AUTH, 0, ErrorCode::OK, |_| {}).await;
    peer.reply_raw(xid::AUTH, 0, ErrorCode::OK, |_| {}).await;
    for request in [&set, &first, &second] {
        peer.answer(request).await;
    }
    queued.0.await.unwrap();
    queued.1.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn many_watches_go_out_in_several_requests() {
    let (zk, mut peer, mut listener) = connected().await;
    let name = "x".repeat(900);
    let mut watches = Vec::new();
    for i in 0..400 {
        let path = format!("/{name}{i:03}");
        let (watch, _) = tokio::join!(zk.get(&path).watched(), peer.serve());
        watches.push(watch.unwrap().2);
    }
    let (stream, _) = tokio::join!(async { zk.watch("/stream").await }, peer.serve());
    let _stream = stream.unwrap();
    drop(peer);
    let mut peer = listener.accept_again().await;
    let (mut seen, mut requests) = (0, Vec::new());
    while seen < 401 {
        let request = peer.next().await;
        assert!(request.len() < 128 * 1024, "{}", request.len());
        requests.push(request.op);
        seen += match request.request() {
            Request::SetWatches(w) => w.data.unwrap().len(),
            Request::SetWatches2(w) => w.data.unwrap().len() + w.persistent.unwrap().len(),
            other => panic!("{other:?}"),
        };
        peer.answer(&request).await;
    }
    let plain = OpCode::SetWatches;
    assert_eq!(requests, [plain, plain, OpCode::SetWatches2]);
    assert!(peer.is_quiet(Duration::from_secs(1)).await);
}

#[tokio::test(start_paused = true)]
async fn a_refused_set_watches_is_tried_on_another_connection() {
    let (zk, mut peer, mut listener) = connected().await;
    let (watch, _) = tokio::join!(zk.get("/a").watched(), peer.serve());
    let watch = watch.unwrap().2;
    drop(peer);
    let mut peer = listener.accept_again().await;
    let set = peer.next().await;
    peer.fail(&set, ErrorCode::THROTTLED_OP).await;
    peer.closed().await;
    let mut peer = listener.accept_again().await;
    peer.serve().await;
    peer.event(EventType::NodeDataChanged, "/a").await;
    assert_eq!(watch.fired().await.kind, EventKind::DataChanged);
}

#[tokio::test(start_paused = true)]
async fn an_expired_session_is_replaced() {
    let (zk, mut peer, mut listener) = connected().await;
    let (watch, _) = tokio::join!(zk.get("/a").watched(), peer.serve());
    let pinned = zk.pinned();
    let mut states = zk.states();
    drop(peer);
    states.changed().await.unwrap();
    let queued = zk.set("/a", "").send();
    let mut peer = listener.accept().await;
    peer.connect_request().await;
    peer.refuse().await;
    let mut peer = listener.accept().await;
    assert!(matches!(queued.await, Err(Error::SessionExpired(SESSION))));
    assert_eq!(watch.unwrap().2.fired().await.kind, EventKind::SessionLost);
    let waiting = zk.get("/b").send();
    assert!(matches!(pinned.get("/b").await, Err(Error::SessionExpired(SESSION))));
    let new = SessionId(0x5678);
    peer.welcome(new).await;
    assert_eq!(peer.serve().await.path(), "/b", "no watches to set again");
    waiting.await.unwrap();
    assert_eq!(zk.session_id(), new);
    assert!(matches!(pinned.get("/b").await, Err(Error::SessionExpired(SESSION))));
    zk.pinned().session();
}

#[tokio::test(start_paused = true)]
async fn another_session_than_the_one_asked_for_means_expired() {
    let (zk, peer, mut listener) = connected().await;
    let mut states = zk.states();
    drop(peer);
    states.changed().await.unwrap();
    let queued = zk.get("/a").send();
    let new = SessionId(0x9999);
    let mut peer = listener.accept().await;
    peer.connect_request().await;
    peer.answer_connect(new, T).await;
    assert!(matches!(queued.await, Err(Error::SessionExpired(SESSION))));
    assert_eq!(zk.connected().await.unwrap(), new);
    let read = zk.get("/a").send();
    peer.serve().await;
    read.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn expiry_can_be_the_end() {
    let (builder, listener) = script();
    let (zk, peer, mut listener) = connect(builder.on_expired(OnExpired::Fail), listener).await;
    let mut states = zk.states();
    drop(peer);
    let mut peer = listener.accept().await;
    peer.connect_request().await;
    peer.refuse().await;
    let last = states.wait_for(|s| matches!(s, SessionState::Expired { .. })).await.unwrap();
    assert_eq!(last, SessionState::Expired { session: SESSION, confirmed: true });
    assert_eq!(states.changed().await, None);
    assert!(matches!(zk.get("/a").await, Err(Error::SessionExpired(SESSION))));
    assert!(matches!(zk.connected().await, Err(Error::SessionExpired(SESSION))));
}

#[tokio::test(start_paused = true)]
async fn a_better_server_is_looked_for_while_read_only() {
    let (builder, mut listener) = script_of("a:1,b:2", 1024);
    let zk = builder.read_only(true).lazy().unwrap();
    let (first, mut peer) = listener.accept_from().await;
    assert_eq!(peer.connect_request().await.read_only, Some(true));
    peer.answer_connect_mode(SESSION, T, true).await;
    zk.connected().await.unwrap();
    assert!(matches!(zk.state(), SessionState::Connected { read_only: true, .. }));
    let mut probes = Vec::new();
    for answer in [&b"ro"[..], b"null", b"rw"] {
        let (host, mut probe) = listener.accept_from().await;
        let mut word = [0; 4];
        tokio::io::AsyncReadExt::read_exact(&mut probe.stream, &mut word).await.unwrap();
        assert_eq!(&word, b"isro");
        probe.write(answer).await;
        probes.push(host);
    }
    let (host, mut peer) = listener.accept_from().await;
    assert_eq!(host, probes[2], "the one that said so");
    assert!(probes.contains(&first));
    // What a read-only server has handed out is not shown to others.
    assert_eq!(peer.connect_request().await.session_id, SessionId::NONE);
    peer.answer_connect(SessionId(0x77), T).await;
    zk.states().wait_for(|s| s.connected_session() == Some(SessionId(0x77))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_ensemble_is_followed() {
    let (builder, mut listener) = script();
    let zk = builder.track_ensemble(true).lazy().unwrap();
    let mut peer = listener.accept().await;
    peer.welcome(SESSION).await;
    let config = peer.expect(OpCode::GetData, "/zookeeper/config").await;
    let data = b"server.1=n1:2888:3888:participant;0.0.0.0:2181\nversion=1".as_slice();
    let stat = zk_client::Stat::default();
    peer.reply(&config, &zk_proto::Response::Data { data: Some(data), stat }).await;
    zk.connected().await.unwrap();
    peer.event(EventType::NodeDataChanged, "/zookeeper/config").await;
    let config = peer.expect(OpCode::GetData, "/zookeeper/config").await;
    let data = b"server.2=n2:2888:3888:participant;0.0.0.0:2182\nversion=2".as_slice();
    peer.reply(&config, &zk_proto::Response::Data { data: Some(data), stat }).await;
    let read = zk.get("/a").send();
    peer.serve().await;
    read.await.unwrap();
    drop(peer);
    assert_eq!(listener.accept_from().await.0.to_string(), "n2:2182");
}
