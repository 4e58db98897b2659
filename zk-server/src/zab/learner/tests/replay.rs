//! Conversations recorded between Apache servers: the leader's half is what the learner hears, and it must say
//! what Apache's learner said.
//!
//! Requests, questions about sessions and the sessions in PING answers are inputs, taken from the recording. The
//! disk answers at once, so that a packet may be earlier than in the recording: packets are compared kind by
//! kind, in order.

use std::path::Path;

use serde_json::Value;

use super::super::{Alarm, Forward, Reason};
use super::*;
use crate::zab::PeerState;

/// One recorded packet.
struct Message {
    from_learner: bool,
    name: String,
    bytes: Vec<u8>,
}

impl Message {
    fn packet(&self) -> QuorumPacket {
        let mut bytes = BytesMut::from(&self.bytes[..]);
        let packet = QuorumPacket::decode(&mut bytes, 1 << 20).unwrap().unwrap();
        assert!(bytes.is_empty());
        packet
    }

    fn to_leader(&self) -> ToLeader {
        ToLeader::try_from(self.packet()).unwrap()
    }
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn recorded(name: &str) -> Vec<Message> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/quorum/conversations");
    let path = folder.join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let json: Value = serde_json::from_str(&text).unwrap();
    let message = |message: &Value| Message {
        from_learner: message["dir"] == "learner->leader",
        name: message["name"].as_str().unwrap().to_owned(),
        bytes: unhex(message["hex"].as_str().unwrap()),
    };
    let messages = json["messages"].as_array().unwrap().iter().map(message);
    // Authentication is the shell's.
    messages.filter(|message| message.name != "QUORUMAUTH").collect()
}

/// The learner as it was when it began.
fn starting(messages: &[Message]) -> Start {
    let said: Vec<ToLeader> =
        messages.iter().filter(|m| m.from_learner).take(2).map(Message::to_leader).collect();
    let (ToLeader::FollowerInfo(info) | ToLeader::ObserverInfo(info)) = &said[0] else { panic!() };
    let ToLeader::AckEpoch { last, current } = said[1] else { panic!() };
    let leader = messages.iter().find(|m| m.name == "NEWLEADER").unwrap().packet();
    let mut config = Ensemble::parse(std::str::from_utf8(&leader.data.unwrap()).unwrap()).unwrap();
    config.version = info.config_version;
    let role = match said[0] {
        ToLeader::ObserverInfo(_) => Role::Observer,
        _ if config.is_voter(info.server) => Role::Follower,
        _ => Role::NonVoting,
    };
    // Whose address it is, no packet says; whom a later configuration keeps as leader, this one does.
    let leader = messages.iter().find_map(|m| match ToLearner::try_from(m.packet_or_none()?).ok()? {
        ToLearner::CommitAndActivate { leader, .. } | ToLearner::InformAndActivate { leader, .. } => {
            Some(leader)
        }
        _ => None,
    });
    Start {
        me: info.server,
        role,
        leader: ServerId(leader.unwrap_or(3)),
        epochs: Epochs { accepted: info.accepted, current: current.unwrap_or(info.accepted) },
        last,
        committed: Zxid::ZERO,
        ensemble: Arc::new(config),
        last_seen: None,
        memory: Memory::default(),
    }
}

impl Message {
    fn packet_or_none(&self) -> Option<QuorumPacket> {
        (!self.from_learner && self.name != "SNAPSTREAM").then(|| self.packet())
    }
}

/// Plays the leader's half, and the clients of the learner.
fn play(messages: &[Message], world: World) -> Kit {
    let mut kit = Kit::new(starting(messages), world);
    kit.step(|learner, now, out| learner.connected(now, CONN, out));
    for message in messages {
        match (message.from_learner, message.name.as_str()) {
            (true, "REQUEST") => {
                let ToLeader::Request { session, cxid, op, body, auth } = message.to_leader() else {
                    panic!()
                };
                let forward = Forward { session, cxid, op, body, auth };
                kit.step(|learner, _, out| assert!(learner.request(forward, out)));
            }
            (true, "REVALIDATE") => {
                let ToLeader::Revalidate { session, timeout_ms } = message.to_leader() else { panic!() };
                kit.step(|learner, _, out| assert!(learner.revalidate(session, timeout_ms, out)));
            }
            // Most PINGs of a recording are left out, in either direction: each answer stands for its question.
            (true, "PING") => {
                let ToLeader::Ping { zxid, touched } = message.to_leader() else { panic!() };
                kit.learner.touched(touched);
                kit.packet(ToLearner::Ping(zxid));
            }
            (false, "PING") if kit.learner.is_established() => {}
            (true, _) => {}
            (false, "SNAPSTREAM") => kit.step(|learner, now, _| learner.snapshot_received(now)),
            (false, _) => kit.packet(ToLearner::try_from(message.packet()).unwrap()),
        }
    }
    kit
}

