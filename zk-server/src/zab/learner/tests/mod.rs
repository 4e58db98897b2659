//! A learner with a disk that answers at once or when it is told to, and nothing else around it.

mod broadcast;
mod epochs;
mod in_flight;
mod reconfig;
mod replay;
mod timing;
mod transfer;
mod with_leader;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use zk_proto::Zxid;

use super::{CannotTruncate, Ended, Learner, Memory, Options, Output, Role, Start};
use crate::storage::RecordHeader;
use crate::zab::ensemble::Ensemble;
use crate::zab::wire::{QuorumPacket, ToLeader, ToLearner};
use crate::zab::{Epoch, Epochs, PeerConn, Proposal, ServerId};

const CONN: PeerConn = PeerConn(7);

/// What disk and tree say.
#[derive(Debug, Clone, Copy)]
struct World {
    /// Disk operations are answered in the same step.
    prompt: bool,
    /// The log can be cut.
    can_truncate: bool,
    /// The first staged transaction after which the tree is wrong.
    wrong_after: Option<Zxid>,
}

impl Default for World {
    fn default() -> Self {
        World { prompt: true, can_truncate: true, wrong_after: None }
    }
}

struct Kit {
    learner: Learner,
    world: World,
    now: u64,
    out: Vec<Output>,
    /// What was sent and not yet looked at.
    sent: Vec<ToLeader>,
    sent_bytes: BytesMut,
    /// Number of writes to the connection.
    writes: usize,
    /// Everything but [`Output::Send`].
    log: Vec<Output>,
}

fn z(epoch: u32, counter: u32) -> Zxid {
    Zxid::new(epoch, counter)
}

fn txn_of(zxid: Zxid, kind: i32, body: &[u8]) -> Proposal {
    let mut payload = Vec::new();
    RecordHeader { client_id: 1, cxid: 2, zxid, time_ms: 3, kind }.encode(&mut payload);
    payload.extend_from_slice(body);
    Proposal { zxid, payload: Bytes::from(payload) }
}

/// An error transaction.
fn txn(zxid: Zxid) -> Proposal {
    txn_of(zxid, -1, &(-4i32).to_be_bytes())
}

fn proposal(zxid: Zxid) -> ToLearner {
    ToLearner::Proposal(txn(zxid))
}

fn new_leader(epoch: u32) -> ToLearner {
    ToLearner::NewLeader { zxid: Epoch(epoch).start(), config: None }
}

fn ensemble(version: i64, lines: &[&str]) -> Arc<Ensemble> {
    let text = format!("{}\nversion={version:x}", lines.join("\n"));
    Arc::new(Ensemble::parse(&text).unwrap())
}

const THREE: [&str; 3] = [
    "server.1=127.0.0.1:21101:21201:participant",
    "server.2=127.0.0.1:21102:21202:participant",
    "server.3=127.0.0.1:21103:21203:participant",
];

/// Server 1 with the history of epoch 1 up to counter 5, leader 2.
fn start() -> Start {
    Start {
        me: ServerId(1),
        role: Role::Follower,
        leader: ServerId(2),
        epochs: Epochs { accepted: Epoch(1), current: Epoch(1) },
        last: z(1, 5),
        committed: z(1, 4),
        ensemble: ensemble(0, &THREE),
        last_seen: None,
        memory: Memory::default(),
    }
}

fn options() -> Options {
    Options { tick_ms: 1000, reconfig_enabled: true, ..Options::default() }
}

impl Kit {
    fn new(start: Start, world: World) -> Kit {
        Kit::with_options(start, options(), world)
    }

    fn with_options(start: Start, options: Options, world: World) -> Kit {
        let mut out = Vec::new();
        let learner = Learner::new(start, options, 0, &mut out);
        let mut kit = Kit {
            learner,
            world,
            now: 0,
            out,
            sent: Vec::new(),
            sent_bytes: BytesMut::new(),
            writes: 0,
            log: Vec::new(),
        };
        kit.settle();
        kit
    }

    /// A learner that is connected and waits for what follows ACKEPOCH of epoch 2.
    fn at_transfer(start: Start, world: World) -> Kit {
        let mut kit = Kit::new(start, world);
        kit.step(|learner, now, out| learner.connected(now, CONN, out));
        kit.packet(ToLearner::LeaderInfo { epoch: Epoch(2) });
        if !world.prompt {
            kit.step(|learner, now, out| learner.accepted_written(now, Epoch(2), out));
        }
        kit
    }

    /// A learner that follows the established leader of epoch 2.
    fn established(start: Start, world: World) -> Kit {
        let last = start.last;
        let mut kit = Kit::at_transfer(start, World { prompt: true, ..world });
        kit.packets([ToLearner::Diff(last), new_leader(2), ToLearner::UpToDate]);
        assert!(kit.learner.is_established());
        kit.world = world;
        kit.take_sent();
        kit.log.clear();
        kit
    }

    fn step(&mut self, input: impl FnOnce(&mut Learner, u64, &mut Vec<Output>)) {
        input(&mut self.learner, self.now, &mut self.out);
        self.settle();
    }

    fn packet(&mut self, packet: ToLearner) {
        self.step(|learner, now, out| learner.packet(now, CONN, packet, out));
    }

