//! A server of the ensemble: its life, and what its member asks for.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use fastrand::Rng;
use zk_proto::{SessionId, Zxid};
use zk_server::auth::Providers;
use zk_server::config::{HostPort, Membership, ServerSpec};
use zk_server::member::{
    Dial, DiskOp, DiskOwner, Input, Member, MemberOptions, MemberShell, Opened, Serving,
};
use zk_server::replica::messages::{Input as ReplicaInput, IoThread, Mail, Now, Shell, Submission};
use zk_server::replica::prepare::PrepareOptions;
use zk_server::replica::{Replica, ReplicaOptions, Shared};
use zk_server::session::SessionIdGenerator;
use zk_server::storage::sim::{Fault, SimDisk};
use zk_server::storage::{Base, DataDirs, LogOptions, RecoveryOptions, TxnLog};
use zk_server::tree::SnapshotPin;
use zk_server::zab::election::{Algorithm, ConnOptions, ElectionOptions};
use zk_server::zab::ensemble::Ensemble;
use zk_server::zab::leader::LeaderOptions;
use zk_server::zab::{PeerConn, PeerType, ServerId, learner};

use super::check::Model;
use super::disk::{DiskItem, SnapshotWork};
use super::port::Port;
use super::{Event, MS, NodeId, Us, Violation, World, trace};

/// What a machine is, whether its server runs or not.
pub(super) struct Node {
    pub disk: SimDisk,
    pub process: Option<Process>,
    /// Number of the process; events for an older one come to nothing.
    pub generation: u64,
    /// The machine has power; without, nobody hears from it.
    pub powered: bool,
    /// What happens when it goes on; `None` while it is not paused.
    pub paused: Option<Vec<Event>>,
    /// Its clock runs this much faster, millionths.
    pub drift_ppm: i64,
    /// Added to the wall clock.
    pub wall_offset_ms: i64,
    /// The next disk operation is interrupted.
    pub crash_in_operation: Option<Crash>,
    /// The next disk operation fails.
    pub disk_error: bool,
    /// Slow disks: factors that apply now.
    pub disk_factor: u64,
    /// Its history cannot be read; it has to fetch a leader's.
    pub damaged: bool,
    /// What it should have on its disk.
    pub model: Model,
}

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crash {
    /// Nothing that was written is lost.
    Kill,
    /// What was not synced may be lost.
    Power,
}

/// A running server.
pub(super) struct Process {
    pub member: Member,
    pub shared: Arc<Shared>,
    pub dirs: DataDirs,
    pub owner: DiskOwner,
    pub log: Option<TxnLog>,
    pub queue: VecDeque<DiskItem>,
    /// The disk works on the front of the queue.
    pub busy: bool,
    pub snapshot: Option<SnapshotWork>,
    pub serving: Serving,
    /// The quorum port is open.
    pub listening: bool,
    pub port: Port,
}

/// What a member has asked for.
pub(super) enum Effect {
    Append { records: Bytes, first: Zxid, last: Zxid },
    Disk(DiskOp),
    Dial(Dial, Vec<HostPort>),
    Send(PeerConn, Vec<u8>),
    Close(PeerConn, String),
    Stream(PeerConn, Arc<SnapshotPin>),
    Listen(bool),
    Pause(PeerConn, bool),
    Serve(Serving),
    Snapshot(Arc<SnapshotPin>),
    Mail(Mail),
}

/// Collects what a member asks for.
#[derive(Default)]
pub(super) struct Collector {
    effects: Vec<Effect>,
    /// What is on its way to the other ends.
    backlog: Vec<(PeerConn, usize)>,
}

impl Shell for Collector {
    fn append(&mut self, records: Bytes, first: Zxid, last: Zxid) {
        self.effects.push(Effect::Append { records, first, last });
    }

    fn deliver(&mut self, _: IoThread, mail: &mut Mail) {
        self.effects.push(Effect::Mail(std::mem::take(mail)));
    }

    fn snapshot(&mut self, pin: Arc<SnapshotPin>) {
        self.effects.push(Effect::Snapshot(pin));
    }
}

impl MemberShell for Collector {
    fn disk(&mut self, op: DiskOp) {
        self.effects.push(Effect::Disk(op));
    }

