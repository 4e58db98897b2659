//! multi and multiRead: operations and results, each behind a `MultiHeader {int type, bool done, int err}`.

use std::borrow::Cow;

use crate::code::{ErrorCode, OpCode};
use crate::create_mode::CreateMode;
use crate::jute::{DecodeError, Reader, Writer};
use crate::request::CreateRequest;
use crate::stat::Stat;

const END: i32 = -1;
const ERROR: i32 = -1;

/// One operation of a multi or multiRead.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // the fields are those of the operation, named as in the protocol
pub enum MultiOp<'a> {
    /// create, create2, createContainer, createTTL.
    Create(CreateRequest<'a>),
    /// delete.
    Delete { path: Cow<'a, str>, version: i32 },
    /// setData.
    SetData { path: Cow<'a, str>, data: Option<&'a [u8]>, version: i32 },
    /// check.
    Check { path: Cow<'a, str>, version: i32 },
    /// getData; multiRead only, the watch flag has no effect.
    GetData { path: Cow<'a, str>, watch: bool },
    /// getChildren; multiRead only, the watch flag has no effect.
    GetChildren { path: Cow<'a, str>, watch: bool },
}

impl MultiOp<'_> {
    /// The operation's code.
    pub fn op(&self) -> OpCode {
        match self {
            MultiOp::Create(create) => create.op,
            MultiOp::Delete { .. } => OpCode::Delete,
            MultiOp::SetData { .. } => OpCode::SetData,
            MultiOp::Check { .. } => OpCode::Check,
            MultiOp::GetData { .. } => OpCode::GetData,
            MultiOp::GetChildren { .. } => OpCode::GetChildren,
        }
    }
}

fn header(w: &mut Vec<u8>, kind: i32, done: bool, err: i32) {
    w.put_int(kind);
    w.put_bool(done);
    w.put_int(err);
}

pub(crate) fn decode_ops<'a>(r: &mut Reader<'a>, reads: bool) -> Result<Vec<MultiOp<'a>>, DecodeError> {
    let mut ops = Vec::new();
    loop {
        let (kind, done, _err) = (r.i32()?, r.bool()?, r.i32()?);
        if done {
            return Ok(ops);
        }
        let unexpected = DecodeError::Unexpected { what: "operation in multi", value: i64::from(kind) };
        ops.push(match (OpCode::from_i32(kind).ok_or(unexpected)?, reads) {
            (
                op @ (OpCode::Create | OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl),
                false,
            ) => {
                let create = CreateRequest::decode(op, r)?;
                // Without a ttl on the wire these flags have no meaning; Apache fails the whole request.
                if op != OpCode::CreateTtl && !(0..=CreateMode::Container.flags()).contains(&create.flags) {
                    return Err(DecodeError::Unexpected {
                        what: "create flags in multi",
                        value: i64::from(create.flags),
                    });
                }
                MultiOp::Create(create)
            }
            (OpCode::Delete, false) => {
                MultiOp::Delete { path: r.required_string("path")?, version: r.i32()? }
            }
            (OpCode::SetData, false) => {
                MultiOp::SetData { path: r.required_string("path")?, data: r.buffer()?, version: r.i32()? }
            }
            (OpCode::Check, false) => MultiOp::Check { path: r.required_string("path")?, version: r.i32()? },
            (OpCode::GetData, true) => {
                MultiOp::GetData { path: r.required_string("path")?, watch: r.bool()? }
            }
            (OpCode::GetChildren, true) => {
                MultiOp::GetChildren { path: r.required_string("path")?, watch: r.bool()? }
            }
            _ => return Err(unexpected),
        });
    }
}

pub(crate) fn encode_ops(ops: &[MultiOp<'_>], w: &mut Vec<u8>) {
    for op in ops {
        header(w, op.op() as i32, false, -1);
        match op {
            MultiOp::Create(create) => create.encode(w),
            MultiOp::Delete { path, version } | MultiOp::Check { path, version } => {
                w.put_utf8(path);
                w.put_int(*version);
            }
            MultiOp::SetData { path, data, version } => {
                w.put_utf8(path);
                w.put_buffer(*data);
                w.put_int(*version);
            }
            MultiOp::GetData { path, watch } | MultiOp::GetChildren { path, watch } => {
                w.put_utf8(path);
                w.put_bool(*watch);
            }
        }
    }
    header(w, END, true, -1);
}

/// One result of a multi or multiRead.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // the fields are those of the operation, named as in the protocol
pub enum MultiResult<'a> {
    /// create.
    Create { path: Cow<'a, str> },
    /// create2, and what container and TTL creates answer too.
    Create2 { path: Cow<'a, str>, stat: Stat },
    /// delete.
    Delete,
    /// setData.
    SetData { stat: Stat },
    /// check.
    Check,
    /// getData.
    GetData { data: Option<&'a [u8]>, stat: Stat },
    /// getChildren.
    GetChildren { children: Vec<Cow<'a, str>> },
    /// The operation failed (0: it would have succeeded, but another one failed).
    Error(ErrorCode),
}

impl<'a> MultiResult<'a> {
    /// Reads a list of results with its end header.
    pub fn decode_list(r: &mut Reader<'a>) -> Result<Vec<Self>, DecodeError> {
        let mut results = Vec::new();
        loop {
            let (kind, done, _err) = (r.i32()?, r.bool()?, r.i32()?);
            if done {
                return Ok(results);
            }
            if kind == ERROR {
                results.push(MultiResult::Error(ErrorCode(r.i32()?)));
                continue;
            }
            results.push(match OpCode::from_i32(kind) {
                Some(OpCode::Create) => MultiResult::Create { path: r.required_string("path")? },
                Some(OpCode::Create2) => {
                    MultiResult::Create2 { path: r.required_string("path")?, stat: Stat::decode(r)? }
                }
                Some(OpCode::Delete) => MultiResult::Delete,
                Some(OpCode::SetData) => MultiResult::SetData { stat: Stat::decode(r)? },
                Some(OpCode::Check) => MultiResult::Check,
                Some(OpCode::GetData) => MultiResult::GetData { data: r.buffer()?, stat: Stat::decode(r)? },
                Some(OpCode::GetChildren) => MultiResult::GetChildren {
                    children: r.vector(|r| r.required_string("child"))?.unwrap_or_default(),
                },
                _ => return Err(DecodeError::Unexpected { what: "multi result", value: i64::from(kind) }),
            });
        }
    }

    /// Appends this result with its header.
    pub fn encode(&self, w: &mut Vec<u8>) {
        match self {
            MultiResult::Create { path } => {
                header(w, OpCode::Create as i32, false, 0);
                w.put_str(path);
            }
            MultiResult::Create2 { path, stat } => {
                header(w, OpCode::Create2 as i32, false, 0);
                w.put_str(path);
                stat.encode(w);
            }
            MultiResult::Delete => header(w, OpCode::Delete as i32, false, 0),
            MultiResult::SetData { stat } => {
                header(w, OpCode::SetData as i32, false, 0);
                stat.encode(w);
            }
            MultiResult::Check => header(w, OpCode::Check as i32, false, 0),
            MultiResult::GetData { data, stat } => {
                header(w, OpCode::GetData as i32, false, 0);
                w.put_buffer(*data);
                stat.encode(w);
            }
            MultiResult::GetChildren { children } => {
                header(w, OpCode::GetChildren as i32, false, 0);
                w.put_len(children.len());
                children.iter().for_each(|child| w.put_str(child));
            }
            MultiResult::Error(code) => {
                header(w, ERROR, false, code.0);
                w.put_int(code.0);
            }
        }
    }

    /// Appends the end header.
    pub fn encode_end(w: &mut Vec<u8>) {
        header(w, END, true, -1);
    }
}
