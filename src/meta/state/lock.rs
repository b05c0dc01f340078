//! File locks of the whole cluster: byte ranges (`fcntl`) and whole files (`flock`).
//!
//! The locks of one inode in one space are one record, sorted; beside it a mark per session that holds some, so that
//! they can be found when it ends. A lock that cannot be had changes nothing (but a `flock` that converts gives up what
//! it held first, as on Linux). Waiting is the service's business.

use super::error::StateError;
use super::execute::Scope;
use super::schema::{Locks, Present, lock_key, session_lock_key};
use super::tx::Tx;
use crate::types::error::FsError;
use crate::types::id::{Ino, SessionId, TreeId};
use crate::types::lock::{Lock, LockMode, LockOwner, LockRange, LockRequest, LockSpace};
use crate::types::op::OpReply;

/// The last byte a lock can cover.
const END: u64 = u64::MAX >> 1;
/// Locks on one inode in one space: bounds the record.
const LOCKS_MAX: usize = 8192;

pub(super) fn lock(scope: &mut Scope<'_, '_>, ask: &LockRequest) -> Result<OpReply, StateError> {
    scope.tx.inode(scope.tree, ask.ino)?;
    let range = match ask.space {
        LockSpace::Flock => LockRange { start: 0, end: END },
        LockSpace::Range => LockRange { start: ask.range.start, end: ask.range.end.min(END) },
    };
    if range.start > range.end {
        return Err(FsError::Invalid.into());
    }
    let owner = LockOwner { session: scope.session, owner: ask.owner };
    let mut locks: Locks = scope.tx.get(&lock_key(scope.tree, ask.ino, ask.space))?.unwrap_or_default();
    let reply = match ask.mode {
        None => {
            release(&mut locks.held, owner, range);
            OpReply::Done
        }
        Some(mode) => acquire(&mut locks.held, ask.space, Lock { owner, mode, range, pid: ask.pid }),
    };
    if locks.held.len() > LOCKS_MAX {
        return Err(FsError::NoSpace.into());
    }
    store(scope.tx, scope.tree, ask.ino, ask.space, scope.session, &locks);
    Ok(reply)
}

fn acquire(held: &mut Vec<Lock>, space: LockSpace, lock: Lock) -> OpReply {
    let has = held.iter().find(|other| other.owner == lock.owner);
    if space == LockSpace::Flock && has.is_some_and(|other| other.mode != lock.mode) {
        release(held, lock.owner, lock.range);
    }
    if let Some(other) = conflict(held, space, lock.owner, lock.mode, lock.range) {
        return OpReply::LockHeld(*other);
    }
    hold(held, lock);
    OpReply::Done
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

/// The first lock of another owner that does not allow `mode` on `range` (of the whole file for `flock`).
pub(super) fn conflict(
    held: &[Lock],
    space: LockSpace,
    owner: LockOwner,
    mode: LockMode,
    range: LockRange,
) -> Option<&Lock> {
    conflicts(held, space, owner, mode, range).next()
}

/// All of them.
pub(super) fn conflicts(
    held: &[Lock],
    space: LockSpace,
    owner: LockOwner,
    mode: LockMode,
    range: LockRange,
) -> impl Iterator<Item = &Lock> {
    held.iter().filter(move |lock| {
        lock.owner != owner
            && (mode == LockMode::Exclusive || lock.mode == LockMode::Exclusive)
            && (space == LockSpace::Flock || lock.range.start <= range.end && range.start <= lock.range.end)
    })
}

/// Takes a range that nobody else is in the way of: it replaces what its owner held there, and joins what it touches.
fn hold(held: &mut Vec<Lock>, mut lock: Lock) {
    release(held, lock.owner, lock.range);
    held.retain(|other| {
        let joins = other.owner == lock.owner
            && other.mode == lock.mode
            && (other.range.end.checked_add(1) == Some(lock.range.start)
                || lock.range.end.checked_add(1) == Some(other.range.start));
        if joins {
            lock.range.start = lock.range.start.min(other.range.start);
            lock.range.end = lock.range.end.max(other.range.end);
        }
        !joins
    });
    insert(held, lock);
}

/// Gives up an owner's part of a range.
fn release(held: &mut Vec<Lock>, owner: LockOwner, range: LockRange) {
    let (mut rest, mut parts) = (Vec::with_capacity(held.len() + 1), Vec::new());
    for lock in held.drain(..) {
        if lock.owner != owner || lock.range.end < range.start || range.end < lock.range.start {
            rest.push(lock);
            continue;
        }
        if lock.range.start < range.start {
            parts.push(Lock { range: LockRange { start: lock.range.start, end: range.start - 1 }, ..lock });
        }
        if lock.range.end > range.end {
            parts.push(Lock { range: LockRange { start: range.end + 1, end: lock.range.end }, ..lock });
        }
    }
    *held = rest;
    parts.into_iter().for_each(|part| insert(held, part));
}

fn insert(held: &mut Vec<Lock>, lock: Lock) {
    let order = |lock: &Lock| (lock.range.start, lock.owner);
    let at = held.partition_point(|other| order(other) < order(&lock));
    held.insert(at, lock);
}
