//! How much room a filesystem has, and which one it is.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::types::digest::fingerprint;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Bytes that an unprivileged process may still write to the filesystem that holds `path`.
///
/// # Errors
/// What statvfs says, `InvalidInput` for a path with a NUL.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut found = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` is a NUL-terminated string and `found` room for the answer.
    if unsafe { libc::statvfs(path.as_ptr(), found.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: statvfs succeeded and filled it in.
    let found = unsafe { found.assume_init() };
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// The same for a directory that may have to be made.
///
/// # Errors
/// As [`free_bytes`].
pub fn free_bytes_for_new(path: &Path) -> io::Result<u64> {
    let there = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    free_bytes(there)
}

/// A number for the filesystem that holds `path`: the same for everything on it, another on every other host, and after
/// a restart of the host. Subvolumes of btrfs and datasets of ZFS have numbers of their own, although they share space.
///
/// # Errors
/// What the kernel says.
pub fn filesystem_id(path: &Path) -> io::Result<u64> {
    // Of the kernel, so the same in every container.
    let mut name = std::fs::read(BOOT_ID)?;
    name.extend_from_slice(&std::fs::metadata(path)?.dev().to_be_bytes());
    let hash = fingerprint(&name);
    Ok(hash.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_room_and_nothing_has_none() {
        assert!(free_bytes(Path::new("/")).expect("statvfs of /") > 0);
        assert!(free_bytes(Path::new("/no/such/place")).is_err());
    }

    #[test]
    fn filesystems_are_told_apart() {
        let dir = tempfile::tempdir().expect("a directory");
        let inner = dir.path().join("inner");
        std::fs::create_dir(&inner).expect("a directory");
        let id = |path: &Path| filesystem_id(path).expect("a number");
        assert_eq!(id(dir.path()), id(&inner));
        assert_ne!(id(dir.path()), id(Path::new("/proc")));
        assert_ne!(id(dir.path()), 0);
    }
}
