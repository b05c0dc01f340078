//! Where chunks are in the packs of near stores: a bounded memory of what stores have said.
//!
//! Two generations: what is found is young again, and when the young are many the old are forgotten together.

use std::collections::HashMap;

use crate::types::digest::ChunkId;
use crate::types::id::StoreId;
use crate::wire::store::PackSpot;

/// Chunks of one generation: some 140 bytes each.
const YOUNG_MAX: usize = 16_384;

/// A chunk in a pack of a store. The pack need not be open: what is remembered holds no descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    pub store: StoreId,
    pub at: PackSpot,
}

#[derive(Debug, Default)]
pub struct Memory {
    young: HashMap<ChunkId, Located>,
    old: HashMap<ChunkId, Located>,
}

impl Memory {
    pub fn find(&mut self, id: &ChunkId) -> Option<Located> {
        if let Some(located) = self.young.get(id) {
            return Some(*located);
        }
        let located = self.old.remove(id)?;
        self.insert(*id, located);
        Some(located)
    }

    pub fn insert(&mut self, id: ChunkId, located: Located) {
        if self.young.len() >= YOUNG_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(id, located);
    }

    pub fn forget(&mut self, id: &ChunkId) {
        self.young.remove(id);
        self.old.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::id::DiskId;

    fn located(offset: u64) -> Located {
        Located { store: StoreId(1), at: PackSpot { disk: DiskId([1; 16]), pack: 1, offset, chunk_bytes: 1 } }
    }

    fn id(number: usize) -> ChunkId {
        ChunkId::of(&number.to_le_bytes())
    }

    #[test]
    fn what_is_looked_for_stays_and_what_is_not_goes() {
        let (mut memory, one) = (Memory::default(), located(7));
        for number in 0..3 * YOUNG_MAX {
            memory.insert(id(number), one);
            assert!(memory.find(&id(0)).is_some(), "after {number}");
        }
        assert!(memory.find(&id(1)).is_none());
        assert!(memory.young.len() + memory.old.len() <= 2 * YOUNG_MAX);
        memory.forget(&id(0));
        assert!(memory.find(&id(0)).is_none());
    }
}
