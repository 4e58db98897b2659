//! From the configuration to the settings of each room.

use std::time::Duration;

use crate::auth::{self, Providers, SuperDigest};
use crate::config::{AuthScheme, Config, DigestAlg, SnapshotCompression};
use crate::net::NetOptions;
use crate::replica::ReplicaOptions;
use crate::replica::prepare::PrepareOptions;
use crate::session::{SessionIdGenerator, TimeoutLimits};
use crate::storage::{Compression, LogOptions, RecoveryOptions, SnapshotOptions};

/// The id in the session ids of a server that is alone.
const STANDALONE_SERVER_ID: u8 = 1;

/// Every four-letter word, read as the length of a frame, is larger than this.
const FRAME_MAX: usize = 0x5fff_ffff;

/// Time passes for the replica in quarters of the tick, but not in smaller steps than this.
const STEP_MIN: Duration = Duration::from_millis(5);

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
        throttled_wait_us: config.request_throttle.throttled_op_wait_time_ms.map(|ms| u64::from(ms) * 1000),
        large_requests: config
            .large_request_threshold_bytes
            .map(|bytes| (bytes, i64::try_from(config.large_request_max_bytes).unwrap_or(i64::MAX))),
        keep_alive: config.client_tcp_keep_alive,
        words: config.four_letter_whitelist.clone(),
        report_every: (tick / 4).clamp(STEP_MIN, REPORT_MAX),
        tick_every: (tick / 4).max(STEP_MIN),
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
        session_ids: SessionIdGenerator::new(STANDALONE_SERVER_ID, wall_ms.unsigned_abs()),
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
        ..SnapshotOptions::default()
    }
}
