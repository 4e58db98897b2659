//! Torn tail or corruption?
//!
//! A crash may leave an unacknowledged write at the end of the log partly on the disk. What did not arrive
//! reads as zeros (files are zero-filled, or holes), either from some byte on or in whole sectors. That is
//! torn, and may be dropped. Everything else is damage to a record that was complete once, and dropping it
//! could lose an acknowledged transaction. Without a mark of the last sync (Apache's format has none) the
//! two are told apart by evidence:
//!
//! - an intact record anywhere behind the place speaks for damage;
//! - missing bytes (zeros up to the end of the record, or a sector of zeros in it) must be there;
//! - a record that is complete under another length has a damaged length.

use zk_proto::Zxid;

use super::super::fs::{At, IoError};
use super::super::log::read::{Found, LogReader, decode_prefix, look};
use super::super::record::{END_BYTE, FRAME_OVERHEAD, PREFIX, RecordHeader};

/// No single write is larger than this, ours or Apache's with anything like default limits.
pub(super) const WRITE_MAX: u64 = 16 << 20;

/// Disks write sectors whole.
const SECTOR: u64 = 512;

/// A record this far ahead in the same epoch is not taken for one by chance.
const ZXIDS_AHEAD_MAX: i64 = 1_000_000;

/// What follows the last valid record of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Nothing but zeros.
    Clean,
    /// An incomplete write; content ends at the offset.
    Torn { content_end: u64 },
    /// Damage, and why it is that.
    Damaged(String),
}

/// Judges what stands at `log.offset`, where no valid record begins; `last` is the zxid before it.
pub(crate) fn judge(log: &LogReader, last: Zxid) -> Result<Tail, IoError> {
    let start = log.offset;
    let content_end = log.end_of_content(start)?;
    if content_end == start {
        return Ok(Tail::Clean);
    }
    if content_end - start > WRITE_MAX {
        return Ok(Tail::Damaged(format!("more than {} MiB of data follow", WRITE_MAX >> 20)));
    }
    let mut content = vec![0; usize::try_from(content_end - start).unwrap_or(0)];
    let n = log.file.read_full_at(&mut content, start).at("read", &log.path)?;
    content.truncate(n);
    if let Some((offset, zxid)) = find_record(&content, last) {
        let offset = start + offset as u64;
        return Ok(Tail::Damaged(format!("an intact record with zxid {zxid} follows at byte {offset}")));
    }
    if complete_under_another_length(&content) {
        return Ok(Tail::Damaged("the record is intact except for its length".to_owned()));
    }
    if !has_missing_bytes(&content, start) {
        return Ok(Tail::Damaged("the record is complete, but its content has changed".to_owned()));
    }
    Ok(Tail::Torn { content_end })
}

/// An intact record that begins behind the start of `content`, with a zxid that can belong to this log.
fn find_record(content: &[u8], last: Zxid) -> Option<(usize, Zxid)> {
    (1..content.len()).find_map(|at| {
        let bytes = &content[at..];
        // Cheap tests first: the upper half of a checksum is zero, the end byte is there, the zxid fits.
        if !bytes.starts_with(&[0; 4]) || bytes.len() < FRAME_OVERHEAD + RecordHeader::LEN {
            return None;
        }
        let len = usize::try_from(decode_prefix(bytes).1).ok().filter(|&len| len >= RecordHeader::LEN)?;
        if bytes.get(PREFIX + len) != Some(&END_BYTE) {
            return None;
        }
        let zxid = RecordHeader::decode(&bytes[PREFIX..]).ok()?.zxid;
        let fits = zxid.epoch() > last.epoch()
            || zxid.epoch() == last.epoch() && zxid.0 <= last.0.saturating_add(ZXIDS_AHEAD_MAX);
        let intact = || matches!(look(bytes, bytes.len() as u64), Found::Record { .. });
        (zxid >= Zxid::ZERO && fits && intact()).then_some((at, zxid))
    })
}

/// Whether the checksum in front of `content` matches the bytes up to some end byte.
fn complete_under_another_length(content: &[u8]) -> bool {
    let (Some(prefix), Some(rest)) = (content.get(..PREFIX), content.get(PREFIX..)) else { return false };
    let (checksum, length) = decode_prefix(prefix);
    // One running Adler-32 instead of one per candidate.
    let (mut a, mut b) = (1u32, 0u32);
    rest.iter().enumerate().any(|(len, &byte)| {
        let matches = byte == END_BYTE
            && len > 0
            && i64::from(b << 16 | a) == checksum
            && usize::try_from(length) != Ok(len);
        a = (a + u32::from(byte)) % 65521;
        b = (b + a) % 65521;
        matches
    })
}

