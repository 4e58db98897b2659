//! Access control lists: what is accepted, what it allows, what is shown.

use std::borrow::Cow;
use std::collections::BTreeSet;

use zk_proto::{Acl, ErrorCode, Perms};

use super::conn::ConnAuth;
use super::ip::IpRange;
use super::providers::Providers;
use super::scheme;

/// How many bytes the entries may have that replace those of the scheme `auth`. A request of one megabyte with
/// nothing but such entries would grow by the number of the connection's identities otherwise.
const EXPANSION_BYTES_MAX: usize = 1 << 20;

/// The list to store for a list that a client sent: without duplicates, and with the client's own identities in
/// place of the entries of the scheme `auth`. Permissions are not looked at.
///
/// # Errors
/// `INVALID_ACL` for a null or empty list, an entry without scheme, an id that its scheme does not allow, a
/// scheme that the server does not offer, and `auth` on a connection that is not authenticated.
/// `MARSHALLING_ERROR` for an entry without id, as Apache stumbles over it. The first entry that is wrong
/// decides.
pub fn fix_acl(
    acl: Option<Vec<Acl<'_>>>,
    auth: &ConnAuth,
    providers: &Providers,
) -> Result<Vec<Acl<'static>>, ErrorCode> {
    let list = acl.filter(|list| !list.is_empty()).ok_or(ErrorCode::INVALID_ACL)?;
    let mut fixed = Vec::with_capacity(list.len());
    let mut seen = BTreeSet::new();
    let mut expanded_bytes = 0;
    for entry in &list {
        if !seen.insert((entry.perms.0, entry.scheme.as_deref(), entry.id.as_deref())) {
            continue;
        }
        let scheme = entry.scheme.as_deref().ok_or(ErrorCode::INVALID_ACL)?;
        if scheme == scheme::AUTH {
            let before = fixed.len();
            for id in auth.added() {
                if providers.get(&id.scheme).is_some_and(|provider| provider.is_authenticated()) {
                    expanded_bytes += id.id.len() + id.scheme.len();
                    if expanded_bytes > EXPANSION_BYTES_MAX {
                        return Err(ErrorCode::INVALID_ACL);
                    }
                    fixed.push(Acl::new(entry.perms, id.scheme.clone(), id.id.clone()));
                }
            }
            if fixed.len() == before {
                return Err(ErrorCode::INVALID_ACL);
            }
            continue;
        }
        let provider = providers.get(scheme);
        if scheme != scheme::WORLD && provider.is_none() {
            return Err(ErrorCode::INVALID_ACL);
        }
        let id = entry.id.as_deref().ok_or(ErrorCode::MARSHALLING_ERROR)?;
        if !entry.is_world() && !provider.is_some_and(|provider| provider.is_valid(id)) {
            return Err(ErrorCode::INVALID_ACL);
        }
        fixed.push(entry.clone().into_owned());
    }
    Ok(fixed)
}

/// Whether a connection has one of the permissions `perms` by this list. An empty list allows everything.
pub fn check(acl: &[Acl<'_>], perms: Perms, auth: &ConnAuth, providers: &Providers) -> bool {
    let granted = || acl.iter().filter(|entry| entry.perms.intersects(perms));
    acl.is_empty()
        || granted().any(Acl::is_world)
        || providers.skip_acl
        || auth.is_super()
        || granted().any(|entry| is_named(entry, auth))
}

/// Whether an entry names one of the connection's identities.
fn is_named(entry: &Acl<'_>, auth: &ConnAuth) -> bool {
    let (Some(scheme), Some(id)) = (entry.scheme.as_deref(), entry.id.as_deref()) else { return false };
    match scheme {
        scheme::IP => {
            let range = IpRange::parse(id);
            auth.peer().is_some_and(|peer| range.is_some_and(|range| range.contains(peer)))
        }
        scheme::DIGEST | scheme::SASL => auth.added().iter().any(|own| own.scheme == scheme && own.id == id),
        _ => false,
    }
}

/// The list as getACL shows it to a connection: without ADMIN the hash of digest ids is hidden behind an `x`.
pub fn redact_for_get_acl<'a>(
    acl: &'a [Acl<'static>],
    auth: &ConnAuth,
    providers: &Providers,
) -> Cow<'a, [Acl<'static>]> {
    if check(acl, Perms::ADMIN, auth, providers) {
        return Cow::Borrowed(acl);
    }
    let redact = |entry: &Acl<'static>| match (entry.scheme.as_deref(), entry.id.as_deref()) {
        (Some(scheme::DIGEST), Some(id)) => {
            let id = id.split_once(':').map_or_else(|| id.to_owned(), |(user, _)| format!("{user}:x"));
            Acl::new(entry.perms, scheme::DIGEST, id)
        }
        _ => entry.clone(),
    };
    acl.iter().map(redact).collect()
}

#[cfg(test)]
#[path = "acl_tests.rs"]
mod tests;
