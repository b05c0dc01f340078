//! The system calls the scenarios make, one thin function each.
//!
//! No retries, no buffering, no fallbacks: what the kernel answered is what the caller gets. Every call is timed, and
//! says in shared memory that it is under way, so that a call that hangs can be named by the process that watches.

use std::ffi::CString;
use std::fmt;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// No call may take longer, whatever else goes on in the directory.
pub const CALL_MAX: Duration = Duration::from_secs(20);

/// What a call answered when it failed. Two are equal when their codes are.
#[derive(Clone, Copy, Debug)]
pub struct Errno {
    pub call: &'static str,
    pub code: i32,
}

pub type Sys<T> = Result<T, Errno>;

impl PartialEq for Errno {
    fn eq(&self, other: &Errno) -> bool {
        self.code == other.code
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, std::io::Error::from_raw_os_error(self.code))
    }
}

/// Where this process says what it is doing: a page shared with the process that watches (see `procs`).
static UNDER_WAY: AtomicU64 = AtomicU64::new(0);
static SLOWEST_US: AtomicU64 = AtomicU64::new(0);
static SLOWEST_NAME: AtomicU64 = AtomicU64::new(0);

/// The names of calls, by their place in the table a watcher reads.
const NAMES: &[&str] = &[
    "(none)",
    "open",
    "read",
    "write",
    "lseek",
    "truncate",
    "fallocate",
    "fsync",
    "stat",
    "readdir",
    "mkdir",
    "rmdir",
    "unlink",
    "rename",
    "link",
    "symlink",
    "readlink",
    "mknod",
    "chmod",
    "chown",
    "utimens",
    "access",
    "setxattr",
    "getxattr",
    "listxattr",
    "removexattr",
    "copy_file_range",
    "mmap",
    "msync",
    "flock",
    "fcntl",
    "close",
    "name_to_handle_at",
    "open_by_handle_at",
];

/// Calls that wait for other processes by design, and so have no bound.
const WAITING: &[&str] = &["flock", "fcntl"];

/// Reports calls under way into `slot` from now on: `[place in NAMES, microseconds since boot]`.
pub fn report_into(slot: &'static [AtomicU64; 2]) {
    UNDER_WAY.store(slot.as_ptr() as u64, Ordering::Relaxed);
    SLOWEST_US.store(0, Ordering::Relaxed);
}

/// The call that a slot says is under way, and for how long.
pub fn under_way(slot: &[AtomicU64; 2]) -> Option<(&'static str, Duration)> {
    let name = *NAMES.get(slot[0].load(Ordering::Relaxed) as usize)?;
    let since = slot[1].load(Ordering::Relaxed);
    (name != NAMES[0]).then(|| (name, Duration::from_micros(uptime_us().saturating_sub(since))))
}

pub fn call_name(place: u64) -> &'static str {
    NAMES[place as usize % NAMES.len()]
}

/// `(place in NAMES, microseconds)` of the slowest call so far, those that wait by design left out.
pub fn slowest_raw() -> [u64; 2] {
    [SLOWEST_NAME.load(Ordering::Relaxed), SLOWEST_US.load(Ordering::Relaxed)]
}

fn uptime_us() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000
}

fn call(name: &'static str, f: impl FnOnce() -> i64) -> Sys<i64> {
    let place = NAMES.iter().position(|n| *n == name).unwrap_or(0) as u64;
    let slot = UNDER_WAY.load(Ordering::Relaxed) as *const [AtomicU64; 2];
    // SAFETY: null, or what `report_into` was given, which lives for ever.
    let slot = unsafe { slot.as_ref() };
    if let Some(slot) = slot {
        slot[1].store(uptime_us(), Ordering::Relaxed);
        slot[0].store(place, Ordering::Relaxed);
    }
    let start = Instant::now();
    let answer = f();
    // SAFETY: the location of errno is always valid for this thread.
    let code = unsafe { *libc::__errno_location() };
    let took_us = start.elapsed().as_micros() as u64;
    if !WAITING.contains(&name) && took_us > SLOWEST_US.load(Ordering::Relaxed) {
        SLOWEST_US.store(took_us, Ordering::Relaxed);
        SLOWEST_NAME.store(place, Ordering::Relaxed);
    }
    if let Some(slot) = slot {
        slot[0].store(0, Ordering::Relaxed);
    }
    if answer < 0 { Err(Errno { call: name, code }) } else { Ok(answer) }
}

