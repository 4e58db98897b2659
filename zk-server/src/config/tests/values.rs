//! Every key that acts: its default, and one other value in its field.

use super::*;

#[test]
fn defaults() {
    let config = minimal("").config();
    assert_eq!(
        config,
        Config {
            data_dir: "/d".into(),
            data_log_dir: "/d".into(),
            data_dir_autocreate: true,
            db_autocreate: true,
            server_id: None,
            client_port: Some(2181),
            client_port_address: None,
            client_listen_backlog: 4096,
            client_tcp_keep_alive: false,
            max_client_cnxns: Some(60),
            max_cnxns: None,
            sessionless_cnxn_timeout_ms: 10_000,
            tick_time_ms: 3000,
            min_session_timeout_ms: 6000,
            max_session_timeout_ms: 60_000,
            local_sessions_enabled: false,
            local_sessions_upgrading_enabled: false,
            close_session_txn_enabled: true,
            read_only_mode_enabled: false,
            jute_max_buffer_bytes: 1_048_575,
            jute_max_buffer_extra_bytes: 1_048_575,
            global_outstanding_limit: 1000,
            connection_throttle: ConnectionThrottle {
                tokens: None,
                fill_time_ms: 1,
                fill_count: 1,
                freeze_time_ms: None,
                drop_increase: 0.02,
                drop_decrease: 0.002,
                decrease_ratio: 0.0,
                weights: None,
            },
            request_throttle: RequestThrottle {
                max_requests: None,
                drop_stale: true,
                stale_latency_check: false,
                throttled_op_wait_time_ms: None,
                shutdown_timeout_ms: 10_000,
            },
            large_request_threshold_bytes: None,
            large_request_max_bytes: 100 << 20,
            force_sync: true,
            fsync_warning_threshold_ms: 1000,
            pre_alloc_size_kib: 65_536,
            snap_count: 100_000,
            snap_size_limit_kib: Some(4_194_304),
            txn_log_size_limit_kib: None,
            snapshot_compression: SnapshotCompression::None,
            snapshot_trust_empty: false,
            serialize_last_processed_zxid: true,
            autopurge: Autopurge { snap_retain_count: 5, purge_interval_ms: Some(3_600_000) },
            digest_enabled: true,
            extended_types_enabled: false,
            emulate_353_ttl_nodes: false,
            containers: ContainerSweep {
                check_interval_ms: 60_000,
                max_per_minute: 10_000,
                max_never_used_interval_ms: None,
            },
            enforce_quota: true,
            reconfig_enabled: false,
            skip_acl: false,
            digest_auth_enabled: true,
            digest_alg: DigestAlg::Sha1,
            super_digest: None,
            enforce_auth: None,
            audit_enabled: false,
            four_letter_whitelist: FourLetterWhitelist::Default { read_only_mode: false },
            admin: AdminConfig {
                enabled: false,
                address: None,
                port: 8080,
                command_url: "/commands".into(),
                idle_timeout_ms: 30_000,
            },
            metrics: MetricsConfig { prometheus: false, http_host: "0.0.0.0".into(), http_port: 7000 },
            quorum: None,
        }
    );
    let embedded = Config { client_port: Some(2181), ..Config::new("/d") };
    assert_eq!(embedded, config);
}

/// Setting a key to what its row calls the default changes nothing and warns of nothing.
#[test]
fn defaults_can_be_written_out() {
    let lines = keys::KEYS.iter().filter(|key| !key.default.is_empty() && !key.name.ends_with('*'));
    let text: String = lines.map(|key| format!("{}={}\n", key.name, key.default)).collect();
    let mut config = minimal(&text).config();
    // The one exception: a configured admin port switches the admin server on, unless it is switched.
    assert!(!config.admin.enabled);
    config.admin.address = None;
    assert_eq!(config, minimal("").config());
}

