//! Retrying: one policy for reconnects and for [`Client::retry`](crate::Client::retry).

mod delays;

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::client::Client;
use crate::error::Result;

/// How long to wait between attempts, and when to stop.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Wait before the second attempt.
    pub initial: Duration,
    /// Longest wait.
    pub max: Duration,
    /// Factor between two waits; values below 1 count as 1.
    pub multiplier: f64,
    /// Part of each wait that is random: 0.5 means between 50 % and 150 %. Between 0 and 1.
    pub jitter: f64,
    /// No attempt starts later than this after the first; `None` for no limit.
    pub max_elapsed: Option<Duration>,
    /// Attempts in all, the first one included; `None` for no limit.
    pub max_attempts: Option<u32>,
}

impl Default for RetryPolicy {
    /// 100 ms doubling up to 5 s, half of it random, without end: what reconnecting uses.
    fn default() -> Self {
        RetryPolicy {
            initial: Duration::from_millis(100),
            max: Duration::from_secs(5),
            multiplier: 2.0,
            jitter: 0.5,
            max_elapsed: None,
            max_attempts: None,
        }
    }
}

impl RetryPolicy {
    /// The default policy with a limit on the number of attempts.
    pub fn attempts(attempts: u32) -> Self {
        RetryPolicy { max_attempts: Some(attempts), ..RetryPolicy::default() }
    }

    /// The waits of this policy, for loops of the caller's own. Does not look at `max_elapsed`, which needs
    /// a clock.
    pub fn waits(&self) -> impl Iterator<Item = Duration> + Send + 'static {
        self.delays()
    }
}

impl Client {
    /// Runs `f` again while it fails with a [retryable](crate::Error::is_retryable) error, so **`f` must be
    /// idempotent**: after an unknown outcome its writes may be in effect already.
    ///
    /// `f` gets a clone of this client. The last error is returned when the policy gives up; errors that
    /// cannot go away (expired session, closed client, refused credentials, server verdicts) are returned at
    /// once. Cancel safe as far as `f` is.
    pub async fn retry<T, F, Fut>(&self, policy: &RetryPolicy, mut f: F) -> Result<T>
    where
        F: FnMut(Client) -> Fut + Send,
        Fut: Future<Output = Result<T>> + Send,
    {
        let start = Instant::now();
        let mut delays = policy.delays();
        loop {
            let error = match f(self.clone()).await {
                Err(error) if error.is_retryable() => error,
                done => return done,
            };
            let Some(delay) = delays.next() else { return Err(error) };
            if policy.max_elapsed.is_some_and(|max| start.elapsed() + delay > max) {
                return Err(error);
            }
            tracing::warn!(%error, ?delay, "retrying");
            sleep(delay).await;
        }
    }
}
