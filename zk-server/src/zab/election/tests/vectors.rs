//! What Apache's servers said to each other in elections, replayed: this server in the place of either of them
//! says the same, byte by byte. Votes of servers that are not part of the recorded connection are added by hand.

use std::net::IpAddr;

use bytes::Bytes;

use super::*;
use crate::config::HostPort;
use crate::zab::PeerConn;
use crate::zab::election::{ConnOptions, ConnOutput, ConnTable};
use crate::zab::wire::Hello;

/// A recorded connection: (sent by the one that dialed, bytes), in order.
struct Conversation(Vec<(bool, Vec<u8>)>);

impl Conversation {
    fn load(name: &str) -> Conversation {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/quorum/conversations");
        let path = format!("{folder}/{name}.json");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let messages = json["messages"].as_array().expect("messages").iter();
        let known = messages.filter(|message| message["name"] != "QUORUMAUTH").map(|message| {
            let hex = message["hex"].as_str().expect("hex");
            let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
            let bytes = (0..hex.len()).step_by(2).map(byte).collect();
            (message["dir"] == "initiator->acceptor", bytes)
        });
        Conversation(known.collect())
    }

    /// Frame `n`, decoded.
    fn heard(&self, n: usize) -> Notification {
        Notification::decode(&Bytes::copy_from_slice(&self.0[n].1[4..])).expect("a notification")
    }

    /// A server of this ensemble, in its first search.
    fn scene(&self, me: i64) -> Scene {
        let n = self.0.iter().position(|(_, bytes)| bytes.starts_with(&[0, 0])).expect("a notification");
        Scene::new(me, parsed(std::str::from_utf8(&self.heard(n).config).expect("text")))
    }

    /// Asserts that the last of `out` for server `to` is frame `n`.
    fn expect(&self, n: usize, to: i64, out: &[Output]) {
        let to_it = out.iter().rev().find_map(|output| match output {
            Output::Send { to: ServerId(server), notification } if *server == to => Some(notification),
            _ => None,
        });
        let mut bytes = Vec::new();
        to_it.unwrap_or_else(|| panic!("frame {n} is missing")).encode(&mut bytes);
        assert_eq!(bytes, self.0[n].1, "frame {n}: said {to_it:?}, recorded {:?}", self.heard(n));
    }
}

fn look(scene: &mut Scene, epoch: u32, zxid: i64) -> Vec<Output> {
    let mut out = Vec::new();
    let start = Start { last_zxid: Zxid(zxid), ..start(&scene.ensemble, epoch, 0) };
    scene.election.start(scene.now_ms, start, &mut out);
    out
}

#[test]
fn the_first_election_of_an_empty_ensemble() {
    let recorded = Conversation::load("election-fresh-2-to-1");
    let mut two = recorded.scene(2);
    recorded.expect(1, 1, &look(&mut two, 0, 0));
    assert_eq!(two.hear(1, recorded.heard(2)), "");
    assert_eq!(two.hear(1, recorded.heard(3)), "");
    assert_eq!(two.pass(200), "decided: leading 2");
    let mut one = recorded.scene(1);
    recorded.expect(2, 2, &look(&mut one, 0, 0));
    recorded.expect(3, 2, &one.hear_raw(2, recorded.heard(1)));
    assert_eq!(one.pass(200), "decided: following 2");
}

#[test]
fn a_third_server_joins_later() {
    let [to_one, to_two] = ["election-late-3-to-1", "election-late-3-to-2"].map(Conversation::load);
    let mut three = to_one.scene(3);
    let asked = look(&mut three, 0, 0);
    to_one.expect(1, 1, &asked);
    to_two.expect(1, 2, &asked);
    // Frame 2 was said long ago and is repeated on the new connection.
    for (from, recorded, n) in [(1, &to_one, 2), (2, &to_two, 2), (1, &to_one, 3)] {
        assert_eq!(three.hear(from, recorded.heard(n)), "");
    }
    assert_eq!(three.hear(2, to_two.heard(3)), "decided: following 2");
    // And as those that it asks.
    for (me, other, recorded) in [(1, 2, &to_one), (2, 1, &to_two)] {
        let mut scene = recorded.scene(me);
        look(&mut scene, 0, 0);
        let vote = Notification { config: Bytes::new(), ..looking(1, 2, 0, 0) };
        scene.hear(other, vote);
        scene.pass(200);
        scene.election.refresh(Epoch(1));
        recorded.expect(3, 3, &scene.hear_raw(3, recorded.heard(1)));
    }
}