fn path_of(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("scenario paths hold no NUL")
}

fn unit(answer: Sys<i64>) -> Sys<()> {
    answer.map(|_| ())
}

// SAFETY of everything below: pointers come from live CStrings, slices and structs of the right type, and lengths are
// those of the slices.

pub fn open(path: impl AsRef<Path>, flags: i32, mode: u32) -> Sys<OwnedFd> {
    let path = path_of(path.as_ref());
    let fd = call("open", || unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, mode) }.into())?;
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Relative to an open directory.
pub fn openat(dir: &OwnedFd, path: impl AsRef<Path>, flags: i32, mode: u32) -> Sys<OwnedFd> {
    let path = path_of(path.as_ref());
    let fd =
        call("open", || unsafe { libc::openat(dir.as_raw_fd(), path.as_ptr(), flags | libc::O_CLOEXEC, mode) }.into())?;
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Closes, and tells what close answered.
pub fn close(fd: OwnedFd) -> Sys<()> {
    let raw = fd.as_raw_fd();
    std::mem::forget(fd);
    unit(call("close", || unsafe { libc::close(raw) }.into()))
}

pub fn read(fd: &OwnedFd, into: &mut [u8]) -> Sys<usize> {
    call("read", || unsafe { libc::read(fd.as_raw_fd(), into.as_mut_ptr().cast(), into.len()) } as i64)
        .map(|n| n as usize)
}

pub fn pread(fd: &OwnedFd, into: &mut [u8], at: u64) -> Sys<usize> {
    call("read", || unsafe { libc::pread(fd.as_raw_fd(), into.as_mut_ptr().cast(), into.len(), at as i64) } as i64)
        .map(|n| n as usize)
}

pub fn write(fd: &OwnedFd, from: &[u8]) -> Sys<usize> {
    call("write", || unsafe { libc::write(fd.as_raw_fd(), from.as_ptr().cast(), from.len()) } as i64)
        .map(|n| n as usize)
}

pub fn pwrite(fd: &OwnedFd, from: &[u8], at: u64) -> Sys<usize> {
    call("write", || unsafe { libc::pwrite(fd.as_raw_fd(), from.as_ptr().cast(), from.len(), at as i64) } as i64)
        .map(|n| n as usize)
}

/// Everything from `at` to the end of file.
pub fn read_to_end(fd: &OwnedFd, mut at: u64) -> Sys<Vec<u8>> {
    let mut all = Vec::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = pread(fd, &mut buffer, at)?;
        if n == 0 {
            return Ok(all);
        }
        all.extend_from_slice(&buffer[..n]);
        at += n as u64;
    }
}

pub fn read_file(path: impl AsRef<Path>) -> Sys<Vec<u8>> {
    read_to_end(&open(path, libc::O_RDONLY, 0)?, 0)
}

/// Makes or truncates the file and writes all of it.
pub fn write_file(path: impl AsRef<Path>, content: &[u8]) -> Sys<()> {
    let fd = open(path, libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC, 0o644)?;
    write_all(&fd, content, 0)
}

pub fn write_all(fd: &OwnedFd, content: &[u8], at: u64) -> Sys<()> {
    let mut done = 0;
    while done < content.len() {
        done += pwrite(fd, &content[done..], at + done as u64)?;
    }
    Ok(())
}

pub fn lseek(fd: &OwnedFd, offset: i64, whence: i32) -> Sys<u64> {
    call("lseek", || unsafe { libc::lseek(fd.as_raw_fd(), offset, whence) }).map(|n| n as u64)
}

pub fn ftruncate(fd: &OwnedFd, len: u64) -> Sys<()> {
    unit(call("truncate", || unsafe { libc::ftruncate(fd.as_raw_fd(), len as i64) }.into()))
}

pub fn truncate(path: impl AsRef<Path>, len: u64) -> Sys<()> {
    let path = path_of(path.as_ref());
    unit(call("truncate", || unsafe { libc::truncate(path.as_ptr(), len as i64) }.into()))
}

