//! `mntr` against the replies of Apache ZooKeeper 3.9.3.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::admin::ServerMode;
use crate::admin::four_letter::tests::{capture, server_stats};
use crate::admin::metrics::Metrics;

/// Records in milliseconds and reports: what Apache had recorded at the time of its reply, as far as
/// it is not zero by nature here.
fn standalone_metrics() -> Snapshot {
    let metrics = Metrics::default();
    let recorder = metrics.recorder();
    for _ in 0..23 {
        recorder.packet_received();
    }
    for _ in 0..21 {
        recorder.packet_sent();
    }
    for ms in [0, 0, 0, 6] {
        recorder.request_latency(ms * 1000);
    }
    for bytes in [16, 35, 90] {
        recorder.response_size(bytes);
    }
    for ms in [0, 0, 0, 0, 1, 1, 6] {
        recorder.latency(Latency::ReadLatency, ms * 1000);
    }
    for ms in [0, 0, 1, 1, 2, 4, 5] {
        recorder.latency(Latency::UpdateLatency, ms * 1000);
    }
    for _ in 0..7 {
        recorder.summary(Summary::FsyncTime, 0);
        recorder.summary(Summary::SyncProcessorBatchSize, 1);
    }
    recorder.summary(Summary::SnapshotTime, 1999);
    recorder.add(Counter::BytesReceivedCount, 563);
    recorder.add(Counter::ResponseBytes, 569);
    recorder.add(Counter::ConnectionRequestCount, 2);
    metrics.snapshot()
}

