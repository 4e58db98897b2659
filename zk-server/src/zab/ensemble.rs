//! Who belongs to the ensemble, what a quorum is, and the text form of both.
//!
//! The text is what `/zookeeper/config` holds, notifications and NEWLEADER carry and dynamic files contain:
//!
//! ```text
//! server.1=10.0.0.1:2888:3888:participant;0.0.0.0:2181
//! server.2=...
//! group.1=1:2:3          only with voting groups
//! weight.1=1             one for each participant then
//! version=100000000
//! ```

use std::collections::BTreeSet;
use std::fmt::Write;

use super::{Membership, PeerType, ServerId};
use crate::config::{ServerSpec, properties};

/// A configuration of the ensemble: its members, and which of them together can decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ensemble {
    /// Zxid of the reconfiguration that made it, or [`super::Epoch::start`] of the first leader; 0 if it comes
    /// from a file and was never established. The larger one is newer.
    pub version: i64,
    /// The members. Its own `version` is always `None`.
    pub membership: Membership,
}

/// Why a text is not a configuration, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no configuration of an ensemble: {0}")]
pub struct BadEnsemble(String);

impl From<Membership> for Ensemble {
    fn from(mut membership: Membership) -> Self {
        let version = membership.version.take();
        let version = version.and_then(|version| i64::try_from(version).ok()).unwrap_or(0);
        Ensemble { version, membership }
    }
}

impl Ensemble {
    /// Reads the text form, in any order of its lines, as Java reads property files.
    ///
    /// # Errors
    /// Anything but `server.N`, `group.N`, `weight.N` and `version` with legal values; groups or weights with a
    /// participant that is in no group, or a server that is in two; no participant.
    pub fn parse(text: &str) -> Result<Ensemble, BadEnsemble> {
        // The grammar's bytes are ISO-8859-1; only escapes can name other characters.
        let mut bytes = Vec::with_capacity(text.len());
        let mut units = [0; 2];
        for c in text.chars() {
            match u8::try_from(c) {
                Ok(byte) if c.is_ascii() => bytes.push(byte),
                _ => c.encode_utf16(&mut units).iter().for_each(|unit| {
                    bytes.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
                }),
            }
        }
        let entries = properties::parse(&bytes).map_err(|error| BadEnsemble(error.to_string()))?;
        let mut ensemble = Ensemble { version: 0, membership: Membership::default() };
        for entry in entries {
            let (key, value) = (entry.key.trim(), entry.value.trim());
            ensemble.entry(key, value).map_err(|why| BadEnsemble(format!("{key}={value}: {why}")))?;
        }
        ensemble.check()?;
        Ok(ensemble)
    }

    fn entry(&mut self, key: &str, value: &str) -> Result<(), String> {
        const SERVER: &str = "a server id is a whole number that is not negative";
        let server = |text: &str| ServerId::parse(text.trim()).ok_or_else(|| SERVER.to_owned());
        let members = &mut self.membership;
        match key.split_once('.') {
            None if key == "version" => {
                // The digits alone: no sign.
                let version = i64::from_str_radix(value, 16).ok().filter(|version| *version >= 0);
                self.version = version.ok_or("the version is a hexadecimal number")?;
            }
            Some(("server", id)) => _ = members.servers.insert(server(id)?, ServerSpec::parse(value)?),
            Some(("group", id)) => {
                let group = id.parse().map_err(|_| "a group id is a whole number")?;
                let ids: BTreeSet<ServerId> = value.split(':').map(server).collect::<Result<_, _>>()?;
                if members.groups.iter().any(|(other, others)| *other != group && !others.is_disjoint(&ids)) {
                    return Err("each server in one group only".into());
                }
                members.groups.insert(group, ids);
            }
            Some(("weight", id)) => {
                let weight = value.parse().map_err(|_| "a weight is a whole number that is not negative")?;
                members.weights.insert(server(id)?, weight);
            }
            _ => return Err("unknown key".into()),
        }
        Ok(())
    }

