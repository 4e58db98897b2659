//! Forms that no recorded server sent, and what is refused.

use bytes::{Bytes, BytesMut};
use zk_proto::jute::Writer;
use zk_proto::{SessionId, Zxid};

use super::super::*;
use super::vectors::encode;
use crate::storage::RecordHeader;
use crate::tree::Tree;
use crate::zab::{Epoch, PeerState, ServerId};

fn packet(bytes: &[u8]) -> Result<Option<QuorumPacket>, WireError> {
    QuorumPacket::decode(&mut BytesMut::from(bytes), 100)
}

#[test]
fn a_hello_can_be_a_bare_server_id() {
    assert_eq!(
        Hello::decode(&[0, 0, 0, 0, 0, 0, 0, 5, 9, 9]),
        Ok(Some((Hello { server: ServerId(5), form: HelloForm::Legacy, addresses: vec![] }, 8)))
    );
}

#[test]
fn a_hello_with_bad_version_length_or_address_is_refused() {
    let hello = |version: i64, text: &str| {
        let mut bytes = Vec::new();
        bytes.put_long(version);
        bytes.put_long(1);
        bytes.put_utf8(text);
        Hello::decode(&bytes).map(|hello| hello.map(|(hello, _)| hello.addresses.len()))
    };
    assert_eq!(hello(-65536, "h:1"), Ok(Some(1)));
    assert_eq!(hello(-65535, "h:1|[::1]:2"), Ok(Some(2)));
    assert_eq!(hello(-65537, "h:1"), Err(WireError::HelloVersion(-65537)));
    assert_eq!(hello(-65536, ""), Err(WireError::HelloLength(0)));
    assert_eq!(hello(-65536, &"h".repeat(2049)), Err(WireError::HelloLength(2049)));
    for text in ["h", "h:", ":1", "h:1|", "h:65536", "h:-1", "::1:2", "h:1:2"] {
        assert_eq!(hello(-65536, text), Err(WireError::HelloAddress(text.into())));
    }
}

#[test]
fn nobody_dials_an_address_that_means_all_interfaces() {
    let mut bytes = Vec::new();
    bytes.put_long(-65535);
    bytes.put_long(1);
    bytes.put_utf8("0.0.0.0:1|[::]:2|h:3");
    let (hello, _) = Hello::decode(&bytes).unwrap().unwrap();
    let dialable: Vec<String> = hello.dialable().map(ToString::to_string).collect();
    assert_eq!(dialable, ["h:3"]);
}

#[test]
fn notifications_of_old_servers_are_understood() {
    let mut bytes = Vec::new();
    bytes.put_int(2);
    bytes.put_long(3);
    bytes.put_long(0x5_0000_0007);
    bytes.put_long(9);
    let decode = |bytes: &[u8]| Notification::decode(&Bytes::copy_from_slice(bytes));
    let expected = Notification {
        state: PeerState::Leading,
        leader: 3,
        zxid: 0x5_0000_0007,
        round: 9,
        peer_epoch: 5,
        version: 0,
        config: Bytes::new(),
    };
    assert_eq!(decode(&bytes), Ok(expected.clone()));
    bytes.put_long(6);
    bytes.put_int(99);
    assert_eq!(decode(&bytes), Ok(Notification { peer_epoch: 6, ..expected.clone() }));
    // Before 2 there is no configuration, and after 2 it stays where it was.
    bytes[39] = 1;
    bytes.put_int(-5);
    let one = Notification { peer_epoch: 6, version: 1, ..expected.clone() };
    assert_eq!(decode(&bytes), Ok(one));
    bytes.truncate(36);
    bytes.put_int(3);
    bytes.put_buffer(Some(b"config"));
    bytes.extend(b"more");
    let three = Notification { peer_epoch: 6, version: 3, config: Bytes::from_static(b"config"), ..expected };
    assert_eq!(decode(&bytes), Ok(three));
}

