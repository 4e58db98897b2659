//! Settings of a client from a file or the environment.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use crate::builder::ConnectBuilder;
use crate::client::Client;
use crate::config::Auth;
use crate::error::{Error, Result};

/// The settings that an operator may want to change without touching code. With the feature `serde` it can be
/// read from any format; durations are text such as `15s`, `500ms` or `1m30s`.
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(default, deny_unknown_fields))]
pub struct ClientConfig {
    /// Servers and chroot, as for [`Client::connect`].
    pub connect: String,
    /// See [`ConnectBuilder::session_timeout`].
    #[cfg_attr(feature = "serde", serde(deserialize_with = "from_text"))]
    pub session_timeout: Option<Duration>,
    /// See [`ConnectBuilder::connect_timeout`].
    #[cfg_attr(feature = "serde", serde(deserialize_with = "from_text"))]
    pub connect_timeout: Option<Duration>,
    /// See [`ConnectBuilder::initial_connect_timeout`].
    #[cfg_attr(feature = "serde", serde(deserialize_with = "from_text"))]
    pub initial_connect_timeout: Option<Duration>,
    /// See [`ConnectBuilder::request_timeout`].
    #[cfg_attr(feature = "serde", serde(deserialize_with = "from_text"))]
    pub request_timeout: Option<Duration>,
    /// See [`ConnectBuilder::max_in_flight`].
    pub max_in_flight: Option<usize>,
    /// See [`ConnectBuilder::read_only`].
    pub read_only: bool,
    /// See [`ConnectBuilder::track_ensemble`].
    pub track_ensemble: bool,
    /// Credentials as `scheme:token`, for example `digest:user:password`.
    pub auth: Vec<Auth>,
}

impl ClientConfig {
    /// Reads the variables that begin with `prefix`, for example `ZK_CONNECT`, `ZK_SESSION_TIMEOUT` and
    /// `ZK_AUTH` (one `scheme:token`) for `ZK_`: the names of the fields in capitals. `CONNECT` must be there.
    pub fn from_env(prefix: &str) -> Result<Self> {
        ClientConfig::from_lookup(prefix, |name| std::env::var(name).ok())
    }

    fn from_lookup(prefix: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let get = |name: &str| {
            let name = format!("{prefix}{name}");
            lookup(&name).map(|value| (name, value))
        };
        fn bad(name: &str, why: impl Display) -> Error {
            Error::InvalidArgument(format!("{name}: {why}"))
        }
        let duration = |name: &str| match get(name) {
            Some((name, value)) => parse_duration(&value).map(Some).map_err(|e| bad(&name, e)),
            None => Ok(None),
        };
        let boolean = |name: &str| match get(name) {
            Some((name, value)) => bool::from_str(&value).map_err(|e| bad(&name, e)),
            None => Ok(false),
        };
        let (_, connect) = get("CONNECT").ok_or_else(|| bad(&format!("{prefix}CONNECT"), "not set"))?;
        Ok(ClientConfig {
            connect,
            session_timeout: duration("SESSION_TIMEOUT")?,
            connect_timeout: duration("CONNECT_TIMEOUT")?,
            initial_connect_timeout: duration("INITIAL_CONNECT_TIMEOUT")?,
            request_timeout: duration("REQUEST_TIMEOUT")?,
            max_in_flight: match get("MAX_IN_FLIGHT") {
                Some((name, value)) => Some(value.parse().map_err(|e| bad(&name, e))?),
                None => None,
            },
            read_only: boolean("READ_ONLY")?,
            track_ensemble: boolean("TRACK_ENSEMBLE")?,
            auth: match get("AUTH") {
                Some((name, value)) => vec![value.parse().map_err(|e| bad(&name, e))?],
                None => Vec::new(),
            },
        })
    }

    /// A builder with these settings; the others keep their defaults.
    pub fn builder(&self) -> ConnectBuilder {
        let mut builder =
            Client::connect(&self.connect).read_only(self.read_only).track_ensemble(self.track_ensemble);
        type Set = fn(ConnectBuilder, Duration) -> ConnectBuilder;
        for (setting, set) in [
            (self.session_timeout, ConnectBuilder::session_timeout as Set),
            (self.connect_timeout, ConnectBuilder::connect_timeout),
            (self.initial_connect_timeout, ConnectBuilder::initial_connect_timeout),
            (self.request_timeout, ConnectBuilder::request_timeout),
        ] {
            if let Some(duration) = setting {
                builder = set(builder, duration);
            }
        }
        if let Some(requests) = self.max_in_flight {
            builder = builder.max_in_flight(requests);
        }
        self.auth.iter().cloned().fold(builder, ConnectBuilder::auth)
    }
}

impl FromStr for Auth {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s.split_once(':') {
            Some((scheme, token)) if !scheme.is_empty() => Ok(Auth::new(scheme, token)),
            _ => Err("credentials must be scheme:token"),
        }
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Auth {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "serde")]
fn from_text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text: Option<String> = serde::Deserialize::deserialize(deserializer)?;
    text.map(|text| parse_duration(&text).map_err(serde::de::Error::custom)).transpose()
}

/// Numbers with units: `15s`, `500ms`, `1m30s`, `2h`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("invalid duration {text:?}: expected numbers with units ms, s, m, h");
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = rest[digits..].trim_start();
        let unit = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let ms = match &rest[..unit] {
            "ms" => 1,
            "s" => 1000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            _ => return Err(bad()),
        };
        let part = number.checked_mul(ms).map(Duration::from_millis).ok_or_else(bad)?;
        total = total.checked_add(part).ok_or_else(bad)?;
        rest = rest[unit..].trim_start();
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in [("15s", 15_000), ("500ms", 500), ("1m30s", 90_000), (" 2h 1 ms ", 7_200_001)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text:?}");
        }
        for text in ["", "15", "s", "1d", "-1s", "1.5s", "99999999999999999999s", "9999999999999999999h"] {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn from_the_environment() {
        let vars = [
            ("ZK_CONNECT", "a,b/app"),
            ("ZK_SESSION_TIMEOUT", "20s"),
            ("ZK_AUTH", "digest:u:p"),
            ("ZK_READ_ONLY", "true"),
        ];
        let lookup = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        let config = ClientConfig::from_lookup("ZK_", lookup).unwrap();
        assert_eq!(config.session_timeout, Some(Duration::from_secs(20)));
        assert_eq!((config.auth, config.read_only), (vec![Auth::digest("u", "p")], true));
        assert!(ClientConfig::from_lookup("OTHER_", lookup).is_err());
        let bad = |_: &str| Some("nonsense".to_owned());
        let error = ClientConfig::from_lookup("ZK_", bad).unwrap_err().to_string();
        assert!(error.contains("ZK_SESSION_TIMEOUT"), "{error}");
    }

    #[cfg(feature = "serde")]
    #[test]
    fn from_a_file() {
        let json = r#"{"connect": "a:1/x", "request_timeout": "3s", "auth": ["digest:u:p"]}"#;
        let config: ClientConfig = serde_json::from_str(json).unwrap();
        assert_eq!(config.request_timeout, Some(Duration::from_secs(3)));
        assert!(!format!("{config:?}").contains("u:p"));
        assert!(serde_json::from_str::<ClientConfig>(r#"{"conect": "a"}"#).is_err());
    }
}
