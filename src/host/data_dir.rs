//! A process's data directory: whose it is, and that only one process holds it.
//!
//! `holdfast.toml` in it says format, kind, cluster and member; `LOCK` is locked (flock) as long as the [`DataDir`]
//! lives ([`super::lock`]).

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::file::{TEMPORARY_SUFFIX, sync_dir, write_atomically};
use super::lock::{FileLock, LockError};
use crate::types::id::ClusterId;

const IDENTITY_FILE: &str = "holdfast.toml";
const LOCK_FILE: &str = "LOCK";
/// The layout of data directories this program writes, and the newest it reads.
const FORMAT: u32 = 1;

/// Why a directory cannot be used. Each is one sentence for the operator; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("{} is not there", .0.display())]
    Missing(PathBuf),
    #[error("{} is not a Holdfast directory, and it is not empty", .0.display())]
    Foreign(PathBuf),
    #[error("{} is a Holdfast directory already", .0.display())]
    Taken(PathBuf),
    #[error("{} is in use by another process{}", path.display(), pid.map(|p| format!(" (pid {p})")).unwrap_or_default())]
    Held { path: PathBuf, pid: Option<u32> },
    #[error("{} belongs to cluster {found}, not to {wanted}", path.display())]
    OtherCluster { path: PathBuf, found: ClusterId, wanted: ClusterId },
    #[error("{} is the directory of a {found}, not of a {wanted}", path.display())]
    OtherKind { path: PathBuf, found: String, wanted: String },
    #[error("{} has format {found}, and this program knows formats up to {FORMAT}: use a newer release", path.display())]
    NewerFormat { path: PathBuf, found: u32 },
    #[error("{} is damaged: {why}", path.display())]
    Damaged { path: PathBuf, why: String },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// A directory that is ours, locked until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    kind: String,
    cluster: ClusterId,
    member: u64,
    lock: FileLock,
}

/// The identity file. Only `format` is read first: what else there is depends on it.
#[derive(Serialize, Deserialize)]
struct IdentityFile {
    format: u32,
    kind: String,
    cluster: String,
    member: u64,
}

#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

