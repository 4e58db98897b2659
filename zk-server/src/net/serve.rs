//! Serving a connection: from the bytes that it sent to frames, and back to its socket.

use std::io::{self, Read};
use std::net::Shutdown;
use std::sync::atomic::Ordering;

use mio::{Interest, Token};

use super::conn::{Phase, Sent};
use super::frame::{Frame, first_frame};
use super::io_thread::elapsed_us;
use super::limits::SCRATCH_BYTES;
use super::{IoThread, Serving};
use crate::admin::metrics::{Counter, Latency};

impl IoThread<'_> {
    /// Puts a connection into the queue of those that can be gone on with.
    pub(super) fn enqueue(&mut self, slot: u32) {
        if let Some(conn) = self.slots.get(slot).filter(|conn| !conn.queued) {
            conn.queued = true;
            self.queue.push_back(slot);
        }
    }

    pub(super) fn serve_queued(&mut self) {
        let Some(slot) = self.queue.pop_front() else { return };
        if let Some(conn) = self.slots.get(slot) {
            conn.queued = false;
            self.serve(slot);
        }
    }

    /// Looks at what a connection has sent: first at what had to wait, then at one read from the socket. Sends the
    /// replies.
    pub(super) fn serve(&mut self, slot: u32) {
        if self.takes_requests(slot) {
            self.serve_backlog(slot);
        }
        if self.takes_requests(slot) {
            self.serve_socket(slot);
        }
        self.send_scratch(slot);
        let takes_requests = self.takes_requests(slot);
        if let Some(conn) = self.slots.get(slot)
            && takes_requests
            && (conn.readable || conn.has_backlog)
        {
            self.enqueue(slot);
        }
    }

    /// Whether the next frame of a connection may be looked at.
    pub(super) fn takes_requests(&mut self, slot: u32) -> bool {
        let overloaded = self.is_overloaded();
        let stopping = self.stop_at_ms.is_some();
        self.slots.get(slot).is_some_and(|conn| !stopping && conn.takes_requests(overloaded))
    }

    /// Whether more requests wait for the replica than should.
    pub(super) fn is_overloaded(&self) -> bool {
        self.net.outstanding.load(Ordering::Relaxed) + self.owed > self.net.options.outstanding_max
    }

    fn serve_backlog(&mut self, slot: u32) {
        let Some(conn) = self.slots.get(slot).filter(|conn| conn.has_backlog) else { return };
        conn.has_backlog = false;
        let mut input = std::mem::take(&mut conn.input);
        let used = self.process(slot, &input);
        if let Some(conn) = self.slots.get(slot).filter(|conn| !conn.has_backlog) {
            conn.backlog_since_us = None;
        }
        if used < input.len()
            && let Some(conn) = self.slots.get(slot)
        {
            input.drain(..used);
            conn.input = input;
        }
    }

    fn serve_socket(&mut self, slot: u32) {
        let Some(conn) = self.slots.get(slot).filter(|conn| conn.readable && !conn.has_backlog) else {
            return;
        };
        match conn.socket.read(&mut self.receive) {
            Ok(0) => {
                conn.readable = false;
                conn.read_closed = true;
                // Whoever asks with a four-letter word may close its side at once.
                if conn.phase != Phase::Word && !(conn.phase == Phase::Closing && conn.finish) {
                    self.close(slot, "closed by the client");
                }
            }
            Ok(n) => {
                // Less than was asked for: the socket is empty, and the poller will tell when it is not; unless
                // the end of the stream was announced already and stands behind these bytes.
                conn.readable = n == self.receive.len() || conn.read_closed;
                self.recorder.add(Counter::BytesReceivedCount, n as u64);
                let receive = std::mem::take(&mut self.receive);
                self.take_bytes(slot, &receive[..n]);
                self.receive = receive;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => conn.readable = false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.close(slot, "connection reset"),
        }
    }

    /// Works off bytes that follow what is left in the connection's input: nothing, or an incomplete frame.
    fn take_bytes(&mut self, slot: u32, mut bytes: &[u8]) {
        while let Some(conn) = self.slots.get(slot).filter(|conn| !conn.input.is_empty()) {
            match first_frame(&conn.input, self.net.options.frame_max) {
                Frame::Incomplete(_) if bytes.is_empty() => return,
                // Only what belongs to the frame is copied, and each byte once.
                Frame::Incomplete(missing) => {
                    let (belongs, rest) = bytes.split_at(missing.min(bytes.len()));
                    conn.input.extend_from_slice(belongs);
                    bytes = rest;
                }
                Frame::Whole(_) | Frame::Invalid(_) => {
                    let mut input = std::mem::take(&mut conn.input);
                    let used = self.process(slot, &input);
                    if let Some(conn) = self.slots.get(slot)
                        && used < input.len()
                    {
                        input.extend_from_slice(bytes);
                        conn.input = input;
                        return;
                    }
                }
            }
        }
        let used = self.process(slot, bytes);
        if let Some(conn) = self.slots.get(slot) {
            conn.input.extend_from_slice(&bytes[used..]);
        }
    }

    /// Works off the complete frames in `bytes`, as long as the connection takes requests. Returns the number of
    /// bytes used; sets [`Conn::has_backlog`] when what is left is more than an incomplete frame.
    fn process(&mut self, slot: u32, bytes: &[u8]) -> usize {
        let mut tree = None;
        let mut used = 0;
        loop {
            let overloaded = self.is_overloaded();
            let rest = &bytes[used..];
            let Some(conn) = self.slots.get(slot).filter(|conn| !conn.is_deaf()) else { return bytes.len() };
            if rest.is_empty() {
                return used;
            }
            if conn.phase == Phase::New
                && let Some(first) = rest.first_chunk::<4>()
                && self.try_word(slot, *first)
            {
                return bytes.len();
            }
            // Not before it is known not to be a word.
            if rest.len() >= 4 && self.net.serving.serving() == Serving::Nobody {
                self.close(slot, "not serving");
                return bytes.len();
            }
            let frame = first_frame(rest, self.net.options.frame_max);
            let Some(conn) = self.slots.get(slot) else { return bytes.len() };
            match frame {
                Frame::Incomplete(_) => return used,
                Frame::Invalid(length) => {
                    tracing::debug!(remote = %conn.remote(), length, "bad frame length");
                    self.close(slot, "bad frame length");
                    return bytes.len();
                }
                Frame::Whole(_) if !conn.takes_requests(overloaded) => {
                    conn.has_backlog = true;
                    conn.backlog_since_us.get_or_insert(self.now_us);
                    return used;
                }
                Frame::Whole(frame) => {
                    used += 4 + frame.len();
                    conn.heard_ms = self.now_ms;
                    if !conn.touched {
                        conn.touched = true;
                        self.touched.push(slot);
                    }
                    self.on_frame(slot, frame, &mut tree);
                }
            }
            if self.scratch.len() >= SCRATCH_BYTES {
                tree = None;
                self.send_scratch(slot);
            }
            if self.submission_is_full() {
                tree = None;
                self.send_scratch(slot);
                self.submit();
            }
        }
    }

    /// Sends what was answered in place.
    fn send_scratch(&mut self, slot: u32) {
        let answered = std::mem::take(&mut self.answered);
        if let Some(conn) = self.slots.get(slot) {
            if answered > 0 {
                let us = elapsed_us(self.net.started).saturating_sub(self.now_us);
                conn.counters.latency.record(us);
                conn.counters.sent += u64::from(answered);
                conn.counters.last_response_ms = self.now_ms;
                for _ in 0..answered {
                    self.recorder.packet_sent();
                    self.recorder.request_latency(us);
                    self.recorder.latency(Latency::ReadLatency, us);
                }
            }
            if !self.scratch.is_empty() || conn.unsent() > 0 || conn.finish {
                let sent = conn.send(&self.scratch);
                self.after_sending(slot, sent);
            }
        }
        self.scratch.clear();
        if self.scratch.capacity() > 4 * SCRATCH_BYTES {
            self.scratch = Vec::new();
        }
    }

    /// Does what follows from an attempt to send.
    pub(super) fn after_sending(&mut self, slot: u32, sent: Sent) {
        let Some(conn) = self.slots.get(slot) else { return };
        match sent {
            Sent::All if !conn.finish => {}
            Sent::All if conn.linger && !conn.read_closed => {
                // Closing with unread input would make the system throw away what we have just sent.
                conn.linger = false;
                conn.finish = false;
                conn.phase = Phase::Lingering;
                conn.heard_ms = self.now_ms;
                if conn.socket.shutdown(Shutdown::Write).is_err() {
                    self.close(slot, "connection reset");
                }
            }
            Sent::All => self.close(slot, "everything said"),
            Sent::Blocked if conn.write_interest => {}
            Sent::Blocked => {
                conn.write_interest = true;
                let interest = Interest::READABLE | Interest::WRITABLE;
                let token = Token(slot as usize);
                if let Err(error) = self.poll.registry().reregister(&mut conn.socket, token, interest) {
                    tracing::warn!(%error, "cannot watch a socket");
                    self.close(slot, "the system failed");
                }
            }
            Sent::Broken => self.close(slot, "connection reset"),
        }
    }
}
