//! What hosts share besides bytes: mappings that no lease covers, locks that are lost, news that does not come.

use super::*;
use crate::types::lock::{LockMode, LockRange, LockSpace};

/// A kernel that counts what it is asked to drop.
#[derive(Default)]
struct Counting {
    drops: AtomicU64,
}

impl Counting {
    fn drops(&self) -> u64 {
        self.drops.load(Ordering::Relaxed)
    }
}

impl KernelCache for Counting {
    fn drop_pages(&self, _: Ino) -> BoxFuture<'static, ()> {
        self.drops.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::ready(()))
    }
}

fn exclusive(owner: u64) -> LockCall {
    let range = LockRange { start: 0, end: u64::MAX >> 1 };
    LockCall { space: LockSpace::Flock, owner, mode: Some(LockMode::Exclusive), range, pid: 1 }
}

/// A read for the kernel's pages.
async fn fill(client: &Client, ino: Ino, handle: Handle) -> Vec<u8> {
    client.fills_pages(ino);
    read(client, ino, handle, 0, 10).await
}

/// A file that `b` has open and on which nobody has a lease, because `a` just wrote to it.
async fn contended(a: &Client, b: &Client) -> (Ino, Handle, Handle, Arc<Counting>) {
    let (ino, ours) = create(a, "f").await;
    let kernel = Arc::new(Counting::default());
    b.set_kernel(kernel.clone());
    let theirs = b.open(ino, RW).await.unwrap();
    write(a, ino, ours, 0, b"before").await;
    fill(b, ino, theirs).await;
    write(a, ino, ours, 0, b"behind").await;
    (ino, ours, theirs, kernel)
}

#[tokio::test(start_paused = true)]
async fn pages_that_no_lease_covers_are_dropped_until_one_does() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let (ino, ours, theirs, kernel) = contended(&a, &b).await;
    for round in 0..5 {
        assert_eq!(fill(&b, ino, theirs).await, if round == 0 { b"behind" } else { b"beyond" });
        let before = kernel.drops();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(kernel.drops() > before, "round {round}");
        write(&a, ino, ours, 0, b"beyond").await;
    }
    // Left alone, it is covered, and nobody drops anything any more.
    fill(&b, ino, theirs).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let settled = kernel.drops();
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(kernel.drops(), settled);
}

