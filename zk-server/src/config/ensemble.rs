//! Reading and judging the membership, and what it says about where clients connect.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use super::error::{Origin, Problem, Shown, Warning};
use super::load::{Reader, from_file};
use super::quorum::{HostPort, Membership, QuorumConfig, ServerId, ServerSpec, parse_role};
use super::settings::{Raw, Setting, Settings, narrow};
use super::value::{Value, integer};

/// Where clients connect.
pub(super) struct ClientListener {
    pub port: Option<u16>,
    pub address: Option<String>,
}

/// Reads the ensemble, and from it and `clientPort` where clients connect.
pub(super) fn ensemble(
    s: &mut Settings,
    file: &str,
    server_id: Option<ServerId>,
    tick_time_ms: u32,
    reader: Option<Reader<'_>>,
) -> (Option<QuorumConfig>, ClientListener) {
    let multi_address = s.bool("multiAddress.enabled");
    let membership = match s.text("dynamicConfigFile") {
        Some(path) => read_dynamic_file(s, Path::new(&path), multi_address, reader),
        None => read_membership(s, multi_address),
    };
    let no_servers = membership.servers.is_empty();
    let quorum = QuorumConfig::from_settings(s, membership, server_id, tick_time_ms);
    check(&quorum, s, file);

    let mut listener = ClientListener {
        port: s.port("clientPort"),
        address: s.text("clientPortAddress").map(|a| a.trim_matches(['[', ']']).to_string()),
    };
    if listener.address.is_some() && listener.port.is_none() && !s.is_bad("clientPort") {
        s.conflict("clientPortAddress", "it needs a clientPort; add one");
    }
    // Without `myid`, the only server of a list can only be this one.
    let only = || quorum.membership.servers.values().next().filter(|_| !quorum.is_distributed());
    let this = match server_id {
        Some(id) => quorum.membership.servers.get(&id),
        None => only(),
    };
    if let Some(listed) = this.and_then(|server| server.client.clone()) {
        if contradicts(&listener, &listed) {
            let why = format!("this server's server.N line says {listed}; make both equal or drop one");
            s.conflict("clientPort", why);
        }
        listener = ClientListener { port: Some(listed.port), address: Some(listed.host) };
    }
    let port_given = listener.port.is_some() || s.is_bad("clientPort") || s.mentions("secureClientPort");
    if !port_given && !quorum.is_distributed() {
        let why = "clients could not connect; write clientPort=2181";
        s.problems.push(Problem::Missing { file: Shown::new(file), key: "clientPort", why });
    }
    ((!no_servers).then_some(quorum), listener)
}

/// Names are not resolved, so hosts contradict each other only when both are addresses.
fn contradicts(configured: &ClientListener, listed: &HostPort) -> bool {
    let Some(port) = configured.port else {
        return false;
    };
    let address = configured.address.as_ref().and_then(|host| host.parse::<IpAddr>().ok());
    let listed_address = listed.host.parse::<IpAddr>().ok();
    let different_hosts = matches!((address, listed_address), (Some(a), Some(b)) if a != b);
    port != listed.port || (different_hosts && !address.is_some_and(|a| a.is_unspecified()))
}

