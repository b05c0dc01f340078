//! The client against a metadata service in memory: leases, recalls, reclaims, exactly-once, expiry.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::api::{Handle, LockCall, NewInode, OpenMode, Owner, Posix, WriteRequest};
use super::chunks::ChunkStore;
use super::kernel::KernelCache;
use super::{Client, ClientConfig};
use crate::remote::fake::{CHUNK_BYTES, FakeMeta, FakeNet};
use crate::remote::meta::MetaClient;
use crate::types::attr::{SetAttr, SetTime, Time};
use crate::types::digest::ChunkId;
use crate::types::error::FsError;
use crate::types::id::Ino;
use crate::types::lock::{LockMode, LockRange, LockSpace};
use crate::types::name::Name;
use crate::types::op::{NewNode, RenameMode, XattrMode};
use crate::types::session::{Hold, Lease};

mod alone;
mod attrs;
mod bounds;
mod exclusive;
mod kernel;
mod killed;
mod killed_anywhere;
mod locks;
mod quota;
mod resume;
mod shared;
mod turns;
mod walk;

#[derive(Default)]
struct Chunks {
    chunks: Mutex<HashMap<ChunkId, Bytes>>,
    full: AtomicBool,
    /// Nobody answers.
    away: AtomicBool,
    puts: AtomicU64,
}

impl ChunkStore for Chunks {
    fn put<'a>(&'a self, chunks: &'a [(ChunkId, Bytes)], _: u64, _: u8) -> BoxFuture<'a, Result<(), FsError>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_micros(200)).await;
            if self.away.load(Ordering::Relaxed) {
                return Err(FsError::Unreachable);
            }
            if self.full.load(Ordering::Relaxed) {
                return Err(FsError::NoSpace);
            }
            self.puts.fetch_add(chunks.len() as u64, Ordering::Relaxed);
            self.chunks.lock().extend(chunks.iter().cloned());
            Ok(())
        })
    }

    fn get(&self, id: ChunkId, offset: u32, len: u32, _: u32) -> BoxFuture<'_, Result<Bytes, FsError>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_micros(200)).await;
            if self.away.load(Ordering::Relaxed) {
                return Err(FsError::Unreachable);
            }
            let chunks = self.chunks.lock();
            let bytes = chunks.get(&id).ok_or(FsError::ChunkLost(id))?;
            Ok(bytes.slice(offset as usize..(offset + len) as usize))
        })
    }
}

struct Cluster {
    meta: Arc<FakeMeta>,
    chunks: Arc<Chunks>,
}

impl Cluster {
    fn new() -> Cluster {
        let chunks = Arc::new(Chunks::default());
        let stored = chunks.clone();
        Cluster { meta: FakeMeta::new(move |id| stored.chunks.lock().contains_key(id)), chunks }
    }

    async fn client(&self) -> Client {
        self.client_with(|_| {}).await
    }

    async fn client_with(&self, set: impl FnOnce(&mut ClientConfig)) -> Client {
        let mut config = ClientConfig::new("v", "test");
        set(&mut config);
        let addresses = vec!["b:1".into(), "a:1".into()];
        let meta = Arc::new(MetaClient::new(Arc::new(FakeNet(self.meta.clone())), addresses));
        let client = Client::start(config, meta, self.chunks.clone()).await.unwrap();
        // Until its stream of events is open, recalls wait.
        tokio::time::sleep(Duration::from_millis(10)).await;
        client
    }
}

const RW: OpenMode = OpenMode { read: true, write: true, sync: false };

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn new(node: NewNode) -> NewInode {
    NewInode { node, mode: 0o644, umask: 0, owner: Owner::default() }
}

fn at(offset: u64, data: &[u8]) -> WriteRequest<'_> {
    WriteRequest { offset, data, append: false, clear_privileges: false, sync: false }
}

