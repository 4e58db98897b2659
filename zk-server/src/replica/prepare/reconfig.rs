//! PREPARE of `reconfig`: from what a client wants to the text of a new configuration.

use std::net::IpAddr;
use std::sync::Arc;

use zk_proto::{ErrorCode, Perms, ReconfigRequest};

use super::{Prepare, Scope, WriteRequest};
use crate::config::{Membership, ServerId, ServerSpec};
use crate::zab::ensemble::Ensemble;
use crate::zab::leader::{ReconfigRefusal, ReconfigView};

/// The node that shows the configuration in force.
pub(in super::super) const CONFIG_NODE: &str = "/zookeeper/config";

impl Prepare {
    /// What a leader knows of its ensemble at the moment. To be told before a request to change it.
    pub fn set_reconfig_view(&mut self, view: ReconfigView) {
        self.reconfig_view = Some(view);
    }

    /// The new configurations among the transactions that were prepared since the last call.
    pub fn take_reconfigured(&mut self) -> Vec<Arc<Ensemble>> {
        std::mem::take(&mut self.reconfigured)
    }

    /// The text of the configuration that is to be in force. The order of checks is Apache's.
    pub(super) fn reconfig(
        &mut self,
        scope: &Scope<'_>,
        req: &WriteRequest<'_>,
        wanted: &ReconfigRequest<'_>,
    ) -> Result<String, ErrorCode> {
        if !self.options.reconfig {
            return Err(ErrorCode::RECONFIG_DISABLED);
        }
        req.session_check?;
        let view = self.reconfig_view.clone().ok_or(ErrorCode::UNIMPLEMENTED)?;
        // The leader does not know yet what was prepared a moment ago.
        let in_progress = self.last_reconfig > view.current.version;
        if view.in_progress || in_progress {
            return Err(ErrorCode::RECONFIG_IN_PROGRESS);
        }
        if wanted.cur_config_id != -1 && wanted.cur_config_id != view.current.version {
            return Err(ErrorCode::BAD_VERSION);
        }
        let membership = new_membership(&view, wanted)?;
        let ensemble = Arc::new(Ensemble { version: scope.zxid, membership });
        match view.check(&ensemble) {
            Ok(()) => {}
            Err(ReconfigRefusal::InProgress) => return Err(ErrorCode::RECONFIG_IN_PROGRESS),
            Err(ReconfigRefusal::NoQuorum) => return Err(ErrorCode::NEW_CONFIG_NO_QUORUM),
        }
        let mut node = self.changes.node(scope.tree, CONFIG_NODE).ok_or(ErrorCode::NO_NODE)?;
        self.permit(&node, Perms::WRITE, req.auth)?;
        let text = ensemble.to_text();
        node.stat.version = -1;
        node.stat.mzxid = scope.zxid;
        node.stat.mtime = scope.time;
        node.prefix_crc = crate::tree::digest::prefix_crc(CONFIG_NODE, Some(text.as_bytes()));
        self.changes.put(scope.tree, scope.zxid, CONFIG_NODE, node);
        self.last_reconfig = scope.zxid;
        self.reconfigured.push(ensemble);
        Ok(text)
    }
}

fn new_membership(view: &ReconfigView, wanted: &ReconfigRequest<'_>) -> Result<Membership, ErrorCode> {
    let membership = match &wanted.new_members {
        Some(members) => whole(members)?,
        None => incremental(view, wanted)?,
    };
    let several = |spec: &ServerSpec| spec.addresses.len() > 1;
    if membership.participants().count() < view.voters_min
        || !view.multi_address && membership.servers.values().any(several)
    {
        return Err(ErrorCode::BAD_ARGUMENTS);
    }
    Ok(membership)
}

/// The whole list, in the syntax of a dynamic file or with commas for its line ends.
fn whole(members: &str) -> Result<Membership, ErrorCode> {
    let text = members.replace(',', "\n");
    Ensemble::parse(&text).map(|ensemble| ensemble.membership).map_err(|_| {
        let keys = text.lines().filter_map(|line| line.trim_start().strip_prefix("server."));
        let mut ids = keys.map(|rest| rest.split(['=', ':']).next().unwrap_or_default().trim());
        if ids.all(|id| id.parse::<i64>().is_ok()) {
            ErrorCode::BAD_ARGUMENTS
        } else {
            // Apache stumbles over it.
            ErrorCode::MARSHALLING_ERROR
        }
    })
}

/// The present list with some servers less and some more.
fn incremental(view: &ReconfigView, wanted: &ReconfigRequest<'_>) -> Result<Membership, ErrorCode> {
    let mut membership = view.current.membership.clone();
    if !(membership.groups.is_empty() && membership.weights.is_empty()) {
        return Err(ErrorCode::BAD_ARGUMENTS);
    }
    for leaving in items(wanted.leaving_servers.as_deref()) {
        let id = leaving.parse().map_err(|_| ErrorCode::MARSHALLING_ERROR)?;
        membership.servers.remove(&ServerId(id));
    }
    for joining in items(wanted.joining_servers.as_deref()) {
        let (key, spec) = joining.split_once('=').ok_or(ErrorCode::BAD_ARGUMENTS)?;
        let (key, spec) = (key.trim(), spec.trim());
        let id = key.rsplit('.').next().unwrap_or(key);
        let id: i64 = id.parse().map_err(|_| ErrorCode::MARSHALLING_ERROR)?;
        let spec = ServerSpec::parse(spec).map_err(|_| ErrorCode::BAD_ARGUMENTS)?;
        let others = membership.servers.iter().filter(|(other, _)| other.0 != id);
        if id < 0 || spec.client.is_none() || others.into_iter().any(|(_, other)| shares_port(&spec, other)) {
            return Err(ErrorCode::BAD_ARGUMENTS);
        }
        membership.servers.insert(ServerId(id), spec);
    }
    Ok(membership)
}

fn items(list: Option<&str>) -> impl Iterator<Item = &str> {
    list.unwrap_or_default().split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// Whether two servers would listen on the same address. Addresses that mean another machine on each machine are
/// not compared.
fn shares_port(a: &ServerSpec, b: &ServerSpec) -> bool {
    let elsewhere = |host: &str| {
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified() || ip.is_loopback())
    };
    let listens = |spec: &ServerSpec| {
        let peers = spec.addresses.iter();
        let peers = peers
            .flat_map(|at| [(at.host.clone(), at.quorum_port), (at.host.clone(), at.election_port)])
            .chain(spec.client.iter().map(|at| (at.host.clone(), at.port)));
        peers.filter(|(host, _)| !elsewhere(host)).collect::<Vec<_>>()
    };
    let b = listens(b);
    listens(a).iter().any(|at| b.contains(at))
}
