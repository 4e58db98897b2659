//! From resolved settings to the typed [`Config`], with the checks that a single value cannot show.

use std::path::{Path, PathBuf};

use super::ensemble::ensemble;
use super::error::{Problem, Shown, Warning};
use super::four_letter::{FourLetterWord, parse_whitelist};
use super::load::Reader;
use super::quorum::ServerId;
use super::settings::{Settings, narrow};
use super::{
    AdminConfig, AuthScheme, Autopurge, Config, ConnectionThrottle, ContainerSweep, DigestAlg, MetricsConfig,
    RequestThrottle, Secret, SessionWeights, SnapshotCompression, keys,
};

const LISTEN_BACKLOG: u32 = 4096;
/// Apache's floor for `jute.maxbuffer.extrasize`.
const JUTE_EXTRA_MIN: i64 = 1024;

/// Fills a [`Config`]. Always returns one, so that all problems are found in one go; whether it may
/// be used is decided by the problems recorded in `s`.
pub(super) fn assemble(s: &mut Settings, file: &str, reader: Option<Reader<'_>>) -> Config {
    let data_dir = s.text("dataDir");
    if !s.mentions("dataDir") {
        let why = "it names the directory for snapshots; write dataDir=/var/lib/zookeeper";
        s.problems.push(Problem::Missing { file: Shown::new(file), key: "dataDir", why });
    }
    let data_dir = PathBuf::from(data_dir.unwrap_or_default());
    for key in ["dataDir", "dataLogDir"] {
        warn_if_relative(s, key);
    }
    let server_id = reader.and_then(|reader| read_my_id(s, &data_dir, reader));
    let tick_time_ms = s.u32("tickTime");
    let (min_session_timeout_ms, max_session_timeout_ms) = session_timeouts(s, tick_time_ms);
    let (quorum, client) = ensemble(s, file, server_id, tick_time_ms, reader);
    let read_only_mode_enabled = s.bool("readonlymode.enabled");
    let digest_auth_enabled = s.bool("DigestAuthenticationProvider.enabled");
    let extended_types_enabled = s.bool("extendedTypesEnabled");
    if extended_types_enabled && server_id.is_some_and(|id| id > ServerId::MAX_WITH_EXTENDED_TYPES) {
        s.conflict("extendedTypesEnabled", "TTL nodes need a server id of at most 254 in dataDir/myid");
    }
    check_auth_providers(s);
    let positive = |n: i64| Some(narrow(n)).filter(|n| *n > 0);
    let jute_max_buffer = s.int("jute.maxbuffer");
    Config {
        data_log_dir: s.text("dataLogDir").map_or_else(|| data_dir.clone(), PathBuf::from),
        data_dir,
        data_dir_autocreate: s.bool("datadir.autocreate"),
        db_autocreate: s.bool("db.autocreate"),
        server_id,
        client_port: client.port,
        client_port_address: client.address,
        client_listen_backlog: positive(s.int("clientPortListenBacklog")).unwrap_or(LISTEN_BACKLOG),
        client_tcp_keep_alive: s.bool("clientTcpKeepAlive"),
        max_client_cnxns: positive(s.int("maxClientCnxns")),
        max_cnxns: positive(s.int("maxCnxns")),
        sessionless_cnxn_timeout_ms: s.u32("nio.sessionlessCnxnTimeout"),
        tick_time_ms,
        min_session_timeout_ms,
        max_session_timeout_ms,
        local_sessions_enabled: s.bool("localSessionsEnabled"),
        local_sessions_upgrading_enabled: s.bool("localSessionsUpgradingEnabled"),
        close_session_txn_enabled: s.bool("closeSessionTxn.enabled"),
        read_only_mode_enabled,
        jute_max_buffer_bytes: narrow(jute_max_buffer),
        jute_max_buffer_extra_bytes: narrow(
            s.int_if_set("jute.maxbuffer.extrasize").unwrap_or(jute_max_buffer).max(JUTE_EXTRA_MIN),
        ),
        global_outstanding_limit: s.u32("globalOutstandingLimit"),
        connection_throttle: connection_throttle(s),
        request_throttle: RequestThrottle {
            max_requests: positive(s.int("request_throttle_max_requests")),
            drop_stale: s.bool("request_throttle_drop_stale"),
            stale_latency_check: s.bool("request_stale_latency_check"),
            throttled_op_wait_time_ms: positive(s.int("throttled_op_wait_time")),
            shutdown_timeout_ms: s.u32("request_throttler.shutdownTimeout"),
        },
        large_request_threshold_bytes: s.u64_unless_negative("largeRequestThreshold"),
        large_request_max_bytes: s.u32("largeRequestMaxBytes").into(),
        force_sync: s.bool("forceSync"),
        fsync_warning_threshold_ms: s.u32("fsync.warningthresholdms"),
        pre_alloc_size_kib: s.u32("preAllocSize"),
        snap_count: narrow(s.raised("snapCount", 2)),
        snap_size_limit_kib: s.u64_unless_negative("snapSizeLimitInKb").filter(|n| *n > 0),
        txn_log_size_limit_kib: s.u64_unless_negative("txnLogSizeLimitInKb").filter(|n| *n > 0),
        snapshot_compression: match s.text("snapshot.compression.method").as_deref() {
            Some("gz") => SnapshotCompression::Gzip,
            Some("snappy") => SnapshotCompression::Snappy,
            _ => SnapshotCompression::None,
        },
        snapshot_trust_empty: s.bool("snapshot.trust.empty"),
        serialize_last_processed_zxid: s.bool("serializeLastProcessedZxid.enabled"),
        autopurge: Autopurge {
            snap_retain_count: narrow(s.raised("autopurge.snapRetainCount", 3)),
            purge_interval_ms: s.u64_unless_negative("autopurge.purgeInterval").filter(|n| *n > 0),
        },
        digest_enabled: s.bool("digest.enabled"),
        extended_types_enabled,
        emulate_353_ttl_nodes: s.bool("emulate353TTLNodes"),
        containers: ContainerSweep {
            check_interval_ms: s.u32("znode.container.checkIntervalMs"),
            max_per_minute: s.u32("znode.container.maxPerMinute"),
            max_never_used_interval_ms: s
                .u64_unless_negative("znode.container.maxNeverUsedIntervalMs")
                .filter(|n| *n > 0),
        },
        enforce_quota: s.bool("enforceQuota"),
        reconfig_enabled: s.bool("reconfigEnabled"),
        skip_acl: s.bool("skipACL"),
        digest_auth_enabled,
        digest_alg: match s.text("DigestAuthenticationProvider.digestAlg").as_deref() {
            Some("SHA-256") => DigestAlg::Sha256,
            Some("SHA-512") => DigestAlg::Sha512,
            _ => DigestAlg::Sha1,
        },
        super_digest: super_digest(s),
        enforce_auth: enforced_schemes(s, digest_auth_enabled),
        audit_enabled: s.bool("audit.enable"),
        four_letter_whitelist: four_letter_whitelist(s, read_only_mode_enabled),
        admin: admin(s),
        metrics: metrics(s),
        quorum,
    }
}

