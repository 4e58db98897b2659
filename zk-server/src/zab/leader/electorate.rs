//! What a quorum has reached, in every configuration that takes part in the decision.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Ensemble, ServerId};
use crate::mutation::Mutation;

/// One configuration's voters.
#[derive(Debug)]
pub(super) struct Electorate {
    pub(super) ensemble: Arc<Ensemble>,
    voters: Vec<ServerId>,
    /// One voter, one vote.
    majority: bool,
}

impl Electorate {
    fn new(ensemble: Arc<Ensemble>) -> Self {
        let voters = ensemble.voters().collect();
        let majority = ensemble.membership.groups.is_empty() && ensemble.membership.weights.is_empty();
        Electorate { ensemble, voters, majority }
    }

    /// Whether the servers that satisfy `has` are a quorum.
    pub(super) fn quorum(&self, has: impl Fn(ServerId) -> bool) -> bool {
        if self.majority {
            let half = self.voters.len() / 2;
            let votes = self.voters.iter().filter(|sid| has(**sid)).count();
            return votes > half || Mutation::HalfIsAQuorum.is_on() && votes >= half;
        }
        let set: BTreeSet<ServerId> = self.voters.iter().copied().filter(|sid| has(*sid)).collect();
        self.ensemble.is_quorum(&set)
    }

    /// The highest value that a quorum has reached. `of` is `None` for a server that has reached none.
    pub(super) fn reached<T: Ord + Copy>(&self, of: impl Fn(ServerId) -> Option<T>) -> Option<T> {
        let mut values: Vec<T> = self.voters.iter().filter_map(|sid| of(*sid)).collect();
        values.sort_unstable_by(|a, b| b.cmp(a));
        if self.majority {
            let few = usize::from(Mutation::CommitTooEarly.is_on());
            return values.get((self.voters.len() / 2).saturating_sub(few)).copied();
        }
        values.dedup();
        values.into_iter().find(|value| self.quorum(|sid| of(sid).is_some_and(|v| v >= *value)))
    }
}

/// The configuration in force, and a newer one that was proposed.
#[derive(Debug)]
pub(super) struct Electorates {
    pub(super) committed: Electorate,
    pub(super) pending: Option<Electorate>,
}

impl Electorates {
    pub(super) fn new(committed: Arc<Ensemble>, last_seen: Option<Arc<Ensemble>>) -> Self {
        let pending = last_seen.filter(|newer| newer.version > committed.version);
        Electorates { committed: Electorate::new(committed), pending: pending.map(Electorate::new) }
    }

    /// From now on both have to decide.
    pub(super) fn propose(&mut self, ensemble: Arc<Ensemble>) {
        self.pending = Some(Electorate::new(ensemble));
    }

    /// The proposed configuration is now the one in force; returns it.
    pub(super) fn activate(&mut self) -> Option<Arc<Ensemble>> {
        self.committed = self.pending.take()?;
        Some(self.committed.ensemble.clone())
    }

    /// The newest configuration, in force or not.
    pub(super) fn last_seen(&self) -> &Arc<Ensemble> {
        &self.pending.as_ref().unwrap_or(&self.committed).ensemble
    }

    fn all(&self) -> impl Iterator<Item = &Electorate> {
        std::iter::once(&self.committed).chain(&self.pending)
    }

    pub(super) fn is_voter(&self, sid: ServerId) -> bool {
        self.all().any(|electorate| electorate.ensemble.is_voter(sid))
    }

    /// Voter or observer.
    pub(super) fn is_member(&self, sid: ServerId) -> bool {
        self.all().any(|electorate| electorate.ensemble.membership.servers.contains_key(&sid))
    }

    /// Whether the servers that satisfy `has` are a quorum of each.
    pub(super) fn quorum(&self, has: impl Fn(ServerId) -> bool) -> bool {
        self.all().all(|electorate| electorate.quorum(&has))
    }

    /// The highest value that a quorum of each has reached.
    pub(super) fn reached<T: Ord + Copy>(&self, of: impl Fn(ServerId) -> Option<T>) -> Option<T> {
        self.all().map(|electorate| electorate.reached(&of)).min().flatten()
    }
}
