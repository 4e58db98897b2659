//! Writing a snapshot beside a running log: under a temporary name, at a bounded rate, verified before it
//! gets its name.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use simd_adler32::Adler32;
use zk_proto::jute::Writer;
use zk_proto::{Acl, Zxid};

use super::super::blocks::BlockWriter;
use super::super::fs::{At, DiskFile, Fs};
use super::super::{Compression, NodeStat, SnapshotName};
use super::compress::Compressor;
use super::layout;
use super::pace::Pace;
use super::{DBID, DIGEST_VERSION, MAGIC, SnapshotError, VERSION, verify_paced, verify_snapshot};

/// Encoded bytes gathered before they are summed, compressed and written.
const BUFFER: usize = 256 << 10;

/// How a snapshot is written.
#[derive(Debug, Clone)]
pub struct SnapshotOptions {
    /// `snapshot.compression.method`.
    pub compression: Compression,
    /// Whether the file ends with the last zxid that it contains (`serializeLastProcessedZxid.enabled`); releases
    /// before 3.9 do not know that section, and do not mind it.
    pub last_zxid: bool,
    /// Bytes per second that go to the disk; `None` when nobody waits for the disk, as at start and stop.
    pub bytes_per_second: Option<u64>,
}

impl Default for SnapshotOptions {
    fn default() -> Self {
        SnapshotOptions { compression: Compression::None, last_zxid: true, bytes_per_second: Some(64 << 20) }
    }
}

/// A snapshot being written. Dropped before [`SnapshotWriter::finish`], it leaves nothing behind.
///
/// An error concerns this snapshot only, no acknowledged write: drop the writer and try again later.
pub struct SnapshotWriter {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    name: SnapshotName,
    temporary: PathBuf,
    /// Whether it gets its name when it is complete.
    named: bool,
    /// `None` only while finishing.
    output: Option<Compressor<PacedFile>>,
    buffer: Vec<u8>,
    adler: Adler32,
    with_last_zxid: bool,
    nodes: u64,
    /// Bytes before compression.
    bytes: u64,
    finished: bool,
}

