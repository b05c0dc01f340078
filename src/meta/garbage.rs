//! How fast garbage may be condemned, and whether that will give space back.
//!
//! A batch stays until every store has deleted its part. Stores that are there set the pace: a round goes on while they are
//! not behind. For stores that are away batches are kept, up to a number; the more there are the larger a new one has to
//! be, so that they last.

use super::leader::{Leader, key};
use super::state::{StateError, View};
use crate::types::id::StoreId;

/// Chunks condemned at once.
pub const CONDEMN_MAX: usize = 4096;
/// While stores that are there are behind with so many batches, no more is condemned.
const BEHIND_MAX: usize = 8;
/// And while so many are kept, whoever they wait for. Each report of a store looks through all of them.
const KEPT_MAX: usize = 64;
/// Removed files looked at for one that nobody has open.
const ORPHANS_MAX: usize = 64;

/// How far the stores are with the batches that are open.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    open: usize,
    /// Of these, such as a store that is there has yet to delete.
    behind: usize,
}

impl Pace {
    pub fn of(waiting: &[Vec<StoreId>], is_there: impl Fn(StoreId) -> bool) -> Pace {
        let behind = waiting.iter().filter(|stores| stores.iter().any(|store| is_there(*store))).count();
        Pace { open: waiting.len(), behind }
    }

    /// How many chunks are worth another batch; `None`: no number is.
    pub fn least(self) -> Option<usize> {
        let full = self.behind >= BEHIND_MAX || self.open >= KEPT_MAX;
        let kept = self.open.saturating_sub(BEHIND_MAX);
        (!full).then(|| (CONDEMN_MAX * kept / (KEPT_MAX - BEHIND_MAX)).max(1))
    }

    /// One more, which every store has yet to delete.
    pub fn next(self) -> Pace {
        Pace { open: self.open + 1, behind: self.behind + 1 }
    }
}

/// Whether space is about to come back: something is being deleted, or will be in the next rounds.
///
/// # Errors
/// The index failed.
pub fn is_freeing(view: &View<'_>, leader: &Leader) -> Result<bool, StateError> {
    let pace = Pace::of(&view.condemned_waiting()?, |store| leader.stores.last(store).1);
    let Some(least) = pace.least().filter(|_| pace.behind == 0) else { return Ok(pace.behind > 0) };
    let nameless = view.orphans(None, ORPHANS_MAX)?;
    let closed = nameless.into_iter().any(|(tree, ino)| !leader.is_held(key(tree, ino)));
    Ok(closed || view.releasable(u64::MAX, least)?.len() >= least)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: StoreId = StoreId(1);
    const AWAY: StoreId = StoreId(2);

    /// So many batches that wait for these.
    fn pace(stores: &[StoreId], batches: usize) -> Pace {
        Pace::of(&vec![stores.to_vec(); batches], |store| store != AWAY)
    }

    #[test]
    fn stores_that_are_there_set_the_pace() {
        assert_eq!(pace(&[], 0).least(), Some(1));
        assert_eq!(pace(&[A, AWAY], BEHIND_MAX - 1).least(), Some(1));
        assert_eq!(pace(&[A, AWAY], BEHIND_MAX).least(), None);
        assert_eq!((0..BEHIND_MAX).fold(pace(&[], 0), |pace, _| pace.next()).least(), None, "within a round too");
    }

    #[test]
    fn for_stores_that_are_away_ever_larger_batches_are_kept() {
        assert_eq!(pace(&[AWAY], BEHIND_MAX).least(), Some(1));
        let half = pace(&[AWAY], BEHIND_MAX + (KEPT_MAX - BEHIND_MAX) / 2).least();
        assert_eq!(half, Some(CONDEMN_MAX / 2));
        let last = pace(&[AWAY], KEPT_MAX - 1).least();
        assert!(last.is_some_and(|least| least < CONDEMN_MAX), "there are batches of that size: {last:?}");
        assert_eq!(pace(&[AWAY], KEPT_MAX).least(), None);
    }
}
