//! The engine as a whole: what is acknowledged survives, what is damaged never comes back, what is deleted is gone.

mod cluster;
mod crash;
mod damage;
mod delete;
mod disks;
mod orders;
mod serving;
mod short_circuit;

use bytes::Bytes;

use super::Store;
use super::disk::Miss;
use super::pack::writer::Purpose;
use super::testing::{chunk, kept_indexes, lost_indexes, open};
use crate::pack::format::CheckedChunk;
use crate::pack::sys::Patience;
use crate::types::digest::ChunkId;
use crate::wire::store::StoreError;

async fn put(store: &Store, chunk: &CheckedChunk, epoch: u64) -> Result<(), StoreError> {
    store.put(vec![chunk.clone()], epoch, Purpose::Write).await
}

fn get(store: &Store, chunk: &CheckedChunk) -> Result<Bytes, StoreError> {
    read(store, &chunk.id(), 0, chunk.payload_bytes())
}

fn read(store: &Store, id: &ChunkId, offset: u32, len: u32) -> Result<Bytes, StoreError> {
    match store.read(id, offset, len, Patience::Wait) {
        Ok((_, bytes)) => Ok(bytes),
        Err(Miss::Because(error)) => Err(error),
        Err(Miss::WouldBlock) => panic!("a patient read gave up"),
    }
}

#[tokio::test]
async fn every_range_of_a_chunk_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &lost_indexes());
    for len in [1, 4095, 4096, 4097, 70_000, 300_001] {
        let chunk = chunk(len as u64, len);
        put(&store, &chunk, 1).await.unwrap();
        let len = len as u32;
        for (offset, end) in [(0, len), (0, 1), (len - 1, len), (len / 2, len), (len / 3, len / 3 + 1)] {
            let expected = chunk.payload().slice(offset as usize..end as usize);
            assert_eq!(read(&store, &chunk.id(), offset, end - offset), Ok(expected), "{offset}..{end} of {len}");
        }
        assert_eq!(read(&store, &chunk.id(), len / 2, 0), Ok(chunk.payload().slice(len as usize / 2..)));
        for (offset, bytes) in [(0, len + 1), (len, 1), (len, 0), (u32::MAX, 0), (u32::MAX, 2)] {
            assert_eq!(read(&store, &chunk.id(), offset, bytes), Err(StoreError::Invalid));
        }
    }
    assert_eq!(read(&store, &ChunkId([0; 32]), 0, 1), Err(StoreError::NotFound));
    store.close();
}

#[tokio::test]
async fn what_is_in_memory_is_read_in_a_hurry() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &lost_indexes());
    let chunk = chunk(1, 100_000);
    put(&store, &chunk, 1).await.unwrap();
    assert!(store.read(&chunk.id(), 50_000, 10, Patience::Hurry).is_ok());
    store.close();
}

#[tokio::test]
async fn a_chunk_is_stored_once_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &lost_indexes());
    let (a, b) = (chunk(1, 10_000), chunk(2, 20_000));
    put(&store, &a, 1).await.unwrap();
    let before = store.reports()[0].clone();
    store.put(vec![a.clone(), b.clone(), b.clone()], 1, Purpose::Write).await.unwrap();
    put(&store, &a, 0).await.unwrap();
    let after = store.reports()[0].clone();
    assert_eq!((after.chunks, after.chunk_bytes), (2, 30_000));
    assert_eq!((before.dedup_hits, before.dedup_bytes), (0, 0));
    // `b` twice in one call is the caller's affair and may or may not count.
    assert!(after.dedup_hits >= 2 && after.dedup_bytes >= 20_000);
    store.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn puts_and_gets_from_many_tasks() {
    let dir = tempfile::tempdir().unwrap();
    let store = std::sync::Arc::new(open(dir.path(), &kept_indexes()));
    let tasks: Vec<_> = (0..8_u64)
        .map(|task| {
            let store = std::sync::Arc::clone(&store);
            tokio::spawn(async move {
                for round in 0..40 {
                    // Half of them are put by everybody.
                    let seed = if round % 2 == 0 { round } else { task * 1000 + round };
                    let chunk = chunk(seed, 1 + (seed as usize * 977) % 30_000);
                    put(&store, &chunk, 1).await.unwrap();
                    assert_eq!(get(&store, &chunk).as_ref(), Ok(chunk.payload()));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let report = store.reports()[0].clone();
    assert_eq!((report.chunks, report.dedup_hits), (20 + 8 * 20, 7 * 20));
    store.close();
}

#[tokio::test]
async fn a_commit_is_shared() {
    let dir = tempfile::tempdir().unwrap();
    let (began, begun) = std::sync::mpsc::channel();
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let gone = parking_lot::Mutex::new(gone);
    let mut parts = super::testing::parts(lost_indexes());
    parts.sync = std::sync::Arc::new(move |_| {
        let _ = began.send(());
        let _ = gone.lock().recv();
        Ok(())
    });
    let store = Store::open(super::testing::config(1, &[dir.path()]), &parts).unwrap();
    let chunks: Vec<_> = (0..20).map(|seed| chunk(seed, 5000)).collect();
    let mut first = Box::pin(put(&store, &chunks[0], 1));
    assert!(futures_util::poll!(&mut first).is_pending());
    begun.recv().unwrap();
    // The device is busy with the first; these wait, and are then made durable together.
    let mut rest: Vec<_> = chunks[1..].iter().map(|chunk| Box::pin(put(&store, chunk, 1))).collect();
    for put in &mut rest {
        assert!(futures_util::poll!(put).is_pending());
    }
    drop(go);
    first.await.unwrap();
    for put in rest {
        put.await.unwrap();
    }
    assert_eq!(begun.try_iter().count(), 1);
    store.close();
}
