//! The connections of one I/O thread, by slot.

use super::conn::Conn;
use crate::replica::messages::CONN_SLOT_BITS;

/// What a slot holds.
#[derive(Debug)]
enum Slot {
    /// Nothing; the next free slot, or 0.
    Free(u32),
    /// A connection.
    Open(Box<Conn>),
    /// A closed connection that the replica may still write letters to, and how many replies it owes.
    Closed(u32),
}

/// Slots are numbered from 1, so that no connection id is 0.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    /// The first free slot, or 0.
    free: u32,
    open: usize,
}

impl Slots {
    pub(super) fn new() -> Self {
        Slots { slots: vec![Slot::Closed(0)], free: 0, open: 0 }
    }

    /// Puts a connection into a free slot. Gives it back when there are too many.
    pub(super) fn insert(&mut self, conn: Box<Conn>) -> Result<u32, Box<Conn>> {
        let slot = match self.slots.get_mut(self.free as usize) {
            Some(free @ Slot::Free(_)) => {
                let slot = self.free;
                if let Slot::Free(next) = std::mem::replace(free, Slot::Open(conn)) {
                    self.free = next;
                }
                slot
            }
            _ => {
                if self.slots.len() >= 1 << CONN_SLOT_BITS {
                    return Err(conn);
                }
                self.slots.push(Slot::Open(conn));
                (self.slots.len() - 1) as u32
            }
        };
        self.open += 1;
        Ok(slot)
    }

    /// The connection in a slot.
    pub(super) fn get(&mut self, slot: u32) -> Option<&mut Conn> {
        match self.slots.get_mut(slot as usize) {
            Some(Slot::Open(conn)) => Some(conn),
            _ => None,
        }
    }

    /// Takes a connection out. With `owed`, the slot is kept until [`Slots::release`].
    pub(super) fn close(&mut self, slot: u32, owed: Option<u32>) -> Option<Box<Conn>> {
        let place = self.slots.get_mut(slot as usize).filter(|place| matches!(place, Slot::Open(_)))?;
        let Slot::Open(conn) = std::mem::replace(place, Slot::Closed(owed.unwrap_or(0))) else { return None };
        self.open -= 1;
        if owed.is_none() {
            self.release(slot);
        }
        Some(conn)
    }

    /// A closed connection got a reply that it was owed.
    pub(super) fn paid(&mut self, slot: u32) {
        if let Some(Slot::Closed(owed)) = self.slots.get_mut(slot as usize) {
            *owed = owed.saturating_sub(1);
        }
    }

    /// Makes the slot of a closed connection free again. Returns the number of replies that never came.
    pub(super) fn release(&mut self, slot: u32) -> u32 {
        match self.slots.get_mut(slot as usize) {
            Some(place @ Slot::Closed(_)) if slot != 0 => {
                let Slot::Closed(owed) = std::mem::replace(place, Slot::Free(self.free)) else { return 0 };
                self.free = slot;
                owed
            }
            _ => 0,
        }
    }

    /// Number of open connections.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Slots in use and free: valid ones are below.
    pub(super) fn end(&self) -> u32 {
        self.slots.len() as u32
    }

    /// All open connections.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Conn)> {
        self.slots.iter().enumerate().filter_map(|(slot, place)| match place {
            Slot::Open(conn) => Some((slot as u32, &**conn)),
            _ => None,
        })
    }

    /// All open connections.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Conn> {
        self.slots.iter_mut().filter_map(|place| match place {
            Slot::Open(conn) => Some(&mut **conn),
            _ => None,
        })
    }
}
