//! Who is connected from where, and how many.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

use crate::auth::ConnAuth;

/// A client address and what its connections share.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(super) ip: IpAddr,
    /// Identities of a connection that has not authenticated.
    pub(super) auth: Arc<ConnAuth>,
    connections: AtomicU32,
}

/// Why a connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// `maxClientCnxns`.
    Address,
    /// `maxCnxns`.
    Total,
}

/// All peers.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    by_ip: Mutex<HashMap<IpAddr, Arc<Peer>>>,
    connections: AtomicU32,
}

impl Peers {
    /// Counts a connection in.
    pub(super) fn enter(
        &self,
        address: SocketAddr,
        max_per_address: Option<u32>,
        max_total: Option<u32>,
    ) -> Result<Arc<Peer>, Refused> {
        let full =
            |count: &AtomicU32, max: Option<u32>| max.is_some_and(|max| count.load(Ordering::Relaxed) >= max);
        // Under the lock, so that no two enter through the same gap.
        let mut by_ip = self.by_ip.lock();
        if full(&self.connections, max_total) {
            return Err(Refused::Total);
        }
        let ip = address.ip().to_canonical();
        let peer = by_ip.entry(ip).or_insert_with(|| {
            let auth = Arc::new(ConnAuth::new(address));
            Arc::new(Peer { ip, auth, connections: AtomicU32::new(0) })
        });
        if full(&peer.connections, max_per_address) {
            return Err(Refused::Address);
        }
        peer.connections.fetch_add(1, Ordering::Relaxed);
        self.connections.fetch_add(1, Ordering::Relaxed);
        Ok(peer.clone())
    }

    /// Counts a connection out.
    pub(super) fn leave(&self, peer: &Peer) {
        let mut by_ip = self.by_ip.lock();
        self.connections.fetch_sub(1, Ordering::Relaxed);
        if peer.connections.fetch_sub(1, Ordering::Relaxed) == 1 {
            by_ip.remove(&peer.ip);
        }
    }

    /// Connections in total.
    pub(crate) fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn both_limits_hold_and_free_up() {
        let peers = Peers::default();
        let enter = |text| peers.enter(address(text), Some(2), Some(3));
        let first = enter("10.0.0.1:1").unwrap();
        enter("[::ffff:10.0.0.1]:2").unwrap();
        assert_eq!(enter("10.0.0.1:3").unwrap_err(), Refused::Address);
        enter("10.0.0.2:1").unwrap();
        assert_eq!(enter("10.0.0.3:1").unwrap_err(), Refused::Total);
        peers.leave(&first);
        enter("10.0.0.1:3").unwrap();
        assert_eq!(peers.connections(), 3);
    }

    #[test]
    fn an_address_without_connections_is_forgotten() {
        let peers = Peers::default();
        let peer = peers.enter(address("10.0.0.1:1"), None, None).unwrap();
        peers.leave(&peer);
        assert!(peers.by_ip.lock().is_empty());
        assert_eq!(peers.connections(), 0);
    }
}
