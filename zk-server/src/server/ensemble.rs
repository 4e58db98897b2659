//! A whole ensemble in one process: for tests, and for `zk-server dev --nodes 3`.

use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::start::{self, Storage};
use super::{Server, StartError};
use crate::config::{Config, HostPort, Overrides, PeerType};
use crate::member::Serving;
use crate::storage::sim::SimDisk;
use crate::zab::PeerState;

/// How long [`EnsembleBuilder::start`] waits for a leader.
const LEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Describes an ensemble, see [`Ensemble::builder`].
#[derive(Debug, Clone)]
pub struct EnsembleBuilder {
    voters: usize,
    observers: usize,
    data_dir: Option<PathBuf>,
    client_port: u16,
    tick_time: Duration,
    io_threads: usize,
    settings: String,
}

impl EnsembleBuilder {
    /// Number of servers with a vote.
    pub fn voters(mut self, voters: usize) -> Self {
        self.voters = voters;
        self
    }

    /// Number of observers.
    pub fn observers(mut self, observers: usize) -> Self {
        self.observers = observers;
        self
    }

    /// Keeps the data of server `N` in the directory `N` below this one, in place of memory.
    pub fn data_dir(mut self, path: impl AsRef<Path>) -> Self {
        self.data_dir = Some(path.as_ref().to_owned());
        self
    }

    /// Client port of the first server; the others have the next ones. 0, the default: any free ones.
    pub fn client_port(mut self, port: u16) -> Self {
        self.client_port = port;
        self
    }

    /// The unit of time, by default 200 ms: sessions last between 2 and 20 of it, and a silent server is given up
    /// after 5.
    pub fn tick_time(mut self, tick: Duration) -> Self {
        self.tick_time = tick;
        self
    }

    /// Number of threads of each server that serve connections, by default 1.
    pub fn io_threads(mut self, threads: usize) -> Self {
        self.io_threads = threads;
        self
    }

    /// One more line for the configuration of every server, as in a `zoo.cfg`.
    pub fn setting(mut self, key: &str, value: &str) -> Self {
        let _ = writeln!(self.settings, "{key}={value}");
        self
    }

    /// Starts the servers and waits until all of them serve clients: a fraction of a second.
    ///
    /// # Errors
    /// [`StartError`]; nothing keeps running then.
    pub fn start(self) -> Result<Ensemble, StartError> {
        let servers = self.voters + self.observers;
        let ports = free_ports(servers * 3)?;
        let mut text = String::new();
        let tick_ms = self.tick_time.as_millis().max(1);
        text.push_str(&self.settings);
        let _ = writeln!(text, "tickTime={tick_ms}\ninitLimit=20\nsyncLimit=5\nmaxClientCnxns=0");
        let _ = writeln!(text, "clientPortAddress=127.0.0.1\n4lw.commands.whitelist=*");
        let mut lines = String::new();
        for (index, ports) in ports.chunks_exact(3).enumerate() {
            let role = if index < self.voters { "participant" } else { "observer" };
            let _ = writeln!(lines, "server.{}=127.0.0.1:{}:{}:{role}", index + 1, ports[0], ports[1]);
        }
        let mut ensemble = Ensemble { members: Vec::new(), builder: self, settings: text, lines };
        for (index, ports) in ports.chunks_exact(3).enumerate() {
            let port = match ensemble.builder.client_port {
                0 => ports[2],
                first => first.saturating_add(index as u16),
            };
            ensemble.add_slot(port, "")?;
        }
        for index in 0..ensemble.members.len() {
            ensemble.restart(index)?;
        }
        ensemble.wait(LEADER_TIMEOUT, |ensemble| ensemble.all_serve());
        Ok(ensemble)
    }
}

/// The configuration of one server.
fn member_config(
    text: &str,
    number: usize,
    port: u16,
    data_dir: Option<&Path>,
) -> Result<Config, StartError> {
    let dir = data_dir.unwrap_or(Path::new("/memory")).join(number.to_string());
    let text = format!("{text}dataDir={}\nclientPort={port}\n", dir.display());
    let myid = |path: &Path| {
        let is_myid = path.file_name().is_some_and(|name| name == "myid");
        Ok(is_myid.then(|| number.to_string().into_bytes()))
    };
    let name = PathBuf::from(format!("server {number}"));
    let (config, _) = Config::from_bytes(&name, text.as_bytes(), &Overrides::default(), false, &myid)?;
    Ok(config)
}

/// Ports that nobody uses at the moment.
fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let listeners: io::Result<Vec<TcpListener>> =
        (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect();
    listeners?.iter().map(|listener| listener.local_addr().map(|address| address.port())).collect()
}

/// Several servers that form an ensemble, in this process. They stop when it is dropped.
///
/// ```
/// let ensemble = zk_server::Ensemble::builder().start()?;
/// println!("connect to {}", ensemble.connect_string());
/// # Ok::<(), zk_server::StartError>(())
/// ```
#[derive(Debug)]
pub struct Ensemble {
    members: Vec<Slot>,
    builder: EnsembleBuilder,
    /// The lines that all configurations have.
    settings: String,
    /// The servers that the ensemble was started with.
    lines: String,
}

