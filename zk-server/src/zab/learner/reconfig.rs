//! Configurations that come with the leader's packets.

use std::sync::Arc;

use bytes::Bytes;

use super::{Ended, Learner, Output, Reason, Role};
use crate::storage::RecordHeader;
use crate::txn::{Txn, kind};
use crate::zab::ensemble::Ensemble;
use crate::zab::{PeerState, PeerType, Proposal, ServerId};

impl Learner {
    /// The configuration of NEWLEADER: the leader's newest one, in force with UPTODATE.
    pub(super) fn announce(&mut self, config: Option<Bytes>, out: &mut Vec<Output>) -> Result<(), Reason> {
        let Some(text) = config.filter(|_| self.options.reconfig_enabled) else { return Ok(()) };
        let ensemble = Arc::new(parse(&text)?);
        self.saw(&ensemble, out);
        self.announced = Some(ensemble);
        Ok(())
    }

    /// Takes note of the configuration that a transaction proposes, if it is a reconfiguration.
    pub(super) fn see_config(&mut self, proposal: &Proposal, out: &mut Vec<Output>) -> Result<(), Reason> {
        if !self.options.reconfig_enabled {
            return Ok(());
        }
        let Some(ensemble) = reconfiguration(proposal)? else { return Ok(()) };
        let ensemble = Arc::new(ensemble);
        self.saw(&ensemble, out);
        let committed = self.in_flight.committed_to();
        self.pending_configs.retain(|zxid, _| *zxid > committed);
        self.pending_configs.insert(proposal.zxid, ensemble);
        Ok(())
    }

    fn saw(&mut self, ensemble: &Arc<Ensemble>, out: &mut Vec<Output>) {
        let newest = self.last_seen.as_ref().unwrap_or(&self.ensemble);
        if ensemble.version > newest.version {
            self.last_seen = Some(ensemble.clone());
            out.push(Output::ConfigSeen(ensemble.clone()));
        }
    }

    /// Puts a configuration in force. Ends the attempt if it changes what this server is, or who leads.
    pub(super) fn activate(
        &mut self,
        ensemble: Arc<Ensemble>,
        designated: Option<ServerId>,
        out: &mut Vec<Output>,
    ) {
        if ensemble.version <= self.ensemble.version {
            return;
        }
        let old = std::mem::replace(&mut self.ensemble, ensemble.clone());
        self.last_seen = self.last_seen.take().filter(|seen| seen.version > ensemble.version);
        let observes = ensemble.peer_type(self.me) == Some(PeerType::Observer);
        let role_changes = observes != (self.role == Role::Observer);
        let leader_changes = match designated {
            Some(leader) => leader != self.leader,
            None => !ensemble.is_voter(self.leader) || moved(self.leader, &old, &ensemble),
        };
        let version = ensemble.version;
        out.push(Output::Activate { ensemble, designated });
        if !role_changes && !leader_changes {
            return;
        }
        let next = designated.map(|leader| match observes {
            _ if leader == self.me => (PeerState::Leading, leader),
            true => (PeerState::Observing, leader),
            false => (PeerState::Following, leader),
        });
        let memory = self.memory.after_election();
        self.finish(out, |rebuild| Ended {
            reason: Reason::Reconfigured(version),
            redial: false,
            next,
            rebuild,
            memory,
        });
    }
}

/// Whether a server's quorum port is elsewhere in the new configuration.
fn moved(server: ServerId, old: &Ensemble, new: &Ensemble) -> bool {
    let addresses = |ensemble: &Ensemble| {
        let spec = ensemble.membership.servers.get(&server)?;
        Some(spec.addresses.iter().map(|at| (at.host.clone(), at.quorum_port)).collect::<Vec<_>>())
    };
    addresses(old) != addresses(new)
}

/// The configuration in a reconfiguration; `None` for any other transaction.
fn reconfiguration(proposal: &Proposal) -> Result<Option<Ensemble>, Reason> {
    let malformed = |error: zk_proto::DecodeError| Reason::Config(error.to_string());
    let mut r = zk_proto::Reader::new(&proposal.payload);
    let header = RecordHeader::read(&mut r).map_err(malformed)?;
    if header.kind != kind::RECONFIG {
        return Ok(None);
    }
    match Txn::decode(header.kind, &mut r).map_err(malformed)? {
        Txn::SetData { data: Some(text), .. } => parse(text).map(Some),
        _ => Err(Reason::Config("a reconfiguration without configuration".into())),
    }
}

fn parse(text: &[u8]) -> Result<Ensemble, Reason> {
    let text = std::str::from_utf8(text).map_err(|error| Reason::Config(error.to_string()))?;
    Ensemble::parse(text).map_err(|error| Reason::Config(error.to_string()))
}
