//! What ends a role.

use std::io;
use std::path::PathBuf;

use zk_client::Client;
use zk_recipes::RecipeError;

/// Result of a role.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a role, or the whole system, gave up. Lost connections and expired sessions are no reason.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// ZooKeeper refused something that must work.
    #[error(transparent)]
    Client(#[from] zk_client::Error),
    /// The election failed for good.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The embedded server did not start.
    #[error(transparent)]
    Server(#[from] zk_server::StartError),
    /// A file could not be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The operating system refused something else.
    #[error("{0}")]
    System(#[from] io::Error),
    /// A role panicked.
    #[error("{0} panicked")]
    Panicked(String),
    /// The system did not finish in time.
    #[error("not finished after {0:?}")]
    TooLate(std::time::Duration),
}

/// Waits until a step can be tried again, in the next session if need be; gives the error back when trying
/// again is pointless.
///
/// The step itself must look at the tree first: what failed may have been applied.
pub async fn try_again(zk: &Client, error: zk_client::Error) -> zk_client::Result<()> {
    let over = matches!(error, zk_client::Error::SessionExpired(_)) && zk.pinned_session().is_none();
    if !over && !error.is_retryable() {
        return Err(error);
    }
    zk.connected().await.map(drop)
}
