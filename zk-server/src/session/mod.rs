//! Stand-in with the API that the replica uses; the real room replaces this file (keep the names or adapt `replica`).
use std::collections::BTreeMap;
use zk_proto::SessionId;
/// No connection owns the session.
pub const NO_OWNER: u64 = u64::MAX;
/// Ids.
#[derive(Debug, Clone)]
pub struct SessionIdGenerator(i64);
impl SessionIdGenerator {
    /// New.
    pub fn new(server_id: u8, elapsed_ms: u64) -> Self {
        SessionIdGenerator((((elapsed_ms << 24) >> 8) | (u64::from(server_id) << 56)) as i64)
    }
    /// Next.
    pub fn next_id(&mut self) -> SessionId {
        self.0 += 1;
        SessionId(self.0)
    }
}
/// Password.
pub fn password(session: SessionId) -> [u8; 16] {
    let mut s = ((session.0 as u64 ^ 0xB341_5C00) ^ 0x5_DEEC_E66D) & ((1 << 48) - 1);
    let mut out = [0; 16];
    for chunk in out.chunks_mut(4) {
        s = (s.wrapping_mul(0x5_DEEC_E66D).wrapping_add(0xB)) & ((1 << 48) - 1);
        chunk.copy_from_slice(&((s >> 16) as u32).to_le_bytes());
    }
    out
}
/// Matches.
pub fn password_matches(session: SessionId, passwd: &[u8; 16]) -> bool {
    password(session) == *passwd
}
#[derive(Debug)]
struct S {
    timeout: i32,
    owner: u64,
    closing: bool,
    expires: u64,
}
/// Tracker.
#[derive(Debug)]
pub struct SessionTracker {
    tick: u64,
    map: BTreeMap<SessionId, S>,
}
#[allow(missing_docs)]
impl SessionTracker {
    pub fn new(tick: u64) -> Self {
        SessionTracker { tick, map: BTreeMap::new() }
    }
    fn up(&self, t: u64) -> u64 {
        (t / self.tick + 1) * self.tick
    }
    pub fn add(&mut self, id: SessionId, timeout: i32, owner: u64, now: u64) {
        let expires = self.up(now + timeout as u64);
        self.map.insert(id, S { timeout, owner, closing: false, expires });
    }
    pub fn attach(&mut self, id: SessionId, timeout: i32, owner: u64, now: u64) {
        let expires = self.up(now + timeout as u64);
        if let Some(s) = self.map.get_mut(&id) {
            s.timeout = timeout;
            s.owner = owner;
            s.expires = expires;
        }
    }
    pub fn touch(&mut self, id: SessionId, at: u64) {
        let tick = self.tick;
        if let Some(s) = self.map.get_mut(&id) {
            s.expires = s.expires.max((at + s.timeout as u64) / tick * tick + tick);
        }
    }
    pub fn is_tracked(&self, id: SessionId) -> bool {
        self.map.contains_key(&id)
    }
    pub fn is_closing(&self, id: SessionId) -> bool {
        self.map.get(&id).is_some_and(|s| s.closing)
    }
    pub fn set_closing(&mut self, id: SessionId) {
        if let Some(s) = self.map.get_mut(&id) {
            s.closing = true;
        }
    }
    pub fn owner(&self, id: SessionId) -> Option<u64> {
        self.map.get(&id).map(|s| s.owner)
    }
    pub fn remove(&mut self, id: SessionId) {
        self.map.remove(&id);
    }
    pub fn expire_until(&mut self, now: u64) -> Vec<SessionId> {
        self.map.iter().filter(|(_, s)| !s.closing && s.expires <= now).map(|(id, _)| *id).collect()
    }
}