fn warn_if_relative(s: &mut Settings, key: &'static str) {
    if let Some(setting) = s.get(key)
        && !Path::new(&setting.text).is_absolute()
        && !setting.text.starts_with("./")
        && !setting.text.is_empty()
    {
        let (at, path) = (setting.at.clone(), Shown::new(&setting.text));
        s.warnings.push(Warning::RelativePath { at, key, path });
    }
}

fn read_my_id(s: &mut Settings, data_dir: &Path, reader: Reader<'_>) -> Option<ServerId> {
    if data_dir.as_os_str().is_empty() {
        return None;
    }
    let path = data_dir.join("myid");
    let problem = match reader(&path) {
        Ok(None) => return None,
        Ok(Some(bytes)) => {
            let text = String::from_utf8_lossy(&bytes);
            let first_line = text.lines().next().unwrap_or_default().trim();
            match ServerId::parse(first_line) {
                Some(id) => return Some(id),
                None => format!("`{}` is not a server id", Shown::new(first_line)),
            }
        }
        Err(error) => format!("cannot be read: {error}"),
    };
    let path = Shown::path(&path);
    s.problems.push(Problem::MyId { path, why: problem });
    None
}

fn session_timeouts(s: &mut Settings, tick_time_ms: u32) -> (u32, u32) {
    const MS_MAX: u32 = i32::MAX as u32;
    let or_ticks = |value: Option<u64>, ticks: u32| {
        let ticks = || tick_time_ms.saturating_mul(ticks).min(MS_MAX);
        value.and_then(|ms| u32::try_from(ms).ok()).unwrap_or_else(ticks)
    };
    let min = or_ticks(s.u64_unless_negative("minSessionTimeout"), 2);
    let max = or_ticks(s.u64_unless_negative("maxSessionTimeout"), 20);
    if min > max {
        let why = format!(
            "sessions could last at least {min} ms and at most {max} ms; make minSessionTimeout the \
             smaller one (unset, they are 2 and 20 times tickTime)"
        );
        let set = |key: &&str| s.get(key).is_some();
        let key = ["minSessionTimeout", "maxSessionTimeout"].into_iter().find(set);
        s.conflict(key.unwrap_or("tickTime"), why);
    }
    (min, max)
}

