//! Real sockets on the loopback address.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use bytes::Bytes;
use zk_proto::Zxid;

use super::*;
use crate::config::HostPort;
use crate::replica::Shared;
use crate::storage::{NodeStat, Replay, SnapshotSink};
use crate::tree::TreeLoader;
use crate::zab::wire::{QuorumPacket, kind};

const PATIENCE: Duration = Duration::from_secs(20);
const DIAL_MS: u64 = 5_000;

/// A server's connections, and what it is told of them.
struct Node {
    handle: PeerHandle,
    events: Receiver<PeerEvent>,
    // Dropped last: nobody listens to the events of the end.
    _net: PeerNet,
}

impl Node {
    fn new(options: PeerOptions) -> Node {
        let (to, events) = channel();
        let net = PeerNet::start(options, move |batch| {
            assert!(!batch.is_empty());
            batch.into_iter().for_each(|event| to.send(event).unwrap_or_default());
        })
        .unwrap();
        Node { handle: net.handle(), events, _net: net }
    }

    fn listen(&self, port: Port) -> HostPort {
        let address = self.handle.listen(port, (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        HostPort { host: "127.0.0.1".into(), port: address.port() }
    }

    /// The next event but [`PeerEvent::Drained`], which depends on the buffers of the system.
    fn next(&self) -> PeerEvent {
        loop {
            match self.events.recv_timeout(PATIENCE).expect("no event") {
                PeerEvent::Drained { .. } | PeerEvent::Heard { .. } => {}
                event => return event,
            }
        }
    }

    fn nothing_for(&self, ms: u64) {
        loop {
            match self.events.recv_timeout(Duration::from_millis(ms)) {
                Ok(PeerEvent::Drained { .. } | PeerEvent::Heard { .. }) => {}
                Err(RecvTimeoutError::Timeout) => return,
                other => panic!("{other:?}"),
            }
        }
    }

    fn dial(&self, port: Port, address: HostPort) -> PeerConn {
        self.handle.dial(7, port, vec![address], DIAL_MS);
        match self.next() {
            PeerEvent::Dialed { token: 7, result: Ok((conn, remote)) } => {
                assert_eq!(remote, Ipv4Addr::LOCALHOST);
                conn
            }
            other => panic!("{other:?}"),
        }
    }

    fn accepted(&self) -> PeerConn {
        match self.next() {
            PeerEvent::Accepted { conn, remote, .. } => {
                assert_eq!(remote, Ipv4Addr::LOCALHOST);
                conn
            }
            other => panic!("{other:?}"),
        }
    }

    fn send(&self, conn: PeerConn, bytes: impl Into<Vec<u8>>) {
        self.handle.send(conn, bytes.into());
        self.handle.flush();
    }

    /// The next `count` bytes of an election connection.
    fn bytes(&self, from: PeerConn, count: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < count {
            match self.next() {
                PeerEvent::Received { conn, bytes } if conn == from => all.extend(bytes),
                other => panic!("{other:?}"),
            }
        }
        all
    }

    /// The next `count` packets of a quorum connection.
    fn packets(&self, from: PeerConn, count: usize) -> Vec<QuorumPacket> {
        let mut all = Vec::new();
        while all.len() < count {
            match self.next() {
                PeerEvent::Packets { conn, packets } if conn == from => all.extend(packets),
                other => panic!("{other:?}"),
            }
        }
        all
    }

    fn closed(&self, which: PeerConn) -> String {
        match self.next() {
            PeerEvent::Closed { conn, reason } if conn == which => reason,
            other => panic!("{other:?}"),
        }
    }
}

/// Two nodes and the connection that the first has dialed: node, its end, node, its end.
fn pair(port: Port, options: &PeerOptions) -> (Node, PeerConn, Node, PeerConn) {
    let (dialer, acceptor) = (Node::new(options.clone()), Node::new(options.clone()));
    let dialed = dialer.dial(port, acceptor.listen(port));
    let accepted = acceptor.accepted();
    (dialer, dialed, acceptor, accepted)
}

fn packet(zxid: i64, data: &[u8]) -> QuorumPacket {
    QuorumPacket { data: Some(Bytes::copy_from_slice(data)), ..QuorumPacket::bare(5, zxid) }
}

fn encoded(packet: &QuorumPacket) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(&mut bytes);
    bytes
}

#[test]
fn bytes_and_packets_go_both_ways() {
    let (a, to_b, b, to_a) = pair(Port::Election, &PeerOptions::default());
    a.send(to_b, "vote for me");
    assert_eq!(b.bytes(to_a, 11), b"vote for me");
    b.send(to_a, "no");
    assert_eq!(a.bytes(to_b, 2), b"no");

    let (a, to_b, b, to_a) = pair(Port::Quorum, &PeerOptions::default());
    let packets: Vec<_> = (0..1000).map(|zxid| packet(zxid, &vec![1; zxid as usize])).collect();
    for packet in &packets {
        a.handle.send(to_b, encoded(packet));
        b.handle.send(to_a, encoded(packet));
    }
    b.nothing_for(30);
    a.handle.flush();
    assert_eq!(b.packets(to_a, 1000), packets);
    b.handle.flush();
    assert_eq!(a.packets(to_b, 1000), packets);
    assert_eq!((a.handle.backlog(to_b), b.handle.backlog(to_a)), (0, 0));
}

#[test]
fn a_peer_that_does_not_read_makes_a_backlog_and_gets_everything_later() {
    const CHUNK: usize = 256 << 10;
    const CHUNKS: usize = 128;
    let options = PeerOptions { backlog_bytes: 8 << 20, ..PeerOptions::default() };
    let (a, to_b, b, to_a) = pair(Port::Election, &options);
    b.handle.pause(to_a);
    for i in 0..CHUNKS {
        a.send(to_b, vec![i as u8; CHUNK]);
    }
    match a.next() {
        PeerEvent::Backlog { conn, bytes } => {
            assert_eq!(conn, to_b);
            assert!(bytes > 8 << 20, "{bytes}");
        }
        other => panic!("{other:?}"),
    }
    a.nothing_for(20);
    assert!(a.handle.backlog(to_b) > 8 << 20);
    b.nothing_for(20);
    b.handle.resume(to_a);
    let all = b.bytes(to_a, CHUNK * CHUNKS);
    assert!(all.chunks(CHUNK).enumerate().all(|(i, chunk)| chunk.iter().all(|byte| *byte == i as u8)));
    let drained = a.events.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(drained, PeerEvent::Drained { conn } if conn == to_b));
    assert_eq!(a.handle.backlog(to_b), 0);
    a.nothing_for(20);
}

