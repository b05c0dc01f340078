//! Members as the state knows them: the cluster map of stores, and addresses of metadata servers.
//!
//! Who is a voter is Raft's own state and not kept here.

use super::error::StateError;
use super::schema::{Ids, Table, meta_key, single_key};
use super::tx::Tx;
use crate::meta::command::Outcome;
use crate::types::cluster::{ClusterMap, StoreInfo};
use crate::types::id::{MetaId, StoreId};
use crate::types::record::MetaInfo;

/// Puts a store into the map. The map gets a new epoch only when it changed.
pub(super) fn register_store(tx: &mut Tx<'_>, mut info: StoreInfo) -> Result<Outcome, StateError> {
    let mut map: ClusterMap = tx.single(Table::Map)?;
    if info.id == StoreId(0) {
        info.id = identify(&map, &info).unwrap_or_default();
    }
    let mut ids: Ids = tx.single(Table::Ids)?;
    if info.id == StoreId(0) {
        info.id = StoreId(ids.store);
    }
    if info.id.0 >= ids.store {
        ids.store = info.id.0.saturating_add(1);
        tx.put(single_key(Table::Ids), &ids);
    }
    check_disks(&map, &info)?;
    let id = info.id;
    let changed = match map.stores.iter_mut().find(|store| store.id == id) {
        Some(store) if *store == info => false,
        Some(store) => {
            *store = info;
            true
        }
        None => {
            let at = map.stores.partition_point(|store| store.id < id);
            map.stores.insert(at, info);
            true
        }
    };
    if changed {
        map.epoch += 1;
        tx.put(single_key(Table::Map), &map);
    }
    Ok(Outcome::Store { id, map_epoch: map.epoch })
}

/// The store that has one of these disks, or else serves at this address.
fn identify(map: &ClusterMap, info: &StoreInfo) -> Option<StoreId> {
    let has_disk =
        |store: &&StoreInfo| store.disks.iter().any(|disk| info.disks.iter().any(|announced| announced.id == disk.id));
    let by_disk = map.stores.iter().find(has_disk);
    by_disk.or_else(|| map.stores.iter().find(|store| store.address == info.address)).map(|store| store.id)
}

/// A disk belongs to one store.
fn check_disks(map: &ClusterMap, info: &StoreInfo) -> Result<(), StateError> {
    for store in map.stores.iter().filter(|store| store.id != info.id) {
        if let Some(disk) = store.disks.iter().find(|disk| info.disks.iter().any(|other| other.id == disk.id)) {
            return Err(StateError::Refused(format!("disk {} belongs to store {}", disk.id, store.id)));
        }
    }
    Ok(())
}

pub(super) fn add_meta(tx: &mut Tx<'_>, mut info: MetaInfo) -> Result<Outcome, StateError> {
    let mut ids: Ids = tx.single(Table::Ids)?;
    if info.id == MetaId(0) {
        info.id = MetaId(ids.meta);
    }
    if info.id.0 >= ids.meta {
        ids.meta = info.id.0.saturating_add(1);
        tx.put(single_key(Table::Ids), &ids);
    }
    tx.put(meta_key(info.id.0), &info);
    Ok(Outcome::Meta(info.id))
}
