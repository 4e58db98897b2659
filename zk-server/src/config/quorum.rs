//! Membership and the settings of an ensemble.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use super::settings::{Settings, narrow};

/// The number of a server in its ensemble: the `N` of `server.N`, and the content of `myid`.
///
/// Apache's documentation asks for 1 to 255, because the low byte becomes the high byte of the
/// session ids that the server creates. The code takes any number; we take any that is not
/// negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub i64);

impl ServerId {
    /// The largest id with which TTL nodes work: they use the highest byte of an ephemeral owner,
    /// where other nodes hold the id of a server, and 255 marks them.
    pub const MAX_WITH_EXTENDED_TYPES: ServerId = ServerId(254);

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse().ok().map(ServerId)).flatten()
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether a server votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PeerType {
    /// Votes.
    #[default]
    Participant,
    /// Follows without a vote.
    Observer,
}

impl fmt::Display for PeerType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PeerType::Participant => "participant",
            PeerType::Observer => "observer",
        })
    }
}

/// A host (name or address, not resolved; IPv6 without brackets) and a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl HostPort {
    /// Reads `host:port` or `[v6]:port`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (host, rest) = split_host(text)?;
        Some(HostPort { host: host.into(), port: port(rest).ok()? })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", Bracketed(&self.host), self.port)
    }
}

/// A host in front of a port: IPv6 addresses need brackets there.
struct Bracketed<'a>(&'a str);

impl fmt::Display for Bracketed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.contains(':') { write!(f, "[{}]", self.0) } else { f.write_str(self.0) }
    }
}

/// One address under which peers reach a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAddress {
    /// Name or address, not resolved.
    pub host: String,
    /// Port that learners connect to while this server leads.
    pub quorum_port: u16,
    /// Port on which leaders are elected.
    pub election_port: u16,
}

/// One `server.N` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSpec {
    /// At least one; several only with `multiAddress.enabled`.
    pub addresses: Vec<PeerAddress>,
    /// Whether it votes.
    pub peer_type: PeerType,
    /// Where it listens for clients, if the line says so. Without a host on the line: `0.0.0.0`.
    pub client: Option<HostPort>,
}

impl ServerSpec {
    /// Reads `addr[|addr…][;[host:]port]` with `addr = host:quorumPort:electionPort[:role]`.
    ///
    /// # Errors
    /// What the line should look like instead, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str = "host:quorumPort:electionPort[:participant|:observer][;[clientHost:]clientPort]";
        let form = || FORM.to_string();
        let (peers, client) = match text.split_once(';') {
            Some((_, second)) if second.contains(';') => {
                return Err(format!("at most one client address: {FORM}"));
            }
            Some((peers, client)) => (peers, Some(client).filter(|c| !c.is_empty())),
            None => (text, None),
        };
        let client = client.map(client_address).transpose()?;
        let mut addresses = Vec::new();
        let mut role: Option<PeerType> = None;
        for address in peers.split('|') {
            let (host, rest) = split_host(address).ok_or_else(form)?;
            let rest: Vec<&str> = rest.split(':').collect();
            let (quorum_port, election_port, this_role) = match rest[..] {
                [quorum, election] => (quorum, election, None),
                [quorum, election, role] => (quorum, election, Some(parse_role(role)?)),
                _ => return Err(form()),
            };
            let (quorum_port, election_port) = (port(quorum_port)?, port(election_port)?);
            if quorum_port == election_port {
                return Err("two different ports, the first for learners, the second for elections".into());
            }
            if let (Some(this), Some(other)) = (this_role, role)
                && this != other
            {
                return Err("the same role for all addresses of a server".into());
            }
            role = role.or(this_role);
            addresses.push(PeerAddress { host: host.into(), quorum_port, election_port });
        }
        Ok(ServerSpec { addresses, peer_type: role.unwrap_or_default(), client })
    }
}

/// The form in which servers tell each other, and in which Apache writes dynamic files: the role is always there,
/// addresses are in the order of their hosts.
impl fmt::Display for ServerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut addresses: Vec<&PeerAddress> = self.addresses.iter().collect();
        addresses.sort_by(|a, b| a.host.cmp(&b.host));
        for (i, address) in addresses.into_iter().enumerate() {
            let PeerAddress { host, quorum_port, election_port } = address;
            let separator = if i == 0 { "" } else { "|" };
            write!(f, "{separator}{}:{quorum_port}:{election_port}", Bracketed(host))?;
        }
        write!(f, ":{}", self.peer_type)?;
        self.client.iter().try_for_each(|client| write!(f, ";{client}"))
    }
}

fn client_address(text: &str) -> Result<HostPort, String> {
    if let Some(port) = text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit())) {
        return Ok(HostPort { host: "0.0.0.0".into(), port });
    }
    HostPort::parse(text).ok_or_else(|| "[clientHost:]clientPort after the semicolon".to_string())
}

