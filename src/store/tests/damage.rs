//! Bits that flipped.

use std::fs;
use std::path::Path;

use super::{get, put, read};
use crate::pack::format::{PAGE_BYTES, RECORD_HEADER_BYTES, payload_start};
use crate::store::pack::writer::Purpose;
use crate::store::testing::{chunk, kept_indexes, lost_indexes, open};
use crate::wire::store::StoreError;

fn flip(dir: &Path, at: usize) {
    let pack = fs::read_dir(dir.join("packs")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&pack).unwrap();
    bytes[at] ^= 0x20;
    // Written in place: the store has it open.
    use std::os::unix::fs::FileExt;
    let file = fs::OpenOptions::new().write(true).open(pack).unwrap();
    file.write_all_at(&bytes[at..=at], at as u64).unwrap();
}

#[tokio::test]
async fn a_flipped_bit_is_never_returned() {
    let len = 50_000;
    let payload_at = PAGE_BYTES + payload_start(len);
    let places = [
        PAGE_BYTES,
        PAGE_BYTES + 20,
        PAGE_BYTES + RECORD_HEADER_BYTES - 1,
        PAGE_BYTES + RECORD_HEADER_BYTES,
        PAGE_BYTES + RECORD_HEADER_BYTES + 40,
        payload_at,
        payload_at + 40_000,
        payload_at + len as usize - 1,
    ];
    for place in places {
        let dir = tempfile::tempdir().unwrap();
        let indexes = kept_indexes();
        let store = open(dir.path(), &indexes);
        let chunk = chunk(place as u64, len as usize);
        put(&store, &chunk, 1).await.unwrap();
        flip(dir.path(), place);
        assert_eq!(get(&store, &chunk), Err(StoreError::Damaged), "byte {place}");
        assert_eq!((store.damaged(), store.reports()[0].damaged), (vec![chunk.id()], 1));
        assert!(!store.has(&chunk.id()));
        // A piece elsewhere is still good, unless what vouches for it is not.
        let other_end = if place > payload_at + 4096 { 0 } else { 45_000 };
        let elsewhere = read(&store, &chunk.id(), other_end, 100);
        assert_eq!(elsewhere.is_ok(), place >= payload_at, "byte {place}");

        // A new copy replaces it, here and after a restart with and without the index.
        store.put(vec![chunk.clone()], 1, Purpose::Repair).await.unwrap();
        assert_eq!(get(&store, &chunk).as_ref(), Ok(chunk.payload()));
        assert!(store.damaged().is_empty());
        store.close();
        drop(store);
        for index in [indexes, lost_indexes()] {
            let store = open(dir.path(), &index);
            assert_eq!(get(&store, &chunk).as_ref(), Ok(chunk.payload()));
            assert_eq!(store.reports()[0].chunks, 1);
            store.close();
        }
    }
}

#[tokio::test]
async fn unused_bytes_may_rot() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &lost_indexes());
    let chunk = chunk(1, 5000);
    put(&store, &chunk, 1).await.unwrap();
    flip(dir.path(), PAGE_BYTES + payload_start(5000) + 5001);
    assert_eq!(get(&store, &chunk).as_ref(), Ok(chunk.payload()));
    store.close();
}

#[tokio::test]
async fn a_lost_pack_header_is_damage_and_not_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let indexes = kept_indexes();
    let store = open(dir.path(), &indexes);
    let chunks: Vec<_> = (0..3).map(|seed| chunk(seed, 20_000)).collect();
    for chunk in &chunks {
        put(&store, chunk, 1).await.unwrap();
    }
    store.close();
    drop(store);
    flip(dir.path(), 50);
    flip(dir.path(), 2048 + 50);
    let store = open(dir.path(), &indexes);
    assert_eq!(get(&store, &chunks[0]), Err(StoreError::Damaged));
    for chunk in &chunks {
        let _ = get(&store, chunk);
        store.put(vec![chunk.clone()], 1, Purpose::Repair).await.unwrap();
        assert_eq!(get(&store, chunk).as_ref(), Ok(chunk.payload()));
    }
    store.close();
}

#[tokio::test]
async fn a_pack_stored_as_a_file_is_not_taken_for_a_pack() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &lost_indexes());
    let inner = chunk(1, 8192);
    put(&store, &inner, 1).await.unwrap();
    let pack = fs::read_dir(dir.path().join("packs")).unwrap().next().unwrap().unwrap().path();
    let bytes = bytes::Bytes::from(fs::read(&pack).unwrap());
    let outer = crate::pack::format::CheckedChunk::check(crate::types::digest::ChunkId::of(&bytes), bytes);
    let outer = outer.unwrap();
    put(&store, &outer, 1).await.unwrap();
    store.delete(&[inner.id()], 2).await.unwrap();
    store.close();
    drop(store);
    // The outer record's header is lost, so that the scan walks through its payload.
    flip(dir.path(), PAGE_BYTES + inner.record_bytes() as usize + 8);
    let store = open(dir.path(), &lost_indexes());
    assert_eq!(get(&store, &inner), Err(StoreError::NotFound));
    assert_eq!(get(&store, &outer), Err(StoreError::NotFound));
    store.close();
}
