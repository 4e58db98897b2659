//! Chroot: what goes over the wire, and what comes back.

use zk_client::{EventKind, Mode, MultiResult, OpCode, Parents, Stat};
use zk_proto::{ErrorCode, EventType, Request, Response};

use crate::peer::{connect, script_of};

#[tokio::test(start_paused = true)]
async fn paths_are_mapped_both_ways() {
    let (builder, listener) = script_of("server:1/app", 1 << 16);
    let (zk, mut peer, _listener) = connect(builder, listener).await;
    let stat = Stat::default();

    let root = zk.exists("/").send();
    peer.expect(OpCode::Exists, "/app").await;
    drop(root);
    let created = zk.create("/n-", "").sequential().send();
    let request = peer.expect(OpCode::Create2, "/app/n-").await;
    // The reply to the exists above is still due.
    let first = peer_xid(request.xid - 1);
    peer.reply_raw(first, 1, ErrorCode::OK, |w| stat.encode(w)).await;
    peer.reply(&request, &Response::Create2 { path: "/app/n-0000000001".into(), stat }).await;
    assert_eq!(created.await.unwrap().path, "/n-0000000001");
    let bare = zk.create("/", "").sequential().send();
    let request = peer.expect(OpCode::Create2, "/app/").await;
    peer.reply(&request, &Response::Create2 { path: "/app/0000000002".into(), stat }).await;
    assert_eq!(bare.await.unwrap().path, "/0000000002");

    let multi = zk.multi().check("/", None).create("/m", "", Mode::Persistent).send();
    let request = peer.next().await;
    let Request::Multi(ops) = request.request() else { panic!("{request:?}") };
    assert!(matches!(&ops[0], zk_proto::MultiOp::Check { path, .. } if path == "/app"));
    let results =
        vec![zk_proto::MultiResult::Check, zk_proto::MultiResult::Create2 { path: "/app/m".into(), stat }];
    peer.reply(&request, &Response::Multi(results)).await;
    let results = multi.await.unwrap();
    assert!(matches!(&results[1], MultiResult::Created { path, .. } if path == "/m"));

    let ephemerals = tokio::spawn({
        let zk = zk.clone();
        async move { zk.ephemerals("").await }
    });
    let request = peer.expect(OpCode::GetEphemerals, "/app/").await;
    peer.reply(&request, &Response::Paths(vec!["/app/e".into()])).await;
    assert_eq!(ephemerals.await.unwrap().unwrap(), ["/e"]);
}

fn peer_xid(xid: i32) -> i32 {
    xid
}

#[tokio::test(start_paused = true)]
async fn events_are_mapped_by_whole_components() {
    let (builder, listener) = script_of("server:1/app", 1 << 16);
    let (zk, mut peer, _listener) = connect(builder, listener).await;
    let sub = zk.chroot("/sub").unwrap();
    let (tree, _) = tokio::join!(async { zk.watch("/").recursive().await }, peer.serve());
    let (subtree, request) = tokio::join!(async { sub.watch("/").recursive().await }, peer.serve());
    assert_eq!(request.path(), "/app/sub");
    let (mut tree, mut subtree) = (tree.unwrap(), subtree.unwrap());
    let (config, request) = tokio::join!(zk.config_watched(), peer.serve());
    assert_eq!(request.path(), "/zookeeper/config", "the chroot does not apply");
    peer.event(EventType::NodeCreated, "/app/sub/x").await;
    peer.event(EventType::NodeCreated, "/application").await;
    peer.event(EventType::NodeDataChanged, "/zookeeper/config").await;
    peer.event(EventType::NodeDeleted, "/app").await;
    assert_eq!(tree.next().await.unwrap().path, "/sub/x");
    assert_eq!(subtree.next().await.unwrap().path, "/x");
    let event = tree.next().await.unwrap();
    assert_eq!((event.kind, event.path.as_str()), (EventKind::Deleted, "/"));
    assert_eq!(config.unwrap().2.fired().await.path, "/zookeeper/config");
}

#[tokio::test(start_paused = true)]
async fn parents_are_created_down_to_the_chroot() {
    let (builder, listener) = script_of("server:1/app", 1 << 16);
    let (zk, mut peer, _listener) = connect(builder, listener).await;
    let create = zk.create("/a/b", "v").parents(Parents::Container).send();
    let server = async {
        for (op, path, answer) in [
            (OpCode::Create2, "/app/a/b", ErrorCode::NO_NODE),
            (OpCode::CreateContainer, "/app/a", ErrorCode::UNIMPLEMENTED),
            (OpCode::Create2, "/app/a", ErrorCode::NO_NODE),
            (OpCode::Create2, "/app", ErrorCode::NODE_EXISTS),
            (OpCode::Create2, "/app/a", ErrorCode::OK),
            (OpCode::Create2, "/app/a/b", ErrorCode::OK),
        ] {
            let request = peer.expect(op, path).await;
            match answer {
                ErrorCode::OK => peer.answer(&request).await,
                code => peer.fail(&request, code).await,
            }
        }
    };
    let (created, ()) = tokio::join!(create, server);
    assert_eq!(created.unwrap().path, "/a/b");
}
