//! File locks of the whole cluster: byte ranges (`fcntl`) and whole files (`flock`).
//!
//! The locks of one inode in one space are one record, sorted; beside it a mark per session that holds some, so that
//! they can be found when it ends. What is in the way of what is said by [`crate::types::locking`]; waiting is the service's
//! business. A session with a Write lease decides about the locks of an inode by itself, while nobody else has any: it tells
//! how that came out ([`set`]) before the lease ends.

use super::error::StateError;
use super::execute::Scope;
use super::schema::{Locks, Present, lock_key, session_lock_key};
use super::tx::Tx;
use crate::types::error::FsError;
use crate::types::id::{Ino, SessionId, TreeId};
use crate::types::lock::{Lock, LockOwner, LockRequest, LockSpace, OwnLock};
use crate::types::locking;
use crate::types::op::OpReply;

/// Locks on one inode in one space: bounds the record.
const LOCKS_MAX: usize = 8192;

pub(super) fn lock(scope: &mut Scope<'_, '_>, ask: &LockRequest) -> Result<OpReply, StateError> {
    scope.tx.inode(scope.tree, ask.ino)?;
    let range = locking::range(ask.space, ask.range)?;
    let owner = LockOwner { session: scope.session, owner: ask.owner };
    let mut locks: Locks = scope.tx.get(&lock_key(scope.tree, ask.ino, ask.space))?.unwrap_or_default();
    let reply = match ask.mode {
        None => {
            locking::release(&mut locks.held, owner, range);
            OpReply::Done
        }
        Some(mode) => match locking::acquire(&mut locks.held, ask.space, Lock { owner, mode, range, pid: ask.pid }) {
            Ok(()) => OpReply::Done,
            Err(other) => OpReply::LockHeld(other),
        },
    };
    if locks.held.len() > LOCKS_MAX {
        return Err(FsError::NoSpace.into());
    }
    store(scope.tx, scope.tree, ask.ino, ask.space, scope.session, &locks);
    Ok(reply)
}

/// What a session holds on an inode, in the place of all that it held.
pub(super) fn set(scope: &mut Scope<'_, '_>, ino: Ino, own: &[OwnLock]) -> Result<OpReply, StateError> {
    scope.tx.inode(scope.tree, ino)?;
    for space in [LockSpace::Flock, LockSpace::Range] {
        let mut locks: Locks = scope.tx.get(&lock_key(scope.tree, ino, space))?.unwrap_or_default();
        locks.held.retain(|lock| lock.owner.session != scope.session);
        for lock in own.iter().filter(|lock| lock.space == space) {
            let owner = LockOwner { session: scope.session, owner: lock.owner };
            let range = locking::range(space, lock.range)?;
            let lock = Lock { owner, mode: lock.mode, range, pid: lock.pid };
            // Nobody else has any while the session decides.
            locking::acquire(&mut locks.held, space, lock).map_err(|_| FsError::Stale)?;
        }
        if locks.held.len() > LOCKS_MAX {
            return Err(FsError::NoSpace.into());
        }
        store(scope.tx, scope.tree, ino, space, scope.session, &locks);
    }
    Ok(OpReply::Done)
}

/// Drops the locks of one owner in both spaces.
pub(super) fn unlock_owner(scope: &mut Scope<'_, '_>, ino: Ino, owner: u64) -> Result<OpReply, StateError> {
    let owner = LockOwner { session: scope.session, owner };
    for space in [LockSpace::Flock, LockSpace::Range] {
        let Some(mut locks) = scope.tx.get::<Locks>(&lock_key(scope.tree, ino, space))? else { continue };
        let before = locks.held.len();
        locks.held.retain(|lock| lock.owner != owner);
        if locks.held.len() != before {
            store(scope.tx, scope.tree, ino, space, scope.session, &locks);
        }
    }
    Ok(OpReply::Done)
}

/// Drops what a session that ends holds on one inode.
pub(super) fn drop_session(
    tx: &mut Tx<'_>,
    session: SessionId,
    tree: TreeId,
    ino: Ino,
    space: LockSpace,
) -> Result<(), StateError> {
    let mut locks: Locks = tx.get(&lock_key(tree, ino, space))?.unwrap_or_default();
    locks.held.retain(|lock| lock.owner.session != session);
    store(tx, tree, ino, space, session, &locks);
    Ok(())
}

/// Drops every lock on an inode that is freed.
pub(super) fn drop_inode(tx: &mut Tx<'_>, tree: TreeId, ino: Ino) -> Result<(), StateError> {
    for space in [LockSpace::Flock, LockSpace::Range] {
        let key = lock_key(tree, ino, space);
        let Some(locks) = tx.get::<Locks>(&key)? else { continue };
        for lock in &locks.held {
            tx.delete(session_lock_key(lock.owner.session, tree, ino, space));
        }
        tx.delete(key);
    }
    Ok(())
}

/// Writes the record and the mark of the one session whose locks may have changed.
fn store(tx: &mut Tx<'_>, tree: TreeId, ino: Ino, space: LockSpace, session: SessionId, locks: &Locks) {
    let mark = session_lock_key(session, tree, ino, space);
    if locks.held.iter().any(|lock| lock.owner.session == session) {
        tx.put(mark, &Present);
    } else {
        tx.delete(mark);
    }
    let key = lock_key(tree, ino, space);
    if locks.held.is_empty() {
        tx.delete(key);
    } else {
        tx.put(key, locks);
    }
}
