//! Votes on the election port: frames of a length (`int`, 1..=524288) and a notification.
//!
//! ```text
//!  0 state i32 | 4 leader i64 | 12 zxid i64 | 20 round i64 | 28 peer epoch i64 | 36 version i32
//! 40 length i32 | 44 configuration
//! ```
//!
//! Old servers send 28 bytes (no peer epoch: that of the zxid) or 40 (3.4: the last 4 mean nothing).

use bytes::{Buf, Bytes, BytesMut};
use zk_proto::jute::{Reader, Writer, frame};

use super::WireError;
use crate::zab::PeerState;

const FRAME_BYTES_MAX: usize = 512 << 10;
/// The notification of servers before 3.4.
const LEN_28: usize = 28;
/// The notification of 3.4.
const LEN_40: usize = 40;
/// Since this version there is a configuration.
const VERSION_WITH_CONFIG: i32 = 2;

/// What a server says about the vote it holds. Integers are as on the wire, since observers use `i64::MIN` for
/// "none of mine".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// What the sender does.
    pub state: PeerState,
    /// Id of the server that it proposes or follows.
    pub leader: i64,
    /// Last zxid behind the vote.
    pub zxid: i64,
    /// Round of the election, `electionEpoch`.
    pub round: i64,
    /// Epoch behind the vote.
    pub peer_epoch: i64,
    /// Version of the form; 0 for old ones.
    pub version: i32,
    /// Text of the configuration in force at the sender, see [`crate::zab::ensemble::Ensemble`]; empty if there
    /// is none. Not checked.
    pub config: Bytes,
}

impl Notification {
    /// The version that servers send since 3.5.
    pub const VERSION: i32 = 2;

    /// Reads a notification out of its frame, without the length. What follows the configuration is ignored.
    ///
    /// # Errors
    /// No form has this length, or the state is unknown. Servers drop such a message and keep the connection.
    pub fn decode(frame: &Bytes) -> Result<Notification, WireError> {
        let len = frame.len();
        let bad_length = |_| WireError::NotificationLength(len);
        if !matches!(len, LEN_28 | LEN_40 | 44..) {
            return Err(WireError::NotificationLength(len));
        }
        let mut r = Reader::new(frame);
        let long = |r: &mut Reader<'_>| r.i64().map_err(bad_length);
        let state = r.i32().map_err(bad_length)?;
        let state = PeerState::from_i32(state).ok_or(WireError::NotificationState(state))?;
        let (leader, zxid, round) = (long(&mut r)?, long(&mut r)?, long(&mut r)?);
        let peer_epoch =
            if len == LEN_28 { zxid.cast_unsigned() >> 32 } else { long(&mut r)?.cast_unsigned() };
        let version = if len <= LEN_40 { 0 } else { r.i32().map_err(bad_length)? };
        let config = if version >= VERSION_WITH_CONFIG {
            let length = r.i32().map_err(bad_length)?;
            let start = r.position();
            let taken = usize::try_from(length).ok().and_then(|length| r.take(length).ok());
            let taken = taken.ok_or(WireError::NotificationConfigLength(length))?;
            frame.slice(start..start + taken.len())
        } else {
            Bytes::new()
        };
        let peer_epoch = peer_epoch.cast_signed();
        Ok(Notification { state, leader, zxid, round, peer_epoch, version, config })
    }

    /// Appends the frame, in the newest form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        frame(out, |out| {
            out.put_int(self.state.to_i32());
            out.put_long(self.leader);
            out.put_long(self.zxid);
            out.put_long(self.round);
            out.put_long(self.peer_epoch);
            out.put_int(self.version);
            out.put_buffer(Some(&self.config));
        });
    }
}

/// Takes the next frame off `buffer`, without its length, or `None` when more bytes are needed.
///
/// # Errors
/// The length is out of bounds: the connection is lost.
pub fn next_frame(buffer: &mut BytesMut) -> Result<Option<Bytes>, WireError> {
    let Ok(length) = Reader::new(buffer).i32() else { return Ok(None) };
    match usize::try_from(length) {
        Ok(length @ 1..=FRAME_BYTES_MAX) if buffer.len() - 4 >= length => {
            buffer.advance(4);
            Ok(Some(buffer.split_to(length).freeze()))
        }
        Ok(1..=FRAME_BYTES_MAX) => Ok(None),
        _ => Err(WireError::FrameLength(length)),
    }
}

impl PeerState {
    fn from_i32(state: i32) -> Option<Self> {
        Some(match state {
            0 => PeerState::Looking,
            1 => PeerState::Following,
            2 => PeerState::Leading,
            3 => PeerState::Observing,
            _ => return None,
        })
    }

    fn to_i32(self) -> i32 {
        match self {
            PeerState::Looking => 0,
            PeerState::Following => 1,
            PeerState::Leading => 2,
            PeerState::Observing => 3,
        }
    }
}
