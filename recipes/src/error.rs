//! Errors of the recipes.

use bytes::Bytes;
use zk_client::{Error, SessionId};

use crate::held::LossReason;

/// Result of a recipe operation.
pub type Result<T, E = RecipeError> = std::result::Result<T, E>;

/// Error of a recipe operation.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// The client could not do what the recipe needs.
    #[error(transparent)]
    Client(#[from] Error),
    /// What was held is not held any more.
    #[error("lost: {0}")]
    Lost(LossReason),
    /// A write got no answer and cannot be looked up: it may be in effect.
    #[error("the outcome of a write is unknown")]
    Unknown {
        /// What the write was about to take or put, if that is known.
        data: Option<Bytes>,
    },
    /// Somebody deleted our node while we waited in line.
    #[error("our node was deleted while waiting")]
    NodeDeleted,
    /// The directory holds contenders of another library's layout: the two would not exclude each other.
    #[error("{dir} is in use in another layout: {name}")]
    MixedLayout {
        /// The directory.
        dir: String,
        /// A child in the other layout.
        name: String,
    },
    /// The parent's create counter has reached its end (2147483647): names repeat from there on. Delete the
    /// directory when nobody uses it; it starts at 0 again.
    #[error("sequence numbers of {0} are used up: delete and re-create the directory")]
    SequenceExhausted(String),
    /// The node belongs to another session.
    #[error("taken by session {owner}")]
    Taken {
        /// The session.
        owner: SessionId,
    },
    /// A node's data is not what the recipe expects.
    #[error("bad data: {0}")]
    BadData(String),
    /// Not possible in this layout or on this server.
    #[error("not supported: {0}")]
    Unsupported(&'static str),
}

impl RecipeError {
    /// The recipe may succeed when it is started again in the client's next session.
    pub fn is_session_expired(&self) -> bool {
        matches!(
            self,
            RecipeError::Client(Error::SessionExpired(_)) | RecipeError::Lost(LossReason::SessionExpired)
        )
    }
}
