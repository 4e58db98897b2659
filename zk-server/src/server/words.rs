//! The thread that answers four-letter words. Their answers may need every connection or the whole tree: that
//! must not hold up an I/O thread.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use zk_proto::SessionId;

use super::State;
use crate::admin::metrics::{Summary, SummaryValue, Traffic};
use crate::admin::mntr::{Gauges, LeaderGauges, MntrReport, QuorumGauges, mntr};
use crate::admin::{
    ConfReport, ConnectionStats, Dump, DumpedConnection, Environment, ExpiryBucket, ProposalSizes,
    QuorumReport, ServerMode, ServerStats, SessionDump, TreeDigest, VERSION, WatchSummary, four_letter,
};
use crate::config::FourLetterWord;
use crate::member::{Member, Serving};
use crate::net::{Command, ConnReport, WordRequest};
use crate::replica::messages::thread_of;
use crate::storage::{LogMetrics, VERSION_DIR};
use crate::watch::ConnId;
use crate::zab::PeerState;
use crate::zab::leader::LearnerStatus;

/// How long the I/O threads may take to report their connections.
const REPORT_TIMEOUT: Duration = Duration::from_secs(2);

/// Answers requests until nobody can ask any more.
pub(super) fn run(state: &State, requests: &Receiver<WordRequest>) {
    while let Ok(request) = requests.recv() {
        let text = answer(state, &request);
        if let Some(inbox) = state.net.inboxes.get(thread_of(request.conn)) {
            inbox.command(Command::Answer { conn: request.conn, text });
        }
    }
}

fn answer(state: &State, request: &WordRequest) -> String {
    let WordRequest { conn, remote, word } = *request;
    if !state.net.options.words.allows(word, remote.ip().is_loopback()) {
        return four_letter::not_whitelisted(word);
    }
    let mode = mode(state);
    let about_serving = !matches!(
        word,
        FourLetterWord::Ruok
            | FourLetterWord::Isro
            | FourLetterWord::Envi
            | FourLetterWord::Gtmk
            | FourLetterWord::Stmk
    );
    if mode.is_none() && about_serving {
        return four_letter::NOT_SERVING.into();
    }
    match word {
        FourLetterWord::Ruok => four_letter::RUOK.into(),
        FourLetterWord::Isro => four_letter::isro(mode).into(),
        FourLetterWord::Srvr => four_letter::srvr(&server_stats(state)),
        FourLetterWord::Stat => four_letter::stat(&server_stats(state), connection_stats(state, conn)),
        FourLetterWord::Cons => four_letter::cons(connection_stats(state, conn)),
        FourLetterWord::Conf => four_letter::conf(&conf(state)),
        FourLetterWord::Crst => {
            state.net.inboxes.iter().for_each(|inbox| inbox.command(Command::ResetCounters));
            four_letter::CRST.into()
        }
        FourLetterWord::Srst => {
            state.metrics.reset_traffic();
            four_letter::SRST.into()
        }
        FourLetterWord::Dirs => {
            let (data, log) = dir_sizes(state);
            four_letter::dirs(data, log)
        }
        FourLetterWord::Dump => four_letter::dump(&dump(state)),
        FourLetterWord::Envi => four_letter::envi(&environment()),
        FourLetterWord::Gtmk | FourLetterWord::Stmk => {
            four_letter::trace_mask(four_letter::DEFAULT_TRACE_MASK)
        }
        FourLetterWord::Hash => {
            let tree = state.net.shared.tree.read();
            let digests: Vec<_> = tree.recorded_digests().collect();
            drop(tree);
            let line = |(zxid, digest): (_, u64)| TreeDigest { zxid, digest: digest as i64 };
            four_letter::hash(digests.into_iter().map(line))
        }
        FourLetterWord::Mntr => monitor(state),
        FourLetterWord::Wchs => {
            let summary = state.net.shared.watches.lock().summary();
            four_letter::wchs(WatchSummary {
                sessions: summary.connections as u64,
                paths: summary.paths as u64,
                watches: summary.watches as u64,
            })
        }
        FourLetterWord::Wchc => watches_by_session(state),
        FourLetterWord::Wchp => watches_by_path(state),
    }
}

