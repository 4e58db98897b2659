//! From the configuration to the settings of each room.

use std::time::Duration;

use super::StartError;
use crate::auth::{self, Providers, SuperDigest};
use crate::config::{
    AuthScheme, Config, DigestAlg, HostPort, QuorumConfig, ServerId, ServerSpec, SnapshotCompression,
};
use crate::member::MemberOptions;
use crate::net::NetOptions;
use crate::net::peer::PeerOptions;
use crate::replica::ReplicaOptions;
use crate::replica::prepare::PrepareOptions;
use crate::session::{SessionIdGenerator, TimeoutLimits};
use crate::storage::{Compression, LogOptions, RecoveryOptions, SnapshotOptions};
use crate::zab::election::{Algorithm, ConnOptions, ElectionOptions};
use crate::zab::leader::LeaderOptions;
use crate::zab::learner;
use crate::zab::wire::StreamOptions;

/// The id in the session ids of a server that is alone.
const STANDALONE_SERVER_ID: u8 = 1;

/// Every four-letter word, read as the length of a frame, is larger than this.
const FRAME_MAX: usize = 0x5fff_ffff;

/// Time passes for the replica in quarters of the tick, but not in smaller steps than this.
const STEP_MIN: Duration = Duration::from_millis(5);

/// A member of an ensemble looks at its clock at least this often.
const MEMBER_STEP_MAX: Duration = Duration::from_millis(20);

/// Signs of life are reported at least this often.
const REPORT_MAX: Duration = Duration::from_millis(250);

pub(super) fn providers(config: &Config) -> Providers {
    Providers {
        digest_enabled: config.digest_auth_enabled,
        digest_alg: match config.digest_alg {
            DigestAlg::Sha1 => auth::DigestAlg::Sha1,
            DigestAlg::Sha256 => auth::DigestAlg::Sha256,
            DigestAlg::Sha512 => auth::DigestAlg::Sha512,
        },
        super_digest: config.super_digest.as_ref().map(|digest| SuperDigest(digest.expose().to_owned())),
        sasl: false,
        ensemble_names: None,
        skip_acl: config.skip_acl,
        required_schemes: config
            .enforce_auth
            .iter()
            .flatten()
            .map(|scheme| name(*scheme).to_owned())
            .collect(),
    }
}

fn name(scheme: AuthScheme) -> &'static str {
    match scheme {
        AuthScheme::Ip => auth::scheme::IP,
        AuthScheme::Digest => auth::scheme::DIGEST,
    }
}

pub(super) fn timeouts(config: &Config) -> TimeoutLimits {
    let ms = |ms: u32| i32::try_from(ms).unwrap_or(i32::MAX);
    TimeoutLimits { min_ms: ms(config.min_session_timeout_ms), max_ms: ms(config.max_session_timeout_ms) }
}

pub(super) fn net(config: &Config) -> NetOptions {
    let tick = Duration::from_millis(u64::from(config.tick_time_ms));
    NetOptions {
        member: config.is_distributed(),
        frame_max: (config.jute_max_buffer_bytes as usize).min(FRAME_MAX),
        max_per_address: config.max_client_cnxns,
        max_connections: config.max_cnxns,
        sessionless_ms: u64::from(config.sessionless_cnxn_timeout_ms),
        outstanding_max: i64::from(
            config.request_throttle.max_requests.unwrap_or(u32::MAX).min(config.global_outstanding_limit),
        ),
        drop_stale: config.request_throttle.max_requests.is_some()
            && config.request_throttle.drop_stale
            && config.request_throttle.stale_latency_check,
        throttled_wait_us: config.request_throttle.throttled_op_wait_time_ms.map(|ms| u64::from(ms) * 1000),
        large_requests: config
            .large_request_threshold_bytes
            .map(|bytes| (bytes, i64::try_from(config.large_request_max_bytes).unwrap_or(i64::MAX))),
        keep_alive: config.client_tcp_keep_alive,
        words: config.four_letter_whitelist.clone(),
        report_every: (tick / 4).clamp(STEP_MIN, REPORT_MAX),
        tick_every: if config.is_distributed() {
            // Elections are a matter of milliseconds.
            (tick / 4).clamp(STEP_MIN, MEMBER_STEP_MAX)
        } else {
            (tick / 4).max(STEP_MIN)
        },
        drain: Duration::from_millis(u64::from(config.request_throttle.shutdown_timeout_ms)),
    }
}

pub(super) fn replica(
    config: &Config,
    providers: &Providers,
    io_threads: usize,
    wall_ms: i64,
    seed: u64,
) -> ReplicaOptions {
    ReplicaOptions {
        prepare: PrepareOptions {
            extended_types: config.extended_types_enabled,
            enforce_quota: config.enforce_quota,
            digest: config.digest_enabled,
            close_session_paths: config.close_session_txn_enabled,
            reconfig: config.reconfig_enabled,
            providers: providers.clone(),
        },
        tick_ms: u64::from(config.tick_time_ms),
        snap_count: u64::from(config.snap_count),
        snap_size_bytes: config.snap_size_limit_kib.map_or(u64::MAX, |kib| kib.saturating_mul(1024)),
        container_check_ms: u64::from(config.containers.check_interval_ms),
        container_max_per_minute: u64::from(config.containers.max_per_minute),
        container_max_never_used_ms: config
            .containers
            .max_never_used_interval_ms
            .map_or(0, |ms| i64::try_from(ms).unwrap_or(i64::MAX)),
        session_ids: SessionIdGenerator::new(session_server_id(config), wall_ms.unsigned_abs()),
        seed,
        io_threads,
    }
}

