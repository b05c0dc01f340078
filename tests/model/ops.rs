//! Random operations, and what is compared of their outcomes.
//!
//! A [`Step`] goes by path and by slot of an open file, never by inode number or handle, so that the same step can be
//! run on any [`Posix`]. What a file system may choose (inode numbers, times, the size of a directory) is not part of
//! an [`Outcome`].

use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast::client::api::{Handle, LockCall, NewInode, OpenMode, Owner, Posix, WriteRequest};
use holdfast::types::attr::{Attr, FileKind, SetAttr, SetTime, Time};
use holdfast::types::error::FsError;
use holdfast::types::id::Ino;
use holdfast::types::lock::{LockMode, LockRange, LockSpace};
use holdfast::types::name::Name;
use holdfast::types::op::{FallocateMode, NewNode, RenameMode, XattrMode};
use proptest::prelude::*;

/// Open files a run keeps at once.
pub const SLOTS: usize = 6;

/// Up to three components out of a handful of names.
pub type Path = Vec<u8>;

#[derive(Clone, Debug)]
pub enum Action {
    Create { path: Path, exclusive: bool, slot: usize },
    Mkdir { path: Path },
    Symlink { path: Path },
    Mknod { path: Path },
    Link { from: Path, to: Path },
    Unlink { path: Path },
    Rmdir { path: Path },
    Rename { from: Path, to: Path, mode: u8 },
    Stat { path: Path },
    List { path: Path },
    ReadLink { path: Path },
    Chmod { path: Path, mode: u32 },
    Chown { path: Path, uid: u32 },
    SetTimes { path: Path, sec: i64 },
    Truncate { path: Path, size: u64 },
    Open { path: Path, slot: usize },
    Close { slot: usize },
    Write { slot: usize, offset: u64, len: usize, byte: u8, append: bool, sync: bool },
    Read { slot: usize, offset: u64, len: u32 },
    Fsync { slot: usize },
    Fallocate { slot: usize, mode: u8, offset: u64, len: u64 },
    Seek { slot: usize, offset: u64, hole: bool },
    Copy { from: usize, to: usize, from_offset: u64, to_offset: u64, len: u64 },
    SetXattr { path: Path, name: u8, len: usize, mode: u8 },
    GetXattr { path: Path, name: u8 },
    ListXattr { path: Path },
    RemoveXattr { path: Path, name: u8 },
    Lock { path: Path, owner: u64, mode: u8, start: u64, len: u64, flock: bool },
    TestLock { path: Path, owner: u64, start: u64, len: u64 },
}

/// One action, done by one of the clients.
#[derive(Clone, Debug)]
pub struct Step {
    pub client: usize,
    pub action: Action,
}

/// What must be the same everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Error(i32),
    Done,
    Stat { kind: FileKind, mode: u32, uid: u32, gid: u32, nlink: u32, size: u64, mtime_set: Option<i64> },
    Bytes(Vec<u8>),
    List(BTreeMap<Vec<u8>, FileKind>),
    Names(Vec<Vec<u8>>),
    Number(u64),
    Skipped,
}

pub fn steps(clients: usize, count: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = (0..clients, action()).prop_map(|(client, action)| Step { client, action });
    prop::collection::vec(step, count)
}

fn path() -> impl Strategy<Value = Path> {
    prop::collection::vec(0..4u8, 1..4)
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..20_000u64, 2 => 60_000..70_000u64, 1 => 0..300_000u64]
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 1..5_000usize, 2 => 60_000..70_000usize, 1 => 1..200_000usize]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![3 => names(), 2 => looks(), 2 => attributes(), 5 => data(), 1 => extras()]
}

fn names() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (path(), any::<bool>(), 0..SLOTS).prop_map(|(path, exclusive, slot)| Action::Create { path, exclusive, slot }),
        3 => path().prop_map(|path| Action::Mkdir { path }),
        1 => path().prop_map(|path| Action::Symlink { path }),
        1 => path().prop_map(|path| Action::Mknod { path }),
        2 => (path(), path()).prop_map(|(from, to)| Action::Link { from, to }),
        2 => path().prop_map(|path| Action::Unlink { path }),
        1 => path().prop_map(|path| Action::Rmdir { path }),
        3 => (path(), path(), 0..3u8).prop_map(|(from, to, mode)| Action::Rename { from, to, mode }),
    ]
}

fn looks() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => path().prop_map(|path| Action::Stat { path }),
        2 => path().prop_map(|path| Action::List { path }),
        1 => path().prop_map(|path| Action::ReadLink { path }),
    ]
}

