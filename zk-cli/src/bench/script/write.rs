//! Changes of data of nodes that exist.

use std::sync::Arc;

use zk_proto::{MultiOp, OpCode, Reader, ReplyHeader, Request, Response, Stat};

use super::read::is_data;
use super::{Script, Verdict, unless_failed};
use crate::bench::space::Space;
use crate::bench::wire::Template;

fn set_template(space: &Space) -> Template {
    Template::new(&Request::SetData { path: space.key_path().into(), data: Some(&space.value), version: -1 })
}

/// Whether a Stat is that of a node just set by the transaction of `header`.
fn is_just_set(stat: &Stat, header: ReplyHeader, value_len: usize) -> bool {
    stat.mzxid == header.zxid.0 && stat.version > 0 && stat.data_length as usize == value_len
}

fn check_set(header: ReplyHeader, body: &[u8], value_len: usize) -> Verdict {
    unless_failed(header, || {
        let mut reader = Reader::new(body);
        match Response::decode(OpCode::SetData, &mut reader) {
            Ok(Response::Stat(stat)) => is_just_set(&stat, header, value_len) && reader.remaining() == 0,
            _ => false,
        }
    })
}

/// Sets nodes chosen at random.
pub struct Set {
    template: Template,
    keys: u32,
    value_len: usize,
    random: fastrand::Rng,
}

impl Set {
    /// For connection `index`.
    pub fn new(space: &Space, index: usize) -> Self {
        Set {
            template: set_template(space),
            keys: space.keys,
            value_len: space.value.len(),
            random: fastrand::Rng::with_seed(index as u64),
        }
    }
}

impl Script for Set {
    const KINDS: &'static [&'static str] = &["set"];
    type Sent = ();

    fn next(&mut self, xid: i32, out: &mut Vec<u8>) -> Option<()> {
        self.template.append(out, xid, || self.random.u32(..self.keys));
        Some(())
    }

    fn check(&mut self, _: (), header: ReplyHeader, body: &[u8]) -> Verdict {
        check_set(header, body, self.value_len)
    }
}

/// Reads and sets nodes chosen at random.
pub struct Mixed {
    get: Template,
    set: Template,
    /// Share of reads.
    reads: f64,
    keys: u32,
    value: Arc<[u8]>,
    random: fastrand::Rng,
}

/// Which of the two a request of [`Mixed`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GetOrSet {
    /// getData.
    Get,
    /// setData.
    Set,
}

impl Mixed {
    /// For connection `index`; `reads` is the share of reads, 0 to 1.
    pub fn new(space: &Space, index: usize, reads: f64) -> Self {
        Mixed {
            get: Template::new(&Request::GetData { path: space.key_path().into(), watch: false }),
            set: set_template(space),
            reads,
            keys: space.keys,
            value: Arc::clone(&space.value),
            random: fastrand::Rng::with_seed(index as u64),
        }
    }
}

impl Script for Mixed {
    const KINDS: &'static [&'static str] = &["get", "set"];
    type Sent = GetOrSet;

    fn next(&mut self, xid: i32, out: &mut Vec<u8>) -> Option<GetOrSet> {
        let (template, sent) = match self.random.f64() < self.reads {
            true => (&self.get, GetOrSet::Get),
            false => (&self.set, GetOrSet::Set),
        };
        template.append(out, xid, || self.random.u32(..self.keys));
        Some(sent)
    }

    fn kind(sent: &GetOrSet) -> usize {
        match sent {
            GetOrSet::Get => 0,
            GetOrSet::Set => 1,
        }
    }

    fn check(&mut self, sent: GetOrSet, header: ReplyHeader, body: &[u8]) -> Verdict {
        match sent {
            GetOrSet::Get => unless_failed(header, || is_data(body, &self.value)),
            GetOrSet::Set => check_set(header, body, self.value.len()),
        }
    }
}

/// Sets several nodes, chosen at random, in one transaction.
pub struct MultiSet {
    template: Template,
    count: usize,
    keys: u32,
    value_len: usize,
    random: fastrand::Rng,
}

impl MultiSet {
    /// For connection `index`; `count` nodes each time.
    pub fn new(space: &Space, index: usize, count: usize) -> Self {
        let path = space.key_path();
        let set = MultiOp::SetData { path: path.into(), data: Some(&space.value), version: -1 };
        MultiSet {
            template: Template::new(&Request::Multi(vec![set; count])),
            count,
            keys: space.keys,
            value_len: space.value.len(),
            random: fastrand::Rng::with_seed(index as u64),
        }
    }
}

impl Script for MultiSet {
    const KINDS: &'static [&'static str] = &["multi"];
    type Sent = ();

    fn next(&mut self, xid: i32, out: &mut Vec<u8>) -> Option<()> {
        self.template.append(out, xid, || self.random.u32(..self.keys));
        Some(())
    }

    fn check(&mut self, _: (), header: ReplyHeader, body: &[u8]) -> Verdict {
        multi_results(header, body, OpCode::SetData, self.count, |reader, _| {
            Stat::decode(reader).is_ok_and(|stat| is_just_set(&stat, header, self.value_len))
        })
    }
}

/// Checks the reply of a multi of `count` operations `op`; `each` reads one result and judges it.
pub fn multi_results(
    header: ReplyHeader,
    body: &[u8],
    op: OpCode,
    count: usize,
    mut each: impl FnMut(&mut Reader<'_>, usize) -> bool,
) -> Verdict {
    const END: i32 = -1;
    unless_failed(header, || {
        let mut reader = Reader::new(body);
        let result = |kind: i32, done: bool, reader: &mut Reader<'_>| {
            reader.i32() == Ok(kind) && reader.bool() == Ok(done) && reader.i32().is_ok()
        };
        (0..count).all(|index| result(op as i32, false, &mut reader) && each(&mut reader, index))
            && result(END, true, &mut reader)
            && reader.remaining() == 0
    })
}
