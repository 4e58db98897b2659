//! The server as its clients see it: bytes on a socket.

mod auth;
mod bad_input;
mod client;
mod handshake;
mod limits;
mod order;
mod restart;
mod sessions;
mod watches;
mod words;

use std::time::Duration;

use zk_server::Server;

/// A server in memory with a short tick.
fn server() -> Server {
    let ms = Duration::from_millis;
    Server::builder().memory().tick_time(ms(100)).session_timeouts(ms(200), ms(20_000)).start().unwrap()
}