async fn create(client: &Client, text: &str) -> (Ino, Handle) {
    let (attr, handle) = client.create(Ino::ROOT, name(text), new(NewNode::File), true, RW).await.unwrap();
    (attr.ino, handle)
}

async fn write(client: &Client, ino: Ino, handle: Handle, offset: u64, data: &[u8]) {
    assert_eq!(client.write(ino, handle, at(offset, data)).await, Ok(data.len() as u32));
}

async fn read(client: &Client, ino: Ino, handle: Handle, offset: u64, len: u32) -> Vec<u8> {
    client.read(ino, handle, offset, len).await.unwrap().to_vec()
}

fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| (at as u64 * 31 + (at as u64 >> 8)) as u8 ^ seed).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_leased_costs_nothing() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let (ino, handle) = create(&client, "f").await;
    assert!(client.try_lookup(Ino::ROOT, &name("f")).is_some(), "an own create is known without asking");
    assert!(client.try_getattr(Ino::ROOT).is_some(), "and so is what it made of the directory");
    assert_eq!(client.lookup(Ino::ROOT, name("nothing")).await, Err(FsError::NotFound));
    assert_eq!(client.try_lookup(Ino::ROOT, &name("nothing")), Some(Err(FsError::NotFound)));
    assert_eq!(client.try_write(ino, handle, at(0, b"hello")), Some(Ok(5)));
    assert_eq!(client.try_getattr(ino).unwrap().unwrap().size, 5);
    assert_eq!(client.try_lookup(Ino::ROOT, &name("f")).unwrap().unwrap().size, 5);
    assert_eq!(client.try_read(ino, handle, 1, 100), Some(Ok(Bytes::from_static(b"ello"))));
    create(&client, "nothing").await;
    assert!(client.try_lookup(Ino::ROOT, &name("nothing")).unwrap().is_ok());
    client.unlink(Ino::ROOT, name("nothing")).await.unwrap();
    assert_eq!(client.try_lookup(Ino::ROOT, &name("nothing")), Some(Err(FsError::NotFound)));
    client.rename((Ino::ROOT, name("f")), (Ino::ROOT, name("g")), RenameMode::Replace).await.unwrap();
    assert_eq!(client.try_lookup(Ino::ROOT, &name("f")), Some(Err(FsError::NotFound)));
    client.sync().await.unwrap();
    assert_eq!(cluster.meta.attr(ino).unwrap().size, 5);
    assert_eq!(client.lookup(Ino::ROOT, name("g")).await.unwrap().ino, ino);
}

#[tokio::test(start_paused = true)]
async fn bytes_come_back_from_memory_and_from_the_stores() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let (ino, handle) = create(&client, "f").await;
    let mut model = vec![0; 5 * CHUNK_BYTES as usize];
    let writes = [(0, 3 * CHUNK_BYTES as usize), (100_000, 70_000), (10, 20), (300_000, 1_000), (65_530, 12)];
    for (round, (offset, len)) in writes.into_iter().enumerate() {
        let data = pattern(len, round as u8);
        write(&client, ino, handle, offset as u64, &data).await;
        model[offset..offset + len].copy_from_slice(&data);
        if round == 2 {
            client.fsync(ino, Some(handle)).await.unwrap();
        }
        assert_eq!(
            read(&client, ino, handle, 0, 301_000).await,
            &model[..301_000.min(client.getattr(ino).await.unwrap().size as usize)]
        );
    }
    client.fsync(ino, Some(handle)).await.unwrap();
    assert!(cluster.chunks.puts.load(Ordering::Relaxed) > 0);
    let other = cluster.client().await;
    let theirs = other.open(ino, RW).await.unwrap();
    assert_eq!(read(&other, ino, theirs, 0, 1 << 20).await, &model[..301_000]);
    assert_eq!(read(&other, ino, theirs, 299_999, 7).await, &model[299_999..300_006]);
    assert_eq!(read(&other, ino, theirs, 301_000, 7).await, b"");
}

