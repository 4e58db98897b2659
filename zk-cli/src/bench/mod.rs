//! `zk bench`: a load generator that speaks the protocol itself, so that it can measure any ZooKeeper server,
//! and costs little beside it. Every answer is checked.

mod compare;
mod conn;
mod engine;
mod ensemble;
mod epoll;
mod error;
mod failover;
mod fanout;
mod hold;
mod process;
mod report;
mod script;
mod server;
mod session;
mod snapshot;
mod space;
mod stats;
mod storm;
mod swarm;
mod wire;
mod workload;

use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use serde_json::json;

use engine::{Extent, Load, Pace};
pub use error::Error;
use error::{Context, Result};
use report::Report;
use server::{Definition, Server};
use space::Space;
use stats::Faults;
use swarm::Swarm;
use workload::{Bulk, Target, Workload};

/// Arguments of `zk bench`.
#[derive(Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Subcommand)]
enum BenchCommand {
    /// Read the data of nodes.
    Get(LoadArgs),
    /// Read the Stat of nodes.
    Exists(LoadArgs),
    /// List a node with many children.
    Children {
        /// Number of children.
        #[arg(long, default_value_t = 1000)]
        children: u32,
        #[command(flatten)]
        load: LoadArgs,
    },
    /// Set the data of nodes.
    Set(LoadArgs),
    /// Read and set the data of nodes.
    Mixed {
        /// Share of reads, 0 to 1.
        #[arg(long, default_value_t = 0.9)]
        reads: f64,
        #[command(flatten)]
        load: LoadArgs,
    },
    /// Create nodes.
    Create(LoadArgs),
    /// Create nodes and delete them.
    CreateDelete(LoadArgs),
    /// Take a lock and give it back: create an ephemeral sequential node, list, delete.
    Lock(LoadArgs),
    /// Set several nodes in one transaction.
    Multi {
        /// Number of nodes.
        #[arg(long, default_value_t = 5)]
        ops: usize,
        #[command(flatten)]
        load: LoadArgs,
    },
    /// One request at a time on one connection.
    PingPong {
        /// The request.
        #[arg(value_enum)]
        op: PingPongOp,
        #[command(flatten)]
        load: LoadArgs,
    },
    /// Fill the tree, 50 creates in each transaction; shows the memory per node.
    Bulk {
        /// Number of nodes, rounded up to a multiple of 1000.
        #[arg(long, default_value_t = 1_000_000)]
        nodes: u32,
        #[command(flatten)]
        target: TargetArgs,
        /// Bytes of data in each node.
        #[arg(long, default_value_t = 100)]
        size: usize,
    },
    /// Connect, open a session, ask once, close; again and again.
    Storm(LoadArgs),
    /// Open many sessions at once.
    Open {
        /// Number of sessions.
        #[arg(long, default_value_t = 10_000)]
        sessions: usize,
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Hold idle sessions that ping; shows CPU time, and memory per session.
    Idle {
        /// Number of sessions.
        #[arg(long, default_value_t = 10_000)]
        sessions: usize,
        /// Time between two pings of a session, s.
        #[arg(long, default_value = "4", value_parser = seconds)]
        interval: Duration,
        /// Length of the measurement, s.
        #[arg(long, default_value = "20", value_parser = seconds)]
        duration: Duration,
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Let many sessions watch one node, and set it.
    Fanout {
        /// Number of watching sessions.
        #[arg(long, default_value_t = 1000)]
        watchers: usize,
        /// Number of sets.
        #[arg(long, default_value_t = 30)]
        rounds: usize,
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Arm many watches and hold them; shows the memory per watch.
    Watches {
        /// Number of sessions.
        #[arg(long, default_value_t = 100)]
        sessions: usize,
        /// Number of nodes; each session watches all of them.
        #[arg(long, default_value_t = 10_000)]
        nodes: u32,
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Start a server, fill it, kill it, start it again; shows the times to the first read.
    Restart {
        /// Definition of the server (TOML).
        definition: PathBuf,
        /// Number of nodes.
        #[arg(long, default_value_t = 1_000_000)]
        nodes: u32,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Start a server, fill it, and set nodes while it takes snapshots.
    Snapshot {
        /// Definition of the server (TOML).
        definition: PathBuf,
        /// Number of nodes.
        #[arg(long, default_value_t = 1_000_000)]
        nodes: u32,
        /// Sets per second.
        #[arg(long, default_value_t = 20_000.0)]
        rate: f64,
        /// Length of the load, s.
        #[arg(long, default_value = "20", value_parser = seconds)]
        duration: Duration,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Compare two servers, which it starts in turn, line by line of a table.
    Compare(compare::CompareArgs),
    /// Print the table of recorded comparisons.
    Table(compare::TableArgs),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PingPongOp {
    Get,
    Set,
}

/// Where the server is.
#[derive(Args)]
struct TargetArgs {
    /// The server, host:port.
    #[arg(long, default_value = "127.0.0.1:2181", value_name = "HOST:PORT")]
    connect: String,
    /// The server's process on this machine: shows its CPU time and memory.
    #[arg(long)]
    pid: Option<u32>,
    /// Node below which everything happens; deleted at the end.
    #[arg(long, default_value = "/zk-bench")]
    root: String,
    /// Leave the nodes that were made.
    #[arg(long)]
    keep: bool,
    /// Timeout that the sessions ask for, ms.
    #[arg(long, default_value_t = 30_000, value_name = "MS")]
    session_timeout: i32,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What load to make.
#[derive(Args)]
struct LoadArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Number of connections, each with a session.
    #[arg(long, default_value_t = 50)]
    connections: usize,
    /// Requests under way per connection.
    #[arg(long, default_value_t = 8, conflicts_with = "rate")]
    depth: usize,
    /// Requests per second, sent at fixed moments whatever the answers do; latency counts from those moments.
    #[arg(long)]
    rate: Option<f64>,
    /// Threads of the load generator.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Load before the measurement begins, s.
    #[arg(long, default_value = "2", value_parser = seconds)]
    warmup: Duration,
    /// Length of the measurement, s.
    #[arg(long, default_value = "5", value_parser = seconds)]
    duration: Duration,
    /// Send this many requests in place of a duration; all of them are measured.
    #[arg(long)]
    count: Option<u64>,
    /// Bytes of data in each node.
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Number of nodes that are read and set.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=99_999_999))]
    keys: u32,
}

fn seconds(text: &str) -> std::result::Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is no number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
}

impl TargetArgs {
    fn resolve(&self) -> Result<Target> {
        process::raise_file_limit();
        let mut addresses = self.connect.to_socket_addrs().context(self.connect.as_str())?;
        match addresses.next() {
            Some(address) => Ok(Target::server(address, self.pid)),
            None => Err(Error::Usage(format!("{}: no address", self.connect))),
        }
    }

    fn print(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
        print(self.json, value, text)
    }

    /// Runs `measure` in a space of its own, which is deleted after it.
    fn in_space<T>(
        &self,
        keys: u32,
        size: usize,
        measure: impl FnOnce(&Target, &Space) -> Result<T>,
    ) -> Result<T> {
        let target = self.resolve()?;
        let space = Space::new(self.root.as_str(), keys, size);
        let measured = measure(&target, &space)?;
        if !self.keep {
            space.delete(target.address)?;
        }
        Ok(measured)
    }

    fn memory(&self) -> Result<Option<process::Memory>> {
        self.pid.map(process::memory).transpose()
    }
}

fn print(json: bool, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string(value).context("encode the figures")?);
    } else {
        println!("{}", text());
    }
    Ok(())
}

/// Growth of the server's memory by each of `count` things, bytes.
fn growth(before: Option<process::Memory>, after: Option<process::Memory>, count: u64) -> Option<f64> {
    Some((after?.rss as f64 - before?.rss as f64) / count.max(1) as f64)
}

/// Runs `zk bench`. The exit code says whether all answers were right.
pub fn run(args: BenchArgs) -> Result<ExitCode> {
    let faults = match args.command {
        BenchCommand::Get(load) => engine_run(&load, Workload::Get)?,
        BenchCommand::Exists(load) => engine_run(&load, Workload::Exists)?,
        BenchCommand::Children { children, load } => engine_run(&load, Workload::Children(children))?,
        BenchCommand::Set(load) => engine_run(&load, Workload::Set)?,
        BenchCommand::Mixed { reads, load } => engine_run(&load, Workload::Mixed(reads))?,
        BenchCommand::Create(load) => engine_run(&load, Workload::Create)?,
        BenchCommand::CreateDelete(load) => engine_run(&load, Workload::CreateDelete)?,
        BenchCommand::Lock(load) => engine_run(&load, Workload::Lock)?,
        BenchCommand::Multi { ops, load } => engine_run(&load, Workload::Multi(ops))?,
        BenchCommand::PingPong { op, load } => {
            let workload = match op {
                PingPongOp::Get => Workload::Get,
                PingPongOp::Set => Workload::Set,
            };
            engine_run(&LoadArgs { connections: 1, depth: 1, rate: None, ..load }, workload)?
        }
        BenchCommand::Bulk { nodes, target, size } => bulk(&target, nodes, size)?,
        BenchCommand::Storm(load) => connect_storm(&load)?,
        BenchCommand::Open { sessions, target } => open(&target, sessions)?,
        BenchCommand::Idle { sessions, interval, duration, target } => {
            idle(&target, sessions, interval, duration)?
        }
        BenchCommand::Fanout { watchers, rounds, target } => fan_out(&target, watchers, rounds)?,
        BenchCommand::Watches { sessions, nodes, target } => watches(&target, sessions, nodes)?,
        BenchCommand::Restart { definition, nodes, json } => restart(&definition, nodes, json)?,
        BenchCommand::Snapshot { definition, nodes, rate, duration, json } => {
            snapshots(&definition, nodes, rate, duration, json)?
        }
        BenchCommand::Compare(args) => {
            return Ok(if compare::run(&args)? { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        BenchCommand::Table(args) => {
            compare::print_table(&args)?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    Ok(if faults.total() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn engine_run(args: &LoadArgs, workload: Workload) -> Result<Faults> {
    let pace = match args.rate {
        Some(per_second) if per_second > 0.0 => Pace::Open { per_second },
        Some(rate) => return Err(Error::Usage(format!("--rate {rate}: must be above 0"))),
        None => Pace::Closed { depth: args.depth },
    };
    let extent = match args.count {
        Some(count) => Extent::Count { per_connection: count.div_ceil(args.connections.max(1) as u64) },
        None => Extent::Time { warmup: args.warmup, duration: args.duration },
    };
    let load = Load {
        connections: args.connections,
        threads: args.threads,
        pace,
        extent,
        session_timeout_ms: args.target.session_timeout,
    };
    let report = args.target.in_space(args.keys, args.size, |target, space| {
        Ok(Report::new(&workload::run(target, space, workload, &load)?))
    })?;
    args.target.print(&report, || report.to_string())?;
    Ok(report.faults)
}

fn connect_storm(args: &LoadArgs) -> Result<Faults> {
    let Target { address, .. } = args.target.resolve()?;
    let (timeout_ms, pid) = (args.target.session_timeout, args.target.pid);
    let outcome = storm::run(address, args.connections, args.warmup, args.duration, timeout_ms, pid)?;
    let report = Report::new(&outcome);
    args.target.print(&report, || report.to_string())?;
    Ok(report.faults)
}

fn bulk(args: &TargetArgs, nodes: u32, size: usize) -> Result<Faults> {
    let before = args.memory()?;
    let bulk = Bulk::of(nodes);
    let (report, per_node) = args.in_space(0, size, |target, space| {
        let load = bulk.load(args.session_timeout);
        let report = Report::new(&workload::run(target, space, Workload::Bulk(bulk), &load)?);
        Ok((report, growth(before, args.memory()?, bulk.nodes())))
    })?;
    let value = json!({ "nodes": bulk.nodes(), "bytes_per_node": per_node, "load": &report });
    args.print(&value, || match per_node {
        Some(bytes) => format!("{report}\n{} nodes, {bytes:.0} B each", bulk.nodes()),
        None => format!("{report}\n{} nodes", bulk.nodes()),
    })?;
    Ok(report.faults)
}

fn open(args: &TargetArgs, sessions: usize) -> Result<Faults> {
    let (swarm, opening) = Swarm::open_at_once(args.resolve()?.address, sessions, args.session_timeout)?;
    swarm.close();
    let summary = opening.latencies.summary();
    let seconds = opening.elapsed.as_secs_f64();
    let value = json!({ "sessions": sessions, "seconds": seconds, "again": opening.again, "open": summary });
    args.print(&value, || format!("{sessions} sessions in {seconds:.3} s\nopen  {summary}"))?;
    Ok(Faults::default())
}

fn idle(args: &TargetArgs, sessions: usize, interval: Duration, duration: Duration) -> Result<Faults> {
    let target = args.resolve()?;
    let possible = hold::sessions_possible(sessions);
    if possible < sessions {
        eprintln!("zk: the limit of open files allows {possible} sessions only");
    }
    let timeout_ms = i32::try_from(3 * interval.as_millis()).unwrap_or(i32::MAX);
    let before = args.memory()?;
    let mut swarm = Swarm::open(target.address, possible, timeout_ms)?;
    let per_session = growth(before, args.memory()?, possible as u64);
    let held = hold::idle(&mut swarm, duration, interval, args.pid)?;
    swarm.close();
    let pings = held.pings.summary();
    let value = json!({
        "sessions": possible,
        "cores": held.cores,
        "bytes_per_session": per_session,
        "ping": pings,
        "faults": &held.faults,
    });
    args.print(&value, || {
        let cost = match (held.cores, per_session) {
            (Some(cores), Some(bytes)) => format!(": {cores:.4} cores, {bytes:.0} B per session"),
            _ => String::new(),
        };
        format!("{possible} sessions{cost}\nping  {pings}\nfaults {}", held.faults)
    })?;
    Ok(held.faults)
}

fn fan_out(args: &TargetArgs, watchers: usize, rounds: usize) -> Result<Faults> {
    let fanout = args.in_space(1, 100, |target, space| {
        fanout::run(target.address, space, watchers, rounds, args.session_timeout)
    })?;
    let [all_told, told, ack] = [&fanout.all_told, &fanout.told, &fanout.set_ack].map(|l| l.summary());
    let value = json!({
        "watchers": watchers,
        "all_told": all_told,
        "told": told,
        "set_ack": ack,
        "faults": &fanout.faults,
    });
    args.print(&value, || {
        format!("all told  {all_told}\ntold      {told}\nset ack   {ack}\nfaults {}", fanout.faults)
    })?;
    Ok(fanout.faults)
}

fn watches(args: &TargetArgs, sessions: usize, nodes: u32) -> Result<Faults> {
    let (faults, count, per_watch) = args.in_space(nodes, 100, |target, space| {
        space.create_keys(target.address)?;
        let before = args.memory()?;
        let watches = hold::arm_watches(target.address, space, sessions, args.session_timeout)?;
        let per_watch = growth(before, args.memory()?, watches.count);
        Ok((watches.faults, watches.count, per_watch))
    })?;
    let value = json!({ "watches": count, "bytes_per_watch": per_watch, "faults": &faults });
    args.print(&value, || match per_watch {
        Some(bytes) => format!("{count} watches, {bytes:.1} B each\nfaults {faults}"),
        None => format!("{count} watches\nfaults {faults}"),
    })?;
    Ok(faults)
}

/// Fills a server that the benchmark has started.
fn fill(server: &Server, nodes: u32) -> Result<Report> {
    let bulk = Bulk::of(nodes);
    let load = bulk.load(30_000);
    let space = Space::new("/bench", 0, 100);
    Ok(Report::new(&workload::run(&server.target(), &space, Workload::Bulk(bulk), &load)?))
}

fn restart(definition: &std::path::Path, nodes: u32, json: bool) -> Result<Faults> {
    let mut server = Server::new(&Definition::read(definition)?, None)?;
    let empty = server.start()?.as_secs_f64();
    let empty_memory = server.memory()?;
    let load = fill(&server, nodes)?;
    server.kill()?;
    let killed = server.start()?.as_secs_f64();
    let memory = server.memory()?;
    server.stop()?;
    let stopped = server.start()?.as_secs_f64();
    server.stop()?;
    let value = json!({
        "nodes": nodes,
        "empty_start_s": empty,
        "start_after_kill_s": killed,
        "start_after_stop_s": stopped,
        "empty": empty_memory,
        "restarted": memory,
        "load": &load,
    });
    print(json, &value, || {
        format!(
            "empty {empty:.3} s, after kill -9 {killed:.3} s, after a stop {stopped:.3} s; rss {:.1} MB after kill -9",
            memory.rss as f64 / 1e6
        )
    })?;
    Ok(load.faults)
}

fn snapshots(
    definition: &std::path::Path,
    nodes: u32,
    rate: f64,
    duration: Duration,
    json: bool,
) -> Result<Faults> {
    let mut server = Server::new(&Definition::read(definition)?, None)?;
    server.start()?;
    fill(&server, nodes)?;
    let space = Space::new("/bench/snapshot", 1000, 1024);
    let data_dir = server.data_dir();
    let impact = snapshot::run(&server.target(), &space, &data_dir, rate, duration, 30_000)?;
    server.stop()?;
    let Some(impact) = impact else {
        return Err(Error::Usage("no snapshot was taken while the load lasted".into()));
    };
    let report = Report::new(&impact.outcome);
    let gap_ms = impact.gap_max.as_secs_f64() * 1000.0;
    let value = json!({
        "offered_per_second": impact.offered,
        "snapshots": impact.snapshots,
        "snapshot_seconds": impact.snapshot_time.as_secs_f64(),
        "gap_max_ms": gap_ms,
        "loss": impact.loss,
        "load": &report,
    });
    print(json, &value, || {
        format!(
            "{report}\n{} snapshots in {:.2} s; meanwhile longest gap {gap_ms:.0} ms, {:.1} % lost of {:.0}/s",
            impact.snapshots,
            impact.snapshot_time.as_secs_f64(),
            impact.loss * 100.0,
            impact.offered
        )
    })?;
    Ok(report.faults)
}
