//! The recorded client frames in `tests/vectors/client`; the README there describes them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The vector files, in the order of their names.
pub const FILES: [&str; 9] =
    ["auth", "cclient", "kazoo", "malformed", "multi", "ops", "quorum", "sessions", "watches"];

/// What an element of a vector file records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Handshake, client to server.
    ConnectRequest,
    /// Handshake, server to client.
    ConnectResponse,
    /// A request.
    Request,
    /// Its reply.
    Response,
    /// A watch event.
    Event,
    /// Bytes without framing, client to server.
    RawRequest,
    /// Bytes without framing, server to client.
    RawResponse,
    /// The server closed the connection here.
    ServerClose,
}

impl Part {
    /// Whether the client sent it.
    pub fn from_client(self) -> bool {
        matches!(self, Part::ConnectRequest | Part::Request | Part::RawRequest)
    }
}

/// One recorded step of a connection.
#[derive(Debug, Clone)]
pub struct Element {
    /// File that it is in, without extension.
    pub file: &'static str,
    /// Position in the whole recording, over all files.
    pub seq: u64,
    /// Label of the step.
    pub name: String,
    /// What it is.
    pub part: Part,
    /// Connection, unique over all files.
    pub conn: u64,
    /// Name of the operation; empty where the recording has none.
    pub op: String,
    /// Body of the frame without length prefix, or raw bytes; empty for a close.
    pub bytes: Vec<u8>,
    /// The decoded fields.
    pub decoded: Value,
}

/// Where the vectors of this repository are.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

/// All elements of all files in the order of the recording.
///
/// # Panics
///
/// When a file is missing or not as its README says.
pub fn all() -> Vec<Element> {
    let mut elements: Vec<_> = FILES.into_iter().flat_map(load).collect();
    elements.sort_by_key(|e| e.seq);
    elements
}

fn load(file: &'static str) -> Vec<Element> {
    let path = root().join(format!("client/{file}.json"));
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let Ok(Value::Array(list)) = serde_json::from_str(&text) else {
        panic!("{}: not a JSON array", path.display())
    };
    list.into_iter().map(|value| element(file, value)).collect()
}

fn element(file: &'static str, mut v: Value) -> Element {
    let text = |v: &Value, key: &str| v[key].as_str().unwrap_or_default().to_owned();
    let number = |key: &str| v[key].as_u64().unwrap_or_else(|| panic!("{file}: no {key} in {v}"));
    let part = match v["part"].as_str() {
        Some("connect-request") => Part::ConnectRequest,
        Some("connect-response") => Part::ConnectResponse,
        Some("request") => Part::Request,
        Some("response") => Part::Response,
        Some("event") => Part::Event,
        Some("raw-request") => Part::RawRequest,
        Some("raw-response") => Part::RawResponse,
        Some("server-close") => Part::ServerClose,
        _ => panic!("{file}: unknown part in {v}"),
    };
    Element {
        file,
        seq: number("seq"),
        conn: number("conn"),
        name: text(&v, "name"),
        part,
        op: text(&v, "op"),
        bytes: unhex(&text(&v, if v["raw"].is_string() { "raw" } else { "frame" })),
        decoded: v["decoded"].take(),
    }
}

/// Bytes of a hex string.
///
/// # Panics
///
/// When it is none.
pub fn unhex(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2), "odd hex {hex:?}");
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect("hex digits")).collect()
}
