//! A directory that is also found elsewhere: bind mounts.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const HERE: libc::c_uint = libc::AT_FDCWD as libc::c_uint;
const CLONE: libc::c_uint = 1;
const CLOEXEC: libc::c_uint = libc::O_CLOEXEC as libc::c_uint;
const FROM_DESCRIPTOR: libc::c_uint = 0x4;
const READ_ONLY: u64 = 0x1;

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
#[derive(Default)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Has what is at `source` found at `target` too, which is there. One that is read-only is so from its first moment.
///
/// # Errors
/// What the kernel says: one of them is not there, or this process may not mount.
pub fn bind(source: &Path, target: &Path, read_only: bool) -> io::Result<()> {
    let (source, target) = (path(source)?, path(target)?);
    // SAFETY: NUL-terminated strings that live through the calls, a struct of the size that is told, and descriptors that are open.
    unsafe {
        let tree = called(libc::syscall(libc::SYS_open_tree, HERE, source.as_ptr(), CLONE | CLOEXEC))?;
        let tree = OwnedFd::from_raw_fd(RawFd::try_from(tree).map_err(io::Error::other)?);
        if read_only {
            let attributes = MountAttributes { set: READ_ONLY, ..MountAttributes::default() };
            let (empty, size) = (c"".as_ptr(), size_of::<MountAttributes>());
            let flags = libc::AT_EMPTY_PATH;
            called(libc::syscall(
                libc::SYS_mount_setattr,
                tree.as_raw_fd(),
                empty,
                flags,
                &raw const attributes,
                size,
            ))?;
        }
        let empty = c"".as_ptr();
        called(libc::syscall(libc::SYS_move_mount, tree.as_raw_fd(), empty, HERE, target.as_ptr(), FROM_DESCRIPTOR))?;
    }
    Ok(())
}

/// Takes the mount on top at `target` out of the tree, which is mounted elsewhere too: who still uses it here, or waits in it for an answer,
/// keeps what it has.
///
/// # Errors
/// What the kernel says: `EINVAL` where nothing is mounted.
pub fn unbind(target: &Path) -> io::Result<()> {
    let target = path(target)?;
    let flags = libc::UMOUNT_NOFOLLOW | libc::MNT_DETACH;
    // SAFETY: a NUL-terminated string that lives through the call.
    called(unsafe { libc::umount2(target.as_ptr(), flags) }.into()).map(drop)
}

fn path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

fn called(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::host::mountinfo::{mounted_at, mounts_of, users_of};

    /// Needs the right to mount; what lacks it has nothing to bind.
    #[test]
    fn a_directory_is_found_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let (source, target) = (root.join("source"), root.join("target"));
        fs::create_dir(&source).unwrap();
        fs::create_dir(&target).unwrap();
        fs::write(source.join("file"), "x").unwrap();
        match bind(&source, &target, true) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return,
            bound => bound.unwrap(),
        }
        assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "x");
        assert_eq!(fs::write(target.join("file"), "y").unwrap_err().raw_os_error(), Some(libc::EROFS));
        let entry = mounted_at(&target).unwrap().unwrap();
        assert!(entry.read_only);
        assert!(mounts_of(entry.device).unwrap().contains(&entry));
        assert!(users_of(entry.device, &root).unwrap() >= 1, "it is here, at least");
        unbind(&target).unwrap();
        assert!(mounted_at(&target).unwrap().is_none());
        assert_eq!(unbind(&target).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        bind(&source, &target, false).unwrap();
        fs::write(target.join("file"), "y").unwrap();
        unbind(&target).unwrap();
        assert!(bind(&root.join("absent"), &target, false).is_err());
    }
}
