//! The leader against scripted learners.

mod broadcast;
mod discovery;
mod liveness;
mod random;
mod reconfig;
mod replay;
mod sync;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::*;
use crate::storage::RecordHeader;
use crate::zab::wire::LearnerInfo;

/// Connections are named after the learner that uses them, unless it has several.
fn conn(sid: i64) -> PeerConn {
    PeerConn(sid as u64)
}

fn z(epoch: u32, counter: u32) -> Zxid {
    Zxid::new(epoch, counter)
}

fn txn(zxid: Zxid) -> Proposal {
    let mut payload = Vec::new();
    RecordHeader { client_id: 1, cxid: 2, zxid, time_ms: 3, kind: -1 }.encode(&mut payload);
    payload.extend_from_slice(&[0, 0, 0, 0]);
    Proposal { zxid, payload: Bytes::from(payload) }
}

/// Voters 1 to `voters`, observers 8 and 9.
fn ensemble(voters: i64, version: i64) -> Arc<Ensemble> {
    let mut text = String::new();
    for sid in (1..=voters).chain([8, 9]) {
        let role = if sid > 7 { "observer" } else { "participant" };
        text += &format!("server.{sid}=h{sid}:2888:3888:{role}\n");
    }
    Arc::new(Ensemble::parse(&format!("{text}version={version:x}")).unwrap())
}

/// A leader, its disk and its log. The disk answers at once unless told otherwise.
struct Rig {
    leader: Leader,
    history: History,
    now: u64,
    /// WriteAccepted and CommitSync are answered by the test.
    slow_disk: bool,
    /// PinSnapshot is answered with this zxid.
    applied: Zxid,
    out: Vec<Output>,
    sent: BTreeMap<PeerConn, BytesMut>,
}

impl Rig {
    /// Server 3 of 3 voters with a log of these transactions, of which the last 3 stay in the window.
    fn new(current: u32, log: &[Zxid]) -> Rig {
        Rig::with(current, log, ensemble(3, 0), LeaderOptions::default())
    }

    fn with(current: u32, log: &[Zxid], committed: Arc<Ensemble>, options: LeaderOptions) -> Rig {
        let mut history = History::new(Zxid::ZERO, 3);
        log.iter().for_each(|zxid| history.push(txn(*zxid)));
        history.finish(history.last());
        let epochs = Epochs { accepted: Epoch(current), current: Epoch(current) };
        Rig::elected(ServerId(3), epochs, history, committed, None, options)
    }

    fn elected(
        me: ServerId,
        epochs: Epochs,
        history: History,
        committed: Arc<Ensemble>,
        last_seen: Option<Arc<Ensemble>>,
        options: LeaderOptions,
    ) -> Rig {
        let mut out = Vec::new();
        let last = history.last();
        let leader = Leader::new(Elected { me, epochs, last, committed, last_seen }, options, 1000, &mut out);
        let sent = BTreeMap::new();
        let mut rig = Rig { leader, history, now: 1000, slow_disk: false, applied: last, out, sent };
        rig.settle(0);
        rig
    }

    /// Active in the epoch after `current`, with voter 1.
    fn active(current: u32, log: &[Zxid]) -> Rig {
        let mut rig = Rig::new(current, log);
        rig.follower_synced(1);
        assert!(rig.leader.is_active());
        rig.clear();
        rig
    }

    /// Answers what the disk and the tree have to do, flushes, and sorts the outputs.
    fn settle(&mut self, from: usize) {
        let mut at = from;
        loop {
            let mut more = Vec::new();
            for output in &self.out[at..] {
                match output {
                    Output::WriteAccepted(epoch) if !self.slow_disk => {
                        self.leader.accepted_written(self.now, *epoch, &self.history, &mut more);
                    }
                    Output::CommitSync(epoch) if !self.slow_disk => {
                        self.leader.history_durable(self.now, *epoch, &mut more);
                    }
                    Output::PinSnapshot { conn } => {
                        let (zxid, history) = (self.applied, &self.history);
                        self.leader.snapshot_pinned(self.now, *conn, zxid, history, &mut more);
                    }
                    _ => {}
                }
            }
            at = self.out.len();
            if more.is_empty() {
                self.leader.flush(self.now, &self.history, &mut more);
                if more.is_empty() {
                    break;
                }
            }
            self.out.extend(more);
        }
        let sent = &mut self.sent;
        self.out.retain(|output| {
            let Output::Send { conn, bytes } = output else { return true };
            sent.entry(*conn).or_default().extend_from_slice(bytes);
            false
        });
    }

    fn step(&mut self, input: impl FnOnce(&mut Leader, u64, &History, &mut Vec<Output>)) {
        let from = self.out.len();
        input(&mut self.leader, self.now, &self.history, &mut self.out);
        self.settle(from);
    }

    fn say_on(&mut self, conn: PeerConn, packet: &ToLeader) {
        let mut bytes = Vec::new();
        packet.encode(&mut bytes);
        let packet = QuorumPacket::decode(&mut BytesMut::from(&bytes[..]), 1 << 20).unwrap().unwrap();
        self.step(|leader, now, history, out| leader.packet(now, conn, packet, history, out));
    }

    fn say(&mut self, sid: i64, packet: ToLeader) {
        self.say_on(conn(sid), &packet);
    }

    fn ack(&mut self, sid: i64, zxid: Zxid) {
        self.say(sid, ToLeader::Ack(zxid));
    }

    /// The connection of this name ends, if there is one, and begins anew.
    fn connect(&mut self, conn: PeerConn) {
        if self.leader.links.contains_key(&conn) {
            self.step(|leader, _, _, out| leader.closed(conn, out));
        }
        self.step(|leader, now, _, out| leader.accepted(now, conn, out));
    }

