//! Reading a snapshot in one pass: one growing window over the stream, no copy and no allocation per node.

use std::io::{self, BufReader, Read};
use std::path::Path;

use simd_adler32::Adler32;
use zk_proto::jute::decode_string;
use zk_proto::{Acl, Perms, Zxid};

use super::super::fs::{At, DiskFile, Fs};
use super::super::{Compression, NodeStat, SnapshotDigest, SnapshotSink};
use super::layout::END_PATH;
use super::pace::Pace;
use super::{DIGEST_VERSION, LAST_ZXID_LEN, MAGIC, SEAL_LEN, SnapshotError, SnapshotInfo};

/// Bytes asked of the file at once.
const WINDOW: usize = 1 << 20;
/// No path, ACL id or node data is longer, whatever `jute.maxbuffer` was when it was written.
const VALUE_MAX: usize = 1 << 30;
/// What follows the nodes is a few dozen bytes; anything above this is no snapshot.
const TAIL_MAX: usize = 4 << 10;
/// The smallest snapshot: header, no sessions, no ACLs, no nodes, seal.
const LEN_MIN: u64 = 16 + 4 + 4 + 5 + SEAL_LEN as u64;

/// Reads a snapshot into `sink` and checks every seal.
///
/// `stream_bytes_max` bounds the size before compression, a guard against decompression bombs; by default
/// 1 GiB + 256 times the size of the file. Memory in use beside the sink: a window of 1 MiB, or the largest
/// node's size when that is more.
///
/// On an error the sink holds an unusable part and must be dropped.
pub fn read_snapshot(
    fs: &dyn Fs,
    path: &Path,
    compression: Compression,
    stream_bytes_max: Option<u64>,
    sink: &mut impl SnapshotSink,
) -> Result<SnapshotInfo, SnapshotError> {
    read_paced(fs, path, compression, stream_bytes_max, Pace::new(None), sink)
}

/// As [`read_snapshot`], at a bounded rate.
pub(super) fn read_paced(
    fs: &dyn Fs,
    path: &Path,
    compression: Compression,
    stream_bytes_max: Option<u64>,
    pace: Pace,
    sink: &mut impl SnapshotSink,
) -> Result<SnapshotInfo, SnapshotError> {
    let file = fs.open(path).at("open", path)?;
    let size = file.size().at("read", path)?;
    if compression == Compression::None {
        check_ends(&*file, size, path)?;
    }
    let limit = stream_bytes_max.unwrap_or_else(|| size.saturating_mul(256).saturating_add(1 << 30));
    let input = FileInput { file, offset: 0, pace };
    let source = match compression {
        // The window is the buffer.
        Compression::None => Box::new(input) as Box<dyn Read>,
        _ => super::compress::decompress(compression, BufReader::with_capacity(128 << 10, input)),
    };
    let window = usize::try_from(size).unwrap_or(WINDOW).clamp(4 << 10, WINDOW);
    let mut stream = Stream {
        path,
        source,
        limit,
        window: vec![0; window],
        pos: 0,
        end: 0,
        offset: 0,
        summed: 0,
        adler: Adler32::new(),
    };
    stream.snapshot(size, sink)
}

/// A torn or cut file shows at its end; so it need not be loaded to be found out.
fn check_ends(file: &dyn DiskFile, size: u64, path: &Path) -> Result<(), SnapshotError> {
    let damaged = |offset, reason: &str| SnapshotError::Damaged {
        path: path.to_owned(),
        offset,
        reason: reason.to_owned(),
    };
    if size < LEN_MIN {
        return Err(damaged(size, "shorter than the smallest snapshot"));
    }
    let mut end = [0; 5];
    file.read_full_at(&mut end, size - 5).at("read", path)?;
    if end != *b"\0\0\0\x01/" {
        return Err(damaged(size - 5, "no seal at the end"));
    }
    Ok(())
}

struct FileInput {
    file: Box<dyn DiskFile>,
    offset: u64,
    pace: Pace,
}

impl Read for FileInput {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buf, self.offset)?;
        self.offset += n as u64;
        self.pace.wait(self.offset);
        Ok(n)
    }
}

struct Stream<'a> {
    path: &'a Path,
    source: Box<dyn Read + 'a>,
    limit: u64,
    window: Vec<u8>,
    /// Next byte to parse, in the window.
    pos: usize,
    /// Behind the last byte read, in the window.
    end: usize,
    /// Offset of the window's start in the stream.
    offset: u64,
    /// Bytes of the window that the checksum covers; behind `pos` by what was parsed since.
    summed: usize,
    adler: Adler32,
}

