//! The server, and a clean place on it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use zk_client::{Client, ConnectBuilder};

/// The server to test against, if there is one.
pub fn server() -> Option<String> {
    std::env::var("ZK_TEST_CONNECT").ok()
}

/// A builder for a client whose chroot exists and is empty; `None` (and a word about it) without a server.
pub async fn scene(name: &str) -> Option<Scene> {
    let Some(server) = server() else {
        println!("{name}: skipped, ZK_TEST_CONNECT is not set");
        return None;
    };
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let root = format!("/zk-client-test-{name}-{}-{number}", std::process::id());
    let client = Client::connect(&server).await.expect("the test server");
    client.create(&root, "").await.expect("a fresh root");
    Some(Scene { server, root, admin: client })
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
