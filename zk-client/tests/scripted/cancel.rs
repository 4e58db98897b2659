//! Dropped futures.

use std::time::Duration;

use tokio::time::sleep;
use zk_client::OpCode;
use zk_proto::{ErrorCode, EventType};

use crate::peer::{connected, script};

#[tokio::test(start_paused = true)]
async fn dropped_before_it_is_polled_nothing_is_sent() {
    let (zk, mut peer, _listener) = connected().await;
    drop(zk.get("/a"));
    drop(zk.set("/a", "").into_future());
    assert!(peer.is_quiet(Duration::from_secs(1)).await);
}

#[tokio::test(start_paused = true)]
async fn dropped_before_it_is_written_it_is_taken_back_unless_sent() {
    let (zk, mut peer, _listener) = connected().await;
    // Polled once, dropped before the driver ran.
    let mut write = Box::pin(zk.set("/awaited", "").into_future());
    assert!(futures::poll!(&mut write).is_pending());
    let sent = zk.set("/sent", "").send();
    let kept = zk.get("/kept").send();
    drop((write, sent));
    assert_eq!(peer.serve().await.path(), "/sent");
    assert_eq!(peer.serve().await.path(), "/kept");
    kept.await.unwrap();
    assert!(peer.is_quiet(Duration::from_secs(1)).await);
}

#[tokio::test(start_paused = true)]
async fn dropped_while_suspended_it_is_taken_back() {
    let (zk, peer, mut listener) = connected().await;
    let mut states = zk.states();
    drop(peer);
    states.changed().await.unwrap();
    for _ in 0..3 {
        let mut write = Box::pin(zk.set("/a", "x").into_future());
        assert!(futures::poll!(&mut write).is_pending());
    }
    let linearizable = zk.linearizable();
    let mut read = Box::pin(linearizable.get("/b").into_future());
    assert!(futures::poll!(&mut read).is_pending());
    let kept = zk.get("/c").send();
    drop(read);
    let mut peer = listener.accept_again().await;
    assert_eq!(peer.serve().await.path(), "/c");
    kept.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_reply_of_a_dropped_request_is_dropped() {
    let (zk, mut peer, _listener) = connected().await;
    let first = zk.get("/a").send();
    let request = peer.next().await;
    drop(first);
    let second = zk.get("/b").send();
    peer.answer(&request).await;
    let request = peer.next().await;
    peer.fail(&request, ErrorCode::NO_NODE).await;
    assert!(second.await.unwrap_err().is_no_node(), "not the reply of the other one");
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_a_dropped_read_is_removed() {
    let (zk, mut peer, _listener) = connected().await;
    let mut read = Box::pin(zk.get("/a").watched());
    assert!(futures::poll!(&mut read).is_pending());
    let request = peer.next().await;
    drop(read);
    assert!(peer.is_quiet(Duration::from_secs(1)).await, "not before it is known to be set");
    peer.answer(&request).await;
    peer.expect(OpCode::RemoveWatches, "/a").await;
}

#[tokio::test(start_paused = true)]
async fn waiting_for_an_event_consumes_nothing_when_dropped() {
    let (zk, mut peer, _listener) = connected().await;
    let (shot, _) = tokio::join!(zk.get("/a").watched(), peer.serve());
    let mut shot = shot.unwrap().2;
    let (stream, _) = tokio::join!(async { zk.watch("/b").await }, peer.serve());
    let mut stream = stream.unwrap();
    for _ in 0..3 {
        tokio::select! {
            biased;
            _ = &mut shot => unreachable!(),
            _ = stream.next() => unreachable!(),
            () = sleep(Duration::from_millis(1)) => {}
        }
    }
    peer.event(EventType::NodeDataChanged, "/a").await;
    peer.event(EventType::NodeDataChanged, "/b").await;
    shot.fired().await;
    stream.next().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_parked_request_is_taken_back() {
    let (builder, listener) = script();
    let (zk, mut peer, _listener) = crate::peer::connect(builder.max_in_flight(1), listener).await;
    let first = zk.get("/a").send();
    let request = peer.next().await;
    let mut parked = Box::pin(zk.set("/b", "").into_future());
    assert!(futures::poll!(&mut parked).is_pending());
    let last = zk.get("/c").send();
    drop(parked);
    peer.answer(&request).await;
    assert_eq!(peer.serve().await.path(), "/c");
    first.await.unwrap();
    last.await.unwrap();
}
