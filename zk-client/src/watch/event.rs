//! What a watch tells.

use zk_proto::{EventType, SessionId};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EventKind {
    /// The node was created.
    Created,
    /// The node was deleted.
    Deleted,
    /// The node's data was set (also to the same bytes).
    DataChanged,
    /// A child was created or deleted.
    ChildrenChanged,
    /// The session is gone. A one-shot watch is used up; a persistent one goes on in the next session.
    SessionLost,
    /// Events may have been missed: read again. A persistent watch goes on, a one-shot one is used up.
    Resync,
    /// The client was closed, or its session ended for good.
    Closed,
}

impl From<EventType> for EventKind {
    fn from(kind: EventType) -> Self {
        match kind {
            EventType::NodeCreated => EventKind::Created,
            EventType::NodeDeleted => EventKind::Deleted,
            EventType::NodeDataChanged => EventKind::DataChanged,
            EventType::NodeChildrenChanged => EventKind::ChildrenChanged,
        }
    }
}

/// An event of a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The node it happened to; for `SessionLost`, `Resync` and `Closed` the node that is watched. Relative to
    /// the chroot of the handle that set the watch.
    pub path: String,
    /// The transaction behind the event. Servers since 3.9 send it; events that were missed during a
    /// disconnect have none.
    pub zxid: Option<u64>,
    /// The session in which the event was received; [`SessionId::NONE`] when there was none.
    pub session: SessionId,
}