#[test]
fn an_observer_asks() {
    let recorded = Conversation::load("election-observer-4-to-2");
    let mut four = recorded.scene(4);
    recorded.expect(1, 2, &look(&mut four, 0, 0));
    assert_eq!(four.hear(2, recorded.heard(2)), "");
    assert_eq!(four.hear(1, following(1, 2, 1, 0)), "decided: observing 2");
    let mut two = recorded.scene(2);
    look(&mut two, 0, 0);
    two.hear(1, looking(1, 2, 0, 0));
    two.pass(200);
    two.election.refresh(Epoch(1));
    recorded.expect(2, 4, &two.hear_raw(4, recorded.heard(1)));
}

#[test]
fn groups_and_weights() {
    let recorded = Conversation::load("election-hierarchical-config");
    let mut two = recorded.scene(2);
    recorded.expect(1, 1, &look(&mut two, 0, 0));
    two.hear(1, recorded.heard(2));
    two.hear(1, recorded.heard(3));
    recorded.expect(4, 1, &two.hear_raw(3, looking(1, 3, 0, 0)));
    assert_eq!(two.hear(1, recorded.heard(5)), "decided: following 3");
    // Leader 3 rolled over its epoch and is gone.
    recorded.expect(6, 1, &look(&mut two, 1, 0x1_ffff_fffe));
    // Server 1 weighs 2 of 4, so it and another one are a quorum.
    assert_eq!(two.hear(1, recorded.heard(7)), "");
    assert_eq!(two.pass(200), "decided: leading 2");
    let mut one = recorded.scene(1);
    recorded.expect(2, 2, &look(&mut one, 0, 0));
    recorded.expect(3, 2, &one.hear_raw(2, recorded.heard(1)));
    recorded.expect(5, 2, &one.hear_raw(2, recorded.heard(4)));
}

#[test]
fn reconfiguration_several_addresses_and_authentication_change_only_the_configuration() {
    for (name, larger) in [("election-reconfig-enabled", 2), ("election-multiaddress-v2", 2)] {
        let recorded = Conversation::load(name);
        let mut two = recorded.scene(larger);
        recorded.expect(1, 1, &look(&mut two, 0, 0));
        let mut third = two.hear_raw(1, recorded.heard(2));
        if third.is_empty() {
            third = two.hear_raw(3, looking(1, 3, 0, 0));
        }
        recorded.expect(recorded.0.len() - 1, 1, &third);
    }
    let recorded = Conversation::load("election-sasl-digest");
    let mut two = recorded.scene(2);
    recorded.expect(2, 1, &look(&mut two, 0, 0));
    recorded.expect(3, 1, &two.hear_raw(1, recorded.heard(1)));
}

/// The hello that was recorded is the one that this server says, and it is understood.
#[test]
fn hellos() {
    let names = [
        ("election-fresh-2-to-1", false),
        ("election-late-3-to-1", false),
        ("election-lower-sid-dials", false),
        ("election-multiaddress-v2", true),
    ];
    for (name, multi_address) in names {
        let recorded = Conversation::load(name);
        let bytes = &recorded.0[0].1;
        let (hello, length) = Hello::decode(bytes).expect("a hello").expect("complete");
        assert_eq!(length, bytes.len());
        let table = |me: ServerId, addresses: Vec<HostPort>| {
            ConnTable::new(ConnOptions { me, addresses, multi_address, hello_timeout_ms: 1 })
        };
        let remote = IpAddr::from([127, 0, 0, 1]);
        let mut out = Vec::new();
        table(hello.server, hello.addresses.clone()).dialed(PeerConn(1), ServerId(0), remote, &mut out);
        assert!(matches!(&out[0], ConnOutput::Write { bytes: said, .. } if said == bytes), "{name}: {out:?}");
        // Its dialer's id is the larger one, but in the third.
        let dials_back = name == "election-lower-sid-dials";
        let mut accepting = table(ServerId(if dials_back { 2 } else { 1 }), Vec::new());
        let mut out = Vec::new();
        accepting.accepted(0, PeerConn(1), remote, &mut out);
        accepting.received(PeerConn(1), bytes, &mut out);
        let closed = out.iter().any(|output| matches!(output, ConnOutput::Close { .. }));
        let dialed = out.iter().any(|output| matches!(output, ConnOutput::Dial { .. }));
        assert_eq!((closed, dialed), (dials_back, dials_back), "{name}: {out:?}");
    }
}
