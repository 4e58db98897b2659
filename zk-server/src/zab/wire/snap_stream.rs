//! The tree that follows a SNAP packet: raw, without length or checksum.
//!
//! ```text
//! sessions:  count i32, then id i64, timeout i32
//! ACL table: count i32, then id i64, vector of ACL
//! nodes:     path, data, ACL id i64, stat (60 bytes); parents first, the root with the empty path;
//!            the path "/" ends them
//! "BenWasHere"
//! ```
//!
//! What an Apache leader sends may be fuzzy: it can hold effects of transactions that follow as packets.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use zk_proto::jute::{Writer, decode_string};
use zk_proto::{Acl, Perms};

use super::WireError;
use crate::storage::snapshot::layout::{self, END_PATH};
use crate::storage::{LoadError, NodeStat, SnapshotSink};
use crate::tree::{SnapshotPin, Tree};

const SIGNATURE: &[u8] = b"BenWasHere";
/// ACL id and stat of a node.
const NODE_LEN_FIXED: usize = 8 + NodeStat::LEN;

/// Slots of the tree looked at in one step.
const SLOTS_PER_STEP: u32 = 256;
/// With large nodes fewer: a step does not gather much more than this.
const BYTES_PER_STEP: usize = 256 << 10;

/// Writes the stream of a pinned tree, while the tree goes on changing.
#[derive(Debug)]
pub struct SnapStreamEncoder {
    pin: Arc<SnapshotPin>,
    part: Part,
    slots: u32,
}

/// Which part comes next; for the first two with the number of entries that are written.
#[derive(Debug, Clone, Copy)]
enum Part {
    Sessions(usize),
    Acls(usize),
    Nodes,
    Nothing,
}

impl SnapStreamEncoder {
    /// The stream of the tree at the pin's zxid. The pin must not have been walked before.
    pub fn new(pin: Arc<SnapshotPin>) -> Self {
        SnapStreamEncoder { pin, part: Part::Sessions(0), slots: SLOTS_PER_STEP }
    }

    /// Appends the next piece, a few hundred KiB at most unless single nodes are larger, and tells whether more
    /// follow. To be called with the (pinned) tree read-locked, and the lock given free before the piece is
    /// sent: who receives it may be slow.
    pub fn next(&mut self, tree: &Tree, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let full = |out: &Vec<u8>| out.len() - start >= BYTES_PER_STEP;
        if let Part::Sessions(written) = &mut self.part {
            let sessions = &self.pin.sessions;
            if *written == 0 {
                out.put_len(sessions.len());
            }
            for (id, timeout_ms) in &sessions[*written..] {
                if full(out) {
                    return true;
                }
                layout::put_session(out, *id, *timeout_ms);
                *written += 1;
            }
            self.part = Part::Acls(0);
        }
        if let Part::Acls(written) = &mut self.part {
            let acls = &self.pin.acls;
            if *written == 0 {
                out.put_len(acls.len());
            }
            for (id, acl) in &acls[*written..] {
                if full(out) {
                    return true;
                }
                layout::put_acl(out, *id, acl);
                *written += 1;
            }
            self.part = Part::Nodes;
        }
        if matches!(self.part, Part::Nodes) && !self.nodes(tree, out) {
            layout::put_end(out);
            out.put_buffer(Some(SIGNATURE));
            self.part = Part::Nothing;
        }
        !matches!(self.part, Part::Nothing)
    }

    /// Appends the next nodes and tells whether more follow.
    fn nodes(&mut self, tree: &Tree, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let Ok(more) = self.pin.next_nodes::<Infallible>(tree, self.slots, |path, data, acl, stat| {
            layout::put_node(out, path, data, acl, stat);
            Ok(())
        });
        self.slots = match out.len() - start {
            bytes if bytes > BYTES_PER_STEP => (self.slots / 2).max(1),
            _ => (self.slots * 2).min(SLOTS_PER_STEP),
        };
        more
    }
}

/// How far a [`SnapStreamDecoder`] came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapProgress {
    /// Bytes of the input that belong to the stream: all of them until it ends.
    pub consumed: usize,
    /// Whether the stream has ended.
    pub done: bool,
}

