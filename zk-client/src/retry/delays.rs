//! The only file that names the `backoff` crate: it is unmaintained (RUSTSEC-2025-0012), and everything
//! else sees an iterator of durations, so that replacing it touches this file alone.

use std::time::Duration;

use backoff::backoff::Backoff;
use backoff::{ExponentialBackoff, ExponentialBackoffBuilder};

use super::RetryPolicy;

/// The waits between attempts, endless unless the policy says otherwise.
pub(crate) struct Delays {
    inner: ExponentialBackoff,
    left: Option<u32>,
}

impl RetryPolicy {
    pub(crate) fn delays(&self) -> Delays {
        Delays {
            inner: ExponentialBackoffBuilder::new()
                .with_initial_interval(self.initial)
                .with_max_interval(self.max)
                .with_multiplier(self.multiplier.max(1.0))
                .with_randomization_factor(self.jitter.clamp(0.0, 1.0))
                // The crate's own limit reads the system clock, which paused tokio time does not move, and
                // defaults to 15 minutes. The policy's limit is kept by the caller.
                .with_max_elapsed_time(None)
                .build(),
            left: self.max_attempts.map(|attempts| attempts.saturating_sub(1)),
        }
    }
}

impl Iterator for Delays {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1)?;
        }
        self.inner.next_backoff()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_cap_and_ends_after_the_attempts() {
        let policy = RetryPolicy {
            initial: Duration::from_millis(100),
            max: Duration::from_secs(2),
            multiplier: 2.0,
            jitter: 0.0,
            max_elapsed: None,
            max_attempts: Some(8),
        };
        let delays: Vec<u128> = policy.delays().map(|d| d.as_millis()).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1600, 2000, 2000]);
    }

    #[test]
    fn the_default_has_no_end_and_stays_within_jitter() {
        let policy = RetryPolicy::default();
        for delay in policy.delays().take(1000) {
            assert!(delay <= policy.max.mul_f64(1.5), "{delay:?}");
        }
    }
}