/// Reads the file named by `dynamicConfigFile`: nothing but `server.*`, `group.*` and `weight.*`.
fn read_dynamic_file(
    s: &mut Settings,
    path: &Path,
    multi_address: bool,
    reader: Option<Reader<'_>>,
) -> Membership {
    let is_member_key =
        |name: &str| ["server.", "group.", "weight."].iter().any(|prefix| name.starts_with(prefix));
    for prefix in ["server.", "group.", "weight."] {
        let both: Vec<String> = s.with_prefix(prefix).map(|(id, _)| format!("{prefix}{id}")).collect();
        for name in both {
            s.conflict(&name, "dynamicConfigFile is set, so this line belongs into that file; move it there");
        }
    }
    let Some(at) = s.get("dynamicConfigFile").map(|setting| setting.at.clone()) else {
        return Membership::default();
    };
    let mut refuse = |why: String| {
        s.problems.push(Problem::DynamicFile { at: at.clone(), why });
        Membership::default()
    };
    let shown = Shown::path(path);
    let bytes = match reader.map(|reader| reader(path)) {
        Some(Ok(Some(bytes))) => bytes,
        Some(Ok(None)) | None => {
            return refuse(format!("{shown} does not exist; create it or correct the path"));
        }
        Some(Err(error)) => return refuse(format!("{shown} cannot be read: {error}")),
    };
    let entries = match from_file(path, &bytes) {
        Ok(entries) => entries,
        Err(error) => return refuse(error.to_string()),
    };
    let (members, others): (Vec<Raw>, Vec<Raw>) =
        entries.into_iter().partition(|entry| is_member_key(entry.name.trim()));
    for other in &others {
        let key = Shown::new(other.name.trim());
        let at = &other.at;
        if other.name.trim() == "version" {
            refuse(format!("{at}: the version is the suffix of the file name; remove the line"));
        } else {
            refuse(format!("{at}: `{key}` does not belong into a dynamic file; move it to the main file"));
        }
    }
    let mut dynamic = Settings::resolve(members);
    let mut membership = read_membership(&mut dynamic, multi_address);
    s.problems.append(&mut dynamic.problems);
    s.warnings.append(&mut dynamic.warnings);
    // zoo.cfg.dynamic.<version in hex>
    let suffix = path.extension().and_then(|suffix| suffix.to_str());
    membership.version = suffix.and_then(|hex| u64::from_str_radix(hex, 16).ok());
    membership
}

/// Reads `server.*`, `group.*` and `weight.*` out of resolved settings. `multi_address` says
/// whether a server may have several addresses. Problems are added to the settings.
fn read_membership(settings: &mut Settings, multi_address: bool) -> Membership {
    let mut membership = Membership::default();
    let mut bad: Vec<(String, String)> = Vec::new();
    let reject = |bad: &mut Vec<_>, prefix: &str, suffix: &str, allowed: &str| {
        bad.push((format!("{prefix}{suffix}"), allowed.to_string()));
    };
    const ID: &str = "a server id (a whole number that is not negative) after the dot";

    for (suffix, setting) in settings.with_prefix("server.") {
        let Some(id) = ServerId::parse(suffix) else {
            reject(&mut bad, "server.", suffix, ID);
            continue;
        };
        match ServerSpec::parse(&setting.text) {
            Ok(spec) if spec.addresses.len() > 1 && !multi_address => {
                let why = "one address, because multiAddress.enabled is false; set it to true";
                reject(&mut bad, "server.", suffix, why);
            }
            Ok(spec) => _ = membership.servers.insert(id, spec),
            Err(allowed) => reject(&mut bad, "server.", suffix, &allowed),
        }
    }
    let mut grouped = BTreeMap::new();
    for (suffix, setting) in settings.with_prefix("group.") {
        let Some(group) = integer(suffix) else {
            reject(&mut bad, "group.", suffix, "a group id (a whole number) after the dot");
            continue;
        };
        let members: Option<BTreeSet<_>> =
            setting.text.split(':').map(|id| ServerId::parse(id.trim())).collect();
        let Some(members) = members else {
            reject(&mut bad, "group.", suffix, "server ids separated by colons: 1:2:3");
            continue;
        };
        if members.iter().any(|id| grouped.insert(*id, group).is_some_and(|other| other != group)) {
            reject(&mut bad, "group.", suffix, "each server in one group only");
        }
        membership.groups.insert(group, members);
    }
    for (suffix, Setting { value, .. }) in settings.with_prefix("weight.") {
        match (ServerId::parse(suffix), value) {
            (Some(id), Value::Int(weight)) => {
                membership.weights.insert(id, narrow(*weight));
            }
            _ => reject(&mut bad, "weight.", suffix, ID),
        }
    }
    // With groups, the vote of a participant outside all of them would count nowhere. Apache also
    // counts by groups when only weights are given.
    if !(membership.groups.is_empty() && membership.weights.is_empty()) {
        let outside = membership.participants().filter(|id| !grouped.contains_key(id));
        for id in outside.collect::<Vec<_>>() {
            let name = format!("server.{id}");
            settings.conflict(
                &name,
                "group.* or weight.* is used, but this participant is in no group; add it to one",
            );
        }
    }
    for (name, allowed) in bad {
        settings.bad_value(&name, allowed);
    }
    membership
}

