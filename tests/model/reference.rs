//! An in-memory filesystem that is simply and obviously right: the definition of correctness that mounts and clients
//! are compared with. One lock, ordered maps, no caching, no permission checks (they are the kernel's).
//!
//! Where POSIX leaves a choice it chooses as ext4 does, save that holes are exact to the byte. Every other `try_*` call
//! answers `None`, so that whoever drives it goes both ways.

#![allow(dead_code, reason = "each test target that includes this uses a part of it")]

mod acl;
mod inode;
mod locks;
mod namespace;
mod sparse;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use holdfast::client::api::{DirItem, Handle, LockCall, NewInode, OpenMode, Posix, Result, WriteRequest};
use holdfast::types::attr::{Attr, SetAttr, Time};
use holdfast::types::error::FsError;
use holdfast::types::id::Ino;
use holdfast::types::limits::FILE_BYTES_MAX;
use holdfast::types::lock::{Lock, LockSpace};
use holdfast::types::name::Name;
use holdfast::types::op::{FallocateMode, RenameMode, XattrMode};
use holdfast::types::record::SpaceReport;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use inode::{Body, Inode};
use locks::Locks;

/// What it holds unless told otherwise: more than any test writes.
const CAPACITY_BYTES: u64 = 1 << 40;
const READDIR_ITEMS: usize = 500;
const INODES_MAX: u64 = 1 << 32;

pub struct Reference {
    state: Mutex<State>,
    /// A lock was dropped or given up.
    unlocked: Notify,
    turn: AtomicU64,
    /// The call that does not come to its end for now, and how many of it wait.
    held: watch::Sender<(Option<Held>, usize)>,
}

/// A call that can be held up, as if the cluster were away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    Create,
    Make,
    Locked,
    Open,
    Read,
    Rename,
    Sync,
}

struct State {
    inodes: BTreeMap<Ino, Inode>,
    next_ino: u64,
    handles: BTreeMap<Handle, Ino>,
    next_handle: u64,
    locks: Locks,
    capacity_bytes: u64,
    allocated_bytes: u64,
    /// Calls of `fsync` and `sync`, for tests of whoever should make them.
    syncs: u64,
}

impl Default for Reference {
    fn default() -> Reference {
        Reference::with_capacity(CAPACITY_BYTES)
    }
}

fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    Time { sec: since.as_secs() as i64, nsec: since.subsec_nanos() }
}

fn end_of(offset: u64, len: u64) -> Result<u64> {
    offset.checked_add(len).filter(|end| *end <= FILE_BYTES_MAX).ok_or(FsError::FileTooLarge)
}

impl Reference {
    pub fn with_capacity(capacity_bytes: u64) -> Reference {
        let state = State {
            inodes: BTreeMap::from([(Ino::ROOT, Inode::root(now()))]),
            next_ino: 2,
            handles: BTreeMap::new(),
            next_handle: 1,
            locks: Locks::default(),
            capacity_bytes,
            allocated_bytes: 0,
            syncs: 0,
        };
        let held = watch::Sender::new((None, 0));
        Reference { state: Mutex::new(state), unlocked: Notify::new(), turn: AtomicU64::new(0), held }
    }

    /// From now on this call waits, until [`Reference::resume`].
    pub fn hold(&self, call: Held) {
        self.held.send_modify(|held| held.0 = Some(call));
    }

    /// Nothing is held any more. Returns when whoever waited goes on.
    pub async fn resume(&self) {
        self.held.send_modify(|held| held.0 = None);
        let mut held = self.held.subscribe();
        held.wait_for(|held| held.1 == 0).await.expect("the sender is right here");
    }

    /// Returns when a call waits.
    pub async fn holds_one(&self) {
        let mut held = self.held.subscribe();
        held.wait_for(|held| held.1 > 0).await.expect("the sender is right here");
    }

    /// Open handles.
    pub fn handles(&self) -> usize {
        self.state.lock().handles.len()
    }

    async fn pass(&self, call: Held) {
        if self.held.borrow().0 != Some(call) {
            return;
        }
        let waiter = Waiter::new(&self.held);
        let mut held = waiter.held.subscribe();
        held.wait_for(|held| held.0 != Some(call)).await.expect("the sender is right here");
    }

