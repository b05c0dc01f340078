//! Requests about names: looking up, making, linking, removing, moving and listing them.

use std::ffi::OsStr;
use std::future::Future;

use fuser::{
    FileHandle, FopenFlags, INodeNo, ReplyCreate, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen,
};

use super::adapter::Door;
use super::caller::Caller;
use super::convert::{attr_out, errno, ino, kind_out, name, open_mode, rename_mode, stale};
use super::serve::{Surrender, serve, serve_leaving};
use super::tell::{Found, GENERATION, Teller};
use crate::client::api::{DirItem, Handle, NewInode, OpenMode, Owner, Posix, Result};
use crate::client::calls::within_now;
use crate::types::attr::{Attr, FileKind, SetAttr};
use crate::types::error::FsError;
use crate::types::id::Ino;
use crate::types::name::Name;
use crate::types::op::{NewNode, RenameMode};

/// The file handle of a directory that is not held open.
pub(super) const NO_HANDLE: Handle = Handle(0);
/// Where a listing goes on after `.` and `..`.
const COOKIE_DOT: u64 = 1;
const COOKIE_DOT_DOT: u64 = 2;

/// A name in a directory; the name may be none that a file can have.
pub(super) struct Place {
    pub dir: Ino,
    pub name: Result<Name>,
}

impl Place {
    pub fn new(dir: INodeNo, text: &OsStr) -> Place {
        Place { dir: ino(dir), name: name(text) }
    }

    fn found(&self) -> Found {
        self.name.as_ref().ok().map(|name| (self.dir, name.clone()))
    }
}

/// One line of a listing.
struct Line {
    ino: Ino,
    cookie: u64,
    kind: FileKind,
    name: Vec<u8>,
}

impl From<DirItem> for Line {
    fn from(item: DirItem) -> Line {
        Line { ino: item.ino, cookie: item.cookie, kind: item.kind, name: item.name.as_bytes().to_vec() }
    }
}

pub(super) fn reply_empty(result: Result<()>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(&error)),
    }
}

impl<F: Posix> Door<F> {
    /// `.` and `..` are asked for when a file handle is turned back into a file.
    pub fn answer_lookup(&self, caller: Caller, dir: Ino, text: &OsStr, reply: ReplyEntry) {
        let (fs, teller) = (self.fs.clone(), self.teller.clone());
        if text == "." {
            let answer = move |result| teller.entry(None, result, reply);
            // What lost its last name cannot be opened by its handle any more (who has it open has it in the kernel).
            let find = async move {
                let attr = fs.getattr(dir).await?;
                if attr.nlink > 0 { Ok(attr) } else { Err(FsError::NotFound) }
            };
            return serve(&self.desk, caller, Surrender::Look, find, answer);
        }
        if text == ".." {
            let answer = move |result| teller.entry(None, result, reply);
            return serve(&self.desk, caller, Surrender::Look, async move { fs.parent(dir).await }, answer);
        }
        let name = match name(text) {
            Ok(name) => name,
            Err(error) => return reply.error(errno(&error)),
        };
        let known = self.fs.try_lookup(dir, &name);
        let found = Some((dir, name.clone()));
        let answer = move |result| teller.entry(found, result, reply);
        if let Some(result) = known {
            return answer(result);
        }
        serve(&self.desk, caller, Surrender::Look, async move { fs.lookup(dir, name).await }, answer);
    }

