//! Files that are read from the kernel's pages.

use super::*;
use crate::client::kernel::KernelCache;
use crate::client::lent::{SHARED, VALIDITY, VOID_AFTER};

const READS: OpenMode = OpenMode { read: true, write: false, sync: false };

/// A kernel that may know the inode, and counts what it is asked.
struct Kernel {
    knows: bool,
    drops: AtomicU64,
    outdated: AtomicU64,
}

impl Kernel {
    fn over(client: &Client, knows: bool) -> Arc<Kernel> {
        let kernel = Arc::new(Kernel { knows, drops: AtomicU64::new(0), outdated: AtomicU64::new(0) });
        client.set_kernel(kernel.clone());
        kernel
    }
}

impl KernelCache for Kernel {
    fn drop_pages(&self, _: Ino) -> BoxFuture<'static, ()> {
        self.drops.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::ready(()))
    }

    fn outdate_attr(&self, _: Ino) -> bool {
        self.outdated.fetch_add(1, Ordering::Relaxed);
        self.knows
    }
}

/// What `b` has written and closed, `a` has open under a lease to read it from the kernel's pages.
async fn read_by(a: &Client, b: &Client) -> (Ino, Handle) {
    let (ino, theirs) = create(b, "f").await;
    write(b, ino, theirs, 0, b"before").await;
    b.fsync(ino, Some(theirs)).await.unwrap();
    b.release(ino, theirs, None).await.unwrap();
    let handle = a.open(ino, READS).await.unwrap();
    // What was just recalled from the other is not had at once.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(fill(a, ino, handle).await, b"before");
    assert!(a.keeps_pages(ino, READS));
    (ino, handle)
}

async fn fill(client: &Client, ino: Ino, handle: Handle) -> Vec<u8> {
    let range = ReadRange { offset: 0, len: 10, for_pages: true };
    client.read(ino, handle, range).await.unwrap().to_vec()
}

async fn overwrite(b: &Client, ino: Ino) -> Duration {
    let theirs = b.open(ino, RW).await.unwrap();
    let began = tokio::time::Instant::now();
    write(b, ino, theirs, 0, b"behind").await;
    b.fsync(ino, Some(theirs)).await.unwrap();
    b.release(ino, theirs, None).await.unwrap();
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn pages_are_gone_before_a_reader_hears_of_what_another_host_wrote() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let (ino, handle) = read_by(&a, &b).await;
    let before = a.getattr(ino).await.unwrap();
    assert!(a.pages_show(&before));
    overwrite(&b, ino).await;
    // As if a page had been filled late, by a read that began before.
    let node = a.core.nodes.node(ino);
    let begun = node.lock().begin_fill(before.version);
    assert!(node.lock().fill(begun));
    let after = a.getattr(ino).await.unwrap();
    assert!(!a.pages_show(&after), "it shows what was there before");
    assert_eq!(a.lend_attr(&after), Duration::ZERO);
    a.drop_pages(ino).await;
    assert!(a.pages_show(&after));
    assert_eq!(fill(&a, ino, handle).await, b"behind");
    assert!(a.pages_show(&after));
}

#[tokio::test(start_paused = true)]
async fn attributes_that_were_asked_for_are_called_back_and_hold_up_nobody() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let kernel = Kernel::over(&a, true);
    let (ino, _) = read_by(&a, &b).await;
    assert_eq!(a.lend_attr_only(&a.getattr(ino).await.unwrap()), VALIDITY);
    assert!(overwrite(&b, ino).await < VALIDITY);
    assert_eq!(kernel.outdated.load(Ordering::Relaxed), 1);
    assert!(kernel.drops.load(Ordering::Relaxed) > 0);
}

#[tokio::test(start_paused = true)]
async fn attributes_of_what_the_kernel_does_not_know_yet_are_waited_for() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let kernel = Kernel::over(&a, false);
    let (ino, _) = read_by(&a, &b).await;
    let lent = tokio::time::Instant::now();
    assert_eq!(a.lend_attr_only(&a.getattr(ino).await.unwrap()), VALIDITY);
    overwrite(&b, ino).await;
    assert!(lent.elapsed() >= VOID_AFTER, "{:?}", lent.elapsed());
    assert_eq!(kernel.outdated.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn who_takes_turns_or_writes_reads_without_pages() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let (ino, _) = read_by(&a, &b).await;
    assert!(!a.keeps_pages(ino, RW));
    let ours = a.open(ino, RW).await.unwrap();
    assert!(!a.keeps_pages(ino, READS), "it is written to here");
    a.release(ino, ours, None).await.unwrap();
    assert!(a.keeps_pages(ino, READS));
    overwrite(&b, ino).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    a.getattr(ino).await.unwrap();
    assert!(!a.keeps_pages(ino, READS), "others wanted it");
    tokio::time::sleep(SHARED).await;
    a.getattr(ino).await.unwrap();
    assert!(a.keeps_pages(ino, READS));
}
