//! One connection: moves bytes between the socket and the session until one of them ends it.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until};

use super::frames::Frames;
use crate::shared::Shared;
use crate::transport::Transport;

/// Longest silence towards the server, whatever the session timeout.
const PING_INTERVAL_MAX: Duration = Duration::from_secs(10);
/// Write buffers above this are given back once they are empty.
const KEEP_BYTES: usize = 1024 * 1024;

pub(crate) struct Connection {
    /// The server, for people.
    pub(crate) server: String,
    stream: Box<dyn Transport>,
    frames: Frames,
    /// Frames that are being written, and how many bytes of them are.
    output: Vec<u8>,
    output_written: usize,
    /// Bytes written since the handshake.
    pub(crate) written: u64,
    needs_flush: bool,
    timeout: Duration,
    last_heard: Instant,
    last_sent: Instant,
    timer: Pin<Box<Sleep>>,
    wakers: Vec<Waker>,
}

impl Connection {
    /// A connection right after its handshake. `frames` may hold what came behind the answer.
    pub(crate) fn new(
        server: String,
        stream: Box<dyn Transport>,
        frames: Frames,
        timeout: Duration,
        now: Instant,
    ) -> Self {
        Connection {
            server,
            stream,
            frames,
            output: Vec::new(),
            output_written: 0,
            written: 0,
            needs_flush: false,
            timeout,
            last_heard: now,
            last_sent: now,
            timer: Box::pin(sleep_until(now)),
            wakers: Vec::new(),
        }
    }

    fn ping_due(&self) -> Instant {
        self.last_sent + (self.timeout / 3).min(PING_INTERVAL_MAX)
    }

    fn silence_ends(&self) -> Instant {
        self.last_heard + self.timeout * 2 / 3
    }

    /// Runs until the connection ends; says why.
    pub(crate) fn poll(&mut self, shared: &Shared, cx: &mut Context<'_>) -> Poll<String> {
        loop {
            let now = Instant::now();
            let was_writing = self.output_written < self.output.len();
            let session_due = match self.exchange(shared, now, cx) {
                Ok(due) => due,
                Err(why) => return Poll::Ready(why),
            };
            match self.poll_write(now, cx) {
                Poll::Ready(Err(e)) => return Poll::Ready(format!("write: {e}")),
                // What was enqueued during the long write waits for a buffer that is free only now.
                Poll::Ready(Ok(())) if was_writing => continue,
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
            match self.poll_read(shared, now, cx) {
                Poll::Ready(Ok(())) => continue,
                Poll::Ready(Err(why)) => return Poll::Ready(why),
                Poll::Pending => {}
            }
            if now >= self.silence_ends() {
                return Poll::Ready("nothing heard for 2/3 of the session timeout".to_owned());
            }
            let due = self.ping_due().min(self.silence_ends());
            let due = session_due.map_or(due, |session_due| session_due.min(due));
            // Traffic moves the deadline on all the time: a timer that fires too early costs less than one
            // that is set anew for every request.
            if due < self.timer.deadline() || self.timer.is_elapsed() {
                self.timer.as_mut().reset(due);
            }
            ready!(self.timer.as_mut().poll(cx));
        }
    }

    /// Lets the session do what is due, and takes what it wants to have written. Returns when it is due next.
    fn exchange(
        &mut self,
        shared: &Shared,
        now: Instant,
        cx: &mut Context<'_>,
    ) -> Result<Option<Instant>, String> {
        let ping_due = now >= self.ping_due();
        if ping_due {
            // Also when the last ping is still unanswered and none is sent: the next look is due later.
            self.last_sent = now;
        }
        let Connection { output, output_written, .. } = self;
        shared.with(|session| {
            session.register_driver(cx.waker());
            session.upkeep(now);
            if let Some(why) = session.must_drop() {
                return Err(why);
            }
            if ping_due {
                session.ping(now);
            }
            if *output_written == output.len() {
                output.clear();
                if output.capacity() > KEEP_BYTES {
                    *output = Vec::new();
                }
                *output_written = 0;
                session.take_output(output, now);
            }
            Ok(session.deadline_up())
        })
    }

    fn poll_write(&mut self, now: Instant, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        while self.output_written < self.output.len() {
            let left = &self.output[self.output_written..];
            match ready!(Pin::new(&mut self.stream).poll_write(cx, left))? {
                0 => return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
                n => {
                    self.output_written += n;
                    self.written += n as u64;
                    self.last_sent = now;
                    self.needs_flush = true;
                }
            }
        }
        if self.needs_flush {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.needs_flush = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once and hands the complete frames to the session.
    fn poll_read(&mut self, shared: &Shared, now: Instant, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        #[cfg(feature = "testing")]
        if shared.with(|session| session.reads_paused) {
            return Poll::Pending;
        }
        let read = pin!(self.stream.read_buf(self.frames.space())).poll(cx);
        match ready!(read) {
            Ok(0) => return Poll::Ready(Err("closed by the server".to_owned())),
            Ok(_) => self.last_heard = now,
            Err(e) => return Poll::Ready(Err(format!("read: {e}"))),
        }
        Poll::Ready(self.deliver(shared, now))
    }

    /// Hands the complete frames in the buffer to the session.
    pub(crate) fn deliver(&mut self, shared: &Shared, now: Instant) -> Result<(), String> {
        let frames = &mut self.frames;
        shared.with_wakers(&mut self.wakers, |session| {
            while let Some(frame) = frames.next().map_err(|e| e.to_string())? {
                session.on_frame(frame, now)?;
            }
            session.after_replies();
            Ok(())
        })
    }
}