#[tokio::test(start_paused = true)]
async fn a_lock_is_not_had_before_older_pages_are_gone() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let (ino, ours, theirs, kernel) = contended(&a, &b).await;
    fill(&b, ino, theirs).await;
    write(&a, ino, ours, 0, b"beyond").await;
    let before = kernel.drops();
    b.setlk(ino, exclusive(7), false).await.unwrap();
    b.locked(ino).await;
    assert_eq!(kernel.drops(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn who_reads_by_itself_has_no_pages_to_drop() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let (ino, ours) = create(&a, "f").await;
    let kernel = Arc::new(Counting::default());
    b.set_kernel(kernel.clone());
    let theirs = b.open(ino, RW).await.unwrap();
    for round in 0..4 {
        write(&a, ino, ours, 0, b"behind").await;
        assert_eq!(read(&b, ino, theirs, 0, 10).await, b"behind");
        tokio::time::sleep(Duration::from_secs(round)).await;
    }
    b.setlk(ino, exclusive(7), false).await.unwrap();
    b.locked(ino).await;
    assert_eq!(kernel.drops(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_loses_a_lock_with_the_session_opens_the_file_anew() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let (ino, locked) = create(&client, "locked").await;
    let (other, free) = create(&client, "free").await;
    client.sync().await.unwrap();
    client.setlk(ino, exclusive(7), false).await.unwrap();
    client.setlk(other, exclusive(8), false).await.unwrap();
    client.setlk(other, LockCall { mode: None, ..exclusive(8) }, false).await.unwrap();
    cluster.meta.expire_all();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(client.write(ino, locked, at(0, b"zombie")).await, Err(FsError::Io));
    assert_eq!(client.read(ino, locked, 0, 10).await, Err(FsError::Io));
    assert_eq!(client.fsync(ino, Some(locked)).await, Err(FsError::Io));
    write(&client, other, free, 0, b"no lock was lost").await;
    let anew = client.open(ino, RW).await.unwrap();
    write(&client, ino, anew, 0, b"again").await;
    client.release(ino, locked, None).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn without_room_for_records_a_write_says_so_itself() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let (ino, handle) = create(&client, "f").await;
    cluster.meta.fault(|faults| (faults.tight, faults.full) = (true, true));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(client.try_write(ino, handle, at(0, b"lost")), None);
    assert_eq!(client.write(ino, handle, at(0, b"lost")).await, Err(FsError::NoSpace));
}

#[tokio::test(start_paused = true)]
async fn the_root_is_told_of_from_memory_soon_after_the_cluster_is_gone() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    a.getattr(Ino::ROOT).await.unwrap();
    // Takes the lease away.
    create(&b, "f").await;
    cluster.meta.fault(|faults| faults.away = true);
    let told = tokio::time::timeout(Duration::from_secs(10), a.getattr(Ino::ROOT)).await;
    assert_eq!(told.expect("no hang").unwrap().ino, Ino::ROOT);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_outlives_the_session_of_its_lock_is_not_done() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let (ino, handle) = create(&client, "f").await;
    write(&client, ino, handle, 0, b"mine").await;
    client.sync().await.unwrap();
    client.setlk(ino, exclusive(7), false).await.unwrap();
    cluster.meta.fault(|faults| faults.away = true);
    // Longer than leases may be used unheard.
    tokio::time::sleep(Duration::from_secs(9)).await;
    let writing = client.clone();
    let late = tokio::spawn(async move { writing.write(ino, handle, at(0, b"zombie")).await });
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!late.is_finished());
    cluster.meta.expire_all();
    cluster.meta.fault(|faults| faults.away = false);
    assert_eq!(late.await.unwrap(), Err(FsError::Io));
    let anew = client.open(ino, RW).await.unwrap();
    assert_eq!(read(&client, ino, anew, 0, 10).await, b"mine");
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_was_unlocked_in_parts_is_not_lost() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let (ino, handle) = create(&client, "f").await;
    client.sync().await.unwrap();
    let call =
        |start, end, mode| LockCall { space: LockSpace::Range, range: LockRange { start, end }, mode, ..exclusive(7) };
    client.setlk(ino, call(0, 99, Some(LockMode::Exclusive)), false).await.unwrap();
    client.setlk(ino, call(50, 99, None), false).await.unwrap();
    client.setlk(ino, call(0, 49, None), false).await.unwrap();
    cluster.meta.expire_all();
    tokio::time::sleep(Duration::from_secs(20)).await;
    write(&client, ino, handle, 0, b"nothing was lost").await;
}

#[tokio::test(start_paused = true)]
async fn a_write_that_waits_for_memory_across_the_expiry_is_not_done() {
    let cluster = Cluster::new();
    let client = cluster.client_with(|config| config.memory_bytes = 4 << 20).await;
    let (ino, handle) = create(&client, "f").await;
    client.setlk(ino, exclusive(7), false).await.unwrap();
    cluster.chunks.away.store(true, Ordering::Relaxed);
    let data = pattern(100_000, 3);
    let mut offset = 0;
    while client.try_write(ino, handle, at(offset, &data)).is_some() {
        offset += 100_000;
    }
    let writing = client.clone();
    let late = tokio::spawn(async move { writing.write(ino, handle, at(0, &pattern(100_000, 4))).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!late.is_finished());
    // What is buffered goes with the session, and makes room.
    cluster.meta.expire_all();
    assert_eq!(late.await.unwrap(), Err(FsError::Io));
}
