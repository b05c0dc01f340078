//! Several disks, and full ones.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{get, put};
use crate::pack::format::CheckedChunk;
use crate::placement::{best_disk, replicas};
use crate::store::Store;
use crate::store::testing::{chunk, config, lost_indexes, open, parts};
use crate::types::cluster::ClusterMap;
use crate::types::digest::{SLOTS, Slot};
use crate::wire::store::StoreError;

#[tokio::test]
async fn chunks_go_where_placement_says() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let paths: Vec<&Path> = dirs.iter().map(tempfile::TempDir::path).collect();
    let store = Store::open(config(1, &paths), &parts(lost_indexes())).unwrap();
    let mut info = store.info();
    info.disks[1].weight *= 5;
    store.learn(ClusterMap { epoch: 3, stores: vec![info.clone()] });
    let chunks: Vec<CheckedChunk> = (0..90).map(|seed| chunk(seed, 1000)).collect();
    for chunk in &chunks {
        put(&store, chunk, 1).await.unwrap();
    }
    let map = store.table().borrow().map().clone();
    for (at, report) in store.reports().iter().enumerate() {
        let due = |chunk: &&CheckedChunk| replicas(&map, chunk.id().slot(), 3)[0].disk == info.disks[at].id;
        assert_eq!(report.chunks, chunks.iter().filter(due).count() as u64);
        assert!(report.chunks > 0);
    }
    // Put again they are found where they are, whatever a new map says.
    info.disks[1].weight = 0;
    store.learn(ClusterMap { epoch: 4, stores: vec![info] });
    for chunk in &chunks {
        put(&store, chunk, 1).await.unwrap();
        assert_eq!(get(&store, chunk).as_ref(), Ok(chunk.payload()));
    }
    assert_eq!(store.reports().iter().map(|report| report.chunks).sum::<u64>(), 90);
    let listed: usize = (0..SLOTS).map(|slot| store.list(Slot(slot), None, 100).unwrap().len()).sum();
    assert_eq!(listed, 90);
    assert_eq!(store.delete(&chunks.iter().map(CheckedChunk::id).collect::<Vec<_>>(), 2).await, Ok(90));
    store.close();
}

#[tokio::test]
async fn a_failed_disk_leaves_its_slots_to_the_others() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let paths: Vec<&Path> = dirs.iter().map(tempfile::TempDir::path).collect();
    let broken = Arc::new(AtomicBool::new(false));
    let mut parts = parts(lost_indexes());
    let switch = Arc::clone(&broken);
    parts.sync = Arc::new(move |_| match switch.swap(false, Ordering::Relaxed) {
        true => Err(std::io::Error::other("the device is gone")),
        false => Ok(()),
    });
    let store = Store::open(config(1, &paths), &parts).unwrap();
    let both = store.info();
    broken.store(true, Ordering::Relaxed);
    let victim = chunk(1, 1000);
    assert!(matches!(put(&store, &victim, 1).await, Err(StoreError::DiskFailed(_))));
    let left = store.info();
    assert_eq!(left.disks.len(), 1);
    assert_ne!(best_disk(&both.disks, victim.id().slot()), Some(left.disks[0].id));
    for chunk in (2..50).map(|seed| chunk(seed, 1000)).chain([victim]) {
        put(&store, &chunk, 1).await.unwrap();
        assert_eq!(get(&store, &chunk).as_ref(), Ok(chunk.payload()));
    }
    store.close();
}

#[tokio::test]
async fn the_reserve_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(1, &[dir.path()]);
    config.reserve_bytes = Some(u64::MAX);
    let store = Store::open(config, &parts(lost_indexes())).unwrap();
    assert_eq!(put(&store, &chunk(1, 1000), 1).await, Err(StoreError::Full));
    assert_eq!(store.reports()[0].free_bytes, 0);
    assert!(!store.reports()[0].failed);
    store.close();
}

/// A small file system of its own; unmounted when dropped.
struct Small(tempfile::TempDir);

impl Small {
    fn mount(options: &str) -> Small {
        let dir = tempfile::tempdir().unwrap();
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(dir.path()).status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "a_full_disk_says_so_and_can_be_emptied needs root, to mount a small tmpfs"
        );
        Small(dir)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_says_so_and_can_be_emptied() {
    let small = Small::mount("size=4m");
    // Without a reserve: the kernel itself says that it is full.
    let store = open(small.0.path(), &lost_indexes());
    let mut stored = Vec::new();
    let refused = loop {
        let chunk = chunk(stored.len() as u64, 150_000);
        match put(&store, &chunk, 1).await {
            Ok(()) => stored.push(chunk),
            Err(error) => break error,
        }
    };
    assert_eq!(refused, StoreError::Full);
    assert!((20..28).contains(&stored.len()), "{}", stored.len());
    for chunk in &stored {
        assert_eq!(get(&store, chunk).as_ref(), Ok(chunk.payload()));
    }
    let (gone, kept) = stored.split_at(10);
    assert_eq!(store.delete(&gone.iter().map(CheckedChunk::id).collect::<Vec<_>>(), 2).await, Ok(10));
    for chunk in gone {
        put(&store, chunk, 2).await.unwrap();
    }
    store.close();
    drop(store);
    let store = open(small.0.path(), &lost_indexes());
    for chunk in gone.iter().chain(kept) {
        assert_eq!(get(&store, chunk).as_ref(), Ok(chunk.payload()));
    }
    store.close();
}