fn attributes() -> impl Strategy<Value = Action> {
    prop_oneof![
        (path(), 0..0o10000u32).prop_map(|(path, mode)| Action::Chmod { path, mode }),
        (path(), 0..3u32).prop_map(|(path, uid)| Action::Chown { path, uid }),
        (path(), -5_000_000_000..20_000_000_000i64).prop_map(|(path, sec)| Action::SetTimes { path, sec }),
        (path(), offset()).prop_map(|(path, size)| Action::Truncate { path, size }),
    ]
}

fn data() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (path(), 0..SLOTS).prop_map(|(path, slot)| Action::Open { path, slot }),
        1 => (0..SLOTS).prop_map(|slot| Action::Close { slot }),
        6 => (0..SLOTS, offset(), length(), any::<u8>(), prop::bool::weighted(0.2), prop::bool::weighted(0.1))
            .prop_map(|(slot, offset, len, byte, append, sync)| Action::Write { slot, offset, len, byte, append, sync }),
        6 => (0..SLOTS, offset(), length())
            .prop_map(|(slot, offset, len)| Action::Read { slot, offset, len: len as u32 }),
        1 => (0..SLOTS).prop_map(|slot| Action::Fsync { slot }),
        2 => (0..SLOTS, 0..5u8, offset(), length())
            .prop_map(|(slot, mode, offset, len)| Action::Fallocate { slot, mode, offset, len: len as u64 }),
        1 => (0..SLOTS, offset(), any::<bool>()).prop_map(|(slot, offset, hole)| Action::Seek { slot, offset, hole }),
        2 => (0..SLOTS, 0..SLOTS, offset(), offset(), length()).prop_map(|(from, to, from_offset, to_offset, len)| {
            Action::Copy { from, to, from_offset, to_offset, len: len as u64 }
        }),
    ]
}

fn extras() -> impl Strategy<Value = Action> {
    prop_oneof![
        (path(), 0..3u8, 0..5_000usize, 0..3u8).prop_map(|(path, name, len, mode)| Action::SetXattr {
            path,
            name,
            len,
            mode
        }),
        (path(), 0..3u8).prop_map(|(path, name)| Action::GetXattr { path, name }),
        path().prop_map(|path| Action::ListXattr { path }),
        (path(), 0..3u8).prop_map(|(path, name)| Action::RemoveXattr { path, name }),
        (path(), 0..3u64, 0..3u8, 0..100u64, 1..100u64, any::<bool>())
            .prop_map(|(path, owner, mode, start, len, flock)| Action::Lock { path, owner, mode, start, len, flock }),
        (path(), 0..3u64, 0..100u64, 1..100u64).prop_map(|(path, owner, start, len)| Action::TestLock {
            path,
            owner,
            start,
            len
        }),
    ]
}

/// One side of the comparison: one file system seen through one client or more, and its open files.
pub struct World<F> {
    clients: Vec<Arc<F>>,
    /// The client that opened it, the inode and the handle.
    slots: Vec<Option<(usize, Ino, Handle)>>,
}

type Tried = Result<Outcome, FsError>;

impl<F: Posix> World<F> {
    pub fn new(clients: Vec<Arc<F>>) -> World<F> {
        World { clients, slots: vec![None; SLOTS] }
    }

    pub async fn run(&mut self, step: &Step) -> Outcome {
        self.act(step.client, &step.action).await.unwrap_or_else(|error| {
            if error.errno() == libc::EIO {
                // Several errors look like this one to a program; which it was must be seen.
                eprintln!("{step:?}: {error:?}");
            }
            Outcome::Error(error.errno())
        })
    }

    /// Every path that exists, with what is compared of it: the whole namespace as one value.
    pub async fn survey(&self, client: usize) -> BTreeMap<Vec<u8>, Outcome> {
        let fs = &self.clients[client];
        let mut found = BTreeMap::new();
        let mut todo = vec![(Vec::new(), Ino::ROOT)];
        while let Some((at, dir)) = todo.pop() {
            let mut after = 0;
            loop {
                let page = fs.readdir(dir, None, after).await.expect("listing");
                let Some(last) = page.last() else { break };
                after = last.cookie;
                for item in page {
                    let path = [&at[..], b"/", item.name.as_bytes()].concat();
                    let attr = fs.lookup(dir, item.name.clone()).await.expect("an entry is there");
                    assert_eq!((attr.ino, attr.kind), (item.ino, item.kind), "entry and inode agree");
                    if attr.kind == FileKind::Dir {
                        todo.push((path.clone(), attr.ino));
                    }
                    found.insert(path, stat(&attr, None));
                }
            }
        }
        found
    }

