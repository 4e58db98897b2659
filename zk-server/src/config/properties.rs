//! The grammar of Java property files, which is the grammar of `zoo.cfg`.
//!
//! Apache reads its configuration with `java.util.Properties.load(InputStream)`, so this parser
//! follows that class character by character, oddities included: an operator's file must mean here
//! what it means there.
//!
//! * An entry is `key=value`, `key:value` or `key value`; blanks around the separator are dropped,
//!   blanks at the end of a value are kept (the configuration trims them later, as Apache does).
//! * `#` and `!` start a comment only as the first character of a line that is not blank.
//! * An odd number of backslashes at the end of a line continues it; leading blanks of the next
//!   line are dropped.
//! * `\t \n \r \f \uXXXX` are escapes, a backslash before anything else is dropped. Windows paths
//!   need `\\`.
//! * Bytes are ISO-8859-1, whatever the locale: Java decodes them so, hence a UTF-8 `é` is read as
//!   `Ã©` there and here. Write `\u00e9`. No byte sequence is invalid.
//! * An escaped surrogate pair is one character; a lone surrogate, which Rust strings cannot hold,
//!   becomes U+FFFD.

use thiserror::Error;

/// A file with more entries than this is not a configuration file. Keeps memory proportional to the
/// input.
pub const ENTRIES_MAX: usize = 10_000;

/// One `key = value` of a property file, unescaped, in file order. Duplicates are kept: the last
/// one counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key, unescaped, not trimmed. May be empty (`=x`).
    pub key: String,
    /// The value, unescaped, not trimmed. Empty when the line holds only a key.
    pub value: String,
    /// Line on which the entry starts, counted from 1.
    pub line: usize,
    /// Whether the entry was written with bytes outside ASCII, which Java (and this parser) reads
    /// as ISO-8859-1.
    pub raw_non_ascii: bool,
}

/// Why a text is not a property file. Java throws `IllegalArgumentException` for the first.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PropertiesError {
    /// `\u` is not followed by four hexadecimal digits.
    #[error(
        "line {line}: `\\u` must be followed by four hexadecimal digits; \
         write `\\\\u` for a plain backslash and u"
    )]
    MalformedUnicode {
        /// Line on which the entry starts, counted from 1.
        line: usize,
    },
    /// More than [`ENTRIES_MAX`] entries.
    #[error("line {line}: more than {ENTRIES_MAX} entries; this is not a server configuration")]
    TooManyEntries {
        /// Line of the first entry that is too much.
        line: usize,
    },
}

/// Splits `text` into its entries.
///
/// # Errors
/// [`PropertiesError`] for a broken `\u` escape or an absurd number of entries. Nothing else is an error: the grammar
/// gives every other text a meaning.
pub fn parse(text: &[u8]) -> Result<Vec<Entry>, PropertiesError> {
    let mut lines = LogicalLines { text, at: 0, line: 1 };
    let mut entries = Vec::new();
    while let Some((chars, line)) = lines.next_line() {
        if entries.len() == ENTRIES_MAX {
            return Err(PropertiesError::TooManyEntries { line });
        }
        let (key, value) = split(&chars);
        entries.push(Entry {
            key: unescape(key, line)?,
            value: unescape(value, line)?,
            line,
            raw_non_ascii: !chars.is_ascii(),
        });
    }
    Ok(entries)
}

/// Cuts the text into logical lines: comments and blank lines removed, continuations joined,
/// escapes still in place.
struct LogicalLines<'a> {
    text: &'a [u8],
    at: usize,
    /// Natural line number of `at`.
    line: usize,
}

