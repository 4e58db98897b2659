//! Recorded conversations with Apache's leaders: given what the learner said, ours says the same, byte by byte.
//! PINGs are left out (they depend on time), and the snapshot streams, which the shell writes.

use std::path::Path;

use zk_proto::Reader;

use super::*;
use crate::txn::{Txn, kind as txn_kind};
use crate::zab::wire::kind;

struct Message {
    from_learner: bool,
    packet: QuorumPacket,
}

fn conversation(name: &str) -> Vec<Message> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/quorum/conversations");
    let text = std::fs::read_to_string(dir.join(format!("{name}.json"))).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let messages = json["messages"].as_array().unwrap().iter();
    let messages = messages.filter(|message| message["name"] != "SNAPSTREAM").map(|message| {
        let hex = message["hex"].as_str().unwrap();
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let packet = QuorumPacket::decode(&mut BytesMut::from(&bytes[..]), 1 << 20).unwrap().unwrap();
        Message { from_learner: message["dir"] == "learner->leader", packet }
    });
    messages.filter(|message| message.packet.kind != kind::PING || message.from_learner).collect()
}

/// The configuration that a reconfiguration makes.
fn new_config(txn: &Proposal) -> Option<Arc<Ensemble>> {
    let mut r = Reader::new(&txn.payload);
    let header = RecordHeader::read(&mut r).unwrap();
    if header.kind != txn_kind::RECONFIG {
        return None;
    }
    let Txn::SetData { data: Some(data), .. } = Txn::decode(header.kind, &mut r).unwrap() else { panic!() };
    Some(Arc::new(Ensemble::parse(std::str::from_utf8(data).unwrap()).unwrap()))
}

/// A leader in the state of the recorded one, with scripted followers that acknowledge what was committed.
struct Replay {
    rig: Rig,
    others: Vec<i64>,
}

impl Replay {
    fn new(messages: &[Message]) -> Replay {
        let said: Vec<ToLeader> = messages
            .iter()
            .filter(|m| m.from_learner)
            .map(|m| m.packet.clone().try_into().unwrap())
            .collect();
        let heard: Vec<ToLearner> = messages
            .iter()
            .filter(|m| !m.from_learner)
            .map(|m| m.packet.clone().try_into().unwrap())
            .collect();
        let (ToLeader::FollowerInfo(info) | ToLeader::ObserverInfo(info)) = said[0] else { panic!() };
        let ToLeader::AckEpoch { last: claim, .. } = said[1] else { panic!() };
        let ToLearner::LeaderInfo { epoch } = heard[0] else { panic!() };
        let end = heard.iter().position(|packet| matches!(packet, ToLearner::NewLeader { .. })).unwrap();
        let ToLearner::NewLeader { config: Some(config), .. } = &heard[end] else { panic!() };
        let config = Arc::new(Ensemble::parse(std::str::from_utf8(config).unwrap()).unwrap());
        let me = heard.iter().find_map(|packet| match packet {
            ToLearner::CommitAndActivate { leader, .. } | ToLearner::InformAndActivate { leader, .. } => {
                Some(*leader)
            }
            _ => None,
        });
        let me = me.map_or_else(|| config.voters().find(|sid| *sid != info.server).unwrap(), ServerId);
        let others = (1..=3).map(ServerId).filter(|sid| *sid != me && *sid != info.server);
        let others = others.filter(|sid| config.contains(*sid)).map(|sid| sid.0).collect();

        let (base, force_snapshot) = match heard[1] {
            ToLearner::Diff(_) => (claim, false),
            ToLearner::Trunc(zxid) => (zxid, false),
            ToLearner::Snap(zxid) => (zxid, true),
            _ => panic!(),
        };
        let mut history = History::new(base, 500);
        let transferred: Vec<&Proposal> = heard[2..end]
            .iter()
            .filter_map(|packet| match packet {
                ToLearner::Proposal(txn) => Some(txn),
                _ => None,
            })
            .collect();
        let inherited = transferred.iter().take_while(|txn| Epoch::of(txn.zxid) < epoch);
        inherited.for_each(|txn| history.push((*txn).clone()));
        let options = LeaderOptions { force_snapshot, confirm_syncs: false, ..LeaderOptions::default() };
        let before = Epoch(epoch.0 - 1);
        let epochs = Epochs { accepted: before, current: before };
        let rig = Rig::elected(me, epochs, history, config, None, options);
        let mut replay = Replay { rig, others };
        for sid in replay.others.clone() {
            replay.rig.info(sid, before.0);
            replay.rig.ack_epoch(sid, base, Some(before.0));
            replay.rig.ack(sid, epoch.start());
        }
        for txn in transferred.iter().filter(|txn| Epoch::of(txn.zxid) == epoch) {
            replay.propose(txn);
            if heard[..end].contains(&ToLearner::Commit(txn.zxid)) {
                replay.decide(txn.zxid);
            }
        }
        replay
    }

