//! Finds a server: goes round the list until one of them accepts the session.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};
use tracing::Instrument;
use zk_proto::{ConnectResponse, Reader};

use super::connection::Connection;
use super::frames::Frames;
use super::probe::find_read_write;
use crate::config::Config;
use crate::hosts::Host;
use crate::session::{Handshake, Verdict};
use crate::shared::Shared;
use crate::transport::Transport;

/// A connection that lived shorter than this and answered no request counts as a failed attempt, or a server
/// that accepts and drops would be asked without pause.
const STABLE_AFTER: Duration = Duration::from_secs(1);
/// Longest answer to a connect request that is looked at.
const HANDSHAKE_BYTES_MAX: usize = 1024;

/// Goes round the servers. Lives as long as the client, so that every round starts where the last one ended.
pub(crate) struct Dialer {
    hosts: Vec<Host>,
    next: usize,
    /// Attempts in this round.
    tried: usize,
    delays: Box<dyn Iterator<Item = Duration> + Send>,
    attached_at: Option<Instant>,
}

impl Dialer {
    pub(crate) fn new(shared: &Shared) -> Self {
        let mut hosts = shared.config.hosts.clone();
        shared.random.lock().shuffle(&mut hosts);
        Dialer {
            hosts,
            next: 0,
            tried: 0,
            delays: Box::new(shared.config.reconnect.waits()),
            attached_at: None,
        }
    }

    /// Tries servers until one accepts the session. Cancel safe: an attempt under way is dropped.
    /// `None` when the client is over, or the policy allows no further attempt.
    pub(crate) async fn dial(&mut self, shared: &Shared) -> Option<Connection> {
        let lived = self.attached_at.take().is_some_and(|at| at.elapsed() >= STABLE_AFTER);
        let served = shared.with(|session| std::mem::take(&mut session.has_served));
        if lived || served {
            self.tried = 0;
            self.delays = Box::new(shared.config.reconnect.waits());
        }
        let started = Instant::now();
        loop {
            if self.tried >= self.hosts.len() {
                self.tried = 0;
                let delay = self.delays.next()?;
                if shared.config.reconnect.max_elapsed.is_some_and(|max| started.elapsed() + delay > max) {
                    return None;
                }
                tracing::debug!(?delay, "all servers tried");
                sleep(delay).await;
                self.refresh(&shared.config).await;
            }
            if let Some(hosts) = shared.with(|session| session.ensemble.take()) {
                self.replace_hosts(hosts);
            }
            let Some(host) = self.hosts.get(self.next % self.hosts.len().max(1)).cloned() else {
                self.tried = usize::MAX;
                continue;
            };
            #[cfg(feature = "testing")]
            while shared.with(|session| session.dialing_paused) {
                sleep(Duration::from_millis(5)).await;
            }
            self.next = self.next.wrapping_add(1);
            self.tried += 1;
            let wait = connect_timeout(shared, self.hosts.len());
            let span = tracing::debug_span!("zk.connect", %host, attempt = self.tried);
            let attempt = attempt(shared, &host, wait).instrument(span);
            match timeout(wait, attempt).await.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
                Ok((stream, frames, handshake)) => {
                    let now = Instant::now();
                    let negotiated = handshake.timeout;
                    match shared.with(|session| session.handshake(handshake, now)) {
                        Verdict::Attached => {
                            self.attached_at = Some(now);
                            let server = host.to_string();
                            return Some(Connection::new(server, stream, frames, negotiated, now));
                        }
                        Verdict::Again => {
                            // The same server, since it is one that answers.
                            self.tried = self.tried.saturating_sub(1);
                            self.next = self.next.wrapping_sub(1);
                        }
                        Verdict::Useless => note(shared, &host, "no session given"),
                        Verdict::Over => return None,
                    }
                }
                Err(e) => note(shared, &host, &e),
            }
        }
    }

    /// Waits until a server is found that takes writes, and makes it the next to be tried.
    pub(crate) async fn find_read_write(&mut self, config: &Config) {
        self.next = find_read_write(config, &self.hosts, self.next).await;
        // Not a failure of the connection that is given up for it.
        self.tried = 0;
    }

    /// Asks the provider for servers; what stays keeps its place in the round.
    async fn refresh(&mut self, config: &Config) {
        let Some(provider) = &config.host_provider else { return };
        match provider.hosts().await {
            Ok(hosts) if !hosts.is_empty() => self.replace_hosts(hosts),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the host provider failed"),
        }
    }

    /// Uses another list of servers from now on.
    fn replace_hosts(&mut self, mut hosts: Vec<Host>) {
        fastrand::shuffle(&mut hosts);
        let mut merged: Vec<Host> = self.hosts.iter().filter(|h| hosts.contains(h)).cloned().collect();
        merged.extend(hosts.into_iter().filter(|host| !self.hosts.contains(host)));
        if merged.len() != self.hosts.len() || merged != self.hosts {
            self.hosts = merged;
            self.next = 0;
        }
    }
}

/// Keeps the reason for which a server was not taken, for whoever gives up waiting.
fn note(shared: &Shared, host: &Host, error: &str) {
    tracing::debug!(%host, error, "connect failed");
    shared.with(|session| session.dial_error = format!("{host}: {error}"));
}

fn connect_timeout(shared: &Shared, hosts: usize) -> Duration {
    shared.config.connect_timeout.unwrap_or_else(|| {
        let timeout = shared.with(|session| session.timeout());
        timeout / u32::try_from(hosts).unwrap_or(u32::MAX).max(1)
    })
}

/// Connects to `host` and asks for the session.
pub(crate) async fn attempt(
    shared: &Shared,
    host: &Host,
    wait: Duration,
) -> Result<(Box<dyn Transport>, Frames, Handshake), String> {
    tracing::debug!(%host, "connecting");
    let mut stream = shared.config.connector.connect(host, wait).await.map_err(|e| e.to_string())?;
    let sent = Instant::now();
    let (requested, request) = shared.with(|session| session.connect_request());
    stream.write_all(&request).await.map_err(|e| e.to_string())?;
    stream.flush().await.map_err(|e| e.to_string())?;
    let mut frames = Frames::new(HANDSHAKE_BYTES_MAX);
    let answer = loop {
        if let Some(frame) = frames.next().map_err(|e| e.to_string())? {
            break frame;
        }
        if stream.read_buf(frames.space()).await.map_err(|e| e.to_string())? == 0 {
            // Not serving, read-only, or behind the last zxid that this client has seen.
            return Err("closed without an answer to the connect request".to_owned());
        }
    };
    let response =
        ConnectResponse::decode(&mut Reader::new(&answer)).map_err(|e| format!("connect response: {e}"))?;
    let mut password = [0; 16];
    let bytes = response.passwd.unwrap_or_default();
    let length = bytes.len().min(password.len());
    password[..length].copy_from_slice(&bytes[..length]);
    let handshake = Handshake {
        requested,
        session: response.session_id,
        password,
        timeout: Duration::from_millis(u64::try_from(response.timeout_ms).unwrap_or(0)),
        read_only: response.read_only.unwrap_or(false),
        sent,
        server: host.to_string(),
    };
    frames.set_max(shared.config.max_reply_bytes);
    Ok((stream, frames, handshake))
}
