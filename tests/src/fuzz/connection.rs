//! A whole connection: any bytes to a running server.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use zk_proto::jute::frame;
use zk_proto::{SessionId, Zxid};
use zk_server::Server;

use super::{MIB, Target};
use crate::vectors;
use crate::wire::connect_request;

/// The first byte says whether a handshake precedes; the rest is sent as it is, then the sending side is closed.
/// The server must close the connection too, and live.
pub const CONNECTION: Target = Target {
    name: "connection",
    // The server's buffers, its tree, and the answers.
    fixed_bytes: 16 * MIB,
    seeds: || {
        let recorded = vectors::all();
        let mut connections = std::collections::BTreeMap::<u64, Vec<u8>>::new();
        for e in recorded.iter().filter(|e| e.part.from_client()) {
            let handshake = e.part == vectors::Part::Request;
            let bytes = connections.entry(e.conn).or_insert_with(|| vec![u8::from(handshake)]);
            match e.part {
                vectors::Part::RawRequest => bytes.extend(&e.bytes),
                _ => frame(bytes, |w| w.extend(&e.bytes)),
            }
        }
        let words = ["srvr", "mntr", "cons", "dump", "wchp", "conf", "stmk"];
        let words = words.map(|word| [&[0][..], word.as_bytes()].concat());
        // The longest ones would only take longer.
        connections.into_values().filter(|bytes| bytes.len() < 4096).chain(words).collect()
    },
    run: |input| {
        let Some((&handshake, bytes)) = input.split_first() else { return };
        let mut server = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
        let running = Running::take(&mut server);
        running.send(handshake % 2 == 1, bytes);
        assert_eq!(running.answer(b"ruok"), b"imok", "the server does not live");
    },
};

/// A hanging server is a failure.
const PATIENCE: Duration = Duration::from_secs(5);
/// A server gets so many inputs, lest what they create piles up.
const INPUTS_MAX: u32 = 300;

static SERVER: Mutex<Option<Running>> = Mutex::new(None);

struct Running {
    server: Server,
    inputs: u32,
}

impl Running {
    fn take(slot: &mut Option<Running>) -> &Running {
        if slot.as_ref().is_some_and(|running| running.inputs >= INPUTS_MAX) {
            *slot = None;
        }
        let running = slot.get_or_insert_with(|| {
            let server = Server::builder().memory().io_threads(1).start();
            Running { server: server.unwrap_or_else(|e| panic!("{e}")), inputs: 0 }
        });
        running.inputs += 1;
        running
    }

    fn send(&self, handshake: bool, bytes: &[u8]) {
        let mut all = Vec::new();
        if handshake {
            let body = connect_request(4000, SessionId::NONE, &[0; 16], Zxid::ZERO);
            frame(&mut all, |w| w.extend(body));
        }
        all.extend(bytes);
        self.answer(&all);
    }

    /// Sends bytes on a connection of their own, and returns what comes until the server closes it.
    fn answer(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.server.local_addr()).expect("the server accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time above zero");
        stream.set_write_timeout(Some(PATIENCE)).expect("a time above zero");
        // The server may close it before it has read everything.
        let _ = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => panic!("the connection is not closed"),
            _ => answer,
        }
    }
}
