//! The identity of a disk: `disk.toml`, written once when a directory is first used, and a lock for as long as a
//! process uses it. A directory of another cluster, another store or a newer format is refused and left as it is.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::host::lock::{FileLock, LockError};
use crate::types::id::{ClusterId, DiskId, StoreId};

use super::pack::file::{random_bytes, sync_dir};

const FILE: &str = "disk.toml";
const FORMAT: u32 = 1;

/// A directory that is one disk of this store, locked.
#[derive(Debug)]
pub struct DiskDir {
    pub id: DiskId,
    pub path: PathBuf,
    _lock: FileLock,
}

/// Why a directory is not used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
    #[error("{0} is used by another process")]
    Busy(PathBuf),
    #[error("{0} belongs to cluster {1}, not to this one")]
    OtherCluster(PathBuf, String),
    #[error("{0} belongs to store {1}, not to this one")]
    OtherStore(PathBuf, StoreId),
    #[error("{0} says that this is the disk of another store; a new one needs an empty directory")]
    Taken(PathBuf),
    #[error("{0} has disk format {1}, newer than this program knows ({FORMAT})")]
    Newer(PathBuf, u32),
    #[error("{0} is not readable: {1}")]
    Unreadable(PathBuf, String),
    #[error("{0} holds packs but no {FILE}; it is not taken for a new disk")]
    Lost(PathBuf),
}

#[derive(Serialize, Deserialize)]
struct Identity {
    format: u32,
    cluster: String,
    store: StoreId,
    disk: String,
}

impl DiskDir {
    /// Locks a directory and reads its identity, or gives it one when it is new.
    ///
    /// # Errors
    /// See [`IdentityError`]; nothing is changed then.
    pub fn claim(path: &Path, cluster: ClusterId, store: StoreId) -> Result<DiskDir, IdentityError> {
        let io = |error| IdentityError::Io(path.to_owned(), error);
        fs::create_dir_all(path).map_err(io)?;
        let file = path.join(FILE);
        // Looked at before anything is made in the directory.
        let known = match fs::read_to_string(&file) {
            Ok(text) => Some(check(&file, &text, cluster, store)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(io(error)),
        };
        let packs = path.join("packs");
        if known.is_none() && packs.exists() {
            return Err(IdentityError::Lost(path.to_owned()));
        }
        let lock = lock(path)?;
        let id = match known {
            Some(id) => id,
            None => make(path, cluster, store).map_err(io)?,
        };
        fs::create_dir_all(&packs).map_err(io)?;
        sync_dir(path).map_err(io)?;
        Ok(DiskDir { id, path: path.to_owned(), _lock: lock })
    }

    /// That a directory is nobody's disk yet, and may become one of a store that is about to be made.
    ///
    /// # Errors
    /// [`IdentityError::Taken`], [`IdentityError::Lost`], or it cannot be looked at.
    pub fn check_new(path: &Path) -> Result<(), IdentityError> {
        match path.join(FILE).try_exists() {
            Ok(false) if path.join("packs").exists() => Err(IdentityError::Lost(path.to_owned())),
            Ok(false) => Ok(()),
            Ok(true) => Err(IdentityError::Taken(path.join(FILE))),
            Err(error) => Err(IdentityError::Io(path.to_owned(), error)),
        }
    }

    pub fn packs(&self) -> PathBuf {
        self.path.join("packs")
    }
}

fn check(file: &Path, text: &str, cluster: ClusterId, store: StoreId) -> Result<DiskId, IdentityError> {
    let unreadable = |why: String| IdentityError::Unreadable(file.to_owned(), why);
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| unreadable(error.message().to_owned()))?;
    // The format is looked at alone first: a newer one may have other fields.
    match table.get("format").and_then(toml::Value::as_integer) {
        Some(format) if format == i64::from(FORMAT) => {}
        Some(format) => return Err(IdentityError::Newer(file.to_owned(), u32::try_from(format).unwrap_or(u32::MAX))),
        None => return Err(unreadable("no format".to_owned())),
    }
    let identity: Identity = table.try_into().map_err(|error: toml::de::Error| unreadable(error.to_string()))?;
    if ClusterId::from_str(&identity.cluster) != Ok(cluster) {
        return Err(IdentityError::OtherCluster(file.to_owned(), identity.cluster));
    }
    if identity.store != store {
        return Err(IdentityError::OtherStore(file.to_owned(), identity.store));
    }
    identity.disk.parse().map_err(|_| unreadable("the disk id is malformed".to_owned()))
}

fn lock(path: &Path) -> Result<FileLock, IdentityError> {
    FileLock::take(&path.join("lock")).map_err(|error| match error {
        LockError::Held(_) => IdentityError::Busy(path.to_owned()),
        LockError::Io(error) => IdentityError::Io(path.to_owned(), error),
    })
}

/// Writes a new identity whole or not at all.
fn make(path: &Path, cluster: ClusterId, store: StoreId) -> io::Result<DiskId> {
    let id = DiskId(random_bytes()?);
    let identity = Identity { format: FORMAT, cluster: cluster.to_string(), store, disk: id.to_string() };
    let text = toml::to_string(&identity).map_err(io::Error::other)?;
    let temporary = path.join("disk.toml.new");
    let mut file = File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path.join(FILE))?;
    sync_dir(path)?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId([1; 16]);

    #[test]
    fn an_identity_is_kept_and_guarded() {
        let dir = tempfile::tempdir().unwrap();
        let first = DiskDir::claim(dir.path(), CLUSTER, StoreId(1)).unwrap();
        let id = first.id;
        assert!(matches!(DiskDir::claim(dir.path(), CLUSTER, StoreId(1)), Err(IdentityError::Busy(_))));
        drop(first);
        assert_eq!(DiskDir::claim(dir.path(), CLUSTER, StoreId(1)).unwrap().id, id);
        let other = DiskDir::claim(dir.path(), ClusterId([2; 16]), StoreId(1));
        assert!(matches!(other, Err(IdentityError::OtherCluster(..))));
        let other = DiskDir::claim(dir.path(), CLUSTER, StoreId(2));
        assert!(matches!(other, Err(IdentityError::OtherStore(_, StoreId(1)))));
    }

    #[test]
    fn a_new_store_takes_nobodys_disk() {
        let dir = tempfile::tempdir().unwrap();
        DiskDir::check_new(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "it was looked at alone");
        drop(DiskDir::claim(dir.path(), CLUSTER, StoreId(1)).unwrap());
        assert!(matches!(DiskDir::check_new(dir.path()), Err(IdentityError::Taken(_))));
        fs::remove_file(dir.path().join(FILE)).unwrap();
        assert!(matches!(DiskDir::check_new(dir.path()), Err(IdentityError::Lost(_))));
    }

    #[test]
    fn newer_and_lost_disks_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "format = 2\nunheard_of = true\n").unwrap();
        assert!(matches!(DiskDir::claim(dir.path(), CLUSTER, StoreId(1)), Err(IdentityError::Newer(_, 2))));
        fs::remove_file(dir.path().join(FILE)).unwrap();
        fs::create_dir(dir.path().join("packs")).unwrap();
        assert!(matches!(DiskDir::claim(dir.path(), CLUSTER, StoreId(1)), Err(IdentityError::Lost(_))));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
