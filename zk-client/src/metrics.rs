//! Numbers about a running client, for whatever collects them.

use std::time::Duration;

use zk_proto::OpCode;

/// Receives measurements. Every method has an empty default; they are called with the
/// client's lock held, so they must not block and must not use the client.
#[allow(unused_variables)]
pub trait MetricsSink: Send + Sync + 'static {
    /// A request was answered (`code` 0 or an error code) or failed without an answer (`code` is `None`).
    /// `latency` counts from the write to the socket.
    fn request(&self, op: OpCode, code: Option<i32>, latency: Duration) {}
    /// Requests written and not yet answered, after a batch of replies.
    fn in_flight(&self, requests: usize) {}
    /// A connection was made; `generation` counts them.
    fn connected(&self, generation: u64) {}
    /// The connection was lost.
    fn disconnected(&self) {}
    /// A server confirmed that the session expired.
    fn session_expired(&self) {}
    /// Round trip of a ping.
    fn ping(&self, round_trip: Duration) {}
    /// A watch stream overflowed and lost this many events.
    fn events_dropped(&self, events: usize) {}
    /// Nodes that wait for their deletion in the background.
    fn cleanup_backlog(&self, items: usize) {}
}
