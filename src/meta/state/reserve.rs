//! Inode numbers set aside for sessions that make inodes on their own.
//!
//! A session uses its numbers in ascending order, each once. What it has not used when it ends is never used: numbers are
//! as many as there will ever be need for.

use super::error::StateError;
use super::execute::Scope;
use super::schema::{Reserved, reserved_key};
use crate::types::error::FsError;
use crate::types::id::Ino;
use crate::types::limits::{INO_RANGES_MAX, RESERVED_INOS_MAX};
use crate::types::op::OpReply;

pub(super) fn reserve(scope: &mut Scope<'_, '_>, count: u64) -> Result<OpReply, StateError> {
    if count == 0 || count > RESERVED_INOS_MAX {
        return Err(FsError::Invalid.into());
    }
    let mut tree = scope.tree_record()?;
    let first = tree.next_ino;
    tree.next_ino += count;
    scope.put_tree(&tree);
    let key = reserved_key(scope.session);
    let mut reserved: Reserved = scope.tx.get(&key)?.unwrap_or_default();
    reserved.ranges.push((first, tree.next_ino));
    if reserved.ranges.len() > INO_RANGES_MAX {
        reserved.ranges.remove(0);
    }
    scope.tx.put(key, &reserved);
    Ok(OpReply::Reserved { first: Ino(first) })
}

/// Uses a number; those below it can not be used any more.
///
/// # Errors
/// `Invalid` when it was not set aside for this session, or is used.
pub(super) fn take(scope: &mut Scope<'_, '_>, ino: Ino) -> Result<(), StateError> {
    let key = reserved_key(scope.session);
    let mut reserved: Reserved = scope.tx.get(&key)?.unwrap_or_default();
    let holds = |range: &(u64, u64)| range.0 <= ino.0 && ino.0 < range.1;
    let Some(place) = reserved.ranges.iter().position(holds) else { return Err(FsError::Invalid.into()) };
    reserved.ranges.drain(..place);
    reserved.ranges[0].0 = ino.0 + 1;
    scope.tx.put(key, &reserved);
    Ok(())
}
