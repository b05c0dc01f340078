//! Getting `/dev/fuse` into the directory tree and out again: by mount(2) as root, by fusermount3 as anyone else.
//!
//! Not left to fuser, which passes no subtype, says what went wrong in prose, and unmounts by path when its session
//! ends, although something else may be mounted there by then.

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::apart::{check, without_descriptors};
use super::blockdev::BlockDevice;
use super::convert::BLOCK_BYTES;
use super::options::{AccessTimes, MountOptions, OptionError, SyncCalls};
use crate::host::mountinfo::{MountEntry, ON_BLOCK_DEVICE, PLAIN, SUBTYPE, is_dead, mounted_at, resolve_untouched};

const DEVICE: &str = "/dev/fuse";
const FUSERMOUNT: &str = "fusermount3";

/// Why a mount was not made, or not undone.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error(transparent)]
    Option(#[from] OptionError),
    #[error("/dev/fuse is missing: load the module (`modprobe fuse`) or give the container the device")]
    DeviceMissing,
    #[error("cannot open /dev/fuse: {0}")]
    Device(io::Error),
    #[error("the mountpoint {0} does not exist")]
    MountpointMissing(PathBuf),
    #[error("the mountpoint {0} is not a directory")]
    NotDirectory(PathBuf),
    #[error("the mountpoint {0} cannot be used: {1}")]
    Mountpoint(PathBuf, io::Error),
    #[error("{0} is already mounted on {1}")]
    AlreadyMounted(String, PathBuf),
    #[error("the mountpoint {0} is busy: a {1} is mounted there")]
    Busy(PathBuf, String),
    #[error("a dead mount on {0} cannot be removed: {1}")]
    Stale(PathBuf, io::Error),
    #[error("fusermount3 is missing: install fuse3, or mount as root")]
    FusermountMissing,
    #[error("cannot mount on {0}: {1}")]
    Refused(PathBuf, String),
    #[error("sync cannot reach a mount here, as the option `syncfs` demands: {0}")]
    SyncUnheard(io::Error),
    #[error("the kernel ended the FUSE handshake: {0}")]
    Handshake(io::Error),
    #[error("the mount ended badly: {0}")]
    Ended(String),
    #[error("{0} is in use and was not unmounted")]
    InUse(PathBuf),
    #[error("cannot unmount {0}: {1}")]
    Unmount(PathBuf, io::Error),
}

pub(super) fn is_root() -> bool {
    // SAFETY: takes nothing, cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// A path whose mounts cannot be listed has none that we know of.
fn listed_at(path: &Path) -> Option<MountEntry> {
    mounted_at(path).ok().flatten()
}

/// Where to mount, absolute and without links, with a dead mount of ours out of the way and nothing else there.
fn clear_mountpoint(path: &Path) -> Result<PathBuf, MountError> {
    if is_dead(path) {
        remove_dead_mount(path)?;
    }
    let metadata = fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => MountError::MountpointMissing(path.into()),
        io::ErrorKind::NotADirectory => MountError::NotDirectory(path.into()),
        _ => MountError::Mountpoint(path.into(), error),
    })?;
    if !metadata.is_dir() {
        return Err(MountError::NotDirectory(path.into()));
    }
    let path = path.canonicalize().map_err(|error| MountError::Mountpoint(path.into(), error))?;
    match listed_at(&path) {
        Some(listed) if listed.is_ours() => Err(MountError::AlreadyMounted(listed.source, path)),
        Some(listed) => Err(MountError::Busy(path, listed.fs_type)),
        None => Ok(path),
    }
}

/// A mount whose process is gone answers nothing but "transport endpoint is not connected".
fn remove_dead_mount(path: &Path) -> Result<(), MountError> {
    let path = resolve_untouched(path).map_err(|error| MountError::Stale(path.into(), error))?;
    match listed_at(&path) {
        Some(listed) if !listed.is_ours() => return Err(MountError::Busy(path, listed.fs_type)),
        _ => {}
    }
    tracing::warn!(path = %path.display(), "removing the mount a dead process left");
    unmount_path(&path, true).map_err(|error| MountError::Stale(path, error))
}

/// A mount that was made; dropping it leaves it mounted.
#[derive(Clone, Debug)]
pub(super) struct Mounted {
    pub path: PathBuf,
    listed: Option<MountEntry>,
}

