//! A bounded rate, so that a snapshot leaves the disk to the log for most of the time.

use std::time::{Duration, Instant};

/// Bytes per second from its making on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    bytes_per_second: Option<u64>,
    started: Instant,
}

impl Pace {
    /// `None`: as fast as it goes.
    pub(super) fn new(bytes_per_second: Option<u64>) -> Self {
        Pace { bytes_per_second, started: Instant::now() }
    }

    /// Sleeps until the rate allows so many bytes in all.
    pub(super) fn wait(&self, bytes: u64) {
        let Some(rate) = self.bytes_per_second else { return };
        let due = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        if let Some(early) = due.checked_sub(self.started.elapsed()) {
            std::thread::sleep(early);
        }
    }
}
