//! Requests about file locks.

use fuser::{ReplyEmpty, ReplyLock};

use super::adapter::Door;
use super::caller::Caller;
use super::convert::errno;
use super::names::reply_empty;
use super::serve::{Surrender, serve};
use crate::client::api::{Handle, LockCall, Posix, Result};
use crate::types::error::FsError;
use crate::types::id::Ino;
use crate::types::lock::{LockMode, LockRange, LockSpace};

/// The last byte of the longest range, and of a range "to the end".
const END_MAX: u64 = u64::MAX >> 1;

/// What a GETLK, SETLK or SETLKW request is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct LockArgument {
    pub space: LockSpace,
    pub fh: u64,
    pub owner: u64,
    pub start: u64,
    pub end: u64,
    pub kind: i32,
    pub pid: u32,
}

pub(super) fn space(flock: bool) -> LockSpace {
    if flock { LockSpace::Flock } else { LockSpace::Range }
}

/// What drops every range lock of an owner.
pub(super) fn unlock_all(owner: u64) -> LockCall {
    let range = LockRange { start: 0, end: END_MAX };
    LockCall { space: LockSpace::Range, owner, mode: None, range, pid: 0 }
}

fn call(lock: &LockArgument) -> Result<LockCall> {
    let mode = match lock.kind {
        libc::F_RDLCK => Some(LockMode::Shared),
        libc::F_WRLCK => Some(LockMode::Exclusive),
        libc::F_UNLCK => None,
        _ => return Err(FsError::Invalid),
    };
    let range = LockRange { start: lock.start, end: lock.end.min(END_MAX) };
    if range.start > range.end {
        return Err(FsError::Invalid);
    }
    Ok(LockCall { space: lock.space, owner: lock.owner, mode, range, pid: lock.pid })
}

impl<F: Posix> Door<F> {
    pub fn answer_getlk(&self, caller: Caller, number: Ino, lock: LockArgument, reply: ReplyLock) {
        let fs = self.fs.clone();
        let work = async move { fs.getlk(number, call(&lock)?).await };
        serve(&self.desk, caller, Surrender::Look, work, move |result| match result {
            Ok(None) => reply.locked(lock.start, lock.end, libc::F_UNLCK, 0),
            Ok(Some(held)) => {
                let kind = if held.mode == LockMode::Shared { libc::F_RDLCK } else { libc::F_WRLCK };
                reply.locked(held.range.start, held.range.end.min(END_MAX), kind, held.pid);
            }
            Err(error) => reply.error(errno(&error)),
        });
    }

    pub fn answer_setlk(&self, caller: Caller, number: Ino, lock: LockArgument, wait: bool, mut reply: ReplyEmpty) {
        if lock.space == LockSpace::Range
            && lock.kind != libc::F_UNLCK
            && let Err(error) = self.open_file_locks.locked(number, Handle(lock.fh), lock.owner)
        {
            return reply.error(errno(&error));
        }
        if wait {
            reply.leave_to_others();
        }
        let (fs, desk) = (self.fs.clone(), self.desk.clone());
        let (taken, takes) = (self.fs.clone(), lock.kind != libc::F_UNLCK);
        let work = async move { fs.setlk(number, call(&lock)?, wait).await };
        let surrender = if wait { Surrender::Wait } else { Surrender::Change };
        serve(&self.desk, caller, surrender, work, move |result| match result {
            // From here on there is nothing to give up: who is told of a signal does not expect to have the lock.
            Ok(()) if takes => {
                let settle = async move {
                    taken.locked(number).await;
                    Ok(())
                };
                serve(&desk, caller, Surrender::Change, settle, move |result| reply_empty(result, reply));
            }
            result => reply_empty(result, reply),
        });
    }
}