pub fn fallocate(fd: &OwnedFd, mode: i32, at: u64, len: u64) -> Sys<()> {
    unit(call("fallocate", || unsafe { libc::fallocate(fd.as_raw_fd(), mode, at as i64, len as i64) }.into()))
}

pub fn fsync(fd: &OwnedFd) -> Sys<()> {
    unit(call("fsync", || unsafe { libc::fsync(fd.as_raw_fd()) }.into()))
}

pub fn fdatasync(fd: &OwnedFd) -> Sys<()> {
    unit(call("fsync", || unsafe { libc::fdatasync(fd.as_raw_fd()) }.into()))
}

/// Opens the directory and syncs it: the names in it are durable then.
pub fn sync_dir(path: impl AsRef<Path>) -> Sys<()> {
    fsync(&open(path, libc::O_RDONLY | libc::O_DIRECTORY, 0)?)
}

pub fn fstat(fd: &OwnedFd) -> Sys<libc::stat> {
    let mut stat = unsafe { std::mem::zeroed() };
    call("stat", || unsafe { libc::fstat(fd.as_raw_fd(), &mut stat) }.into())?;
    Ok(stat)
}

pub fn stat(path: impl AsRef<Path>) -> Sys<libc::stat> {
    let path = path_of(path.as_ref());
    let mut stat = unsafe { std::mem::zeroed() };
    call("stat", || unsafe { libc::stat(path.as_ptr(), &mut stat) }.into())?;
    Ok(stat)
}

pub fn lstat(path: impl AsRef<Path>) -> Sys<libc::stat> {
    let path = path_of(path.as_ref());
    let mut stat = unsafe { std::mem::zeroed() };
    call("stat", || unsafe { libc::lstat(path.as_ptr(), &mut stat) }.into())?;
    Ok(stat)
}

pub fn size(path: impl AsRef<Path>) -> Sys<u64> {
    stat(path).map(|s| s.st_size as u64)
}

/// One directory entry, "." and ".." left out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub name: Vec<u8>,
    pub kind: u8,
    pub ino: u64,
}

/// One whole listing by getdents64, sorted, repeated names kept.
pub fn list(path: impl AsRef<Path>) -> Sys<Vec<Entry>> {
    let fd = open(path, libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    let mut buffer = vec![0_u8; 8192];
    let mut entries = Vec::new();
    loop {
        let n = call("readdir", || unsafe {
            libc::syscall(libc::SYS_getdents64, fd.as_raw_fd(), buffer.as_mut_ptr(), buffer.len())
        })? as usize;
        if n == 0 {
            entries.sort();
            return Ok(entries);
        }
        let mut at = 0;
        while at < n {
            let length = u16::from_ne_bytes([buffer[at + 16], buffer[at + 17]]) as usize;
            let ino = u64::from_ne_bytes(buffer[at..at + 8].try_into().expect("eight bytes"));
            let name: Vec<u8> = buffer[at + 19..at + length].iter().copied().take_while(|b| *b != 0).collect();
            if name != b"." && name != b".." {
                entries.push(Entry { name, kind: buffer[at + 18], ino });
            }
            at += length;
        }
    }
}

pub fn mkdir(path: impl AsRef<Path>, mode: u32) -> Sys<()> {
    let path = path_of(path.as_ref());
    unit(call("mkdir", || unsafe { libc::mkdir(path.as_ptr(), mode) }.into()))
}

pub fn rmdir(path: impl AsRef<Path>) -> Sys<()> {
    let path = path_of(path.as_ref());
    unit(call("rmdir", || unsafe { libc::rmdir(path.as_ptr()) }.into()))
}

pub fn unlink(path: impl AsRef<Path>) -> Sys<()> {
    let path = path_of(path.as_ref());
    unit(call("unlink", || unsafe { libc::unlink(path.as_ptr()) }.into()))
}

pub fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Sys<()> {
    renameat2(from, to, 0)
}

pub fn renameat2(from: impl AsRef<Path>, to: impl AsRef<Path>, flags: u32) -> Sys<()> {
    let (from, to) = (path_of(from.as_ref()), path_of(to.as_ref()));
    unit(call("rename", || {
        unsafe { libc::renameat2(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), flags) }.into()
    }))
}

