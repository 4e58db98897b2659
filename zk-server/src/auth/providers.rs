//! Which schemes the server offers, and what it does with an auth packet.

use std::fmt;

use super::conn::{ConnAuth, Identity};
use super::digest::{self, DigestAlg, digest_id};
use super::ip::IpRange;
use super::scheme;

/// The schemes of a server, from its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Providers {
    /// Whether the scheme `digest` exists.
    pub digest_enabled: bool,
    /// How digest ids are computed.
    pub digest_alg: DigestAlg,
    /// The digest id that makes its connection skip every ACL.
    pub super_digest: Option<SuperDigest>,
    /// Whether ids of the scheme `sasl` may stand in ACLs.
    pub sasl: bool,
    /// The scheme `ensemble`: the names that clients may expect, none meaning any. `None`: no such scheme.
    pub ensemble_names: Option<Vec<String>>,
    /// Every ACL lets everybody do everything.
    pub skip_acl: bool,
    /// A connection needs an identity of one of these schemes before it may do anything but authenticate; empty:
    /// it does not.
    pub required_schemes: Vec<String>,
}

/// A digest id that grants everything. It does not show in debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct SuperDigest(pub String);

impl fmt::Debug for SuperDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SuperDigest(..)")
    }
}

impl Default for Providers {
    /// As an Apache server without any setting: `digest` with SHA-1, no super user, nothing required.
    fn default() -> Self {
        Providers {
            digest_enabled: true,
            digest_alg: DigestAlg::default(),
            super_digest: None,
            sasl: false,
            ensemble_names: None,
            skip_acl: false,
            required_schemes: Vec::new(),
        }
    }
}

/// What comes of an auth packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthOutcome {
    /// Reply success. The connection's identities from now on.
    Ok(ConnAuth),
    /// Reply AUTH_FAILED, then close.
    Failed,
    /// Close without a reply, so that the client tries another server.
    Close,
}

/// A scheme that has a provider: its ids may stand in ACLs, if it has any, and its auth packets are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Provider {
    Digest,
    Ip,
    Sasl,
    Ensemble,
}

impl Provider {
    /// Whether an ACL may name this id.
    pub(super) fn is_valid(self, id: &str) -> bool {
        match self {
            Provider::Digest => digest::is_valid(id),
            Provider::Ip => IpRange::parse(id).is_some(),
            Provider::Sasl => is_kerberos_name(id),
            Provider::Ensemble => false,
        }
    }

    /// Whether an entry of the scheme `auth` stands for identities of this provider.
    pub(super) fn is_authenticated(self) -> bool {
        matches!(self, Provider::Digest | Provider::Sasl)
    }
}

impl Providers {
    pub(super) fn get(&self, scheme: &str) -> Option<Provider> {
        match scheme {
            scheme::DIGEST if self.digest_enabled => Some(Provider::Digest),
            scheme::IP => Some(Provider::Ip),
            scheme::SASL if self.sasl => Some(Provider::Sasl),
            scheme::ENSEMBLE if self.ensemble_names.is_some() => Some(Provider::Ensemble),
            _ => None,
        }
    }

    /// Whether there is such a scheme for connections to authenticate by: what [`Providers::required_schemes`]
    /// may name.
    pub fn is_registered(&self, scheme: &str) -> bool {
        self.get(scheme).is_some()
    }

    /// Whether a connection may do more than authenticate. If not, the answer to its request is
    /// SESSION_CLOSED_REQUIRE_SASL_AUTH with zxid 0, and it is closed; only auth and SASL packets are exempt.
    pub fn admits(&self, auth: &ConnAuth) -> bool {
        self.required_schemes.is_empty() || self.required_schemes.iter().any(|scheme| auth.has_scheme(scheme))
    }

    /// Deals with an auth packet. A wrong super password is no failure: it gives an ordinary identity.
    pub fn authenticate(&self, auth: &ConnAuth, scheme: Option<&str>, token: Option<&[u8]>) -> AuthOutcome {
        match scheme.and_then(|scheme| self.get(scheme)) {
            Some(Provider::Digest) => {
                // As Java reads bytes into a string: what is not UTF-8 becomes U+FFFD, and is hashed as such.
                let Some(token) = token.map(String::from_utf8_lossy) else { return AuthOutcome::Failed };
                let id = digest_id(self.digest_alg, &token);
                let is_super = self.super_digest.as_ref().is_some_and(|digest| digest.0 == id);
                let identity = Identity::new(scheme::DIGEST, id);
                let added = is_super.then(Identity::superuser).into_iter().chain([identity]);
                let mut auth = auth.clone();
                for identity in added {
                    if auth.add(identity).is_err() {
                        return AuthOutcome::Failed;
                    }
                }
                AuthOutcome::Ok(auth)
            }
            // The address is known since the connection was accepted.
            Some(Provider::Ip) => AuthOutcome::Ok(auth.clone()),
            Some(Provider::Ensemble) => {
                let names = self.ensemble_names.as_deref().unwrap_or_default();
                let token = token.unwrap_or_default();
                if names.is_empty() || token.is_empty() || names.iter().any(|name| name.as_bytes() == token) {
                    AuthOutcome::Ok(auth.clone())
                } else {
                    AuthOutcome::Close
                }
            }
            // SASL has packets of its own.
            Some(Provider::Sasl) | None => AuthOutcome::Failed,
        }
    }
}

/// A short name, or `service[/host]@realm`, as in Kerberos.
fn is_kerberos_name(name: &str) -> bool {
    match name.split_once('@') {
        None => !name.is_empty(),
        Some((principal, realm)) => {
            principal.matches('/').count() <= 1 && !realm.contains('@') && !realm.contains('/')
        }
    }
}

#[cfg(test)]
#[path = "providers_tests.rs"]
mod tests;
