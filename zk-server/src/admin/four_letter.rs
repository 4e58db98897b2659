//! The texts of the four-letter words.
//!
//! One function per word. They return the whole reply; after it the connection is closed. The words
//! that list connections, sessions or watches can be long: their callers pass iterators, and should
//! not hold a lock that requests need while they collect.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use zk_proto::SessionId;

use super::{
    ConfReport, ConnectionStats, Dump, Environment, ExpiryBucket, ServerMode, ServerStats, SessionDump,
    TreeDigest, WatchSummary,
};
use crate::config::FourLetterWord;

/// Answer to a word that needs a serving server, when it does not serve.
pub const NOT_SERVING: &str = "This ZooKeeper instance is not currently serving requests\n";
/// `ruok`: the process is alive. Says nothing about the ensemble.
pub const RUOK: &str = "imok";
/// `crst`, after the counters of all connections are reset.
pub const CRST: &str = "Connection stats reset.\n";
/// `srst`, after [`Metrics::reset_traffic`](super::metrics::Metrics::reset_traffic).
pub const SRST: &str = "Server stats reset.\n";
/// The trace mask of a server on which nobody set one: a number that tools may ask for, without
/// effect here.
pub const DEFAULT_TRACE_MASK: i64 = 306;

/// Answer to a word that the whitelist does not allow.
pub fn not_whitelisted(word: FourLetterWord) -> String {
    format!("{word} is not executed because it is not in the whitelist.\n")
}

/// `isro`: `rw`, `ro`, or `null` from a server that does not serve. Clients in search of a server
/// that takes writes compare these bytes.
pub fn isro(mode: Option<ServerMode>) -> &'static str {
    match mode {
        None => "null",
        Some(ServerMode::ReadOnly) => "ro",
        Some(_) => "rw",
    }
}

/// `gtmk`, and `stmk` with the new mask.
pub fn trace_mask(mask: i64) -> String {
    mask.to_string()
}

/// `srvr`: one screen about the server.
pub fn srvr(stats: &ServerStats) -> String {
    let mut text = version_lines(stats);
    server_lines(&mut text, stats);
    text
}

/// `stat`: the same, and one line per connection.
pub fn stat(stats: &ServerStats, connections: impl IntoIterator<Item = ConnectionStats>) -> String {
    let mut text = version_lines(stats);
    text.push_str("Clients:\n");
    for connection in connections {
        connection_line(&mut text, &connection, true);
    }
    text.push('\n');
    server_lines(&mut text, stats);
    text
}

fn version_lines(stats: &ServerStats) -> String {
    let mut text = format!("Zookeeper version: {}\n", stats.version);
    if stats.mode == ServerMode::ReadOnly {
        text.push_str("READ-ONLY mode; serving only read-only clients\n");
    }
    text
}

fn server_lines(text: &mut String, stats: &ServerStats) {
    let traffic = &stats.traffic;
    let latency = traffic.request_latency;
    line(
        text,
        format_args!(
            "Latency min/avg/max: {}/{}/{}",
            latency.min() / 1000,
            decimal(latency.avg() / 1000.0),
            latency.max / 1000
        ),
    );
    line(text, format_args!("Received: {}", traffic.packets_received));
    line(text, format_args!("Sent: {}", traffic.packets_sent));
    line(text, format_args!("Connections: {}", stats.connections));
    line(text, format_args!("Outstanding: {}", stats.outstanding_requests));
    line(text, format_args!("Zxid: 0x{:x}", stats.last_zxid.0));
    line(text, format_args!("Mode: {}", stats.mode));
    line(text, format_args!("Node count: {}", stats.node_count));
    if let Some(sizes) = stats.proposal_sizes {
        let [last, min, max] = [sizes.last, sizes.min, sizes.max].map(or_minus_one);
        line(text, format_args!("Proposal sizes last/min/max: {last}/{min}/{max}"));
    }
}

/// `cons`: everything about every connection.
pub fn cons(connections: impl IntoIterator<Item = ConnectionStats>) -> String {
    let mut text = String::new();
    for connection in connections {
        connection_line(&mut text, &connection, false);
    }
    text.push('\n');
    text
}

