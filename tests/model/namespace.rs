//! Names of the reference: making, linking, removing and moving them.

use std::collections::BTreeMap;

use holdfast::client::api::NewInode;
use holdfast::types::attr::{Attr, FileKind, S_ISGID};
use holdfast::types::error::FsError;
use holdfast::types::id::Ino;
use holdfast::types::limits::{LINKS_MAX, SYMLINK_BYTES_MAX};
use holdfast::types::name::Name;
use holdfast::types::op::{NewNode, RenameMode};

use super::acl::{ACCESS, Acl, DEFAULT};
use super::inode::{Body, Dir, Entry, Inode, Xattrs};
use super::sparse::Sparse;
use super::{Result, State, now};

impl State {
    pub fn dir(&self, ino: Ino) -> Result<&Dir> {
        match &self.inode(ino)?.body {
            Body::Dir(dir) => Ok(dir),
            _ => Err(FsError::NotDirectory),
        }
    }

    fn dir_mut(&mut self, ino: Ino) -> Result<&mut Dir> {
        match &mut self.inode_mut(ino)?.body {
            Body::Dir(dir) => Ok(dir),
            _ => Err(FsError::NotDirectory),
        }
    }

    pub fn lookup(&self, dir: Ino, name: &Name) -> Result<Attr> {
        let entry = self.dir(dir)?.entry(name)?;
        Ok(self.inode(entry.ino)?.attr.clone())
    }

    /// `dir` may get the new name `name`: it is a living directory without it.
    fn check_free(&self, dir: Ino, name: &Name) -> Result<()> {
        if self.dir(dir)?.names.contains_key(name) {
            return Err(FsError::Exists);
        }
        if self.inode(dir)?.attr.nlink == 0 {
            return Err(FsError::NotFound);
        }
        Ok(())
    }

    fn is_dir(&self, ino: Ino) -> Result<bool> {
        Ok(self.inode(ino)?.attr.kind == FileKind::Dir)
    }

    /// A subdirectory came to (`1`) or left (`-1`) `dir`.
    fn count_subdir(&mut self, dir: Ino, by: i32) -> Result<()> {
        let attr = &mut self.inode_mut(dir)?.attr;
        attr.nlink = attr.nlink.checked_add_signed(by).ok_or(FsError::Io)?;
        Ok(())
    }

    pub fn make(&mut self, dir: Ino, name: Name, new: NewInode) -> Result<Ino> {
        self.check_free(dir, &name)?;
        if let NewNode::Symlink(target) = &new.node
            && target.len() > SYMLINK_BYTES_MAX
        {
            return Err(FsError::NameTooLong);
        }
        let ino = Ino(self.next_ino);
        let inode = self.new_inode(ino, dir, new)?;
        let is_dir = inode.attr.kind == FileKind::Dir;
        self.next_ino += 1;
        self.inodes.insert(ino, inode);
        self.dir_mut(dir)?.put(name, ino);
        if is_dir {
            self.count_subdir(dir, 1)?;
        }
        self.inode_mut(dir)?.modified(now());
        Ok(ino)
    }

    fn new_inode(&self, ino: Ino, dir: Ino, new: NewInode) -> Result<Inode> {
        let parent = self.inode(dir)?;
        let (kind, rdev, size, body) = match new.node {
            NewNode::File => (FileKind::File, 0, 0, Body::File(Sparse::default())),
            NewNode::Dir => (FileKind::Dir, 0, 4096, Body::Dir(Dir::new(dir))),
            NewNode::Symlink(target) => (FileKind::Symlink, 0, target.len() as u64, Body::Symlink(target)),
            NewNode::Fifo => (FileKind::Fifo, 0, 0, Body::Node),
            NewNode::Socket => (FileKind::Socket, 0, 0, Body::Node),
            NewNode::Char(rdev) => (FileKind::Char, rdev, 0, Body::Node),
            NewNode::Block(rdev) => (FileKind::Block, rdev, 0, Body::Node),
        };
        let is_dir = kind == FileKind::Dir;
        let inherits_group = parent.attr.mode & S_ISGID != 0;
        let gid = if inherits_group { parent.attr.gid } else { new.owner.gid };
        let setgid = if inherits_group && is_dir { S_ISGID } else { 0 };
        let (mode, xattrs) = match parent.xattrs.get(DEFAULT) {
            _ if kind == FileKind::Symlink => (0o777, BTreeMap::new()),
            None => (new.mode & !new.umask & 0o7777, BTreeMap::new()),
            Some(default) => inherit_acl(default, new.mode & 0o7777, is_dir)?,
        };
        let time = now();
        let attr = Attr {
            ino,
            kind,
            mode: mode | setgid,
            uid: new.owner.uid,
            gid,
            nlink: if is_dir { 2 } else { 1 },
            rdev,
            size,
            allocated_bytes: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            version: 1,
            has_acl: xattrs.contains_key(ACCESS),
            has_xattr: false,
        };
        Ok(Inode { attr, body, xattrs, open: 0 })
    }

    pub fn link(&mut self, ino: Ino, dir: Ino, name: Name) -> Result<Attr> {
        let attr = &self.inode(ino)?.attr;
        if attr.kind == FileKind::Dir {
            return Err(FsError::NotPermitted);
        }
        if attr.nlink == 0 {
            return Err(FsError::NotFound);
        }
        if attr.nlink >= LINKS_MAX {
            return Err(FsError::TooManyLinks);
        }
        self.check_free(dir, &name)?;
        self.dir_mut(dir)?.put(name, ino);
        self.inode_mut(dir)?.modified(now());
        let inode = self.inode_mut(ino)?;
        inode.attr.nlink += 1;
        inode.changed(now());
        Ok(inode.attr.clone())
    }

