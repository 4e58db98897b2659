//! Everything that a leader sends to a learner.

use std::mem;

use bytes::{Buf, BytesMut};
use zk_proto::Zxid;

use super::{QuorumPacket, SnapStreamDecoder, WireError, kind};
use crate::storage::Replay;
use crate::tree::{Tree, TreeLoader};

/// What a [`LearnerStream`] accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamOptions {
    /// Largest data of a packet in bytes: `jute.maxbuffer` with its `extrasize`.
    pub data_bytes_max: usize,
    /// Largest path, data or ACL list of a node in bytes.
    pub node_bytes_max: usize,
    /// For [`Tree::new`].
    pub tree_seed: u64,
}

impl Default for StreamOptions {
    /// Apache's `jute.maxbuffer` and as much `extrasize`; the seed 0.
    fn default() -> Self {
        const JUTE_MAX_BUFFER: usize = 0xf_ffff;
        let max = 2 * JUTE_MAX_BUFFER;
        StreamOptions { data_bytes_max: max, node_bytes_max: max, tree_seed: 0 }
    }
}

/// Something that a leader sent.
#[derive(Debug)]
pub enum StreamItem {
    /// A packet. The one that announces a snapshot is among them.
    Packet(QuorumPacket),
    /// The tree that followed a SNAP packet.
    Snapshot {
        /// The zxid of the packet.
        zxid: Zxid,
        /// The tree, apart from effects of later transactions that it may hold; its last zxid is `zxid`.
        tree: Box<Tree>,
    },
}

/// Reads a leader's bytes: packets, behind a SNAP packet a tree, then packets again. Keeps one incomplete packet
/// or node, beside the tree that is being built.
#[derive(Debug)]
pub struct LearnerStream {
    options: StreamOptions,
    buffer: BytesMut,
    state: State,
}

#[derive(Debug)]
enum State {
    Packets,
    Snapshot(Zxid, Box<SnapStreamDecoder<TreeLoader>>),
    Failed,
}

impl LearnerStream {
    /// The stream of a new connection.
    pub fn new(options: StreamOptions) -> Self {
        LearnerStream { options, buffer: BytesMut::new(), state: State::Packets }
    }

    /// Takes what arrived and returns what is complete with it.
    ///
    /// # Errors
    /// The leader does not speak the protocol, or exceeds a bound: the connection and what was not returned are
    /// lost.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<StreamItem>, WireError> {
        let mut items = Vec::new();
        let result = self.push_into(bytes, &mut items);
        if result.is_err() {
            self.state = State::Failed;
            self.buffer = BytesMut::new();
        }
        result.map(|()| items)
    }

    fn push_into(&mut self, mut bytes: &[u8], items: &mut Vec<StreamItem>) -> Result<(), WireError> {
        loop {
            match &mut self.state {
                State::Packets => {
                    self.buffer.extend_from_slice(mem::take(&mut bytes));
                    let packet = QuorumPacket::decode(&mut self.buffer, self.options.data_bytes_max)?;
                    let Some(packet) = packet else { return Ok(()) };
                    if packet.kind == kind::SNAP {
                        let loader = TreeLoader::new(self.options.tree_seed);
                        let decoder = SnapStreamDecoder::new(loader, self.options.node_bytes_max);
                        self.state = State::Snapshot(Zxid(packet.zxid), Box::new(decoder));
                    }
                    items.push(StreamItem::Packet(packet));
                }
                State::Snapshot(zxid, decoder) => {
                    // First what came together with the packet, then directly from the input.
                    let progress = if self.buffer.is_empty() {
                        let progress = decoder.push(bytes)?;
                        bytes = &bytes[progress.consumed..];
                        progress
                    } else {
                        let progress = decoder.push(&self.buffer)?;
                        self.buffer.advance(progress.consumed);
                        progress
                    };
                    if progress.done {
                        let zxid = *zxid;
                        if let State::Snapshot(_, decoder) = mem::replace(&mut self.state, State::Packets) {
                            let mut loader = decoder.into_sink();
                            loader.snapshot_loaded(zxid, None);
                            items.push(StreamItem::Snapshot { zxid, tree: Box::new(loader.finish()) });
                        }
                    } else if bytes.is_empty() {
                        return Ok(());
                    }
                }
                State::Failed => return Err(WireError::GivenUp),
            }
        }
    }
}
