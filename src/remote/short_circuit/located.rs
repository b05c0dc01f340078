//! Where chunks are in the packs of near stores: a bounded memory of what stores have said.
//!
//! Two generations: what is found is young again, and when the young are many the old are forgotten together.

use std::collections::HashMap;
use std::sync::Arc;

use crate::pack::reader::{Record, Spot};
use crate::types::digest::ChunkId;
use crate::types::id::StoreId;

use super::near::Pack;

/// Chunks of one generation: some 110 bytes each.
const YOUNG_MAX: usize = 16_384;

/// A chunk in a pack.
#[derive(Clone, Debug)]
pub struct Located {
    pub store: StoreId,
    pub pack: Arc<Pack>,
    pub spot: Spot,
}

impl Located {
    pub fn record<'a>(&'a self, id: &'a ChunkId) -> Record<'a> {
        Record { file: &self.pack.file, salt: &self.pack.salt, spot: self.spot, id }
    }
}

#[derive(Debug, Default)]
pub struct Memory {
    young: HashMap<ChunkId, Located>,
    old: HashMap<ChunkId, Located>,
}

impl Memory {
    pub fn find(&mut self, id: &ChunkId) -> Option<Located> {
        if let Some(located) = self.young.get(id) {
            return Some(located.clone());
        }
        let located = self.old.remove(id)?;
        self.insert(*id, located.clone());
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

    fn located(offset: u64) -> Located {
        let pack = Pack { file: tempfile::tempfile().unwrap(), salt: [0; 16] };
        Located { store: StoreId(1), pack: Arc::new(pack), spot: Spot { offset, payload_bytes: 1 } }
    }

    fn id(number: usize) -> ChunkId {
        ChunkId::of(&number.to_le_bytes())
    }

    #[test]
    fn what_is_looked_for_stays_and_what_is_not_goes() {
        let (mut memory, one) = (Memory::default(), located(7));
        for number in 0..3 * YOUNG_MAX {
            memory.insert(id(number), one.clone());
            assert!(memory.find(&id(0)).is_some(), "after {number}");
        }
        assert!(memory.find(&id(1)).is_none());
        assert!(memory.young.len() + memory.old.len() <= 2 * YOUNG_MAX);
        memory.forget(&id(0));
        assert!(memory.find(&id(0)).is_none());
    }
}
