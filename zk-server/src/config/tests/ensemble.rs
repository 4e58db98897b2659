//! `server.N`, `group`, `weight`, `myid`, the dynamic file, and the limits of an ensemble.

use super::*;

/// Lines 1 to 4 of a member's file.
const MEMBER: &str = "dataDir=/d\nclientPort=2181\ninitLimit=10\nsyncLimit=5\n";
/// Three participants on lines 5 to 7.
const THREE: &str = "server.1=a:2888:3888\nserver.2=b:2888:3888\nserver.3=c:2888:3888\n";

fn member(lines: &str) -> Scene {
    raw(&format!("{MEMBER}{lines}")).my_id("1")
}

fn peer(host: &str, quorum_port: u16, election_port: u16) -> PeerAddress {
    PeerAddress { host: host.into(), quorum_port, election_port }
}

#[test]
fn server_lines() {
    let client = |host: &str, port| Some(HostPort { host: host.into(), port });
    let cases = [
        ("h:1:2", vec![peer("h", 1, 2)], PeerType::Participant, None),
        ("h:1:2:observer", vec![peer("h", 1, 2)], PeerType::Observer, None),
        ("h:1:2:PARTICIPANT;2181", vec![peer("h", 1, 2)], PeerType::Participant, client("0.0.0.0", 2181)),
        ("h:1:2;10.0.0.1:2181", vec![peer("h", 1, 2)], PeerType::Participant, client("10.0.0.1", 2181)),
        ("h:1:2;", vec![peer("h", 1, 2)], PeerType::Participant, None),
        ("[::1]:1:2;[::]:3", vec![peer("::1", 1, 2)], PeerType::Participant, client("::", 3)),
        ("h:1:2|i:3:4:observer", vec![peer("h", 1, 2), peer("i", 3, 4)], PeerType::Observer, None),
    ];
    for (line, addresses, peer_type, client) in cases {
        assert_eq!(ServerSpec::parse(line), Ok(ServerSpec { addresses, peer_type, client }), "{line}");
    }
    for (line, part_of_error) in [
        ("", "host:quorumPort"),
        ("h", "host:quorumPort"),
        ("h:1", "host:quorumPort"),
        (":1:2", "host:quorumPort"),
        ("h:1:2:observer:x", "host:quorumPort"),
        ("[::1:1:2", "host:quorumPort"),
        ("[::1]", "host:quorumPort"),
        ("h:1:2|", "host:quorumPort"),
        ("h:1:1", "two different ports"),
        ("h:x:2", "ports from 0 to 65535"),
        ("h:1:65536", "ports from 0 to 65535"),
        ("h:+1:2", "ports from 0 to 65535"),
        ("h:1:2:leader", "participant or observer"),
        ("h:1:2:observer|i:3:4:participant", "the same role"),
        ("h:1:2;x", "clientPort after the semicolon"),
        ("h:1:2;h:70000", "clientPort after the semicolon"),
        ("h:1:2;;2181", "at most one client address"),
        ("h:1:2;1;2", "at most one client address"),
    ] {
        let error = ServerSpec::parse(line).expect_err(line);
        assert!(error.contains(part_of_error), "{line}: {error}");
    }
}

#[test]
fn a_member_of_three() {
    let config = member(THREE).config();
    assert!(config.is_distributed());
    let quorum = config.quorum.expect("an ensemble");
    assert_eq!(quorum.my_id, Some(ServerId(1)));
    assert_eq!(quorum.membership.participants().collect::<Vec<_>>(), [1, 2, 3].map(ServerId));
    assert_eq!((quorum.init_limit_ticks, quorum.sync_limit_ticks), (10, 5));
    assert_eq!(quorum.connect_to_learner_master_limit_ticks, 10);
    assert_eq!(quorum.election_read_timeout_ms, 15_000);
    assert_eq!(quorum.commit_log_count, 500);
    assert_eq!(quorum.snapshot_size_factor, Some(0.33));
    assert_eq!(quorum.election_port_bind_retries, Some(3));
    assert_eq!(quorum.max_time_to_wait_for_epoch_ms, None);
    assert!(quorum.leader_serves && quorum.observer_sync_enabled && quorum.standalone_enabled);
}

