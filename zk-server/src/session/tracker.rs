//! Which sessions live, who owns them, and which are to expire.

use std::collections::BTreeMap;
use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use zk_proto::{ErrorCode, SessionId};

/// The owner of a session that no connection owns (yet).
pub const NO_OWNER: u64 = u64::MAX;

/// The sessions that this server is responsible for: all of them on the leader and on a standalone server, its
/// local ones elsewhere.
///
/// Expiry is counted in ticks, as in Apache: a session that was last heard of at `t` expires at the next
/// multiple of the tick time strictly above `t + timeout`. All sessions of a tick form a bucket. A touch only
/// stores the session's new tick; the session is moved when the bucket that it stands in comes due. So a touch
/// costs one look-up, and [`SessionTracker::expire_until`] sees a session once per timeout, not once per ping.
///
/// Times are milliseconds of a monotonic clock. A session takes about 45 bytes.
#[derive(Debug)]
pub struct SessionTracker {
    tick_ms: u64,
    /// Positions in `slots` by session id.
    index: HashTable<u32>,
    hash: FixedState,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Positions in `slots` by tick. An entry counts only if its slot names the same tick; the others are left
    /// over from sessions that were removed or had their timeout shortened.
    buckets: BTreeMap<u64, Vec<u32>>,
    /// Sum of the lengths of all buckets.
    bucket_entries: usize,
    /// The last tick that was expired. Every session that is not closing expires after it.
    done: u64,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    /// [`SessionId::NONE`] in a free slot.
    id: SessionId,
    owner: u64,
    timeout_ms: i32,
    /// Low bits of the tick in which the session expires.
    expires: u32,
    /// Low bits of the tick in whose bucket it stands: never after `expires`.
    bucket: u32,
    closing: bool,
}

/// The tick with these low bits that is not before `done`. A living session's tick is less than 2^32 after it:
/// that is 272 years at a tick time of 2 s.
fn full_tick(done: u64, low_bits: u32) -> u64 {
    done + u64::from(low_bits.wrapping_sub(done as u32))
}

impl SessionTracker {
    /// A tracker without sessions. `tick_ms` is the tick time; 0 counts as 1.
    pub fn new(tick_ms: u64) -> Self {
        SessionTracker {
            tick_ms: tick_ms.max(1),
            index: HashTable::new(),
            hash: FixedState::default(),
            slots: Vec::new(),
            free: Vec::new(),
            buckets: BTreeMap::new(),
            bucket_entries: 0,
            done: 0,
        }
    }

