//! What a client asks of the kernel it serves: the seam through which coherence reaches pages the kernel holds.

use futures_util::future::BoxFuture;

use crate::types::id::Ino;

/// The kernel's caches over one mount, as its door offers them.
///
/// Dropping pages writes dirty ones (of shared mappings) back first, through the very mount: whoever waits for it must
/// not hold a lock that such a write needs, nor anything a parked request of this mount waits for.
pub trait KernelCache: Send + Sync {
    /// No page and no attribute of `ino` that was filled before the call is used after it is done. Cheap when the kernel
    /// holds nothing; done at once when nothing is mounted (any more).
    fn drop_pages(&self, ino: Ino) -> BoxFuture<'static, ()>;
}

/// No kernel above: tests, and a client before its door is open.
pub struct NoKernel;

impl KernelCache for NoKernel {
    fn drop_pages(&self, _: Ino) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}
