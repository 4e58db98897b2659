//! Listening and accepting. The first I/O thread accepts and gives each connection to the thread that has the
//! fewest, so that even a few connections spread over all threads.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::io_thread::LISTENER;
use super::limits::ACCEPTS_PER_ROUND;
use super::peers::Refused;
use super::{Command, IoThread};
use crate::admin::metrics::Counter;

/// How long nobody is accepted after the system had no file descriptor left.
const OUT_OF_FILES_PAUSE_MS: u64 = 100;

/// Refused connections are logged at most this often.
const REFUSAL_LOG_EVERY_MS: u64 = 1_000;

/// Why the client port cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct ListenError {
    address: String,
    source: io::Error,
}

/// Opens the client port; port 0 takes a free one. Without `host` on all interfaces, IPv4 and IPv6 where the
/// system has both. A host name may have several addresses: the first that works is taken.
pub(crate) fn bind(
    host: Option<&str>,
    port: u16,
    backlog: u32,
) -> Result<std::net::TcpListener, ListenError> {
    let failed = |source| ListenError { address: format!("{}:{port}", host.unwrap_or("*")), source };
    let addresses: Vec<SocketAddr> = match host {
        Some(host) => (host, port).to_socket_addrs().map_err(failed)?.collect(),
        None => {
            let all: [IpAddr; 2] = [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
            all.map(|ip| SocketAddr::new(ip, port)).into()
        }
    };
    let mut error = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
    for address in addresses {
        match listen(address, host.is_none(), backlog) {
            Ok(listener) => return Ok(listener),
            // Somebody else has the port: another address family would only hide it.
            Err(in_use) if in_use.kind() == io::ErrorKind::AddrInUse => return Err(failed(in_use)),
            Err(other) => error = other,
        }
    }
    Err(failed(error))
}

/// Opens the client port, watched by a poller.
fn open(host: &str, port: u16, backlog: u32, registry: &Registry) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = bind(Some(host), port, backlog).map_err(|error| error.source)?;
    let mut listener = TcpListener::from_std(listener);
    registry.register(&mut listener, LISTENER, Interest::READABLE)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Opens a port on one address; with `dual_stack`, an IPv6 one takes IPv4 connections as well.
pub(super) fn listen(
    address: SocketAddr,
    dual_stack: bool,
    backlog: u32,
) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!dual_stack)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// The listener of the thread that accepts.
#[derive(Debug)]
pub(super) struct Acceptor {
    /// `None` when the port could not be opened again after a reconfiguration.
    pub(super) listener: Option<TcpListener>,
    /// More connections wait, as far as is known.
    pub(super) ready: bool,
    /// No accept before this time (monotonic ms).
    pub(super) not_before_ms: u64,
    next: usize,
    next_refusal_log_ms: u64,
}

impl Acceptor {
    pub(super) fn new(listener: std::net::TcpListener) -> Self {
        Acceptor {
            listener: Some(TcpListener::from_std(listener)),
            ready: false,
            not_before_ms: 0,
            next: 0,
            next_refusal_log_ms: 0,
        }
    }
}

impl IoThread<'_> {
    /// Accepts at another address, and at the old one no more. Connections stay.
    pub(super) fn listen_at(&mut self, host: &str, port: u16, backlog: u32) {
        let Some(acceptor) = &mut self.acceptor else { return };
        if self.net.address.lock().port() == port {
            // The old one is in the way: all interfaces in place of one, or the other way round.
            acceptor.listener = None;
        }
        match open(host, port, backlog, self.poll.registry()) {
            Ok((listener, address)) => {
                tracing::info!(%address, "clients connect at another address from now on");
                acceptor.listener = Some(listener);
                acceptor.ready = true;
                *self.net.address.lock() = address;
            }
            Err(error) => tracing::error!(host, port, %error, "cannot open the new client port"),
        }
    }

    /// Accepts some of the connections that wait.
    pub(super) fn accept(&mut self) {
        let now_ms = self.now_ms;
        let Some(acceptor) = self.acceptor.as_mut().filter(|a| a.ready && now_ms >= a.not_before_ms) else {
            return;
        };
        let mut accepted = Vec::new();
        while accepted.len() < ACCEPTS_PER_ROUND {
            let Some(listener) = &acceptor.listener else { break };
            match listener.accept() {
                Ok(connection) => accepted.push(connection),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    acceptor.ready = false;
                    break;
                }
                Err(error) if is_about_the_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    acceptor.not_before_ms = now_ms + OUT_OF_FILES_PAUSE_MS;
                    break;
                }
            }
        }
        for (socket, address) in accepted {
            self.admit(socket, address);
        }
    }

    /// Applies the limits on connections, and gives the connection to a thread.
    fn admit(&mut self, socket: TcpStream, address: SocketAddr) {
        let options = &self.net.options;
        let peer = match self.net.peers.enter(address, options.max_per_address, options.max_connections) {
            Ok(peer) => peer,
            Err(refused) => {
                self.recorder.count(Counter::ConnectionRejected);
                self.log_refusal(refused, address.ip());
                return;
            }
        };
        let socket_ref = SockRef::from(&socket);
        if let Err(error) = socket_ref
            .set_tcp_nodelay(true)
            .and_then(|()| if options.keep_alive { socket_ref.set_keepalive(true) } else { Ok(()) })
        {
            tracing::debug!(%error, "a connection was gone before it was accepted");
            self.net.peers.leave(&peer);
            return;
        }
        let port = address.port();
        let thread = self.thread_with_fewest();
        self.net.connections[thread].fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if thread == self.index {
            self.adopt(socket, peer, port);
        } else {
            self.net.inboxes[thread].command(Command::Adopt { socket, peer, port });
        }
    }

    /// Not more than once in a while: an attack should not fill the log.
    fn log_refusal(&mut self, refused: Refused, ip: IpAddr) {
        let now_ms = self.now_ms;
        let Some(acceptor) = self.acceptor.as_mut().filter(|a| now_ms >= a.next_refusal_log_ms) else {
            return;
        };
        acceptor.next_refusal_log_ms = now_ms + REFUSAL_LOG_EVERY_MS;
        match refused {
            Refused::Address => tracing::warn!(%ip, "too many connections from this address"),
            Refused::Total => tracing::warn!(%ip, "too many connections"),
        }
    }

    fn thread_with_fewest(&mut self) -> usize {
        let threads = self.net.connections.len();
        let start = match &mut self.acceptor {
            Some(acceptor) => {
                acceptor.next = (acceptor.next + 1) % threads;
                acceptor.next
            }
            None => 0,
        };
        let count = |thread: usize| self.net.connections[thread].load(std::sync::atomic::Ordering::Relaxed);
        (0..threads).map(|i| (start + i) % threads).min_by_key(|&thread| count(thread)).unwrap_or(0)
    }
}

/// Errors of one connection that was lost before it was accepted; the next one may be fine.
pub(super) fn is_about_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, PermissionDenied};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | PermissionDenied)
}
