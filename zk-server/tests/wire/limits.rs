use std::time::Duration;

use zk_proto::{ErrorCode, OpCode, Request, xid};
use zk_server::Server;
use zk_server::config::{Config, Overrides};

use crate::client::{Wire, body, create, encode, eventually, get, set, word};
use crate::server;

fn config() -> Config {
    let (config, _) = Config::dev(std::path::Path::new("unused"), 0, &Overrides::default(), false).unwrap();
    config
}

#[test]
fn connections_per_address_are_limited() {
    let server =
        Server::builder().memory().config(Config { max_client_cnxns: Some(2), ..config() }).start().unwrap();
    let first = Wire::connect(&server);
    let _second = Wire::connect(&server);
    assert_eq!(Wire::tcp(&server).rest(), b"", "closed without a byte");
    drop(first);
    eventually("room for another", || word(&server, "ruok") == "imok");
}

#[test]
fn connections_in_total_are_limited() {
    let server =
        Server::builder().memory().config(Config { max_cnxns: Some(1), ..config() }).start().unwrap();
    let mut first = Wire::connect(&server);
    assert_eq!(Wire::tcp(&server).rest(), b"");
    first.ping();
}

#[test]
fn connections_without_a_session_are_dropped_also_when_they_dribble() {
    let server = Server::builder()
        .memory()
        .config(Config { sessionless_cnxn_timeout_ms: 400, ..config() })
        .start()
        .unwrap();
    let mut silent = Wire::tcp(&server);
    let mut slow = Wire::tcp(&server);
    let mut served = Wire::connect(&server);
    for _ in 0..4 {
        slow.send(&[0]);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(silent.rest(), b"");
    assert_eq!(slow.rest(), b"");
    served.ping();
}

#[test]
fn many_pipelined_requests_are_throttled_and_answered() {
    let server = Server::builder()
        .memory()
        .config(Config { global_outstanding_limit: 10, ..config() })
        .start()
        .unwrap();
    let mut wire = Wire::connect(&server);
    wire.ok(&create("/n", b"", 0));
    let count = 20_000;
    let mut bytes = Vec::new();
    for i in 0..count {
        let request = if i % 2 == 0 { set("/n", b"x") } else { get("/n", false) };
        bytes.extend(encode(i, request.op(), &body(&request)));
    }
    let mut sender = wire.socket.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || std::io::Write::write_all(&mut sender, &bytes).unwrap());
        for i in 0..count {
            let reply = wire.reply();
            assert_eq!((reply.xid, reply.err), (i, ErrorCode::OK));
        }
    });
}

/// A client that asks for 200 MB and does not read: the server stops reading from it, serves others, and goes on
/// when the client reads.
#[test]
fn a_slow_reader_holds_up_only_itself() {
    let server = server();
    let mut wire = Wire::connect_for(&server, 20_000);
    let data = vec![1; 1_000_000];
    wire.ok(&create("/big", &data, 0));
    let count = 200;
    let request = body(&get("/big", false));
    let bytes: Vec<u8> = (0..count).flat_map(|i| encode(i, OpCode::GetData, &request)).collect();
    wire.send(&bytes);
    let mut other = Wire::connect(&server);
    for _ in 0..100 {
        other.ok(&get("/big", false));
        other.ok(&set("/zookeeper/quota", b""));
    }
    for i in 0..count {
        let reply = wire.reply();
        assert_eq!((reply.xid, reply.data().len()), (i, data.len()));
    }
}

#[test]
fn a_slow_reader_behind_writes_is_bounded_too() {
    let server = server();
    let mut wire = Wire::connect_for(&server, 20_000);
    let data = vec![1; 500_000];
    wire.ok(&create("/big", &data, 0));
    wire.ok(&create("/n", b"", 0));
    let count = 300;
    let mut bytes = Vec::new();
    for i in 0..count {
        let request = if i % 50 == 0 { set("/n", b"x") } else { get("/big", false) };
        bytes.extend(encode(i, request.op(), &body(&request)));
    }
    wire.send(&bytes);
    std::thread::sleep(Duration::from_millis(100));
    Wire::connect(&server).ok(&get("/n", false));
    for i in 0..count {
        assert_eq!(wire.reply().xid, i);
    }
}

