//! The storage daemon's engine: chunks on disks.
//!
//! # Layout
//!
//! - [`pack`]: the files that hold chunks; the truth of a disk
//! - [`index`]: where each chunk is; derived from the packs
//! - [`identity`], [`disk`], [`state`]: one disk
//! - [`Store`]: all disks of this daemon together
//! - [`serve`]: the calls of others
//! - [`workers`]: reporting to the metadata service, and keeping copies complete and whole
//!
//! Knows nothing of files, volumes or references: it is told what to keep and what to delete. Never returns bytes it
//! has not checked and never acknowledges bytes that are not durable.

pub mod disk;
pub mod identity;
pub mod index;
pub mod pack;
pub mod serve;
pub mod state;
pub mod workers;

#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::try_join_all;
use tokio::sync::{Notify, watch};

use crate::placement::{Table, best_disk};
use crate::types::cluster::{ClusterMap, DiskInfo, DiskReport, StoreInfo};
use crate::types::digest::{ChunkId, Slot};
use crate::types::id::{ClusterId, StoreId};
use crate::wire::store::{PackDir, PackSpot, StoreError};

use crate::pack::format::CheckedChunk;
use crate::pack::sys::Patience;
use disk::{Disk, DiskOptions, Miss, OpenError, OpenIndex};
use index::Summary;
use pack::writer::{Purpose, SyncFile, WriterOptions};

/// Settings: values.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    pub cluster: ClusterId,
    pub store: StoreId,
    /// `host:port` where others reach this store.
    pub address: String,
    /// Failure domains, for placement; may be empty.
    pub host: String,
    pub zone: String,
    /// One directory a disk.
    pub disks: Vec<PathBuf>,
    /// Where chunk indexes are; in each disk's own directory when `None`.
    pub index_dir: Option<PathBuf>,
    pub pack_bytes: u64,
    /// Space that puts leave alone; `None` is the larger of 64 MiB and one per cent.
    pub reserve_bytes: Option<u64>,
}

/// The largest pack unless told otherwise.
pub const PACK_BYTES_DEFAULT: u64 = 1 << 30;

/// Components: things that do.
#[derive(Clone)]
pub struct StoreParts {
    pub open_index: OpenIndex,
    /// How packs are made durable.
    pub sync: SyncFile,
}

impl StoreParts {
    /// Real durability, over a given index engine.
    pub fn new(open_index: OpenIndex) -> StoreParts {
        StoreParts { open_index, sync: Arc::new(File::sync_data) }
    }
}

/// All disks of one storage daemon.
pub struct Store {
    config: StoreConfig,
    disks: Vec<Disk>,
    table: watch::Sender<Arc<Table>>,
    /// Rung when copies are found damaged.
    repair: Notify,
}

