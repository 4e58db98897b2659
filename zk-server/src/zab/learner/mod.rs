//! A follower or observer of a leader: what it does with the leader's packets, and when it acknowledges.
//!
//! ```text
//! dial - FOLLOWERINFO - LEADERINFO - (write acceptedEpoch) - ACKEPOCH - DIFF | TRUNC | SNAP - PROPOSAL, COMMIT ...
//!      - NEWLEADER - (history durable, currentEpoch) - ACK - UPTODATE - ACK - broadcast
//! ```
//!
//! A [`Learner`] is one attempt: it begins with [`Output::Dial`] and ends with [`Output::Ended`], which says how
//! to go on. What a leader sends before NEWLEADER stays in memory until all of it has come; then it is checked,
//! applied, made durable, and only then acknowledged. Nothing of a refused synchronisation reaches the disk.
//!
//! | file | decides |
//! |---|---|
//! | `handshake` | connecting, epochs |
//! | `sync` | DIFF, TRUNC, SNAP up to UPTODATE |
//! | `broadcast` | proposals, commits, pings, answers of the leader once it is followed |
//! | `reconfig` | configurations in the stream |
//! | `timing` | deadlines |
//! | `in_flight` | the one queue of transactions that are proposed but not finished |
//! | `output` | what is asked of the shell; why it ends |
//!
//! # What is refused
//!
//! More than Apache refuses, because its leaders are known to send it: a gap in a DIFF (ZOOKEEPER-4925), a TRUNC
//! below what is known committed, a transaction after which the tree is not what the leader's was (2099, 1549).
//! The remedy is always the same: dial again and claim to have nothing, so that the leader sends its tree
//! ([`Memory::ask_snapshot`]). Such a claim is made only in an ACKEPOCH that no leader counts.

mod broadcast;
mod handshake;
mod in_flight;
mod output;
mod reconfig;
mod sync;
mod timing;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use zk_proto::{SessionId, Zxid};

use crate::zab::ensemble::Ensemble;
use crate::zab::wire::{ToLeader, ToLearner, WireError};
use crate::zab::{Epoch, Epochs, PeerConn, Proposal, ServerId};

use in_flight::InFlight;
use sync::Transfer;

pub use broadcast::Forward;
pub use output::{Alarm, Ended, Memory, Output, Reason};
pub use sync::CannotTruncate;

/// How a server follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// With a vote.
    Follower,
    /// As a follower that the configuration does not know (any more): it acknowledges, nobody counts it.
    NonVoting,
    /// Hears what was committed and acknowledges nothing.
    Observer,
}

/// What a learner starts from.
#[derive(Debug, Clone)]
pub struct Start {
    /// This server.
    pub me: ServerId,
    /// How it follows.
    pub role: Role,
    /// Whom it follows.
    pub leader: ServerId,
    /// The epochs on disk.
    pub epochs: Epochs,
    /// The last transaction on disk. The tree holds exactly what the disk holds.
    pub last: Zxid,
    /// The last transaction that is known committed, as far as it was noted; at most `last`.
    pub committed: Zxid,
    /// The configuration in force.
    pub ensemble: Arc<Ensemble>,
    /// The newest configuration that was proposed, if it is newer.
    pub last_seen: Option<Arc<Ensemble>>,
    /// From the learner before, see [`Ended::memory`]; after an election
    /// [`after_election`](Memory::after_election).
    pub memory: Memory,
}