pub(super) fn log(config: &Config) -> LogOptions {
    LogOptions {
        pre_alloc_bytes: u64::from(config.pre_alloc_size_kib) * 1024,
        file_bytes_max: config.txn_log_size_limit_kib.map(|kib| kib.saturating_mul(1024)),
        force_sync: config.force_sync,
        slow_sync: Duration::from_millis(u64::from(config.fsync_warning_threshold_ms)),
        ..LogOptions::default()
    }
}

pub(super) fn recovery(config: &Config) -> RecoveryOptions {
    RecoveryOptions {
        trust_empty: config.snapshot_trust_empty,
        autocreate: config.db_autocreate,
        recent_max: config.quorum.as_ref().map_or(0, |quorum| quorum.commit_log_count as usize + 1),
        ..RecoveryOptions::default()
    }
}

pub(super) fn snapshots(config: &Config) -> SnapshotOptions {
    SnapshotOptions {
        compression: match config.snapshot_compression {
            SnapshotCompression::None => Compression::None,
            SnapshotCompression::Gzip => Compression::Gz,
            SnapshotCompression::Snappy => Compression::Snappy,
        },
        last_zxid: config.serialize_last_processed_zxid,
        ..SnapshotOptions::default()
    }
}

/// The top byte of session ids.
fn session_server_id(config: &Config) -> u8 {
    let id = config.quorum.as_ref().filter(|_| config.is_distributed()).and_then(|quorum| quorum.my_id);
    id.map_or(STANDALONE_SERVER_ID, |id| id.0 as u8)
}

/// The ensemble, this server's number in it, and what the list says about it.
pub(super) fn quorum(config: &Config) -> Result<(QuorumConfig, ServerId, ServerSpec), StartError> {
    let missing = |what: &str| StartError::NoMember(what.to_owned());
    let quorum = config.quorum.clone().ok_or_else(|| missing("no server.N lines"))?;
    let me = quorum.my_id.ok_or_else(|| missing("the file `myid` in dataDir is missing"))?;
    let Some(this) = quorum.membership.servers.get(&me).cloned() else {
        let text = format!("no line server.{me}: the file `myid` in dataDir says that this is server {me}");
        return Err(StartError::NoMember(text));
    };
    Ok((quorum, me, this))
}

pub(super) fn member(
    config: &Config,
    quorum: &QuorumConfig,
    me: ServerId,
    this: &ServerSpec,
    seed: u64,
) -> MemberOptions {
    let tick_ms = u64::from(config.tick_time_ms);
    let addresses = this
        .addresses
        .iter()
        .map(|address| HostPort { host: address.host.clone(), port: address.election_port })
        .collect();
    MemberOptions {
        me,
        peer_type: quorum.peer_type,
        election: ElectionOptions {
            algorithm: if quorum.query_election { Algorithm::QueryRounds } else { Algorithm::FastLeader },
            notification_interval_min_ms: u64::from(quorum.min_notification_interval_ms),
            notification_interval_max_ms: u64::from(quorum.max_notification_interval_ms),
            observer_delay_max_ms: u64::from(quorum.observer_election_delay_ms),
            reconfig_enabled: quorum.reconfig_enabled,
            seed,
            ..ElectionOptions::default()
        },
        connections: ConnOptions {
            me,
            addresses,
            multi_address: quorum.multi_address_enabled,
            hello_timeout_ms: u64::from(quorum.election_read_timeout_ms),
        },
        leader: LeaderOptions {
            tick_ms,
            init_limit_ticks: quorum.init_limit_ticks,
            sync_limit_ticks: quorum.sync_limit_ticks,
            max_wait_for_epoch_ms: quorum.max_time_to_wait_for_epoch_ms.map(u64::from),
            reconfig_enabled: quorum.reconfig_enabled,
            standalone_enabled: quorum.standalone_enabled,
            multi_address: quorum.multi_address_enabled,
            force_snapshot: quorum.force_snapshot_sync,
            snapshot_size_factor: quorum.snapshot_size_factor,
            concurrent_snapshots_max: quorum.max_concurrent_snap_syncs,
            concurrent_diffs_max: quorum.max_concurrent_diff_syncs,
            ..LeaderOptions::default()
        },
        learner: learner::Options {
            tick_ms,
            init_limit: u64::from(quorum.init_limit_ticks),
            sync_limit: u64::from(quorum.sync_limit_ticks),
            connect_limit: u64::from(quorum.connect_to_learner_master_limit_ticks),
            dial_retry_ms: u64::from(quorum.leader_connect_retry_delay_ms),
            reconfig_enabled: quorum.reconfig_enabled,
            ..learner::Options::default()
        },
        history: quorum.commit_log_count as usize,
        leader_serves: quorum.leader_serves,
        read_only_after_ms: config.read_only_mode_enabled.then(|| tick_ms.max(2000)),
        replica_tick_ms: (tick_ms / 4).max(1),
    }
}

pub(super) fn peers(config: &Config, quorum: &QuorumConfig, seed: u64) -> PeerOptions {
    let data_bytes_max = config.jute_max_buffer_bytes as usize * 2;
    PeerOptions {
        stream: StreamOptions { data_bytes_max, node_bytes_max: data_bytes_max, tree_seed: seed },
        keep_alive: quorum.election_tcp_keep_alive,
        silence_ms: u64::from(quorum.election_read_timeout_ms),
        ..PeerOptions::default()
    }
}
