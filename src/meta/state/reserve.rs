//! What is set aside for sessions that change the tree on their own and say so later: inode numbers, and a part of the
//! volume's quotas ([`Allowance`]), so that what they have done can be kept.
//!
//! A session uses its numbers in ascending order, each once. What it has not used when it ends is never used: numbers are
//! as many as there will ever be need for. What it has not used of a quota is back when it ends.
//!
//! What a session adds comes out of its allowance: inodes those that it makes under its own numbers, bytes all that it
//! adds. What goes beyond has to fit besides all that was promised ([`FsError::Promised`]).

use super::error::StateError;
use super::execute::Scope;
use super::schema::{Reserved, Tree, reserved_key, tree_key};
use super::tx::Tx;
use crate::types::allowance::{Allowance, Taken};
use crate::types::error::FsError;
use crate::types::id::{Ino, SessionId};
use crate::types::limits::{INO_RANGES_MAX, RESERVED_INOS_MAX};
use crate::types::op::OpReply;

pub(super) fn reserve(scope: &mut Scope<'_, '_>, numbers: u64, upto: Allowance) -> Result<OpReply, StateError> {
    if numbers > RESERVED_INOS_MAX {
        return Err(FsError::Invalid.into());
    }
    let mut tree = scope.tree_record()?;
    let mut reserved = of(scope.tx, scope.session)?;
    let first = (numbers > 0).then(|| set_aside(&mut tree, &mut reserved, numbers));
    let taken = Taken { usage: tree.usage, promised: tree.promised };
    let allowance = reserved.allowance.adjusted(upto, &scope.policy, taken);
    tree.promised = tree.promised.plus(allowance).less(reserved.allowance);
    reserved.allowance = allowance;
    scope.put_tree(&tree);
    scope.tx.put(reserved_key(scope.session), &reserved);
    Ok(OpReply::Reserved { first, allowance })
}

fn set_aside(tree: &mut Tree, reserved: &mut Reserved, numbers: u64) -> Ino {
    let first = tree.next_ino;
    tree.next_ino += numbers;
    reserved.ranges.push((first, tree.next_ino));
    if reserved.ranges.len() > INO_RANGES_MAX {
        reserved.ranges.remove(0);
    }
    Ino(first)
}

/// Uses a number; those below it can not be used any more. An inode of the session's allowance goes with it.
///
/// # Errors
/// `Invalid` when it was not set aside for this session, or is used.
pub(super) fn take(scope: &mut Scope<'_, '_>, tree: &mut Tree, ino: Ino) -> Result<(), StateError> {
    let mut reserved = of(scope.tx, scope.session)?;
    let holds = |range: &(u64, u64)| range.0 <= ino.0 && ino.0 < range.1;
    let Some(place) = reserved.ranges.iter().position(holds) else { return Err(FsError::Invalid.into()) };
    reserved.ranges.drain(..place);
    reserved.ranges[0].0 = ino.0 + 1;
    use_up(tree, &mut reserved, Allowance { inodes: 1, bytes: 0 });
    scope.tx.put(reserved_key(scope.session), &reserved);
    Ok(())
}

/// The tree has as many inodes as it says.
///
/// # Errors
/// `QuotaExceeded`, `Promised`.
pub(super) fn check_inodes(scope: &Scope<'_, '_>, tree: &Tree) -> Result<(), StateError> {
    fits(scope.policy.quota_inodes, tree.usage.inodes, tree.promised.inodes)
}

/// The tree may hold as many bytes as it does, and nobody's allowance is touched.
///
/// # Errors
/// `QuotaExceeded`.
pub(super) fn check_bytes(scope: &Scope<'_, '_>, tree: &Tree) -> Result<(), StateError> {
    let fits = fits(scope.policy.quota_bytes, tree.usage.allocated_bytes, tree.promised.bytes);
    fits.map_err(|_| FsError::QuotaExceeded.into())
}

/// The tree has grown by so many bytes, which are counted.
///
/// # Errors
/// `QuotaExceeded`, `Promised`.
pub(super) fn spend_bytes(scope: &mut Scope<'_, '_>, tree: &mut Tree, bytes: u64) -> Result<(), StateError> {
    if scope.policy.quota_bytes == 0 {
        // What is set aside is then more than the session has of it, by its own count, and is corrected when it asks again.
        return Ok(());
    }
    let mut reserved = of(scope.tx, scope.session)?;
    if reserved.allowance.bytes > 0 {
        use_up(tree, &mut reserved, Allowance { inodes: 0, bytes });
        scope.tx.put(reserved_key(scope.session), &reserved);
    }
    fits(scope.policy.quota_bytes, tree.usage.allocated_bytes, tree.promised.bytes)
}

/// A session is over.
pub(super) fn end(tx: &mut Tx<'_>, session: SessionId) -> Result<(), StateError> {
    let reserved = of(tx, session)?;
    if !reserved.allowance.is_none() {
        let id = tx.session(session)?.tree;
        let mut tree = tx.tree(id)?;
        tree.promised = tree.promised.less(reserved.allowance);
        tx.put(tree_key(id), &tree);
    }
    tx.delete(reserved_key(session));
    Ok(())
}

fn of(tx: &Tx<'_>, session: SessionId) -> Result<Reserved, StateError> {
    Ok(tx.get(&reserved_key(session))?.unwrap_or_default())
}

fn use_up(tree: &mut Tree, reserved: &mut Reserved, most: Allowance) {
    let used = reserved.allowance.at_most(most);
    reserved.allowance = reserved.allowance.less(used);
    tree.promised = tree.promised.less(used);
}

fn fits(quota: u64, used: u64, promised: u64) -> Result<(), StateError> {
    if quota == 0 || used.saturating_add(promised) <= quota {
        return Ok(());
    }
    Err(if used > quota { FsError::QuotaExceeded } else { FsError::Promised }.into())
}