#[tokio::test(start_paused = true)]
async fn the_other_sees_what_was_written_last() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let (ino, ha) = create(&a, "log").await;
    a.try_write(ino, ha, at(0, b"one")).unwrap().unwrap();
    assert_eq!(b.lookup(Ino::ROOT, name("log")).await.unwrap().size, 3, "stat recalls the write lease");
    let hb = b.open(ino, RW).await.unwrap();
    assert_eq!(read(&b, ino, hb, 0, 10).await, b"one");
    let mut expected = b"one".to_vec();
    for round in 0..50u8 {
        let (client, handle) = if round % 2 == 0 { (&b, hb) } else { (&a, ha) };
        let data = [round; 100];
        let record = WriteRequest { append: true, ..at(0, &data) };
        client.write(ino, handle, record).await.unwrap();
        expected.extend([round; 100]);
        for (client, handle) in [(&a, ha), (&b, hb)] {
            assert_eq!(client.getattr(ino).await.unwrap().size, expected.len() as u64);
            assert_eq!(read(client, ino, handle, 0, 10_000).await, expected);
        }
    }
    assert!(cluster.meta.count("recall") > 0);
}

#[tokio::test(start_paused = true)]
async fn appends_of_two_are_neither_lost_nor_torn() {
    append_from_two(7).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn appends_of_two_on_real_threads() {
    append_from_two(1).await;
}

async fn append_from_two(pause_ms: u64) {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let (ino, ha) = create(&a, "log").await;
    let hb = b.open(ino, RW).await.unwrap();
    let append = |client: Client, handle: Handle, who: u8| async move {
        for record in 0..100u8 {
            let data = [who, record, who ^ record, 0xFF];
            client.write(ino, handle, WriteRequest { append: true, ..at(0, &data) }).await.unwrap();
            if record % 10 == 0 {
                tokio::time::sleep(Duration::from_millis(u64::from(record) * pause_ms)).await;
            }
        }
    };
    let (one, two) = (tokio::spawn(append(a.clone(), ha, 1)), tokio::spawn(append(b.clone(), hb, 2)));
    one.await.unwrap();
    two.await.unwrap();
    let all = read(&a, ino, ha, 0, 10_000).await;
    assert_eq!(all.len(), 800);
    let mut next = [0u8; 3];
    for record in all.chunks(4) {
        let who = usize::from(record[0]);
        assert_eq!(record, [record[0], next[who], record[0] ^ next[who], 0xFF]);
        next[who] += 1;
    }
}

#[tokio::test(start_paused = true)]
async fn negative_entries_end_when_another_creates() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    for round in 0..5 {
        let text = format!("f{round}");
        assert_eq!(a.lookup(Ino::ROOT, name(&text)).await, Err(FsError::NotFound));
        create(&b, &text).await;
        assert!(a.lookup(Ino::ROOT, name(&text)).await.is_ok());
        let listed = a.readdir(Ino::ROOT, None, 0).await.unwrap();
        assert_eq!(listed.len(), round + 1);
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_whose_answer_is_lost_happens_once() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    cluster.meta.fault(|faults| faults.lose_replies = 2);
    let (ino, handle) = create(&client, "f").await;
    write(&client, ino, handle, 0, b"abc").await;
    cluster.meta.fault(|faults| faults.lose_replies = 1);
    client.fsync(ino, Some(handle)).await.unwrap();
    cluster.meta.fault(|faults| faults.lose_replies = 1);
    client.unlink(Ino::ROOT, name("f")).await.unwrap();
    client.sync().await.unwrap();
    assert_eq!((cluster.meta.count("change"), cluster.meta.count("ship")), (1, 2), "numbers; file and data; removal");
}

#[tokio::test(start_paused = true)]
async fn dirty_data_outlives_a_change_of_leader() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let (ino, handle) = create(&a, "f").await;
    a.try_write(ino, handle, at(0, b"kept")).unwrap().unwrap();
    cluster.meta.fail_over();
    let seen = b.lookup(Ino::ROOT, name("f")).await.unwrap();
    assert_eq!(seen.size, 4, "the new leader knows of the write lease and recalls it");
    assert_eq!(a.fsync(ino, Some(handle)).await, Ok(()));
    assert!(cluster.meta.hold(ino).iter().any(|hold| hold.open));
}

