//! What is wrong, in the words that the operator reads.

use super::*;

const I32: &str = "2147483647";

/// Lines after the minimal two → the whole message. Bad values of known keys and bad combinations.
#[test]
fn errors() {
    let int = |from: i64, unit: &str| format!("a whole number of {unit} from {from} to {I32}");
    let boolean = "true or false; correct it, or remove the line for the default";
    let cases = [
        ("tickTime=2s", format!("zoo.cfg:3: tickTime=2s: expected {}; correct it, or remove the line for the default 3000", int(1, "milliseconds"))),
        ("tickTime=0", format!("zoo.cfg:3: tickTime=0: expected {}; correct it, or remove the line for the default 3000", int(1, "milliseconds"))),
        ("tickTime=02000", format!("zoo.cfg:3: tickTime=02000: expected {}; correct it, or remove the line for the default 3000", int(1, "milliseconds"))),
        ("tickTime=", format!("zoo.cfg:3: tickTime=: expected {}; correct it, or remove the line for the default 3000", int(1, "milliseconds"))),
        ("clientPort=70000", "zoo.cfg:3: clientPort=70000: expected a whole number from 0 to 65535; correct it".into()),
        ("\n\nreconfigEnabled=yes", format!("zoo.cfg:5: reconfigEnabled=yes: expected {boolean} false")),
        ("digest.enabled=1", format!("zoo.cfg:3: digest.enabled=1: expected {boolean} true")),
        ("forceSync=true", "zoo.cfg:3: forceSync=true: expected yes or no; correct it, or remove the line for the default yes".into()),
        ("electionAlg=1", "zoo.cfg:3: electionAlg=1: expected 0, 3; correct it, or remove the line for the default 3".into()),
        ("peerType=leader", "zoo.cfg:3: peerType=leader: expected participant, observer; correct it".into()),
        ("snapshot.compression.method=lz4", "zoo.cfg:3: snapshot.compression.method=lz4: expected nothing, gz, snappy; correct it".into()),
        ("autopurge.purgeInterval=1w", "zoo.cfg:3: autopurge.purgeInterval=1w: expected a whole number of hours, or a number with a unit (ms, s, m, h, d); correct it, or remove the line for the default 1".into()),
        ("snapshotSizeFactor=a\\tb\\u0007", "zoo.cfg:3: snapshotSizeFactor=a\\tb: expected a number from -1000000000 to 1000000000; correct it, or remove the line for the default 0.33".into()),
        ("DigestAuthenticationProvider.digestAlg=MD5", "zoo.cfg:3: DigestAuthenticationProvider.digestAlg=MD5: expected SHA1, SHA-1, SHA-256, SHA-512; correct it, or remove the line for the default SHA1".into()),
        ("requestThrottleLimit=x", format!("zoo.cfg:3: requestThrottleLimit=x: expected {}; correct it, or remove the line for the default 0", int(0, "requests"))),
        ("dataLogDir=", "zoo.cfg:3: dataLogDir=: expected a path; correct it".into()),
        ("minSessionTimeout=9\nmaxSessionTimeout=8", "zoo.cfg:3: minSessionTimeout=9: sessions could last at least 9 ms and at most 8 ms; make minSessionTimeout the smaller one (unset, they are 2 and 20 times tickTime)".into()),
        ("maxSessionTimeout=8", "zoo.cfg:3: maxSessionTimeout=8: sessions could last at least 6000 ms and at most 8 ms; make minSessionTimeout the smaller one (unset, they are 2 and 20 times tickTime)".into()),
        ("enforce.auth.enabled=true", "zoo.cfg:3: enforce.auth.enabled=true: it needs enforce.auth.schemes; add enforce.auth.schemes=digest".into()),
        ("enforce.auth.schemes=digest,foo", "zoo.cfg:3: enforce.auth.schemes=digest,foo: expected a comma-separated list of ip, digest; correct it".into()),
        ("enforce.auth.schemes=digest\nDigestAuthenticationProvider.enabled=false", "zoo.cfg:3: enforce.auth.schemes=digest: DigestAuthenticationProvider.enabled is false; set it to true".into()),
        ("metricsProvider.className=com.example.Mine", "zoo.cfg:3: metricsProvider.className=com.example.Mine: expected org.apache.zookeeper.metrics.impl.DefaultMetricsProvider, .impl.NullMetricsProvider or .prometheus.PrometheusMetricsProvider; correct it, or remove the line for the default org.apache.zookeeper.metrics.impl.DefaultMetricsProvider".into()),
        ("a=\\u12", "zoo.cfg: line 3: `\\u` must be followed by four hexadecimal digits; write `\\\\u` for a plain backslash and u".into()),
    ];
    for (lines, message) in cases {
        assert_eq!(minimal(lines).error(), message, "{lines}");
    }
}

