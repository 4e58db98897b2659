//! Who watches what: one server-side watch per path and kind, fanned out to any number of local listeners.
//!
//! A value without I/O. The session feeds it registrations, replies, events and disconnects in the order of
//! the connection, and sends what it asks for.
//!
//! The server keeps four kinds of watches: data (set by `get` and `exists` alike), child, persistent and
//! recursive. Servers before 3.9 keep only one mode per path and connection: setting a one-shot watch where a
//! persistent one stands replaces it (ZOOKEEPER-4466, -4471). So a path with a persistent or recursive watch
//! is *covered*: one-shot interest in it is served from the events of that watch, and the watch stays until
//! nobody needs the path any more. Under a recursive watch, `ChildrenChanged` of the path itself is derived
//! from the events of its children, since the server does not send it.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use zk_proto::path::split;
use zk_proto::{EventType, SessionId, WatcherType, Zxid};

use super::event::{Event, EventKind};
use super::listener::{Listener, ListenerId};
use crate::root::Root;

const DATA: usize = 0;
const EXIST: usize = 1;
const CHILD: usize = 2;
const PERSISTENT: usize = 3;
const RECURSIVE: usize = 4;
const TABLES: usize = 5;

const DATA_BIT: u8 = 1;
const CHILD_BIT: u8 = 2;
const PERSISTENT_BIT: u8 = 4;
const RECURSIVE_BIT: u8 = 8;
const COVER: u8 = PERSISTENT_BIT | RECURSIVE_BIT;

/// What a request wants to watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    Data,
    Exists,
    Child,
    Persistent,
    Recursive,
}

/// What to ask of the server so that the wish comes true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Nothing: the path is covered.
    Nothing,
    /// The watch flag of a read.
    OneShot,
    /// addWatch; `true` for recursive.
    Add { recursive: bool },
}

/// A watch whose request is under way.
#[derive(Debug)]
pub(crate) struct Registration {
    path: Arc<str>,
    want: Want,
    listener: ListenerId,
    asked: u8,
}

/// How the request of a registration ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Ok,
    NoNode,
    Failed,
}

/// A server-side watch that nobody needs any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Removal {
    pub(crate) path: Arc<str>,
    pub(crate) kind: WatcherType,
}

/// The watches to set again on a new connection.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Rearm {
    pub(crate) data: Vec<Arc<str>>,
    pub(crate) exist: Vec<Arc<str>>,
    pub(crate) child: Vec<Arc<str>>,
    pub(crate) persistent: Vec<Arc<str>>,
    pub(crate) recursive: Vec<Arc<str>>,
}

#[derive(Debug, Default)]
struct Watched {
    listeners: [Vec<ListenerId>; TABLES],
    /// What the server has (or will have, once the requests under way are answered in order).
    armed: u8,
    /// Registrations under way, by the bit they want.
    in_flight: [u32; 4],
}

#[derive(Debug, Default)]
pub(crate) struct Registry {
    paths: HashMap<Arc<str>, Watched>,
    listeners: HashMap<ListenerId, Listener>,
    next_listener: ListenerId,
    /// Whether there ever was a recursive watch: without one, no event needs a look at its ancestors.
    any_recursive: bool,
    session: SessionId,
    /// Events that streams have lost by overflow since the last look.
    pub(crate) events_lost: usize,
}

impl Registry {
    /// Makes a listener; `stream` for more than one event.
    pub(crate) fn listen(&mut self, path: Arc<str>, root: Root, stream: bool) -> ListenerId {
        self.next_listener += 1;
        self.listeners.insert(self.next_listener, Listener::new(path, root, stream));
        self.next_listener
    }

    /// A request that shall register `listener` is about to be sent.
    pub(crate) fn begin(&mut self, want: Want, listener: ListenerId) -> (Registration, Ask) {
        let path = match self.listeners.get(&listener) {
            Some(listener) => listener.path.clone(),
            None => Arc::from(""),
        };
        let watched = self.paths.entry(path.clone()).or_default();
        let pending = |bit: u8| watched.in_flight[bit.trailing_zeros() as usize] > 0;
        let has = |bit: u8| watched.armed & bit != 0 || pending(bit);
        let (asked, ask) = match want {
            Want::Recursive => (RECURSIVE_BIT, Ask::Add { recursive: true }),
            // A plain persistent watch would replace the recursive one on older servers.
            Want::Persistent if has(RECURSIVE_BIT) => (RECURSIVE_BIT, Ask::Add { recursive: true }),
            Want::Persistent => (PERSISTENT_BIT, Ask::Add { recursive: false }),
            _ if has(PERSISTENT_BIT) || has(RECURSIVE_BIT) => (0, Ask::Nothing),
            _ => (bit(want), Ask::OneShot),
        };
        self.any_recursive |= want == Want::Recursive;
        let counted = if asked == 0 { bit(want) } else { asked };
        watched.in_flight[counted.trailing_zeros() as usize] += 1;
        (Registration { path, want, listener, asked }, ask)
    }

