//! Names: create, link, unlink, rmdir, and the helpers that rename shares.
//!
//! A name is two keys, by name and by cookie; its directory's link count, times and version change with it. An inode
//! that loses its last name becomes an orphan: it lives on by number until it is reaped.

use super::error::StateError;
use super::execute::Scope;
use super::schema::{
    Cookie, Entry, FIRST_COOKIE, Inode, Present, Table, Tree, cookie_key, entry_key, inode_key, numbers, orphan_key,
    single_key, tree_key, volume_key,
};
use super::schema::{Record, Session, session_key};
use super::tx::Tx;
use super::{acl, reserve};
use crate::types::attr::{Attr, FileKind, Time};
use crate::types::error::FsError;
use crate::types::id::{Ino, SessionId, TreeId, VolumeId};
use crate::types::limits::LINKS_MAX;
use crate::types::name::Name;
use crate::types::op::{Create, NewNode, OpReply};
use crate::types::volume::Volume;

impl Tx<'_> {
    /// # Errors
    /// `NotFound`.
    pub fn inode(&self, tree: TreeId, ino: Ino) -> Result<Inode, StateError> {
        self.get(&inode_key(tree, ino))?.ok_or(StateError::Fs(FsError::NotFound))
    }

    /// # Errors
    /// `NotFound`, `NotDirectory`.
    pub fn dir(&self, tree: TreeId, ino: Ino) -> Result<Inode, StateError> {
        let inode = self.inode(tree, ino)?;
        if inode.attr.kind == FileKind::Dir { Ok(inode) } else { Err(FsError::NotDirectory.into()) }
    }

    /// # Errors
    /// `NotFound`; `IsDirectory`; `Invalid` for what else has no data.
    pub fn file(&self, tree: TreeId, ino: Ino) -> Result<Inode, StateError> {
        let inode = self.inode(tree, ino)?;
        match inode.attr.kind {
            FileKind::File => Ok(inode),
            FileKind::Dir => Err(FsError::IsDirectory.into()),
            _ => Err(FsError::Invalid.into()),
        }
    }

    pub fn entry(&self, tree: TreeId, dir: Ino, name: &Name) -> Result<Option<Entry>, StateError> {
        self.get(&entry_key(tree, dir, name))
    }

    /// # Errors
    /// `NotFound`.
    pub fn tree(&self, tree: TreeId) -> Result<Tree, StateError> {
        self.get(&tree_key(tree))?.ok_or(StateError::Fs(FsError::NotFound))
    }

    /// # Errors
    /// `NotFound`.
    pub fn volume(&self, id: VolumeId) -> Result<Volume, StateError> {
        self.get(&volume_key(id))?.ok_or(StateError::Fs(FsError::NotFound))
    }

    /// # Errors
    /// `SessionExpired`.
    pub fn session(&self, session: SessionId) -> Result<Session, StateError> {
        self.get(&session_key(session))?.ok_or(StateError::Fs(FsError::SessionExpired))
    }

    /// The record of a table that has one.
    pub fn single<R: Record + Default>(&self, table: Table) -> Result<R, StateError> {
        Ok(self.get(&single_key(table))?.unwrap_or_default())
    }
}

impl Inode {
    pub fn is_dir(&self) -> bool {
        self.attr.kind == FileKind::Dir
    }

    /// An inode with no name and no link yet.
    pub fn new(ino: Ino, kind: FileKind, now: Time) -> Inode {
        Inode {
            attr: Attr::born(ino, kind, now),
            parent: Ino(0),
            next_cookie: FIRST_COOKIE,
            target: Vec::new(),
            inline_bytes: 0,
            xattr_list_bytes: 0,
            has_default_acl: false,
        }
    }
}

impl Scope<'_, '_> {
    pub fn put_inode(&mut self, inode: &Inode) {
        self.tx.put(inode_key(self.tree, inode.attr.ino), inode);
    }

    /// A directory that names may be added to: one that was removed takes none.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`.
    pub fn growing_dir(&self, dir: Ino) -> Result<Inode, StateError> {
        let dir = self.tx.dir(self.tree, dir)?;
        if dir.attr.nlink == 0 { Err(FsError::NotFound.into()) } else { Ok(dir) }
    }

    /// The entry of a name.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`, and those of a bad name.
    pub fn named(&self, dir: Ino, name: &Name) -> Result<Entry, StateError> {
        name.check()?;
        match self.tx.entry(self.tree, dir, name)? {
            Some(entry) => Ok(entry),
            None => {
                self.tx.dir(self.tree, dir)?;
                Err(FsError::NotFound.into())
            }
        }
    }

    /// Adds a name with the directory's next cookie, and changes the directory for it (the caller puts it).
    pub fn add_entry(&mut self, dir: &mut Inode, name: &Name, ino: Ino, kind: FileKind) {
        let cookie = dir.next_cookie;
        dir.next_cookie += 1;
        dir.attr.gain_entry(kind, self.now);
        self.put_entry(dir.attr.ino, name, Entry { ino, kind, cookie });
    }

    /// Lets a name that is there lead elsewhere. It keeps its cookie: a listing under way neither misses it nor sees it
    /// twice.
    pub fn point_entry(&mut self, dir: &mut Inode, name: &Name, old: Entry, ino: Ino, kind: FileKind) {
        dir.attr.turn_entry(old.kind, kind, self.now);
        self.put_entry(dir.attr.ino, name, Entry { ino, kind, cookie: old.cookie });
    }