pub fn link(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Sys<()> {
    linkat(from, to, 0)
}

pub fn linkat(from: impl AsRef<Path>, to: impl AsRef<Path>, flags: i32) -> Sys<()> {
    let (from, to) = (path_of(from.as_ref()), path_of(to.as_ref()));
    unit(call("link", || {
        unsafe { libc::linkat(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), flags) }.into()
    }))
}

pub fn symlink(target: impl AsRef<Path>, path: impl AsRef<Path>) -> Sys<()> {
    let (target, path) = (path_of(target.as_ref()), path_of(path.as_ref()));
    unit(call("symlink", || unsafe { libc::symlink(target.as_ptr(), path.as_ptr()) }.into()))
}

pub fn readlink(path: impl AsRef<Path>) -> Sys<Vec<u8>> {
    let path = path_of(path.as_ref());
    let mut target = vec![0; 4096];
    let n =
        call("readlink", || unsafe { libc::readlink(path.as_ptr(), target.as_mut_ptr().cast(), target.len()) } as i64)?;
    target.truncate(n as usize);
    Ok(target)
}

pub fn mknod(path: impl AsRef<Path>, mode: u32, device: u64) -> Sys<()> {
    let path = path_of(path.as_ref());
    unit(call("mknod", || unsafe { libc::mknod(path.as_ptr(), mode, device) }.into()))
}

pub fn chmod(path: impl AsRef<Path>, mode: u32) -> Sys<()> {
    let path = path_of(path.as_ref());
    unit(call("chmod", || unsafe { libc::chmod(path.as_ptr(), mode) }.into()))
}

pub fn fchmod(fd: &OwnedFd, mode: u32) -> Sys<()> {
    unit(call("chmod", || unsafe { libc::fchmod(fd.as_raw_fd(), mode) }.into()))
}

/// Follows no symlink.
pub fn lchown(path: impl AsRef<Path>, uid: u32, gid: u32) -> Sys<()> {
    let path = path_of(path.as_ref());
    unit(call("chown", || unsafe { libc::lchown(path.as_ptr(), uid, gid) }.into()))
}

pub fn chown(path: impl AsRef<Path>, uid: u32, gid: u32) -> Sys<()> {
    let path = path_of(path.as_ref());
    unit(call("chown", || unsafe { libc::chown(path.as_ptr(), uid, gid) }.into()))
}

/// Access and modification time as `(seconds, nanoseconds or UTIME_NOW or UTIME_OMIT)`.
pub fn utimens(path: impl AsRef<Path>, times: [(i64, i64); 2], flags: i32) -> Sys<()> {
    let path = path_of(path.as_ref());
    let times = times.map(|(tv_sec, tv_nsec)| libc::timespec { tv_sec, tv_nsec });
    unit(call("utimens", || unsafe { libc::utimensat(libc::AT_FDCWD, path.as_ptr(), times.as_ptr(), flags) }.into()))
}

/// By the effective ids.
pub fn access(path: impl AsRef<Path>, mode: i32) -> Sys<()> {
    let path = path_of(path.as_ref());
    unit(call("access", || unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), mode, libc::AT_EACCESS) }.into()))
}

/// The xattr calls follow no symlink.
pub fn setxattr(path: impl AsRef<Path>, name: &str, value: &[u8], flags: i32) -> Sys<()> {
    let (path, name) = (path_of(path.as_ref()), path_of(name.as_ref()));
    unit(call("setxattr", || {
        unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags) }.into()
    }))
}

pub fn getxattr(path: impl AsRef<Path>, name: &str) -> Sys<Vec<u8>> {
    let (path, name) = (path_of(path.as_ref()), path_of(name.as_ref()));
    let mut value = vec![0; 64 << 10];
    let n = call("getxattr", || unsafe {
        libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len())
    } as i64)?;
    value.truncate(n as usize);
    Ok(value)
}

/// The names, sorted.
pub fn listxattr(path: impl AsRef<Path>) -> Sys<Vec<String>> {
    let path = path_of(path.as_ref());
    let mut names = vec![0_u8; 64 << 10];
    let n = call("listxattr", || unsafe { libc::llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) }
        as i64)?;
    let mut names: Vec<String> = names[..n as usize]
        .split(|b| *b == 0)
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect();
    names.sort();
    Ok(names)
}