fn connection_line(text: &mut String, connection: &ConnectionStats, brief: bool) {
    let ConnectionStats { interest_ops, queued, received, sent, .. } = connection;
    let remote = java_address(connection.remote);
    append(text, format_args!(" {remote}[{interest_ops:x}](queued={queued},recved={received},sent={sent}"));
    if let Some(session) = connection.session.as_ref().filter(|_| !brief) {
        append(
            text,
            format_args!(
                ",sid=0x{:x},lop={},est={},to={}",
                session.id.0, session.last_operation, session.established_ms, session.timeout_ms
            ),
        );
        if let Some(cxid) = session.last_cxid.filter(|cxid| *cxid >= 0) {
            append(text, format_args!(",lcxid=0x{cxid:x}"));
        }
        append(
            text,
            format_args!(
                ",lzxid=0x{:x},lresp={},llat={},minlat={},avglat={},maxlat={}",
                session.last_zxid.0,
                session.last_response_ms,
                session.last_latency_ms,
                session.min_latency_ms,
                session.avg_latency_ms,
                session.max_latency_ms
            ),
        );
    }
    text.push_str(")\n");
}

/// `conf`: the settings in effect.
pub fn conf(conf: &ConfReport) -> String {
    let port = |port: Option<u16>| port.map_or(-1, i32::from);
    let mut text = String::new();
    let mut entry = |key: &str, value: &dyn std::fmt::Display| {
        line(&mut text, format_args!("{key}={value}"));
    };
    entry("clientPort", &port(conf.client_port));
    entry("secureClientPort", &port(conf.secure_client_port));
    entry("dataDir", &conf.data_dir.join("version-2").display());
    entry("dataDirSize", &conf.data_dir_size);
    entry("dataLogDir", &conf.data_log_dir.join("version-2").display());
    entry("dataLogSize", &conf.data_log_size);
    entry("tickTime", &conf.tick_time_ms);
    entry("maxClientCnxns", &conf.max_client_cnxns);
    entry("minSessionTimeout", &conf.min_session_timeout_ms);
    entry("maxSessionTimeout", &conf.max_session_timeout_ms);
    entry("clientPortListenBacklog", &conf.listen_backlog);
    entry("serverId", &conf.server_id);
    if let Some(quorum) = &conf.quorum {
        entry("initLimit", &quorum.init_limit);
        entry("syncLimit", &quorum.sync_limit);
        entry("electionAlg", &quorum.election_algorithm);
        entry("electionPort", &quorum.election_port);
        entry("quorumPort", &quorum.quorum_port);
        entry("peerType", &u8::from(quorum.observer));
        if let Some(membership) = &quorum.membership {
            append(&mut text, format_args!("membership: \n{membership}"));
        }
    }
    text
}

/// `dirs`: bytes on disk.
pub fn dirs(data_dir_size: u64, log_dir_size: u64) -> String {
    format!("datadir_size: {data_dir_size}\nlogdir_size: {log_dir_size}\n")
}

/// `dump`: sessions, ephemeral nodes and connections, and when they expire.
pub fn dump(dump: &Dump) -> String {
    let mut text = "SessionTracker dump:\n".to_string();
    match &dump.sessions {
        SessionDump::Expiring(buckets) => {
            text.push_str("Session ");
            expiry_sets(&mut text, buckets, |text, id| append(text, format_args!("0x{:x}", id.0)));
        }
        SessionDump::Known(sessions) => {
            line(&mut text, format_args!("Global Sessions({}):", sessions.len()));
            for (id, timeout_ms) in sessions {
                line(&mut text, format_args!("0x{:x}\t{timeout_ms}ms", id.0));
            }
        }
    }
    text.push_str("ephemeral nodes dump:\n");
    line(&mut text, format_args!("Sessions with Ephemerals ({}):", dump.ephemerals.len()));
    for (id, paths) in &dump.ephemerals {
        line(&mut text, format_args!("0x{:x}:", id.0));
        for path in paths {
            line(&mut text, format_args!("\t{path}"));
        }
    }
    text.push_str("Connections dump:\nConnections ");
    expiry_sets(&mut text, &dump.connections, |text, connection| {
        let id = connection.session.map_or(0, |session| session.0);
        append(text, format_args!("ip: {} sessionId: 0x{id:x}", java_address(connection.remote)));
    });
    text
}

fn expiry_sets<T>(text: &mut String, buckets: &[ExpiryBucket<T>], show: impl Fn(&mut String, &T)) {
    let members: usize = buckets.iter().map(|bucket| bucket.members.len()).sum();
    line(text, format_args!("Sets ({})/({members}):", buckets.len()));
    for bucket in buckets {
        let (count, date) = (bucket.members.len(), java_date(bucket.expires_ms));
        line(text, format_args!("{count} expire at {date}:"));
        for member in &bucket.members {
            text.push('\t');
            show(text, member);
            text.push('\n');
        }
    }
}

