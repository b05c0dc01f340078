//! Attributes: chmod, chown, truncate, utimens.

use super::error::StateError;
use super::execute::Scope;
use super::{acl, data};
use crate::types::attr::{FileKind, SetAttr, SetTime, Time, mode_without_privileges};
use crate::types::error::FsError;
use crate::types::id::Ino;
use crate::types::op::OpReply;

/// Every change moves the change time, also one that names nothing (`chown(-1, -1)`), as on ext4.
pub(super) fn set_attr(scope: &mut Scope<'_, '_>, ino: Ino, set: &SetAttr) -> Result<OpReply, StateError> {
    let mut inode = scope.tx.inode(scope.tree, ino)?;
    if let Some(size) = set.size {
        inode = scope.tx.file(scope.tree, ino)?;
        data::truncate(scope, &mut inode, size)?;
        inode.attr.mtime = scope.now;
    }
    if let Some(mode) = set.mode {
        if inode.attr.kind == FileKind::Symlink {
            return Err(FsError::NotSupported.into());
        }
        inode.attr.mode = mode & 0o7777;
        acl::follow_mode(scope, &inode)?;
    }
    let attr = &mut inode.attr;
    attr.uid = set.uid.unwrap_or(attr.uid);
    attr.gid = set.gid.unwrap_or(attr.gid);
    if set.clear_privileges {
        attr.mode = mode_without_privileges(attr.mode);
    }
    let resolve = |time| match time {
        SetTime::Now => scope.now,
        SetTime::At(time) => time,
    };
    attr.atime = set.atime.map_or(attr.atime, resolve);
    attr.mtime = set.mtime.map_or(attr.mtime, resolve);
    inode.changed(set.ctime.map_or(scope.now, resolve));
    let times = [inode.attr.atime, inode.attr.mtime, inode.attr.ctime];
    if times.iter().any(|time| time.nsec >= 1_000_000_000) {
        return Err(FsError::Invalid.into());
    }
    scope.put_inode(&inode);
    Ok(OpReply::Attr(inode.attr))
}

/// Moves the access time forward and nothing else; the version stays, as nobody's cache is wrong for it.
pub(super) fn touch_atime(scope: &mut Scope<'_, '_>, ino: Ino, atime: Time) -> Result<OpReply, StateError> {
    let mut inode = scope.tx.inode(scope.tree, ino)?;
    if atime > inode.attr.atime && atime.nsec < 1_000_000_000 {
        inode.attr.atime = atime;
        scope.put_inode(&inode);
    }
    Ok(OpReply::Done)
}
