//! One measured value of one server, as it is recorded.

use serde::{Deserialize, Serialize};

/// One measured value. Recorded as one line of JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Line of the table.
    pub line: String,
    /// Metric within the line.
    pub key: String,
    /// The server's name.
    pub server: String,
    /// Which of the two: the reference or the candidate.
    pub role: Role,
    /// The round, from 1.
    pub round: usize,
    /// The value in the metric's unit.
    pub value: f64,
    /// How the value came about.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub detail: serde_json::Value,
}

/// Which of the two servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The one that is compared with.
    Reference,
    /// The one that is judged.
    Candidate,
}

impl Role {
    /// Both, in the order in which they take turns.
    pub const BOTH: [Role; 2] = [Role::Reference, Role::Candidate];
}
