//! Connect strings: `host:port,host,[::1]:2181/chroot`.

use std::fmt;

use async_trait::async_trait;

use crate::error::{Error, Result};
use crate::root::Root;

/// The port that servers listen on unless told otherwise.
pub const DEFAULT_PORT: u16 = 2181;

/// One server of a connect string.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Host {
    /// Name or address; IPv6 without brackets.
    pub name: String,
    /// TCP port.
    pub port: u16,
    /// Whether the server was written as `tcp+tls://`. The built-in connector refuses such hosts; a custom
    /// [`Connector`](crate::Connector) may speak TLS.
    pub tls: bool,
}

impl Host {
    /// A plain TCP host.
    pub fn new(name: impl Into<String>, port: u16) -> Self {
        Host { name: name.into(), port, tls: false }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}

/// Where the list of servers comes from. Asked again before every round over the servers, so the list may
/// change while the client runs. An error, or an empty list, leaves the previous list in place.
#[async_trait]
pub trait HostProvider: Send + Sync + 'static {
    /// The servers to try.
    async fn hosts(&self) -> std::io::Result<Vec<Host>>;
}

/// A list that never changes.
#[derive(Debug, Clone)]
pub struct StaticHosts(pub Vec<Host>);

#[async_trait]
impl HostProvider for StaticHosts {
    async fn hosts(&self) -> std::io::Result<Vec<Host>> {
        Ok(self.0.clone())
    }
}

/// Splits a connect string into servers and chroot.
pub(crate) fn parse(connect: &str) -> Result<(Vec<Host>, Root)> {
    let bad = |why: &str| Error::InvalidArgument(format!("connect string {connect:?}: {why}"));
    let (servers, root) = split_chroot(connect);
    let root = Root::new(root).map_err(|e| bad(&e.to_string()))?;
    let mut hosts = Vec::new();
    for server in servers.split(',').map(str::trim).filter(|s| !s.is_empty()) {
        let (tls, rest) = match server.split_once("://") {
            None | Some(("tcp", _)) => (false, server.strip_prefix("tcp://").unwrap_or(server)),
            Some(("tcp+tls", rest)) => (true, rest),
            Some((scheme, _)) => return Err(bad(&format!("unknown scheme {scheme:?}"))),
        };
        let (name, port) = split_port(rest).map_err(bad)?;
        hosts.push(Host { name: name.to_owned(), port, tls });
    }
    if hosts.is_empty() {
        return Err(bad("no server"));
    }
    Ok((hosts, root))
}

/// The chroot begins at the first `/` that is not part of a scheme's `://`.
fn split_chroot(connect: &str) -> (&str, &str) {
    let bytes = connect.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        if bytes[i..].starts_with(b"://") {
            i += 3;
        } else if bytes[i] == b'/' {
            return connect.split_at(i);
        } else {
            i += 1;
        }
    }
    (connect, "")
}

fn split_port(server: &str) -> Result<(&str, u16), &'static str> {
    let (name, port) = match server.strip_prefix('[') {
        Some(rest) => {
            let (name, rest) = rest.split_once(']').ok_or("missing ] after an IPv6 address")?;
            match rest {
                "" => (name, None),
                _ => (name, Some(rest.strip_prefix(':').ok_or("unexpected text behind ]")?)),
            }
        }
        // More than one colon and no brackets: an IPv6 address without port.
        None if server.matches(':').count() > 1 => (server, None),
        None => match server.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (server, None),
        },
    };
    if name.is_empty() {
        return Err("empty host name");
    }
    match port {
        None => Ok((name, DEFAULT_PORT)),
        Some(port) => port.parse().ok().filter(|&p| p != 0).map(|p| (name, p)).ok_or("invalid port"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(s: &str) -> Vec<String> {
        parse(s).unwrap().0.iter().map(Host::to_string).collect()
    }

    #[test]
    fn servers_and_chroot() {
        assert_eq!(
            hosts("h1:1, h2 ,[::1]:3,[::2],::3"),
            ["h1:1", "h2:2181", "[::1]:3", "[::2]:2181", "[::3]:2181"]
        );
        let (hosts, root) = parse("tcp://a:1,tcp+tls://b/app/x").unwrap();
        assert_eq!((hosts[0].tls, hosts[1].tls, hosts[1].port), (false, true, 2181));
        assert_eq!(root.as_str(), "/app/x");
        assert_eq!(parse("a/").unwrap().1.as_str(), "");
    }

    #[test]
    fn refuses_what_it_cannot_use() {
        for s in
            ["", ",", "/app", "a:0", "a:x", "a:70000", ":1", "[::1", "[::1]x", "http://a", "a/b//c", "a/b/"]
        {
            assert!(matches!(parse(s), Err(Error::InvalidArgument(_))), "{s:?}");
        }
    }
}
