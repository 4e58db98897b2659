//! One connection as all threads see it: the stream, and the output that waits for it.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::Port;
use super::transport::Transport;
use crate::zab::PeerConn;

/// Buffers written with one system call.
const SLICES_MAX: usize = 32;

/// Bytes up to which output is copied behind other output instead of becoming a buffer of its own: most packets
/// have 20.
const COPY_MAX: usize = 1024;

/// Bytes up to which a buffer takes copies.
const COPY_TO_MAX: usize = 16 << 10;

/// Bytes of a snapshot that wait for the socket before its source has to.
const SNAPSHOT_AHEAD_MAX: usize = 1 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct PeerSocket {
    pub(super) conn: PeerConn,
    pub(super) port: Port,
    pub(super) transport: Transport,
    /// Nothing is read until it is resumed.
    pub(super) paused: AtomicBool,
    /// Stands in the list of connections to flush.
    unflushed: AtomicBool,
    out: Mutex<Out>,
    /// Where the source of a snapshot waits for room.
    room: Condvar,
    backlog_bytes: usize,
}

#[derive(Debug, Default)]
struct Out {
    queue: VecDeque<Part>,
    /// Bytes of the first buffer that are written.
    written: usize,
    /// Bytes that wait, without those of snapshots.
    waiting: usize,
    /// The socket was full: the poller tells when it is not.
    full: bool,
    backlog_reported: bool,
    /// To be closed when everything is written.
    finish: bool,
    /// Nothing is written any more.
    closed: bool,
    snapshots_begun: u64,
}

#[derive(Debug)]
enum Part {
    Bytes(Vec<u8>),
    Snapshot(Snapshot),
}

/// A part that is still being made.
#[derive(Debug)]
struct Snapshot {
    id: u64,
    chunks: VecDeque<Vec<u8>>,
    /// Bytes in the chunks.
    bytes: usize,
    complete: bool,
}

/// What came of writing, to be told to the event loop.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Snapshots that are out.
    pub(super) snapshots: u32,
    /// What an earlier write has left is out, too.
    pub(super) drained: bool,
    /// More waits than should.
    pub(super) backlog: Option<usize>,
    /// Everything is out, and the connection is to be closed then.
    pub(super) finished: bool,
    pub(super) broken: Option<io::Error>,
}

/// The connection was closed under a snapshot.
#[derive(Debug)]
pub(super) struct Gone;

impl PeerSocket {
    pub(super) fn new(conn: PeerConn, port: Port, transport: Transport, backlog_bytes: usize) -> Self {
        PeerSocket {
            conn,
            port,
            transport,
            paused: AtomicBool::new(false),
            unflushed: AtomicBool::new(false),
            out: Mutex::default(),
            room: Condvar::new(),
            backlog_bytes,
        }
    }

    /// Appends output, to be written by [`PeerSocket::flush`]. True if the connection was not waiting for that yet.
    pub(super) fn push(&self, bytes: Vec<u8>) -> bool {
        let mut out = self.out.lock();
        if out.closed || out.finish || bytes.is_empty() {
            return false;
        }
        out.waiting += bytes.len();
        match out.queue.back_mut() {
            Some(Part::Bytes(last)) if bytes.len() <= COPY_MAX && last.len() <= COPY_TO_MAX => {
                last.extend_from_slice(&bytes);
            }
            _ => out.queue.push_back(Part::Bytes(bytes)),
        }
        drop(out);
        !self.unflushed.swap(true, Ordering::AcqRel)
    }

    /// Writes as much as the socket takes.
    pub(super) fn flush(&self) -> Written {
        // First, so that what is pushed from now on asks for another one.
        self.unflushed.store(false, Ordering::Release);
        let mut out = self.out.lock();
        self.write(&mut out)
    }

    /// The poller says that the socket takes output.
    pub(super) fn writable(&self) -> Written {
        let mut out = self.out.lock();
        if !std::mem::take(&mut out.full) {
            return Written::default();
        }
        let written = self.write(&mut out);
        Written { drained: !out.closed && !out.finish && out.queue.is_empty(), ..written }
    }

    /// Bytes that wait, without those of snapshots.
    pub(super) fn backlog(&self) -> usize {
        self.out.lock().waiting
    }

    /// Takes no more output; [`Written::finished`] when everything is out.
    pub(super) fn finish(&self) -> Written {
        let mut out = self.out.lock();
        out.finish = true;
        self.write(&mut out)
    }

    /// Closes the stream. What was not written is lost.
    pub(super) fn close(&self) {
        let mut out = self.out.lock();
        *out = Out { closed: true, ..Out::default() };
        self.transport.close();
        self.room.notify_all();
    }