impl Store {
    /// Opens every disk, in parallel, and recovers what is on them. Blocks as long as that takes.
    ///
    /// # Errors
    /// See [`OpenError`]; the first disk that does not open.
    pub fn open(config: StoreConfig, parts: &StoreParts) -> Result<Store, OpenError> {
        if config.disks.is_empty() {
            return Err(OpenError::NoDisk);
        }
        let options = DiskOptions {
            cluster: config.cluster,
            store: config.store,
            index_dir: config.index_dir.clone(),
            open_index: Arc::clone(&parts.open_index),
            writer: WriterOptions {
                pack_bytes: config.pack_bytes,
                reserve_bytes: config.reserve_bytes,
                sync: Arc::clone(&parts.sync),
            },
        };
        let disks = std::thread::scope(|scope| {
            let opening: Vec<_> = config.disks.iter().map(|path| scope.spawn(|| Disk::open(path, &options))).collect();
            let opened = opening.into_iter().map(|disk| match disk.join() {
                Ok(disk) => disk,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            opened.collect::<Result<Vec<Disk>, OpenError>>()
        })?;
        Ok(Store { config, disks, table: watch::Sender::default(), repair: Notify::new() })
    }

    pub fn config(&self) -> &StoreConfig {
        &self.config
    }

    /// As the cluster map will have it. Failed disks are left out: their slots go to the others.
    pub fn info(&self) -> StoreInfo {
        StoreInfo {
            id: self.config.store,
            address: self.config.address.clone(),
            host: self.config.host.clone(),
            zone: self.config.zone.clone(),
            disks: self.usable().filter_map(|disk| disk.info().ok()).collect(),
        }
    }

    pub fn reports(&self) -> Vec<DiskReport> {
        self.disks.iter().map(Disk::report).collect()
    }

    /// The newest placement this store has heard of.
    pub fn table(&self) -> watch::Receiver<Arc<Table>> {
        self.table.subscribe()
    }

    /// Takes a map if it is newer.
    pub fn learn(&self, map: ClusterMap) {
        self.table.send_if_modified(|table| {
            let newer = map.epoch > table.epoch();
            if newer {
                *table = Arc::new(Table::new(map));
            }
            newer
        });
    }

    /// Stores chunks; returns when all are durable.
    ///
    /// # Errors
    /// `Full` or `DiskFailed`; none, some or all of the chunks may be there then.
    pub async fn put(&self, chunks: Vec<CheckedChunk>, epoch: u64, purpose: Purpose) -> Result<(), StoreError> {
        let weights = self.weights();
        let mut by_disk: BTreeMap<usize, Vec<CheckedChunk>> = BTreeMap::new();
        for chunk in chunks {
            by_disk.entry(self.home(&chunk.id(), &weights)?).or_default().push(chunk);
        }
        let puts =
            by_disk.into_iter().filter_map(|(disk, chunks)| Some(self.disks.get(disk)?.put(chunks, epoch, purpose)));
        try_join_all(puts).await.map(drop)
    }

    /// The disk for a chunk: the one that has it already, or the one placement says.
    fn home(&self, id: &ChunkId, weights: &[DiskInfo]) -> Result<usize, StoreError> {
        if self.disks.len() > 1 {
            for (at, disk) in self.disks.iter().enumerate() {
                if !disk.state().is_failed() && disk.entry(id)?.is_some() {
                    return Ok(at);
                }
            }
        }
        let chosen = best_disk(weights, id.slot());
        let at = self.disks.iter().position(|disk| Some(disk.id()) == chosen);
        at.ok_or_else(|| StoreError::DiskFailed("no disk of this store is usable".to_owned()))
    }

    /// The usable disks with the weights everybody else knows, or our own idea of them.
    fn weights(&self) -> Vec<DiskInfo> {
        let table = Arc::clone(&self.table.borrow());
        let known = table.store(self.config.store).map_or(&[][..], |store| &store.disks[..]);
        let weigh = |disk: &Disk| {
            let known = known.iter().find(|info| info.id == disk.id() && info.weight > 0).cloned();
            known.or_else(|| disk.info().ok())
        };
        self.usable().filter_map(weigh).collect()
    }

    fn usable(&self) -> impl Iterator<Item = &Disk> {
        self.disks.iter().filter(|disk| !disk.state().is_failed())
    }

    /// `len` bytes from `offset` of a chunk (0: all that follow), checked, with the length of the whole chunk.
    ///
    /// # Errors
    /// `WouldBlock` in a hurry; otherwise the most telling error of any disk.
    pub fn read(&self, id: &ChunkId, offset: u32, len: u32, patience: Patience) -> Result<(u32, Bytes), Miss> {
        let mut miss = StoreError::NotFound;
        for disk in &self.disks {
            match disk.read(id, offset, len, patience) {
                Err(Miss::Because(StoreError::NotFound)) => {}
                Err(Miss::Because(error)) => {
                    if error == StoreError::Damaged {
                        self.repair.notify_one();
                    }
                    miss = error;
                }
                answer => return answer,
            }
        }
        Err(Miss::Because(miss))
    }

    /// Is a good copy here, as far as is known?
    pub fn has(&self, id: &ChunkId) -> bool {
        self.disks.iter().any(|disk| disk.has(id).unwrap_or(false))
    }

    /// Where a good copy is, as far as is known.
    pub fn locate(&self, id: &ChunkId) -> Option<PackSpot> {
        self.disks.iter().find_map(|disk| disk.locate(id))
    }

    /// Where the packs are, for who may open them.
    pub fn pack_dirs(&self) -> Vec<PackDir> {
        self.disks.iter().map(|disk| PackDir { disk: disk.id(), path: disk.pack_dir().display().to_string() }).collect()
    }

    /// The epoch at which a chunk was last put here, damaged or not.
    pub fn epoch_of(&self, id: &ChunkId) -> Option<u64> {
        self.disks.iter().filter_map(|disk| disk.entry(id).ok().flatten()).map(|entry| entry.put_epoch).max()
    }

    pub fn summary(&self, slot: Slot) -> Summary {
        let mut sum = Summary::default();
        self.usable().for_each(|disk| sum.merge(&disk.summary(slot)));
        sum
    }

    /// Chunks of a slot in order, after one, with the epoch each was last put at; at most `limit`.
    ///
    /// # Errors
    /// `DiskFailed`.
    pub fn list(&self, slot: Slot, after: Option<&ChunkId>, limit: usize) -> Result<Vec<(ChunkId, u64)>, StoreError> {
        let mut all = BTreeMap::new();
        for disk in self.usable() {
            for (id, epoch) in disk.list(slot, after, limit)? {
                let known = all.entry(id).or_insert(epoch);
                *known = epoch.max(*known);
            }
        }
        Ok(all.into_iter().take(limit).collect())
    }

    /// Deletes copies last put before `epoch`; returns how many when that is durable on every usable disk.
    ///
    /// # Errors
    /// `DiskFailed`: the order is to be carried out again.
    pub async fn delete(&self, ids: &[ChunkId], epoch: u64) -> Result<u64, StoreError> {
        let deletes = self.usable().map(|disk| disk.delete(ids.to_vec(), epoch));
        Ok(try_join_all(deletes).await?.into_iter().sum())
    }

    /// Copies known to be damaged and not yet replaced.
    pub fn damaged(&self) -> Vec<ChunkId> {
        self.usable().flat_map(|disk| disk.state().damaged()).collect()
    }

    /// Returns when a reader has met damage since the last time.
    pub async fn damage_met(&self) {
        self.repair.notified().await;
    }

    /// Makes the indexes durable up to now. May wait for the devices.
    pub fn checkpoint(&self) {
        self.disks.iter().for_each(Disk::checkpoint);
    }

    /// Finishes what is queued and leaves clean disks. Waits for the devices.
    pub fn close(&self) {
        self.disks.iter().for_each(Disk::close);
    }
}
