//! System calls that std does not make, with errno as the error.

use std::ffi::CString;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub type Errno = i32;

pub fn is_root() -> bool {
    unsafe { libc::geteuid() == 0 }
}

pub fn c(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

pub fn check(result: impl Into<i64>) -> Result<i64, Errno> {
    match result.into() {
        -1 => Err(io::Error::last_os_error().raw_os_error().unwrap()),
        value => Ok(value),
    }
}

pub fn open(path: &Path, flags: i32, mode: u32) -> Result<OwnedFd, Errno> {
    let fd = check(unsafe { libc::open(c(path).as_ptr(), flags | libc::O_CLOEXEC, mode) })?;
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

pub fn pwrite(fd: &OwnedFd, data: &[u8], offset: i64) -> Result<i64, Errno> {
    check(unsafe { libc::pwrite(fd.as_raw_fd(), data.as_ptr().cast(), data.len(), offset) } as i64)
}

pub fn write(fd: &OwnedFd, data: &[u8]) -> Result<i64, Errno> {
    check(unsafe { libc::write(fd.as_raw_fd(), data.as_ptr().cast(), data.len()) } as i64)
}

pub fn pread(fd: &OwnedFd, len: usize, offset: i64) -> Result<Vec<u8>, Errno> {
    let mut data = vec![0u8; len];
    let read = check(unsafe { libc::pread(fd.as_raw_fd(), data.as_mut_ptr().cast(), len, offset) } as i64)?;
    data.truncate(read as usize);
    Ok(data)
}

pub fn lseek(fd: &OwnedFd, offset: i64, whence: i32) -> Result<i64, Errno> {
    check(unsafe { libc::lseek(fd.as_raw_fd(), offset, whence) })
}

pub fn stat(path: &Path) -> libc::stat {
    let mut stat = unsafe { mem::zeroed() };
    check(unsafe { libc::lstat(c(path).as_ptr(), &mut stat) }).unwrap();
    stat
}

pub fn fstat(fd: &OwnedFd) -> Result<libc::stat, Errno> {
    let mut stat = unsafe { mem::zeroed() };
    check(unsafe { libc::fstat(fd.as_raw_fd(), &mut stat) })?;
    Ok(stat)
}

pub fn statvfs(path: &Path) -> libc::statvfs {
    let mut stat = unsafe { mem::zeroed() };
    check(unsafe { libc::statvfs(c(path).as_ptr(), &mut stat) }).unwrap();
    stat
}

pub fn set_times(path: &Path, atime: (i64, i64), mtime: (i64, i64)) -> Result<i64, Errno> {
    let spec = |(tv_sec, tv_nsec)| libc::timespec { tv_sec, tv_nsec };
    let times = [spec(atime), spec(mtime)];
    check(unsafe { libc::utimensat(libc::AT_FDCWD, c(path).as_ptr(), times.as_ptr(), libc::AT_SYMLINK_NOFOLLOW) })
}

pub fn set_xattr(path: &Path, name: &str, value: &[u8], flags: i32) -> Result<i64, Errno> {
    let name = CString::new(name).unwrap();
    check(unsafe { libc::lsetxattr(c(path).as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags) })
}

/// `room` is the size of the buffer offered; 0 asks for the length and returns that many zeros.
pub fn xattr(path: &Path, name: &str, room: usize) -> Result<Vec<u8>, Errno> {
    let name = CString::new(name).unwrap();
    let mut value = vec![0u8; room];
    let len =
        check(unsafe { libc::lgetxattr(c(path).as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), room) } as i64)?;
    value.resize(len as usize, 0);
    Ok(value)
}

pub fn xattrs(path: &Path, room: usize) -> Result<Vec<String>, Errno> {
    let mut names = vec![0u8; room];
    let len = check(unsafe { libc::llistxattr(c(path).as_ptr(), names.as_mut_ptr().cast(), room) } as i64)?;
    names.truncate(len as usize);
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(|name| String::from_utf8(name.to_vec()).unwrap()).collect())
}

pub fn remove_xattr(path: &Path, name: &str) -> Result<i64, Errno> {
    let name = CString::new(name).unwrap();
    check(unsafe { libc::lremovexattr(c(path).as_ptr(), name.as_ptr()) })
}

pub fn rename2(from: &Path, to: &Path, flags: u32) -> Result<i64, Errno> {
    let (from, to) = (c(from), c(to));
    check(unsafe { libc::renameat2(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), flags) })
}

pub fn mknod(path: &Path, mode: u32, rdev: u64) -> Result<i64, Errno> {
    check(unsafe { libc::mknod(c(path).as_ptr(), mode, rdev) })
}

pub fn fallocate(fd: &OwnedFd, mode: i32, offset: i64, len: i64) -> Result<i64, Errno> {
    check(unsafe { libc::fallocate(fd.as_raw_fd(), mode, offset, len) })
}

pub fn syncfs(path: &Path) -> Result<i64, Errno> {
    let fd = open(path, libc::O_RDONLY, 0)?;
    check(unsafe { libc::syncfs(fd.as_raw_fd()) })
}

