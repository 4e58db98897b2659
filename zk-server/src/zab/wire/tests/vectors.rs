//! Every message recorded from Apache servers: decoded it has the recorded fields, encoded again the same bytes.

use bytes::BytesMut;
use serde_json::{Value, json};
use zk_proto::{Acl, Zxid};

use super::super::*;
use super::{Recorded, Rewriter, recorded};
use crate::auth::Identity;
use crate::storage::{NodeStat, Replay};
use crate::tree::{Tree, TreeLoader};
use crate::txn;
use crate::zab::ensemble::Ensemble;
use crate::zab::{PeerState, Proposal};

const DATA_MAX: usize = 1 << 20;

#[test]
fn every_message_has_its_fields_and_encodes_to_its_bytes() {
    let mut count = 0;
    for (file, messages) in recorded() {
        for (n, message) in messages.iter().enumerate() {
            let at = format!("{file} {n} {}", message.name);
            let mut encoded = Vec::new();
            let fields = match &*message.name {
                "HELLO" => hello(&message.bytes, &mut encoded),
                "NOTIFICATION" => notification(&message.bytes, &mut encoded),
                "QUORUMAUTH" => quorum_auth(&message.bytes, &mut encoded),
                "SNAPSTREAM" => snap_stream(&message.bytes, &mut encoded),
                _ => packet(message, &mut encoded),
            };
            assert_contains(&message.fields, &fields, &at);
            assert_eq!(encoded, message.bytes, "{at}");
            count += 1;
        }
    }
    assert_eq!(count, 1066);
}

#[test]
fn configurations_parse_and_are_written_alike() {
    let mut count = 0;
    for (file, messages) in recorded() {
        for Recorded { fields, .. } in messages {
            let config = fields["config"].as_str().or(fields["data"]["config"].as_str());
            if let Some(config) = config.filter(|config| !config.is_empty()) {
                assert_eq!(Ensemble::parse(config).expect(&file).to_text(), config);
                count += 1;
            }
        }
    }
    assert_eq!(count, 76);
}

/// Both directions of each connection in pieces of all sizes: nothing is lost, nothing read too far.
#[test]
fn connections_can_arrive_in_any_pieces() {
    let mut snapshots = 0;
    for (file, messages) in recorded() {
        if file.starts_with("election-") || file == "messages" {
            continue;
        }
        for from_dialer in [true, false] {
            let messages: Vec<&Recorded> = messages
                .iter()
                .filter(|message| message.from_dialer == from_dialer && message.name != "QUORUMAUTH")
                .collect();
            let bytes: Vec<u8> = messages.iter().flat_map(|message| message.bytes.clone()).collect();
            let expected: Vec<&str> = messages.iter().map(|message| &*message.name).collect();
            for piece in [1, 7, 100, 4096, usize::MAX] {
                let mut stream = LearnerStream::new(StreamOptions::default());
                let mut items = Vec::new();
                for piece in bytes.chunks(piece.min(bytes.len().max(1))) {
                    items.extend(stream.push(piece).expect(&file));
                }
                assert_eq!(items.len(), expected.len(), "{file}");
                for (item, message) in items.iter().zip(&messages) {
                    match item {
                        StreamItem::Packet(packet) => {
                            let mut encoded = Vec::new();
                            packet.encode(&mut encoded);
                            assert_eq!(encoded, message.bytes, "{file}");
                        }
                        StreamItem::Snapshot { tree, .. } => {
                            assert_eq!(message.name, "SNAPSTREAM", "{file}");
                            let nodes = message.fields["nodes"].as_array().unwrap();
                            assert_eq!(tree.len(), nodes.len(), "{file}");
                            snapshots += 1;
                        }
                    }
                }
            }
        }
    }
    assert_eq!(snapshots, 9 * 5);
}

/// A tree that was received is sent on with the same content, and byte for byte when it is sent on again.
#[test]
fn received_trees_are_sent_with_the_same_content() {
    for (file, messages) in recorded() {
        for message in messages.iter().filter(|message| message.name == "SNAPSTREAM") {
            let mut received = decode(&message.bytes, Rewriter::default());
            received.sessions.sort_unstable();
            let (first, digest) = through_a_tree(&message.bytes);
            let sent = decode(&first, Rewriter::default());
            assert_eq!((&sent.sessions, sent.nodes()), (&received.sessions, received.nodes()), "{file}");
            assert_eq!(through_a_tree(&first), (first, digest), "{file}");
        }
    }
}

fn through_a_tree(stream: &[u8]) -> (Vec<u8>, u64) {
    let mut loader = decode(stream, TreeLoader::new(0));
    // Behind all nodes: a pin leaves out what is newer than itself.
    loader.snapshot_loaded(Zxid(i64::MAX), None);
    let mut tree = loader.finish();
    let digest = tree.digest();
    (encode(&mut tree), digest)
}