    pub fn unlink(&mut self, dir: Ino, name: &Name) -> Result<()> {
        let entry = self.dir(dir)?.entry(name)?;
        if self.is_dir(entry.ino)? {
            return Err(FsError::IsDirectory);
        }
        self.dir_mut(dir)?.take(name);
        self.inode_mut(dir)?.modified(now());
        self.lose_name(entry.ino)
    }

    pub fn rmdir(&mut self, dir: Ino, name: &Name) -> Result<()> {
        let entry = self.dir(dir)?.entry(name)?;
        if !self.dir(entry.ino)?.names.is_empty() {
            return Err(FsError::NotEmpty);
        }
        self.dir_mut(dir)?.take(name);
        self.count_subdir(dir, -1)?;
        self.inode_mut(dir)?.modified(now());
        self.lose_name(entry.ino)
    }

    /// The inode lost one name (a directory its only one).
    fn lose_name(&mut self, ino: Ino) -> Result<()> {
        let inode = self.inode_mut(ino)?;
        inode.attr.nlink = if inode.attr.kind == FileKind::Dir { 0 } else { inode.attr.nlink - 1 };
        inode.changed(now());
        self.forget_if_orphan(ino);
        Ok(())
    }

    pub fn rename(&mut self, from: (Ino, Name), to: (Ino, Name), mode: RenameMode) -> Result<()> {
        let source = self.dir(from.0)?.entry(&from.1)?;
        let target = self.dir(to.0)?.names.get(&to.1).copied();
        if self.inode(to.0)?.attr.nlink == 0 {
            return Err(FsError::NotFound);
        }
        if self.is_within(to.0, source.ino)? {
            return Err(FsError::Invalid);
        }
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => Err(FsError::Exists),
            (RenameMode::Exchange, None) => Err(FsError::NotFound),
            (RenameMode::Exchange, Some(target)) => self.exchange(from, source, to, target),
            (_, Some(target)) if target.ino == source.ino => Ok(()),
            (_, target) => self.replace(from, source, to, target),
        }
    }

    /// `dir` is `top` or below it.
    fn is_within(&self, dir: Ino, top: Ino) -> Result<bool> {
        let mut at = dir;
        loop {
            if at == top {
                return Ok(true);
            }
            if at == Ino::ROOT {
                return Ok(false);
            }
            at = self.dir(at)?.parent;
        }
    }

    fn check_replaceable(&self, source: Entry, target: Entry) -> Result<()> {
        match (self.is_dir(source.ino)?, self.is_dir(target.ino)?) {
            (true, false) => Err(FsError::NotDirectory),
            (false, true) => Err(FsError::IsDirectory),
            (true, true) if !self.dir(target.ino)?.names.is_empty() => Err(FsError::NotEmpty),
            _ => Ok(()),
        }
    }

    fn replace(&mut self, from: (Ino, Name), source: Entry, to: (Ino, Name), target: Option<Entry>) -> Result<()> {
        if let Some(target) = target {
            self.check_replaceable(source, target)?;
        }
        let is_dir = self.is_dir(source.ino)?;
        self.dir_mut(from.0)?.take(&from.1);
        self.dir_mut(to.0)?.put(to.1, source.ino);
        if is_dir {
            self.count_subdir(from.0, -1)?;
            self.count_subdir(to.0, if target.is_some() { 0 } else { 1 })?;
            self.dir_mut(source.ino)?.parent = to.0;
        }
        self.inode_mut(from.0)?.modified(now());
        self.inode_mut(to.0)?.modified(now());
        self.inode_mut(source.ino)?.changed(now());
        target.map_or(Ok(()), |target| self.lose_name(target.ino))
    }

    fn exchange(&mut self, from: (Ino, Name), source: Entry, to: (Ino, Name), target: Entry) -> Result<()> {
        if self.is_within(from.0, target.ino)? {
            return Err(FsError::Invalid);
        }
        self.dir_mut(from.0)?.put(from.1, target.ino);
        self.dir_mut(to.0)?.put(to.1, source.ino);
        for (moved, left, came) in [(source.ino, from.0, to.0), (target.ino, to.0, from.0)] {
            if self.is_dir(moved)? {
                self.count_subdir(left, -1)?;
                self.count_subdir(came, 1)?;
                self.dir_mut(moved)?.parent = came;
            }
            self.inode_mut(moved)?.changed(now());
        }
        self.inode_mut(from.0)?.modified(now());
        self.inode_mut(to.0)?.modified(now());
        Ok(())
    }
}

/// The mode and the ACLs of a new inode in a directory with a default ACL; the umask has no say.
fn inherit_acl(default: &[u8], mode: u32, is_dir: bool) -> Result<(u32, Xattrs)> {
    let mut acl = Acl::decode(default)?;
    let mode = acl.limit_to_mode(mode);
    let mut xattrs = BTreeMap::new();
    if !acl.is_minimal() {
        xattrs.insert(ACCESS.to_vec(), acl.encode());
    }
    if is_dir {
        xattrs.insert(DEFAULT.to_vec(), default.to_vec());
    }
    Ok((mode, xattrs))
}