impl Stream<'_> {
    fn snapshot(&mut self, size: u64, sink: &mut impl SnapshotSink) -> Result<SnapshotInfo, SnapshotError> {
        if self.array::<4>()? != MAGIC {
            return Err(self.damaged("no snapshot: wrong magic number"));
        }
        // Version and dbid are not looked at, as in Apache.
        self.array::<12>()?;
        sink.begin(size);
        let sessions = self.sessions(sink)?;
        self.acl_table(sink)?;
        let nodes = self.nodes(sink)?;
        self.seal()?;
        let (digest, last_zxid) = self.tail()?;
        Ok(SnapshotInfo { digest, last_zxid, nodes, sessions, bytes: self.position() })
    }

    fn sessions(&mut self, sink: &mut impl SnapshotSink) -> Result<u64, SnapshotError> {
        let count = self.count("sessions")?;
        for _ in 0..count {
            let (id, timeout_ms) = (self.i64()?, self.i32()?);
            sink.session(id, timeout_ms);
        }
        Ok(count.into())
    }

    fn acl_table(&mut self, sink: &mut impl SnapshotSink) -> Result<(), SnapshotError> {
        for _ in 0..self.count("ACL table entries")? {
            let id = self.i64()?;
            let mut acl = Vec::new();
            for _ in 0..self.count("ACL entries")? {
                let perms = Perms(self.i32()?);
                let (scheme, id) = (self.string()?, self.string()?);
                acl.push(Acl { perms, scheme: scheme.map(Into::into), id: id.map(Into::into) });
            }
            sink.acl(id, acl);
        }
        Ok(())
    }

    fn nodes(&mut self, sink: &mut impl SnapshotSink) -> Result<u64, SnapshotError> {
        let mut nodes = 0;
        loop {
            let Some(path_len) = self.peek_len(0)? else { return Err(self.damaged("a node without path")) };
            let path_end = 4 + path_len;
            if self.peek(path_end)?[4..] == *END_PATH {
                self.pos += path_end;
                return Ok(nodes);
            }
            let data_len = self.peek_len(path_end)?;
            let data_end = path_end + 4 + data_len.unwrap_or(0);
            let len = data_end + 8 + NodeStat::LEN;
            let node = self.peek(len)?;
            let path = decode_string(&node[4..path_end]);
            let data = data_len.map(|_| &node[path_end + 4..data_end]);
            let acl_id = i64::from_be_bytes(fixed(&node[data_end..data_end + 8]));
            let stat = NodeStat::decode(&fixed(&node[data_end + 8..]));
            if let Err(source) = sink.node(&path, data, acl_id, &stat) {
                let (path, offset) = (self.path.to_owned(), self.position());
                return Err(SnapshotError::Refused { path, offset, source });
            }
            self.pos += len;
            nodes += 1;
        }
    }

    /// The sections behind seal 1. Without tags, only their length tells which they are.
    fn tail(&mut self) -> Result<(Option<SnapshotDigest>, Option<Zxid>), SnapshotError> {
        let left = self.read_to_end()?;
        if left == 0 {
            return Ok((None, None));
        }
        let digest = if left == LAST_ZXID_LEN { None } else { self.digest()? };
        let last_zxid = match self.end - self.pos {
            0 => None,
            LAST_ZXID_LEN => {
                let zxid = Zxid(self.i64()?);
                self.seal()?;
                Some(zxid)
            }
            _ => return Err(self.damaged("unknown section at the end")),
        };
        Ok((digest, last_zxid))
    }

    fn digest(&mut self) -> Result<Option<SnapshotDigest>, SnapshotError> {
        let (zxid, version) = (Zxid(self.i64()?), self.i32()?);
        let digest = if version >= DIGEST_VERSION {
            self.i64()?
        } else {
            // Early builds of 3.6 wrote hex digits; their formula is another one too.
            self.string()?;
            0
        };
        self.seal()?;
        // Zxid 0: the writer had no digest, only the section.
        Ok((zxid > Zxid::ZERO).then_some(SnapshotDigest { zxid, version, digest }))
    }

    /// Compares the checksum of everything so far with the one that follows.
    fn seal(&mut self) -> Result<(), SnapshotError> {
        self.sum();
        let expected = i64::from(self.adler.finish());
        if self.i64()? != expected {
            return Err(self.damaged("checksum mismatch"));
        }
        if self.array::<5>()? != *b"\0\0\0\x01/" {
            return Err(self.damaged("the checksum is not followed by its end mark"));
        }
        Ok(())
    }

    fn count(&mut self, of: &str) -> Result<u32, SnapshotError> {
        u32::try_from(self.i32()?).map_err(|_| self.damaged(format!("negative number of {of}")))
    }

    fn string(&mut self) -> Result<Option<String>, SnapshotError> {
        let Some(len) = self.peek_len(0)? else {
            self.pos += 4;
            return Ok(None);
        };
        let string = decode_string(&self.peek(4 + len)?[4..]).into_owned();
        self.pos += 4 + len;
        Ok(Some(string))
    }

    fn i32(&mut self) -> Result<i32, SnapshotError> {
        self.array().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, SnapshotError> {
        self.array().map(i64::from_be_bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let array = fixed(self.peek(N)?);
        self.pos += N;
        Ok(array)
    }

    /// The length prefix that stands `at` bytes ahead; `None` for null.
    fn peek_len(&mut self, at: usize) -> Result<Option<usize>, SnapshotError> {
        match i32::from_be_bytes(fixed(&self.peek(at + 4)?[at..])) {
            -1 => Ok(None),
            len => match usize::try_from(len) {
                Ok(len) if len <= VALUE_MAX => Ok(Some(len)),
                _ => Err(self.damaged(format!("implausible length {len}"))),
            },
        }
    }

    /// The next `n` bytes, without consuming them.
    fn peek(&mut self, n: usize) -> Result<&[u8], SnapshotError> {
        if self.end - self.pos < n {
            self.fill(n)?;
        }
        Ok(&self.window[self.pos..self.pos + n])
    }

    #[cold]
    fn fill(&mut self, n: usize) -> Result<(), SnapshotError> {
        self.sum();
        self.window.copy_within(self.pos..self.end, 0);
        self.offset += self.pos as u64;
        self.end -= self.pos;
        (self.pos, self.summed) = (0, 0);
        while self.end < n {
            if self.end == self.window.len() {
                // Doubles with the bytes that arrived, whatever length was claimed.
                self.window.resize(self.window.len() * 2, 0);
            }
            if self.read_more()? == 0 {
                self.pos = self.end;
                return Err(self.damaged("the file ends here, inside the snapshot"));
            }
        }
        Ok(())
    }

    /// Brings the rest of the stream into the window and returns its length.
    fn read_to_end(&mut self) -> Result<usize, SnapshotError> {
        while self.end - self.pos <= TAIL_MAX {
            if self.end == self.window.len() {
                self.window.resize(self.window.len() + TAIL_MAX, 0);
            }
            if self.read_more()? == 0 {
                return Ok(self.end - self.pos);
            }
        }
        Err(self.damaged("the file does not end behind the last section"))
    }

    fn read_more(&mut self) -> Result<usize, SnapshotError> {
        use io::ErrorKind::{Interrupted, InvalidData, InvalidInput, Other, UnexpectedEof};
        let n = loop {
            match self.source.read(&mut self.window[self.end..]) {
                Ok(n) => break n,
                Err(e) if e.kind() == Interrupted => {}
                // What the decompressors say about bad input. Errors of the disk have other kinds.
                Err(e) if [InvalidData, InvalidInput, UnexpectedEof, Other].contains(&e.kind()) => {
                    return Err(self.damaged(format!("bad compressed data: {e}")));
                }
                Err(e) => return Err(Err::<(), _>(e).at("read", self.path).unwrap_err().into()),
            }
        };
        self.end += n;
        if self.offset + self.end as u64 > self.limit {
            return Err(SnapshotError::TooLarge { path: self.path.to_owned(), limit: self.limit });
        }
        Ok(n)
    }

    /// Brings the checksum up to the parse position.
    fn sum(&mut self) {
        self.adler.write(&self.window[self.summed..self.pos]);
        self.summed = self.pos;
    }

    fn position(&self) -> u64 {
        self.offset + self.pos as u64
    }

    fn damaged(&self, reason: impl Into<String>) -> SnapshotError {
        SnapshotError::Damaged { path: self.path.to_owned(), offset: self.position(), reason: reason.into() }
    }
}

fn fixed<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[..N]);
    array
}