    /// How often something was asked to be made durable.
    pub fn syncs(&self) -> u64 {
        self.state.lock().syncs
    }

    fn my_turn(&self) -> bool {
        self.held.borrow().0.is_none() && self.turn.fetch_add(1, Ordering::Relaxed).is_multiple_of(2)
    }
}

impl State {
    fn inode(&self, ino: Ino) -> Result<&Inode> {
        self.inodes.get(&ino).ok_or(FsError::NotFound)
    }

    fn inode_mut(&mut self, ino: Ino) -> Result<&mut Inode> {
        self.inodes.get_mut(&ino).ok_or(FsError::NotFound)
    }

    fn handle(&self, ino: Ino, handle: Handle) -> Result<()> {
        if self.handles.get(&handle) == Some(&ino) { Ok(()) } else { Err(FsError::BadHandle) }
    }

    fn open(&mut self, ino: Ino) -> Result<Handle> {
        self.inode_mut(ino)?.open += 1;
        let handle = Handle(self.next_handle);
        self.next_handle += 1;
        self.handles.insert(handle, ino);
        Ok(handle)
    }

    fn release(&mut self, ino: Ino, handle: Handle) -> Result<()> {
        self.handle(ino, handle)?;
        self.handles.remove(&handle);
        self.inode_mut(ino)?.open -= 1;
        self.forget_if_orphan(ino);
        Ok(())
    }

    /// An inode without names and without open handles is no more.
    fn forget_if_orphan(&mut self, ino: Ino) {
        if let Some(inode) = self.inodes.get(&ino)
            && inode.attr.nlink == 0
            && inode.open == 0
        {
            self.allocated_bytes -= inode.attr.allocated_bytes;
            self.inodes.remove(&ino);
        }
    }

    /// Changes the bytes of a file within the capacity, and its size to what `change` returns.
    fn change_data(
        &mut self,
        ino: Ino,
        adds_at_most: u64,
        change: impl FnOnce(&mut sparse::Sparse, u64) -> u64,
    ) -> Result<()> {
        if self.allocated_bytes + adds_at_most > self.capacity_bytes {
            return Err(FsError::NoSpace);
        }
        let inode = self.inodes.get_mut(&ino).ok_or(FsError::NotFound)?;
        let Body::File(data) = &mut inode.body else { return Err(FsError::Invalid) };
        inode.attr.size = change(data, inode.attr.size);
        let allocated = data.allocated_bytes();
        self.allocated_bytes = self.allocated_bytes - inode.attr.allocated_bytes + allocated;
        inode.attr.allocated_bytes = allocated;
        inode.modified(now());
        Ok(())
    }

    fn read(&mut self, ino: Ino, handle: Handle, offset: u64, len: u32) -> Result<Bytes> {
        self.handle(ino, handle)?;
        let inode = self.inode_mut(ino)?;
        let Body::File(data) = &inode.body else { return Err(FsError::IsDirectory) };
        let len = u64::from(len).min(inode.attr.size.saturating_sub(offset));
        let bytes = data.read(offset, len as usize);
        inode.accessed(now());
        Ok(bytes.into())
    }

    fn write(&mut self, ino: Ino, handle: Handle, write: WriteRequest<'_>) -> Result<u32> {
        self.handle(ino, handle)?;
        let inode = self.inode(ino)?;
        let offset = if write.append { inode.attr.size } else { write.offset };
        let end = end_of(offset, write.data.len() as u64)?;
        let Body::File(data) = &inode.body else { return Err(FsError::Invalid) };
        let adds = end - offset - data.allocated_within(offset, end);
        self.change_data(ino, adds, |data, size| {
            data.write(offset, write.data);
            size.max(end)
        })?;
        let inode = self.inode_mut(ino)?;
        inode.xattrs.remove(&b"security.capability"[..]);
        if write.clear_privileges {
            inode.clear_privileges();
        }
        self.syncs += u64::from(write.sync);
        Ok(write.data.len() as u32)
    }

