//! Inode attributes.

use rkyv::{Archive, Deserialize, Serialize};

use super::id::Ino;

/// Seconds and nanoseconds since 1970; seconds are negative before it, nanoseconds always count forward
/// (`0..1_000_000_000`). Ordered by time.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    pub sec: i64,
    pub nsec: u32,
}

/// Whom a new inode belongs to.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// What an inode is.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    File,
    Dir,
    Symlink,
    Fifo,
    Socket,
    Char,
    Block,
}

/// What `stat` shows, and what the inode record holds.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Attr {
    pub ino: Ino,
    pub kind: FileKind,
    /// Permission bits with set-id and sticky: `0o7777`.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    /// Device number of a device node, in the kernel's 32-bit encoding.
    pub rdev: u32,
    /// Bytes of a file, length of a symlink's target, or for a directory 4096.
    pub size: u64,
    /// Bytes allocated (not holes); `st_blocks` is this over 512, rounded up.
    pub allocated_bytes: u64,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
    /// Creation time.
    pub btime: Time,
    /// Grows with every change of this inode: two equal versions are the same state.
    pub version: u64,
    /// The access ACL is more than the mode bits say.
    pub has_acl: bool,
    /// There are extended attributes, ACLs among them.
    pub has_xattr: bool,
}

/// A time to set: the leader's now, or a given one.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    Now,
    At(Time),
}

/// The attributes to change; `None` leaves one as it is.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<SetTime>,
    pub mtime: Option<SetTime>,
    pub ctime: Option<SetTime>,
    /// Clear set-user-id, and set-group-id when group-execute is set (truncation by an unprivileged caller).
    pub clear_privileges: bool,
}

pub const S_ISUID: u32 = 0o4000;
pub const S_ISGID: u32 = 0o2000;
pub const S_ISVTX: u32 = 0o1000;

/// What a write or an unprivileged truncation leaves of `mode`: without set-user-id, and without set-group-id where
/// that means "run as the group" (group-execute set).
pub fn mode_without_privileges(mode: u32) -> u32 {
    let mode = mode & !S_ISUID;
    if mode & 0o010 != 0 { mode & !S_ISGID } else { mode }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_order_across_the_epoch() {
        let before = Time { sec: -1, nsec: 999_999_999 };
        assert!(before < Time { sec: 0, nsec: 0 });
        assert!(Time { sec: -1, nsec: 0 } < before);
    }

    #[test]
    fn writes_clear_set_id_bits() {
        assert_eq!(mode_without_privileges(0o6755), 0o0755);
        assert_eq!(mode_without_privileges(0o2644), 0o2644);
    }
}