/// Kind by kind: handshake and acknowledgements, answers to PINGs, requests, questions about sessions.
fn sorted(packets: impl IntoIterator<Item = ToLeader>) -> [Vec<ToLeader>; 4] {
    let mut kinds = [const { Vec::new() }; 4];
    for mut packet in packets {
        if let ToLeader::Ping { touched, .. } = &mut packet {
            touched.sort_unstable();
        }
        let kind = match packet {
            ToLeader::Ping { .. } => 1,
            ToLeader::Request { .. } => 2,
            ToLeader::Revalidate { .. } => 3,
            _ => 0,
        };
        kinds[kind].push(packet);
    }
    kinds
}

/// Replays a conversation that goes well and compares. `skip`: what Apache said and we do not.
fn replay(name: &str, skip: impl Fn(&ToLeader) -> bool) -> Kit {
    let messages = recorded(name);
    let mut kit = play(&messages, World::default());
    let said = sorted(kit.take_sent());
    let expected = messages.iter().filter(|m| m.from_learner).map(Message::to_leader);
    let expected = sorted(expected.filter(|packet| !skip(packet)));
    for (said, mut expected) in said.into_iter().zip(expected) {
        // The recording ends at some point: the last proposal may not have been acknowledged yet.
        if said.len() == expected.len() + 1 {
            expected.extend(said.last().cloned());
        }
        assert_eq!(said, expected, "{name}");
    }
    kit
}

#[test]
fn what_apaches_learners_said_to_apaches_leaders() {
    for name in [
        "learner-diff-committed",
        "learner-diff-empty",
        "learner-diff-outstanding",
        "learner-new-epoch-diff",
        "learner-requests-ttl-container-expiry",
        "learner-snap-fresh",
        "learner-snap-old-leader",
        "learner-snap-tree",
        "learner-trunc",
        "local-session-upgrade-follower",
        "mixed-leader38-diff39",
        "mixed-leader38-follower39",
        "mixed-leader38-observer39",
        "mixed-leader39-observer38",
        "observer-diff-new-epoch",
        "observer-snap-inform",
        "quorum-sasl-digest",
        "reconfig-new-leader-follower",
        "reconfig-removed-leader",
    ] {
        let kit = replay(name, |_| false);
        assert!(kit.learner.is_established(), "{name}: {:?}", kit.ended());
        assert!(kit.has(|o| matches!(o, Output::Ready { .. })), "{name}");
    }
}

#[test]
fn release_3_8_acknowledges_what_a_diff_brings_and_we_do_not() {
    let kit = replay("mixed-leader39-diff38", |packet| *packet == ToLeader::Ack(z(1, 4)));
    assert!(kit.learner.is_established());
}

#[test]
fn an_observer_of_a_follower_speaks_as_to_a_leader() {
    let kit = replay("observer-master", |_| false);
    assert!(kit.learner.is_established());
}

#[test]
fn reconfigurations_end_with_the_designated_leader() {
    let kit = replay("reconfig-follower", |_| false);
    let ended = kit.ended().unwrap();
    assert_eq!(ended.reason, Reason::Reconfigured(z(1, 6).0));
    assert_eq!(ended.next, Some((PeerState::Leading, ServerId(1))));
    let activated = kit.log.iter().filter(|o| matches!(o, Output::Activate { .. })).count();
    assert_eq!(activated, 6, "with UPTODATE and five times by reconfig");

    let kit = replay("reconfig-observer", |_| false);
    assert_eq!(kit.ended().unwrap().next, Some((PeerState::Observing, ServerId(1))));

    let kit = replay("reconfig-participant-to-observer", |_| false);
    assert_eq!(kit.ended().unwrap().next, Some((PeerState::Following, ServerId(3))));
}

#[test]
fn zookeeper_4925_a_diff_with_a_hole() {
    let kit = play(&recorded("bug-4925-diff-with-hole")[..11], World::default());
    let ended = kit.ended().unwrap();
    assert_eq!(ended.reason, Reason::Gap { after: z(1, 2), found: z(1, 6) });
    assert!(ended.redial && ended.memory.ask_snapshot && !ended.rebuild);
    assert_eq!(kit.asked(), ["accept 2"]);
}

