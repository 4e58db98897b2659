//! One server for all tests, a fresh path for each.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use zk_client::Client;
use zk_server::Server;

/// The server that `ZK_TEST_CONNECT` names, or an embedded one.
fn server() -> String {
    static EMBEDDED: OnceLock<Server> = OnceLock::new();
    std::env::var("ZK_TEST_CONNECT").unwrap_or_else(|_| {
        let server = EMBEDDED.get_or_init(|| {
            Server::builder()
                .memory()
                .tick_time(Duration::from_millis(500))
                .start()
                .expect("an embedded server")
        });
        server.connect_string()
    })
}

/// A client with a session of its own.
pub async fn connect() -> Client {
    Client::connect(&server()).session_timeout(Duration::from_secs(5)).await.expect("a session")
}

/// A path that nobody else uses.
pub fn fresh_path(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let run = std::process::id();
    format!("/{name}-{run}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Ends the client's session behind its back: another connection takes it over and closes it.
pub async fn expire(zk: &Client) {
    let thief = Client::connect(&server()).resume(zk.session()).await.expect("the session");
    thief.close().await.expect("closed");
}