    fn dial(&mut self, dial: Dial, addresses: Vec<HostPort>) {
        self.effects.push(Effect::Dial(dial, addresses));
    }

    fn send(&mut self, conn: PeerConn, bytes: Vec<u8>) {
        if let Some(Effect::Send(last, before)) = self.effects.last_mut()
            && *last == conn
        {
            before.extend_from_slice(&bytes);
            return;
        }
        self.effects.push(Effect::Send(conn, bytes));
    }

    fn flush(&mut self) {}

    fn backlog(&self, conn: PeerConn) -> usize {
        self.backlog.iter().find(|(known, _)| *known == conn).map_or(0, |(_, bytes)| *bytes)
    }

    fn close(&mut self, conn: PeerConn, reason: &str) {
        self.effects.push(Effect::Close(conn, reason.to_owned()));
    }

    fn reject(&mut self, conn: PeerConn, reason: &str) {
        self.effects.push(Effect::Close(conn, format!("rejected: {reason}")));
    }

    fn stream_snapshot(&mut self, conn: PeerConn, pin: Arc<SnapshotPin>) {
        self.effects.push(Effect::Stream(conn, pin));
    }

    fn listen(&mut self, open: bool) {
        self.effects.push(Effect::Listen(open));
    }

    fn pause(&mut self, conn: PeerConn, paused: bool) {
        self.effects.push(Effect::Pause(conn, paused));
    }

    fn serve(&mut self, serving: Serving) {
        self.effects.push(Effect::Serve(serving));
    }
}

impl Node {
    pub fn new() -> Self {
        Node {
            disk: SimDisk::new(),
            process: None,
            generation: 0,
            powered: true,
            paused: None,
            drift_ppm: 0,
            wall_offset_ms: 0,
            crash_in_operation: None,
            disk_error: false,
            disk_factor: 1,
            damaged: false,
            model: Model::default(),
        }
    }

    pub fn draw_clock(&mut self, drift_ppm: u64, rng: &mut Rng) {
        let drift = drift_ppm as i64;
        self.drift_ppm = rng.i64(-drift..=drift);
    }

    /// A time span of the node's clock, as the world measures it.
    pub fn true_us(&self, us: Us) -> Us {
        (us as i64 * 1_000_000 / (1_000_000 + self.drift_ppm)).max(1) as Us
    }

    pub fn clock(&self, now: Us) -> Now {
        // No overflow: simulated time is hours, not years.
        let local_us = now as i64 + now as i64 * self.drift_ppm / 1_000_000;
        let wall_start = 1_700_000_000_000;
        Now { mono_ms: (local_us / 1000) as u64, wall_ms: wall_start + local_us / 1000 + self.wall_offset_ms }
    }

    pub fn describe(&self) -> String {
        let Some(process) = &self.process else {
            return if self.powered { "not running" } else { "no power" }.into();
        };
        let status = process.member.status();
        let paused = if self.paused.is_some() { " PAUSED" } else { "" };
        format!(
            "{:?} leader {:?} serving {:?} epochs {:?} tree {} committed {} disk queue {}{paused} {:?} {:?}",
            status.state,
            status.leader.map(|id| id.0),
            status.serving,
            (status.epochs.accepted.0, status.epochs.current.0),
            process.shared.tree.read().last_zxid(),
            status.committed,
            process.queue.len(),
            status.learning,
            status.leading,
        )
    }
}

fn host(node: NodeId) -> String {
    format!("10.0.0.{}", node + 1)
}

/// The address of a node.
pub(super) fn address(node: NodeId) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, node as u8 + 1).into()
}

const QUORUM_PORT: u16 = 2888;
const ELECTION_PORT: u16 = 3888;

/// The node that has an address.
pub(super) fn node_at(address: &HostPort) -> Option<NodeId> {
    address.host.rsplit('.').next()?.parse::<usize>().ok()?.checked_sub(1)
}

impl World {
    fn ensemble(&self) -> Ensemble {
        let spec = |node: NodeId| {
            let role = if node < self.swarm.voters { "participant" } else { "observer" };
            let text = format!("{}:{QUORUM_PORT}:{ELECTION_PORT}:{role};2181", host(node));
            (ServerId(node as i64 + 1), ServerSpec::parse(&text).expect("a valid server line"))
        };
        let servers = (0..self.swarm.servers()).map(spec).collect();
        let membership =
            Membership { servers, groups: Default::default(), weights: Default::default(), version: None };
        Ensemble::from(membership)
    }

