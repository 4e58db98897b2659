//! Replays what recorded clients sent to Apache 3.9.3 and compares what our server answers with what Apache
//! answered: the same sequence of replies, events and closes, with the same contents except for what differs
//! from run to run.
//!
//! Left out are the parts that need more than one plain standalone server:
//! - `quorum.json`, apart from `reconfig.disabled`: members of an ensemble, read-only mode, local sessions;
//! - SASL exchanges and `sasl-required`: a server with a SASL login configuration, which standalone servers of
//!   this project do not have (the answer without one, `sasl.server-not-configured`, is replayed);
//! - `throttled.ThrottledOp`: depends on how long the recording server took for each request.

mod replay;

use replay::Replay;
use zk_tests::server::TestServer;
use zk_tests::vectors::{self, Element};

/// The recorded super user is `super:secret`.
const SUPER_DIGEST: &str = "DigestAuthenticationProvider.superDigest=super:lK75jTNcA+U9vtVEw5vB51mj/w4=";
const MEMBERS_OF_ENSEMBLES: std::ops::RangeInclusive<u64> = 38..=43;
const EXTENDED_TYPES_OFF: u64 = 44;
const SASL: [u64; 4] = [9, 35, 45, 46];
const THROTTLED: u64 = 47;

#[test]
fn a_standalone_server_answers_as_apache_did() {
    let server = TestServer::start(&["extendedTypesEnabled=true", "enforceQuota=true", SUPER_DIGEST]);
    let mut replay = Replay::new(server.addr());
    let mut files = std::collections::BTreeMap::new();
    for element in vectors::all() {
        if !is_left_out(&element) && element.conn != EXTENDED_TYPES_OFF {
            replay.step(&element);
            *files.entry(element.file).or_insert(0) += 1;
        }
    }
    replay.finish();
    // Nothing was left out by mistake.
    let expected = [
        ("auth", 39),
        ("cclient", 33),
        ("kazoo", 89),
        ("malformed", 23),
        ("multi", 32),
        ("ops", 146),
        ("quorum", 7),
        ("sessions", 90),
        ("watches", 121),
    ];
    assert_eq!(files, expected.into_iter().collect());
}

#[test]
fn a_server_without_extended_types_answers_as_apache_did() {
    let server = TestServer::start(&["reconfigEnabled=true"]);
    let mut replay = Replay::new(server.addr());
    for element in vectors::all().iter().filter(|e| e.conn == EXTENDED_TYPES_OFF) {
        replay.step(element);
    }
    replay.finish();
}

fn is_left_out(element: &Element) -> bool {
    MEMBERS_OF_ENSEMBLES.contains(&element.conn) || SASL.contains(&element.conn) || element.conn == THROTTLED
}
