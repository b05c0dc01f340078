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
    let copy = Copied::of(source)?;
    if read_only {
        copy.make_read_only()?;
    }
    copy.put_at(target)
}

/// A copy of a mount, in no tree yet. It is gone when it is dropped and was put nowhere.
#[derive(Debug)]
pub struct Copied {
    tree: OwnedFd,
}

impl Copied {
    /// # Errors
    /// What the kernel says: it is not there, or this process may not mount.
    pub fn of(source: &Path) -> io::Result<Copied> {
        let source = path(source)?;
        // SAFETY: a NUL-terminated string that lives through the call.
        let tree = unsafe { called(libc::syscall(libc::SYS_open_tree, HERE, source.as_ptr(), CLONE | CLOEXEC))? };
        let tree = RawFd::try_from(tree).map_err(io::Error::other)?;
        // SAFETY: a descriptor that the call has made, and that nobody else has.
        Ok(Copied { tree: unsafe { OwnedFd::from_raw_fd(tree) } })
    }

    fn make_read_only(&self) -> io::Result<()> {
        let attributes = MountAttributes { set: READ_ONLY, ..MountAttributes::default() };
        let (tree, empty, flags) = (self.tree.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH);
        let size = size_of::<MountAttributes>();
        // SAFETY: an open descriptor, a NUL-terminated string, and a struct of the size that is told, which live through the call.
        called(unsafe { libc::syscall(libc::SYS_mount_setattr, tree, empty, flags, &raw const attributes, size) })
            .map(drop)
    }

    /// # Errors
    /// What the kernel says: there is no such place, or this process may not mount.
    pub fn put_at(&self, target: &Path) -> io::Result<()> {
        let (target, tree, empty) = (path(target)?, self.tree.as_raw_fd(), c"".as_ptr());
        // SAFETY: an open descriptor, and NUL-terminated strings that live through the call.
        called(unsafe { libc::syscall(libc::SYS_move_mount, tree, empty, HERE, target.as_ptr(), FROM_DESCRIPTOR) })
            .map(drop)
    }
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
