//! The line about a mount in `/run/mount/utab`, for umount(8).
//!
//! Given an absolute path, umount(8) looks neither at the mount table nor for a helper, unless a line there tells it to (of
//! what statfs(2) calls FUSE it unmounts by the system call alone, which no plain FUSE mount is synced by). The line names the
//! helper, which syncs first. The file is libmount's: its lock is taken, it is replaced whole, and lines of others are left as
//! they are. A line that a killed process left is harmless, and replaced by the next mount there.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::file::write_atomically;
use super::lock::{FileLock, LockError};

const DIR: &str = "/run/mount";
/// Whoever holds the lock does so for one such change.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// A line that is taken out when this is dropped.
#[derive(Debug)]
pub struct Note {
    dir: PathBuf,
    target: PathBuf,
}

impl Note {
    /// Notes a mount of ours: `source` as in the mount table. `None`, with a warning, when that is not possible: then `umount` of
    /// an absolute path is not preceded by a sync.
    pub fn of(target: &Path, source: &str) -> Option<Note> {
        let note = Note { dir: DIR.into(), target: target.to_owned() };
        note.write(Some(source)).map(|()| note).map_err(warn).ok()
    }

    /// Replaces the line, or takes it out.
    fn write(&self, source: Option<&str>) -> io::Result<()> {
        if source.is_some() {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(&self.dir)?;
        }
        let _lock = lock(&self.dir.join("utab.lock"))?;
        let path = self.dir.join("utab");
        let known = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            known => known?,
        };
        write_atomically(&path, &replaced(&known, self.target.as_os_str().as_bytes(), source))?;
        // Whatever this process makes of files, everybody may read this one.
        fs::set_permissions(&path, Permissions::from_mode(0o644))
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        self.write(None).unwrap_or_else(warn);
    }
}

fn warn(error: io::Error) {
    tracing::warn!(%error, "umount(8) is not told of the mount");
}

fn lock(path: &Path) -> io::Result<FileLock> {
    for _ in 0..TRIES {
        match FileLock::take(path) {
            Ok(lock) => return Ok(lock),
            Err(LockError::Held(_)) => thread::sleep(PAUSE),
            Err(LockError::Io(error)) => return Err(error),
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}

/// The file with one line about `target`, or with none.
fn replaced(utab: &[u8], target: &[u8], source: Option<&str>) -> Vec<u8> {
    let field = [b"TARGET=", &mangled(target)[..]].concat();
    let options = options();
    let about_it = |line: &[u8]| {
        let has = |wanted: &[u8]| line.split(|byte| *byte == b' ').any(|word| word == wanted);
        has(&field) && (source.is_some() || has(&options))
    };
    let others = utab.split_inclusive(|byte| *byte == b'\n').filter(|line| !about_it(line.trim_ascii_end()));
    let mut out: Vec<u8> = others.collect::<Vec<_>>().concat();
    if let Some(source) = source {
        let source = mangled(source.as_bytes());
        out.extend([b"SRC=", &source[..], b" ", &field, b" ROOT=/ ", &options, b"\n"].concat());
    }
    out
}

/// Ours to be known by, so that a process that ends late does not take out the line of the next mount there. `_netdev`, because a line
/// of ours keeps mount(8) from noting that of fstab.
fn options() -> Vec<u8> {
    format!("OPTS=_netdev,uhelper=holdfast,x-holdfast.pid={}", std::process::id()).into_bytes()
}

/// As in fstab: what separates words is written as an octal number.
fn mangled(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for byte in text {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => out.extend(format!("\\{byte:03o}").bytes()),
            _ => out.push(*byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHERS: &[u8] = b"SRC=server:/x TARGET=/mnt/x ROOT=/ OPTS=_netdev\n";

    #[test]
    fn a_mount_has_one_line_and_others_keep_theirs() {
        let ours = [b"SRC=a:1:/main TARGET=/mnt/a\\040b ROOT=/ ", &options()[..], b"\n"].concat();
        let noted = replaced(OTHERS, b"/mnt/a b", Some("a:1:/main"));
        assert_eq!(noted, [OTHERS, &ours].concat());
        assert_eq!(replaced(&noted, b"/mnt/a b", Some("a:1:/main")), noted);
        assert_eq!(replaced(&noted, b"/mnt/a b", None), OTHERS);
        assert_eq!(replaced(&noted, b"/mnt/a", None), noted, "that is another place");
        let killed = b"SRC=a:1:/main TARGET=/mnt/a\\040b ROOT=/ OPTS=_netdev,uhelper=holdfast,x-holdfast.pid=0\n";
        assert_eq!(replaced(killed, b"/mnt/a b", Some("a:1:/main")), ours);
        assert_eq!(replaced(killed, b"/mnt/a b", None), killed, "it is of another process");
    }

    #[test]
    fn a_line_goes_with_its_mount() {
        let dir = tempfile::tempdir().unwrap();
        let note = Note { dir: dir.path().to_owned(), target: "/mnt/a".into() };
        fs::write(dir.path().join("utab"), OTHERS).unwrap();
        note.write(Some("s")).unwrap();
        assert!(fs::read(dir.path().join("utab")).unwrap().len() > OTHERS.len());
        drop(note);
        assert_eq!(fs::read(dir.path().join("utab")).unwrap(), OTHERS);
    }
}