    /// Runs a change of names in `dirs` and, on a mount with `sync` or `dirsync`, makes it durable.
    fn change<T: Send + 'static>(
        &self,
        caller: Caller,
        dirs: [Ino; 2],
        work: impl Future<Output = Result<T>> + Send + 'static,
        reply: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        let (sync, teller) = (self.sync_names.then(|| self.fs.clone()), self.teller.clone());
        let work = async move {
            let done = work.await?;
            teller.changed(&dirs);
            if let Some(fs) = sync {
                fs.fsync(dirs[0], None).await?;
                if dirs[1] != dirs[0] {
                    fs.fsync(dirs[1], None).await?;
                }
            }
            Ok(done)
        };
        let change = self.teller.underway.begin(dirs);
        serve(&self.desk, caller, Surrender::Change, work, move |result| {
            reply(result);
            drop(change);
        });
    }

    pub fn answer_make(&self, caller: Caller, at: Place, node: NewNode, mode: u32, umask: u32, reply: ReplyEntry) {
        let new = new_inode(caller, node, mode, umask);
        let (fs, dir, teller, found) = (self.fs.clone(), at.dir, self.teller.clone(), at.found());
        let work = async move { fs.make(dir, at.name?, new).await };
        self.change(caller, [dir, dir], work, move |result| teller.entry(found, result, reply));
    }

    pub fn answer_link(&self, caller: Caller, number: Ino, at: Place, reply: ReplyEntry) {
        let (fs, dir, teller, found) = (self.fs.clone(), at.dir, self.teller.clone(), at.found());
        let work = async move { fs.link(number, dir, at.name?).await };
        self.change(caller, [dir, dir], work, move |result| teller.linked(&found, result, reply));
    }

    pub fn answer_unlink(&self, caller: Caller, at: Place, reply: ReplyEmpty) {
        let (fs, dir) = (self.fs.clone(), at.dir);
        let work = async move { fs.unlink(dir, at.name?).await };
        self.change(caller, [dir, dir], work, move |result| reply_empty(result, reply));
    }

    pub fn answer_rmdir(&self, caller: Caller, at: Place, reply: ReplyEmpty) {
        let (fs, dir) = (self.fs.clone(), at.dir);
        let work = async move { fs.rmdir(dir, at.name?).await };
        self.change(caller, [dir, dir], work, move |result| reply_empty(result, reply));
    }

    pub fn answer_rename(&self, caller: Caller, from: Place, to: Place, flags: u32, reply: ReplyEmpty) {
        let (fs, dirs, teller) = (self.fs.clone(), [from.dir, to.dir], self.teller.clone());
        let work = async move {
            let mode = rename_mode(flags)?;
            let (from, to) = ((from.dir, from.name?), (to.dir, to.name?));
            fs.rename(from.clone(), to.clone(), mode).await?;
            teller.renamed(&from, &to, mode == RenameMode::Exchange);
            Ok(())
        };
        self.change(caller, dirs, work, move |result| reply_empty(result, reply));
    }

    pub fn answer_create(&self, caller: Caller, at: Place, mode: u32, umask: u32, flags: i32, reply: ReplyCreate) {
        let new = new_inode(caller, NewNode::File, mode, umask);
        let (fs, sync, dir, open_flags) = (self.fs.clone(), self.sync_names, at.dir, self.open_flags);
        let (teller, found) = (self.teller.clone(), at.found());
        let changing = self.teller.clone();
        let work = async move {
            let created = create(&*fs, caller, at, new, flags).await?;
            changing.changed(&[dir]);
            if sync {
                fs.fsync(dir, None).await?;
            }
            Ok(created)
        };
        let fs = self.fs.clone();
        let give_back = move |(attr, handle): (Attr, Handle)| release_later(fs, attr.ino, handle);
        let surrender = Surrender::Obtain(Box::new(give_back));
        let change = self.teller.underway.begin([dir, dir]);
        serve(&self.desk, caller, surrender, work, move |result| {
            match result {
                Ok(created) => teller.created(&found, created, open_flags, reply),
                Err(error) => reply.error(errno(&error)),
            }
            drop(change);
        });
    }

    /// Holding a directory open keeps it there for its descriptors after it was removed. Who keeps no directories open
    /// says `IsDirectory`, and the descriptor does without.
    pub fn answer_opendir(&self, caller: Caller, dir: Ino, reply: ReplyOpen) {
        let answer = move |result: Result<Handle>, reply: ReplyOpen| match result {
            Ok(handle) => reply.opened(FileHandle(handle.0), FopenFlags::empty()),
            Err(FsError::IsDirectory) => reply.opened(FileHandle(NO_HANDLE.0), FopenFlags::empty()),
            // The mount has ended for good: nothing in it can be had any more. But who unmounts it asks for a sync first, through
            // the root.
            Err(FsError::SessionExpired | FsError::TakenOver) if dir == Ino::ROOT => {
                reply.opened(FileHandle(NO_HANDLE.0), FopenFlags::empty())
            }
            Err(error) => reply.error(errno(&stale(error))),
        };
        let mode = OpenMode { read: true, write: false, sync: false };
        let call = self.desk.call(caller);
        if let Some(result) = within_now(call.clone(), || self.fs.try_open(dir, mode)) {
            answer(result, reply);
            return drop(call);
        }
        let (fs, releasing) = (self.fs.clone(), self.fs.clone());
        let surrender = Surrender::Obtain(Box::new(move |handle| release_later(releasing, dir, handle)));
        let work = async move { fs.open(dir, mode).await };
        serve(&self.desk, caller, surrender, work, move |result| answer(result, reply));
    }

    pub fn answer_releasedir(&self, dir: Ino, handle: Handle, reply: ReplyEmpty) {
        if handle == NO_HANDLE {
            return reply.ok();
        }
        let fs = self.fs.clone();
        let work = async move { fs.release(dir, handle, None).await };
        serve_leaving(&self.desk, || (), work, move |result| reply_empty(result, reply));
    }

    pub fn answer_readdir(&self, caller: Caller, dir: Ino, handle: Handle, offset: u64, mut reply: ReplyDirectory) {
        let fs = self.fs.clone();
        let handle = (handle != NO_HANDLE).then_some(handle);
        let work = async move { list(&*fs, dir, handle, offset).await };
        serve(&self.desk, caller, Surrender::Look, work, move |result| match result {
            Ok(lines) => {
                // `add` says when the buffer is full; the kernel asks again from the last line that fitted.
                let _full = lines
                    .into_iter()
                    .any(|line| reply.add(INodeNo(line.ino.0), line.cookie, kind_out(line.kind), os(&line.name)));
                reply.ok();
            }
            Err(error) => reply.error(errno(&error)),
        });
    }

    /// A listing that saves the look-ups after it: of what can be lent, which is in memory.
    pub fn answer_readdirplus(
        &self,
        caller: Caller,
        dir: Ino,
        handle: Handle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let (fs, teller) = (self.fs.clone(), self.teller.clone());
        let handle = (handle != NO_HANDLE).then_some(handle);
        let work = async move { list(&*fs, dir, handle, offset).await };
        serve(&self.desk, caller, Surrender::Look, work, move |result| match result {
            Ok(lines) => {
                let _full = lines.iter().any(|line| add_plus(&teller, dir, line, &mut reply));
                reply.ok();
            }
            Err(error) => reply.error(errno(&error)),
        });
    }
}

