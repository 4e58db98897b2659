//! What the core of a member asks of the connections to the other members, and of its disk.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::core::WeakCore;
use super::snapshots::Way;
use crate::config::{HostPort, QuorumConfig, ServerSpec};
use crate::member::{self, Dial, DiskError, DiskOp, DiskOwner, PeerPort, Serving};
use crate::net::peer::{PeerEvent, PeerHandle, PeerNet, PeerOptions, Port, tree_source};
use crate::net::{Command, Net, Serving as ClientServing};
use crate::replica::Shared;
use crate::storage::{IoError, TxnLog};
use crate::tree::SnapshotPin;
use crate::zab::PeerConn;

/// See the module.
pub(super) struct Peers {
    handle: PeerHandle,
    core: WeakCore,
    net: Weak<Net>,
    shared: Arc<Shared>,
    disk: Arc<Mutex<DiskOwner>>,
    way: Arc<Way>,
    /// Where learners of this server connect.
    quorum: Vec<SocketAddr>,
    /// `quorumListenOnAllIPs`.
    all_ips: bool,
    client_backlog: u32,
    /// What the numbers of dials mean.
    dials: Dials,
    next_dial: u64,
    connect_timeout_ms: u64,
}

type Dials = Arc<Mutex<BTreeMap<u64, Dial>>>;

/// What [`start`] needs.
pub(super) struct PeerParts<'a> {
    pub config: &'a QuorumConfig,
    pub this: &'a ServerSpec,
    pub options: PeerOptions,
    /// Clients that may wait to be accepted.
    pub client_backlog: u32,
    pub core: WeakCore,
    pub net: Weak<Net>,
    pub shared: Arc<Shared>,
    pub disk: Arc<Mutex<DiskOwner>>,
    pub way: Arc<Way>,
}

/// Starts the thread of the connections to other members, which listens on the election port.
///
/// # Errors
/// The port cannot be opened, or the system gives no thread.
pub(super) fn start(parts: PeerParts<'_>) -> io::Result<(PeerNet, Peers)> {
    let PeerParts { config, this, options, client_backlog, core, net, shared, disk, way } = parts;
    let dials = Dials::default();
    let events = {
        let (core, dials) = (core.clone(), dials.clone());
        move |events: Vec<PeerEvent>| {
            if let Some(core) = core.upgrade() {
                core.submit_member(events.into_iter().filter_map(|event| input(event, &dials)));
            }
        }
    };
    let peer_net = PeerNet::start(options, events)?;
    let handle = peer_net.handle();
    for address in &this.addresses {
        let election = own_address(config.listen_on_all_ips, &address.host, address.election_port)?;
        listen_patiently(&handle, election, config.election_port_bind_retries)?;
        tracing::info!(address = %election, "election port");
    }
    let peers = Peers {
        handle,
        core,
        net,
        shared,
        disk,
        way,
        quorum: quorum_addresses(config.listen_on_all_ips, this)?,
        all_ips: config.listen_on_all_ips,
        client_backlog,
        dials,
        next_dial: 0,
        connect_timeout_ms: u64::from(config.election_connect_timeout_ms),
    };
    Ok((peer_net, peers))
}

fn quorum_addresses(all_ips: bool, this: &ServerSpec) -> io::Result<Vec<SocketAddr>> {
    this.addresses.iter().map(|address| own_address(all_ips, &address.host, address.quorum_port)).collect()
}

/// Where this server listens: its own address, or all of them.
fn own_address(all_ips: bool, host: &str, port: u16) -> io::Result<SocketAddr> {
    if all_ips {
        return Ok((Ipv4Addr::UNSPECIFIED, port).into());
    }
    let mut addresses = (host, port).to_socket_addrs()?;
    addresses.next().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address")))
}

/// The port may be held by a server that is just ending.
fn listen_patiently(handle: &PeerHandle, address: SocketAddr, retries: Option<u32>) -> io::Result<()> {
    let mut failures = 0;
    loop {
        match handle.listen(Port::Election, address) {
            Ok(_) => return Ok(()),
            Err(error) if retries.is_some_and(|retries| failures >= retries) => {
                return Err(io::Error::new(error.kind(), format!("election port {address}: {error}")));
            }
            Err(error) => {
                failures += 1;
                tracing::warn!(%address, %error, "cannot open the election port, trying again");
                std::thread::sleep(std::time::Duration::from_secs(1));
            }
        }
    }
}

