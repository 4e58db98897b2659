//! Jute primitives: big-endian integers, length-prefixed buffers and strings, counted vectors.

use std::borrow::Cow;

/// Why bytes could not be decoded as the expected record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The record needs more bytes than the input has.
    #[error("truncated: {needed} bytes needed at offset {offset}, {left} left")]
    Truncated {
        /// Offset in the input at which the read began.
        offset: usize,
        /// Bytes that the read needed.
        needed: usize,
        /// Bytes that were left.
        left: usize,
    },
    /// A length prefix below -1.
    #[error("negative length {length} at offset {offset}")]
    NegativeLength {
        /// Offset of the length prefix.
        offset: usize,
        /// The length found.
        length: i32,
    },
    /// A null (-1) string, buffer or vector where the operation needs a value.
    #[error("null {0}")]
    Null(&'static str),
    /// An enumeration or operation code without a meaning here.
    #[error("unexpected {what} {value}")]
    Unexpected {
        /// What was being decoded.
        what: &'static str,
        /// The value found.
        value: i64,
    },
}

/// A cursor over a received record. Every read checks its bounds; what it returns borrows from the input.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    buf: &'a [u8],
    pos: usize,
}

impl<'a> Reader<'a> {
    /// Starts reading at the first byte of `buf`.
    pub fn new(buf: &'a [u8]) -> Self {
        Reader { buf, pos: 0 }
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.pos
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.buf.len() - self.pos
    }

    /// Everything not read yet, without advancing.
    pub fn rest(&self) -> &'a [u8] {
        &self.buf[self.pos..]
    }

    /// Takes the next `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        match self.buf.get(self.pos..).and_then(|rest| rest.get(..n)) {
            Some(bytes) => {
                self.pos += n;
                Ok(bytes)
            }
            None => Err(DecodeError::Truncated { offset: self.pos, needed: n, left: self.remaining() }),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    /// `int`.
    pub fn i32(&mut self) -> Result<i32, DecodeError> {
        self.array().map(i32::from_be_bytes)
    }

    /// `long`.
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_be_bytes)
    }

    /// `boolean`: any byte but 0 is true, as Apache reads it.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        self.array::<1>().map(|[b]| b != 0)
    }

    /// `buffer`; -1 is null.
    pub fn buffer(&mut self) -> Result<Option<&'a [u8]>, DecodeError> {
        let offset = self.pos;
        match self.i32()? {
            -1 => Ok(None),
            n => match usize::try_from(n) {
                Ok(n) => self.take(n).map(Some),
                Err(_) => Err(DecodeError::NegativeLength { offset, length: n }),
            },
        }
    }

    /// `ustring`; -1 is null. Bytes that are no UTF-8 become U+FFFD, except that a surrogate pair written
    /// as two three-byte sequences (Java's writer does so) is one character.
    pub fn string(&mut self) -> Result<Option<Cow<'a, str>>, DecodeError> {
        Ok(self.buffer()?.map(decode_string))
    }

    /// `ustring` that must not be null; `what` names it in the error.
    pub fn required_string(&mut self, what: &'static str) -> Result<Cow<'a, str>, DecodeError> {
        self.string()?.ok_or(DecodeError::Null(what))
    }

    /// The count of a vector: `None` for null; negative counts other than -1 behave as empty, as Apache
    /// reads them. The count says nothing about the bytes that follow: use it to loop, never to allocate.
    pub fn vector_len(&mut self) -> Result<Option<u32>, DecodeError> {
        Ok(match self.i32()? {
            -1 => None,
            n => Some(u32::try_from(n).unwrap_or(0)),
        })
    }

    /// A vector whose items `item` reads; null stays distinguishable.
    pub fn vector<T>(
        &mut self,
        item: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        self.vector_of(4, item)
    }

    /// [`Reader::vector`] for items of which each takes at least `item_bytes_min` bytes, so that no more room
    /// is made than the bytes at hand can fill, whatever the count says.
    pub(crate) fn vector_of<T>(
        &mut self,
        item_bytes_min: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        let Some(len) = self.vector_len()? else { return Ok(None) };
        let mut items = Vec::with_capacity((len as usize).min(self.remaining() / item_bytes_min));
        for _ in 0..len {
            items.push(item(self)?);
        }
        Ok(Some(items))
    }
}

/// Decodes the bytes of a jute string; see [`Reader::string`].
pub fn decode_string(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(s) => Cow::Borrowed(s),
        Err(_) => Cow::Owned(decode_lossy(bytes)),
    }
}

fn decode_lossy(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while !rest.is_empty() {
        if let [0xed, a @ 0xa0..=0xaf, b @ 0x80..=0xbf, 0xed, c @ 0xb0..=0xbf, d @ 0x80..=0xbf, tail @ ..] =
            rest
        {
            let high = (u32::from(a & 0x0f) << 6) | u32::from(b & 0x3f);
            let low = (u32::from(c & 0x0f) << 6) | u32::from(d & 0x3f);
            out.push(char::from_u32(0x10000 + (high << 10) + low).unwrap_or(char::REPLACEMENT_CHARACTER));
            rest = tail;
            continue;
        }
        match std::str::from_utf8(rest) {
            Ok(s) => {
                out.push_str(s);
                break;
            }
            Err(e) => {
                let good = e.valid_up_to();
                if good > 0 {
                    out.push_str(&String::from_utf8_lossy(&rest[..good]));
                    rest = &rest[good..];
                } else {
                    out.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[e.error_len().unwrap_or(rest.len())..];
                }
            }
        }
    }
    out
}