#[test]
fn settings_of_an_ensemble() {
    let lines = "connectToLearnerMasterLimit=3\nquorumCnxnTimeoutMs=7\nsnapshotSizeFactor=-1\n\
                 electionPortBindRetry=0\nleader.maxTimeToWaitForEpoch=9\nleaderServes=no\n\
                 observer.syncEnabled=false\nquorumListenOnAllIPs=true\ncnxTimeout=1\n\
                 fastleader.minNotificationInterval=2\nfastleader.maxNotificationInterval=3\n\
                 reconfigEnabled=true\ntcpKeepAlive=true\nobserverMasterPort=4\nforceSnapshotSync=true\n\
                 leader.maxConcurrentSnapSyncs=5\nmaxConcurrentDiffSyncs=6\n";
    let (config, warnings) = member(&format!("{lines}{THREE}")).load().expect("loads");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let quorum = config.quorum.expect("an ensemble");
    assert_eq!(quorum.connect_to_learner_master_limit_ticks, 3);
    assert_eq!(quorum.election_read_timeout_ms, 7);
    assert_eq!((quorum.snapshot_size_factor, quorum.election_port_bind_retries), (None, None));
    assert_eq!(quorum.max_time_to_wait_for_epoch_ms, Some(9));
    assert!(!quorum.leader_serves && !quorum.observer_sync_enabled);
    assert!(quorum.listen_on_all_ips && quorum.reconfig_enabled && quorum.election_tcp_keep_alive);
    assert_eq!(quorum.election_connect_timeout_ms, 1);
    assert_eq!((quorum.min_notification_interval_ms, quorum.max_notification_interval_ms), (2, 3));
    assert_eq!((quorum.observer_master_port, quorum.force_snapshot_sync), (Some(4), true));
    assert_eq!((quorum.max_concurrent_snap_syncs, quorum.max_concurrent_diff_syncs), (5, 6));
}

/// Lines → whether it runs as a member of an ensemble, and the warnings.
#[test]
fn start_modes() {
    let one = "zoo.cfg:5: only one server is listed, so it runs standalone";
    let fragile =
        "zoo.cfg:5: no server can fail without stopping the ensemble; list at least three participants";
    let even = "zoo.cfg:5: an even number of participants tolerates no more failures than one less";
    let cases = [
        ("", false, &[][..]),
        ("server.1=a:1:2", false, &[one]),
        ("server.1=a:1:2\nstandaloneEnabled=false", true, &[fragile]),
        ("server.1=a:1:2\nserver.2=b:1:2", true, &[fragile]),
        ("server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\nserver.4=d:1:2", true, &[even]),
        ("server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\nserver.4=d:1:2:observer", true, &[]),
        (
            "server.1=a:1:2:observer\nserver.2=b:1:2\nserver.3=c:1:2\nserver.4=c:1:2\npeerType=participant",
            true,
            &["zoo.cfg:5: peerType contradicts this server's server.N line; the line wins"],
        ),
    ];
    for (lines, distributed, warnings) in cases {
        let scene = member(lines);
        assert_eq!(scene.warnings(), warnings, "{lines}");
        let (config, _) = scene.load().expect("loads");
        assert_eq!(config.is_distributed(), distributed, "{lines}");
    }
}

