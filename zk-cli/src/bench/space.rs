//! The part of the tree that a load uses.

use std::net::SocketAddr;
use std::sync::Arc;

use super::error::Result;
use super::session::Session;
use super::wire::{self, SLOT, slot_text};

/// Nodes below one root, made for a load.
#[derive(Debug, Clone)]
pub struct Space {
    /// Path of the root.
    pub root: String,
    /// Number of nodes that are read and set.
    pub keys: u32,
    /// What they hold.
    pub value: Arc<[u8]>,
}

impl Space {
    /// A space below `root` with `keys` nodes of `value_bytes`.
    pub fn new(root: impl Into<String>, keys: u32, value_bytes: usize) -> Self {
        Space { root: root.into(), keys, value: wire::payload(value_bytes).into() }
    }

    /// The path of the nodes that are read and set, with a slot for the number.
    pub fn key_path(&self) -> String {
        format!("{}/key/{SLOT}", self.root)
    }

    /// Creates the nodes that are read and set.
    pub fn create_keys(&self, server: SocketAddr) -> Result<()> {
        self.create_nodes(server, "key", self.keys, &self.value)
    }

    /// Creates `count` empty directories right below the root, named by number.
    pub fn create_directories(&self, server: SocketAddr, count: u32) -> Result<()> {
        let mut session = Session::open(server, SESSION_TIMEOUT_MS)?;
        session.ensure(&self.root)?;
        let paths: Vec<String> = (0..count).map(|i| format!("{}/{}", self.root, slot_text(i))).collect();
        session.fill(&paths, &[])?;
        session.close()
    }

    /// Creates a directory for each connection, and returns their paths.
    pub fn create_parents(&self, server: SocketAddr, name: &str, count: usize) -> Result<Vec<String>> {
        let count = u32::try_from(count).unwrap_or(u32::MAX).min(wire::SLOT_MAX);
        self.create_nodes(server, name, count, &[])?;
        Ok((0..count).map(|i| format!("{}/{name}/{}", self.root, slot_text(i))).collect())
    }

    /// Creates the nodes `root/name/<number>`.
    pub fn create_nodes(&self, server: SocketAddr, name: &str, count: u32, value: &[u8]) -> Result<()> {
        let mut session = Session::open(server, SESSION_TIMEOUT_MS)?;
        let parent = format!("{}/{name}", self.root);
        session.ensure(&parent)?;
        let paths: Vec<String> = (0..count).map(|i| format!("{parent}/{}", slot_text(i))).collect();
        session.fill(&paths, value)?;
        session.close()
    }

    /// Deletes everything below the root, and the root.
    pub fn delete(&self, server: SocketAddr) -> Result<()> {
        let mut session = Session::open(server, SESSION_TIMEOUT_MS)?;
        session.delete_tree(&self.root)?;
        session.close()
    }
}

/// Timeout of the sessions that prepare and clean.
const SESSION_TIMEOUT_MS: i32 = 30_000;