    /// The request of `registration` was answered or lost.
    pub(crate) fn complete(
        &mut self,
        registration: Registration,
        answer: Answer,
        wakers: &mut Vec<Waker>,
    ) -> Option<Removal> {
        let Registration { path, want, listener, asked } = registration;
        let watched = self.paths.get_mut(&path)?;
        let counted = if asked == 0 { bit(want) } else { asked };
        let in_flight = &mut watched.in_flight[counted.trailing_zeros() as usize];
        *in_flight = in_flight.saturating_sub(1);
        let table = match (want, answer) {
            (_, Answer::Failed) => None,
            (Want::Exists, Answer::NoNode) => Some(EXIST),
            (Want::Data | Want::Child, Answer::NoNode) => None,
            (Want::Data | Want::Exists, _) => Some(DATA),
            (Want::Child, _) => Some(CHILD),
            (Want::Persistent, _) => Some(PERSISTENT),
            (Want::Recursive, _) => Some(RECURSIVE),
        };
        if let Some(table) = table {
            watched.armed |= asked;
            if let Some(owner) = self.listeners.get_mut(&listener) {
                if asked == 0 && watched.armed & COVER == 0 {
                    // The watch that was to cover this one did not come to be.
                    let event = local(EventKind::Resync, self.session);
                    owner.deliver(event, &path, wakers);
                } else {
                    owner.table = Some(table);
                    watched.listeners[table].push(listener);
                }
            }
        }
        self.unneeded(&path)
    }

    /// The owner of `listener` is gone.
    pub(crate) fn forget(&mut self, listener: ListenerId) -> Option<Removal> {
        let Listener { path, table, .. } = self.listeners.remove(&listener)?;
        if let (Some(table), Some(watched)) = (table, self.paths.get_mut(&path)) {
            watched.listeners[table].retain(|&id| id != listener);
        }
        self.unneeded(&path)
    }

    /// Which server-side watch of `path` has no user left. Registrations under way count as users.
    fn unneeded(&mut self, path: &Arc<str>) -> Option<Removal> {
        let watched = self.paths.get_mut(path)?;
        let [data, exist, child, persistent, recursive] = &watched.listeners;
        let no_data = data.is_empty() && exist.is_empty() && watched.in_flight[0] == 0;
        let no_child = child.is_empty() && watched.in_flight[1] == 0;
        let no_stream = persistent.is_empty() && recursive.is_empty() && watched.in_flight[2..] == [0, 0];
        // Older servers, asked to remove a one-shot watch, remove the persistent one with it: so nothing is
        // removed while there is one, or while one is on its way.
        let covered = watched.armed & COVER != 0 || watched.in_flight[2..] != [0, 0];
        let kind = if covered {
            if !(no_data && no_child && no_stream) {
                return None;
            }
            // Older servers know no narrower way to remove a persistent watch, and nothing else is left.
            watched.armed = 0;
            Some(WatcherType::Any)
        } else if watched.armed & DATA_BIT != 0 && no_data {
            watched.armed &= !DATA_BIT;
            Some(WatcherType::Data)
        } else if watched.armed & CHILD_BIT != 0 && no_child {
            watched.armed &= !CHILD_BIT;
            Some(WatcherType::Children)
        } else {
            None
        };
        if watched.armed == 0 && no_data && no_child && no_stream {
            self.paths.remove(path);
        }
        kind.map(|kind| Removal { path: path.clone(), kind })
    }

    /// An event came from the server.
    pub(crate) fn event(&mut self, kind: EventType, path: &str, zxid: Zxid, wakers: &mut Vec<Waker>) {
        let event = Event {
            kind: kind.into(),
            path: String::new(),
            zxid: u64::try_from(zxid.0).ok().filter(|&z| z > 0),
            session: self.session,
        };
        if let Some(watched) = self.paths.get_mut(path) {
            let derived = watched.armed & RECURSIVE_BIT != 0;
            let (tables, used_up): (&[usize], u8) = match kind {
                EventType::NodeCreated | EventType::NodeDataChanged => (&[DATA, EXIST], DATA_BIT),
                EventType::NodeDeleted => (&[DATA, EXIST, CHILD], DATA_BIT | CHILD_BIT),
                EventType::NodeChildrenChanged => (&[CHILD], CHILD_BIT),
            };
            watched.armed &= !used_up;
            let streams: &[usize] = match kind {
                EventType::NodeChildrenChanged if derived => &[],
                EventType::NodeChildrenChanged => &[PERSISTENT],
                _ => &[RECURSIVE, PERSISTENT],
            };
            self.fire(path, path, streams, tables, &event, wakers);
        }
        if !self.any_recursive || kind == EventType::NodeChildrenChanged {
            return;
        }
        let mut below = path;
        while let Some((parent, _)) = split(below) {
            self.fire(parent, path, &[RECURSIVE], &[], &event, wakers);
            let is_parent = below.len() == path.len();
            if is_parent && kind != EventType::NodeDataChanged && self.is_recursive(parent) {
                let changed = Event { kind: EventKind::ChildrenChanged, ..event.clone() };
                self.fire(parent, parent, &[PERSISTENT], &[CHILD], &changed, wakers);
            }
            below = parent;
        }
    }