/// The stream of a tree.
pub(super) fn encode(tree: &mut Tree) -> Vec<u8> {
    let mut encoder = SnapStreamEncoder::new(tree.pin());
    let mut out = Vec::new();
    while encoder.next(tree, &mut out) {}
    out
}

fn decode<S: crate::storage::SnapshotSink>(stream: &[u8], sink: S) -> S {
    let mut decoder = SnapStreamDecoder::new(sink, DATA_MAX);
    let progress = decoder.push(stream).unwrap();
    assert_eq!(progress, SnapProgress { consumed: stream.len(), done: true });
    decoder.into_sink()
}

fn hello(bytes: &[u8], encoded: &mut Vec<u8>) -> Value {
    let (hello, len) = Hello::decode(bytes).unwrap().unwrap();
    assert_eq!(len, bytes.len());
    for short in 0..len {
        assert_eq!(Hello::decode(&bytes[..short]), Ok(None));
    }
    hello.encode(encoded);
    let addresses: Vec<String> = hello.addresses.iter().map(ToString::to_string).collect();
    let addresses = addresses.join("|");
    json!({
        "protocolVersion": if hello.form == HelloForm::V1 { -65536 } else { -65535 },
        "sid": hello.server.0,
        "addrLen": addresses.len(),
        "addr": addresses,
    })
}

fn notification(bytes: &[u8], encoded: &mut Vec<u8>) -> Value {
    let mut buffer = BytesMut::from(bytes);
    let frame = next_frame(&mut buffer).unwrap().unwrap();
    assert!(buffer.is_empty());
    let n = Notification::decode(&frame).unwrap();
    n.encode(encoded);
    let (state, name) = match n.state {
        PeerState::Looking => (0, "LOOKING"),
        PeerState::Following => (1, "FOLLOWING"),
        PeerState::Leading => (2, "LEADING"),
        PeerState::Observing => (3, "OBSERVING"),
    };
    json!({
        "state": state,
        "stateName": name,
        "leader": n.leader,
        "zxid": hex(n.zxid),
        "electionEpoch": hex(n.round),
        "peerEpoch": hex(n.peer_epoch),
        "version": n.version,
        "configLength": n.config.len(),
        "config": text(&n.config),
    })
}

fn quorum_auth(bytes: &[u8], encoded: &mut Vec<u8>) -> Value {
    assert_eq!(QuorumAuth::starts(bytes), Some(true));
    let mut buffer = BytesMut::from(bytes);
    let auth = QuorumAuth::decode(&mut buffer).unwrap().unwrap();
    assert!(buffer.is_empty());
    auth.encode(encoded);
    let (status, name) = match auth.status {
        SaslStatus::InProgress => (0, "IN_PROGRESS"),
        SaslStatus::Success => (1, "SUCCESS"),
        SaslStatus::Error => (-1, "ERROR"),
    };
    json!({ "magic": "0x5f2435013501edcc", "status": status, "statusName": name, "token": text(&auth.token) })
}

fn snap_stream(bytes: &[u8], encoded: &mut Vec<u8>) -> Value {
    let content = decode(bytes, Rewriter::default());
    *encoded = content.stream();
    let text_of = |text: &Option<std::borrow::Cow<'_, str>>| json!(text.as_deref());
    let acl = |acl: &Acl<'_>| json!({ "perms": acl.perms.0, "scheme": text_of(&acl.scheme), "id": text_of(&acl.id) });
    let sessions = content.sessions.iter().map(|(id, timeout)| json!({ "id": hex(*id), "timeout": timeout }));
    let acls = content
        .acls
        .iter()
        .map(|(id, list)| json!({ "index": id, "acl": list.iter().map(acl).collect::<Vec<_>>() }));
    let nodes = content.nodes.iter().map(|node| {
        let stat = NodeStat::decode(&node.stat);
        json!({
            "path": node.path,
            "data": node.data.as_deref().map(text),
            "acl": node.acl_id,
            "stat": {
                "czxid": hex(stat.czxid),
                "mzxid": hex(stat.mzxid),
                "ctime": stat.ctime,
                "mtime": stat.mtime,
                "version": stat.version,
                "cversion": stat.cversion,
                "aversion": stat.aversion,
                "ephemeralOwner": hex(stat.ephemeral_owner),
                "pzxid": hex(stat.pzxid),
            },
        })
    });
    json!({
        "sessions": sessions.collect::<Vec<_>>(),
        "aclCache": acls.collect::<Vec<_>>(),
        "nodes": nodes.collect::<Vec<_>>(),
        "afterTree": "",
        "signature": "BenWasHere",
    })
}

