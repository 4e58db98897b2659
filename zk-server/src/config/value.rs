//! From the text of a setting to a typed value, and the words that say what would have been
//! allowed.

use std::fmt;

/// What values a key takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// `true` or `false`, in any case. Where Java takes everything but `true` for false without a
    /// word, we refuse: `digest.enabled=yes` does not do what it says there.
    Bool,
    /// `yes` or `no`, in any case. Read as a bool.
    YesNo,
    /// A whole number from `min` to `max`, decimal or `0x…`, in `unit` (empty for a plain count).
    Int {
        /// Smallest legal value.
        min: i64,
        /// Largest legal value.
        max: i64,
        /// Unit in words, for messages.
        unit: &'static str,
    },
    /// A decimal fraction from `min` to `max`.
    Ratio {
        /// Smallest legal value.
        min: f64,
        /// Largest legal value.
        max: f64,
    },
    /// A whole number of hours, or a number with a unit: `90m`, `1d`. Read as an int of
    /// milliseconds.
    Hours,
    /// One of these words, in any case. Read as the word in the spelling of the list.
    OneOf(&'static [&'static str]),
    /// A file or directory.
    Path,
    /// Any text.
    Text,
    /// A text that must never be shown: a password or a digest.
    Secret,
}

/// A value that fits its [`Kind`].
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// From [`Kind::Bool`] and [`Kind::YesNo`].
    Bool(bool),
    /// From [`Kind::Int`] and [`Kind::Hours`].
    Int(i64),
    /// From [`Kind::Ratio`].
    Ratio(f64),
    /// From all others.
    Text(String),
}

const HOUR_MS: i64 = 3_600_000;
/// A hundred years: longer makes no sense and keeps sums of times far from overflow.
const HOURS_MAX: i64 = 876_000;

impl Kind {
    /// Reads `text`, which is already trimmed.
    ///
    /// Numbers follow Java's `Integer.decode` (sign, `0x`, `#`) with one exception: a leading zero
    /// is refused, because some of Apache's keys read `010` as eight and others as ten.
    pub fn parse(self, text: &str) -> Option<Value> {
        match self {
            Kind::Bool => either(text, "true", "false").map(Value::Bool),
            Kind::YesNo => either(text, "yes", "no").map(Value::Bool),
            Kind::Int { min, max, .. } => {
                let number = integer(text).filter(|n| (min..=max).contains(n))?;
                Some(Value::Int(number))
            }
            Kind::Ratio { min, max } => {
                // Rust also reads `inf` and `nan`; the range check drops both.
                let number: f64 = text.parse().ok()?;
                (min..=max).contains(&number).then_some(Value::Ratio(number))
            }
            Kind::Hours => hours(text).map(Value::Int),
            Kind::OneOf(words) => {
                let word = words.iter().find(|word| word.eq_ignore_ascii_case(text))?;
                Some(Value::Text((*word).to_string()))
            }
            Kind::Path => (!text.is_empty() && !text.contains('\0')).then(|| Value::Text(text.into())),
            Kind::Text | Kind::Secret => Some(Value::Text(text.into())),
        }
    }
}

impl fmt::Display for Kind {
    /// The allowed values in words, to stand after "expected".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Kind::Bool => f.write_str("true or false"),
            Kind::YesNo => f.write_str("yes or no"),
            Kind::Int { min, max, unit } => {
                let of = if unit.is_empty() { "" } else { " of " };
                write!(f, "a whole number{of}{unit} from {min} to {max}")
            }
            Kind::Ratio { min, max } => write!(f, "a number from {min} to {max}"),
            Kind::Hours => f.write_str("a whole number of hours, or a number with a unit (ms, s, m, h, d)"),
            Kind::OneOf(words) => {
                for (i, word) in words.iter().enumerate() {
                    let comma = if i == 0 { "" } else { ", " };
                    let word = if word.is_empty() { "nothing" } else { word };
                    write!(f, "{comma}{word}")?;
                }
                Ok(())
            }
            Kind::Path => f.write_str("a path"),
            Kind::Text | Kind::Secret => f.write_str("a text"),
        }
    }
}

