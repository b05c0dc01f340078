//! Operations on a namespace: what a client asks the metadata service to change, and what it is told.
//!
//! One command carries a list of them from one session, applied atomically and in order: the first error undoes all.
//! What they do to attributes is in [`effect`](super::effect).

use rkyv::{Archive, Deserialize, Serialize};

use super::allowance::Allowance;
use super::attr::{Attr, SetAttr, Time};
use super::error::FsError;
use super::extent::{Extent, Source};
use super::id::Ino;
use super::lock::{Lock, LockRequest, OwnLock};
use super::name::Name;
use super::rewrite::Seen;

/// A change to one tree. Errors are those of the Linux call of the same name on ext4.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Make an inode and its name. Inherits the group (and for directories set-group-id) of a set-group-id directory,
    /// and a default ACL in place of the umask.
    Create(Create),
    /// Another name for an inode that is not a directory. A file whose link count is zero cannot be linked again.
    Link {
        ino: Ino,
        dir: Ino,
        name: Name,
    },
    /// Remove a name of a non-directory. At zero links the inode becomes an orphan until no session has it open.
    Unlink {
        dir: Ino,
        name: Name,
    },
    Rmdir {
        dir: Ino,
        name: Name,
    },
    Rename {
        from_dir: Ino,
        from: Name,
        to_dir: Ino,
        to: Name,
        mode: RenameMode,
    },
    SetAttr {
        ino: Ino,
        set: SetAttr,
    },
    SetXattr {
        ino: Ino,
        name: Vec<u8>,
        value: Vec<u8>,
        mode: XattrMode,
    },
    RemoveXattr {
        ino: Ino,
        name: Vec<u8>,
    },
    Write(Write),
    Fallocate {
        ino: Ino,
        mode: FallocateMode,
        offset: u64,
        len: u64,
    },
    /// Share the extents of a range with another file (or another place of the same one): no bytes move. Copies up to
    /// the source's end of file; the ranges do not overlap within one file.
    CopyRange {
        from: Ino,
        from_offset: u64,
        to: Ino,
        to_offset: u64,
        len: u64,
    },
    /// What a reader noticed, who saw `was`; never moves backwards, changes nothing else, conflicts with no lease. Where
    /// the time is not `was` any more, another host has read or set it since: then nothing happens.
    TouchAtime {
        ino: Ino,
        was: Time,
        atime: Time,
    },
    /// Put one chunk in the place of what is still in a block as it was seen (see `types/rewrite.rs`).
    Compact {
        ino: Ino,
        block_offset: u64,
        before: Vec<Seen>,
        after: Extent,
    },
    Lock(LockRequest),
    /// Drop every lock of one kernel owner on an inode (close of a descriptor, exit of a process).
    UnlockOwner {
        ino: Ino,
        owner: u64,
    },
    /// Sets so many inode numbers aside for this session, for inodes that it makes on its own, and of the volume's quotas as
    /// much as can be had, up to `upto` in all. With less than it had it gives back.
    Reserve {
        numbers: u64,
        upto: Allowance,
    },
    /// The locks that this session holds on an inode, in the place of all that it held: how it decided while it held a Write
    /// lease.
    SetLocks {
        ino: Ino,
        locks: Vec<OwnLock>,
    },
}

/// A change that a client has made on its own, under write leases on all that it concerns, and when it did.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Dated {
    pub at: Time,
    pub op: Op,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Create {
    pub dir: Ino,
    pub name: Name,
    pub node: NewNode,
    /// Permission bits as the program gave them, before the umask.
    pub mode: u32,
    pub umask: u32,
    pub uid: u32,
    pub gid: u32,
    /// `O_EXCL`: `Exists` when the name is taken. Otherwise an existing regular file is the answer (and anything else
    /// but `File` over an existing name is `Exists`).
    pub exclusive: bool,
    /// A number that was set aside for the session; the next free one without it.
    pub ino: Option<Ino>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum NewNode {
    File,
    Dir,
    Symlink(Vec<u8>),
    Fifo,
    Socket,
    Char(u32),
    Block(u32),
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    Replace,
    NoReplace,
    Exchange,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum XattrMode {
    Set,
    Create,
    Replace,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum FallocateMode {
    /// Allocate holes as unwritten; grow the size unless `keep_size`.
    Allocate { keep_size: bool },
    /// Make a hole; the size stays.
    Punch,
    /// Zero the range, allocated as unwritten; grow the size unless `keep_size`.
    Zero { keep_size: bool },
}

/// Store data that is already durable (chunks) or rides along (inline).
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub ino: Ino,
    pub at: WriteAt,
    /// Laid over what is there, in order. Offsets are relative to where the write begins. They need not respect block
    /// borders: the state machine splits them.
    pub pieces: Vec<Piece>,
    /// The file is at least this long afterwards, relative to where the write begins.
    pub len: u64,
    /// The modification time; `None` is the leader's now.
    pub mtime: Option<Time>,
    pub clear_privileges: bool,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteAt {
    Offset(u64),
    /// `O_APPEND`: the end of file at the moment the command is applied.
    End,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub offset: u64,
    pub len: u32,
    pub source: Source,
}

/// The answer to one operation.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum OpReply {
    /// `Create`, `Link`: the inode, and whether it is new.
    Entry { attr: Attr, created: bool },
    /// `Unlink`, `Rmdir`: the inode that lost a name, if any, as it is now.
    Removed { gone: Option<Attr> },
    /// `Rename`: the inode that the first name had, and the one that the second had, if any, as they are now. When they are the same,
    /// nothing was done.
    Renamed { moved: Attr, other: Option<Attr> },
    /// `SetAttr`, `Fallocate`, `TouchAtime`: as it is now.
    Attr(Attr),
    /// `Write`: where it landed.
    Written { offset: u64, attr: Attr },
    /// `CopyRange`: how many bytes.
    Copied { bytes: u64, attr: Attr },
    /// `Lock` that could not be had; the lock in the way.
    LockHeld(Lock),
    /// `Reserve`: the first number, and all of the quotas that is set aside for this session now.
    Reserved { first: Option<Ino>, allowance: Allowance },
    /// Everything else.
    Done,
}

/// The answer to a command: one reply per operation, or which one failed and why (then nothing happened). Changes that
/// a client has made on its own are answered with no replies: it knows what they did.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum BatchReply {
    Done(Vec<OpReply>),
    Failed { index: u32, error: FsError },
}