/// Java loads any class named here; ours are built in, and there are two.
fn check_auth_providers(s: &mut Settings) {
    let mut missing = Vec::new();
    for (suffix, setting) in s.with_prefix("authProvider.") {
        let class = setting.text.strip_prefix("org.apache.zookeeper.server.auth.");
        let feature = match class {
            Some("DigestAuthenticationProvider" | "IPAuthenticationProvider") => continue,
            Some("SASLAuthenticationProvider") => "SASL authentication",
            Some("X509AuthenticationProvider") => "TLS",
            Some("EnsembleAuthenticationProvider") => "the ensemble authentication scheme",
            _ => "authentication providers written in Java",
        };
        missing.push(Problem::NotSupported {
            at: setting.at.clone(),
            key: Shown::new(&format!("authProvider.{suffix}={}", setting.text)),
            feature: Shown::new(feature),
        });
    }
    s.problems.append(&mut missing);
}

fn super_digest(s: &mut Settings) -> Option<Secret> {
    const KEY: &str = "DigestAuthenticationProvider.superDigest";
    let digest = s.text(KEY)?;
    let base64 = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=');
    let well_formed = digest
        .split_once(':')
        .is_some_and(|(user, hash)| !user.is_empty() && hash.len() >= 28 && hash.bytes().all(base64));
    if !well_formed {
        s.bad_value(
            KEY,
            "super: and the base64 digest of super:password (`zk digest super:password` prints it)",
        );
    }
    Some(Secret::new(digest))
}

fn enforced_schemes(s: &mut Settings, digest_auth_enabled: bool) -> Option<Vec<AuthScheme>> {
    const SCHEMES: &str = "enforce.auth.schemes";
    let mut schemes = Vec::new();
    let list = s.text(SCHEMES);
    for name in list.iter().flat_map(|list| list.split(',')).map(str::trim).filter(|n| !n.is_empty()) {
        match name {
            "ip" => schemes.push(AuthScheme::Ip),
            "digest" if digest_auth_enabled => schemes.push(AuthScheme::Digest),
            "digest" => {
                s.conflict(SCHEMES, "DigestAuthenticationProvider.enabled is false; set it to true");
            }
            "sasl" | "x509" | "ensemble" => {
                let Some(at) = s.get(SCHEMES).map(|setting| setting.at.clone()) else {
                    continue;
                };
                let (key, feature) = (Shown::new(SCHEMES), Shown::new(&format!("the scheme {name}")));
                s.problems.push(Problem::NotSupported { at, key, feature });
            }
            _ => s.bad_value(SCHEMES, "a comma-separated list of ip, digest"),
        }
    }
    if !s.bool("enforce.auth.enabled") {
        return None;
    }
    if list.is_none() {
        s.conflict("enforce.auth.enabled", "it needs enforce.auth.schemes; add enforce.auth.schemes=digest");
    }
    Some(schemes)
}