/// What clients get here; `None` for nothing.
fn mode(state: &State) -> Option<ServerMode> {
    let Some(member) = state.core.with_member(Member::status) else { return Some(ServerMode::Standalone) };
    match (member.serving, member.state) {
        (Serving::ReadOnly, _) => Some(ServerMode::ReadOnly),
        (_, PeerState::Leading) if member.leading.is_some_and(|leading| leading.active) => {
            Some(ServerMode::Leader)
        }
        (Serving::No, _) => None,
        (Serving::Yes, PeerState::Observing) => Some(ServerMode::Observer),
        (Serving::Yes, _) => Some(ServerMode::Follower),
    }
}

fn server_stats(state: &State) -> ServerStats {
    stats_with(state, state.metrics.snapshot().traffic)
}

fn stats_with(state: &State, traffic: Traffic) -> ServerStats {
    let member = state.core.with_member(Member::status);
    let tree = state.net.shared.tree.read();
    // Apache keeps the root twice, as "" and "/", and counts both.
    let (last_zxid, node_count) = (tree.last_zxid(), tree.len() as u64 + 1);
    drop(tree);
    ServerStats {
        version: VERSION.into(),
        mode: mode(state).unwrap_or(ServerMode::ReadOnly),
        traffic,
        connections: u64::from(state.net.peers.connections()),
        outstanding_requests: state.net.outstanding.load(Relaxed).max(0) as u64,
        last_zxid,
        node_count,
        proposal_sizes: member.filter(|member| member.state == PeerState::Leading).map(|member| {
            let [last, min, max] = member.proposal_bytes;
            ProposalSizes { last, min, max }
        }),
    }
}

fn monitor(state: &State) -> String {
    let mut metrics = state.metrics.snapshot();
    if let Some(syncs) = state.core.with_log(|log| sync_times(log.metrics())) {
        metrics.set_summary(Summary::FsyncTime, syncs);
    }
    let server = stats_with(state, metrics.traffic);
    let tree = state.net.shared.tree.read();
    let (ephemerals, approximate_data_size) = (tree.ephemerals_count() as u64, tree.approximate_data_size());
    drop(tree);
    let gauges = Gauges {
        ephemerals,
        global_sessions: state.core.with(|replica| replica.sessions().len()) as u64,
        local_sessions: 0,
        watches: state.net.shared.watches.lock().watch_count() as u64,
        approximate_data_size,
        auth_failed: state.net.auth_failed.load(Relaxed),
        connection_drop_probability: state.net.throttle.lock().drop_probability(),
        outstanding_tls_handshakes: 0,
        open_file_descriptors: open_files(),
        max_file_descriptors: rustix::process::getrlimit(rustix::process::Resource::Nofile)
            .current
            .unwrap_or(u64::MAX),
        uptime_ms: state.net.started.elapsed().as_millis() as u64,
    };
    mntr(&MntrReport {
        server: &server,
        metrics: &metrics,
        gauges,
        quorum: quorum_gauges(state),
        keyed: Vec::new(),
    })
}

