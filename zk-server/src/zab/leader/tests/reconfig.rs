//! Changing the membership.

use super::*;

/// Server 3 leads 1 and 2 in a configuration of version 5; servers 4 and 5 follow without a vote.
fn rig() -> Rig {
    let options = LeaderOptions { reconfig_enabled: true, ..LeaderOptions::default() };
    let mut rig = Rig::with(1, &[z(1, 1)], ensemble(3, 5), options);
    [1, 2, 4, 5].into_iter().for_each(|sid| rig.follower_synced(sid));
    rig.follower_synced(8);
    rig.clear();
    rig
}

fn of(sids: &[i64], version: Zxid) -> Arc<Ensemble> {
    let servers = sids.iter().map(|sid| format!("server.{sid}=h{sid}:2888:3888:participant\n"));
    let text = format!("{}version={:x}", servers.collect::<String>(), version.0);
    Arc::new(Ensemble::parse(&text).unwrap())
}

fn reconfigure(rig: &mut Rig, new: &Arc<Ensemble>) {
    let batch = rig.append(1);
    assert_eq!(new.version, batch[0].zxid.0);
    rig.step(|leader, now, _, out| leader.propose_reconfig(now, &batch[0], new.clone(), out));
}

#[test]
fn a_reconfiguration_needs_both_quorums_and_so_does_what_follows() {
    let mut rig = rig();
    rig.propose(1);
    let new = of(&[3, 4, 5], z(2, 2));
    assert_eq!(rig.leader.can_reconfigure(&new), Ok(()));
    reconfigure(&mut rig, &new);
    assert_eq!(rig.outputs(), [Output::ConfigSeen(new.clone())]);
    assert_eq!(rig.leader.can_reconfigure(&new), Err(ReconfigRefusal::InProgress));
    rig.propose(1);
    rig.durable(z(2, 3));
    rig.ack(1, z(2, 3));
    assert_eq!(rig.commits(), [z(2, 1)], "what came before it needs the old quorum only");
    rig.clear();
    rig.ack(4, z(2, 2));
    let activate = Output::Activate { zxid: z(2, 2), ensemble: new, designated: ServerId(3) };
    assert_eq!(rig.outputs(), [Output::Commit(z(2, 2)), activate]);
    assert_eq!((rig.told(1), rig.told(8)), ("CA2:2=3".into(), "IA2:2=3".into()));
    // From here on the new configuration decides alone.
    rig.ack(5, z(2, 3));
    assert_eq!(rig.commits(), [z(2, 3)]);
    rig.propose(1);
    rig.durable(z(2, 4));
    [1, 2].into_iter().for_each(|sid| rig.ack(sid, z(2, 4)));
    assert_eq!(rig.commits(), []);
    rig.ack(4, z(2, 4));
    assert_eq!(rig.commits(), [z(2, 4)]);
}

#[test]
fn a_new_quorum_alone_does_not_decide() {
    let mut rig = rig();
    let new = of(&[3, 4, 5], z(2, 1));
    reconfigure(&mut rig, &new);
    [4, 5].into_iter().for_each(|sid| rig.ack(sid, z(2, 1)));
    rig.durable(z(2, 1));
    assert_eq!(rig.commits(), []);
}

#[test]
fn the_new_quorum_has_to_be_there() {
    let mut rig = rig();
    assert_eq!(rig.leader.can_reconfigure(&of(&[3, 6, 7], z(2, 1))), Err(ReconfigRefusal::NoQuorum));
    rig.step(|leader, _, _, out| leader.closed(conn(4), out));
    assert_eq!(rig.leader.can_reconfigure(&of(&[4, 5, 6], z(2, 1))), Err(ReconfigRefusal::NoQuorum));
    let fresh = Rig::new(1, &[]);
    assert_eq!(fresh.leader.can_reconfigure(&of(&[3], z(2, 1))), Err(ReconfigRefusal::InProgress));
}

#[test]
fn a_removed_leader_designates_the_most_advanced_follower_and_retires() {
    let mut rig = rig();
    let new = of(&[1, 2, 4], z(2, 1));
    reconfigure(&mut rig, &new);
    rig.propose(2);
    rig.durable(z(2, 3));
    rig.ack(1, z(2, 1));
    rig.clear();
    // One batch: the reconfiguration is decided when 2 and 4 are ahead already.
    let mut bytes = Vec::new();
    ToLeader::Ack(z(2, 2)).encode(&mut bytes);
    let packet = QuorumPacket::decode(&mut BytesMut::from(&bytes[..]), 0).unwrap().unwrap();
    rig.step(|leader, now, history, out| leader.packet(now, conn(2), packet, history, out));
    let activate = Output::Activate { zxid: z(2, 1), ensemble: new, designated: ServerId(2) };
    assert_eq!(rig.outputs(), [Output::Commit(z(2, 1)), activate]);
    assert_eq!(rig.told(1), "CA2:1=2");
    [1, 2, 4].into_iter().for_each(|sid| rig.ack(sid, z(2, 3)));
    assert_eq!(rig.commits(), [], "nothing more is committed here");
    rig.step(|leader, _, _, out| leader.closed(conn(2), out));
    assert_eq!(rig.ended(), None, "2 of 3 are still there");
    rig.step(|leader, _, _, out| leader.closed(conn(1), out));
    assert_eq!(rig.ended(), Some(StepDownReason::NotDesignated));
}

#[test]
fn a_leader_with_a_new_address_retires() {
    let mut rig = rig();
    let text = of(&[1, 2, 3], z(2, 1)).to_text().replace("h3:2888", "h3:2889");
    reconfigure(&mut rig, &Arc::new(Ensemble::parse(&text).unwrap()));
    rig.durable(z(2, 1));
    rig.ack(1, z(2, 1));
    assert_eq!(rig.told(1), "P2:1 CA2:1=1");
    assert!(rig.leader.retired);
}

#[test]
fn ticket_1699_the_pending_configuration_is_watched_too() {
    let mut rig = rig();
    reconfigure(&mut rig, &of(&[3, 4, 5], z(2, 1)));
    rig.step(|leader, _, _, out| leader.closed(conn(4), out));
    rig.step(|leader, _, _, out| leader.closed(conn(5), out));
    rig.tick(3000);
    assert_eq!(rig.ended(), Some(StepDownReason::LostQuorum));
}

#[test]
fn ticket_1783_the_first_quorum_establishes_the_configuration() {
    let options = LeaderOptions { reconfig_enabled: true, ..LeaderOptions::default() };
    let mut rig = Rig::with(0, &[], ensemble(3, 0), options);
    rig.join(1, Zxid::ZERO, Some(0));
    let established = ensemble(3, z(1, 0).0);
    assert!(rig.outputs().contains(&Output::ConfigSeen(established.clone())));
    let Some(ToLearner::NewLeader { config: Some(config), .. }) = rig.heard(1).pop() else { panic!() };
    assert_eq!(config, established.to_text());
    rig.ack(1, z(1, 0));
    let activate = Output::Activate { zxid: z(1, 0), ensemble: established, designated: ServerId(3) };
    assert_eq!(rig.outputs(), [activate, Output::Active { epoch: Epoch(1) }]);
}

#[test]
fn ticket_3814_without_reconfig_configurations_stay_as_they_are() {
    let mut rig = Rig::new(0, &[]);
    rig.join(1, Zxid::ZERO, Some(0));
    rig.ack(1, z(1, 0));
    assert!(
        !rig.outputs().iter().any(|output| matches!(output, Output::Activate { .. } | Output::ConfigSeen(_)))
    );
}
