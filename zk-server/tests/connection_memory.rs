//! Memory of an idle connection with its session, measured at the allocator. One test, so that nothing else
//! allocates meanwhile.

use std::alloc::System;
use std::io::{Read, Write};
use std::net::TcpStream;

use cap::Cap;
use zk_proto::jute::frame;
use zk_proto::{ConnectRequest, SessionId, Zxid};
use zk_server::Server;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

fn connect(server: &Server) -> TcpStream {
    let request = ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: Zxid(0),
        timeout_ms: 60_000,
        session_id: SessionId::NONE,
        passwd: Some(&[0; 16]),
        read_only: Some(false),
    };
    let mut bytes = Vec::new();
    frame(&mut bytes, |out| request.encode(out));
    let mut socket = TcpStream::connect(server.connect_string()).unwrap();
    socket.write_all(&bytes).unwrap();
    socket.read_exact(&mut [0; 41]).unwrap();
    socket
}

fn ping(socket: &mut TcpStream) {
    socket.write_all(&[0, 0, 0, 8, 0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 11]).unwrap();
    socket.read_exact(&mut [0; 20]).unwrap();
}

#[test]
fn an_idle_connection_takes_few_bytes() {
    const COUNT: usize = 2_000;
    let server = Server::builder().memory().start().unwrap();
    // What is there once.
    let mut sockets: Vec<_> = (0..COUNT / 10).map(|_| connect(&server)).collect();
    sockets.iter_mut().for_each(ping);
    sockets.reserve(COUNT);
    let before = ALLOCATOR.allocated();
    sockets.extend((0..COUNT).map(|_| connect(&server)));
    sockets.iter_mut().for_each(ping);
    let per_connection = (ALLOCATOR.allocated() - before) as f64 / COUNT as f64;
    println!("{per_connection:.0} bytes");
    assert!(per_connection <= 600.0, "{per_connection:.0} bytes");
    server.shutdown_blocking();
}
