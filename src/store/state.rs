//! What the threads that work on one disk share: whether it still works, what it counts, what it found damaged, what it
//! is deleting this moment.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::types::digest::ChunkId;
use crate::wire::store::StoreError;

use super::index::Position;

/// Damaged chunks remembered for repair; more than this are found again by the next reader.
const DAMAGED_MAX: usize = 65_536;

#[derive(Debug, Default)]
pub struct DiskState {
    failed: Mutex<Option<String>>,
    damaged: Mutex<HashSet<ChunkId>>,
    /// Marked dead in the packs, or about to be, and perhaps still in the index.
    doomed: Mutex<HashSet<ChunkId>>,
    position: Mutex<Position>,
    pub counts: Counts,
}

/// Since the store started.
#[derive(Debug, Default)]
pub struct Counts {
    pub dedup_hits: AtomicU64,
    pub dedup_bytes: AtomicU64,
    pub damaged: AtomicU64,
    pub syncs: AtomicU64,
}

impl DiskState {
    /// Nothing is written to this disk any more until the store is started again: after a failed write or sync nobody
    /// knows what is on it. Reads go on, they check what they read.
    pub fn fail(&self, why: &str) -> StoreError {
        let mut failed = self.failed.lock();
        if failed.is_none() {
            tracing::error!(why, "a disk has failed; nothing is written to it any more");
            *failed = Some(why.to_owned());
        }
        StoreError::DiskFailed(failed.clone().unwrap_or_default())
    }

    /// # Errors
    /// `DiskFailed`.
    pub fn check(&self) -> Result<(), StoreError> {
        match &*self.failed.lock() {
            Some(why) => Err(StoreError::DiskFailed(why.clone())),
            None => Ok(()),
        }
    }

    pub fn is_failed(&self) -> bool {
        self.failed.lock().is_some()
    }

    /// A copy did not pass its checks.
    pub fn found_damaged(&self, id: ChunkId) {
        let mut damaged = self.damaged.lock();
        if damaged.len() < DAMAGED_MAX && damaged.insert(id) {
            self.counts.damaged.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(chunk = %id, "a copy is damaged and will be fetched from another replica");
        }
    }

    /// A copy was replaced or deleted.
    pub fn mended(&self, id: &ChunkId) {
        self.damaged.lock().remove(id);
    }

    pub fn is_damaged(&self, id: &ChunkId) -> bool {
        self.damaged.lock().contains(id)
    }

    pub fn damaged(&self) -> Vec<ChunkId> {
        self.damaged.lock().iter().copied().collect()
    }

    /// Said before the first record is marked dead.
    pub fn begin_delete(&self, ids: impl Iterator<Item = ChunkId>) {
        self.doomed.lock().extend(ids);
    }

    /// Said when the index has forgotten them. If that never comes the disk has failed.
    pub fn end_delete(&self) {
        self.doomed.lock().clear();
    }

    pub fn is_doomed(&self, id: &ChunkId) -> bool {
        self.doomed.lock().contains(id)
    }

    /// Everything before it is in the index (not necessarily flushed).
    pub fn position(&self) -> Position {
        *self.position.lock()
    }

    pub fn advance(&self, position: Position) {
        *self.position.lock() = position;
    }
}