impl LogicalLines<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Takes one byte; `\r\n` counts as one line end but is delivered as two bytes.
    fn take(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        if byte == b'\n' || (byte == b'\r' && self.peek() != Some(b'\n')) {
            self.line += 1;
        }
        Some(byte)
    }

    /// The next logical line and the number of the natural line it starts on.
    fn next_line(&mut self) -> Option<(Vec<u8>, usize)> {
        let mut joined = Vec::new();
        let mut starts_on = self.line;
        let mut skip_blanks = true;
        // After a continuation an empty line ends the entry instead of being skipped.
        let mut continued = false;
        let mut after_backslash = false;
        loop {
            let line = self.line;
            let Some(byte) = self.take() else {
                if joined.is_empty() {
                    return None;
                }
                if after_backslash {
                    joined.pop();
                }
                return Some((joined, starts_on));
            };
            let line_end = byte == b'\n' || byte == b'\r';
            if skip_blanks {
                if is_blank(byte) || (line_end && !continued) {
                    continue;
                }
                skip_blanks = false;
                continued = false;
            }
            if joined.is_empty() {
                if byte == b'#' || byte == b'!' {
                    // A backslash at the end of a comment does not continue it.
                    while self.take().is_some_and(|b| b != b'\n' && b != b'\r') {}
                    skip_blanks = true;
                    continue;
                }
                starts_on = line;
            }
            if !line_end {
                joined.push(byte);
                after_backslash = byte == b'\\' && !after_backslash;
            } else if joined.is_empty() {
                skip_blanks = true;
            } else if after_backslash {
                joined.pop();
                after_backslash = false;
                skip_blanks = true;
                continued = true;
                match self.peek() {
                    // Java returns what it has when the file ends here, even if that is an empty
                    // entry.
                    None => return Some((joined, starts_on)),
                    Some(b'\n') if byte == b'\r' => _ = self.take(),
                    Some(_) => {}
                }
            } else {
                return Some((joined, starts_on));
            }
        }
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0x0c)
}

/// Splits a logical line at the first unescaped `=`, `:` or blank.
fn split(line: &[u8]) -> (&[u8], &[u8]) {
    let mut after_backslash = false;
    let key_end = line.iter().position(|&byte| {
        if !after_backslash && (is_separator(byte) || is_blank(byte)) {
            return true;
        }
        after_backslash = byte == b'\\' && !after_backslash;
        false
    });
    let Some(key_end) = key_end else {
        return (line, &[]);
    };
    let (key, rest) = line.split_at(key_end);
    // One separator belongs between key and value; a second one is part of the value (`a==b` is `a`
    // → `=b`).
    let mut separator_seen = false;
    let value_start = rest.iter().position(|&byte| {
        if is_blank(byte) {
            return false;
        }
        if is_separator(byte) && !separator_seen {
            separator_seen = true;
            return false;
        }
        true
    });
    (key, value_start.map_or(&[][..], |start| rest.split_at(start).1))
}

fn is_separator(byte: u8) -> bool {
    matches!(byte, b'=' | b':')
}

/// Resolves escapes and decodes ISO-8859-1.
fn unescape(raw: &[u8], line: usize) -> Result<String, PropertiesError> {
    let mut text = String::with_capacity(raw.len());
    // First half of an escaped surrogate pair, waiting for the second.
    let mut high: Option<u16> = None;
    let mut rest = raw.iter().copied();
    while let Some(byte) = rest.next() {
        let mut unit = u16::from(byte);
        if byte == b'\\' {
            unit = match rest.next() {
                Some(b'u') => unicode_escape(&mut rest).ok_or(PropertiesError::MalformedUnicode { line })?,
                Some(b't') => u16::from(b'\t'),
                Some(b'n') => u16::from(b'\n'),
                Some(b'r') => u16::from(b'\r'),
                Some(b'f') => 0x0c,
                Some(other) => u16::from(other),
                None => u16::from(b'\\'),
            };
        }
        push_utf16(&mut text, &mut high, unit);
    }
    if high.is_some() {
        text.push(char::REPLACEMENT_CHARACTER);
    }
    Ok(text)
}

fn unicode_escape(rest: &mut impl Iterator<Item = u8>) -> Option<u16> {
    (0..4).try_fold(0_u16, |value, _| {
        let digit = char::from(rest.next()?).to_digit(16)?;
        Some((value << 4) | u16::try_from(digit).ok()?)
    })
}