    fn put_entry(&mut self, dir: Ino, name: &Name, entry: Entry) {
        self.tx.put(entry_key(self.tree, dir, name), &entry);
        let cookie = Cookie { name: name.clone(), ino: entry.ino, kind: entry.kind };
        self.tx.put(cookie_key(self.tree, dir, entry.cookie), &cookie);
    }

    /// Removes a name and changes the directory for it (the caller puts it).
    pub fn remove_entry(&mut self, dir: &mut Inode, name: &Name, entry: Entry) {
        self.tx.delete(entry_key(self.tree, dir.attr.ino, name));
        self.tx.delete(cookie_key(self.tree, dir.attr.ino, entry.cookie));
        dir.attr.lose_entry(entry.kind, self.now);
    }

    /// Takes a link from an inode that lost a name; the last one makes it an orphan.
    pub fn drop_link(&mut self, ino: Ino) -> Result<Attr, StateError> {
        let mut inode = self.tx.inode(self.tree, ino)?;
        inode.attr.lose_link(self.now);
        if inode.attr.nlink == 0 {
            self.tx.put(orphan_key(self.tree, ino), &Present);
        }
        self.put_inode(&inode);
        Ok(inode.attr)
    }

    /// # Errors
    /// `NotEmpty`.
    pub fn must_be_empty(&self, dir: Ino) -> Result<(), StateError> {
        let names = self.tx.keys(&numbers(Table::Cookie, &[self.tree.0, dir.0]), 1)?;
        if names.is_empty() { Ok(()) } else { Err(FsError::NotEmpty.into()) }
    }
}

pub(super) fn create(scope: &mut Scope<'_, '_>, create: &Create) -> Result<OpReply, StateError> {
    create.name.check()?;
    let mut dir = scope.growing_dir(create.dir)?;
    if let Some(entry) = scope.tx.entry(scope.tree, create.dir, &create.name)? {
        let is_open = !create.exclusive && create.node == NewNode::File && entry.kind == FileKind::File;
        if !is_open {
            return Err(FsError::Exists.into());
        }
        let attr = scope.tx.inode(scope.tree, entry.ino)?.attr;
        return Ok(OpReply::Entry { attr, created: false });
    }
    let mut tree = scope.tree_record()?;
    let ino = match create.ino {
        Some(reserved) => {
            reserve::take(scope, &mut tree, reserved)?;
            reserved
        }
        None => {
            tree.next_ino += 1;
            Ino(tree.next_ino - 1)
        }
    };
    tree.usage.inodes += 1;
    reserve::check_inodes(scope, &tree)?;
    scope.put_tree(&tree);
    let inode = new_inode(scope, create, &dir, ino)?;
    scope.put_inode(&inode);
    scope.add_entry(&mut dir, &create.name, ino, inode.attr.kind);
    scope.put_inode(&dir);
    Ok(OpReply::Entry { attr: inode.attr, created: true })
}

/// The inode a create makes, with what it inherits of its directory.
fn new_inode(scope: &mut Scope<'_, '_>, create: &Create, dir: &Inode, ino: Ino) -> Result<Inode, StateError> {
    let mut inode = Inode::new(ino, create.node.kind(), scope.now);
    inode.attr = dir.attr.child(create, ino, scope.now)?;
    if inode.is_dir() {
        inode.parent = dir.attr.ino;
    }
    match &create.node {
        NewNode::Symlink(target) => inode.target = target.clone(),
        _ if dir.has_default_acl => acl::inherit(scope, dir.attr.ino, &mut inode)?,
        _ => inode.attr.mask(create.umask),
    }
    Ok(inode)
}

pub(super) fn link(scope: &mut Scope<'_, '_>, ino: Ino, dir: Ino, name: &Name) -> Result<OpReply, StateError> {
    name.check()?;
    let mut dir = scope.growing_dir(dir)?;
    let mut inode = scope.tx.inode(scope.tree, ino)?;
    if inode.is_dir() {
        return Err(FsError::NotPermitted.into());
    }
    if scope.tx.entry(scope.tree, dir.attr.ino, name)?.is_some() {
        return Err(FsError::Exists.into());
    }
    if inode.attr.nlink == 0 {
        return Err(FsError::NotFound.into());
    }
    if inode.attr.nlink >= LINKS_MAX {
        return Err(FsError::TooManyLinks.into());
    }
    inode.attr.gain_link(scope.now);
    scope.put_inode(&inode);
    scope.add_entry(&mut dir, name, ino, inode.attr.kind);
    scope.put_inode(&dir);
    Ok(OpReply::Entry { attr: inode.attr, created: false })
}

pub(super) fn unlink(scope: &mut Scope<'_, '_>, dir: Ino, name: &Name) -> Result<OpReply, StateError> {
    let entry = scope.named(dir, name)?;
    if entry.kind == FileKind::Dir {
        return Err(FsError::IsDirectory.into());
    }
    remove(scope, dir, name, entry)
}

pub(super) fn rmdir(scope: &mut Scope<'_, '_>, dir: Ino, name: &Name) -> Result<OpReply, StateError> {
    let entry = scope.named(dir, name)?;
    if entry.kind != FileKind::Dir {
        return Err(FsError::NotDirectory.into());
    }
    scope.must_be_empty(entry.ino)?;
    remove(scope, dir, name, entry)
}

fn remove(scope: &mut Scope<'_, '_>, dir: Ino, name: &Name, entry: Entry) -> Result<OpReply, StateError> {
    let mut dir = scope.tx.dir(scope.tree, dir)?;
    scope.remove_entry(&mut dir, name, entry);
    scope.put_inode(&dir);
    let gone = scope.drop_link(entry.ino)?;
    Ok(OpReply::Removed { gone: Some(gone) })
}