#[test]
fn zookeeper_2099_a_diff_from_a_stale_log() {
    // Without gap as far as zxids tell. But the tree after the first transaction of epoch 3 had another content
    // when the leader of epoch 3 proposed it.
    let world = World { wrong_after: Some(z(3, 1)), ..World::default() };
    let kit = play(&recorded("bug-2099-stale-log-diff")[..16], world);
    let ended = kit.ended().unwrap();
    assert_eq!(ended.reason, Reason::Diverged(z(3, 1)));
    assert!(ended.redial && ended.memory.ask_snapshot && ended.rebuild);
    assert_eq!(kit.asked(), ["accept 3", "stage 3", "alarm"], "nothing for the disk");
}

#[test]
fn zookeeper_1549_a_dirty_snapshot_survives_trunc() {
    let messages = recorded("bug-1549-dirty-snapshot-trunc");
    // Nothing on disk leads to the target but a snapshot that is newer than it.
    let kit = play(&messages[..12], World { can_truncate: false, ..World::default() });
    let ended = kit.ended().unwrap();
    assert_eq!(ended.reason, Reason::CannotTruncate(z(1, 2)));
    assert!(ended.redial && ended.memory.ask_snapshot && !ended.rebuild);

    // The next try gets the tree of the leader.
    let epochs = Epochs { accepted: Epoch(2), current: Epoch(1) };
    let again = Start { epochs, memory: ended.memory, ..starting(&messages) };
    let mut kit = Kit::new(again, World::default());
    kit.step(|learner, now, out| learner.connected(now, CONN, out));
    kit.packet(ToLearner::LeaderInfo { epoch: Epoch(2) });
    assert_eq!(kit.take_sent()[1], ToLeader::AckEpoch { last: Zxid::ZERO, current: None });
    kit.packet(ToLearner::Snap(z(2, 0)));
    kit.step(|learner, now, _| learner.snapshot_received(now));
    for message in &messages[4..] {
        if let Some(packet) = message.packet_or_none() {
            kit.packet(ToLearner::try_from(packet).unwrap());
        }
    }
    assert!(kit.learner.is_established());
    assert_eq!(kit.asked()[..3], ["receive 0x200000000", "adopt 0x200000000", "install 0x200000000 2"]);
    assert!(!kit.has(|o| matches!(o, Output::Truncate(_))));
}

#[test]
fn zookeeper_1549_where_the_lost_transaction_was_known_committed() {
    let messages = recorded("bug-1549-dirty-snapshot-trunc");
    let start = Start { committed: z(1, 3), ..starting(&messages) };
    let mut kit = Kit::new(start, World::default());
    kit.step(|learner, now, out| learner.connected(now, CONN, out));
    kit.packets([ToLearner::LeaderInfo { epoch: Epoch(2) }, ToLearner::Trunc(z(1, 2))]);
    assert!(kit.has(|o| matches!(o, Output::Alarm(Alarm::TruncBelowCommitted { .. }))));
    assert!(kit.ended().unwrap().redial && !kit.has(|o| matches!(o, Output::Truncate(_))));
}

#[test]
fn leaders_that_apache_follows_and_we_do_not() {
    // No epoch handshake.
    let messages = recorded("edge-learner-pre-1.0");
    let mut kit = Kit::new(start(), World::default());
    kit.step(|learner, now, out| learner.connected(now, CONN, out));
    let snap = messages.iter().find(|m| !m.from_learner).unwrap();
    kit.packet(ToLearner::try_from(snap.packet()).unwrap());
    assert!(matches!(kit.ended().unwrap().reason, Reason::Unexpected { packet: "SNAP", .. }));

    // An epoch older than the accepted one.
    let messages = recorded("edge-learner-epoch-ahead");
    let epochs = Epochs { accepted: Epoch(9), current: Epoch(0) };
    let mut kit = Kit::new(Start { epochs, ..start() }, World::default());
    kit.step(|learner, now, out| learner.connected(now, CONN, out));
    let leader_info = messages.iter().find(|m| !m.from_learner).unwrap();
    kit.packet(ToLearner::try_from(leader_info.packet()).unwrap());
    assert!(matches!(kit.ended().unwrap().reason, Reason::OldEpoch { .. }));
}