impl Mounted {
    /// Mounts, and returns the descriptor the kernel speaks FUSE on.
    ///
    /// # Errors
    /// See [`MountError`].
    pub fn make(path: &Path, options: &MountOptions) -> Result<(Mounted, OwnedFd), MountError> {
        options.check()?;
        // First: without it there is nothing to say about the mountpoint.
        if !Path::new(DEVICE).exists() {
            return Err(MountError::DeviceMissing);
        }
        if options.sync_calls == SyncCalls::Heard && !is_root() {
            return Err(MountError::SyncUnheard(io::Error::from_raw_os_error(libc::EPERM)));
        }
        let path = clear_mountpoint(path)?;
        let device = if is_root() { mount_directly(&path, options)? } else { mount_by_helper(&path, options)? };
        let listed = listed_at(&path);
        Ok((Mounted { path, listed }, device))
    }

    /// What another process has mounted here. What else is there by now is not ours to unmount.
    pub fn adopt(path: &Path) -> Mounted {
        let path = resolve_untouched(path).unwrap_or_else(|_| path.to_owned());
        let listed = listed_at(&path).filter(MountEntry::is_ours);
        Mounted { path, listed }
    }

    /// Whether this very mount is (still) on top at its path.
    fn is_on_top(&self) -> bool {
        self.listed.is_some() && listed_at(&self.path) == self.listed
    }

    /// `lazily`: out of the tree now, gone when the last user is.
    ///
    /// # Errors
    /// `InUse`, or `Unmount`. None when it was unmounted before.
    pub fn unmount(&self, lazily: bool) -> Result<(), MountError> {
        if !self.is_on_top() {
            return Ok(());
        }
        unmount_path(&self.path, lazily).map_err(|error| match error.raw_os_error() {
            Some(libc::EBUSY) => MountError::InUse(self.path.clone()),
            _ => MountError::Unmount(self.path.clone(), error),
        })
    }
}

fn open_device() -> io::Result<OwnedFd> {
    OpenOptions::new().read(true).write(true).open(DEVICE).map(OwnedFd::from)
}

/// Whether more descriptors can be had for a mount that is there. Ordinary users cannot on systems where only the
/// helper may open the device.
pub(super) fn may_open_device() -> bool {
    open_device().is_ok()
}

/// As root. On a block device if there can be one, for the kernel to pass on `sync` and to wait at `umount`.
fn mount_directly(path: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let refused = |error: io::Error| MountError::Refused(path.into(), error.to_string());
    let device = open_device().map_err(MountError::Device)?;
    let on_block_device = match options.sync_calls {
        SyncCalls::Unheard => return call_mount(&device, PLAIN, path, options).map_err(refused).map(|()| device),
        SyncCalls::Heard | SyncCalls::HeardIfPossible => BlockDevice::claim()
            .and_then(|below| below.mount_as(&options.fsname, || call_mount(&device, ON_BLOCK_DEVICE, path, options))),
    };
    match on_block_device {
        Ok(()) => Ok(device),
        Err(error) if options.sync_calls == SyncCalls::Heard => Err(MountError::SyncUnheard(error)),
        Err(error) => {
            tracing::warn!(%error, "sync(2) does not reach this mount: use `holdfast sync`");
            call_mount(&device, PLAIN, path, options).map_err(refused).map(|()| device)
        }
    }
}

