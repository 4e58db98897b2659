//! Leaders, one after the other, over servers that come, go, crash and lose what they had not acknowledged, in random
//! order. Every learner checks its stream; what was committed once is never lost, and at the end all logs are equal.

use std::collections::VecDeque;

use super::*;
use crate::zab::history::follows;

const SERVERS: i64 = 6;
const VOTERS: i64 = 5;

#[derive(Debug, Clone, Default)]
struct Disk {
    epochs: Epochs,
    log: Vec<Zxid>,
}

impl Disk {
    fn last(&self) -> Zxid {
        self.log.last().copied().unwrap_or(Zxid::ZERO)
    }
}

/// A learner's connection.
#[derive(Debug)]
struct Session {
    conn: PeerConn,
    inbox: VecDeque<ToLearner>,
    epoch: Epoch,
    /// What was logged and not committed, in order.
    pending: VecDeque<Zxid>,
    new_leader: bool,
    /// Acknowledgements that wait for the disk; how much of the log they cover.
    acks: VecDeque<(Zxid, usize)>,
    /// How much of the log is on disk.
    synced: usize,
    /// Until NEWLEADER is acknowledged: the log on disk. What the transfer brings joins it all at once.
    before: Option<Vec<Zxid>>,
}

struct World {
    seed: u64,
    rng: fastrand::Rng,
    disks: BTreeMap<i64, Disk>,
    sessions: BTreeMap<i64, Session>,
    conns: u64,
    /// Everything that was ever committed, in order.
    agreed: Vec<Zxid>,
    leader: i64,
    leader_synced: usize,
    rig: Rig,
}

fn elected(disks: &BTreeMap<i64, Disk>, me: i64) -> Rig {
    let disk = &disks[&me];
    let mut history = History::new(Zxid::ZERO, 3);
    disk.log.iter().for_each(|zxid| history.push(txn(*zxid)));
    history.finish(history.last());
    let mut text = String::new();
    for sid in 1..=SERVERS {
        text += &format!("server.{sid}=h:1:2:{}\n", if sid <= VOTERS { "participant" } else { "observer" });
    }
    let ensemble = Arc::new(Ensemble::parse(&text).unwrap());
    Rig::elected(ServerId(me), disk.epochs, history, ensemble, None, LeaderOptions::default())
}

impl World {
    fn new(seed: u64) -> World {
        let disks: BTreeMap<i64, Disk> = (1..=SERVERS).map(|sid| (sid, Disk::default())).collect();
        let rig = elected(&disks, 1);
        let (rng, sessions) = (fastrand::Rng::with_seed(seed), BTreeMap::new());
        let mut world =
            World { seed, rng, disks, sessions, conns: 0, agreed: vec![], leader: 1, leader_synced: 0, rig };
        world.outputs();
        world
    }

    /// Ends a learner's connection; with a crash it loses some of what is not on disk.
    fn hang_up(&mut self, sid: i64, crash: bool) {
        let Some(session) = self.sessions.remove(&sid) else { return };
        self.rig.step(|leader, _, _, out| leader.closed(session.conn, out));
        self.end(sid, session, crash);
    }

    fn end(&mut self, sid: i64, session: Session, crash: bool) {
        let log = &mut self.disks.get_mut(&sid).unwrap().log;
        if let Some(before) = session.before {
            *log = before;
        } else if crash {
            let keep = self.rng.usize(session.synced.min(log.len())..=log.len());
            log.truncate(keep);
        }
    }

    /// The leader is gone; a majority elects the one of them that knows most.
    fn elect(&mut self) {
        let crash = self.rng.bool();
        (1..=SERVERS).for_each(|sid| self.hang_up(sid, crash));
        let leader_log = &mut self.disks.get_mut(&self.leader).unwrap().log;
        let keep = self.rng.usize(self.leader_synced..=leader_log.len());
        leader_log.truncate(keep);
        let mut voters: Vec<i64> = (1..=VOTERS).collect();
        self.rng.shuffle(&mut voters);
        voters.truncate(3);
        let rank = |sid: &i64| (self.disks[sid].epochs.current, self.disks[sid].last(), *sid);
        self.leader = voters.into_iter().max_by_key(rank).unwrap();
        self.rig = elected(&self.disks, self.leader);
        self.leader_synced = self.disks[&self.leader].log.len();
        self.outputs();
    }

