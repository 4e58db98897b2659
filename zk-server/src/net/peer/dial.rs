//! Connecting to other servers: names are resolved and connections made on short-lived threads, since both may
//! take long and neither can be interrupted.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::handle::{Command, Shared};
use super::{PeerEvent, Port};
use crate::config::HostPort;

/// Dials under way at the same time.
const DIALS_MAX: usize = 32;

/// Dials that wait for their turn.
const WAITING_MAX: usize = 256;

/// Addresses of one name that are tried.
const ADDRESSES_PER_NAME: usize = 8;

/// A connection that is wanted.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) token: u64,
    pub(super) port: Port,
    pub(super) addresses: Vec<HostPort>,
    /// For each address.
    pub(super) timeout: Duration,
}

/// The dials that are under way or wait.
#[derive(Debug, Default)]
pub(super) struct Dialer {
    threads: usize,
    waiting: VecDeque<Dial>,
}

/// Begins a dial, or puts it behind those that wait.
pub(super) fn dial(shared: &Arc<Shared>, dial: Dial) {
    let mut dialer = shared.dialer.lock();
    if dialer.threads >= DIALS_MAX {
        if dialer.waiting.len() < WAITING_MAX {
            dialer.waiting.push_back(dial);
        } else {
            failed(shared, dial.token, "too many dials at once".into());
        }
        return;
    }
    let token = dial.token;
    let its_shared = shared.clone();
    match std::thread::Builder::new().name("zk-peer-dial".into()).spawn(move || run(&its_shared, dial)) {
        Ok(_) => dialer.threads += 1,
        Err(error) => failed(shared, token, format!("cannot start a thread: {error}")),
    }
}

/// Dials until nobody waits.
fn run(shared: &Arc<Shared>, first: Dial) {
    let mut next = Some(first);
    while let Some(dial) = next.take() {
        match connect(&dial) {
            Ok((stream, remote)) => {
                let stream = mio::net::TcpStream::from_std(stream);
                shared.command(Command::Adopt { token: dial.token, port: dial.port, stream, remote });
            }
            Err(reason) => failed(shared, dial.token, reason),
        }
        let mut dialer = shared.dialer.lock();
        if shared.stopped.load(Ordering::SeqCst) {
            dialer.waiting.clear();
        }
        next = dialer.waiting.pop_front();
        if next.is_none() {
            dialer.threads -= 1;
        }
    }
}

fn failed(shared: &Shared, token: u64, reason: String) {
    shared.command(Command::Event(PeerEvent::Dialed { token, result: Err(reason) }));
}

/// The first connection that can be made, or what went wrong with each address.
fn connect(dial: &Dial) -> Result<(TcpStream, SocketAddr), String> {
    let mut failures = Vec::new();
    for host in &dial.addresses {
        let addresses = match (host.host.as_str(), host.port).to_socket_addrs() {
            Ok(addresses) => addresses,
            Err(error) => {
                failures.push(format!("{host}: {error}"));
                continue;
            }
        };
        for address in addresses.take(ADDRESSES_PER_NAME) {
            match connect_to(address, dial.timeout) {
                Ok(stream) => return Ok((stream, address)),
                Err(error) => failures.push(format!("{address}: {error}")),
            }
        }
    }
    if failures.is_empty() {
        failures.push("no address is known".into());
    }
    Err(failures.join("; "))
}

fn connect_to(address: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, timeout)?;
    if stream.local_addr()? == address {
        // TCP can connect a free port of this machine to itself: nobody listens there.
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    stream.set_nonblocking(true)?;
    Ok(stream)
}
