//! Which locks go together, and what taking and dropping one leaves of the others. Pure.
//!
//! Shared by the state machine and by a client that decides about the locks of an inode by itself. The locks of one inode in
//! one space are a list, sorted by where they start.

use super::error::FsError;
use super::lock::{Lock, LockMode, LockOwner, LockRange, LockSpace};

/// The last byte a lock can cover.
pub const END: u64 = u64::MAX >> 1;

/// The range that a request means.
///
/// # Errors
/// `Invalid` when it ends before it starts.
pub fn range(space: LockSpace, asked: LockRange) -> Result<LockRange, FsError> {
    let range = match space {
        LockSpace::Flock => LockRange { start: 0, end: END },
        LockSpace::Range => LockRange { start: asked.start, end: asked.end.min(END) },
    };
    if range.start > range.end { Err(FsError::Invalid) } else { Ok(range) }
}

/// Takes a lock. One that cannot be had changes nothing, but a `flock` that converts gives up what it held first, as on
/// Linux.
///
/// # Errors
/// The lock that is in the way.
pub fn acquire(held: &mut Vec<Lock>, space: LockSpace, lock: Lock) -> Result<(), Lock> {
    let has = held.iter().find(|other| other.owner == lock.owner);
    if space == LockSpace::Flock && has.is_some_and(|other| other.mode != lock.mode) {
        release(held, lock.owner, lock.range);
    }
    if let Some(other) = conflict(held, space, lock.owner, lock.mode, lock.range) {
        return Err(*other);
    }
    hold(held, lock);
    Ok(())
}

/// The first lock of another owner that does not allow `mode` on `range` (of the whole file for `flock`).
pub fn conflict(held: &[Lock], space: LockSpace, owner: LockOwner, mode: LockMode, range: LockRange) -> Option<&Lock> {
    conflicts(held, space, owner, mode, range).next()
}

/// All of them.
pub fn conflicts(
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
pub fn release(held: &mut Vec<Lock>, owner: LockOwner, range: LockRange) {
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
