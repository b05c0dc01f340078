//! What the plugin has its host do, and looks up there. Tests stand in for it: with mounts in memory, and deaths on demand.

use std::io;
use std::path::Path;

use super::driver::DriverError;
use crate::container::mounter::{MountFailure, Mounter, mounted};
use crate::host::mountinfo::users_of;

/// Whoever mounts or unmounts at a place waits for what was begun there before, also by a process that is dead, and then finds it done.
pub trait Host: Send + Sync + 'static {
    /// # Errors
    /// Something else is mounted there, or the mount failed; what it said.
    fn mount(&self, volume: &str, place: &Path) -> impl Future<Output = Result<(), MountFailure>> + Send;

    /// # Errors
    /// It is in use, or could not be made durable; it is as before then.
    fn unmount(&self, place: &Path) -> impl Future<Output = Result<(), MountFailure>> + Send;

    /// How many have what is mounted at a place besides: each container is one.
    ///
    /// # Errors
    /// They cannot be looked up.
    fn users(&self, place: &Path) -> impl Future<Output = Result<usize, DriverError>> + Send;

    /// The volume is mounted there.
    fn has(&self, volume: &str, place: &Path) -> bool;
}

/// The kernel's mounts, made by processes of their own that ask these servers.
pub struct Mounts {
    pub(super) metas: Vec<String>,
    pub(super) mounter: Mounter,
}

impl Host for Mounts {
    async fn mount(&self, volume: &str, place: &Path) -> Result<(), MountFailure> {
        self.mounter.mount(&self.metas, volume, place, &[]).await
    }

    async fn unmount(&self, place: &Path) -> Result<(), MountFailure> {
        self.mounter.unmount(place).await
    }

    async fn users(&self, place: &Path) -> Result<usize, DriverError> {
        let Some(entry) = mounted(place)? else { return Ok(0) };
        let place = place.to_path_buf();
        let looking = tokio::task::spawn_blocking(move || users_of(entry.device, &place)).await;
        looking.map_err(io::Error::other).flatten().map_err(DriverError::Look)
    }

    fn has(&self, volume: &str, place: &Path) -> bool {
        mounted(place).is_ok_and(|entry| entry.is_some_and(|entry| entry.is_volume(volume)))
    }
}
