//! Sending a snapshot: its source writes on a thread of its own, into the output of the connection.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::handle::{Command, Shared};
use super::socket::{Gone, PeerSocket};
use crate::replica;
use crate::tree::SnapshotPin;
use crate::zab::wire::SnapStreamEncoder;

/// Bytes handed to the connection at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// Writes a snapshot.
pub(super) type Source = Box<dyn FnOnce(&mut dyn io::Write) -> io::Result<()> + Send>;

/// The source of a pinned tree, for [`super::PeerHandle::stream_snapshot`]. The tree is locked for one piece at a
/// time, never while the peer is waited for.
pub fn tree_source(
    shared: Arc<replica::Shared>,
    pin: Arc<SnapshotPin>,
) -> impl FnOnce(&mut dyn io::Write) -> io::Result<()> + Send + 'static {
    move |out| {
        let mut encoder = SnapStreamEncoder::new(pin);
        let mut piece = Vec::new();
        loop {
            let more = encoder.next(&shared.tree.read(), &mut piece);
            out.write_all(&piece)?;
            piece.clear();
            if !more {
                return Ok(());
            }
        }
    }
}

/// Begins to send a snapshot behind all output that there is.
pub(super) fn stream(shared: &Arc<Shared>, socket: Arc<PeerSocket>, source: Source) {
    // The place is taken now, and the thread starts later: what is sent next stands behind it.
    let Some(id) = socket.begin_snapshot() else { return };
    let conn = socket.conn;
    let sink = Sink { shared: shared.clone(), socket, id, chunk: Vec::new() };
    let spawned = std::thread::Builder::new().name("zk-peer-snap".into()).spawn(move || run(sink, source));
    if let Err(error) = spawned {
        shared.command(Command::Close { conn, reason: format!("cannot start a thread: {error}") });
    }
}

fn run(mut sink: Sink, source: Source) {
    let made = catch_unwind(AssertUnwindSafe(|| source(&mut sink).and_then(|()| sink.complete())));
    let reason = match made {
        Ok(Ok(())) => return,
        Ok(Err(error)) => format!("cannot send the snapshot: {error}"),
        Err(_) => "cannot send the snapshot: its source panicked".into(),
    };
    // Nothing comes of it if the connection was closed first.
    sink.shared.command(Command::Close { conn: sink.socket.conn, reason });
}

/// Where the source writes.
struct Sink {
    shared: Arc<Shared>,
    socket: Arc<PeerSocket>,
    id: u64,
    chunk: Vec<u8>,
}

impl Sink {
    fn hand_over(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::take(&mut self.chunk);
        let written = self.socket.extend_snapshot(self.id, chunk).map_err(gone)?;
        self.shared.after_writing(&self.socket, written);
        Ok(())
    }

    fn complete(&mut self) -> io::Result<()> {
        self.hand_over()?;
        let written = self.socket.complete_snapshot(self.id).map_err(gone)?;
        self.shared.after_writing(&self.socket, written);
        Ok(())
    }
}

impl io::Write for Sink {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.chunk.reserve_exact(CHUNK_BYTES - self.chunk.len());
        let taken = buf.len().min(CHUNK_BYTES - self.chunk.len());
        self.chunk.extend_from_slice(&buf[..taken]);
        if self.chunk.len() == CHUNK_BYTES {
            self.hand_over()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hand_over()
    }
}

fn gone(_: Gone) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the connection is closed")
}
