//! From raw entries to typed settings: precedence, aliases, unknown keys, legal values.

use std::collections::{BTreeMap, BTreeSet};

use super::error::{Origin, Problem, Shown, Warning};
use super::keys::{self, Key, Status};
use super::value::{Kind, Value};

/// A `name = value` as someone wrote it, before anything is known about it.
#[derive(Clone)]
pub(super) struct Raw {
    pub name: String,
    pub value: String,
    pub at: Origin,
    pub raw_non_ascii: bool,
}

/// The setting that won for a key. Not `Debug`: the value may be a password.
#[derive(Clone)]
pub(super) struct Setting {
    pub value: Value,
    /// The value as written, trimmed.
    pub text: String,
    pub at: Origin,
}

/// All known keys that are set, by their real name, and everything worth saying about the others.
#[derive(Default)]
pub(super) struct Settings {
    by_key: BTreeMap<String, Setting>,
    /// Keys that are set to an illegal value: reported, and not to be reported again as missing.
    bad: BTreeSet<String>,
    pub problems: Vec<Problem>,
    pub warnings: Vec<Warning>,
}

/// An entry whose name is resolved, waiting for a stronger one.
struct Candidate {
    key: &'static Key,
    spelled: String,
    is_alias: bool,
    value: String,
    at: Origin,
}

const PROPERTY_PREFIX: &str = "zookeeper.";
/// Nearest keys are looked up for this many unknown keys only, to bound the work on absurd files.
const SUGGESTIONS_MAX: usize = 100;

impl Settings {
    /// Resolves `entries`, ordered from the weakest to the strongest source.
    pub fn resolve(entries: Vec<Raw>) -> Self {
        let mut settings = Settings::default();
        let mut winners: BTreeMap<String, Candidate> = BTreeMap::new();
        let mut unknown = BTreeSet::new();
        for entry in entries {
            // Java's trim: everything up to the blank is white.
            let name = entry.name.trim_matches(|c| c <= ' ');
            let value = entry.value.trim_matches(|c| c <= ' ').to_string();
            if entry.raw_non_ascii {
                let key = Shown::new(name);
                settings.warnings.push(Warning::NotAscii { at: entry.at.clone(), key });
            }
            let Some((real_name, key, spelling)) = known(name, &entry.at) else {
                if unknown.insert(name.to_string()) {
                    let nearest = (unknown.len() <= SUGGESTIONS_MAX)
                        .then(|| keys::nearest(name.strip_prefix(PROPERTY_PREFIX).unwrap_or(name)));
                    settings.warnings.push(Warning::UnknownKey {
                        at: entry.at,
                        key: Shown::new(name),
                        nearest: nearest.flatten(),
                    });
                }
                continue;
            };
            if spelling == Spelling::Documented {
                settings.warnings.push(Warning::Alias {
                    at: entry.at.clone(),
                    key: Shown::new(name),
                    meant: Shown::new(&real_name),
                });
            }
            let is_alias = spelling != Spelling::Real;
            let new = Candidate { key, spelled: name.to_string(), is_alias, value, at: entry.at };
            match winners.entry(real_name) {
                std::collections::btree_map::Entry::Vacant(slot) => _ = slot.insert(new),
                std::collections::btree_map::Entry::Occupied(mut slot) => {
                    // Within one source the real name beats an alias; otherwise the later one wins.
                    let old = slot.get();
                    let old_wins = new.is_alias && !old.is_alias && same_source(&old.at, &new.at);
                    let loser = if old_wins { new } else { slot.insert(new) };
                    let winner = slot.get();
                    if loser.value != winner.value {
                        settings.warnings.push(Warning::Overridden {
                            at: loser.at,
                            key: Shown::new(&loser.spelled),
                            by: winner.at.clone(),
                        });
                    }
                }
            }
        }
        for (name, candidate) in winners {
            settings.accept(name, candidate);
        }
        settings
    }

    fn accept(&mut self, name: String, candidate: Candidate) {
        let Candidate { key, spelled, value: text, at, .. } = candidate;
        if let Status::NoEffect(why) = key.status {
            self.warnings.push(Warning::NoEffect { at, key: Shown::new(&spelled), why });
            return;
        }
        let Some(value) = key.kind.parse(&text) else {
            let value = show(key, &text);
            self.bad.insert(name);
            self.problems.push(Problem::BadValue {
                at,
                key: Shown::new(&spelled),
                value,
                allowed: key.kind.to_string(),
                default: key.default,
            });
            return;
        };
        if let Status::NotBuilt { feature, refuse } = key.status
            && !is_default(key, &value)
        {
            let key = Shown::new(&spelled);
            if refuse {
                let feature = Shown::new(feature);
                self.problems.push(Problem::NotSupported { at: at.clone(), key, feature });
            } else {
                self.warnings.push(Warning::NotBuilt { at: at.clone(), key, feature });
            }
        }
        self.by_key.insert(name, Setting { value, text, at });
    }

    /// The setting for `name`, if the key is set (to whatever value).
    pub fn get(&self, name: &str) -> Option<&Setting> {
        self.by_key.get(name)
    }

    /// Whether `name` is set to a value that its kind does not allow.
    pub fn is_bad(&self, name: &str) -> bool {
        self.bad.contains(name)
    }

    /// Whether `name` is set at all, be it to an illegal value.
    pub fn mentions(&self, name: &str) -> bool {
        self.is_bad(name) || self.get(name).is_some()
    }

