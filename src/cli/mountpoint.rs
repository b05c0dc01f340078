//! The directory a volume is mounted on: what is there now, and taking a mount away.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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

/// Why an unmount did not happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnmountError {
    /// Somebody has a file open or their working directory there.
    Busy,
    Failed(String),
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

/// That a volume can be mounted here, before anything is changed.
///
/// # Errors
/// The path is not a directory, is a mount point already, or this machine has no FUSE.
pub fn check_free(path: &Path) -> Outcome {
    check_fuse()?;
    if let Some(entry) = mounted(path)? {
        let (path, kind, source) = (path.display(), entry.fs_type, entry.source);
        return Err(Failure::new(format!("{path} is busy: {source} (type {kind}) is mounted there")));
    }
    match std::fs::metadata(path) {
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
        Err(error) => return Err(Failure::new(format!("/dev/fuse cannot be opened: {error}"))),
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
pub fn fusermount() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join("fusermount3")).find(|program| program.is_file())
}

/// Takes the mount away; `lazily`: out of sight now, gone when the last user is.
///
/// # Errors
/// `Busy` when somebody uses it (never when lazily), `Failed` otherwise.
pub fn unmount(path: &Path, lazily: bool) -> Result<(), UnmountError> {
    if is_root() { unmount_as_root(path, lazily) } else { unmount_by_fusermount(path, lazily) }
}

fn unmount_as_root(path: &Path, lazily: bool) -> Result<(), UnmountError> {
    let target = CString::new(path.as_os_str().as_bytes()).map_err(|error| UnmountError::Failed(error.to_string()))?;
    let flags = libc::UMOUNT_NOFOLLOW | if lazily { libc::MNT_DETACH } else { 0 };
    // SAFETY: `target` is a NUL-terminated string that lives through the call.
    if unsafe { libc::umount2(target.as_ptr(), flags) } == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EBUSY) => Err(UnmountError::Busy),
        _ => Err(UnmountError::Failed(error.to_string())),
    }
}

fn unmount_by_fusermount(path: &Path, lazily: bool) -> Result<(), UnmountError> {
    let failed = |why: String| UnmountError::Failed(why);
    let program = fusermount().ok_or_else(|| failed("fusermount3 is not installed".to_string()))?;
    let mut command = Command::new(program);
    command.arg("-u").args(lazily.then_some("-z")).arg("--").arg(path).stdin(Stdio::null());
    let output = command.output().map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(()),
        false if text.contains("busy") => Err(UnmountError::Busy),
        false => Err(failed(text.trim().to_string())),
    }
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
