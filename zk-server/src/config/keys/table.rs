//! The key table: one line per key.

use super::{Alias, Key, Status};
use crate::config::value::Kind;

const I32: i64 = i32::MAX as i64;
const U16: i64 = u16::MAX as i64;
/// 2^40 KiB: a petabyte, far from overflow when turned into bytes.
const KIB: i64 = 1 << 40;

const fn used(name: &'static str, kind: Kind, default: &'static str) -> Key {
    Key { name, kind, default, status: Status::Used }
}

const fn no_effect(name: &'static str, why: &'static str) -> Key {
    Key { name, kind: Kind::Text, default: "", status: Status::NoEffect(why) }
}

/// A key of a missing feature that may be ignored with a warning.
const fn later(name: &'static str, kind: Kind, default: &'static str, feature: &'static str) -> Key {
    Key { name, kind, default, status: Status::NotBuilt { feature, refuse: false } }
}

/// A key of a missing feature that must not be ignored.
const fn refused(name: &'static str, kind: Kind, default: &'static str, feature: &'static str) -> Key {
    Key { name, kind, default, status: Status::NotBuilt { feature, refuse: true } }
}

const fn int(min: i64, max: i64, unit: &'static str) -> Kind {
    Kind::Int { min, max, unit }
}

const fn ratio(min: f64, max: f64) -> Kind {
    Kind::Ratio { min, max }
}

use Kind::{Bool, Hours, OneOf, Path, Secret, Text, YesNo};

const MS: &str = "milliseconds";
const PORT: Kind = int(0, U16, "");

const JVM: &str = "there is no JVM here";
const THREADS: &str = "this server sizes its threads itself";
const CLIENT: &str = "it is a setting of the client library";
const LOGGING: &str = "logging is set up with the RUST_LOG environment variable";
const WATCHES: &str = "there is one watch manager here and it needs no tuning";
const NODELAY: &str = "sockets are always no-delay here";
const NON_BLOCKING: &str = "sending to peers never blocks here";
const GROUP_COMMIT: &str = "each sync takes along what arrived during the one before it";
const DEAD_CODE: &str = "the part of Apache ZooKeeper that it tunes does not exist here";

const TLS: &str = "TLS";
const SASL: &str = "SASL authentication";
const ADMIN: &str = "the HTTP admin server";
const METRICS: &str = "metrics over HTTP";
const AUDIT: &str = "the audit log";
const PATH_STATS: &str = "path statistics";
const TRACKER: &str = "the learner packet tracker";

