//! The workloads that one engine run makes: what they need in the tree, and their scripts.

use std::net::SocketAddr;
use std::sync::Arc;

use super::engine::{self, Extent, Load, Outcome};
use super::error::{Error, Result};
use super::script::{
    BulkCreate, Children, Create, CreateDelete, Exists, Get, LockCycle, Mixed, MultiSet, Set,
};
use super::space::Space;
use super::wire::{SLOT_MAX, slot_text};

/// The server or the ensemble under load.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where it listens. Of an ensemble one member, which also gets what prepares the load.
    pub address: SocketAddr,
    /// The other members of an ensemble that take part: connections go to all of them in turn.
    pub others: Vec<SocketAddr>,
    /// The processes, when their CPU time and memory can be read.
    pub pids: Vec<u32>,
}

impl Target {
    /// One server.
    pub fn server(address: SocketAddr, pid: Option<u32>) -> Self {
        Target { address, others: Vec::new(), pids: pid.into_iter().collect() }
    }

    /// Where the connection with this index goes.
    pub fn address_of(&self, index: usize) -> SocketAddr {
        match index % (1 + self.others.len()) {
            0 => self.address,
            other => self.others[other - 1],
        }
    }
}

/// What the connections do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Workload {
    /// Read data.
    Get,
    /// Read Stats.
    Exists,
    /// List a node with this many children.
    Children(u32),
    /// Set data.
    Set,
    /// Read and set data; this share of reads.
    Mixed(f64),
    /// Create nodes.
    Create,
    /// Create and delete nodes.
    CreateDelete,
    /// Take and give back a lock.
    Lock,
    /// Set this many nodes in one transaction.
    Multi(usize),
    /// Create many nodes in each transaction.
    Bulk(Bulk),
}

/// How [`Workload::Bulk`] fills the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bulk {
    /// Creates in one transaction.
    pub batch: u32,
    /// Nodes in one directory.
    pub per_directory: u32,
    /// Number of directories.
    pub directories: u32,
}

impl Bulk {
    /// Directories of 1000 nodes and transactions of 50 creates, for `nodes` rounded up to whole directories.
    pub fn of(nodes: u32) -> Bulk {
        Bulk { batch: 50, per_directory: 1000, directories: nodes.div_ceil(1000).max(1) }
    }

    /// Number of nodes that all directories hold.
    pub fn nodes(&self) -> u64 {
        u64::from(self.directories) * u64::from(self.per_directory)
    }

    /// The load that makes exactly these nodes. Each connection makes the same number of transactions, so
    /// there are only as many connections as divide the directories, 8 at most.
    pub fn load(&self, session_timeout_ms: i32) -> Load {
        let connections = (1..=8).rev().find(|c| self.directories.is_multiple_of(*c)).unwrap_or(1);
        let batches = self.nodes() / u64::from(self.batch);
        Load {
            connections: connections as usize,
            threads: 1,
            pace: engine::Pace::Closed { depth: 4 },
            extent: Extent::Count { per_connection: batches / u64::from(connections) },
            session_timeout_ms,
        }
    }
}

/// Makes what the workload needs below the space's root, then the load; the sessions end with it.
pub fn run(target: &Target, space: &Space, workload: Workload, load: &Load) -> Result<Outcome> {
    let mut outcome = run_open(target, space, workload, load)?;
    outcome.close_sessions();
    Ok(outcome)
}

fn run_open(target: &Target, space: &Space, workload: Workload, load: &Load) -> Result<Outcome> {
    let address = target.address;
    let parents = || space.create_parents(address, "parent", load.connections);
    match workload {
        Workload::Get => {
            space.create_keys(address)?;
            engine::run(target, load, |index| Get::new(space, index))
        }
        Workload::Exists => {
            space.create_keys(address)?;
            engine::run(target, load, |index| Exists::new(space, index))
        }
        Workload::Children(count) => {
            space.create_nodes(address, "child", count, &[])?;
            let parent = format!("{}/child", space.root);
            let names: Arc<[String]> = (0..count).map(slot_text).collect();
            engine::run(target, load, |_| Children::new(&parent, Arc::clone(&names)))
        }
        Workload::Set => {
            space.create_keys(address)?;
            engine::run(target, load, |index| Set::new(space, index))
        }
        Workload::Mixed(reads) => {
            space.create_keys(address)?;
            engine::run(target, load, |index| Mixed::new(space, index, reads))
        }
        Workload::Create => {
            let parents = parents()?;
            engine::run(target, load, |index| Create::new(space, parents[index].clone()))
        }
        Workload::CreateDelete => {
            let parents = parents()?;
            engine::run(target, load, |index| CreateDelete::new(space, parents[index].clone()))
        }
        Workload::Lock => {
            let parents = parents()?;
            engine::run(target, load, |index| LockCycle::new(parents[index].clone()))
        }
        Workload::Multi(count) => {
            space.create_keys(address)?;
            engine::run(target, load, |index| MultiSet::new(space, index, count))
        }
        Workload::Bulk(bulk) => {
            if bulk.nodes() > u64::from(SLOT_MAX) {
                return Err(Error::Usage(format!("at most {SLOT_MAX} nodes")));
            }
            space.create_directories(address, bulk.directories)?;
            let connections = load.connections as u32;
            engine::run(target, load, |index| {
                BulkCreate::new(space, bulk.batch, bulk.per_directory, index as u32, connections)
            })
        }
    }
}