/// By the system call alone, without the helpers of umount(8).
pub fn umount(path: &Path) -> Result<i64, Errno> {
    check(unsafe { libc::umount2(c(path).as_ptr(), 0) })
}

pub fn flock(fd: &OwnedFd, how: i32) -> Result<i64, Errno> {
    check(unsafe { libc::flock(fd.as_raw_fd(), how) })
}

/// `command`: `F_SETLK`, `F_SETLKW`, `F_OFD_SETLK`…; `len` 0 is to the end.
pub fn lock(fd: &OwnedFd, command: i32, kind: i32, start: i64, len: i64) -> Result<i64, Errno> {
    let mut lock = range(kind, start, len);
    check(unsafe { libc::fcntl(fd.as_raw_fd(), command, &mut lock) })
}

pub fn test_lock(fd: &OwnedFd, kind: i32, start: i64, len: i64) -> Result<libc::flock, Errno> {
    let mut lock = range(kind, start, len);
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETLK, &mut lock) })?;
    Ok(lock)
}

fn range(kind: i32, start: i64, len: i64) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: start, l_len: len, l_pid: 0 }
}

pub fn drop_caches() {
    std::fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
}

/// Turns this process into another user's, without capabilities and further groups.
pub fn become_user(uid: u32, gid: u32) -> bool {
    unsafe {
        libc::syscall(libc::SYS_setgroups, 0, 0) == 0
            && libc::syscall(libc::SYS_setresgid, gid, gid, gid) == 0
            && libc::syscall(libc::SYS_setresuid, uid, uid, uid) == 0
    }
}

/// Gives this process mounts of its own, with a `/dev/fuse` everyone may open, as most systems have it.
pub fn open_device_to_all(scratch: &Path) -> bool {
    let (device, node) = (c(Path::new("/dev/fuse")), c(&scratch.join("fuse")));
    unsafe {
        let none = std::ptr::null();
        let private = libc::MS_REC | libc::MS_PRIVATE;
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(none, c"/".as_ptr(), none, private, none.cast()) == 0
            && libc::mknod(node.as_ptr(), libc::S_IFCHR | 0o600, libc::makedev(10, 229)) == 0
            && libc::chmod(node.as_ptr(), 0o666) == 0
            && libc::mount(node.as_ptr(), device.as_ptr(), none, libc::MS_BIND, none.cast()) == 0
    }
}

/// A process of its own, for what belongs to processes: locks, signals, credentials.
pub struct Child {
    pid: i32,
}

impl Child {
    /// Runs `work` in a forked process, which exits with what it returns. `work` must not panic or print.
    pub fn run(work: impl FnOnce() -> i32) -> Child {
        match check(unsafe { libc::fork() }).unwrap() {
            0 => {
                let code = work();
                unsafe { libc::_exit(code) }
            }
            pid => Child { pid: pid as i32 },
        }
    }

    /// As another user and group.
    pub fn run_as(uid: u32, gid: u32, work: impl FnOnce() -> i32) -> Child {
        Child::run(move || if become_user(uid, gid) { work() } else { 99 })
    }

    pub fn signal(&self, signal: i32) {
        check(unsafe { libc::kill(self.pid, signal) }).unwrap();
    }

    /// The exit code, or the negated number of the signal that ended it.
    pub fn wait(self) -> i32 {
        let mut status = 0;
        check(unsafe { libc::waitpid(self.pid, &mut status, 0) }).unwrap();
        if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -libc::WTERMSIG(status) }
    }

    /// Waits until nothing is left of the process, which may be long after it was killed.
    pub fn vanishes(self) {
        until(|| check(unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), libc::WNOHANG) }).unwrap() != 0);
    }

    /// Waits until the process sleeps in system call `number`.
    pub fn blocked_in(&self, number: i64) {
        until(|| {
            let text = std::fs::read_to_string(format!("/proc/{}/syscall", self.pid)).unwrap();
            text.split_whitespace().next() == Some(&number.to_string())
        });
    }
}

/// Runs an ignored test of this program in a process of its own, with these paths in its environment. For work that starts
/// threads: in a forked copy of a process with threads the locks they held are held for ever.
///
/// `prepare` is called in the new process before it becomes this program, while it has one thread.
pub fn run_alone(test: &str, paths: &[(&str, &Path)], prepare: impl Fn() -> bool + Send + Sync + 'static) {
    let program = std::env::current_exe().unwrap();
    let mut command = std::process::Command::new(program);
    command.args(["--exact", test, "--ignored", "--nocapture"]).envs(paths.iter().copied());
    // SAFETY: what is prepared are system calls on a few short strings.
    unsafe { command.pre_exec(move || if prepare() { Ok(()) } else { Err(io::Error::last_os_error()) }) };
    let output = command.output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// A path that [`run_alone`] was given.
pub fn given(name: &str) -> PathBuf {
    std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set: this is run by another test")).into()
}

/// Waits for what happens by itself, behind the back of a system call or in another process.
pub fn until(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(30), "it does not come to pass");
        std::thread::yield_now();
    }
}

/// The errno of a result as an exit code; 0 for success.
pub fn code<T>(result: Result<T, Errno>) -> i32 {
    result.err().unwrap_or(0)
}