/// Every known key. Order: operations an operator thinks of first, then the rest.
pub const KEYS: &[Key] = &[
    // Where things are.
    used("dataDir", Path, ""),
    used("dataLogDir", Path, ""),
    used("datadir.autocreate", Bool, "true"),
    used("db.autocreate", Bool, "true"),
    // The client listener. Port 0 means "none" in the file, as in Apache.
    used("clientPort", PORT, ""),
    used("clientPortAddress", Text, ""),
    used("clientPortListenBacklog", int(-1, I32, "connections"), "-1"),
    used("clientTcpKeepAlive", Bool, "false"),
    used("maxClientCnxns", int(-I32, I32, "connections per address"), "60"),
    used("maxCnxns", int(-I32, I32, "connections"), "0"),
    used("nio.sessionlessCnxnTimeout", int(1, I32, MS), "10000"),
    // Time and sessions.
    used("tickTime", int(1, I32, MS), "3000"),
    used("minSessionTimeout", int(-1, I32, MS), "-1"),
    used("maxSessionTimeout", int(-1, I32, MS), "-1"),
    used("localSessionsEnabled", Bool, "false"),
    used("localSessionsUpgradingEnabled", Bool, "false"),
    used("closeSessionTxn.enabled", Bool, "true"),
    used("readonlymode.enabled", Bool, "false"),
    // Requests.
    used("jute.maxbuffer", int(1, I32, "bytes"), "0xfffff"),
    used("jute.maxbuffer.extrasize", int(0, I32, "bytes"), ""),
    used("globalOutstandingLimit", int(1, I32, "requests"), "1000"),
    used("connection_throttle_tokens", int(0, I32, "connections"), "0"),
    used("connection_throttle_fill_time", int(1, I32, MS), "1"),
    used("connection_throttle_fill_count", int(0, I32, "connections"), "1"),
    used("connection_throttle_freeze_time", int(-1, I32, MS), "-1"),
    used("connection_throttle_drop_increase", ratio(0.0, 1.0), "0.02"),
    used("connection_throttle_drop_decrease", ratio(0.0, 1.0), "0.002"),
    used("connection_throttle_decrease_ratio", ratio(0.0, 1.0), "0"),
    used("connection_throttle_weight_enabled", Bool, "false"),
    used("connection_throttle_global_session_weight", int(1, I32, "tokens"), "3"),
    used("connection_throttle_renew_session_weight", int(1, I32, "tokens"), "2"),
    used("connection_throttle_local_session_weight", int(1, I32, "tokens"), "1"),
    used("request_throttle_max_requests", int(0, I32, "requests"), "0"),
    used("request_throttle_drop_stale", Bool, "true"),
    used("request_stale_latency_check", Bool, "false"),
    used("request_throttler.shutdownTimeout", int(0, I32, MS), "10000"),
    used("throttled_op_wait_time", int(0, I32, MS), "0"),
    used("largeRequestThreshold", int(-1, I32, "bytes"), "-1"),
    used("largeRequestMaxBytes", int(1, I32, "bytes"), "104857600"),
    // The transaction log and snapshots.
    used("forceSync", YesNo, "yes"),
    used("fsync.warningthresholdms", int(0, I32, MS), "1000"),
    used("preAllocSize", int(0, 1 << 22, "KiB"), "65536"),
    used("snapCount", int(-I32, I32, "transactions"), "100000"),
    used("snapSizeLimitInKb", int(-1, KIB, "KiB"), "4194304"),
    used("txnLogSizeLimitInKb", int(-1, KIB, "KiB"), "-1"),
    used("snapshot.compression.method", OneOf(&["", "gz", "snappy"]), ""),
    used("snapshot.trust.empty", Bool, "false"),
    used("serializeLastProcessedZxid.enabled", Bool, "true"),
    used("autopurge.snapRetainCount", int(-I32, I32, "snapshots"), "5"),
    used("autopurge.purgeInterval", Hours, "1"),
    // The tree.
    used("digest.enabled", Bool, "true"),
    used("extendedTypesEnabled", Bool, "false"),
    used("emulate353TTLNodes", Bool, "false"),
    used("znode.container.checkIntervalMs", int(1, I32, MS), "60000"),
    used("znode.container.maxPerMinute", int(1, I32, "nodes"), "10000"),
    used("znode.container.maxNeverUsedIntervalMs", int(0, i64::MAX, MS), "0"),
    used("enforceQuota", Bool, "true"),
    // Who may do what.
    used("DigestAuthenticationProvider.superDigest", Secret, ""),
    used("DigestAuthenticationProvider.enabled", Bool, "true"),
    used("DigestAuthenticationProvider.digestAlg", OneOf(&["SHA1", "SHA-1", "SHA-256", "SHA-512"]), "SHA1"),
    used("authProvider.*", Text, ""),
    used("skipACL", YesNo, "no"),
    used("enforce.auth.enabled", Bool, "false"),
    used("enforce.auth.schemes", Text, ""),
    used("ensembleAuthName", Text, ""),
    later("audit.enable", Bool, "false", AUDIT),
    // Looking in from outside.
    used("4lw.commands.whitelist", Text, ""),
    later("admin.enableServer", Bool, "false", ADMIN),
    later("admin.serverAddress", Text, "", ADMIN),
    later("admin.serverPort", PORT, "8080", ADMIN),
    later("admin.commandURL", Text, "/commands", ADMIN),
    later("admin.idleTimeout", int(0, I32, MS), "30000", ADMIN),
    later("admin.portUnification", Bool, "false", ADMIN),
    later("admin.forceHttps", Bool, "false", ADMIN),
    later("admin.needClientAuth", Bool, "false", ADMIN),
    later("admin.rateLimiterIntervalInMS", int(0, I32, MS), "300000", ADMIN),
    later("admin.snapshot.enabled", Bool, "true", ADMIN),
    later("admin.restore.enabled", Bool, "true", ADMIN),
    later("IPAuthenticationProvider.usexforwardedfor", Bool, "false", ADMIN),
    later(
        "metricsProvider.className",
        Text,
        "org.apache.zookeeper.metrics.impl.DefaultMetricsProvider",
        METRICS,
    ),
    later("metricsProvider.httpHost", Text, "0.0.0.0", METRICS),
    later("metricsProvider.httpPort", PORT, "7000", METRICS),
    later("metricsProvider.*", Text, "", METRICS),
    later("pathStats.*", Text, "", PATH_STATS),
    // Membership.
    used("server.*", Text, ""),
    used("group.*", Text, ""),
    used("weight.*", int(0, I32, ""), "1"),
    used("dynamicConfigFile", Path, ""),
    used("peerType", OneOf(&["participant", "observer"]), ""),
    used("standaloneEnabled", Bool, "true"),
    used("reconfigEnabled", Bool, "false"),
    used("initLimit", int(0, I32, "ticks"), "0"),
    used("syncLimit", int(0, I32, "ticks"), "0"),
    used("connectToLearnerMasterLimit", int(0, I32, "ticks"), "0"),
    used("electionAlg", OneOf(&["0", "3"]), "3"),
    used("quorumListenOnAllIPs", Bool, "false"),
    used("cnxTimeout", int(1, I32, MS), "5000"),
    used("quorumCnxnTimeoutMs", int(-1, I32, MS), "-1"),
    used("fastleader.minNotificationInterval", int(1, I32, MS), "200"),
    used("fastleader.maxNotificationInterval", int(1, I32, MS), "60000"),
    used("electionPortBindRetry", int(0, I32, "attempts"), "3"),
    used("tcpKeepAlive", Bool, "false"),
    used("leaderServes", YesNo, "yes"),
    used("syncEnabled", Bool, "true"),
    used("observer.reconnectDelayMs", int(0, I32, MS), "0"),
    used("observer.election.DelayMs", int(0, I32, MS), "200"),
    used("observerMasterPort", PORT, ""),
    used("observerMaster.sizeLimit", int(1, I32, "bytes"), "33554432"),
    used("multiAddress.enabled", Bool, "false"),
    used("multiAddress.reachabilityCheckEnabled", Bool, "true"),
    used("multiAddress.reachabilityCheckTimeoutMs", int(1, I32, MS), "1000"),
    used("commitLogCount", int(-I32, I32, "transactions"), "500"),
    used("snapshotSizeFactor", ratio(-1e9, 1e9), "0.33"),
    used("forceSnapshotSync", Bool, "false"),
    used("leader.maxConcurrentSnapSyncs", int(1, I32, "learners"), "10"),
    used("leader.maxConcurrentDiffSyncs", int(1, I32, "learners"), "100"),
    used("leader.maxTimeToWaitForEpoch", int(-1, I32, MS), "-1"),
    used("leaderConnectDelayDuringRetryMs", int(0, I32, MS), "100"),
    refused("oraclePath", Path, "", "the two-server oracle"),
    later("messageTracker.Enabled", Bool, "false", TRACKER),
    later("messageTracker.BufferSize", int(1, I32, "packets"), "10", TRACKER),
    // TLS.
    refused("secureClientPort", PORT, "", TLS),
    refused("secureClientPortAddress", Text, "", TLS),
    refused("client.portUnification", Bool, "false", TLS),
    refused("sslQuorum", Bool, "false", TLS),
    refused("portUnification", Bool, "false", TLS),
    later("client.certReload", Bool, "false", TLS),
    later("sslQuorumReloadCertFiles", Bool, "false", TLS),
    later("fips-mode", Bool, "true", TLS),
    later("ssl.*", Text, "", TLS),
    later("ssl.keyStore.password", Secret, "", TLS),
    later("ssl.trustStore.password", Secret, "", TLS),
    later("ssl.quorum.keyStore.password", Secret, "", TLS),
    later("ssl.quorum.trustStore.password", Secret, "", TLS),
    later("X509AuthenticationProvider.superUser", Text, "", TLS),
    later("netty.server.outstandingHandshake.limit", int(-1, I32, "handshakes"), "-1", TLS),
    later("netty.server.earlyDropSecureConnectionHandshakes", Bool, "false", TLS),
    // SASL.
    refused("sessionRequireClientSASLAuth", Bool, "false", SASL),
    refused("quorum.auth.enableSasl", Bool, "false", SASL),
    refused("quorum.auth.learnerRequireSasl", Bool, "false", SASL),
    refused("quorum.auth.serverRequireSasl", Bool, "false", SASL),
    later("quorum.auth.*", Text, "", SASL),
    later("quorum.cnxn.threads.size", int(1, I32, "threads"), "20", SASL),
    later("allowSaslFailedClients", Bool, "false", SASL),
    later("superUser", Text, "", SASL),
    later("superUser.*", Text, "", SASL),
    later("SASLAuthenticationProvider.superPassword", Secret, "", SASL),
    later("letAnySaslUserDoX", Text, "", SASL),
    later("kerberos.removeHostFromPrincipal", Bool, "false", SASL),
    later("kerberos.removeRealmFromPrincipal", Bool, "false", SASL),
    later("kerberos.canonicalizeHostNames", Bool, "false", SASL),
    later("security.auth_to_local", Text, "DEFAULT", SASL),
    later("sasl.serverconfig", Text, "Server", SASL),
    later("java.security.auth.login.config", Path, "", SASL),
    later("java.security.krb5.*", Text, "", SASL),
    // Apache's own internals.
    no_effect("serverCnxnFactory", DEAD_CODE),
    no_effect("flushDelay", GROUP_COMMIT),
    no_effect("maxWriteQueuePollTime", GROUP_COMMIT),
    no_effect("maxBatchSize", GROUP_COMMIT),
    no_effect("request_throttle_stall_time", "requests go on here as soon as there is room for them"),
    no_effect(
        "request_stale_connection_check",
        "what a closed connection still asks for is never looked at here",
    ),
    no_effect("nio.numSelectorThreads", THREADS),
    no_effect("nio.numWorkerThreads", THREADS),
    no_effect("nio.directBufferBytes", JVM),
    no_effect("nio.shutdownTimeout", THREADS),
    no_effect("netty.advancedFlowControl.enabled", DEAD_CODE),
    no_effect("commitProcessor.numWorkerThreads", THREADS),
    no_effect("commitProcessor.maxReadBatchSize", THREADS),
    no_effect("commitProcessor.maxCommitBatchSize", THREADS),
    no_effect("commitProcessor.shutdownTimeout", THREADS),
    no_effect("numWorkerThreads", THREADS),
    no_effect("maxQueueSize", THREADS),
    no_effect("workerShutdownTimeoutMs", THREADS),
    no_effect("intBufferStartingSizeBytes", JVM),
    no_effect("bitHashCacheSize", WATCHES),
    no_effect("watchManagerName", WATCHES),
    no_effect("watcherCleanThreadsNum", WATCHES),
    no_effect("watcherCleanThreshold", WATCHES),
    no_effect("watcherCleanIntervalInSeconds", WATCHES),
    no_effect("maxInProcessingDeadWatchers", WATCHES),
    no_effect("maxResponseCacheSize", "replies need no cache here"),
    no_effect("maxGetChildrenResponseCacheSize", "replies need no cache here"),
    no_effect("enableEagerACLCheck", "ACLs are always checked before a write is proposed here"),
    no_effect("learner.asyncSending", NON_BLOCKING),
    no_effect("learner.closeSocketAsync", NON_BLOCKING),
    no_effect("leader.closeSocketAsync", NON_BLOCKING),
    no_effect("follower.nodelay", NODELAY),
    no_effect("leader.nodelay", NODELAY),
    no_effect("follower.skipLearnerRequestToNextProcessor", DEAD_CODE),
    no_effect("forward_learner_requests_to_commit_processor_disabled", DEAD_CODE),
    no_effect("controllerPort", DEAD_CODE),
    no_effect("testingonly.*", DEAD_CODE),
    no_effect("traceFile", DEAD_CODE),
    no_effect("audit.impl.class", JVM),
    no_effect("admin.httpVersion", DEAD_CODE),
    no_effect("metricsProvider.exportJvmInfo", JVM),
    no_effect("ssl.context.supplier.class", JVM),
    no_effect("ssl.sslProvider", JVM),
    no_effect("kinit", JVM),
    no_effect("kerberos.minReLoginTimeMs", JVM),
    no_effect("jvm.pause.*", JVM),
    no_effect("jmx.*", JVM),
    no_effect("log.dir", LOGGING),
    no_effect("log.file", LOGGING),
    no_effect("log.threshold", LOGGING),
    no_effect("root.logger", LOGGING),
    no_effect("console.threshold", LOGGING),
    no_effect("tracelog.dir", LOGGING),
    no_effect("tracelog.file", LOGGING),
    // Settings of the client that end up in the same JVMFLAGS.
    no_effect("sasl.client", CLIENT),
    no_effect("sasl.client.*", CLIENT),
    no_effect("sasl.clientconfig", CLIENT),
    no_effect("client.secure", CLIENT),
    no_effect("clientCnxnSocket", CLIENT),
    no_effect("disableAutoWatchReset", CLIENT),
    no_effect("request.timeout", CLIENT),
    no_effect("hostProvider.*", CLIENT),
    no_effect("shuffleDnsResponse", CLIENT),
    // Properties of the Java platform that JVMFLAGS carries.
    no_effect("java.*", JVM),
    no_effect("javax.*", JVM),
    no_effect("jdk.*", JVM),
    no_effect("sun.*", JVM),
    no_effect("com.sun.*", JVM),
    no_effect("file.encoding", JVM),
    no_effect("networkaddress.cache.*", JVM),
    no_effect("io.netty.*", JVM),
    no_effect("user.*", JVM),
    no_effect("log4j.*", LOGGING),
    no_effect("log4j2.*", LOGGING),
    no_effect("logback.*", LOGGING),
];

