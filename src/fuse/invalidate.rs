//! Tells the kernel to drop what it cached, from threads of its own.
//!
//! Never from a request's thread: dropping a page waits for whoever holds it, which may be a request that waits for
//! that very thread.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use fuser::{INodeNo, Notifier};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::client::kernel::KernelCache;
use crate::types::id::Ino;

/// For pages: one that is held blocks a thread for as long as it is. Attributes have a thread of their own, which nothing
/// blocks.
const PAGE_THREADS: usize = 4;

/// What is to be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Order {
    /// Pages and attributes.
    Pages(Ino),
    /// Attributes alone: no page is waited for.
    Attr(Ino),
}

/// Whom to tell when something is dropped: everyone who asked before its drop began.
type Waiting = Arc<Mutex<HashMap<Order, Vec<oneshot::Sender<()>>>>>;

/// The kernel's caches over one mount. Made before the mount, so that a client can be built on it; until the mount is
/// there, and after it is gone, nothing is cached and every drop is done at once.
pub struct Invalidator {
    orders: Mutex<Option<Orders>>,
    waiting: Waiting,
}

struct Orders {
    pages: Sender<Order>,
    attrs: Sender<Order>,
}

impl Invalidator {
    pub fn new() -> Arc<Invalidator> {
        Arc::new(Invalidator { orders: Mutex::new(None), waiting: Waiting::default() })
    }

    /// The mount is there: starts the threads that send through `notifier`.
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn mounted(&self, notifier: Notifier) -> io::Result<()> {
        let (pages, page_orders) = channel();
        let (attrs, attr_orders) = channel();
        let page_orders = Arc::new(Mutex::new(page_orders));
        for _ in 0..PAGE_THREADS {
            self.start(&notifier, page_orders.clone())?;
        }
        self.start(&notifier, Arc::new(Mutex::new(attr_orders)))?;
        *self.orders.lock() = Some(Orders { pages, attrs });
        Ok(())
    }

    fn start(&self, notifier: &Notifier, orders: Arc<Mutex<Receiver<Order>>>) -> io::Result<()> {
        let (notifier, waiting) = (notifier.clone(), self.waiting.clone());
        let thread = thread::Builder::new().name("fuse-invalidate".into());
        thread.spawn(move || run(&notifier, &orders, &waiting)).map(drop)
    }

    /// The mount is gone: the threads finish what was ordered and end.
    pub(super) fn unmounted(&self) {
        *self.orders.lock() = None;
    }

    fn order(&self, order: Order) -> BoxFuture<'static, ()> {
        let (done, wait) = oneshot::channel();
        if let Some(orders) = &*self.orders.lock() {
            let mut waiting = self.waiting.lock();
            let ordered = waiting.contains_key(&order);
            let waiters = waiting.entry(order).or_default();
            // Nobody waits for some of them any more.
            waiters.retain(|waiter| !waiter.is_closed());
            waiters.push(done);
            let orders = if matches!(order, Order::Pages(_)) { &orders.pages } else { &orders.attrs };
            // When the threads are gone, so is the mount.
            if !ordered && orders.send(order).is_err() {
                waiting.remove(&order);
            }
        }
        Box::pin(async move {
            let _ = wait.await;
        })
    }
}

impl KernelCache for Invalidator {
    fn drop_pages(&self, ino: Ino) -> BoxFuture<'static, ()> {
        self.order(Order::Pages(ino))
    }

    fn drop_attr(&self, ino: Ino) -> BoxFuture<'static, ()> {
        self.order(Order::Attr(ino))
    }
}

fn run(notifier: &Notifier, orders: &Mutex<Receiver<Order>>, waiting: &Waiting) {
    loop {
        let Ok(order) = orders.lock().recv() else { return };
        // Before the drop: who asks during it is to get another.
        let waiters = waiting.lock().remove(&order).unwrap_or_default();
        // The whole file is from its first byte and of length 0, "to the end"; attributes alone are before the first byte.
        let (ino, offset) = match order {
            Order::Pages(ino) => (ino, 0),
            Order::Attr(ino) => (ino, -1),
        };
        // Failure means that the mount is gone.
        if let Err(error) = notifier.inval_inode(INodeNo(ino.0), offset, 0) {
            tracing::debug!(%error, %ino, "nothing to drop");
        }
        for waiter in waiters {
            let _ = waiter.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_a_mount_there_is_nothing_to_drop() {
        let invalidator = Invalidator::new();
        invalidator.drop_pages(Ino(1)).await;
        invalidator.drop_attr(Ino(1)).await;
        invalidator.unmounted();
        invalidator.drop_pages(Ino(1)).await;
    }
}
