//! Deleting: only what is old enough, for good, and with the space given back.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{get, put};
use crate::pack::format::{CheckedChunk, Kind, PAGE_BYTES, PackHeader, RecordHeader};
use crate::store::pack::writer::Purpose;
use crate::store::testing::{chunk, kept_indexes, lost_indexes, open};
use crate::wire::store::StoreError;

/// Bytes that the packs of a disk take.
fn allocated(dir: &Path) -> u64 {
    let packs = fs::read_dir(dir.join("packs")).unwrap();
    packs
        .map(|pack| pack.unwrap().path())
        .map(|pack| {
            // Blocks are known when they are written.
            fs::File::open(&pack).unwrap().sync_all().unwrap();
            fs::metadata(pack).unwrap().blocks() * 512
        })
        .sum()
}

#[tokio::test]
async fn epochs_decide() {
    let dir = tempfile::tempdir().unwrap();
    let indexes = kept_indexes();
    let store = open(dir.path(), &indexes);
    let (old, new, touched) = (chunk(1, 5000), chunk(2, 5000), chunk(3, 5000));
    put(&store, &old, 4).await.unwrap();
    put(&store, &new, 5).await.unwrap();
    put(&store, &touched, 1).await.unwrap();
    put(&store, &touched, 5).await.unwrap();
    let ids = [old.id(), new.id(), touched.id(), chunk(4, 10).id()];
    assert_eq!(store.delete(&ids, 5).await, Ok(1));
    assert_eq!(store.delete(&ids, 5).await, Ok(0));
    store.close();
    drop(store);
    for index in [indexes, lost_indexes()] {
        let store = open(dir.path(), &index);
        assert_eq!(get(&store, &old), Err(StoreError::NotFound));
        assert_eq!(get(&store, &new).as_ref(), Ok(new.payload()));
        assert_eq!(get(&store, &touched).as_ref(), Ok(touched.payload()));
        // The touch is remembered with its epoch.
        assert_eq!(store.delete(&ids, 5).await, Ok(0));
        store.close();
    }
    let store = open(dir.path(), &lost_indexes());
    assert_eq!(store.delete(&ids, 6).await, Ok(2));
    store.close();
}

/// What a stop leaves behind that came after the first record of the disk was marked dead, and before the index had
/// forgotten it.
fn mark_first_dead(dir: &Path, chunk: &CheckedChunk) {
    use std::os::unix::fs::FileExt;
    let pack = fs::read_dir(dir.join("packs")).unwrap().next().unwrap().unwrap().path();
    let salt = PackHeader::decode(&fs::read(&pack).unwrap()).unwrap().salt;
    let header = RecordHeader { kind: Kind::Dead, table_checksum: 0, ..chunk.header(1) };
    let file = fs::OpenOptions::new().write(true).open(pack).unwrap();
    file.write_all_at(&header.encode(&salt, PAGE_BYTES as u64), PAGE_BYTES as u64).unwrap();
}

#[tokio::test]
async fn a_put_after_half_a_deletion_stores_the_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let indexes = kept_indexes();
    let store = open(dir.path(), &indexes);
    let chunk = chunk(1, 20_000);
    put(&store, &chunk, 1).await.unwrap();
    store.close();
    drop(store);
    mark_first_dead(dir.path(), &chunk);
    let store = open(dir.path(), &indexes);
    // The order comes again only after somebody has put the chunk at its epoch.
    put(&store, &chunk, 2).await.unwrap();
    assert_eq!(store.delete(&[chunk.id()], 2).await, Ok(0));
    assert_eq!(get(&store, &chunk).as_ref(), Ok(chunk.payload()));
    assert!(store.damaged().is_empty());
    store.close();
    drop(store);
    for index in [indexes, lost_indexes()] {
        let store = open(dir.path(), &index);
        assert_eq!(get(&store, &chunk).as_ref(), Ok(chunk.payload()));
        store.close();
    }
}

#[tokio::test]
async fn half_a_deletion_is_damage_until_it_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let indexes = kept_indexes();
    let store = open(dir.path(), &indexes);
    let chunk = chunk(1, 20_000);
    put(&store, &chunk, 1).await.unwrap();
    store.close();
    drop(store);
    mark_first_dead(dir.path(), &chunk);
    let store = open(dir.path(), &indexes);
    assert!(store.has(&chunk.id()));
    // Until now nobody knew. From now on catch-up does, should another replica still be expected to have it.
    assert_eq!(get(&store, &chunk), Err(StoreError::Damaged));
    assert_eq!((store.damaged(), store.has(&chunk.id())), (vec![chunk.id()], false));
    store.put(vec![chunk.clone()], 1, Purpose::Repair).await.unwrap();
    assert_eq!(get(&store, &chunk).as_ref(), Ok(chunk.payload()));
    assert_eq!(store.delete(&[chunk.id()], 2).await, Ok(1));
    assert_eq!(get(&store, &chunk), Err(StoreError::NotFound));
    store.close();
}

