//! The command line of the `zk-server` program.
//!
//! [`parse`] is a pure function from arguments and environment variables to a typed [`Command`];
//! the program prints what it returns as an error and carries out the rest.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use thiserror::Error;

use crate::config::{Config, ConfigError, Overrides, PropertySource, Warning};

/// How the process ends, in the numbers that Apache's scripts and service managers know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Stopped as asked, or printed what was asked for.
    Finished = 0,
    /// An error without a number of its own.
    Unexpected = 1,
    /// Bad command line or configuration.
    BadConfig = 2,
    /// The data directories cannot be used: missing, not writable, or in use by another server.
    DataDirNotAccessible = 3,
    /// The HTTP admin server could not start.
    AdminServerFailed = 4,
    /// A snapshot could not be taken.
    SnapshotFailed = 10,
    /// The leader committed something else than what was proposed.
    UnmatchedCommit = 12,
    /// A broken packet from another member.
    QuorumPacketError = 13,
    /// A quorum port could not be bound.
    QuorumPortBindFailed = 14,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        std::process::ExitCode::from(code as u8)
    }
}

/// The environment variables that matter, as Apache's scripts use them.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `SERVER_JVMFLAGS`: its `-D` options apply, everything else in it is for a JVM.
    pub server_jvm_flags: String,
    /// `JVMFLAGS`: the same, and stronger.
    pub jvm_flags: String,
    /// Whether `ZOO_DATADIR_AUTOCREATE_DISABLE` has any value: missing data directories are then an
    /// error.
    pub data_dir_autocreate_disabled: bool,
}

impl Environment {
    /// The variables of this process. What is not UTF-8 in them is replaced.
    pub fn of_process() -> Self {
        let var = |name| {
            let value = std::env::var_os(name).unwrap_or_default();
            value.to_string_lossy().into_owned()
        };
        Environment {
            server_jvm_flags: var("SERVER_JVMFLAGS"),
            jvm_flags: var("JVMFLAGS"),
            data_dir_autocreate_disabled: !var("ZOO_DATADIR_AUTOCREATE_DISABLE").is_empty(),
        }
    }
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Run a server.
    Serve(Serve),
    /// Load the configuration, print every problem and warning, and end: with
    /// [`ExitCode::Finished`] if [`Serve::load`] succeeds, else with [`ExitCode::BadConfig`].
    CheckConfig(Serve),
    /// Run a server for development.
    Dev(Dev),
}

/// A server as an operator runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serve {
    /// Where the configuration comes from.
    pub source: ConfigSource,
    /// The `-D` options of the command line and of the environment.
    pub overrides: Overrides,
    /// Settings that do not act as written are errors.
    pub strict: bool,
}

/// Where the configuration comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigSource {
    /// A `zoo.cfg`.
    File(PathBuf),
    /// `clientPort dataDir [tickTime [maxClientCnxns]]`.
    Arguments(Vec<String>),
}

impl Serve {
    /// Reads and checks the configuration.
    ///
    /// # Errors
    /// [`ConfigError`]: print it and end with [`ExitCode::BadConfig`].
    pub fn load(&self) -> Result<(Config, Vec<Warning>), ConfigError> {
        match &self.source {
            ConfigSource::File(path) => Config::load(path, &self.overrides, self.strict),
            ConfigSource::Arguments(args) => Config::from_args(args, &self.overrides, self.strict),
        }
    }
}

/// A server for development.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dev {
    /// Where the data lives.
    pub storage: DevStorage,
    /// Client port on the loopback address; 0 asks for a free one. Further servers have the next ones.
    pub port: u16,
    /// Number of servers: more than one form an ensemble.
    pub nodes: u16,
    /// The `-D` options of the command line and of the environment.
    pub overrides: Overrides,
    /// Settings that do not act as written are errors.
    pub strict: bool,
}

/// Where the data of a development server lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DevStorage {
    /// Nowhere: it is gone when the server stops.
    Memory,
    /// In this directory, which is created if need be.
    Directory(PathBuf),
}

