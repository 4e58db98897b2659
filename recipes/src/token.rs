//! Fencing tokens.

use std::fmt;
use std::str::FromStr;

use zk_client::Client;

use crate::error::{RecipeError, Result};

/// Grows from each holder of a path to the next: the zxid of the create of the holder's node.
///
/// Send it along with every request to a resource that the lock protects; the resource remembers the largest
/// token it has seen and refuses smaller ones. So a holder that was paused for too long can do no harm.
///
/// Restoring an ensemble from an old backup can move zxids backwards; tokens are not monotonic across that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingToken(pub u64);

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}

/// Proof of ownership in a form that can be sent to others: `path;exclusive;0x1a` (as Chubby's sequencers).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequencer {
    /// The holder's node.
    pub path: String,
    /// The holder's token.
    pub token: FencingToken,
}

impl Sequencer {
    /// Whether the holder still holds, as of now: the node exists and is the same one. Reads behind a `sync`.
    /// Cancel safe.
    pub async fn verify(&self, client: &Client) -> Result<bool> {
        let stat = client.linearizable().exists(&self.path).await?;
        Ok(stat.is_some_and(|stat| stat.czxid as u64 == self.token.0))
    }
}

impl fmt::Display for Sequencer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{};exclusive;{}", self.path, self.token)
    }
}

impl FromStr for Sequencer {
    type Err = RecipeError;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || RecipeError::BadData(format!("{text:?} is no sequencer: path;exclusive;0x1a"));
        let (rest, token) = text.rsplit_once(';').ok_or_else(bad)?;
        let (path, mode) = rest.rsplit_once(';').ok_or_else(bad)?;
        let token = token.strip_prefix("0x").ok_or_else(bad)?;
        let token = u64::from_str_radix(token, 16).map_err(|_| bad())?;
        if mode != "exclusive" || !path.starts_with('/') {
            return Err(bad());
        }
        Ok(Sequencer { path: path.to_owned(), token: FencingToken(token) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequencer_survives_printing() {
        let sequencer = Sequencer { path: "/l/a;b".into(), token: FencingToken(26) };
        assert_eq!(sequencer.to_string(), "/l/a;b;exclusive;0x1a");
        assert_eq!(sequencer.to_string().parse::<Sequencer>().unwrap(), sequencer);
        for bad in ["", "/l;exclusive;26", "/l;shared;0x1a", "l;exclusive;0x1a", "/l;0x1a"] {
            assert!(bad.parse::<Sequencer>().is_err(), "{bad}");
        }
    }
}
