//! A member of an ensemble: looks for a leader, leads or follows, around one [`Replica`].
//!
//! [`Member::step`] takes one input and calls the [`MemberShell`] with what has to be done. It has no clock, no
//! socket, no file and no random numbers; the same code runs under the server's threads and in the simulator.
//!
//! | file | what it does |
//! |---|---|
//! | `looking` | elections, and the way from one role to the next |
//! | `leading` | carries out what [`Leader`] decides |
//! | `learning` | carries out what [`Learner`] decides |
//! | `shell` | the world around: disk operations, connections, clients |
//! | `config_files` | where configurations of the ensemble are kept |
//! | `disk` | carries out disk operations, wherever they run |
//! | `status` | what operators see |
//!
//! **Between two roles** clients are closed, all disk operations end, and everything in the log is applied: the
//! tree is what a crash at this moment would recover, and that is what votes and acknowledgements speak of. Only
//! then the search for a leader begins. A tree that may hold anything else is rebuilt from the disk.

mod config_files;
mod disk;
mod leading;
mod learning;
mod looking;
mod shell;
mod status;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use zk_proto::{OpCode, Zxid};

pub use self::config_files::{ConfigFiles, Found, starting_ensembles};
pub use self::disk::{DiskError, DiskOwner, Opened};
pub use self::shell::{Dial, DiskDone, DiskOp, MemberShell, PeerPort, Serving};
pub use self::status::MemberStatus;
use crate::replica::messages::{Input as ReplicaInput, Now};
use crate::replica::{Replica, Role};
use crate::tree::{SnapshotPin, Tree};
use crate::zab::election::{ConnOptions, ConnTable, Election, ElectionOptions};
use crate::zab::ensemble::Ensemble;
use crate::zab::history::History;
use crate::zab::leader::{Leader, LeaderOptions};
use crate::zab::learner::{self, Learner, Memory};
use crate::zab::wire::QuorumPacket;
use crate::zab::{Epochs, PeerConn, PeerState, PeerType, ServerId};

/// Settings of a member.
#[derive(Debug, Clone)]
pub struct MemberOptions {
    /// This server.
    pub me: ServerId,
    /// What it is as long as the configuration does not list it.
    pub peer_type: PeerType,
    /// How leaders are elected.
    pub election: ElectionOptions,
    /// The connections of the election port.
    pub connections: ConnOptions,
    /// As a leader.
    pub leader: LeaderOptions,
    /// As a follower or observer.
    pub learner: learner::Options,
    /// Committed transactions kept in memory for learners, `commitLogCount`.
    pub history: usize,
    /// `leaderServes`.
    pub leader_serves: bool,
    /// Serve reads after so many ms without a leader; `None`: never (`readonlymode.enabled`).
    pub read_only_after_ms: Option<u64>,
    /// How often the replica looks at its sessions and containers, ms.
    pub replica_tick_ms: u64,
}

/// What a member starts from, or goes on with when its tree was rebuilt.
#[derive(Debug)]
pub struct Recovered {
    /// Everything that is on disk.
    pub tree: Tree,
    /// The last transactions of the log, without gaps.
    pub recent: Vec<crate::zab::Proposal>,
}

/// Input of a member.
#[derive(Debug)]
pub enum Input {
    /// For the replica: requests of clients, completed log writes, time.
    Replica(ReplicaInput),
    /// A disk operation is done.
    Disk(DiskDone),
    /// Another server has connected.
    Accepted {
        /// The connection.
        conn: PeerConn,
        /// Where.
        port: PeerPort,
        /// From where.
        remote: IpAddr,
    },
    /// The end of a [`MemberShell::dial`].
    Dialed {
        /// What was asked for.
        dial: Dial,
        /// The connection and its other end, if there is one.
        result: Result<(PeerConn, IpAddr), String>,
    },
    /// Bytes of an election connection.
    Received {
        /// The connection.
        conn: PeerConn,
        /// Cut anywhere.
        bytes: Vec<u8>,
    },
    /// Packets of a quorum connection.
    Packets {
        /// The connection.
        conn: PeerConn,
        /// In order.
        packets: Vec<QuorumPacket>,
    },
    /// A part of a packet or of a tree has come from the leader.
    Heard {
        /// The connection.
        conn: PeerConn,
    },
    /// The tree behind a SNAP packet has come.
    SnapshotReceived {
        /// The connection.
        conn: PeerConn,
        /// The tree.
        tree: Box<Tree>,
    },
    /// A snapshot was sent completely.
    SnapshotSent {
        /// The connection.
        conn: PeerConn,
    },
    /// So many bytes wait to be sent.
    Backlog {
        /// The connection.
        conn: PeerConn,
        /// How many.
        bytes: usize,
    },
    /// A connection is gone, whoever closed it.
    Closed {
        /// The connection.
        conn: PeerConn,
    },
}