/// Files without the minimal lines.
#[test]
fn missing_keys() {
    let data_dir = "zoo.cfg: `dataDir` is missing: it names the directory for snapshots; write dataDir=/var/lib/zookeeper";
    let client_port = "zoo.cfg: `clientPort` is missing: clients could not connect; write clientPort=2181";
    let cases = [
        ("", format!("{data_dir}\n{client_port}")),
        ("dataDir=/d", client_port.into()),
        ("dataDir=/d\nclientPort=0", client_port.into()),
        ("clientPort=1", data_dir.into()),
        (
            "dataDir=/d\nclientPortAddress=localhost",
            format!("zoo.cfg:2: clientPortAddress=localhost: it needs a clientPort; add one\n{client_port}"),
        ),
    ];
    for (text, message) in cases {
        assert_eq!(raw(text).error(), message, "{text}");
    }
}

/// Features without which the server would be less protected, or reachable in another way than asked
/// for, are refused; others are named and ignored; switched off, none is mentioned.
#[test]
fn features_that_are_not_built() {
    let refused = |key, feature| {
        format!("not supported by this build: {key} (zoo.cfg:3): {feature}; remove the line to start without")
    };
    let sasl = "SASL authentication";
    let class = "org.apache.zookeeper.server.auth";
    for (line, message) in [
        ("secureClientPort=2281", refused("secureClientPort", "TLS")),
        ("client.portUnification=true", refused("client.portUnification", "TLS")),
        ("sslQuorum=true", refused("sslQuorum", "TLS")),
        ("portUnification=true", refused("portUnification", "TLS")),
        ("sessionRequireClientSASLAuth=true", refused("sessionRequireClientSASLAuth", sasl)),
        ("quorum.auth.enableSasl=true", refused("quorum.auth.enableSasl", sasl)),
        ("oraclePath=/x", refused("oraclePath", "the two-server oracle")),
        ("enforce.auth.schemes=sasl", refused("enforce.auth.schemes", "the scheme sasl")),
        (
            &format!("authProvider.1={class}.SASLAuthenticationProvider"),
            refused(&format!("authProvider.1={class}.SASLAuthenticationProvider"), sasl),
        ),
        (
            "authProvider.x=com.example.Mine",
            refused("authProvider.x=com.example.Mine", "authentication providers written in Java"),
        ),
    ] {
        assert_eq!(minimal(line).error(), message);
    }

    for line in [
        "ssl.keyStore.location=/k.jks",
        "ssl.quorum.clientAuth=none",
        "quorum.auth.learner.saslLoginContext=QuorumLearner",
        "superUser=alice",
        "admin.commandURL=/x",
        "metricsProvider.foo=1",
        "audit.enable=true",
        "pathStats.enabled=true",
        "fips-mode=false",
    ] {
        let warnings = minimal(line).warnings();
        let [warning] = &warnings[..] else { panic!("{line}: {warnings:?}") };
        let key = line.split_once('=').map(|(key, _)| key).unwrap_or_default();
        assert!(warning.starts_with(&format!("zoo.cfg:3: `{key}` ignored: ")), "{warning}");
        assert!(warning.ends_with(": not supported by this build"), "{warning}");
    }

    for line in [
        "sslQuorum=false",
        "client.portUnification=FALSE",
        "sessionRequireClientSASLAuth=false",
        "quorum.auth.enableSasl=false",
        "admin.enableServer=false",
        "audit.enable=false",
        "metricsProvider.className=org.apache.zookeeper.metrics.impl.DefaultMetricsProvider",
    ] {
        assert_eq!(minimal(line).warnings(), [""; 0], "{line}");
    }
}

