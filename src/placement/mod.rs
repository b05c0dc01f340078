//! Where chunks belong: a pure function of the cluster map.
//!
//! Weighted rendezvous hashing over disks: every disk draws a score for every slot, the best disk that respects the
//! failure domains takes the first copy, the next best the second, and so on. Nothing is stored and nothing is
//! assigned by hand; whoever has the same map computes the same places. Scores are integers, because a floating-point
//! logarithm may differ between two machines in its last bit and they must never disagree.
//!
//! Two properties everything else leans on:
//!
//! - *Prefix*: the places for fewer copies are the first of the places for more. So a reader that does not know how
//!   many copies a volume keeps, or whose map is newer than the copies, walks down the ranking and meets them.
//! - *Little moves*: adding a disk moves to it about its share of the slots, and nothing between the others (with equal
//!   failure domains); the disk that had to yield is the next in the ranking.
//!
//! Never does I/O and never asks what is up: a store that is down still owns its slots.

mod score;
mod table;

use crate::types::cluster::{ClusterMap, DiskInfo, StoreInfo};
use crate::types::digest::Slot;
use crate::types::id::{DiskId, StoreId};

use score::Score;
pub use table::Table;

#[cfg(test)]
mod tests;

/// Where one copy belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    pub store: StoreId,
    pub disk: DiskId,
}

/// The places of a slot's copies, best first: at most `copies`, fewer when there are fewer stores.
///
/// Never two on one store. Each next copy goes to a host that holds the fewest so far, among those to a zone that
/// holds the fewest, among those to the best score. A store that does not tell its host is a host of its own. Disks of
/// weight 0 take nothing.
pub fn replicas(map: &ClusterMap, slot: Slot, copies: u8) -> Vec<Place> {
    let mut candidates: Vec<Candidate<'_>> = map.stores.iter().filter_map(|store| Candidate::of(store, slot)).collect();
    // Ties in score do not happen between different disks, but order must not depend on the map's order of stores.
    candidates.sort_by(|a, b| b.score.cmp(&a.score).then(a.place.disk.cmp(&b.place.disk)));
    let mut chosen: Vec<Candidate<'_>> = Vec::with_capacity(usize::from(copies));
    while chosen.len() < usize::from(copies) && !candidates.is_empty() {
        let crowd = |candidate: &Candidate<'_>| {
            let on_host = chosen.iter().filter(|other| other.shares_host(candidate)).count();
            let in_zone = chosen.iter().filter(|other| other.zone == candidate.zone).count();
            (on_host, in_zone)
        };
        // `min_by_key` gives the first of equals, which is the one with the best score.
        let Some(next) = (0..candidates.len()).min_by_key(|at| crowd(&candidates[*at])) else { break };
        chosen.push(candidates.remove(next));
    }
    chosen.into_iter().map(|candidate| candidate.place).collect()
}

/// Which of one store's disks takes a slot: the same one that [`replicas`] names when it chooses that store.
pub fn best_disk<'a>(disks: impl IntoIterator<Item = &'a DiskInfo>, slot: Slot) -> Option<DiskId> {
    best(disks, slot).map(|(_, disk)| disk)
}

fn best<'a>(disks: impl IntoIterator<Item = &'a DiskInfo>, slot: Slot) -> Option<(Score, DiskId)> {
    disks
        .into_iter()
        .filter(|disk| disk.weight > 0)
        .map(|disk| (Score::new(&disk.id, disk.weight, slot), disk.id))
        .max_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)))
}

/// A store with its best disk for one slot.
struct Candidate<'a> {
    place: Place,
    score: Score,
    host: &'a str,
    zone: &'a str,
}

impl<'a> Candidate<'a> {
    fn of(store: &'a StoreInfo, slot: Slot) -> Option<Candidate<'a>> {
        let (score, disk) = best(&store.disks, slot)?;
        Some(Candidate { place: Place { store: store.id, disk }, score, host: &store.host, zone: &store.zone })
    }

    fn shares_host(&self, other: &Candidate<'_>) -> bool {
        !self.host.is_empty() && self.host == other.host && self.zone == other.zone
    }
}