    fn connect(&mut self, sid: i64) {
        if sid == self.leader {
            return;
        }
        self.conns += 1;
        let conn = PeerConn(self.conns);
        // Sometimes the leader notices only now that the older connection has ended.
        if let Some(older) = self.sessions.remove(&sid) {
            if self.rng.bool() {
                self.rig.step(|leader, _, _, out| leader.closed(older.conn, out));
            }
            self.end(sid, older, false);
        }
        self.rig.connect(conn);
        let info = LearnerInfo::new(self.disks[&sid].epochs.accepted, ServerId(sid), 0);
        let info = if sid <= VOTERS { ToLeader::FollowerInfo(info) } else { ToLeader::ObserverInfo(info) };
        let session = Session {
            conn,
            inbox: VecDeque::new(),
            epoch: Epoch::default(),
            pending: VecDeque::new(),
            new_leader: false,
            acks: VecDeque::new(),
            synced: self.disks[&sid].log.len(),
            before: Some(self.disks[&sid].log.clone()),
        };
        self.sessions.insert(sid, session);
        self.rig.say_on(conn, &info);
        self.outputs();
    }

    /// One packet of the leader's.
    fn receive(&mut self, sid: i64) {
        let Some(session) = self.sessions.get_mut(&sid) else { return };
        if session.inbox.is_empty() {
            session.inbox.extend(self.rig.heard_on(session.conn));
        }
        let Some(packet) = session.inbox.pop_front() else { return };
        let disk = self.disks.get_mut(&sid).unwrap();
        let what = format!("seed {}: {sid} at {} got {}", self.seed, disk.last(), short(&packet));
        let mut answer = None;
        match packet {
            ToLearner::LeaderInfo { epoch } if epoch < disk.epochs.accepted => {
                return self.hang_up(sid, false);
            }
            ToLearner::LeaderInfo { epoch } => {
                let current = (epoch > disk.epochs.accepted).then_some(disk.epochs.current);
                disk.epochs.accepted = epoch;
                session.epoch = epoch;
                answer = Some(ToLeader::AckEpoch { last: disk.last(), current });
            }
            ToLearner::Diff(_) => {}
            ToLearner::Trunc(zxid) => {
                assert!(disk.log.contains(&zxid) || zxid == Zxid::ZERO, "{what}");
                disk.log.retain(|z| *z <= zxid);
                session.before = Some(disk.log.clone());
            }
            ToLearner::Snap(zxid) => {
                let end = self.rig.leader.proposed;
                assert!(zxid <= end && (zxid > disk.last() || disk.log.is_empty()), "{what}");
                let leader = self.disks[&self.leader].log.iter().copied().filter(|z| *z <= zxid).collect();
                let disk = self.disks.get_mut(&sid).unwrap();
                disk.log = leader;
            }
            ToLearner::Proposal(txn) => {
                assert!(follows(disk.last(), txn.zxid), "{what}");
                disk.log.push(txn.zxid);
                session.pending.push_back(txn.zxid);
                if session.new_leader {
                    session.acks.push_back((txn.zxid, disk.log.len()));
                }
            }
            ToLearner::Commit(zxid) => assert_eq!(session.pending.pop_front(), Some(zxid), "{what}"),
            ToLearner::Inform(txn) => {
                assert!(sid > VOTERS && follows(disk.last(), txn.zxid), "{what}");
                disk.log.push(txn.zxid);
            }
            ToLearner::NewLeader { zxid, .. } => {
                assert_eq!(zxid, session.epoch.start(), "{what}");
                session.new_leader = true;
                session.acks.push_back((zxid, disk.log.len()));
                let outstanding: Vec<Zxid> = session.pending.iter().copied().collect();
                let before = disk.log.len() - outstanding.len();
                let acks = outstanding.into_iter().enumerate().map(|(n, zxid)| (zxid, before + n + 1));
                session.acks.extend(acks);
            }
            ToLearner::UpToDate => session.acks.push_back((session.epoch.start(), 0)),
            ToLearner::Ping(zxid) if session.new_leader && session.acks.is_empty() => {
                answer = Some(ToLeader::Ping { zxid, touched: vec![] });
            }
            ToLearner::Ping(_) => {}
            other => panic!("{}: {other:?}", self.seed),
        }
        let conn = session.conn;
        if let Some(answer) = answer {
            self.rig.say_on(conn, &answer);
            self.outputs();
        }
    }