    fn packets(&mut self, packets: impl IntoIterator<Item = ToLearner>) {
        packets.into_iter().for_each(|packet| self.packet(packet));
    }

    fn at(&mut self, now: u64) {
        self.now = now;
        self.step(|learner, now, out| learner.tick(now, out));
    }

    /// Does what the outputs say, as far as the world is prompt.
    fn settle(&mut self) {
        while !self.out.is_empty() {
            for output in std::mem::take(&mut self.out) {
                let (learner, now, out) = (&mut self.learner, self.now, &mut self.out);
                match &output {
                    Output::Send { conn, bytes } => {
                        assert_eq!(*conn, CONN);
                        self.writes += 1;
                        self.sent_bytes.extend_from_slice(bytes);
                        while let Some(packet) = QuorumPacket::decode(&mut self.sent_bytes, 1 << 20).unwrap()
                        {
                            self.sent.push(ToLeader::try_from(packet).unwrap());
                        }
                        continue;
                    }
                    _ if !self.world.prompt => {}
                    Output::StageCommit { txns, check_digests } => {
                        let wrong = self.world.wrong_after.filter(|_| *check_digests);
                        let wrong = wrong.filter(|wrong| txns.iter().any(|txn| txn.zxid == *wrong));
                        learner.staged(now, wrong.map_or(Ok(()), Err), out);
                    }
                    Output::WriteAccepted(epoch) => learner.accepted_written(now, *epoch, out),
                    Output::Truncate(zxid) => {
                        let result = if self.world.can_truncate { Ok(*zxid) } else { Err(CannotTruncate) };
                        learner.truncated(now, result, out);
                    }
                    Output::CommitSync(epoch) | Output::Install { epoch, .. } => {
                        learner.history_durable(now, *epoch, out);
                    }
                    Output::Propose(proposal) => learner.durable(proposal.zxid, out),
                    _ => {}
                }
                self.log.push(output);
            }
        }
    }

    fn take_sent(&mut self) -> Vec<ToLeader> {
        std::mem::take(&mut self.sent)
    }

    fn ended(&self) -> Option<&Ended> {
        self.log.iter().find_map(|output| match output {
            Output::Ended(ended) => Some(ended),
            _ => None,
        })
    }

    fn has(&self, wanted: impl Fn(&Output) -> bool) -> bool {
        self.log.iter().any(wanted)
    }

    /// The names of what was asked, but for connections and the end.
    fn asked(&self) -> Vec<String> {
        let name = |output: &Output| {
            Some(match output {
                Output::WriteAccepted(epoch) => format!("accept {epoch}"),
                Output::Truncate(zxid) => format!("truncate {zxid}"),
                Output::ReceiveSnapshot { zxid } => format!("receive {zxid}"),
                Output::AdoptSnapshot { zxid } => format!("adopt {zxid}"),
                Output::StageCommit { txns, .. } => format!("stage {}", txns.len()),
                Output::CommitSync(epoch) => format!("sync {epoch}"),
                Output::Install { zxid, epoch } => format!("install {zxid} {epoch}"),
                Output::Propose(proposal) => format!("propose {}", proposal.zxid),
                Output::Commit(zxid) => format!("commit {zxid}"),
                Output::Ready { epoch, committed } => format!("ready {epoch} {committed}"),
                Output::ConfigSeen(ensemble) => format!("seen {:x}", ensemble.version),
                Output::Activate { ensemble, .. } => format!("activate {:x}", ensemble.version),
                Output::SyncDone { after } => format!("synced {after}"),
                Output::Revalidated { valid, .. } => format!("revalidated {valid}"),
                Output::Alarm(_) => "alarm".to_owned(),
                Output::Dial(_) | Output::Send { .. } | Output::Close(_) | Output::Ended(_) => return None,
            })
        };
        self.log.iter().filter_map(name).collect()
    }
}

/// Disk operations wait for the test.
const SLOW: World = World { prompt: false, can_truncate: true, wrong_after: None };

fn acks(sent: &[ToLeader]) -> Vec<Zxid> {
    let ack = |packet: &ToLeader| match packet {
        ToLeader::Ack(zxid) => Some(*zxid),
        _ => None,
    };
    sent.iter().filter_map(ack).collect()
}

fn commit(epoch: u32, counter: u32) -> ToLearner {
    ToLearner::Commit(z(epoch, counter))
}

/// The only way on is the leader's tree.
fn assert_asks_for_snapshot(kit: &Kit) -> Memory {
    let ended = kit.ended().expect("refused");
    assert!(ended.redial && ended.memory.ask_snapshot, "{ended:?}");
    assert!(kit.has(|o| matches!(o, Output::Close(CONN))));
    ended.memory
}

/// Nothing has reached disk or tree.
fn assert_untouched(kit: &Kit) {
    let touched = |o: &Output| {
        matches!(
            o,
            Output::StageCommit { .. } | Output::CommitSync(_) | Output::Install { .. } | Output::Propose(_)
        ) || matches!(o, Output::AdoptSnapshot { .. } | Output::Commit(_))
    };
    assert!(!kit.has(touched), "{:?}", kit.asked());
    assert!(!kit.ended().unwrap().rebuild);
}
