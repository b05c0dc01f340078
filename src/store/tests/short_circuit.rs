//! A client on the host of a store reads its disks itself, and is none the worse when it cannot.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use super::cluster::{Cluster, flip_in_all_packs};
use super::put;
use crate::pack::format::{CheckedChunk, PAGE_BYTES, file_name, payload_start};
use crate::remote::store::{Part, StoreClient, StoreClientOptions};
use crate::store::testing::chunk;

const LEN: u32 = 200_000;

fn part(chunk: &CheckedChunk, offset: u32, len: u32) -> Part {
    Part { id: chunk.id(), offset, len, chunk_bytes: chunk.payload_bytes() }
}

fn whole(chunk: &CheckedChunk) -> Part {
    part(chunk, 0, chunk.payload_bytes())
}

/// A store with a chunk, and a client that has not asked it anything yet.
async fn setup() -> (Cluster, StoreClient, CheckedChunk) {
    let (cluster, chunk) = (Cluster::of(1), chunk(1, LEN as usize));
    put(&cluster.stores[0], &chunk, 1).await.unwrap();
    // Patient: this machine may be busy, and a read that is given up is what one of these tests is about.
    let hedge_after = Duration::from_secs(20);
    let client =
        cluster.client_with(StoreClientOptions { short_circuit: true, hedge_after, ..StoreClientOptions::default() });
    (cluster, client, chunk)
}

/// The first read that is answered from the disk here.
async fn first_near(client: &StoreClient, part: Part) -> Bytes {
    for _ in 0..10_000 {
        if let Some(bytes) = client.read_near(part).await {
            return bytes;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("the store is not found to be near");
}

async fn get(client: &StoreClient, part: Part) -> Bytes {
    client.get(part.id, part.offset, part.len, part.chunk_bytes).await.unwrap()
}

#[tokio::test]
async fn what_is_located_is_read_without_a_call() {
    let (cluster, client, chunk) = setup().await;
    assert!(client.peek(whole(&chunk)).is_none(), "nobody has said where it is");
    assert!(client.read_near(whole(&chunk)).await.is_none(), "the first read waits for no answer");
    assert_eq!(&first_near(&client, whole(&chunk)).await, chunk.payload());
    let calls = cluster.mesh.calls();
    for (offset, len) in [(0, 1), (4_095, 2), (150_000, 50_000), (LEN - 1, 1)] {
        let range = offset as usize..(offset + len) as usize;
        assert_eq!(client.read_near(part(&chunk, offset, len)).await.unwrap(), chunk.payload().slice(range.clone()));
        assert_eq!(client.peek(part(&chunk, offset, len)).unwrap(), chunk.payload().slice(range));
    }
    assert_eq!(cluster.mesh.calls(), calls);
    // The store stops, its disk is still there.
    cluster.mesh.leave("store1");
    assert!(client.peek(whole(&chunk)).is_some());
    for (offset, len) in [(LEN, 1), (LEN - 1, 2), (0, 0), (u32::MAX, 2)] {
        assert!(client.peek(part(&chunk, offset, len)).is_none(), "{offset}, {len}");
    }
    cluster.close();
}

#[tokio::test]
async fn a_bit_comes_with_the_place_of_its_chunk() {
    let (cluster, client, chunk) = setup().await;
    let other = crate::store::testing::chunk(2, LEN as usize);
    put(&cluster.stores[0], &other, 1).await.unwrap();
    first_near(&client, whole(&chunk)).await;
    let calls = cluster.mesh.calls();
    assert_eq!(client.read_near(part(&other, 100_000, 5)).await.unwrap(), other.payload().slice(100_000..100_005));
    assert_eq!(cluster.mesh.calls(), calls + 1);
    assert_eq!(&client.peek(whole(&other)).unwrap(), other.payload());
    cluster.close();
}

#[tokio::test]
async fn a_flipped_bit_is_not_read_and_the_store_hears_of_it() {
    let (cluster, client, chunk) = setup().await;
    first_near(&client, whole(&chunk)).await;
    let at = PAGE_BYTES + payload_start(LEN) + 100_000;
    flip_in_all_packs(cluster.dirs[0].path(), at as u64);
    assert!(client.peek(part(&chunk, 0, 4_096)).is_some(), "another piece is good");
    assert!(client.peek(whole(&chunk)).is_none());
    assert!(client.peek(part(&chunk, 0, 4_096)).is_none(), "its place is forgotten");
    assert!(client.read_near(whole(&chunk)).await.is_none());
    assert_eq!(cluster.stores[0].damaged(), [chunk.id()]);
    assert!(client.read_near(whole(&chunk)).await.is_none(), "the store names no place for what it knows is damaged");
    cluster.close();
}

#[tokio::test]
async fn what_was_deleted_is_not_read() {
    let (cluster, client, chunk) = setup().await;
    let other = crate::store::testing::chunk(2, 5_000);
    put(&cluster.stores[0], &other, 9).await.unwrap();
    first_near(&client, whole(&chunk)).await;
    assert_eq!(cluster.stores[0].delete(&[chunk.id()], 2).await, Ok(1));
    assert!(client.peek(whole(&chunk)).is_none());
    assert!(client.read_near(whole(&chunk)).await.is_none());
    assert_eq!(&client.read_near(whole(&other)).await.unwrap(), other.payload());
    cluster.close();
}

#[tokio::test]
async fn a_pack_of_another_disk_is_not_taken_for_it() {
    let (cluster, client, first) = setup().await;
    let theirs = Cluster::of(1);
    put(&theirs.stores[0], &first, 1).await.unwrap();
    // The same in both, so that only the header tells the packs apart; the last lies in the second pack.
    let chunks: Vec<CheckedChunk> = (2..8).map(|seed| crate::store::testing::chunk(seed, LEN as usize)).collect();
    for chunk in &chunks {
        put(&cluster.stores[0], chunk, 1).await.unwrap();
        put(&theirs.stores[0], chunk, 1).await.unwrap();
    }
    let last = chunks.last().unwrap();
    first_near(&client, whole(&first)).await;
    assert!(client.read_near(part(last, 0, 1)).await.is_some(), "its place has come with it");
    let second = |cluster: &Cluster| cluster.dirs[0].path().join("packs").join(file_name(2));
    // The store goes on with the file that it has open.
    fs::remove_file(second(&cluster)).unwrap();
    fs::copy(second(&theirs), second(&cluster)).unwrap();
    assert_eq!(&client.read_near(whole(last)).await.unwrap(), last.payload(), "by the store");
    assert!(client.peek(whole(last)).is_none());
    assert_eq!(&client.peek(whole(&first)).unwrap(), first.payload());
    cluster.close();
    theirs.close();
}

#[tokio::test]
async fn a_store_elsewhere_is_asked_once_and_then_read_through() {
    let (cluster, client, chunk) = setup().await;
    fs::rename(cluster.dirs[0].path().join("packs"), cluster.dirs[0].path().join("elsewhere")).unwrap();
    assert!(client.read_near(whole(&chunk)).await.is_none());
    let settled = tokio::time::timeout(Duration::from_secs(20), async {
        while cluster.mesh.calls() == 0 {
            tokio::task::yield_now().await;
        }
    });
    settled.await.unwrap();
    for _ in 0..100 {
        assert!(client.read_near(whole(&chunk)).await.is_none());
        assert_eq!(client.expect(vec![whole(&chunk)]), [whole(&chunk)]);
        tokio::task::yield_now().await;
    }
    assert_eq!(cluster.mesh.calls(), 1);
    assert_eq!(&get(&client, part(&chunk, 0, LEN)).await, chunk.payload());
    cluster.close();
}

/// Has the kernel drop the pages of all packs of a store.
fn drop_pages(dir: &Path) {
    for pack in fs::read_dir(dir.join("packs")).unwrap() {
        let file = fs::File::open(pack.unwrap().path()).unwrap();
        file.sync_all().unwrap();
        // SAFETY: plain integers and an open descriptor.
        assert_eq!(unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) }, 0);
    }
}

