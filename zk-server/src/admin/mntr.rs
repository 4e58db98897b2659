//! The word `mntr`: every metric, one per line.
//!
//! Dashboards know the names, so every name that Apache 3.9 prints is printed, in the same order;
//! what has no counterpart here is zero.

use super::four_letter::{decimal, line, or_minus_one};
use super::metrics::{Counter, Latency, LatencyValue, Snapshot, Summary, SummaryValue};
use super::{ProposalSizes, ServerStats};

/// Everything that `mntr` reports.
#[derive(Debug, Clone)]
pub struct MntrReport<'a> {
    /// The server; its traffic is taken from `metrics`.
    pub server: &'a ServerStats,
    /// What was recorded.
    pub metrics: &'a Snapshot,
    /// What can be measured at any moment.
    pub gauges: Gauges,
    /// What only a member of an ensemble has.
    pub quorum: Option<QuorumGauges>,
    /// Metrics that exist once per key: per learner, per quota.
    pub keyed: Vec<Keyed<'a>>,
}

/// Measurements of the moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Gauges {
    /// Ephemeral nodes.
    pub ephemerals: u64,
    /// Sessions that the whole ensemble knows.
    pub global_sessions: u64,
    /// Sessions that only this server knows.
    pub local_sessions: u64,
    /// Watches of all kinds.
    pub watches: u64,
    /// Bytes of paths and data in the tree.
    pub approximate_data_size: u64,
    /// Failed authentications.
    pub auth_failed: u64,
    /// Probability with which a new connection is dropped, from 0 to 1.
    pub connection_drop_probability: f64,
    /// TLS handshakes that are not finished.
    pub outstanding_tls_handshakes: u64,
    /// Open file descriptors.
    pub open_file_descriptors: u64,
    /// How many are allowed.
    pub max_file_descriptors: u64,
    /// Milliseconds since the server began to serve.
    pub uptime_ms: u64,
}

/// Measurements of the moment that only a member of an ensemble has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuorumGauges {
    /// What it does and how far it is, such as `leading - broadcast`.
    pub peer_state: String,
    /// Participants.
    pub quorum_size: u64,
    /// For an observer: the server that serves it.
    pub observer_master_id: Option<i64>,
    /// For a leader.
    pub leader: Option<LeaderGauges>,
}

/// Measurements of the moment that only a leader has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeaderGauges {
    /// Connected learners.
    pub learners: u64,
    /// Followers in sync.
    pub synced_followers: u64,
    /// Those of them that may not vote (yet).
    pub synced_non_voting_followers: u64,
    /// Observers in sync.
    pub synced_observers: u64,
    /// `sync` requests on their way.
    pub pending_syncs: u64,
    /// Milliseconds since it leads.
    pub leader_uptime_ms: u64,
}

/// A metric that exists once per key.
#[derive(Debug, Clone, PartialEq)]
pub struct Keyed<'a> {
    /// Server id, or first component of a path.
    pub key: String,
    /// Name without the key, such as `quota_count_usage_per_namespace`.
    pub name: &'a str,
    /// What is known about it.
    pub value: KeyedValue,
}

/// The value of a [`Keyed`] metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum KeyedValue {
    /// A plain number.
    Number(i64),
    /// A summary of plain numbers.
    Summary(SummaryValue),
    /// A summary of times in microseconds, reported in milliseconds.
    Latency(LatencyValue),
}

/// The whole reply.
pub fn mntr(report: &MntrReport<'_>) -> String {
    let mut lines = Lines { text: String::with_capacity(24 << 10) };
    lines.add("version", &report.server.version);
    lines.add("server_state", report.server.mode);
    if let Some(quorum) = &report.quorum {
        lines.add("peer_state", &quorum.peer_state);
        if let Some(id) = quorum.observer_master_id {
            lines.add("observer_master_id", id);
        }
    }
    lines.gauges(report);
    for counter in Counter::ALL {
        lines.add(counter.name(), report.metrics.counter(counter));
    }
    for summary in Summary::ALL {
        lines.summary(summary.name(), report.metrics.summary(summary), summary.is_time());
    }
    for latency in Latency::ALL {
        lines.latency(latency.name(), report.metrics.latency(latency));
    }
    for Keyed { key, name, value } in &report.keyed {
        let name = format!("{key}_{name}");
        match *value {
            KeyedValue::Number(number) => lines.add(&name, number),
            KeyedValue::Summary(summary) => lines.summary(&name, summary, false),
            KeyedValue::Latency(latency) => lines.latency(&name, latency),
        }
    }
    lines.text
}