#[tokio::test(start_paused = true)]
async fn an_election_is_waited_out() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    cluster.meta.fault(|faults| faults.away = true);
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.make(Ino::ROOT, name("d"), new(NewNode::Dir)).await }
    });
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!waiting.is_finished());
    cluster.meta.fault(|faults| faults.away = false);
    cluster.meta.fail_over();
    waiting.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn leases_lapse_when_the_cluster_is_away() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let (ino, handle) = create(&client, "f").await;
    assert!(client.try_getattr(ino).is_some());
    client.getattr(Ino::ROOT).await.unwrap();
    cluster.meta.fault(|faults| faults.away = true);
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert!(client.try_getattr(ino).is_none());
    assert!(client.try_write(ino, handle, at(0, b"x")).is_none());
    assert!(client.try_getattr(Ino::ROOT).is_some(), "the root answers from memory");
    cluster.meta.fault(|faults| faults.away = false);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(client.try_getattr(ino).is_some());
}

#[tokio::test(start_paused = true)]
async fn an_expired_session_is_reported_once_per_handle() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let (ino, one) = create(&client, "f").await;
    let two = client.open(ino, RW).await.unwrap();
    let (orphan, lost) = create(&client, "gone").await;
    client.unlink(Ino::ROOT, name("gone")).await.unwrap();
    client.sync().await.unwrap();
    client.try_write(ino, one, at(0, b"never")).unwrap().unwrap();
    cluster.meta.expire_all();
    tokio::time::sleep(Duration::from_secs(3)).await;
    for handle in [one, two] {
        assert_eq!(client.fsync(ino, Some(handle)).await, Err(FsError::SessionExpired));
        assert_eq!(client.fsync(ino, Some(handle)).await, Ok(()));
    }
    assert_eq!(client.read(orphan, lost, 0, 1).await, Err(FsError::Stale));
    write(&client, ino, one, 0, b"again").await;
    client.fsync(ino, Some(one)).await.unwrap();
    assert_eq!(cluster.meta.attr(ino).unwrap().size, 5);
}

