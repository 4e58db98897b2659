//! Properties: no bytes bring a decoder down, where they are split makes no difference, and what is encoded is
//! decoded to the same.

use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use zk_proto::{SessionId, Zxid};

use super::super::*;
use super::recorded;
use crate::auth::Identity;
use crate::storage::RecordHeader;
use crate::zab::ensemble::Ensemble;
use crate::zab::{Epoch, PeerState, Proposal, ServerId};

/// Everything that a decoder says about `bytes`, pushed in pieces that end at `cuts`.
fn read(bytes: &[u8], cuts: &[usize]) -> String {
    let mut stream = LearnerStream::new(StreamOptions::default());
    let (mut said, mut at) = (String::new(), 0);
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.push(bytes.len());
    cuts.sort_unstable();
    for cut in cuts {
        match stream.push(&bytes[at..cut]) {
            Ok(items) => {
                for item in items {
                    match item {
                        StreamItem::Packet(packet) => {
                            said += &format!("{packet:?}\n");
                            // Whatever it means, finding out does no harm.
                            let _ = ToLearner::try_from(packet.clone());
                            let _ = ToLeader::try_from(packet);
                        }
                        StreamItem::Snapshot { zxid, tree } => {
                            said += &format!("{zxid} {} {:x}\n", tree.len(), tree.digest());
                        }
                    }
                }
            }
            // What came before the error in the same piece is lost.
            Err(error) => return error.to_string(),
        }
        at = cut;
    }
    said
}

/// What recorded leaders said, one string of bytes for each connection.
static CONNECTIONS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let files =
        recorded().into_iter().filter(|(file, _)| !file.starts_with("election-") && file != "messages");
    files
        .map(|(_, messages)| {
            let messages = messages.iter().filter(|m| !m.from_dialer && m.name != "QUORUMAUTH");
            messages.flat_map(|message| message.bytes.clone()).collect()
        })
        .collect()
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_bytes_bring_a_decoder_down(bytes in vec(any::<u8>(), 0..300), small in any::<bool>()) {
        // Small values make lengths that fit.
        let bytes: Vec<u8> = bytes.iter().map(|b| if small { b % 3 } else { *b }).collect();
        let _ = Hello::decode(&bytes);
        let _ = Notification::decode(&Bytes::from(bytes.clone()));
        let mut buffer = BytesMut::from(&bytes[..]);
        while let Ok(Some(_)) = next_frame(&mut buffer) {}
        let _ = QuorumAuth::decode(&mut BytesMut::from(&bytes[..]));
        let _ = read(&bytes, &[]);
        let mut decoder = SnapStreamDecoder::new(crate::tree::TreeLoader::new(0), 100);
        let _ = decoder.push(&bytes);
    }

    #[test]
    fn damaged_connections_read_alike_wherever_they_are_split(
        which in any::<prop::sample::Index>(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cuts in vec(any::<usize>(), 0..40),
    ) {
        let mut bytes = which.get(&CONNECTIONS).clone();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        prop_assert_eq!(read(&bytes, &cuts), read(&bytes, &[]));
    }

    #[test]
    fn hellos_survive(server: i64, several: bool, ports in vec(any::<u16>(), 1..5)) {
        let addresses: Vec<String> = ports.iter().map(|port| format!("h:{port}")).collect();
        let form = if several { HelloForm::V2 } else { HelloForm::V1 };
        let addresses = addresses.iter().filter_map(|text| crate::config::HostPort::parse(text)).collect();
        let hello = Hello { server: ServerId(server), form, addresses };
        let mut bytes = Vec::new();
        hello.encode(&mut bytes);
        let len = bytes.len();
        bytes.push(0);
        prop_assert_eq!(Hello::decode(&bytes), Ok(Some((hello, len))));
    }

    #[test]
    fn notifications_survive(
        state in prop::sample::select(vec![
            PeerState::Looking,
            PeerState::Following,
            PeerState::Leading,
            PeerState::Observing,
        ]),
        (leader, zxid, round, peer_epoch) in any::<(i64, i64, i64, i64)>(),
        version in 2..5,
        config in vec(any::<u8>(), 0..100),
    ) {
        let config = Bytes::from(config);
        let sent = Notification { state, leader, zxid, round, peer_epoch, version, config };
        let mut bytes = Vec::new();
        sent.encode(&mut bytes);
        let frame = next_frame(&mut BytesMut::from(&bytes[..])).unwrap().unwrap();
        prop_assert_eq!(Notification::decode(&frame), Ok(sent));
    }

    #[test]
    fn what_learners_say_survives(sent in to_leader()) {
        let mut bytes = Vec::new();
        sent.encode(&mut bytes);
        prop_assert_eq!(ToLeader::try_from(only_packet(&bytes)), Ok(sent));
    }

    #[test]
    fn what_leaders_say_survives(sent in to_learner()) {
        let mut bytes = Vec::new();
        sent.encode(&mut bytes);
        prop_assert_eq!(ToLearner::try_from(only_packet(&bytes)), Ok(sent));
    }

    #[test]
    fn any_text_is_a_configuration_or_none(
        text in r"((server|group|weight|version)(\.[0-3])?=[0-3h:;|\\u]{0,9}\n?){0,6}|\PC{0,50}",
    ) {
        if let Ok(ensemble) = Ensemble::parse(&text) {
            prop_assert_eq!(Ensemble::parse(&ensemble.to_text()).map(|e| e.to_text()), Ok(ensemble.to_text()));
        }
    }
}

