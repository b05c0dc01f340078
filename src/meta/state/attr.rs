//! Attributes: chmod, chown, truncate, utimens.

use super::error::StateError;
use super::execute::Scope;
use super::{acl, data};
use crate::types::attr::{SetAttr, Time};
use crate::types::error::FsError;
use crate::types::id::Ino;
use crate::types::op::OpReply;

pub(super) fn set_attr(scope: &mut Scope<'_, '_>, ino: Ino, set: &SetAttr) -> Result<OpReply, StateError> {
    let mut inode = scope.tx.inode(scope.tree, ino)?;
    if let Some(size) = set.size {
        inode = scope.tx.file(scope.tree, ino)?;
        data::truncate(scope, &mut inode, size)?;
        inode.attr.mtime = scope.now;
    }
    inode.attr.set(set, scope.now)?;
    if set.mode.is_some() {
        acl::follow_mode(scope, &inode)?;
    }
    scope.put_inode(&inode);
    Ok(OpReply::Attr(inode.attr))
}

/// Moves the access time forward from `was` and nothing else; the version stays, as nobody's cache is wrong for it. A time
/// that was set after the access must win though it is told first: so it is compared, and not only the later one kept.
pub(super) fn touch_atime(scope: &mut Scope<'_, '_>, ino: Ino, was: Time, atime: Time) -> Result<OpReply, StateError> {
    // One that is gone must not refuse the times of the others that come with it.
    let mut inode = match scope.tx.inode(scope.tree, ino) {
        Err(StateError::Fs(FsError::NotFound)) => return Ok(OpReply::Done),
        inode => inode?,
    };
    if inode.attr.atime == was && atime > was && atime.nsec < 1_000_000_000 {
        inode.attr.atime = atime;
        scope.put_inode(&inode);
    }
    Ok(OpReply::Attr(inode.attr))
}
