//! What other processes ask of a mount: make all durable, say whether it may be written, let go. By ioctls of our own on
//! its root, and by the kernel's control files.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use super::adapter::{SYNC_IOCTL, WRITABLE_IOCTL};
use super::mount::unmount_by_helper;
use super::mountinfo::MountEntry;

/// Where the kernel shows its FUSE connections, once `fusectl` is mounted there.
const CONNECTIONS: &str = "/sys/fs/fuse/connections";

/// Makes everything that was done through the mount at `path` durable, as `syncfs` does where the kernel tells the mount
/// of it.
///
/// # Errors
/// `path` cannot be opened or is not on a mount of ours (ENOTTY); or the sync failed.
pub fn sync_mount(path: &Path) -> io::Result<()> {
    command(path, SYNC_IOCTL)
}

/// Asks the mount at `path` whether anything can be changed through it, if the kernel lets it through.
///
/// # Errors
/// EROFS: it was mounted read-only. Others as for [`sync_mount`].
pub fn check_writable(path: &Path) -> io::Result<()> {
    command(path, WRITABLE_IOCTL)
}

/// Ends all that waits for the mount's process, now and later, with an error, and asks that process nothing. What
/// was not synced may be lost to its writers; the process still tries to sync it.
///
/// For forced unmounts: of a mount on a block device the kernel does not do it by itself.
///
/// # Errors
/// The mount is of another user; or `fusectl` is not mounted and this is not root.
pub fn abort(mount: &MountEntry) -> io::Result<()> {
    let file = abort_file(mount.device);
    match fs::write(&file, "1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            mount_fusectl()?;
            fs::write(&file, "1")
        }
        other => other,
    }
}

/// A connection has the number of its filesystem's device, as the kernel has it in memory.
fn abort_file((major, minor): (u32, u32)) -> PathBuf {
    Path::new(CONNECTIONS).join((major << 20 | minor).to_string()).join("abort")
}

fn mount_fusectl() -> io::Result<()> {
    let (kind, target) = (CString::from(c"fusectl"), CString::new(CONNECTIONS)?);
    // SAFETY: three pointers to NUL-terminated strings that outlive the call, and no data.
    let result = unsafe { libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Unmounts as an ordinary user may: by fusermount3.
///
/// # Errors
/// It is busy, or not this user's.
pub fn unmount_as_user(path: &Path, lazily: bool) -> io::Result<()> {
    unmount_by_helper(path, lazily)
}

fn command(path: &Path, command: u32) -> io::Result<()> {
    let directory = File::open(path)?;
    // SAFETY: the descriptor is open, and the commands take no argument.
    match unsafe { libc::ioctl(directory.as_raw_fd(), libc::Ioctl::from(command)) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_has_the_number_of_its_device() {
        assert_eq!(abort_file((0, 53)), Path::new("/sys/fs/fuse/connections/53/abort"));
        assert_eq!(abort_file((7, 1)), Path::new("/sys/fs/fuse/connections/7340033/abort"));
    }
}