/// Reads a stream into a sink, in whatever pieces it arrives. Keeps at most one entry that is not complete yet.
pub struct SnapStreamDecoder<S> {
    sink: S,
    expected: Expected,
    /// The beginning of an entry.
    partial: Vec<u8>,
    /// What `partial` needs at least.
    needed: usize,
    /// Bytes of complete entries so far.
    offset: u64,
    nodes: u64,
    node_bytes_max: usize,
}

/// What comes next.
enum Expected {
    SessionCount,
    Sessions(u32),
    AclCount,
    /// Id and length of a list; so many lists are left.
    AclLists(u32),
    /// An entry of a list.
    AclEntries(PartialList),
    Node,
    Signature,
    Nothing,
    /// There was an error.
    Failed,
}

struct PartialList {
    lists_left: u32,
    id: i64,
    entries_left: u32,
    list: Vec<Acl<'static>>,
    bytes: usize,
}

/// Why an entry was not taken.
enum Stop {
    /// It has at least so many bytes.
    Needs(usize),
    Bad(String),
    Refused(LoadError),
}

impl<S: SnapshotSink> SnapStreamDecoder<S> {
    /// Reads into `sink`. `node_bytes_max` bounds the bytes of one node's path, of its data, and of one ACL list.
    pub fn new(mut sink: S, node_bytes_max: usize) -> Self {
        sink.begin(0);
        SnapStreamDecoder {
            sink,
            expected: Expected::SessionCount,
            partial: Vec::new(),
            needed: 0,
            offset: 0,
            nodes: 0,
            node_bytes_max,
        }
    }

    /// Takes the next bytes of the connection, up to the end of the stream.
    ///
    /// # Errors
    /// What arrived is no such stream, is beyond the bound, or the sink refuses a node. The sink's content is
    /// useless then.
    pub fn push(&mut self, bytes: &[u8]) -> Result<SnapProgress, WireError> {
        if matches!(self.expected, Expected::Failed) {
            return Err(WireError::GivenUp);
        }
        self.push_entries(bytes).map_err(|stop| {
            self.expected = Expected::Failed;
            let offset = self.offset;
            match stop {
                // Only more bytes help, and they were waited for.
                Stop::Needs(_) => WireError::GivenUp,
                Stop::Bad(reason) => WireError::Snapshot { offset, reason },
                Stop::Refused(source) => WireError::Refused { offset, source },
            }
        })
    }

    fn push_entries(&mut self, bytes: &[u8]) -> Result<SnapProgress, Stop> {
        let mut rest = bytes;
        while !matches!(self.expected, Expected::Nothing) {
            if self.partial.is_empty() {
                match self.entry(rest) {
                    Ok(taken) => rest = &rest[taken..],
                    Err(Stop::Needs(_)) if rest.is_empty() => break,
                    Err(Stop::Needs(needed)) => {
                        self.partial.extend_from_slice(rest);
                        self.needed = needed;
                        rest = &[];
                    }
                    Err(stop) => return Err(stop),
                }
                continue;
            }
            // No byte more than the entry has: what follows need not belong to the stream.
            let (head, tail) = rest.split_at((self.needed - self.partial.len()).min(rest.len()));
            self.partial.extend_from_slice(head);
            rest = tail;
            if self.partial.len() < self.needed {
                break;
            }
            let mut partial = std::mem::take(&mut self.partial);
            match self.entry(&partial) {
                Ok(_) => partial.clear(),
                Err(Stop::Needs(needed)) => self.needed = needed,
                Err(stop) => return Err(stop),
            }
            self.partial = partial;
        }
        let done = matches!(self.expected, Expected::Nothing);
        Ok(SnapProgress { consumed: bytes.len() - rest.len(), done })
    }

