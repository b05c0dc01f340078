//! Chunks that stores offered and that nothing refers to: put once, by a client that was gone, or was refused, before
//! the command that would have referred to them.
//!
//! Volatile and bounded: what does not fit, or is lost with its leader, is offered again. Decides nothing: whether a
//! chunk is still without a reference is looked at when the command that condemns it is applied.

use std::collections::BTreeSet;

use parking_lot::Mutex;

use crate::types::digest::ChunkId;

/// Chunks remembered until the next round condemns them.
const STRAYS_MAX: usize = 8192;
/// A chunk without references is condemned this many epochs after it was put, or was let go, at the soonest.
const GRACE_EPOCHS: u64 = 2;

/// Garbage is old enough that is so since before this epoch, when it is `epoch` now.
pub fn old_before(epoch: u64) -> u64 {
    (epoch + 1).saturating_sub(GRACE_EPOCHS)
}

#[derive(Default)]
pub struct Strays {
    offered: Mutex<Offered>,
}

/// What the next round of collecting takes up.
#[derive(Default)]
pub struct Offered {
    pub chunks: BTreeSet<ChunkId>,
    /// A store keeps chunks that are too young to be offered: the epoch has to go on for them to age.
    pub aging: bool,
}

impl Strays {
    /// Remembers chunks that are not known here, as many as there is room for.
    pub fn offer(&self, chunks: Vec<ChunkId>, aging: bool) {
        let mut offered = self.offered.lock();
        offered.aging |= aging;
        for id in chunks {
            if offered.chunks.len() >= STRAYS_MAX {
                break;
            }
            offered.chunks.insert(id);
        }
    }

    /// Gives away at most `max` chunks; the rest stays for the next round.
    pub fn take(&self, max: usize) -> Offered {
        let mut offered = self.offered.lock();
        let aging = std::mem::take(&mut offered.aging);
        let rest = offered.chunks.iter().nth(max).copied();
        let rest = rest.map(|first| offered.chunks.split_off(&first)).unwrap_or_default();
        Offered { chunks: std::mem::replace(&mut offered.chunks, rest), aging }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_kept_and_given_as_there_is_room_for() {
        let strays = Strays::default();
        let ids: Vec<ChunkId> = (0..STRAYS_MAX as u64 + 9).map(|at| ChunkId::of(&at.to_le_bytes())).collect();
        strays.offer(ids.clone(), true);
        strays.offer(ids, false);
        let first = strays.take(100);
        assert_eq!((first.chunks.len(), first.aging), (100, true));
        let rest = strays.take(usize::MAX);
        assert_eq!((rest.chunks.len(), rest.aging), (STRAYS_MAX - 100, false));
        assert!(first.chunks.is_disjoint(&rest.chunks) && strays.take(1).chunks.is_empty());
    }

    #[test]
    fn two_epochs_are_old() {
        assert_eq!([1, 2, 3, 9].map(old_before), [0, 1, 2, 8]);
    }
}