/// Settings.
#[derive(Debug, Clone)]
pub struct Options {
    /// `tickTime`, ms.
    pub tick_ms: u64,
    /// `initLimit`, ticks: how long the leader may be silent before NEWLEADER.
    pub init_limit: u64,
    /// `syncLimit`, ticks: how long it may be silent from then on.
    pub sync_limit: u64,
    /// `connectToLearnerMasterLimit`, ticks: how long connecting may take.
    pub connect_limit: u64,
    /// How often to dial.
    pub dial_tries: u32,
    /// `leaderConnectDelayDuringRetryMs`: between two tries.
    pub dial_retry_ms: u64,
    /// Before the first try: a random share of `observer.reconnectDelayMs`, for observers.
    pub dial_delay_ms: u64,
    /// `reconfigEnabled`: whether configurations of the leader count.
    pub reconfig_enabled: bool,
    /// From this many bytes of packets waiting for a disk operation on, [`Learner::wants_input`] is `false`.
    pub parked_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            tick_ms: 3000,
            init_limit: 10,
            sync_limit: 5,
            connect_limit: 10,
            dial_tries: 5,
            dial_retry_ms: 100,
            dial_delay_ms: 0,
            reconfig_enabled: false,
            parked_max: 16 << 20,
        }
    }
}

/// Where an attempt stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No connection yet.
    Dialing,
    /// FOLLOWERINFO is sent.
    Discovery,
    /// The accepted epoch is being written.
    Accepting,
    /// ACKEPOCH is sent: DIFF, TRUNC or SNAP is next.
    Transfer,
    /// The log is being cut.
    Truncating,
    /// The shell reads a tree.
    Receiving,
    /// PROPOSAL and COMMIT up to NEWLEADER.
    Syncing,
    /// What came until NEWLEADER is being applied.
    Verifying,
    /// The history is being made durable.
    Persisting,
    /// NEWLEADER is acknowledged: UPTODATE is next.
    Confirming,
    /// The leader is established, clients are served.
    Broadcast,
    /// Over.
    Ended,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Phase::Dialing => "connecting",
            Phase::Discovery => "waiting for LEADERINFO",
            Phase::Accepting => "writing the accepted epoch",
            Phase::Transfer => "waiting for DIFF, TRUNC or SNAP",
            Phase::Truncating => "truncating the log",
            Phase::Receiving => "receiving a snapshot",
            Phase::Syncing => "synchronising",
            Phase::Verifying => "applying what was missed",
            Phase::Persisting => "making the history durable",
            Phase::Confirming => "waiting for UPTODATE",
            Phase::Broadcast => "following",
            Phase::Ended => "stopped",
        }
    }

    /// Whether packets wait until a step of this server is finished.
    fn parks(self) -> bool {
        matches!(self, Phase::Truncating | Phase::Verifying)
    }
}

/// One attempt to follow a leader. See the [module](self).
#[derive(Debug)]
pub struct Learner {
    me: ServerId,
    role: Role,
    leader: ServerId,
    options: Options,
    epochs: Epochs,
    /// The last transaction on disk when the attempt began, or after TRUNC.
    last: Zxid,
    /// Known committed before the attempt.
    committed_mark: Zxid,
    ensemble: Arc<Ensemble>,
    last_seen: Option<Arc<Ensemble>>,
    memory: Memory,

    phase: Phase,
    conn: Option<PeerConn>,
    dial: timing::Dial,
    /// When the leader was heard last, or when it was its turn.
    heard_ms: u64,
    /// The leader's epoch, from LEADERINFO on.
    epoch: Epoch,
    /// ACKEPOCH claimed to have nothing.
    asked_snapshot: bool,
    transfer: Transfer,
    in_flight: InFlight,
    /// Proposals before NEWLEADER, the same as in `in_flight`.
    staged: VecDeque<Proposal>,
    /// How many of `in_flight` the acknowledgement of NEWLEADER covers.
    covered: usize,
    /// Packets that wait until this server has finished a step.
    parked: VecDeque<ToLearner>,
    parked_bytes: usize,
    /// The tree is not what the disk holds, or will hold when its queue is empty.
    tree_ahead: bool,
    /// The configuration in NEWLEADER, in force with UPTODATE.
    announced: Option<Arc<Ensemble>>,
    /// Reconfigurations that were proposed and are not committed.
    pending_configs: BTreeMap<Zxid, Arc<Ensemble>>,
    /// Sessions heard of since the last PING, with their timeouts.
    touched: BTreeMap<SessionId, i32>,
    diverged_alarmed: bool,
}

