//! What the kernel keeps, and when it is told to drop it.

use super::*;
use crate::client::kernel::KernelCache;
use crate::types::attr::Attr;

/// Notes whose attributes it was told to drop, and whether the lease was still there.
struct Dropping {
    meta: Arc<FakeMeta>,
    dropped: Mutex<Vec<(Ino, bool)>>,
}

impl KernelCache for Dropping {
    fn drop_pages(&self, _: Ino) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    fn drop_attr(&self, ino: Ino) -> BoxFuture<'static, ()> {
        let leased = self.meta.hold(ino).iter().any(|hold| hold.lease > Lease::None);
        self.dropped.lock().push((ino, leased));
        Box::pin(std::future::ready(()))
    }
}

#[tokio::test(start_paused = true)]
async fn the_kernel_keeps_attributes_of_directories_for_as_long_as_the_lease() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let kernel = Arc::new(Dropping { meta: cluster.meta.clone(), dropped: Mutex::default() });
    b.set_kernel(kernel.clone());
    let dir = a.make(Ino::ROOT, name("d"), new(NewNode::Dir)).await.unwrap().ino;
    let file = a.make(dir, name("f"), new(NewNode::File)).await.unwrap();
    b.getattr(dir).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = b.getattr(dir).await.unwrap();
    assert!(b.validity(&before) > Duration::ZERO);
    assert_eq!(b.validity(&b.getattr(file.ino).await.unwrap()), Duration::ZERO, "of a file it keeps none");
    assert_eq!(b.validity(&Attr { mode: 0, ..before.clone() }), Duration::ZERO, "these are not those of now");
    let set = SetAttr { mode: Some(0o700), ..SetAttr::default() };
    a.setattr(dir, set).await.unwrap();
    assert_eq!(*kernel.dropped.lock(), [(dir, true)], "before the lease ends");
    assert_eq!(b.validity(&before), Duration::ZERO);
    let after = b.getattr(dir).await.unwrap();
    assert_eq!((after.mode, b.validity(&after)), (0o700, Duration::ZERO), "it is quiet: there is no lease");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = b.getattr(dir).await.unwrap();
    assert!(b.validity(&after) > Duration::ZERO);
    cluster.meta.fault(|faults| faults.away = true);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(kernel.dropped.lock().len(), 2, "who hears of nobody keeps nothing");
    assert_eq!(b.validity(&after), Duration::ZERO);
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

    fn drop_attr(&self, _: Ino) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
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
