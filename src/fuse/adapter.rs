//! fuser's callbacks: each takes its request apart and hands it to the family it belongs to.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, INodeNo, InitFlags,
    IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr,
    ReplyBmap, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl,
    ReplyLock, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::caller::Caller;
use super::convert::{ino, set_time, time_in};
use super::locks::{LockArgument, space};
use super::names::{NO_HANDLE, Place};
use super::open_file_locks::OpenFileLocks;
use super::serve::Desk;
use super::session::Served;
use super::tell::Teller;
use crate::client::api::{Handle, Posix};
use crate::client::kept::Kept;
use crate::types::attr::{SetAttr, SetTime};
use crate::types::op::NewNode;

/// Largest read and write in one request.
const REQUEST_BYTES_MAX: u32 = 1 << 20;
/// Background requests (readahead, asynchronous direct I/O, write-back) the kernel keeps going at once.
const BACKGROUND_MAX: u16 = 64;

/// `ioctl` on any file or directory of a mount: everything of the mount is durable when it returns.
pub(super) const SYNC_IOCTL: u32 = (b'H' as u32) << 8 | 1;
/// `ioctl` on any file or directory of a mount: EROFS when its client can change nothing.
pub(super) const WRITABLE_IOCTL: u32 = (b'H' as u32) << 8 | 2;

/// What the kernel should do for us; each is done without where the kernel does not know it.
///
/// Left out on purpose. ATOMIC_O_TRUNC: truncation comes as its own request. READDIRPLUS_AUTO: only the first part of a listing would come with attributes.
/// HANDLE_KILLPRIV and its second version: without them the kernel says in a SETATTR what set-id bits a truncation,
/// a `chown` or an `fallocate` leaves, and with the second it says so in a flag that fuser drops; direct writes carry
/// their own flag either way.
const WANTED: [(InitFlags, &str); 8] = [
    (InitFlags::FUSE_EXPORT_SUPPORT, "file handles go stale when the kernel drops its caches"),
    (InitFlags::FUSE_DONT_MASK, "default ACLs are subject to the umask"),
    (InitFlags::FUSE_POSIX_ACL, "ACLs are not enforced"),
    (InitFlags::FUSE_MAX_PAGES, "requests are at most 128 KiB"),
    (InitFlags::FUSE_ASYNC_DIO, "asynchronous direct I/O is synchronous"),
    (InitFlags::FUSE_PARALLEL_DIROPS, "directory operations are serialised"),
    (InitFlags::FUSE_DO_READDIRPLUS, "each name of a listing is asked for"),
    // Where one leads never changes, and its number is no other inode's later.
    (InitFlags::FUSE_CACHE_SYMLINKS, "each step through a symlink is asked for"),
];

/// And where other hosts may have it mounted too. No WRITEBACK_CACHE: the kernel would hold sizes and data that they need.
const WANTED_SHARED: [(InitFlags, &str); 4] = [
    (InitFlags::FUSE_POSIX_LOCKS, "fcntl locks are local to this host"),
    (InitFlags::FUSE_FLOCK_LOCKS, "flock locks are local to this host"),
    (InitFlags::FUSE_AUTO_INVAL_DATA, "mapped pages are dropped on request only"),
    (InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP, "files are opened without direct I/O"),
];

/// And where they may not: pages are written back when the kernel sees fit, and locks are its own.
const WANTED_EXCLUSIVE: [(InitFlags, &str); 1] =
    [(InitFlags::FUSE_WRITEBACK_CACHE, "writes are not gathered in the kernel")];

/// A mounted namespace as fuser sees it.
pub(super) struct Door<F> {
    pub fs: Arc<F>,
    pub desk: Desk,
    /// The mount has `sync` or `dirsync`: changes of names are durable before they are answered.
    pub sync_names: bool,
    /// How regular files are opened; settled by INIT.
    pub open_flags: FopenFlags,
    pub open_file_locks: Arc<OpenFileLocks>,
    pub teller: Teller<F>,
    pub kept: Option<Arc<Kept>>,
}

impl<F: Posix> Door<F> {
    pub fn new(served: Served<F>, sync_names: bool) -> Door<F> {
        let Served { fs, runtime, cache, kept } = served;
        Door {
            teller: Teller::new(fs.clone(), runtime.clone(), cache),
            fs,
            desk: Desk::new(runtime, kept.is_some()),
            sync_names,
            open_flags: FopenFlags::empty(),
            open_file_locks: Arc::new(OpenFileLocks::new(kept.clone())),
            kept,
        }
    }

    /// Of a mount whose INIT another process has answered.
    pub fn resumed(served: Served<F>, sync_names: bool) -> Door<F> {
        let agreed = served.kept.as_ref().map_or([0; 2], |kept| kept.door());
        let open_flags = FopenFlags::from_bits_retain(agreed[0] as u32);
        Door { open_flags, ..Door::new(served, sync_names) }
    }
}