/// What a member is doing.
#[derive(Debug)]
enum Phase {
    /// Before [`Member::begin`].
    New,
    /// Looks for a leader since this time, ms.
    Looking(u64),
    Leading(Box<Leader>),
    Learning(Box<Learner>),
    /// On the way to something else: disk operations have to end first.
    Stopping(Stopping),
}

/// What comes when everything has stopped.
#[derive(Debug)]
struct Stopping {
    next: Next,
    /// The tree has to be rebuilt from the disk.
    rebuild: bool,
    /// The disk operation whose end is the end of this phase.
    ticket: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// An election.
    Look,
    /// What was decided without one.
    Become(PeerState, ServerId),
}

/// See the module.
#[derive(Debug)]
pub struct Member {
    options: MemberOptions,
    replica: Replica,
    history: History,
    /// As they are on disk.
    epochs: Epochs,
    /// The configuration in force, and one that was proposed behind it.
    committed: Arc<Ensemble>,
    last_seen: Option<Arc<Ensemble>>,
    connections: ConnTable,
    election: Election,
    phase: Phase,
    serving: Serving,
    /// How far history is known to be committed, and what of it the disk was told.
    mark: Zxid,
    noted: Zxid,
    /// How far the log is on disk.
    durable: Zxid,
    /// The history on the disk is damaged: no vote, until a leader's has taken its place.
    damaged: bool,
    /// What requests of other servers' clients are allowed to do.
    remote_auth: leading::RemoteAuth,
    /// What a learner has to know of the attempts before it.
    memory: Memory,
    /// Connections of the quorum port, both ways.
    quorum: BTreeMap<PeerConn, IpAddr>,
    /// A tree from the leader that is not in use yet.
    received: Option<Box<Tree>>,
    /// Pinned trees for learners.
    pins: BTreeMap<PeerConn, Arc<SnapshotPin>>,
    /// Syncs of own clients that the leader part was asked for.
    sync_tickets: u64,
    next_ticket: u64,
    next_replica_tick_ms: u64,
    /// Since when this server leads an active epoch.
    active_since_ms: Option<u64>,
    /// Last, smallest and largest proposal of this term.
    proposal_bytes: [Option<u64>; 3],
    /// The newer configuration was proposed or told by the leader that is followed now.
    confirmed_last_seen: bool,
    /// Who leads when this server, which a reconfiguration does not let lead on, has stepped down.
    successor: Option<ServerId>,
}

impl Member {
    /// A member that has recovered what is on its disk. It does nothing until [`Member::begin`].
    /// `damaged`: what was acknowledged cannot be read any more, and the tree is empty.
    #[allow(clippy::too_many_arguments)] // each comes from somewhere else
    pub fn new(
        replica: Replica,
        recent: Vec<crate::zab::Proposal>,
        epochs: Epochs,
        mark: Zxid,
        ensemble: Arc<Ensemble>,
        last_seen: Option<Arc<Ensemble>>,
        damaged: bool,
        options: MemberOptions,
    ) -> Self {
        let last = replica.last_zxid();
        let mut member = Member {
            history: window(last, recent, options.history),
            epochs,
            committed: ensemble,
            last_seen,
            connections: ConnTable::new(options.connections.clone()),
            election: Election::new(options.me, options.election.clone()),
            phase: Phase::New,
            serving: Serving::No,
            mark: mark.min(last),
            noted: mark.min(last),
            durable: last,
            damaged,
            remote_auth: Default::default(),
            memory: Memory { ask_snapshot: damaged, ..Memory::default() },
            quorum: BTreeMap::new(),
            received: None,
            pins: BTreeMap::new(),
            sync_tickets: 0,
            next_ticket: 0,
            next_replica_tick_ms: 0,
            active_since_ms: None,
            proposal_bytes: [None; 3],
            confirmed_last_seen: false,
            successor: None,
            replica,
            options,
        };
        member.write_config_node(0);
        member
    }

