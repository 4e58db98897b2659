use std::time::{Duration, Instant};

use zk_proto::{ErrorCode, Request};

use crate::client::{Wire, create, eventually, get};
use crate::server;

const EPHEMERAL: i32 = 1;

#[test]
fn a_silent_session_expires_and_its_connection_is_closed() {
    let server = server();
    let mut silent = Wire::connect_for(&server, 300);
    silent.ok(&create("/e", b"", EPHEMERAL));
    let begun = Instant::now();
    assert!(silent.frame().is_none(), "closed without a word");
    assert!(begun.elapsed() >= Duration::from_millis(250), "too early: {:?}", begun.elapsed());
    let mut other = Wire::connect(&server);
    assert_eq!(other.call(&get("/e", false)).err, ErrorCode::NO_NODE);
    assert!(silent.reattach(&server).is_none(), "it is gone for good");
}

#[test]
fn pings_keep_a_session() {
    let server = server();
    let mut wire = Wire::connect_for(&server, 300);
    wire.ok(&create("/e", b"", EPHEMERAL));
    for _ in 0..12 {
        std::thread::sleep(Duration::from_millis(80));
        wire.ping();
    }
    wire.ok(&get("/e", false));
}

#[test]
fn part_of_a_frame_is_no_sign_of_life() {
    let server = server();
    let mut wire = Wire::connect_for(&server, 400);
    for byte in [0, 0, 0, 8, 1, 1, 1] {
        wire.send(&[byte]);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(wire.frame().is_none());
}

#[test]
fn a_session_outlives_its_connection_and_can_be_continued() {
    // One I/O thread: a second one might drop its connections, the new one among them, a moment later.
    let server = zk_server::Server::builder().memory().io_threads(1).start().unwrap();
    let mut wire = Wire::connect_for(&server, 5_000);
    wire.ok(&create("/e", b"", EPHEMERAL));
    server.drop_connections();
    assert!(wire.frame().is_none());
    let mut wire = wire.reattach(&server).expect("the session lives");
    wire.ok(&get("/e", false));
    assert_eq!(wire.ok(&create("/f", b"", EPHEMERAL)).path(), "/f");
}

#[test]
fn a_session_that_moves_closes_its_old_connection() {
    let server = server();
    let mut old = Wire::connect_for(&server, 5_000);
    let mut new = old.reattach(&server).unwrap();
    assert!(old.frame().is_none());
    new.ok(&create("/e", b"", EPHEMERAL));
}

/// A slot is used again while the session of its former tenant still lives: the new tenant must not suffer when
/// that one expires.
#[test]
fn the_next_connection_does_not_inherit_a_session() {
    let server = zk_server::Server::builder()
        .memory()
        .io_threads(1)
        .tick_time(Duration::from_millis(50))
        .session_timeouts(Duration::from_millis(200), Duration::from_secs(20))
        .start()
        .unwrap();
    let mut first = Wire::connect_for(&server, 200);
    first.ok(&create("/e", b"", EPHEMERAL));
    drop(first);
    std::thread::sleep(Duration::from_millis(50));
    let mut tenants: Vec<_> = (0..3).map(|_| Wire::connect_for(&server, 20_000)).collect();
    eventually("the session expires", || tenants[0].call(&get("/e", false)).err == ErrorCode::NO_NODE);
    std::thread::sleep(Duration::from_millis(50));
    tenants.iter_mut().for_each(Wire::ping);
}

#[test]
fn closing_deletes_ephemerals_answers_and_closes() {
    let server = server();
    let mut wire = Wire::connect(&server);
    wire.ok(&create("/e", b"", EPHEMERAL));
    wire.ask_all(&[Request::CloseSession, create("/late", b"", 0)]);
    assert_eq!(wire.reply().err, ErrorCode::OK);
    assert!(wire.try_reply().is_none_or(|reply| reply.err == ErrorCode::SESSION_EXPIRED));
    let mut other = Wire::connect(&server);
    assert_eq!(other.call(&get("/e", false)).err, ErrorCode::NO_NODE);
    assert_eq!(other.call(&get("/late", false)).err, ErrorCode::NO_NODE, "never executed");
    assert!(wire.reattach(&server).is_none());
}

#[test]
fn a_session_can_be_expired_on_request() {
    let server = server();
    let mut wire = Wire::connect_for(&server, 20_000);
    wire.ok(&create("/e", b"", EPHEMERAL));
    server.expire_session(wire.session);
    assert!(wire.frame().is_none());
    assert!(wire.reattach(&server).is_none());
}

#[test]
fn a_paused_server_keeps_its_sessions() {
    let server = server();
    let mut wire = Wire::connect_for(&server, 300);
    server.pause();
    std::thread::sleep(Duration::from_millis(20));
    let xid = wire.ask(&create("/n", b"", 0));
    std::thread::sleep(Duration::from_millis(800));
    assert!(wire.is_silent());
    server.resume();
    assert_eq!(wire.reply().xid, xid);
    wire.ping();
}
