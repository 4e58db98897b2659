//! Traps of sessions.

use std::time::{Duration, Instant};

use zk_proto::{OpCode, Request, Zxid};
use zk_tests::server::{TestServer, is_external};
use zk_tests::wire::{PATIENCE, Session, create};

fn server() -> TestServer {
    TestServer::start(&[])
}

/// Apache closes the owner's connection before it looks at the password. Here nobody who does not know it can
/// disturb a session.
#[test]
fn trap_40_a_wrong_password_touches_neither_the_session_nor_its_connection() {
    let server = server();
    let mut session = Session::open(server.addr());
    assert_eq!(session.create("/t40", b"", 1).err(), 0);
    let mut wrong = session.passwd.clone();
    wrong[7] ^= 1;
    for passwd in [&wrong[..], &[0; 16], &[], &session.passwd[..15]] {
        assert!(Session::attach(server.addr(), session.id, passwd, Zxid::ZERO).is_none());
    }
    if is_external() {
        session.wire.assert_closed();
        session = session.reattach();
    }
    assert_eq!(session.exists("/t40", false).stat().ephemeral_owner, session.id.0);
    session.close();
}

#[test]
fn trap_44_ephemerals_vanish_with_the_transaction_that_closes_their_session() {
    let server = server();
    let (mut owner, mut other) = (Session::open(server.addr()), Session::open(server.addr()));
    let paths = ["/t44-a", "/t44-b"];
    for path in paths {
        assert_eq!(owner.create(path, b"", 1).err(), 0);
        assert_eq!(other.exists(path, true).err(), 0);
    }
    let closed = owner.call(&Request::CloseSession).header.zxid;
    owner.wire.assert_closed();
    other.call(&Request::Sync { path: None });
    for path in paths {
        assert_eq!(other.exists(path, false).err(), -101);
    }
    // Both were deleted by the one transaction.
    let mut events: Vec<_> = other.events.drain(..).map(|e| (e.path, e.zxid)).collect();
    events.sort();
    assert_eq!(events, paths.map(|path| (path.to_owned(), closed.0)));
}

#[test]
fn trap_44_an_expired_session_loses_its_ephemerals_and_its_connection() {
    let server = server();
    let mut owner = Session::open_with_timeout(server.addr(), 1);
    assert_eq!(owner.create("/t44-x", b"", 1).err(), 0);
    let mut other = Session::open(server.addr());
    assert_eq!(other.exists("/t44-x", true).err(), 0);
    let start = Instant::now();
    while other.exists("/t44-x", false).err() == 0 {
        assert!(start.elapsed() < PATIENCE, "it never expired");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(other.take_events().len(), 1);
    owner.wire.assert_closed();
    assert!(Session::attach(server.addr(), owner.id, &owner.passwd, Zxid::ZERO).is_none());
}

#[test]
fn trap_47_no_ephemeral_outlives_a_session_that_was_closing_when_it_was_created() {
    let server = server();
    let mut other = Session::open(server.addr());
    for _ in 0..20 {
        let mut session = Session::open(server.addr());
        session.send(&create("/t47-before", b"", 1));
        session.send(&Request::CloseSession);
        session.send(&create("/t47-behind", b"", 1));
        assert_eq!(session.reply().err(), 0);
        let closed = session.reply();
        assert_eq!((closed.op, closed.err()), (OpCode::CloseSession, 0));
        // The create behind it is refused or dropped, never executed.
        while let Some(reply) = session.try_reply() {
            assert_eq!(reply.err(), -112);
        }
        other.call(&Request::Sync { path: None });
        assert_eq!(other.exists("/t47-before", false).err(), -101);
        assert_eq!(other.exists("/t47-behind", false).err(), -101);
    }
}
