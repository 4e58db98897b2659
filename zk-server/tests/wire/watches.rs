use zk_proto::{Acl, CreateRequest, ErrorCode, EventType, OpCode, Perms, Request};

use crate::client::{Wire, add_watch, create, delete, eventually, get, set, word};
use crate::server;

#[test]
fn the_event_comes_before_the_reply_to_ones_own_write() {
    let server = server();
    let mut wire = Wire::connect(&server);
    wire.ok(&create("/n", b"", 0));
    wire.ok(&get("/n", true));
    let xid = wire.ask(&set("/n", b"1"));
    let event = wire.reply();
    assert_eq!(event.event(), (EventType::NodeDataChanged, "/n".into()));
    let reply = wire.reply();
    assert_eq!(reply.xid, xid);
    assert_eq!(event.zxid, reply.zxid, "the event carries the zxid of its cause");
}

/// The reader polls as fast as it can: whenever it sees the new data, the event must have been there.
#[test]
fn nobody_sees_new_data_before_the_event() {
    let server = server();
    let mut writer = Wire::connect(&server);
    writer.ok(&create("/n", b"0", 0));
    let mut readers: Vec<_> = (0..4).map(|_| Wire::connect(&server)).collect();
    let rounds = 100;
    std::thread::scope(|scope| {
        for reader in &mut readers {
            reader
                .ok(&Request::AddWatch { path: Some("/n".into()), mode: zk_proto::AddWatchMode::Persistent });
            scope.spawn(move || {
                let mut events = 0;
                loop {
                    reader.ask_all(&[get("/n", false), get("/n", false)]);
                    let mut replies = 0;
                    while replies < 2 {
                        let reply = reader.reply();
                        if reply.xid == -1 {
                            events += 1;
                            continue;
                        }
                        replies += 1;
                        let seen: usize = String::from_utf8(reply.data()).unwrap().parse().unwrap();
                        assert!(events >= seen, "saw {seen} after {events} events");
                        if seen == rounds {
                            return;
                        }
                    }
                }
            });
        }
        for i in 1..=rounds {
            writer.ok(&set("/n", i.to_string().as_bytes()));
        }
    });
}

/// Many watchers are told a few at a time: the order must hold for each of them all the same.
#[test]
fn a_fan_out_reaches_everybody_once_and_in_order() {
    let server = server();
    let mut writer = Wire::connect(&server);
    writer.ok(&create("/n", b"0", 0));
    let mut watchers: Vec<_> = (0..300).map(|_| Wire::connect(&server)).collect();
    for watcher in &mut watchers {
        watcher.ok(&add_watch("/"));
    }
    let rounds = 20_i32;
    let requests: Vec<_> =
        (0..rounds).flat_map(|_| [create("/m", b"", 0), set("/n", b"x"), delete("/m")]).collect();
    writer.ask_all(&requests);
    // Some of them ask meanwhile: their replies must not overtake their events.
    for watcher in watchers.iter_mut().step_by(7) {
        watcher.ask(&get("/n", false));
    }
    requests.iter().for_each(|_| assert_eq!(writer.reply().err, ErrorCode::OK));
    for (i, watcher) in watchers.iter_mut().enumerate() {
        let mut last_zxid = 0;
        let mut seen = Vec::new();
        let mut owed = usize::from(i % 7 == 0);
        while seen.len() < requests.len() || owed > 0 {
            let frame = watcher.reply();
            assert!(frame.zxid >= last_zxid, "{} after {last_zxid}", frame.zxid);
            last_zxid = frame.zxid;
            if frame.xid == -1 {
                seen.push(frame.event());
            } else {
                owed -= 1;
            }
        }
        for round in seen.chunks(3) {
            let expected = [
                (EventType::NodeCreated, "/m".to_string()),
                (EventType::NodeDataChanged, "/n".to_string()),
                (EventType::NodeDeleted, "/m".to_string()),
            ];
            assert_eq!(round, expected);
        }
        // Nothing but the answer comes.
        watcher.ping();
    }
}

#[test]
fn events_of_nodes_that_may_not_be_read_are_not_told() {
    let server = server();
    let mut owner = Wire::connect(&server);
    assert_eq!(owner.add_auth("digest", b"owner:pw").err, ErrorCode::OK);
    let mut stranger = Wire::connect(&server);
    for wire in [&mut owner, &mut stranger] {
        wire.ok(&add_watch("/"));
    }
    owner.ask(&Request::Create(CreateRequest {
        op: OpCode::Create,
        path: "/secret".into(),
        data: None,
        acl: Some(vec![Acl::new(Perms::ALL, "auth", "")]),
        flags: 0,
        ttl_ms: 0,
    }));
    assert_eq!(owner.reply().event(), (EventType::NodeCreated, "/secret".into()));
    assert_eq!(owner.reply().err, ErrorCode::OK);
    assert!(stranger.is_silent());
}

#[test]
fn watches_end_with_their_connection() {
    let server = server();
    let mut wire = Wire::connect(&server);
    wire.ok(&create("/n", b"", 0));
    wire.ok(&get("/n", true));
    assert_eq!(word(&server, "wchs"), "1 connections watching 1 paths\nTotal watches:1\n");
    // A watch that is armed behind a write, on a connection that goes away at once.
    wire.ask_all(&[set("/n", b""), get("/n", true)]);
    drop(wire);
    eventually("no watches", || word(&server, "wchs").starts_with("0 connections"));
}

#[test]
fn watches_are_told_by_session_and_by_path() {
    let server = server();
    let mut wire = Wire::connect(&server);
    wire.ok(&get("/zookeeper", true));
    let id = format!("0x{:x}", wire.session.0);
    assert_eq!(word(&server, "wchc"), format!("{id}\n\t/zookeeper\n\n"));
    assert_eq!(word(&server, "wchp"), format!("/zookeeper\n\t{id}\n\n"));
}
