use zk_proto::{Acl, CreateRequest, ErrorCode, OpCode, Perms, Request};
use zk_server::Server;
use zk_server::config::{AuthScheme, Config, Overrides, Secret};

use crate::client::{Wire, encode, get, set};
use crate::server;

fn dev() -> Config {
    let (config, _) = Config::dev(std::path::Path::new("unused"), 0, &Overrides::default(), false).unwrap();
    config
}

fn private<'a>(path: &'a str) -> Request<'a> {
    Request::Create(CreateRequest {
        op: OpCode::Create,
        path: path.into(),
        data: Some(b"x"),
        acl: Some(vec![Acl::new(Perms::ALL, "auth", "")]),
        flags: 0,
        ttl_ms: 0,
    })
}

#[test]
fn identities_belong_to_the_connection() {
    let server = server();
    let mut wire = Wire::connect(&server);
    assert_eq!(wire.call(&private("/p")).err, ErrorCode::INVALID_ACL, "no identity to put there");
    let reply = wire.add_auth("digest", b"me:pw");
    assert_eq!((reply.xid, reply.zxid, reply.err), (-4, 0, ErrorCode::OK));
    wire.ok(&private("/p"));
    let mut again = wire.reattach(&server).unwrap();
    assert_eq!(again.call(&get("/p", false)).err, ErrorCode::NO_AUTH, "the session does not keep them");
    again.add_auth("digest", b"me:pw");
    again.ok(&get("/p", false));
}

#[test]
fn failed_authentication_is_answered_and_the_connection_closed() {
    let server = server();
    for scheme in ["world", "nonsense", "sasl", "x509"] {
        let mut wire = Wire::connect(&server);
        assert_eq!(wire.add_auth(scheme, b"me:pw").err, ErrorCode::AUTH_FAILED);
        assert!(wire.frame().is_none());
    }
}

#[test]
fn a_request_in_front_of_the_auth_packet_does_not_profit_from_it() {
    let server = server();
    let mut owner = Wire::connect(&server);
    owner.add_auth("digest", b"me:pw");
    owner.ok(&private("/p"));
    let mut wire = Wire::connect(&server);
    // The write waits for its turn while the auth packet is dealt with.
    let mut auth = vec![0, 0, 0, 0, 0, 0, 0, 6];
    auth.extend(b"digest");
    auth.extend([0, 0, 0, 5]);
    auth.extend(b"me:pw");
    let mut body = Vec::new();
    set("/p", b"stolen").encode(&mut body);
    wire.send(&[encode(1, OpCode::SetData, &body), encode(-4, OpCode::Auth, &auth)].concat());
    let mut replies = [wire.reply(), wire.reply()];
    replies.sort_by_key(|reply| reply.xid);
    assert_eq!((replies[0].xid, replies[0].err), (-4, ErrorCode::OK));
    assert_eq!((replies[1].xid, replies[1].err), (1, ErrorCode::NO_AUTH));
}

#[test]
fn the_super_user_may_everything_and_an_empty_password_does_not_make_one() {
    // digest of super:secret
    let digest = Secret::new("super:lK75jTNcA+U9vtVEw5vB51mj/w4=");
    let server =
        Server::builder().memory().config(Config { super_digest: Some(digest), ..dev() }).start().unwrap();
    let mut owner = Wire::connect(&server);
    owner.add_auth("digest", b"me:pw");
    owner.ok(&private("/p"));
    for token in [&b"super:"[..], b"super", b"", b"super:wrong"] {
        let mut wire = Wire::connect(&server);
        assert_eq!(wire.add_auth("digest", token).err, ErrorCode::OK, "an ordinary identity");
        assert_eq!(wire.call(&get("/p", false)).err, ErrorCode::NO_AUTH);
    }
    let mut wire = Wire::connect(&server);
    wire.add_auth("digest", b"super:secret");
    wire.ok(&get("/p", false));
}

#[test]
fn enforced_authentication_lets_nothing_else_pass() {
    let config = Config { enforce_auth: Some(vec![AuthScheme::Digest]), ..dev() };
    let server = Server::builder().memory().config(config).start().unwrap();
    for op in [OpCode::Ping, OpCode::GetData, OpCode::SetWatches, OpCode::WhoAmI, OpCode::Multi] {
        let mut wire = Wire::connect(&server);
        wire.send(&encode(5, op, &[]));
        let reply = wire.reply();
        let expected = (5, 0, ErrorCode::SESSION_CLOSED_REQUIRE_SASL_AUTH);
        assert_eq!((reply.xid, reply.zxid, reply.err), expected);
        assert!(wire.frame().is_none());
    }
    let mut wire = Wire::connect(&server);
    wire.add_auth("digest", b"me:pw");
    wire.ok(&get("/", false));
}