/// `true`: it does not fit. The kernel makes an entry of what it is told more of than its name, so that has to be true now,
/// whenever the listing was made.
fn add_plus<F: Posix>(teller: &Teller<F>, dir: Ino, line: &Line, reply: &mut ReplyDirectoryPlus) -> bool {
    if let Some((attr, validity)) = teller.lends(dir, &line.name, line.ino) {
        let (name, out) = (os(&line.name), attr_out(&attr));
        return reply.add(line.cookie, name, &validity.attr, &validity.name, &out, GENERATION);
    }
    reply.add_bare(INodeNo(line.ino.0), line.cookie, kind_out(line.kind), os(&line.name))
}

fn os(bytes: &[u8]) -> &OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(bytes)
}

fn new_inode(caller: Caller, node: NewNode, mode: u32, umask: u32) -> NewInode {
    NewInode { node, mode: mode & 0o7777, umask, owner: Owner { uid: caller.uid, gid: caller.gid } }
}

fn release_later<F: Posix>(
    fs: std::sync::Arc<F>,
    number: Ino,
    handle: Handle,
) -> futures_util::future::BoxFuture<'static, ()> {
    Box::pin(async move {
        if let Err(error) = fs.release(number, handle, None).await {
            tracing::debug!(%error, "a handle nobody waited for was not released");
        }
    })
}

/// `open` with `O_CREAT` of a name that was not there a moment ago.
///
/// The kernel takes what comes back for new: it checks no permission and truncates nothing. If another host made the
/// file in between, it is opened all the same when it has the caller's owner; any other file, and anything that is no
/// file, is answered with ESTALE, on which the kernel looks the name up again and opens it with all its checks.
async fn create<F: Posix>(fs: &F, caller: Caller, at: Place, new: NewInode, flags: i32) -> Result<(Attr, Handle)> {
    let exclusive = flags & libc::O_EXCL != 0;
    let (attr, handle) = match fs.create(at.dir, at.name?, new, exclusive, open_mode(flags)).await {
        Err(FsError::Exists) if !exclusive => return Err(FsError::Stale),
        created => created?,
    };
    if attr.uid != caller.uid && caller.uid != 0 {
        fs.release(attr.ino, handle, None).await?;
        return Err(FsError::Stale);
    }
    if flags & libc::O_TRUNC != 0 && attr.size > 0 {
        let attr = fs.setattr(attr.ino, SetAttr { size: Some(0), ..SetAttr::default() }).await?;
        return Ok((attr, handle));
    }
    Ok((attr, handle))
}

/// The lines after `offset`; none at the end.
async fn list<F: Posix>(fs: &F, dir: Ino, handle: Option<Handle>, offset: u64) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    if offset < COOKIE_DOT {
        lines.push(Line { ino: dir, cookie: COOKIE_DOT, kind: FileKind::Dir, name: b".".to_vec() });
    }
    if offset < COOKIE_DOT_DOT {
        let parent = fs.parent(dir).await?.ino;
        lines.push(Line { ino: parent, cookie: COOKIE_DOT_DOT, kind: FileKind::Dir, name: b"..".to_vec() });
    }
    lines.extend(fs.readdir(dir, handle, offset.max(COOKIE_DOT_DOT)).await?.into_iter().map(Line::from));
    Ok(lines)
}