#[tokio::test]
async fn what_is_expected_is_brought_into_memory() {
    let (cluster, client, chunk) = setup().await;
    let other = crate::store::testing::chunk(2, LEN as usize);
    put(&cluster.stores[0], &other, 1).await.unwrap();
    first_near(&client, whole(&chunk)).await;
    drop_pages(cluster.dirs[0].path());
    assert!(client.peek(whole(&chunk)).is_none(), "needs a temporary directory on a disk");
    assert_eq!(client.expect(vec![whole(&chunk), whole(&other)]), []);
    let arrived = tokio::time::timeout(Duration::from_secs(20), async {
        while client.peek(whole(&other)).is_none() || client.peek(whole(&chunk)).is_none() {
            tokio::task::yield_now().await;
        }
    });
    arrived.await.unwrap();
    cluster.close();
}

#[tokio::test]
async fn a_host_that_looks_alike_is_another() {
    let (cluster, client, chunk) = setup().await;
    let (packs, theirs) = (cluster.dirs[0].path().join("packs"), Cluster::of(1));
    put(&theirs.stores[0], &chunk, 1).await.unwrap();
    fs::rename(&packs, cluster.dirs[0].path().join("elsewhere")).unwrap();
    fs::rename(theirs.dirs[0].path().join("packs"), &packs).unwrap();
    for _ in 0..100 {
        assert!(client.read_near(whole(&chunk)).await.is_none());
        assert_eq!(&get(&client, whole(&chunk)).await, chunk.payload());
    }
    // Where the packs are was asked once, and never where a chunk is.
    assert_eq!(cluster.mesh.calls(), 101);
    cluster.close();
    theirs.close();
}

#[tokio::test]
async fn nothing_of_it_happens_where_it_is_not_wanted() {
    let (cluster, _, chunk) = setup().await;
    let client = cluster.client_with(StoreClientOptions::default());
    assert!(client.read_near(whole(&chunk)).await.is_none());
    assert_eq!(client.expect(vec![whole(&chunk)]), [whole(&chunk)]);
    assert_eq!(cluster.mesh.calls(), 0);
    cluster.close();
}
