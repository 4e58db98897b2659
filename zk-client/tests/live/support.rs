//! The server, and a clean place on it.

use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use zk_client::{Client, ConnectBuilder};
use zk_server::Server;
use zk_server::config::{Config, Overrides};

/// The server to test against: the one that `ZK_TEST_CONNECT` names, or ours, embedded, one for all tests.
fn server() -> String {
    static EMBEDDED: OnceLock<Server> = OnceLock::new();
    std::env::var("ZK_TEST_CONNECT").unwrap_or_else(|_| EMBEDDED.get_or_init(embedded).connect_string())
}

fn embedded() -> Server {
    let (mut config, _) =
        Config::dev(Path::new("memory"), 0, &Overrides::default(), false).expect("defaults");
    config.extended_types_enabled = true;
    config.max_client_cnxns = None;
    Server::builder().config(config).memory().client_port(0).tick_time(TICK).start().expect("a server")
}

pub const TICK: Duration = Duration::from_millis(500);

/// A place on the server that exists and is empty.
pub async fn scene(name: &str) -> Scene {
    let server = server();
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let root = format!("/zk-client-test-{name}-{}-{number}", std::process::id());
    let client = Client::connect(&server).await.expect("the test server");
    client.create(&root, "").await.expect("a fresh root");
    Scene { server, root, admin: client }
}

/// A place on the server for one test.
pub struct Scene {
    pub server: String,
    pub root: String,
    /// A client without chroot.
    pub admin: Client,
}

impl Scene {
    /// A client below the test's root, yet to be connected.
    pub fn builder(&self) -> ConnectBuilder {
        Client::connect(&format!("{}{}", self.server, self.root)).session_timeout(Duration::from_secs(8))
    }

    pub async fn client(&self) -> Client {
        self.builder().await.expect("a client")
    }

    /// Removes what the test has left.
    pub async fn end(self) {
        self.admin.delete(&self.root).recursive().if_exists().await.expect("the root goes away");
        self.admin.close().await.expect("a clean close");
    }
}

/// Fails the test when `future` takes longer than ten seconds.
pub async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("done within 10 s")
}
