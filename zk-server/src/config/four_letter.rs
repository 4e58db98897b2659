//! Which four-letter words exist, and which of them a server answers to whom.

use std::collections::BTreeSet;
use std::fmt;

/// One of the commands that a monitoring tool sends as the first four bytes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the words are explained by `FourLetterWord::purpose`")]
pub enum FourLetterWord {
    Conf,
    Cons,
    Crst,
    Dirs,
    Dump,
    Envi,
    Gtmk,
    Hash,
    Isro,
    Mntr,
    Ruok,
    Srst,
    Srvr,
    Stat,
    Stmk,
    Wchc,
    Wchp,
    Wchs,
}

use FourLetterWord::*;

impl FourLetterWord {
    /// Every word, in alphabetical order.
    pub const ALL: [FourLetterWord; 18] = [
        Conf, Cons, Crst, Dirs, Dump, Envi, Gtmk, Hash, Isro, Mntr, Ruok, Srst, Srvr, Stat, Stmk, Wchc, Wchp,
        Wchs,
    ];

    /// The word as it travels.
    pub fn name(self) -> &'static str {
        match self {
            Conf => "conf",
            Cons => "cons",
            Crst => "crst",
            Dirs => "dirs",
            Dump => "dump",
            Envi => "envi",
            Gtmk => "gtmk",
            Hash => "hash",
            Isro => "isro",
            Mntr => "mntr",
            Ruok => "ruok",
            Srst => "srst",
            Srvr => "srvr",
            Stat => "stat",
            Stmk => "stmk",
            Wchc => "wchc",
            Wchp => "wchp",
            Wchs => "wchs",
        }
    }

    /// What the word is for, in a few words.
    pub fn purpose(self) -> &'static str {
        match self {
            Conf => "settings in effect",
            Cons => "every connection with its counters",
            Crst => "reset the counters of all connections",
            Dirs => "size of snapshots and logs on disk",
            Dump => "sessions, their expiry and their ephemeral nodes",
            Envi => "the process's environment",
            Gtmk => "the trace mask",
            Hash => "digests of the tree at recent transactions",
            Isro => "read-write or read-only",
            Mntr => "all metrics",
            Ruok => "is the process alive",
            Srst => "reset latency and packet counters",
            Srvr => "summary of the server",
            Stat => "summary of the server and its connections",
            Stmk => "set the trace mask",
            Wchc => "watches by session",
            Wchp => "watches by path",
            Wchs => "number of watches",
        }
    }

    /// Recognises the first four bytes of a connection. Upper case is not a word, as in Apache.
    pub fn from_bytes(bytes: [u8; 4]) -> Option<Self> {
        Self::ALL.into_iter().find(|word| word.name().as_bytes() == bytes)
    }

    /// Recognises a word in a text.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|word| word.name() == name)
    }

    /// Whether the word is answered while the server does not serve requests (no quorum, or still
    /// starting). The others then get a fixed refusal.
    pub fn answers_while_not_serving(self) -> bool {
        matches!(self, Ruok | Envi | Gtmk | Stmk | Isro)
    }
}

impl fmt::Display for FourLetterWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `4lw.commands.whitelist`: the words that are answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FourLetterWhitelist {
    /// `*`: every word, to everybody.
    All,
    /// These words, to everybody. `srvr` is always among them.
    Only(BTreeSet<FourLetterWord>),
    /// Nothing was configured: `srvr` (and `isro`, where read-only mode is on) to everybody as in
    /// Apache, and the harmless words that health checks use (`ruok`, `isro`, `mntr`) to clients on
    /// the same machine.
    Default {
        /// Whether `readonlymode.enabled` is set: clients then need `isro` to find a server.
        read_only_mode: bool,
    },
}

impl FourLetterWhitelist {
    /// Whether `word` is answered to a client; `loopback` says that it is on the same machine.
    pub fn allows(&self, word: FourLetterWord, loopback: bool) -> bool {
        match self {
            FourLetterWhitelist::All => true,
            FourLetterWhitelist::Only(words) => words.contains(&word),
            FourLetterWhitelist::Default { read_only_mode } => match word {
                Srvr => true,
                Isro => loopback || *read_only_mode,
                Ruok | Mntr => loopback,
                _ => false,
            },
        }
    }
}

/// Reads the value of `4lw.commands.whitelist`. Also returns the words that are none.
pub(super) fn parse_whitelist(
    value: Option<&str>,
    read_only_mode: bool,
) -> (FourLetterWhitelist, Vec<String>) {
    let Some(value) = value else {
        return (FourLetterWhitelist::Default { read_only_mode }, Vec::new());
    };
    let mut words = BTreeSet::from([Srvr]);
    if read_only_mode {
        words.insert(Isro);
    }
    let mut unknown = Vec::new();
    let mut all = false;
    for name in value.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        match FourLetterWord::from_name(name) {
            Some(word) => _ = words.insert(word),
            None if name == "*" => all = true,
            None => unknown.push(name.to_string()),
        }
    }
    let whitelist = if all { FourLetterWhitelist::All } else { FourLetterWhitelist::Only(words) };
    (whitelist, unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_recognised_exactly() {
        for word in FourLetterWord::ALL {
            assert_eq!(FourLetterWord::from_name(word.name()), Some(word));
            assert_eq!(word.name().len(), 4);
        }
        assert_eq!(FourLetterWord::from_bytes(*b"ruok"), Some(Ruok));
        for other in [*b"RUOK", *b"GET ", [0xff, 0xf4, 0xff, 0xfd], [0, 0, 0, 44]] {
            assert_eq!(FourLetterWord::from_bytes(other), None);
        }
    }

    /// value, read-only mode → words for the world, words on loopback, words that are none.
    #[test]
    fn whitelist_rules() {
        let every: Vec<_> = FourLetterWord::ALL.iter().map(|w| w.name()).collect();
        let every = every.join(",");
        let cases = [
            (None, false, "srvr", "isro,mntr,ruok,srvr", ""),
            (None, true, "isro,srvr", "isro,mntr,ruok,srvr", ""),
            (Some("*"), false, every.as_str(), every.as_str(), ""),
            (Some("ruok, *"), false, &every, &every, ""),
            (Some("stat, ruok ,conf"), false, "conf,ruok,srvr,stat", "conf,ruok,srvr,stat", ""),
            (Some(""), false, "srvr", "srvr", ""),
            (Some(",, ,"), true, "isro,srvr", "isro,srvr", ""),
            (Some("rouk,STAT"), false, "srvr", "srvr", "rouk,STAT"),
        ];
        for (value, read_only, world, loopback, unknown) in cases {
            let (whitelist, none) = parse_whitelist(value, read_only);
            let allowed = |loopback| {
                let words = FourLetterWord::ALL.into_iter();
                let names = words.filter(|w| whitelist.allows(*w, loopback)).map(|w| w.name());
                names.collect::<Vec<_>>().join(",")
            };
            assert_eq!(allowed(false), world, "{value:?}");
            assert_eq!(allowed(true), loopback, "{value:?}");
            assert_eq!(none.join(","), unknown, "{value:?}");
        }
    }
}
