//! Proposals, acknowledgements, commits, `sync`.

use super::*;
use crate::zab::wire::kind;

fn three() -> Rig {
    let mut rig = Rig::active(1, &[z(1, 1)]);
    rig.follower_synced(2);
    rig.follower_synced(8);
    rig.clear();
    rig
}

#[test]
fn a_batch_is_one_write_per_learner() {
    let mut rig = three();
    let batch = rig.append(100);
    rig.leader.propose(rig.now, &batch, &mut rig.out);
    assert_eq!(rig.out, [], "nothing before flush");
    rig.leader.flush(rig.now, &rig.history, &mut rig.out);
    let to: Vec<_> =
        rig.out.iter().map(|output| matches!(output, Output::Send { conn, .. } if conn.0 < 3)).collect();
    assert_eq!(to, [true, true], "not to the observer");
    rig.settle(0);
    for n in 1..=100 {
        let mut bytes = Vec::new();
        ToLeader::Ack(z(2, n)).encode(&mut bytes);
        let packet = QuorumPacket::decode(&mut BytesMut::from(&bytes[..]), 0).unwrap().unwrap();
        rig.leader.packet(rig.now, conn(1), packet, &rig.history, &mut rig.out);
    }
    rig.leader.durable(z(2, 70));
    assert_eq!(rig.outputs(), []);
    rig.leader.flush(rig.now, &rig.history, &mut rig.out);
    assert_eq!(rig.out.len(), 4, "one commit, three writes");
    rig.settle(0);
    assert_eq!(rig.commits(), [z(2, 70)]);
    let informed = rig.heard(8);
    assert_eq!(informed.len(), 70);
    assert_eq!(informed[0], ToLearner::Inform(txn(z(2, 1))));
    let heard = rig.heard(2);
    assert_eq!(heard[99..101], [ToLearner::Proposal(txn(z(2, 100))), ToLearner::Commit(z(2, 1))]);
    assert_eq!(heard.len(), 170);
}

#[test]
fn commits_need_a_quorum_and_go_in_order() {
    let mut rig = three();
    rig.propose(3);
    rig.durable(z(2, 3));
    assert_eq!(rig.commits(), []);
    rig.ack(8, z(2, 3));
    assert_eq!(rig.commits(), [], "observers have no vote");
    rig.ack(2, z(2, 2));
    assert_eq!(rig.commits(), [z(2, 2)]);
    rig.ack(1, z(2, 1));
    assert_eq!(rig.commits(), []);
    rig.ack(1, z(2, 3));
    assert_eq!(rig.commits(), [z(2, 3)]);
}

#[test]
fn the_own_vote_is_that_of_the_own_disk_and_others_can_do_without() {
    let mut rig = three();
    rig.propose(2);
    rig.ack(1, z(2, 2));
    assert_eq!(rig.commits(), [], "not durable here");
    rig.ack(2, z(2, 1));
    assert_eq!(rig.commits(), [z(2, 1)]);
    rig.durable(z(2, 2));
    assert_eq!(rig.commits(), [z(2, 2)]);
}

#[test]
fn servers_outside_the_configuration_have_no_vote() {
    let mut rig = Rig::with(1, &[z(1, 1)], ensemble(5, 0), LeaderOptions::default());
    [1, 2].into_iter().for_each(|sid| rig.info(sid, 1));
    [1, 2].into_iter().for_each(|sid| rig.ack_epoch(sid, z(1, 1), Some(1)));
    [1, 2].into_iter().for_each(|sid| rig.ack(sid, z(2, 0)));
    rig.follower_synced(6);
    rig.clear();
    rig.propose(1);
    assert_eq!(rig.told(6), "P2:1", "a non-voting follower is kept up to date");
    rig.durable(z(2, 1));
    rig.ack(6, z(2, 1));
    rig.ack(1, z(2, 1));
    assert_eq!(rig.commits(), []);
    rig.ack(2, z(2, 1));
    assert_eq!(rig.commits(), [z(2, 1)]);
}

#[test]
fn groups_and_weights_decide() {
    let mut text = String::new();
    (1..=6).for_each(|sid| text += &format!("server.{sid}=h{sid}:1:2:participant\n"));
    text += "group.1=1:2:3\ngroup.2=4:5:6\nweight.1=1\n";
    let ensemble = Arc::new(Ensemble::parse(&text).unwrap());
    let mut rig = Rig::with(1, &[z(1, 1)], ensemble, LeaderOptions::default());
    let voters = [1, 4, 5];
    voters.iter().for_each(|sid| rig.info(*sid, 1));
    voters.iter().for_each(|sid| rig.ack_epoch(*sid, z(1, 1), Some(1)));
    voters.iter().for_each(|sid| rig.ack(*sid, z(2, 0)));
    assert!(rig.leader.is_active());
    rig.clear();
    rig.propose(2);
    rig.durable(z(2, 2));
    rig.ack(1, z(2, 2));
    rig.ack(4, z(2, 2));
    assert_eq!(rig.commits(), [], "one group only");
    rig.ack(5, z(2, 1));
    assert_eq!(rig.commits(), [z(2, 1)]);
}

#[test]
fn acknowledgements_are_checked() {
    let mut rig = three();
    rig.propose(1);
    for harmless in [z(2, 0), z(1, 1), z(1, 9), Zxid(-1)] {
        rig.ack(1, harmless);
    }
    assert_eq!(rig.outputs(), []);
    rig.ack(1, z(2, 2));
    assert_eq!(rig.closed(), [(conn(1), CloseReason::BadAck(z(2, 2)))]);
    rig.ack(2, z(3, 1));
    assert_eq!(rig.closed(), [(conn(2), CloseReason::BadAck(z(3, 1)))]);
}