/// What a flush had on its way when its session expired is not to come back over what others wrote since.
#[tokio::test(start_paused = true)]
async fn a_flush_does_not_outlive_its_session() {
    let cluster = Cluster::new();
    cluster.meta.fault(|faults| faults.patience_ms = 2_000);
    let (a, b) = (cluster.client().await, cluster.client().await);
    let (ino, ours) = create(&a, "f").await;
    a.try_write(ino, ours, at(0, &pattern(50_000, 1))).unwrap().unwrap();
    cluster.chunks.away.store(true, Ordering::Relaxed);
    let syncing = a.clone();
    let flush = tokio::spawn(async move { syncing.fsync(ino, Some(ours)).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    cluster.meta.expire_all_but(2);
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let theirs = b.open(ino, RW).await.unwrap();
    write(&b, ino, theirs, 0, b"theirs").await;
    b.fsync(ino, Some(theirs)).await.unwrap();
    assert!(flush.await.unwrap().is_err());
    cluster.chunks.away.store(false, Ordering::Relaxed);
    a.fsync(ino, Some(ours)).await.unwrap();
    assert_eq!(read(&a, ino, ours, 0, 100).await, b"theirs");
    assert_eq!(cluster.meta.attr(ino).unwrap().size, 6);
}

#[tokio::test(start_paused = true)]
async fn a_full_cluster_fails_the_write_that_meets_it() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let (ino, handle) = create(&client, "f").await;
    write(&client, ino, handle, 0, b"before").await;
    client.fsync(ino, Some(handle)).await.unwrap();
    client.try_write(ino, handle, at(0, b"BEFORE")).unwrap().unwrap();
    cluster.meta.fault(|faults| faults.full = true);
    assert_eq!(client.fsync(ino, Some(handle)).await, Err(FsError::NoSpace));
    assert_eq!(client.fsync(ino, Some(handle)).await, Ok(()));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(client.try_write(ino, handle, at(0, b"x")).is_none());
    assert_eq!(client.write(ino, handle, at(0, b"x")).await, Err(FsError::NoSpace));
    assert_eq!(read(&client, ino, handle, 0, 10).await, b"before");
    assert!(client.setattr(ino, SetAttr { size: Some(1), ..SetAttr::default() }).await.is_ok());
    client.unlink(Ino::ROOT, name("f")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn chunks_are_put_again_when_told() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let (ino, handle) = create(&client, "f").await;
    write(&client, ino, handle, 0, &pattern(50_000, 1)).await;
    cluster.meta.fault(|faults| faults.put_again = true);
    client.fsync(ino, Some(handle)).await.unwrap();
    assert_eq!(cluster.chunks.puts.load(Ordering::Relaxed), 2);
    assert_eq!(cluster.meta.attr(ino).unwrap().size, 50_000);
}

#[tokio::test(start_paused = true)]
async fn an_explicit_time_stays_after_the_write_before_it() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let (ino, handle) = create(&client, "f").await;
    client.try_write(ino, handle, at(0, b"data")).unwrap().unwrap();
    let then = Time { sec: 77, nsec: 5 };
    let set = SetAttr { mtime: Some(SetTime::At(then)), ..SetAttr::default() };
    assert_eq!(client.setattr(ino, set).await.unwrap().mtime, then);
    client.fsync(ino, Some(handle)).await.unwrap();
    assert_eq!(cluster.meta.count("ship"), 1, "the file, the write and the time are one command");
    assert_eq!(client.getattr(ino).await.unwrap().mtime, then);
    assert_eq!(cluster.meta.attr(ino).unwrap().mtime, then);
    let shrunk = client.setattr(ino, SetAttr { size: Some(2), ..SetAttr::default() }).await.unwrap();
    assert_eq!(shrunk.size, 2);
    assert_eq!(read(&client, ino, handle, 0, 10).await, b"da");
}

#[tokio::test(start_paused = true)]
async fn an_orphan_is_let_go_with_its_last_handle() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let (ino, handle) = create(&a, "f").await;
    write(&a, ino, handle, 0, b"still here").await;
    b.unlink(Ino::ROOT, name("f")).await.unwrap();
    assert_eq!(read(&a, ino, handle, 0, 100).await, b"still here");
    assert_eq!(a.getattr(ino).await.unwrap().nlink, 0);
    a.release(ino, handle, None).await.unwrap();
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(cluster.meta.attr(ino), None);
}

#[tokio::test(start_paused = true)]
async fn data_is_written_back_by_itself_within_a_second() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let (ino, handle) = create(&client, "f").await;
    client.try_write(ino, handle, at(0, b"soon")).unwrap().unwrap();
    client.release(ino, handle, None).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(cluster.meta.attr(ino).unwrap().size, 4);
}

#[tokio::test(start_paused = true)]
async fn long_extent_lists_are_rewritten() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let (ino, handle) = create(&client, "f").await;
    let mut model = vec![0u8; 80_000];
    for round in 0..400usize {
        let (offset, data) = (round * 131 % 79_900, [round as u8 | 1; 50]);
        write(&client, ino, handle, offset as u64, &data).await;
        model[offset..offset + 50].copy_from_slice(&data);
        client.fsync(ino, Some(handle)).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(cluster.meta.count("compact") > 0);
    let size = client.getattr(ino).await.unwrap().size as usize;
    assert_eq!(read(&client, ino, handle, 0, 80_000).await, &model[..size]);
    let other = cluster.client().await;
    let theirs = other.open(ino, RW).await.unwrap();
    assert_eq!(read(&other, ino, theirs, 0, 80_000).await, &model[..size]);
}