/// What Apache checks once everything is known, and its advice.
fn check(quorum: &QuorumConfig, settings: &mut Settings, file: &str) {
    let participants = quorum.membership.participants().count();
    let observers = quorum.membership.observers().count();
    // The first server line stands for the list in messages; with a dynamic file, the line that
    // names it does.
    let list = || settings.with_prefix("server.").map(|(_, s)| &s.at).next();
    let list = list().or_else(|| settings.get("dynamicConfigFile").map(|s| &s.at));
    let at = list.cloned().unwrap_or(Origin::File { path: file.into(), line: 1 });
    let advise = |settings: &mut Settings, advice| {
        settings.warnings.push(Warning::Membership { at: at.clone(), advice });
    };

    if participants == 0 && observers > 0 {
        settings.problems.push(Problem::Conflict {
            at: at.clone(),
            key: Shown::new("server.*"),
            value: Shown::new("only observers"),
            why: "observers need participants to follow; list at least one".into(),
        });
    }
    if !quorum.is_distributed() {
        if participants == 1 && observers > 0 {
            settings.problems.push(Problem::Conflict {
                at: at.clone(),
                key: Shown::new("server.*"),
                value: Shown::new("one participant and observers"),
                why: "a standalone server cannot serve observers; set standaloneEnabled=false".into(),
            });
        } else if participants == 1 {
            advise(settings, "only one server is listed, so it runs standalone");
        }
        return;
    }
    if participants == 0 && observers == 0 {
        settings
            .conflict("standaloneEnabled", "an ensemble needs server.N lines; add them or remove this line");
        return;
    }
    match participants {
        1 | 2 => advise(
            settings,
            "no server can fail without stopping the ensemble; list at least three participants",
        ),
        n if n % 2 == 0 && quorum.membership.groups.is_empty() => {
            advise(settings, "an even number of participants tolerates no more failures than one less");
        }
        _ => {}
    }
    for (key, value, why) in [
        (
            "initLimit",
            quorum.init_limit_ticks,
            "an ensemble needs it: ticks that a learner may take to connect and synchronise; \
             write initLimit=10",
        ),
        (
            "syncLimit",
            quorum.sync_limit_ticks,
            "an ensemble needs it: ticks that a learner may stay silent; write syncLimit=5",
        ),
    ] {
        if value == 0 && !settings.is_bad(key) {
            settings.problems.push(Problem::Missing { file: Shown::new(file), key, why });
        }
    }
    match quorum.my_id {
        None if settings.problems.iter().any(|p| matches!(p, Problem::MyId { .. })) => {}
        None => settings.problems.push(Problem::Missing {
            file: Shown::new(file),
            key: "myid",
            why: "a member of an ensemble needs the file dataDir/myid with the N of its server.N line",
        }),
        Some(id) => match quorum.membership.servers.get(&id) {
            None => settings.problems.push(Problem::Conflict {
                at: at.clone(),
                key: Shown::new("myid"),
                value: Shown::new(&id.to_string()),
                why: format!("no server.{id} is listed; correct dataDir/myid or add the line"),
            }),
            Some(server) => {
                let configured = settings.text("peerType").and_then(|text| parse_role(&text).ok());
                if configured.is_some_and(|configured| configured != server.peer_type) {
                    advise(settings, "peerType contradicts this server's server.N line; the line wins");
                }
            }
        },
    }
}
