//! Cutting the byte stream into frames.

/// What stands at the beginning of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    /// A complete frame: its body, which is `body.len() + 4` bytes of the stream.
    Whole(&'a [u8]),
    /// So many bytes more make it complete, as far as can be told yet.
    Incomplete(usize),
    /// A length that no request has.
    Invalid(i32),
}

/// Looks at the first frame of `bytes`. Nothing is allocated from its length.
pub(super) fn first_frame(bytes: &[u8], max_len: usize) -> Frame<'_> {
    let Some((prefix, rest)) = bytes.split_first_chunk::<4>() else {
        return Frame::Incomplete(4 - bytes.len());
    };
    let len = i32::from_be_bytes(*prefix);
    match usize::try_from(len) {
        // A body without room for anything is as bad as a negative length.
        Ok(body) if body > 0 && body <= max_len => match rest.get(..body) {
            Some(body) => Frame::Whole(body),
            None => Frame::Incomplete(body - rest.len()),
        },
        _ => Frame::Invalid(len),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_at_their_length() {
        assert_eq!(first_frame(&[], 8), Frame::Incomplete(4));
        assert_eq!(first_frame(&[0, 0, 0], 8), Frame::Incomplete(1));
        assert_eq!(first_frame(&[0, 0, 0, 3], 8), Frame::Incomplete(3));
        assert_eq!(first_frame(&[0, 0, 0, 3, 1, 2], 8), Frame::Incomplete(1));
        assert_eq!(first_frame(&[0, 0, 0, 3, 1, 2, 3, 4], 8), Frame::Whole(&[1, 2, 3]));
    }

    #[test]
    fn the_limit_is_inclusive() {
        assert_eq!(first_frame(&[0, 0, 0, 8], 8), Frame::Incomplete(8));
        assert_eq!(first_frame(&[0, 0, 0, 9], 8), Frame::Invalid(9));
        assert_eq!(first_frame(&[0, 0, 0, 0], 8), Frame::Invalid(0));
        assert_eq!(first_frame(&[0xff, 0xff, 0xff, 0xff], 8), Frame::Invalid(-1));
        assert_eq!(first_frame(&[0x7f, 0xff, 0xff, 0xff], 8), Frame::Invalid(i32::MAX));
    }
}
