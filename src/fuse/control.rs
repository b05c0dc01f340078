//! What other processes ask of a mount: make all durable, say whether it may be written, by ioctls of our own on its
//! root.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use super::adapter::{SYNC_IOCTL, WRITABLE_IOCTL};
use super::mount::unmount_by_helper;

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
