//! What the kernel keeps, and when it is told to drop it.

use super::*;
use crate::client::kernel::KernelCache;
use crate::client::lent::{PAUSE, SHARED, VALIDITY, VOID_AFTER};
use crate::types::attr::Attr;

/// How long `b` takes for a change of what `a` was lent, and what `a` sees then.
async fn chmod_by(b: &Client, ino: Ino, mode: u32) -> Duration {
    let began = tokio::time::Instant::now();
    b.setattr(ino, SetAttr { mode: Some(mode), ..SetAttr::default() }).await.unwrap();
    began.elapsed()
}

/// A directory of one file, and that file, looked at by the client given.
async fn looked_at(a: &Client, b: &Client, text: &str) -> (Attr, Attr) {
    let dir = b.make(Ino::ROOT, name(text), new(NewNode::Dir)).await.unwrap().ino;
    b.make(dir, name("f"), new(NewNode::File)).await.unwrap();
    b.sync().await.unwrap();
    // The first recalls what the other has; the second, after a quiet time, has the leases; the third keeps what it is told.
    for _ in 0..2 {
        a.lookup(dir, name("f")).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let file = a.lookup(dir, name("f")).await.unwrap();
    (a.getattr(dir).await.unwrap(), file)
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_when_what_was_lent_under_it_is_void() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let (dir, file) = looked_at(&a, &b, "d").await;
    assert_eq!(a.lend_attr(&dir), VALIDITY);
    assert_eq!(a.lend_name(dir.ino, &name("f"), file.ino), VALIDITY);
    assert_eq!(a.lend_name(dir.ino, &name("g"), file.ino), Duration::ZERO, "it leads elsewhere");
    assert_eq!(a.lend_attr(&Attr { mode: 0, ..dir.clone() }), Duration::ZERO, "these are not those of now");
    let lent = tokio::time::Instant::now();
    chmod_by(&b, dir.ino, 0o700).await;
    assert!(lent.elapsed() >= VOID_AFTER, "{:?}", lent.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_was_lent_long_ago_holds_up_nobody() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let (dir, _) = looked_at(&a, &b, "d").await;
    assert_eq!(a.lend_attr(&dir), VALIDITY);
    tokio::time::sleep(VOID_AFTER).await;
    assert!(chmod_by(&b, dir.ino, 0o700).await < VALIDITY);
}

#[tokio::test(start_paused = true)]
async fn what_is_shared_is_not_lent_and_after_a_wait_nothing_is() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let (dir, _) = looked_at(&a, &b, "d").await;
    let (other, _) = looked_at(&a, &b, "e").await;
    assert_eq!(a.lend_attr(&dir), VALIDITY);
    chmod_by(&b, dir.ino, 0o700).await;
    assert_eq!(a.lend_attr(&other), Duration::ZERO, "a recall has waited");
    tokio::time::sleep(PAUSE).await;
    assert_eq!(a.lend_attr(&a.getattr(other.ino).await.unwrap()), VALIDITY);
    let dir = a.getattr(dir.ino).await.unwrap();
    assert_eq!(a.lend_attr(&dir), Duration::ZERO, "it was wanted by another");
    tokio::time::sleep(SHARED).await;
    assert_eq!(a.lend_attr(&a.getattr(dir.ino).await.unwrap()), VALIDITY);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lent_without_a_lease() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let (dir, file) = looked_at(&a, &b, "d").await;
    let set_id = SetAttr { mode: Some(0o4755), ..SetAttr::default() };
    a.setattr(file.ino, set_id).await.unwrap();
    assert_eq!(a.lend_attr(&a.getattr(file.ino).await.unwrap()), Duration::ZERO, "a write takes the bit away");
    cluster.meta.fault(|faults| faults.away = true);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(a.lend_attr(&dir), Duration::ZERO, "who hears of nobody lends nothing");
}

/// A kernel whose page drop writes a dirty page back, as `msync` would.
struct WritingKernel {
    client: Client,
    handle: Mutex<Option<Handle>>,
    drops: AtomicU64,
}

impl KernelCache for WritingKernel {
    fn drop_pages(&self, ino: Ino) -> BoxFuture<'static, ()> {
        self.drops.fetch_add(1, Ordering::Relaxed);
        let (client, handle) = (self.client.clone(), self.handle.lock().take());
        Box::pin(async move {
            if let Some(handle) = handle {
                write(&client, ino, handle, 0, b"paged").await;
            }
        })
    }
}

#[tokio::test(start_paused = true)]
async fn pages_written_back_during_a_recall_are_seen_by_the_other() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let (ino, handle) = create(&a, "f").await;
    let kernel =
        Arc::new(WritingKernel { client: a.clone(), handle: Mutex::new(Some(handle)), drops: AtomicU64::new(0) });
    a.set_kernel(kernel.clone());
    a.fills_pages(ino);
    write(&a, ino, handle, 5, b"-end").await;
    let theirs = b.open(ino, RW).await.unwrap();
    assert_eq!(read(&b, ino, theirs, 0, 100).await, b"paged-end");
    assert!(kernel.drops.load(Ordering::Relaxed) > 0);
}
