//! How contenders are named in a directory, so that ours, Curator's and kazoo's exclude each other where they
//! can, and notice where they can't.
//!
//! A contender's name is any prefix, the layout's base, and the sequence number that the server appended: the
//! parent's create counter as `%010d` of a signed 32-bit integer.

use std::cmp::Ordering;

use crate::error::{RecipeError, Result};

/// Naming of contender nodes. Contenders in one directory must use one layout.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Layout {
    /// Apache Curator's: `_c_<guid>-lock-<seq>`, and `_c_<guid>-latch-<seq>` for latches.
    #[default]
    Curator,
    /// kazoo's: `<guid without dashes>__lock__<seq>`.
    Kazoo,
    /// A base of one's own. Names that end with one of `foreign` and a sequence number count as contenders too.
    Custom {
        /// Stands between the GUID and the sequence number.
        base: String,
        /// Bases of other libraries that take part in the same line.
        foreign: Vec<String>,
    },
}

/// What contends: decides the base in Curator's layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Lock,
    Latch,
}

/// Bases of layouts that do not exclude each other.
const KNOWN_BASES: [&str; 5] = ["-lock-", "-latch-", "__lock__", "__rlock__", "-__WRIT__"];

/// Position in the line: the number that the server appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Sequence(pub i32);

impl Sequence {
    /// At the end of the counter numbers repeat, and behind it they are negative: nobody may win with one.
    pub fn is_exhausted(self) -> bool {
        self.0 < 0 || self.0 == i32::MAX
    }

    /// Serial-number order: right as long as contenders are less than 2^31 apart.
    pub fn order(self, other: Sequence) -> Ordering {
        self.0.wrapping_sub(other.0).cmp(&0)
    }

    /// The number behind `base` at the end of a name: ten digits, or a minus sign and nine or ten.
    pub fn behind(name: &str, base: &str) -> Option<Sequence> {
        let text = &name[name.rfind(base)? + base.len()..];
        let digits = text.strip_prefix('-').unwrap_or(text);
        let lengths = if text.len() == digits.len() { 10..=10 } else { 9..=10 };
        if !lengths.contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        text.parse().ok().map(Sequence)
    }
}

/// A contender in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub name: String,
    pub sequence: Sequence,
}

impl Layout {
    /// What stands between the GUID and the sequence number.
    pub(crate) fn base(&self, kind: Kind) -> &str {
        match (self, kind) {
            (Layout::Curator, Kind::Lock) => "-lock-",
            (Layout::Curator, Kind::Latch) => "-latch-",
            (Layout::Kazoo, _) => "__lock__",
            (Layout::Custom { base, .. }, _) => base,
        }
    }

    /// Prefix that only names with this GUID (in its dashed form) have.
    pub(crate) fn prefix(&self, guid: &str) -> String {
        match self {
            Layout::Curator => format!("_c_{guid}"),
            Layout::Kazoo | Layout::Custom { .. } => guid.replace('-', ""),
        }
    }

    /// The contenders among the children of `dir`, in line order. Other children are no business of ours, unless
    /// they are contenders in a layout that does not see ours.
    pub(crate) fn line(&self, kind: Kind, dir: &str, children: Vec<String>) -> Result<Vec<Place>> {
        let mut line = Vec::with_capacity(children.len());
        for name in children {
            if let Some(sequence) = self.bases(kind).find_map(|base| Sequence::behind(&name, base)) {
                line.push(Place { name, sequence });
            } else if KNOWN_BASES.iter().any(|base| Sequence::behind(&name, base).is_some()) {
                return Err(RecipeError::MixedLayout { dir: dir.to_owned(), name });
            }
        }
        line.sort_by(|a, b| a.sequence.order(b.sequence).then_with(|| a.name.cmp(&b.name)));
        Ok(line)
    }

    /// All bases that count as contenders.
    fn bases(&self, kind: Kind) -> impl Iterator<Item = &str> {
        let foreign = match self {
            Layout::Custom { foreign, .. } => foreign.as_slice(),
            Layout::Curator | Layout::Kazoo => &[],
        };
        std::iter::once(self.base(kind)).chain(foreign.iter().map(String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_at_the_end_of_names() {
        let cases = [
            ("_c_x-lock-0000000007", "-lock-", Some(7)),
            ("x__lock__0000000010", "__lock__", Some(10)),
            ("_c_x-lock-2147483647", "-lock-", Some(i32::MAX)),
            ("_c_x-lock--2147483648", "-lock-", Some(i32::MIN)),
            ("x__lock__-000000005", "__lock__", Some(-5)),
            ("_c_x-lock-9999999999", "-lock-", None),
            ("_c_x-lock-123", "-lock-", None),
            ("_c_x-lock-000000000x", "-lock-", None),
            ("abc", "-lock-", None),
            ("", "-lock-", None),
        ];
        for (name, base, expected) in cases {
            assert_eq!(Sequence::behind(name, base).map(|sequence| sequence.0), expected, "{name}");
        }
    }

    #[test]
    fn the_line_is_ordered_by_number_not_by_name() {
        let names = ["_c_b-lock-0000000002", "_c_a-lock-0000000010", "_c_c-lock-0000000001", "config"];
        let line = Layout::Curator.line(Kind::Lock, "/l", names.map(str::to_owned).to_vec()).unwrap();
        assert_eq!(line.iter().map(|place| place.sequence.0).collect::<Vec<_>>(), [1, 2, 10]);
    }

    #[test]
    fn a_foreign_layout_is_noticed() {
        let kazoo = vec!["0123456789abcdef0123456789abcdef__lock__0000000000".to_owned()];
        let error = Layout::Curator.line(Kind::Lock, "/l", kazoo.clone());
        assert!(matches!(error, Err(RecipeError::MixedLayout { .. })));
        assert_eq!(Layout::Kazoo.line(Kind::Lock, "/l", kazoo.clone()).unwrap().len(), 1);
        let custom = Layout::Custom { base: "-mine-".into(), foreign: vec!["__lock__".into()] };
        assert_eq!(custom.line(Kind::Lock, "/l", kazoo).unwrap().len(), 1);
    }

    #[test]
    fn numbers_wrap_in_serial_order() {
        assert_eq!(Sequence(i32::MAX).order(Sequence(i32::MIN)), Ordering::Less);
        assert_eq!(Sequence(5).order(Sequence(4)), Ordering::Greater);
        assert!(
            Sequence(i32::MAX).is_exhausted() && Sequence(-1).is_exhausted() && !Sequence(0).is_exhausted()
        );
    }
}
