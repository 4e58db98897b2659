//! Attacks on sessions, credentials and what may be read.

use zk_proto::{
    Acl, AddWatchMode, AuthPacket, ErrorCode, MultiOp, MultiResult, Perms, Request, Response, Zxid,
};
use zk_tests::wire::{Session, Wire, create_with_acl};

use crate::scene::Scene;

#[test]
fn session_hijack_known_id_wrong_password() {
    let scene = Scene::new(&[]);
    let mut owner = Session::open(scene.addr());
    assert_eq!(owner.create("/owned", b"", 1).err(), 0);
    for byte in 0..16 {
        let mut wrong = owner.passwd.clone();
        wrong[byte] ^= 0x80;
        // Timeout 0 and a close.
        assert!(Session::attach(scene.addr(), owner.id, &wrong, Zxid::ZERO).is_none());
        // The owner's connection was not touched.
        assert_eq!(owner.exists("/owned", false).err(), 0);
    }
    owner.close();
    scene.finish();
}

#[test]
fn auth_bypass_request_pipelined_behind_a_failing_auth() {
    let scene = Scene::new(&[]);
    let mut session = Session::open(scene.addr());
    session.send(&auth("nosuch", b"x"));
    session.send(&zk_tests::wire::create("/bypass", b"", 0));
    let reply = session.reply();
    assert_eq!(reply.err(), ErrorCode::AUTH_FAILED.0);
    session.wire.assert_closed();
    let mut other = Session::open(scene.addr());
    assert_eq!(other.exists("/bypass", false).err(), -101);
    scene.finish();
}

#[test]
fn auth_bypass_unknown_or_missing_scheme_or_token() {
    let scene = Scene::new(&[]);
    let packet = |scheme: Option<&'static str>, auth| {
        Request::Auth(AuthPacket { kind: 0, scheme: scheme.map(Into::into), auth })
    };
    let token = Some(&b"a:b"[..]);
    for (scheme, token) in [
        (Some("nosuch"), token),
        (Some("world"), token),
        (Some("super"), token),
        (Some("auth"), token),
        (Some("sasl"), token),
        (Some("DIGEST"), token),
        (Some(""), token),
        (None, token),
        (Some("digest"), None),
    ] {
        let mut session = Session::open(scene.addr());
        let reply = session.call(&packet(scheme, token));
        assert_eq!((reply.err(), reply.header.zxid.0), (-115, 0), "{scheme:?}");
        session.wire.assert_closed();
        session.reattach().close();
    }
    scene.finish();
}

#[test]
fn auth_bypass_super_digest_empty_or_not_set() {
    for settings in [&[][..], &["DigestAuthenticationProvider.superDigest="]] {
        let scene = Scene::new(settings);
        let mut owner = Session::open(scene.addr());
        assert_eq!(owner.auth_digest("owner:pw").err(), 0);
        assert_eq!(owner.call(&create_with_acl("/owned", b"", 0, vec![Acl::creator_all()])).err(), 0);
        for token in ["super:", ":", "", "super", "super:super", "\0"] {
            let mut session = Session::open(scene.addr());
            assert_eq!(session.auth_digest(token).err(), 0);
            assert!(!schemes(&mut session).contains(&"super".to_owned()), "{token:?}");
            assert_eq!(session.get("/owned", false).err(), -102, "{token:?}");
        }
        scene.finish();
    }
}

#[test]
fn auth_bypass_under_enforced_authentication() {
    // The ordinary client does not authenticate, so this server is no scene.
    let server =
        zk_tests::server::TestServer::start(&["enforce.auth.enabled=true", "enforce.auth.schemes=digest"]);
    for request in [
        Request::Ping,
        Request::Exists { path: "/".into(), watch: false },
        Request::Sync { path: None },
        Request::WhoAmI,
        zk_tests::wire::create("/bypass", b"", 0),
        Request::Multi(vec![]),
        Request::CloseSession,
    ] {
        let mut session = Session::open(server.addr());
        let reply = session.call(&request);
        assert_eq!((reply.err(), reply.header.zxid.0), (-124, 0), "{}", reply.op);
        session.wire.assert_closed();
    }
    // With the reply to auth not awaited, but auth first.
    let mut session = Session::open(server.addr());
    session.send(&auth("digest", b"a:b"));
    session.send(&Request::Exists { path: "/bypass".into(), watch: false });
    assert_eq!((session.reply().err(), session.reply().err()), (0, -101));
}