    fn setattr(&mut self, ino: Ino, set: SetAttr) -> Result<Attr> {
        if let Some(size) = set.size {
            match self.inode(ino)?.body {
                Body::File(_) => {}
                Body::Dir(_) => return Err(FsError::IsDirectory),
                _ => return Err(FsError::Invalid),
            }
            end_of(size, 0)?;
            self.change_data(ino, 0, |data, _| {
                data.cut(size, u64::MAX);
                size
            })?;
        }
        let inode = self.inode_mut(ino)?;
        inode.set(&set, now());
        Ok(inode.attr.clone())
    }

    fn fallocate(&mut self, ino: Ino, handle: Handle, mode: FallocateMode, offset: u64, len: u64) -> Result<()> {
        self.handle(ino, handle)?;
        if len == 0 {
            return Err(FsError::Invalid);
        }
        let end = end_of(offset, len)?;
        let Body::File(data) = &self.inode(ino)?.body else { return Err(FsError::Invalid) };
        let holes = len - data.allocated_within(offset, end);
        let grown = |size: u64, keep: bool| if keep { size } else { size.max(end) };
        match mode {
            FallocateMode::Allocate { keep_size } => self.change_data(ino, holes, |data, size| {
                data.allocate(offset, end);
                grown(size, keep_size)
            }),
            FallocateMode::Punch => self.change_data(ino, 0, |data, size| {
                data.cut(offset, end);
                size
            }),
            FallocateMode::Zero { keep_size } => self.change_data(ino, holes, |data, size| {
                data.zero(offset, end);
                grown(size, keep_size)
            }),
        }
    }

    fn seek(&self, ino: Ino, handle: Handle, offset: u64, hole: bool) -> Result<u64> {
        self.handle(ino, handle)?;
        let inode = self.inode(ino)?;
        let Body::File(data) = &inode.body else { return Err(FsError::Invalid) };
        let size = inode.attr.size;
        if offset >= size {
            return Err(FsError::NoSuchAddress);
        }
        if hole {
            return Ok(data.next_hole(offset).min(size));
        }
        data.next_data(offset).filter(|at| *at < size).ok_or(FsError::NoSuchAddress)
    }

    fn copy_range(&mut self, from: (Ino, Handle, u64), to: (Ino, Handle, u64), len: u64) -> Result<u64> {
        self.handle(from.0, from.1)?;
        self.handle(to.0, to.1)?;
        let source = self.inode(from.0)?;
        let Body::File(source_data) = &source.body else { return Err(FsError::Invalid) };
        let len = len.min(source.attr.size.saturating_sub(from.2));
        if from.0 == to.0 && from.2 < to.2 + len && to.2 < from.2 + len {
            return Err(FsError::Invalid);
        }
        if len == 0 {
            return Ok(0);
        }
        let end = end_of(to.2, len)?;
        let (source_data, adds) = (source_data.clone(), source_data.allocated_within(from.2, from.2 + len));
        self.change_data(to.0, adds, |data, size| {
            data.copy_from(&source_data, from.2, to.2, len);
            size.max(end)
        })?;
        Ok(len)
    }
}

/// Counts itself among those who wait while it lives.
struct Waiter<'a> {
    held: &'a watch::Sender<(Option<Held>, usize)>,
}

impl<'a> Waiter<'a> {
    fn new(held: &'a watch::Sender<(Option<Held>, usize)>) -> Waiter<'a> {
        held.send_modify(|held| held.1 += 1);
        Waiter { held }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.held.send_modify(|held| held.1 -= 1);
    }
}

/// A wait for a lock; dropped, it leaves no trace.
struct Waiting<'a> {
    reference: &'a Reference,
    owner: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.reference.state.lock().locks.give_up(self.owner);
        self.reference.unlocked.notify_waiters();
    }
}

impl Posix for Reference {
    fn fills_pages(&self, _: Ino) {}

    /// It has no way to take back what the kernel keeps.
    fn lend_attr(&self, _: &Attr) -> std::time::Duration {
        std::time::Duration::ZERO
    }

    fn lend_name(&self, _: Ino, _: &Name, _: Ino) -> std::time::Duration {
        std::time::Duration::ZERO
    }

    fn is_lent(&self, _: Ino) -> bool {
        false
    }

    fn try_lookup(&self, dir: Ino, name: &Name) -> Option<Result<Attr>> {
        self.my_turn().then(|| self.state.lock().lookup(dir, name))
    }

