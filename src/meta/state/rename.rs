//! Rename, with its checks in the order of the Linux VFS.

use super::error::StateError;
use super::execute::Scope;
use super::schema::{Entry, inode_key};
use crate::types::attr::FileKind;
use crate::types::error::FsError;
use crate::types::id::Ino;
use crate::types::name::Name;
use crate::types::op::{OpReply, RenameMode};

/// A name in a directory.
type Place<'a> = (Ino, &'a Name);

pub(super) fn rename(
    scope: &mut Scope<'_, '_>,
    from: Place<'_>,
    to: Place<'_>,
    mode: RenameMode,
) -> Result<OpReply, StateError> {
    to.1.check()?;
    scope.growing_dir(to.0)?;
    let moved = scope.named(from.0, from.1)?;
    let target = scope.tx.entry(scope.tree, to.0, to.1)?;
    match (mode, target) {
        (RenameMode::NoReplace, Some(_)) => return Err(FsError::Exists.into()),
        (RenameMode::Exchange, None) => return Err(FsError::NotFound.into()),
        _ => {}
    }
    if from.0 != to.0 {
        check_loop(scope, moved, to.0)?;
    }
    if let (RenameMode::Exchange, Some(target), true) = (mode, target, from.0 != to.0) {
        check_loop(scope, target, from.0)?;
    }
    match target {
        Some(target) if target.ino == moved.ino => {}
        Some(target) if mode == RenameMode::Exchange => exchange(scope, from, moved, to, target)?,
        Some(target) => {
            check_replace(scope, moved, target)?;
            replace(scope, from, moved, to, target)?;
        }
        None => relocate(scope, from, moved, to)?,
    }
    let attr = |entry: Entry| Ok::<_, StateError>(scope.tx.inode(scope.tree, entry.ino)?.attr);
    Ok(OpReply::Renamed { moved: attr(moved)?, other: target.map(attr).transpose()? })
}

/// A directory cannot go into itself or below.
fn check_loop(scope: &Scope<'_, '_>, moved: Entry, into: Ino) -> Result<(), StateError> {
    if moved.kind != FileKind::Dir {
        return Ok(());
    }
    let mut at = into;
    loop {
        if at == moved.ino {
            return Err(FsError::Invalid.into());
        }
        let parent = scope.tx.dir(scope.tree, at)?.parent;
        if parent == at {
            return Ok(());
        }
        at = parent;
    }
}

fn check_replace(scope: &Scope<'_, '_>, moved: Entry, target: Entry) -> Result<(), StateError> {
    match (moved.kind == FileKind::Dir, target.kind == FileKind::Dir) {
        (true, false) => Err(FsError::NotDirectory.into()),
        (false, true) => Err(FsError::IsDirectory.into()),
        (true, true) => scope.must_be_empty(target.ino),
        (false, false) => Ok(()),
    }
}

/// Onto a free name.
fn relocate(scope: &mut Scope<'_, '_>, from: Place<'_>, moved: Entry, to: Place<'_>) -> Result<(), StateError> {
    let mut dir = scope.tx.dir(scope.tree, from.0)?;
    scope.remove_entry(&mut dir, from.1, moved);
    scope.put_inode(&dir);
    let mut dir = scope.tx.dir(scope.tree, to.0)?;
    scope.add_entry(&mut dir, to.1, moved.ino, moved.kind);
    scope.put_inode(&dir);
    arrive(scope, moved, to.0)
}

/// Onto a name that is there.
fn replace(
    scope: &mut Scope<'_, '_>,
    from: Place<'_>,
    moved: Entry,
    to: Place<'_>,
    target: Entry,
) -> Result<(), StateError> {
    let mut dir = scope.tx.dir(scope.tree, from.0)?;
    scope.remove_entry(&mut dir, from.1, moved);
    scope.put_inode(&dir);
    let mut dir = scope.tx.dir(scope.tree, to.0)?;
    scope.point_entry(&mut dir, to.1, target, moved.ino, moved.kind);
    scope.put_inode(&dir);
    arrive(scope, moved, to.0)?;
    scope.drop_link(target.ino).map(drop)
}

fn exchange(
    scope: &mut Scope<'_, '_>,
    from: Place<'_>,
    moved: Entry,
    to: Place<'_>,
    target: Entry,
) -> Result<(), StateError> {
    let mut dir = scope.tx.dir(scope.tree, from.0)?;
    scope.point_entry(&mut dir, from.1, moved, target.ino, target.kind);
    scope.put_inode(&dir);
    let mut dir = scope.tx.dir(scope.tree, to.0)?;
    scope.point_entry(&mut dir, to.1, target, moved.ino, moved.kind);
    scope.put_inode(&dir);
    arrive(scope, moved, to.0)?;
    arrive(scope, target, from.0)
}

/// The inode that moved: its change time, and of a directory its parent.
fn arrive(scope: &mut Scope<'_, '_>, moved: Entry, dir: Ino) -> Result<(), StateError> {
    let mut inode = scope.tx.inode(scope.tree, moved.ino)?;
    inode.attr.changed(scope.now);
    if inode.is_dir() {
        inode.parent = dir;
    }
    scope.tx.put(inode_key(scope.tree, moved.ino), &inode);
    Ok(())
}