    fn info(&mut self, sid: i64, accepted: u32) {
        self.connect(conn(sid));
        let info = LearnerInfo::new(Epoch(accepted), ServerId(sid), 0);
        self.say(sid, if sid > 7 { ToLeader::ObserverInfo(info) } else { ToLeader::FollowerInfo(info) });
    }

    fn ack_epoch(&mut self, sid: i64, last: Zxid, current: Option<u32>) {
        self.say(sid, ToLeader::AckEpoch { last, current: current.map(Epoch) });
    }

    /// The handshake up to the transfer.
    fn join(&mut self, sid: i64, last: Zxid, current: Option<u32>) {
        self.info(sid, last.epoch());
        self.ack_epoch(sid, last, current);
    }

    /// A learner that has the leader's history.
    fn follower_synced(&mut self, sid: i64) {
        let (epoch, last) = self.leader.summary;
        self.join(sid, last, Some(epoch.0));
        let start = self.leader.epoch.start();
        self.ack(sid, start);
        self.ack(sid, start);
    }

    fn append(&mut self, count: u32) -> Vec<Proposal> {
        let mut last = self.history.last().max(self.leader.epoch.start());
        let mut batch = Vec::new();
        for _ in 0..count {
            last = last.next().unwrap();
            batch.push(txn(last));
            self.history.push(txn(last));
        }
        batch
    }

    /// Proposes so many transactions; returns the last zxid.
    fn propose(&mut self, count: u32) -> Zxid {
        let batch = self.append(count);
        self.step(|leader, now, _, out| leader.propose(now, &batch, out));
        batch.last().unwrap().zxid
    }

    fn durable(&mut self, zxid: Zxid) {
        self.step(|leader, _, _, _| leader.durable(zxid));
    }

    fn tick(&mut self, ms: u64) {
        self.now += ms;
        self.step(|leader, now, _, out| leader.tick(now, out));
    }

    /// Proposes and commits with the voters of these ids.
    fn commit(&mut self, count: u32, voters: &[i64]) -> Zxid {
        let last = self.propose(count);
        self.durable(last);
        voters.iter().for_each(|sid| self.ack(*sid, last));
        assert_eq!(self.leader.committed, last);
        self.applied = last;
        self.history.finish(last);
        last
    }

    /// What a connection was sent since the last call, PINGs left out.
    fn heard_on(&mut self, conn: PeerConn) -> Vec<ToLearner> {
        let mut bytes = self.sent.remove(&conn).unwrap_or_default();
        let mut heard = Vec::new();
        while let Some(packet) = QuorumPacket::decode(&mut bytes, 1 << 20).unwrap() {
            heard.push(ToLearner::try_from(packet).unwrap());
        }
        assert!(bytes.is_empty());
        heard
    }

    fn heard(&mut self, sid: i64) -> Vec<ToLearner> {
        let mut heard = self.heard_on(conn(sid));
        heard.retain(|packet| !matches!(packet, ToLearner::Ping(_)));
        heard
    }

    /// [`Rig::heard`] in short: `P1:5` is the proposal of 0x100000005, `C` a commit, `I` an inform.
    fn told(&mut self, sid: i64) -> String {
        let heard = self.heard(sid);
        let words: Vec<String> = heard.iter().map(short).collect();
        words.join(" ")
    }

    fn pings(&mut self, sid: i64) -> usize {
        self.heard_on(conn(sid)).iter().filter(|packet| matches!(packet, ToLearner::Ping(_))).count()
    }

    fn clear(&mut self) {
        self.sent.clear();
        self.out.clear();
    }

    /// The outputs since the last call that are not bytes.
    fn outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.out)
    }

    fn closed(&mut self) -> Vec<(PeerConn, CloseReason)> {
        let closed = self.outputs().into_iter().filter_map(|output| match output {
            Output::Close { conn, reason, .. } => Some((conn, reason)),
            _ => None,
        });
        closed.collect()
    }

    fn commits(&mut self) -> Vec<Zxid> {
        let commits = self.outputs().into_iter().filter_map(|output| match output {
            Output::Commit(zxid) => Some(zxid),
            _ => None,
        });
        commits.collect()
    }

    fn ended(&mut self) -> Option<StepDownReason> {
        self.outputs().into_iter().find_map(|output| match output {
            Output::StepDown(reason) => Some(reason),
            _ => None,
        })
    }
}

fn short(packet: &ToLearner) -> String {
    let at = |zxid: &Zxid| format!("{:x}:{:x}", zxid.epoch(), zxid.counter());
    match packet {
        ToLearner::LeaderInfo { epoch } => format!("LEADERINFO{epoch}"),
        ToLearner::Diff(zxid) => format!("DIFF{}", at(zxid)),
        ToLearner::Trunc(zxid) => format!("TRUNC{}", at(zxid)),
        ToLearner::Snap(zxid) => format!("SNAP{}", at(zxid)),
        ToLearner::NewLeader { zxid, .. } => format!("NEWLEADER{:x}", zxid.epoch()),
        ToLearner::UpToDate => "UPTODATE".into(),
        ToLearner::Proposal(txn) => format!("P{}", at(&txn.zxid)),
        ToLearner::Commit(zxid) => format!("C{}", at(zxid)),
        ToLearner::Inform(txn) => format!("I{}", at(&txn.zxid)),
        ToLearner::CommitAndActivate { zxid, leader } => format!("CA{}={leader}", at(zxid)),
        ToLearner::InformAndActivate { proposal, leader } => format!("IA{}={leader}", at(&proposal.zxid)),
        ToLearner::Sync => "SYNC".into(),
        other => format!("{other:?}"),
    }
}
