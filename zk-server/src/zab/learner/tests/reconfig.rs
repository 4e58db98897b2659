//! Configurations in the stream. One test for each rule, named after it.

use zk_proto::jute::Writer;

use super::super::Reason;
use super::*;
use crate::zab::PeerState;

fn reconfig(zxid: Zxid, lines: &[&str]) -> Proposal {
    let text = ensemble(zxid.0, lines).to_text();
    let mut body = Vec::new();
    body.put_str("/zookeeper/config");
    body.put_buffer(Some(text.as_bytes()));
    body.put_int(-1);
    txn_of(zxid, 16, &body)
}

#[test]
fn a_reconfiguration_is_seen_when_proposed_and_in_force_when_committed() {
    let mut kit = Kit::established(start(), World::default());
    kit.packet(ToLearner::Proposal(reconfig(z(2, 1), &THREE[..2])));
    assert_eq!(kit.asked(), ["seen 200000001", "propose 0x200000001"]);
    kit.packet(ToLearner::CommitAndActivate { zxid: z(2, 1), leader: 2 });
    assert_eq!(kit.asked()[2..], ["commit 0x200000001", "activate 200000001"]);
    assert!(kit.ended().is_none());
}

#[test]
fn a_designated_leader_is_followed_without_an_election() {
    for (designated, state) in [(1, PeerState::Leading), (3, PeerState::Following)] {
        let mut kit = Kit::established(start(), World::default());
        kit.packet(ToLearner::Proposal(reconfig(z(2, 1), &[THREE[0], THREE[2]])));
        kit.packet(ToLearner::CommitAndActivate { zxid: z(2, 1), leader: designated });
        let ended = kit.ended().unwrap();
        assert_eq!(ended.next, Some((state, ServerId(designated))));
        assert!(!ended.redial && !ended.rebuild);
    }
}

#[test]
fn a_server_that_becomes_an_observer_leaves_and_comes_back_as_one() {
    let mut kit = Kit::established(start(), World::default());
    let lines = ["server.1=127.0.0.1:21101:21201:observer", THREE[1], THREE[2]];
    kit.packet(ToLearner::Proposal(reconfig(z(2, 1), &lines)));
    kit.packet(ToLearner::CommitAndActivate { zxid: z(2, 1), leader: 2 });
    assert_eq!(kit.ended().unwrap().next, Some((PeerState::Observing, ServerId(2))));

    let mut kit = Kit::established(Start { role: Role::Observer, ..start() }, World::default());
    let proposal = reconfig(z(2, 1), &THREE);
    kit.packet(ToLearner::InformAndActivate { proposal, leader: 2 });
    assert_eq!(kit.ended().unwrap().next, Some((PeerState::Following, ServerId(2))));
}

#[test]
fn the_configuration_of_newleader_is_in_force_with_uptodate() {
    let config = Some(Bytes::from(ensemble(z(2, 0).0, &THREE).to_text()));
    let newleader = ToLearner::NewLeader { zxid: z(2, 0), config };
    let mut kit = Kit::at_transfer(start(), World::default());
    kit.packets([ToLearner::Diff(z(1, 5)), newleader.clone()]);
    assert_eq!(kit.asked()[1..], ["seen 200000000", "sync 2"]);
    kit.packet(ToLearner::UpToDate);
    assert_eq!(kit.asked()[3..], ["activate 200000000", "ready 2 0x100000005"]);

    // Without reconfiguration it is the operator who says who belongs to the ensemble.
    let fixed = Options { reconfig_enabled: false, ..options() };
    let mut kit = Kit::with_options(start(), fixed, World::default());
    kit.step(|learner, now, out| learner.connected(now, CONN, out));
    let uptodate = ToLearner::UpToDate;
    kit.packets([ToLearner::LeaderInfo { epoch: Epoch(2) }, ToLearner::Diff(z(1, 5)), newleader, uptodate]);
    assert_eq!(kit.asked(), ["accept 2", "sync 2", "ready 2 0x100000005"]);
}

#[test]
fn a_malformed_configuration_is_refused() {
    let config = Some(Bytes::from_static(b"\xff\xfe"));
    let mut kit = Kit::at_transfer(start(), World::default());
    kit.packets([ToLearner::Diff(z(1, 5)), ToLearner::NewLeader { zxid: z(2, 0), config }]);
    assert!(matches!(kit.ended().unwrap().reason, Reason::Config(_)));
    assert_untouched(&kit);
}