#[test]
fn errors() {
    let missing = |key, why: &str| {
        format!("zoo.cfg: `{key}` is missing: an ensemble needs it: ticks that a learner may {why}")
    };
    let init = missing("initLimit", "take to connect and synchronise; write initLimit=10");
    let sync = missing("syncLimit", "stay silent; write syncLimit=5");
    let my_id = "zoo.cfg: `myid` is missing: a member of an ensemble needs the file dataDir/myid with the N of its server.N line";
    let base = "dataDir=/d\nclientPort=1\n";
    let cases = [
        (raw(&format!("{base}{THREE}")), format!("{init}\n{sync}\n{my_id}")),
        (raw(&format!("{MEMBER}{THREE}")), my_id.into()),
        (
            raw(&format!("{MEMBER}{THREE}")).my_id("9"),
            "zoo.cfg:5: myid=9: no server.9 is listed; correct dataDir/myid or add the line".into(),
        ),
        (
            raw(&format!("{MEMBER}{THREE}")).my_id("one\nx"),
            "/d/myid: `one` is not a server id; it must hold one whole number, the N of this machine's server.N line".into(),
        ),
        (
            raw(base).my_id(""),
            "/d/myid: `` is not a server id; it must hold one whole number, the N of this machine's server.N line".into(),
        ),
        (
            raw(base).my_id("-1"),
            "/d/myid: `-1` is not a server id; it must hold one whole number, the N of this machine's server.N line".into(),
        ),
        (
            member("server.x=a:1:2"),
            "zoo.cfg:5: server.x=a:1:2: expected a server id (a whole number that is not negative) after the dot; correct it".into(),
        ),
        (
            member("server.1=a:1"),
            "zoo.cfg:5: server.1=a:1: expected host:quorumPort:electionPort[:participant|:observer][;[clientHost:]clientPort]; correct it".into(),
        ),
        (
            member("server.1=a:1:2|b:1:2"),
            "zoo.cfg:5: server.1=a:1:2|b:1:2: expected one address, because multiAddress.enabled is false; set it to true; correct it".into(),
        ),
        (
            member("server.1=a:1:2:observer"),
            "zoo.cfg:5: server.*=only observers: observers need participants to follow; list at least one".into(),
        ),
        (
            member("server.1=a:1:2\nserver.2=a:1:2:observer"),
            "zoo.cfg:5: server.*=one participant and observers: a standalone server cannot serve observers; set standaloneEnabled=false".into(),
        ),
        (
            member("standaloneEnabled=false"),
            "zoo.cfg:5: standaloneEnabled=false: an ensemble needs server.N lines; add them or remove this line".into(),
        ),
        (
            member(&format!("{THREE}extendedTypesEnabled=true")).my_id("1"),
            String::new(),
        ),
        (
            raw(&format!("{base}extendedTypesEnabled=true")).my_id("255"),
            "zoo.cfg:3: extendedTypesEnabled=true: TTL nodes need a server id of at most 254 in dataDir/myid".into(),
        ),
    ];
    for (scene, message) in cases {
        if message.is_empty() {
            scene.config();
        } else {
            assert_eq!(scene.error(), message, "{}", scene.text);
        }
    }
}

#[test]
fn where_clients_connect() {
    let listener = |scene: &Scene| {
        let (config, _) = scene.load().unwrap_or_else(|error| panic!("{error}"));
        (config.client_port, config.client_port_address)
    };
    let others = "initLimit=1\nsyncLimit=1\nserver.2=b:1:2\nserver.3=c:1:2\n";
    let with = |lines: &str| raw(&format!("dataDir=/d\n{lines}\n{others}")).my_id("1");
    let wild = Some("0.0.0.0".to_string());

    assert_eq!(listener(&with("server.1=a:1:2")), (None, None));
    assert_eq!(listener(&with("server.1=a:1:2;2181")), (Some(2181), wild.clone()));
    assert_eq!(listener(&with("clientPort=2181\nserver.1=a:1:2;2181")), (Some(2181), wild.clone()));
    let specific = "clientPort=2181\nclientPortAddress=0.0.0.0\nserver.1=a:1:2;10.0.0.1:2181";
    assert_eq!(listener(&with(specific)), (Some(2181), Some("10.0.0.1".into())));
    let name = "clientPort=2181\nclientPortAddress=a\nserver.1=a:1:2;10.0.0.1:2181";
    assert_eq!(listener(&with(name)), (Some(2181), Some("10.0.0.1".into())));
    // Without myid, the only listed server is this one.
    assert_eq!(listener(&raw("dataDir=/d\nserver.5=a:1:2;2181")), (Some(2181), wild));

    for lines in [
        "clientPort=2182\nserver.1=a:1:2;2181",
        "clientPort=2181\nclientPortAddress=10.0.0.2\nserver.1=a:1:2;10.0.0.1:2181",
    ] {
        let error = with(lines).error();
        assert!(error.starts_with("zoo.cfg:2: clientPort=218"), "{error}");
        assert!(error.contains(": this server's server.N line says "), "{error}");
    }
}