    fn try_getattr(&self, ino: Ino) -> Option<Result<Attr>> {
        self.my_turn().then(|| self.state.lock().inode(ino).map(|inode| inode.attr.clone()))
    }

    fn try_read(&self, ino: Ino, handle: Handle, offset: u64, len: u32) -> Option<Result<Bytes>> {
        self.my_turn().then(|| self.state.lock().read(ino, handle, offset, len))
    }

    fn try_write(&self, ino: Ino, handle: Handle, write: WriteRequest<'_>) -> Option<Result<u32>> {
        self.my_turn().then(|| self.state.lock().write(ino, handle, write))
    }

    fn try_open(&self, ino: Ino, _mode: OpenMode) -> Option<Result<Handle>> {
        self.my_turn().then(|| self.state.lock().open(ino))
    }

    fn exclusive(&self) -> bool {
        false
    }

    fn read_only(&self) -> bool {
        false
    }

    fn statfs(&self) -> Result<SpaceReport> {
        let state = self.state.lock();
        Ok(SpaceReport {
            total_bytes: state.capacity_bytes,
            free_bytes: state.capacity_bytes - state.allocated_bytes,
            disk_free_bytes: state.capacity_bytes - state.allocated_bytes,
            inodes: INODES_MAX,
            inodes_free: INODES_MAX - state.inodes.len() as u64,
            tight: false,
            freeing: false,
        })
    }

    async fn lookup(&self, dir: Ino, name: Name) -> Result<Attr> {
        self.state.lock().lookup(dir, &name)
    }

    async fn parent(&self, dir: Ino) -> Result<Attr> {
        let state = self.state.lock();
        let parent = state.dir(dir)?.parent;
        Ok(state.inode(parent)?.attr.clone())
    }

    async fn getattr(&self, ino: Ino) -> Result<Attr> {
        Ok(self.state.lock().inode(ino)?.attr.clone())
    }

    async fn setattr(&self, ino: Ino, set: SetAttr) -> Result<Attr> {
        self.state.lock().setattr(ino, set)
    }

