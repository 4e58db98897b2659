//! One connection of the load generator: a non-blocking socket, whole frames in, batches out.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

/// Longest frame that is believed; Apache's clients stop at 1 MiB by default, child lists may be longer.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// Size of the buffer that the connections of a thread share for reading.
pub const SCRATCH_BYTES: usize = 256 << 10;

/// What became of a connection after a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is open.
    Open,
    /// The server has closed it.
    Closed,
}

/// A non-blocking connection to a server.
#[derive(Debug)]
pub struct Conn {
    socket: OwnedFd,
    /// What the last read left of a frame whose end is still on its way.
    partial: Vec<u8>,
    /// Frames to send; what [`Conn::flush`] has sent is gone from it.
    pub out: Vec<u8>,
    next_xid: i32,
}

/// The source address of connection number `index`: loopback addresses in turn when the server is on
/// loopback, so that neither ports nor a limit per address run out.
fn source(server: SocketAddr, index: usize) -> Option<Ipv4Addr> {
    match server.ip() {
        IpAddr::V4(ip) if ip.is_loopback() => Some(Ipv4Addr::new(127, 0, 0, 1 + (index % 200) as u8)),
        _ => None,
    }
}

impl Conn {
    /// Begins to connect; `index` counts the caller's connections. The connection is writable once it stands.
    pub fn connect(server: SocketAddr, index: usize) -> io::Result<Conn> {
        let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        if let Some(ip) = source(server, index) {
            rustix::net::bind(&socket, &SocketAddr::from((ip, 0)))?;
        }
        match rustix::net::connect(&socket, &server) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(e) => return Err(e.into()),
        }
        Ok(Conn { socket, partial: Vec::new(), out: Vec::new(), next_xid: 1 })
    }

    /// The xid that [`Conn::take_xid`] will give.
    pub fn peek_xid(&self) -> i32 {
        self.next_xid
    }

    /// The xid of the next request. Starts again at 1 after 2^31 - 1.
    pub fn take_xid(&mut self) -> i32 {
        let xid = self.next_xid;
        self.next_xid = xid.checked_add(1).unwrap_or(1);
        xid
    }

    /// Reads once into `scratch` (of at least [`SCRATCH_BYTES`], grown for longer frames) and hands each
    /// complete frame to `each`, together with the buffer for what to send.
    pub fn read(
        &mut self,
        scratch: &mut Vec<u8>,
        mut each: impl FnMut(&[u8], &mut Vec<u8>),
    ) -> io::Result<State> {
        let kept = self.partial.len();
        if let Some(frame_len) = frame_len(&self.partial)? {
            let wanted = (frame_len + 4).max(SCRATCH_BYTES);
            if scratch.len() < wanted {
                scratch.resize(wanted, 0);
            }
        }
        scratch[..kept].copy_from_slice(&self.partial);
        let got = match rustix::io::read(&self.socket, &mut scratch[kept..]) {
            Ok(0) => return Ok(State::Closed),
            Ok(n) => n,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(State::Open),
            Err(Errno::CONNRESET | Errno::PIPE) => return Ok(State::Closed),
            Err(e) => return Err(e.into()),
        };
        let mut rest = &scratch[..kept + got];
        while let Some(len) = frame_len(rest)? {
            let Some(frame) = rest.get(4..4 + len) else { break };
            each(frame, &mut self.out);
            rest = &rest[4 + len..];
        }
        self.partial.clear();
        self.partial.extend_from_slice(rest);
        Ok(State::Open)
    }

    /// Sends what [`Conn::out`] holds; true when all of it went out.
    pub fn flush(&mut self) -> io::Result<bool> {
        let mut sent = 0;
        while sent < self.out.len() {
            match rustix::io::write(&self.socket, &self.out[sent..]) {
                Ok(n) => sent += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(e) => return Err(e.into()),
            }
        }
        self.out.drain(..sent);
        Ok(self.out.is_empty())
    }
}

impl AsFd for Conn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The length of the frame at the start of `bytes`, `None` when it is not known yet.
fn frame_len(bytes: &[u8]) -> io::Result<Option<usize>> {
    let Some(&prefix) = bytes.first_chunk::<4>() else { return Ok(None) };
    match usize::try_from(i32::from_be_bytes(prefix)) {
        Ok(len) if len <= FRAME_BYTES_MAX => Ok(Some(len)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the server sent an impossible frame length")),
    }
}
