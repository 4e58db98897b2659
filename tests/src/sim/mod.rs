//! The deterministic simulator: a whole ensemble in one thread, with a virtual network, disk and clock, and
//! clients that keep a history. One number, the seed, decides everything that happens.
//!
//! What runs is the production code: [`zk_server::member::Member`] with its replica, and
//! [`zk_server::member::DiskOwner`] on a [`zk_server::storage::sim::SimDisk`]. Only threads, sockets and files
//! are replaced.
//!
//! | file | what it does |
//! |---|---|
//! | `swarm` | what a seed decides before it starts: ensemble, timing, which faults at which rates |
//! | `node` | a server: starts, crashes, and carries out what its member asks for |
//! | `disk` | the queue of disk operations of a node, with a crash between any two file operations |
//! | `net` | connections between servers: delayed, cut, stalled, half open |
//! | `port` | the client port of a node, as the I/O threads of a server would do it |
//! | `client` | clients and what they see |
//! | `faults` | what goes wrong, and its end |
//! | `check` | the observer who knows everything, and what must never happen |
//! | `trace` | what happened, for people, and its hash |

mod check;
mod client;
mod disk;
mod faults;
mod net;
mod node;
mod port;
pub mod script;
mod swarm;
mod trace;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use fastrand::Rng;

use check::Checker;
use client::Client;
use net::{Network, Side};
use node::Node;
use port::{Link, ToClient, ToServer};
pub use swarm::{Faults, Swarm};
use trace::Trace;
pub use trace::Tracing;

/// Microseconds of simulated time.
pub type Us = u64;

/// A second of simulated time.
pub const SECOND: Us = 1_000_000;
const MS: Us = 1000;

/// Something that must never happen, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation(pub String);

/// What a run has found.
#[derive(Debug)]
pub struct Report {
    /// The seed that was run.
    pub seed: u64,
    /// What must not have happened, if it did.
    pub violation: Option<String>,
    /// Hash of everything that happened.
    pub hash: u64,
    /// Simulated time.
    pub simulated_us: Us,
    /// What happened how often.
    pub counts: Counts,
}

/// What happened how often.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    /// Events of the simulation.
    pub events: u64,
    /// Answered requests of clients.
    pub replies: u64,
    /// Answered writes among them.
    pub writes: u64,
    /// Reads that were guarded by a sync.
    pub synced_reads: u64,
    /// Watches that fired.
    pub watch_events: u64,
    /// Sessions that were opened.
    pub sessions: u64,
    /// Epochs that had an established leader.
    pub epochs: u64,
    /// Committed transactions.
    pub committed: u64,
    /// Processes that ended by a crash.
    pub crashes: u64,
    /// Faults other than crashes.
    pub faults: u64,
    /// Histories that were cut, and such that were replaced by a snapshot.
    pub truncations: u64,
    /// See `truncations`.
    pub installs: u64,
    /// Starts that found a history that a power loss has damaged.
    pub damaged: u64,
}

/// A node by its index; its server id is one more.
type NodeId = usize;