#[test]
fn every_key_reaches_its_field() {
    type Check = fn(&Config) -> bool;
    let cases: &[(&str, Check)] = &[
        ("dataLogDir=/log", |c| c.data_log_dir == Path::new("/log")),
        ("datadir.autocreate=false", |c| !c.data_dir_autocreate),
        ("db.autocreate=false", |c| !c.db_autocreate),
        ("clientPortAddress=localhost", |c| c.client_port_address.as_deref() == Some("localhost")),
        ("clientPortAddress=[::1]", |c| c.client_port_address.as_deref() == Some("::1")),
        ("clientPortListenBacklog=-1", |c| c.client_listen_backlog == 4096),
        ("clientPortListenBacklog=128", |c| c.client_listen_backlog == 128),
        ("clientTcpKeepAlive=true", |c| c.client_tcp_keep_alive),
        ("maxClientCnxns=-1", |c| c.max_client_cnxns.is_none()),
        ("maxClientCnxns=1", |c| c.max_client_cnxns == Some(1)),
        ("maxCnxns=9", |c| c.max_cnxns == Some(9)),
        ("nio.sessionlessCnxnTimeout=5", |c| c.sessionless_cnxn_timeout_ms == 5),
        ("tickTime=1", |c| (c.min_session_timeout_ms, c.max_session_timeout_ms) == (2, 20)),
        ("tickTime=2147483647", |c| c.max_session_timeout_ms == i32::MAX as u32),
        ("minSessionTimeout=0", |c| c.min_session_timeout_ms == 0),
        ("minSessionTimeout=7000", |c| c.min_session_timeout_ms == 7000),
        ("maxSessionTimeout=7000", |c| c.max_session_timeout_ms == 7000),
        ("maxSessionTimeout=-1", |c| c.max_session_timeout_ms == 60_000),
        ("localSessionsEnabled=TRUE", |c| c.local_sessions_enabled),
        ("localSessionsUpgradingEnabled=true", |c| c.local_sessions_upgrading_enabled),
        ("closeSessionTxn.enabled=false", |c| !c.close_session_txn_enabled),
        ("readonlymode.enabled=true", |c| c.read_only_mode_enabled),
        ("jute.maxbuffer=100", |c| (c.jute_max_buffer_bytes, c.jute_max_buffer_extra_bytes) == (100, 1024)),
        ("jute.maxbuffer=5000000", |c| c.jute_max_buffer_extra_bytes == 5_000_000),
        ("jute.maxbuffer.extrasize=2048", |c| c.jute_max_buffer_extra_bytes == 2048),
        ("globalOutstandingLimit=2", |c| c.global_outstanding_limit == 2),
        ("connection_throttle_tokens=5", |c| c.connection_throttle.tokens == Some(5)),
        ("connection_throttle_fill_time=5", |c| c.connection_throttle.fill_time_ms == 5),
        ("connection_throttle_fill_count=5", |c| c.connection_throttle.fill_count == 5),
        ("connection_throttle_freeze_time=5", |c| c.connection_throttle.freeze_time_ms == Some(5)),
        ("connection_throttle_drop_increase=.5", |c| c.connection_throttle.drop_increase == 0.5),
        ("connection_throttle_drop_decrease=.5", |c| c.connection_throttle.drop_decrease == 0.5),
        ("connection_throttle_decrease_ratio=1", |c| c.connection_throttle.decrease_ratio == 1.0),
        ("connection_throttle_weight_enabled=true", |c| {
            c.connection_throttle.weights == Some(SessionWeights { global: 3, renew: 2, local: 1 })
        }),
        (
            "connection_throttle_weight_enabled=true\nconnection_throttle_global_session_weight=9\n\
             connection_throttle_renew_session_weight=8\nconnection_throttle_local_session_weight=7",
            |c| c.connection_throttle.weights == Some(SessionWeights { global: 9, renew: 8, local: 7 }),
        ),
        ("request_throttle_max_requests=5", |c| c.request_throttle.max_requests == Some(5)),
        ("request_throttle_drop_stale=false", |c| !c.request_throttle.drop_stale),
        ("request_stale_latency_check=true", |c| c.request_throttle.stale_latency_check),
        ("request_throttler.shutdownTimeout=5", |c| c.request_throttle.shutdown_timeout_ms == 5),
        ("throttled_op_wait_time=5", |c| c.request_throttle.throttled_op_wait_time_ms == Some(5)),
        ("largeRequestThreshold=5", |c| c.large_request_threshold_bytes == Some(5)),
        ("largeRequestMaxBytes=5", |c| c.large_request_max_bytes == 5),
        ("forceSync=no", |c| !c.force_sync),
        ("fsync.warningthresholdms=5", |c| c.fsync_warning_threshold_ms == 5),
        ("preAllocSize=5", |c| c.pre_alloc_size_kib == 5),
        ("snapCount=2", |c| c.snap_count == 2),
        ("snapSizeLimitInKb=5", |c| c.snap_size_limit_kib == Some(5)),
        ("snapSizeLimitInKb=0", |c| c.snap_size_limit_kib.is_none()),
        ("snapSizeLimitInKb=-1", |c| c.snap_size_limit_kib.is_none()),
        ("txnLogSizeLimitInKb=5", |c| c.txn_log_size_limit_kib == Some(5)),
        ("snapshot.compression.method=gz", |c| c.snapshot_compression == SnapshotCompression::Gzip),
        ("snapshot.compression.method=snappy", |c| c.snapshot_compression == SnapshotCompression::Snappy),
        ("snapshot.trust.empty=true", |c| c.snapshot_trust_empty),
        ("serializeLastProcessedZxid.enabled=false", |c| !c.serialize_last_processed_zxid),
        ("autopurge.snapRetainCount=9", |c| c.autopurge.snap_retain_count == 9),
        ("autopurge.purgeInterval=-1", |c| c.autopurge.purge_interval_ms.is_none()),
        ("autopurge.purgeInterval=30m", |c| c.autopurge.purge_interval_ms == Some(1_800_000)),
        ("digest.enabled=false", |c| !c.digest_enabled),
        ("extendedTypesEnabled=true", |c| c.extended_types_enabled),
        ("emulate353TTLNodes=true", |c| c.emulate_353_ttl_nodes),
        ("znode.container.checkIntervalMs=5", |c| c.containers.check_interval_ms == 5),
        ("znode.container.maxPerMinute=5", |c| c.containers.max_per_minute == 5),
        ("znode.container.maxNeverUsedIntervalMs=5", |c| c.containers.max_never_used_interval_ms == Some(5)),
        ("enforceQuota=false", |c| !c.enforce_quota),
        ("DigestAuthenticationProvider.enabled=false", |c| !c.digest_auth_enabled),
        ("DigestAuthenticationProvider.digestAlg=sha-256", |c| c.digest_alg == DigestAlg::Sha256),
        ("DigestAuthenticationProvider.digestAlg=SHA-512", |c| c.digest_alg == DigestAlg::Sha512),
        ("DigestAuthenticationProvider.digestAlg=SHA-1", |c| c.digest_alg == DigestAlg::Sha1),
        ("authProvider.9=org.apache.zookeeper.server.auth.IPAuthenticationProvider", |_| true),
        ("skipACL=YES", |c| c.skip_acl),
        ("enforce.auth.schemes=digest", |c| c.enforce_auth.is_none()),
        ("enforce.auth.enabled=true\nenforce.auth.schemes= digest ,ip", |c| {
            c.enforce_auth == Some(vec![AuthScheme::Digest, AuthScheme::Ip])
        }),
        ("4lw.commands.whitelist=*", |c| c.four_letter_whitelist == FourLetterWhitelist::All),
        ("readonlymode.enabled=true", |c| {
            c.four_letter_whitelist == FourLetterWhitelist::Default { read_only_mode: true }
        }),
        ("observer.syncEnabled=false\nclientPortAddress=::", |c| {
            c.client_port_address.as_deref() == Some("::")
        }),
    ];
    for (lines, check) in cases {
        let config = minimal(lines).config();
        assert!(check(&config), "{lines}\n{config:#?}");
    }
}

/// Values that Apache raises without a word.
#[test]
fn small_values_are_raised() {
    type Used = fn(&Config) -> u32;
    let cases: &[(&str, &str, Used)] = &[
        ("snapCount=0", "zoo.cfg:3: snapCount=0 is too small; 2 is used", |c| c.snap_count),
        (
            "autopurge.snapRetainCount=1",
            "zoo.cfg:3: autopurge.snapRetainCount=1 is too small; 3 is used",
            |c| c.autopurge.snap_retain_count - 1,
        ),
        ("commitLogCount=9", "zoo.cfg:3: commitLogCount=9 is too small; 500 is used", |_| 2),
    ];
    for (line, warning, used) in cases {
        let scene = minimal(line);
        assert_eq!(scene.warnings(), [*warning]);
        assert_eq!(scene.load().map(|(config, _)| used(&config)).ok(), Some(2), "{line}");
    }
}
