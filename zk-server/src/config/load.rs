//! From a file, properties or arguments to a checked [`Config`].

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::assemble::assemble;
use super::error::{ConfigError, Origin, Problem, Shown, Warning};
use super::overrides::Overrides;
use super::settings::{Raw, Settings};
use super::{Config, properties};

/// Largest configuration file. Real ones have a few kilobytes.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// Reads a small file (`myid`, the dynamic configuration file), `None` if there is none. Passed in,
/// so that the loader itself is free of I/O.
pub type Reader<'a> = &'a dyn Fn(&Path) -> io::Result<Option<Vec<u8>>>;

impl Config {
    /// Reads the configuration file at `path`, with `overrides` beneath it.
    ///
    /// Also reads `<dataDir>/myid` and the file named by `dynamicConfigFile`, if they exist. With
    /// `strict`, settings that do not act as written are errors; otherwise they are returned as
    /// warnings, in the order of the file.
    ///
    /// # Errors
    /// [`ConfigError`], listing every problem at once. The process should end with exit code 2.
    pub fn load(
        path: &Path,
        overrides: &Overrides,
        strict: bool,
    ) -> Result<(Config, Vec<Warning>), ConfigError> {
        let bytes = read_bounded(path)
            .and_then(|bytes| bytes.ok_or_else(|| io::ErrorKind::NotFound.into()))
            .map_err(|source| ConfigError::Read { path: path.into(), source })?;
        let (mut config, warnings) = Config::from_bytes(path, &bytes, overrides, strict, &read_bounded)?;
        if let Some(quorum) = &mut config.quorum {
            quorum.config_file = Some(path.to_owned());
        }
        Ok((config, warnings))
    }

    /// The same as [`Config::load`] for a file that is already in memory. `path` is used in
    /// messages; other files come from `reader`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_bytes(
        path: &Path,
        bytes: &[u8],
        overrides: &Overrides,
        strict: bool,
        reader: Reader<'_>,
    ) -> Result<(Config, Vec<Warning>), ConfigError> {
        let mut entries = from_properties(overrides);
        entries.extend(from_file(path, bytes)?);
        let mut settings = Settings::resolve(entries);
        let file = Shown::path(path).to_string();
        let config = assemble(&mut settings, &file, Some(reader));
        finish(config, settings, strict)
    }

    /// Apache's positional form for a standalone server: `clientPort dataDir [tickTime
    /// [maxClientCnxns]]`.
    ///
    /// # Errors
    /// As [`Config::load`]; also when there are not two to four arguments.
    pub fn from_args(
        args: &[String],
        overrides: &Overrides,
        strict: bool,
    ) -> Result<(Config, Vec<Warning>), ConfigError> {
        let mut entries = from_properties(overrides);
        let names = ["clientPort", "dataDir", "tickTime", "maxClientCnxns"];
        entries.extend(names.iter().zip(args).zip(1..).map(|((name, value), n)| Raw {
            name: (*name).into(),
            value: value.clone(),
            at: Origin::Argument(n),
            raw_non_ascii: false,
        }));
        let mut settings = Settings::resolve(entries);
        if args.len() > names.len() {
            settings.problems.push(Problem::Conflict {
                at: Origin::Argument(names.len() + 1),
                key: Shown::new("argument"),
                value: Shown::new(args.get(names.len()).map_or("", String::as_str)),
                why: "expected clientPort dataDir [tickTime [maxClientCnxns]]".into(),
            });
        }
        let config = assemble(&mut settings, "command line", None);
        finish(config, settings, strict)
    }

    /// The configuration of `zk-server dev`: a server to try things with, reachable from this
    /// machine only, that answers every four-letter word. `overrides` apply to everything but its
    /// address.
    ///
    /// # Errors
    /// As [`Config::load`], for bad overrides.
    pub fn dev(
        data_dir: &Path,
        port: u16,
        overrides: &Overrides,
        strict: bool,
    ) -> Result<(Config, Vec<Warning>), ConfigError> {
        let entry = |name: &str, value: String| Raw {
            name: name.into(),
            value,
            at: Origin::BuiltIn,
            raw_non_ascii: false,
        };
        let mut entries = vec![entry("4lw.commands.whitelist", "*".into())];
        entries.extend(from_properties(overrides));
        // The port is set at the end: in a file, 0 means "none", here it asks for a free one.
        entries.push(entry("clientPort", "2181".into()));
        entries.push(entry("clientPortAddress", "127.0.0.1".into()));
        let mut settings = Settings::resolve(entries);
        let mut config = assemble(&mut settings, "dev", None);
        settings.problems.retain(|p| !matches!(p, Problem::Missing { key: "dataDir", .. }));
        config.client_port = Some(port);
        config.data_dir = data_dir.into();
        config.data_log_dir = data_dir.into();
        finish(config, settings, strict)
    }

    /// All defaults, for a server inside another program: data in `data_dir`, no client port yet.
    pub fn new(data_dir: impl Into<PathBuf>) -> Config {
        let mut config = assemble(&mut Settings::default(), "", None);
        config.data_dir = data_dir.into();
        config.data_log_dir = config.data_dir.clone();
        config
    }
}

/// Reads a file of at most [`CONFIG_BYTES_MAX`] bytes, plus one that betrays a larger one.
fn read_bounded(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

pub(super) fn from_file(path: &Path, bytes: &[u8]) -> Result<Vec<Raw>, ConfigError> {
    if bytes.len() as u64 > CONFIG_BYTES_MAX {
        return Err(ConfigError::TooLarge { path: path.into(), max: CONFIG_BYTES_MAX });
    }
    let entries =
        properties::parse(bytes).map_err(|source| ConfigError::Syntax { path: path.into(), source })?;
    let shown_path: Arc<str> = Shown::path(path).to_string().into();
    let raw = entries.into_iter().map(|entry| Raw {
        name: entry.key,
        value: entry.value,
        at: Origin::File { path: Arc::clone(&shown_path), line: entry.line },
        raw_non_ascii: entry.raw_non_ascii,
    });
    Ok(raw.collect())
}

fn from_properties(overrides: &Overrides) -> Vec<Raw> {
    let properties = overrides.in_order().into_iter().map(|property| Raw {
        name: property.name,
        value: property.value,
        at: Origin::Property(property.source),
        raw_non_ascii: false,
    });
    properties.collect()
}

fn finish(config: Config, settings: Settings, strict: bool) -> Result<(Config, Vec<Warning>), ConfigError> {
    let Settings { mut problems, mut warnings, .. } = settings;
    problems.sort_by_key(|problem| order(problem.origin()));
    warnings.sort_by_key(|warning| order(Some(warning.origin())));
    if !problems.is_empty() {
        return Err(ConfigError::Invalid { problems, warnings });
    }
    if strict && warnings.iter().any(Warning::fails_strict) {
        warnings.retain(Warning::fails_strict);
        return Err(ConfigError::Strict(warnings));
    }
    Ok((config, warnings))
}

/// Sorts messages by the place they are about; those about no place come last.
fn order(origin: Option<&Origin>) -> (u8, usize) {
    match origin {
        Some(Origin::BuiltIn | Origin::Property(_)) => (0, 0),
        Some(Origin::Argument(n)) => (1, *n),
        Some(Origin::File { line, .. }) => (2, *line),
        None => (3, 0),
    }
}
