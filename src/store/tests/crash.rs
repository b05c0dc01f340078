//! Stops at the worst moments.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use super::{get, put};
use crate::pack::format::{CheckedChunk, PAGE_BYTES};
use crate::store::Store;
use crate::store::pack::writer::Purpose;
use crate::store::testing::{chunk, config, kept_indexes, lost_indexes, open, parts};
use crate::wire::store::StoreError;

fn packs(dir: &Path) -> Vec<PathBuf> {
    let mut packs: Vec<PathBuf> = fs::read_dir(dir.join("packs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    packs.sort();
    packs
}

/// What a power cut leaves: the first `len` bytes of the last pack, and the rest of the disk.
fn image(from: &Path, to: &Path, len: u64) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to.join("packs")).unwrap();
    fs::copy(from.join("disk.toml"), to.join("disk.toml")).unwrap();
    for pack in packs(from) {
        fs::copy(&pack, to.join("packs").join(pack.file_name().unwrap())).unwrap();
    }
    let last = packs(to).pop().unwrap();
    OpenOptions::new().write(true).open(last).unwrap().set_len(len).unwrap();
}

/// Lengths to cut at: every byte near record boundaries, some of each page between.
fn cuts(ends: &[u64]) -> Vec<u64> {
    let last = *ends.last().unwrap();
    let near = |len: &u64| {
        let in_page = len % PAGE_BYTES as u64;
        ends.iter().any(|end| end.abs_diff(*len) < 3)
            || in_page < 2
            || in_page == 64
            || in_page == 68
            || in_page.is_multiple_of(977)
    };
    (0..=last).filter(near).collect()
}

#[tokio::test]
async fn every_prefix_of_the_last_pack_recovers() {
    let (dir, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(dir.path(), &lost_indexes());
    let mut chunks: Vec<(CheckedChunk, u64)> = Vec::new();
    for seed in 0..5 {
        let chunk = chunk(seed, 1 + seed as usize * 3001);
        put(&store, &chunk, 1).await.unwrap();
        let end = fs::metadata(packs(dir.path()).pop().unwrap()).unwrap().len();
        chunks.push((chunk, end));
    }
    store.close();
    drop(store);
    let ends: Vec<u64> = chunks.iter().map(|(_, end)| *end).collect();
    for len in cuts(&ends) {
        image(dir.path(), cut.path(), len);
        let store = open(cut.path(), &lost_indexes());
        let mut survivors = 0;
        for (chunk, end) in &chunks {
            let expected = if *end <= len { Ok(chunk.payload().clone()) } else { Err(StoreError::NotFound) };
            survivors += u64::from(expected.is_ok());
            assert_eq!(get(&store, chunk), expected, "cut at {len}");
        }
        assert_eq!(store.reports()[0].chunks, survivors);
        assert_eq!(store.reports()[0].damaged, 0);
        // And it goes on.
        let new = chunk(99, 5000);
        put(&store, &new, 1).await.unwrap();
        assert_eq!(get(&store, &new).as_ref(), Ok(new.payload()));
        store.close();
    }
}

#[tokio::test]
async fn a_torn_record_among_good_ones_vanishes_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &lost_indexes());
    let chunks: Vec<CheckedChunk> = (0..3).map(|seed| chunk(seed, 9000)).collect();
    store.put(chunks.clone(), 1, Purpose::Write).await.unwrap();
    store.close();
    drop(store);
    // The device wrote the batch out of order: a page in the middle of the second never came.
    let pack = packs(dir.path()).pop().unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    let second = PAGE_BYTES + chunks[0].record_bytes() as usize + 2 * PAGE_BYTES;
    bytes[second..second + PAGE_BYTES].fill(0);
    fs::write(&pack, &bytes).unwrap();
    for _ in 0..2 {
        let store = open(dir.path(), &lost_indexes());
        assert_eq!(get(&store, &chunks[0]).as_ref(), Ok(chunks[0].payload()));
        assert_eq!(get(&store, &chunks[1]), Err(StoreError::NotFound));
        assert_eq!(get(&store, &chunks[2]).as_ref(), Ok(chunks[2].payload()));
        store.close();
    }
}

