//! Who may vote, and what a quorum is, while a change of the membership may be pending.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::vote::Vote;
use crate::zab::ServerId;
use crate::zab::ensemble::Ensemble;

/// The configuration in force, and a newer one that may come into force.
#[derive(Debug)]
pub(super) struct Electorate {
    committed: Arc<Ensemble>,
    /// Newer than the committed one.
    pending: Option<Arc<Ensemble>>,
}

impl Electorate {
    pub fn new(committed: Arc<Ensemble>, last_seen: Option<Arc<Ensemble>>) -> Self {
        let pending = last_seen.filter(|seen| seen.version > committed.version);
        Electorate { committed, pending }
    }

    pub fn committed(&self) -> &Arc<Ensemble> {
        &self.committed
    }

    /// The newer configuration.
    pub fn pending(&self) -> Option<&Arc<Ensemble>> {
        self.pending.as_ref()
    }

    pub fn all(&self) -> impl Iterator<Item = &Ensemble> {
        [Some(&self.committed), self.pending.as_ref()].into_iter().flatten().map(Arc::as_ref)
    }

    /// All servers that vote in one of the configurations.
    pub fn voters(&self) -> BTreeSet<ServerId> {
        self.all().flat_map(|ensemble| ensemble.voters()).collect()
    }

    pub fn is_voter(&self, server: ServerId) -> bool {
        self.all().any(|ensemble| ensemble.is_voter(server))
    }

    /// Whether a configuration lists the server, with or without a vote.
    pub fn contains(&self, server: ServerId) -> bool {
        self.all().any(|ensemble| ensemble.contains(server))
    }

    /// Whether `servers` are a quorum in every configuration.
    pub fn is_quorum(&self, servers: &BTreeSet<ServerId>) -> bool {
        self.all().all(|ensemble| ensemble.is_quorum(servers))
    }

    /// Whether `vote` beats `other`. A candidate of weight 0 never does.
    pub fn better(&self, vote: &Vote, other: &Vote) -> bool {
        self.committed.weight(vote.candidate()) > 0 && vote > other
    }
}
