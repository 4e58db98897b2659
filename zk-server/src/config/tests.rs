//! Whole configurations in, typed values and messages out.

use std::io;
use std::path::{Path, PathBuf};

use super::*;

mod ensemble;
mod messages;
mod values;

/// A configuration file under test, with what surrounds it.
#[derive(Default)]
struct Scene {
    text: String,
    overrides: Overrides,
    strict: bool,
    /// Other files: path and content.
    files: Vec<(PathBuf, Vec<u8>)>,
}

/// The two lines that every standalone server needs.
const MINIMAL: &str = "dataDir=/d\nclientPort=2181\n";

/// A scene whose file holds just `text`.
fn raw(text: &str) -> Scene {
    Scene { text: text.into(), ..Scene::default() }
}

/// A scene whose file holds the minimal lines on 1 and 2, then `text` from line 3.
fn minimal(text: &str) -> Scene {
    raw(&format!("{MINIMAL}{text}"))
}

impl Scene {
    fn file(mut self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.files.push((path.into(), content.as_ref().into()));
        self
    }

    fn my_id(self, id: &str) -> Self {
        self.file("/d/myid", id)
    }

    fn define(mut self, definition: &str) -> Self {
        self.overrides.define(definition, PropertySource::CommandLine);
        self
    }

    fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    fn load(&self) -> Result<(Config, Vec<Warning>), ConfigError> {
        let reader = |path: &Path| -> io::Result<Option<Vec<u8>>> {
            let file = self.files.iter().find(|(name, _)| name == path);
            Ok(file.map(|(_, content)| content.clone()))
        };
        let path = Path::new("zoo.cfg");
        Config::from_bytes(path, self.text.as_bytes(), &self.overrides, self.strict, &reader)
    }

    /// The configuration, which must load without a warning.
    fn config(&self) -> Config {
        let (config, warnings) = self.load().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(warnings, [], "{}", self.text);
        config
    }

    /// The warnings of a configuration that must load.
    fn warnings(&self) -> Vec<String> {
        let (_, warnings) = self.load().unwrap_or_else(|error| panic!("{error}"));
        warnings.iter().map(Warning::to_string).collect()
    }

    /// What is wrong with a configuration that must not load.
    fn error(&self) -> String {
        match self.load() {
            Ok(_) => panic!("accepted:\n{}", self.text),
            Err(error) => error.to_string(),
        }
    }
}