#[test]
fn notifications_of_other_lengths_are_refused() {
    for length in (0..60).filter(|length| ![28, 40].contains(length) && *length < 44) {
        let bytes = Bytes::from(vec![0; length]);
        assert_eq!(Notification::decode(&bytes), Err(WireError::NotificationLength(length)));
    }
    let mut bytes = vec![0; 36];
    bytes.put_int(2);
    for length in [-1, 1, i32::MAX] {
        let mut bytes = bytes.clone();
        bytes.put_int(length);
        let error = Err(WireError::NotificationConfigLength(length));
        assert_eq!(Notification::decode(&Bytes::from(bytes)), error);
    }
    bytes[3] = 4;
    bytes.put_int(0);
    assert_eq!(Notification::decode(&Bytes::from(bytes)), Err(WireError::NotificationState(4)));
}

#[test]
fn frames_have_bounds() {
    for length in [0, -1, (512 << 10) + 1, i32::MAX] {
        let mut buffer = BytesMut::from(&length.to_be_bytes()[..]);
        assert_eq!(next_frame(&mut buffer), Err(WireError::FrameLength(length)));
    }
    let mut buffer = BytesMut::from(&[0, 8, 0, 0, 1][..]);
    assert_eq!(next_frame(&mut buffer), Ok(None));
    let mut buffer = BytesMut::from(&[0, 0, 0, 2, 1, 2, 3][..]);
    assert_eq!(next_frame(&mut buffer), Ok(Some(Bytes::from_static(&[1, 2]))));
    assert_eq!(&buffer[..], [3]);
}

#[test]
fn lengths_in_packets_have_bounds() {
    let with_data = |length: i32| {
        let mut bytes = Vec::new();
        bytes.put_int(kind::PING);
        bytes.put_long(0);
        bytes.put_int(length);
        bytes
    };
    let refused = |length, what, max| Err(WireError::Length { kind: kind::PING, what, length, max });
    assert_eq!(packet(&with_data(100)), Ok(None));
    assert_eq!(packet(&with_data(101)), refused(101, "bytes of data", 100));
    assert_eq!(packet(&with_data(-2)), refused(-2, "bytes of data", 100));
    let mut bytes = with_data(-1);
    bytes.put_int(1025);
    assert_eq!(packet(&bytes), refused(1025, "identities", 1024));
    let mut bytes = with_data(0);
    bytes.put_int(1);
    bytes.put_int(-1);
    assert_eq!(packet(&bytes), refused(-1, "bytes of an identity", 64 << 10));
}

#[test]
fn data_is_a_slice_of_what_was_received() {
    let mut bytes = Vec::new();
    ToLearner::NewLeader { zxid: Zxid(1), config: Some(Bytes::from_static(b"config")) }.encode(&mut bytes);
    let mut buffer = BytesMut::from(&bytes[..]);
    let start = buffer.as_ptr() as usize;
    let packet = QuorumPacket::decode(&mut buffer, 100).unwrap().unwrap();
    assert_eq!(packet.data.unwrap().as_ptr() as usize, start + 16);
}

#[test]
fn data_that_does_not_fit_the_type_is_refused() {
    let packet = |kind, zxid, data: &[u8]| QuorumPacket {
        kind,
        zxid,
        data: Some(Bytes::copy_from_slice(data)),
        auth: None,
    };
    for (kind, zxid, len) in [
        (kind::FOLLOWER_INFO, 0, 0),
        (kind::FOLLOWER_INFO, 0, 11),
        (kind::FOLLOWER_INFO, 0, 19),
        (kind::FOLLOWER_INFO, -1, 20),
        (kind::OBSERVER_INFO, 0, 7),
        (kind::ACK_EPOCH, 0, 3),
        (kind::REQUEST, -1, 15),
        (kind::PING, 0, 11),
        (kind::PING, 0, 13),
        (kind::REVALIDATE, -1, 11),
    ] {
        assert!(ToLeader::try_from(packet(kind, zxid, &vec![0; len])).is_err(), "{kind} {len}");
    }
    assert!(ToLeader::try_from(packet(kind::ACK_EPOCH, 0, &[0xff, 0xff, 0xff, 0xfe])).is_err());
    for (kind, zxid, len) in [
        (kind::LEADER_INFO, -1, 4),
        (kind::PROPOSAL, 0, 31),
        (kind::INFORM, 0, 0),
        (kind::COMMIT_AND_ACTIVATE, 0, 7),
        (kind::INFORM_AND_ACTIVATE, 0, 39),
        (kind::REVALIDATE, -1, 8),
    ] {
        assert!(ToLearner::try_from(packet(kind, zxid, &vec![0; len])).is_err(), "{kind} {len}");
    }
}