/// Splits `host:rest` or `[v6]:rest`.
fn split_host(text: &str) -> Option<(&str, &str)> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once("]:")?,
        None => text.split_once(':')?,
    };
    (!host.is_empty()).then_some((host, rest))
}

fn port(text: &str) -> Result<u16, String> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| "ports from 0 to 65535".to_string())
}

pub(super) fn parse_role(text: &str) -> Result<PeerType, String> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("participant") {
        Ok(PeerType::Participant)
    } else if text.eq_ignore_ascii_case("observer") {
        Ok(PeerType::Observer)
    } else {
        Err("the role participant or observer".into())
    }
}

/// Who belongs to the ensemble and how votes are counted: the part that `reconfig` can change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Membership {
    /// All servers, by id.
    pub servers: BTreeMap<ServerId, ServerSpec>,
    /// Voting groups, by group id. Empty: every participant has one vote (a plain majority).
    pub groups: BTreeMap<i64, BTreeSet<ServerId>>,
    /// Weights inside the groups; a participant that is not listed weighs 1.
    pub weights: BTreeMap<ServerId, u32>,
    /// Zxid of the `reconfig` that made this membership: the suffix of the dynamic file's name.
    pub version: Option<u64>,
}

impl Membership {
    /// Ids of the servers that vote.
    pub fn participants(&self) -> impl Iterator<Item = ServerId> {
        self.of_type(PeerType::Participant)
    }

    /// Ids of the servers that do not vote.
    pub fn observers(&self) -> impl Iterator<Item = ServerId> {
        self.of_type(PeerType::Observer)
    }

    fn of_type(&self, peer_type: PeerType) -> impl Iterator<Item = ServerId> {
        let servers = self.servers.iter();
        servers.filter(move |(_, spec)| spec.peer_type == peer_type).map(|(id, _)| *id)
    }
}

/// Everything about the ensemble that this server is a member of.
#[derive(Debug, Clone, PartialEq)]
pub struct QuorumConfig {
    /// Who belongs to it.
    pub membership: Membership,
    /// This server: the content of `myid`. Always present when the server is to run as a member.
    pub my_id: Option<ServerId>,
    /// What the server list says about this server, else `peerType`.
    pub peer_type: PeerType,
    /// `standaloneEnabled`: a single participant runs as a standalone server.
    pub standalone_enabled: bool,
    /// `reconfigEnabled`: clients may change the membership.
    pub reconfig_enabled: bool,
    /// `dynamicConfigFile`: where the membership was read from, if not from the main file.
    pub dynamic_config_file: Option<String>,
    /// The main file, which reconfigurations change. `None` if the configuration is not from a file.
    pub config_file: Option<PathBuf>,
    /// `initLimit`: time for a learner to connect and synchronise, in ticks.
    pub init_limit_ticks: u32,
    /// `syncLimit`: longest silence between leader and learner, in ticks.
    pub sync_limit_ticks: u32,
    /// `connectToLearnerMasterLimit`: time for a learner to connect, in ticks.
    pub connect_to_learner_master_limit_ticks: u32,
    /// `quorumListenOnAllIPs`: bind quorum and election ports on all interfaces.
    pub listen_on_all_ips: bool,
    /// `cnxTimeout`: time to connect to an election port.
    pub election_connect_timeout_ms: u32,
    /// `quorumCnxnTimeoutMs`: longest silence on an election connection.
    pub election_read_timeout_ms: u32,
    /// `electionAlg=0`: elections by rounds of queries, not understood by Apache's servers; else fast leader election.
    pub query_election: bool,
    /// `fastleader.minNotificationInterval`: first pause between repeated votes.
    pub min_notification_interval_ms: u32,
    /// `fastleader.maxNotificationInterval`: longest pause between repeated votes.
    pub max_notification_interval_ms: u32,
    /// `electionPortBindRetry`: attempts to bind the election port; `None` tries for ever.
    pub election_port_bind_retries: Option<u32>,
    /// `tcpKeepAlive`: TCP keep-alive on election connections.
    pub election_tcp_keep_alive: bool,
    /// `leaderServes`: the leader accepts clients.
    pub leader_serves: bool,
    /// `syncEnabled`: an observer keeps a log and snapshots.
    pub observer_sync_enabled: bool,
    /// `observer.reconnectDelayMs`: pause before an observer reconnects.
    pub observer_reconnect_delay_ms: u32,
    /// `observer.election.DelayMs`: pause before an observer asks for the leader.
    pub observer_election_delay_ms: u32,
    /// `observerMasterPort`: port on which a follower serves observers.
    pub observer_master_port: Option<u16>,
    /// `observerMaster.sizeLimit`: memory for committed proposals kept for observers.
    pub observer_master_size_limit_bytes: u32,
    /// `multiAddress.enabled`: several addresses per server.
    pub multi_address_enabled: bool,
    /// `multiAddress.reachabilityCheckEnabled`: find out which of them answers.
    pub reachability_check_enabled: bool,
    /// `multiAddress.reachabilityCheckTimeoutMs`: time for that.
    pub reachability_check_timeout_ms: u32,
    /// `commitLogCount`: committed transactions kept in memory for learners; at least 500.
    pub commit_log_count: u32,
    /// `snapshotSizeFactor`: send a log from disk instead of a snapshot while the log is smaller
    /// than this share of the snapshot; `None` never sends a log from disk.
    pub snapshot_size_factor: Option<f64>,
    /// `forceSnapshotSync`: always send a snapshot (for tests).
    pub force_snapshot_sync: bool,
    /// `leader.maxConcurrentSnapSyncs`: learners that may receive a snapshot at a time.
    pub max_concurrent_snap_syncs: u32,
    /// `leader.maxConcurrentDiffSyncs`: learners that may receive a diff at a time.
    pub max_concurrent_diff_syncs: u32,
    /// `leader.maxTimeToWaitForEpoch`: stop leading when no quorum sent its epoch for so long.
    pub max_time_to_wait_for_epoch_ms: Option<u32>,
    /// `leaderConnectDelayDuringRetryMs`: pause between attempts to connect to the leader.
    pub leader_connect_retry_delay_ms: u32,
}