#[tokio::test(start_paused = true)]
async fn locks_are_waited_for_and_given_up() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let (ino, handle) = create(&a, "f").await;
    let range = LockRange { start: 0, end: u64::MAX >> 1 };
    let call = LockCall { space: LockSpace::Range, owner: 9, mode: Some(LockMode::Exclusive), range, pid: 1 };
    a.setlk(ino, call, false).await.unwrap();
    assert_eq!(b.setlk(ino, call, false).await, Err(FsError::WouldBlock));
    let given_up = tokio::time::timeout(Duration::from_secs(1), b.setlk(ino, call, true)).await;
    assert!(given_up.is_err());
    let waiter = tokio::spawn({
        let b = b.clone();
        async move { b.setlk(ino, call, true).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waiter.is_finished());
    a.flush(ino, handle, 9).await.unwrap();
    waiter.await.unwrap().unwrap();
    let changes = cluster.meta.count("change");
    a.flush(ino, handle, 9).await.unwrap();
    assert_eq!(cluster.meta.count("change"), changes, "a close without locks asks nobody");
}

#[tokio::test(start_paused = true)]
async fn appends_beside_own_changes_go_to_the_true_end() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let (ino, handle) = create(&client, "log").await;
    let renaming = tokio::spawn({
        let client = client.clone();
        async move {
            for _ in 0..100 {
                client.setxattr(ino, b"user.x".to_vec(), vec![1], crate::types::op::XattrMode::Set).await.unwrap();
            }
        }
    });
    let mut size = 0;
    for record in 0..400u32 {
        let data = record.to_le_bytes();
        client.write(ino, handle, WriteRequest { append: true, ..at(0, &data) }).await.unwrap();
        size += 4;
        assert_eq!(client.getattr(ino).await.unwrap().size, size, "what was written before is counted");
        if record % 7 == 0 {
            let syncing = client.clone();
            tokio::spawn(async move { syncing.fsync(ino, Some(handle)).await });
        }
    }
    renaming.await.unwrap();
    let all = read(&client, ino, handle, 0, 10_000).await;
    let records: Vec<u32> = all.chunks(4).map(|record| u32::from_le_bytes(record.try_into().unwrap())).collect();
    assert_eq!(records, (0..400).collect::<Vec<u32>>());
}

