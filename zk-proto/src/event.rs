//! Watch events.

use std::borrow::Cow;

use crate::jute::{DecodeError, Reader, Writer};

/// What happened to a watched node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum EventType {
    /// The node was created.
    NodeCreated = 1,
    /// The node was deleted.
    NodeDeleted = 2,
    /// The node's data was set (also to the same bytes).
    NodeDataChanged = 3,
    /// A child was created or deleted.
    NodeChildrenChanged = 4,
}

impl EventType {
    /// The event with this wire value.
    pub fn from_i32(v: i32) -> Option<Self> {
        Some(match v {
            1 => EventType::NodeCreated,
            2 => EventType::NodeDeleted,
            3 => EventType::NodeDataChanged,
            4 => EventType::NodeChildrenChanged,
            _ => return None,
        })
    }
}

/// The record of a watch event; its frame has a reply header with xid -1 in front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatcherEvent<'a> {
    /// What happened.
    pub kind: EventType,
    /// Always 3 (SyncConnected) on the wire.
    pub state: i32,
    /// The node.
    pub path: Cow<'a, str>,
}

impl<'a> WatcherEvent<'a> {
    /// The only state that a server sends.
    pub const SYNC_CONNECTED: i32 = 3;

    /// An event as a server sends it.
    pub fn new(kind: EventType, path: impl Into<Cow<'a, str>>) -> Self {
        WatcherEvent { kind, state: Self::SYNC_CONNECTED, path: path.into() }
    }

    /// Reads the record.
    pub fn decode(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let kind = r.i32()?;
        Ok(WatcherEvent {
            kind: EventType::from_i32(kind)
                .ok_or(DecodeError::Unexpected { what: "event type", value: i64::from(kind) })?,
            state: r.i32()?,
            path: r.required_string("event path")?,
        })
    }

    /// Appends the record.
    pub fn encode(&self, w: &mut Vec<u8>) {
        w.put_int(self.kind as i32);
        w.put_int(self.state);
        w.put_str(&self.path);
    }
}
