//! The first message on an election connection.
//!
//! ```text
//! version i64 (-65536 one address, -65535 several) | server id i64 | length i32 | "host:port|host:port|..."
//! ```
//!
//! A first long that is not negative is the server id of a very old server, and all that it says.

use zk_proto::Reader;
use zk_proto::jute::Writer;

use super::WireError;
use crate::config::HostPort;
use crate::zab::ServerId;

const VERSION_1: i64 = -65536;
const VERSION_2: i64 = -65535;
const ADDRESS_BYTES_MAX: usize = 2048;

/// Who dialed, and where its election port is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The dialer. Not checked: may be negative, or [`Hello::ANONYMOUS`].
    pub server: ServerId,
    /// How it said so.
    pub form: HelloForm,
    /// Addresses of its election port as its configuration has them; none in the legacy form.
    pub addresses: Vec<HostPort>,
}

/// The forms of a [`Hello`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HelloForm {
    /// The server id alone.
    Legacy,
    /// With one address.
    V1,
    /// With any number of addresses (`multiAddress.enabled`). Also understood by servers without.
    V2,
}

impl Hello {
    /// The id of very old observers, which have none of their own.
    pub const ANONYMOUS: ServerId = ServerId(i64::MAX);

    /// Reads a hello at the start of `bytes`: it and its length, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// Unknown version, or addresses that are too long or malformed.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Hello, usize)>, WireError> {
        let mut r = Reader::new(bytes);
        let Ok(version) = r.i64() else { return Ok(None) };
        let form = match version {
            VERSION_1 => HelloForm::V1,
            VERSION_2 => HelloForm::V2,
            0.. => {
                let hello =
                    Hello { server: ServerId(version), form: HelloForm::Legacy, addresses: Vec::new() };
                return Ok(Some((hello, r.position())));
            }
            _ => return Err(WireError::HelloVersion(version)),
        };
        let (Ok(server), Ok(length)) = (r.i64(), r.i32()) else { return Ok(None) };
        let text = match usize::try_from(length) {
            Ok(length @ 1..=ADDRESS_BYTES_MAX) => r.take(length),
            _ => return Err(WireError::HelloLength(length)),
        };
        let Ok(text) = text else { return Ok(None) };
        let malformed = || WireError::HelloAddress(String::from_utf8_lossy(text).into_owned());
        let text = std::str::from_utf8(text).map_err(|_| malformed())?;
        let addresses: Option<Vec<HostPort>> = text.split('|').map(HostPort::parse).collect();
        let addresses = addresses.ok_or_else(malformed)?;
        Ok(Some((Hello { server: ServerId(server), form, addresses }, r.position())))
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self.form {
            HelloForm::Legacy => return out.put_long(self.server.0),
            HelloForm::V1 => out.put_long(VERSION_1),
            HelloForm::V2 => out.put_long(VERSION_2),
        }
        out.put_long(self.server.0);
        let addresses: Vec<String> = self.addresses.iter().map(HostPort::to_string).collect();
        out.put_utf8(&addresses.join("|"));
    }

    /// The addresses that can be dialed: not those that only say "all my interfaces".
    pub fn dialable(&self) -> impl Iterator<Item = &HostPort> {
        self.addresses.iter().filter(|address| {
            !address.host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_unspecified())
        })
    }
}