fn handle(fh: FileHandle) -> Handle {
    Handle(fh.0)
}

impl<F: Posix> Filesystem for Door<F> {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let exclusive = self.fs.exclusive();
        let more: &[_] = if exclusive { &WANTED_EXCLUSIVE } else { &WANTED_SHARED };
        for (flag, without) in WANTED.iter().chain(more).copied() {
            if config.add_capabilities(flag).is_err() {
                tracing::warn!(?flag, "this kernel is too old: {without}");
            }
        }
        // On a volume of ours alone pages are as good at the next open. Elsewhere direct I/O keeps file data out of the
        // page cache; without shared mappings of such files programs would break, so an old kernel gets pages that are
        // dropped at every open. Writes to one file may go on in parallel: each request is applied as a whole, and
        // appends and extensions are serialised by the kernel all the same.
        if exclusive {
            self.open_flags = FopenFlags::FOPEN_KEEP_CACHE;
        } else if config.capabilities().contains(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP) {
            self.open_flags = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
        }
        // The nearest value that is allowed will do.
        if let Err(allowed) = config.set_max_write(REQUEST_BYTES_MAX) {
            let _ = config.set_max_write(allowed);
        }
        let _ = config.set_max_background(BACKGROUND_MAX);
        if let Some(kept) = &self.kept {
            kept.set_door([self.open_flags.bits().into(), 0]);
        }
        Ok(())
    }

    fn destroy(&mut self) {
        if let Err(error) = self.desk.runtime.block_on(self.fs.sync()) {
            tracing::error!(%error, "the last changes of the mount may not be durable");
        }
    }

    /// umount(2) waits for the answer, cannot be told that something failed, and cannot be killed.
    fn unmounting(&self, _: &Request, reply: ReplyEmpty) {
        self.answer_unmounting(reply);
    }

    fn syncfs(&self, req: &Request, _: INodeNo, reply: ReplyEmpty) {
        self.answer_syncfs(Caller::of(req), reply);
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.answer_lookup(Caller::of(req), ino(parent), name, reply);
    }

    fn forget(&self, _: &Request, number: INodeNo, _: u64) {
        self.teller.forgot(ino(number));
    }

    fn getattr(&self, req: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.answer_getattr(Caller::of(req), ino(number), reply);
    }

    fn setattr(
        &self,
        req: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = SetAttr {
            mode: mode.map(|mode| mode & 0o7777),
            uid,
            gid,
            size,
            atime: atime.map(set_time),
            mtime: mtime.map(set_time),
            ctime: ctime.map(|time| SetTime::At(time_in(time))),
            clear_privileges: false,
        };
        self.answer_setattr(Caller::of(req), ino(number), set, fh.map(handle), reply);
    }

    fn readlink(&self, req: &Request, number: INodeNo, reply: ReplyData) {
        self.answer_readlink(Caller::of(req), ino(number), reply);
    }

    fn mknod(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, rdev: u32, reply: ReplyEntry) {
        match super::convert::node(mode, rdev) {
            Ok(node) => self.answer_make(Caller::of(req), Place::new(parent, name), node, mode, umask, reply),
            Err(error) => reply.error(super::convert::errno(&error)),
        }
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        self.answer_make(Caller::of(req), Place::new(parent, name), NewNode::Dir, mode, umask, reply);
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let node = NewNode::Symlink(target.as_os_str().as_bytes().to_vec());
        self.answer_make(Caller::of(req), Place::new(parent, name), node, 0o777, 0, reply);
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.answer_unlink(Caller::of(req), Place::new(parent, name), reply);
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.answer_rmdir(Caller::of(req), Place::new(parent, name), reply);
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (from, to) = (Place::new(parent, name), Place::new(new_parent, new_name));
        self.answer_rename(Caller::of(req), from, to, flags.bits(), reply);
    }

    fn link(&self, req: &Request, number: INodeNo, new_parent: INodeNo, new_name: &OsStr, reply: ReplyEntry) {
        self.answer_link(Caller::of(req), ino(number), Place::new(new_parent, new_name), reply);
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        self.answer_create(Caller::of(req), Place::new(parent, name), mode, umask, flags, reply);
    }

    fn opendir(&self, req: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.answer_opendir(Caller::of(req), ino(number), reply);
    }

    fn readdir(&self, req: &Request, number: INodeNo, fh: FileHandle, offset: u64, reply: ReplyDirectory) {
        self.answer_readdir(Caller::of(req), ino(number), Handle(fh.0), offset, reply);
    }

    fn readdirplus(&self, req: &Request, number: INodeNo, fh: FileHandle, offset: u64, reply: ReplyDirectoryPlus) {
        self.answer_readdirplus(Caller::of(req), ino(number), Handle(fh.0), offset, reply);
    }

    fn releasedir(&self, _: &Request, number: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.answer_releasedir(ino(number), handle(fh), reply);
    }

    fn fsyncdir(&self, req: &Request, number: INodeNo, fh: FileHandle, _: bool, reply: ReplyEmpty) {
        let held = (handle(fh) != NO_HANDLE).then(|| handle(fh));
        self.answer_fsync(Caller::of(req), ino(number), held, reply);
    }

    fn open(&self, req: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.answer_open(Caller::of(req), ino(number), flags.0, reply);
    }

    fn read(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        reader: Option<LockOwner>,
        reply: ReplyData,
    ) {
        // A program that reads by itself says who it is. Who does not fills pages: of a mapping, or ahead.
        if reader.is_none() {
            self.fs.fills_pages(ino(number));
        }
        self.answer_read(Caller::of(req), ino(number), handle(fh), offset, size, reply);
    }

    fn write(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        if write_flags.contains(WriteFlags::FUSE_WRITE_CACHE) {
            self.fs.fills_pages(ino(number));
        }
        let mut write = super::data::write_request(offset, data, write_flags, flags.0);
        // Where the end is only the kernel knows, if it gathers writes.
        write.append &= !self.fs.exclusive();
        self.answer_write(Caller::of(req), ino(number), handle(fh), write, reply);
    }

    fn flush(&self, req: &Request, number: INodeNo, fh: FileHandle, owner: LockOwner, reply: ReplyEmpty) {
        self.answer_flush(Caller::of(req), ino(number), handle(fh), owner.0, reply);
    }

    fn release(
        &self,
        _: &Request,
        number: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        flock_owner: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.answer_release(ino(number), handle(fh), flock_owner.map(|owner| owner.0), reply);
    }

    fn fsync(&self, req: &Request, number: INodeNo, fh: FileHandle, _: bool, reply: ReplyEmpty) {
        self.answer_fsync(Caller::of(req), ino(number), Some(handle(fh)), reply);
    }

    fn fallocate(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.answer_fallocate(Caller::of(req), ino(number), handle(fh), (offset, length), mode, reply);
    }

    fn lseek(&self, req: &Request, number: INodeNo, fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        self.answer_lseek(Caller::of(req), ino(number), handle(fh), offset, whence, reply);
    }

    fn copy_file_range(
        &self,
        req: &Request,
        from: INodeNo,
        from_fh: FileHandle,
        from_offset: u64,
        to: INodeNo,
        to_fh: FileHandle,
        to_offset: u64,
        len: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let from = (ino(from), handle(from_fh), from_offset);
        self.answer_copy(Caller::of(req), from, (ino(to), handle(to_fh), to_offset), len, reply);
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        self.answer_statfs(reply);
    }

    fn setxattr(
        &self,
        req: &Request,
        number: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        self.answer_setxattr(Caller::of(req), ino(number), (name.as_bytes(), value), flags, reply);
    }

    fn getxattr(&self, req: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        self.answer_getxattr(Caller::of(req), ino(number), name.as_bytes(), size, reply);
    }

    fn listxattr(&self, req: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        self.answer_listxattr(Caller::of(req), ino(number), size, reply);
    }

    fn removexattr(&self, req: &Request, number: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.answer_removexattr(Caller::of(req), ino(number), name.as_bytes(), reply);
    }

    /// Never sent: the kernel checks permissions itself (`default_permissions`).
    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn getlk(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        pid: u32,
        flock: bool,
        reply: ReplyLock,
    ) {
        let lock = LockArgument { space: space(flock), fh: fh.0, owner: owner.0, start, end, kind, pid };
        self.answer_getlk(Caller::of(req), ino(number), lock, reply);
    }

    fn setlk(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        pid: u32,
        sleep: bool,
        flock: bool,
        reply: ReplyEmpty,
    ) {
        let lock = LockArgument { space: space(flock), fh: fh.0, owner: owner.0, start, end, kind, pid };
        self.answer_setlk(Caller::of(req), ino(number), lock, sleep, reply);
    }

    fn bmap(&self, _: &Request, _: INodeNo, _: u32, _: u64, reply: ReplyBmap) {
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        req: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        command: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        match command {
            SYNC_IOCTL => self.answer_sync(Caller::of(req), reply),
            WRITABLE_IOCTL if self.fs.read_only() => reply.error(Errno::EROFS),
            WRITABLE_IOCTL => reply.ioctl(0, &[]),
            _ => reply.error(Errno::ENOTTY),
        }
    }

    /// The kernel then takes every file for always ready, as local files are, and does not ask again.
    fn poll(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: PollNotifier,
        _: PollEvents,
        _: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(Errno::ENOSYS);
    }
}
