//! The end of a file as whole blocks. Records begin and end anywhere, direct writes do not: so each write begins
//! with the block that the last one ended in, and ends with zeros up to the next block.
//!
//! Rewriting a block puts the same bytes over those that are durable: a write that is torn leaves them as they
//! were.

use std::io::{self, IoSlice};

use super::fs::{BLOCK, DiskFile};

/// Bytes written at once.
const PIECE_MAX: usize = 1 << 20;
/// Buffer of a file that gets little at a time.
const PIECE_MIN: usize = 64 << 10;

const _: () = assert!(PIECE_MAX.is_multiple_of(BLOCK) && PIECE_MIN.is_multiple_of(BLOCK));

/// `len` bytes in whole blocks.
pub(crate) fn round_up(len: u64) -> u64 {
    len.next_multiple_of(BLOCK as u64)
}

/// Appends to one file.
#[derive(Debug)]
pub(crate) struct BlockWriter {
    piece: Piece,
    /// Bytes of the piece that hold something.
    len: usize,
    /// Where the piece stands in the file; a multiple of [`BLOCK`].
    offset: u64,
}

impl BlockWriter {
    /// For a file that holds `head`, less than a block, and zeros.
    pub(crate) fn behind(head: &[u8]) -> Self {
        debug_assert!(head.len() < BLOCK);
        let mut writer = BlockWriter { piece: Piece::new(PIECE_MIN), len: head.len(), offset: 0 };
        writer.piece.bytes_mut()[..head.len()].copy_from_slice(head);
        writer
    }

    /// Offset behind the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.len as u64
    }

    /// Writes `parts` one behind the other, and zeros up to the next block.
    pub(crate) fn append(&mut self, file: &dyn DiskFile, parts: &[impl AsRef<[u8]>]) -> io::Result<()> {
        self.make_room_for(parts.iter().map(|part| part.as_ref().len()).sum());
        for part in parts {
            let mut rest = part.as_ref();
            while !rest.is_empty() {
                let room = &mut self.piece.bytes_mut()[self.len..];
                let (now, later) = rest.split_at(rest.len().min(room.len()));
                room[..now.len()].copy_from_slice(now);
                self.len += now.len();
                rest = later;
                if self.len == self.piece.len {
                    self.flush(file)?;
                }
            }
        }
        if self.len > 0 { self.flush(file) } else { Ok(()) }
    }

    fn make_room_for(&mut self, bytes: usize) {
        let wanted = self.len.saturating_add(bytes).min(PIECE_MAX);
        if wanted > self.piece.len {
            let mut piece = Piece::new(wanted.next_power_of_two().min(PIECE_MAX));
            piece.bytes_mut()[..self.len].copy_from_slice(&self.piece.bytes()[..self.len]);
            self.piece = piece;
        }
    }

    /// Writes the piece; keeps the block that is not full.
    fn flush(&mut self, file: &dyn DiskFile) -> io::Result<()> {
        let whole = self.len.next_multiple_of(BLOCK);
        let bytes = self.piece.bytes_mut();
        bytes[self.len..whole].fill(0);
        file.write_at(&[IoSlice::new(&bytes[..whole])], self.offset)?;
        let full = self.len - self.len % BLOCK;
        bytes.copy_within(full..self.len, 0);
        self.len -= full;
        self.offset += full as u64;
        Ok(())
    }
}

/// Memory that begins at a multiple of [`BLOCK`].
#[derive(Debug)]
struct Piece {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Piece {
    fn new(len: usize) -> Self {
        let memory = vec![0; len + BLOCK];
        // Never more than that; and if it were, the writes would not be direct, that is all.
        let start = memory.as_ptr().align_offset(BLOCK).min(BLOCK);
        Piece { memory, start, len }
    }

    fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Fs, RealFs};
    use super::*;

    #[test]
    fn what_is_appended_stands_there_whatever_its_size() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let file = RealFs.create_in_blocks(&path).unwrap();
        let mut writer = BlockWriter::behind(b"head of the file");
        let mut expected = b"head of the file".to_vec();
        let mut rng = fastrand::Rng::with_seed(1);
        let sizes = [1, 4095 - 16, 1, 4096, 0, 5000, 65_536, 100_000, PIECE_MAX, 3 * PIECE_MAX + 1, 7];
        for size in sizes {
            let mut records = vec![0; size];
            rng.fill(&mut records);
            let (first, second) = records.split_at(size / 3);
            expected.extend_from_slice(&records);
            writer.append(&*file, &[first, second]).unwrap();
            assert_eq!(writer.end(), expected.len() as u64);
            let found = std::fs::read(&path).unwrap();
            assert!(found.starts_with(&expected), "after {size} bytes");
            assert_eq!(found.len() as u64, round_up(expected.len() as u64));
            assert!(found[expected.len()..].iter().all(|&b| b == 0));
        }
    }
}
