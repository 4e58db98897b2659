//! The receiving ends of watches inside the session: where an event waits until its owner polls.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::event::{Event, EventKind};
use crate::root::Root;

/// Events that a persistent watch holds for a consumer that does not keep up.
pub(crate) const STREAM_EVENTS_MAX: usize = 1024;

/// Never reused, so that a late reply cannot meet another listener under its number.
pub(crate) type ListenerId = u64;

#[derive(Debug)]
pub(crate) struct Listener {
    /// The server's name of the watched node.
    pub(super) path: Arc<str>,
    /// The chroot of the handle that made the watch.
    pub(super) root: Root,
    /// Where it is registered; `None` until its request is answered, and after it has fired.
    pub(super) table: Option<usize>,
    events: Events,
    waker: Option<Waker>,
}

#[derive(Debug)]
enum Events {
    Once(Option<Event>),
    Stream { queue: VecDeque<Event>, ended: bool },
}

impl Listener {
    pub(super) fn new(path: Arc<str>, root: Root, stream: bool) -> Self {
        let events = match stream {
            true => Events::Stream { queue: VecDeque::new(), ended: false },
            false => Events::Once(None),
        };
        Listener { path, root, table: None, events, waker: None }
    }

    /// Hands over an event about the server's `path`. Returns how many events were lost to make room.
    pub(super) fn deliver(&mut self, mut event: Event, path: &str, wakers: &mut Vec<Waker>) -> usize {
        event.path = self.root.strip(path).to_owned();
        let mut lost = 0;
        match &mut self.events {
            Events::Once(slot) => {
                slot.get_or_insert(event);
            }
            Events::Stream { queue, ended } => {
                *ended |= event.kind == EventKind::Closed;
                if queue.len() >= STREAM_EVENTS_MAX {
                    lost = queue.len() + 1;
                    queue.clear();
                    event = Event {
                        kind: EventKind::Resync,
                        path: self.root.strip(&self.path).to_owned(),
                        ..event
                    };
                }
                queue.push_back(event);
            }
        }
        wakers.extend(self.waker.take());
        lost
    }

    /// The next event; `None` after the last one of a stream.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let next = match &mut self.events {
            Events::Once(slot) => slot.take().map(Some),
            Events::Stream { queue, ended } => queue.pop_front().map(Some).or(ended.then_some(None)),
        };
        match next {
            Some(event) => Poll::Ready(event),
            None => {
                match &mut self.waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    none => *none = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
        }
    }
}