#[derive(Debug)]
struct Slot {
    config: Config,
    storage: Storage,
    io_threads: usize,
    server: Option<Server>,
}

impl Ensemble {
    /// Begins the description of an ensemble: by default three servers that keep their data in memory.
    pub fn builder() -> EnsembleBuilder {
        EnsembleBuilder {
            voters: 3,
            observers: 0,
            data_dir: None,
            client_port: 0,
            tick_time: Duration::from_millis(200),
            io_threads: 1,
            settings: String::new(),
        }
    }

    /// Where clients find the servers, those that are stopped included: `127.0.0.1:2181,127.0.0.1:2182`.
    pub fn connect_string(&self) -> String {
        let ports = self.members.iter().map(|slot| slot.config.client_port.unwrap_or_default());
        ports.map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(",")
    }

    /// Starts one more server, which is not a member yet: it follows without a vote. To make it a member, let a client
    /// add its [`Ensemble::server_line`] by a reconfiguration (`reconfigEnabled`). Returns its index; does not wait
    /// until it serves.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn add_server(&mut self) -> Result<usize, StartError> {
        let (index, ports) = (self.members.len(), free_ports(3)?);
        let line = format!("server.{}=127.0.0.1:{}:{}:participant\n", index + 1, ports[0], ports[1]);
        self.add_slot(ports[2], &line)?;
        self.restart(index)?;
        Ok(index)
    }

    fn add_slot(&mut self, port: u16, line: &str) -> Result<(), StartError> {
        let text = format!("{}{}{line}", self.settings, self.lines);
        let EnsembleBuilder { data_dir, io_threads, .. } = &self.builder;
        self.members.push(Slot {
            config: member_config(&text, self.members.len() + 1, port, data_dir.as_deref())?,
            storage: match data_dir {
                Some(_) => Storage::Disk,
                None => Storage::Fs(Arc::new(SimDisk::new())),
            },
            io_threads: *io_threads,
            server: None,
        });
        Ok(())
    }

    /// What a reconfiguration calls a server that votes: `server.1=127.0.0.1:2888:3888:participant;127.0.0.1:2181`.
    /// The addresses are those that the server was started with. `None`: there is no server with this index.
    pub fn server_line(&self, index: usize) -> Option<String> {
        let config = &self.members.get(index)?.config;
        let quorum = config.quorum.as_ref()?;
        let me = quorum.my_id?;
        let mut spec = quorum.membership.servers.get(&me)?.clone();
        spec.peer_type = PeerType::Participant;
        spec.client = Some(HostPort { host: "127.0.0.1".into(), port: config.client_port? });
        Some(format!("server.{me}={spec}"))
    }

    /// The server with this index, counted from 0, unless it is stopped.
    pub fn server(&self, index: usize) -> Option<&Server> {
        self.members.get(index)?.server.as_ref()
    }

    /// The running servers.
    pub fn servers(&self) -> impl Iterator<Item = &Server> {
        self.members.iter().filter_map(|slot| slot.server.as_ref())
    }

    /// Index of the server that leads, if one does: for the moment.
    pub fn leader(&self) -> Option<usize> {
        self.members.iter().position(|slot| {
            let status = slot.server.as_ref().and_then(Server::member_status);
            status.is_some_and(|status| {
                status.state == PeerState::Leading && status.leading.is_some_and(|leading| leading.active)
            })
        })
    }

    /// Ends a server as a crash would: clients and other servers lose it at once, what it had acknowledged is on
    /// its disk. Nothing happens if it is stopped.
    pub fn kill(&mut self, index: usize) {
        if let Some(server) = self.members.get_mut(index).and_then(|slot| slot.server.take()) {
            server.kill();
        }
    }

    /// Starts a server that was killed, on what its disk holds, under its old address. Nothing happens if it is
    /// running. Does not wait until it serves: see [`Ensemble::wait`].
    ///
    /// # Errors
    /// [`StartError`].
    pub fn restart(&mut self, index: usize) -> Result<(), StartError> {
        let Some(slot) = self.members.get_mut(index) else { return Ok(()) };
        if slot.server.is_none() {
            let (config, storage) = (slot.config.clone(), slot.storage.clone());
            slot.server = Some(start::start(config, storage, Some(slot.io_threads), Arc::new(|_| {}))?);
        }
        Ok(())
    }

    /// Blocks until `wanted` is true, at most for `timeout`. Returns whether it is.
    pub fn wait(&self, timeout: Duration, wanted: impl Fn(&Ensemble) -> bool) -> bool {
        let deadline = Instant::now() + timeout;
        while !wanted(self) {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// Whether every server that runs serves clients.
    pub fn all_serve(&self) -> bool {
        let serves =
            |server: &Server| server.member_status().is_some_and(|status| status.serving == Serving::Yes);
        self.leader().is_some() && self.servers().all(serves)
    }

    /// Stops all servers, each as [`Server::shutdown`] does.
    pub async fn shutdown(mut self) {
        for slot in &mut self.members {
            if let Some(server) = slot.server.take() {
                server.shutdown().await;
            }
        }
    }
}
