//! What can go wrong, in variants that a caller can act on.

use std::sync::Arc;
use std::time::Duration;

pub use zk_proto::ErrorCode as ServerCode;
use zk_proto::SessionId;

/// Result of a client operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What is known about a request that got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// No byte of it was written: it has had no effect and never will. Anything may be sent again.
    NotSent,
    /// It may have been executed, and the server may be executing it still.
    Unknown,
}

/// Error of a client operation.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server refused the operation.
    #[error("{op} {path}: {code}")]
    Server {
        /// The operation.
        op: &'static str,
        /// The path as the caller gave it.
        path: String,
        /// The server's reason.
        code: ServerCode,
    },
    /// The connection was lost before the answer came. The session may live on.
    #[error("{op} {path}: connection lost, outcome {outcome:?}")]
    ConnectionLoss {
        /// The operation.
        op: &'static str,
        /// The path as the caller gave it.
        path: String,
        /// Whether the operation may have been applied.
        outcome: Outcome,
    },
    /// The session is gone, with its ephemeral nodes and watches; or a handle that is pinned to a session
    /// was used in a later one.
    #[error("session {0} expired")]
    SessionExpired(SessionId),
    /// The client was closed or detached.
    #[error("client closed")]
    Closed,
    /// No answer within the request timeout. The connection stays; a late answer is dropped.
    #[error("{op} {path}: timed out after {after:?}, outcome {outcome:?}")]
    Timeout {
        /// The operation.
        op: &'static str,
        /// The path as the caller gave it.
        path: String,
        /// The timeout that ran out.
        after: Duration,
        /// Whether the operation may have been applied.
        outcome: Outcome,
    },
    /// No server accepted a session within the initial connect timeout.
    #[error("no session after {after:?}: {last}")]
    Connect {
        /// How long was tried.
        after: Duration,
        /// The last failure.
        last: String,
    },
    /// The servers refused credentials. The client is unusable from then on.
    #[error("authentication failed: {0}")]
    AuthFailed(String),
    /// An argument that no server would accept; nothing was sent.
    #[error("invalid argument: {0}")]
    InvalidArgument(String),
    /// The server's answer makes no sense.
    #[error("protocol: {0}")]
    Protocol(String),
    /// A multi failed as a whole because one of its operations failed; nothing of it was applied.
    #[error("multi failed at op {index}: {code}")]
    Multi {
        /// Position of the operation that failed.
        index: usize,
        /// Why it failed.
        code: ServerCode,
        /// One result per operation: `Ok` for those in front of the failed one,
        /// [`ServerCode::RUNTIME_INCONSISTENCY`] for those behind it.
        results: Vec<Result<(), ServerCode>>,
    },
    /// Data of a node could not be turned into the wanted type (or back).
    #[error("decode {path}: {source}")]
    Decode {
        /// The node.
        path: String,
        /// The codec's error.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// `try_send` found the queue full.
    #[error("too many requests in flight")]
    Overloaded,
    /// The connected server is too old for this.
    #[error("not supported by the server: {0}")]
    Unsupported(&'static str),
}

impl Error {
    /// The server's error code, if a server sent one.
    pub fn code(&self) -> Option<ServerCode> {
        match self {
            Error::Server { code, .. } | Error::Multi { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// The node (or a parent of the node to create) does not exist.
    pub fn is_no_node(&self) -> bool {
        self.code() == Some(ServerCode::NO_NODE)
    }

    /// The node to create exists already.
    pub fn is_node_exists(&self) -> bool {
        self.code() == Some(ServerCode::NODE_EXISTS)
    }

    /// The expected version is not the current one.
    pub fn is_bad_version(&self) -> bool {
        self.code() == Some(ServerCode::BAD_VERSION)
    }

    /// The node to delete has children.
    pub fn is_not_empty(&self) -> bool {
        self.code() == Some(ServerCode::NOT_EMPTY)
    }

    /// The same request may succeed later, in the same session. Says nothing about whether repeating it is
    /// *safe*: see [`may_have_been_applied`](Error::may_have_been_applied).
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::ConnectionLoss { .. } | Error::Timeout { .. } | Error::Overloaded => true,
            Error::Server { code, .. } => matches!(
                *code,
                ServerCode::CONNECTION_LOSS
                    | ServerCode::OPERATION_TIMEOUT
                    | ServerCode::REQUEST_TIMEOUT
                    | ServerCode::SESSION_MOVED
                    | ServerCode::THROTTLED_OP
            ),
            _ => false,
        }
    }

    /// Whether a write that ended with this error may be in effect all the same.
    pub fn may_have_been_applied(&self) -> bool {
        matches!(
            self,
            Error::ConnectionLoss { outcome: Outcome::Unknown, .. }
                | Error::Timeout { outcome: Outcome::Unknown, .. }
        )
    }

    /// No later call on this handle's session can succeed.
    pub fn is_session_fatal(&self) -> bool {
        match self {
            Error::SessionExpired(_) | Error::Closed | Error::AuthFailed(_) => true,
            Error::Server { code, .. } => {
                matches!(*code, ServerCode::SESSION_EXPIRED | ServerCode::SESSION_CLOSED_REQUIRE_SASL_AUTH)
            }
            _ => false,
        }
    }
}

/// Why a request ended without an answer; becomes an [`Error`] where operation and path are known.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    ConnectionLoss(Outcome),
    SessionExpired(SessionId),
    Closed,
    AuthFailed(Arc<str>),
    Overloaded,
    TooLong { bytes: usize, max: usize },
}

impl Failure {
    pub(crate) fn into_error(self, op: &'static str, path: &str) -> Error {
        match self {
            Failure::ConnectionLoss(outcome) => Error::ConnectionLoss { op, path: path.to_owned(), outcome },
            Failure::SessionExpired(session) => Error::SessionExpired(session),
            Failure::Closed => Error::Closed,
            Failure::AuthFailed(why) => Error::AuthFailed(why.to_string()),
            Failure::Overloaded => Error::Overloaded,
            Failure::TooLong { bytes, max } => {
                Error::InvalidArgument(format!("{op} {path}: request of {bytes} bytes exceeds {max}"))
            }
        }
    }
}