    async fn act(&mut self, client: usize, action: &Action) -> Tried {
        match action {
            Action::Create { .. }
            | Action::Mkdir { .. }
            | Action::Symlink { .. }
            | Action::Mknod { .. }
            | Action::Link { .. }
            | Action::Unlink { .. }
            | Action::Rmdir { .. }
            | Action::Rename { .. } => self.change_names(client, action).await,
            Action::Open { .. }
            | Action::Close { .. }
            | Action::Write { .. }
            | Action::Read { .. }
            | Action::Fsync { .. }
            | Action::Fallocate { .. }
            | Action::Seek { .. }
            | Action::Copy { .. } => self.move_data(client, action).await,
            Action::Stat { .. }
            | Action::List { .. }
            | Action::ReadLink { .. }
            | Action::Chmod { .. }
            | Action::Chown { .. }
            | Action::SetTimes { .. }
            | Action::Truncate { .. } => self.attributes(client, action).await,
            Action::SetXattr { .. }
            | Action::GetXattr { .. }
            | Action::ListXattr { .. }
            | Action::RemoveXattr { .. }
            | Action::Lock { .. }
            | Action::TestLock { .. } => self.extras(client, action).await,
        }
    }

    async fn change_names(&mut self, client: usize, action: &Action) -> Tried {
        let fs = Arc::clone(&self.clients[client]);
        match action {
            Action::Create { path, exclusive, slot } => {
                let (dir, name) = self.place(client, path).await?;
                let mode = OpenMode { read: true, write: true, sync: false };
                let (attr, handle) = fs.create(dir, name, new(NewNode::File), *exclusive, mode).await?;
                self.put(*slot, (client, attr.ino, handle)).await?;
                Ok(stat(&attr, None))
            }
            Action::Mkdir { path } => self.make(client, path, NewNode::Dir).await,
            Action::Symlink { path } => self.make(client, path, NewNode::Symlink(b"some/where".to_vec())).await,
            Action::Mknod { path } => self.make(client, path, NewNode::Fifo).await,
            Action::Link { from, to } => {
                let attr = self.resolve(client, from).await?;
                if attr.kind == FileKind::Dir {
                    return Ok(Outcome::Skipped);
                }
                let (dir, name) = self.place(client, to).await?;
                Ok(stat(&fs.link(attr.ino, dir, name).await?, None))
            }
            Action::Unlink { path } => {
                let (dir, name) = self.place(client, path).await?;
                fs.unlink(dir, name).await.map(|()| Outcome::Done)
            }
            Action::Rmdir { path } => {
                let (dir, name) = self.place(client, path).await?;
                fs.rmdir(dir, name).await.map(|()| Outcome::Done)
            }
            Action::Rename { from, to, mode } => {
                let mode = [RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange][usize::from(*mode)];
                let from = self.place(client, from).await?;
                let to = self.place(client, to).await?;
                fs.rename(from, to, mode).await.map(|()| Outcome::Done)
            }
            _ => Ok(Outcome::Skipped),
        }
    }

    async fn attributes(&mut self, client: usize, action: &Action) -> Tried {
        let fs = Arc::clone(&self.clients[client]);
        let set = |set: SetAttr, path: &Path| {
            let path = path.clone();
            let this = &*self;
            async move {
                let attr = this.resolve(client, &path).await?;
                this.clients[client].setattr(attr.ino, set).await
            }
        };
        match action {
            Action::Stat { path } => Ok(stat(&self.resolve(client, path).await?, None)),
            Action::List { path } => {
                let dir = self.resolve(client, path).await?;
                self.list(client, dir.ino).await
            }
            Action::ReadLink { path } => {
                let attr = self.resolve(client, path).await?;
                Ok(Outcome::Bytes(fs.readlink(attr.ino).await?))
            }
            // The kernel refuses to change the mode of a symlink before anybody is asked.
            Action::Chmod { path, .. } if self.resolve(client, path).await?.kind == FileKind::Symlink => {
                Ok(Outcome::Skipped)
            }
            Action::Chmod { path, mode } => {
                Ok(stat(&set(SetAttr { mode: Some(*mode), ..SetAttr::default() }, path).await?, None))
            }
            Action::Chown { path, uid } => {
                let owner = SetAttr { uid: Some(*uid), gid: Some(*uid + 10), ..SetAttr::default() };
                Ok(stat(&set(owner, path).await?, None))
            }
            Action::SetTimes { path, sec } => {
                let at = SetTime::At(Time { sec: *sec, nsec: 5 });
                let attr = set(SetAttr { atime: Some(at), mtime: Some(at), ..SetAttr::default() }, path).await?;
                Ok(stat(&attr, Some(attr.mtime.sec)))
            }
            Action::Truncate { path, size } => {
                Ok(stat(&set(SetAttr { size: Some(*size), ..SetAttr::default() }, path).await?, None))
            }
            _ => Ok(Outcome::Skipped),
        }
    }

