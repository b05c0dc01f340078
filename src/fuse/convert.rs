//! Values of the FUSE protocol, as fuser shows them, to values of Holdfast and back.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{Errno, FileAttr, FileType, INodeNo, OpenAccMode, OpenFlags, TimeOrNow};

use crate::client::api::{OpenMode, Result};
use crate::types::attr::{Attr, FileKind, SetTime, Time};
use crate::types::error::FsError;
use crate::types::id::Ino;
use crate::types::name::Name;
use crate::types::op::{FallocateMode, NewNode, RenameMode, XattrMode};

/// `st_blksize`, as on ext4.
pub(super) const BLOCK_BYTES: u32 = 4096;

const NANOS_PER_SEC: u32 = 1_000_000_000;

pub(super) fn ino(number: INodeNo) -> Ino {
    Ino(number.0)
}

pub(super) fn name(text: &OsStr) -> Result<Name> {
    Name::new(text.as_bytes())
}

pub(super) fn errno(error: &FsError) -> Errno {
    Errno::from_i32(error.errno())
}

/// The error of an operation on an inode by number: that it is gone makes the kernel look its name up once more, where
/// `ENOENT` would tell a program that a file just replaced is missing.
pub(super) fn stale(error: FsError) -> FsError {
    if error == FsError::NotFound { FsError::Stale } else { error }
}

/// Before 1970 too, the nanoseconds count upwards: 1.5 s before it are seconds -2 and nanoseconds 500,000,000.
pub(super) fn time_in(time: SystemTime) -> Time {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => Time { sec: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nsec: since.subsec_nanos() },
        Err(before) => {
            let distance = before.duration();
            let up = (NANOS_PER_SEC - distance.subsec_nanos()) % NANOS_PER_SEC;
            let whole = distance.as_secs() + u64::from(up > 0);
            Time { sec: 0i64.wrapping_sub_unsigned(whole), nsec: up }
        }
    }
}

pub(super) fn time_out(time: Time) -> SystemTime {
    let whole = Duration::from_secs(time.sec.unsigned_abs());
    let seconds = if time.sec < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    seconds.and_then(|at| at.checked_add(Duration::from_nanos(time.nsec.into()))).unwrap_or(UNIX_EPOCH)
}

pub(super) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(time_in(time)),
    }
}

pub(super) fn attr_out(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino.0),
        size: attr.size,
        blocks: attr.allocated_bytes.div_ceil(512),
        atime: time_out(attr.atime),
        mtime: time_out(attr.mtime),
        ctime: time_out(attr.ctime),
        crtime: time_out(attr.btime),
        kind: kind_out(attr.kind),
        perm: (attr.mode & 0o7777) as u16,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

pub(super) fn kind_out(kind: FileKind) -> FileType {
    match kind {
        FileKind::File => FileType::RegularFile,
        FileKind::Dir => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::Char => FileType::CharDevice,
        FileKind::Block => FileType::BlockDevice,
    }
}

/// What `mknod` is to make. `rdev` is in the kernel's 32-bit encoding on both sides and is kept as it comes.
pub(super) fn node(mode: u32, rdev: u32) -> Result<NewNode> {
    match mode & libc::S_IFMT {
        libc::S_IFREG => Ok(NewNode::File),
        libc::S_IFIFO => Ok(NewNode::Fifo),
        libc::S_IFSOCK => Ok(NewNode::Socket),
        libc::S_IFCHR => Ok(NewNode::Char(rdev)),
        libc::S_IFBLK => Ok(NewNode::Block(rdev)),
        _ => Err(FsError::Invalid),
    }
}

pub(super) fn open_mode(flags: i32) -> OpenMode {
    let access = OpenFlags(flags).acc_mode();
    OpenMode { read: access != OpenAccMode::O_WRONLY, write: access != OpenAccMode::O_RDONLY, sync: is_sync(flags) }
}

/// `O_SYNC` contains the bit of `O_DSYNC`.
pub(super) fn is_sync(flags: i32) -> bool {
    flags & libc::O_DSYNC != 0
}

pub(super) fn rename_mode(flags: u32) -> Result<RenameMode> {
    match flags {
        0 => Ok(RenameMode::Replace),
        libc::RENAME_NOREPLACE => Ok(RenameMode::NoReplace),
        libc::RENAME_EXCHANGE => Ok(RenameMode::Exchange),
        _ => Err(FsError::Invalid),
    }
}

pub(super) fn fallocate_mode(mode: i32) -> Result<FallocateMode> {
    const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
    const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | KEEP;
    const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;
    const ZERO_KEEP: i32 = ZERO | KEEP;
    match mode {
        0 => Ok(FallocateMode::Allocate { keep_size: false }),
        KEEP => Ok(FallocateMode::Allocate { keep_size: true }),
        PUNCH => Ok(FallocateMode::Punch),
        ZERO => Ok(FallocateMode::Zero { keep_size: false }),
        ZERO_KEEP => Ok(FallocateMode::Zero { keep_size: true }),
        _ => Err(FsError::NotSupported),
    }
}

pub(super) fn xattr_mode(flags: i32) -> Result<XattrMode> {
    match flags {
        0 => Ok(XattrMode::Set),
        libc::XATTR_CREATE => Ok(XattrMode::Create),
        libc::XATTR_REPLACE => Ok(XattrMode::Replace),
        _ => Err(FsError::Invalid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_in_as_they_go_out() {
        for (sec, nsec) in [(0, 0), (0, 1), (-1, 0), (-1, 1), (-2, 500_000_000), (-1, 999_999_999), (7_258_118_400, 5)]
        {
            assert_eq!(time_in(time_out(Time { sec, nsec })), Time { sec, nsec });
        }
        assert_eq!(time_in(time_out(Time { sec: i64::MIN, nsec: 0 })), Time { sec: i64::MIN, nsec: 0 });
    }

    #[test]
    fn times_go_out_as_they_are() {
        assert_eq!(time_out(Time { sec: -2, nsec: 500_000_000 }), UNIX_EPOCH - Duration::from_millis(1500));
        assert_eq!(time_out(Time { sec: 3, nsec: 7 }), UNIX_EPOCH + Duration::new(3, 7));
        for sec in [i64::MIN, i64::MAX] {
            assert_ne!(time_out(Time { sec, nsec: 999_999_999 }), UNIX_EPOCH);
        }
    }

    #[test]
    fn flags_are_told_apart() {
        assert_eq!(open_mode(libc::O_RDONLY), OpenMode { read: true, write: false, sync: false });
        assert_eq!(open_mode(libc::O_WRONLY | libc::O_SYNC), OpenMode { read: false, write: true, sync: true });
        assert!(open_mode(libc::O_RDWR | libc::O_DSYNC).sync);
        assert_eq!(rename_mode(libc::RENAME_WHITEOUT), Err(FsError::Invalid));
        assert_eq!(rename_mode(libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE), Err(FsError::Invalid));
        assert_eq!(fallocate_mode(libc::FALLOC_FL_COLLAPSE_RANGE), Err(FsError::NotSupported));
        assert_eq!(fallocate_mode(libc::FALLOC_FL_PUNCH_HOLE), Err(FsError::NotSupported));
        assert_eq!(xattr_mode(libc::XATTR_CREATE | libc::XATTR_REPLACE), Err(FsError::Invalid));
    }
}