#[test]
fn a_transaction_must_be_the_one_that_its_packet_names() {
    let mut payload = Vec::new();
    RecordHeader { client_id: 1, cxid: 2, zxid: Zxid(3), time_ms: 4, kind: -1 }.encode(&mut payload);
    let data = Some(Bytes::from(payload));
    for (zxid, fits) in [(3, true), (4, false)] {
        let packet = QuorumPacket { kind: kind::PROPOSAL, zxid, data: data.clone(), auth: None };
        assert_eq!(ToLearner::try_from(packet).is_ok(), fits);
    }
}

#[test]
fn learners_of_older_versions_say_less_about_themselves() {
    let info = |len: usize| {
        let mut data = Vec::new();
        data.put_long(7);
        data.put_int(PROTOCOL_VERSION);
        data.put_long(8);
        data.truncate(len);
        let data = Some(data.into());
        let packet = QuorumPacket { kind: kind::FOLLOWER_INFO, zxid: 5 << 32, data, auth: None };
        match ToLeader::try_from(packet).unwrap() {
            ToLeader::FollowerInfo(info) => info,
            other => panic!("{other:?}"),
        }
    };
    let full = LearnerInfo::new(Epoch(5), ServerId(7), 8);
    assert_eq!(info(20), full);
    assert_eq!(info(12), LearnerInfo { config_version: 0, ..full });
    assert_eq!(info(8), LearnerInfo { config_version: 0, protocol_version: 1, ..full });
}

#[test]
fn types_of_the_other_direction_and_unknown_ones_have_no_meaning() {
    for unknown in [kind::PROPOSAL, 0, 99, -1] {
        assert_eq!(ToLeader::try_from(QuorumPacket::bare(unknown, 0)), Ok(ToLeader::Other(unknown)));
    }
    for unknown in [kind::FOLLOWER_INFO, 0, 99, -1] {
        assert_eq!(ToLearner::try_from(QuorumPacket::bare(unknown, 0)), Ok(ToLearner::Other(unknown)));
    }
}

#[test]
fn a_ping_without_sessions_has_empty_data_and_null_is_taken() {
    let ping = ToLeader::Ping { zxid: Zxid(4), touched: vec![] };
    let mut bytes = Vec::new();
    ping.encode(&mut bytes);
    assert_eq!(packet(&bytes).unwrap().unwrap().data, Some(Bytes::new()));
    assert_eq!(ToLeader::try_from(QuorumPacket::bare(kind::PING, 4)), Ok(ping));
}

/// What a stream says when it is read in one piece and byte by byte.
fn refusal(stream: &[u8]) -> WireError {
    let read = |pieces: usize| {
        let mut decoder = SnapStreamDecoder::new(crate::tree::TreeLoader::new(0), 1000);
        let failed = stream.chunks(pieces).find_map(|piece| decoder.push(piece).err());
        assert_eq!(decoder.push(&[0]), Err(WireError::GivenUp));
        failed.unwrap()
    };
    let error = read(stream.len());
    assert_eq!(read(1), error);
    error
}

