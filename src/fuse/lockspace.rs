//! Which kind of lock a request means, and which locks the kernel forgets to drop.
//!
//! **flock or fcntl.** The kernel tells them apart by `lk_flags` of `struct fuse_lk_in`; fuser 0.18 parses the field and
//! does not hand it on. It does hand on the request's header by reference, in place, in the buffer it received the
//! request in, so the argument lies right behind. [`space_of`] reads it there and believes it only if every field fuser
//! did hand on is found in its place; the version of fuser is pinned exactly, and `tests/fuse.rs` would notice. (The
//! other way to know, `/proc/TID/syscall` of the waiting thread, needs the right to trace it and its PID namespace,
//! and so fails where containers are.)
//!
//! **Open-file-description locks.** When the last descriptor of an open file goes, the kernel drops its flock (release
//! says so) and the locks of the process (flush says so), but its OFD locks only if it keeps them itself, which it does
//! not for FUSE. [`OpenFileLocks`] remembers, per open file, who locked ranges through it; whoever was not dropped by a
//! flush when the file is released is an OFD lock's owner.

use std::collections::HashMap;
use std::sync::Once;

use fuser::Request;
use parking_lot::Mutex;

use crate::client::api::Handle;
use crate::types::id::Ino;
use crate::types::lock::LockSpace;

/// `sizeof(struct fuse_in_header)`, and of that with a `struct fuse_lk_in` behind it.
const HEADER_BYTES: usize = 40;
const LOCK_REQUEST_BYTES: u32 = 88;
const FUSE_LK_FLOCK: u32 = 1;

const _: () = assert!(size_of::<Request>() == HEADER_BYTES);

/// What fuser hands on of a `struct fuse_lk_in`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LockArgument {
    pub fh: u64,
    pub owner: u64,
    pub start: u64,
    pub end: u64,
    pub kind: i32,
    pub pid: u32,
}

/// `struct fuse_lk_in`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Raw {
    fh: u64,
    owner: u64,
    start: u64,
    end: u64,
    kind: i32,
    pid: u32,
    flags: u32,
    padding: u32,
}

/// The space a GETLK, SETLK or SETLKW request is about. `Range` when it cannot be told.
pub(super) fn space_of(request: &Request, argument: &LockArgument) -> LockSpace {
    let header: *const u32 = std::ptr::from_ref(request).cast();
    // SAFETY: a `Request` is a `fuse_in_header`, whose first field is its 32-bit length.
    let sent_bytes = unsafe { header.read() };
    if sent_bytes != LOCK_REQUEST_BYTES {
        return undecided();
    }
    let behind = std::ptr::with_exposed_provenance::<Raw>(header.addr() + HEADER_BYTES);
    // SAFETY: fuser 0.18.0 (pinned) lends the header in place in its receive buffer of 16 MiB, and the length just read
    // says that the kernel put 48 bytes behind it. The buffer's address went to `read(2)`, so it is exposed, and nothing
    // writes to it before this request is answered.
    let raw = unsafe { behind.read_unaligned() };
    match raw.check(argument) {
        Some(space) => space,
        None => undecided(),
    }
}

impl Raw {
    fn check(&self, expected: &LockArgument) -> Option<LockSpace> {
        let found = LockArgument {
            fh: self.fh,
            owner: self.owner,
            start: self.start,
            end: self.end,
            kind: self.kind,
            pid: self.pid,
        };
        let space = if self.flags & FUSE_LK_FLOCK != 0 { LockSpace::Flock } else { LockSpace::Range };
        (found == *expected && self.padding == 0).then_some(space)
    }
}

fn undecided() -> LockSpace {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::warn!("cannot tell flock from fcntl locks: they share one space on this mount"));
    LockSpace::Range
}

/// Who locked ranges through which open file and may still hold them.
#[derive(Debug, Default)]
pub(super) struct OpenFileLocks {
    owners: Mutex<HashMap<Ino, Vec<(Handle, u64)>>>,
}

impl OpenFileLocks {
    pub fn locked(&self, ino: Ino, handle: Handle, owner: u64) {
        let mut owners = self.owners.lock();
        let owners = owners.entry(ino).or_default();
        if !owners.contains(&(handle, owner)) {
            owners.push((handle, owner));
        }
    }

    /// A process closed a descriptor of the file: what it held is dropped.
    pub fn flushed(&self, ino: Ino, owner: u64) {
        self.retain(ino, |(_, other)| other != owner);
    }

    /// The open file is gone. Returns the owners whose locks nobody dropped.
    pub fn released(&self, ino: Ino, handle: Handle) -> Vec<u64> {
        let mut left = Vec::new();
        self.retain(ino, |(other, owner)| {
            if other == handle {
                left.push(owner);
            }
            other != handle
        });
        left
    }

    fn retain(&self, ino: Ino, mut keep: impl FnMut((Handle, u64)) -> bool) {
        let mut files = self.owners.lock();
        if let Some(owners) = files.get_mut(&ino) {
            owners.retain(|entry| keep(*entry));
            if owners.is_empty() {
                files.remove(&ino);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARGUMENT: LockArgument = LockArgument { fh: 1, owner: 2, start: 3, end: 4, kind: 1, pid: 5 };

    #[test]
    fn the_argument_is_believed_only_if_it_fits() {
        let raw = Raw { fh: 1, owner: 2, start: 3, end: 4, kind: 1, pid: 5, flags: 0, padding: 0 };
        assert_eq!(raw.check(&ARGUMENT), Some(LockSpace::Range));
        assert_eq!(Raw { flags: FUSE_LK_FLOCK, ..raw }.check(&ARGUMENT), Some(LockSpace::Flock));
        assert_eq!(Raw { owner: 9, ..raw }.check(&ARGUMENT), None);
        assert_eq!(Raw { padding: 9, ..raw }.check(&ARGUMENT), None);
    }

    #[test]
    fn only_owners_that_were_not_flushed_are_left() {
        let (ino, a, b) = (Ino(7), Handle(1), Handle(2));
        let locks = OpenFileLocks::default();
        locks.locked(ino, a, 10);
        locks.locked(ino, a, 10);
        locks.locked(ino, a, 11);
        locks.locked(ino, b, 10);
        locks.flushed(ino, 10);
        assert_eq!(locks.released(ino, a), [11]);
        assert_eq!(locks.released(ino, b), [0u64; 0]);
        assert!(locks.owners.lock().is_empty());
    }
}
