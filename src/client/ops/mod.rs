//! The operations, one file per family, and their table: [`Posix`] for [`Client`].

mod alone;
mod attrs;
mod names;
mod open;
mod own;
mod range;
mod read;
mod write;

use std::time::Duration;

use bytes::Bytes;

pub use self::write::was_written;
use super::Client;
use super::api::{DirItem, Handle, LockCall, NewInode, OpenMode, Posix, Result, WriteRequest};
use crate::types::attr::{Attr, SetAttr};
use crate::types::error::FsError;
use crate::types::id::Ino;
use crate::types::lock::{Lock, LockSpace};
use crate::types::name::Name;
use crate::types::op::{FallocateMode, RenameMode, XattrMode};
use crate::types::record::SpaceReport;

impl Posix for Client {
    fn try_lookup(&self, dir: Ino, name: &Name) -> Option<Result<Attr>> {
        self.core.try_lookup(dir, name)
    }

    fn try_getattr(&self, ino: Ino) -> Option<Result<Attr>> {
        self.core.try_getattr(ino).map(Ok)
    }

    fn try_read(&self, _: Ino, handle: Handle, offset: u64, len: u32) -> Option<Result<Bytes>> {
        self.core.try_read(handle, offset, len)
    }

    fn fills_pages(&self, ino: Ino) {
        self.core.fills_pages(ino);
    }

    fn try_write(&self, _: Ino, handle: Handle, write: WriteRequest<'_>) -> Option<Result<u32>> {
        self.core.try_write(handle, &write)
    }

    fn try_open(&self, ino: Ino, mode: OpenMode) -> Option<Result<Handle>> {
        self.core.try_open(ino, mode)
    }

    fn lend_attr(&self, attr: &Attr) -> Duration {
        self.core.lend_attr(attr)
    }

    fn lend_name(&self, dir: Ino, name: &Name, ino: Ino) -> Duration {
        self.core.lend_name(dir, name, ino)
    }

    fn is_lent(&self, ino: Ino) -> bool {
        self.core.is_lent(ino)
    }

    fn exclusive(&self) -> bool {
        self.core.is_exclusive()
    }

    fn read_only(&self) -> bool {
        self.core.read_only
    }

    fn statfs(&self) -> Result<SpaceReport> {
        // By this others know a mount that has ended for good: it is asked of nobody but the process itself.
        if self.core.is_stopping() {
            Err(FsError::SessionExpired)
        } else {
            Ok(self.core.space.report(self.core.memory.dirty_bytes()))
        }
    }

    async fn lookup(&self, dir: Ino, name: Name) -> Result<Attr> {
        self.core.lookup(dir, name).await
    }

    async fn parent(&self, dir: Ino) -> Result<Attr> {
        self.core.parent(dir).await
    }

    async fn getattr(&self, ino: Ino) -> Result<Attr> {
        self.core.getattr(ino).await
    }

    async fn setattr(&self, ino: Ino, set: SetAttr) -> Result<Attr> {
        self.core.setattr(ino, set).await
    }

    async fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        self.core.readlink(ino).await
    }

    async fn make(&self, dir: Ino, name: Name, new: NewInode) -> Result<Attr> {
        self.core.make(dir, name, new).await
    }

    async fn create(
        &self,
        dir: Ino,
        name: Name,
        new: NewInode,
        exclusive: bool,
        mode: OpenMode,
    ) -> Result<(Attr, Handle)> {
        self.core.create(dir, name, new, exclusive, mode).await
    }

    async fn link(&self, ino: Ino, dir: Ino, name: Name) -> Result<Attr> {
        self.core.link(ino, dir, name).await
    }

    async fn unlink(&self, dir: Ino, name: Name) -> Result<()> {
        self.core.remove(dir, name, false).await
    }

    async fn rmdir(&self, dir: Ino, name: Name) -> Result<()> {
        self.core.remove(dir, name, true).await
    }

    async fn rename(&self, from: (Ino, Name), to: (Ino, Name), mode: RenameMode) -> Result<()> {
        self.core.rename(from, to, mode).await
    }

    async fn readdir(&self, dir: Ino, handle: Option<Handle>, after: u64) -> Result<Vec<DirItem>> {
        self.core.readdir(dir, handle, after).await
    }

    async fn open(&self, ino: Ino, mode: OpenMode) -> Result<Handle> {
        self.core.open(ino, mode).await
    }

    async fn read(&self, _: Ino, handle: Handle, offset: u64, len: u32) -> Result<Bytes> {
        self.core.read(handle, offset, len).await
    }

    async fn write(&self, _: Ino, handle: Handle, write: WriteRequest<'_>) -> Result<u32> {
        self.core.write(handle, &write).await
    }

    async fn flush(&self, ino: Ino, handle: Handle, owner: u64) -> Result<()> {
        self.core.unlock_all(ino, LockSpace::Range, owner).await?;
        self.core.close(handle).await
    }

    async fn release(&self, ino: Ino, handle: Handle, flock_owner: Option<u64>) -> Result<()> {
        let unlocked = match flock_owner {
            Some(owner) => self.core.unlock_all(ino, LockSpace::Flock, owner).await,
            None => Ok(()),
        };
        self.core.release(handle)?;
        unlocked
    }

    async fn fsync(&self, ino: Ino, handle: Option<Handle>) -> Result<()> {
        self.core.fsync(ino, handle).await
    }

    async fn sync(&self) -> Result<()> {
        self.core.sync().await
    }

    async fn fallocate(&self, _: Ino, handle: Handle, mode: FallocateMode, offset: u64, len: u64) -> Result<()> {
        self.core.fallocate(handle, mode, offset, len).await
    }

    async fn seek(&self, _: Ino, handle: Handle, offset: u64, hole: bool) -> Result<u64> {
        let node = self.core.files.find(handle)?.node.clone();
        self.core.gather_from_kernel(&node).await;
        self.core.flush_before(&node).await?;
        self.core.seek(&node, offset, hole).await
    }

    async fn copy_range(&self, from: (Ino, Handle, u64), to: (Ino, Handle, u64), len: u64) -> Result<u64> {
        self.core.copy_range((from.1, from.2), (to.1, to.2), len).await
    }

    async fn getxattr(&self, ino: Ino, name: Vec<u8>) -> Result<Vec<u8>> {
        self.core.getxattr(ino, name).await
    }

    async fn listxattr(&self, ino: Ino) -> Result<Vec<Vec<u8>>> {
        self.core.listxattr(ino).await
    }

    async fn setxattr(&self, ino: Ino, name: Vec<u8>, value: Vec<u8>, mode: XattrMode) -> Result<()> {
        self.core.setxattr(ino, name, value, mode).await
    }

    async fn removexattr(&self, ino: Ino, name: Vec<u8>) -> Result<()> {
        self.core.removexattr(ino, name).await
    }

    async fn getlk(&self, ino: Ino, call: LockCall) -> Result<Option<Lock>> {
        self.core.getlk(ino, call).await
    }

    async fn setlk(&self, ino: Ino, call: LockCall, wait: bool) -> Result<()> {
        self.core.setlk(ino, call, wait).await
    }

    async fn locked(&self, ino: Ino) {
        self.core.locked(ino).await;
    }

    fn check_handle(&self, handle: Handle) -> Result<()> {
        self.core.files.find_for_data(handle).map(drop)
    }
}