fn either(text: &str, yes: &str, no: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case(yes) { Some(true) } else { text.eq_ignore_ascii_case(no).then_some(false) }
}

/// A whole number as Java's `Long.decode` reads it, leading zeros refused.
pub(crate) fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    let hex = ["0x", "0X", "#"].iter().find_map(|prefix| digits.strip_prefix(prefix));
    let (digits, radix) = hex.map_or((digits, 10), |hex| (hex, 16));
    // `from_str_radix` would take a second sign.
    let plain = digits.bytes().all(|b| b.is_ascii_alphanumeric());
    let octal_looking = radix == 10 && digits.len() > 1 && digits.starts_with('0');
    if !plain || octal_looking {
        return None;
    }
    let magnitude = i128::from_str_radix(digits, radix).ok()?;
    i64::try_from(if negative { -magnitude } else { magnitude }).ok()
}

fn hours(text: &str) -> Option<i64> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(unit_at)?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "" | "h" => HOUR_MS,
        "d" => 24 * HOUR_MS,
        _ => return None,
    };
    let ms = integer(number.trim_end())?.checked_mul(unit_ms)?;
    (ms <= HOURS_MAX * HOUR_MS).then_some(ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INT: Kind = Kind::Int { min: -1, max: 0xffff, unit: "ms" };

    #[test]
    fn good_values() {
        let text = |s: &str| Value::Text(s.into());
        let cases = [
            (Kind::Bool, "true", Value::Bool(true)),
            (Kind::Bool, "FALSE", Value::Bool(false)),
            (Kind::YesNo, "Yes", Value::Bool(true)),
            (Kind::YesNo, "no", Value::Bool(false)),
            (INT, "0", Value::Int(0)),
            (INT, "-1", Value::Int(-1)),
            (INT, "+17", Value::Int(17)),
            (INT, "0xfF", Value::Int(255)),
            (INT, "#ff", Value::Int(255)),
            (INT, "0Xffff", Value::Int(65535)),
            (Kind::Ratio { min: -1.0, max: 1.0 }, ".33", Value::Ratio(0.33)),
            (Kind::Hours, "0", Value::Int(0)),
            (Kind::Hours, "-1", Value::Int(-HOUR_MS)),
            (Kind::Hours, "24", Value::Int(24 * HOUR_MS)),
            (Kind::Hours, "30m", Value::Int(HOUR_MS / 2)),
            (Kind::Hours, "1 d", Value::Int(24 * HOUR_MS)),
            (Kind::Hours, "500ms", Value::Int(500)),
            (Kind::OneOf(&["", "gz"]), "GZ", text("gz")),
            (Kind::OneOf(&["", "gz"]), "", text("")),
            (Kind::Path, "/var/lib/zk", text("/var/lib/zk")),
            (Kind::Text, "", text("")),
        ];
        for (kind, input, value) in cases {
            assert_eq!(kind.parse(input), Some(value), "{kind:?} {input:?}");
        }
    }

    #[test]
    fn bad_values() {
        let ratio = Kind::Ratio { min: -1.0, max: 1.0 };
        let cases = [
            (Kind::Bool, &["", "yes", "1", "on", "tru", "true "][..]),
            (Kind::YesNo, &["", "true", "y"]),
            (INT, &["", "-", "+", "x", "1.5", "1 0", "-2", "65536", "--1", "0x", "0x-1", "010", "1_0", "²"]),
            (INT, &["99999999999999999999999999999999999999999", "2000ms", "0xg"]),
            (ratio, &["", "nan", "inf", "1.01", "0,3"]),
            (Kind::Hours, &["", "m", "1w", "1.5h", "1mm", "99999999999", "9223372036854775807"]),
            (Kind::OneOf(&["gz"]), &["", "bzip2"]),
            (Kind::Path, &["", "a\0b"]),
        ];
        for (kind, inputs) in cases {
            for input in inputs {
                assert_eq!(kind.parse(input), None, "{kind:?} {input:?}");
            }
        }
    }

    #[test]
    fn the_allowed_values_read_as_a_sentence() {
        assert_eq!(INT.to_string(), "a whole number of ms from -1 to 65535");
        assert_eq!(Kind::OneOf(&["", "gz"]).to_string(), "nothing, gz");
    }
}
