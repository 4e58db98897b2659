//! Tests of auth packets and of the identities of connections.

use super::*;
use crate::auth::who_am_i;

fn peer() -> ConnAuth {
    ConnAuth::new("127.0.0.1:4000".parse().expect("an address"))
}

fn with_super() -> Providers {
    let digest = digest_id(DigestAlg::Sha1, "super:secret");
    Providers { super_digest: Some(SuperDigest(digest)), ..Providers::default() }
}

/// The connection after an auth packet of the scheme `digest`.
fn digest(providers: &Providers, auth: &ConnAuth, token: &str) -> ConnAuth {
    match providers.authenticate(auth, Some("digest"), Some(token.as_bytes())) {
        AuthOutcome::Ok(auth) => auth,
        outcome => panic!("{outcome:?}"),
    }
}

fn ids(auth: &ConnAuth) -> Vec<(String, String)> {
    auth.identities().map(|identity| (identity.scheme.to_string(), identity.id.clone())).collect()
}

fn shown(auth: &ConnAuth) -> Vec<(String, String)> {
    who_am_i(auth).into_iter().map(|info| (info.auth_scheme.into_owned(), info.user.into_owned())).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[test]
fn auth_packets() {
    let plain = Providers::default();
    let no_digest = Providers { digest_enabled: false, ..Providers::default() };
    let any_ensemble = Providers { ensemble_names: Some(Vec::new()), ..Providers::default() };
    let ensemble =
        Providers { ensemble_names: Some(vec!["a".to_owned(), "b".to_owned()]), ..Providers::default() };
    let sasl = Providers { sasl: true, ..Providers::default() };
    #[derive(Debug, PartialEq)]
    enum Expected {
        New,
        Same,
        Failed,
        Close,
    }
    use Expected::{Close, Failed, New, Same};
    for (providers, scheme, token, expected) in [
        (&plain, Some("digest"), Some(&b"alice:secret"[..]), New),
        (&plain, Some("digest"), Some(b"alice"), New),
        (&plain, Some("digest"), Some(b""), New),
        (&plain, Some("digest"), Some(b"\xff\xfe"), New),
        (&plain, Some("digest"), None, Failed),
        (&plain, Some("ip"), Some(b""), Same),
        (&plain, Some("ip"), None, Same),
        (&plain, Some("world"), Some(b"anyone"), Failed),
        (&plain, Some("auth"), Some(b""), Failed),
        (&plain, Some("super"), Some(b"super:secret"), Failed),
        (&plain, Some("sasl"), Some(b""), Failed),
        (&plain, Some("x509"), Some(b""), Failed),
        (&plain, Some("ensemble"), Some(b"a"), Failed),
        (&plain, Some("nosuch"), Some(b"x"), Failed),
        (&plain, Some(""), Some(b"x"), Failed),
        (&plain, None, Some(b"x"), Failed),
        (&sasl, Some("sasl"), Some(b"x"), Failed),
        (&no_digest, Some("digest"), Some(b"alice:secret"), Failed),
        (&any_ensemble, Some("ensemble"), Some(b"x"), Same),
        (&ensemble, Some("ensemble"), Some(b"a"), Same),
        (&ensemble, Some("ensemble"), Some(b"b"), Same),
        (&ensemble, Some("ensemble"), Some(b""), Same),
        (&ensemble, Some("ensemble"), None, Same),
        (&ensemble, Some("ensemble"), Some(b"c"), Close),
    ] {
        let outcome = match providers.authenticate(&peer(), scheme, token) {
            AuthOutcome::Ok(auth) if auth == peer() => Same,
            AuthOutcome::Ok(_) => New,
            AuthOutcome::Failed => Failed,
            AuthOutcome::Close => Close,
        };
        assert_eq!(outcome, expected, "{scheme:?} {token:?}");
    }
}

#[test]
fn identities_of_a_connection() {
    let providers = with_super();
    let alice = "alice:aYXlLOpEooaV1cRAvUL1fp9Qt7E=";
    let root = "super:lK75jTNcA+U9vtVEw5vB51mj/w4=";
    assert_eq!(ids(&ConnAuth::default()), []);
    assert_eq!(ids(&peer()), pairs(&[("ip", "127.0.0.1")]));
    let auth = digest(&providers, &peer(), "alice:secret");
    assert_eq!(ids(&auth), pairs(&[("digest", alice), ("ip", "127.0.0.1")]));
    assert_eq!(digest(&providers, &auth, "alice:secret"), auth);
    let auth = digest(&providers, &auth, "super:secret");
    assert_eq!(ids(&auth), pairs(&[("digest", alice), ("super", ""), ("digest", root), ("ip", "127.0.0.1")]));
    assert!(auth.is_super());
    // A wrong password is just another identity.
    let auth = digest(&providers, &peer(), "super:wrong");
    assert_eq!(ids(&auth).len(), 2);
    assert!(!auth.is_super());
    assert!(!digest(&Providers::default(), &peer(), "super:secret").is_super());
}

#[test]
fn super_digest_of_another_algorithm_is_none() {
    let providers = Providers { digest_alg: DigestAlg::Sha256, ..with_super() };
    assert!(!digest(&providers, &peer(), "super:secret").is_super());
    let sha256 = SuperDigest(digest_id(DigestAlg::Sha256, "super:secret"));
    let providers = Providers { super_digest: Some(sha256), ..providers };
    assert!(digest(&providers, &peer(), "super:secret").is_super());
}

#[test]
fn who_am_i_shows_users() {
    let providers = with_super();
    assert_eq!(shown(&peer()), pairs(&[("ip", "127.0.0.1")]));
    let auth = digest(&providers, &peer(), "alice:secret");
    assert_eq!(shown(&auth), pairs(&[("digest", "alice"), ("ip", "127.0.0.1")]));
    let auth = digest(&providers, &peer(), "super:secret");
    assert_eq!(shown(&auth), pairs(&[("super", ""), ("digest", "super"), ("ip", "127.0.0.1")]));
    let auth = digest(&providers, &ConnAuth::new("[::1]:1".parse().expect("an address")), ":x");
    assert_eq!(shown(&auth), pairs(&[("digest", ""), ("ip", "0:0:0:0:0:0:0:1")]));
}

#[test]
fn bytes_that_are_not_utf8_are_read_as_java_does() {
    let auth = Providers::default().authenticate(&peer(), Some("digest"), Some(b"a\xff:b"));
    let expected = digest(&Providers::default(), &peer(), "a\u{fffd}:b");
    assert_eq!(auth, AuthOutcome::Ok(expected));
}

#[test]
fn endless_auth_packets_fail_at_last() {
    let providers = Providers::default();
    let mut auth = peer();
    for user in 0..ConnAuth::ADDED_MAX {
        auth = digest(&providers, &auth, &user.to_string());
    }
    assert_eq!(providers.authenticate(&auth, Some("digest"), Some(b"one more")), AuthOutcome::Failed);
    assert_eq!(digest(&providers, &auth, "17"), auth);
    let long = vec![b'u'; ConnAuth::ADDED_BYTES_MAX];
    assert_eq!(providers.authenticate(&peer(), Some("digest"), Some(&long)), AuthOutcome::Failed);
}

#[test]
fn enforced_authentication() {
    let require = |schemes: &[&str]| Providers {
        required_schemes: schemes.iter().map(|scheme| (*scheme).to_owned()).collect(),
        ..with_super()
    };
    let alice = digest(&Providers::default(), &peer(), "alice:secret");
    for (schemes, auth, expected) in [
        (&[][..], &peer(), true),
        (&["digest"], &peer(), false),
        (&["digest"], &alice, true),
        (&["sasl", "digest"], &alice, true),
        (&["sasl"], &alice, false),
        (&["ip"], &peer(), true),
        (&["ip"], &ConnAuth::default(), false),
    ] {
        assert_eq!(require(schemes).admits(auth), expected, "{schemes:?} {auth:?}");
    }
    let providers = Providers::default();
    for (scheme, expected) in [
        ("digest", true),
        ("ip", true),
        ("sasl", false),
        ("ensemble", false),
        ("world", false),
        ("nosuch", false),
    ] {
        assert_eq!(providers.is_registered(scheme), expected, "{scheme}");
    }
}

#[test]
fn super_digest_does_not_show() {
    assert!(!format!("{:?}", with_super()).contains("lK75"));
}