const fn documented(name: &'static str, key: &'static str) -> Alias {
    Alias { name, key, works_in_apache: false }
}

/// Names that stand for another key.
pub const ALIASES: &[Alias] = &[
    // The process property of this key is called differently, and so may the file call it.
    Alias { name: "observer.syncEnabled", key: "syncEnabled", works_in_apache: true },
    // Headings of the administrator guide that no code of Apache's reads.
    documented("connectionMaxTokens", "connection_throttle_tokens"),
    documented("connectionTokenFillTime", "connection_throttle_fill_time"),
    documented("connectionTokenFillCount", "connection_throttle_fill_count"),
    documented("connectionFreezeTime", "connection_throttle_freeze_time"),
    documented("connectionDropIncrease", "connection_throttle_drop_increase"),
    documented("connectionDropDecrease", "connection_throttle_drop_decrease"),
    documented("connectionDecreaseRatio", "connection_throttle_decrease_ratio"),
    documented("requestThrottleLimit", "request_throttle_max_requests"),
    documented("requestThrottleStallTime", "request_throttle_stall_time"),
    documented("requestThrottleDropStale", "request_throttle_drop_stale"),
    documented("requestStaleLatencyCheck", "request_stale_latency_check"),
    documented("requestStaleConnectionCheck", "request_stale_connection_check"),
    documented("throttledOpWaitTime", "throttled_op_wait_time"),
    documented("maxConcurrentSnapSyncs", "leader.maxConcurrentSnapSyncs"),
    documented("maxConcurrentDiffSyncs", "leader.maxConcurrentDiffSyncs"),
    documented("maxTimeToWaitForEpoch", "leader.maxTimeToWaitForEpoch"),
    documented("advancedFlowControlEnabled", "netty.advancedFlowControl.enabled"),
    documented("outstandingHandshake.limit", "netty.server.outstandingHandshake.limit"),
];
