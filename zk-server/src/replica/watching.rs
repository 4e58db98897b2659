//! From changes of the tree to watch events in the mail.

use bytes::Bytes;
use zk_proto::jute::frame;
use zk_proto::{ErrorCode, EventType, ReplyHeader, WatcherEvent, Zxid, path, xid};

use super::messages::{Letter, Mail, thread_of};
use crate::tree::{NodeIdx, Observer, Tree};
use crate::watch::{ConnId, Fired, Subject, WatchTable};

/// Collects the events of one transaction: each encoded once, and a letter for each I/O thread that owns
/// watchers.
pub struct WatchCollector<'a> {
    watches: &'a mut WatchTable,
    mail: &'a mut [Mail],
    zxid: Zxid,
    fired: Vec<Fired>,
}

impl<'a> WatchCollector<'a> {
    pub fn new(watches: &'a mut WatchTable, mail: &'a mut [Mail], zxid: Zxid) -> Self {
        WatchCollector { watches, mail, zxid, fired: Vec::new() }
    }

    fn send(&mut self, tree: &Tree, idx: NodeIdx, node_path: &str) {
        for Fired { kind, which, watchers } in std::mem::take(&mut self.fired) {
            let (subject, event_path) = match which {
                Subject::Node => (idx, node_path),
                Subject::Parent => {
                    (tree.parent(idx), path::split(node_path).map_or("/", |(parent, _)| parent))
                }
            };
            let acl = (!tree.is_open(subject)).then(|| tree.acl(subject).clone());
            let event = encode(kind, event_path, self.zxid);
            let mut rest = watchers.as_slice();
            while let Some(&first) = rest.first() {
                let thread = thread_of(first);
                let n = rest.iter().take_while(|conn| thread_of(**conn) == thread).count();
                let (own, others): (&[ConnId], _) = rest.split_at(n);
                if let Some(mail) = self.mail.get_mut(thread) {
                    mail.letters.push(Letter::Event {
                        frame: event.clone(),
                        conns: own.to_vec(),
                        acl: acl.clone(),
                    });
                }
                rest = others;
            }
        }
    }
}

fn encode(kind: EventType, path: &str, zxid: Zxid) -> Bytes {
    let mut out = Vec::with_capacity(4 + ReplyHeader::WIRE_LEN + 12 + path.len());
    frame(&mut out, |out| {
        ReplyHeader { xid: xid::EVENT, zxid, err: ErrorCode::OK }.encode(out);
        WatcherEvent::new(kind, path).encode(out);
    });
    Bytes::from(out)
}

impl Observer for WatchCollector<'_> {
    fn created(&mut self, tree: &Tree, idx: NodeIdx, path: &str) {
        if self.watches.is_empty() {
            return;
        }
        self.watches.created(idx, path, tree.ancestors(idx), &mut self.fired);
        self.send(tree, idx, path);
    }

    fn deleted(&mut self, tree: &Tree, idx: NodeIdx, path: &str) {
        if self.watches.is_empty() {
            return;
        }
        self.watches.deleted(idx, path, tree.ancestors(idx), &mut self.fired);
        self.send(tree, idx, path);
    }

    fn data_changed(&mut self, tree: &Tree, idx: NodeIdx, path: &str) {
        if self.watches.is_empty() {
            return;
        }
        self.watches.data_changed(idx, tree.ancestors(idx), &mut self.fired);
        self.send(tree, idx, path);
    }
}
