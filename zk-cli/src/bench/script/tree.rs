//! Creates and deletes.

use std::borrow::Cow;

use zk_proto::jute::frame;
use zk_proto::{
    Acl, CreateMode, CreateRequest, MultiOp, OpCode, Reader, ReplyHeader, Request, RequestHeader, Response,
};

use super::write::multi_results;
use super::{Script, Verdict, unless_failed};
use crate::bench::space::Space;
use crate::bench::wire::{SLOT, Template};

/// A create of a persistent node with `data` that anyone may use.
pub fn create_request<'a>(path: &'a str, data: &'a [u8], mode: CreateMode) -> CreateRequest<'a> {
    CreateRequest {
        op: OpCode::Create,
        path: path.into(),
        data: Some(data),
        acl: Some(vec![Acl::open()]),
        flags: mode.flags(),
        ttl_ms: 0,
    }
}

/// Whether `path` is `parent`, a slash, and the eight digits of `number`.
fn is_numbered(path: &str, parent: &str, number: u32) -> bool {
    let name = path.strip_prefix(parent).and_then(|rest| rest.strip_prefix('/'));
    name.is_some_and(|name| name.len() == SLOT.len() && name.parse() == Ok(number))
}

fn created_path<'a>(reader: &mut Reader<'a>) -> Option<Cow<'a, str>> {
    match Response::decode(OpCode::Create, reader) {
        Ok(Response::Create { path }) => Some(path),
        _ => None,
    }
}

/// Creates one node after the other below a parent of its own.
pub struct Create {
    template: Template,
    parent: String,
    next: u32,
}

impl Create {
    /// Below `parent`, which nobody else uses.
    pub fn new(space: &Space, parent: String) -> Self {
        let path = format!("{parent}/{SLOT}");
        let create = create_request(&path, &space.value, CreateMode::Persistent);
        Create { template: Template::new(&Request::Create(create)), parent, next: 0 }
    }
}

impl Script for Create {
    const KINDS: &'static [&'static str] = &["create"];
    type Sent = u32;

    fn next(&mut self, xid: i32, out: &mut Vec<u8>) -> Option<u32> {
        let number = self.next;
        self.next += 1;
        self.template.append(out, xid, || number);
        Some(number)
    }

    fn check(&mut self, number: u32, header: ReplyHeader, body: &[u8]) -> Verdict {
        unless_failed(header, || {
            let mut reader = Reader::new(body);
            created_path(&mut reader).is_some_and(|path| is_numbered(&path, &self.parent, number))
                && reader.remaining() == 0
        })
    }
}

/// Creates a node and deletes it, again and again.
pub struct CreateDelete {
    create: Create,
    delete: Template,
    /// The node to delete next.
    created: Option<u32>,
}

/// Which of the two a request of [`CreateDelete`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateOrDelete {
    /// create of this node.
    Create(u32),
    /// delete.
    Delete,
}

impl CreateDelete {
    /// Below `parent`, which nobody else uses.
    pub fn new(space: &Space, parent: String) -> Self {
        let path = format!("{parent}/{SLOT}");
        let delete = Template::new(&Request::Delete { path: path.into(), version: -1 });
        CreateDelete { create: Create::new(space, parent), delete, created: None }
    }
}

impl Script for CreateDelete {
    const KINDS: &'static [&'static str] = &["create", "delete"];
    type Sent = CreateOrDelete;

    fn next(&mut self, xid: i32, out: &mut Vec<u8>) -> Option<CreateOrDelete> {
        match self.created.take() {
            Some(number) => {
                self.delete.append(out, xid, || number);
                Some(CreateOrDelete::Delete)
            }
            None => {
                self.created = self.create.next(xid, out);
                self.created.map(CreateOrDelete::Create)
            }
        }
    }

    fn kind(sent: &CreateOrDelete) -> usize {
        match sent {
            CreateOrDelete::Create(_) => 0,
            CreateOrDelete::Delete => 1,
        }
    }

    fn check(&mut self, sent: CreateOrDelete, header: ReplyHeader, body: &[u8]) -> Verdict {
        match sent {
            CreateOrDelete::Create(number) => self.create.check(number, header, body),
            CreateOrDelete::Delete => unless_failed(header, || body.is_empty()),
        }
    }
}

/// What a lock does when nobody contends: an ephemeral sequential create, a look at the list, a delete.
/// Each step waits for the one before.
pub struct LockCycle {
    create: Template,
    list: Template,
    parent: String,
    step: LockStep,
    waiting: bool,
    /// The node that the last create has made.
    node: String,
}

/// A step of [`LockCycle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockStep {
    /// create.
    Create,
    /// getChildren.
    List,
    /// delete.
    Delete,
}

impl LockCycle {
    const NAME: &'static str = "lock-";