/// `wchs`: how many watches there are.
pub fn wchs(watches: WatchSummary) -> String {
    let WatchSummary { sessions, paths, watches } = watches;
    format!("{sessions} connections watching {paths} paths\nTotal watches:{watches}\n")
}

/// `wchc`: the watched paths of each session.
pub fn wchc<'a, Paths: IntoIterator<Item = &'a str>>(
    sessions: impl IntoIterator<Item = (SessionId, Paths)>,
) -> String {
    let mut text = String::new();
    for (id, paths) in sessions {
        line(&mut text, format_args!("0x{:x}", id.0));
        for path in paths {
            line(&mut text, format_args!("\t{}", OneLine(path)));
        }
    }
    text.push('\n');
    text
}

/// `wchp`: the sessions that watch each path.
pub fn wchp<'a, Sessions: IntoIterator<Item = SessionId>>(
    paths: impl IntoIterator<Item = (&'a str, Sessions)>,
) -> String {
    let mut text = String::new();
    for (path, sessions) in paths {
        line(&mut text, format_args!("{}", OneLine(path)));
        for id in sessions {
            line(&mut text, format_args!("\t0x{:x}", id.0));
        }
    }
    text.push('\n');
    text
}

/// `envi`: the surroundings of the process. Apache adds those of its JVM.
pub fn envi(environment: &Environment) -> String {
    let Environment { version, host_name, os_name, os_arch, .. } = environment;
    let Environment { os_version, user_name, user_home, user_dir, .. } = environment;
    let entries = [
        ("zookeeper.version", version),
        ("host.name", host_name),
        ("os.name", os_name),
        ("os.arch", os_arch),
        ("os.version", os_version),
        ("user.name", user_name),
        ("user.home", user_home),
        ("user.dir", user_dir),
    ];
    let mut text = "Environment:\n".to_string();
    for (key, value) in entries {
        line(&mut text, format_args!("{key}={value}"));
    }
    text
}

/// `hash`: digests of the tree at recent transactions, to compare replicas by.
pub fn hash(digests: impl IntoIterator<Item = TreeDigest>) -> String {
    let mut text = String::new();
    for TreeDigest { zxid, digest } in digests {
        line(&mut text, format_args!("{:x}: {digest}", zxid.0));
    }
    text
}

pub(super) fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    append(text, content);
    text.push('\n');
}

/// The path of a watch, which need not be one of a node: control characters are escaped, so that no client can
/// forge lines of a report.
struct OneLine<'a>(&'a str);

impl std::fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for c in self.0.chars() {
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { f.write_char(c)? }
        }
        Ok(())
    }
}

fn append(text: &mut String, content: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = text.write_fmt(content);
}

/// Java's text for "nothing yet".
pub(super) fn or_minus_one(size: Option<u64>) -> i64 {
    size.map_or(-1, |size| i64::try_from(size).unwrap_or(i64::MAX))
}

/// A mean as Java prints it: rounded to four decimals, with at least one.
pub(super) fn decimal(number: f64) -> String {
    let rounded = (number * 10_000.0).round() / 10_000.0;
    let text = rounded.to_string();
    if text.contains('.') { text } else { text + ".0" }
}

/// An address as Java's `InetSocketAddress` prints it.
fn java_address(address: SocketAddr) -> String {
    match address.ip() {
        IpAddr::V4(ip) => format!("/{ip}:{}", address.port()),
        IpAddr::V6(ip) => {
            let groups = ip.segments().map(|group| format!("{group:x}"));
            format!("/[{}]:{}", groups.join(":"), address.port())
        }
    }
}

/// A time as Java's `Date` prints it, in UTC: `Fri Nov 20 09:21:25 UTC 2026`.
fn java_date(ms_since_1970: i64) -> String {
    const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb"];
    let seconds = ms_since_1970.div_euclid(1000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let weekday = WEEKDAYS[days.rem_euclid(7) as usize];

    // The Gregorian calendar repeats every 400 years (146,097 days). Years counted from March end
    // with the leap day, and from March on, five months have 153 days, again and again.
    let day_since_march_of_0 = days + 719_468;
    let era = day_since_march_of_0.div_euclid(146_097);
    let day_of_era = day_since_march_of_0.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year_of_era + i64::from(month >= 10);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let month = MONTHS[month as usize];
    format!("{weekday} {month} {day:02} {hour:02}:{minute:02}:{second:02} UTC {year}")
}

#[cfg(test)]
pub(super) mod tests;
