//! From a configuration to a running server.
//!
//! The port is opened before the data is read: a port that is taken is reported at once, and clients that come
//! early wait to be accepted.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use super::core::{Core, Log, Node};
use super::peers::PeerParts;
use super::snapshots::{SnapshotQueue, Snapshots, Way, write_snapshot};
use super::{Server, State, Threads, ToCore, options, peers, snapshots, words};
use crate::admin::metrics::{Metrics, Recorder, Summary};
use crate::cli::ExitCode;
use crate::config::{Config, ConfigError};
use crate::member::{self, ConfigFiles, DiskError, DiskOwner, Member, starting_ensembles};
use crate::net::{
    Command, Inbox, IoThread, ListenError, Net, Peers, Serving, ServingState, Throttle, bind, poller,
};
use crate::replica::messages::{Input, Now};
use crate::replica::{Replica, Shared};
use crate::storage::member::MemberStore;
use crate::storage::sim::SimDisk;
use crate::storage::{
    Base, DataDirs, DirError, DirLock, Fs, LogThread, Purger, RealFs, RecoveryError, SnapshotError,
    SnapshotOptions, TxnLog, abort_process, recover,
};
use crate::tree::{SnapshotPin, Tree, TreeLoader};
use crate::watch::WatchTable;
use crate::zab::Proposal;
use crate::zab::ensemble::Ensemble;

/// A [`crate::watch::ConnId`] has room for so many threads.
const IO_THREADS_MAX: usize = 64;

/// Four-letter words that wait for their answer.
const WORDS_WAITING_MAX: usize = 256;

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Neither memory nor a directory nor a configuration was given.
    #[error("say where the data is to be kept: in memory, in a directory, or as a configuration tells")]
    NoStorage,
    /// The configuration is not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The configuration lists an ensemble, but not this server's place in it.
    #[error("{0}")]
    NoMember(String),
    /// A port for the other servers of the ensemble cannot be opened.
    #[error("ports for other servers: {0}")]
    Peers(io::Error),
    /// What is kept for the ensemble cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The configuration has no port for clients.
    #[error("clientPort is missing")]
    NoClientPort,
    /// The client port cannot be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirError),
    /// What is in the data directory cannot be served.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The directory is empty, and `db.autocreate` is off.
    #[error(
        "{0} holds no data and db.autocreate is false: create a file `initialize` in it if it is to be a new \
         server"
    )]
    Uninitialized(String),
    /// The first snapshot cannot be written.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The system does not give threads or pollers.
    #[error("cannot start a thread: {0}")]
    Threads(#[from] io::Error),
}

impl StartError {
    /// With what the process should end.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            StartError::NoStorage
            | StartError::Config(_)
            | StartError::NoMember(_)
            | StartError::NoClientPort => ExitCode::BadConfig,
            StartError::Directory(_) | StartError::Uninitialized(_) => ExitCode::DataDirNotAccessible,
            StartError::Snapshot(_) => ExitCode::SnapshotFailed,
            StartError::Listen(_)
            | StartError::Recovery(_)
            | StartError::Disk(_)
            | StartError::Peers(_)
            | StartError::Threads(_) => ExitCode::Unexpected,
        }
    }
}

/// Where the data is kept.
#[derive(Debug, Clone)]
pub(super) enum Storage {
    Memory,
    /// As the configuration tells.
    Disk,
    /// In the directories of the configuration, on something else than the system's files.
    Fs(Arc<dyn Fs>),
}

/// What was found on disk.
struct Opened {
    tree: Tree,
    disk: Option<Disk>,
}

struct Disk {
    dirs: DataDirs,
    /// `None` for a disk that is in memory.
    lock: Option<DirLock>,
    base: Base,
    replayed: u64,
    /// What a member of an ensemble keeps beside the log.
    member: Option<(MemberStore, Vec<Proposal>)>,
    /// The history of a member is damaged.
    damaged: bool,
}