/// What a later release has written is no tail to be cut off.
#[tokio::test]
async fn records_of_a_later_release_are_refused_and_stay() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &lost_indexes());
    put(&store, &chunk(1, 9000), 1).await.unwrap();
    store.close();
    drop(store);
    let pack = packs(dir.path()).pop().unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    let (salt, at) = (bytes[48..64].to_vec(), PAGE_BYTES);
    bytes[at + 4] += 1;
    let sum = crc32c::crc32c_append(crc32c::crc32c(&salt), &(at as u64).to_le_bytes());
    let sum = crc32c::crc32c_append(sum, &bytes[at..at + 60]);
    bytes[at + 60..at + 64].copy_from_slice(&sum.to_le_bytes());
    fs::write(&pack, &bytes).unwrap();
    let refused = Store::open(config(1, &[dir.path()]), &parts(lost_indexes())).map(drop).unwrap_err();
    assert!(refused.to_string().contains("newer"), "{refused}");
    assert_eq!(fs::read(&pack).unwrap(), bytes);
}

#[tokio::test]
async fn a_lost_index_is_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &lost_indexes());
    // Several packs of 1 MiB.
    let chunks: Vec<CheckedChunk> = (0..60).map(|seed| chunk(seed, 50_000 + seed as usize)).collect();
    for chunk in &chunks {
        put(&store, chunk, chunk.id().0[0].into()).await.unwrap();
    }
    store.delete(&chunks.iter().take(20).map(CheckedChunk::id).collect::<Vec<_>>(), 1000).await.unwrap();
    put(&store, &chunks[30], 777).await.unwrap();
    let (report, slots) = (store.reports(), slots(&store));
    store.close();
    drop(store);
    assert!(packs(dir.path()).len() > 2);
    let store = open(dir.path(), &lost_indexes());
    assert_eq!(self::slots(&store), slots);
    assert_eq!(store.reports()[0].chunks, report[0].chunks);
    assert_eq!(store.reports()[0].chunk_bytes, report[0].chunk_bytes);
    for (at, chunk) in chunks.iter().enumerate() {
        assert_eq!(get(&store, chunk).is_ok(), at >= 20);
    }
    store.close();
}

/// Everything the store says it has, with epochs.
fn slots(store: &Store) -> Vec<(crate::types::digest::ChunkId, u64)> {
    let slots = (0..crate::types::digest::SLOTS).map(crate::types::digest::Slot);
    slots.flat_map(|slot| store.list(slot, None, 4096).unwrap()).collect()
}

#[tokio::test]
async fn an_index_behind_the_packs_catches_up() {
    let dir = tempfile::tempdir().unwrap();
    let indexes = kept_indexes();
    let early: Vec<CheckedChunk> = (0..30).map(|seed| chunk(seed, 60_000)).collect();
    let late: Vec<CheckedChunk> = (30..60).map(|seed| chunk(seed, 60_000)).collect();
    let store = open(dir.path(), &indexes);
    for chunk in &early {
        put(&store, chunk, 1).await.unwrap();
    }
    store.close();
    drop(store);
    // Written under another index: the kept one does not know of these.
    let other = lost_indexes();
    let store = open(dir.path(), &other);
    for chunk in &late {
        put(&store, chunk, 1).await.unwrap();
    }
    put(&store, &early[3], 9).await.unwrap();
    store.close();
    drop(store);
    let store = open(dir.path(), &indexes);
    for chunk in early.iter().chain(&late) {
        assert_eq!(get(&store, chunk).as_ref(), Ok(chunk.payload()));
    }
    let listed = store.list(early[3].id().slot(), None, 4096).unwrap();
    assert!(listed.contains(&(early[3].id(), 9)));
    store.close();
}