    fn is_recursive(&self, path: &str) -> bool {
        self.paths.get(path).is_some_and(|watched| watched.armed & RECURSIVE_BIT != 0)
    }

    /// Delivers `event` about `about` to tables of `path`; listeners in the `once` tables are used up.
    fn fire(
        &mut self,
        path: &str,
        about: &str,
        streams: &[usize],
        once: &[usize],
        event: &Event,
        wakers: &mut Vec<Waker>,
    ) {
        let Some(watched) = self.paths.get_mut(path) else { return };
        for &table in streams {
            for id in &watched.listeners[table] {
                if let Some(listener) = self.listeners.get_mut(id) {
                    self.events_lost += listener.deliver(event.clone(), about, wakers);
                }
            }
        }
        for &table in once {
            for id in watched.listeners[table].drain(..) {
                if let Some(listener) = self.listeners.get_mut(&id) {
                    listener.table = None;
                    listener.deliver(event.clone(), about, wakers);
                }
            }
        }
        if watched.armed == 0 && watched.in_flight == [0; 4] && watched.listeners.iter().all(Vec::is_empty) {
            self.paths.remove(path);
        }
    }

    /// A connection of `session` begins: what to set again. Persistent watches have missed what happened in
    /// between, and so has every one-shot watch that they covered.
    pub(crate) fn rearm(&mut self, session: SessionId, wakers: &mut Vec<Waker>) -> Rearm {
        self.session = session;
        let mut rearm = Rearm::default();
        let resync = local(EventKind::Resync, session);
        self.paths.retain(|path, watched| {
            if watched.armed & COVER != 0 {
                for table in [DATA, EXIST, CHILD] {
                    for id in watched.listeners[table].drain(..) {
                        if let Some(listener) = self.listeners.get_mut(&id) {
                            listener.table = None;
                            listener.deliver(resync.clone(), path, wakers);
                        }
                    }
                }
            }
            for id in watched.listeners[PERSISTENT].iter().chain(&watched.listeners[RECURSIVE]) {
                if let Some(listener) = self.listeners.get_mut(id) {
                    self.events_lost += listener.deliver(resync.clone(), path, wakers);
                }
            }
            let [data, exist, child, persistent, recursive] = &watched.listeners;
            watched.armed = 0;
            if !recursive.is_empty() {
                rearm.recursive.push(path.clone());
                watched.armed = RECURSIVE_BIT;
            } else if !persistent.is_empty() {
                rearm.persistent.push(path.clone());
                watched.armed = PERSISTENT_BIT;
            } else {
                for (users, list, bit) in [
                    (data, &mut rearm.data, DATA_BIT),
                    (exist, &mut rearm.exist, DATA_BIT),
                    (child, &mut rearm.child, CHILD_BIT),
                ] {
                    if !users.is_empty() {
                        list.push(path.clone());
                        watched.armed |= bit;
                    }
                }
            }
            watched.armed != 0 || watched.in_flight != [0; 4]
        });
        rearm
    }

    /// The session is gone: one-shot watches are over, persistent ones wait for the next session.
    pub(crate) fn session_lost(&mut self, wakers: &mut Vec<Waker>) {
        self.end(EventKind::SessionLost, wakers);
        self.session = SessionId::NONE;
    }

    /// The client is gone.
    pub(crate) fn closed(&mut self, wakers: &mut Vec<Waker>) {
        self.end(EventKind::Closed, wakers);
    }

    fn end(&mut self, kind: EventKind, wakers: &mut Vec<Waker>) {
        let event = local(kind, self.session);
        for listener in self.listeners.values_mut() {
            let path = listener.path.clone();
            self.events_lost += listener.deliver(event.clone(), &path, wakers);
            if listener.table.is_some_and(|table| table < PERSISTENT) {
                listener.table = None;
            }
        }
        for watched in self.paths.values_mut() {
            watched.armed = 0;
            watched.in_flight = [0; 4];
            watched.listeners[..PERSISTENT].iter_mut().for_each(Vec::clear);
        }
        self.paths.retain(|_, watched| !watched.listeners.iter().all(Vec::is_empty));
    }

    /// Asks a listener for its next event.
    pub(crate) fn poll(&mut self, listener: ListenerId, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        match self.listeners.get_mut(&listener) {
            Some(listener) => listener.poll(cx),
            None => Poll::Ready(None),
        }
    }

    /// Number of watches that the server keeps for this client.
    #[cfg(feature = "testing")]
    pub(crate) fn armed(&self) -> usize {
        self.paths.values().map(|watched| watched.armed.count_ones() as usize).sum()
    }
}

fn bit(want: Want) -> u8 {
    match want {
        Want::Data | Want::Exists => DATA_BIT,
        Want::Child => CHILD_BIT,
        Want::Persistent => PERSISTENT_BIT,
        Want::Recursive => RECURSIVE_BIT,
    }
}

fn local(kind: EventKind, session: SessionId) -> Event {
    Event { kind, path: String::new(), zxid: None, session }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