pub(super) fn start(
    config: Config,
    storage: Storage,
    io_threads: Option<usize>,
    on_failure: Arc<dyn Fn(&str) + Send + Sync>,
) -> Result<Server, StartError> {
    let started = Instant::now();
    let quorum = if config.is_distributed() { Some(options::quorum(&config)?) } else { None };
    let port = config.client_port.ok_or(StartError::NoClientPort)?;
    let seed = RandomState::new().hash_one(port);
    let metrics = Metrics::default();
    let recorder = metrics.recorder();

    let locked = match storage {
        Storage::Disk => Some(open_directories(&config)?),
        // A member follows others by cutting and replacing its history: it needs something like a disk.
        Storage::Memory if quorum.is_some() => {
            Some((other_directories(&config, Arc::new(SimDisk::new()))?, None))
        }
        Storage::Fs(fs) => Some((other_directories(&config, fs)?, None)),
        Storage::Memory => None,
    };
    let listener = bind(config.client_port_address.as_deref(), port, config.client_listen_backlog)?;
    let address = listener.local_addr()?;
    let mut opened = match locked {
        Some((dirs, lock)) => open_data(&config, dirs, lock, quorum.is_some(), seed)?,
        None => Opened { tree: Tree::new(seed), disk: None },
    };
    recorder.summary(Summary::DbInitTime, started.elapsed().as_micros() as u64);

    let last_zxid = opened.tree.last_zxid();
    let nodes = opened.tree.len();
    let first_pin = opened.disk.is_some().then(|| opened.tree.pin());
    let shared = Arc::new(Shared::new(opened.tree));
    *shared.watches.lock() = WatchTable::with_hash_seed(seed);

    let io_threads = io_threads.unwrap_or_else(cores).clamp(1, IO_THREADS_MAX);
    let (pollers, inboxes): (Vec<_>, Vec<_>) =
        (0..io_threads).map(|_| poller()).collect::<io::Result<Vec<_>>>()?.into_iter().unzip();
    let inboxes: Arc<[Inbox]> = inboxes.into();
    let stopping = Arc::new(AtomicBool::new(false));
    let way = Arc::new(Way::default());
    let (snapshot_queue, snapshot_requests) = match opened.disk {
        Some(_) => {
            let (queue, requests) = SnapshotQueue::new(stopping.clone(), way.clone());
            (queue, Some(requests))
        }
        None => (SnapshotQueue::none(), None),
    };

    let providers = options::providers(&config);
    let now = Now { mono_ms: started.elapsed().as_millis() as u64, wall_ms: wall_ms() };
    let replica_options = options::replica(&config, &providers, io_threads, now.wall_ms, seed);
    let replica = Replica::new(shared.clone(), replica_options, now);
    let (mut store, mut configs) = (None, None);
    let node = match (&quorum, opened.disk.as_mut().and_then(|disk| disk.member.take())) {
        (Some((quorum, me, this)), Some((member_store, recent))) => {
            let options = options::member(&config, quorum, *me, this, seed);
            let mut ensemble = Ensemble::from(quorum.membership.clone());
            let mut last_seen = None;
            if let (true, Some(disk)) = (quorum.reconfig_enabled, &opened.disk) {
                let mut files = match &quorum.config_file {
                    Some(path) => ConfigFiles::of_operator(path, *me, ensemble.version > 0),
                    None => ConfigFiles::beside_data(&disk.dirs, *me),
                };
                let found = files.read().map_err(DiskError::from)?;
                (ensemble, last_seen) = starting_ensembles(ensemble, found, shared.tree.read().config());
                configs = Some(files);
            }
            let (ensemble, last_seen) = (Arc::new(ensemble), last_seen.map(Arc::new));
            let (epochs, mark) = (member_store.epochs(), member_store.committed());
            store = Some(member_store);
            let damaged = opened.disk.as_ref().is_some_and(|disk| disk.damaged);
            let member = Member::new(replica, recent, epochs, mark, ensemble, last_seen, damaged, options);
            Node::Member(Box::new(member))
        }
        _ => Node::Standalone(Box::new(replica)),
    };
    let failure = Failure { inboxes: inboxes.clone(), on_failure };
    let on_broken = {
        let failure = failure.clone();
        move || failure.report("the replica panicked")
    };
    let core = Arc::new(Core::new(node, inboxes.clone(), snapshot_queue, started, on_broken));

    let (words_to, word_requests) = sync_channel(WORDS_WAITING_MAX);
    let upstream =
        Arc::new(ToCore { core: core.clone(), inboxes: inboxes.clone(), words: Mutex::new(Some(words_to)) });
    let net = Arc::new(Net {
        options: options::net(&config),
        shared: shared.clone(),
        providers: Arc::new(providers),
        timeouts: options::timeouts(&config),
        upstream: upstream.clone(),
        inboxes,
        address: Mutex::new(address),
        peers: Peers::default(),
        serving: ServingState::new(if quorum.is_some() { Serving::Nobody } else { Serving::All }),
        connections: (0..io_threads).map(|_| AtomicUsize::new(0)).collect(),
        started,
        auth_failed: AtomicU64::new(0),
        outstanding: AtomicI64::new(0),
        large_bytes: AtomicI64::new(0),
        throttle: Mutex::new(Throttle::new(config.connection_throttle.clone())),
    });
    let in_memory = opened.disk.is_none();
    let state = Arc::new(State { config, in_memory, metrics, net, core, upstream });
    // From here on a failure stops what was started, by dropping this.
    let mut server = Server { state: state.clone(), threads: Threads::default() };
    if let (Some(disk), Some(requests), Some(pin)) = (opened.disk, snapshot_requests, first_pin) {
        server.threads.snapshots = start_disk(&state, &disk, requests, pin, last_zxid, &stopping, &way)?;
        if let (Some((quorum, _, this)), Some(store)) = (&quorum, store) {
            let owner = DiskOwner::new(
                disk.dirs.clone(),
                store,
                options::recovery(&state.config),
                options::log(&state.config),
                shared.clone(),
                state.config.digest_enabled,
                seed,
                disk.damaged,
            );
            let owner = match configs {
                Some(configs) => owner.with_configs(configs),
                None => owner,
            };
            let parts = PeerParts {
                config: quorum,
                this,
                options: options::peers(&state.config, quorum, seed),
                client_backlog: state.config.client_listen_backlog,
                core: Arc::downgrade(&state.core),
                net: Arc::downgrade(&state.net),
                shared,
                disk: Arc::new(Mutex::new(owner)),
                way,
            };
            let (peer_net, peers) = peers::start(parts).map_err(StartError::Peers)?;
            server.threads.peers = Some(peer_net);
            state.core.set_peers(peers);
        }
        server.threads.lock = disk.lock;
    }
    server.threads.words = Some(words::spawn(state.clone(), word_requests)?);
    let mut listener = Some(listener);
    for (index, poll) in pollers.into_iter().enumerate() {
        let (state, failure, listener) = (state.clone(), failure.clone(), listener.take());
        let recorder = state.metrics.recorder();
        let run = move || {
            let ran = catch_unwind(AssertUnwindSafe(|| {
                IoThread::new(&state.net, index, poll, listener, recorder).and_then(IoThread::run)
            }));
            match ran {
                Ok(Ok(())) => {}
                Ok(Err(error)) => failure.report(&format!("an I/O thread failed: {error}")),
                Err(_) => failure.report("an I/O thread panicked"),
            }
        };
        server.threads.io.push(thread(&format!("zk-io-{index}"), run)?);
    }
    state.core.begin();
    tracing::info!(
        %address,
        zxid = %last_zxid,
        nodes,
        ms = started.elapsed().as_millis() as u64,
        "serving"
    );
    Ok(server)
}

