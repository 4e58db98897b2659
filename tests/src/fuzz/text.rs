//! Targets for text that operators and clients write: configuration, command line, credentials, quotas.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use zk_proto::jute::Reader;
use zk_proto::{Acl, Perms};
use zk_server::auth::{AuthOutcome, ConnAuth, Providers, check, fix_acl, redact_for_get_acl, who_am_i};
use zk_server::cli::{self, Command, ConfigSource, Environment};
use zk_server::config::{Config, Overrides, PropertySource};
use zk_server::tree::{Limits, is_poison};

use super::{MIB, Target};
use crate::vectors::{self, Part};

/// `-D` definitions, one per line, an empty line, then the text of a `zoo.cfg`.
pub const CONFIG: Target = Target {
    name: "config",
    fixed_bytes: MIB,
    seeds: || {
        let seeds: [&[u8]; 6] = [
            b"\ndataDir=/var/lib/zookeeper\nclientPort=2181\ntickTime=2000\ninitLimit=10\nsyncLimit=5\n",
            b"\n# comment\n! another\ndataDir : /d\\\n  ata\nclientPort   2181\nmaxClientCnxns=0\r\n\r\nautopurge.purgeInterval=1\n",
            b"zookeeper.extendedTypesEnabled=true\njute.maxbuffer=4194304\n\ndataDir=/d\nserver.1=a:2888:3888:observer;2181\nserver.2=[::1]:2888:3888|b:2889:3889\ngroup.1=1:2\nweight.1=3\n",
            b"zookeeper.DigestAuthenticationProvider.superDigest=super:xQJmxLMiHGwaqBvst5y6rkB6HQs=\n\nextendedTypesEnabled=TRUE\nminSessionTimeout=-1\nmaxSessionTimeout=99999999999\nsnapshot.compression.method=gz\n",
            b"\nsecureClientPort=2281\nssl.keyStore.location=/k\nssl.keyStore.password=secret\n4lw.commands.whitelist=ruok, *\nmetricsProvider.httpPort=7000\n",
            b"\n\\u0064ataDir=/\\u00e9\\t\\\nclientPortAddress=127.0.0.1\nreconfigEnabled=true\nstandaloneEnabled=false\ndynamicConfigFile=/x\n",
        ];
        seeds.map(<[u8]>::to_vec).into()
    },
    run: |input| {
        let split = input.windows(2).position(|w| w == b"\n\n").map_or(0, |at| at + 1);
        let (definitions, file) = input.split_at(split);
        let mut overrides = Overrides::default();
        for line in String::from_utf8_lossy(definitions).lines() {
            overrides.define(line, PropertySource::CommandLine);
            overrides.define_flags(line, PropertySource::JvmFlags);
        }
        for strict in [false, true] {
            let path = Path::new("zoo.cfg");
            // The same bytes stand for every other file that it names.
            let reader = |_: &Path| Ok(Some(file.to_vec()));
            match Config::from_bytes(path, file, &overrides, strict, &reader) {
                Ok((config, warnings)) => {
                    assert!(!format!("{config:?}").is_empty());
                    for warning in &warnings {
                        assert!(!warning.to_string().is_empty());
                        assert!(!strict || !warning.fails_strict(), "{warning}");
                    }
                }
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
    },
};

/// Arguments, one per line.
pub const COMMAND_LINE: Target = Target {
    name: "command_line",
    // What clap builds for its options.
    fixed_bytes: 4 * MIB,
    seeds: || {
        let seeds = [
            "zoo.cfg",
            "-Dzookeeper.skipACL=yes\n-Djute.maxbuffer=1\nzoo.cfg",
            "2181\n/data\n2000\n60",
            "dev",
            "dev\n--memory\n--port\n0\n-Dextended=1",
            "--strict\n--check-config\nzoo.cfg",
            "--help",
        ];
        seeds.map(|seed| seed.as_bytes().to_vec()).into()
    },
    run: |input| {
        let text = String::from_utf8_lossy(input);
        let args = std::iter::once("zk-server").chain(text.lines());
        let environment = Environment {
            jvm_flags: text.lines().last().unwrap_or_default().to_owned(),
            ..Environment::default()
        };
        match cli::parse(args, &environment) {
            Ok(Command::Serve(serve) | Command::CheckConfig(serve)) => {
                // A file is not for a fuzzer to open.
                if matches!(serve.source, ConfigSource::Arguments(_)) {
                    let _ = serve.load().map_err(|e| assert!(!e.to_string().is_empty()));
                }
            }
            Ok(Command::Dev(dev)) => {
                let _ = dev.load().map_err(|e| assert!(!e.to_string().is_empty()));
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    },
};

/// A list of ACL entries as clients send them, on a connection with identities. What is accepted is accepted
/// again, unchanged.
pub const ACL_RULES: Target = Target {
    name: "acl_rules",
    fixed_bytes: MIB,
    seeds: || {
        let recorded = vectors::all().into_iter();
        let lists = recorded.filter_map(|e| e.decoded.pointer("/body/acl").cloned());
        let more = [
            ("digest", "a:b"),
            ("ip", "10.0.0.0/8"),
            ("ip", "::1/128"),
            ("ip", "fe80::1:2/64"),
            ("auth", ""),
            ("world", "anyone"),
            ("sasl", "bob"),
        ];
        let more = more.map(|(scheme, id)| serde_json::json!([{"perms": 31, "scheme": scheme, "id": id}]));
        lists.chain(more).filter_map(|list| acl_bytes(&list)).collect()
    },
    run: |input| {
        let Ok(list) = Acl::decode_list(&mut Reader::new(input)) else { return };
        let providers = Providers { sasl: true, ..Providers::default() };
        let auth = ConnAuth::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 2181)));
        let AuthOutcome::Ok(auth) = providers.authenticate(&auth, Some("digest"), Some(b"user:password"))
        else {
            panic!("digest lets everybody in")
        };
        let Ok(fixed) = fix_acl(list, &auth, &providers) else { return };
        assert!(!fixed.is_empty());
        assert_eq!(fix_acl(Some(fixed.clone()), &auth, &providers), Ok(dedup(fixed.clone())));
        for perms in [Perms::READ, Perms::ADMIN, Perms::ALL] {
            check(&fixed, perms, &auth, &providers);
        }
        assert_eq!(redact_for_get_acl(&fixed, &auth, &providers).len(), fixed.len());
    },
};

/// A scheme of an auth packet up to the first zero byte, then its token.
pub const AUTH: Target = Target {
    name: "auth",
    fixed_bytes: MIB,
    seeds: || {
        let recorded = vectors::all().into_iter().filter(|e| e.part == Part::Request && e.op == "auth");
        recorded
            .filter_map(|e| {
                let scheme = e.decoded.pointer("/body/scheme")?.as_str()?;
                let token = vectors::unhex(e.decoded.pointer("/body/auth")?.as_str()?);
                Some([scheme.as_bytes(), &[0], &token].concat())
            })
            .collect()
    },
    run: |input| {
        let split = input.iter().position(|&b| b == 0).unwrap_or(input.len());
        let scheme = String::from_utf8_lossy(&input[..split]);
        let token = input.get(split + 1..);
        let providers = Providers::default();
        let auth = ConnAuth::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 2181)));
        if let AuthOutcome::Ok(auth) = providers.authenticate(&auth, Some(&scheme), token) {
            assert!(!who_am_i(&auth).is_empty());
            assert!(!auth.is_super());
        }
    },
};