struct Lines {
    text: String,
}

impl Lines {
    fn add(&mut self, name: &str, value: impl std::fmt::Display) {
        line(&mut self.text, format_args!("zk_{name}\t{value}"));
    }

    fn gauges(&mut self, report: &MntrReport<'_>) {
        let MntrReport { server, gauges, .. } = report;
        let traffic = &report.metrics.traffic;
        let latency = traffic.request_latency;
        let response = traffic.response_size;
        let some_response = |size: u64| or_minus_one(Some(size).filter(|_| response.count > 0));
        self.add("ephemerals_count", gauges.ephemerals);
        self.add("num_alive_connections", server.connections);
        self.add("avg_latency", decimal(latency.avg() / 1000.0));
        self.add("outstanding_requests", server.outstanding_requests);
        self.add("znode_count", server.node_count);
        self.add("global_sessions", gauges.global_sessions);
        self.add("non_mtls_remote_conn_count", 0);
        self.add("last_client_response_size", or_minus_one(traffic.last_response_size));
        self.add("packets_sent", traffic.packets_sent);
        self.add("packets_received", traffic.packets_received);
        self.add("max_client_response_size", some_response(response.max));
        self.add("connection_drop_probability", decimal(gauges.connection_drop_probability));
        self.add("watch_count", gauges.watches);
        self.add("auth_failed_count", gauges.auth_failed);
        self.add("min_latency", latency.min() / 1000);
        self.add("max_file_descriptor_count", gauges.max_file_descriptors);
        self.add("approximate_data_size", gauges.approximate_data_size);
        self.add("open_file_descriptor_count", gauges.open_file_descriptors);
        self.add("local_sessions", gauges.local_sessions);
        self.add("uptime", gauges.uptime_ms);
        self.add("max_latency", latency.max / 1000);
        self.add("outstanding_tls_handshake", gauges.outstanding_tls_handshakes);
        self.add("min_client_response_size", some_response(response.min()));
        self.add("non_mtls_local_conn_count", 0);
        if let Some(quorum) = &report.quorum {
            self.add("quorum_size", quorum.quorum_size);
            if let Some(leader) = quorum.leader {
                self.leader(leader, server.proposal_sizes.unwrap_or_default());
            }
        }
    }

    fn leader(&mut self, leader: LeaderGauges, sizes: ProposalSizes) {
        self.add("learners", leader.learners);
        self.add("synced_followers", leader.synced_followers);
        self.add("synced_non_voting_followers", leader.synced_non_voting_followers);
        self.add("synced_observers", leader.synced_observers);
        self.add("pending_syncs", leader.pending_syncs);
        self.add("leader_uptime", leader.leader_uptime_ms);
        self.add("last_proposal_size", or_minus_one(sizes.last));
        self.add("max_proposal_size", or_minus_one(sizes.max));
        self.add("min_proposal_size", or_minus_one(sizes.min));
    }

    fn summary(&mut self, name: &str, value: SummaryValue, is_time: bool) {
        // Recorded in microseconds, reported in milliseconds.
        let unit = if is_time { 1000 } else { 1 };
        self.add(&format!("avg_{name}"), decimal(value.avg() / unit as f64));
        self.add(&format!("min_{name}"), value.min() / unit);
        self.add(&format!("max_{name}"), value.max / unit);
        self.add(&format!("cnt_{name}"), value.count);
        self.add(&format!("sum_{name}"), value.sum / unit);
    }

    fn latency(&mut self, name: &str, value: LatencyValue) {
        self.summary(name, value.values, true);
        self.add(&format!("p50_{name}"), value.p50 / 1000);
        self.add(&format!("p95_{name}"), value.p95 / 1000);
        self.add(&format!("p99_{name}"), value.p99 / 1000);
        self.add(&format!("p999_{name}"), value.p999 / 1000);
    }
}

#[cfg(test)]
mod tests;
