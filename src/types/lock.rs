//! File locks: what is asked for and what is held.

use rkyv::{Archive, Deserialize, Serialize};

use super::id::{Ino, SessionId};

/// `flock` and `fcntl` locks do not see each other, as on Linux.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LockSpace {
    Flock,
    Range,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    Shared,
    Exclusive,
}

/// Who owns a lock: the kernel's owner id within one session (a process for `fcntl`, an open file for `flock` and
/// open-file-description locks).
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockOwner {
    pub session: SessionId,
    pub owner: u64,
}

/// A byte range `start..=end` held in one mode. `end` is inclusive; `u64::MAX >> 1` means to the end of any file.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockRange {
    pub start: u64,
    pub end: u64,
}

/// A held lock, as the state machine stores it and as `F_GETLK` reports it.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    pub owner: LockOwner,
    pub mode: LockMode,
    pub range: LockRange,
    /// The process, as its own host numbers it.
    pub pid: u32,
}

/// A lock of one session on one inode.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnLock {
    pub space: LockSpace,
    /// The kernel's owner id.
    pub owner: u64,
    pub mode: LockMode,
    pub range: LockRange,
    pub pid: u32,
}

/// A request to lock (`Some(mode)`) or unlock (`None`) a range of a file.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct LockRequest {
    pub ino: Ino,
    pub space: LockSpace,
    /// The kernel's owner id; the session comes with the command.
    pub owner: u64,
    pub mode: Option<LockMode>,
    pub range: LockRange,
    pub pid: u32,
}
