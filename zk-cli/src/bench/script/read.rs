//! Reads of nodes that exist.

use std::sync::Arc;

use zk_proto::{OpCode, ReplyHeader, Request, Response};

use super::{Script, Verdict, unless_failed};
use crate::bench::space::Space;
use crate::bench::wire::Template;

/// Reads data of nodes chosen at random and compares it.
pub struct Get {
    template: Template,
    keys: u32,
    value: Arc<[u8]>,
    random: fastrand::Rng,
}

impl Get {
    /// For connection `index`.
    pub fn new(space: &Space, index: usize) -> Self {
        Get {
            template: Template::new(&Request::GetData { path: space.key_path().into(), watch: false }),
            keys: space.keys,
            value: Arc::clone(&space.value),
            random: fastrand::Rng::with_seed(index as u64),
        }
    }
}

impl Script for Get {
    const KINDS: &'static [&'static str] = &["get"];
    type Sent = ();

    fn next(&mut self, xid: i32, out: &mut Vec<u8>) -> Option<()> {
        self.template.append(out, xid, || self.random.u32(..self.keys));
        Some(())
    }

    fn check(&mut self, _: (), header: ReplyHeader, body: &[u8]) -> Verdict {
        unless_failed(header, || is_data(body, &self.value))
    }
}

/// Whether a getData reply carries `value`.
pub fn is_data(body: &[u8], value: &[u8]) -> bool {
    let mut reader = zk_proto::Reader::new(body);
    match Response::decode(OpCode::GetData, &mut reader) {
        Ok(Response::Data { data: Some(data), stat }) => {
            data == value && stat.data_length as usize == value.len() && reader.remaining() == 0
        }
        _ => false,
    }
}

/// Asks for the Stat of nodes: at random, or one after the other with a watch on each.
pub struct Exists {
    template: Template,
    keys: u32,
    value_len: usize,
    /// The next node when they come in order.
    next: Option<u32>,
    random: fastrand::Rng,
}

impl Exists {
    /// Nodes at random, for connection `index`.
    pub fn new(space: &Space, index: usize) -> Self {
        Exists {
            template: Template::new(&Request::Exists { path: space.key_path().into(), watch: false }),
            keys: space.keys,
            value_len: space.value.len(),
            next: None,
            random: fastrand::Rng::with_seed(index as u64),
        }
    }

    /// Every node in order, leaving a watch on it.
    pub fn watching(space: &Space) -> Self {
        let request = Request::Exists { path: space.key_path().into(), watch: true };
        Exists { template: Template::new(&request), next: Some(0), ..Self::new(space, 0) }
    }
}

impl Script for Exists {
    const KINDS: &'static [&'static str] = &["exists"];
    type Sent = ();

    fn next(&mut self, xid: i32, out: &mut Vec<u8>) -> Option<()> {
        let key = match &mut self.next {
            Some(next) => {
                *next += 1;
                (*next - 1) % self.keys
            }
            None => self.random.u32(..self.keys),
        };
        self.template.append(out, xid, || key);
        Some(())
    }

    fn check(&mut self, _: (), header: ReplyHeader, body: &[u8]) -> Verdict {
        unless_failed(header, || {
            let mut reader = zk_proto::Reader::new(body);
            match Response::decode(OpCode::Exists, &mut reader) {
                Ok(Response::Stat(stat)) => {
                    stat.data_length as usize == self.value_len && reader.remaining() == 0
                }
                _ => false,
            }
        })
    }
}

/// Lists a node that has many children.
pub struct Children {
    template: Template,
    /// The names that must come, sorted.
    names: Arc<[String]>,
    /// A reply that has been found right; most others equal it byte by byte.
    right: Vec<u8>,
}

impl Children {
    /// Lists `parent`, whose children are `names` (sorted).
    pub fn new(parent: &str, names: Arc<[String]>) -> Self {
        let request = Request::GetChildren { path: parent.into(), watch: false };
        Children { template: Template::new(&request), names, right: Vec::new() }
    }

    fn has_all_names(&self, body: &[u8]) -> bool {
        let mut reader = zk_proto::Reader::new(body);
        let Ok(Response::Paths(mut names)) = Response::decode(OpCode::GetChildren, &mut reader) else {
            return false;
        };
        names.sort_unstable();
        reader.remaining() == 0 && names.iter().eq(self.names.iter())
    }
}

impl Script for Children {
    const KINDS: &'static [&'static str] = &["getChildren"];
    type Sent = ();

    fn next(&mut self, xid: i32, out: &mut Vec<u8>) -> Option<()> {
        self.template.append(out, xid, || 0);
        Some(())
    }

    fn check(&mut self, _: (), header: ReplyHeader, body: &[u8]) -> Verdict {
        unless_failed(header, || {
            let right = body == self.right || self.has_all_names(body);
            if right && self.right.len() != body.len() {
                self.right = body.to_vec();
            }
            right
        })
    }
}