    async fn move_data(&mut self, client: usize, action: &Action) -> Tried {
        if let Action::Open { path, slot } = action {
            let attr = self.resolve(client, path).await?;
            if attr.kind != FileKind::File {
                return Ok(Outcome::Skipped);
            }
            let mode = OpenMode { read: true, write: true, sync: false };
            let handle = self.clients[client].open(attr.ino, mode).await?;
            self.put(*slot, (client, attr.ino, handle)).await?;
            return Ok(Outcome::Done);
        }
        if let Action::Copy { from, to, from_offset, to_offset, len } = action {
            return self.copy((*from, *from_offset), (*to, *to_offset), *len).await;
        }
        let slot = match action {
            Action::Close { slot }
            | Action::Write { slot, .. }
            | Action::Read { slot, .. }
            | Action::Fsync { slot }
            | Action::Fallocate { slot, .. }
            | Action::Seek { slot, .. } => *slot,
            _ => return Ok(Outcome::Skipped),
        };
        let Some((opener, ino, handle)) = self.slots[slot] else { return Ok(Outcome::Skipped) };
        let fs = &self.clients[opener];
        match action {
            Action::Close { slot } => {
                self.slots[*slot] = None;
                fs.release(ino, handle, None).await.map(|()| Outcome::Done)
            }
            Action::Write { offset, len, byte, append, sync, .. } => {
                let data: Vec<u8> = (0..*len).map(|i| byte.wrapping_add((i / 7) as u8)).collect();
                let write = WriteRequest {
                    offset: *offset,
                    data: &data,
                    append: *append,
                    clear_privileges: false,
                    sync: *sync,
                };
                let written = match fs.try_write(ino, handle, write) {
                    Some(written) => written?,
                    None => fs.write(ino, handle, write).await?,
                };
                Ok(Outcome::Number(written.into()))
            }
            Action::Read { offset, len, .. } => {
                let bytes = match fs.try_read(ino, handle, *offset, *len) {
                    Some(bytes) => bytes?,
                    None => fs.read(ino, handle, *offset, *len).await?,
                };
                Ok(Outcome::Bytes(bytes.to_vec()))
            }
            Action::Fsync { .. } => fs.fsync(ino, Some(handle)).await.map(|()| Outcome::Done),
            Action::Fallocate { mode, offset, len, .. } => {
                let mode = [
                    FallocateMode::Allocate { keep_size: false },
                    FallocateMode::Allocate { keep_size: true },
                    FallocateMode::Punch,
                    FallocateMode::Zero { keep_size: false },
                    FallocateMode::Zero { keep_size: true },
                ][usize::from(*mode)];
                fs.fallocate(ino, handle, mode, *offset, *len).await.map(|()| Outcome::Done)
            }
            // Where holes lie is the file system's business; that data is found is not.
            Action::Seek { offset, hole, .. } => fs.seek(ino, handle, *offset, *hole).await.map(|_| Outcome::Done),
            _ => Ok(Outcome::Skipped),
        }
    }

    async fn copy(&self, from: (usize, u64), to: (usize, u64), len: u64) -> Tried {
        let (Some(a), Some(b)) = (self.slots[from.0], self.slots[to.0]) else { return Ok(Outcome::Skipped) };
        let overlap = from.1 < to.1 + len && to.1 < from.1 + len;
        // One process copies between files of one mount; overlapping ranges of one file are EINVAL in the kernel.
        if a.0 != b.0 || (a.1 == b.1 && overlap) {
            return Ok(Outcome::Skipped);
        }
        let copied = self.clients[a.0].copy_range((a.1, a.2, from.1), (b.1, b.2, to.1), len).await?;
        Ok(Outcome::Number(copied))
    }