#[tokio::test]
async fn an_index_that_does_not_open_is_replaced() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &lost_indexes());
    let chunk = chunk(1, 1000);
    put(&store, &chunk, 1).await.unwrap();
    store.close();
    drop(store);
    let tries = AtomicU32::new(0);
    let lost = lost_indexes();
    let failing_once: crate::store::disk::OpenIndex = Arc::new(move |path: &Path| {
        let stale = path.join("stale");
        if tries.fetch_add(1, Ordering::Relaxed) == 0 {
            fs::write(stale, b"").unwrap();
            return Err(crate::kv::KvError("corrupt".to_owned()));
        }
        assert!(!stale.exists(), "the old directory was not thrown away");
        lost(path)
    });
    let store = open(dir.path(), &failing_once);
    assert_eq!(get(&store, &chunk).as_ref(), Ok(chunk.payload()));
    store.close();
}

#[tokio::test]
async fn a_failed_sync_poisons_the_disk_for_writing_only() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    let dir = tempfile::tempdir().unwrap();
    let broken = Arc::new(AtomicBool::new(false));
    let mut parts = crate::store::testing::parts(lost_indexes());
    let switch = Arc::clone(&broken);
    parts.sync = Arc::new(move |_| match switch.load(Ordering::Relaxed) {
        true => Err(std::io::Error::other("the device is gone")),
        false => Ok(()),
    });
    let store = crate::store::Store::open(crate::store::testing::config(1, &[dir.path()]), &parts).unwrap();
    let (good, bad) = (chunk(1, 5000), chunk(2, 5000));
    put(&store, &good, 1).await.unwrap();
    broken.store(true, Ordering::Relaxed);
    assert!(matches!(put(&store, &bad, 1).await, Err(StoreError::DiskFailed(_))));
    // Even when the device says that it is well again.
    broken.store(false, Ordering::Relaxed);
    assert!(matches!(put(&store, &bad, 1).await, Err(StoreError::DiskFailed(_))));
    assert_eq!(get(&store, &good).as_ref(), Ok(good.payload()));
    assert_eq!(get(&store, &bad), Err(StoreError::NotFound));
    assert!(store.reports()[0].failed);
    assert!(store.info().disks.is_empty());
    store.close();
}

#[tokio::test]
async fn what_may_be_in_memory_only_is_made_durable_before_it_is_indexed() {
    use std::fs::File;
    use std::sync::Arc;
    use std::time::SystemTime;

    use parking_lot::Mutex;

    use crate::store::{Store, testing};
    let dir = tempfile::tempdir().unwrap();
    let indexes = kept_indexes();
    let (early, late) = (chunk(1, 50_000), chunk(2, 50_000));
    let store = open(dir.path(), &indexes);
    put(&store, &early, 1).await.unwrap();
    store.close();
    drop(store);
    let pack = packs(dir.path()).pop().unwrap();
    let known = fs::metadata(&pack).unwrap().len();
    let store = open(dir.path(), &lost_indexes());
    put(&store, &late, 1).await.unwrap();
    store.close();
    drop(store);

    // The device does not take it: nothing of it is indexed, and nothing is served from then on.
    let mut parts = testing::parts(Arc::clone(&indexes));
    parts.sync = Arc::new(|_| Err(std::io::Error::other("the device is gone")));
    assert!(Store::open(testing::config(1, &[dir.path()]), &parts).is_err());
    let whole = fs::read(&pack).unwrap();
    OpenOptions::new().write(true).open(&pack).unwrap().set_len(known).unwrap();
    let store = open(dir.path(), &indexes);
    assert_eq!(get(&store, &early).as_ref(), Ok(early.payload()));
    assert_eq!(get(&store, &late), Err(StoreError::NotFound));
    store.close();
    drop(store);

    // It does: the bytes were written once more before that was asked, and once is enough.
    fs::write(&pack, whole).unwrap();
    OpenOptions::new().write(true).open(&pack).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let synced = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&synced);
    parts.sync = Arc::new(move |file: &File| {
        told.lock().push(file.metadata()?.modified()?);
        Ok(())
    });
    for _ in 0..2 {
        let store = Store::open(testing::config(1, &[dir.path()]), &parts).unwrap();
        assert_eq!(get(&store, &late).as_ref(), Ok(late.payload()));
        store.close();
        drop(store);
        assert!(synced.lock().len() == 1 && synced.lock()[0] > SystemTime::UNIX_EPOCH, "{:?}", synced.lock());
    }
}