#[test]
fn a_thousand_connections_come_and_go() {
    let server = server();
    let mut wires: Vec<_> = (0..1000).map(|_| Wire::connect(&server)).collect();
    for wire in &mut wires {
        wire.send(&encode(xid::PING, OpCode::Ping, &[]));
    }
    for wire in &mut wires {
        assert_eq!(wire.reply().xid, xid::PING);
    }
    for wire in wires.iter_mut().take(500) {
        wire.ask(&Request::CloseSession);
    }
    drop(wires);
    eventually("all are gone", || word(&server, "srvr").contains("Connections: 1\n"));
    for _ in 0..100 {
        Wire::connect(&server).ping();
    }
}

#[test]
fn connect_requests_are_throttled() {
    let mut config = config();
    config.connection_throttle.tokens = Some(3);
    config.connection_throttle.fill_time_ms = 60_000;
    let server = Server::builder().memory().config(config).start().unwrap();
    let wires: Vec<_> = (0..3).map(|_| Wire::connect(&server)).collect();
    let mut refused = Wire::tcp(&server);
    let mut bytes = Vec::new();
    zk_proto::jute::frame(&mut bytes, |out| crate::client::new_session(1000).encode(out));
    refused.send(&bytes);
    assert_eq!(refused.rest(), b"", "closed without a reply");
    drop(wires);
}

#[test]
fn large_requests_share_a_bound() {
    let config =
        Config { large_request_threshold_bytes: Some(1_000), large_request_max_bytes: 500_000, ..config() };
    let server = Server::builder().memory().config(config).start().unwrap();
    let mut wire = Wire::connect(&server);
    wire.ok(&create("/n", b"", 0));
    let (fits, too_large) = (vec![0; 400_000], vec![0; 600_000]);
    for _ in 0..5 {
        wire.ok(&set("/n", &fits));
    }
    wire.ask(&set("/n", &too_large));
    assert!(wire.frame().is_none());
    wire.reattach(&server).expect("the session lives").ok(&set("/n", &fits));
}

#[test]
fn requests_that_waited_for_too_long_are_refused() {
    let mut config = config();
    config.request_throttle.throttled_op_wait_time_ms = Some(20);
    config.global_outstanding_limit = 1;
    let dir = tempfile::tempdir().unwrap();
    let server = Server::builder().config(config).data_dir(dir.path()).start().unwrap();
    let mut wire = Wire::connect(&server);
    wire.ok(&create("/n", b"", 0));
    let requests: Vec<_> = (0..2_000).map(|_| set("/n", b"x")).collect();
    let xids = wire.ask_all(&requests);
    let errors: Vec<_> = xids
        .iter()
        .map(|xid| {
            let reply = wire.reply();
            assert_eq!(reply.xid, *xid);
            reply.err
        })
        .collect();
    assert_eq!(errors[0], ErrorCode::OK);
    assert_eq!(errors.last(), Some(&ErrorCode::THROTTLED_OP));
    wire.ok(&set("/n", b"y"));
}

#[test]
fn requests_older_than_the_session_timeout_are_dropped_with_their_connection() {
    let mut config = Config { min_session_timeout_ms: 100, ..config() };
    config.request_throttle.max_requests = Some(1);
    config.request_throttle.stale_latency_check = true;
    let dir = tempfile::tempdir().unwrap();
    let server = Server::builder().config(config).data_dir(dir.path()).start().unwrap();
    let mut wire = Wire::connect_for(&server, 100);
    wire.ok(&create("/n", b"", 0));
    let count = 200_000;
    let request = body(&set("/n", b"x"));
    let bytes: Vec<u8> = (0..count).flat_map(|xid| encode(xid, OpCode::SetData, &request)).collect();
    let mut sender = wire.socket.try_clone().unwrap();
    let answered = std::thread::scope(|scope| {
        // Ends with an error when the server closes.
        scope.spawn(move || drop(std::io::Write::write_all(&mut sender, &bytes)));
        std::iter::from_fn(|| wire.frame()).take(count as usize).count()
    });
    assert!(answered < count as usize, "all of them were answered");
    assert!(word(&server, "mntr").contains("stale_requests_dropped\t1\n"));
}
