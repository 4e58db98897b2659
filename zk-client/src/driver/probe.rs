//! While connected to a read-only server: looks for one that takes writes.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use crate::config::Config;
use crate::hosts::Host;

const FIRST_WAIT: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(60);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Asks one server after the other whether it takes writes; returns the position of the first that does.
pub(crate) async fn find_read_write(config: &Config, hosts: &[Host], mut next: usize) -> usize {
    let mut wait = FIRST_WAIT;
    loop {
        sleep(wait).await;
        wait = (wait * 2).min(WAIT_MAX);
        let at = next % hosts.len().max(1);
        next = at + 1;
        let Some(host) = hosts.get(at) else { continue };
        if let Ok(Ok(true)) = timeout(PROBE_TIMEOUT, is_read_write(config, host)).await {
            return at;
        }
    }
}

/// The four-letter word `isro` on a connection of its own.
async fn is_read_write(config: &Config, host: &Host) -> io::Result<bool> {
    let mut stream = config.connector.connect(host, PROBE_TIMEOUT).await?;
    stream.write_all(b"isro").await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    stream.take(16).read_to_end(&mut answer).await?;
    Ok(answer.trim_ascii() == b"rw")
}
