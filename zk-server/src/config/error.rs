//! What can be wrong with a configuration, in words that an operator can act on.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use super::properties::PropertiesError;

/// Where a setting was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In a configuration file.
    File {
        /// The file as it was named on the command line or in another file.
        path: Arc<str>,
        /// Line on which the entry starts, counted from 1.
        line: usize,
    },
    /// As `-Dname=value`.
    Property(PropertySource),
    /// Set by the program itself, for instance by `zk-server dev`.
    BuiltIn,
    /// As a positional argument of the command line, counted from 1.
    Argument(usize),
}

/// Where a `-Dname=value` came from, weakest first: a later source overrides an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PropertySource {
    /// The variable `ZOO_DATADIR_AUTOCREATE_DISABLE`, which Apache's start script turns into an
    /// option.
    DataDirAutocreate,
    /// The environment variable `SERVER_JVMFLAGS`.
    ServerJvmFlags,
    /// The environment variable `JVMFLAGS`, which Apache's scripts append to the one before.
    JvmFlags,
    /// The command line itself.
    CommandLine,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { path, line } => write!(f, "{path}:{line}"),
            Origin::BuiltIn => f.write_str("built in"),
            Origin::Argument(n) => write!(f, "argument {n}"),
            Origin::Property(PropertySource::CommandLine) => f.write_str("-D option"),
            Origin::Property(PropertySource::JvmFlags) => f.write_str("-D option in JVMFLAGS"),
            Origin::Property(PropertySource::ServerJvmFlags) => f.write_str("-D option in SERVER_JVMFLAGS"),
            Origin::Property(PropertySource::DataDirAutocreate) => {
                f.write_str("environment variable ZOO_DATADIR_AUTOCREATE_DISABLE")
            }
        }
    }
}

/// A name or value from outside, made fit for a message: control characters escaped (they could
/// forge log lines), cut when long, and not shown at all when it is a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Shown(String);

const SHOWN_CHARS_MAX: usize = 120;

impl Shown {
    /// Quotes what the operator wrote.
    pub fn new(text: &str) -> Self {
        let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).flat_map(escape).collect();
        if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
            shown.push('…');
        }
        Shown(shown)
    }

    /// Names a file in full: a cut path would be of no use.
    pub fn path(path: &Path) -> Self {
        Shown(path.display().to_string().chars().flat_map(escape).collect())
    }

    /// Stands for a value that must not appear in any log.
    pub fn secret() -> Self {
        Shown("<secret>".into())
    }
}

fn escape(c: char) -> impl Iterator<Item = char> {
    let (plain, escaped) = if c.is_control() { (None, Some(c.escape_default())) } else { (Some(c), None) };
    plain.into_iter().chain(escaped.into_iter().flatten())
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why there is no configuration. All of them end the process with exit code 2.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A configuration file cannot be read.
    #[error("{path}: cannot read the configuration file: {source}", path = Shown::path(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A configuration file is absurdly large.
    #[error("{path}: larger than {max} bytes; this is not a configuration file", path = Shown::path(path))]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The largest accepted size.
        max: u64,
    },
    /// A configuration file breaks the property file grammar.
    #[error("{path}: {source}", path = Shown::path(path))]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: PropertiesError,
    },
    /// The settings are not acceptable. All problems are listed, so that one start shows them all;
    /// the warnings are those found on the way.
    #[error("{}", join(problems))]
    Invalid {
        /// At least one.
        problems: Vec<Problem>,
        /// Warnings found before giving up.
        warnings: Vec<Warning>,
    },
    /// The settings are acceptable, but `strict` was asked for and some lines do not act as
    /// written.
    #[error("{}\n--strict: every setting must act as written", join(.0))]
    Strict(
        /// The offending warnings, at least one.
        Vec<Warning>,
    ),
}

fn join<T: fmt::Display>(items: &[T]) -> String {
    let lines: Vec<String> = items.iter().map(T::to_string).collect();
    lines.join("\n")
}

/// One reason why the server must not start with these settings.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Problem {
    /// A known key with a value it cannot have.
    #[error("{at}: {key}={value}: expected {allowed}; correct it{}", or_default(default))]
    BadValue {
        /// Where.
        at: Origin,
        /// The key as written.
        key: Shown,
        /// The value as written.
        value: Shown,
        /// What is allowed, in words.
        allowed: String,
        /// The value that applies without the line; empty if there is none.
        default: &'static str,
    },
    /// A key that has to be there is not.
    #[error("{file}: `{key}` is missing: {why}")]
    Missing {
        /// Where it should be.
        file: Shown,
        /// The key.
        key: &'static str,
        /// What it is needed for and what to write.
        why: &'static str,
    },
    /// Settings that are legal alone but not together.
    #[error("{at}: {key}={value}: {why}")]
    Conflict {
        /// Where one of them stands.
        at: Origin,
        /// Its key.
        key: Shown,
        /// Its value.
        value: Shown,
        /// The other, and what to do.
        why: String,
    },
    /// The setting asks for a feature without which the server would be less protected or not
    /// reachable as intended.
    #[error("not supported by this build: {key} ({at}): {feature}; remove the line to start without")]
    NotSupported {
        /// Where.
        at: Origin,
        /// The key as written.
        key: Shown,
        /// The feature it belongs to.
        feature: Shown,
    },
    /// The `myid` file does not hold a server id.
    #[error("{path}: {why}; it must hold one whole number, the N of this machine's server.N line")]
    MyId {
        /// The file.
        path: Shown,
        /// What it holds instead.
        why: String,
    },
    /// The file named by `dynamicConfigFile` cannot be used.
    #[error("{at}: dynamicConfigFile: {why}")]
    DynamicFile {
        /// The line that names the file.
        at: Origin,
        /// Why not.
        why: String,
    },
}

