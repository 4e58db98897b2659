//! Reading a log file: valid records up to the first thing that is none.

use std::path::{Path, PathBuf};

use zk_proto::Zxid;

use super::super::LogName;
use super::super::fs::{At, DiskFile, Fs, IoError};
use super::super::record::{self, END_BYTE, FRAME_OVERHEAD, PREFIX, RecordHeader};
use super::{HEADER, HEADER_LEN};

/// Bytes asked of the file at once.
const CHUNK: u64 = 1 << 20;

/// Why the bytes at an offset are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defect {
    /// The length is not positive; 0 is what padding looks like.
    Length(i32),
    /// The record would reach beyond the end of the file.
    CutShort,
    /// Another byte stands where `B` should.
    EndByte(u8),
    /// Complete, but the checksum does not match.
    Checksum,
    /// Complete and intact, but too short for a transaction.
    Header,
}

/// Looks at the record at the start of `bytes`: its payload's length, or why there is none. `left` is the
/// number of bytes from there to the end of the file. [`Found::Partial`] asks for more bytes.
pub(crate) fn look(bytes: &[u8], left: u64) -> Found {
    let Some(prefix) = bytes.get(..PREFIX) else {
        return if left < PREFIX as u64 { Found::Defect(Defect::CutShort) } else { Found::Partial(PREFIX) };
    };
    let (checksum, length) = decode_prefix(prefix);
    let Ok(len @ 1..) = usize::try_from(length) else { return Found::Defect(Defect::Length(length)) };
    let total = len + FRAME_OVERHEAD;
    if total as u64 > left {
        return Found::Defect(Defect::CutShort);
    }
    let Some(frame) = bytes.get(..total) else { return Found::Partial(total) };
    let payload = &frame[PREFIX..PREFIX + len];
    match frame[PREFIX + len] {
        END_BYTE if i64::from(record::checksum(payload)) != checksum => Found::Defect(Defect::Checksum),
        END_BYTE => match RecordHeader::decode(payload) {
            Ok(header) => Found::Record { header, len },
            Err(_) => Found::Defect(Defect::Header),
        },
        other => Found::Defect(Defect::EndByte(other)),
    }
}

/// Checksum and payload length in front of a record; `prefix` has [`PREFIX`] bytes.
pub(crate) fn decode_prefix(prefix: &[u8]) -> (i64, i32) {
    let (mut checksum, mut length) = ([0; 8], [0; 4]);
    checksum.copy_from_slice(&prefix[..8]);
    length.copy_from_slice(&prefix[8..PREFIX]);
    (i64::from_be_bytes(checksum), i32::from_be_bytes(length))
}

/// What [`look`] found.
pub(crate) enum Found {
    /// An intact record with a payload of `len` bytes.
    Record { header: RecordHeader, len: usize },
    /// So many bytes are needed to say.
    Partial(usize),
    /// No record.
    Defect(Defect),
}

/// Records as they lie in a piece of the file.
#[derive(Debug)]
pub(crate) struct Chunk {
    bytes: Vec<u8>,
    records: Vec<Located>,
}

#[derive(Debug)]
struct Located {
    header: RecordHeader,
    /// Offset of the frame in the file.
    offset: u64,
    /// The payload in the chunk.
    start: usize,
    len: usize,
}

impl Chunk {
    /// Header, offset in the file, and payload of each record.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&RecordHeader, u64, &[u8])> {
        self.records.iter().map(|r| (&r.header, r.offset, &self.bytes[r.start..r.start + r.len]))
    }
}

/// What a log file has in front of its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Head {
    /// A header.
    Good,
    /// Nothing, or nothing but zeros, or less than a header: it was never completed.
    Unborn,
    /// Something else.
    Foreign,
}

/// Reads one file from its first record on.
#[derive(Debug)]
pub(crate) struct LogReader {
    pub(crate) file: Box<dyn DiskFile>,
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
    /// Behind the last valid record.
    pub(crate) offset: u64,
}

impl LogReader {
    pub(crate) fn open(fs: &dyn Fs, path: &Path) -> Result<Self, IoError> {
        let file = fs.open(path).at("open", path)?;
        let size = file.size().at("read", path)?;
        Ok(LogReader { file, path: path.to_owned(), size, offset: HEADER_LEN })
    }

