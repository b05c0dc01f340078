//! What the client asks of the kernel above it.

use futures_util::future::BoxFuture;

use crate::types::id::Ino;

/// The kernel's cache of file pages (of mmaps; everything else is direct), as the door reaches it.
pub trait KernelCache: Send + Sync + 'static {
    /// Writes back and drops every page of an inode. Resolves when it is done; write-backs it causes arrive as
    /// ordinary writes in the meantime. Must not be driven from a thread that serves requests.
    fn drop_pages(&self, ino: Ino) -> BoxFuture<'static, ()>;
}

/// No kernel above: tests, and a client before its door is open.
pub struct NoKernel;

impl KernelCache for NoKernel {
    fn drop_pages(&self, _: Ino) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}