fn packet(message: &Recorded, encoded: &mut Vec<u8>) -> Value {
    let mut buffer = BytesMut::from(&message.bytes[..]);
    let packet = QuorumPacket::decode(&mut buffer, DATA_MAX).unwrap().unwrap();
    assert!(buffer.is_empty());
    let mut raw = Vec::new();
    packet.encode(&mut raw);
    assert_eq!(raw, message.bytes);
    let (kind, zxid) = (packet.kind, packet.zxid);
    let identity = |identity: &Identity| json!({ "scheme": identity.scheme, "id": identity.id });
    let auth = packet.auth.as_ref().map(|auth| auth.iter().map(identity).collect::<Vec<_>>());
    let data = if message.from_dialer {
        let meaning = ToLeader::try_from(packet).unwrap();
        meaning.encode(encoded);
        to_leader(&meaning)
    } else {
        let meaning = ToLearner::try_from(packet).unwrap();
        meaning.encode(encoded);
        to_learner(&meaning)
    };
    json!({ "type": kind, "name": message.name, "zxid": hex(zxid), "authinfo": auth, "data": data })
}

fn to_leader(packet: &ToLeader) -> Value {
    match packet {
        ToLeader::FollowerInfo(info) | ToLeader::ObserverInfo(info) => json!({
            "serverid": info.server.0,
            "protocolVersion": hex(info.protocol_version.into()),
            "configVersion": hex(info.config_version),
        }),
        ToLeader::AckEpoch { current, .. } => {
            json!({ "currentEpoch": current.map_or(-1, |epoch| i64::from(epoch.0)) })
        }
        ToLeader::Ack(_) => Value::Null,
        ToLeader::Request { session, cxid, op, body, .. } => {
            let record: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
            json!({ "sessionId": hex(session.0), "cxid": cxid, "type": op, "requestRecord": record })
        }
        ToLeader::Ping { touched, .. } => {
            let touches = touched
                .iter()
                .map(|(session, timeout)| json!({ "sessionId": hex(session.0), "timeoutMs": timeout }));
            json!({ "touches": touches.collect::<Vec<_>>() })
        }
        ToLeader::Revalidate { session, timeout_ms } => {
            json!({ "sessionId": hex(session.0), "timeoutMs": timeout_ms })
        }
        ToLeader::Other(kind) => panic!("{kind}"),
    }
}

fn to_learner(packet: &ToLearner) -> Value {
    match packet {
        ToLearner::LeaderInfo { .. } => json!({ "protocolVersion": hex(PROTOCOL_VERSION.into()) }),
        ToLearner::NewLeader { config: Some(config), .. } => json!({ "config": text(config) }),
        ToLearner::Proposal(proposal) | ToLearner::Inform(proposal) => transaction(proposal),
        ToLearner::CommitAndActivate { leader, .. } => json!({ "designatedLeader": leader }),
        ToLearner::InformAndActivate { proposal, leader } => {
            json!({ "designatedLeader": leader, "txn": transaction(proposal) })
        }
        ToLearner::Revalidate { session, valid } => {
            json!({ "sessionId": hex(session.0), "valid": i32::from(*valid) })
        }
        ToLearner::Diff(_)
        | ToLearner::Trunc(_)
        | ToLearner::Snap(_)
        | ToLearner::NewLeader { config: None, .. }
        | ToLearner::UpToDate
        | ToLearner::Commit(_)
        | ToLearner::Ping(_)
        | ToLearner::Sync => Value::Null,
        ToLearner::Other(kind) => panic!("{kind}"),
    }
}

fn transaction(proposal: &Proposal) -> Value {
    let (header, _, digest) = txn::decode(&proposal.payload).unwrap();
    assert_eq!(header.zxid, proposal.zxid);
    let header = json!({
        "clientId": hex(header.client_id),
        "cxid": header.cxid,
        "zxid": hex(header.zxid.0),
        "time": header.time_ms,
        "type": header.kind,
    });
    let digest = digest
        .map(|digest| json!({ "version": digest.version, "treeDigest": hex(digest.value.cast_signed()) }));
    json!({ "header": header, "digest": digest })
}

fn hex(value: i64) -> Value {
    json!(format!("{value:#x}"))
}

fn text(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!(bytes.iter().fold("hex:".to_owned(), |text, byte| text + &format!("{byte:02x}"))),
    }
}

/// Whether all fields of `found` are in `recorded`, and none is missing but those that name what others say, and
/// the bodies of transactions, which other tests look at.
fn assert_contains(recorded: &Value, found: &Value, at: &str) {
    let (Value::Object(expected), Value::Object(found)) = (recorded, found) else {
        assert_eq!(found, recorded, "{at}");
        return;
    };
    for (key, value) in expected {
        match found.get(key) {
            Some(found) => assert_contains(value, found, &format!("{at}.{key}")),
            None => assert!(["op", "body"].contains(&&**key), "{at}.{key} is missing"),
        }
    }
    assert!(
        found.iter().all(|(key, value)| expected.contains_key(key) || value.is_null()),
        "{at}: {found:?}"
    );
}
