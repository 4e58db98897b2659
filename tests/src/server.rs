//! The server under test: embedded in the test's own process, on a free port.

use std::fmt::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;

use tempfile::TempDir;
use zk_server::Server;
use zk_server::config::{Config, Overrides};

/// A running server. Stops when dropped.
#[derive(Debug)]
pub struct TestServer {
    addr: SocketAddr,
    config: Option<Config>,
    directory: Option<TempDir>,
    server: Option<Server>,
}

/// Names another server that the tests are to run against.
const EXTERNAL: &str = "ZK_TEST_SERVER";

/// What every test server has unless the test says otherwise. The tick is that of the recorded vectors.
const SETTINGS: [&str; 7] = [
    "dataDir=unused",
    "clientPort=2181",
    "clientPortAddress=127.0.0.1",
    "tickTime=500",
    "maxSessionTimeout=30000",
    "maxClientCnxns=0",
    "4lw.commands.whitelist=*",
];

/// Whether the tests run against another server, given by `ZK_TEST_SERVER=host:port`: a way to check on
/// Apache's server what they expect. Settings have no effect then, and it cannot be restarted.
pub fn is_external() -> bool {
    std::env::var_os(EXTERNAL).is_some()
}

impl TestServer {
    /// Starts a server with its data in memory and with these lines in its `zoo.cfg`.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn start(settings: &[&str]) -> TestServer {
        TestServer::launch(settings, None)
    }

    /// [`TestServer::start`] with the data in a temporary directory, so that it can be restarted.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn start_on_disk(settings: &[&str]) -> TestServer {
        TestServer::launch(settings, Some(tempfile::tempdir().expect("a temporary directory")))
    }

    fn launch(settings: &[&str], directory: Option<TempDir>) -> TestServer {
        if let Ok(addr) = std::env::var(EXTERNAL) {
            let addr = addr.to_socket_addrs().ok().and_then(|mut all| all.next());
            let addr = addr.unwrap_or_else(|| panic!("{EXTERNAL} is not host:port"));
            return TestServer { addr, config: None, directory: None, server: None };
        }
        let config = config(settings);
        let server = start(&config, directory.as_ref());
        TestServer { addr: server.local_addr(), config: Some(config), directory, server: Some(server) }
    }

    /// Stops the server and starts it again on the same data, at another port. Does nothing to an external one.
    ///
    /// # Panics
    ///
    /// When its data is in memory, or it does not start.
    pub fn restart(&mut self) {
        let Some(config) = &self.config else { return };
        assert!(self.directory.is_some(), "a server in memory has nothing to start again with");
        if let Some(server) = self.server.take() {
            server.shutdown_blocking();
        }
        let server = start(config, self.directory.as_ref());
        self.addr = server.local_addr();
        self.server = Some(server);
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The embedded server.
    ///
    /// # Panics
    ///
    /// When it is an external one.
    pub fn embedded(&self) -> &Server {
        self.server.as_ref().expect("an embedded server")
    }
}

/// A later setting wins over an earlier one of the same name.
fn config(settings: &[&str]) -> Config {
    let name = |line: &str| line.split('=').next().unwrap_or_default().to_owned();
    let mut text = String::new();
    for line in SETTINGS.iter().filter(|line| settings.iter().all(|s| name(s) != name(line))).chain(settings)
    {
        writeln!(text, "{line}").expect("a String takes everything");
    }
    let no_files = |_: &Path| Ok(None);
    match Config::from_bytes(Path::new("zoo.cfg"), text.as_bytes(), &Overrides::default(), true, &no_files) {
        Ok((config, _)) => config,
        Err(e) => panic!("{e}"),
    }
}

fn start(config: &Config, directory: Option<&TempDir>) -> Server {
    let builder = Server::builder().config(config.clone()).client_port(0);
    let builder = match directory {
        None => builder.memory(),
        Some(directory) => builder.data_dir(directory.path()),
    };
    builder.start().unwrap_or_else(|e| panic!("{e}"))
}
