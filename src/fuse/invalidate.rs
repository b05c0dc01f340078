//! Tells the kernel to drop pages that it has, and names that lead elsewhere by now, from threads of its own.
//!
//! Never from a request's thread: dropping a page waits for whoever holds it, and dropping a name for whoever has locked its
//! directory, which may be a request that waits for that very thread.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use fuser::{INodeNo, Notifier};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::places::{Place, Places};
use crate::client::kernel::KernelCache;
use crate::types::id::Ino;

/// A page that is held blocks a thread for as long as it is.
const THREADS: usize = 4;

/// The request at hand may hold the lock itself.
const NAME_PATIENCE: Duration = Duration::from_millis(100);

/// Whom to tell when the pages of an inode are dropped: everyone who asked before the drop began.
type Waiting = Arc<Mutex<HashMap<Ino, Vec<oneshot::Sender<()>>>>>;

/// The kernel's caches over one mount. Made before the mount, so that a client can be built on it; until the mount is
/// there, and after it is gone, nothing is cached and every drop is done at once.
pub struct Invalidator {
    orders: Mutex<Option<Orders>>,
    waiting: Waiting,
}

struct Orders {
    notifier: Notifier,
    pages: Sender<Ino>,
    names: Sender<NameOrder>,
}

struct NameOrder {
    place: Place,
    places: Arc<Places>,
    done: oneshot::Sender<()>,
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
        let (pages, orders) = channel();
        let orders = Arc::new(Mutex::new(orders));
        for _ in 0..THREADS {
            let (notifier, orders, waiting) = (notifier.clone(), orders.clone(), self.waiting.clone());
            let thread = thread::Builder::new().name("fuse-invalidate".into());
            thread.spawn(move || run(&notifier, &orders, &waiting))?;
        }
        let (names, orders) = channel();
        let thread = thread::Builder::new().name("fuse-names".into());
        let sender = notifier.clone();
        thread.spawn(move || drop_names(&sender, &orders))?;
        *self.orders.lock() = Some(Orders { notifier, pages, names });
        Ok(())
    }

    /// Answers about attributes that are on their way to the kernel are of no use to it. Takes no lock of the kernel's and waits
    /// for no page, so from any thread.
    pub(super) fn outdate_attr(&self, ino: Ino) {
        let notifier = self.orders.lock().as_ref().map(|orders| orders.notifier.clone());
        // From before the first byte on there are attributes, and no pages.
        if let Some(Err(error)) = notifier.map(|notifier| notifier.inval_inode(INodeNo(ino.0), -1, 0)) {
            tracing::debug!(%error, %ino, "no attributes to drop");
        }
    }

    /// The kernel forgets that there is something of this name, and with it what is mounted there; unless `places` says by then
    /// that something else is there. Returns when it has, or when the directory's lock is not to be had for a while.
    pub(super) async fn drop_name(&self, place: Place, places: Arc<Places>) {
        let (done, wait) = oneshot::channel();
        if let Some(orders) = &*self.orders.lock() {
            let _ = orders.names.send(NameOrder { place, places, done });
        }
        let _ = tokio::time::timeout(NAME_PATIENCE, wait).await;
    }

    /// The mount is gone: the threads finish what was ordered and end.
    pub(super) fn unmounted(&self) {
        *self.orders.lock() = None;
    }
}

impl KernelCache for Invalidator {
    fn drop_pages(&self, ino: Ino) -> BoxFuture<'static, ()> {
        let (done, wait) = oneshot::channel();
        if let Some(orders) = &*self.orders.lock() {
            let mut waiting = self.waiting.lock();
            let ordered = waiting.contains_key(&ino);
            let waiters = waiting.entry(ino).or_default();
            // Nobody waits for some of them any more.
            waiters.retain(|waiter| !waiter.is_closed());
            waiters.push(done);
            // When the threads are gone, so is the mount.
            if !ordered && orders.pages.send(ino).is_err() {
                waiting.remove(&ino);
            }
        }
        Box::pin(async move {
            let _ = wait.await;
        })
    }
}

fn run(notifier: &Notifier, orders: &Mutex<Receiver<Ino>>, waiting: &Waiting) {
    loop {
        let Ok(ino) = orders.lock().recv() else { return };
        // Before the drop: who asks during it is to get another.
        let waiters = waiting.lock().remove(&ino).unwrap_or_default();
        // The whole file is from its first byte and of length 0, "to the end". Failure means that the mount is gone.
        if let Err(error) = notifier.inval_inode(INodeNo(ino.0), 0, 0) {
            tracing::debug!(%error, %ino, "nothing to drop");
        }
        for waiter in waiters {
            let _ = waiter.send(());
        }
    }
}

fn drop_names(notifier: &Notifier, orders: &Receiver<NameOrder>) {
    while let Ok(NameOrder { place, places, done }) = orders.recv() {
        // Who asked has gone on without, and what is there now may be where it should be.
        if done.is_closed() || !places.is_vacant(&place) {
            continue;
        }
        let (dir, name) = place;
        // Failure means that it is not there (any more), or that the mount is gone.
        if let Err(error) = notifier.inval_entry(INodeNo(dir.0), OsStr::from_bytes(name.as_bytes())) {
            tracing::debug!(%error, %dir, "no name to drop");
        }
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