impl Dev {
    /// The configuration. With [`DevStorage::Memory`] its directories are names without a meaning.
    ///
    /// # Errors
    /// [`ConfigError`] for bad `-D` options: print it and end with [`ExitCode::BadConfig`].
    pub fn load(&self) -> Result<(Config, Vec<Warning>), ConfigError> {
        let data_dir = match &self.storage {
            DevStorage::Directory(path) => path,
            DevStorage::Memory => Path::new(DEV_DATA_DIR),
        };
        Config::dev(data_dir, self.port, &self.overrides, self.strict)
    }
}

/// Why there is no command: the arguments make no sense, or ask for help or the version.
#[derive(Debug, Error)]
#[error(transparent)]
pub struct CliError(#[from] clap::Error);

impl CliError {
    /// Prints the message: help and version to standard output, errors to standard error.
    pub fn print(&self) {
        // A closed standard output is no reason to fail.
        let _ = self.0.print();
    }

    /// How to end: [`ExitCode::Finished`] after help or version, else [`ExitCode::BadConfig`].
    pub fn exit_code(&self) -> ExitCode {
        if self.0.use_stderr() { ExitCode::BadConfig } else { ExitCode::Finished }
    }
}

/// Understands `args` (the first is the program's name) and `env`.
///
/// # Errors
/// [`CliError`]: print it and end with its exit code.
pub fn parse(
    args: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    env: &Environment,
) -> Result<Command, CliError> {
    let line = Line::try_parse_from(args)?;
    let mut overrides = Overrides::default();
    if env.data_dir_autocreate_disabled {
        overrides.define("datadir.autocreate=false", PropertySource::DataDirAutocreate);
    }
    overrides.define_flags(&env.server_jvm_flags, PropertySource::ServerJvmFlags);
    overrides.define_flags(&env.jvm_flags, PropertySource::JvmFlags);
    let mut define = |common: &Common| {
        for definition in &common.define {
            overrides.define(definition, PropertySource::CommandLine);
        }
    };
    define(&line.common);
    match line.mode {
        Some(Mode::Dev(dev)) => {
            if line.check_config {
                return Err(usage("--check-config checks a zoo.cfg; dev has none"));
            }
            define(&dev.common);
            dev.into_command(overrides, line.common.strict)
        }
        None => {
            let source = match <[String; 1]>::try_from(line.config) {
                Ok([file]) => ConfigSource::File(file.into()),
                Err(args) if args.is_empty() => {
                    return Err(usage("a configuration file is missing: zk-server zoo.cfg"));
                }
                Err(args) => ConfigSource::Arguments(args),
            };
            // A check that lets typing errors pass would be of no use.
            let strict = line.common.strict || line.check_config;
            let serve = Serve { source, overrides, strict };
            Ok(if line.check_config { Command::CheckConfig(serve) } else { Command::Serve(serve) })
        }
    }
}

fn usage(message: &str) -> CliError {
    CliError(Line::command().error(ErrorKind::ValueValidation, message))
}

const DEV_DATA_DIR: &str = "./data";

const ABOUT: &str = "A ZooKeeper server: speaks the protocol, reads the configuration and keeps the\n\
                     data files of Apache ZooKeeper.";

const EXAMPLES: &str = "\
Examples:
  zk-server dev --memory                 a server to try things with, nothing kept
  zk-server dev                          the same, data in ./data
  zk-server zoo.cfg                      a server for production
  zk-server -Djute.maxbuffer=4194304 zoo.cfg
                                         the same, with a process property
  zk-server --check-config zoo.cfg       check a file without starting anything
  zk-server 2181 /var/lib/zookeeper      no file: clientPort dataDir [tickTime [maxClientCnxns]]

The smallest zoo.cfg:
  dataDir=/var/lib/zookeeper
  clientPort=2181

Properties: every key of zoo.cfg can be given as -Dkey=value or -Dzookeeper.key=value, on the
command line or in the environment variables JVMFLAGS and SERVER_JVMFLAGS. The file wins over all
of them, the command line over the variables.

Exit codes: 0 stopped as asked, 1 unexpected error, 2 bad command line or configuration, 3 data
directory not usable.";

/// The command line as clap sees it.
#[derive(Parser)]
#[command(
    name = "zk-server",
    version,
    about = ABOUT,
    after_help = EXAMPLES,
    override_usage = "zk-server [-Dname=value ...] [--strict] [--check-config] <zoo.cfg>\n       \
                      zk-server [options] <clientPort> <dataDir> [<tickTime> [<maxClientCnxns>]]\n       \
                      zk-server dev [--memory | --data <DIR>] [--port <N>]",
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
struct Line {
    /// The configuration file, or clientPort dataDir [tickTime [maxClientCnxns]]
    #[arg(value_name = "zoo.cfg", num_args = 0..=4)]
    config: Vec<String>,

    #[command(flatten)]
    common: Common,

    /// Check the configuration strictly, print what is wrong with it, and end
    #[arg(long)]
    check_config: bool,

    #[command(subcommand)]
    mode: Option<Mode>,
}

/// Options that every mode takes. Not `global`: clap would let those after `dev` replace those
/// before.
#[derive(Args)]
struct Common {
    /// Set a property, as for Apache's server
    #[arg(short = 'D', value_name = "name=value")]
    define: Vec<String>,

    /// Refuse to start when a setting does not act as written (unknown, ignored, duplicate)
    #[arg(long)]
    strict: bool,
}

#[derive(Subcommand)]
enum Mode {
    /// Run a server for development on this machine: no file, loopback only
    Dev(DevLine),
}

#[derive(Args)]
struct DevLine {
    #[command(flatten)]
    common: Common,

    /// Keep nothing: the data is gone when the server stops
    #[arg(long, conflicts_with = "data")]
    memory: bool,

    /// Where to keep the data
    #[arg(long, value_name = "DIR", default_value = DEV_DATA_DIR)]
    data: PathBuf,

    /// Client port on 127.0.0.1; 0 takes a free one
    #[arg(long, value_name = "N", default_value_t = 2181)]
    port: u16,

    /// Number of servers; more than one form an ensemble
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: u16,
}

impl DevLine {
    fn into_command(self, overrides: Overrides, strict_before: bool) -> Result<Command, CliError> {
        let strict = strict_before || self.common.strict;
        let storage = if self.memory { DevStorage::Memory } else { DevStorage::Directory(self.data) };
        Ok(Command::Dev(Dev { storage, port: self.port, nodes: self.nodes, overrides, strict }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(line: &str) -> Result<Command, CliError> {
        parse(line.split_whitespace(), &Environment::default())
    }

    fn command(line: &str) -> Command {
        parse_words(line).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    fn properties(overrides: &Overrides) -> Vec<String> {
        let properties = overrides.in_order().into_iter();
        properties.map(|p| format!("{}={}", p.name, p.value)).collect()
    }

    #[test]
    fn one_argument_is_a_file() {
        let Command::Serve(serve) = command("zk-server -Da=b zoo.cfg -Dc -D d=e=f") else {
            panic!("not serve");
        };
        assert_eq!(serve.source, ConfigSource::File("zoo.cfg".into()));
        assert!(!serve.strict);
        assert_eq!(properties(&serve.overrides), ["a=b", "c=", "d=e=f"]);
    }

    #[test]
    fn two_to_four_arguments_are_the_standalone_form() {
        for args in ["2181 /d", "2181 /d 2000", "2181 /d 2000 60", "2181 ./dev"] {
            let Command::Serve(serve) = command(&format!("zk-server {args}")) else {
                panic!("not serve");
            };
            let args: Vec<_> = args.split(' ').map(String::from).collect();
            assert_eq!(serve.source, ConfigSource::Arguments(args));
        }
    }

    #[test]
    fn a_check_is_strict() {
        for (line, strict, check) in [
            ("zk-server --strict zoo.cfg", true, false),
            ("zk-server zoo.cfg --strict", true, false),
            ("zk-server --check-config zoo.cfg", true, true),
        ] {
            let (is_check, serve) = match command(line) {
                Command::Serve(serve) => (false, serve),
                Command::CheckConfig(serve) => (true, serve),
                Command::Dev(_) => panic!("{line}"),
            };
            assert_eq!((serve.strict, is_check), (strict, check), "{line}");
        }
    }

    #[test]
    fn dev() {
        let here = DevStorage::Directory("./data".into());
        let there = DevStorage::Directory("/tmp/x".into());
        for (line, storage, port, strict) in [
            ("zk-server dev", here.clone(), 2181, false),
            ("zk-server dev --memory", DevStorage::Memory, 2181, false),
            ("zk-server dev --data /tmp/x --port 0 --nodes 1", there, 0, false),
            ("zk-server -DtickTime=100 --strict dev", here.clone(), 2181, true),
            ("zk-server dev -DtickTime=100 --strict", here, 2181, true),
        ] {
            let Command::Dev(dev) = command(line) else { panic!("{line}") };
            assert_eq!((&dev.storage, dev.port, dev.strict), (&storage, port, strict), "{line}");
            let (config, warnings) = dev.load().expect("loads");
            assert_eq!(config.client_port, Some(port));
            assert_eq!(config.client_port_address.as_deref(), Some("127.0.0.1"));
            assert_eq!(config.tick_time_ms, if line.contains("tickTime") { 100 } else { 3000 });
            assert_eq!(warnings, []);
        }
    }

    #[test]
    fn options_before_and_after_dev_add_up() {
        let Command::Dev(dev) = command("zk-server -Da=1 dev -Db=2") else { panic!("not dev") };
        assert_eq!(properties(&dev.overrides), ["a=1", "b=2"]);
    }

    #[test]
    fn bad_lines_end_with_code_2_and_say_why() {
        for (line, text) in [
            ("zk-server", "Usage: zk-server"),
            ("zk-server --strict", "a configuration file is missing"),
            ("zk-server 1 2 3 4 5", "unexpected value"),
            ("zk-server --unknown zoo.cfg", "--unknown"),
            ("zk-server dev --nodes 10", "10 is not in 1..=9"),
            ("zk-server dev --memory --data x", "cannot be used with"),
            ("zk-server dev --port 65536", "65536"),
            ("zk-server dev zoo.cfg", "zoo.cfg"),
            ("zk-server --check-config dev", "dev has none"),
        ] {
            let error = parse_words(line).expect_err(line);
            assert_eq!(error.exit_code(), ExitCode::BadConfig, "{line}");
            assert!(error.to_string().contains(text), "{line}: {error}");
        }
    }

    #[test]
    fn help_and_version_end_with_code_0() {
        for (line, text) in [
            ("zk-server --help", "zk-server 2181 /var/lib/zookeeper"),
            ("zk-server -h", "--check-config"),
            ("zk-server dev --help", "--memory"),
            ("zk-server --version", env!("CARGO_PKG_VERSION")),
        ] {
            let error = parse_words(line).expect_err(line);
            assert_eq!(error.exit_code(), ExitCode::Finished, "{line}");
            assert!(error.to_string().contains(text), "{line}: {error}");
        }
    }

    #[test]
    fn the_environment_is_weaker_than_the_command_line() {
        let env = Environment {
            server_jvm_flags: "-Xmx1000m -Dzookeeper.snapCount=1 -Da=server".into(),
            jvm_flags: " -Da=jvm\t-XX:+UseG1GC -Dzookeeper.snapCount=2 -D".into(),
            data_dir_autocreate_disabled: true,
        };
        let args = ["zk-server", "-DsnapCount=3", "zoo.cfg"];
        let Ok(Command::Serve(serve)) = parse(args, &env) else { panic!("not serve") };
        let expected = [
            "datadir.autocreate=false",
            "zookeeper.snapCount=1",
            "a=server",
            "a=jvm",
            "zookeeper.snapCount=2",
            "=",
            "snapCount=3",
        ];
        assert_eq!(properties(&serve.overrides), expected);
    }

    #[cfg(unix)]
    #[test]
    fn arguments_need_not_be_utf_8() {
        use std::os::unix::ffi::OsStringExt;
        let bad = OsString::from_vec(vec![b'z', 0xff]);
        let error = parse(["zk-server".into(), bad], &Environment::default()).expect_err("refused");
        assert_eq!(error.exit_code(), ExitCode::BadConfig);
    }

    #[test]
    fn the_definition_of_the_line_is_consistent() {
        Line::command().debug_assert();
    }
}