    /// Starts looking for a leader.
    pub fn begin(&mut self, now: Now, shell: &mut dyn MemberShell) {
        self.replica.idle(shell);
        self.look(now, shell);
        shell.flush();
    }

    /// The replica, for reports.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Takes one input. Never blocks.
    pub fn step(&mut self, now: Now, input: Input, shell: &mut dyn MemberShell) {
        match input {
            Input::Replica(input) => self.replica_input(now, input, shell),
            Input::Disk(done) => self.disk_done(now, done, shell),
            Input::Accepted { conn, port: PeerPort::Election, remote } => {
                let mut out = Vec::new();
                self.connections.accepted(now.mono_ms, conn, remote, &mut out);
                self.run_connections(now, out, shell);
            }
            Input::Accepted { conn, port: PeerPort::Quorum, remote } => match &mut self.phase {
                Phase::Leading(leader) => {
                    let mut out = Vec::new();
                    self.quorum.insert(conn, remote);
                    leader.accepted(now.mono_ms, conn, &mut out);
                    self.run_leader(now, out, shell);
                }
                _ => shell.close(conn, "this server does not lead"),
            },
            Input::Dialed { dial, result } => self.dialed(now, dial, result, shell),
            Input::Received { conn, bytes } => {
                let mut out = Vec::new();
                self.connections.received(conn, &bytes, &mut out);
                self.run_connections(now, out, shell);
            }
            Input::Packets { conn, packets } => self.packets(now, conn, packets, shell),
            Input::Heard { conn } => {
                if let Phase::Learning(learner) = &mut self.phase {
                    learner.heard(now.mono_ms, conn);
                }
            }
            Input::SnapshotReceived { conn, tree } => self.snapshot_received(now, conn, tree),
            Input::SnapshotSent { conn } => {
                if let Phase::Leading(leader) = &mut self.phase {
                    leader.snapshot_sent(now.mono_ms, conn);
                }
            }
            Input::Backlog { conn, bytes } => {
                if let Phase::Leading(leader) = &mut self.phase {
                    let mut out = Vec::new();
                    leader.backlog(now.mono_ms, conn, bytes, &mut out);
                    self.run_leader(now, out, shell);
                }
            }
            Input::Closed { conn } => self.closed(now, conn, shell),
        }
        self.settle(now, shell);
        shell.flush();
    }

    fn replica_input(&mut self, now: Now, input: ReplicaInput, shell: &mut dyn MemberShell) {
        let durable = match &input {
            ReplicaInput::Durable(zxid) => Some(*zxid),
            _ => None,
        };
        let tick = matches!(input, ReplicaInput::Tick);
        if let ReplicaInput::Submit(submission) = &input {
            self.look_ahead(submission.asks_for(OpCode::Reconfig));
        }
        // Elections need a finer clock than sessions.
        if !tick || now.mono_ms >= self.next_replica_tick_ms {
            self.replica.step(now, input, shell);
        }
        if tick && now.mono_ms >= self.next_replica_tick_ms {
            self.next_replica_tick_ms = now.mono_ms + self.options.replica_tick_ms;
        }
        if let Some(zxid) = durable {
            self.log_durable(now, zxid, shell);
        }
        if tick {
            self.tick(now, shell);
        }
    }

    fn log_durable(&mut self, now: Now, zxid: Zxid, shell: &mut dyn MemberShell) {
        self.durable = self.durable.max(zxid);
        self.history.finish(self.mark.min(self.durable));
        match &mut self.phase {
            Phase::Leading(leader) => leader.durable(zxid),
            Phase::Learning(learner) => {
                let mut out = Vec::new();
                learner.durable(zxid, &mut out);
                self.run_learner(now, out, shell);
            }
            Phase::New | Phase::Looking(_) | Phase::Stopping(_) => {}
        }
    }

