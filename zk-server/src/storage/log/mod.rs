//! Writing the transaction log.
//!
//! ```text
//! 'ZKLG' i32 | version 2 i32 | dbid 0 i64 | records back to back | zeros to the end of the file
//! ```
//!
//! A file is never appended to by a second process and never recycled: each start and each roll opens a new
//! one, named by its first zxid, that appears under its name complete with header (renamed from a temporary
//! name, directory synced), so that no crash leaves a log that Apache cannot open.

mod prepare;
pub(super) mod read;
mod thread;
mod txn_log;

pub(super) use prepare::NEXT_LOG;
pub(super) use read::first_needed;
pub use thread::{LogMetrics, LogThread, abort_process};
pub use txn_log::{LogOptions, TxnLog};

/// Bytes in front of the first record.
pub(super) const HEADER_LEN: u64 = 16;

/// The file header: magic, version, dbid.
pub(super) const HEADER: [u8; HEADER_LEN as usize] = *b"ZKLG\0\0\0\x02\0\0\0\0\0\0\0\0";
