//! How a connection to a server is made. TCP unless a [`Connector`] says otherwise.

use std::io;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::hosts::Host;

/// A byte stream to a server.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// Makes connections. Replaces TCP: TLS, a proxy, an in-memory server in tests.
#[async_trait]
pub trait Connector: Send + Sync + 'static {
    /// Connects to `host`. The caller enforces `timeout`; it is passed so that several addresses can share it.
    async fn connect(&self, host: &Host, timeout: Duration) -> io::Result<Box<dyn Transport>>;
}

/// TCP without delay. A name with several addresses has them tried in turn, in random order.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpConnector;

#[async_trait]
impl Connector for TcpConnector {
    async fn connect(&self, host: &Host, timeout: Duration) -> io::Result<Box<dyn Transport>> {
        if host.tls {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "TLS needs a connector that speaks it"));
        }
        let mut addresses: Vec<_> = tokio::net::lookup_host((host.name.as_str(), host.port)).await?.collect();
        fastrand::shuffle(&mut addresses);
        let share = timeout / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            match tokio::time::timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true)?;
                    return Ok(Box::new(stream));
                }
                Ok(Err(e)) => last = io::Error::new(e.kind(), format!("{address}: {e}")),
                Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("{address}: no answer")),
            }
        }
        Err(last)
    }
}