    fn tick(&mut self, now: Now, shell: &mut dyn MemberShell) {
        let mut out = Vec::new();
        self.connections.tick(now.mono_ms, &mut out);
        self.run_connections(now, out, shell);
        let mut out = Vec::new();
        self.election.tick(now.mono_ms, &mut out);
        self.run_election(now, out, shell);
        match &mut self.phase {
            Phase::Leading(leader) => {
                let mut out = Vec::new();
                leader.snapshot_size(self.replica.snapshot_size());
                for conn in self.quorum.keys() {
                    leader.backlog(now.mono_ms, *conn, shell.backlog(*conn), &mut out);
                }
                leader.tick(now.mono_ms, &mut out);
                self.run_leader(now, out, shell);
            }
            Phase::Learning(learner) => {
                let mut out = Vec::new();
                learner.tick(now.mono_ms, &mut out);
                self.run_learner(now, out, shell);
            }
            Phase::Looking(since_ms) => {
                let waited_ms = now.mono_ms.saturating_sub(*since_ms);
                if self.options.read_only_after_ms.is_some_and(|after_ms| waited_ms >= after_ms) {
                    self.replica.read_only();
                    self.serve(Serving::ReadOnly, shell);
                }
            }
            Phase::New | Phase::Stopping(_) => {}
        }
        if self.mark > self.noted && self.serving == Serving::Yes {
            self.noted = self.mark;
            shell.disk(DiskOp::NoteCommitted(self.mark));
        }
    }

    /// Passes on what the replica wants of the others, and what that leads to.
    fn settle(&mut self, now: Now, shell: &mut dyn MemberShell) {
        loop {
            let upstream = self.replica.take_upstream();
            let touched = self.replica.take_touched();
            let idle = upstream.is_empty();
            match &mut self.phase {
                Phase::Leading(_) => self.lead_upstream(now, upstream, shell),
                Phase::Learning(learner) => {
                    learner.touched(touched);
                    self.learn_upstream(now, upstream, shell);
                }
                Phase::New | Phase::Looking(_) | Phase::Stopping(_) => {}
            }
            if idle {
                break;
            }
        }
    }

    /// Decides for whom clients of this server are connected.
    fn serve(&mut self, serving: Serving, shell: &mut dyn MemberShell) {
        if self.serving != serving {
            self.serving = serving;
            shell.serve(serving);
        }
    }

    /// Everything up to `zxid` is committed. Applies what is durable, too; returns whether the tree is as it was
    /// for the leader that prepared it.
    fn committed_up_to(&mut self, zxid: Zxid, shell: &mut dyn MemberShell) -> bool {
        self.mark = self.mark.max(zxid);
        let right = self.replica.commit(zxid, shell);
        self.history.finish(self.mark.min(self.durable));
        right
    }

    /// Shows the configuration in force to clients, in the node that Apache keeps for it, unless a transaction of
    /// the tree's history has done so or will do so.
    fn write_config_node(&mut self, wall_ms: i64) {
        let version = self.committed.version;
        let of_history = Zxid(version).counter() != 0 && Zxid(version) > self.replica.last_zxid();
        let outdated = self.options.leader.reconfig_enabled && self.replica.config_version() > version;
        if !of_history && !outdated {
            self.replica.set_config(&self.committed.to_text(), version, wall_ms);
        }
    }

    /// Takes over what was recovered from disk.
    fn adopt_recovered(&mut self, recovered: Recovered, wall_ms: i64) {
        let last = recovered.tree.last_zxid();
        self.replica.replace_tree(recovered.tree);
        self.history = window(last, recovered.recent, self.options.history);
        self.durable = last;
        self.mark = self.mark.min(last);
        self.noted = self.noted.min(last);
        self.write_config_node(wall_ms);
    }

    fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }
}

/// The window of recent transactions behind what was recovered.
fn window(last: Zxid, recent: Vec<crate::zab::Proposal>, keep: usize) -> History {
    let mut recent: VecDeque<_> = recent.into();
    let base = match recent.back() {
        // The oldest one only says where the window begins.
        Some(newest) if newest.zxid == last => recent.pop_front().map_or(last, |oldest| oldest.zxid),
        _ => {
            recent.clear();
            last
        }
    };
    let mut history = History::new(base, keep);
    for txn in recent {
        history.push(txn);
    }
    history
}

/// Whether the replica serves clients in a role.
fn is_serving(role: Role) -> bool {
    matches!(role, Role::Leading | Role::Learning)
}