impl Problem {
    /// Where the problem is; `None` when it is something missing or in another file.
    pub fn origin(&self) -> Option<&Origin> {
        match self {
            Problem::BadValue { at, .. }
            | Problem::Conflict { at, .. }
            | Problem::NotSupported { at, .. }
            | Problem::DynamicFile { at, .. } => Some(at),
            Problem::Missing { .. } | Problem::MyId { .. } => None,
        }
    }
}

fn or_default(default: &str) -> String {
    if default.is_empty() { String::new() } else { format!(", or remove the line for the default {default}") }
}

/// Something an operator should know, though the server can start.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Warning {
    /// No key of this name exists; the line does nothing (in Apache neither, but there without a
    /// word).
    #[error("{at}: unknown key `{key}` ignored{}", did_you_mean(nearest))]
    UnknownKey {
        /// Where.
        at: Origin,
        /// The key as written.
        key: Shown,
        /// The key that was probably meant.
        nearest: Option<&'static str>,
    },
    /// A key of Apache's that cannot have an effect here.
    #[error("{at}: `{key}` has no effect: {why}; the line can be removed")]
    NoEffect {
        /// Where.
        at: Origin,
        /// The key as written.
        key: Shown,
        /// Why not.
        why: &'static str,
    },
    /// A key of a feature that is not built; ignoring it does no harm.
    #[error("{at}: `{key}` ignored: {feature}: not supported by this build")]
    NotBuilt {
        /// Where.
        at: Origin,
        /// The key as written.
        key: Shown,
        /// The feature it belongs to.
        feature: &'static str,
    },
    /// A name from the administrator guide that Apache itself does not read. The line acts here.
    #[error(
        "{at}: `{key}` is read as `{meant}`; write `{meant}`, Apache ZooKeeper does not know the other name"
    )]
    Alias {
        /// Where.
        at: Origin,
        /// The key as written.
        key: Shown,
        /// The key it stands for.
        meant: Shown,
    },
    /// Two sources give different values for a key.
    #[error("{at}: `{key}` ignored: {by} sets it too and wins; remove one of them")]
    Overridden {
        /// The one that is ignored.
        at: Origin,
        /// The key as written there.
        key: Shown,
        /// The one that acts.
        by: Origin,
    },
    /// A legal value that the server replaces by the nearest one it can work with.
    #[error("{at}: {key}={value} is too small; {used} is used")]
    Raised {
        /// Where.
        at: Origin,
        /// The key.
        key: &'static str,
        /// The value as written.
        value: i64,
        /// The value in effect.
        used: i64,
    },
    /// A relative path depends on the directory in which the server is started.
    #[error(
        "{at}: {key}={path} is relative to the working directory; write it absolute, or begin it with ./ \
         if that is meant"
    )]
    RelativePath {
        /// Where.
        at: Origin,
        /// The key.
        key: &'static str,
        /// The path.
        path: Shown,
    },
    /// A value outside ASCII, which property files cannot hold directly.
    #[error(
        "{at}: `{key}`: bytes outside ASCII are read as ISO-8859-1, as Apache ZooKeeper does; \
         write them as \\uXXXX"
    )]
    NotAscii {
        /// Where.
        at: Origin,
        /// The key.
        key: Shown,
    },
    /// A word in the four-letter word whitelist that is none.
    #[error("{at}: 4lw.commands.whitelist: there is no word `{word}`{}", did_you_mean(nearest))]
    UnknownWord {
        /// Where.
        at: Origin,
        /// The word as written.
        word: Shown,
        /// The word that was probably meant.
        nearest: Option<&'static str>,
    },
    /// The membership is legal but probably not what anyone wants.
    #[error("{at}: {advice}")]
    Membership {
        /// Where.
        at: Origin,
        /// What to reconsider.
        advice: &'static str,
    },
}

fn did_you_mean(nearest: &Option<&'static str>) -> String {
    nearest.map_or_else(String::new, |key| format!("; did you mean `{key}`?"))
}

impl Warning {
    /// What the warning is about.
    pub fn origin(&self) -> &Origin {
        match self {
            Warning::UnknownKey { at, .. }
            | Warning::NoEffect { at, .. }
            | Warning::NotBuilt { at, .. }
            | Warning::Alias { at, .. }
            | Warning::Overridden { at, .. }
            | Warning::Raised { at, .. }
            | Warning::RelativePath { at, .. }
            | Warning::NotAscii { at, .. }
            | Warning::UnknownWord { at, .. }
            | Warning::Membership { at, .. } => at,
        }
    }

    /// Whether the setting does not act as written, which `--strict` refuses. Advice about settings
    /// that do act stays a warning.
    pub fn fails_strict(&self) -> bool {
        match self {
            Warning::UnknownKey { .. }
            | Warning::NoEffect { .. }
            | Warning::NotBuilt { .. }
            | Warning::Overridden { .. }
            | Warning::Raised { .. }
            | Warning::UnknownWord { .. } => true,
            Warning::Alias { .. }
            | Warning::RelativePath { .. }
            | Warning::NotAscii { .. }
            | Warning::Membership { .. } => false,
        }
    }
}
