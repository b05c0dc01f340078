//! Tells the kernel to drop what it cached, from a thread of its own.
//!
//! Never from a request's thread: dropping a page waits for whoever holds it, which may be a request that waits for
//! that very thread.

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

/// One inode to drop, and whom to tell when that is done.
type Order = (Ino, oneshot::Sender<()>);

/// The kernel's caches over one mount. Made before the mount, so that a client can be built on it; until the mount is
/// there, and after it is gone, nothing is cached and every drop is done at once.
pub struct Invalidator {
    orders: Mutex<Option<Sender<Order>>>,
}

impl Invalidator {
    pub fn new() -> Arc<Invalidator> {
        Arc::new(Invalidator { orders: Mutex::new(None) })
    }

    /// The mount is there: starts the thread that sends through `notifier`.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn mounted(&self, notifier: Notifier) -> io::Result<()> {
        let (sender, orders) = channel();
        thread::Builder::new().name("fuse-invalidate".into()).spawn(move || run(&notifier, &orders))?;
        *self.orders.lock() = Some(sender);
        Ok(())
    }

    /// The mount is gone: the thread finishes what was ordered and ends.
    pub(super) fn unmounted(&self) {
        *self.orders.lock() = None;
    }
}

impl KernelCache for Invalidator {
    fn drop_pages(&self, ino: Ino) -> BoxFuture<'static, ()> {
        let (done, wait) = oneshot::channel();
        if let Some(orders) = &*self.orders.lock() {
            // A thread that is gone drops `done`, which ends the wait: the mount it served is gone too.
            let _ = orders.send((ino, done));
        }
        Box::pin(async move {
            let _ = wait.await;
        })
    }
}

fn run(notifier: &Notifier, orders: &Receiver<Order>) {
    for (ino, done) in orders {
        // The whole file, from its first byte; length 0 is "to the end". Failure means that the mount is gone.
        if let Err(error) = notifier.inval_inode(INodeNo(ino.0), 0, 0) {
            tracing::debug!(%error, %ino, "nothing to drop");
        }
        // Nobody may be waiting any more.
        let _ = done.send(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_a_mount_there_is_nothing_to_drop() {
        let invalidator = Invalidator::new();
        invalidator.drop_pages(Ino(1)).await;
        invalidator.unmounted();
        invalidator.drop_pages(Ino(1)).await;
    }
}