#[test]
fn a_snapshot_keeps_its_place_and_waits_for_the_peer() {
    const BYTES: usize = 32 << 20;
    let node = Node::new(PeerOptions::default());
    let address = node.listen(Port::Quorum);
    let mut learner = TcpStream::connect((address.host.as_str(), address.port)).unwrap();
    let conn = node.accepted();
    node.handle.send(conn, b"before".to_vec());
    let (produced_to, produced) = channel();
    node.handle.stream_snapshot(conn, move |out| {
        let mut left = BYTES;
        while left > 0 {
            let step = left.min(100_000);
            out.write_all(&vec![0xaa; step])?;
            left -= step;
            let _ = produced_to.send(step);
        }
        Ok(())
    });
    node.handle.send(conn, b"behind".to_vec());
    node.handle.flush();
    // The learner reads nothing: the source gets no further than the buffers.
    node.nothing_for(300);
    assert!(produced.try_iter().sum::<usize>() < BYTES);
    node.handle.send(conn, b" and more".to_vec());
    node.handle.flush();

    let mut all = vec![0; 6 + BYTES + 15];
    learner.read_exact(&mut all).unwrap();
    assert!(all.starts_with(b"before") && all.ends_with(b"behind and more"));
    assert!(all[6..6 + BYTES].iter().all(|byte| *byte == 0xaa));
    assert!(matches!(node.next(), PeerEvent::SnapshotSent { conn: of } if of == conn));
    // An empty one has a place, too.
    node.handle.stream_snapshot(conn, |_| Ok(()));
    assert!(matches!(node.next(), PeerEvent::SnapshotSent { conn: of } if of == conn));
}

