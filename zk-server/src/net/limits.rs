//! Bounds of connections.

use std::time::Duration;

use crate::config::FourLetterWhitelist;

/// Settings of the I/O threads.
#[derive(Debug, Clone)]
pub(crate) struct NetOptions {
    /// Whether this server is a member of an ensemble.
    pub member: bool,
    /// Largest frame accepted, `jute.maxbuffer`.
    pub(crate) frame_max: usize,
    /// Connections per client address.
    pub(crate) max_per_address: Option<u32>,
    /// Connections in total.
    pub(crate) max_connections: Option<u32>,
    /// A connection that has no session after this long is closed.
    pub(crate) sessionless_ms: u64,
    /// While more requests than this wait for the replica, connections with unanswered ones are not read.
    pub(crate) outstanding_max: i64,
    /// A request that waited for longer than its session's timeout is dropped, and its connection closed.
    pub(crate) drop_stale: bool,
    /// A request that waited longer than this before it could go on is answered with an error.
    pub(crate) throttled_wait_us: Option<u64>,
    /// From how many bytes on a request is large, and how many bytes of those may wait for the replica.
    pub(crate) large_requests: Option<(u64, i64)>,
    /// TCP keep-alive.
    pub(crate) keep_alive: bool,
    /// Which four-letter words are answered.
    pub(crate) words: FourLetterWhitelist,
    /// How often each thread reports which sessions it heard of.
    pub(crate) report_every: Duration,
    /// How often the replica is told that time passes.
    pub(crate) tick_every: Duration,
    /// Time to finish what was begun when the server stops.
    pub(crate) drain: Duration,
}

/// Bytes read from a socket at a time, into a buffer that all connections of a thread share.
pub(super) const RECEIVE_BYTES: usize = 64 * 1024;

/// Replies collected before they are written although more requests wait.
pub(super) const SCRATCH_BYTES: usize = 256 * 1024;

/// Unsent output from which on a connection's requests are not looked at.
pub(super) const OUTPUT_PAUSE_BYTES: usize = 1 << 20;

/// Unsent output with which a connection is closed when one more event is due: it does not read, and keeps
/// watching. Replies do not count, since a connection is not read while it does not take them.
pub(super) const OUTPUT_MAX_BYTES: usize = 16 << 20;

/// What a connection may have waiting in the replica before it is answered completely: bytes of writes, and for
/// each read behind a write [`DEFERRED_READ_COST`], since the reply may be as long as a node.
pub(super) const WAITING_MAX_COST: u32 = 4 << 20;

/// See [`WAITING_MAX_COST`].
pub(super) const DEFERRED_READ_COST: u32 = 128 << 10;

/// A submission is handed over before the round ends when it has this many items or bytes.
pub(super) const SUBMISSION_ITEMS: usize = 1024;

/// See [`SUBMISSION_ITEMS`].
pub(super) const SUBMISSION_BYTES: usize = 1 << 20;

/// Connections accepted per round.
pub(super) const ACCEPTS_PER_ROUND: usize = 64;

/// Events written per round when they go to connections that wait for nothing else.
pub(super) const EVENTS_PER_ROUND: usize = 64;

/// Watchers of one event up to which it is delivered at once.
pub(super) const SMALL_EVENT: usize = 16;

/// Fan-outs that may be under way; more are delivered at once.
pub(super) const FAN_OUTS_MAX: usize = 64;

/// How long a connection that is closed with something to say stays to be read.
pub(super) const LINGER_MS: u64 = 1_000;