fn only_packet(bytes: &[u8]) -> QuorumPacket {
    let mut buffer = BytesMut::from(bytes);
    for short in 0..bytes.len() {
        assert_eq!(QuorumPacket::decode(&mut BytesMut::from(&bytes[..short]), 1000), Ok(None));
    }
    let packet = QuorumPacket::decode(&mut buffer, 1000).unwrap().unwrap();
    assert!(buffer.is_empty());
    packet
}

fn zxid() -> impl Strategy<Value = Zxid> {
    any::<i64>().prop_map(Zxid)
}

fn session() -> impl Strategy<Value = SessionId> {
    any::<i64>().prop_map(SessionId)
}

fn epoch() -> impl Strategy<Value = Epoch> + Clone {
    (0..=Epoch::MAX.0).prop_map(Epoch)
}

fn some_bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..80).prop_map(Bytes::from)
}

fn proposal() -> impl Strategy<Value = Proposal> {
    (any::<(i64, i32, i64, i32)>(), zxid(), some_bytes()).prop_map(|(header, zxid, body)| {
        let (client_id, cxid, time_ms, kind) = header;
        let mut payload = Vec::new();
        RecordHeader { client_id, cxid, zxid, time_ms, kind }.encode(&mut payload);
        payload.extend_from_slice(&body);
        Proposal { zxid, payload: payload.into() }
    })
}

fn identity() -> impl Strategy<Value = Identity> {
    ("[a-z]{0,6}", r"\PC{0,10}").prop_map(|(scheme, id)| Identity::new(scheme, id))
}

fn to_leader() -> impl Strategy<Value = ToLeader> {
    let info =
        (epoch(), any::<(i64, i32, i64)>()).prop_map(|(accepted, (server, protocol_version, config))| {
            LearnerInfo { accepted, server: ServerId(server), protocol_version, config_version: config }
        });
    let request = (session(), any::<(i32, i32)>(), some_bytes(), vec(identity(), 0..4));
    prop_oneof![
        info.clone().prop_map(ToLeader::FollowerInfo),
        info.prop_map(ToLeader::ObserverInfo),
        (zxid(), option::of(epoch())).prop_map(|(last, current)| ToLeader::AckEpoch { last, current }),
        zxid().prop_map(ToLeader::Ack),
        request.prop_map(|(session, (cxid, op), body, auth)| {
            ToLeader::Request { session, cxid, op, body, auth }
        }),
        (zxid(), vec((session(), any::<i32>()), 0..5))
            .prop_map(|(zxid, touched)| ToLeader::Ping { zxid, touched }),
        (session(), any::<i32>())
            .prop_map(|(session, timeout_ms)| ToLeader::Revalidate { session, timeout_ms }),
        (20..100).prop_map(ToLeader::Other),
    ]
}

fn to_learner() -> impl Strategy<Value = ToLearner> {
    prop_oneof![
        epoch().prop_map(|epoch| ToLearner::LeaderInfo { epoch }),
        zxid().prop_map(ToLearner::Diff),
        zxid().prop_map(ToLearner::Trunc),
        zxid().prop_map(ToLearner::Snap),
        (zxid(), option::of(some_bytes())).prop_map(|(zxid, config)| ToLearner::NewLeader { zxid, config }),
        Just(ToLearner::UpToDate),
        proposal().prop_map(ToLearner::Proposal),
        zxid().prop_map(ToLearner::Commit),
        proposal().prop_map(ToLearner::Inform),
        (zxid(), any::<i64>()).prop_map(|(zxid, leader)| ToLearner::CommitAndActivate { zxid, leader }),
        (proposal(), any::<i64>())
            .prop_map(|(proposal, leader)| ToLearner::InformAndActivate { proposal, leader }),
        zxid().prop_map(ToLearner::Ping),
        (session(), any::<bool>()).prop_map(|(session, valid)| ToLearner::Revalidate { session, valid }),
        Just(ToLearner::Sync),
        (20..100).prop_map(ToLearner::Other),
    ]
}
