//! The placement of every slot, computed once per map.

use crate::types::cluster::{ClusterMap, StoreInfo};
use crate::types::digest::{ChunkId, SLOTS, Slot};
use crate::types::id::StoreId;
use crate::types::limits::REPLICAS_MAX;

use super::{Place, replicas};

/// A map with the places of all slots, for quick look-ups. Immutable: a new map makes a new table.
#[derive(Clone, Debug, Default)]
pub struct Table {
    map: ClusterMap,
    /// One row a slot, at most [`REPLICAS_MAX`] places each.
    rows: Vec<Vec<Place>>,
}

impl Table {
    pub fn new(map: ClusterMap) -> Table {
        let rows = (0..SLOTS).map(|slot| replicas(&map, Slot(slot), REPLICAS_MAX)).collect();
        Table { map, rows }
    }

    pub fn map(&self) -> &ClusterMap {
        &self.map
    }

    pub fn epoch(&self) -> u64 {
        self.map.epoch
    }

    /// The places of `copies` copies (at most [`REPLICAS_MAX`]) of a slot, best first.
    pub fn replicas(&self, slot: Slot, copies: u8) -> &[Place] {
        let row = self.rows.get(usize::from(slot.0)).map_or(&[][..], Vec::as_slice);
        &row[..row.len().min(usize::from(copies))]
    }

    pub fn replicas_of(&self, id: &ChunkId, copies: u8) -> &[Place] {
        self.replicas(id.slot(), copies)
    }

    /// Every store, in the order in which a chunk is most likely to be found.
    pub fn ranking_of(&self, id: &ChunkId) -> Vec<StoreId> {
        let row = self.replicas_of(id, REPLICAS_MAX);
        if row.len() < usize::from(REPLICAS_MAX) {
            return row.iter().map(|place| place.store).collect();
        }
        replicas(&self.map, id.slot(), u8::MAX).into_iter().map(|place| place.store).collect()
    }

    /// The slots of which `store` holds one of the first `copies` copies.
    pub fn slots_of(&self, store: StoreId, copies: u8) -> impl Iterator<Item = Slot> + '_ {
        (0..SLOTS).map(Slot).filter(move |slot| self.replicas(*slot, copies).iter().any(|place| place.store == store))
    }

    pub fn store(&self, id: StoreId) -> Option<&StoreInfo> {
        self.map.stores.iter().find(|store| store.id == id)
    }
}