/// What can be due.
#[derive(Debug)]
enum Event {
    /// Time passes for a node.
    Tick { node: NodeId, generation: u64 },
    /// The disk is done with what it has been doing.
    Disk { node: NodeId, generation: u64 },
    /// A node writes the next piece of a snapshot.
    Snapshot { node: NodeId, generation: u64 },
    /// An I/O thread hands over what it has gathered.
    Submit { node: NodeId, generation: u64 },
    /// A node starts.
    Start { node: NodeId },
    /// A paused node goes on.
    Resume { node: NodeId },
    /// A dial arrives.
    Dial(net::Dialing),
    /// A dial has come to its end.
    Dialed { dialing: net::Dialing, conn: Option<usize>, error: &'static str },
    /// Bytes may have arrived.
    Arrive { conn: usize, side: Side },
    /// The next piece of a tree that is sent.
    Stream { conn: usize, side: Side },
    /// A client does the next thing.
    Client { client: usize, token: u64 },
    /// Something from a client has arrived.
    ToServer { link: usize, message: ToServer },
    /// Something for a client has arrived.
    ToClient { link: usize, message: ToClient },
    /// The next fault.
    Fault,
    /// A fault ends.
    FaultEnds(faults::Ending),
}

/// An event and when it is due. Events of one moment happen in the order in which they were planned.
#[derive(Debug)]
struct Due(Us, u64, Event);

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// An ensemble, its clients, and the world around them.
pub struct World {
    now: Us,
    planned: u64,
    queue: BinaryHeap<Reverse<Due>>,
    rng: Rng,
    swarm: Swarm,
    nodes: Vec<Node>,
    net: Network,
    clients: Vec<Client>,
    links: Vec<Link>,
    checker: Checker,
    trace: Trace,
    counts: Counts,
    /// For the step that comes: what is on its way from the node.
    backlog: Vec<(zk_server::zab::PeerConn, usize)>,
    /// Messages for the client of a script, by link.
    script_inbox: Vec<(usize, ToClient)>,
    /// More was lost than an ensemble can survive: nothing can be said about this seed.
    inconclusive: bool,
    /// Nothing goes wrong any more.
    healing: bool,
    /// Clients ask for nothing new.
    quiet: bool,
}

impl World {
    /// The world of a seed, with all nodes about to start.
    pub fn new(swarm: Swarm, tracing: Tracing) -> Self {
        let rng = Rng::with_seed(swarm.seed);
        let nodes = swarm.servers();
        let mut world = World {
            now: 0,
            planned: 0,
            queue: BinaryHeap::new(),
            rng,
            nodes: (0..nodes).map(|_| Node::new()).collect(),
            net: Network::new(nodes),
            clients: Vec::new(),
            links: Vec::new(),
            checker: Checker::new(swarm.voters),
            trace: Trace::new(tracing),
            counts: Counts::default(),
            backlog: Vec::new(),
            script_inbox: Vec::new(),
            inconclusive: false,
            healing: false,
            quiet: false,
            swarm,
        };
        for node in 0..nodes {
            let drift = world.swarm.clock_drift_ppm;
            world.nodes[node].draw_clock(drift, &mut world.rng);
            let delay = world.rng.u64(0..500 * MS);
            if world.swarm.autostart {
                world.plan(delay, Event::Start { node });
            }
        }
        for client in 0..world.swarm.clients {
            world.clients.push(Client::new(client, world.rng.fork(), world.swarm.op_interval_us));
            world.plan_client(client, 300 * MS);
        }
        if world.swarm.faults.any() {
            world.plan(world.swarm.faults_from_us, Event::Fault);
        }
        world
    }

    /// Simulated time since the start.
    pub fn now(&self) -> Us {
        self.now
    }

    fn plan(&mut self, delay: Us, event: Event) {
        self.plan_at(self.now + delay, event);
    }

    fn plan_at(&mut self, at: Us, event: Event) {
        self.planned += 1;
        self.queue.push(Reverse(Due(at, self.planned, event)));
    }

    /// Lets everything happen that is due up to a moment.
    ///
    /// # Errors
    /// What must not have happened.
    pub fn run_until(&mut self, end: Us) -> Result<(), Violation> {
        while let Some(Reverse(due)) = self.queue.peek()
            && due.0 <= end
        {
            let Some(Reverse(Due(at, planned, event))) = self.queue.pop() else { break };
            self.now = at;
            self.trace.mix(at ^ planned);
            trace::set_time(at);
            self.counts.events += 1;
            self.happen(event)?;
            if self.inconclusive {
                return Ok(());
            }
        }
        self.now = end;
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        let Some(event) = self.put_off(event) else { return Ok(()) };
        match event {
            Event::Tick { node, generation } => self.tick(node, generation),
            Event::Disk { node, generation } => self.disk_done(node, generation),
            Event::Snapshot { node, generation } => self.snapshot_piece(node, generation),
            Event::Submit { node, generation } => self.submit(node, generation),
            Event::Start { node } => self.start(node),
            Event::Resume { node } => {
                self.resume(node);
                Ok(())
            }
            Event::Dial(dialing) => self.dial_arrives(dialing),
            Event::Dialed { dialing, conn, error } => self.dialed(dialing, conn, error),
            Event::Arrive { conn, side } => self.arrive(conn, side),
            Event::Stream { conn, side } => self.stream_piece(conn, side),
            Event::Client { client, token } => self.client_turn(client, token),
            Event::ToServer { link, message } => self.server_hears(link, message),
            Event::ToClient { link, message } => self.client_hears(link, message),
            Event::Fault => self.fault(),
            Event::FaultEnds(ending) => {
                self.fault_ends(ending);
                Ok(())
            }
        }
    }