    fn member_options(&mut self, node: NodeId) -> MemberOptions {
        let me = ServerId(node as i64 + 1);
        let swarm = &self.swarm;
        MemberOptions {
            me,
            peer_type: if node < swarm.voters { PeerType::Participant } else { PeerType::Observer },
            election: ElectionOptions {
                algorithm: if swarm.query_rounds { Algorithm::QueryRounds } else { Algorithm::FastLeader },
                notification_interval_max_ms: 5000,
                seed: self.rng.u64(..),
                ..ElectionOptions::default()
            },
            connections: ConnOptions {
                me,
                addresses: vec![HostPort { host: host(node), port: ELECTION_PORT }],
                multi_address: false,
                hello_timeout_ms: 5000,
            },
            leader: LeaderOptions {
                tick_ms: swarm.tick_ms,
                init_limit_ticks: swarm.init_limit,
                sync_limit_ticks: swarm.sync_limit,
                snapshot_size_factor: swarm.snapshot_size_factor,
                snapshot_instead_of_truncation_bytes: swarm.snapshot_instead_of_truncation_bytes,
                confirm_syncs: swarm.confirm_syncs,
                roll_over_counter: swarm.roll_over_counter,
                ..LeaderOptions::default()
            },
            learner: learner::Options {
                tick_ms: swarm.tick_ms,
                init_limit: u64::from(swarm.init_limit),
                sync_limit: u64::from(swarm.sync_limit),
                ..learner::Options::default()
            },
            history: swarm.history,
            leader_serves: true,
            read_only_after_ms: None,
            replica_tick_ms: (swarm.tick_ms / 4).max(1),
        }
    }

    /// Starts the server of a node, unless it runs.
    pub(super) fn start(&mut self, node: NodeId) -> Result<(), Violation> {
        if self.nodes[node].process.is_some() {
            return Ok(());
        }
        trace::set_node(node + 1);
        let place = &mut self.nodes[node];
        let powered_before = std::mem::replace(&mut place.powered, true);
        place.generation += 1;
        let interrupted =
            !self.healing && self.swarm.faults.crash_in_operation > 0.0 && self.rng.u8(0..6) == 0;
        let crash = if self.rng.bool() { Crash::Power } else { Crash::Kill };
        if interrupted {
            place.disk.inject(place.disk.operations() + self.rng.u64(0..12), Fault::PowerLoss);
        }
        if !powered_before {
            self.wake_connections();
        }
        match self.open(node) {
            Ok(process) => {
                self.trace.tell(|| "starts".into());
                self.nodes[node].process = Some(process);
                self.nodes[node].disk.inject(u64::MAX, Fault::PowerLoss);
                self.plan_tick(node);
                self.step_with(node, |member, now, shell| member.begin(now, shell))
            }
            Err(_) if self.nodes[node].disk.is_off() => {
                self.trace.tell(|| "crashes while it starts".into());
                self.after_crash(node, crash);
                self.plan(100 * MS, Event::Start { node });
                Ok(())
            }
            Err(error) => Err(Violation(format!("node {} cannot start: {error}", node + 1))),
        }
    }