    /// What no line can say alone.
    fn check(&self) -> Result<(), BadEnsemble> {
        if self.voters().next().is_none() {
            return Err(BadEnsemble("no participant".into()));
        }
        if self.is_hierarchical() {
            let groups = &self.membership.groups;
            let outside = self.voters().find(|id| !groups.values().any(|group| group.contains(id)));
            if let Some(id) = outside {
                return Err(BadEnsemble(format!("participant {id} is in no group")));
            }
        }
        Ok(())
    }

    /// The text form, as Apache writes it for ids in ascending order.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let mut line = |args: std::fmt::Arguments<'_>| {
            // Writing to a string does not fail.
            let _ = text.write_fmt(args);
        };
        for (id, server) in &self.membership.servers {
            line(format_args!("server.{id}={server}\n"));
        }
        if self.is_hierarchical() {
            for (group, ids) in &self.membership.groups {
                let ids: Vec<String> = ids.iter().map(ServerId::to_string).collect();
                line(format_args!("group.{group}={}\n", ids.join(":")));
            }
            let weighed: BTreeSet<ServerId> =
                self.voters().chain(self.membership.weights.keys().copied()).collect();
            for id in weighed {
                line(format_args!("weight.{id}={}\n", self.weight(id)));
            }
        }
        line(format_args!("version={:x}", self.version));
        text
    }

    /// Whether votes are counted by groups. As in Apache, also when only weights are given.
    fn is_hierarchical(&self) -> bool {
        !(self.membership.groups.is_empty() && self.membership.weights.is_empty())
    }

    /// Whether a server votes.
    pub fn is_voter(&self, server: ServerId) -> bool {
        self.peer_type(server) == Some(PeerType::Participant)
    }

    /// The servers that vote, by id.
    pub fn voters(&self) -> impl Iterator<Item = ServerId> {
        self.membership.participants()
    }

    /// Whether a server belongs to the ensemble, voting or not.
    pub fn contains(&self, server: ServerId) -> bool {
        self.membership.servers.contains_key(&server)
    }

    /// What a server is; `None` if it does not belong to the ensemble.
    pub fn peer_type(&self, server: ServerId) -> Option<PeerType> {
        self.membership.servers.get(&server).map(|spec| spec.peer_type)
    }

    /// How much a server's vote counts in its group; 1 when there are no groups. A server of weight 0 is never
    /// elected.
    pub fn weight(&self, server: ServerId) -> u32 {
        self.membership.weights.get(&server).copied().unwrap_or(1)
    }

    /// Whether the servers in `acks` can decide together. Those that do not vote are not counted.
    pub fn is_quorum(&self, acks: &BTreeSet<ServerId>) -> bool {
        if !self.is_hierarchical() {
            let (voters, votes) = self.votes(acks, self.voters());
            return votes > voters / 2;
        }
        let (mut groups, mut won) = (0, 0);
        for group in self.membership.groups.values() {
            let (weight, votes) = self.votes(acks, group.iter().copied().filter(|id| self.is_voter(*id)));
            groups += usize::from(weight > 0);
            won += usize::from(votes > weight / 2);
        }
        won > groups / 2
    }

    /// The weight of all `voters`, and of those among them that are in `acks`.
    fn votes(&self, acks: &BTreeSet<ServerId>, voters: impl Iterator<Item = ServerId>) -> (u64, u64) {
        voters.fold((0, 0), |(all, acked), id| {
            let weight = if self.is_hierarchical() { self.weight(id).into() } else { 1 };
            (all + weight, acked + if acks.contains(&id) { weight } else { 0 })
        })
    }

    /// Whether both have the same servers with the same addresses and types, and count votes alike, whatever
    /// their versions.
    pub fn same_members(&self, other: &Ensemble) -> bool {
        let (a, b) = (&self.membership, &other.membership);
        let alike = |(x, y): (&ServerSpec, &ServerSpec)| x.to_string() == y.to_string();
        a.servers.keys().eq(b.servers.keys())
            && a.servers.values().zip(b.servers.values()).all(alike)
            && a.groups == b.groups
            && self.is_hierarchical() == other.is_hierarchical()
            && self.voters().all(|id| self.weight(id) == other.weight(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAJORITY: &str = "server.1=127.0.0.1:21101:21201:participant;127.0.0.1:21001\n\
                            server.2=127.0.0.1:21102:21202:participant;127.0.0.1:21002\n\
                            server.3=[::1]:21103:21203:participant\n\
                            server.4=127.0.0.1:21104:21204:observer\n\
                            version=100000000";

    fn acks(ids: &[i64]) -> BTreeSet<ServerId> {
        ids.iter().copied().map(ServerId).collect()
    }

    #[test]
    fn the_text_form_is_kept() {
        let ensemble = Ensemble::parse(MAJORITY).unwrap();
        assert_eq!(ensemble.version, 0x1_0000_0000);
        assert_eq!(ensemble.to_text(), MAJORITY);
        assert_eq!(ensemble.peer_type(ServerId(4)), Some(PeerType::Observer));
        assert_eq!(ensemble.peer_type(ServerId(5)), None);
    }

    #[test]
    fn lines_come_in_any_order_and_short_forms_are_completed() {
        let ensemble = Ensemble::parse("version=a\nserver.2=b:1:2|a:3:4;2181\n server.1 = h:1:2 \n").unwrap();
        let text = "server.1=h:1:2:participant\n\
                    server.2=a:3:4|b:1:2:participant;0.0.0.0:2181\n\
                    version=a";
        assert_eq!(ensemble.to_text(), text);
        assert!(ensemble.same_members(&Ensemble::parse(&text.replace("version=a", "")).unwrap()));
        assert!(!ensemble.same_members(&Ensemble::parse(&text.replace("h:1:2", "h:1:3")).unwrap()));
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        for text in [
            "",
            "version=1",
            "server.1=h:1:2:observer",
            "server.x=h:1:2",
            "server.1=h:1",
            "server.1=h:1:2\nversion=-1",
            "server.1=h:1:2\nversion=xyz",
            "server.1=h:1:2\ntickTime=2000",
            "server.1=h:1:2\nserver.2=h:3:4\ngroup.1=1",
            "server.1=h:1:2\nserver.2=h:3:4\ngroup.1=1:2\ngroup.2=2",
            "server.1=h:1:2\nweight.1=2",
            "server.1=h:1:2\ngroup.1=1\nweight.1=-2",
            "server.1=\\u12",
        ] {
            assert!(Ensemble::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn more_than_half_of_the_participants_are_a_quorum() {
        let ensemble = Ensemble::parse(MAJORITY).unwrap();
        assert!(ensemble.is_quorum(&acks(&[1, 3])));
        for few in [&[][..], &[2], &[2, 4], &[2, 5, 6]] {
            assert!(!ensemble.is_quorum(&acks(few)), "{few:?}");
        }
    }

    #[test]
    fn groups_count_by_weight_and_then_by_number() {
        let text = "server.1=h1:1:2:participant\nserver.2=h2:1:2:participant\nserver.3=h3:1:2:participant\n\
                    server.4=h4:1:2:participant\nserver.5=h5:1:2:participant\nserver.6=h6:1:2:observer\n\
                    group.1=1:2:6\ngroup.2=3:4\ngroup.3=5\n\
                    weight.1=2\nweight.2=1\nweight.3=1\nweight.4=1\nweight.5=0\nversion=0";
        let ensemble = Ensemble::parse(text).unwrap();
        assert_eq!(ensemble.to_text(), text);
        // Group 1 needs server 1, group 2 both of its servers; group 3 has no weight, so there are two groups.
        assert!(ensemble.is_quorum(&acks(&[1, 3, 4])));
        for few in [&[1, 3][..], &[2, 3, 4], &[1, 2, 5, 6], &[3, 4, 5]] {
            assert!(!ensemble.is_quorum(&acks(few)), "{few:?}");
        }
        assert_eq!(ensemble.weight(ServerId(5)), 0);
    }

    #[test]
    fn names_outside_ascii_survive() {
        let text = "server.1=zürich-😀:1:2:participant\nversion=0";
        assert_eq!(Ensemble::parse(text).unwrap().to_text(), text);
    }
}