impl DataDir {
    /// Makes `path` the directory of a new member. It may exist if it is empty.
    ///
    /// # Errors
    /// `Taken`, `Foreign`, `Held` or `Io`.
    pub fn create(path: &Path, kind: &str, cluster: ClusterId, member: u64) -> Result<DataDir, DataDirError> {
        let failed = |source| DataDirError::Io { path: path.into(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        refuse_occupied(path)?;
        let lock = lock(path)?;
        // Another process may have been faster between the look and the lock.
        refuse_occupied(path)?;
        let identity = IdentityFile { format: FORMAT, kind: kind.into(), cluster: cluster.to_string(), member };
        let text = toml::to_string(&identity).map_err(|error| failed(io::Error::other(error)))?;
        write_atomically(&path.join(IDENTITY_FILE), text.as_bytes()).map_err(failed)?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_dir(parent).map_err(failed)?;
        }
        Ok(DataDir { path: path.into(), kind: kind.into(), cluster, member, lock })
    }

    /// Opens the directory of a member of this kind, and of this cluster when one is given.
    ///
    /// # Errors
    /// All of [`DataDirError`] but `Taken`.
    pub fn open(path: &Path, kind: &str, cluster: impl Into<Option<ClusterId>>) -> Result<DataDir, DataDirError> {
        let identity = read_identity(path)?;
        let found = identity
            .cluster
            .parse()
            .map_err(|_| DataDirError::Damaged { path: path.join(IDENTITY_FILE), why: "no cluster id".into() })?;
        if identity.kind != kind {
            return Err(DataDirError::OtherKind { path: path.into(), found: identity.kind, wanted: kind.into() });
        }
        if let Some(wanted) = cluster.into().filter(|wanted| *wanted != found) {
            return Err(DataDirError::OtherCluster { path: path.into(), found, wanted });
        }
        let lock = lock(path)?;
        Ok(DataDir { path: path.into(), kind: identity.kind, cluster: found, member: identity.member, lock })
    }

    /// True when there is nothing at `path` yet: [`DataDir::create`] is the way, not [`DataDir::open`].
    ///
    /// # Errors
    /// `Foreign` when something else is there, `Io`.
    pub fn is_vacant(path: &Path) -> Result<bool, DataDirError> {
        match refuse_occupied(path) {
            Ok(()) => Ok(true),
            Err(DataDirError::Taken(_)) => Ok(false),
            Err(DataDirError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Writes this process's pid into the lock file. For a child that lives on with the lock its parent took.
    ///
    /// # Errors
    /// From the file system; the lock is held all the same.
    pub fn sign(&mut self) -> io::Result<()> {
        sign(&mut self.lock)
    }

    /// In a parent: leaves the directory to the child that was forked while it was locked, and signs it.
    pub fn leave_to_child(self) {
        self.lock.leave_to_child();
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn kind(&self) -> &str {
        &self.kind
    }

    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The member's number within its kind.
    pub fn member(&self) -> u64 {
        self.member
    }
}

fn read_identity(path: &Path) -> Result<IdentityFile, DataDirError> {
    let file = path.join(IDENTITY_FILE);
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return match refuse_occupied(path) {
                Ok(()) | Err(DataDirError::Io { .. }) => Err(DataDirError::Missing(path.into())),
                Err(error) => Err(error),
            };
        }
        Err(source) => return Err(DataDirError::Io { path: file, source }),
    };
    let damaged = |error: toml::de::Error| DataDirError::Damaged { path: file.clone(), why: error.message().into() };
    let FormatOnly { format } = toml::from_str(&text).map_err(damaged)?;
    if format > FORMAT {
        return Err(DataDirError::NewerFormat { path: path.into(), found: format });
    }
    toml::from_str(&text).map_err(damaged)
}

/// Fails unless the directory holds nothing: a fresh file system's `lost+found` and what a crash during
/// [`DataDir::create`] leaves count as nothing.
fn refuse_occupied(path: &Path) -> Result<(), DataDirError> {
    let failed = |source| DataDirError::Io { path: path.into(), source };
    let mut foreign = false;
    for entry in fs::read_dir(path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if name == IDENTITY_FILE {
            return Err(DataDirError::Taken(path.into()));
        }
        let own = name == LOCK_FILE || name.to_str() == Some(&format!("{IDENTITY_FILE}{TEMPORARY_SUFFIX}"));
        foreign |= !own && name != "lost+found";
    }
    if foreign { Err(DataDirError::Foreign(path.into())) } else { Ok(()) }
}

fn lock(path: &Path) -> Result<FileLock, DataDirError> {
    let failed = |source| DataDirError::Io { path: path.join(LOCK_FILE), source };
    match FileLock::take(&path.join(LOCK_FILE)) {
        Ok(mut lock) => sign(&mut lock).map(|()| lock).map_err(failed),
        Err(LockError::Held(file)) => {
            let mut text = String::new();
            // The pid is a courtesy: without it the message is still true.
            let _ = file.take(32).read_to_string(&mut text);
            Err(DataDirError::Held { path: path.into(), pid: text.trim().parse().ok() })
        }
        Err(LockError::Io(source)) => Err(failed(source)),
    }
}

fn sign(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId([7; 16]);

    #[test]
    fn what_was_created_opens_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        assert!(DataDir::is_vacant(&path).unwrap());
        drop(DataDir::create(&path, "meta", CLUSTER, 3).unwrap());
        assert!(!DataDir::is_vacant(&path).unwrap());
        let opened = DataDir::open(&path, "meta", CLUSTER).unwrap();
        assert_eq!((opened.member(), opened.cluster(), opened.kind()), (3, CLUSTER, "meta"));
    }

    #[test]
    fn a_second_holder_is_told_who_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let held = DataDir::create(dir.path(), "store", CLUSTER, 1).unwrap();
        let error = DataDir::open(dir.path(), "store", None).unwrap_err();
        let pid = std::process::id();
        assert!(matches!(error, DataDirError::Held { pid: Some(found), .. } if found == pid), "{error}");
        drop(held);
        DataDir::open(dir.path(), "store", None).unwrap();
    }

    #[test]
    fn a_directory_of_others_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDir::create(dir.path(), "meta", CLUSTER, 1).unwrap());
        let other = DataDir::open(dir.path(), "meta", ClusterId([8; 16])).unwrap_err();
        assert!(matches!(other, DataDirError::OtherCluster { .. }), "{other}");
        let kind = DataDir::open(dir.path(), "store", CLUSTER).unwrap_err();
        assert!(matches!(kind, DataDirError::OtherKind { .. }), "{kind}");
        let taken = DataDir::create(dir.path(), "meta", CLUSTER, 1).unwrap_err();
        assert!(matches!(taken, DataDirError::Taken(_)), "{taken}");
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let absent = DataDir::open(&dir.path().join("none"), "meta", None).unwrap_err();
        assert!(matches!(absent, DataDirError::Missing(_)), "{absent}");
        assert!(matches!(DataDir::open(dir.path(), "meta", None).unwrap_err(), DataDirError::Missing(_)));
        fs::write(dir.path().join("letter.txt"), "mine").unwrap();
        assert!(matches!(DataDir::open(dir.path(), "meta", None).unwrap_err(), DataDirError::Foreign(_)));
        assert!(matches!(DataDir::create(dir.path(), "meta", CLUSTER, 1).unwrap_err(), DataDirError::Foreign(_)));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn newer_and_damaged_identities_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(IDENTITY_FILE);
        fs::write(&file, "format = 2\nshape = \"unknown\"\n").unwrap();
        let newer = DataDir::open(dir.path(), "meta", None).unwrap_err();
        assert!(matches!(newer, DataDirError::NewerFormat { found: 2, .. }), "{newer}");
        fs::write(&file, "format = 1\nkind = \"meta\"\n").unwrap();
        assert!(matches!(DataDir::open(dir.path(), "meta", None).unwrap_err(), DataDirError::Damaged { .. }));
        fs::write(&file, "\u{0}\u{0}").unwrap();
        assert!(matches!(DataDir::open(dir.path(), "meta", None).unwrap_err(), DataDirError::Damaged { .. }));
    }

    #[test]
    fn a_crash_during_creation_leaves_the_way_free() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("LOCK"), "1\n").unwrap();
        fs::write(dir.path().join("holdfast.toml.tmp"), "form").unwrap();
        fs::create_dir(dir.path().join("lost+found")).unwrap();
        DataDir::create(dir.path(), "store", CLUSTER, 1).unwrap();
    }
}