    /// A learner's disk completes a write.
    fn sync(&mut self, sid: i64) {
        let Some(session) = self.sessions.get_mut(&sid) else { return };
        let Some((zxid, covers)) = session.acks.pop_front() else { return };
        session.synced = if session.before.take().is_some() { covers } else { session.synced.max(covers) };
        if zxid == session.epoch.start() {
            self.disks.get_mut(&sid).unwrap().epochs.current = session.epoch;
        }
        let conn = session.conn;
        self.rig.say_on(conn, &ToLeader::Ack(zxid));
        self.outputs();
    }

    fn propose(&mut self) {
        if self.rig.leader.is_active() {
            let count = self.rng.u32(1..4);
            let batch = self.rig.append(count);
            self.disks.get_mut(&self.leader).unwrap().log.extend(batch.iter().map(|txn| txn.zxid));
            self.rig.step(|leader, now, _, out| leader.propose(now, &batch, out));
            self.outputs();
        }
    }

    fn leader_disk(&mut self) {
        let disk = &self.disks[&self.leader];
        self.leader_synced = disk.log.len();
        let last = disk.last();
        self.rig.durable(last);
        self.outputs();
    }

    /// What the leader wants.
    fn outputs(&mut self) {
        loop {
            let outputs = self.rig.outputs();
            if outputs.is_empty() {
                break;
            }
            for output in outputs {
                self.output(output);
            }
        }
        let leader = &self.rig.leader;
        let applied = leader.committed.min(leader.durable);
        self.rig.applied = applied;
        self.rig.history.finish(applied);
    }

    fn output(&mut self, output: Output) {
        let disk = self.disks.get_mut(&self.leader).unwrap();
        match output {
            Output::WriteAccepted(epoch) => disk.epochs.accepted = epoch,
            Output::CommitSync(epoch) => disk.epochs.current = epoch,
            Output::Active { .. } => self.decided(self.rig.leader.committed),
            Output::Commit(zxid) => self.decided(zxid),
            Output::ReadChain { conn, from, to, .. } => {
                let on_chain = disk.log.contains(&from) && self.rng.u8(..) > 20;
                let records = disk.log.iter().filter(|z| **z > from && **z <= to).map(|z| txn(*z)).collect();
                let chain = if on_chain { Ok(records) } else { Err(BrokenChain) };
                self.rig.step(|leader, now, history, out| leader.chain(now, conn, chain, history, out));
            }
            Output::StreamSnapshot { conn } => {
                self.rig.step(|leader, now, _, _| leader.snapshot_sent(now, conn));
            }
            Output::Close { conn, reason, .. } => {
                let expected = matches!(reason, CloseReason::Ahead { .. } | CloseReason::Replaced(_));
                assert!(expected, "seed {}: {reason}", self.seed);
                let closed = self.sessions.iter().find(|(_, session)| session.conn == conn);
                if let Some(sid) = closed.map(|(sid, _)| *sid) {
                    let session = self.sessions.remove(&sid).unwrap();
                    self.end(sid, session, false);
                }
            }
            Output::StepDown(reason) => {
                assert_eq!(reason, StepDownReason::NotMostRecent, "seed {}", self.seed);
            }
            _ => {}
        }
    }

