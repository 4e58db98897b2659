//! The ACL table: each distinct list once, counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use zk_proto::Acl;

/// Slot of the list `world:anyone` with all permissions, which most nodes have and no table entry needs.
pub const OPEN: u32 = 0;

/// A list as nodes share it.
pub type AclList = Arc<[Acl<'static>]>;

/// Lists by slot. Slots have no meaning outside the process.
#[derive(Debug)]
pub struct AclTable {
    open: AclList,
    lists: Vec<Option<(AclList, u32)>>,
    by_list: BTreeMap<Vec<u8>, u32>,
    free: Vec<u32>,
}

impl Default for AclTable {
    fn default() -> Self {
        AclTable {
            open: Arc::new([Acl::open()]),
            lists: vec![None],
            by_list: BTreeMap::new(),
            free: Vec::new(),
        }
    }
}

impl AclTable {
    /// The slot of a list, counted up once. Give it back with [`AclTable::release`].
    pub fn acquire(&mut self, acl: &[Acl<'_>]) -> u32 {
        if is_open(acl) {
            return OPEN;
        }
        let mut key = Vec::new();
        Acl::encode_list(Some(acl), &mut key);
        if let Some(&slot) = self.by_list.get(&key) {
            if let Some((_, count)) = &mut self.lists[slot as usize] {
                *count += 1;
            }
            return slot;
        }
        let list: AclList = acl.iter().cloned().map(Acl::into_owned).collect();
        let slot = match self.free.pop() {
            Some(slot) => {
                self.lists[slot as usize] = Some((list, 1));
                slot
            }
            None => {
                self.lists.push(Some((list, 1)));
                self.lists.len() as u32 - 1
            }
        };
        self.by_list.insert(key, slot);
        slot
    }

    /// One node more uses the slot.
    pub fn retain(&mut self, slot: u32) {
        if let Some(Some((_, count))) = self.lists.get_mut(slot as usize) {
            *count += 1;
        }
    }

    /// One node less uses the slot.
    pub fn release(&mut self, slot: u32) {
        if slot == OPEN {
            return;
        }
        let Some(Some((list, count))) = self.lists.get_mut(slot as usize) else { return };
        *count -= 1;
        if *count == 0 {
            let mut key = Vec::new();
            Acl::encode_list(Some(list), &mut key);
            self.by_list.remove(&key);
            self.lists[slot as usize] = None;
            self.free.push(slot);
        }
    }

    /// The list in a slot.
    pub fn get(&self, slot: u32) -> &AclList {
        match self.lists.get(slot as usize) {
            Some(Some((list, _))) => list,
            _ => &self.open,
        }
    }

    /// All lists but the open one, by slot.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &AclList)> {
        self.lists.iter().enumerate().filter_map(|(slot, e)| e.as_ref().map(|(list, _)| (slot as u32, list)))
    }
}

/// Whether a list is exactly `world:anyone` with all permissions.
pub fn is_open(acl: &[Acl<'_>]) -> bool {
    matches!(acl, [one] if one.perms == zk_proto::Perms::ALL && one.is_world())
}
