//! Extended attributes. ACLs are kept here too, but set through their own module.

use super::error::StateError;
use super::execute::Scope;
use super::schema::{Inode, Xattr, xattr_key};
use crate::types::error::FsError;
use crate::types::id::Ino;
use crate::types::limits::{XATTR_LIST_BYTES_MAX, XATTR_VALUE_BYTES_MAX};
use crate::types::op::{OpReply, XattrMode};
use crate::types::xattr::{check_kind, check_name};

pub(super) fn set(
    scope: &mut Scope<'_, '_>,
    ino: Ino,
    name: &[u8],
    value: &[u8],
    mode: XattrMode,
) -> Result<OpReply, StateError> {
    check_name(name)?;
    let mut inode = scope.tx.inode(scope.tree, ino)?;
    check_kind(inode.attr.kind, name)?;
    if value.len() > XATTR_VALUE_BYTES_MAX {
        return Err(FsError::TooBig.into());
    }
    let exists = scope.tx.contains(&xattr_key(scope.tree, ino, name))?;
    match mode {
        XattrMode::Create if exists => return Err(FsError::Exists.into()),
        XattrMode::Replace if !exists => return Err(FsError::NoAttribute.into()),
        _ => {}
    }
    put(scope, &mut inode, name, value)?;
    inode.attr.changed(scope.now);
    scope.put_inode(&inode);
    Ok(OpReply::Done)
}

pub(super) fn remove(scope: &mut Scope<'_, '_>, ino: Ino, name: &[u8]) -> Result<OpReply, StateError> {
    check_name(name)?;
    let mut inode = scope.tx.inode(scope.tree, ino)?;
    check_kind(inode.attr.kind, name)?;
    if !drop_value(scope, &mut inode, name)? {
        return Err(FsError::NoAttribute.into());
    }
    inode.attr.changed(scope.now);
    scope.put_inode(&inode);
    Ok(OpReply::Done)
}

/// Stores a value and counts its name. The caller puts the inode.
///
/// # Errors
/// `NoSpace` when the list of names would not fit what `listxattr` can answer.
pub(super) fn put(scope: &mut Scope<'_, '_>, inode: &mut Inode, name: &[u8], value: &[u8]) -> Result<(), StateError> {
    let key = xattr_key(scope.tree, inode.attr.ino, name);
    if !scope.tx.contains(&key)? {
        let list_bytes = inode.xattr_list_bytes + name.len() as u32 + 1;
        if list_bytes as usize > XATTR_LIST_BYTES_MAX {
            return Err(FsError::NoSpace.into());
        }
        inode.xattr_list_bytes = list_bytes;
        inode.attr.has_xattr = true;
    }
    scope.tx.put(key, &Xattr { value: value.to_vec() });
    Ok(())
}

/// Removes a value; whether there was one. The caller puts the inode.
pub(super) fn drop_value(scope: &mut Scope<'_, '_>, inode: &mut Inode, name: &[u8]) -> Result<bool, StateError> {
    let key = xattr_key(scope.tree, inode.attr.ino, name);
    if !scope.tx.contains(&key)? {
        return Ok(false);
    }
    inode.xattr_list_bytes = inode.xattr_list_bytes.saturating_sub(name.len() as u32 + 1);
    inode.attr.has_xattr = inode.xattr_list_bytes > 0;
    scope.tx.delete(key);
    Ok(true)
}
