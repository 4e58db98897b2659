//! The identities of a connection.

use std::borrow::Cow;
use std::net::SocketAddr;

use zk_proto::ClientInfo;

use super::ip::Peer;
use super::scheme;

/// A scheme and what it says about a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// The scheme.
    pub scheme: Cow<'static, str>,
    /// The id within the scheme.
    pub id: String,
}

impl Identity {
    /// An identity from its parts.
    pub fn new(scheme: impl Into<Cow<'static, str>>, id: impl Into<String>) -> Self {
        Identity { scheme: scheme.into(), id: id.into() }
    }

    /// The identity that skips every ACL.
    pub fn superuser() -> Self {
        Identity::new(scheme::SUPER, "")
    }

    /// The part of the id that names a user: for digest without the hash.
    pub fn user(&self) -> &str {
        match &*self.scheme {
            scheme::DIGEST => self.id.split(':').next().unwrap_or_default(),
            _ => &self.id,
        }
    }
}

/// The identities of one connection: its peer's address and what was added to it.
///
/// Meant to be shared behind an `Arc` and replaced when an auth packet adds something, so that a request keeps
/// the identities that it came with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConnAuth {
    peer: Option<Peer>,
    added: Vec<Identity>,
}

/// A connection has more identities than the server is ready to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many identities on one connection")]
pub struct TooManyIdentities;

impl ConnAuth {
    /// How many identities can be added to a connection, since a client may send auth packets without end.
    pub const ADDED_MAX: usize = 256;
    /// How many bytes their ids can have together.
    pub const ADDED_BYTES_MAX: usize = 64 * 1024;

    /// A connection that was just accepted. IPv4 addresses in IPv6 clothes (`::ffff:1.2.3.4`) count as IPv4.
    pub fn new(peer: SocketAddr) -> Self {
        ConnAuth { peer: Some(Peer::from(peer)), added: Vec::new() }
    }

    /// The identities of a client of another server, as that server tells them.
    pub fn from_peer(identities: &[Identity]) -> Self {
        let mut auth = ConnAuth::default();
        for identity in identities {
            match identity.id.split('%').next().unwrap_or_default().parse() {
                Ok(ip) if identity.scheme == scheme::IP => {
                    auth.peer = Some(Peer::from(SocketAddr::new(ip, 0)));
                }
                // What does not fit any more would not have fitted where the client is connected.
                _ => drop(auth.add(identity.clone())),
            }
        }
        auth
    }

    /// The identities as they are told to another server: the address first.
    pub fn for_peer(&self) -> Vec<Identity> {
        let address = self.peer.map(|peer| Identity::new(scheme::IP, peer.to_string()));
        address.into_iter().chain(self.added.iter().cloned()).collect()
    }

    /// Adds an identity. Adding one that is there changes nothing.
    ///
    /// # Errors
    /// If that would be more than a connection may have; it keeps what it has.
    pub fn add(&mut self, identity: Identity) -> Result<(), TooManyIdentities> {
        if self.added.contains(&identity) {
            return Ok(());
        }
        let bytes: usize = self.added.iter().map(|added| added.id.len()).sum();
        if self.added.len() >= Self::ADDED_MAX || bytes + identity.id.len() > Self::ADDED_BYTES_MAX {
            return Err(TooManyIdentities);
        }
        self.added.push(identity);
        Ok(())
    }

    /// Whether the connection skips ACLs.
    pub fn is_super(&self) -> bool {
        self.added.iter().any(|added| added.scheme == scheme::SUPER)
    }

    /// Whether the connection has an identity of this scheme.
    pub fn has_scheme(&self, scheme: &str) -> bool {
        scheme == scheme::IP && self.peer.is_some() || self.added.iter().any(|added| added.scheme == scheme)
    }

    /// All identities: those that were added, oldest first, then the peer's address.
    pub fn identities(&self) -> impl Iterator<Item = Cow<'_, Identity>> {
        let peer = self.peer.map(|peer| Cow::Owned(Identity::new(scheme::IP, peer.to_string())));
        self.added.iter().map(Cow::Borrowed).chain(peer)
    }

    pub(super) fn peer(&self) -> Option<Peer> {
        self.peer
    }

    pub(super) fn added(&self) -> &[Identity] {
        &self.added
    }
}

/// The answer of whoAmI: schemes and users. The order has no meaning.
pub fn who_am_i(auth: &ConnAuth) -> Vec<ClientInfo<'static>> {
    auth.identities()
        .map(|identity| ClientInfo {
            auth_scheme: identity.scheme.clone(),
            user: Cow::Owned(identity.user().to_owned()),
        })
        .collect()
}
