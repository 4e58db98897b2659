//! Where everything is, and what the nodes' data says.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::corpus::Piece;

/// Where masters stand in line.
pub const ELECTION: &str = "/election";
/// The leading master's address.
pub const MASTER: &str = "/master";
/// Workers that live.
pub const WORKERS: &str = "/workers";
/// Who is to do what.
pub const ASSIGN: &str = "/assign";
/// What is to be done.
pub const TASKS: &str = "/tasks";
/// A task's name without its number.
pub const TASK_PREFIX: &str = "task-";

/// The node that lives as long as the worker.
pub fn worker(worker: &str) -> String {
    format!("{WORKERS}/{worker}")
}

/// The directory of a worker's assignments.
pub fn assignments(worker: &str) -> String {
    format!("{ASSIGN}/{worker}")
}

/// The assignment of a task to a worker.
pub fn assignment(worker: &str, task: &str) -> String {
    format!("{ASSIGN}/{worker}/{task}")
}

/// A task.
pub fn task(task: &str) -> String {
    format!("{TASKS}/{task}")
}

/// A task's result.
pub fn status(task: &str) -> String {
    format!("{TASKS}/{task}/status")
}

/// What to do: count the words of a piece of text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Chosen by the client and unique: by it the client knows its own tasks again.
    pub id: String,
    /// What to count.
    pub count: Piece,
}

/// What has come of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Status {
    /// Success.
    Done {
        /// Who did it.
        worker: String,
        /// Each word and how often it occurs.
        counts: BTreeMap<String, u64>,
    },
    /// The command cannot be carried out; trying again would not help.
    Failed {
        /// Who tried.
        worker: String,
        /// Why.
        reason: String,
    },
}

/// Data of a node. Our types always have a JSON form, so there is no error to handle.
pub fn encode<T: Serialize>(data: &T) -> Vec<u8> {
    serde_json::to_vec(data).unwrap_or_default()
}

/// The other way round; the error is a text for people, since the data may come from anybody.
pub fn decode<'a, T: Deserialize<'a>>(data: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(data).map_err(|e| format!("bad data: {e}"))
}