impl Learner {
    /// Begins an attempt: the first output is a [`Output::Dial`], now or (see [`Options::dial_delay_ms`]) later.
    pub fn new(start: Start, options: Options, now_ms: u64, out: &mut Vec<Output>) -> Learner {
        let mut learner = Learner {
            me: start.me,
            role: start.role,
            leader: start.leader,
            epochs: start.epochs,
            last: start.last,
            committed_mark: start.committed,
            ensemble: start.ensemble,
            last_seen: start.last_seen,
            memory: start.memory,
            phase: Phase::Dialing,
            conn: None,
            dial: timing::Dial::new(now_ms, options.dial_delay_ms),
            heard_ms: now_ms,
            epoch: Epoch::default(),
            asked_snapshot: false,
            transfer: Transfer::Diff { announced: start.last },
            in_flight: InFlight::new(start.last),
            staged: VecDeque::new(),
            covered: 0,
            parked: VecDeque::new(),
            parked_bytes: 0,
            tree_ahead: false,
            announced: None,
            pending_configs: BTreeMap::new(),
            touched: BTreeMap::new(),
            diverged_alarmed: false,
            options,
        };
        learner.tick(now_ms, out);
        learner
    }

    /// A packet of the leader. Packets of another connection than the current one are dropped.
    pub fn packet(&mut self, now_ms: u64, conn: PeerConn, packet: ToLearner, out: &mut Vec<Output>) {
        if self.conn != Some(conn) {
            return;
        }
        self.heard_ms = now_ms;
        if self.phase.parks() {
            self.parked_bytes += size(&packet);
            self.parked.push_back(packet);
            return;
        }
        self.handle(now_ms, packet, out);
    }

    /// The leader's bytes cannot be decoded, within the tree behind a SNAP or elsewhere.
    pub fn undecodable(&mut self, conn: PeerConn, error: WireError, out: &mut Vec<Output>) {
        if self.conn == Some(conn) {
            self.end(Reason::Wire(error), out);
        }
    }

    /// Bytes have come from the leader, perhaps not a whole packet: it is alive.
    pub fn heard(&mut self, now_ms: u64, conn: PeerConn) {
        if self.conn == Some(conn) {
            self.heard_ms = now_ms;
        }
    }

    /// The connection is gone.
    pub fn closed(&mut self, conn: PeerConn, out: &mut Vec<Output>) {
        if self.conn == Some(conn) {
            self.conn = None;
            self.end(Reason::Closed, out);
        }
    }

    /// Whether the shell should go on reading the connection. `false` while too much waits for a disk operation.
    pub fn wants_input(&self) -> bool {
        self.parked_bytes < self.options.parked_max
    }

    /// Whether the leader is established and clients are served.
    pub fn is_established(&self) -> bool {
        self.phase == Phase::Broadcast
    }

