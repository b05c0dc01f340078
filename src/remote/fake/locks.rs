//! File locks in the fake.

use super::*;
use crate::types::lock::{Lock, LockOwner, LockRequest, LockSpace, OwnLock};
use crate::types::locking;

impl State {
    pub(super) fn wait_lock(&mut self, session: SessionId, sequence: u64, request: &LockRequest) -> Option<MetaReply> {
        let place = (session, sequence);
        self.waiting.remove(&place);
        if self.cancelled.contains(&place) {
            return reply(MetaBody::Error(FsError::Interrupted));
        }
        self.waiting.insert(place, request.ino);
        if !self.clear(session, request.ino, Lease::Read, false) || self.lock(session, request) != OpReply::Done {
            return None;
        }
        self.waiting.remove(&place);
        reply(MetaBody::Done)
    }

    pub(super) fn lock(&mut self, session: SessionId, request: &LockRequest) -> OpReply {
        let LockRequest { ino, space, owner, mode, range, pid } = request.clone();
        let owner = LockOwner { session, owner };
        let held = self.locks.entry((ino, space)).or_default();
        match mode {
            None => locking::release(held, owner, range),
            Some(mode) => {
                if let Err(other) = locking::acquire(held, space, Lock { owner, mode, range, pid }) {
                    return OpReply::LockHeld(other);
                }
            }
        }
        OpReply::Done
    }

    pub(super) fn read_locks(&mut self, request: &MetaRequest) -> Option<MetaReply> {
        match request {
            MetaRequest::TestLock { session, request } => {
                let clear = self.clear(*session, request.ino, Lease::Read, false);
                clear.then(|| MetaReply { body: MetaBody::Lock(self.test_lock(*session, request)), granted: vec![] })
            }
            MetaRequest::OwnLocks { session, ino } => {
                self.tally("own-locks");
                reply(MetaBody::OwnLocks(self.own_locks(*session, *ino)))
            }
            _ => reply(MetaBody::Error(FsError::NotSupported)),
        }
    }

    fn test_lock(&self, session: SessionId, request: &LockRequest) -> Option<Lock> {
        let LockRequest { ino, space, owner, mode, range, .. } = request.clone();
        let held = self.locks.get(&(ino, space))?;
        locking::conflict(held, space, LockOwner { session, owner }, mode?, range).copied()
    }

    fn own_locks(&self, session: SessionId, ino: Ino) -> Option<Vec<OwnLock>> {
        let decides = self.holds.get(&(ino, session)).is_some_and(|(hold, _)| hold.lease == Lease::Write);
        let waited_for = self.waiting.values().any(|waited| *waited == ino);
        let held = || {
            let spaces = [LockSpace::Flock, LockSpace::Range].into_iter();
            let of = |space| self.locks.get(&(ino, space)).into_iter().flatten().map(move |lock| (space, *lock));
            spaces.flat_map(of)
        };
        let alone = held().all(|(_, lock)| lock.owner.session == session);
        let own = |(space, Lock { owner, mode, range, pid })| OwnLock { space, owner: owner.owner, mode, range, pid };
        (decides && alone && !waited_for).then(|| held().map(own).collect())
    }

    pub(super) fn set_locks(&mut self, session: SessionId, ino: Ino, locks: &[OwnLock]) {
        for space in [LockSpace::Flock, LockSpace::Range] {
            let held = self.locks.entry((ino, space)).or_default();
            held.retain(|lock| lock.owner.session != session);
            for OwnLock { owner, mode, range, pid, .. } in locks.iter().filter(|lock| lock.space == space).copied() {
                let owner = LockOwner { session, owner };
                locking::acquire(held, space, Lock { owner, mode, range, pid }).expect("nobody else has any");
            }
        }
    }
}
