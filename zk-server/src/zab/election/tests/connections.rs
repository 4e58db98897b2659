//! Which connections survive, and what bad peers achieve: nothing.

use std::net::IpAddr;

use super::*;
use crate::config::HostPort;
use crate::zab::PeerConn;
use crate::zab::election::{CloseReason, ConnOptions, ConnOutput, ConnTable};
use crate::zab::wire::{Hello, HelloForm, WireError};

const MEMBER: &str = "127.0.0.1";

fn table(me: i64, ensemble: &Arc<Ensemble>) -> ConnTable {
    let addresses = vec![address(&format!("127.0.0.{me}:3888"))];
    let options = ConnOptions { me: ServerId(me), addresses, multi_address: false, hello_timeout_ms: 5000 };
    let mut table = ConnTable::new(options);
    table.set_ensembles(ensemble.clone(), None, &mut Vec::new());
    table
}

fn address(text: &str) -> HostPort {
    HostPort::parse(text).expect("an address")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an IP address")
}

fn hello(server: i64, at: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    Hello { server: ServerId(server), form: HelloForm::V1, addresses: vec![address(at)] }.encode(&mut bytes);
    bytes
}

fn frame(n: &Notification) -> Vec<u8> {
    let mut bytes = Vec::new();
    n.encode(&mut bytes);
    bytes
}

