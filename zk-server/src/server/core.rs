//! The replica and whoever runs it.
//!
//! The replica has no thread. An input is queued, and whoever gets the replica's lock works the queue off (flat
//! combining): usually the I/O thread that brings the input, or the log thread that has just made something
//! durable. Whoever does not get the lock leaves: its input will be seen, because the holder looks at the queue
//! again after it let go.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use parking_lot::Mutex;
use zk_proto::Zxid;

use super::peers::Peers;
use super::snapshots::SnapshotQueue;
use crate::config::{HostPort, ServerSpec};
use crate::member::{self, Dial, DiskOp, Member, MemberShell, Serving};
use crate::net::Inbox;
use crate::replica::Replica;
use crate::replica::messages::{Input, IoThread, Mail, Now, Shell};
use crate::storage::LogThread;
use crate::tree::SnapshotPin;
use crate::zab::PeerConn;

/// See the module.
pub(super) struct Core {
    queue: Mutex<Vec<Event>>,
    running: Mutex<Running>,
    started: Instant,
    /// The replica panicked: its state is worth nothing, and nothing is done with it any more.
    broken: AtomicBool,
    on_broken: Box<dyn Fn() + Send + Sync>,
}

struct Running {
    node: Node,
    world: World,
    inputs: Vec<Event>,
}

/// What decides.
pub(super) enum Node {
    /// A server that is alone.
    Standalone(Box<Replica>),
    /// A member of an ensemble.
    Member(Box<Member>),
}

/// What a [`Node`] gets.
enum Event {
    Replica(Input),
    Member(member::Input),
    Begin,
}

impl Node {
    fn replica(&self) -> &Replica {
        match self {
            Node::Standalone(replica) => replica,
            Node::Member(member) => member.replica(),
        }
    }

    fn step(&mut self, now: Now, event: Event, world: &mut World) {
        match (self, event) {
            (Node::Standalone(replica), Event::Replica(input)) => replica.step(now, input, world),
            (Node::Standalone(_), Event::Member(_) | Event::Begin) => {}
            (Node::Member(member), Event::Replica(input)) => {
                member.step(now, member::Input::Replica(input), world);
            }
            (Node::Member(member), Event::Member(input)) => member.step(now, input, world),
            (Node::Member(member), Event::Begin) => member.begin(now, world),
        }
    }
}

/// Where transactions are kept.
pub(super) enum Log {
    /// Nowhere: they are as durable as they will ever be.
    Memory,
    /// On disk.
    Disk(LogThread),
    /// The server has stopped.
    Closed,
}

/// What the replica's requests become.
struct World {
    log: Log,
    inboxes: Arc<[Inbox]>,
    snapshots: SnapshotQueue,
    /// For the log, in order; handed over when the replica has seen all of its inputs.
    log_work: Vec<LogWork>,
    /// What became durable by being handed to [`Log::Memory`].
    durable: Option<Zxid>,
    /// I/O threads to wake, when the tree is not locked any more.
    to_wake: Vec<IoThread>,
    /// The other members of the ensemble.
    peers: Option<Peers>,
}

enum LogWork {
    Append { records: Bytes, first: Zxid, last: Zxid },
    Roll,
    Disk(DiskOp),
}

impl Core {
    /// `on_broken` is called when the replica has panicked.
    pub(super) fn new(
        node: Node,
        inboxes: Arc<[Inbox]>,
        snapshots: SnapshotQueue,
        started: Instant,
        on_broken: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let world = World {
            log: Log::Memory,
            inboxes,
            snapshots,
            log_work: Vec::new(),
            durable: None,
            to_wake: Vec::new(),
            peers: None,
        };
        Core {
            queue: Mutex::default(),
            running: Mutex::new(Running { node, world, inputs: Vec::new() }),
            started,
            broken: AtomicBool::new(false),
            on_broken: Box::new(on_broken),
        }
    }

    /// Says where transactions go, before the first one. Returns where they went until now.
    pub(super) fn set_log(&self, log: Log) -> Log {
        std::mem::replace(&mut self.running.lock().world.log, log)
    }

    /// Introduces the other members, before [`Core::begin`].
    pub(super) fn set_peers(&self, peers: Peers) {
        self.running.lock().world.peers = Some(peers);
    }

    /// Lets a member of an ensemble look for a leader.
    pub(super) fn begin(&self) {
        self.queue.lock().push(Event::Begin);
        self.work();
    }

    /// Stops keeping transactions: nothing is answered any more. Returns where they went until now; shut that
    /// down without holding anything.
    pub(super) fn close(&self) -> Log {
        let mut running = self.running.lock();
        running.world.snapshots.close();
        running.world.peers = None;
        std::mem::replace(&mut running.world.log, Log::Closed)
    }

    /// Asks for a snapshot.
    pub(super) fn request_snapshot(&self, pin: Arc<SnapshotPin>) {
        self.running.lock().world.snapshots.request(pin);
    }

    /// The time.
    pub(super) fn now(&self) -> Now {
        now(self.started)
    }

    /// Gives the replica something to do. Must not be called with the tree or an inbox locked.
    pub(super) fn submit(&self, input: Input) {
        self.queue.lock().push(Event::Replica(input));
        self.work();
    }

    /// Gives a member of an ensemble what came from the others, or from its disk.
    pub(super) fn submit_member(&self, inputs: impl IntoIterator<Item = member::Input>) {
        self.queue.lock().extend(inputs.into_iter().map(Event::Member));
        self.work();
    }

    /// Looks at the member of an ensemble, if this server is one.
    pub(super) fn with_member<T>(&self, look: impl FnOnce(&Member) -> T) -> Option<T> {
        let seen = match &self.running.lock().node {
            Node::Standalone(_) => None,
            Node::Member(member) => Some(look(member)),
        };
        self.work();
        seen
    }