    /// Adds a session that was heard of at `now_ms`. False if it is known: then, unless it is closing, only its timeout and expiry change, as by [`SessionTracker::renegotiate`].
    /// False as well for [`SessionId::NONE`], which no session may have.
    pub fn add(&mut self, id: SessionId, timeout_ms: i32, owner: u64, now_ms: u64) -> bool {
        if id == SessionId::NONE {
            return false;
        }
        if self.is_tracked(id) {
            self.renegotiate(id, timeout_ms, now_ms);
            return false;
        }
        let slot = Slot { id, owner, timeout_ms, expires: 0, bucket: 0, closing: false };
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = slot;
                at
            }
            None => {
                push_tight(&mut self.slots, slot);
                (self.slots.len() - 1) as u32
            }
        };
        let SessionTracker { index, slots, hash, .. } = self;
        index.insert_unique(hash.hash_one(id), at, |&at| hash.hash_one(slots[at as usize].id));
        self.schedule(at, now_ms);
        true
    }

    /// Forgets a session: it was closed. False if it is not known.
    pub fn remove(&mut self, id: SessionId) -> bool {
        let SessionTracker { index, slots, hash, free, .. } = self;
        let Ok(entry) = index.find_entry(hash.hash_one(id), |&at| slots[at as usize].id == id) else {
            return false;
        };
        let (at, _) = entry.remove();
        slots[at as usize].id = SessionId::NONE;
        free.push(at);
        self.sweep();
        true
    }

    /// The session was heard of at `at_ms`: moves its expiry to a full timeout after that, never backwards.
    /// False if it is unknown or closing.
    pub fn touch(&mut self, id: SessionId, at_ms: u64) -> bool {
        let (tick_ms, done) = (self.tick_ms, self.done);
        let Some(slot) = self.open(id) else { return false };
        let expires = expiry_tick(tick_ms, at_ms, slot.timeout_ms);
        if expires > full_tick(done, slot.expires) {
            slot.expires = expires as u32;
        }
        true
    }

    /// A client came back with another timeout: it counts from `now_ms`, even if that makes the session expire
    /// earlier. False if it is unknown or closing.
    ///
    /// This changes nothing that is durable: after a change of leader the timeout with which the session was
    /// created counts again.
    pub fn renegotiate(&mut self, id: SessionId, timeout_ms: i32, now_ms: u64) -> bool {
        let (tick_ms, done) = (self.tick_ms, self.done);
        let Some(at) = self.find(id).filter(|&at| !self.slots[at as usize].closing) else { return false };
        let slot = &mut self.slots[at as usize];
        slot.timeout_ms = timeout_ms;
        if expiry_tick(tick_ms, now_ms, timeout_ms) < full_tick(done, slot.bucket) {
            self.schedule(at, now_ms);
            self.sweep();
        } else {
            slot.expires = expiry_tick(tick_ms, now_ms, timeout_ms) as u32;
        }
        true
    }

    /// A client goes on with its session over `owner`: [`SessionTracker::renegotiate`] and
    /// [`SessionTracker::set_owner`] in one. False if it is unknown or closing.
    pub fn attach(&mut self, id: SessionId, timeout_ms: i32, owner: u64, now_ms: u64) -> bool {
        self.set_owner(id, owner) && self.renegotiate(id, timeout_ms, now_ms)
    }

    /// Marks a session as closing, on a request to close it: it refuses everything from now on and does not
    /// expire. False if it is unknown or closing already.
    pub fn set_closing(&mut self, id: SessionId) -> bool {
        self.open(id).map(|slot| slot.closing = true).is_some()
    }

    /// Whether the session is known, closing or not.
    pub fn is_tracked(&self, id: SessionId) -> bool {
        self.find(id).is_some()
    }

    /// Whether the session is known and closing.
    pub fn is_closing(&self, id: SessionId) -> bool {
        self.slot(id).is_some_and(|slot| slot.closing)
    }

    /// The timeout in effect.
    pub fn timeout_ms(&self, id: SessionId) -> Option<i32> {
        self.slot(id).map(|slot| slot.timeout_ms)
    }

    /// Who owns the session: perhaps [`NO_OWNER`].
    pub fn owner(&self, id: SessionId) -> Option<u64> {
        self.slot(id).map(|slot| slot.owner)
    }

    /// The session has moved. False if it is unknown or closing.
    pub fn set_owner(&mut self, id: SessionId, owner: u64) -> bool {
        self.open(id).map(|slot| slot.owner = owner).is_some()
    }

    /// Whether `owner` may use the session. A session that nobody owns becomes the property of whoever asks
    /// first.
    ///
    /// # Errors
    /// `UNKNOWN_SESSION`; `SESSION_EXPIRED` if it is closing; `SESSION_MOVED` if somebody else owns it.
    pub fn check_owner(&mut self, id: SessionId, owner: u64) -> Result<(), ErrorCode> {
        let at = self.find(id).ok_or(ErrorCode::UNKNOWN_SESSION)?;
        let slot = &mut self.slots[at as usize];
        if slot.closing {
            return Err(ErrorCode::SESSION_EXPIRED);
        }
        if slot.owner == NO_OWNER {
            slot.owner = owner;
        }
        if slot.owner == owner { Ok(()) } else { Err(ErrorCode::SESSION_MOVED) }
    }

    /// The sessions whose time has come by `now_ms`, by expiry, then by id. They are closing from now on, and
    /// stay known until [`SessionTracker::remove`].
    pub fn expire_until(&mut self, now_ms: u64) -> Vec<SessionId> {
        let mut expired = Vec::new();
        let last = now_ms / self.tick_ms;
        while let Some(bucket) = self.buckets.first_entry().filter(|bucket| *bucket.key() <= last) {
            let (tick, members) = bucket.remove_entry();
            self.bucket_entries -= members.len();
            self.done = tick;
            let first = expired.len();
            for at in members {
                let slot = &mut self.slots[at as usize];
                if slot.id == SessionId::NONE || slot.closing || slot.bucket != tick as u32 {
                    continue;
                }
                if slot.expires == slot.bucket {
                    slot.closing = true;
                    expired.push(slot.id);
                } else {
                    slot.bucket = slot.expires;
                    let later = self.buckets.entry(full_tick(tick, slot.expires)).or_default();
                    push_tight(later, at);
                    self.bucket_entries += 1;
                }
            }
            expired[first..].sort_unstable();
        }
        self.done = self.done.max(last);
        expired
    }

    /// When [`SessionTracker::expire_until`] has something to do next; `None` without sessions.
    pub fn next_check_ms(&self) -> Option<u64> {
        self.buckets.first_key_value().map(|(tick, _)| tick * self.tick_ms)
    }

    /// A new term of leadership begins: every session gets a full timeout from `now_ms`, and those that were
    /// closing live again unless their end has been applied.
    pub fn restart_all(&mut self, now_ms: u64) {
        self.buckets.clear();
        self.bucket_entries = 0;
        for at in 0..self.slots.len() {
            if self.slots[at].id != SessionId::NONE {
                self.slots[at].closing = false;
                self.schedule(at as u32, now_ms);
            }
        }
    }

    /// All sessions with their timeouts, by id.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, i32)> + use<> {
        let mut all: Vec<_> = self.live().map(|slot| (slot.id, slot.timeout_ms)).collect();
        all.sort_unstable();
        all.into_iter()
    }

    /// Number of sessions, closing ones included.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is no session.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The sessions that are not closing, by the time at which they expire if nothing is heard of them, in the
    /// milliseconds of the clock that the caller uses: what the word `dump` shows.
    pub fn dump(&self) -> BTreeMap<u64, Vec<SessionId>> {
        let mut groups: BTreeMap<u64, Vec<SessionId>> = BTreeMap::new();
        for slot in self.live().filter(|slot| !slot.closing) {
            groups.entry(full_tick(self.done, slot.expires) * self.tick_ms).or_default().push(slot.id);
        }
        groups.values_mut().for_each(|group| group.sort_unstable());
        groups
    }

    fn live(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(|slot| slot.id != SessionId::NONE)
    }

    fn find(&self, id: SessionId) -> Option<u32> {
        self.index.find(self.hash.hash_one(id), |&at| self.slots[at as usize].id == id).copied()
    }

    fn slot(&self, id: SessionId) -> Option<&Slot> {
        self.find(id).map(|at| &self.slots[at as usize])
    }

    /// The slot of a session that is known and not closing.
    fn open(&mut self, id: SessionId) -> Option<&mut Slot> {
        let at = self.find(id)?;
        Some(&mut self.slots[at as usize]).filter(|slot| !slot.closing)
    }

    /// Gives a session its full timeout from `now_ms` and puts it into the bucket of that tick.
    fn schedule(&mut self, at: u32, now_ms: u64) {
        if self.buckets.is_empty() {
            // No session has a tick that `done` could overtake. This is how the first one finds the time.
            self.done = self.done.max(now_ms / self.tick_ms);
        }
        let slot = &mut self.slots[at as usize];
        let tick = expiry_tick(self.tick_ms, now_ms, slot.timeout_ms).max(self.done + 1);
        slot.expires = tick as u32;
        slot.bucket = tick as u32;
        push_tight(self.buckets.entry(tick).or_default(), at);
        self.bucket_entries += 1;
    }

    /// Drops bucket entries that do not count once they are the majority.
    fn sweep(&mut self) {
        if self.bucket_entries <= 2 * self.index.len() + 1024 {
            return;
        }
        let slots = &self.slots;
        self.buckets.retain(|tick, members| {
            members.retain(|&at| {
                let slot = &slots[at as usize];
                slot.id != SessionId::NONE && !slot.closing && slot.bucket == *tick as u32
            });
            members.sort_unstable();
            members.dedup();
            members.shrink_to_fit();
            !members.is_empty()
        });
        self.bucket_entries = self.buckets.values().map(Vec::len).sum();
    }
}

/// The tick in which a session expires that is heard of at `at_ms` for the last time.
fn expiry_tick(tick_ms: u64, at_ms: u64, timeout_ms: i32) -> u64 {
    at_ms.saturating_add(timeout_ms.max(0) as u64) / tick_ms + 1
}

/// Appends with a growth by a sixteenth: with doubling, a quarter of the tracker's memory would be reserve.
fn push_tight<T>(list: &mut Vec<T>, value: T) {
    if list.len() == list.capacity() {
        list.reserve_exact((list.len() / 16).max(4));
    }
    list.push(value);
}

#[cfg(test)]
#[path = "tracker_tests.rs"]
mod tests;