/// Calls the table and returns what it wants, in a line: `dial 1; write 7 hello; close 7 TheyDial(..)`.
fn run(table: &mut ConnTable, action: impl FnOnce(&mut ConnTable, &mut Vec<ConnOutput>)) -> String {
    let mut out = Vec::new();
    action(table, &mut out);
    let one = |output: &ConnOutput| match output {
        ConnOutput::Dial { to, address: None } => format!("dial {to}"),
        ConnOutput::Dial { to, address: Some(address) } => format!("dial {to} at {address}"),
        ConnOutput::Write { conn, bytes } if bytes.starts_with(&[0xff; 6]) => {
            format!("write {} hello", conn.0)
        }
        ConnOutput::Write { conn, bytes } => {
            let n = Notification::decode(&bytes.slice(4..)).expect("a notification");
            format!("write {} {:?} {}", conn.0, n.state, n.leader)
        }
        ConnOutput::Close { conn, reason } => format!("close {} {reason:?}", conn.0),
        ConnOutput::Deliver { from, notification: n } => format!("from {from} {:?} {}", n.state, n.leader),
    };
    out.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn accept(table: &mut ConnTable, conn: u64, remote: &str, bytes: &[u8]) -> String {
    run(table, |t, out| {
        t.accepted(0, PeerConn(conn), ip(remote), out);
        t.received(PeerConn(conn), bytes, out);
    })
}

fn send(table: &mut ConnTable, to: i64, n: &Notification) -> String {
    run(table, |t, out| t.send(ServerId(to), n, out))
}

fn dialed(table: &mut ConnTable, conn: u64, to: i64) -> String {
    run(table, |t, out| t.dialed(PeerConn(conn), ServerId(to), ip(MEMBER), out))
}

fn written(table: &mut ConnTable, conn: u64) -> String {
    run(table, |t, out| t.written(PeerConn(conn), out))
}

#[test]
fn the_connection_that_the_larger_id_dials_survives() {
    let mut t = table(2, &ensemble(3, 0));
    // The smaller one is dialed and kept.
    assert_eq!(send(&mut t, 1, &looking(1, 2, 0, 0)), "dial 1");
    assert_eq!(dialed(&mut t, 10, 1), "write 10 hello");
    assert_eq!(written(&mut t, 10), "write 10 Looking 2");
    // The larger one closes after the hello and dials back.
    assert_eq!(send(&mut t, 3, &looking(1, 2, 0, 0)), "dial 3");
    assert_eq!(dialed(&mut t, 11, 3), "write 11 hello; close 11 TheyDial(ServerId(3))");
    assert_eq!(accept(&mut t, 12, MEMBER, &hello(3, "127.0.0.3:3888")), "write 12 Looking 2");
    assert_eq!(t.connected().collect::<Vec<_>>(), [ServerId(1), ServerId(3)]);
    // The smaller one dials: it is dialed back, and the connection that it does not have any more ends.
    assert_eq!(
        accept(&mut t, 13, MEMBER, &hello(1, "127.0.0.1:3888")),
        "close 13 WeDial(ServerId(1)); close 10 Replaced(ServerId(1)); dial 1"
    );
    // At most one dial at a time.
    assert_eq!(accept(&mut t, 14, MEMBER, &hello(1, "127.0.0.1:3888")), "close 14 WeDial(ServerId(1))");
    assert_eq!(dialed(&mut t, 15, 1), "write 15 hello");
    // The larger one comes again.
    assert_eq!(
        accept(&mut t, 16, MEMBER, &hello(3, "127.0.0.3:3888")),
        "close 12 Replaced(ServerId(3)); write 16 Looking 2",
        "what was said last is said again"
    );
}

#[test]
fn only_the_newest_message_waits() {
    let mut t = table(2, &ensemble(3, 0));
    assert_eq!(send(&mut t, 1, &looking(1, 1, 0, 0)), "dial 1");
    assert_eq!(send(&mut t, 1, &looking(1, 2, 0, 0)), "");
    dialed(&mut t, 10, 1);
    assert_eq!(send(&mut t, 1, &looking(1, 3, 0, 0)), "", "the hello is being written");
    assert_eq!(written(&mut t, 10), "write 10 Looking 3");
    assert_eq!(written(&mut t, 10), "");
}

#[test]
fn a_lost_message_is_repeated_until_the_search_is_over() {
    let mut t = table(2, &ensemble(3, 0));
    send(&mut t, 1, &looking(1, 2, 0, 0));
    dialed(&mut t, 10, 1);
    written(&mut t, 10);
    for (conn, repeated) in [(11, "write 11 Looking 2"), (12, "")] {
        t.closed(PeerConn(conn - 1));
        assert_eq!(
            accept(&mut t, 100 + conn, MEMBER, &hello(1, "127.0.0.1:3888")).matches("dial").count(),
            1
        );
        dialed(&mut t, conn, 1);
        assert_eq!(written(&mut t, conn), repeated);
        t.forget_votes();
    }
}

#[test]
fn bytes_may_come_in_any_pieces() {
    let mut bytes = hello(3, "127.0.0.3:3888");
    bytes.extend(frame(&looking(1, 3, 0, 0)));
    bytes.extend(frame(&following(1, 2, 0, 0)));
    for size in [1, 3, 50, 1000] {
        let mut t = table(2, &ensemble(3, 0));
        t.accepted(0, PeerConn(1), ip(MEMBER), &mut Vec::new());
        let pieces =
            bytes.chunks(size).map(|piece| run(&mut t, |t, out| t.received(PeerConn(1), piece, out)));
        let said: Vec<String> = pieces.filter(|said| !said.is_empty()).collect();
        assert_eq!(said.join("; "), "from 3 Looking 3; from 3 Following 2");
    }
}

#[test]
fn zookeeper_2164_an_unreachable_member_does_not_delay_others() {
    let mut t = table(3, &ensemble(3, 0));
    assert_eq!(send(&mut t, 1, &looking(1, 3, 0, 0)), "dial 1");
    assert_eq!(send(&mut t, 2, &looking(1, 3, 0, 0)), "dial 2");
    dialed(&mut t, 10, 2);
    assert_eq!(written(&mut t, 10), "write 10 Looking 3");
    assert_eq!(send(&mut t, 1, &looking(1, 3, 0, 0)), "", "still being dialed");
    t.dial_failed(ServerId(1));
    assert_eq!(send(&mut t, 1, &looking(1, 3, 0, 0)), "dial 1");
}

#[test]
fn zookeeper_3720_old_servers_understand_the_hello_unless_there_are_several_addresses() {
    let mut t = table(2, &ensemble(3, 0));
    let mut out = Vec::new();
    t.dialed(PeerConn(1), ServerId(1), ip(MEMBER), &mut out);
    let ConnOutput::Write { bytes, .. } = &out[0] else { panic!("{out:?}") };
    assert_eq!(bytes[..8], (-65536_i64).to_be_bytes());
}

#[test]
fn zookeeper_3769_a_malformed_notification_does_not_make_a_server_deaf() {
    let mut t = table(2, &ensemble(3, 0));
    accept(&mut t, 1, MEMBER, &hello(3, "127.0.0.3:3888"));
    let mut bytes = vec![0, 0, 0, 3, 1, 2, 3];
    let mut strange = frame(&looking(1, 3, 0, 0));
    strange[7] = 9;
    bytes.extend(strange);
    bytes.extend(frame(&looking(1, 3, 0, 0)));
    assert_eq!(run(&mut t, |t, out| t.received(PeerConn(1), &bytes, out)), "from 3 Looking 3");
    // A length that cannot be: only this connection ends.
    accept(&mut t, 2, MEMBER, &hello(3, "127.0.0.3:3888"));
    let said = run(&mut t, |t, out| t.received(PeerConn(2), &[0x7f, 0xff, 0xff, 0xff, 0], out));
    assert_eq!(said, "close 2 Malformed(FrameLength(2147483647))");
    assert_eq!(accept(&mut t, 3, MEMBER, &hello(3, "127.0.0.3:3888")), "");
}

#[test]
fn a_server_with_our_id_is_sent_away() {
    let mut t = table(2, &ensemble(3, 0));
    assert_eq!(accept(&mut t, 1, MEMBER, &hello(2, "127.0.0.2:3888")), "close 1 OwnId(ServerId(2))");
    let nobody = hello(i64::MAX, "127.0.0.2:3888");
    assert_eq!(accept(&mut t, 2, MEMBER, &nobody), format!("close 2 NoId(ServerId({}))", i64::MAX));
    assert_eq!(accept(&mut t, 3, MEMBER, &hello(-3, "127.0.0.2:3888")), "close 3 NoId(ServerId(-3))");
}

/// Apache's server dials whatever address the hello names, and tells it its vote.
#[test]
fn an_address_in_a_hello_is_dialed_only_if_it_is_configured_or_the_senders_own() {
    let cases = [
        // (server, where the hello says it is, where it comes from, what happens)
        (1, "127.0.0.1:3888", "10.9.9.9", "close 1 WeDial(ServerId(1)); dial 1"),
        (1, "10.1.1.1:99", "10.9.9.9", "close 1 WeDial(ServerId(1)); dial 1"),
        (1, "somewhere:99", "10.9.9.9", "close 1 WeDial(ServerId(1)); dial 1"),
        (1, "0.0.0.0:3888", "10.9.9.9", "close 1 WeDial(ServerId(1)); dial 1"),
        (1, "10.9.9.9:99", "10.9.9.9", "close 1 WeDial(ServerId(1)); dial 1 at 10.9.9.9:99"),
        (1, "10.9.9.9:99", "::ffff:10.9.9.9", "close 1 WeDial(ServerId(1)); dial 1 at 10.9.9.9:99"),
        (4, "10.1.1.1:99", "10.9.9.9", "close 1 NowhereToDial(ServerId(4))"),
        (4, "somewhere:99", "10.9.9.9", "close 1 NowhereToDial(ServerId(4))"),
        (4, "127.0.0.1:3888", "10.9.9.9", "close 1 NowhereToDial(ServerId(4))"),
        (4, "10.9.9.9:99", "10.9.9.9", "close 1 WeDial(ServerId(4)); dial 4 at 10.9.9.9:99"),
    ];
    for (server, says, from, happens) in cases {
        let mut t =
            table(5, &parsed("server.1=127.0.0.1:2888:3888\nserver.5=127.0.0.5:2888:3888\nversion=0"));
        assert_eq!(accept(&mut t, 1, from, &hello(server, says)), happens, "{server} {says} {from}");
    }
    // A very old server says only who it is.
    let mut t = table(3, &ensemble(3, 0));
    assert_eq!(accept(&mut t, 1, MEMBER, &1_i64.to_be_bytes()), "close 1 WeDial(ServerId(1)); dial 1");
}

#[test]
fn an_unlisted_server_is_answered_and_then_forgotten() {
    let mut t = table(3, &parsed("server.3=a:1:2\nserver.5=b:1:2\nversion=0"));
    assert_eq!(send(&mut t, 1, &looking(1, 3, 0, 0)), "", "it is nowhere");
    assert!(accept(&mut t, 1, MEMBER, &hello(1, "127.0.0.1:3888")).ends_with("dial 1 at 127.0.0.1:3888"));
    dialed(&mut t, 2, 1);
    written(&mut t, 2);
    assert_eq!(send(&mut t, 1, &looking(1, 3, 0, 0)), "write 2 Looking 3");
    t.closed(PeerConn(2));
    assert_eq!(send(&mut t, 1, &looking(1, 3, 0, 0)), "");
    assert_eq!(accept(&mut t, 4, MEMBER, &hello(9, "127.0.0.9:3888")), "");
    assert_eq!(send(&mut t, 9, &looking(1, 3, 0, 0)), "write 4 Looking 3");
}

#[test]
fn connections_are_bounded_and_members_are_not_crowded_out() {
    let mut t = table(2, &ensemble(3, 0));
    accept(&mut t, 1, MEMBER, &hello(3, "127.0.0.3:3888"));
    let mut closed = 0;
    for server in 0..1000 {
        let said = accept(&mut t, 10 + server, "10.0.0.1", &hello(100 + server.cast_signed(), "10.0.0.1:1"));
        closed += said.matches("Crowded").count();
    }
    assert_eq!(closed, 1000 - 16);
    for nameless in 0..1000 {
        closed += accept(&mut t, 2000 + nameless, "10.0.0.1", &[]).matches("Crowded").count();
    }
    assert_eq!(closed, 1000 - 16 + 1000 - 64);
    assert!(t.connected().any(|server| server == ServerId(3)));
    // Servers with a smaller id would be dialed back; that is bounded, too.
    let mut t = table(5000, &ensemble(3, 0));
    let dials = (100..1000).filter(|server| {
        accept(&mut t, *server, "10.0.0.1", &hello(server.cast_signed(), "10.0.0.1:1")).contains("dial")
    });
    assert_eq!(dials.count(), 16);
}

#[test]
fn who_says_nothing_is_sent_away_in_time() {
    let mut t = table(2, &ensemble(3, 0));
    accept(&mut t, 1, MEMBER, &[0xff, 0xff]);
    assert_eq!(t.next_deadline_ms(), Some(5000));
    assert_eq!(run(&mut t, |t, out| t.tick(4999, out)), "");
    assert_eq!(run(&mut t, |t, out| t.tick(5000, out)), "close 1 Silent");
    assert_eq!(t.next_deadline_ms(), None);
}

#[test]
fn a_server_that_moved_is_dialed_anew() {
    let mut t = table(3, &ensemble(3, 0));
    for (conn, server) in [(1, 1), (2, 2)] {
        send(&mut t, server, &looking(1, 3, 0, 0));
        dialed(&mut t, conn, server);
        written(&mut t, conn);
    }
    let moved = ensemble(3, 0).to_text().replace("server.2=127.0.0.2", "server.2=127.0.0.9");
    let said = run(&mut t, |t, out| t.set_ensembles(parsed(&moved), None, out));
    assert_eq!(said, "close 2 Moved(ServerId(2))");
    assert_eq!(send(&mut t, 2, &looking(1, 3, 0, 0)), "dial 2");
}

#[test]
fn a_hello_of_a_later_version_is_refused() {
    let mut t = table(2, &ensemble(3, 0));
    let said = accept(&mut t, 1, MEMBER, &(-65534_i64).to_be_bytes());
    assert_eq!(said, format!("close 1 {:?}", CloseReason::Malformed(WireError::HelloVersion(-65534))));
}

#[test]
fn no_bytes_make_it_panic_or_grow() {
    let mut rng = fastrand::Rng::with_seed(7);
    for round in 0..300_u64 {
        let mut t = table(2, &ensemble(3, 1));
        for conn in 0..20 {
            let mut bytes = match rng.u8(0..4) {
                0 => hello(rng.i64(-2..7), "10.0.0.1:5"),
                1 => hello(3, "127.0.0.3:3888"),
                2 => rng.i64(..).to_be_bytes().to_vec(),
                _ => Vec::new(),
            };
            for _ in 0..rng.usize(0..4) {
                bytes.extend(frame(&looking(rng.i64(..), rng.i64(..), rng.u32(..), 0)));
            }
            for _ in 0..rng.usize(0..4) {
                let at = rng.usize(0..=bytes.len());
                bytes.insert(at, rng.u8(..));
            }
            let mut out = Vec::new();
            t.accepted(round, PeerConn(conn), ip("10.0.0.1"), &mut out);
            for piece in bytes.chunks(rng.usize(1..60)) {
                t.received(PeerConn(conn), piece, &mut out);
            }
            t.tick(round, &mut out);
        }
        assert!(t.connected().count() <= 20);
    }
}
