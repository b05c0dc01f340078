//! The calls: how one is chosen, how it is made, and what of its answer is compared.

use std::fmt;
use std::os::fd::OwnedFd;

use super::tree::Node;
use crate::random::Random;
use crate::sys::{self, Sys};

const SLOTS: usize = 6;
const FILE_BYTES_MAX: u64 = 3 << 20;
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const MODES: [u32; 14] =
    [0o755, 0o700, 0o777, 0o1777, 0o2775, 0o4755, 0o6777, 0o644, 0o600, 0o000, 0o400, 0o222, 0o111, 0o2644];
const XATTRS: [&str; 5] = ["user.a", "user.b", "trusted.a", "security.a", "user."];
const IDS: [u32; 5] = [0, 1234, 5678, 65534, u32::MAX];

/// Open files, by small numbers; both sides have the same ones open.
pub type Slots = [Option<OwnedFd>; SLOTS];

#[derive(Debug)]
pub enum Call {
    Open { slot: usize, path: String, flags: i32, mode: u32 },
    Close { slot: usize },
    Read { slot: usize, len: usize },
    Pread { slot: usize, len: usize, at: u64 },
    Write { slot: usize, bytes: Vec<u8> },
    Pwrite { slot: usize, bytes: Vec<u8>, at: u64 },
    Lseek { slot: usize, offset: i64, whence: i32 },
    Ftruncate { slot: usize, len: u64 },
    Truncate { path: String, len: u64 },
    Fallocate { slot: usize, mode: i32, at: u64, len: u64 },
    Fsync { slot: usize },
    CopyRange { from: usize, from_at: u64, to: usize, to_at: u64, len: usize },
    Fstat { slot: usize },
    Fchmod { slot: usize, mode: u32 },
    Stat { path: String },
    Lstat { path: String },
    Access { path: String, mode: i32 },
    List { path: String },
    Readlink { path: String },
    Mkdir { path: String, mode: u32 },
    Mknod { path: String, mode: u32 },
    Rmdir { path: String },
    Unlink { path: String },
    Rename { from: String, to: String, flags: u32 },
    Link { from: String, to: String, flags: i32 },
    Symlink { target: String, path: String },
    Chmod { path: String, mode: u32 },
    Chown { path: String, uid: u32, gid: u32, follow: bool },
    Utimens { path: String, times: [(i64, i64); 2], flags: i32 },
    Setxattr { path: String, name: &'static str, value: Vec<u8>, flags: i32 },
    Setacl { path: String, name: &'static str, acl: Vec<u8> },
    Getxattr { path: String, name: &'static str },
    Listxattr { path: String },
    Removexattr { path: String, name: &'static str },
    Umask { mode: u32 },
}

/// The part of an answer that two filesystems agree about.
#[derive(Debug, PartialEq)]
pub enum Value {
    Done,
    Number(u64),
    Bytes(Vec<u8>),
    Entries(Vec<(Vec<u8>, u8)>),
    Names(Vec<String>),
    Node(Node),
    Times([(i64, i64); 2]),
}

fn path(random: &mut Random) -> String {
    if random.once_in(60) {
        let odd = [".", "a/.", "a/", "b/./c", "a//b", "", "a/b/", &"n".repeat(255), &"n".repeat(256)];
        return random.pick(&odd).to_string();
    }
    let depth = 1 + random.below(6) / 3 + random.below(5) / 4;
    (0..depth).map(|_| *random.pick(&NAMES)).collect::<Vec<_>>().join("/")
}

fn name(random: &mut Random, from: &[&'static str]) -> &'static str {
    from[random.below(from.len() as u64) as usize]
}

fn offset(random: &mut Random) -> u64 {
    if random.once_in(8) { random.below(FILE_BYTES_MAX) } else { random.below(20_000) }
}

fn open_flags(random: &mut Random) -> i32 {
    const EXTRA: [i32; 9] = [
        libc::O_CREAT,
        libc::O_CREAT,
        libc::O_CREAT | libc::O_EXCL,
        libc::O_TRUNC,
        libc::O_APPEND,
        libc::O_DIRECTORY,
        libc::O_NOFOLLOW,
        libc::O_SYNC,
        libc::O_NOATIME,
    ];
    let mut flags = *random.pick(&[libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR, libc::O_RDWR]);
    for _ in 0..random.below(4) {
        flags |= random.pick(&EXTRA);
    }
    flags
}

fn times(random: &mut Random) -> [(i64, i64); 2] {
    [(); 2].map(|()| match random.below(6) {
        0 => (0, libc::UTIME_NOW),
        1 => (0, libc::UTIME_OMIT),
        2 => (0, 1_000_000_000),
        // From before 1970 until after 2106: what ext4 can hold.
        _ => (random.below(17_000_000_000) as i64 - 2_000_000_000, random.below(1_000_000_000) as i64),
    })
}

/// An ACL with a named user, as the kernel takes it.
fn acl(random: &mut Random) -> Vec<u8> {
    let undefined = u32::MAX;
    let named = *random.pick(&[1234, 5678]);
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, id) in [(0x01_u16, undefined), (0x02, named), (0x04, undefined), (0x10, undefined), (0x20, undefined)] {
        acl.extend(tag.to_le_bytes());
        acl.extend((random.below(8) as u16).to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    acl
}

impl Call {
    pub fn random(r: &mut Random) -> Call {
        match r.below(100) {
            0..45 => Call::random_on_names(r),
            45..60 => Call::random_on_attributes(r),
            _ => Call::random_on_files(r),
        }
    }

    fn random_on_names(r: &mut Random) -> Call {
        match r.below(20) {
            0..4 => Call::Mkdir { path: path(r), mode: *r.pick(&MODES) },
            4 => {
                let kind = *r.pick(&[libc::S_IFIFO, libc::S_IFSOCK, libc::S_IFREG, libc::S_IFCHR, 0]);
                Call::Mknod { path: path(r), mode: kind | *r.pick(&MODES) }
            }
            5 => Call::Rmdir { path: path(r) },
            6 | 7 => Call::Unlink { path: path(r) },
            8..11 => {
                let flags = *r.pick(&[0, 0, libc::RENAME_NOREPLACE, libc::RENAME_EXCHANGE]);
                Call::Rename { from: path(r), to: path(r), flags }
            }
            11 | 12 => Call::Link { from: path(r), to: path(r), flags: *r.pick(&[0, libc::AT_SYMLINK_FOLLOW]) },
            13 => Call::Symlink { target: path(r), path: path(r) },
            14 => Call::Readlink { path: path(r) },
            15 => Call::List { path: path(r) },
            16 => Call::Stat { path: path(r) },
            17 => Call::Lstat { path: path(r) },
            18 => Call::Access { path: path(r), mode: r.below(8) as i32 },
            _ => Call::Umask { mode: *r.pick(&[0, 0o022, 0o077, 0o027]) },
        }
    }

    fn random_on_attributes(r: &mut Random) -> Call {
        let path = path(r);
        match r.below(14) {
            0..3 => Call::Chmod { path, mode: *r.pick(&MODES) },
            3..5 => Call::Chown { path, uid: *r.pick(&IDS), gid: *r.pick(&IDS), follow: r.once_in(2) },
            5..7 => Call::Utimens { path, times: times(r), flags: *r.pick(&[0, libc::AT_SYMLINK_NOFOLLOW]) },
            7 | 8 => {
                let flags = *r.pick(&[0, libc::XATTR_CREATE, libc::XATTR_REPLACE]);
                let len = r.below(200) as usize;
                Call::Setxattr { path, name: name(r, &XATTRS), value: r.bytes(len), flags }
            }
            9 => Call::Getxattr { path, name: name(r, &XATTRS) },
            10 => Call::Listxattr { path },
            11 => Call::Removexattr { path, name: name(r, &XATTRS) },
            12 => {
                let name = name(r, &["system.posix_acl_access", "system.posix_acl_default"]);
                Call::Setacl { path, name, acl: acl(r) }
            }
            _ => Call::Getxattr { path, name: name(r, &["system.posix_acl_access", "system.posix_acl_default"]) },
        }
    }

    fn random_on_files(r: &mut Random) -> Call {
        let slot = r.below(SLOTS as u64) as usize;
        let len = r.length(64 << 10) as usize;
        match r.below(24) {
            0..6 => Call::Open { slot, path: path(r), flags: open_flags(r), mode: *r.pick(&MODES) },
            6 => Call::Close { slot },
            7 => Call::Read { slot, len },
            8 | 9 => Call::Pread { slot, len, at: offset(r) },
            10..12 => Call::Write { slot, bytes: r.bytes(len) },
            12..15 => Call::Pwrite { slot, bytes: r.bytes(len), at: offset(r) },
            15 => {
                let whence = *r.pick(&[libc::SEEK_SET, libc::SEEK_CUR, libc::SEEK_END]);
                Call::Lseek { slot, offset: offset(r) as i64 - 5_000, whence }
            }
            16 => Call::Ftruncate { slot, len: offset(r) },
            17 => Call::Truncate { path: path(r), len: offset(r) },
            18 | 19 => {
                const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
                const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE;
                let mode = *r.pick(&[0, KEEP, KEEP | PUNCH, PUNCH, libc::FALLOC_FL_ZERO_RANGE]);
                Call::Fallocate { slot, mode, at: offset(r), len: len as u64 - u64::from(r.once_in(20) && len == 1) }
            }
            20 => Call::Fsync { slot },
            21 => {
                let to = r.below(SLOTS as u64) as usize;
                Call::CopyRange { from: slot, from_at: offset(r), to, to_at: offset(r), len }
            }
            22 => Call::Fstat { slot },
            _ => Call::Fchmod { slot, mode: *r.pick(&MODES) },
        }
    }

    /// Opening a FIFO, socket or device is about other things than the filesystem. Asked in the reference directory.
    pub fn would_block_or_leave(&self) -> bool {
        let Call::Open { path, .. } = self else { return false };
        sys::stat(path).is_ok_and(|s| ![libc::S_IFREG, libc::S_IFDIR].contains(&(s.st_mode & libc::S_IFMT)))
    }

    /// Linux tells a FUSE server of a `chown` of nothing, where it would touch set-group-id, as of an `fallocate`: there is
    /// nothing to refuse. A difference that `semantics.md` names.
    pub fn changes_nothing(&self) -> bool {
        matches!(self, Call::Chown { uid: u32::MAX, gid: u32::MAX, .. })
    }

    /// A copy within one file whose two descriptors are of different mounts, and whose ranges overlap: the kernel sees two
    /// filesystems, and does not refuse what it refuses within one.
    pub fn copies_over_itself(&self, slots: &Slots) -> bool {
        let Call::CopyRange { from, from_at, to, to_at, len } = self else { return false };
        let (Some(from), Some(to)) = (&slots[*from], &slots[*to]) else { return false };
        let (Ok(from), Ok(to)) = (sys::fstat(from), sys::fstat(to)) else { return false };
        from.st_ino == to.st_ino && from.st_dev != to.st_dev && from_at.abs_diff(*to_at) < *len as u64
    }

    /// Calls that a filesystem may do without.
    pub fn may_be_unsupported(&self) -> bool {
        matches!(self, Call::Fallocate { mode, .. } if mode & libc::FALLOC_FL_ZERO_RANGE != 0)
    }

    /// Makes the call in the current directory.
    pub fn make(&self, slots: &mut Slots) -> Sys<Value> {
        match self {
            Call::Open { slot, path, flags, mode } => {
                let opened = sys::open(path, *flags | libc::O_NONBLOCK, *mode)?;
                slots[*slot] = Some(opened);
                Ok(Value::Done)
            }
            Call::Close { slot } => match slots[*slot].take() {
                Some(fd) => sys::close(fd).map(|()| Value::Done),
                None => Ok(Value::Done),
            },
            Call::Umask { mode } => {
                // SAFETY: plain call.
                unsafe { libc::umask(*mode) };
                Ok(Value::Done)
            }
            Call::CopyRange { from, from_at, to, to_at, len } => match (&slots[*from], &slots[*to]) {
                (Some(f), Some(t)) => sys::copy_file_range(f, *from_at, t, *to_at, *len).map(number),
                _ => Ok(Value::Done),
            },
            _ => match self.slot() {
                Some(slot) => slots[slot].as_ref().map_or(Ok(Value::Done), |fd| self.make_on(fd)),
                None => self.make_by_path(),
            },
        }
    }

    /// The slot a call works on, of the calls that work on one.
    fn slot(&self) -> Option<usize> {
        match self {
            Call::Read { slot, .. }
            | Call::Pread { slot, .. }
            | Call::Write { slot, .. }
            | Call::Pwrite { slot, .. }
            | Call::Lseek { slot, .. }
            | Call::Ftruncate { slot, .. }
            | Call::Fallocate { slot, .. }
            | Call::Fsync { slot }
            | Call::Fstat { slot }
            | Call::Fchmod { slot, .. } => Some(*slot),
            _ => None,
        }
    }

    fn make_on(&self, fd: &OwnedFd) -> Sys<Value> {
        match self {
            Call::Read { len, .. } => bytes(*len, |into| sys::read(fd, into)),
            Call::Pread { len, at, .. } => bytes(*len, |into| sys::pread(fd, into, *at)),
            Call::Write { bytes, .. } => sys::write(fd, bytes).map(number),
            Call::Pwrite { bytes, at, .. } => sys::pwrite(fd, bytes, *at).map(number),
            // Positions in a directory are each filesystem's own.
            Call::Lseek { .. } if is_directory(fd) => Ok(Value::Done),
            Call::Lseek { offset, whence, .. } => sys::lseek(fd, *offset, *whence).map(Value::Number),
            Call::Ftruncate { len, .. } => sys::ftruncate(fd, *len).map(done),
            Call::Fallocate { mode, at, len, .. } => sys::fallocate(fd, *mode, *at, *len).map(done),
            Call::Fsync { .. } => sys::fsync(fd).map(done),
            Call::Fchmod { mode, .. } => sys::fchmod(fd, *mode).map(done),
            _ => sys::fstat(fd).map(|stat| Value::Node(Node::new(&stat))),
        }
    }

    fn make_by_path(&self) -> Sys<Value> {
        match self {
            Call::Truncate { path, len } => sys::truncate(path, *len).map(done),
            Call::Stat { path } => sys::stat(path).map(|stat| Value::Node(Node::new(&stat))),
            Call::Lstat { path } => sys::lstat(path).map(|stat| Value::Node(Node::new(&stat))),
            Call::Access { path, mode } => sys::access(path, *mode).map(done),
            Call::List { path } => {
                sys::list(path).map(|list| Value::Entries(list.into_iter().map(|e| (e.name, e.kind)).collect()))
            }
            Call::Readlink { path } => sys::readlink(path).map(Value::Bytes),
            Call::Mkdir { path, mode } => sys::mkdir(path, *mode).map(done),
            Call::Mknod { path, mode } => sys::mknod(path, *mode, libc::makedev(1, 3)).map(done),
            Call::Rmdir { path } => sys::rmdir(path).map(done),
            Call::Unlink { path } => sys::unlink(path).map(done),
            Call::Rename { from, to, flags } => sys::renameat2(from, to, *flags).map(done),
            Call::Link { from, to, flags } => sys::linkat(from, to, *flags).map(done),
            Call::Symlink { target, path } => sys::symlink(target, path).map(done),
            Call::Chmod { path, mode } => sys::chmod(path, *mode).map(done),
            Call::Chown { path, uid, gid, follow: true } => sys::chown(path, *uid, *gid).map(done),
            Call::Chown { path, uid, gid, follow: false } => sys::lchown(path, *uid, *gid).map(done),
            Call::Utimens { path, times, flags } => set_times(path, *times, *flags),
            Call::Setxattr { path, name, value, flags } => sys::setxattr(path, name, value, *flags).map(done),
            Call::Setacl { path, name, acl } => sys::setxattr(path, name, acl, 0).map(done),
            Call::Getxattr { path, name } => sys::getxattr(path, name).map(Value::Bytes),
            Call::Listxattr { path } => sys::listxattr(path).map(Value::Names),
            Call::Removexattr { path, name } => sys::removexattr(path, name).map(done),
            _ => Ok(Value::Done),
        }
    }

    /// Paths whose times, and whose directory's times, the call may move.
    fn touched(&self) -> Vec<&str> {
        match self {
            Call::Open { path, .. }
            | Call::Truncate { path, .. }
            | Call::Mkdir { path, .. }
            | Call::Mknod { path, .. }
            | Call::Rmdir { path }
            | Call::Unlink { path }
            | Call::Symlink { path, .. }
            | Call::Chmod { path, .. }
            | Call::Setxattr { path, .. }
            | Call::Setacl { path, .. }
            | Call::Removexattr { path, .. }
            | Call::Chown { path, .. } => vec![path],
            Call::Rename { from, to, .. } | Call::Link { from, to, .. } => vec![from, to],
            _ => Vec::new(),
        }
    }

    /// Cutting a file to the size it has moves times for some calls and not for others; nobody relies on which. The
    /// same goes for fallocate.
    pub fn times_count(&self, before: &[Mark], after: &[Mark]) -> bool {
        let cuts = match self {
            Call::Truncate { .. } | Call::Ftruncate { .. } => true,
            Call::Open { flags, .. } => flags & libc::O_TRUNC != 0,
            Call::Fallocate { .. } => return false,
            _ => false,
        };
        let size = |marks: &[Mark]| marks.first().and_then(|m| m.as_ref().map(|m| m.size));
        !cuts || size(before) != size(after)
    }
}

/// Times and size of something a call may touch; `None` where it cannot be looked at.
pub type Mark = Option<Times>;

#[derive(Debug, PartialEq)]
pub struct Times {
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    size: i64,
}

fn mark(stat: Sys<libc::stat>) -> Mark {
    stat.ok().map(|s| Times {
        inode: s.st_ino,
        modified: (s.st_mtime, s.st_mtime_nsec),
        changed: (s.st_ctime, s.st_ctime_nsec),
        size: s.st_size,
    })
}

/// Looks at everything the call may touch: the paths, the directories they are in, the open file.
pub fn marks(call: &Call, slots: &Slots) -> Vec<Mark> {
    let mut marks = Vec::new();
    for path in call.touched() {
        marks.push(mark(sys::lstat(path)));
        let above = path.trim_end_matches('/').rsplit_once('/').map_or(".", |(above, _)| above);
        marks.push(mark(sys::lstat(above)));
    }
    let slot = if let Call::CopyRange { to, .. } = call { Some(*to) } else { call.slot() };
    if let Some(fd) = slot.and_then(|slot| slots[slot].as_ref()) {
        marks.push(mark(sys::fstat(fd)));
    }
    marks
}

/// For each of them whether `(modification, change)` time moved; `None` where it came, went, or became another.
pub fn moved(before: &[Mark], after: &[Mark]) -> Vec<Option<(bool, bool)>> {
    let both = before.iter().zip(after);
    both.map(|(b, a)| {
        let (b, a) = (b.as_ref()?, a.as_ref()?);
        (b.inode == a.inode).then_some((b.modified != a.modified, b.changed != a.changed))
    })
    .collect()
}

fn is_directory(fd: &OwnedFd) -> bool {
    sys::fstat(fd).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

/// Sets, and answers what stands there then (the current time left out).
fn set_times(path: &str, times: [(i64, i64); 2], flags: i32) -> Sys<Value> {
    sys::utimens(path, times, flags)?;
    let stat = if flags == 0 { sys::stat(path) } else { sys::lstat(path) }?;
    let mut found = [(stat.st_atime, stat.st_atime_nsec), (stat.st_mtime, stat.st_mtime_nsec)];
    for (found, asked) in found.iter_mut().zip(times) {
        if [libc::UTIME_NOW, libc::UTIME_OMIT].contains(&asked.1) {
            *found = (0, 0);
        }
    }
    Ok(Value::Times(found))
}

fn done((): ()) -> Value {
    Value::Done
}

fn number(n: usize) -> Value {
    Value::Number(n as u64)
}

fn bytes(len: usize, read: impl FnOnce(&mut [u8]) -> Sys<usize>) -> Sys<Value> {
    let mut into = vec![0; len];
    let n = read(&mut into)?;
    into.truncate(n);
    Ok(Value::Bytes(into))
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Call::Write { slot, bytes } => write!(f, "Write {{ slot: {slot}, {} bytes }}", bytes.len()),
            Call::Pwrite { slot, bytes, at } => write!(f, "Pwrite {{ slot: {slot}, {} bytes, at: {at} }}", bytes.len()),
            Call::Open { slot, path, flags, mode } => {
                write!(f, "Open {{ slot: {slot}, {path:?}, flags: {flags:#o}, mode: {mode:#o} }}")
            }
            other => write!(f, "{other:?}"),
        }
    }
}
