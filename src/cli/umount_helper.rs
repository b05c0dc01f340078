//! The helper that umount(8) runs for a mount of ours: `umount.fuse.holdfast DIR [-efnlrv]`.
//!
//! Everything is synced first, for two reasons: the kernel waits for mounts on a block device only, and it has no way to
//! say that the sync failed. So `umount` returns when all is durable, or says why it is not and leaves the mount; and when its
//! process has given back what it had of the cluster, so that whoever is next finds the volume free.
//!
//! A namespace that has a mount for itself keeps it when it is unmounted elsewhere, and its process with it. Where nobody is to have the
//! volume any more (`-e`, entirely: what makes mounts for containers asks for that, when the last one has gone) the kernel ends
//! the connection instead.

use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::failure::{Context, Failure, Outcome};
use crate::cli::mountpoint::check_ours;
use crate::fuse::control::{sync_mount, unmount_as_user};
use crate::host::bind::Copied;
use crate::host::mountinfo::{is_dead, is_mounted_elsewhere, mounted_at, mounts_of, resolve_untouched};
use crate::host::presence;

/// What the process of a mount may still have to do.
const FAREWELL: Duration = Duration::from_secs(10);

/// Serves one call by umount(8); `arguments` without the program's name.
///
/// # Errors
/// The call is malformed (2); nothing of ours is mounted there, it is busy, or it could not be synced (1).
pub fn run(arguments: Vec<OsString>) -> Outcome {
    let Call { path, flags, entirely } = parse(arguments)?;
    if flags & libc::MNT_FORCE != 0 {
        return unmount_by_force(&path, flags);
    }
    if is_dead(&path) {
        return unmount(&path, flags);
    }
    let path = std::fs::canonicalize(&path).or_fail(|| format!("{} cannot be used", path.display()))?;
    check_ours(&path)?;
    save(&path)?;
    let device = mounted_at(&path).ok().flatten().map(|entry| entry.device);
    let times = |device| mounts_of(device).map_or(usize::MAX, |mounts| mounts.len());
    let is_elsewhere = |device: &(u32, u32)| is_mounted_elsewhere(*device).unwrap_or(false);
    let may_stay = device.filter(|device| entirely && times(*device) == 1 && is_elsewhere(device));
    let copy = may_stay.map(|_| Copied::of(&path)).transpose();
    let copy = copy.or_fail(|| format!("{} cannot be unmounted", path.display()))?;
    unmount(&path, flags)?;
    // What goes along with this tree is gone there as well.
    if let Some(copy) = copy.filter(|_| may_stay.as_ref().is_some_and(is_elsewhere)) {
        end_copies(&copy, &path)?;
    }
    // One that is detached lives on with its users, and one that is found elsewhere too lives on there.
    if let Some(device) = device.filter(|device| flags & libc::MNT_DETACH == 0 && times(*device) == 0)
        && !presence::are_gone_within(device, FAREWELL)
    {
        let path = path.display();
        eprintln!(
            "holdfast: {path} is unmounted, and its process goes on: some namespace has the mount for itself, or the cluster is away"
        );
    }
    Ok(())
}

/// As [`sync`], of a mount that is to end.
fn save(path: &Path) -> Outcome {
    match sync_mount(path) {
        // Nothing is left that waiting could save.
        Err(error) if error.raw_os_error() == Some(libc::ESTALE) => {
            eprintln!("{}: this mount has lost its volume; what was not stored by then is lost", path.display());
            Ok(())
        }
        synced => report(synced, path),
    }
}

/// Ends what is unmounted here for whoever has it for himself. In this order: the kernel has seen that nobody uses it in a tree that goes
/// with this one; it is put back for a moment, synced once more, and its connection is ended.
fn end_copies(copy: &Copied, path: &Path) -> Outcome {
    let held =
        || format!("{} is unmounted here, and held by who has a copy of it: that cannot be ended", path.display());
    copy.put_at(path).or_fail(held)?;
    save(path)?;
    unmount(path, libc::UMOUNT_NOFOLLOW | libc::MNT_FORCE | libc::MNT_DETACH)
}

/// Waits neither for a cluster that may be away nor for the mount's process, and so looks at nothing through the mount. The
/// kernel ends the connection, and with it all that waits.
fn unmount_by_force(path: &Path, flags: libc::c_int) -> Outcome {
    let path = resolve_untouched(path).or_fail(|| format!("{} cannot be used", path.display()))?;
    check_ours(&path)?;
    unmount(&path, flags)
}

/// Makes everything done through the mount at `path` durable.
///
/// # Errors
/// It is no mount of ours, or it could not be synced.
pub fn sync(path: &Path) -> Outcome {
    report(sync_mount(path), path)
}

fn report(synced: io::Result<()>, path: &Path) -> Outcome {
    match synced {
        Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => {
            Err(Failure::new(format!("{} is not on a Holdfast mount", path.display())))
        }
        other => other.or_fail(|| format!("{} could not be synced", path.display())),
    }
}

struct Call {
    path: PathBuf,
    flags: libc::c_int,
    entirely: bool,
}

fn parse(arguments: Vec<OsString>) -> Outcome<Call> {
    let (mut path, mut entirely) = (None, false);
    let mut flags = libc::UMOUNT_NOFOLLOW;
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        match argument.to_string_lossy().strip_prefix('-') {
            // A type or a namespace: known already, or umount(8)'s own business.
            Some("t" | "N") => drop(arguments.next()),
            Some(letters) => {
                flags |= if letters.contains('l') { libc::MNT_DETACH } else { 0 };
                flags |= if letters.contains('f') { libc::MNT_FORCE } else { 0 };
                entirely |= letters.contains('e');
            }
            None => path = Some(PathBuf::from(&argument)),
        }
    }
    let path = path.ok_or_else(|| Failure::usage("use it as: umount.holdfast DIR [-fl]"))?;
    Ok(Call { path, flags, entirely })
}

fn unmount(path: &Path, flags: libc::c_int) -> Outcome {
    let target = CString::new(path.as_os_str().as_bytes()).or_fail(|| "the mount point has a NUL".to_string())?;
    // SAFETY: `target` is a NUL-terminated string that lives through the call.
    if unsafe { libc::umount2(target.as_ptr(), flags) } == 0 {
        return Ok(());
    }
    let mut error = io::Error::last_os_error();
    // umount(8) gives up its rights before it runs this for an ordinary user.
    if error.raw_os_error() == Some(libc::EPERM) {
        match unmount_as_user(path, flags & libc::MNT_DETACH != 0) {
            Ok(()) => return Ok(()),
            Err(other) => error = other,
        }
    }
    Err(Failure::new(format!("{} cannot be unmounted: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn umount_8_may_pass_flags_anywhere() {
        let parsed = |line: &str| {
            let Call { path, flags, entirely } = parse(line.split(' ').map(OsString::from).collect())?;
            Ok::<_, Failure>((path, flags & !libc::UMOUNT_NOFOLLOW, entirely))
        };
        assert_eq!(parsed("/mnt -l").unwrap(), ("/mnt".into(), libc::MNT_DETACH, false));
        assert_eq!(parsed("-n -t fuse.holdfast /mnt").unwrap(), ("/mnt".into(), 0, false));
        assert_eq!(parsed("/mnt -e").unwrap(), ("/mnt".into(), 0, true));
        assert_eq!(parsed("-l").unwrap_err().code(), 2);
    }
}
