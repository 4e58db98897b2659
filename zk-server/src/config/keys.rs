//! Every key that this server knows, and what it does with it.
//!
//! The table itself is in [`table`](self::table::KEYS); this file says what a row means and how to
//! look one up. A name in the table is the name in the file; as a process property it carries the
//! prefix `zookeeper.`.

mod table;

pub use table::{ALIASES, KEYS};

use super::value::Kind;

/// One row of the key table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Key {
    /// Name in the file. A trailing `*` stands for any suffix (`server.*`).
    pub name: &'static str,
    /// Legal values.
    pub kind: Kind,
    /// Value that applies when the key is absent; empty when the key then has no value, or when the
    /// default is computed from other keys.
    pub default: &'static str,
    /// What this build does with the key.
    pub status: Status,
}

/// What this build does with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The key is read and acts.
    Used,
    /// The key exists in Apache ZooKeeper but can have no effect here, for the reason given. It is
    /// accepted with one warning.
    NoEffect(&'static str),
    /// The key belongs to a feature that is not built yet. Accepted when it holds its default.
    NotBuilt {
        /// Name of the feature, for messages.
        feature: &'static str,
        /// Whether any other value is refused, because ignoring it would leave the server less
        /// protected or reachable in another way than the operator asked for. Otherwise a warning.
        refuse: bool,
    },
}

/// A name under which the administrator guide or a process property presents another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alias {
    /// The other name.
    pub name: &'static str,
    /// The key it stands for.
    pub key: &'static str,
    /// Whether Apache itself reads this name. If not, its use earns a warning, since the same line
    /// does nothing there.
    pub works_in_apache: bool,
}

/// The row for `name`: an exact one, else the longest prefix row that fits.
pub fn find(name: &str) -> Option<&'static Key> {
    let exact = KEYS.iter().find(|key| key.name == name);
    exact.or_else(|| {
        let prefixed = KEYS.iter().filter(|key| {
            key.name
                .strip_suffix('*')
                .is_some_and(|prefix| name.strip_prefix(prefix).is_some_and(|suffix| !suffix.is_empty()))
        });
        prefixed.max_by_key(|key| key.name.len())
    })
}

/// The alias called `name`, if there is one.
pub fn find_alias(name: &str) -> Option<&'static Alias> {
    ALIASES.iter().find(|alias| alias.name == name)
}

/// Longest unknown name for which a nearest key is looked up; bounds the work on absurd input.
const NEAREST_NAME_MAX: usize = 64;
/// Similarity (0 to 1) below which a guess would rather confuse.
const NEAREST_MIN: f64 = 0.7;

/// The key that the writer of the unknown `name` probably meant.
pub fn nearest(name: &str) -> Option<&'static str> {
    let keys = KEYS.iter().filter(|key| !matches!(key.status, Status::NoEffect(_)));
    nearest_of(name, keys.map(|key| key.name))
}

/// The most similar of `candidates`, if one is similar enough. Case is ignored, and a candidate may
/// be recognised by its last part alone (`purgeInterval`).
pub fn nearest_of<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > NEAREST_NAME_MAX {
        return None;
    }
    let name = name.to_ascii_lowercase();
    let scored = candidates.map(|candidate| {
        let lower = candidate.to_ascii_lowercase();
        let whole = strsim::normalized_damerau_levenshtein(&name, &lower);
        let last = lower.rsplit('.').next().unwrap_or_default();
        // A whole match is a better sign than one of the last part.
        let part = 0.95 * strsim::normalized_damerau_levenshtein(&name, last);
        (whole.max(part), candidate)
    });
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(a.1)))?;
    (best.0 >= NEAREST_MIN).then_some(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_defaults_are_legal() {
        let mut names = BTreeSet::new();
        for key in KEYS {
            assert!(names.insert(key.name), "{} twice", key.name);
            assert!(key.default.is_empty() || key.kind.parse(key.default).is_some(), "{key:?}");
            assert!(!key.name.starts_with("zookeeper."), "{}", key.name);
        }
        for alias in ALIASES {
            assert!(names.insert(alias.name), "{} is a key", alias.name);
            assert!(find(alias.key).is_some_and(|key| key.name == alias.key), "{alias:?}");
        }
    }

    #[test]
    fn prefix_rows_match_longest_first() {
        let name = |n| find(n).map(|key| key.name);
        assert_eq!(name("server.1"), Some("server.*"));
        assert_eq!(name("server."), None);
        assert_eq!(name("ssl.keyStore.location"), Some("ssl.*"));
        assert_eq!(name("ssl.keyStore.password"), Some("ssl.keyStore.password"));
        assert_eq!(name("ssl.context.supplier.class"), Some("ssl.context.supplier.class"));
        assert_eq!(name("tickTime"), Some("tickTime"));
        assert_eq!(name("ticktime"), None);
    }

    #[test]
    fn nearest_key() {
        let cases = [
            ("ticktime", Some("tickTime")),
            ("tickTme", Some("tickTime")),
            ("datadir", Some("dataDir")),
            ("clientport", Some("clientPort")),
            ("snapRetainCount", Some("autopurge.snapRetainCount")),
            ("autopurge.purgeIntervall", Some("autopurge.purgeInterval")),
            ("4lw.command.whitelist", Some("4lw.commands.whitelist")),
            ("maxClientConnections", None),
            ("maxClientCnxn", Some("maxClientCnxns")),
            ("foo", None),
            ("", None),
            ("jute.maxBuffer", Some("jute.maxbuffer")),
            ("mysql.password", None),
        ];
        for (name, expected) in cases {
            assert_eq!(nearest(name), expected, "{name}");
        }
        assert_eq!(nearest(&"a".repeat(1 << 20)), None);
    }
}
