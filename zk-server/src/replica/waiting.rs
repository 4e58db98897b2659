//! Answers in request order, for connections whose requests are decided elsewhere.
//!
//! On a follower or observer every write and sync of a client goes to the leader; on a leader every sync waits
//! for a quorum. Each stands in its connection's queue until its answer is known, and whatever comes behind it
//! waits with it. A sync may be answered after a later write: that answer waits, too.

use std::collections::{BTreeMap, VecDeque};

use zk_proto::SessionId;

use super::pipeline::Deferred;
use crate::mutation::Mutation;
use crate::watch::ConnId;

/// What a connection waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// The transaction with this session and cxid.
    Write { session: SessionId, cxid: i32, close: bool },
    /// A sync, with what to answer.
    Sync { xid: i32, path: Vec<u8> },
    /// The session that the transaction opens.
    Connect { session: SessionId, timeout_ms: i32 },
}

#[derive(Debug)]
struct Waiting {
    what: What,
    /// The complete reply frame, when it is known.
    answer: Option<Vec<u8>>,
    then: Vec<Deferred>,
}

/// A request whose turn has come.
#[derive(Debug)]
pub(super) struct Done {
    pub what: What,
    pub answer: Vec<u8>,
    pub then: Vec<Deferred>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct WaitingRequests {
    conns: BTreeMap<ConnId, VecDeque<Waiting>>,
}

impl WaitingRequests {
    /// Whether the connection waits for something.
    pub fn has(&self, conn: ConnId) -> bool {
        !self.conns.is_empty() && self.conns.contains_key(&conn)
    }

    /// The connection waits for one more thing.
    pub fn push(&mut self, conn: ConnId, what: What) {
        self.conns.entry(conn).or_default().push_back(Waiting { what, answer: None, then: Vec::new() });
    }

    /// Puts something behind what the connection waits for; gives it back if that is nothing.
    pub fn defer(&mut self, deferred: Deferred) -> Option<Deferred> {
        match self.conns.get_mut(&deferred.conn).and_then(VecDeque::back_mut) {
            Some(last) => {
                last.then.push(deferred);
                None
            }
            None => Some(deferred),
        }
    }

    /// The oldest unanswered request of the connection that `matches`.
    pub fn find(&self, conn: ConnId, matches: impl Fn(&What) -> bool) -> Option<What> {
        let queue = self.conns.get(&conn)?;
        queue
            .iter()
            .find(|waiting| waiting.answer.is_none() && matches(&waiting.what))
            .map(|w| w.what.clone())
    }

    /// The answer to the oldest unanswered request equal to `what` is known. Returns what may be sent now.
    pub fn answer(&mut self, conn: ConnId, what: &What, answer: Vec<u8>) -> Vec<Done> {
        let Some(queue) = self.conns.get_mut(&conn) else { return Vec::new() };
        let Some(waiting) = queue.iter_mut().find(|w| w.answer.is_none() && w.what == *what) else {
            return Vec::new();
        };
        waiting.answer = Some(answer);
        if Mutation::AnswersOutOfOrder.is_on() {
            let at = queue.iter().position(|waiting| waiting.answer.is_some());
            let Some(Waiting { what, answer: Some(answer), then }) = at.and_then(|at| queue.remove(at))
            else {
                return Vec::new();
            };
            return vec![Done { what, answer, then }];
        }
        let mut done = Vec::new();
        while queue.front().is_some_and(|waiting| waiting.answer.is_some()) {
            if let Some(Waiting { what, answer: Some(answer), then }) = queue.pop_front() {
                done.push(Done { what, answer, then });
            }
        }
        if queue.is_empty() {
            self.conns.remove(&conn);
        }
        done
    }

    /// The answer to `what` is known, and it is the only one that may be sent now: the common case, in which
    /// nothing has to be kept. Returns what stood behind it; `None` calls for [`WaitingRequests::answer`].
    pub fn leave_first(&mut self, conn: ConnId, what: &What) -> Option<Vec<Deferred>> {
        let queue = self.conns.get_mut(&conn)?;
        let first = queue.front().is_some_and(|first| first.answer.is_none() && first.what == *what);
        if !first || queue.get(1).is_some_and(|second| second.answer.is_some()) {
            return None;
        }
        let then = queue.pop_front().map(|first| first.then);
        if queue.is_empty() {
            self.conns.remove(&conn);
        }
        then
    }

    /// Nobody waits any more. Returns what stood behind the requests.
    pub fn clear(&mut self) -> Vec<Deferred> {
        let queues = std::mem::take(&mut self.conns).into_values();
        queues.flatten().flat_map(|waiting| waiting.then).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_leave_in_request_order() {
        let mut waiting = WaitingRequests::default();
        let conn = ConnId(1);
        let sync = What::Sync { xid: 1, path: vec![] };
        let write = What::Write { session: SessionId(5), cxid: 2, close: false };
        waiting.push(conn, sync.clone());
        waiting.push(conn, write.clone());
        assert!(waiting.answer(conn, &write, vec![2]).is_empty(), "the sync comes first");
        let done: Vec<_> = waiting.answer(conn, &sync, vec![1]).into_iter().map(|d| d.answer).collect();
        assert_eq!(done, [vec![1], vec![2]]);
        assert!(!waiting.has(conn));
    }

    #[test]
    fn only_the_oldest_leaves_at_once_and_only_alone() {
        let mut waiting = WaitingRequests::default();
        let conn = ConnId(1);
        let [first, second, third] =
            [1, 2, 3].map(|cxid| What::Write { session: SessionId(5), cxid, close: false });
        for what in [&first, &second, &third] {
            waiting.push(conn, what.clone());
        }
        assert!(waiting.leave_first(conn, &second).is_none(), "the first one comes before it");
        assert!(waiting.leave_first(conn, &first).is_some());
        assert!(waiting.answer(conn, &third, vec![3]).is_empty());
        assert!(waiting.leave_first(conn, &second).is_none(), "the third one leaves with it");
        let done: Vec<_> = waiting.answer(conn, &second, vec![2]).into_iter().map(|d| d.answer).collect();
        assert_eq!(done, [vec![2], vec![3]]);
        assert!(!waiting.has(conn));
    }
}
