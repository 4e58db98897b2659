//! Servers that the benchmark starts itself, from a definition in a file.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tempfile::TempDir;
use zk_proto::Request;

use super::error::{Context, Error, Result};
use super::process::{self, Memory};
use super::session::Session;
use super::workload::Target;

/// How long a server may take to serve, or to stop.
const PATIENCE: Duration = Duration::from_secs(120);

/// Pause between attempts to reach a server that is starting.
const POLL: Duration = Duration::from_millis(1);

/// How long one attempt to reach a server is alone; then another one begins beside it.
const PROBE_ALONE: Duration = Duration::from_millis(20);

/// How long one attempt may take.
const PROBE_PATIENCE: Duration = Duration::from_secs(5);

/// Attempts at the same time.
const PROBES_MAX: usize = 50;

/// How to start a server. In `start`, `config` and `live_memory` stand `{dir}` for a directory of the
/// server's own, `{data}` for the data directory in it, `{config}` for the file that gets the text of
/// `config`, `{port}` for the client port and, in `live_memory`, `{pid}`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// Name in the results.
    pub name: String,
    /// Shell command that becomes the server: it must not leave a shell behind, so it mostly begins with
    /// `exec`, and the server stays in the foreground.
    pub start: String,
    /// Text of the configuration file.
    #[serde(default)]
    pub config: String,
    /// Shell command that prints the bytes of memory in use: for servers whose resident set says little,
    /// since their heap holds garbage. Without it the resident set counts.
    pub live_memory: Option<String>,
}

impl Definition {
    /// Reads a definition from a TOML file.
    pub fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).context(file.display().to_string())?;
        toml::from_str(&text).map_err(|e| Error::Definition { file: file.to_owned(), message: e.to_string() })
    }
}

/// A server's place in an ensemble.
pub struct Place<'a> {
    /// Its id.
    pub id: usize,
    /// What the configuration file says of the ensemble, behind the definition's text.
    pub settings: &'a str,
}

/// A server on a loopback port with a directory of its own, which goes away with this value.
pub struct Server {
    definition: Definition,
    dir: TempDir,
    address: SocketAddr,
    child: Option<Child>,
}

impl Server {
    /// Makes the directory (in `base`, or where temporary files go) and the configuration; starts nothing.
    pub fn new(definition: &Definition, base: Option<&Path>) -> Result<Self> {
        Self::on_port(definition, base, free_port()?, None)
    }

    /// The same as a member of an ensemble, on a client port that [`free_port`] gave.
    pub fn member(
        definition: &Definition,
        base: Option<&Path>,
        port: u16,
        place: &Place<'_>,
    ) -> Result<Self> {
        Self::on_port(definition, base, port, Some(place))
    }

