//! Stand-in with the API that the replica uses; the real room replaces this file (keep the names or adapt `replica`).
use zk_proto::{Acl, ClientInfo, ErrorCode, Perms};
/// Ids.
#[derive(Debug, Clone, Default)]
pub struct ConnAuth;
/// Config.
#[derive(Debug, Clone, Default)]
pub struct Providers;
/// Check.
pub fn check(acl: &[Acl<'_>], perms: Perms, _: &ConnAuth, _: &Providers) -> bool {
    acl.iter().any(|a| a.is_world() && a.perms.intersects(perms))
}
/// Fix.
pub fn fix_acl(
    acl: Option<Vec<Acl<'_>>>,
    _: &ConnAuth,
    _: &Providers,
) -> Result<Vec<Acl<'static>>, ErrorCode> {
    let acl = acl.filter(|a| !a.is_empty()).ok_or(ErrorCode::INVALID_ACL)?;
    Ok(acl.into_iter().map(Acl::into_owned).collect())
}
/// Redact.
pub fn redact_for_get_acl(acl: &[Acl<'static>], _: &ConnAuth, _: &Providers) -> Vec<Acl<'static>> {
    acl.to_vec()
}
/// Who.
pub fn who_am_i(_: &ConnAuth) -> Vec<ClientInfo<'static>> {
    Vec::new()
}