    /// Below `parent`, which nobody else uses.
    pub fn new(parent: String) -> Self {
        let path = format!("{parent}/{}", Self::NAME);
        let create = create_request(&path, &[], CreateMode::EphemeralSequential);
        LockCycle {
            create: Template::new(&Request::Create(create)),
            list: Template::new(&Request::GetChildren { path: parent.as_str().into(), watch: false }),
            parent,
            step: LockStep::Create,
            waiting: false,
            node: String::new(),
        }
    }

    fn name(&self) -> &str {
        self.node.rsplit_once('/').map_or("", |(_, name)| name)
    }

    fn is_lock_node(&self, path: &str) -> bool {
        let name = path.strip_prefix(&self.parent).and_then(|rest| rest.strip_prefix('/'));
        let digits = name.and_then(|name| name.strip_prefix(Self::NAME));
        digits.is_some_and(|digits| digits.len() == 10 && digits.bytes().all(|b| b.is_ascii_digit()))
    }

    fn is_right(&mut self, step: LockStep, body: &[u8]) -> bool {
        let mut reader = Reader::new(body);
        let right = match step {
            LockStep::Create => match created_path(&mut reader) {
                Some(path) => {
                    self.node.clear();
                    self.node.push_str(&path);
                    self.is_lock_node(&path)
                }
                None => false,
            },
            LockStep::List => {
                reader.vector_len() == Ok(Some(1))
                    && reader.string().is_ok_and(|name| name.as_deref() == Some(self.name()))
            }
            LockStep::Delete => true,
        };
        right && reader.remaining() == 0
    }
}

impl Script for LockCycle {
    const KINDS: &'static [&'static str] = &["create", "getChildren", "delete"];
    type Sent = LockStep;

    fn next(&mut self, xid: i32, out: &mut Vec<u8>) -> Option<LockStep> {
        if std::mem::replace(&mut self.waiting, true) {
            return None;
        }
        match self.step {
            LockStep::Create => self.create.append(out, xid, || 0),
            LockStep::List => self.list.append(out, xid, || 0),
            LockStep::Delete => frame(out, |w| {
                RequestHeader { xid, op: OpCode::Delete as i32 }.encode(w);
                Request::Delete { path: self.node.as_str().into(), version: -1 }.encode(w);
            }),
        }
        Some(self.step)
    }

    fn kind(sent: &LockStep) -> usize {
        match sent {
            LockStep::Create => 0,
            LockStep::List => 1,
            LockStep::Delete => 2,
        }
    }

    fn check(&mut self, sent: LockStep, header: ReplyHeader, body: &[u8]) -> Verdict {
        self.waiting = false;
        self.step = match sent {
            LockStep::Create => LockStep::List,
            LockStep::List => LockStep::Delete,
            LockStep::Delete => LockStep::Create,
        };
        unless_failed(header, || self.is_right(sent, body))
    }
}

/// Fills directories with nodes, many in one transaction. Connection `index` of `connections` takes every
/// `connections`-th directory, and fills one before it begins the next.
pub struct BulkCreate {
    template: Template,
    root: String,
    batch: u32,
    per_directory: u32,
    connections: u32,
    directory: u32,
    in_directory: u32,
}

impl BulkCreate {
    /// Nodes `root/<8 digits>/<8 digits>` with the space's value, `batch` of them in each transaction, which
    /// must divide `per_directory`. The directories must exist.
    pub fn new(space: &Space, batch: u32, per_directory: u32, index: u32, connections: u32) -> Self {
        let path = format!("{}/{SLOT}/{SLOT}", space.root);
        let create = MultiOp::Create(create_request(&path, &space.value, CreateMode::Persistent));
        BulkCreate {
            template: Template::new(&Request::Multi(vec![create; batch as usize])),
            root: space.root.clone(),
            batch,
            per_directory,
            connections,
            directory: index,
            in_directory: 0,
        }
    }
}

/// The first node of a batch of [`BulkCreate`].
#[derive(Debug, Clone, Copy)]
pub struct Batch {
    directory: u32,
    first: u32,
}

impl Script for BulkCreate {
    const KINDS: &'static [&'static str] = &["multi"];
    type Sent = Batch;

    fn next(&mut self, xid: i32, out: &mut Vec<u8>) -> Option<Batch> {
        let batch = Batch { directory: self.directory, first: self.in_directory };
        let mut slot = 0;
        self.template.append(out, xid, || {
            slot += 1;
            if slot % 2 == 1 { batch.directory } else { batch.first + (slot / 2 - 1) }
        });
        self.in_directory += self.batch;
        if self.in_directory >= self.per_directory {
            self.in_directory = 0;
            self.directory += self.connections;
        }
        Some(batch)
    }

    fn check(&mut self, sent: Batch, header: ReplyHeader, body: &[u8]) -> Verdict {
        multi_results(header, body, OpCode::Create, self.batch as usize, |reader, index| {
            let Some(path) = created_path(reader) else { return false };
            let parent_len = path.len().saturating_sub(SLOT.len() + 1);
            let Some(parent) = path.get(..parent_len) else { return false };
            is_numbered(parent, &self.root, sent.directory)
                && is_numbered(&path, parent, sent.first + index as u32)
        })
    }
}