/// The text of a quota's limits.
pub const QUOTA: Target = Target {
    name: "quota",
    fixed_bytes: MIB,
    seeds: || {
        let seeds = [
            "count=-1,bytes=-1=;byteHardLimit=100;countHardLimit=2",
            "count=1,bytes=0",
            "count=5,bytes=10",
            "junk",
            "count=",
        ];
        seeds.map(|seed| seed.as_bytes().to_vec()).into()
    },
    run: |input| {
        let parsed = Limits::parse(input);
        // What is no statistics may not be stored as such: it would stop Apache's servers.
        let poison = is_poison("/zookeeper/quota/a/zookeeper_stats", Some(input));
        assert!(parsed.is_some() || poison, "unparsable, but allowed");
    },
};

fn dedup(mut list: Vec<Acl<'static>>) -> Vec<Acl<'static>> {
    let mut seen = std::collections::HashSet::new();
    list.retain(|acl| seen.insert(acl.clone()));
    list
}

fn acl_bytes(list: &serde_json::Value) -> Option<Vec<u8>> {
    let entry = |v: &serde_json::Value| {
        let perms = i32::try_from(v["perms"].as_i64()?).ok()?;
        Some(Acl::new(Perms(perms), v["scheme"].as_str()?.to_owned(), v["id"].as_str()?.to_owned()))
    };
    let entries: Option<Vec<_>> = list.as_array()?.iter().map(entry).collect();
    let mut bytes = Vec::new();
    Acl::encode_list(Some(&entries?), &mut bytes);
    Some(bytes)
}