    fn open(&mut self, node: NodeId) -> Result<Process, String> {
        let recovery = RecoveryOptions { recent_max: self.swarm.history + 1, ..RecoveryOptions::default() };
        let log = LogOptions {
            pre_alloc_bytes: 8 << 10,
            file_bytes_max: Some(self.swarm.log_bytes_max),
            ..LogOptions::default()
        };
        let fs = Arc::new(self.nodes[node].disk.clone());
        let dirs = DataDirs::open(fs, Path::new("/data"), None, true).map_err(|e| e.to_string())?;
        let opened = DiskOwner::open(&dirs, &recovery, 7).map_err(|e| e.to_string())?;
        let Opened { recovered, base, store, damaged, .. } = opened;
        let last = recovered.tree.last_zxid();
        let epochs = store.epochs();
        let committed = store.committed();
        if damaged {
            self.damaged(node);
        } else {
            self.nodes[node].model.recovered(last, &recovered.recent, epochs).map_err(|e| e.0)?;
        }
        self.nodes[node].damaged = damaged;
        let recent = recovered.recent;
        let shared = Arc::new(Shared::new(recovered.tree));
        if base == Base::New {
            let pin = shared.tree.write().pin();
            SnapshotWork::begin(&dirs, pin)?.map_or(Ok(()), |work| work.finish(&shared))?;
        }
        let now = self.nodes[node].clock(self.now);
        let options = self.replica_options(node, now);
        let replica = Replica::new(shared.clone(), options, now);
        let ensemble = Arc::new(self.ensemble());
        let member_options = self.member_options(node);
        let member = Member::new(replica, recent, epochs, committed, ensemble, None, damaged, member_options);
        let owner = DiskOwner::new(dirs.clone(), store, recovery, log, shared.clone(), true, 7, damaged);
        Ok(Process {
            member,
            log: Some(owner.open_log(last)),
            shared,
            dirs,
            owner,
            queue: VecDeque::new(),
            busy: false,
            snapshot: None,
            serving: Serving::No,
            listening: false,
            port: Port::default(),
        })
    }

    /// A power loss has left a history that nobody can tell from a damaged one: intact records behind torn ones.
    /// If that happens to too many at a time, there is nobody to fetch the history from.
    fn damaged(&mut self, node: NodeId) {
        self.trace.tell(|| "its history is damaged".into());
        self.counts.damaged += 1;
        self.nodes[node].model.lost();
        let others = self.nodes[..self.swarm.voters].iter().enumerate();
        let healthy = others.filter(|(other, place)| *other != node && !place.damaged).count();
        self.inconclusive |= healthy <= self.swarm.voters / 2;
    }

    fn replica_options(&mut self, node: NodeId, now: Now) -> ReplicaOptions {
        // Unique whatever the wall clock does: that is tested elsewhere.
        let starts = now.mono_ms * 16 + self.nodes[node].generation % 16;
        ReplicaOptions {
            prepare: PrepareOptions {
                extended_types: false,
                enforce_quota: false,
                digest: true,
                close_session_paths: true,
                reconfig: false,
                providers: Providers::default(),
            },
            tick_ms: self.swarm.tick_ms,
            snap_count: self.swarm.snap_count,
            snap_size_bytes: u64::MAX / 4,
            container_check_ms: 5000,
            container_max_per_minute: 10_000,
            container_max_never_used_ms: 0,
            session_ids: SessionIdGenerator::new(node as u8 + 1, starts),
            seed: self.rng.u64(..),
            io_threads: 1,
        }
    }

    fn plan_tick(&mut self, node: NodeId) {
        let place = &self.nodes[node];
        let event = Event::Tick { node, generation: place.generation };
        let delay = place.true_us(50 * MS);
        self.plan(delay, event);
    }

    pub(super) fn tick(&mut self, node: NodeId, generation: u64) -> Result<(), Violation> {
        if self.nodes[node].generation != generation || self.nodes[node].process.is_none() {
            return Ok(());
        }
        self.plan_tick(node);
        let now = self.nodes[node].clock(self.now);
        let sessions = match &mut self.nodes[node].process {
            Some(process) => process.port.take_heard(),
            None => Vec::new(),
        };
        let touch = ReplicaInput::Touch { thread: 0, until_ms: now.mono_ms, sessions };
        self.step(node, Input::Replica(touch))?;
        self.backlog = self.net.backlog(node);
        self.step(node, Input::Replica(ReplicaInput::Tick))
    }

    /// Gives an input to a node that may have crashed meanwhile.
    pub(super) fn step(&mut self, node: NodeId, input: Input) -> Result<(), Violation> {
        self.step_with(node, |member, now, shell| member.step(now, input, shell))
    }

    fn step_with(
        &mut self,
        node: NodeId,
        work: impl FnOnce(&mut Member, Now, &mut dyn MemberShell),
    ) -> Result<(), Violation> {
        let now = self.nodes[node].clock(self.now);
        let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
        trace::set_node(node + 1);
        let mut collector = Collector { backlog: std::mem::take(&mut self.backlog), effects: Vec::new() };
        work(&mut process.member, now, &mut collector);
        for effect in collector.effects {
            self.effect(node, effect)?;
        }
        self.check_step(node)
    }