fn four_letter_whitelist(s: &mut Settings, read_only_mode: bool) -> super::FourLetterWhitelist {
    const KEY: &str = "4lw.commands.whitelist";
    let list = s.get(KEY).map(|setting| (setting.at.clone(), setting.text.clone()));
    let text = list.as_ref().map(|(_, text)| text.as_str());
    let (whitelist, unknown) = parse_whitelist(text, read_only_mode);
    for (word, (at, _)) in unknown.iter().zip(list.iter().cycle()) {
        let words = FourLetterWord::ALL.iter().map(|word| word.name());
        let (at, nearest) = (at.clone(), keys::nearest_of(word, words));
        s.warnings.push(Warning::UnknownWord { at, word: Shown::new(word), nearest });
    }
    whitelist
}

fn connection_throttle(s: &Settings) -> ConnectionThrottle {
    let weights = SessionWeights {
        global: s.u32("connection_throttle_global_session_weight"),
        renew: s.u32("connection_throttle_renew_session_weight"),
        local: s.u32("connection_throttle_local_session_weight"),
    };
    ConnectionThrottle {
        tokens: Some(s.u32("connection_throttle_tokens")).filter(|n| *n > 0),
        fill_time_ms: s.u32("connection_throttle_fill_time"),
        fill_count: s.u32("connection_throttle_fill_count"),
        freeze_time_ms: s
            .u64_unless_negative("connection_throttle_freeze_time")
            .and_then(|ms| u32::try_from(ms).ok()),
        drop_increase: s.ratio("connection_throttle_drop_increase"),
        drop_decrease: s.ratio("connection_throttle_drop_decrease"),
        decrease_ratio: s.ratio("connection_throttle_decrease_ratio"),
        weights: s.bool("connection_throttle_weight_enabled").then_some(weights),
    }
}

fn admin(s: &Settings) -> AdminConfig {
    let configured = ["admin.serverAddress", "admin.serverPort"].iter().any(|key| s.get(key).is_some());
    let switched = s.get("admin.enableServer").map(|_| s.bool("admin.enableServer"));
    AdminConfig {
        enabled: switched.unwrap_or(configured),
        address: s.text("admin.serverAddress"),
        port: u16::try_from(s.int("admin.serverPort")).unwrap_or_default(),
        command_url: s.text("admin.commandURL").unwrap_or_default(),
        idle_timeout_ms: s.u32("admin.idleTimeout"),
    }
}

fn metrics(s: &mut Settings) -> MetricsConfig {
    const KEY: &str = "metricsProvider.className";
    let class = s.text(KEY).unwrap_or_default();
    let name = class.strip_prefix("org.apache.zookeeper.metrics.").unwrap_or_default();
    let prometheus = name == "prometheus.PrometheusMetricsProvider";
    if !prometheus && !matches!(name, "impl.DefaultMetricsProvider" | "impl.NullMetricsProvider") {
        s.bad_value(
            KEY,
            "org.apache.zookeeper.metrics.impl.DefaultMetricsProvider, .impl.NullMetricsProvider or \
             .prometheus.PrometheusMetricsProvider",
        );
    }
    MetricsConfig {
        prometheus,
        http_host: s.text("metricsProvider.httpHost").unwrap_or_default(),
        http_port: u16::try_from(s.int("metricsProvider.httpPort")).unwrap_or_default(),
    }
}
