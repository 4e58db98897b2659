//! Replies against those that Apache ZooKeeper 3.9.3 gave.

use std::collections::BTreeMap;

use zk_proto::Zxid;

use super::*;
use crate::admin::metrics::{SummaryValue, Traffic};
use crate::admin::{ConnectionSession, DumpedConnection, ProposalSizes, QuorumReport, ServerMode};
use crate::config::Config;

/// The reply that Apache gave; its origin is told in the README beside the files.
pub(crate) fn capture(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/ops/4lw");
    let path = format!("{folder}/{name}.txt");
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

const APACHE_VERSION: &str = "3.9.3-c26634f34490bb0ea7a09cc51e05ede3b4e320ee, built on 2024-10-17 23:21 UTC";

pub(crate) fn server_stats() -> ServerStats {
    ServerStats {
        version: APACHE_VERSION.into(),
        mode: ServerMode::Standalone,
        traffic: traffic(25, 25, SummaryValue::new(16, 24_000, 0, 6_999)),
        connections: 3,
        outstanding_requests: 0,
        last_zxid: Zxid(7),
        node_count: 9,
        proposal_sizes: None,
    }
}

fn traffic(packets_received: u64, packets_sent: u64, request_latency: SummaryValue) -> Traffic {
    Traffic { packets_received, packets_sent, request_latency, ..Traffic::default() }
}

fn idle_read_only() -> ServerStats {
    ServerStats {
        mode: ServerMode::ReadOnly,
        traffic: traffic(6, 7, SummaryValue::default()),
        connections: 1,
        last_zxid: Zxid(0),
        node_count: 5,
        ..server_stats()
    }
}

fn connection(port: u16, interest_ops: u8, packets: [u64; 2]) -> ConnectionStats {
    ConnectionStats {
        remote: ([127, 0, 0, 1], port).into(),
        interest_ops,
        queued: 0,
        received: packets[0],
        sent: packets[1],
        session: None,
    }
}

#[test]
fn srvr_of_every_role() {
    let standalone = server_stats();
    assert_eq!(srvr(&standalone), capture("standalone-srvr"));
    let fresh = ServerStats {
        traffic: traffic(7, 6, SummaryValue::default()),
        connections: 1,
        last_zxid: Zxid(0),
        node_count: 5,
        ..standalone.clone()
    };
    assert_eq!(srvr(&fresh), capture("defaultwhitelist-srvr"));
    assert_eq!(srvr(&idle_read_only()), capture("readonly-srvr"));
    let leader = ServerStats {
        mode: ServerMode::Leader,
        traffic: traffic(12, 13, SummaryValue::new(3, 10_000, 1000, 7000)),
        connections: 2,
        last_zxid: Zxid(0x1_0000_0005),
        node_count: 8,
        proposal_sizes: Some(ProposalSizes { last: Some(90), min: Some(48), max: Some(90) }),
        ..standalone
    };
    assert_eq!(srvr(&leader), capture("leader-srvr"));
    let silent = ServerStats { proposal_sizes: Some(ProposalSizes::default()), ..leader };
    assert!(srvr(&silent).ends_with("\nProposal sizes last/min/max: -1/-1/-1\n"));
}

#[test]
fn stat_of_every_role() {
    let mut standalone = server_stats();
    standalone.traffic.packets_received = 26;
    standalone.traffic.packets_sent = 26;
    let connections =
        [connection(50064, 1, [5, 5]), connection(50048, 1, [9, 9]), connection(50160, 0, [1, 0])];
    assert_eq!(stat(&standalone, connections), capture("standalone-stat"));

    let mut read_only = idle_read_only();
    read_only.traffic.packets_received = 7;
    read_only.traffic.packets_sent = 8;
    assert_eq!(stat(&read_only, [connection(52742, 0, [1, 0])]), capture("readonly-stat"));
}

#[test]
fn cons_shows_all_there_is() {
    let first = ConnectionSession {
        id: SessionId(0x0100_0009_2172_0001),
        last_operation: "GETD",
        established_ms: 1_795_166_473_753,
        timeout_ms: 10_000,
        last_cxid: Some(4),
        last_zxid: Zxid(7),
        last_response_ms: 660_292,
        last_latency_ms: 0,
        min_latency_ms: 0,
        avg_latency_ms: 0,
        max_latency_ms: 1,
    };
    let second = ConnectionSession {
        id: SessionId(0x0100_0009_2172_0000),
        last_operation: "GETC",
        established_ms: 1_795_166_473_741,
        timeout_ms: 30_000,
        last_cxid: Some(8),
        last_response_ms: 660_291,
        last_latency_ms: 1,
        avg_latency_ms: 2,
        max_latency_ms: 6,
        ..first.clone()
    };
    let connections = [
        ConnectionStats { session: Some(first.clone()), ..connection(50064, 1, [5, 5]) },
        ConnectionStats { session: Some(second), ..connection(50048, 1, [9, 9]) },
        connection(50078, 0, [1, 0]),
    ];
    assert_eq!(cons(connections), capture("standalone-cons"));

    let fresh = ConnectionSession { last_cxid: None, ..first };
    let line = cons([ConnectionStats { session: Some(fresh), ..connection(1, 5, [0, 0]) }]);
    assert!(line.starts_with(" /127.0.0.1:1[5](") && line.contains(",to=10000,lzxid=0x7,"), "{line}");
    assert_eq!(cons([]), "\n");
}

#[test]
fn conf_of_every_role() {
    let standalone = ConfReport {
        client_port: Some(23001),
        secure_client_port: None,
        data_dir: "DATADIR".into(),
        data_dir_size: 67_109_358,
        data_log_dir: "DATADIR".into(),
        data_log_size: 67_109_358,
        tick_time_ms: 2000,
        max_client_cnxns: 60,
        min_session_timeout_ms: 4000,
        max_session_timeout_ms: 40_000,
        listen_backlog: -1,
        server_id: 0,
        quorum: None,
    };
    assert_eq!(conf(&standalone), capture("standalone-conf"));
    let config = Config {
        client_port: Some(23001),
        tick_time_ms: 2000,
        min_session_timeout_ms: 4000,
        max_session_timeout_ms: 40_000,
        ..Config::new("DATADIR")
    };
    let report = ConfReport::standalone(&config, 67_109_358, 67_109_358);
    assert_eq!(ConfReport { listen_backlog: -1, ..report }, standalone);
    let read_only = ConfReport {
        client_port: Some(23004),
        data_dir_size: 618,
        data_log_size: 618,
        server_id: 1,
        quorum: Some(QuorumReport {
            init_limit: 5,
            sync_limit: 3,
            election_algorithm: 3,
            election_port: 23504,
            quorum_port: 23404,
            observer: false,
            membership: None,
        }),
        ..standalone.clone()
    };
    assert_eq!(conf(&read_only), capture("readonly-conf"));
    let membership = (1..=4).map(|n| {
        let role = if n == 4 { "observer" } else { "participant" };
        format!("server.{n}=127.0.0.1:2320{n}:2330{n}:{role};127.0.0.1:2310{n}\n")
    });
    let leader = ConfReport {
        client_port: Some(23102),
        data_dir_size: 67_109_602,
        data_log_size: 67_109_602,
        server_id: 2,
        quorum: Some(QuorumReport {
            init_limit: 10,
            sync_limit: 5,
            election_algorithm: 3,
            election_port: 23302,
            quorum_port: 23202,
            observer: false,
            membership: Some(membership.collect::<String>() + "version=100000000"),
        }),
        ..standalone
    };
    assert_eq!(conf(&leader), capture("leader-conf"));
}

/// 2026-11-20 at the given time, in milliseconds since 1970.
fn time_of_capture(hour: i64, minute: i64, second: i64) -> i64 {
    (1_795_132_800 + hour * 3600 + minute * 60 + second) * 1000
}

fn bucket<T>(time: [i64; 3], members: Vec<T>) -> ExpiryBucket<T> {
    ExpiryBucket { expires_ms: time_of_capture(time[0], time[1], time[2]), members }
}

fn dumped(port: u16, session: i64) -> DumpedConnection {
    let session = Some(SessionId(session)).filter(|id| id.0 != 0);
    DumpedConnection { remote: ([127, 0, 0, 1], port).into(), session }
}

#[test]
fn dump_of_every_role() {
    let (a, b) = (0x0100_0009_2172_0001, 0x0100_0009_2172_0000);
    let standalone = Dump {
        sessions: SessionDump::Expiring(vec![
            bucket([9, 21, 25], vec![SessionId(a)]),
            bucket([9, 21, 45], vec![SessionId(b)]),
        ]),
        ephemerals: vec![(SessionId(a), vec!["/app/eph".into(), "/app/lock-0000000001".into()])],
        connections: vec![
            bucket([9, 21, 33], vec![dumped(50064, a), dumped(50082, 0)]),
            bucket([9, 21, 53], vec![dumped(50048, b)]),
        ],
    };
    assert_eq!(dump(&standalone), capture("standalone-dump"));

    let read_only = Dump {
        sessions: SessionDump::Known(Vec::new()),
        ephemerals: Vec::new(),
        connections: vec![bucket([9, 26, 13], vec![dumped(52786, 0)])],
    };
    assert_eq!(dump(&read_only), capture("readonly-dump"));

    let (c, d) = (0x0100_0009_ad2b_0000, 0x0200_0009_ad53_0000);
    let follower = Dump {
        sessions: SessionDump::Known(vec![(SessionId(c), 30_000), (SessionId(d), 30_000)]),
        ephemerals: vec![(SessionId(c), vec!["/q/e2".into()]), (SessionId(d), vec!["/q/e".into()])],
        connections: vec![
            bucket([9, 21, 33], vec![dumped(54158, 0)]),
            bucket([9, 21, 53], vec![dumped(54130, c)]),
        ],
    };
    assert_eq!(dump(&follower), capture("follower-dump"));
}

#[test]
fn watches() {
    let (a, b) = (SessionId(0x0100_0009_2172_0001), SessionId(0x0100_0009_2172_0000));
    let summary = WatchSummary { sessions: 2, paths: 2, watches: 3 };
    assert_eq!(wchs(summary), capture("standalone-wchs"));
    let by_session = [(a, vec!["/app/none", "/app/cfg"]), (b, vec!["/app/cfg"])];
    assert_eq!(wchc(by_session), capture("standalone-wchc"));
    let by_path = [("/app/none", vec![a]), ("/app/cfg", vec![b, a])];
    assert_eq!(wchp(by_path), capture("standalone-wchp"));
}

#[test]
fn short_words() {
    assert_eq!(RUOK, capture("standalone-ruok"));
    assert_eq!(RUOK, capture("notserving-ruok"));
    assert_eq!(CRST, capture("standalone-crst"));
    assert_eq!(SRST, capture("standalone-srst"));
    assert_eq!(trace_mask(DEFAULT_TRACE_MASK), capture("standalone-gtmk"));
    assert_eq!(trace_mask(DEFAULT_TRACE_MASK), capture("standalone-stmk"));
    assert_eq!(dirs(67_109_358, 67_109_358), capture("standalone-dirs"));
    assert_eq!(isro(Some(ServerMode::Standalone)), capture("standalone-isro"));
    assert_eq!(isro(Some(ServerMode::Leader)), capture("leader-isro"));
    assert_eq!(isro(Some(ServerMode::Observer)), capture("observer-isro"));
    assert_eq!(isro(Some(ServerMode::ReadOnly)), capture("readonly-isro"));
    assert_eq!(isro(None), capture("notserving-isro"));
}

#[test]
fn hashes() {
    assert_eq!(hash([]), capture("standalone-hash"));
    let digests = [
        (0x80, 32_701_408_790),
        (0x100, 338_519_229_882),
        (0x180, 595_984_006_122),
        (0x200, 447_033_555_513),
        (0x280, 169_218_975_698),
    ];
    let digests = digests.map(|(zxid, digest)| TreeDigest { zxid: Zxid(zxid), digest });
    assert_eq!(hash(digests), capture("standalone-hash-after-600-txns"));
}

#[test]
fn environment_of_this_process() {
    let text = envi(&Environment::of_process());
    assert!(text.starts_with("Environment:\nzookeeper.version=3.9.3-"), "{text}");
    assert_eq!(text.lines().count(), 9, "{text}");
}

/// Ours is Apache's without what only a JVM has.
#[test]
fn environment() {
    let apache = capture("standalone-envi");
    let value: BTreeMap<&str, &str> = apache.lines().filter_map(|l| l.split_once('=')).collect();
    let of = |key: &str| value.get(key).map_or_else(String::new, ToString::to_string);
    let ours = envi(&Environment {
        version: of("zookeeper.version"),
        host_name: of("host.name"),
        os_name: of("os.name"),
        os_arch: of("os.arch"),
        os_version: of("os.version"),
        user_name: of("user.name"),
        user_home: of("user.home"),
        user_dir: of("user.dir"),
    });
    let not_java = |l: &&str| !l.starts_with("java.") && !l.starts_with("os.memory.");
    let expected: Vec<_> = apache.lines().filter(not_java).collect();
    assert_eq!(ours.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn refusals() {
    let mut checked = [0, 0];
    for word in FourLetterWord::ALL {
        let path = |role| format!("{role}-{word}");
        let exists = |name: &str| {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/ops/4lw");
            std::path::Path::new(&format!("{folder}/{name}.txt")).exists()
        };
        if exists(&path("notserving")) && !word.answers_while_not_serving() {
            assert_eq!(NOT_SERVING, capture(&path("notserving")), "{word}");
            checked[0] += 1;
        }
        if exists(&path("defaultwhitelist")) && word != FourLetterWord::Srvr {
            assert_eq!(not_whitelisted(word), capture(&path("defaultwhitelist")), "{word}");
            checked[1] += 1;
        }
    }
    assert_eq!(checked, [9, 10]);
}

#[test]
fn numbers_addresses_and_dates_look_like_java() {
    for (number, text) in
        [(0.0, "0.0"), (1.5, "1.5"), (10.0 / 3.0, "3.3333"), (0.00005, "0.0001"), (1e9, "1000000000.0")]
    {
        assert_eq!(decimal(number), text);
    }
    let v6: SocketAddr = "[::1]:2181".parse().expect("an address");
    assert_eq!(java_address(v6), "/[0:0:0:0:0:0:0:1]:2181");
    for (seconds, text) in [
        (0, "Thu Jan 01 00:00:00 UTC 1970"),
        (951_782_399, "Mon Feb 28 23:59:59 UTC 2000"),
        (951_782_400, "Tue Feb 29 00:00:00 UTC 2000"),
        (4_107_542_400, "Mon Mar 01 00:00:00 UTC 2100"),
        (-1, "Wed Dec 31 23:59:59 UTC 1969"),
        (1_795_166_485, "Fri Nov 20 09:21:25 UTC 2026"),
    ] {
        assert_eq!(java_date(seconds * 1000 + 999), text);
    }
    assert!(java_date(i64::MIN).contains(" UTC -") && java_date(i64::MAX).contains(" UTC 29"));
}
