//! Why a measurement could not be made. Wrong answers of a server are no such error: they are counted.

use std::io;
use std::path::PathBuf;

use zk_proto::{DecodeError, ErrorCode};

/// Why a measurement could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The cause.
        source: io::Error,
    },
    /// The server closed a connection that the measurement needs.
    #[error("the server closed the connection while {0}")]
    Closed(&'static str),
    /// The server did not answer in time.
    #[error("no answer within {seconds} s while {what}")]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// How long, s.
        seconds: u64,
    },
    /// An answer that cannot be decoded, while preparing a measurement.
    #[error("undecodable answer: {0}")]
    Decode(#[from] DecodeError),
    /// The server refused the session.
    #[error("the server refused the session")]
    Refused,
    /// An operation failed while preparing a measurement.
    #[error("{what}: {code}")]
    Op {
        /// Operation and path.
        what: String,
        /// The code of the reply.
        code: ErrorCode,
    },
    /// An answer was wrong while preparing a measurement.
    #[error("wrong answer: {0}")]
    Wrong(String),
    /// A server definition that cannot be used.
    #[error("{file}: {message}")]
    Definition {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A server that was started does not serve.
    #[error("{name}: {message}; its output is in {log}")]
    Server {
        /// The server's name.
        name: String,
        /// What happened.
        message: String,
        /// Where its output is.
        log: PathBuf,
    },
    /// An argument that makes no sense.
    #[error("{0}")]
    Usage(String),
}

/// Result of preparing or making a measurement.
pub type Result<T> = std::result::Result<T, Error>;

/// Adds what was tried to an I/O error.
pub trait Context<T> {
    /// Names what was tried.
    fn context(self, what: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|source| Error::Io { what: what.into(), source: source.into() })
    }
}