    async fn extras(&mut self, client: usize, action: &Action) -> Tried {
        let fs = Arc::clone(&self.clients[client]);
        let xattr = |name: &u8| format!("trusted.name{name}").into_bytes();
        match action {
            Action::SetXattr { path, name, len, mode } => {
                let attr = self.resolve(client, path).await?;
                let mode = [XattrMode::Set, XattrMode::Create, XattrMode::Replace][usize::from(*mode)];
                let value = vec![*name; *len];
                fs.setxattr(attr.ino, xattr(name), value, mode).await.map(|()| Outcome::Done)
            }
            Action::GetXattr { path, name } => {
                let attr = self.resolve(client, path).await?;
                Ok(Outcome::Bytes(fs.getxattr(attr.ino, xattr(name)).await?))
            }
            Action::ListXattr { path } => {
                let attr = self.resolve(client, path).await?;
                let mut names = fs.listxattr(attr.ino).await?;
                names.sort();
                Ok(Outcome::Names(names))
            }
            Action::RemoveXattr { path, name } => {
                let attr = self.resolve(client, path).await?;
                fs.removexattr(attr.ino, xattr(name)).await.map(|()| Outcome::Done)
            }
            Action::Lock { path, owner, mode, start, len, flock } => {
                let attr = self.resolve(client, path).await?;
                let range = if *flock { whole() } else { LockRange { start: *start, end: *start + *len - 1 } };
                let call = LockCall {
                    space: if *flock { LockSpace::Flock } else { LockSpace::Range },
                    owner: owner_of(client, *owner),
                    mode: [None, Some(LockMode::Shared), Some(LockMode::Exclusive)][usize::from(*mode)],
                    range,
                    pid: 1,
                };
                fs.setlk(attr.ino, call, false).await.map(|()| Outcome::Done)
            }
            Action::TestLock { path, owner, start, len } => {
                let attr = self.resolve(client, path).await?;
                let call = LockCall {
                    space: LockSpace::Range,
                    owner: owner_of(client, *owner),
                    mode: Some(LockMode::Exclusive),
                    range: LockRange { start: *start, end: *start + *len - 1 },
                    pid: 1,
                };
                Ok(Outcome::Number(u64::from(fs.getlk(attr.ino, call).await?.is_some())))
            }
            _ => Ok(Outcome::Skipped),
        }
    }

    async fn list(&self, client: usize, dir: Ino) -> Tried {
        let mut entries = BTreeMap::new();
        let mut after = 0;
        loop {
            let page = self.clients[client].readdir(dir, None, after).await?;
            let Some(last) = page.last() else { return Ok(Outcome::List(entries)) };
            after = last.cookie;
            entries.extend(page.into_iter().map(|item| (item.name.as_bytes().to_vec(), item.kind)));
        }
    }

    async fn make(&self, client: usize, path: &Path, node: NewNode) -> Tried {
        let (dir, name) = self.place(client, path).await?;
        Ok(stat(&self.clients[client].make(dir, name, new(node)).await?, None))
    }

    async fn put(&mut self, slot: usize, open: (usize, Ino, Handle)) -> Result<(), FsError> {
        match self.slots[slot].replace(open) {
            Some((client, ino, handle)) => self.clients[client].release(ino, handle, None).await,
            None => Ok(()),
        }
    }

    async fn resolve(&self, client: usize, path: &[u8]) -> Result<Attr, FsError> {
        let fs = &self.clients[client];
        let mut dir = Ino::ROOT;
        let mut attr = None;
        for component in path {
            let found = match fs.try_lookup(dir, &name(*component)) {
                Some(found) => found?,
                None => fs.lookup(dir, name(*component)).await?,
            };
            dir = found.ino;
            attr = Some(found);
        }
        match attr {
            // A look-up is not the whole truth of a stat: ask for that as well.
            Some(attr) => match fs.try_getattr(attr.ino) {
                Some(attr) => attr,
                None => fs.getattr(attr.ino).await,
            },
            None => fs.getattr(Ino::ROOT).await,
        }
    }

    async fn place(&self, client: usize, path: &[u8]) -> Result<(Ino, Name), FsError> {
        let (last, parents) = path.split_last().expect("paths are not empty");
        let dir = self.resolve(client, parents).await?;
        Ok((dir.ino, name(*last)))
    }
}

fn name(component: u8) -> Name {
    Name::new(vec![b'a' + component]).expect("a letter")
}

/// Kernel lock owners of different hosts are different even when their numbers are not; one reference knows only numbers.
fn owner_of(client: usize, owner: u64) -> u64 {
    client as u64 * 1000 + owner
}

fn whole() -> LockRange {
    LockRange { start: 0, end: u64::MAX >> 1 }
}

fn new(node: NewNode) -> NewInode {
    NewInode { node, mode: 0o664, umask: 0o022, owner: Owner { uid: 5, gid: 6 } }
}

fn stat(attr: &Attr, mtime_set: Option<i64>) -> Outcome {
    Outcome::Stat {
        kind: attr.kind,
        mode: attr.mode,
        uid: attr.uid,
        gid: attr.gid,
        nlink: attr.nlink,
        size: if attr.kind == FileKind::Dir { 0 } else { attr.size },
        mtime_set,
    }
}
