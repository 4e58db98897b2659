//! The byte stream under a connection. The only place that knows what it is made of: a TLS session would be made
//! here, and do its handshake inside [`Transport::read`] and [`Transport::write`].

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::SockRef;

/// A non-blocking byte stream that one thread reads and any thread writes.
#[derive(Debug)]
pub(super) struct Transport {
    stream: TcpStream,
    remote: SocketAddr,
}

impl Transport {
    /// Makes the stream of a connection that was accepted or dialed. `stream` does not block already.
    ///
    /// What the other end does not acknowledge within `silence` counts as lost, and the connection with it: a cut
    /// cable must not look like a slow server for a quarter of an hour.
    pub(super) fn open(
        stream: TcpStream,
        remote: SocketAddr,
        keep_alive: bool,
        silence: Duration,
    ) -> io::Result<Self> {
        let socket = SockRef::from(&stream);
        // A proposal must not wait for the acknowledgement of the one before.
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_user_timeout(Some(silence))?;
        if keep_alive {
            socket.set_keepalive(true)?;
        }
        Ok(Transport { stream, remote })
    }

    /// Has the poller tell when the stream can be read, and when it takes output again after it did not. Both are
    /// edges: who writes until the socket is full need not ask to be told.
    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.stream, token, Interest::READABLE | Interest::WRITABLE)
    }

    /// The other end.
    pub(super) fn remote(&self) -> SocketAddr {
        self.remote
    }

    pub(super) fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        (&self.stream).read(buf)
    }

    pub(super) fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match slices {
            [one] => (&self.stream).write(one),
            many => (&self.stream).write_vectored(many),
        }
    }

    /// Says that nothing more will be written.
    pub(super) fn finish(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// Ends the stream in both directions; what the system has taken is still sent.
    pub(super) fn close(&self) {
        // It may be closed already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}