/// What a member of an ensemble measures.
fn quorum_gauges(state: &State) -> Option<QuorumGauges> {
    let member = state.core.with_member(Member::status)?;
    let doing = match (&member.leading, member.learning) {
        (Some(leading), _) if leading.active => "leading - broadcast".to_owned(),
        (Some(leading), _) if leading.epoch.is_none() => "leading - discovery".to_owned(),
        (Some(_), _) => "leading - synchronization".to_owned(),
        (None, Some(phase)) => {
            let observing = member.state == PeerState::Observing;
            let role = if observing { "observing" } else { "following" };
            let phase = if member.serving == Serving::Yes { "broadcast" } else { phase };
            format!("{role} - {phase}")
        }
        (None, None) => "looking".to_owned(),
    };
    let now_ms = state.core.now().mono_ms;
    let leader = member.leading.as_ref().filter(|leading| leading.active).map(|leading| {
        let count = |wanted: &dyn Fn(&LearnerStatus) -> bool| {
            leading.learners.iter().filter(|learner| wanted(learner)).count() as u64
        };
        LeaderGauges {
            learners: leading.learners.len() as u64,
            synced_followers: count(&|learner| learner.synced && learner.follower),
            synced_non_voting_followers: count(&|l| l.synced && l.follower && !l.voter),
            synced_observers: count(&|learner| learner.synced && !learner.follower),
            pending_syncs: 0,
            leader_uptime_ms: member.leading_since_ms.map_or(0, |since_ms| now_ms.saturating_sub(since_ms)),
        }
    });
    let quorum_size = member.voters as u64;
    Some(QuorumGauges { peer_state: doing, quorum_size, observer_master_id: None, leader })
}

/// In microseconds. The shortest sync is not kept; it counts as 0.
fn sync_times(log: &LogMetrics) -> SummaryValue {
    let [count, nanos, nanos_max] =
        [&log.syncs, &log.sync_nanos, &log.sync_nanos_max].map(|counter| counter.load(Relaxed));
    SummaryValue::new(count, nanos / 1000, 0, nanos_max / 1000)
}

/// As far as the system tells.
fn open_files() -> u64 {
    std::fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64)
}

/// Asks every I/O thread for its connections.
fn connections(state: &State) -> Vec<ConnReport> {
    let (to, reports) = channel();
    state.net.inboxes.iter().for_each(|inbox| inbox.command(Command::Report(to.clone())));
    drop(to);
    let deadline = Instant::now() + REPORT_TIMEOUT;
    let mut all = Vec::new();
    while let Ok(report) = reports.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        all.push(report);
    }
    all.sort_by_key(|report: &ConnReport| report.conn);
    all
}

fn connection_stats(state: &State, asking: ConnId) -> impl Iterator<Item = ConnectionStats> {
    connections(state).into_iter().map(move |mut report| {
        if report.conn == asking {
            // Apache shows it as it will be when it gets the answer.
            report.stats.interest_ops = 0;
        }
        report.stats
    })
}

fn conf(state: &State) -> ConfReport {
    let config = &state.config;
    let (data_dir_size, data_log_size) = dir_sizes(state);
    ConfReport {
        client_port: Some(state.net.address.lock().port()),
        secure_client_port: None,
        data_dir: config.data_dir.clone(),
        data_dir_size,
        data_log_dir: config.data_log_dir.clone(),
        data_log_size,
        tick_time_ms: config.tick_time_ms,
        max_client_cnxns: config.max_client_cnxns.unwrap_or(0),
        min_session_timeout_ms: config.min_session_timeout_ms,
        max_session_timeout_ms: config.max_session_timeout_ms,
        listen_backlog: i64::from(config.client_listen_backlog),
        server_id: config.quorum.as_ref().and_then(|quorum| quorum.my_id).map_or(0, |id| id.0),
        quorum: quorum_report(state),
    }
}

fn quorum_report(state: &State) -> Option<QuorumReport> {
    let member = state.core.with_member(Member::status)?;
    let quorum = state.config.quorum.as_ref()?;
    let this = quorum.membership.servers.get(&member.me)?.addresses.first()?;
    Some(QuorumReport {
        init_limit: quorum.init_limit_ticks,
        sync_limit: quorum.sync_limit_ticks,
        election_algorithm: if quorum.query_election { 0 } else { 3 },
        election_port: this.election_port,
        quorum_port: this.quorum_port,
        observer: !member.voter,
        membership: quorum.reconfig_enabled.then_some(member.membership),
    })
}