#[test]
fn voting_groups() {
    let config = member(&format!("{THREE}group.1=1:2\ngroup.2=3\nweight.1=0\nweight.3=2\n")).config();
    let membership = config.quorum.expect("an ensemble").membership;
    assert_eq!(membership.groups[&1], [ServerId(1), ServerId(2)].into());
    assert_eq!(membership.groups[&2], [ServerId(3)].into());
    assert_eq!(membership.weights, [(ServerId(1), 0), (ServerId(3), 2)].into());

    let outside = "group.* or weight.* is used, but this participant is in no group; add it to one";
    for (lines, message) in [
        ("group.1=1:2", format!("zoo.cfg:7: server.3=c:2888:3888: {outside}")),
        ("group.1=1:2\ngroup.2=2:3", "zoo.cfg:9: group.2=2:3: expected each server in one group only; correct it".into()),
        ("group.1=1:2,3", "zoo.cfg:8: group.1=1:2,3: expected server ids separated by colons: 1:2:3; correct it".into()),
        ("group.a=1:2:3", "zoo.cfg:8: group.a=1:2:3: expected a group id (a whole number) after the dot; correct it".into()),
        ("group.1=1:2:3\nweight.1=-1", "zoo.cfg:9: weight.1=-1: expected a whole number from 0 to 2147483647; correct it, or remove the line for the default 1".into()),
    ] {
        let error = member(&format!("{THREE}{lines}")).error();
        let first = error.lines().find(|line| **line == message);
        assert_eq!(first, Some(message.as_str()), "{error}");
    }
}

#[test]
fn the_dynamic_file() {
    let path = "/c/zoo.cfg.dynamic.100000029";
    let scene = |content: &str| member(&format!("dynamicConfigFile={path}\n")).file(path, content);
    let config = scene(&format!("{THREE}group.1=1:2:3")).config();
    let quorum = config.quorum.expect("an ensemble");
    assert_eq!(quorum.dynamic_config_file.as_deref(), Some(path));
    assert_eq!(quorum.membership.version, Some(0x1_0000_0029));
    assert_eq!(quorum.membership.servers.len(), 3);

    for (scene, message) in [
        (
            scene(&format!("{THREE}version=1")),
            format!("zoo.cfg:5: dynamicConfigFile: {path}:4: the version is the suffix of the file name; remove the line"),
        ),
        (
            scene(&format!("tickTime=1\n{THREE}")),
            format!("zoo.cfg:5: dynamicConfigFile: {path}:1: `tickTime` does not belong into a dynamic file; move it to the main file"),
        ),
        (
            scene(&format!("{THREE}server.4=x")),
            format!("{path}:4: server.4=x: expected host:quorumPort:electionPort[:participant|:observer][;[clientHost:]clientPort]; correct it"),
        ),
        (
            scene("\\uxxxx"),
            format!("zoo.cfg:5: dynamicConfigFile: {path}: line 1: `\\u` must be followed by four hexadecimal digits; write `\\\\u` for a plain backslash and u"),
        ),
        (
            member("dynamicConfigFile=/none\n"),
            "zoo.cfg:5: dynamicConfigFile: /none does not exist; create it or correct the path".into(),
        ),
        (
            member(&format!("dynamicConfigFile={path}\nserver.1=a:1:2")).file(path, THREE),
            "zoo.cfg:6: server.1=a:1:2: dynamicConfigFile is set, so this line belongs into that file; move it there".into(),
        ),
    ] {
        assert_eq!(scene.error(), message, "{}", scene.text);
    }
}