    /// Reserves the place of a snapshot behind all output. Returns its id, `None` when the connection is closed.
    pub(super) fn begin_snapshot(&self) -> Option<u64> {
        let mut out = self.out.lock();
        if out.closed || out.finish {
            return None;
        }
        out.snapshots_begun += 1;
        let id = out.snapshots_begun;
        out.queue.push_back(Part::Snapshot(Snapshot {
            id,
            chunks: VecDeque::new(),
            bytes: 0,
            complete: false,
        }));
        Some(id)
    }

    /// Adds to a snapshot; waits while too much of it waits for the socket.
    pub(super) fn extend_snapshot(&self, id: u64, chunk: Vec<u8>) -> Result<Written, Gone> {
        let mut out = self.out.lock();
        loop {
            let snapshot = out.snapshot(id).ok_or(Gone)?;
            if snapshot.bytes < SNAPSHOT_AHEAD_MAX {
                snapshot.bytes += chunk.len();
                snapshot.chunks.push_back(chunk);
                return Ok(self.write(&mut out));
            }
            self.room.wait(&mut out);
        }
    }

    /// The snapshot has all its bytes.
    pub(super) fn complete_snapshot(&self, id: u64) -> Result<Written, Gone> {
        let mut out = self.out.lock();
        out.snapshot(id).ok_or(Gone)?.complete = true;
        Ok(self.write(&mut out))
    }

    fn write(&self, out: &mut MutexGuard<'_, Out>) -> Written {
        let mut written = Written::default();
        while !out.closed && !out.full {
            written.snapshots += out.drop_complete_snapshots();
            match out.write_to(&self.transport) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => out.full = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    out.closed = true;
                    written.broken = Some(error);
                }
            }
        }
        self.room.notify_all();
        written.finished = out.finish && !out.closed && out.queue.is_empty();
        if out.waiting > self.backlog_bytes {
            written.backlog = (!std::mem::replace(&mut out.backlog_reported, true)).then_some(out.waiting);
        } else if out.waiting <= self.backlog_bytes / 2 {
            out.backlog_reported = false;
        }
        written
    }
}

impl Out {
    fn snapshot(&mut self, id: u64) -> Option<&mut Snapshot> {
        self.queue.iter_mut().find_map(|part| match part {
            Part::Snapshot(snapshot) if snapshot.id == id => Some(snapshot),
            _ => None,
        })
    }

    /// Removes snapshots that are out from the front.
    fn drop_complete_snapshots(&mut self) -> u32 {
        let mut dropped = 0;
        while let Some(Part::Snapshot(Snapshot { complete: true, bytes: 0, .. })) = self.queue.front() {
            self.queue.pop_front();
            dropped += 1;
        }
        dropped
    }

    /// One system call; 0 if there is nothing to write.
    fn write_to(&mut self, transport: &Transport) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut filled = 0;
        let buffers: &mut dyn Iterator<Item = &Vec<u8>> = match self.queue.front() {
            Some(Part::Snapshot(snapshot)) => &mut snapshot.chunks.iter(),
            // What stands behind a snapshot has to wait for it.
            _ => &mut self.queue.iter().map_while(|part| match part {
                Part::Bytes(bytes) => Some(bytes),
                Part::Snapshot(_) => None,
            }),
        };
        for (slice, buffer) in slices.iter_mut().zip(buffers) {
            let skip = if filled == 0 { self.written } else { 0 };
            *slice = IoSlice::new(buffer.get(skip..).unwrap_or_default());
            filled += 1;
        }
        let Some(slices) = slices.get(..filled).filter(|slices| !slices.is_empty()) else { return Ok(0) };
        match transport.write(slices)? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            n => {
                self.advance(n);
                Ok(n)
            }
        }
    }

    /// Forgets `n` bytes that are written.
    fn advance(&mut self, n: usize) {
        self.written += n;
        loop {
            match self.queue.front_mut() {
                Some(Part::Bytes(bytes)) if bytes.len() <= self.written => {
                    self.written -= bytes.len();
                    self.waiting -= bytes.len();
                    self.queue.pop_front();
                }
                Some(Part::Snapshot(snapshot)) => match snapshot.chunks.front() {
                    Some(chunk) if chunk.len() <= self.written => {
                        self.written -= chunk.len();
                        snapshot.bytes -= chunk.len();
                        snapshot.chunks.pop_front();
                    }
                    _ => return,
                },
                _ => return,
            }
        }
    }
}
