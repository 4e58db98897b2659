//! Response records: what follows the reply header when the error code is 0.

use std::borrow::Cow;

use crate::acl::Acl;
use crate::code::OpCode;
use crate::jute::{DecodeError, Reader, Writer};
use crate::multi::MultiResult;
use crate::stat::Stat;

/// One identity of a connection, as whoAmI shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientInfo<'a> {
    /// Scheme.
    pub auth_scheme: Cow<'a, str>,
    /// Identity; for digest only the user name.
    pub user: Cow<'a, str>,
}

impl ClientInfo<'_> {
    /// Bytes of an entry with empty texts.
    const WIRE_LEN_MIN: usize = 8;
}

/// A decoded response body. Borrows from the frame.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // the fields are those of the protocol
pub enum Response<'a> {
    /// No body: delete, deleteContainer, ping, auth, setWatches, checkWatches, removeWatches, closeSession.
    Empty,
    /// create.
    Create { path: Cow<'a, str> },
    /// create2, createContainer, createTTL.
    Create2 { path: Cow<'a, str>, stat: Stat },
    /// exists, setData, setACL.
    Stat(Stat),
    /// getData, reconfig.
    Data { data: Option<&'a [u8]>, stat: Stat },
    /// getACL.
    Acl { acl: Vec<Acl<'a>>, stat: Stat },
    /// getChildren, getEphemerals.
    Paths(Vec<Cow<'a, str>>),
    /// getChildren2.
    Children2 { children: Vec<Cow<'a, str>>, stat: Stat },
    /// sync: the path of the request, which may be null.
    Sync { path: Option<Cow<'a, str>> },
    /// multi, multiRead.
    Multi(Vec<MultiResult<'a>>),
    /// sasl.
    Sasl { token: Option<&'a [u8]> },
    /// getAllChildrenNumber; addWatch answers 0 in this form.
    Int(i32),
    /// whoAmI.
    WhoAmI(Vec<ClientInfo<'a>>),
}

impl<'a> Response<'a> {
    /// Decodes the body of a successful reply to `op`. Surplus bytes are left in `r`.
    pub fn decode(op: OpCode, r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(match op {
            OpCode::Create => Response::Create { path: r.required_string("path")? },
            OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => {
                Response::Create2 { path: r.required_string("path")?, stat: Stat::decode(r)? }
            }
            OpCode::Exists | OpCode::SetData | OpCode::SetAcl => Response::Stat(Stat::decode(r)?),
            OpCode::GetData | OpCode::Reconfig => {
                Response::Data { data: r.buffer()?, stat: Stat::decode(r)? }
            }
            OpCode::GetAcl => {
                Response::Acl { acl: Acl::decode_list(r)?.unwrap_or_default(), stat: Stat::decode(r)? }
            }
            OpCode::GetChildren | OpCode::GetEphemerals => Response::Paths(names(r)?),
            OpCode::GetChildren2 => Response::Children2 { children: names(r)?, stat: Stat::decode(r)? },
            OpCode::Sync => Response::Sync { path: r.string()? },
            OpCode::Multi | OpCode::MultiRead => Response::Multi(MultiResult::decode_list(r)?),
            OpCode::Sasl => Response::Sasl { token: r.buffer()? },
            OpCode::GetAllChildrenNumber | OpCode::AddWatch => Response::Int(r.i32()?),
            OpCode::WhoAmI => Response::WhoAmI(
                r.vector_of(ClientInfo::WIRE_LEN_MIN, |r| {
                    Ok(ClientInfo {
                        auth_scheme: r.required_string("scheme")?,
                        user: r.required_string("user")?,
                    })
                })?
                .unwrap_or_default(),
            ),
            OpCode::Delete
            | OpCode::DeleteContainer
            | OpCode::Ping
            | OpCode::Check
            | OpCode::CheckWatches
            | OpCode::RemoveWatches
            | OpCode::Auth
            | OpCode::SetWatches
            | OpCode::SetWatches2
            | OpCode::CreateSession
            | OpCode::CloseSession => Response::Empty,
        })
    }

    /// Appends the body.
    pub fn encode(&self, w: &mut Vec<u8>) {
        match self {
            Response::Empty => {}
            Response::Create { path } => w.put_str(path),
            Response::Create2 { path, stat } => {
                w.put_str(path);
                stat.encode(w);
            }
            Response::Stat(stat) => stat.encode(w),
            Response::Data { data, stat } => {
                w.put_buffer(*data);
                stat.encode(w);
            }
            Response::Acl { acl, stat } => {
                Acl::encode_list(Some(acl), w);
                stat.encode(w);
            }
            Response::Paths(paths) => put_names(paths, w),
            Response::Children2 { children, stat } => {
                put_names(children, w);
                stat.encode(w);
            }
            Response::Sync { path } => w.put_opt_str(path.as_deref()),
            Response::Multi(results) => {
                results.iter().for_each(|result| result.encode(w));
                MultiResult::encode_end(w);
            }
            Response::Sasl { token } => w.put_buffer(*token),
            Response::Int(v) => w.put_int(*v),
            Response::WhoAmI(infos) => {
                w.put_len(infos.len());
                for info in infos {
                    w.put_str(&info.auth_scheme);
                    w.put_str(&info.user);
                }
            }
        }
    }
}

fn names<'a>(r: &mut Reader<'a>) -> Result<Vec<Cow<'a, str>>, DecodeError> {
    Ok(r.vector(|r| r.required_string("name"))?.unwrap_or_default())
}

fn put_names(names: &[Cow<'_, str>], w: &mut Vec<u8>) {
    w.put_len(names.len());
    names.iter().for_each(|name| w.put_str(name));
}
