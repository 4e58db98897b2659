//! Who is served: by the state of the server, as clients see it on a socket.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use zk_proto::jute::{Writer, frame};
use zk_proto::{
    ConnectRequest, ConnectResponse, OpCode, Reader, ReplyHeader, RequestHeader, SessionId, Zxid,
};

use super::Server;
use crate::net::Serving;

struct Client(TcpStream);

impl Client {
    fn connect(server: &Server, read_only: Option<bool>) -> Client {
        let socket = TcpStream::connect(server.local_addr()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut client = Client(socket);
        client.send(|out| {
            ConnectRequest {
                protocol_version: 0,
                last_zxid_seen: Zxid(0),
                timeout_ms: 10_000,
                session_id: SessionId::NONE,
                passwd: Some(&[0; 16]),
                read_only,
            }
            .encode(out);
        });
        client
    }

    fn send(&mut self, body: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = Vec::new();
        frame(&mut bytes, body);
        self.0.write_all(&bytes).unwrap();
    }

    /// The next frame, `None` when the connection is closed.
    fn next(&mut self) -> Option<Vec<u8>> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).ok()?;
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut body).ok()?;
        Some(body)
    }

    /// The flag `readOnly` of the connect response.
    fn connected(&mut self) -> Option<bool> {
        let body = self.next().expect("the connection was closed");
        let response = ConnectResponse::decode(&mut Reader::new(&body)).unwrap();
        assert_ne!(response.session_id, SessionId::NONE);
        response.read_only
    }

    /// The error of the reply to a request whose first field is a path.
    fn request(&mut self, op: OpCode, rest: &[u8]) -> i32 {
        self.send(|out| {
            RequestHeader { xid: 7, op: op as i32 }.encode(out);
            out.put_str("/");
            out.extend_from_slice(rest);
        });
        let body = self.next().expect("the connection was closed");
        ReplyHeader::decode(&mut Reader::new(&body)).unwrap().err.0
    }

    fn is_closed(&mut self) -> bool {
        self.next().is_none()
    }
}

fn serve(server: &Server, serving: Serving) {
    server.state.net.serve(serving);
}

#[test]
fn nobody_is_served_but_words_are_answered() {
    let server = Server::builder().memory().start().unwrap();
    let mut client = Client::connect(&server, Some(true));
    assert_eq!(client.connected(), Some(false));
    serve(&server, Serving::Nobody);
    assert!(client.is_closed(), "a connection does not outlive its term");
    for read_only in [None, Some(false), Some(true)] {
        assert!(Client::connect(&server, read_only).is_closed());
    }
    let mut word = TcpStream::connect(server.local_addr()).unwrap();
    // In pieces: not taken for the length of a frame.
    for piece in [&b"ru"[..], b"ok"] {
        word.write_all(piece).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut answer = String::new();
    word.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "imok");

    serve(&server, Serving::All);
    assert_eq!(Client::connect(&server, None).connected(), None);
}

#[test]
fn without_a_leader_only_clients_that_agreed_are_served_and_only_reads() {
    let server = Server::builder().memory().start().unwrap();
    let mut before = Client::connect(&server, Some(true));
    before.connected();
    serve(&server, Serving::ReadOnly);
    assert!(before.is_closed());
    assert!(Client::connect(&server, None).is_closed());
    assert!(Client::connect(&server, Some(false)).is_closed());

    let mut client = Client::connect(&server, Some(true));
    assert_eq!(client.connected(), Some(true));
    let no_watch = [0];
    for (op, rest, err) in [
        (OpCode::Exists, &no_watch[..], 0),
        (OpCode::GetData, &no_watch, 0),
        (OpCode::GetChildren2, &no_watch, 0),
        (OpCode::Create, &[0xff; 12], -119),
        // Whether it can be decoded does not matter.
        (OpCode::SetData, &[], -119),
        (OpCode::Multi, &[], -119),
        (OpCode::Delete, &[0, 0, 0, 0], -119),
        (OpCode::Reconfig, &[], -119),
        (OpCode::Sync, &[], -119),
    ] {
        assert_eq!(client.request(op, rest), err, "{op:?}");
    }
    client.send(|out| RequestHeader { xid: 8, op: OpCode::CloseSession as i32 }.encode(out));
    let body = client.next().unwrap();
    assert_eq!(ReplyHeader::decode(&mut Reader::new(&body)).unwrap().err.0, 0);
    assert!(client.is_closed());

    let mut reader = Client::connect(&server, Some(true));
    reader.connected();
    serve(&server, Serving::All);
    assert!(reader.is_closed(), "a server that writes has come");
}