/// Bytes of snapshots and logs; nothing is on disk for a server in memory.
fn dir_sizes(state: &State) -> (u64, u64) {
    let size = |dir: &Path| {
        let files = std::fs::read_dir(dir.join(VERSION_DIR)).into_iter().flatten();
        files
            .filter_map(|file| file.ok()?.metadata().ok())
            .filter(|meta| meta.is_file())
            .map(|meta| meta.len())
            .sum()
    };
    if state.in_memory { (0, 0) } else { (size(&state.config.data_dir), size(&state.config.data_log_dir)) }
}

fn dump(state: &State) -> Dump {
    let now = state.core.now();
    let wall = |mono_ms: u64| now.wall_ms + (mono_ms as i64 - now.mono_ms as i64);
    let sessions = state.core.with(|replica| replica.sessions().dump());
    let tree = state.net.shared.tree.read();
    let mut ephemerals: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for (session, node) in tree.all_ephemerals() {
        ephemerals.entry(session).or_default().push(tree.path(node));
    }
    drop(tree);
    let mut silent: BTreeMap<u64, Vec<DumpedConnection>> = BTreeMap::new();
    for ConnReport { session, silent_until_ms, stats, .. } in connections(state) {
        let connection = DumpedConnection {
            remote: stats.remote,
            session: (session != SessionId::NONE).then_some(session),
        };
        silent.entry(silent_until_ms).or_default().push(connection);
    }
    let bucket = |(ms, members)| ExpiryBucket { expires_ms: wall(ms), members };
    Dump {
        sessions: SessionDump::Expiring(
            sessions
                .into_iter()
                .map(|(ms, members)| ExpiryBucket { expires_ms: wall(ms), members })
                .collect(),
        ),
        ephemerals: ephemerals.into_iter().map(|(session, paths)| (SessionId(session), paths)).collect(),
        connections: silent.into_iter().map(bucket).collect(),
    }
}

fn sessions_by_connection(state: &State) -> HashMap<ConnId, SessionId> {
    connections(state).into_iter().map(|report| (report.conn, report.session)).collect()
}

fn watches_by_session(state: &State) -> String {
    let sessions = sessions_by_connection(state);
    let tree = state.net.shared.tree.read();
    let watches: Vec<_> = state.net.shared.watches.lock().by_connection(|node| tree.path(node)).collect();
    drop(tree);
    let known = watches.iter().filter_map(|(conn, paths)| Some((*sessions.get(conn)?, paths)));
    four_letter::wchc(known.map(|(session, paths)| (session, paths.iter().map(String::as_str))))
}

fn watches_by_path(state: &State) -> String {
    let sessions = sessions_by_connection(state);
    let tree = state.net.shared.tree.read();
    let watches: Vec<_> = state.net.shared.watches.lock().by_path(|node| tree.path(node)).collect();
    drop(tree);
    four_letter::wchp(watches.iter().map(|(path, conns)| {
        let sessions: Vec<_> = conns.iter().filter_map(|conn| sessions.get(conn).copied()).collect();
        (path.as_str(), sessions)
    }))
}

fn environment() -> Environment {
    let var = |name: &str| std::env::var(name).unwrap_or_default();
    let uname = rustix::system::uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    Environment {
        version: VERSION.into(),
        host_name: text(uname.nodename()),
        os_name: text(uname.sysname()),
        os_arch: match std::env::consts::ARCH {
            "x86_64" => "amd64".into(),
            other => other.into(),
        },
        os_version: text(uname.release()),
        user_name: var("USER"),
        user_home: var("HOME"),
        user_dir: std::env::current_dir().map_or_else(|_| String::new(), |dir| dir.display().to_string()),
    }
}

/// The words' side of [`State`] is shared with the thread.
pub(super) fn spawn(
    state: Arc<State>,
    requests: Receiver<WordRequest>,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name("zk-admin".into()).spawn(move || run(&state, &requests))
}