impl QuorumConfig {
    /// Whether the server runs as a member of an ensemble, not alone: two or more participants, or
    /// `standaloneEnabled=false`.
    pub fn is_distributed(&self) -> bool {
        !self.standalone_enabled || self.membership.participants().nth(1).is_some()
    }

    /// Reads everything but the membership, which may live in another file.
    pub(super) fn from_settings(
        settings: &mut Settings,
        membership: Membership,
        my_id: Option<ServerId>,
        tick_time_ms: u32,
    ) -> Self {
        let s = settings;
        let commit_log_count = narrow(s.raised("commitLogCount", 500));
        let sync_limit_ticks = s.u32("syncLimit");
        let init_limit_ticks = s.u32("initLimit");
        let or = |value: u32, otherwise: u32| if value == 0 { otherwise } else { value };
        let optional = |value: Option<u64>| value.map(|ms| u32::try_from(ms).unwrap_or(u32::MAX));
        let configured_type = s.text("peerType").and_then(|text| parse_role(&text).ok());
        let listed_type = my_id.and_then(|id| membership.servers.get(&id)).map(|server| server.peer_type);
        let factor = s.ratio("snapshotSizeFactor");
        QuorumConfig {
            my_id,
            peer_type: listed_type.or(configured_type).unwrap_or_default(),
            membership,
            standalone_enabled: s.bool("standaloneEnabled"),
            reconfig_enabled: s.bool("reconfigEnabled"),
            dynamic_config_file: s.text("dynamicConfigFile"),
            config_file: None,
            init_limit_ticks,
            sync_limit_ticks,
            connect_to_learner_master_limit_ticks: or(s.u32("connectToLearnerMasterLimit"), init_limit_ticks),
            listen_on_all_ips: s.bool("quorumListenOnAllIPs"),
            election_connect_timeout_ms: s.u32("cnxTimeout"),
            election_read_timeout_ms: optional(s.u64_unless_negative("quorumCnxnTimeoutMs"))
                .unwrap_or_else(|| sync_limit_ticks.saturating_mul(tick_time_ms)),
            query_election: s.text("electionAlg").as_deref() == Some("0"),
            min_notification_interval_ms: s.u32("fastleader.minNotificationInterval"),
            max_notification_interval_ms: s.u32("fastleader.maxNotificationInterval"),
            election_port_bind_retries: Some(s.u32("electionPortBindRetry")).filter(|n| *n > 0),
            election_tcp_keep_alive: s.bool("tcpKeepAlive"),
            leader_serves: s.bool("leaderServes"),
            observer_sync_enabled: s.bool("syncEnabled"),
            observer_reconnect_delay_ms: s.u32("observer.reconnectDelayMs"),
            observer_election_delay_ms: s.u32("observer.election.DelayMs"),
            observer_master_port: s.port("observerMasterPort"),
            observer_master_size_limit_bytes: s.u32("observerMaster.sizeLimit"),
            multi_address_enabled: s.bool("multiAddress.enabled"),
            reachability_check_enabled: s.bool("multiAddress.reachabilityCheckEnabled"),
            reachability_check_timeout_ms: s.u32("multiAddress.reachabilityCheckTimeoutMs"),
            commit_log_count,
            snapshot_size_factor: Some(factor).filter(|factor| *factor >= 0.0),
            force_snapshot_sync: s.bool("forceSnapshotSync"),
            max_concurrent_snap_syncs: s.u32("leader.maxConcurrentSnapSyncs"),
            max_concurrent_diff_syncs: s.u32("leader.maxConcurrentDiffSyncs"),
            max_time_to_wait_for_epoch_ms: optional(s.u64_unless_negative("leader.maxTimeToWaitForEpoch")),
            leader_connect_retry_delay_ms: s.u32("leaderConnectDelayDuringRetryMs"),
        }
    }
}
