//! The client's memory bound: how much is dirty and cached, and who has to wait.
//!
//! A part of the bound is for the program, its connections and what is on its way to the stores. Of the rest dirty bytes may take
//! a quarter, and as much again as they lie in the memory that outlives a client ([`super::kept`]; what each piece of a write is known
//! by there, 24 bytes beside the 88 or more that it takes, comes from what the program has); cached chunk pieces, extents with
//! the inline data in them, inodes, and names an eighth each. A writer that finds its share full waits until a flush has given
//! some back.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Notify, Semaphore, SemaphorePermit};

/// Rough cost of one cached inode with its share of entries.
const NODE_BYTES: u64 = 1 << 10;

/// What a client takes that keeps nothing: the program, connections, requests; where chunks are on this host (5 MiB); and what is
/// on its way.
const FIXED_BYTES: u64 = 61 << 20;
/// Of it, in KiB: what calls to the stores may carry at a time, in copies that were gathered from many small writes.
const PUTS_KIB: u32 = 16 << 10;

/// Of a bound: what is for data and caches.
fn shared_bytes(bound_bytes: u64) -> u64 {
    bound_bytes.saturating_sub(FIXED_BYTES).max(bound_bytes / 4)
}

/// What may be taken before it is stored, as it is noted for the next client.
pub fn log_bytes(bound_bytes: u64) -> u64 {
    shared_bytes(bound_bytes) / 4
}

pub struct Memory {
    dirty_bytes_max: u64,
    cache_bytes_max: u64,
    nodes_max: usize,
    extent_bytes_max: usize,
    name_bytes_max: usize,
    dirty_bytes: AtomicU64,
    cached_bytes: AtomicU64,
    high_bytes: AtomicU64,
    room: Notify,
    pressure: Notify,
    puts: Semaphore,
}

impl Memory {
    pub fn new(bound_bytes: u64) -> Memory {
        let shared = shared_bytes(bound_bytes);
        Memory {
            dirty_bytes_max: shared / 4,
            cache_bytes_max: shared / 8,
            nodes_max: (shared / 8 / NODE_BYTES).max(64) as usize,
            extent_bytes_max: (shared / 8) as usize,
            name_bytes_max: (shared / 8) as usize,
            dirty_bytes: AtomicU64::new(0),
            cached_bytes: AtomicU64::new(0),
            high_bytes: AtomicU64::new(0),
            room: Notify::new(),
            pressure: Notify::new(),
            puts: Semaphore::new(PUTS_KIB as usize),
        }
    }

    /// What dirty bytes may take.
    pub fn dirty_bytes_max(&self) -> u64 {
        self.dirty_bytes_max
    }

    pub fn cache_bytes_max(&self) -> u64 {
        self.cache_bytes_max
    }

    /// What the extents of all inodes may take together, the inline data in them included.
    pub fn extent_bytes_max(&self) -> usize {
        self.extent_bytes_max
    }

    /// What the names in all directories may take together.
    pub fn name_bytes_max(&self) -> usize {
        self.name_bytes_max
    }

    pub fn nodes_max(&self) -> usize {
        self.nodes_max
    }

    pub fn dirty_bytes(&self) -> u64 {
        self.dirty_bytes.load(Ordering::Relaxed)
    }

    /// The most that buffers and caches ever took together.
    pub fn high_bytes(&self) -> u64 {
        self.high_bytes.load(Ordering::Relaxed)
    }

    /// Takes room for dirty bytes, if there is some. A single write larger than the share gets it when nothing else is
    /// dirty.
    pub fn try_take(&self, bytes: u64) -> bool {
        let fits = |dirty: u64| (dirty == 0 || dirty + bytes <= self.dirty_bytes_max).then_some(dirty + bytes);
        let taken = self.dirty_bytes.fetch_update(Ordering::AcqRel, Ordering::Relaxed, fits).is_ok();
        if taken {
            self.note_high();
        } else {
            self.press();
        }
        taken
    }

    /// Waits for room.
    pub async fn take(&self, bytes: u64) {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if self.try_take(bytes) {
                return;
            }
            room.await;
        }
    }

    /// Waits until so much may be on its way to the stores, for as long as the permit is kept.
    pub async fn put(&self, bytes: u64) -> Option<SemaphorePermit<'_>> {
        let kib = u32::try_from(bytes >> 10).unwrap_or(u32::MAX).clamp(1, PUTS_KIB);
        self.puts.acquire_many(kib).await.ok()
    }

    /// Takes room for bytes that are there already, whatever there is.
    pub fn take_over(&self, bytes: u64) {
        self.dirty_bytes.fetch_add(bytes, Ordering::AcqRel);
        self.note_high();
    }

    pub fn give(&self, bytes: u64) {
        if bytes > 0 {
            let before = self.dirty_bytes.fetch_sub(bytes, Ordering::AcqRel);
            debug_assert!(before >= bytes, "more dirty bytes given back than taken");
            self.room.notify_waiters();
        }
    }

    /// Somebody waits for room, or soon will: half of the share is taken.
    pub fn is_tight(&self) -> bool {
        self.dirty_bytes() > self.dirty_bytes_max / 2
    }

    /// What is dirty should be stored soon.
    pub fn press(&self) {
        self.pressure.notify_one();
    }

    /// Returns when a writer found no room.
    pub async fn pressed(&self) {
        self.pressure.notified().await;
    }

    pub fn cached(&self, grown: u64, shrunk: u64) {
        self.cached_bytes.fetch_add(grown, Ordering::Relaxed);
        self.cached_bytes.fetch_sub(shrunk, Ordering::Relaxed);
        self.note_high();
    }

    fn note_high(&self) {
        let now = self.dirty_bytes.load(Ordering::Relaxed) + self.cached_bytes.load(Ordering::Relaxed);
        self.high_bytes.fetch_max(now, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn writers_wait_for_room() {
        let memory = Memory::new(6_400);
        memory.take(300).await;
        assert!(!memory.try_take(200));
        let waiter = memory.take(200);
        tokio::pin!(waiter);
        assert!(futures_util::poll!(waiter.as_mut()).is_pending());
        memory.give(300);
        waiter.await;
        assert_eq!((memory.dirty_bytes(), memory.high_bytes()), (200, 300));
    }
}