fn push_utf16(text: &mut String, high: &mut Option<u16>, unit: u16) {
    let units = high.take().into_iter().chain([unit]).collect::<Vec<_>>();
    if matches!(unit, 0xd800..=0xdbff) {
        if units.len() == 2 {
            text.push(char::REPLACEMENT_CHARACTER);
        }
        *high = Some(unit);
        return;
    }
    text.extend(char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: impl AsRef<[u8]>) -> Vec<(String, String, usize)> {
        let entries = parse(text.as_ref()).expect("parses");
        entries.into_iter().map(|e| (e.key, e.value, e.line)).collect()
    }

    type Case<'a> = (&'a str, &'a [(&'a str, &'a str, usize)]);

    /// Every expectation was produced by `java.util.Properties` of OpenJDK 17 (keys and values;
    /// lines are ours).
    #[test]
    fn means_what_java_means() {
        let cases: &[Case] = &[
            ("", &[]),
            ("\n\r\n  \t\x0c\n", &[]),
            ("a=b", &[("a", "b", 1)]),
            ("a:b", &[("a", "b", 1)]),
            ("a b", &[("a", "b", 1)]),
            ("a\tb c", &[("a", "b c", 1)]),
            ("a", &[("a", "", 1)]),
            ("  a  =  b  ", &[("a", "b  ", 1)]),
            ("a==b", &[("a", "=b", 1)]),
            ("a = : b", &[("a", ": b", 1)]),
            ("a  : = b", &[("a", "= b", 1)]),
            ("=b", &[("", "b", 1)]),
            (": b", &[("", "b", 1)]),
            ("a\\=b=c", &[("a=b", "c", 1)]),
            ("a\\ b c", &[("a b", "c", 1)]),
            ("a\\\\=b", &[("a\\", "b", 1)]),
            ("#a=b\n!c=d\n  # e=f\ng=h # not a comment", &[("g", "h # not a comment", 4)]),
            ("# comment \\\na=b", &[("a", "b", 2)]),
            ("a=b\\\n   c", &[("a", "bc", 1)]),
            ("a=b\\\n#c", &[("a", "b#c", 1)]),
            ("a=b\\\n\nc=d", &[("a", "b", 1), ("c", "d", 3)]),
            ("a=b\\\r\n\tc\r\nd=e", &[("a", "bc", 1), ("d", "e", 3)]),
            ("a=b\\\\\nc=d", &[("a", "b\\", 1), ("c", "d", 2)]),
            ("a=b\\\\\\\nc=d", &[("a", "b\\c=d", 1)]),
            ("a=b\\", &[("a", "b", 1)]),
            ("a=b\\\n", &[("a", "b", 1)]),
            ("\\\n#a=b\nc=d", &[("c", "d", 3)]),
            ("a\\\n=b", &[("a", "b", 1)]),
            ("a=1\rb=2\r\rc=3\r\nd=4", &[("a", "1", 1), ("b", "2", 2), ("c", "3", 4), ("d", "4", 5)]),
            ("a=\\t\\n\\r\\f\\q\\:\\#", &[("a", "\t\n\r\x0cq:#", 1)]),
            ("\\u0061=\\u00e9\\u00C9", &[("a", "éÉ", 1)]),
            ("a=\\U0041", &[("a", "U0041", 1)]),
            ("a=\\uD83D\\uDE00!", &[("a", "😀!", 1)]),
            ("dir=C:\\\\zk\\\\data", &[("dir", "C:\\zk\\data", 1)]),
            ("dir=C:\\zk\\data", &[("dir", "C:zkdata", 1)]),
            ("a=\\  b", &[("a", "  b", 1)]),
            ("a=1\na=2", &[("a", "1", 1), ("a", "2", 2)]),
        ];
        for (text, expected) in cases {
            let expected: Vec<_> =
                expected.iter().map(|(k, v, l)| (k.to_string(), v.to_string(), *l)).collect();
            assert_eq!(pairs(text), expected, "{text:?}");
        }
    }

    #[test]
    fn bytes_are_latin_1() {
        assert_eq!(pairs(b"a=\xe9\xff"), [("a".into(), "éÿ".into(), 1)]);
        assert_eq!(pairs("a=é"), [("a".into(), "Ã©".into(), 1)]);
        assert!(parse(b"a=\xe9").expect("parses")[0].raw_non_ascii);
        assert!(!parse(b"a=\\u00e9").expect("parses")[0].raw_non_ascii);
    }

    #[test]
    fn lone_surrogates_become_the_replacement_character() {
        for (text, value) in
            [("\\uD83D", "\u{fffd}"), ("\\uDE00x", "\u{fffd}x"), ("\\uD83D\\uD83D\\uDE00", "\u{fffd}😀")]
        {
            assert_eq!(pairs(format!("a={text}"))[0].1, value, "{text}");
        }
    }

    #[test]
    fn a_broken_unicode_escape_names_its_line() {
        for text in ["a=1\nb=\\u00g0", "a=1\nb=\\u12", "a=1\nb\\u=12345", "\nb=x\\\n\\uzzzz"] {
            assert_eq!(
                parse(text.as_bytes()),
                Err(PropertiesError::MalformedUnicode { line: 2 }),
                "{text:?}"
            );
        }
    }

    #[test]
    fn the_number_of_entries_is_bounded() {
        assert_eq!(parse("a\n".repeat(ENTRIES_MAX).as_bytes()).map(|e| e.len()), Ok(ENTRIES_MAX));
        let too_many = parse("a\n".repeat(ENTRIES_MAX + 1).as_bytes());
        assert_eq!(too_many, Err(PropertiesError::TooManyEntries { line: ENTRIES_MAX + 1 }));
    }
}