    fn effect(&mut self, node: NodeId, effect: Effect) -> Result<(), Violation> {
        match effect {
            Effect::Append { records, first, last } => {
                self.nodes[node].model.append(&records, first)?;
                self.enqueue(node, DiskItem::Append { records, first, last });
            }
            Effect::Disk(op) => {
                self.trace.tell(|| format!("disk: {}", super::disk::name(&op)));
                self.nodes[node].model.asked(&op)?;
                self.enqueue(node, DiskItem::Op(op));
            }
            Effect::Dial(dial, addresses) => self.dial(node, dial, &addresses),
            Effect::Send(conn, bytes) => {
                self.trace.mix(conn.0 ^ bytes.len() as u64);
                self.send(node, conn, bytes)?;
            }
            Effect::Close(conn, reason) => {
                self.trace.tell(|| format!("closes {conn:?}: {reason}"));
                if reason.starts_with("rejected")
                    && !reason.contains("in time")
                    && !reason.contains("nothing heard")
                {
                    return Err(Violation(format!("node {}: {conn:?} {reason}", node + 1)));
                }
                self.close(conn);
            }
            Effect::Stream(conn, pin) => self.stream(conn, pin),
            Effect::Listen(open) => {
                if let Some(process) = &mut self.nodes[node].process {
                    process.listening = open;
                }
            }
            Effect::Pause(conn, paused) => self.pause_conn(conn, paused),
            Effect::Serve(serving) => {
                self.trace.tell(|| format!("serves: {serving:?}"));
                let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
                process.serving = serving;
                if serving == Serving::Yes {
                    let status = process.member.status();
                    // The others may have made the epoch current before this node has.
                    if let Some(epoch) = status.leading.and_then(|leading| leading.epoch) {
                        self.checker.leads(epoch, node)?;
                    }
                } else {
                    self.close_clients(node);
                }
            }
            Effect::Snapshot(pin) => self.begin_snapshot(node, pin),
            Effect::Mail(mail) => self.mail(node, mail),
        }
        Ok(())
    }

    /// Ends the process of a node at this moment.
    pub(super) fn crash(&mut self, node: NodeId, crash: Crash) {
        if self.nodes[node].process.is_none() {
            return;
        }
        trace::set_node(node + 1);
        self.trace.tell(|| format!("crashes: {crash:?}"));
        self.counts.crashes += 1;
        self.after_crash(node, crash);
    }

    fn after_crash(&mut self, node: NodeId, crash: Crash) {
        let place = &mut self.nodes[node];
        place.disk = match crash {
            Crash::Kill => place.disk.after_kill(),
            Crash::Power => place.disk.restart(&mut self.rng),
        };
        place.process = None;
        place.paused = None;
        place.generation += 1;
        place.powered = crash == Crash::Kill;
        place.crash_in_operation = None;
        place.disk_error = false;
        self.node_gone(node, crash);
        self.links_gone(node, crash);
    }

    /// Crashes a node and starts it again after a while.
    pub(super) fn crash_and_restart(&mut self, node: NodeId, crash: Crash, down: Us) {
        self.crash(node, crash);
        self.plan(down, Event::Start { node });
    }

    pub(super) fn resume(&mut self, node: NodeId) {
        if let Some(put_off) = self.nodes[node].paused.take() {
            trace::set_node(node + 1);
            self.trace.tell(|| "goes on".into());
            for event in put_off {
                self.plan(0, event);
            }
        }
    }

    /// Hands over what the I/O thread has gathered.
    pub(super) fn submit(&mut self, node: NodeId, generation: u64) -> Result<(), Violation> {
        if self.nodes[node].generation != generation {
            return Ok(());
        }
        let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
        let submission: Submission = process.port.take_submission();
        self.step(node, Input::Replica(ReplicaInput::Submit(submission)))
    }

    /// Which sessions a node's tree knows.
    pub(super) fn sessions_of(process: &Process) -> Vec<SessionId> {
        process.shared.tree.read().sessions().map(|(id, _)| SessionId(id)).collect()
    }
}