    /// Takes one entry at the start of `bytes` and returns its length.
    fn entry(&mut self, bytes: &[u8]) -> Result<usize, Stop> {
        let mut c = Cursor { bytes, at: 0, max: self.node_bytes_max };
        match &mut self.expected {
            Expected::SessionCount => self.expected = sessions(c.count("sessions")?),
            Expected::Sessions(left) => {
                let (id, timeout_ms, left) = (c.i64()?, c.i32()?, *left - 1);
                self.sink.session(id, timeout_ms);
                self.expected = sessions(left);
            }
            Expected::AclCount => self.expected = acl_lists(c.count("ACL lists")?),
            Expected::AclLists(left) => {
                let (id, entries_left, lists_left) = (c.i64()?, c.count("ACL entries")?, *left - 1);
                let list = PartialList { lists_left, id, entries_left, list: Vec::new(), bytes: 0 };
                self.expected = acl_entries(&mut self.sink, list);
            }
            Expected::AclEntries(list) => {
                let (perms, scheme, id) = (Perms(c.i32()?), c.string()?, c.string()?);
                list.bytes += c.at;
                if list.bytes > self.node_bytes_max {
                    return Err(Stop::Bad(format!("an ACL list of more than {} bytes", self.node_bytes_max)));
                }
                list.list.push(Acl { perms, scheme: scheme.map(Into::into), id: id.map(Into::into) });
                list.entries_left -= 1;
                if let Expected::AclEntries(list) = std::mem::replace(&mut self.expected, Expected::Failed) {
                    self.expected = acl_entries(&mut self.sink, list);
                }
            }
            Expected::Node => {
                let path = c.buffer()?.ok_or_else(|| Stop::Bad("a node without path".into()))?;
                if path != END_PATH {
                    let data = c.buffer()?;
                    let fixed: &[u8; NODE_LEN_FIXED] = c.array()?;
                    let (acl_id, stat) = fixed.split_first_chunk().unwrap_or((&[0; 8], &[]));
                    let stat = NodeStat::decode(stat.first_chunk().unwrap_or(&[0; NodeStat::LEN]));
                    let acl_id = i64::from_be_bytes(*acl_id);
                    self.sink.node(&decode_string(path), data, acl_id, &stat).map_err(Stop::Refused)?;
                    self.nodes += 1;
                } else if self.nodes == 0 {
                    return Err(Stop::Bad("no root".into()));
                } else {
                    self.expected = Expected::Signature;
                }
            }
            Expected::Signature => {
                if c.buffer()? != Some(SIGNATURE) {
                    return Err(Stop::Bad("wrong signature behind the nodes".into()));
                }
                self.expected = Expected::Nothing;
            }
            Expected::Nothing | Expected::Failed => return Err(Stop::Bad("bytes behind the end".into())),
        }
        self.offset += c.at as u64;
        Ok(c.at)
    }

    /// Number of nodes so far.
    pub fn nodes(&self) -> u64 {
        self.nodes
    }

    /// The sink. Its content is complete once [`SnapProgress::done`] was told.
    pub fn into_sink(self) -> S {
        self.sink
    }
}

impl<S> fmt::Debug for SnapStreamDecoder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapStreamDecoder")
            .field("offset", &self.offset)
            .field("nodes", &self.nodes)
            .finish_non_exhaustive()
    }
}

fn sessions(left: u32) -> Expected {
    if left == 0 { Expected::AclCount } else { Expected::Sessions(left) }
}

fn acl_lists(left: u32) -> Expected {
    if left == 0 { Expected::Node } else { Expected::AclLists(left) }
}

fn acl_entries(sink: &mut impl SnapshotSink, list: PartialList) -> Expected {
    if list.entries_left > 0 {
        return Expected::AclEntries(list);
    }
    sink.acl(list.id, list.list);
    acl_lists(list.lists_left)
}

/// Reads an entry that may not be complete.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    max: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], Stop> {
        let end = self.at + n;
        let taken = self.bytes.get(self.at..end).ok_or(Stop::Needs(end))?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], Stop> {
        let end = self.at + N;
        self.take(N)?.first_chunk().ok_or(Stop::Needs(end))
    }

    fn i32(&mut self) -> Result<i32, Stop> {
        Ok(i32::from_be_bytes(*self.array()?))
    }

    fn i64(&mut self) -> Result<i64, Stop> {
        Ok(i64::from_be_bytes(*self.array()?))
    }

    fn count(&mut self, of: &str) -> Result<u32, Stop> {
        u32::try_from(self.i32()?).map_err(|_| Stop::Bad(format!("negative number of {of}")))
    }

    fn buffer(&mut self) -> Result<Option<&'a [u8]>, Stop> {
        match self.i32()? {
            -1 => Ok(None),
            length => match usize::try_from(length) {
                Ok(length) if length <= self.max => self.take(length).map(Some),
                _ => Err(Stop::Bad(format!("a value of {length} bytes, at most {} are taken", self.max))),
            },
        }
    }

    fn string(&mut self) -> Result<Option<String>, Stop> {
        Ok(self.buffer()?.map(|bytes| decode_string(bytes).into_owned()))
    }
}