/// One operation after another, each on one of two clients, against a byte vector: whatever the leases do in between,
/// the next call sees what the last one did.
async fn take_turns(seed: u64) {
    let cluster = Cluster::new();
    let small = |config: &mut ClientConfig| config.memory_bytes = 2 << 20;
    let clients = [cluster.client_with(small).await, cluster.client_with(small).await];
    let (ino, first) = create(&clients[0], "f").await;
    let handles = [first, clients[1].open(ino, RW).await.unwrap()];
    let mut model: Vec<u8> = Vec::new();
    let mut random = seed * 2 + 1;
    let mut next = |bound: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % bound
    };
    for step in 0..150u64 {
        let who = next(2) as usize;
        let (client, handle) = (&clients[who], handles[who]);
        match next(9) {
            0..=2 => {
                let len = if next(4) == 0 { next(200_000) } else { next(3_000) } as usize + 1;
                let (offset, data) = (next(300_000) as usize, pattern(len, step as u8));
                model.resize(model.len().max(offset + len), 0);
                model[offset..offset + len].copy_from_slice(&data);
                write(client, ino, handle, offset as u64, &data).await;
            }
            3 => {
                let data = pattern(next(500) as usize + 1, step as u8);
                model.extend(&data);
                client.write(ino, handle, WriteRequest { append: true, ..at(0, &data) }).await.unwrap();
            }
            4 => {
                let size = next(400_000);
                model.resize(size as usize, 0);
                let set = SetAttr { size: Some(size), ..SetAttr::default() };
                assert_eq!(client.setattr(ino, set).await.unwrap().size, size);
            }
            5 => client.fsync(ino, Some(handle)).await.unwrap(),
            6 => tokio::time::sleep(Duration::from_millis(next(1_500))).await,
            7 if next(8) == 0 => cluster.meta.fail_over(),
            _ => {
                let (from, len) = (next(400_000) as usize, next(150_000) as usize);
                let end = (from + len).min(model.len());
                let seen = read(client, ino, handle, from as u64, len as u32).await;
                assert!(seen == model[from.min(end)..end], "seed {seed}, step {step}: bytes differ");
            }
        }
        assert_eq!(client.getattr(ino).await.unwrap().size, model.len() as u64, "seed {seed}, step {step}");
    }
    for client in &clients {
        client.stop().await.unwrap();
    }
    assert_eq!(cluster.meta.attr(ino).unwrap().size, model.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn two_clients_taking_turns_are_one_file() {
    for seed in 1..=20 {
        take_turns(seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn stopping_leaves_nothing_behind() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let (ino, handle) = create(&client, "f").await;
    client.try_write(ino, handle, at(0, b"last words")).unwrap().unwrap();
    client.stop().await.unwrap();
    assert_eq!(cluster.meta.attr(ino).unwrap().size, 10);
    assert_eq!(cluster.meta.hold(ino), Vec::<Hold>::new());
    assert_eq!(cluster.meta.hold(Ino::ROOT).iter().filter(|hold| hold.lease > Lease::None).count(), 0);
}

#[tokio::test(start_paused = true)]
async fn stores_that_are_away_are_waited_for() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let (ino, handle) = create(&client, "f").await;
    let data = pattern(100_000, 3);
    cluster.chunks.away.store(true, Ordering::Relaxed);
    client.try_write(ino, handle, at(0, &data)).unwrap().unwrap();
    let (syncing, done) = (client.clone(), tokio::time::sleep(Duration::from_secs(30)));
    let flush = tokio::spawn(async move { syncing.fsync(ino, Some(handle)).await });
    done.await;
    assert!(!flush.is_finished());
    cluster.chunks.away.store(false, Ordering::Relaxed);
    flush.await.unwrap().unwrap();
    assert_eq!(read(&client, ino, handle, 0, 100_000).await, data);
}

#[tokio::test(start_paused = true)]
async fn with_little_room_left_closing_waits_for_the_stores() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let (ino, handle) = create(&client, "f").await;
    client.try_write(ino, handle, at(0, &pattern(100_000, 3))).unwrap().unwrap();
    client.flush(ino, handle, 1).await.unwrap();
    cluster.meta.fault(|faults| faults.free_bytes = 500 << 20);
    tokio::time::sleep(Duration::from_secs(3)).await;
    client.try_write(ino, handle, at(200_000, &pattern(50_000, 4))).unwrap().unwrap();
    cluster.chunks.full.store(true, Ordering::Relaxed);
    assert_eq!(client.flush(ino, handle, 1).await, Err(FsError::NoSpace));
}

#[tokio::test(start_paused = true)]
async fn an_attribute_is_set_after_what_was_written() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let (ino, handle) = create(&client, "f").await;
    client.try_write(ino, handle, at(0, b"program")).unwrap().unwrap();
    let before = cluster.meta.count("change");
    client.setxattr(ino, b"security.capability".to_vec(), b"may".to_vec(), XattrMode::Set).await.unwrap();
    assert_eq!(cluster.meta.attr(ino).unwrap().size, 7, "the write would take the capability away if it came later");
    assert_eq!(cluster.meta.count("change"), before + 1, "one command");
}