impl SnapshotWriter {
    /// Begins `snapshot.<zxid>` in `dir` (a `version-2` directory) with sessions (id, timeout in ms) and ACL
    /// table. `zxid` is the last transaction whose effects are all in.
    ///
    /// `None` when an intact snapshot of this zxid exists: it is never overwritten.
    pub fn create<'a>(
        fs: Arc<dyn Fs>,
        dir: impl Into<PathBuf>,
        zxid: Zxid,
        options: &SnapshotOptions,
        sessions: impl ExactSizeIterator<Item = (i64, i32)>,
        acls: impl ExactSizeIterator<Item = (i64, &'a [Acl<'a>])>,
    ) -> Result<Option<Self>, SnapshotError> {
        let dir = dir.into();
        if exists_intact(&*fs, &dir, zxid)? {
            return Ok(None);
        }
        let name = SnapshotName { zxid, compression: options.compression };
        let temporary = dir.join(format!(".tmp-{name}"));
        let mut writer = Self::start(fs, dir, name, temporary, true, options)?;
        writer.head(sessions, acls)?;
        Ok(Some(writer))
    }

    /// Begins a snapshot of the tree at `zxid` as `path`, as fast as the disk takes it and not compressed.
    /// Complete and durable, it is still there, and no server reads it before it is renamed.
    pub(in super::super) fn create_unnamed<'a>(
        fs: Arc<dyn Fs>,
        path: PathBuf,
        zxid: Zxid,
        sessions: impl ExactSizeIterator<Item = (i64, i32)>,
        acls: impl ExactSizeIterator<Item = (i64, &'a [Acl<'a>])>,
    ) -> Result<Self, SnapshotError> {
        let options = SnapshotOptions { bytes_per_second: None, ..SnapshotOptions::default() };
        let name = SnapshotName { zxid, compression: options.compression };
        let dir = path.parent().unwrap_or(Path::new(".")).to_owned();
        let mut writer = Self::start(fs, dir, name, path, false, &options)?;
        writer.head(sessions, acls)?;
        Ok(writer)
    }

    fn start(
        fs: Arc<dyn Fs>,
        dir: PathBuf,
        name: SnapshotName,
        temporary: PathBuf,
        named: bool,
        options: &SnapshotOptions,
    ) -> Result<Self, SnapshotError> {
        let file = fs.create_in_blocks(&temporary).at("create", &temporary)?;
        let file = PacedFile::new(file, options.bytes_per_second);
        Ok(SnapshotWriter {
            fs,
            dir,
            name,
            output: Some(Compressor::new(options.compression, file).at("write", &temporary)?),
            temporary,
            named,
            buffer: Vec::with_capacity(BUFFER + (64 << 10)),
            adler: Adler32::new(),
            with_last_zxid: options.last_zxid,
            nodes: 0,
            bytes: 0,
            finished: false,
        })
    }

    fn head<'a>(
        &mut self,
        sessions: impl ExactSizeIterator<Item = (i64, i32)>,
        acls: impl ExactSizeIterator<Item = (i64, &'a [Acl<'a>])>,
    ) -> Result<(), SnapshotError> {
        self.buffer.extend_from_slice(&MAGIC);
        self.buffer.put_int(VERSION);
        self.buffer.put_long(DBID);
        self.buffer.put_len(sessions.len());
        for (id, timeout_ms) in sessions {
            layout::put_session(&mut self.buffer, id, timeout_ms);
            self.flush_if_full()?;
        }
        self.buffer.put_len(acls.len());
        for (id, acl) in acls {
            layout::put_acl(&mut self.buffer, id, acl);
            self.flush_if_full()?;
        }
        Ok(())
    }

    /// Adds a node. The root comes first, with the empty path; parents come before their children.
    pub fn node(
        &mut self,
        path: &str,
        data: Option<&[u8]>,
        acl_id: i64,
        stat: &NodeStat,
    ) -> Result<(), SnapshotError> {
        layout::put_node(&mut self.buffer, path, data, acl_id, stat);
        self.nodes += 1;
        self.flush_if_full()
    }

    /// Completes the file: digest and last zxid, sync, reading back, and only then the name.
    ///
    /// `last_zxid` is the snapshot's own zxid when the tree stood still at it, and the last transaction
    /// applied while writing when it did not; `digest` is the tree's digest (version 2) after it, `None` when
    /// digests are switched off.
    pub fn finish(mut self, last_zxid: Zxid, digest: Option<i64>) -> Result<SnapshotName, SnapshotError> {
        layout::put_end(&mut self.buffer);
        self.seal()?;
        // Without digest the section stays, so that Apache with default settings opens the file; zxid 0 tells
        // it that there is none.
        let digest_zxid = if digest.is_some() { last_zxid } else { Zxid::ZERO };
        self.buffer.put_long(digest_zxid.0);
        self.buffer.put_int(DIGEST_VERSION);
        self.buffer.put_long(digest.unwrap_or(0));
        self.seal()?;
        if self.with_last_zxid {
            self.buffer.put_long(last_zxid.0);
            self.seal()?;
        }
        self.flush()?;
        let output = self.output.take().expect("present until here");
        let output = output.finish().at("write", &self.temporary)?;
        output.file.set_len(output.writer.end()).at("cut", &self.temporary)?;
        output.file.sync().at("sync", &self.temporary)?;
        self.verify(output.bytes_per_second)?;
        if self.named {
            let path = self.dir.join(self.name.to_string());
            self.fs.rename(&self.temporary, &path).at("rename to", &path)?;
        }
        self.finished = true;
        self.fs.sync_dir(&self.dir).at("sync", &self.dir)?;
        Ok(self.name)
    }

    /// Reads the file back: seals, structure, and as many nodes and bytes as were written.
    fn verify(&self, bytes_per_second: Option<u64>) -> Result<(), SnapshotError> {
        let pace = Pace::new(bytes_per_second);
        let found = verify_paced(&*self.fs, &self.temporary, self.name.compression, pace)?;
        if (found.nodes, found.bytes) != (self.nodes, self.bytes) {
            return Err(SnapshotError::Damaged {
                path: self.temporary.clone(),
                offset: found.bytes,
                reason: format!(
                    "written were {} nodes in {} bytes, read back {found:?}",
                    self.nodes, self.bytes
                ),
            });
        }
        Ok(())
    }

    fn seal(&mut self) -> Result<(), SnapshotError> {
        self.flush()?;
        self.buffer.put_long(i64::from(self.adler.finish()));
        layout::put_end(&mut self.buffer);
        Ok(())
    }

    fn flush_if_full(&mut self) -> Result<(), SnapshotError> {
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), SnapshotError> {
        self.adler.write(&self.buffer);
        self.bytes += self.buffer.len() as u64;
        let output = self.output.as_mut().expect("present until finish");
        output.write_all(&self.buffer).at("write", &self.temporary)?;
        self.buffer.clear();
        Ok(())
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        if !self.finished {
            // If that fails too, the next start removes it.
            let _ = self.fs.remove(&self.temporary);
        }
    }
}

impl fmt::Debug for SnapshotWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotWriter")
            .field("name", &self.name)
            .field("nodes", &self.nodes)
            .finish_non_exhaustive()
    }
}

/// Whether a complete snapshot of `zxid` is there, under any compression; it is synced then.
fn exists_intact(fs: &dyn Fs, dir: &Path, zxid: Zxid) -> Result<bool, SnapshotError> {
    for file in fs.list(dir).at("list", dir)? {
        let Some(name) = SnapshotName::parse(&file.name) else { continue };
        let path = dir.join(&file.name);
        if name.zxid == zxid && verify_snapshot(fs, &path, name.compression).is_ok() {
            fs.open(&path).and_then(|file| file.sync()).at("sync", &path)?;
            fs.sync_dir(dir).at("sync", dir)?;
            return Ok(true);
        }
    }
    Ok(false)
}

#[derive(Debug)]
struct PacedFile {
    file: Box<dyn DiskFile>,
    /// What is written goes to the disk at once: the log's syncs never queue behind a heap of dirty pages.
    writer: BlockWriter,
    bytes_per_second: Option<u64>,
    pace: Pace,
}

impl PacedFile {
    fn new(file: Box<dyn DiskFile>, bytes_per_second: Option<u64>) -> Self {
        let (writer, pace) = (BlockWriter::behind(&[]), Pace::new(bytes_per_second));
        PacedFile { file, writer, bytes_per_second, pace }
    }
}

impl Write for PacedFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.writer.append(&*self.file, &[buf])?;
        self.pace.wait(self.writer.end());
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
