//! Values with small stable numbers.

/// A vector whose free places are used again. Numbers are handed out in an order that depends on the calls only.
#[derive(Debug)]
pub(super) struct Slab<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// Stores the value and names it.
    pub(super) fn insert(&mut self, value: T) -> u32 {
        match self.free.pop() {
            Some(id) => {
                self.slots[id as usize] = Some(value);
                id
            }
            None => {
                self.slots.push(Some(value));
                (self.slots.len() - 1) as u32
            }
        }
    }

    /// Takes the value out. When the last one goes, so does the memory.
    pub(super) fn remove(&mut self, id: u32) -> T {
        let value = self.slots[id as usize].take().expect("a number that insert gave out");
        self.free.push(id);
        if self.free.len() == self.slots.len() {
            *self = Slab::default();
        }
        value
    }

    pub(super) fn get(&self, id: u32) -> &T {
        self.slots[id as usize].as_ref().expect("a number that insert gave out")
    }

    pub(super) fn get_mut(&mut self, id: u32) -> &mut T {
        self.slots[id as usize].as_mut().expect("a number that insert gave out")
    }

    /// All values with their numbers, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.slots.iter().enumerate().filter_map(|(id, slot)| Some((id as u32, slot.as_ref()?)))
    }
}