fn call_mount(device: &OwnedFd, kind: &str, path: &Path, options: &MountOptions) -> io::Result<()> {
    // SAFETY: both take nothing and cannot fail.
    let (uid, gid) = unsafe { (libc::getuid(), libc::getgid()) };
    let fd = device.as_raw_fd();
    let mut data = format!("fd={fd},rootmode=40000,user_id={uid},group_id={gid},default_permissions");
    if options.allow_other {
        data.push_str(",allow_other");
    }
    if kind == ON_BLOCK_DEVICE {
        data.push_str(&format!(",blksize={BLOCK_BYTES}"));
    }
    let (source, target) = (CString::new(options.fsname.as_bytes())?, CString::new(path.as_os_str().as_bytes())?);
    let (kind, data) = (CString::new(kind)?, CString::new(data)?);
    // SAFETY: five pointers to NUL-terminated strings that outlive the call.
    let result =
        unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags(options), data.as_ptr().cast()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn flags(options: &MountOptions) -> libc::c_ulong {
    let choices = [
        (options.read_only, libc::MS_RDONLY),
        (!options.suid, libc::MS_NOSUID),
        (!options.dev, libc::MS_NODEV),
        (!options.exec, libc::MS_NOEXEC),
        (options.access_times == AccessTimes::Never, libc::MS_NOATIME),
        (options.access_times == AccessTimes::Always, libc::MS_STRICTATIME),
        (options.sync, libc::MS_SYNCHRONOUS),
        (options.dirsync, libc::MS_DIRSYNC),
    ];
    choices.iter().filter(|(on, _)| *on).fold(0, |flags, (_, flag)| flags | flag)
}

fn helper_options(options: &MountOptions) -> String {
    // A source that names several servers has commas in it.
    let fsname = options.fsname.replace('\\', "\\\\").replace(',', "\\,");
    let mut list = format!("fsname={fsname},subtype={SUBTYPE},default_permissions,nosuid,nodev");
    let choices = [
        (options.read_only, ",ro"),
        (!options.exec, ",noexec"),
        (options.access_times == AccessTimes::Never, ",noatime"),
        (options.sync, ",sync"),
        (options.dirsync, ",dirsync"),
        (options.allow_other, ",allow_other"),
    ];
    choices.iter().filter(|(on, _)| *on).for_each(|(_, option)| list.push_str(option));
    list
}

/// fusermount3 mounts and sends the descriptor through a socket whose number it finds in its environment.
fn mount_by_helper(path: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let refused = |reason: String| MountError::Refused(path.into(), reason);
    let (ours, theirs) = UnixStream::pair().map_err(|error| refused(error.to_string()))?;
    let number = theirs.as_raw_fd();
    let mut command = Command::new(FUSERMOUNT);
    command.arg("-o").arg(helper_options(options)).arg("--").arg(path);
    command.env("_FUSE_COMMFD", number.to_string()).stdin(Stdio::null()).stderr(Stdio::piped());
    // SAFETY: between fork and exec this makes one system call, which is allowed there.
    unsafe {
        command.pre_exec(move || match libc::fcntl(number, libc::F_SETFD, 0) {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
    let child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => MountError::FusermountMissing,
        _ => refused(error.to_string()),
    })?;
    drop(theirs);
    let received = receive_descriptor(&ours);
    let output = child.wait_with_output().map_err(|error| refused(error.to_string()))?;
    match received {
        Ok(device) if output.status.success() => Ok(device),
        _ => Err(refused(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// One descriptor sent with one byte.
fn receive_descriptor(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut byte = [0u8; 1];
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let mut control = [0u64; 8];
    // SAFETY: a message header of zeros is a valid empty one.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: the header points to buffers that live to the end of this function, with their lengths.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC) };
    if received <= 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
    }
    // SAFETY: `message` was filled by recvmsg; the control buffer is aligned for its headers, and the payload of an
    // SCM_RIGHTS header that is long enough begins with a descriptor that is ours now.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&message);
        if header.is_null()
            || (*header).cmsg_level != libc::SOL_SOCKET
            || (*header).cmsg_type != libc::SCM_RIGHTS
            || (*header).cmsg_len < libc::CMSG_LEN(size_of::<RawFd>() as u32) as usize
        {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        Ok(OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned()))
    }
}

/// The kernel may wait in it for an answer of this very process, and cannot be stopped doing so: if the process is killed
/// meanwhile, its end of `/dev/fuse` must close all the same, which ends the wait.
fn unmount_path(path: &Path, lazily: bool) -> io::Result<()> {
    let target = CString::new(path.as_os_str().as_bytes())?;
    let flags = if lazily { libc::MNT_DETACH } else { 0 };
    // SAFETY: a NUL-terminated string that outlives the call.
    let unmounted =
        without_descriptors(|| check(unsafe { libc::umount2(target.as_ptr(), flags | libc::UMOUNT_NOFOLLOW) }));
    match unmounted {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) && !is_root() => unmount_by_helper(path, lazily),
        other => other.map(drop),
    }
}

pub(super) fn unmount_by_helper(path: &Path, lazily: bool) -> io::Result<()> {
    let mut command = Command::new(FUSERMOUNT);
    command.arg(if lazily { "-uqz" } else { "-uq" }).arg("--").arg(path).stderr(Stdio::null());
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(io::Error::from_raw_os_error(libc::EBUSY)),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_smuggle_options() {
        let options = MountOptions { fsname: "a:1,suid\\,b".into(), allow_other: false, ..MountOptions::new("v") };
        assert!(
            helper_options(&options).starts_with(r"fsname=a:1\,suid\\\,b,subtype="),
            "{}",
            helper_options(&options)
        );
    }

    #[test]
    fn bad_mountpoints_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        assert!(matches!(clear_mountpoint(&missing), Err(MountError::MountpointMissing(_))));
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(clear_mountpoint(&file), Err(MountError::NotDirectory(_))));
        assert!(matches!(clear_mountpoint(Path::new("/proc")), Err(MountError::Busy(..))));
        assert!(clear_mountpoint(dir.path()).is_ok());
    }
}
