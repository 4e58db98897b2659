//! Order of requests and replies, back-pressure, timeouts of requests.

use std::time::Duration;

use tokio::time::sleep;
use zk_client::{Error, OpCode, Outcome, ServerCode, Stat};
use zk_proto::{ErrorCode, Response};

use crate::peer::{connect, connected, script, script_of};

#[tokio::test(start_paused = true)]
async fn requests_go_out_in_call_order_and_in_one_write() {
    let (zk, mut peer, _listener) = connected().await;
    let a = zk.set("/a", "1").send();
    let other = zk.clone();
    let b = other.get("/b").send();
    let c = zk.delete("/c").send();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let received = peer.serve().await;
        seen.push((received.xid, received.op, received.path()));
    }
    assert_eq!(
        seen,
        [
            (1, OpCode::SetData, "/a".to_owned()),
            (2, OpCode::GetData, "/b".to_owned()),
            (3, OpCode::Delete, "/c".to_owned())
        ]
    );
    // Awaited in another order, each gets its own reply.
    c.await.unwrap();
    assert_eq!(&b.await.unwrap().0[..], b"data");
    a.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_builder_is_sent_when_it_is_first_polled() {
    let (zk, mut peer, _listener) = connected().await;
    let late = zk.get("/late");
    let early = zk.get("/early").send();
    let server = async {
        assert_eq!(peer.serve().await.path(), "/early");
        assert_eq!(peer.serve().await.path(), "/late");
    };
    let (late, ()) = tokio::join!(late, server);
    late.unwrap();
    early.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_wrong_xid_ends_the_connection() {
    let (zk, mut peer, mut listener) = connected().await;
    let (a, b) = (zk.get("/a").send(), zk.get("/b").send());
    let (_, second) = (peer.next().await, peer.next().await);
    peer.answer(&second).await;
    for lost in [a.await, b.await] {
        let lost = lost.unwrap_err();
        assert!(matches!(lost, Error::ConnectionLoss { outcome: Outcome::Unknown, .. }), "{lost:?}");
        assert!(lost.is_retryable() && lost.may_have_been_applied());
    }
    peer.closed().await;
    let mut peer = listener.accept_again().await;
    let read = zk.get("/c").send();
    peer.serve().await;
    read.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_and_keeps_its_order() {
    let (builder, listener) = script();
    let (zk, mut peer, _listener) = connect(builder.max_in_flight(2), listener).await;
    let reads: Vec<_> = (0..5).map(|i| zk.get(&format!("/{i}")).send()).collect();
    assert!(matches!(zk.get("/x").try_send(), Err(Error::Overloaded)));
    let first = peer.expect(OpCode::GetData, "/0").await;
    let second = peer.expect(OpCode::GetData, "/1").await;
    assert!(peer.is_quiet(Duration::from_secs(1)).await, "two in flight are enough");
    // Dropped while it waits for its turn: taken back only if it was not sent by `send`.
    peer.answer(&first).await;
    peer.expect(OpCode::GetData, "/2").await;
    peer.answer(&second).await;
    let third = peer.expect(OpCode::GetData, "/3").await;
    assert_eq!(third.xid, 4);
    drop(reads);
}

#[tokio::test(start_paused = true)]
async fn bytes_in_flight_are_bounded_too() {
    let (zk, mut peer, _listener) = connected().await;
    let big = vec![0u8; 1_000_000];
    let writes: Vec<_> = (0..12).map(|_| zk.set("/big", big.clone()).send()).collect();
    let mut requests = Vec::new();
    while let Ok(request) = tokio::time::timeout(Duration::from_secs(1), peer.next()).await {
        requests.push(request);
    }
    assert_eq!(requests.len(), 9, "8 MiB and the one that goes over");
    for request in &requests {
        peer.answer(request).await;
    }
    for _ in 9..12 {
        peer.serve().await;
    }
    for write in writes {
        write.await.unwrap();
    }
    let too_long = zk.set("/big", vec![0u8; 1 << 20]).await.unwrap_err();
    assert!(matches!(too_long, Error::InvalidArgument(_)), "{too_long:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_not_written_is_known_not_to_be_sent() {
    // The first request fits, the second in part, the third not at all.
    let (builder, listener) = script_of("server:1", 150);
    let (zk, mut peer, mut listener) = connect(builder, listener).await;
    let first = zk.set("/a", vec![1; 60]).send();
    let second = zk.set("/b", vec![2; 200]).send();
    let third = zk.set("/c", vec![3; 10]).send();
    sleep(Duration::from_millis(1)).await;
    // Nothing was read, and nothing will be.
    let queued_later = zk.set("/d", "").send();
    drop(peer.stream);
    for (write, outcome) in [
        (first, Outcome::Unknown),
        (second, Outcome::Unknown),
        (third, Outcome::NotSent),
        (queued_later, Outcome::NotSent),
    ] {
        let error = write.await.unwrap_err();
        let Error::ConnectionLoss { outcome: found, .. } = error else { panic!("{error:?}") };
        assert_eq!(found, outcome);
    }
    // What was enqueued on the lost connection is not sent on the next one.
    peer = listener.accept_again().await;
    assert!(peer.is_quiet(Duration::from_secs(1)).await);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_keeps_the_connection_and_drops_the_late_reply() {
    let (builder, listener) = script();
    let builder = builder.request_timeout(Duration::from_secs(1));
    let (zk, mut peer, _listener) = connect(builder, listener).await;
    let slow = zk.set("/slow", "").send();
    let request = peer.next().await;
    let error = slow.await.unwrap_err();
    assert!(matches!(error, Error::Timeout { outcome: Outcome::Unknown, .. }), "{error:?}");
    assert!(error.may_have_been_applied());
    let next = zk.get("/next").send();
    peer.answer(&request).await;
    peer.serve().await;
    assert_eq!(&next.await.unwrap().0[..], b"data");
}

#[tokio::test(start_paused = true)]
async fn a_timeout_takes_back_what_was_not_written() {
    let (builder, listener) = script_of("server:1", 200);
    let builder = builder.request_timeout(Duration::from_secs(1)).max_in_flight(1);
    let (zk, mut peer, _listener) = connect(builder, listener).await;
    let first = zk.get("/a").send();
    let parked = zk.set("/b", "").send();
    let request = peer.next().await;
    sleep(Duration::from_millis(1100)).await;
    let error = parked.await.unwrap_err();
    assert!(matches!(error, Error::Timeout { outcome: Outcome::NotSent, .. }), "{error:?}");
    peer.answer(&request).await;
    sleep(Duration::from_millis(1)).await;
    assert!(first.await.is_ok(), "an answer that is there counts, however late it is polled");
    assert!(peer.is_quiet(Duration::from_secs(1)).await);
}

#[tokio::test(start_paused = true)]
async fn linearizable_reads_follow_a_sync_in_one_flight() {
    let (zk, mut peer, _listener) = connected().await;
    let zk = zk.linearizable();
    let read = zk.get("/a").send();
    let sync = peer.expect(OpCode::Sync, "/a").await;
    let get = peer.expect(OpCode::GetData, "/a").await;
    peer.answer(&sync).await;
    peer.answer(&get).await;
    read.await.unwrap();
    let write = zk.set("/a", "").send();
    assert_eq!(peer.serve().await.op, OpCode::SetData);
    write.await.unwrap();
    // A sync that fails fails the read.
    let read = zk.get("/a").send();
    let sync = peer.next().await;
    let get = peer.next().await;
    peer.fail(&sync, ErrorCode::NOT_READ_ONLY).await;
    peer.answer(&get).await;
    assert_eq!(read.await.unwrap_err().code(), Some(ServerCode::NOT_READ_ONLY));
}

#[tokio::test(start_paused = true)]
async fn data_is_not_copied_and_null_reads_as_empty() {
    let (zk, mut peer, _listener) = connected().await;
    let (a, b) = (zk.get("/a").send(), zk.get("/b").send());
    let (first, second) = (peer.next().await, peer.next().await);
    let data = vec![9u8; 100_000];
    peer.reply(&first, &Response::Data { data: Some(&data), stat: Stat::default() }).await;
    peer.reply(&second, &Response::Data { data: None, stat: Stat::default() }).await;
    assert_eq!(a.await.unwrap().0, data);
    assert!(b.await.unwrap().0.is_empty());
}

/// Futures can be spawned, and errors can be passed around.
#[test]
fn what_must_be_send_is() {
    fn send<T: Send>(_: impl FnOnce(&'static zk_client::Client) -> T) {}
    fn all<T: Send + Sync + 'static>() {}
    send(|zk| zk.get("/").into_future());
    send(|zk| zk.get("/").watched());
    send(|zk| zk.create("/", "").protected().into_future());
    send(|zk| zk.create("/", "").protected().send());
    send(|zk| zk.delete("/").recursive().into_future());
    send(|zk| zk.exists("/").until_created());
    send(|zk| zk.multi().send());
    send(|zk| zk.watch("/").into_future());
    send(|zk| zk.walk("/"));
    send(|zk| zk.update("/", |n: Option<u32>| n));
    send(|zk| zk.clone().close());
    all::<zk_client::Client>();
    all::<zk_client::Error>();
    all::<zk_client::OneShot>();
    all::<zk_client::Watch>();
    all::<zk_client::SessionStates>();
    all::<zk_client::LeaseHold>();
    all::<zk_client::Cleaned>();
}
