//! Deletions remembered for a while.
//!
//! Replicas carry out an order to delete at different times. A store that has must not fetch the chunk back from one
//! that has not. Forgetting is harmless: what comes back is garbage that nobody refers to.

use std::collections::HashMap;
use std::mem;

use crate::types::digest::ChunkId;

/// Deletions of one generation; there are two, the older is dropped when the younger is full. As many as the leader keeps for a
/// store that is away, which has all of these chunks still when it comes back.
const GENERATION_MAX: usize = 1 << 18;

#[derive(Debug, Default)]
pub struct Tombstones {
    young: HashMap<ChunkId, u64>,
    old: HashMap<ChunkId, u64>,
}

impl Tombstones {
    /// What was put before `epoch` is deleted.
    pub fn insert(&mut self, id: ChunkId, epoch: u64) {
        if self.young.len() >= GENERATION_MAX {
            self.old = mem::take(&mut self.young);
        }
        let known = self.young.entry(id).or_default();
        *known = epoch.max(*known);
    }

    /// Was a copy put at `put_epoch` ordered deleted?
    pub fn covers(&self, id: &ChunkId, put_epoch: u64) -> bool {
        [&self.young, &self.old].into_iter().filter_map(|known| known.get(id)).any(|epoch| put_epoch < *epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covers_what_was_put_before() {
        let mut tombstones = Tombstones::default();
        let id = ChunkId([1; 32]);
        tombstones.insert(id, 5);
        tombstones.insert(id, 4);
        assert!(tombstones.covers(&id, 4) && !tombstones.covers(&id, 5));
        for at in 0..GENERATION_MAX as u64 {
            tombstones.insert(ChunkId::of(&at.to_le_bytes()), 1);
        }
        assert!(tombstones.covers(&id, 4));
        assert!(tombstones.young.len() + tombstones.old.len() <= 2 * GENERATION_MAX);
    }
}