    async fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        let mut state = self.state.lock();
        let inode = state.inode_mut(ino)?;
        inode.accessed(now());
        match &inode.body {
            Body::Symlink(target) => Ok(target.clone()),
            _ => Err(FsError::Invalid),
        }
    }

    async fn make(&self, dir: Ino, name: Name, new: NewInode) -> Result<Attr> {
        self.pass(Held::Make).await;
        let mut state = self.state.lock();
        let ino = state.make(dir, name, new)?;
        Ok(state.inode(ino)?.attr.clone())
    }

    async fn create(
        &self,
        dir: Ino,
        name: Name,
        new: NewInode,
        exclusive: bool,
        _mode: OpenMode,
    ) -> Result<(Attr, Handle)> {
        self.pass(Held::Create).await;
        let mut state = self.state.lock();
        let ino = match state.make(dir, name.clone(), new) {
            Err(FsError::Exists) if !exclusive => {
                let there = state.dir(dir)?.entry(&name)?.ino;
                if !matches!(state.inode(there)?.body, Body::File(_)) {
                    return Err(FsError::Exists);
                }
                there
            }
            made => made?,
        };
        let handle = state.open(ino)?;
        Ok((state.inode(ino)?.attr.clone(), handle))
    }

    async fn link(&self, ino: Ino, dir: Ino, name: Name) -> Result<Attr> {
        self.state.lock().link(ino, dir, name)
    }

    async fn unlink(&self, dir: Ino, name: Name) -> Result<()> {
        self.state.lock().unlink(dir, &name)
    }

    async fn rmdir(&self, dir: Ino, name: Name) -> Result<()> {
        self.state.lock().rmdir(dir, &name)
    }

    async fn rename(&self, from: (Ino, Name), to: (Ino, Name), mode: RenameMode) -> Result<()> {
        self.pass(Held::Rename).await;
        self.state.lock().rename(from, to, mode)
    }

    async fn readdir(&self, dir: Ino, _: Option<Handle>, after: u64) -> Result<Vec<DirItem>> {
        let mut state = self.state.lock();
        let listed = state.dir(dir)?.after(after, READDIR_ITEMS);
        let items = listed
            .into_iter()
            .map(|(cookie, name, ino)| Ok(DirItem { kind: state.inode(ino)?.attr.kind, name, ino, cookie }))
            .collect();
        state.inode_mut(dir)?.accessed(now());
        items
    }

    async fn open(&self, ino: Ino, _mode: OpenMode) -> Result<Handle> {
        self.pass(Held::Open).await;
        self.state.lock().open(ino)
    }

    async fn read(&self, ino: Ino, handle: Handle, offset: u64, len: u32) -> Result<Bytes> {
        self.pass(Held::Read).await;
        self.state.lock().read(ino, handle, offset, len)
    }

    async fn write(&self, ino: Ino, handle: Handle, write: WriteRequest<'_>) -> Result<u32> {
        self.state.lock().write(ino, handle, write)
    }

    async fn flush(&self, ino: Ino, handle: Handle, owner: u64) -> Result<()> {
        let mut state = self.state.lock();
        state.handle(ino, handle)?;
        state.locks.drop_owner(ino, LockSpace::Range, owner);
        self.unlocked.notify_waiters();
        Ok(())
    }

    async fn release(&self, ino: Ino, handle: Handle, flock_owner: Option<u64>) -> Result<()> {
        let mut state = self.state.lock();
        if let Some(owner) = flock_owner {
            state.locks.drop_owner(ino, LockSpace::Flock, owner);
            self.unlocked.notify_waiters();
        }
        state.release(ino, handle)
    }

    async fn fsync(&self, ino: Ino, _handle: Option<Handle>) -> Result<()> {
        let mut state = self.state.lock();
        state.syncs += 1;
        state.inode(ino).map(|_| ())
    }

    async fn sync(&self) -> Result<()> {
        self.pass(Held::Sync).await;
        self.state.lock().syncs += 1;
        Ok(())
    }

    async fn fallocate(&self, ino: Ino, handle: Handle, mode: FallocateMode, offset: u64, len: u64) -> Result<()> {
        self.state.lock().fallocate(ino, handle, mode, offset, len)
    }

    async fn seek(&self, ino: Ino, handle: Handle, offset: u64, hole: bool) -> Result<u64> {
        self.state.lock().seek(ino, handle, offset, hole)
    }

    async fn copy_range(&self, from: (Ino, Handle, u64), to: (Ino, Handle, u64), len: u64) -> Result<u64> {
        self.state.lock().copy_range(from, to, len)
    }

    async fn getxattr(&self, ino: Ino, name: Vec<u8>) -> Result<Vec<u8>> {
        self.state.lock().inode(ino)?.xattrs.get(&name).cloned().ok_or(FsError::NoAttribute)
    }

    async fn listxattr(&self, ino: Ino) -> Result<Vec<Vec<u8>>> {
        Ok(self.state.lock().inode(ino)?.xattrs.keys().cloned().collect())
    }

    async fn setxattr(&self, ino: Ino, name: Vec<u8>, value: Vec<u8>, mode: XattrMode) -> Result<()> {
        self.state.lock().inode_mut(ino)?.set_xattr(name, value, mode, now())
    }

    async fn removexattr(&self, ino: Ino, name: Vec<u8>) -> Result<()> {
        self.state.lock().inode_mut(ino)?.remove_xattr(&name, now())
    }

    async fn getlk(&self, ino: Ino, call: LockCall) -> Result<Option<Lock>> {
        Ok(self.state.lock().locks.conflict(ino, &call))
    }

    async fn locked(&self, _: Ino) {
        self.pass(Held::Locked).await;
    }

    fn check_handle(&self, handle: Handle) -> Result<()> {
        self.state.lock().handles.get(&handle).map(|_| ()).ok_or(FsError::BadHandle)
    }

    async fn setlk(&self, ino: Ino, call: LockCall, wait: bool) -> Result<()> {
        let _waiting = wait.then_some(Waiting { reference: self, owner: call.owner });
        loop {
            // Registered before the look, so that nothing is missed in between.
            let mut changed = std::pin::pin!(self.unlocked.notified());
            changed.as_mut().enable();
            let taken = self.state.lock().locks.apply(ino, &call, wait);
            match taken {
                Err(FsError::WouldBlock) if wait => changed.await,
                taken => {
                    self.unlocked.notify_waiters();
                    return taken;
                }
            }
        }
    }
}