/// An existing file, as operators have them, starts unchanged; everything in it that cannot act is
/// named once, with its line.
#[test]
fn a_realistic_file() {
    let scene = raw("\
# The number of milliseconds of each tick\r
tickTime=2000\r
initLimit=10\r
syncLimit=5\r
dataDir = /var/lib/zookeeper\r
dataLogDir: /var/lib/zookeeper-log\r
clientPort 2181\r
\r
maxClientCnxns=0\r
autopurge.snapRetainCount=3\r
autopurge.purgeInterval=24\r
4lw.commands.whitelist=stat, ruok, conf, \\\r
    isro, mntr\r
admin.enableServer=true\r
admin.serverPort=8081\r
serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\r
metricsProvider.className=org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider\r
metricsProvider.httpPort=7000\r
metricsProvider.exportJvmInfo=true\r
authProvider.1=org.apache.zookeeper.server.auth.DigestAuthenticationProvider\r
requestThrottleLimit=1000\r
zookeeper.forceSync=yes\r
snapcount=50000\r
preAllocSize=131072\r
maxSessionTimeout=60000\r
admin.title=d\\u00e9p\\u00f4t\r
");
    let (config, warnings) = scene.load().expect("starts");
    let warnings: Vec<_> = warnings.iter().map(Warning::to_string).collect();
    assert_eq!(
        warnings,
        [
            "zoo.cfg:14: `admin.enableServer` ignored: the HTTP admin server: not supported by this build",
            "zoo.cfg:15: `admin.serverPort` ignored: the HTTP admin server: not supported by this build",
            "zoo.cfg:16: `serverCnxnFactory` has no effect: the part of Apache ZooKeeper that it tunes does not exist here; the line can be removed",
            "zoo.cfg:17: `metricsProvider.className` ignored: metrics over HTTP: not supported by this build",
            "zoo.cfg:19: `metricsProvider.exportJvmInfo` has no effect: there is no JVM here; the line can be removed",
            "zoo.cfg:21: `requestThrottleLimit` is read as `request_throttle_max_requests`; write `request_throttle_max_requests`, Apache ZooKeeper does not know the other name",
            "zoo.cfg:22: `zookeeper.forceSync` is read as `forceSync`; write `forceSync`, Apache ZooKeeper does not know the other name",
            "zoo.cfg:23: unknown key `snapcount` ignored; did you mean `snapCount`?",
            "zoo.cfg:26: unknown key `admin.title` ignored",
        ]
    );
    assert_eq!(config.tick_time_ms, 2000);
    assert_eq!(config.data_dir, Path::new("/var/lib/zookeeper"));
    assert_eq!(config.data_log_dir, Path::new("/var/lib/zookeeper-log"));
    assert_eq!(config.client_port, Some(2181));
    assert_eq!(config.max_client_cnxns, None);
    assert_eq!(config.autopurge, Autopurge { snap_retain_count: 3, purge_interval_ms: Some(24 * 3_600_000) });
    assert!(config.four_letter_whitelist.allows(FourLetterWord::Mntr, false));
    assert!(!config.four_letter_whitelist.allows(FourLetterWord::Dump, true));
    assert_eq!(config.admin.port, 8081);
    assert!(config.admin.enabled && config.metrics.prometheus);
    assert_eq!(config.request_throttle.max_requests, Some(1000));
    assert_eq!((config.min_session_timeout_ms, config.max_session_timeout_ms), (4000, 60000));
    assert_eq!(config.snap_count, 100_000);
    assert_eq!(config.quorum, None);
}

/// The same lines as in the image that most containers run.
#[test]
fn the_docker_image_file() {
    let scene = raw("\
dataDir=/d
dataLogDir=/datalog
tickTime=2000
initLimit=5
syncLimit=2
autopurge.snapRetainCount=3
autopurge.purgeInterval=0
maxClientCnxns=60
standaloneEnabled=true
admin.enableServer=true
server.1=localhost:2888:3888;2181
")
    .my_id("1\n");
    let (config, warnings) = scene.load().expect("starts");
    assert_eq!(config.client_port, Some(2181));
    assert!(!config.is_distributed());
    assert_eq!(config.autopurge.purge_interval_ms, None);
    let warnings: Vec<_> = warnings.iter().map(Warning::to_string).collect();
    assert_eq!(
        warnings,
        [
            "zoo.cfg:10: `admin.enableServer` ignored: the HTTP admin server: not supported by this build",
            "zoo.cfg:11: only one server is listed, so it runs standalone",
        ]
    );
}

#[test]
fn files_on_disk() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = dir.path().join("zoo.cfg");
    let load = || Config::load(&file, &Overrides::default(), false);

    let missing = load().expect_err("missing");
    assert!(matches!(&missing, ConfigError::Read { path, .. } if *path == file), "{missing}");

    let text = format!("dataDir={}\nclientPort=2181\n", dir.path().display());
    std::fs::write(&file, &text).expect("written");
    std::fs::write(dir.path().join("myid"), " 7 \n").expect("written");
    let (config, warnings) = load().expect("loads");
    assert_eq!((config.server_id, warnings), (Some(ServerId(7)), vec![]));

    let large = text + &"#".repeat(CONFIG_BYTES_MAX as usize);
    std::fs::write(&file, large).expect("written");
    assert!(matches!(load(), Err(ConfigError::TooLarge { .. })));

    let directory = Config::load(dir.path(), &Overrides::default(), false).expect_err("directory");
    assert!(matches!(&directory, ConfigError::Read { .. }), "{directory}");
}

#[test]
fn positional_arguments() {
    let load = |args: &[&str]| {
        let args: Vec<_> = args.iter().map(|arg| arg.to_string()).collect();
        Config::from_args(&args, &Overrides::default(), false)
    };
    let (config, warnings) = load(&["2181", "/d", "1000", "5"]).expect("loads");
    assert_eq!(warnings, []);
    assert_eq!((config.client_port, config.tick_time_ms), (Some(2181), 1000));
    assert_eq!((config.data_dir, config.max_client_cnxns), (PathBuf::from("/d"), Some(5)));

    let (config, warnings) = load(&["2181", "data"]).expect("loads");
    assert_eq!((config.tick_time_ms, config.max_client_cnxns), (3000, Some(60)));
    let expected = "argument 2: dataDir=data is relative to the working directory; \
                    write it absolute, or begin it with ./ if that is meant";
    assert_eq!(warnings[0].to_string(), expected);

    for (args, message) in [
        (
            &["zoo.cfg", "/d"][..],
            "argument 1: clientPort=zoo.cfg: expected a whole number from 0 to 65535; correct it",
        ),
        (
            &["2181", "/d", "0"],
            "argument 3: tickTime=0: expected a whole number of milliseconds from 1 to 2147483647; correct it, or remove the line for the default 3000",
        ),
        (
            &["2181", "/d", "1", "2", "3"],
            "argument 5: argument=3: expected clientPort dataDir [tickTime [maxClientCnxns]]",
        ),
        (
            &["2181"],
            "command line: `dataDir` is missing: it names the directory for snapshots; write dataDir=/var/lib/zookeeper",
        ),
    ] {
        assert_eq!(load(args).expect_err("refused").to_string(), message);
    }
}

#[test]
fn properties_lie_beneath_the_file() {
    let scene = minimal("snapCount=7\n")
        .define("zookeeper.snapCount=9")
        .define("zookeeper.preAllocSize=1024")
        .define("jute.maxbuffer=0x9fffff")
        .define("znode.container.maxPerMinute=1")
        .define("tickTime=500");
    let (config, warnings) = scene.load().expect("loads");
    assert_eq!(config.snap_count, 7);
    assert_eq!(config.pre_alloc_size_kib, 1024);
    assert_eq!(config.jute_max_buffer_bytes, 0x9f_ffff);
    assert_eq!(config.containers.max_per_minute, 1);
    assert_eq!(config.max_session_timeout_ms, 10_000);
    assert_eq!(
        warnings.iter().map(Warning::to_string).collect::<Vec<_>>(),
        ["-D option: `zookeeper.snapCount` ignored: zoo.cfg:3 sets it too and wins; remove one of them"]
    );
}

/// The later of two sources wins, and only a real difference is worth a warning.
#[test]
fn precedence_of_properties() {
    let mut scene = minimal("");
    scene.overrides.define("snapCount=4", PropertySource::CommandLine);
    scene.overrides.define("snapCount=3", PropertySource::JvmFlags);
    scene.overrides.define("snapCount=3", PropertySource::ServerJvmFlags);
    scene.overrides.define("datadir.autocreate=false", PropertySource::DataDirAutocreate);
    let (config, warnings) = scene.load().expect("loads");
    assert_eq!((config.snap_count, config.data_dir_autocreate), (4, false));
    assert_eq!(
        warnings.iter().map(Warning::to_string).collect::<Vec<_>>(),
        ["-D option in JVMFLAGS: `snapCount` ignored: -D option sets it too and wins; remove one of them"]
    );
}

#[test]
fn properties_of_the_jvm_are_named_once() {
    let warnings = minimal("")
        .define("java.net.preferIPv4Stack=true")
        .define("zookeeper.log.dir=/logs")
        .define("com.sun.management.jmxremote")
        .define("zookeeper.snapcount=1")
        .warnings();
    assert_eq!(
        warnings,
        [
            "-D option: unknown key `zookeeper.snapcount` ignored; did you mean `snapCount`?",
            "-D option: `com.sun.management.jmxremote` has no effect: there is no JVM here; the line can be removed",
            "-D option: `java.net.preferIPv4Stack` has no effect: there is no JVM here; the line can be removed",
            "-D option: `zookeeper.log.dir` has no effect: logging is set up with the RUST_LOG environment variable; the line can be removed",
        ]
    );
}

/// Whatever the bytes, the answer is a configuration or an error, quickly.
#[test]
fn random_bytes_never_panic() {
    let mut random = fastrand::Rng::with_seed(0x5eed);
    let words: Vec<&str> = keys::KEYS.iter().map(|key| key.name).collect();
    let glue = [
        "=",
        ":",
        " ",
        "\n",
        "\r\n",
        "\\\n",
        "\\u00",
        "\\",
        "|",
        ";",
        "[",
        "]",
        "-1",
        "0x",
        "true",
        "2888:3888",
        "participant",
        "*",
        ".",
        "99999999999999999999",
        "é",
        "zookeeper.",
        "\0",
        ",",
    ];
    let pick = |random: &mut fastrand::Rng, from: &[&str]| from[random.usize(..from.len())].to_string();
    for round in 0..3_000 {
        let mut text: Vec<u8> = if round % 2 == 0 { MINIMAL.into() } else { Vec::new() };
        for _ in 0..random.usize(..40) {
            match random.u8(..4) {
                0 => text.extend(pick(&mut random, &words).trim_end_matches('*').bytes()),
                1 => text.push(random.u8(..)),
                _ => text.extend(pick(&mut random, &glue).bytes()),
            }
        }
        let content = text.clone();
        let reader = |path: &Path| match path.file_name() {
            Some(_) => Ok(Some(content.clone())),
            None => Err(io::ErrorKind::InvalidInput.into()),
        };
        let result = Config::from_bytes(Path::new("fuzz"), &text, &Overrides::default(), true, &reader);
        if let Err(error) = result {
            let message = error.to_string();
            assert!(message.chars().all(|c| c == '\n' || !c.is_control()), "{message:?}");
        }
    }
}

/// Absurd files are answered; were it in quadratic time, this would not end.
#[test]
fn absurd_files() {
    for text in [
        "x\n".repeat(properties::ENTRIES_MAX),
        format!("{}=1", "a".repeat(1 << 19)),
        format!("tickTime={}", "9".repeat(1 << 19)),
        "zookeeper.".repeat(1 << 16),
        format!("4lw.commands.whitelist={}", "x,".repeat(1 << 18)),
        format!("server.1={}", "h:1:2|".repeat(1 << 16)),
        format!("group.1={}", "1:".repeat(1 << 18)),
    ] {
        let result = minimal(&text).load();
        let message = match result {
            Ok((_, warnings)) => warnings.first().map(Warning::to_string).unwrap_or_default(),
            Err(error) => error.to_string(),
        };
        assert!(message.len() < 1000, "{}…", &message[..1000]);
    }
}

#[test]
fn secrets_are_never_shown() {
    let key = "DigestAuthenticationProvider.superDigest";
    let good = minimal(&format!("{key}=super:lK75jTNcA+U9vtVEw5vB51mj/w4=\n")).config();
    let digest = good.super_digest.as_ref().map(Secret::expose);
    assert_eq!(digest, Some("super:lK75jTNcA+U9vtVEw5vB51mj/w4="));
    assert!(!format!("{good:?}").contains("lK75"));

    let bad = minimal(&format!("{key}=super:hunter2\nssl.keyStore.password=hunter2\n"));
    let error = bad.load().expect_err("no digest");
    assert!(
        error.to_string().contains("zoo.cfg:3: DigestAuthenticationProvider.superDigest=<secret>: expected")
    );
    assert!(!format!("{error} {error:?}").contains("hunter2"));
    let property = minimal("").define(&format!("zookeeper.{key}=super:hunter2"));
    assert!(!format!("{:?} {}", property.overrides, property.error()).contains("hunter2"));
}
