//! Who a connection is, and what an ACL lets it do.
//!
//! Identities are a set per *connection* ([`ConnAuth`]): the address of the peer from the moment it is
//! accepted, and what auth packets add. They are not part of the session; a client sends them again after every
//! reconnect. [`Providers`] says which schemes exist and how. The rules are those of Apache ZooKeeper 3.9.5,
//! where IPv6 ranges in `ip` ids work.
//!
//! | scheme | id in an ACL | identity of a connection | counts as authenticated |
//! |---|---|---|---|
//! | `world` | `anyone` | everybody | |
//! | `auth` | ignored; replaced by the creator's authenticated identities | | |
//! | `digest` | `user:hash` | by auth packet `user:password` | yes |
//! | `ip` | address or range | address of the peer | no |
//! | `sasl` | name | by a SASL exchange | yes |
//! | `ensemble` | none | none: the auth packet only guards against the wrong ensemble | no |
//! | `super` | none | by a digest equal to the configured one; skips every ACL | no |
//!
//! No socket and no file: all answers follow from the arguments.

mod acl;
mod conn;
mod digest;
mod ip;
mod providers;

pub use acl::{check, fix_acl, redact_for_get_acl};
pub use conn::{ConnAuth, Identity, TooManyIdentities, who_am_i};
pub use digest::{DigestAlg, UnknownDigestAlg, digest_id};
pub use providers::{AuthOutcome, Providers, SuperDigest};

/// Names of the schemes.
pub mod scheme {
    /// Everybody.
    pub const WORLD: &str = "world";
    /// Whoever sends the list.
    pub const AUTH: &str = "auth";
    /// User and password.
    pub const DIGEST: &str = "digest";
    /// Address of the peer.
    pub const IP: &str = "ip";
    /// Result of a SASL exchange.
    pub const SASL: &str = "sasl";
    /// Name of the ensemble that a client expects.
    pub const ENSEMBLE: &str = "ensemble";
    /// Skips every ACL.
    pub const SUPER: &str = "super";
}
