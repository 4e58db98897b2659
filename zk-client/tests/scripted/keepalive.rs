//! Pings, silence, the passing of time without a connection, closing.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use zk_client::{Error, LeaseProof, OpCode, Outcome, RetryPolicy, SessionState};
use zk_proto::{ErrorCode, xid};

use crate::peer::{PASSWORD, SESSION, T, connect, connected, script, script_of};

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_pinged() {
    let (zk, mut peer, _listener) = connected().await;
    let start = Instant::now();
    for i in 1..=5 {
        let ping = peer.any().await;
        assert_eq!((ping.op, ping.xid, ping.len()), (OpCode::Ping, xid::PING, 8));
        assert_eq!(start.elapsed().as_secs(), (T / 3 * i).as_secs());
        peer.reply_raw(xid::PING, 0, ErrorCode::OK, |_| {}).await;
    }
    assert!(matches!(zk.state(), SessionState::Connected { generation: 1, .. }));
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_dropped_after_two_thirds() {
    let (zk, peer, mut listener) = connected().await;
    let start = Instant::now();
    let mut states = zk.states();
    let read = zk.get("/a").send();
    peer.closed().await;
    assert_eq!(start.elapsed().as_secs(), (T * 2 / 3).as_secs());
    let state = states.changed().await.unwrap();
    let SessionState::Suspended { lease_deadline, since } = state else { panic!("{state:?}") };
    assert!(since < lease_deadline && lease_deadline < start + T);
    assert!(matches!(read.await, Err(Error::ConnectionLoss { outcome: Outcome::Unknown, .. })));
    listener.accept_again().await;
}

#[tokio::test(start_paused = true)]
async fn states_follow_the_session() {
    let (zk, peer, mut listener) = connected().await;
    let mut states = zk.states();
    drop(peer);
    assert!(matches!(states.changed().await.unwrap(), SessionState::Suspended { .. }));
    // Nobody answers until the lease has run out.
    let expired = loop {
        tokio::select! {
            state = states.changed() => break state.unwrap(),
            peer = listener.accept() => drop(peer),
        }
    };
    assert_eq!(expired, SessionState::Expired { session: SESSION, confirmed: false });
    // The session lives after all.
    let _peer = listener.accept_again().await;
    let back = states.changed().await.unwrap();
    assert!(matches!(back, SessionState::Connected { session: SESSION, generation: 2, .. }), "{back:?}");
}

#[tokio::test(start_paused = true)]
async fn requests_wait_for_a_connection_no_longer_than_the_timeout() {
    let (zk, peer, mut listener) = connected().await;
    let mut states = zk.states();
    drop(peer);
    states.changed().await.unwrap();
    let start = Instant::now();
    let (first, second) = (zk.set("/a", "").send(), async {
        sleep(T / 2).await;
        zk.get("/b").await
    });
    let mut first = Box::pin(first);
    let mut second = Box::pin(second);
    let first = loop {
        tokio::select! {
            first = &mut first => break first,
            _ = &mut second => panic!("the later one fails later"),
            peer = listener.accept() => drop(peer),
        }
    };
    assert_eq!(start.elapsed().as_secs(), T.as_secs());
    assert!(matches!(first, Err(Error::ConnectionLoss { outcome: Outcome::NotSent, .. })));
    // The other one is still good.
    let server = async {
        let mut peer = listener.accept_again().await;
        assert_eq!(peer.serve().await.path(), "/b");
        peer
    };
    let (second, _peer) = tokio::join!(second, server);
    second.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_gets_its_share_of_the_time() {
    let (builder, mut listener) = script_of("a:1,b:2,c:3", 1024);
    let zk = builder.lazy().unwrap();
    let start = Instant::now();
    let mut hosts = Vec::new();
    for i in 0..3 {
        let (host, peer) = listener.accept_from().await;
        assert_eq!(start.elapsed().as_secs(), (T / 3 * i).as_secs());
        hosts.push(host.to_string());
        tokio::spawn(peer.closed());
    }
    hosts.sort();
    assert_eq!(hosts, ["a:1", "b:2", "c:3"], "each once before any twice");
    let mut peer = listener.accept().await;
    assert!(start.elapsed() > T, "after a round there is a pause");
    peer.welcome(SESSION).await;
    zk.connected().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_policy_with_an_end_ends_the_client() {
    let (builder, mut listener) = script();
    let zk = builder.reconnect(RetryPolicy::attempts(3)).lazy().unwrap();
    for _ in 0..3 {
        drop(listener.accept().await);
    }
    assert!(matches!(zk.connected().await, Err(Error::Closed)));
}

#[tokio::test(start_paused = true)]
async fn closing_waits_for_what_is_in_flight() {
    let (zk, mut peer, _listener) = connected().await;
    let write = zk.set("/a", "").send();
    let close = tokio::spawn(zk.clone().close());
    let request = peer.next().await;
    assert!(matches!(zk.get("/b").await, Err(Error::Closed)));
    let end = peer.next().await;
    assert_eq!(end.op, OpCode::CloseSession);
    peer.answer(&request).await;
    peer.answer(&end).await;
    write.await.unwrap();
    close.await.unwrap().unwrap();
    assert_eq!(zk.state(), SessionState::Closed);
    assert_eq!(zk.states().changed().await, None);
    peer.closed().await;
}

#[tokio::test(start_paused = true)]
async fn closing_without_a_server_gives_up_after_the_timeout() {
    let (zk, peer, mut listener) = connected().await;
    drop(peer);
    let accept = tokio::spawn(async move {
        loop {
            drop(listener.accept().await);
        }
    });
    sleep(Duration::from_millis(10)).await;
    let start = Instant::now();
    assert!(matches!(zk.close().await, Err(Error::Timeout { .. })));
    assert_eq!(start.elapsed().as_secs(), T.as_secs());
    accept.abort();
}

#[tokio::test(start_paused = true)]
async fn a_close_that_lost_its_answer_is_confirmed_by_the_next_connection() {
    let (zk, mut peer, mut listener) = connected().await;
    let close = tokio::spawn(zk.close());
    assert_eq!(peer.next().await.op, OpCode::CloseSession);
    drop(peer);
    let mut peer = listener.accept().await;
    assert_eq!(peer.connect_request().await.session_id, SESSION);
    peer.refuse().await;
    close.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_closes_the_session() {
    let (zk, mut peer, _listener) = connected().await;
    let clone = zk.clone();
    let pending = zk.get("/a").send();
    drop((zk, clone));
    let request = peer.next().await;
    assert_eq!(request.op, OpCode::GetData);
    assert!(peer.is_quiet(Duration::from_secs(1)).await, "a pending request is a handle");
    peer.answer(&request).await;
    pending.await.unwrap();
    assert_eq!(peer.serve().await.op, OpCode::CloseSession);
    peer.closed().await;
}

#[tokio::test(start_paused = true)]
async fn detaching_leaves_the_session_alone() {
    let (zk, mut peer, _listener) = connected().await;
    let read = zk.get("/a").send();
    let detach = tokio::spawn(zk.detach());
    peer.serve().await;
    read.await.unwrap();
    let ticket = detach.await.unwrap().unwrap();
    assert_eq!((ticket.id(), ticket.last_zxid(), ticket.timeout()), (SESSION, 101, T));
    let mut rest = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut peer.stream, &mut rest).await.unwrap();
    assert!(rest.is_empty(), "no closeSession");

    let (builder, mut listener) = script();
    let zk = builder.resume(ticket).lazy().unwrap();
    let mut peer = listener.accept().await;
    let asked = peer.connect_request().await;
    assert_eq!((asked.session_id, asked.last_zxid), (SESSION, 101));
    assert_eq!(asked.passwd, PASSWORD);
    peer.answer_connect(SESSION, T).await;
    assert_eq!(zk.connected().await.unwrap(), SESSION);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_future_of_a_close_does_not_stop_it() {
    let (zk, mut peer, _listener) = connected().await;
    let mut close = Box::pin(zk.clone().close());
    assert!(futures::poll!(&mut close).is_pending());
    drop(close);
    assert_eq!(peer.serve().await.op, OpCode::CloseSession);
    peer.closed().await;
    assert!(matches!(zk.get("/").await, Err(Error::Closed)));
}

#[tokio::test(start_paused = true)]
async fn held_leases_are_proven_by_writes() {
    let (zk, mut peer, _listener) = connected().await;
    let start = Instant::now();
    assert!(zk.lease_deadline() > start, "a new session is proven by its creation");
    let hold = zk.hold_lease("/held");
    let mut writes = Vec::new();
    for _ in 0..6 {
        let write = peer.serve().await;
        assert_eq!(write.op, OpCode::Multi);
        writes.push(start.elapsed().as_secs());
    }
    assert_eq!(writes, [0, 2, 4, 6, 8, 10], "a sixth of the timeout apart");
    sleep(Duration::from_millis(1)).await;
    // The write at 10 s proves the message at 6 s.
    let left = zk.lease_deadline() - Instant::now();
    assert!(left > T / 2 && left < T, "{left:?}");
    drop(hold);
    assert!(timeout(T / 4, peer.any()).await.is_err(), "no writes for nobody");
}

#[tokio::test(start_paused = true)]
async fn ping_proof_writes_nothing() {
    let (builder, listener) = script();
    let (zk, mut peer, _listener) = connect(builder.lease_proof(LeaseProof::Ping), listener).await;
    let _hold = zk.hold_lease("/held");
    let start = Instant::now();
    assert!(peer.is_quiet(T).await);
    assert!(zk.lease_deadline() > start + T, "answered pings are enough");
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_ping_is_not_repeated() {
    let (builder, listener) = script();
    let zk = builder.session_timeout(Duration::from_secs(60)).lazy().unwrap();
    let mut listener = listener;
    let mut peer = listener.accept().await;
    peer.connect_request().await;
    peer.answer_connect(SESSION, Duration::from_secs(60)).await;
    zk.connected().await.unwrap();
    let start = Instant::now();
    assert_eq!(peer.any().await.op, OpCode::Ping);
    assert_eq!(start.elapsed().as_secs(), 10);
    // Events are signs of life, and answer no ping.
    for _ in 0..5 {
        sleep(Duration::from_secs(15)).await;
        peer.event(zk_proto::EventType::NodeCreated, "/x").await;
    }
    assert!(timeout(Duration::from_secs(39), peer.any()).await.is_err());
    assert!(listener.is_quiet());
    listener.accept().await;
    assert_eq!(start.elapsed().as_secs(), 10 + 75 + 40);
}

#[tokio::test(start_paused = true)]
async fn closing_without_a_server_waits_quietly_for_it() {
    let (zk, peer, mut listener) = connected().await;
    let mut states = zk.states();
    zk.testing().pause_dialing(true);
    drop(peer);
    states.changed().await.unwrap();
    let cleaned = zk.delete("/a").in_background();
    let testing = zk.clone();
    let close = tokio::spawn(zk.close());
    // Past the half of the time that is for the deletions; a busy wait would never let it pass.
    sleep(T * 3 / 4).await;
    testing.testing().pause_dialing(false);
    let mut peer = listener.accept_again().await;
    let mut seen = vec![peer.serve().await.op, peer.serve().await.op];
    seen.sort_by_key(|op| *op as i32);
    assert_eq!(seen, [OpCode::CloseSession, OpCode::Delete]);
    close.await.unwrap().unwrap();
    cleaned.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_read_only_server_is_not_asked_to_delete() {
    let (builder, mut listener) = script();
    let zk = builder.read_only(true).lazy().unwrap();
    let mut peer = listener.accept().await;
    peer.connect_request().await;
    peer.answer_connect(SESSION, T).await;
    zk.connected().await.unwrap();
    let _cleaned = zk.delete("/a").in_background();
    let delete = peer.expect(OpCode::Delete, "/a").await;
    peer.fail(&delete, ErrorCode::THROTTLED_OP).await;
    drop(peer);
    let mut peer = listener.accept().await;
    peer.connect_request().await;
    peer.answer_connect_mode(SESSION, T, true).await;
    let quiet = async {
        let mut probes = 0;
        while probes < 5 {
            drop(listener.accept().await);
            probes += 1;
        }
    };
    tokio::select! {
        () = quiet => {}
        request = peer.next() => panic!("{request:?}"),
    }
}