    fn on_port(
        definition: &Definition,
        base: Option<&Path>,
        port: u16,
        place: Option<&Place<'_>>,
    ) -> Result<Self> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("zk-bench-");
        let dir = match base {
            Some(base) => builder.tempdir_in(base),
            None => builder.tempdir(),
        };
        let server = Server {
            definition: definition.clone(),
            dir: dir.context("make a directory for the server")?,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            child: None,
        };
        fs::create_dir(server.data_dir()).context("make the data directory")?;
        let mut config = server.fill(&server.definition.config);
        if let Some(Place { id, settings }) = place {
            config.push_str(settings);
            fs::write(server.data_dir().join("myid"), id.to_string()).context("write the server's id")?;
        }
        fs::write(server.config_file(), config).context("write the server's configuration")?;
        Ok(server)
    }

    fn fill(&self, template: &str) -> String {
        let pid = self.child.as_ref().map(|child| child.id().to_string()).unwrap_or_default();
        template
            .replace("{dir}", &self.dir.path().display().to_string())
            .replace("{data}", &self.data_dir().display().to_string())
            .replace("{config}", &self.config_file().display().to_string())
            .replace("{port}", &self.address.port().to_string())
            .replace("{pid}", &pid)
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn config_file(&self) -> PathBuf {
        self.dir.path().join("zoo.cfg")
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("server.log")
    }

    /// Starts the server and waits until a read is answered; how long that took.
    pub fn start(&mut self) -> Result<Duration> {
        let begun = self.spawn()?;
        self.await_serving(begun)
    }

    /// Starts the server and does not wait; the moment at which that began.
    pub fn spawn(&mut self) -> Result<Instant> {
        let log = File::options().create(true).append(true).open(self.log_file());
        let log = log.context("open the server's log")?;
        let begun = Instant::now();
        let child = Command::new("sh")
            .args(["-c", &self.fill(&self.definition.start)])
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("open the server's log")?)
            .stderr(log)
            .spawn()
            .context(format!("start {}", self.definition.name))?;
        self.child = Some(child);
        Ok(begun)
    }

    /// Waits until a read is answered; how long that took from `begun` on.
    pub fn await_serving(&mut self, begun: Instant) -> Result<Duration> {
        let mut probes = Probes::new(self.address);
        while !probes.answered() {
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait().context("wait for the server")?
            {
                self.child = None;
                let code = status.code().map(|c| c.to_string()).unwrap_or_default();
                let signal = status.signal().map(|s| format!(" signal {s}")).unwrap_or_default();
                return Err(self.failure(format!("ended with {code}{signal}")));
            }
            if begun.elapsed() > PATIENCE {
                return Err(self.failure("does not serve".into()));
            }
        }
        Ok(begun.elapsed())
    }

    /// Keeps the directory, so that the output can be read, and tells where it is.
    fn failure(&mut self, message: String) -> Error {
        self.dir.disable_cleanup(true);
        Error::Server { name: self.definition.name.clone(), message, log: self.log_file() }
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended already, which is what is wanted.
            let _ = kill_process(pid, signal);
        }
        let begun = Instant::now();
        while child.try_wait().context("wait for the server")?.is_none() {
            if begun.elapsed() > PATIENCE {
                let _ = child.kill();
                let _ = child.wait();
                return Err(self.failure("does not stop".into()));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Asks the server to end, and waits for it.
    pub fn stop(&mut self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Ends the server without giving it a chance to tidy up.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL)
    }

    /// What to load.
    pub fn target(&self) -> Target {
        Target::server(self.address, self.pid())
    }

    /// Where it listens for clients.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The running process.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Memory of the running process.
    pub fn memory(&self) -> Result<Memory> {
        match &self.child {
            Some(child) => process::memory(child.id()),
            None => Err(Error::Usage("the server is not running".into())),
        }
    }

    /// Memory in use, bytes: as the definition says, else the resident set.
    pub fn live_memory(&self) -> Result<u64> {
        let Some(command) = &self.definition.live_memory else { return Ok(self.memory()?.rss) };
        let output = Command::new("sh").args(["-c", &self.fill(command)]).stderr(Stdio::inherit()).output();
        let output = output.context("run live_memory")?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.trim()
            .parse()
            .map_err(|_| Error::Usage(format!("live_memory of {} printed {text:?}", self.definition.name)))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Attempts to read from a server that is starting. A server may accept a connection while it starts and
/// never answer on it (Apache does so at times), hence more than one attempt at a time.
struct Probes {
    address: SocketAddr,
    under_way: usize,
    results_in: mpsc::Sender<bool>,
    results: mpsc::Receiver<bool>,
}

impl Probes {
    fn new(address: SocketAddr) -> Self {
        let (results_in, results) = mpsc::channel();
        Probes { address, under_way: 0, results_in, results }
    }

    /// Waits a moment for an answer; true when there was one.
    fn answered(&mut self) -> bool {
        if self.under_way < PROBES_MAX {
            let (address, results) = (self.address, self.results_in.clone());
            // The thread ends by itself after PROBE_PATIENCE at most; nobody needs to wait for it.
            thread::spawn(move || {
                // Nobody listens any more once another probe has succeeded.
                let _ = results.send(probe(address).unwrap_or(false));
            });
            self.under_way += 1;
        }
        match self.results.recv_timeout(PROBE_ALONE) {
            Ok(answered) => {
                self.under_way -= 1;
                if !answered {
                    thread::sleep(POLL);
                }
                answered
            }
            Err(_) => false,
        }
    }
}

/// Connects, opens a session and reads once.
fn probe(address: SocketAddr) -> Result<bool> {
    let mut session = Session::open_within(address, 10_000, PROBE_PATIENCE)?;
    let answered = session.call(&Request::Exists { path: "/zookeeper".into(), watch: false })?.is_ok();
    // The answer counts; how the session ends does not.
    thread::spawn(move || session.close());
    Ok(answered)
}

/// A port that nobody listens on, below those that the kernel gives to outgoing connections.
pub fn free_port() -> Result<u16> {
    for _ in 0..1000 {
        let port = fastrand::u16(15_000..32_000);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(Error::Usage("no free port".into()))
}
