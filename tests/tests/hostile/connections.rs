//! Attacks by connections and sessions.

use std::time::{Duration, Instant};

use zk_proto::{OpCode, Request, SessionId, Zxid};
use zk_tests::wire::{Session, Wire, connect_request, request_frame};

use crate::scene::{MIB, Scene, wait_until};

/// Short, so that the tests need not wait for the default of 10 s.
const SESSIONLESS: &str = "nio.sessionlessCnxnTimeout=500";
/// What a connection costs at most before it has a session.
const CONNECTION_BYTES_MAX: usize = 16 << 10;

#[test]
fn tcp_connections_that_never_send_a_byte() {
    const CONNECTIONS: usize = 300;
    let mut scene = Scene::new(&[SESSIONLESS]);
    scene.attack_begins();
    let mut wires: Vec<_> = (0..CONNECTIONS).map(|_| Wire::connect(scene.addr())).collect();
    assert!(scene.peak_growth() < CONNECTIONS * CONNECTION_BYTES_MAX, "{}", scene.peak_growth());
    wires.iter_mut().for_each(Wire::assert_closed);
    drop(wires);
    wait_until("the connections' memory", || scene.growth() < MIB);
    scene.finish();
}

#[test]
fn more_connections_from_one_address_than_allowed() {
    // The ordinary client is one of them.
    let scene = Scene::new(&["maxClientCnxns=10"]);
    let mut sessions: Vec<Session> = Vec::new();
    while sessions.len() < 9 {
        sessions.push(Session::open(scene.addr()));
    }
    for _ in 0..50 {
        Wire::connect(scene.addr()).assert_closed();
    }
    sessions.pop().expect("there are nine").close();
    // There is room again, as soon as the server has noticed.
    wait_until("room for one", || {
        let mut wire = Wire::connect(scene.addr());
        wire.send(&connect_request(10_000, SessionId::NONE, &[0; 16], Zxid::ZERO));
        wire.recv().is_some()
    });
    scene.finish();
}

#[test]
fn more_connections_than_allowed_in_total() {
    let scene = Scene::new(&["maxCnxns=10"]);
    let sessions: Vec<_> = (0..9).map(|_| Session::open(scene.addr())).collect();
    for _ in 0..50 {
        Wire::connect(scene.addr()).assert_closed();
    }
    drop(sessions);
    scene.finish();
}

#[test]
fn slowloris_connect_request_byte_by_byte() {
    let scene = Scene::new(&[SESSIONLESS]);
    let mut wire = Wire::connect(scene.addr());
    let request = connect_request(10_000, SessionId::NONE, &[0; 16], Zxid::ZERO);
    let start = Instant::now();
    wire.send_raw(&(request.len() as i32).to_be_bytes());
    for byte in request {
        // 45 bytes at this pace take longer than the connection may.
        wire.send_raw(&[byte]);
        std::thread::sleep(Duration::from_millis(60));
    }
    wire.assert_closed();
    assert!(start.elapsed() >= Duration::from_millis(500));
    scene.finish();
}

#[test]
fn slowloris_frame_byte_by_byte_does_not_keep_a_session() {
    let scene = Scene::new(&["tickTime=200"]);
    let mut session = Session::open_with_timeout(scene.addr(), 400);
    assert_eq!(session.create("/slow", b"", 1).err(), 0);
    let ping = request_frame(-2, OpCode::Ping as i32, b"");
    session.wire.send_raw(&(ping.len() as i32).to_be_bytes());
    for byte in &ping[..ping.len() - 1] {
        session.wire.send_raw(&[*byte]);
        std::thread::sleep(Duration::from_millis(150));
    }
    // A second of bytes, but no frame: the session has expired and its connection is closed.
    session.wire.assert_closed();
    let mut other = Session::open(scene.addr());
    assert_eq!(other.exists("/slow", false).err(), -101);
    scene.finish();
}

#[test]
fn whole_frames_keep_a_session() {
    let scene = Scene::new(&["tickTime=200"]);
    let mut session = Session::open_with_timeout(scene.addr(), 800);
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(session.call(&Request::Ping).err(), 0);
    }
    scene.finish();
}

#[test]
fn sessions_created_and_dropped() {
    const SESSIONS: usize = 2000;
    let mut scene = Scene::new(&["tickTime=200"]);
    // What the first of them make the server prepare is not counted.
    let drop_sessions = |count| {
        for _ in 0..count {
            drop(Session::open_with_timeout(scene.addr(), 1));
        }
    };
    drop_sessions(200);
    let addr = scene.addr();
    let sessions = || mntr(addr, "zk_global_sessions");
    wait_until("expiry", || sessions() <= 1);
    scene.attack_begins();
    for round in 0..SESSIONS / 200 {
        for _ in 0..200 {
            drop(Session::open_with_timeout(addr, 1));
        }
        assert!(sessions() <= 1 + 200 * (round as u64 + 1));
    }
    // 2 KiB each, if none expires meanwhile.
    assert!(scene.peak_growth() < SESSIONS * (2 << 10) + MIB, "{}", scene.peak_growth());
    wait_until("expiry", || sessions() <= 1);
    wait_until("the sessions' memory", || scene.growth() < MIB / 2);
    scene.finish();
}

/// A number that the server reports about itself.
fn mntr(server: std::net::SocketAddr, name: &str) -> u64 {
    let text = Wire::four_letter_word(server, "mntr");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
}
