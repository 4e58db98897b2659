//! Compressed streams: gzip, and the snappy framing of snappy-java ("xerial").

use std::io::{self, BufRead, Read, Write};

use flate2::write::GzEncoder;

use super::super::Compression;

/// In front of the blocks: magic, format version 1, oldest compatible version 1.
const SNAPPY_HEADER: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
/// What snappy-java puts into one block by default, before compression.
const SNAPPY_BLOCK: usize = 32 << 10;
/// No block is taken beyond this, compressed; snappy-java's largest is far below.
const SNAPPY_BLOCK_MAX: usize = 64 << 20;
/// Snappy cannot expand more than this: a copy of 64 bytes takes three.
const SNAPPY_RATIO_MAX: usize = 32;

/// The plain stream behind `input`.
pub(super) fn decompress<'a>(compression: Compression, input: impl BufRead + 'a) -> Box<dyn Read + 'a> {
    match compression {
        Compression::None => Box::new(input),
        Compression::Gz => Box::new(flate2::bufread::GzDecoder::new(input)),
        Compression::Snappy => Box::new(SnappyReader::new(input)),
    }
}

struct SnappyReader<R> {
    input: R,
    started: bool,
    compressed: Vec<u8>,
    block: Vec<u8>,
    pos: usize,
}

impl<R: BufRead> SnappyReader<R> {
    fn new(input: R) -> Self {
        SnappyReader { input, started: false, compressed: Vec::new(), block: Vec::new(), pos: 0 }
    }

    fn read_header(&mut self) -> io::Result<()> {
        let mut header = [0; SNAPPY_HEADER.len()];
        self.input.read_exact(&mut header)?;
        // The versions behind the magic are not looked at, as in snappy-java.
        if header[..8] != SNAPPY_HEADER[..8] {
            return Err(invalid("no snappy stream"));
        }
        Ok(())
    }

    /// Reads the next block; false at the end of the stream.
    fn next_block(&mut self) -> io::Result<bool> {
        if self.input.fill_buf()?.is_empty() {
            return Ok(false);
        }
        let mut len = [0; 4];
        self.input.read_exact(&mut len)?;
        let len = usize::try_from(i32::from_be_bytes(len)).unwrap_or(usize::MAX);
        if len > SNAPPY_BLOCK_MAX {
            return Err(invalid("implausible length of a snappy block"));
        }
        // Grows with what is really there, not with what the length claims.
        self.compressed.clear();
        if self.input.by_ref().take(len as u64).read_to_end(&mut self.compressed)? < len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let plain = snap::raw::decompress_len(&self.compressed).map_err(io::Error::from)?;
        if plain > len * SNAPPY_RATIO_MAX {
            return Err(invalid("implausible size of a snappy block"));
        }
        self.block.resize(plain, 0);
        snap::raw::Decoder::new().decompress(&self.compressed, &mut self.block).map_err(io::Error::from)?;
        self.pos = 0;
        Ok(true)
    }
}

impl<R: BufRead> Read for SnappyReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if !self.started {
            self.read_header()?;
            self.started = true;
        }
        while self.pos == self.block.len() {
            if !self.next_block()? {
                return Ok(0);
            }
        }
        let n = buf.len().min(self.block.len() - self.pos);
        buf[..n].copy_from_slice(&self.block[self.pos..self.pos + n]);
        self.pos += n;
        Ok(n)
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Compresses what is written to it into `W`.
#[derive(Debug)]
pub(super) enum Compressor<W: Write> {
    None(W),
    Gz(GzEncoder<W>),
    Snappy { out: W, block: Vec<u8> },
}

impl<W: Write> Compressor<W> {
    pub(super) fn new(compression: Compression, mut out: W) -> io::Result<Self> {
        Ok(match compression {
            Compression::None => Compressor::None(out),
            Compression::Gz => Compressor::Gz(GzEncoder::new(out, flate2::Compression::default())),
            Compression::Snappy => {
                out.write_all(&SNAPPY_HEADER)?;
                Compressor::Snappy { out, block: Vec::with_capacity(SNAPPY_BLOCK) }
            }
        })
    }

    pub(super) fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        match self {
            Compressor::None(out) => out.write_all(bytes),
            Compressor::Gz(out) => out.write_all(bytes),
            Compressor::Snappy { out, block } => {
                while !bytes.is_empty() {
                    let (head, rest) = bytes.split_at(bytes.len().min(SNAPPY_BLOCK - block.len()));
                    block.extend_from_slice(head);
                    bytes = rest;
                    if block.len() == SNAPPY_BLOCK {
                        write_block(out, block)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Ends the stream and returns what it was written to.
    pub(super) fn finish(self) -> io::Result<W> {
        match self {
            Compressor::None(out) => Ok(out),
            Compressor::Gz(out) => out.finish(),
            Compressor::Snappy { mut out, mut block } => {
                if !block.is_empty() {
                    write_block(&mut out, &mut block)?;
                }
                Ok(out)
            }
        }
    }
}

fn write_block(out: &mut impl Write, block: &mut Vec<u8>) -> io::Result<()> {
    let compressed = snap::raw::Encoder::new().compress_vec(block).map_err(io::Error::from)?;
    let len = i32::try_from(compressed.len()).expect("a block is small");
    out.write_all(&len.to_be_bytes())?;
    out.write_all(&compressed)?;
    block.clear();
    Ok(())
}