    /// Keeps what a paused node would do for later.
    fn put_off(&mut self, event: Event) -> Option<Event> {
        let node = match &event {
            Event::Tick { node, .. }
            | Event::Disk { node, .. }
            | Event::Snapshot { node, .. }
            | Event::Submit { node, .. } => *node,
            Event::Dialed { dialing, .. } => dialing.from,
            Event::Arrive { conn, side } | Event::Stream { conn, side } => self.net.owner(*conn, *side)?,
            Event::ToServer { link, .. } => self.links[*link].node,
            _ => return Some(event),
        };
        let paused = &mut self.nodes[node].paused;
        match paused {
            Some(put_off) => {
                put_off.push(event);
                None
            }
            None => Some(event),
        }
    }

    /// The whole life of a seed: work under faults, then healing, then the last checks.
    ///
    /// # Errors
    /// What must not have happened.
    pub fn live(&mut self) -> Result<(), Violation> {
        self.run_until(self.swarm.duration_us)?;
        if self.inconclusive {
            return Ok(());
        }
        self.heal();
        // Clients go on for a while, with nothing in their way.
        let working = self.now;
        let before = self.counts.writes;
        self.run_until(working + self.swarm.healing_us)?;
        if self.inconclusive {
            return Ok(());
        }
        if self.counts.writes == before {
            return Err(Violation(format!(
                "no write succeeded in {} s without faults\n{}",
                self.swarm.healing_us / SECOND,
                self.describe()
            )));
        }
        self.quiet = true;
        let quiet = self.now;
        loop {
            self.run_until(self.now + SECOND)?;
            match self.all_equal() {
                Ok(()) => return Ok(()),
                Err(why) if self.now > quiet + self.swarm.healing_us => {
                    return Err(Violation(format!("{why}\n{}", self.describe())));
                }
                Err(_) => {}
            }
        }
    }

    /// What every node is doing, for people.
    pub fn describe(&self) -> String {
        let nodes = self.nodes.iter().enumerate();
        let lines: Vec<String> =
            nodes.map(|(id, node)| format!("  node {}: {}", id + 1, node.describe())).collect();
        format!("{}\n{}", lines.join("\n"), self.net.describe())
    }

    fn report(&mut self, violation: Option<String>) -> Report {
        self.counts.committed = self.checker.committed() as u64;
        self.counts.epochs = self.checker.epochs() as u64;
        Report {
            seed: self.swarm.seed,
            violation,
            hash: self.trace.hash(),
            simulated_us: self.now,
            counts: self.counts,
        }
    }
}

/// Runs a seed to its end. A panic of the production code is a violation, too.
pub fn run(swarm: Swarm, tracing: Tracing) -> Report {
    run_script(swarm, tracing, World::live)
}

/// Runs what a script does with a world.
pub fn run_script(
    swarm: Swarm,
    tracing: Tracing,
    script: impl FnOnce(&mut World) -> Result<(), Violation>,
) -> Report {
    let mut world = World::new(swarm, tracing);
    let ended = trace::with_log(tracing, || catch_unwind(AssertUnwindSafe(|| script(&mut world))));
    let violation = match ended {
        Ok(Ok(())) => None,
        Ok(Err(Violation(text))) => Some(format!("at {} ms: {text}", world.now / MS)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            Some(format!("at {} ms: panic: {}", world.now / MS, text.unwrap_or_default()))
        }
    };
    world.report(violation)
}
