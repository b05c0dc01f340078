//! The block device that a mount sits on, for no other reason than that the kernel then tells it of `sync`.
//!
//! Linux passes `sync(2)` and `syncfs(2)` on to a FUSE server only if its mount has a block device (since 6.18), and
//! only then does `umount(2)` wait for the server. So root's mounts get one: a loop device over a little memory, which
//! nobody ever reads or writes, and which the kernel takes down when the mount is gone, however that came about.
//!
//! Only in the first mount namespace. Anywhere else a mount can end because the last process there was killed, and if
//! that is the server itself, it would wait, while it dies, for its own answer.
//!
//! The order: `BlockDevice::claim`, then `BlockDevice::mount_as`, then drop; the mount holds the device from there.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::ptr;

use super::apart::{check, with_own_directory};
use crate::host::loopdev::{self, How, LOOP_CONTROL};

/// Enough for the kernel to take it for a disk.
const DEVICE_BYTES: u64 = 4096;
/// `MNT_NS_INIT_INO` of linux/nsfs.h. Linux has it since 6.18; before, the first mount namespace has any number.
const FIRST_NAMESPACE: u64 = 0xEFFF_FFF8;
/// `FSCONFIG_CMD_CREATE`, `FSOPEN_CLOEXEC` and `FSMOUNT_CLOEXEC` of linux/mount.h.
const CMD_CREATE: libc::c_uint = 6;
const CLOEXEC: libc::c_uint = 1;

/// Whether mounts made here, by root, may have a block device and hear of `sync` by it.
///
/// # Errors
/// Why not.
pub fn check_host() -> io::Result<()> {
    if fs::metadata("/proc/self/ns/mnt")?.ino() != FIRST_NAMESPACE {
        return Err(io::Error::other("it takes Linux 6.18 and the host's own mount namespace"));
    }
    OpenOptions::new().read(true).write(true).open(LOOP_CONTROL).map(drop)
}

/// A loop device that is ours while this lives, and then while something is mounted from it.
pub(super) struct BlockDevice {
    path: PathBuf,
    _open: File,
}

impl BlockDevice {
    /// # Errors
    /// See [`check_host`]; or no loop device can be had.
    pub fn claim() -> io::Result<BlockDevice> {
        check_host()?;
        let how = How { until_unused: true, ..How::default() };
        let (number, open) = loopdev::attach(memory()?, "holdfast", how)?;
        Ok(BlockDevice { path: loopdev::path_of(number), _open: open })
    }

    /// Calls `mount` where `source`, as a path, leads to the device: what was mounted is shown by the name that was
    /// given for it, and the kernel looks that name up as a path when it mounts. The place where it does so is a
    /// filesystem of its own that is mounted nowhere and ends with this call.
    ///
    /// # Errors
    /// `source` cannot be a path below a directory (a part of it may have 255 bytes); or whatever `mount` says.
    pub fn mount_as<T: Send>(&self, source: &str, mount: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let source = Path::new(source);
        if !source.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let place = nowhere()?;
        with_own_directory(|| {
            // SAFETY: a descriptor that is open.
            check(unsafe { libc::fchdir(place.as_raw_fd()) })?;
            if let Some(above) = source.parent().filter(|above| !above.as_os_str().is_empty()) {
                fs::create_dir_all(above)?;
            }
            symlink(&self.path, source)?;
            mount()
        })
    }
}

/// The root of an empty filesystem in memory that is mounted nowhere.
fn nowhere() -> io::Result<OwnedFd> {
    // SAFETY: a NUL-terminated string that outlives the call.
    let context = descriptor(unsafe { libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), CLOEXEC) })?;
    let no_text = ptr::null::<libc::c_char>();
    // SAFETY: a command without arguments, on a descriptor that is open.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), CMD_CREATE, no_text, no_text, 0) })?;
    // SAFETY: a descriptor that is open, and numbers.
    descriptor(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), CLOEXEC, 0) })
}

/// Memory as a file, without a name in any directory.
fn memory() -> io::Result<File> {
    let name = CString::from(c"holdfast");
    // SAFETY: a NUL-terminated string that outlives the call.
    let file = File::from(descriptor(unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) }.into())?);
    file.set_len(DEVICE_BYTES)?;
    Ok(file)
}

/// A descriptor that a system call just made.
fn descriptor(answer: i64) -> io::Result<OwnedFd> {
    // SAFETY: it is open, and nobody else's.
    check(answer).map(|number| unsafe { OwnedFd::from_raw_fd(number as libc::c_int) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_leads_elsewhere_is_refused() {
        let device = BlockDevice { path: "/dev/null".into(), _open: File::open("/dev/null").unwrap() };
        for source in ["/dev/sda", "../x", "a/../../x"] {
            assert!(device.mount_as(source, || Ok(())).is_err(), "{source}");
        }
    }
}
