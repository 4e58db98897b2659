//! Access control entries.

use std::borrow::Cow;
use std::fmt;

use crate::jute::{DecodeError, Reader, Writer};

/// Permission bits of an ACL entry. Bits above `ALL` are stored and returned, not rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Perms(pub i32);

impl Perms {
    /// Read data and list children.
    pub const READ: Perms = Perms(1);
    /// Set data.
    pub const WRITE: Perms = Perms(2);
    /// Create children.
    pub const CREATE: Perms = Perms(4);
    /// Delete children.
    pub const DELETE: Perms = Perms(8);
    /// Set the ACL.
    pub const ADMIN: Perms = Perms(16);
    /// All of the above.
    pub const ALL: Perms = Perms(31);

    /// Whether any bit of `other` is in `self`.
    pub fn intersects(self, other: Perms) -> bool {
        self.0 & other.0 != 0
    }
}

impl std::ops::BitOr for Perms {
    type Output = Perms;
    fn bitor(self, rhs: Perms) -> Perms {
        Perms(self.0 | rhs.0)
    }
}

impl fmt::Display for Perms {
    /// The letters `cdrwa` that Apache's tools print.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bit, letter) in [(4, 'c'), (8, 'd'), (1, 'r'), (2, 'w'), (16, 'a')] {
            if self.0 & bit != 0 {
                write!(f, "{letter}")?;
            }
        }
        Ok(())
    }
}

/// One entry of an access control list. Scheme and id may be null on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Acl<'a> {
    /// What is granted.
    pub perms: Perms,
    /// Authentication scheme (`world`, `auth`, `digest`, `ip`, `sasl`, `x509`).
    pub scheme: Option<Cow<'a, str>>,
    /// Identity within the scheme.
    pub id: Option<Cow<'a, str>>,
}

impl<'a> Acl<'a> {
    /// Bytes of an entry with empty or null texts.
    const WIRE_LEN_MIN: usize = 12;

    /// An entry from its parts.
    pub fn new(perms: Perms, scheme: impl Into<Cow<'a, str>>, id: impl Into<Cow<'a, str>>) -> Self {
        Acl { perms, scheme: Some(scheme.into()), id: Some(id.into()) }
    }

    /// `world:anyone` with all permissions.
    pub const fn open() -> Acl<'static> {
        Acl { perms: Perms::ALL, scheme: Some(Cow::Borrowed("world")), id: Some(Cow::Borrowed("anyone")) }
    }

    /// All permissions for the identities of the creating connection.
    pub const fn creator_all() -> Acl<'static> {
        Acl { perms: Perms::ALL, scheme: Some(Cow::Borrowed("auth")), id: Some(Cow::Borrowed("")) }
    }

    /// `world:anyone` may read.
    pub const fn read_only() -> Acl<'static> {
        Acl { perms: Perms::READ, scheme: Some(Cow::Borrowed("world")), id: Some(Cow::Borrowed("anyone")) }
    }

    /// Whether this is an entry of `world:anyone`.
    pub fn is_world(&self) -> bool {
        self.scheme.as_deref() == Some("world") && self.id.as_deref() == Some("anyone")
    }

    /// The same entry, independent of the frame it came from.
    pub fn into_owned(self) -> Acl<'static> {
        Acl {
            perms: self.perms,
            scheme: self.scheme.map(|s| Cow::Owned(s.into_owned())),
            id: self.id.map(|s| Cow::Owned(s.into_owned())),
        }
    }

    /// Reads the record.
    pub fn decode(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Acl { perms: Perms(r.i32()?), scheme: r.string()?, id: r.string()? })
    }

    /// Appends the record, as a server writes it.
    pub fn encode(&self, w: &mut Vec<u8>) {
        w.put_int(self.perms.0);
        w.put_opt_str(self.scheme.as_deref());
        w.put_opt_str(self.id.as_deref());
    }

    /// Reads a list; null stays distinguishable from empty.
    pub fn decode_list(r: &mut Reader<'a>) -> Result<Option<Vec<Self>>, DecodeError> {
        r.vector_of(Self::WIRE_LEN_MIN, Acl::decode)
    }

    /// Appends a list, as a server writes it.
    pub fn encode_list(list: Option<&[Acl<'_>]>, w: &mut Vec<u8>) {
        put_list(list, w, |acl, w| acl.encode(w));
    }

    /// Appends a list, as requests carry it; see [`Writer::put_utf8`].
    pub(crate) fn encode_request_list(list: Option<&[Acl<'_>]>, w: &mut Vec<u8>) {
        put_list(list, w, |acl, w| {
            w.put_int(acl.perms.0);
            w.put_opt_utf8(acl.scheme.as_deref());
            w.put_opt_utf8(acl.id.as_deref());
        });
    }
}

fn put_list(list: Option<&[Acl<'_>]>, w: &mut Vec<u8>, put: impl Fn(&Acl<'_>, &mut Vec<u8>)) {
    match list {
        None => w.put_int(-1),
        Some(list) => {
            w.put_len(list.len());
            list.iter().for_each(|acl| put(acl, w));
        }
    }
}
