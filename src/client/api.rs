//! What a filesystem client can do, as methods: the seam between the doors (FUSE, tests) and whoever keeps the files
//! (a [`crate::client`] of a cluster, or the reference model of the tests).
//!
//! Semantics are Linux's on ext4, with one inode number per file. Permission checks are the caller's (the kernel's);
//! ownership of new inodes comes in. Every method may wait for the network; methods named `try_*` never do and answer
//! `None` when the answer is not at hand.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;

pub use crate::types::attr::Owner;
use crate::types::attr::{Attr, FileKind, SetAttr};
use crate::types::error::FsError;
use crate::types::id::Ino;
use crate::types::lock::{Lock, LockMode, LockRange, LockSpace};
use crate::types::name::Name;
use crate::types::op::{FallocateMode, NewNode, RenameMode, XattrMode};
use crate::types::record::SpaceReport;

pub type Result<T> = std::result::Result<T, FsError>;

/// Names an open file within one client. Opaque to the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle(pub u64);

/// A new inode's particulars besides its place.
#[derive(Clone, Debug)]
pub struct NewInode {
    pub node: NewNode,
    pub mode: u32,
    pub umask: u32,
    pub owner: Owner,
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenMode {
    pub read: bool,
    pub write: bool,
    /// `O_SYNC`/`O_DSYNC`: every write is durable before it returns.
    pub sync: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct WriteRequest<'a> {
    pub offset: u64,
    pub data: &'a [u8],
    /// `O_APPEND`: the data goes to the true end of file, whatever `offset` says.
    pub append: bool,
    /// The writer may not keep set-id bits (`FUSE_WRITE_KILL_SUIDGID`).
    pub clear_privileges: bool,
    /// This one write must be durable before it returns.
    pub sync: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirItem {
    pub name: Name,
    pub ino: Ino,
    pub kind: FileKind,
    /// Where a listing goes on after this entry (1 and 2 are `.` and `..`, which the door adds).
    pub cookie: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockCall {
    pub space: LockSpace,
    pub owner: u64,
    /// `None` unlocks.
    pub mode: Option<LockMode>,
    pub range: LockRange,
    pub pid: u32,
}

/// A POSIX namespace.
pub trait Posix: Send + Sync + 'static {
    fn try_lookup(&self, dir: Ino, name: &Name) -> Option<Result<Attr>>;
    fn try_getattr(&self, ino: Ino) -> Option<Result<Attr>>;
    fn try_read(&self, ino: Ino, handle: Handle, offset: u64, len: u32) -> Option<Result<Bytes>>;
    /// The kernel is about to read for pages of its own (of a mapping, say), and keeps them until it is told to drop them. To
    /// be called before the read.
    fn fills_pages(&self, ino: Ino);
    /// Buffers a write when that needs nothing from the network and no waiting.
    fn try_write(&self, ino: Ino, handle: Handle, write: WriteRequest<'_>) -> Option<Result<u32>>;
    fn try_open(&self, ino: Ino, mode: OpenMode) -> Option<Result<Handle>>;
    /// How long the kernel may go by these attributes without asking again; no time if they are not those of now.
    fn lend_attr(&self, attr: &Attr) -> Duration;
    /// How long it may go by it that a name leads to this inode.
    fn lend_name(&self, dir: Ino, name: &Name, ino: Ino) -> Duration;
    /// The kernel may be going by something that it was told of this inode, or is about to.
    fn is_lent(&self, ino: Ino) -> bool;
    /// No other host has this mounted: the kernel may keep what is read, written and locked.
    fn exclusive(&self) -> bool;
    /// Nothing can be changed through this client, whatever the kernel's mount says.
    fn read_only(&self) -> bool;
    /// Always from memory.
    /// Waits for nobody.
    fn statfs(&self) -> Result<SpaceReport>;

    fn lookup(&self, dir: Ino, name: Name) -> impl Future<Output = Result<Attr>> + Send;
    /// `..` of a directory.
    fn parent(&self, dir: Ino) -> impl Future<Output = Result<Attr>> + Send;
    fn getattr(&self, ino: Ino) -> impl Future<Output = Result<Attr>> + Send;
    fn setattr(&self, ino: Ino, set: SetAttr) -> impl Future<Output = Result<Attr>> + Send;
    fn readlink(&self, ino: Ino) -> impl Future<Output = Result<Vec<u8>>> + Send;
    fn make(&self, dir: Ino, name: Name, new: NewInode) -> impl Future<Output = Result<Attr>> + Send;
    /// `open` with `O_CREAT`: makes the file unless it is there; `exclusive` makes that an error.
    fn create(
        &self,
        dir: Ino,
        name: Name,
        new: NewInode,
        exclusive: bool,
        mode: OpenMode,
    ) -> impl Future<Output = Result<(Attr, Handle)>> + Send;
    fn link(&self, ino: Ino, dir: Ino, name: Name) -> impl Future<Output = Result<Attr>> + Send;
    fn unlink(&self, dir: Ino, name: Name) -> impl Future<Output = Result<()>> + Send;
    fn rmdir(&self, dir: Ino, name: Name) -> impl Future<Output = Result<()>> + Send;
    fn rename(&self, from: (Ino, Name), to: (Ino, Name), mode: RenameMode) -> impl Future<Output = Result<()>> + Send;
    /// Entries after a cookie, in cookie order; empty at the end. An open directory's listing ends with what was there when
    /// its first entries were last asked for; without a handle it ends with what is there now.
    fn readdir(
        &self,
        dir: Ino,
        handle: Option<Handle>,
        after: u64,
    ) -> impl Future<Output = Result<Vec<DirItem>>> + Send;

    fn open(&self, ino: Ino, mode: OpenMode) -> impl Future<Output = Result<Handle>> + Send;
    fn read(&self, ino: Ino, handle: Handle, offset: u64, len: u32) -> impl Future<Output = Result<Bytes>> + Send;
    fn write(&self, ino: Ino, handle: Handle, write: WriteRequest<'_>) -> impl Future<Output = Result<u32>> + Send;
    /// `close` of one descriptor: drops the owner's range locks. Reports what a write-back of this handle met.
    fn flush(&self, ino: Ino, handle: Handle, owner: u64) -> impl Future<Output = Result<()>> + Send;
    /// The last descriptor is gone. `flock_owner`: drop its flock too.
    fn release(&self, ino: Ino, handle: Handle, flock_owner: Option<u64>) -> impl Future<Output = Result<()>> + Send;
    /// Data, attributes and the names needed to reach them are durable.
    fn fsync(&self, ino: Ino, handle: Option<Handle>) -> impl Future<Output = Result<()>> + Send;
    /// Everything of this client is durable.
    fn sync(&self) -> impl Future<Output = Result<()>> + Send;
    fn fallocate(
        &self,
        ino: Ino,
        handle: Handle,
        mode: FallocateMode,
        offset: u64,
        len: u64,
    ) -> impl Future<Output = Result<()>> + Send;
    /// `SEEK_DATA`, or `SEEK_HOLE` with `hole`.
    fn seek(&self, ino: Ino, handle: Handle, offset: u64, hole: bool) -> impl Future<Output = Result<u64>> + Send;
    fn copy_range(
        &self,
        from: (Ino, Handle, u64),
        to: (Ino, Handle, u64),
        len: u64,
    ) -> impl Future<Output = Result<u64>> + Send;

    fn getxattr(&self, ino: Ino, name: Vec<u8>) -> impl Future<Output = Result<Vec<u8>>> + Send;
    fn listxattr(&self, ino: Ino) -> impl Future<Output = Result<Vec<Vec<u8>>>> + Send;
    fn setxattr(
        &self,
        ino: Ino,
        name: Vec<u8>,
        value: Vec<u8>,
        mode: XattrMode,
    ) -> impl Future<Output = Result<()>> + Send;
    fn removexattr(&self, ino: Ino, name: Vec<u8>) -> impl Future<Output = Result<()>> + Send;

    fn getlk(&self, ino: Ino, call: LockCall) -> impl Future<Output = Result<Option<Lock>>> + Send;
    /// `wait`: until it is held. Dropping the future gives the wait up.
    fn setlk(&self, ino: Ino, call: LockCall, wait: bool) -> impl Future<Output = Result<()>> + Send;
    /// After a lock was had, and before its taker is told: mappings show what was written before. Not to be given up.
    fn locked(&self, ino: Ino) -> impl Future<Output = ()> + Send;
    /// Whether data may be changed by this handle.
    ///
    /// # Errors
    /// `BadHandle`, or `Io` when a lock that it may have relied on was lost.
    fn check_handle(&self, handle: Handle) -> Result<()>;
}
