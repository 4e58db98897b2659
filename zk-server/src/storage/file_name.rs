//! Names of logs and snapshots.
//!
//! Apache splits a name at its dots, looks at the first part and reads the second as hex, so it takes
//! `log.5.bak` for a log and `snapshot.5.tmp` for a snapshot. Here only exact names count, and our own
//! temporary files have names whose first part Apache does not know.

use std::fmt;

use zk_proto::Zxid;

/// How a snapshot file is compressed; any mix may stand in one directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// One gzip member.
    Gz,
    /// The stream format of snappy-java.
    Snappy,
}

impl Compression {
    fn suffix(self) -> &'static str {
        match self {
            Compression::None => "",
            Compression::Gz => ".gz",
            Compression::Snappy => ".snappy",
        }
    }
}

/// `log.<zxid>`, named by the zxid of its first record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogName(pub Zxid);

impl LogName {
    /// Parses a file name; `None` when it is no log.
    pub fn parse(name: &str) -> Option<Self> {
        parse_hex(name.strip_prefix("log.")?).map(LogName)
    }
}

impl fmt::Display for LogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "log.{:x}", self.0.0)
    }
}

/// `snapshot.<zxid>[.gz|.snappy]`, named by the last zxid applied before it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SnapshotName {
    /// Last applied zxid when the snapshot began: replay goes on behind it.
    pub zxid: Zxid,
    /// How the file is compressed.
    pub compression: Compression,
}

impl SnapshotName {
    /// Parses a file name; `None` when it is no snapshot.
    pub fn parse(name: &str) -> Option<Self> {
        let rest = name.strip_prefix("snapshot.")?;
        let (hex, compression) = match rest.split_once('.') {
            None => (rest, Compression::None),
            Some((hex, "gz")) => (hex, Compression::Gz),
            Some((hex, "snappy")) => (hex, Compression::Snappy),
            Some(_) => return None,
        };
        Some(SnapshotName { zxid: parse_hex(hex)?, compression })
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "snapshot.{:x}{}", self.zxid.0, self.compression.suffix())
    }
}

fn parse_hex(s: &str) -> Option<Zxid> {
    // Exactly as Apache writes it, so that a parsed name prints as the file's name.
    let canonical =
        s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) && (s == "0" || !s.starts_with('0'));
    if !canonical {
        return None;
    }
    i64::from_str_radix(s, 16).ok().map(Zxid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for name in ["log.0", "log.100000001", "log.7fffffffffffffff"] {
            assert_eq!(LogName::parse(name).map(|n| n.to_string()).as_deref(), Some(name));
        }
        for name in ["snapshot.0", "snapshot.7e.gz", "snapshot.20000000c.snappy"] {
            assert_eq!(SnapshotName::parse(name).map(|n| n.to_string()).as_deref(), Some(name));
        }
    }

    #[test]
    fn foreign_names_are_no_logs_and_no_snapshots() {
        for name in [
            "log",
            "log.",
            "log.5.bak",
            "log.-5",
            "log.+5",
            "log.x",
            "log.8000000000000000",
            "Log.5",
            "log.A",
            "log.05",
        ] {
            assert_eq!(LogName::parse(name), None, "{name}");
        }
        for name in ["snapshot.5.tmp", "snapshot..gz", "snapshot.5.gz.tmp", ".tmp-snapshot.5", "snapshot.+5"]
        {
            assert_eq!(SnapshotName::parse(name), None, "{name}");
        }
    }
}