    /// The leader says that its log is committed up to here: then a majority has it on disk.
    fn decided(&mut self, zxid: Zxid) {
        let log: Vec<Zxid> = self.disks[&self.leader].log.iter().copied().filter(|z| *z <= zxid).collect();
        assert!(log.starts_with(&self.agreed), "seed {}: lost what was committed", self.seed);
        let on_disk = |sid: &i64| {
            let disk = &self.disks[sid].log;
            let synced = match self.sessions.get(sid) {
                _ if *sid == self.leader => &disk[..self.leader_synced],
                Some(Session { before: Some(before), .. }) => before,
                Some(session) => &disk[..session.synced],
                None => disk,
            };
            synced.starts_with(&log)
        };
        assert!((1..=VOTERS).filter(on_disk).count() >= 3, "seed {}: {zxid} is not on a majority", self.seed);
        self.agreed = log;
    }

    fn step(&mut self) {
        let sid = self.rng.i64(1..=SERVERS);
        match self.rng.u32(..1000) {
            0..3 => self.elect(),
            3..8 => {
                let crash = self.rng.bool();
                self.hang_up(sid, crash);
            }
            8..13 => self.connect(sid),
            13..100 if !self.sessions.contains_key(&sid) => self.connect(sid),
            13..200 => self.propose(),
            200..300 => self.leader_disk(),
            300..600 => self.sync(sid),
            600..610 => {
                self.rig.tick(10);
                self.outputs();
            }
            _ => (0..3).for_each(|_| self.receive(sid)),
        }
    }

    /// Faults stop: everybody catches up.
    fn heal(&mut self) {
        for attempt in 0.. {
            assert!(attempt < 20, "seed {}: no leader", self.seed);
            self.elect();
            (1..=SERVERS).for_each(|sid| self.connect(sid));
            for round in 0..200 {
                (1..=SERVERS).for_each(|sid| self.receive(sid));
                (1..=SERVERS).for_each(|sid| self.sync(sid));
                if round == 50 {
                    self.propose();
                }
                self.leader_disk();
            }
            // The elected one may have been refused by voters that know more and were not asked.
            if self.rig.leader.is_active() && self.sessions.len() == SERVERS as usize - 1 {
                break;
            }
        }
        let leader = &self.disks[&self.leader].log;
        assert_eq!(&self.agreed, leader, "seed {}", self.seed);
        for (sid, disk) in &self.disks {
            assert_eq!(&disk.log, leader, "seed {}: server {sid}", self.seed);
        }
    }
}

#[test]
fn committed_transactions_survive_and_all_logs_become_equal() {
    let mut committed = 0;
    for seed in 0..40 {
        let mut world = World::new(seed);
        (0..1500).for_each(|_| world.step());
        world.heal();
        committed += world.agreed.len();
    }
    assert!(committed > 1000, "only {committed} transactions were committed");
}

#[test]
fn packets_at_the_wrong_time_close_one_connection_only() {
    let mut rng = fastrand::Rng::with_seed(1);
    for _ in 0..200 {
        let mut rig = Rig::new(1, &[z(1, 1), z(1, 2)]);
        for _ in 0..100 {
            let sid = rng.i64(1..10);
            let zxid =
                [z(1, 1), z(1, 2), z(2, 0), z(2, 1), z(2, 9), z(3, 0), Zxid(-1), Zxid(i64::MIN), z(1, 9)];
            let zxid = zxid[rng.usize(..zxid.len())];
            let session = SessionId(1);
            let info = LearnerInfo::new(Epoch(rng.u32(..4)), ServerId(sid), rng.i64(-1..2));
            match rng.u32(..12) {
                0 => rig.connect(conn(sid)),
                1 => rig.say(sid, ToLeader::FollowerInfo(info)),
                2 => rig.say(sid, ToLeader::ObserverInfo(info)),
                3 => rig.ack_epoch(sid, zxid, [None, Some(1), Some(9)][rng.usize(..3)]),
                4 => rig.ack(sid, zxid),
                5 => rig.say(sid, ToLeader::Ping { zxid, touched: vec![(session, -1)] }),
                6 => rig.say(sid, ToLeader::Other(rng.i32(..))),
                7 => rig.say(sid, ToLeader::Revalidate { session, timeout_ms: -1 }),
                8 => rig.join(sid, zxid, Some(1)),
                9 => rig.ack(sid, rig.leader.epoch.start()),
                10 if rig.leader.is_active() => _ = rig.propose(1),
                _ => rig.tick(1000),
            }
        }
    }
}