fn input(event: PeerEvent, dials: &Dials) -> Option<member::Input> {
    Some(match event {
        PeerEvent::Accepted { conn, port, remote } => {
            let port = match port {
                Port::Election => PeerPort::Election,
                Port::Quorum => PeerPort::Quorum,
            };
            member::Input::Accepted { conn, port, remote }
        }
        PeerEvent::Dialed { token, result } => {
            member::Input::Dialed { dial: dials.lock().remove(&token)?, result }
        }
        PeerEvent::Received { conn, bytes } => member::Input::Received { conn, bytes },
        PeerEvent::Packets { conn, packets } => member::Input::Packets { conn, packets },
        PeerEvent::SnapshotReceived { conn, zxid, tree } => {
            tracing::info!(%zxid, nodes = tree.len(), "the leader's tree has come");
            member::Input::SnapshotReceived { conn, tree }
        }
        PeerEvent::Heard { conn } => member::Input::Heard { conn },
        PeerEvent::SnapshotSent { conn } => member::Input::SnapshotSent { conn },
        PeerEvent::Backlog { conn, bytes } => member::Input::Backlog { conn, bytes },
        PeerEvent::Closed { conn, reason } => {
            tracing::debug!(?conn, %reason, "connection to another server closed");
            member::Input::Closed { conn }
        }
        // Notifications are few and small, and never wait for the one before to be written.
        PeerEvent::Drained { .. } => return None,
        PeerEvent::Failed { reason } => {
            tracing::error!(%reason, "this server hears of no other any more");
            return None;
        }
    })
}

impl Peers {
    /// The connections.
    pub(super) fn handle(&self) -> &PeerHandle {
        &self.handle
    }

    /// Writes what was sent.
    pub(super) fn flush(&self) {
        self.handle.flush();
    }

    pub(super) fn dial(&mut self, dial: Dial, addresses: Vec<HostPort>) {
        self.next_dial += 1;
        let port = match dial {
            Dial::Election(_) => Port::Election,
            Dial::Leader(_) => Port::Quorum,
        };
        self.dials.lock().insert(self.next_dial, dial);
        self.handle.dial(self.next_dial, port, addresses, self.connect_timeout_ms);
    }

    pub(super) fn listen(&self, open: bool) {
        if !open {
            self.handle.unlisten(Port::Quorum);
            return;
        }
        for address in &self.quorum {
            // Without the port nobody can follow, and the leadership ends by itself.
            if let Err(error) = self.handle.listen(Port::Quorum, *address) {
                tracing::error!(%address, %error, "cannot open the quorum port");
            }
        }
    }

    /// Listens where the ensemble's configuration has this server now. Where it cannot, the old ports stay: the
    /// next start shows the operator what is wrong.
    pub(super) fn moved(&mut self, from: &ServerSpec, to: &ServerSpec) {
        if from.addresses != to.addresses
            && let Err(error) = self.move_peer_ports(to)
        {
            tracing::error!(%error, "cannot open the new ports for other servers");
        }
        let Some((client, net)) = to.client.as_ref().zip(self.net.upgrade()) else { return };
        let now = *net.address.lock();
        let host = client.host.parse::<IpAddr>();
        let same_host =
            host.is_ok_and(|ip| ip == now.ip() || ip.is_unspecified() && now.ip().is_unspecified());
        if from.client != to.client
            && !(same_host && client.port == now.port())
            && let Some(acceptor) = net.inboxes.first()
        {
            let (host, port) = (client.host.clone(), client.port);
            acceptor.command(Command::Listen { host, port, backlog: self.client_backlog });
        }
    }

    fn move_peer_ports(&mut self, to: &ServerSpec) -> io::Result<()> {
        self.quorum = quorum_addresses(self.all_ips, to)?;
        let mut election = Vec::new();
        for address in &to.addresses {
            election.push(own_address(self.all_ips, &address.host, address.election_port)?);
        }
        self.handle.unlisten(Port::Election);
        for address in election {
            self.handle.listen(Port::Election, address)?;
        }
        Ok(())
    }

    pub(super) fn serve(&self, serving: Serving) {
        if let Some(net) = self.net.upgrade() {
            net.serve(match serving {
                Serving::No => ClientServing::Nobody,
                Serving::ReadOnly => ClientServing::ReadOnly,
                Serving::Yes => ClientServing::All,
            });
        }
    }

    pub(super) fn stream_snapshot(&self, conn: PeerConn, pin: Arc<SnapshotPin>) {
        self.handle.stream_snapshot(conn, tree_source(self.shared.clone(), pin));
    }

    /// A disk operation, as the log's thread runs it. Its answer goes to the member.
    pub(super) fn disk_operation(
        &self,
        op: DiskOp,
    ) -> impl FnOnce(TxnLog) -> Result<TxnLog, IoError> + Send + use<> {
        let (disk, core, way) = (self.disk.clone(), self.core.clone(), self.way.clone());
        move |log| {
            let dir = log.dir().to_owned();
            let done = match op {
                DiskOp::Truncate(_) | DiskOp::Install { .. } | DiskOp::Rebuild(_) => {
                    way.clear(|| disk.lock().run(op, log))
                }
                op => disk.lock().run(op, log),
            };
            let (log, done) = done.map_err(|error| match error {
                DiskError::Io(error) => error,
                other => IoError { action: "go on with", path: dir, source: io::Error::other(other) },
            })?;
            if let (Some(done), Some(core)) = (done, core.upgrade()) {
                core.submit_member([member::Input::Disk(done)]);
            }
            Ok(log)
        }
    }
}