    fn propose(&mut self, txn: &Proposal) {
        if txn.zxid <= self.rig.leader.proposed {
            return;
        }
        self.rig.history.push(txn.clone());
        let config = new_config(txn);
        self.rig.step(|leader, now, _, out| match config {
            Some(config) => leader.propose_reconfig(now, txn, config, out),
            None => leader.propose(now, std::slice::from_ref(txn), out),
        });
    }

    fn decide(&mut self, zxid: Zxid) {
        self.rig.durable(zxid);
        for sid in self.others.clone() {
            self.rig.ack(sid, zxid);
        }
    }

    /// Plays both halves; returns what our leader said.
    fn play(&mut self, messages: &[Message]) -> Vec<QuorumPacket> {
        let learner = PeerConn(100);
        self.rig.connect(learner);
        let mut valid = messages.iter().filter_map(|m| match ToLearner::try_from(m.packet.clone()) {
            Ok(ToLearner::Revalidate { valid, .. }) if !m.from_learner => Some(valid),
            _ => None,
        });
        for message in messages {
            if message.from_learner {
                let packet = message.packet.clone();
                self.rig.step(|leader, now, history, out| leader.packet(now, learner, packet, history, out));
            } else {
                match ToLearner::try_from(message.packet.clone()).unwrap() {
                    ToLearner::Proposal(txn) => self.propose(&txn),
                    ToLearner::Commit(zxid) | ToLearner::CommitAndActivate { zxid, .. } => self.decide(zxid),
                    ToLearner::Inform(txn) | ToLearner::InformAndActivate { proposal: txn, .. } => {
                        self.propose(&txn);
                        self.decide(txn.zxid);
                    }
                    _ => {}
                }
            }
            for output in self.rig.outputs() {
                match output {
                    Output::StreamSnapshot { .. } => {
                        self.rig.step(|leader, now, _, _| leader.snapshot_sent(now, learner));
                    }
                    Output::Revalidate { session, .. } => {
                        let valid = valid.next().unwrap();
                        self.rig.step(|leader, _, _, _| leader.revalidated(learner, session, valid));
                    }
                    Output::Close { conn, reason, .. } => panic!("closed {conn:?}: {reason}"),
                    Output::StepDown(reason) => panic!("stepped down: {reason}"),
                    _ => {}
                }
            }
        }
        let mut bytes = self.rig.sent.remove(&learner).unwrap_or_default();
        let mut packets = Vec::new();
        while let Some(packet) = QuorumPacket::decode(&mut bytes, 1 << 20).unwrap() {
            packets.push(packet);
        }
        packets
    }
}

fn words(packets: &[QuorumPacket]) -> String {
    let words: Vec<String> = packets.iter().map(|p| short(&p.clone().try_into().unwrap())).collect();
    words.join(" ")
}

fn replays(name: &str) {
    let messages = conversation(name);
    let recorded: Vec<QuorumPacket> = messages
        .iter()
        .filter(|message| !message.from_learner)
        .map(|message| message.packet.clone())
        .collect();
    let ours = Replay::new(&messages).play(&messages);
    assert_eq!(words(&ours), words(&recorded), "{name}");
    assert_eq!(ours, recorded, "{name}");
}

#[test]
fn followers_with_a_difference() {
    for name in
        ["learner-diff-committed", "learner-diff-empty", "learner-diff-outstanding", "learner-new-epoch-diff"]
    {
        replays(name);
    }
}

#[test]
fn followers_that_are_truncated() {
    replays("learner-trunc");
}

#[test]
fn followers_with_a_snapshot() {
    for name in ["learner-snap-fresh", "learner-snap-old-leader", "learner-snap-tree"] {
        replays(name);
    }
}

#[test]
fn requests_and_sessions() {
    replays("learner-requests-ttl-container-expiry");
    replays("local-session-upgrade-follower");
}

#[test]
fn observers() {
    replays("observer-diff-new-epoch");
    replays("observer-snap-inform");
}

#[test]
fn learners_of_3_8_and_of_3_9() {
    for name in ["mixed-leader38-diff39", "mixed-leader38-follower39", "mixed-leader38-observer39"] {
        replays(name);
    }
    replays("mixed-leader39-diff38");
    replays("mixed-leader39-observer38");
}

#[test]
fn reconfigurations() {
    replays("reconfig-follower");
    replays("reconfig-observer");
    replays("reconfig-participant-to-observer");
    replays("reconfig-new-leader-follower");
    replays("reconfig-removed-leader");
}