/// Whether bytes of the record at the start of `content` (at `start` in the file) never arrived.
fn has_missing_bytes(content: &[u8], start: u64) -> bool {
    let frame_len = match content.get(..PREFIX).map(decode_prefix) {
        // Cut inside checksum and length.
        None => return true,
        Some((_, 0)) => content.len(),
        Some((_, length)) => match usize::try_from(length) {
            Ok(len) if len + FRAME_OVERHEAD > content.len() => return true,
            Ok(len) => len + FRAME_OVERHEAD,
            // Missing bytes make no negative number of a positive one.
            Err(_) => return false,
        },
    };
    let frame = &content[..frame_len];
    let to_boundary = usize::try_from(SECTOR - start % SECTOR).unwrap_or(0).min(frame_len);
    let (first, others) = frame.split_at(to_boundary);
    // The upper half of the checksum is always zero, so a shorter first part proves nothing.
    let first_missing = first.len() >= 8 && first.iter().all(|&b| b == 0);
    first_missing || others.chunks(SECTOR as usize).any(|sector| sector.iter().all(|&b| b == 0))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::super::fs::{Fs, RealFs};
    use super::super::super::log::HEADER;
    use super::super::super::record;
    use super::*;

    const LAST: Zxid = Zxid(5);

    fn framed(zxid: i64, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let header = RecordHeader { client_id: -1, cxid: 2, zxid: Zxid(zxid), time_ms: 3, kind: 5 };
        record::frame(&mut out, |out| {
            header.encode(out);
            out.extend_from_slice(body);
        });
        out
    }

    /// Judges `tail` put at `offset` of a padded file.
    fn judge_at(offset: usize, tail: &[u8]) -> Tail {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.1");
        let mut bytes = HEADER.to_vec();
        bytes.resize(offset, 0xee);
        bytes.extend_from_slice(tail);
        bytes.resize(bytes.len() + 8192, 0);
        std::fs::write(&path, bytes).unwrap();
        judge_file(&RealFs, &path, offset)
    }

    fn judge_file(fs: &dyn Fs, path: &Path, offset: usize) -> Tail {
        let mut log = LogReader::open(fs, path).unwrap();
        log.offset = offset as u64;
        judge(&log, LAST).unwrap()
    }

    fn is_damaged(tail: Tail, reason: &str) {
        assert!(matches!(&tail, Tail::Damaged(r) if r.contains(reason)), "{tail:?}, expected {reason:?}");
    }

    #[test]
    fn zeros_are_the_end() {
        assert_eq!(judge_at(100, b""), Tail::Clean);
    }

    #[test]
    fn a_record_cut_at_any_byte_is_torn() {
        let record = framed(6, &[7; 1000]);
        for cut in 5..record.len() {
            // The end of content: zeros at the cut are no content.
            let content_end = 100 + record[..cut].iter().rposition(|&b| b != 0).unwrap() as u64 + 1;
            assert_eq!(judge_at(100, &record[..cut]), Tail::Torn { content_end }, "cut at {cut}");
        }
    }

    #[test]
    fn any_flipped_bit_in_a_complete_record_is_damage() {
        let record = framed(6, b"some data");
        for bit in 0..record.len() * 8 {
            let mut flipped = record.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(judge_at(100, &flipped), Tail::Damaged(_)), "bit {bit}");
        }
    }

    #[test]
    fn a_missing_sector_is_torn_but_a_smaller_hole_is_damage() {
        let record = framed(6, &[7; 3000]);
        // From 100 on, sector borders in the record are at 412, 924, ...
        for start in [0, 412, 924, 1436] {
            let mut holed = record.clone();
            holed[start..(start + 512).min(if start == 0 { 412 } else { record.len() })].fill(0);
            assert!(matches!(judge_at(100, &holed), Tail::Torn { .. }), "sector at {start}");
        }
        let mut holed = record;
        holed[1000..1400].fill(0);
        is_damaged(judge_at(100, &holed), "content has changed");
    }

    #[test]
    fn a_checksum_alone_in_a_missing_sector_is_torn() {
        let mut record = framed(6, b"some data");
        record[..8].fill(0);
        assert!(matches!(judge_at(1024 - 8, &record), Tail::Torn { .. }));
        is_damaged(judge_at(1024 - 100, &record), "content has changed");
    }

    #[test]
    fn an_intact_record_behind_the_place_is_damage() {
        let mut bytes = framed(6, b"lost");
        bytes[20] ^= 1;
        bytes.extend(framed(7, b"kept"));
        is_damaged(judge_at(100, &bytes), "zxid 0x7 follows at byte 149");
        // A record of an older epoch, or far ahead, is chance.
        for zxid in [LAST.0 + 1_000_001, -1] {
            let bytes = [&[1; 20][..], &framed(zxid, b"chance")].concat();
            assert!(!format!("{:?}", judge_at(100, &bytes)).contains("follows"), "{zxid}");
        }
    }

    #[test]
    fn data_far_behind_the_place_is_damage() {
        let mut bytes = vec![0; WRITE_MAX as usize + 1];
        *bytes.last_mut().unwrap() = 1;
        is_damaged(judge_at(100, &bytes), "more than 16 MiB");
    }
}
