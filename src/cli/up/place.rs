//! Where `holdfast up` keeps things.
//!
//! ```text
//! DATA/holdfast.toml      kind `up`, and LOCK, held while it runs (host::data_dir)
//! DATA/complete           the cluster was made to the end; without it, it is made anew
//! DATA/admin.credential   for `holdfast status` and the like
//! DATA/client.credential  the mount's
//! DATA/meta/              the metadata server
//! DATA/store-N/state/     a store, and
//! DATA/store-N/disk/      its one disk
//! DATA/up.log             the log of a detached one
//! ```

use std::path::{Path, PathBuf};

use crate::cli::failure::{Failure, Outcome};
use crate::cli::mountpoint::is_root;
use crate::cli::settings::absolute;
use crate::config::roles::UpConfig;

pub const CREDENTIAL_FILE: &str = "admin.credential";
/// The kind of the data directory.
pub const KIND: &str = "up";

/// The data directory that holds, or its default for this user.
///
/// # Errors
/// No path was given and the user has no home.
pub fn data_dir(config: &UpConfig) -> Outcome<PathBuf> {
    if !config.data.as_os_str().is_empty() {
        return absolute(&config.data);
    }
    if is_root() {
        return Ok(PathBuf::from("/var/lib/holdfast/up"));
    }
    Ok(user_dir("XDG_DATA_HOME", ".local/share", "--data")?.join("holdfast/up"))
}

/// The mount point that holds, or its default for this user.
///
/// # Errors
/// No path was given and the user has no home.
pub fn mount_dir(config: &UpConfig) -> Outcome<PathBuf> {
    if !config.mount.as_os_str().is_empty() {
        return absolute(&config.mount);
    }
    if is_root() { Ok(PathBuf::from("/mnt/holdfast")) } else { Ok(home("--mount")?.join("holdfast")) }
}

/// A directory of this user by the XDG rules: the variable if it is absolute, else below the home.
///
/// # Errors
/// The user has no home; `flag` says what to give instead.
pub fn user_dir(variable: &str, below_home: &str, flag: &str) -> Outcome<PathBuf> {
    match std::env::var_os(variable).map(PathBuf::from) {
        Some(path) if path.is_absolute() => Ok(path),
        _ => Ok(home(flag)?.join(below_home)),
    }
}

fn home(flag: &str) -> Outcome<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    home.ok_or_else(|| Failure::new(format!("$HOME is not set; say where with {flag}")))
}

/// The places below one data directory.
pub struct Layout<'a>(pub &'a Path);

impl Layout<'_> {
    pub fn complete(&self) -> PathBuf {
        self.0.join("complete")
    }

    pub fn admin_credential(&self) -> PathBuf {
        self.0.join(CREDENTIAL_FILE)
    }

    pub fn client_credential(&self) -> PathBuf {
        self.0.join("client.credential")
    }

    pub fn meta(&self) -> PathBuf {
        self.0.join("meta")
    }

    pub fn store(&self, n: usize) -> PathBuf {
        self.0.join(format!("store-{n}"))
    }

    pub fn store_state(&self, n: usize) -> PathBuf {
        self.store(n).join("state")
    }

    pub fn store_disk(&self, n: usize) -> PathBuf {
        self.store(n).join("disk")
    }

    pub fn log(&self) -> PathBuf {
        self.0.join("up.log")
    }
}
