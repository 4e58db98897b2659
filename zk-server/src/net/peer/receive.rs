//! From the bytes of a connection to events.

use bytes::BytesMut;

use super::{PeerEvent, PeerOptions, Port};
use crate::zab::PeerConn;
use crate::zab::wire::{LearnerStream, QuorumPacket, StreamItem, WireError};

/// How the bytes of a connection are read.
pub(super) enum Receiver {
    /// Passed on as they are: the election knows its frames.
    Raw,
    /// A learner, or somebody who claims to be one: packets.
    Learner(BytesMut),
    /// A leader: packets, and trees among them.
    Leader(Box<LearnerStream>),
}

impl Receiver {
    /// For a connection that was accepted.
    pub(super) fn accepted(port: Port) -> Self {
        match port {
            Port::Election => Receiver::Raw,
            Port::Quorum => Receiver::Learner(BytesMut::new()),
        }
    }

    /// For a connection that was dialed.
    pub(super) fn dialed(port: Port, options: &PeerOptions) -> Self {
        match port {
            Port::Election => Receiver::Raw,
            Port::Quorum => Receiver::Leader(Box::new(LearnerStream::new(options.stream))),
        }
    }

    /// Turns bytes into events. True if they completed something.
    ///
    /// # Errors
    /// The bytes are none that a server sends.
    pub(super) fn receive(
        &mut self,
        conn: PeerConn,
        bytes: &[u8],
        options: &PeerOptions,
        events: &mut Vec<PeerEvent>,
    ) -> Result<bool, String> {
        match self {
            Receiver::Raw => {
                events.push(PeerEvent::Received { conn, bytes: bytes.to_vec() });
                Ok(true)
            }
            Receiver::Learner(buffer) => {
                buffer.extend_from_slice(bytes);
                let mut packets = Vec::new();
                let rest = decode(buffer, options.stream.data_bytes_max, &mut packets);
                let complete = !packets.is_empty();
                if complete {
                    events.push(PeerEvent::Packets { conn, packets });
                }
                rest.map(|()| complete).map_err(|error| error.to_string())
            }
            Receiver::Leader(stream) => {
                let items = stream.push(bytes).map_err(|error| error.to_string())?;
                let complete = !items.is_empty();
                if !complete {
                    // A tree may take longer than a leader may be silent.
                    events.push(PeerEvent::Heard { conn });
                }
                tell_items(conn, items, events);
                Ok(complete)
            }
        }
    }
}

/// Takes all complete packets off the buffer.
fn decode(buffer: &mut BytesMut, data_max: usize, packets: &mut Vec<QuorumPacket>) -> Result<(), WireError> {
    while let Some(packet) = QuorumPacket::decode(buffer, data_max)? {
        packets.push(packet);
    }
    Ok(())
}

/// Turns what a leader sent into events: packets in a row are one.
fn tell_items(conn: PeerConn, items: Vec<StreamItem>, events: &mut Vec<PeerEvent>) {
    let mut packets = Vec::new();
    for item in items {
        match item {
            StreamItem::Packet(packet) => packets.push(packet),
            StreamItem::Snapshot { zxid, tree } => {
                if !packets.is_empty() {
                    events.push(PeerEvent::Packets { conn, packets: std::mem::take(&mut packets) });
                }
                events.push(PeerEvent::SnapshotReceived { conn, zxid, tree });
            }
        }
    }
    if !packets.is_empty() {
        events.push(PeerEvent::Packets { conn, packets });
    }
}