    /// Looks at the file header.
    pub(crate) fn head(&self) -> Result<Head, IoError> {
        let mut head = [0; HEADER_LEN as usize];
        let n = self.file.read_full_at(&mut head, 0).at("read", &self.path)?;
        // The version and the database id behind the magic are not looked at, as in Apache.
        if n == head.len() && head[..4] == HEADER[..4] {
            return Ok(Head::Good);
        }
        let unborn = n < head.len() || head == [0; 16] && self.end_of_content(0)? == 0;
        Ok(if unborn { Head::Unborn } else { Head::Foreign })
    }

    /// The next records; `Err` with the reason when what stands at `self.offset` is none, `None` for the end
    /// of the file.
    pub(crate) fn next_chunk(&mut self) -> Result<Result<Chunk, Option<Defect>>, IoError> {
        let left = self.size.saturating_sub(self.offset);
        if left == 0 {
            return Ok(Err(None));
        }
        let mut want = left.min(CHUNK);
        loop {
            let chunk = self.read_chunk(want)?;
            if let Some(last) = chunk.records.last() {
                self.offset = last.offset + (last.len + FRAME_OVERHEAD) as u64;
                return Ok(Ok(chunk));
            }
            match look(&chunk.bytes, left) {
                Found::Defect(defect) => return Ok(Err(Some(defect))),
                // A record larger than a chunk. Its length may be damage: look at its end before making room.
                Found::Partial(total) if want < total as u64 => {
                    want = total as u64;
                    let end = self.byte_at(self.offset + want - 1)?;
                    if end != END_BYTE {
                        return Ok(Err(Some(Defect::EndByte(end))));
                    }
                }
                // The file got shorter while it was read.
                _ => return Ok(Err(Some(Defect::CutShort))),
            }
        }
    }

    fn read_chunk(&self, len: u64) -> Result<Chunk, IoError> {
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        let n = self.file.read_full_at(&mut bytes, self.offset).at("read", &self.path)?;
        bytes.truncate(n);
        let mut records = Vec::new();
        let mut at = 0;
        while let Found::Record { header, len } = look(&bytes[at..], (n - at) as u64) {
            records.push(Located { header, offset: self.offset + at as u64, start: at + PREFIX, len });
            at += len + FRAME_OVERHEAD;
        }
        Ok(Chunk { bytes, records })
    }

    fn byte_at(&self, offset: u64) -> Result<u8, IoError> {
        let mut byte = [0];
        self.file.read_full_at(&mut byte, offset).at("read", &self.path)?;
        Ok(byte[0])
    }

    /// The offset behind the last byte at or after `from` that is not zero; `from` when there is none.
    pub(crate) fn end_of_content(&self, from: u64) -> Result<u64, IoError> {
        let mut buf = vec![0; usize::try_from(self.size.saturating_sub(from).min(CHUNK)).unwrap_or(0)];
        let (mut at, mut end) = (from, from);
        while at < self.size {
            let n = self.file.read_full_at(&mut buf, at).at("read", &self.path)?;
            if n == 0 {
                break;
            }
            for (i, block) in buf[..n].chunks(ZEROS.len()).enumerate() {
                // One comparison per block: padding is tens of megabytes.
                if *block != ZEROS[..block.len()] {
                    let last = block.iter().rposition(|&b| b != 0).unwrap_or(0);
                    end = at + (i * ZEROS.len() + last) as u64 + 1;
                }
            }
            at += n as u64;
        }
        Ok(end)
    }
}

/// The index of the log (of `logs`, ascending) that holds the record behind `base`: normally the newest one named at or below the
/// following zxid. One without records proves nothing; the search goes on to the older ones.
pub(crate) fn first_needed(fs: &dyn Fs, dir: &Path, logs: &[LogName], base: Zxid) -> Result<usize, IoError> {
    let next = base.next().unwrap_or(base);
    let candidates = logs.partition_point(|log| log.0 <= next);
    for i in (0..candidates).rev() {
        let mut log = LogReader::open(fs, &dir.join(logs[i].to_string()))?;
        let recordless = match log.head()? {
            Head::Good => log.next_chunk()?.is_err() && log.end_of_content(log.offset)? == log.offset,
            Head::Unborn => true,
            Head::Foreign => false,
        };
        if !recordless {
            return Ok(i);
        }
    }
    Ok(0)
}

static ZEROS: [u8; 4096] = [0; 4096];