    /// All settings whose key begins with `prefix`, with the rest of the key.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Setting)> {
        self.by_key.iter().filter_map(move |(name, s)| Some((name.strip_prefix(prefix)?, s)))
    }

    /// The value of `name`, else the default of its row in the table.
    fn value(&self, name: &str) -> Option<Value> {
        if let Some(setting) = self.get(name) {
            return Some(setting.value.clone());
        }
        let key = keys::find(name);
        debug_assert!(key.is_some(), "{name} is not in the key table");
        key.filter(|key| !key.default.is_empty()).and_then(|key| key.kind.parse(key.default))
    }

    /// A [`Kind::Bool`] or [`Kind::YesNo`] key that has a default.
    pub fn bool(&self, name: &str) -> bool {
        matches!(self.value(name), Some(Value::Bool(true)))
    }

    /// A [`Kind::Int`] key; `None` if it is not set and has no default.
    pub fn int_if_set(&self, name: &str) -> Option<i64> {
        match self.value(name) {
            Some(Value::Int(number)) => Some(number),
            _ => None,
        }
    }

    /// A [`Kind::Int`] key that has a default.
    pub fn int(&self, name: &str) -> i64 {
        self.int_if_set(name).unwrap_or_default()
    }

    /// The same as [`Settings::int`] in a narrower type; the table bounds the range.
    pub fn u32(&self, name: &str) -> u32 {
        narrow(self.int(name))
    }

    /// A [`Kind::Int`] key in which a negative number means "no limit" or "off".
    pub fn u64_unless_negative(&self, name: &str) -> Option<u64> {
        u64::try_from(self.int(name)).ok()
    }

    /// A port; 0 and absence both mean "none", as in Apache.
    pub fn port(&self, name: &str) -> Option<u16> {
        self.int_if_set(name).and_then(|n| u16::try_from(n).ok()).filter(|port| *port != 0)
    }

    /// A [`Kind::Ratio`] key that has a default.
    pub fn ratio(&self, name: &str) -> f64 {
        match self.value(name) {
            Some(Value::Ratio(number)) => number,
            _ => 0.0,
        }
    }

    /// A text key; empty values count as absent.
    pub fn text(&self, name: &str) -> Option<String> {
        match self.value(name) {
            Some(Value::Text(text)) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// An integer that Apache silently raises to `min`; we say so.
    pub fn raised(&mut self, name: &'static str, min: i64) -> i64 {
        let value = self.int(name);
        if value >= min {
            return value;
        }
        if let Some(at) = self.get(name).map(|s| s.at.clone()) {
            self.warnings.push(Warning::Raised { at, key: name, value, used: min });
        }
        min
    }

    /// Records that the setting called `name` has a value that its kind alone cannot judge.
    pub fn bad_value(&mut self, name: &str, allowed: impl Into<String>) {
        if let (Some(setting), Some(key)) = (self.get(name), keys::find(name)) {
            let problem = Problem::BadValue {
                at: setting.at.clone(),
                key: Shown::new(name),
                value: show(key, &setting.text),
                allowed: allowed.into(),
                default: key.default,
            };
            self.problems.push(problem);
        }
    }

    /// Records that the setting called `name` does not go with another one.
    pub fn conflict(&mut self, name: &str, why: impl Into<String>) {
        if let (Some(setting), Some(key)) = (self.get(name), keys::find(name)) {
            let problem = Problem::Conflict {
                at: setting.at.clone(),
                key: Shown::new(name),
                value: show(key, &setting.text),
                why: why.into(),
            };
            self.problems.push(problem);
        }
    }
}

/// Clamps instead of wrapping; the key table keeps legal values in range anyway.
pub(super) fn narrow(number: i64) -> u32 {
    u32::try_from(number.max(0)).unwrap_or(u32::MAX)
}

fn show(key: &Key, text: &str) -> Shown {
    if key.kind == Kind::Secret { Shown::secret() } else { Shown::new(text) }
}

fn is_default(key: &Key, value: &Value) -> bool {
    !key.default.is_empty() && key.kind.parse(key.default).as_ref() == Some(value)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spelling {
    /// The name in the table, or its process property.
    Real,
    /// Another name that Apache reads too.
    Alias,
    /// A name that only the documentation uses.
    Documented,
}

/// Finds the key for a name. Returns its real name (prefix rows keep their suffix).
fn known(name: &str, at: &Origin) -> Option<(String, &'static Key, Spelling)> {
    known_without_prefix(name).or_else(|| {
        // Properties carry the prefix. In a file it is wrong, but the administrator guide prints
        // it.
        let (real_name, key, spelling) = known_without_prefix(name.strip_prefix(PROPERTY_PREFIX)?)?;
        let in_file = matches!(at, Origin::File { .. });
        Some((real_name, key, if in_file { Spelling::Documented } else { spelling }))
    })
}

fn known_without_prefix(name: &str) -> Option<(String, &'static Key, Spelling)> {
    if let Some(key) = keys::find(name) {
        return Some((name.to_string(), key, Spelling::Real));
    }
    let alias = keys::find_alias(name)?;
    let spelling = if alias.works_in_apache { Spelling::Alias } else { Spelling::Documented };
    Some((alias.key.to_string(), keys::find(alias.key)?, spelling))
}

fn same_source(a: &Origin, b: &Origin) -> bool {
    match (a, b) {
        (Origin::File { path: a, .. }, Origin::File { path: b, .. }) => a == b,
        (Origin::Property(a), Origin::Property(b)) => a == b,
        (Origin::Argument(_), Origin::Argument(_)) => true,
        _ => false,
    }
}