#[test]
fn broken_snapshot_streams_are_refused() {
    let good = encode(&mut Tree::new(0));
    let with = |at: usize, bytes: &[u8]| {
        let mut stream = good.clone();
        stream[at..at + bytes.len()].copy_from_slice(bytes);
        stream
    };
    let snapshot = |offset, reason: &str| WireError::Snapshot { offset, reason: reason.into() };
    assert_eq!(refusal(&with(0, &[0xff; 4])), snapshot(0, "negative number of sessions"));
    assert_eq!(refusal(&with(4, &[0xff; 4])), snapshot(4, "negative number of ACL lists"));
    let end = good.len() as u64 - 14;
    let wrong = with(good.len() - 1, b"!");
    assert_eq!(refusal(&wrong), snapshot(end, "wrong signature behind the nodes"));
    // One ACL list: the read-only one of /zookeeper/config.
    let root = 8 + 8 + 4 + 4 + 4 + 5 + 4 + 6;
    assert_eq!(&good[root..root + 4], [0; 4]);
    assert_eq!(refusal(&with(root, &[0xff; 4])), snapshot(root as u64, "a node without path"));
    let too_long = snapshot(root as u64, "a value of 1001 bytes, at most 1000 are taken");
    assert_eq!(refusal(&with(root, &1001i32.to_be_bytes())), too_long);
    let mut without_nodes = good[..root].to_vec();
    without_nodes.extend(&good[good.len() - 19..]);
    assert_eq!(refusal(&without_nodes), snapshot(root as u64, "no root"));
    let mut root_twice = good[..root + 4 + 4 + 68].to_vec();
    root_twice.extend(&good[root..]);
    assert!(matches!(refusal(&root_twice), WireError::Refused { .. }));
}

#[test]
fn a_stream_reads_packets_a_tree_and_packets_and_gives_up_for_good() {
    let mut bytes = Vec::new();
    ToLearner::Snap(Zxid(0x1_0000_0000)).encode(&mut bytes);
    bytes.extend(encode(&mut Tree::new(0)));
    ToLearner::UpToDate.encode(&mut bytes);
    let mut stream = LearnerStream::new(StreamOptions { tree_seed: 5, ..Default::default() });
    let items = stream.push(&bytes).unwrap();
    let [StreamItem::Packet(snap), StreamItem::Snapshot { zxid, tree }, StreamItem::Packet(last)] =
        &items[..]
    else {
        panic!("{items:?}");
    };
    assert_eq!((snap.kind, zxid.0, tree.last_zxid().0, tree.len()), (kind::SNAP, 1 << 32, 1 << 32, 4));
    assert_eq!(tree.digest(), Tree::new(0).digest());
    assert_eq!(last.kind, kind::UP_TO_DATE);
    assert!(stream.push(&[0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 0, 0, 0]).is_err());
    assert_eq!(stream.push(&[]).unwrap_err(), WireError::GivenUp);
}

#[test]
fn a_large_tree_is_sent_in_pieces_and_large_tables_too() {
    let sessions = (0..100_000).map(|id| (id, 4000)).collect();
    let mut sink = super::Rewriter { sessions, ..Default::default() };
    let stat = crate::storage::NodeStat::default().encode();
    let node = |path: String, len| super::Node { path, data: Some(vec![1; len]), acl_id: -1, stat };
    sink.nodes.push(node(String::new(), 0));
    sink.nodes.extend((0..2000).map(|n| node(format!("/{n}"), 1000)));
    let stream = sink.stream();
    let mut decoder = SnapStreamDecoder::new(crate::tree::TreeLoader::new(0), 1000);
    assert!(decoder.push(&stream).unwrap().done);
    assert_eq!(decoder.nodes(), 2001);
    let mut tree = decoder.into_sink().finish();
    let mut encoder = SnapStreamEncoder::new(tree.pin());
    let (mut sent, mut pieces) = (Vec::new(), 0);
    loop {
        let mut piece = Vec::new();
        let more = encoder.next(&tree, &mut piece);
        assert!(piece.len() < 600 << 10, "{}", piece.len());
        pieces += 1;
        sent.extend(piece);
        if !more {
            break;
        }
    }
    assert!(pieces > 5);
    assert_eq!(sent, stream);
    assert!(tree.has_session(SessionId(99_999).0));
}
