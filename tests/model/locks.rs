//! File locks: two spaces that do not see each other, ranges that split and merge, waiters that may deadlock.

use std::collections::BTreeMap;

use holdfast::client::api::LockCall;
use holdfast::types::error::FsError;
use holdfast::types::id::{Ino, SessionId};
use holdfast::types::lock::{Lock, LockMode, LockOwner, LockRange, LockSpace};

#[derive(Default)]
pub struct Locks {
    held: BTreeMap<(Ino, LockSpace), Vec<Lock>>,
    /// Who waits (range locks only) for whom.
    waiting: BTreeMap<u64, u64>,
}

fn overlap(a: LockRange, b: LockRange) -> bool {
    a.start <= b.end && b.start <= a.end
}

impl Locks {
    /// The first lock in the way of `call`.
    pub fn conflict(&self, ino: Ino, call: &LockCall) -> Option<Lock> {
        let mode = call.mode?;
        let held = self.held.get(&(ino, call.space))?;
        let in_the_way = |lock: &&Lock| {
            lock.owner.owner != call.owner
                && overlap(lock.range, call.range)
                && (mode == LockMode::Exclusive || lock.mode == LockMode::Exclusive)
        };
        held.iter().find(in_the_way).copied()
    }

    /// Takes or drops a lock. `WouldBlock` when another is in the way; a waiter calls again when something changed.
    pub fn apply(&mut self, ino: Ino, call: &LockCall, wait: bool) -> Result<(), FsError> {
        self.waiting.remove(&call.owner);
        if call.space == LockSpace::Flock {
            // Conversion is not atomic on Linux: the old lock goes first, and is lost when the new one is not had.
            let held = self.held.entry((ino, call.space)).or_default();
            if held.iter().any(|l| l.owner.owner == call.owner && Some(l.mode) == call.mode) {
                return Ok(());
            }
            held.retain(|lock| lock.owner.owner != call.owner);
        }
        if let Some(lock) = self.conflict(ino, call) {
            if wait && call.space == LockSpace::Range {
                self.wait_for(call.owner, lock.owner.owner)?;
            }
            return Err(FsError::WouldBlock);
        }
        self.carve(ino, call);
        if let Some(mode) = call.mode {
            self.insert(ino, call, mode);
        }
        Ok(())
    }

    /// Notes who waits for whom, unless that closes a circle.
    fn wait_for(&mut self, owner: u64, holder: u64) -> Result<(), FsError> {
        let mut next = Some(holder);
        while let Some(one) = next {
            if one == owner {
                return Err(FsError::Deadlock);
            }
            next = self.waiting.get(&one).copied();
        }
        self.waiting.insert(owner, holder);
        Ok(())
    }

    pub fn give_up(&mut self, owner: u64) {
        self.waiting.remove(&owner);
    }

    /// Cuts the call's range out of what its owner holds.
    fn carve(&mut self, ino: Ino, call: &LockCall) {
        let held = self.held.entry((ino, call.space)).or_default();
        let mut kept = Vec::new();
        for lock in held.drain(..) {
            if lock.owner.owner != call.owner || !overlap(lock.range, call.range) {
                kept.push(lock);
                continue;
            }
            if lock.range.start < call.range.start {
                kept.push(Lock { range: LockRange { end: call.range.start - 1, ..lock.range }, ..lock });
            }
            if lock.range.end > call.range.end {
                kept.push(Lock { range: LockRange { start: call.range.end + 1, ..lock.range }, ..lock });
            }
        }
        *held = kept;
    }

    /// Adds the call's range, merged with neighbours of the same owner and mode, in order of offset.
    fn insert(&mut self, ino: Ino, call: &LockCall, mode: LockMode) {
        let owner = LockOwner { session: SessionId(0), owner: call.owner };
        let mut lock = Lock { owner, mode, range: call.range, pid: call.pid };
        let held = self.held.entry((ino, call.space)).or_default();
        held.retain(|other| {
            let touches = other.range.end.checked_add(1) == Some(lock.range.start)
                || lock.range.end.checked_add(1) == Some(other.range.start);
            let same = other.owner == owner && other.mode == mode && touches;
            if same {
                lock.range.start = lock.range.start.min(other.range.start);
                lock.range.end = lock.range.end.max(other.range.end);
            }
            !same
        });
        let place = held.partition_point(|other| other.range.start <= lock.range.start);
        held.insert(place, lock);
    }

    /// Drops everything `owner` holds on `ino` in one space.
    pub fn drop_owner(&mut self, ino: Ino, space: LockSpace, owner: u64) {
        if let Some(held) = self.held.get_mut(&(ino, space)) {
            held.retain(|lock| lock.owner.owner != owner);
        }
    }
}
