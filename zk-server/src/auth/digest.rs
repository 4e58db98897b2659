//! The `digest` scheme: `user:hash`.

use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};
use sha2::{Sha256, Sha512};

/// How digests are computed. Must be the same on all servers of an ensemble, and for the lifetime of its ACLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DigestAlg {
    /// SHA-1: the default, what clients and tools expect that compute an id themselves.
    #[default]
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// The name of a digest algorithm is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown digest algorithm {0:?}, use SHA1, SHA-256 or SHA-512")]
pub struct UnknownDigestAlg(pub String);

impl FromStr for DigestAlg {
    type Err = UnknownDigestAlg;

    /// Reads the names that Java knows, and the same without hyphen.
    fn from_str(name: &str) -> Result<Self, UnknownDigestAlg> {
        match name.to_ascii_uppercase().as_str() {
            "SHA" | "SHA1" | "SHA-1" => Ok(DigestAlg::Sha1),
            "SHA256" | "SHA-256" => Ok(DigestAlg::Sha256),
            "SHA512" | "SHA-512" => Ok(DigestAlg::Sha512),
            _ => Err(UnknownDigestAlg(name.to_owned())),
        }
    }
}

/// The digest id for `user:password`: the part before the first colon, and the hash of the whole in base64.
/// Without a colon the whole is the user.
pub fn digest_id(alg: DigestAlg, user_password: &str) -> String {
    let user = user_password.split(':').next().unwrap_or_default();
    let hash = match alg {
        DigestAlg::Sha1 => STANDARD.encode(Sha1::digest(user_password)),
        DigestAlg::Sha256 => STANDARD.encode(Sha256::digest(user_password)),
        DigestAlg::Sha512 => STANDARD.encode(Sha512::digest(user_password)),
    };
    format!("{user}:{hash}")
}

/// Whether an ACL may name this id: two parts, the second not empty; colons at the end do not count.
pub(super) fn is_valid(id: &str) -> bool {
    id.trim_end_matches(':').matches(':').count() == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        for (alg, token, expected) in [
            // Printed by Apache's DigestAuthenticationProvider, and recorded from an Apache server.
            (DigestAlg::Sha1, "super:secret", "super:lK75jTNcA+U9vtVEw5vB51mj/w4="),
            (DigestAlg::Sha1, "alice:secret", "alice:aYXlLOpEooaV1cRAvUL1fp9Qt7E="),
            // The well known hashes of the empty string.
            (DigestAlg::Sha1, "", ":2jmj7l5rSw0yVb/vlWAYkK/YBwk="),
            (DigestAlg::Sha256, "", ":47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="),
            (
                DigestAlg::Sha512,
                "",
                ":z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg==",
            ),
        ] {
            assert_eq!(digest_id(alg, token), expected);
        }
        for token in ["user", "user:", "user:a", "user:a:b"] {
            let id = digest_id(DigestAlg::Sha1, token);
            assert!(id.starts_with("user:") && is_valid(&id), "{token}: {id}");
        }
    }

    #[test]
    fn validity() {
        for id in ["a:b", ":b", "a:b:", "a:b::", "a b:c d", "é:ß"] {
            assert!(is_valid(id), "{id}");
        }
        for id in ["", "abc", "a:", ":", "::", "a::", "a:b:c", "::b", "a::b"] {
            assert!(!is_valid(id), "{id}");
        }
    }

    #[test]
    fn names_of_algorithms() {
        for (name, alg) in
            [("SHA1", DigestAlg::Sha1), ("sha-256", DigestAlg::Sha256), ("SHA-512", DigestAlg::Sha512)]
        {
            assert_eq!(name.parse(), Ok(alg));
        }
        assert_eq!("MD5".parse::<DigestAlg>(), Err(UnknownDigestAlg("MD5".to_owned())));
    }
}