#[test]
fn a_tree_arrives_between_the_packets_around_it() {
    const NODES: usize = 20_000;
    let mut loader = TreeLoader::new(1);
    loader.session(5, 4000);
    for path in std::iter::once(String::new()).chain((0..NODES).map(|i| format!("/{i}"))) {
        loader.node(&path, Some(&[7; 1000]), -1, &NodeStat::default()).unwrap();
    }
    loader.snapshot_loaded(Zxid(77), None);
    let mut tree = loader.finish();
    let (pin, digest) = (tree.pin(), tree.digest());
    let shared = Arc::new(Shared::new(tree));

    let (learner, to_leader, leader, to_learner) = pair(Port::Quorum, &PeerOptions::default());
    let snap = QuorumPacket::bare(kind::SNAP, 77);
    let behind = [packet(78, b"x"), packet(79, b"y")];
    leader.handle.send(to_learner, encoded(&packet(1, b"before")));
    leader.handle.send(to_learner, encoded(&snap));
    leader.handle.stream_snapshot(to_learner, tree_source(shared, pin));
    behind.iter().for_each(|packet| leader.handle.send(to_learner, encoded(packet)));
    leader.handle.flush();

    assert_eq!(learner.packets(to_leader, 2), [packet(1, b"before"), snap]);
    match learner.next() {
        PeerEvent::SnapshotReceived { conn, zxid: Zxid(77), tree } => {
            assert_eq!(conn, to_leader);
            assert_eq!((tree.len(), tree.digest(), tree.last_zxid()), (NODES + 1, digest, Zxid(77)));
            assert_eq!(tree.sessions().collect::<Vec<_>>(), [(5, 4000)]);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(learner.packets(to_leader, 2), behind);
    assert!(matches!(leader.next(), PeerEvent::SnapshotSent { conn } if conn == to_learner));
}

#[test]
fn a_snapshot_that_cannot_be_made_closes_the_connection() {
    let failures: [fn(&mut dyn Write) -> std::io::Result<()>; 2] =
        [|_| Err(std::io::Error::other("the tree is gone")), |_| panic!("on purpose")];
    for failure in failures {
        let (a, to_b, b, to_a) = pair(Port::Quorum, &PeerOptions::default());
        b.handle.stream_snapshot(to_a, failure);
        assert!(b.closed(to_a).contains("snapshot"));
        a.closed(to_b);
    }
}

#[test]
fn the_source_of_a_snapshot_learns_that_the_connection_is_closed() {
    let (_a, _, b, to_a) = pair(Port::Quorum, &PeerOptions::default());
    let (result_to, result) = channel();
    b.handle.stream_snapshot(to_a, move |out| {
        let ended = loop {
            if let Err(error) = out.write_all(&[0; 4096]) {
                break error;
            }
        };
        let _ = result_to.send(ended.kind());
        Err(ended)
    });
    // Whatever is in the stream, no peer takes endless nodes: the other end may close as well.
    std::thread::sleep(Duration::from_millis(50));
    b.handle.close(to_a, "enough");
    assert_eq!(result.recv_timeout(PATIENCE).unwrap(), std::io::ErrorKind::BrokenPipe);
    b.closed(to_a);
    b.nothing_for(20);
}

#[test]
fn junk_closes_the_connection_behind_what_was_good() {
    let node = Node::new(PeerOptions::default());
    let address = node.listen(Port::Quorum);
    let mut peer = TcpStream::connect((address.host.as_str(), address.port)).unwrap();
    let conn = node.accepted();
    let good = packet(1, b"good");
    let mut bytes = encoded(&good);
    bytes.extend_from_slice(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    peer.write_all(&bytes).unwrap();
    assert_eq!(node.packets(conn, 1), [good]);
    assert!(!node.closed(conn).is_empty());
    assert!(matches!(peer.read(&mut [0; 8]), Ok(0) | Err(_)));

    // More than a packet may have.
    let options = PeerOptions {
        stream: StreamOptions { data_bytes_max: 100, ..StreamOptions::default() },
        ..PeerOptions::default()
    };
    let (a, to_b, b, to_a) = pair(Port::Quorum, &options);
    a.send(to_b, encoded(&packet(1, &[0; 101])));
    assert!(b.closed(to_a).contains("101"));
    a.closed(to_b);
}

#[test]
fn no_bytes_harm_anybody_else() {
    let (a, to_b, b, to_a) = pair(Port::Quorum, &PeerOptions::default());
    let mut addresses = [Port::Election, Port::Quorum].map(|port| (port, b.listen(port)));
    let mut random = fastrand::Rng::with_seed(3);
    for i in 0..200 {
        random.shuffle(&mut addresses);
        let (port, address) = &addresses[0];
        let mut peer = TcpStream::connect((address.host.as_str(), address.port)).unwrap();
        // Small bytes at first get further: they pass for types and lengths.
        let small = random.usize(..40);
        let len = random.usize(1..5_000);
        let junk: Vec<u8> =
            (0..len).map(|at| if at < small { random.u8(..2) } else { random.u8(..) }).collect();
        // The other end may close before it has read everything.
        let _ = peer.write_all(&junk);
        drop(peer);
        let conn = b.accepted();
        let mut arrived = Vec::new();
        loop {
            match b.next() {
                PeerEvent::Received { conn: of, bytes } if of == conn => arrived.extend(bytes),
                PeerEvent::Packets { conn: of, .. } if of == conn => {}
                PeerEvent::Closed { conn: of, .. } if of == conn => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(*port == Port::Quorum || arrived == junk);
        a.send(to_b, encoded(&packet(i, b"unharmed")));
        assert_eq!(b.packets(to_a, 1), [packet(i, b"unharmed")]);
    }
}

#[test]
fn who_uses_a_connection_can_reject_the_peer() {
    let (a, to_b, b, to_a) = pair(Port::Election, &PeerOptions::default());
    a.send(to_b, "I am server 9");
    b.bytes(to_a, 13);
    b.handle.reject(to_a, "server 9 is no member");
    assert_eq!(b.closed(to_a), "server 9 is no member");
    a.closed(to_b);
}

#[test]
fn what_each_thread_sends_arrives_in_its_order() {
    const THREADS: u64 = 4;
    const PACKETS: u64 = 3_000;
    let (a, to_b, b, to_a) = pair(Port::Quorum, &PeerOptions::default());
    for thread in 0..THREADS {
        let handle = a.handle.clone();
        std::thread::spawn(move || {
            let mut random = fastrand::Rng::with_seed(thread);
            for i in 0..PACKETS {
                let data = vec![0; random.usize(..4_000)];
                handle.send(to_b, encoded(&packet((thread * PACKETS + i) as i64, &data)));
                if random.bool() || i + 1 == PACKETS {
                    handle.flush();
                }
            }
        });
    }
    // The reader stops now and then, so that the sockets fill.
    let mut next = [0; THREADS as usize];
    let mut seen = 0;
    while seen < THREADS * PACKETS {
        let PeerEvent::Packets { packets, .. } = b.next() else { panic!() };
        for packet in packets {
            let thread = packet.zxid as u64 / PACKETS;
            assert_eq!(packet.zxid as u64 % PACKETS, next[thread as usize]);
            next[thread as usize] += 1;
            seen += 1;
            if seen % 1_000 == 0 {
                b.handle.pause(to_a);
                std::thread::sleep(Duration::from_millis(5));
                b.handle.resume(to_a);
            }
        }
    }
    assert_eq!(a.handle.backlog(to_b), 0);
}

#[test]
fn whoever_says_nothing_is_closed() {
    let options = PeerOptions { first_packet_ms: 300, ..PeerOptions::default() };
    let node = Node::new(options);
    for port in [Port::Election, Port::Quorum] {
        let address = node.listen(port);
        let connect = || TcpStream::connect((address.host.as_str(), address.port)).unwrap();
        let _silent = connect();
        let silent = node.accepted();
        assert_eq!(node.closed(silent), "says nothing");

        let mut talker = connect();
        let heard = node.accepted();
        talker.write_all(&encoded(&QuorumPacket::bare(5, 1))).unwrap();
        match (port, node.next()) {
            (Port::Election, PeerEvent::Received { .. }) | (Port::Quorum, PeerEvent::Packets { .. }) => {}
            other => panic!("{other:?}"),
        }
        node.nothing_for(450);
        drop(talker);
        assert_eq!(node.closed(heard), "closed by the peer");
    }
    // Half a packet is none.
    let address = node.listen(Port::Quorum);
    let mut half = TcpStream::connect((address.host.as_str(), address.port)).unwrap();
    let conn = node.accepted();
    half.write_all(&[0; 10]).unwrap();
    assert_eq!(node.closed(conn), "says nothing");
}

#[test]
fn a_dial_takes_the_first_address_that_answers_or_tells_what_failed() {
    let (a, b) = (Node::new(PeerOptions::default()), Node::new(PeerOptions::default()));
    let failed = |addresses: Vec<HostPort>| {
        a.handle.dial(1, Port::Election, addresses, DIAL_MS);
        match a.next() {
            PeerEvent::Dialed { token: 1, result: Err(reason) } => reason,
            other => panic!("{other:?}"),
        }
    };
    let host = |host: &str, port| HostPort { host: host.into(), port };
    // A port that was free a moment ago.
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    assert_eq!(failed(vec![]), "no address is known");
    assert!(failed(vec![host("127.0.0.1", free)]).contains(&format!("127.0.0.1:{free}")));
    let reason = failed(vec![host("no\0name", 1), host("127.0.0.1", free)]);
    assert!(reason.contains("no\0name:1") && reason.contains(&free.to_string()), "{reason}");

    let there = b.listen(Port::Election);
    a.handle.dial(2, Port::Election, vec![host("127.0.0.1", free), host("localhost", there.port)], DIAL_MS);
    let PeerEvent::Dialed { token: 2, result: Ok((conn, _)) } = a.next() else { panic!() };
    let accepted = b.accepted();
    a.send(conn, "here");
    assert_eq!(b.bytes(accepted, 4), b"here");
}

#[test]
fn more_dials_than_threads_wait_for_their_turn() {
    let (a, b) = (Node::new(PeerOptions::default()), Node::new(PeerOptions::default()));
    let there = b.listen(Port::Election);
    (0..120).for_each(|token| a.handle.dial(token, Port::Election, vec![there.clone()], DIAL_MS));
    let mut tokens = BTreeSet::new();
    for _ in 0..120 {
        let PeerEvent::Dialed { token, result: Ok(_) } = a.next() else { panic!() };
        tokens.insert(token);
    }
    assert_eq!(tokens.len(), 120);
}

#[test]
fn each_connection_is_closed_once_whoever_closes_it() {
    let (a, to_b, b, to_a) = pair(Port::Election, &PeerOptions::default());
    a.handle.close(to_b, "the other one stays");
    a.handle.close(to_b, "again");
    assert_eq!(a.closed(to_b), "the other one stays");
    assert_eq!(b.closed(to_a), "closed by the peer");
    a.send(to_b, "nobody hears this");
    a.handle.close(to_b, "once more");
    a.handle.close_after_flush(to_b);
    a.handle.stream_snapshot(to_b, |_| panic!("there is nobody to send it to"));
    assert_eq!(a.handle.backlog(to_b), 0);
    a.nothing_for(50);
    b.nothing_for(1);
}

#[test]
fn closing_after_a_flush_loses_nothing() {
    const BYTES: usize = 16 << 20;
    let (a, to_b, b, to_a) = pair(Port::Election, &PeerOptions::default());
    b.handle.pause(to_a);
    b.send(to_a, "never looked at");
    a.bytes(to_b, 15);
    a.handle.send(to_b, vec![9; BYTES]);
    a.handle.close_after_flush(to_b);
    a.send(to_b, "too late");
    b.send(to_a, "thrown away");
    b.handle.resume(to_a);
    assert_eq!(b.bytes(to_a, BYTES).len(), BYTES);
    assert_eq!(b.closed(to_a), "closed by the peer");
    assert_eq!(a.closed(to_b), "closed by the peer");
    a.nothing_for(20);

    // A peer that does not close is not waited for for ever.
    let node = Node::new(PeerOptions::default());
    let address = node.listen(Port::Election);
    let mut peer = TcpStream::connect((address.host.as_str(), address.port)).unwrap();
    let conn = node.accepted();
    node.handle.send(conn, b"bye".to_vec());
    node.handle.close_after_flush(conn);
    let mut all = String::new();
    peer.read_to_string(&mut all).unwrap();
    assert_eq!(all, "bye");
    assert_eq!(node.closed(conn), "closed after the last byte");
}

#[test]
fn many_connections_at_once() {
    const COUNT: usize = 200;
    let options = PeerOptions { connections_per_address_max: COUNT, ..PeerOptions::default() };
    let (a, b) = (Node::new(options.clone()), Node::new(options));
    let there = b.listen(Port::Quorum);
    let mut mine = Vec::new();
    let mut theirs = Vec::new();
    for _ in 0..COUNT {
        mine.push(a.dial(Port::Quorum, there.clone()));
        theirs.push(b.accepted());
    }
    for round in 0..10 {
        for conn in &mine {
            (0..10).for_each(|i| a.handle.send(*conn, encoded(&packet(round * 10 + i, b"x"))));
        }
        a.handle.flush();
        let mut seen = 0;
        while seen < COUNT * 10 {
            let PeerEvent::Packets { conn, packets } = b.next() else { panic!() };
            seen += packets.len();
            for packet in packets {
                b.handle.send(conn, encoded(&packet));
            }
            b.handle.flush();
        }
        let mut back = 0;
        while back < COUNT * 10 {
            let PeerEvent::Packets { packets, .. } = a.next() else { panic!() };
            back += packets.len();
        }
    }
    // One more is too many, until one is gone.
    let refused = TcpStream::connect((there.host.as_str(), there.port)).unwrap();
    refused.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(matches!((&refused).read(&mut [0; 1]), Ok(0) | Err(_)));
    b.nothing_for(20);
    a.handle.close(mine[0], "");
    b.closed(theirs[0]);
    a.closed(mine[0]);
    a.dial(Port::Quorum, there);
    b.accepted();
}

#[test]
fn an_address_is_free_when_nobody_listens_any_more() {
    let node = Node::new(PeerOptions::default());
    let address = node.handle.listen(Port::Quorum, (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    assert!(node.handle.listen(Port::Quorum, address).is_err(), "in use");
    let election = node.listen(Port::Election);
    let kept = TcpStream::connect(address).unwrap();
    let conn = node.accepted();
    node.handle.unlisten(Port::Quorum);
    assert!(TcpStream::connect(address).is_err());
    (&kept).write_all(&encoded(&QuorumPacket::bare(5, 1))).unwrap();
    node.packets(conn, 1);
    assert_eq!(node.handle.listen(Port::Quorum, address).unwrap(), address);
    TcpStream::connect((election.host.as_str(), election.port)).unwrap();
    node.accepted();
}

#[test]
fn nothing_happens_after_a_shutdown() {
    let (to, events) = channel();
    let net =
        PeerNet::start(PeerOptions::default(), move |batch| to.send(batch).unwrap_or_default()).unwrap();
    let handle = net.handle();
    let address = handle.listen(Port::Election, (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let mut peer = TcpStream::connect(address).unwrap();
    let accepted = events.recv_timeout(PATIENCE).unwrap();
    let [PeerEvent::Accepted { conn, .. }] = accepted[..] else { panic!() };
    net.shutdown();
    assert!(matches!(peer.read(&mut [0; 1]), Ok(0) | Err(_)));
    assert!(TcpStream::connect(address).is_err());
    assert!(handle.listen(Port::Election, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).is_err());
    handle.send(conn, vec![1]);
    handle.flush();
    handle.dial(1, Port::Election, vec![], 1);
    assert!(events.recv_timeout(PATIENCE).is_err(), "the callback is gone");
}
