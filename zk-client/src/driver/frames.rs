//! Cuts the received bytes into frames.

use bytes::{Buf, Bytes, BytesMut};

/// Bytes to make room for when nothing is known about what comes.
const READ_BYTES: usize = 16 * 1024;

/// A frame length that no honest server sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("frame of {length} bytes, limit {max}")]
pub(crate) struct BadLength {
    length: i64,
    max: usize,
}

/// A receive buffer. Frames that leave it share its memory; nothing is copied.
#[derive(Debug)]
pub(crate) struct Frames {
    buffer: BytesMut,
    max: usize,
}

impl Frames {
    /// A buffer for frames of up to `max` bytes.
    pub(crate) fn new(max: usize) -> Self {
        Frames { buffer: BytesMut::new(), max }
    }

    /// Frames of up to `max` bytes from now on.
    pub(crate) fn set_max(&mut self, max: usize) {
        self.max = max;
    }

    /// Where to read into. Room is made for as much again as was received, so a length that a peer claims
    /// costs no memory before its bytes are there.
    pub(crate) fn space(&mut self) -> &mut BytesMut {
        if self.buffer.capacity() - self.buffer.len() < READ_BYTES / 4 {
            self.buffer.reserve(self.buffer.len().clamp(READ_BYTES, 4 * 1024 * 1024));
        }
        &mut self.buffer
    }

    /// The next whole frame, without its length.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, BadLength> {
        let Some(prefix) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let length = i32::from_be_bytes(*prefix);
        let bad = BadLength { length: length.into(), max: self.max };
        let length = usize::try_from(length).ok().filter(|&length| length <= self.max).ok_or(bad)?;
        if self.buffer.len() < 4 + length {
            return Ok(None);
        }
        self.buffer.advance(4);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_in_any_pieces() {
        let bytes = [0, 0, 0, 2, 7, 8, 0, 0, 0, 0, 0, 0, 0, 1, 9];
        for piece in 1..bytes.len() {
            let mut frames = Frames::new(10);
            let mut seen = Vec::new();
            for part in bytes.chunks(piece) {
                frames.space().extend_from_slice(part);
                while let Some(frame) = frames.next().unwrap() {
                    seen.push(frame.to_vec());
                }
            }
            assert_eq!(seen, [vec![7, 8], vec![], vec![9]]);
        }
    }

    #[test]
    fn hostile_lengths_cost_nothing() {
        for length in [-1, i32::MIN, i32::MAX, 11] {
            let mut frames = Frames::new(10);
            frames.space().extend_from_slice(&length.to_be_bytes());
            assert!(frames.next().is_err(), "{length}");
        }
        let mut frames = Frames::new(1 << 30);
        frames.space().extend_from_slice(&(1i32 << 30).to_be_bytes());
        assert_eq!(frames.next(), Ok(None));
        assert!(frames.space().capacity() <= READ_BYTES);
    }
}