#[test]
fn acknowledgements_end_with_the_connection() {
    let mut rig = three();
    rig.propose(1);
    rig.ack(1, z(2, 1));
    rig.step(|leader, _, _, out| leader.closed(conn(1), out));
    rig.durable(z(2, 1));
    assert_eq!(rig.commits(), []);
    rig.ack(2, z(2, 1));
    assert_eq!(rig.commits(), [z(2, 1)]);
}

#[test]
fn requests_sessions_and_unknown_packets() {
    let mut rig = three();
    let body = Bytes::from_static(b"body");
    let (session, cxid, op, auth) = (SessionId(7), 1, 1, vec![]);
    rig.say(1, ToLeader::Request { session, cxid, op, body: body.clone(), auth: auth.clone() });
    let sessions = vec![(session, 4000)];
    rig.say(1, ToLeader::Ping { zxid: z(2, 0), touched: sessions.clone() });
    rig.say(8, ToLeader::Revalidate { session, timeout_ms: 4000 });
    rig.say(1, ToLeader::Other(77));
    let sid = ServerId(1);
    assert_eq!(
        rig.outputs(),
        [
            Output::Request { conn: conn(1), sid, session, cxid, op, body, auth },
            Output::Touch { sid, sessions },
            Output::Revalidate { conn: conn(8), sid: ServerId(8), session, timeout_ms: 4000 },
        ]
    );
    rig.step(|leader, _, _, _| leader.revalidated(conn(8), session, true));
    assert_eq!(rig.heard(8), [ToLearner::Revalidate { session, valid: true }]);
    let bad = QuorumPacket::bare(kind::REQUEST, -1);
    rig.step(|leader, now, history, out| leader.packet(now, conn(1), bad, history, out));
    assert!(matches!(rig.closed()[..], [(_, CloseReason::Wire(_))]));
}

fn sync_request(rig: &mut Rig, sid: i64) {
    let body = Bytes::from_static(&[0, 0, 0, 1, b'/']);
    rig.say(sid, ToLeader::Request { session: SessionId(1), cxid: 1, op: 9, body, auth: vec![] });
}

fn pong(rig: &mut Rig, sid: i64) {
    rig.say(sid, ToLeader::Ping { zxid: z(2, 0), touched: vec![] });
}

#[test]
fn l5_sync_waits_for_a_quorum_of_newer_answers() {
    let mut rig = three();
    rig.tick(1500);
    assert_eq!(rig.pings(1), 1);
    sync_request(&mut rig, 1);
    assert_eq!(rig.pings(1), 1, "asked at once");
    pong(&mut rig, 1);
    assert_eq!(rig.told(1), "", "that was the answer to the older PING");
    pong(&mut rig, 1);
    assert_eq!(rig.told(1), "SYNC");
}

#[test]
fn l5_syncs_share_rounds() {
    let mut rig = three();
    sync_request(&mut rig, 1);
    sync_request(&mut rig, 8);
    rig.step(|leader, _, _, _| leader.sync_local(5));
    assert_eq!(rig.heard_on(conn(2)).len(), 1, "one round is on its way");
    pong(&mut rig, 2);
    assert_eq!((rig.told(1), rig.told(8)), ("SYNC".into(), String::new()), "the next round has begun");
    pong(&mut rig, 8);
    pong(&mut rig, 8);
    assert_eq!(rig.outputs(), [], "observers do not confirm");
    pong(&mut rig, 2);
    assert_eq!(rig.told(8), "SYNC");
    assert_eq!(rig.outputs(), [Output::SyncDone(5)]);
}

#[test]
fn sync_waits_for_what_is_outstanding() {
    for confirm in [true, false] {
        let mut rig = three();
        rig.leader.options.confirm_syncs = confirm;
        rig.propose(2);
        rig.durable(z(2, 2));
        sync_request(&mut rig, 2);
        (0..3).for_each(|_| pong(&mut rig, 1));
        rig.propose(1);
        rig.ack(1, z(2, 1));
        assert_eq!(rig.told(2), "P2:1 P2:2 P2:3 C2:1");
        rig.ack(1, z(2, 2));
        assert_eq!(rig.told(2), "C2:2 SYNC");
    }
}

#[test]
fn zxids_are_used_up_to_the_last_but_one() {
    let near_end = || {
        let mut rig = three();
        rig.leader.options.roll_over_counter = u32::MAX;
        let mut history = History::new(z(2, 0xffff_fffc), 3);
        std::mem::swap(&mut rig.history, &mut history);
        rig.leader.proposed = z(2, 0xffff_fffc);
        rig.leader.committed = rig.leader.proposed;
        rig
    };
    let mut rig = near_end();
    assert_eq!(rig.propose(2), z(2, 0xffff_fffe));
    assert_eq!(rig.ended(), None);
    rig.propose(1);
    assert_eq!(rig.ended(), Some(StepDownReason::RollOver));
    assert!(rig.sent.iter().all(|(_, bytes)| bytes.len() < 2 * 100), "the last one was not sent");

    let mut rig = near_end();
    rig.leader.options.roll_over_counter = 0xffff_fffd;
    rig.propose(1);
    rig.tick(3000);
    assert_eq!(rig.ended(), None, "work is outstanding");
    rig.durable(z(2, 0xffff_fffd));
    rig.ack(1, z(2, 0xffff_fffd));
    [1, 2].into_iter().for_each(|sid| pong(&mut rig, sid));
    rig.tick(3000);
    assert_eq!(rig.ended(), Some(StepDownReason::RollOver), "earlier, at a quiet moment");
}