pub fn removexattr(path: impl AsRef<Path>, name: &str) -> Sys<()> {
    let (path, name) = (path_of(path.as_ref()), path_of(name.as_ref()));
    unit(call("removexattr", || unsafe { libc::lremovexattr(path.as_ptr(), name.as_ptr()) }.into()))
}

pub fn copy_file_range(from: &OwnedFd, from_at: u64, to: &OwnedFd, to_at: u64, len: usize) -> Sys<usize> {
    let (mut from_at, mut to_at) = (from_at as i64, to_at as i64);
    call("copy_file_range", || unsafe {
        libc::copy_file_range(from.as_raw_fd(), &mut from_at, to.as_raw_fd(), &mut to_at, len, 0)
    } as i64)
    .map(|n| n as usize)
}

/// BSD locks: `LOCK_SH`, `LOCK_EX`, `LOCK_UN`, with `LOCK_NB` or without.
pub fn flock(fd: &OwnedFd, operation: i32) -> Sys<()> {
    unit(call("flock", || unsafe { libc::flock(fd.as_raw_fd(), operation) }.into()))
}

/// POSIX and open-file-description locks on `[at, at + len)`; `len` 0 is to the end. Answers what F_GETLK filled in.
pub fn fcntl_lock(fd: &OwnedFd, command: i32, kind: i32, at: u64, len: u64) -> Sys<libc::flock> {
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as i16;
    lock.l_whence = libc::SEEK_SET as i16;
    lock.l_start = at as i64;
    lock.l_len = len as i64;
    call("fcntl", || unsafe { libc::fcntl(fd.as_raw_fd(), command, &mut lock) }.into())?;
    Ok(lock)
}

/// A shared mapping of a file; unmapped when dropped.
pub struct Mapping {
    start: *mut u8,
    len: usize,
}

impl Mapping {
    pub fn new(fd: &OwnedFd, protection: i32, len: usize) -> Sys<Mapping> {
        let mut start = std::ptr::null_mut();
        call("mmap", || {
            start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
            if start == libc::MAP_FAILED { -1 } else { 0 }
        })?;
        Ok(Mapping { start: start.cast(), len })
    }

    pub fn bytes(&self) -> &[u8] {
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }

    pub fn sync(&self) -> Sys<()> {
        unit(call("msync", || unsafe { libc::msync(self.start.cast(), self.len, libc::MS_SYNC) }.into()))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }
}

/// What name_to_handle_at gives: opaque, the same for one inode as long as it lives.
#[repr(C)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handle {
    bytes: u32,
    kind: i32,
    content: [u8; 128],
}

impl Handle {
    pub fn to_text(&self) -> String {
        let content = self.content.iter().take(self.bytes as usize);
        format!("{}:{}", self.kind, content.map(|b| format!("{b:02x}")).collect::<String>())
    }

    pub fn from_text(text: &str) -> Option<Handle> {
        let (kind, content) = text.trim().split_once(':')?;
        let mut handle = Handle { bytes: (content.len() / 2) as u32, kind: kind.parse().ok()?, content: [0; 128] };
        for (n, byte) in handle.content.iter_mut().take(content.len() / 2).enumerate() {
            *byte = u8::from_str_radix(content.get(n * 2..n * 2 + 2)?, 16).ok()?;
        }
        Some(handle)
    }
}

pub fn name_to_handle(path: impl AsRef<Path>) -> Sys<Handle> {
    let path = path_of(path.as_ref());
    let mut handle = Handle { bytes: 128, kind: 0, content: [0; 128] };
    let mut mount = 0_i32;
    call("name_to_handle_at", || unsafe {
        libc::syscall(libc::SYS_name_to_handle_at, libc::AT_FDCWD, path.as_ptr(), &mut handle, &mut mount, 0)
    })?;
    Ok(handle)
}

pub fn open_by_handle(mount: &OwnedFd, handle: &Handle, flags: i32) -> Sys<OwnedFd> {
    let fd = call("open_by_handle_at", || unsafe {
        libc::syscall(libc::SYS_open_by_handle_at, mount.as_raw_fd(), handle, flags | libc::O_CLOEXEC)
    })?;
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}
