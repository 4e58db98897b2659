//! Tests of ACL validation, evaluation and display.

use super::*;
use crate::auth::{AuthOutcome, Identity, SuperDigest, digest_id};

const ALICE: &str = "alice:aYXlLOpEooaV1cRAvUL1fp9Qt7E=";

/// What a test calls an entry: permissions, scheme, id.
type Entry<'a> = (i32, Option<&'a str>, Option<&'a str>);

fn list(entries: &[Entry<'_>]) -> Vec<Acl<'static>> {
    let own = |s: Option<&str>| s.map(|s| Cow::Owned(s.to_owned()));
    entries
        .iter()
        .map(|(perms, scheme, id)| Acl { perms: Perms(*perms), scheme: own(*scheme), id: own(*id) })
        .collect()
}

/// A connection from 10.0.0.1 that sent these tokens.
fn conn(providers: &Providers, tokens: &[&str]) -> ConnAuth {
    let mut auth = ConnAuth::new("10.0.0.1:4000".parse().expect("an address"));
    for token in tokens {
        match providers.authenticate(&auth, Some("digest"), Some(token.as_bytes())) {
            AuthOutcome::Ok(added) => auth = added,
            outcome => panic!("{outcome:?}"),
        }
    }
    auth
}

fn with_super() -> Providers {
    let digest = digest_id(Default::default(), "super:secret");
    Providers { super_digest: Some(SuperDigest(digest)), ..Providers::default() }
}

#[test]
fn null_and_empty_lists_are_invalid() {
    let (auth, providers) = (ConnAuth::default(), Providers::default());
    assert_eq!(fix_acl(None, &auth, &providers), Err(ErrorCode::INVALID_ACL));
    assert_eq!(fix_acl(Some(Vec::new()), &auth, &providers), Err(ErrorCode::INVALID_ACL));
}

#[test]
fn entries() {
    const INVALID: Result<(), ErrorCode> = Err(ErrorCode::INVALID_ACL);
    const UNMARSHALLED: Result<(), ErrorCode> = Err(ErrorCode::MARSHALLING_ERROR);
    type Case<'a> = (Option<&'a str>, Option<&'a str>, Result<(), ErrorCode>);
    let cases: &[Case<'_>] = &[
        (Some("world"), Some("anyone"), Ok(())),
        (Some("world"), Some("anybody"), INVALID),
        (Some("world"), Some(""), INVALID),
        (Some("world"), None, UNMARSHALLED),
        (None, Some("anyone"), INVALID),
        (None, None, INVALID),
        (Some("digest"), Some("a:b"), Ok(())),
        (Some("digest"), Some("abc"), INVALID),
        (Some("digest"), None, UNMARSHALLED),
        (Some("ip"), Some("10.0.0.0/8"), Ok(())),
        (Some("ip"), Some("2001:db8::/32"), Ok(())),
        (Some("ip"), Some("::ffff:1.2.3.4"), INVALID),
        (Some("ip"), Some("1.2.3"), INVALID),
        (Some("ip"), None, UNMARSHALLED),
        (Some("sasl"), Some("bob"), INVALID),
        (Some("sasl"), None, INVALID),
        (Some("x509"), Some("CN=bob"), INVALID),
        (Some("ensemble"), Some("a"), INVALID),
        (Some("super"), Some(""), INVALID),
        (Some("nosuch"), Some("a"), INVALID),
        (Some("nosuch"), None, INVALID),
        (Some("World"), Some("anyone"), INVALID),
        (Some(""), Some(""), INVALID),
        (Some("auth"), Some(""), INVALID),
        (Some("auth"), None, INVALID),
    ];
    let providers = Providers::default();
    let auth = conn(&providers, &[]);
    for (scheme, id, expected) in cases {
        for perms in [31, 1, 0, 255, -1] {
            let acl = list(&[(perms, *scheme, *id)]);
            let expected = expected.map(|()| acl.clone());
            assert_eq!(fix_acl(Some(acl), &auth, &providers), expected, "{scheme:?}:{id:?}");
        }
    }
}

#[test]
fn configured_schemes() {
    let plain = Providers::default();
    let auth = conn(&plain, &["alice:secret"]);
    let fix = |providers: &Providers, scheme, id| {
        fix_acl(Some(list(&[(31, Some(scheme), Some(id))])), &auth, providers)
    };
    let sasl = Providers { sasl: true, ..Providers::default() };
    for id in ["bob", "bob@REALM", "bob/host@REALM", "bob/host", "@"] {
        assert!(fix(&sasl, "sasl", id).is_ok(), "{id}");
    }
    for id in ["", "a@b@c", "a/b/c@d", "a@b/c"] {
        assert_eq!(fix(&sasl, "sasl", id), Err(ErrorCode::INVALID_ACL), "{id}");
    }
    assert_eq!(
        fix_acl(Some(list(&[(31, Some("sasl"), None)])), &auth, &sasl),
        Err(ErrorCode::MARSHALLING_ERROR)
    );

    let no_digest = Providers { digest_enabled: false, ..Providers::default() };
    assert_eq!(fix(&no_digest, "digest", "a:b"), Err(ErrorCode::INVALID_ACL));
    assert_eq!(fix(&no_digest, "auth", ""), Err(ErrorCode::INVALID_ACL));

    let ensemble = Providers { ensemble_names: Some(vec!["a".to_owned()]), ..Providers::default() };
    assert_eq!(fix(&ensemble, "ensemble", "a"), Err(ErrorCode::INVALID_ACL));
}

#[test]
fn duplicates_are_dropped() {
    let (auth, providers) = (ConnAuth::default(), Providers::default());
    let acl = list(&[
        (1, Some("world"), Some("anyone")),
        (1, Some("ip"), Some("1.2.3.4")),
        (2, Some("world"), Some("anyone")),
        (1, Some("world"), Some("anyone")),
        (1, Some("ip"), Some("1.2.3.4")),
        (1, Some("ip"), Some("01.2.3.4")),
    ]);
    let expected = [&acl[..3], &acl[5..]].concat();
    assert_eq!(fix_acl(Some(acl), &auth, &providers), Ok(expected));
}

#[test]
fn the_first_wrong_entry_decides() {
    let (auth, providers) = (ConnAuth::default(), Providers::default());
    let (unmarshalled, invalid) = ((1, Some("ip"), None), (1, Some("nosuch"), Some("")));
    let open = (31, Some("world"), Some("anyone"));
    for (entries, expected) in [
        ([open, unmarshalled, invalid], ErrorCode::MARSHALLING_ERROR),
        ([open, invalid, unmarshalled], ErrorCode::INVALID_ACL),
    ] {
        assert_eq!(fix_acl(Some(list(&entries)), &auth, &providers), Err(expected));
    }
}

#[test]
fn auth_stands_for_every_authenticated_identity() {
    let providers = with_super();
    let bob = digest_id(Default::default(), "bob:x");
    let root = digest_id(Default::default(), "super:secret");
    for (tokens, expected) in [
        (vec![], None),
        (vec!["alice:secret"], Some(vec![ALICE])),
        (vec!["alice:secret", "bob:x"], Some(vec![ALICE, bob.as_str()])),
        // The identity `super` itself is no digest.
        (vec!["super:secret"], Some(vec![root.as_str()])),
    ] {
        let auth = conn(&providers, &tokens);
        for id in [Some(""), Some("ignored"), None] {
            let fixed = fix_acl(Some(list(&[(5, Some("auth"), id)])), &auth, &providers);
            let expected = expected
                .as_ref()
                .map(|ids| list(&ids.iter().map(|id| (5, Some("digest"), Some(*id))).collect::<Vec<_>>()));
            assert_eq!(fixed, expected.ok_or(ErrorCode::INVALID_ACL), "{tokens:?} {id:?}");
        }
    }
}

#[test]
fn auth_keeps_its_place_among_the_others() {
    let providers = Providers::default();
    let auth = conn(&providers, &["alice:secret"]);
    let acl = list(&[
        (1, Some("world"), Some("anyone")),
        (31, Some("auth"), Some("")),
        (2, Some("ip"), Some("1.2.3.4")),
    ]);
    let fixed = fix_acl(Some(acl), &auth, &providers).expect("a valid list");
    assert_eq!(fixed[1], Acl::new(Perms::ALL, "digest", ALICE));
    assert_eq!(fixed.len(), 3);
}

#[test]
fn expansion_of_auth_is_bounded() {
    let providers = Providers::default();
    let mut auth = ConnAuth::default();
    for user in 0..ConnAuth::ADDED_MAX {
        auth.add(Identity::new("digest", digest_id(Default::default(), &format!("{user}")))).expect("room");
    }
    let entries: Vec<_> = (0..1_000).map(|perms| (perms, Some("auth"), None)).collect();
    assert_eq!(fix_acl(Some(list(&entries)), &auth, &providers), Err(ErrorCode::INVALID_ACL));
    assert_eq!(fix_acl(Some(list(&entries[..10])), &auth, &providers).map(|acl| acl.len()), Ok(2_560));
}

#[test]
fn evaluation() {
    let providers = with_super();
    let peer = conn(&providers, &[]);
    let alice = conn(&providers, &["alice:secret"]);
    let both = conn(&providers, &["bob:x", "alice:secret"]);
    let root = conn(&providers, &["super:secret"]);
    let wrong = conn(&providers, &["super:wrong"]);
    let world = (1, Some("world"), Some("anyone"));
    let digest = (6, Some("digest"), Some(ALICE));
    let net = (8, Some("ip"), Some("10.0.0.0/24"));
    let other_net = (8, Some("ip"), Some("10.0.1.0/24"));
    let cases: &[(&[Entry<'_>], i32, &ConnAuth, bool)] = &[
        (&[], 16, &peer, true),
        (&[world], 1, &peer, true),
        (&[world], 2, &peer, false),
        (&[world], 3, &peer, true), // either of the two is enough
        (&[world], 31, &ConnAuth::default(), true),
        (&[digest], 2, &alice, true),
        (&[digest], 4, &both, true),
        (&[digest], 1, &alice, false),
        (&[digest], 2, &peer, false),
        (&[digest], 2, &wrong, false),
        (&[digest], 2, &root, true),
        (&[digest], 16, &root, true),
        (&[net], 8, &peer, true),
        (&[net], 8, &ConnAuth::default(), false),
        (&[net], 1, &peer, false),
        (&[other_net], 8, &peer, false),
        (&[digest, net, world], 1, &peer, true),
        (&[world, net, digest], 4, &peer, false),
        // No deny: an entry without permissions takes nothing away.
        (&[(0, Some("world"), Some("anyone")), net], 8, &peer, true),
        (&[(0, Some("world"), Some("anyone"))], 31, &alice, false),
        // Lists that only a damaged or foreign file can hold.
        (
            &[(31, None, Some("anyone")), (31, Some("world"), None), (31, Some("ip"), Some("x"))],
            1,
            &alice,
            false,
        ),
        (&[(31, Some("auth"), Some("")), (31, Some("super"), Some(""))], 1, &alice, false),
        (&[(31, Some("world"), Some("anybody"))], 1, &alice, false),
    ];
    for (acl, perms, auth, expected) in cases {
        let acl = list(acl);
        assert_eq!(check(&acl, Perms(*perms), auth, &providers), *expected, "{acl:?} {perms} {auth:?}");
        let skip = Providers { skip_acl: true, ..providers.clone() };
        assert!(check(&acl, Perms(*perms), auth, &skip));
    }
}

#[test]
fn sasl_ids_match_by_equality() {
    let providers = Providers { sasl: true, ..Providers::default() };
    let mut auth = ConnAuth::default();
    auth.add(Identity::new("sasl", "bob")).expect("room");
    for (scheme, id, expected) in [("sasl", "bob", true), ("sasl", "bo", false), ("digest", "bob", false)] {
        let acl = list(&[(31, Some(scheme), Some(id))]);
        assert_eq!(check(&acl, Perms::READ, &auth, &providers), expected);
    }
    let fixed = fix_acl(Some(vec![Acl::creator_all()]), &auth, &providers);
    assert_eq!(fixed, Ok(list(&[(31, Some("sasl"), Some("bob"))])));
}

#[test]
fn get_acl_hides_hashes_from_those_who_may_not_administer() {
    let providers = with_super();
    let acl = list(&[
        (31, Some("digest"), Some(ALICE)),
        (1, Some("world"), Some("anyone")),
        (1, Some("ip"), Some("::1")),
        (1, Some("digest"), Some("a:b\nc:d")),
        (1, Some("digest"), Some("odd")),
        (1, Some("digest"), None),
    ]);
    let redacted = list(&[
        (31, Some("digest"), Some("alice:x")),
        (1, Some("world"), Some("anyone")),
        (1, Some("ip"), Some("::1")),
        (1, Some("digest"), Some("a:x")),
        (1, Some("digest"), Some("odd")),
        (1, Some("digest"), None),
    ]);
    for (tokens, expected) in [
        (vec![], &redacted),
        (vec!["alice:wrong"], &redacted),
        (vec!["alice:secret"], &acl),
        (vec!["super:secret"], &acl),
    ] {
        let auth = conn(&providers, &tokens);
        assert_eq!(*redact_for_get_acl(&acl, &auth, &providers), **expected, "{tokens:?}");
    }
    let skip = Providers { skip_acl: true, ..Providers::default() };
    assert_eq!(*redact_for_get_acl(&acl, &ConnAuth::default(), &skip), *acl);
}