fn namespaces(keys: &[(&str, &'static str)]) -> Vec<Keyed<'static>> {
    let keyed = keys.iter().map(|(key, name)| Keyed {
        key: key.to_string(),
        name,
        value: KeyedValue::Summary(SummaryValue::new(3, 249, 78, 93)),
    });
    keyed.collect()
}

const READ: &str = "read_per_namespace";
const WRITE: &str = "write_per_namespace";

fn pairs(text: &str) -> Vec<(&str, &str)> {
    let pairs = text.lines().map(|line| line.split_once('\t').unwrap_or((line, "no tab")));
    pairs.collect()
}

fn keys(text: &str) -> BTreeSet<&str> {
    pairs(text).into_iter().map(|(key, _)| key).collect()
}

#[test]
fn standalone() {
    let snapshot = standalone_metrics();
    let server = server_stats();
    let text = mntr(&MntrReport {
        server: &server,
        metrics: &snapshot,
        gauges: Gauges {
            ephemerals: 2,
            global_sessions: 2,
            watches: 4,
            approximate_data_size: 86,
            open_file_descriptors: 83,
            max_file_descriptors: 20_000,
            uptime_ms: 62_068,
            ..Gauges::default()
        },
        quorum: None,
        keyed: namespaces(&[("app", READ), ("app", WRITE)]),
    });
    let apache = capture("standalone-mntr");
    let (ours, theirs) = (pairs(&text), pairs(&apache));
    assert_eq!(theirs.len(), 504);

    // Same names, in the same order, and numbers of the same kind.
    let kind = |(key, value): &(&str, &str)| {
        let kind = match (value.parse::<i64>(), value.parse::<f64>()) {
            (Ok(_), _) => "integer",
            (_, Ok(_)) => "decimal",
            _ => "text",
        };
        (key.to_string(), kind)
    };
    let kinds = |pairs: &[(&str, &str)]| pairs.iter().map(kind).collect::<Vec<_>>();
    assert_eq!(kinds(&ours), kinds(&theirs));

    // Same values where the same was recorded, and zero where we have nothing to record.
    let values: BTreeMap<&str, &str> = theirs.iter().copied().collect();
    let recorded = |key: &str| {
        let name = key.trim_start_matches("zk_");
        let name = ["avg_", "min_", "max_", "cnt_", "sum_", "p50_", "p95_", "p99_", "p999_"]
            .iter()
            .find_map(|prefix| name.strip_prefix(prefix))
            .unwrap_or(name);
        let recorded = [
            Latency::ReadLatency.name(),
            Latency::UpdateLatency.name(),
            Summary::FsyncTime.name(),
            Summary::SyncProcessorBatchSize.name(),
            Summary::SnapshotTime.name(),
            Counter::BytesReceivedCount.name(),
            Counter::ResponseBytes.name(),
            Counter::ConnectionRequestCount.name(),
            "app_read_per_namespace",
        ];
        recorded.contains(&name)
    };
    let first_counter = Counter::ALL[0].name();
    let gauges = ours.iter().position(|(key, _)| key.ends_with(first_counter)).unwrap_or(0);
    for (i, (key, value)) in ours.iter().enumerate() {
        if key.ends_with("app_write_per_namespace") || *key == "zk_avg_snapshottime" {
            continue;
        }
        let expected = if i < gauges || recorded(key) {
            values[key]
        } else if value.contains('.') {
            "0.0"
        } else {
            "0"
        };
        assert_eq!(*value, expected, "{key}");
    }
}

/// Names of members of an ensemble; values are those of the standalone case.
#[test]
fn names_of_every_role() {
    let metrics = Metrics::default();
    metrics.recorder().latency(Latency::QuorumAckLatency, 1);
    let snapshot = metrics.snapshot();
    let latency = snapshot.latency(Latency::QuorumAckLatency);
    let learner_queues = [1, 3, 4].into_iter().flat_map(|sid| {
        let key = sid.to_string();
        let size = KeyedValue::Summary(SummaryValue::default());
        [
            Keyed { key: key.clone(), name: "learner_handler_qp_size", value: size },
            Keyed { key, name: "learner_handler_qp_time_ms", value: KeyedValue::Latency(latency) },
        ]
    });
    let member = |peer_state: &str| QuorumGauges {
        peer_state: peer_state.into(),
        quorum_size: 3,
        ..QuorumGauges::default()
    };
    let written = namespaces(&[("q", WRITE), ("zookeeper", WRITE)]);
    let used = [namespaces(&[("q", READ)]), written.clone()].concat();
    let cases = [
        ("readonly", ServerMode::ReadOnly, None, namespaces(&[("zookeeper", WRITE)])),
        ("follower", ServerMode::Follower, Some(member("following - broadcast")), used.clone()),
        (
            "observer",
            ServerMode::Observer,
            Some(QuorumGauges { observer_master_id: Some(2), ..member("observing - broadcast") }),
            written,
        ),
        (
            "leader",
            ServerMode::Leader,
            Some(QuorumGauges { leader: Some(LeaderGauges::default()), ..member("leading - broadcast") }),
            used.into_iter().chain(learner_queues).collect(),
        ),
    ];
    for (role, mode, quorum, keyed) in cases {
        let server = ServerStats { mode, ..server_stats() };
        let gauges = Gauges::default();
        let text = mntr(&MntrReport { server: &server, metrics: &snapshot, gauges, quorum, keyed });
        let apache = capture(&format!("{role}-mntr"));
        assert_eq!(keys(&text), keys(&apache), "{role}");
        let head = |text: &str| text.lines().take(3).map(String::from).collect::<Vec<_>>();
        if role != "readonly" {
            assert_eq!(head(&text), head(&apache));
        }
        assert_eq!(pairs(&text)[1], pairs(&apache)[1]);
    }
}

#[test]
fn quotas_have_the_key_in_front() {
    let server = server_stats();
    let text = mntr(&MntrReport {
        server: &server,
        metrics: &Metrics::default().snapshot(),
        gauges: Gauges::default(),
        quorum: None,
        keyed: vec![Keyed {
            key: "app".into(),
            name: "quota_count_usage_per_namespace",
            value: KeyedValue::Number(-1),
        }],
    });
    assert!(text.ends_with("\nzk_app_quota_count_usage_per_namespace\t-1\n"));
    let fresh = "zk_last_client_response_size\t-1\n";
    assert!(text.contains(fresh), "nothing sent yet");
}