    /// Looks at the replica while it does nothing.
    pub(super) fn with<T>(&self, look: impl FnOnce(&Replica) -> T) -> T {
        let seen = look(self.running.lock().node.replica());
        // Whoever came meanwhile has left its input for us.
        self.work();
        seen
    }

    /// Looks at the log's thread, if there is one.
    pub(super) fn with_log<T>(&self, look: impl FnOnce(&LogThread) -> T) -> Option<T> {
        let seen = match &self.running.lock().world.log {
            Log::Disk(log) => Some(look(log)),
            Log::Memory | Log::Closed => None,
        };
        self.work();
        seen
    }

    fn work(&self) {
        loop {
            if self.queue.lock().is_empty() || self.broken.load(Ordering::Acquire) {
                return;
            }
            let Some(mut running) = self.running.try_lock() else { return };
            let finished = catch_unwind(AssertUnwindSafe(|| running.work(self)));
            let to_wake = std::mem::take(&mut running.world.to_wake);
            let inboxes = running.world.inboxes.clone();
            drop(running);
            to_wake.into_iter().for_each(|thread| inboxes[thread].wake());
            if finished.is_err() {
                tracing::error!("the replica is broken; the server stops");
                self.broken.store(true, Ordering::Release);
                (self.on_broken)();
            }
        }
    }
}

fn now(started: Instant) -> Now {
    Now {
        mono_ms: started.elapsed().as_millis() as u64,
        wall_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as i64),
    }
}

impl Running {
    fn work(&mut self, core: &Core) {
        let Running { node, world, inputs } = self;
        std::mem::swap(inputs, &mut *core.queue.lock());
        let now = core.now();
        for event in inputs.drain(..) {
            node.step(now, event, world);
            while let Some(zxid) = world.durable.take() {
                node.step(now, Event::Replica(Input::Durable(zxid)), world);
            }
        }
        // Proposals are on their way before the own disk begins with them.
        if let Some(peers) = &world.peers {
            peers.flush();
        }
        world.hand_over_log_work();
    }
}

impl World {
    fn hand_over_log_work(&mut self) {
        for work in self.log_work.drain(..) {
            match (&self.log, work) {
                (Log::Disk(log), LogWork::Append { records, first, last }) => {
                    log.submit(records, first, last)
                }
                (Log::Disk(log), LogWork::Roll) => log.roll(),
                (Log::Disk(log), LogWork::Disk(op)) => {
                    if let Some(peers) = &self.peers {
                        log.run(peers.disk_operation(op));
                    }
                }
                (Log::Memory | Log::Closed, _) => {}
            }
        }
    }
}

impl Shell for World {
    fn append(&mut self, records: Bytes, first: Zxid, last: Zxid) {
        match self.log {
            Log::Memory => self.durable = Some(last),
            Log::Disk(_) => self.log_work.push(LogWork::Append { records, first, last }),
            // Never durable, never answered.
            Log::Closed => {}
        }
    }

    fn deliver(&mut self, thread: IoThread, mail: &mut Mail) {
        let Some(inbox) = self.inboxes.get(thread) else { return };
        inbox.deliver(mail);
        if !self.to_wake.contains(&thread) {
            self.to_wake.push(thread);
        }
    }

    fn snapshot(&mut self, pin: Arc<SnapshotPin>) {
        if matches!(self.log, Log::Disk(_)) && self.snapshots.request(pin) {
            self.log_work.push(LogWork::Roll);
        }
    }
}

impl MemberShell for World {
    fn disk(&mut self, op: DiskOp) {
        self.log_work.push(LogWork::Disk(op));
    }

    fn dial(&mut self, dial: Dial, addresses: Vec<HostPort>) {
        if let Some(peers) = &mut self.peers {
            peers.dial(dial, addresses);
        }
    }

    fn send(&mut self, conn: PeerConn, bytes: Vec<u8>) {
        if let Some(peers) = &self.peers {
            peers.handle().send(conn, bytes);
        }
    }

    fn flush(&mut self) {
        // Once for everything that waited, see `Running::work`.
    }

    fn close(&mut self, conn: PeerConn, reason: &str) {
        if let Some(peers) = &self.peers {
            tracing::debug!(?conn, reason, "closing a connection to another server");
            peers.handle().close_after_flush(conn);
        }
    }

    fn reject(&mut self, conn: PeerConn, reason: &str) {
        if let Some(peers) = &self.peers {
            peers.handle().reject(conn, reason);
        }
    }

    fn stream_snapshot(&mut self, conn: PeerConn, pin: Arc<SnapshotPin>) {
        if let Some(peers) = &self.peers {
            peers.stream_snapshot(conn, pin);
        }
    }

    fn listen(&mut self, open: bool) {
        if let Some(peers) = &self.peers {
            peers.listen(open);
        }
    }

    fn backlog(&self, conn: PeerConn) -> usize {
        self.peers.as_ref().map_or(0, |peers| peers.handle().backlog(conn))
    }

    fn pause(&mut self, conn: PeerConn, paused: bool) {
        if let Some(peers) = &self.peers {
            match paused {
                true => peers.handle().pause(conn),
                false => peers.handle().resume(conn),
            }
        }
    }

    fn moved(&mut self, from: &ServerSpec, to: &ServerSpec) {
        if let Some(peers) = &mut self.peers {
            peers.moved(from, to);
        }
    }

    fn serve(&mut self, serving: Serving) {
        if let Some(peers) = &self.peers {
            peers.serve(serving);
        }
    }
}

/// For those who are held by what the core holds.
pub(super) type WeakCore = Weak<Core>;