/// Appends jute values to a buffer.
pub trait Writer {
    /// `int`.
    fn put_int(&mut self, v: i32);
    /// `long`.
    fn put_long(&mut self, v: i64);
    /// `boolean`.
    fn put_bool(&mut self, v: bool);
    /// `buffer`; `None` is null. Panics when longer than 2 GiB, which no caller can hold as a frame.
    fn put_buffer(&mut self, v: Option<&[u8]>);
    /// `ustring` as Apache's servers write it, in replies and on disk: characters beyond the BMP become two
    /// three-byte surrogates.
    fn put_str(&mut self, v: &str);
    /// [`Writer::put_str`]; `None` is null.
    fn put_opt_str(&mut self, v: Option<&str>);
    /// `ustring` in plain UTF-8. Requests use it: Apache's servers decode that, but not what they write.
    fn put_utf8(&mut self, v: &str);
    /// [`Writer::put_utf8`]; `None` is null.
    fn put_opt_utf8(&mut self, v: Option<&str>);
    /// The count in front of a vector's items.
    fn put_len(&mut self, n: usize);
}

impl Writer for Vec<u8> {
    fn put_int(&mut self, v: i32) {
        self.extend_from_slice(&v.to_be_bytes());
    }

    fn put_long(&mut self, v: i64) {
        self.extend_from_slice(&v.to_be_bytes());
    }

    fn put_bool(&mut self, v: bool) {
        self.push(u8::from(v));
    }

    fn put_buffer(&mut self, v: Option<&[u8]>) {
        match v {
            None => self.put_int(-1),
            Some(bytes) => {
                self.put_len(bytes.len());
                self.extend_from_slice(bytes);
            }
        }
    }

    fn put_str(&mut self, v: &str) {
        if v.bytes().all(|b| b < 0xf0) {
            self.put_buffer(Some(v.as_bytes()));
            return;
        }
        let at = self.len();
        self.put_int(0);
        for c in v.chars() {
            let mut units = [0u16; 2];
            for &mut unit in c.encode_utf16(&mut units) {
                match unit {
                    0..0x80 => self.push(unit as u8),
                    0x80..0x800 => self.extend([0xc0 | (unit >> 6) as u8, 0x80 | (unit & 0x3f) as u8]),
                    _ => self.extend([
                        0xe0 | (unit >> 12) as u8,
                        0x80 | ((unit >> 6) & 0x3f) as u8,
                        0x80 | (unit & 0x3f) as u8,
                    ]),
                }
            }
        }
        let len = self.len() - at - 4;
        self[at..at + 4].copy_from_slice(&length_prefix(len));
    }

    fn put_opt_str(&mut self, v: Option<&str>) {
        match v {
            None => self.put_int(-1),
            Some(s) => self.put_str(s),
        }
    }

    fn put_utf8(&mut self, v: &str) {
        self.put_buffer(Some(v.as_bytes()));
    }

    fn put_opt_utf8(&mut self, v: Option<&str>) {
        self.put_buffer(v.map(str::as_bytes));
    }

    fn put_len(&mut self, n: usize) {
        self.extend_from_slice(&length_prefix(n));
    }
}

fn length_prefix(n: usize) -> [u8; 4] {
    i32::try_from(n).expect("a jute length fits an int").to_be_bytes()
}

/// Appends one frame (4-byte length, then what `body` writes) to `out`.
pub fn frame(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.put_int(0);
    body(out);
    let len = out.len() - at - 4;
    out[at..at + 4].copy_from_slice(&length_prefix(len));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primitives_round_trip() {
        let mut out = Vec::new();
        out.put_int(-2);
        out.put_long(i64::MIN);
        out.put_bool(true);
        out.put_buffer(None);
        out.put_buffer(Some(b""));
        out.put_str("é");
        let mut r = Reader::new(&out);
        assert_eq!(r.i32(), Ok(-2));
        assert_eq!(r.i64(), Ok(i64::MIN));
        assert_eq!(r.bool(), Ok(true));
        assert_eq!(r.buffer(), Ok(None));
        assert_eq!(r.buffer(), Ok(Some(&b""[..])));
        assert_eq!(r.string().unwrap().as_deref(), Some("é"));
        assert_eq!(r.remaining(), 0);
    }

    #[test]
    fn a_length_beyond_the_input_is_an_error_not_an_allocation() {
        let mut out = Vec::new();
        out.put_int(i32::MAX);
        assert_eq!(
            Reader::new(&out).buffer(),
            Err(DecodeError::Truncated { offset: 4, needed: 0x7fff_ffff, left: 0 })
        );
        assert!(Reader::new(&out).vector(|r| r.i32()).is_err());
        let mut out = Vec::new();
        out.put_int(-7);
        assert!(matches!(Reader::new(&out).buffer(), Err(DecodeError::NegativeLength { length: -7, .. })));
        assert_eq!(Reader::new(&out).vector(|r| r.i32()), Ok(Some(vec![])));
    }

    #[test]
    fn supplementary_characters_travel_as_surrogates() {
        let mut out = Vec::new();
        out.put_str("a😀");
        assert_eq!(out, [0, 0, 0, 7, b'a', 0xed, 0xa0, 0xbd, 0xed, 0xb8, 0x80]);
        assert_eq!(decode_string(&out[4..]), "a😀");
        assert_eq!(decode_string("😀".as_bytes()), "😀");
        assert_eq!(
            decode_string(&[b'a', 0xff, b'b', 0xed, 0xa0, 0xbd]),
            "a\u{fffd}b\u{fffd}\u{fffd}\u{fffd}"
        );
    }
}