#[tokio::test]
async fn a_deleted_chunk_can_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &lost_indexes());
    let chunk = chunk(1, 100_000);
    put(&store, &chunk, 1).await.unwrap();
    store.delete(&[chunk.id()], 2).await.unwrap();
    // A replica that has not deleted yet does not bring it back, a writer does.
    store.put(vec![chunk.clone()], 1, Purpose::Repair).await.unwrap();
    assert_eq!(get(&store, &chunk), Err(StoreError::NotFound));
    put(&store, &chunk, 2).await.unwrap();
    assert_eq!(get(&store, &chunk).as_ref(), Ok(chunk.payload()));
    store.close();
    drop(store);
    let store = open(dir.path(), &lost_indexes());
    assert_eq!(store.list(chunk.id().slot(), None, 10).unwrap(), [(chunk.id(), 2)]);
    store.close();
}

#[tokio::test]
async fn space_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &lost_indexes());
    let chunks: Vec<CheckedChunk> = (0..40).map(|seed| chunk(seed, 100_000)).collect();
    for chunk in &chunks {
        put(&store, chunk, 1).await.unwrap();
    }
    let full = allocated(dir.path());
    assert!(full >= 4_000_000, "{full}");
    // Every other one: holes. Then all: the packs go too.
    let ids: Vec<_> = chunks.iter().map(CheckedChunk::id).collect();
    let some: Vec<_> = ids.iter().step_by(2).copied().collect();
    assert_eq!(store.delete(&some, 2).await, Ok(20));
    let half = allocated(dir.path());
    assert!(half <= full / 2 + 64 * 1024, "{half} of {full}");
    assert!(chunks.iter().skip(1).step_by(2).all(|chunk| get(&store, chunk).as_ref() == Ok(chunk.payload())));
    store.close();
    drop(store);
    // Nor does a start that reads everything fill the holes.
    let store = open(dir.path(), &lost_indexes());
    let again = allocated(dir.path());
    assert!(again <= half + 64 * 1024, "{again} of {half}");
    assert_eq!(store.delete(&ids, 2).await, Ok(20));
    assert!(allocated(dir.path()) <= 16 * 1024, "{}", allocated(dir.path()));
    assert_eq!(fs::read_dir(dir.path().join("packs")).unwrap().count(), 1);
    assert_eq!(store.reports()[0].chunks, 0);
    store.close();
    drop(store);
    let store = open(dir.path(), &lost_indexes());
    assert_eq!(store.reports()[0].chunks, 0);
    put(&store, &chunks[0], 3).await.unwrap();
    assert_eq!(get(&store, &chunks[0]).as_ref(), Ok(chunks[0].payload()));
    store.close();
}

#[tokio::test]
async fn touches_do_not_pile_up() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &lost_indexes());
    let chunk = chunk(1, 5000);
    for epoch in 1..200 {
        put(&store, &chunk, epoch).await.unwrap();
    }
    assert!(allocated(dir.path()) < 40 * 1024, "{}", allocated(dir.path()));
    assert_eq!(store.delete(&[chunk.id()], 199).await, Ok(0));
    assert_eq!(store.delete(&[chunk.id()], 200).await, Ok(1));
    store.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_beside_deletes_see_all_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = std::sync::Arc::new(open(dir.path(), &lost_indexes()));
    let chunk = chunk(1, 60_000);
    let seen = std::sync::Arc::new(AtomicU64::new(0));
    let reader = {
        let (store, chunk, seen) = (std::sync::Arc::clone(&store), chunk.clone(), std::sync::Arc::clone(&seen));
        std::thread::spawn(move || {
            while std::sync::Arc::strong_count(&store) > 1 {
                match get(&store, &chunk) {
                    Ok(bytes) => {
                        assert_eq!(bytes, chunk.payload());
                        seen.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => assert_eq!(error, StoreError::NotFound),
                }
            }
            store
        })
    };
    // Until the reader has met it in both states, on however slow a machine.
    for epoch in (1..).take_while(|epoch| *epoch < 300 || (*epoch < 100_000 && seen.load(Ordering::Relaxed) == 0)) {
        put(&store, &chunk, epoch).await.unwrap();
        assert_eq!(store.delete(&[chunk.id()], epoch + 1).await, Ok(1));
    }
    drop(store);
    let store = reader.join().unwrap();
    assert!(seen.load(Ordering::Relaxed) > 0);
    assert_eq!(store.reports()[0].damaged, 0);
    store.close();
}