/// Tells that the server is broken, and ends its I/O threads.
#[derive(Clone)]
struct Failure {
    inboxes: Arc<[Inbox]>,
    on_failure: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Failure {
    fn report(&self, reason: &str) {
        tracing::error!(reason, "the server fails");
        self.inboxes.iter().for_each(|inbox| inbox.command(Command::Stop { drain: false }));
        (self.on_failure)(reason);
    }
}

/// The directories on something else than the system's files: nobody else can use them.
fn other_directories(config: &Config, fs: Arc<dyn Fs>) -> Result<DataDirs, StartError> {
    Ok(DataDirs::open(fs, &config.data_dir, None, true)?)
}

fn open_directories(config: &Config) -> Result<(DataDirs, Option<DirLock>), StartError> {
    let log_dir = (config.data_log_dir != config.data_dir).then_some(&*config.data_log_dir);
    let dirs = DataDirs::open(Arc::new(RealFs), &config.data_dir, log_dir, config.data_dir_autocreate)?;
    let lock = DirLock::acquire(&dirs)?;
    Ok((dirs, Some(lock)))
}

fn open_data(
    config: &Config,
    dirs: DataDirs,
    lock: Option<DirLock>,
    member: bool,
    seed: u64,
) -> Result<Opened, StartError> {
    if member {
        let opened = DiskOwner::open(&dirs, &options::recovery(config), seed)?;
        if opened.base == Base::Uninitialized {
            return Err(StartError::Uninitialized(config.data_dir.display().to_string()));
        }
        let member::Opened { recovered, base, replayed, store, damaged } = opened;
        let member = Some((store, recovered.recent));
        return Ok(Opened {
            tree: recovered.tree,
            disk: Some(Disk { dirs, lock, base, replayed, member, damaged }),
        });
    }
    let recovered = recover(&dirs, &options::recovery(config), || TreeLoader::new(seed))?;
    if recovered.base == Base::Uninitialized {
        return Err(StartError::Uninitialized(config.data_dir.display().to_string()));
    }
    let (base, replayed) = (recovered.base, recovered.replayed);
    let tree = recovered.sink.finish();
    Ok(Opened { tree, disk: Some(Disk { dirs, lock, base, replayed, member: None, damaged: false }) })
}

/// Opens the log, and starts the threads that write. Returns the one that writes snapshots.
fn start_disk(
    state: &Arc<State>,
    disk: &Disk,
    requests: Receiver<snapshots::Request>,
    first_pin: Arc<SnapshotPin>,
    last_zxid: zk_proto::Zxid,
    stopping: &Arc<AtomicBool>,
    way: &Arc<Way>,
) -> Result<Option<JoinHandle<()>>, StartError> {
    let Disk { dirs, base, replayed, .. } = disk;
    let config = &state.config;
    let shared = &state.net.shared;
    let snapshot_options = options::snapshots(config);
    if *base == Base::New {
        // A log without any snapshot does not tell where history begins: no server would open it.
        let at_once = SnapshotOptions { bytes_per_second: None, ..snapshot_options.clone() };
        write_snapshot(shared, dirs, &at_once, config.digest_enabled, &first_pin, &|| false)?;
    } else if *replayed > 0 && !config.is_distributed() {
        // So that the next start has less to replay. Nobody waits for it. A member of an ensemble must not: the
        // end of its log may never be committed.
        state.core.request_snapshot(first_pin);
    }

    let log = TxnLog::new(dirs.fs().clone(), dirs.log(), options::log(config), last_zxid);
    let core = Arc::downgrade(&state.core);
    let on_durable = move |zxid| {
        if let Some(core) = core.upgrade() {
            core.submit(Input::Durable(zxid));
        }
    };
    state.core.set_log(Log::Disk(LogThread::spawn(log, on_durable, abort_process)?));

    let purger = config.autopurge.purge_interval_ms.map(|every_ms| {
        let retain = config.autopurge.snap_retain_count as usize;
        (Purger::new(dirs.clone(), retain), Duration::from_millis(every_ms))
    });
    let snapshots = Snapshots {
        shared: shared.clone(),
        dirs: dirs.clone(),
        options: snapshot_options,
        digest: config.digest_enabled,
        purger,
        recorder: state.metrics.recorder(),
        stopping: stopping.clone(),
        way: way.clone(),
    };
    Ok(Some(thread("zk-snapshot", move || snapshots.run(&requests))?))
}

fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as i64)
}

/// Recorders go to the threads that use them.
const _: fn() = || {
    fn is_send<T: Send>() {}
    is_send::<Recorder>();
};