    /// What the learner is doing, for people.
    pub fn phase(&self) -> &'static str {
        self.phase.name()
    }

    /// Whom it follows.
    pub fn leader(&self) -> ServerId {
        self.leader
    }

    /// How many transactions are proposed here and not yet committed, durable and acknowledged.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    fn handle(&mut self, now_ms: u64, packet: ToLearner, out: &mut Vec<Output>) {
        match self.phase {
            Phase::Discovery => self.discovery_packet(packet, out),
            Phase::Transfer => self.transfer_packet(packet, out),
            Phase::Syncing => self.sync_packet(now_ms, packet, out),
            Phase::Persisting | Phase::Confirming => self.live_packet(packet, out),
            Phase::Broadcast => self.broadcast_packet(packet, out),
            Phase::Ended => {}
            Phase::Dialing | Phase::Accepting | Phase::Receiving | Phase::Truncating | Phase::Verifying => {
                self.unexpected(&packet, out)
            }
        }
    }

    /// Handles what waited for a step of this server.
    fn unpark(&mut self, now_ms: u64, out: &mut Vec<Output>) {
        self.heard_ms = now_ms;
        while !self.phase.parks()
            && let Some(packet) = self.parked.pop_front()
        {
            self.parked_bytes -= size(&packet);
            self.handle(now_ms, packet, out);
        }
    }

    /// Queues packets: bytes of one step go out in one write.
    fn send(&self, packets: impl IntoIterator<Item = ToLeader>, out: &mut Vec<Output>) {
        let Some(conn) = self.conn else { return };
        let mut packets = packets.into_iter().peekable();
        if packets.peek().is_none() {
            return;
        }
        if !matches!(out.last(), Some(Output::Send { conn: last, .. }) if *last == conn) {
            out.push(Output::Send { conn, bytes: Vec::new() });
        }
        if let Some(Output::Send { bytes, .. }) = out.last_mut() {
            packets.for_each(|packet| packet.encode(bytes));
        }
    }

    fn unexpected(&mut self, packet: &ToLearner, out: &mut Vec<Output>) {
        let reason = Reason::Unexpected { packet: name(packet), phase: self.phase.name() };
        self.end(reason, out);
    }

    /// Ends the attempt: look for a leader.
    fn end(&mut self, reason: Reason, out: &mut Vec<Output>) {
        let memory = self.memory.after_election();
        self.finish(out, |rebuild| Ended { reason, redial: false, next: None, rebuild, memory });
    }

    /// Ends the attempt because the leader's stream does not fit to the own history: ask the same leader for its
    /// tree, once. It may need this server for its quorum.
    fn refuse(&mut self, reason: Reason, out: &mut Vec<Output>) {
        let refused = self.memory.refused + 1;
        let redial = refused < 2;
        let memory = if redial {
            Memory { ask_snapshot: true, refused, ..self.memory }
        } else {
            self.memory.after_election()
        };
        self.finish(out, |rebuild| Ended { reason, redial, next: None, rebuild, memory });
    }

    fn finish(&mut self, out: &mut Vec<Output>, ended: impl FnOnce(bool) -> Ended) {
        if self.phase == Phase::Ended {
            return;
        }
        // A cut that is still running rebuilds the tree, and the learner will not be there to hear of it.
        let rebuild = self.tree_ahead || self.phase == Phase::Truncating;
        self.phase = Phase::Ended;
        out.extend(self.conn.take().map(Output::Close));
        self.parked.clear();
        self.parked_bytes = 0;
        self.staged.clear();
        out.push(Output::Ended(ended(rebuild)));
    }
}

/// About how much memory a packet holds.
fn size(packet: &ToLearner) -> usize {
    let payload = match packet {
        ToLearner::Proposal(proposal) | ToLearner::Inform(proposal) => proposal.payload.len(),
        ToLearner::InformAndActivate { proposal, .. } => proposal.payload.len(),
        ToLearner::NewLeader { config, .. } => config.as_ref().map_or(0, |config| config.len()),
        _ => 0,
    };
    size_of::<ToLearner>() + payload
}

/// A packet's name, for people.
fn name(packet: &ToLearner) -> &'static str {
    match packet {
        ToLearner::LeaderInfo { .. } => "LEADERINFO",
        ToLearner::Diff(_) => "DIFF",
        ToLearner::Trunc(_) => "TRUNC",
        ToLearner::Snap(_) => "SNAP",
        ToLearner::NewLeader { .. } => "NEWLEADER",
        ToLearner::UpToDate => "UPTODATE",
        ToLearner::Proposal(_) => "PROPOSAL",
        ToLearner::Commit(_) => "COMMIT",
        ToLearner::Inform(_) => "INFORM",
        ToLearner::CommitAndActivate { .. } => "COMMITANDACTIVATE",
        ToLearner::InformAndActivate { .. } => "INFORMANDACTIVATE",
        ToLearner::Ping(_) => "PING",
        ToLearner::Revalidate { .. } => "REVALIDATE",
        ToLearner::Sync => "SYNC",
        ToLearner::Other(_) => "a packet of unknown type",
    }
}