/// Even a value of a missing feature has to make sense.
#[test]
fn bad_values_of_missing_features_are_errors() {
    for line in ["secureClientPort=x", "sslQuorum=yes", "admin.serverPort=-1", "audit.enable=on"] {
        assert!(minimal(line).error().starts_with("zoo.cfg:3: "), "{line}");
    }
}

#[test]
fn all_problems_are_reported_at_once_in_the_order_of_the_file() {
    let scene = minimal("syncLimit=x\nfoo=1\ninitLimit=y\nsecureClientPort=1\n").define("snapCount=z");
    let error = scene.load().expect_err("refused");
    let starts: Vec<_> = error.to_string().lines().map(|l| l[..12].to_string()).collect();
    assert_eq!(starts, ["-D option: s", "zoo.cfg:3: s", "zoo.cfg:5: i", "not supporte"]);
    let ConfigError::Invalid { warnings, .. } = error else { panic!("{error:?}") };
    assert_eq!(warnings.len(), 1);
}

#[test]
fn duplicates_and_aliases() {
    let cases = [
        ("snapCount=5\nsnapCount=5", "", 5),
        (
            "snapCount=5\nsnapCount=6",
            "zoo.cfg:3: `snapCount` ignored: zoo.cfg:4 sets it too and wins; remove one of them",
            6,
        ),
        (
            "snapCount=5\nzookeeper.snapCount=6",
            "zoo.cfg:4: `zookeeper.snapCount` is read as `snapCount`; write `snapCount`, Apache ZooKeeper does not know the other name\n\
             zoo.cfg:4: `zookeeper.snapCount` ignored: zoo.cfg:3 sets it too and wins; remove one of them",
            5,
        ),
    ];
    for (lines, warnings, snap_count) in cases {
        let scene = minimal(lines);
        assert_eq!(scene.warnings().join("\n"), warnings);
        assert_eq!(scene.load().map(|(config, _)| config.snap_count).ok(), Some(snap_count));
    }
}

#[test]
fn unknown_words_in_the_whitelist() {
    assert_eq!(
        minimal("4lw.commands.whitelist=rouk,stat,foobar").warnings(),
        [
            "zoo.cfg:3: 4lw.commands.whitelist: there is no word `rouk`; did you mean `ruok`?",
            "zoo.cfg:3: 4lw.commands.whitelist: there is no word `foobar`",
        ]
    );
}

#[test]
fn relative_paths_and_bytes_outside_ascii() {
    assert_eq!(
        raw("clientPort=1\ndataDir=data\ndataLogDir=./logs/é").warnings(),
        [
            "zoo.cfg:2: dataDir=data is relative to the working directory; write it absolute, or begin it with ./ if that is meant",
            "zoo.cfg:3: `dataLogDir`: bytes outside ASCII are read as ISO-8859-1, as Apache ZooKeeper does; write them as \\uXXXX",
        ]
    );
}

#[test]
fn an_unknown_key_is_named_once() {
    assert_eq!(minimal("foo=1\nfoo=2\n foo : 3").warnings(), ["zoo.cfg:3: unknown key `foo` ignored"]);
    assert_eq!(minimal("=1").warnings(), ["zoo.cfg:3: unknown key `` ignored"]);
}

/// `strict` refuses what does not act as written, and lets advice pass.
#[test]
fn strict() {
    for lines in [
        "foo=1",
        "serverCnxnFactory=x",
        "admin.enableServer=true",
        "snapCount=5\nsnapCount=6",
        "snapCount=1",
        "4lw.commands.whitelist=rouk",
    ] {
        let error = minimal(lines).strict().error();
        assert!(error.starts_with("zoo.cfg:3: "), "{error}");
        assert!(error.ends_with("\n--strict: every setting must act as written"), "{error}");
    }
    for lines in ["dataLogDir=relative", "requestThrottleLimit=5", "server.1=h:1:2"] {
        assert!(minimal(lines).strict().load().is_ok(), "{lines}");
    }
}