/// Nothing about a node leaks to who may not read it, except that it is there.
#[test]
fn acl_unreadable_nodes_show_nothing() {
    let scene = Scene::new(&[]);
    let mut owner = Session::open(scene.addr());
    assert_eq!(owner.auth_digest("owner:pw").err(), 0);
    let secret = || vec![Acl::creator_all()];
    assert_eq!(owner.call(&create_with_acl("/secret", b"data", 0, secret())).err(), 0);
    assert_eq!(owner.call(&create_with_acl("/secret/child", b"data", 1, secret())).err(), 0);

    let mut other = Session::open(scene.addr());
    let path = || "/secret".into();
    for request in [
        Request::Exists { path: path(), watch: true },
        Request::GetData { path: path(), watch: true },
        Request::GetChildren { path: path(), watch: true },
        Request::GetChildren2 { path: path(), watch: true },
        Request::GetAcl { path: path() },
        Request::GetAllChildrenNumber { path: path() },
        Request::SetData { path: path(), data: None, version: -1 },
        Request::SetAcl { path: path(), acl: Some(vec![Acl::open()]), version: -1 },
        Request::Delete { path: "/secret/child".into(), version: -1 },
        zk_tests::wire::create("/secret/mine", b"", 0),
    ] {
        let reply = other.call(&request);
        assert_eq!((reply.err(), reply.body.len()), (-102, 0), "{}", reply.op);
    }
    for request in [
        Request::Multi(vec![MultiOp::Check { path: path(), version: 0 }]),
        Request::MultiRead(vec![MultiOp::GetData { path: path(), watch: false }]),
        Request::MultiRead(vec![MultiOp::GetChildren { path: path(), watch: false }]),
    ] {
        let reply = other.call(&request);
        let Response::Multi(results) = reply.ok() else { panic!("not a multi") };
        assert_eq!(results, [MultiResult::Error(ErrorCode::NO_AUTH)]);
    }
    // What may be asked by everybody tells nothing of others.
    let ephemerals = other.call(&Request::GetEphemerals { prefix: Some("/secret".into()) });
    assert_eq!(ephemerals.ok(), Response::Paths(vec![]));
    let sync = other.call(&Request::Sync { path: Some(path()) });
    assert_eq!(sync.ok(), Response::Sync { path: Some(path()) });
    assert_eq!(schemes(&mut other), ["ip"]);

    // Persistent watches may be armed, but show nothing.
    other.add_watch("/secret", AddWatchMode::Persistent);
    other.add_watch("/", AddWatchMode::PersistentRecursive);
    assert_eq!(owner.set("/secret", b"changed", -1).err(), 0);
    assert_eq!(owner.call(&create_with_acl("/secret/more", b"", 0, secret())).err(), 0);
    assert_eq!(owner.delete("/secret/more", -1).err(), 0);
    other.call(&Request::Sync { path: None });
    let events = other.take_events();
    assert!(events.iter().all(|(_, path)| !path.starts_with("/secret")), "{events:?}");
    scene.finish();
}

#[test]
fn acl_hashes_are_shown_to_administrators_only() {
    let scene = Scene::new(&[]);
    let mut owner = Session::open(scene.addr());
    assert_eq!(owner.auth_digest("owner:pw").err(), 0);
    let readable = vec![Acl::new(Perms::ALL, "auth", ""), Acl::read_only()];
    assert_eq!(owner.call(&create_with_acl("/shown", b"", 0, readable)).err(), 0);
    let digest = |session: &mut Session| {
        let reply = session.call(&Request::GetAcl { path: "/shown".into() });
        let Response::Acl { acl, .. } = reply.ok() else { panic!("no list") };
        let entry = acl.into_iter().find(|entry| entry.scheme.as_deref() == Some("digest"));
        entry.and_then(|entry| entry.id).expect("the owner's entry").into_owned()
    };
    let mut other = Session::open(scene.addr());
    assert_eq!(digest(&mut other), "owner:x");
    assert!(digest(&mut owner).len() > "owner:x".len());
    scene.finish();
}

#[test]
fn log_injection_through_paths_of_watches() {
    let scene = Scene::new(&[]);
    let mut session = Session::open(scene.addr());
    // addWatch does not look at its path.
    for path in ["/x\n/forged", "/x\r\n/forged", "/x\u{1b}[2J/forged"] {
        assert_eq!(session.add_watch(path, AddWatchMode::Persistent).err(), 0);
    }
    for word in ["wchp", "wchc", "dump"] {
        let text = Wire::four_letter_word(scene.addr(), word);
        assert!(text.lines().all(|line| !line.trim().starts_with("/forged")), "{word}: {text:?}");
        assert!(!text.contains('\u{1b}') && !text.contains('\r'), "{word}: {text:?}");
    }
    scene.finish();
}

fn auth<'a>(scheme: &'a str, token: &'a [u8]) -> Request<'a> {
    Request::Auth(AuthPacket { kind: 0, scheme: Some(scheme.into()), auth: Some(token) })
}

/// Schemes of a connection's identities, sorted.
fn schemes(session: &mut Session) -> Vec<String> {
    let reply = session.call(&Request::WhoAmI);
    let Response::WhoAmI(infos) = reply.ok() else { panic!("no identities") };
    let mut schemes: Vec<_> = infos.into_iter().map(|info| info.auth_scheme.into_owned()).collect();
    schemes.sort();
    schemes
}
