//! The directory a volume is mounted on: what is there now. Looks and changes nothing; the door itself looks again when
//! it mounts, and takes away what a dead process left.

use std::path::{Path, PathBuf};

use crate::cli::failure::{Context, Failure, Outcome};
use crate::host::mountinfo::{MountEntry, is_dead, mounted_at};

/// That a mount of ours is on top at exactly this path, which is absolute and without links.
///
/// # Errors
/// Something else is there, or nothing; or `/proc` is not mounted.
pub fn check_ours(path: &Path) -> Outcome {
    match mounted(path)? {
        Some(entry) if entry.is_ours() => Ok(()),
        _ => Err(Failure::new(format!("no Holdfast volume is mounted on {}", path.display()))),
    }
}

fn mounted(path: &Path) -> Outcome<Option<MountEntry>> {
    mounted_at(path).or_fail(|| "/proc/self/mountinfo".to_string())
}

/// That a volume can be mounted here, before anything is changed. A dead mount of ours is no obstacle.
///
/// # Errors
/// The path is not a directory, is a mount point already, or this machine has no FUSE.
pub fn check_free(path: &Path) -> Outcome {
    check_fuse()?;
    if is_dead(path) {
        return Ok(());
    }
    let resolved = std::fs::canonicalize(path);
    let path = resolved.or_fail(|| format!("the mount point {} cannot be used", path.display()))?;
    if let Some(entry) = mounted(&path)? {
        let (path, kind, source) = (path.display(), entry.fs_type, entry.source);
        return Err(Failure::new(format!("{path} is busy: {source} (type {kind}) is mounted there")));
    }
    match std::fs::metadata(&path) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(Failure::new(format!("the mount point {} is not a directory", path.display()))),
        Err(error) => Err(Failure::new(format!("the mount point {} cannot be used: {error}", path.display()))),
    }
}

/// That this machine can mount FUSE filesystems, by root or by `fusermount3`.
///
/// # Errors
/// `/dev/fuse` is missing or closed to this user, or an ordinary user lacks `fusermount3`.
pub fn check_fuse() -> Outcome {
    match std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Failure::new(
                "/dev/fuse is missing: load the kernel module (modprobe fuse), or give the container the device \
                 (--device /dev/fuse --cap-add SYS_ADMIN)",
            ));
        }
        // The helper of ordinary users opens it with their rights, not its own.
        Err(error) => {
            return Err(Failure::new(format!(
                "/dev/fuse cannot be opened by this user ({error}): its mode should be 666"
            )));
        }
    }
    if is_root() || fusermount().is_some() {
        return Ok(());
    }
    Err(Failure::new("an ordinary user needs fusermount3 to mount: install the package fuse3"))
}

pub fn is_root() -> bool {
    // SAFETY: takes and touches nothing.
    unsafe { libc::geteuid() == 0 }
}

/// The program that mounts and unmounts for ordinary users.
fn fusermount() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join("fusermount3")).find(|program| program.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_mounted_and_a_file_is_no_mount_point() {
        assert!(mounted(Path::new("/")).unwrap().is_some());
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(mounted(file.path()).unwrap().is_none());
    }
}
