//! The directory a volume is mounted on: what is there now. Looks and changes nothing; the door itself looks again when
//! it mounts, and takes away what a dead process left.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::cli::failure::{Context, Failure, Outcome};

/// The type the kernel shows for a mount of ours.
pub const FS_TYPE: &str = "fuse.holdfast";

/// A line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    pub target: PathBuf,
    pub fs_type: String,
    pub source: String,
}

/// The topmost mount at exactly this path, if it is a mount point.
///
/// # Errors
/// `/proc` is not mounted.
pub fn mounted(path: &Path) -> Outcome<Option<MountEntry>> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").or_fail(|| "/proc/self/mountinfo".to_string())?;
    Ok(text.lines().filter_map(parse_line).rfind(|entry| entry.target == path))
}

/// Whether the mount's process is gone: every call says "Transport endpoint is not connected".
pub fn is_dead(path: &Path) -> bool {
    matches!(std::fs::metadata(path), Err(error) if error.raw_os_error() == Some(libc::ENOTCONN))
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
                "/dev/fuse cannot be opened by this user (its mode should be 666): {error}"
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

/// `36 35 98:0 /root /target opts - type source super`, with octal escapes in the names.
fn parse_line(line: &str) -> Option<MountEntry> {
    let (left, right) = line.split_once(" - ")?;
    let target = left.split(' ').nth(4)?;
    let mut right = right.split(' ');
    let fs_type = right.next()?.to_string();
    let source = String::from_utf8_lossy(&unescape(right.next()?)).into_owned();
    let target = PathBuf::from(std::ffi::OsString::from(std::ffi::OsStr::from_bytes(&unescape(target))));
    Some(MountEntry { target, fs_type, source })
}

/// The kernel writes a space, tab, newline and backslash as `\` and three octal digits.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    while let Some((first, rest)) = bytes.split_first() {
        let escape = (*first == b'\\').then(|| rest.get(..3)).flatten();
        let code = escape.and_then(|d| std::str::from_utf8(d).ok()).and_then(|d| u8::from_str_radix(d, 8).ok());
        match (code, rest.get(3..)) {
            (Some(code), Some(after)) => {
                plain.push(code);
                bytes = after;
            }
            _ => {
                plain.push(*first);
                bytes = rest;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_is_read() {
        let line = r"62 29 0:53 / /mnt/with\040space rw,nosuid shared:1 - fuse.holdfast a:1,b:1:/main rw,user_id=0";
        let entry = parse_line(line).unwrap();
        assert_eq!(entry.target, Path::new("/mnt/with space"));
        assert_eq!((entry.fs_type.as_str(), entry.source.as_str()), ("fuse.holdfast", "a:1,b:1:/main"));
        assert_eq!(parse_line("nonsense"), None);
    }

    #[test]
    fn escapes_are_undone() {
        assert_eq!(unescape(r"a\134b\011"), b"a\\b\t");
        assert_eq!(unescape(r"tail\04"), br"tail\04");
    }

    #[test]
    fn the_root_is_mounted_and_a_file_is_no_mount_point() {
        assert!(mounted(Path::new("/")).unwrap().is_some());
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(mounted(file.path()).unwrap().is_none());
    }
}
