//! A mount's life: mounted, serving on its own threads, unmounted by us or by anyone.

use std::path::Path;
use std::sync::Arc;
use std::thread;

use fuser::{Config, Session, SessionACL};
use tokio::runtime::Handle as Runtime;
use tokio::sync::watch;

use super::adapter::Door;
use super::invalidate::Invalidator;
pub use super::mount::MountError;
use super::mount::{Mounted, may_open_device};
use super::options::MountOptions;
use crate::client::api::Posix;

/// Threads that take requests, unless told otherwise. They answer what is cached themselves, so more than one pays; what
/// waits does not hold them, so more than a few do not.
const THREADS_MIN: usize = 2;
const THREADS_MAX: usize = 8;
const THREADS_TOLD_MAX: u32 = 64;

/// How serving ended; `None` while it goes on. Text, because every waiter gets a copy.
type End = Option<Result<(), String>>;

/// A namespace mounted on a directory. Dropped while it is mounted, it is detached from the tree, and what was not
/// synced by then is synced behind the back of whoever dropped it: call [`Mount::unmount`].
#[derive(Debug)]
pub struct Mount {
    mounted: Mounted,
    end: watch::Receiver<End>,
}

impl Mount {
    /// Mounts `fs` and serves it. Blocks for a few milliseconds.
    ///
    /// `cache` is what the client drops the kernel's pages through; it works from here on.
    ///
    /// # Errors
    /// See [`MountError`]; nothing is left mounted then.
    pub fn start<F: Posix>(
        fs: Arc<F>,
        mountpoint: &Path,
        options: &MountOptions,
        runtime: Runtime,
        cache: Arc<Invalidator>,
    ) -> Result<Mount, MountError> {
        let (mounted, device) = Mounted::make(mountpoint, options)?;
        let door = Door::new(fs, runtime, options.sync || options.dirsync, cache.clone());
        let (ended, end) = watch::channel(None);
        let mount = Mount { mounted, end };
        // From here on an error drops `mount`, which undoes it. Who may use the mount is the kernel's to check.
        let session =
            Session::from_fd(door, device, SessionACL::All, config(options.threads)).map_err(MountError::Handshake)?;
        let notifier = session.notifier();
        let serving = cache.clone();
        let serve = move || {
            let result = session.run();
            serving.unmounted();
            ended.send_replace(Some(result.map_err(|error| error.to_string())));
        };
        let started = cache
            .mounted(notifier)
            .and_then(|()| thread::Builder::new().name("fuse-session".into()).spawn(serve).map(drop));
        // Before `mount` is dropped: whoever keeps the connection open would have to answer its unmount.
        started.inspect_err(|_| cache.unmounted()).map_err(MountError::Handshake)?;
        Ok(mount)
    }

    /// Where it is mounted, without links.
    pub fn mountpoint(&self) -> &Path {
        &self.mounted.path
    }

    /// Returns when the mount is gone, whoever unmounted it, and everything is synced.
    ///
    /// # Errors
    /// `Ended`: the event loops broke.
    pub async fn wait(&self) -> Result<(), MountError> {
        let mut end = self.end.clone();
        let end = end.wait_for(Option::is_some).await;
        match end.as_deref() {
            Ok(Some(Err(reason))) => Err(MountError::Ended(reason.clone())),
            Ok(_) => Ok(()),
            // The thread is gone without a word: it panicked.
            Err(_) => Err(MountError::Ended("the session's thread panicked".into())),
        }
    }

    /// Unmounts, and returns when everything is synced.
    ///
    /// # Errors
    /// `InUse`, `Unmount`: it stays mounted and serves on. `Ended` as in [`Mount::wait`].
    pub async fn unmount(&self) -> Result<(), MountError> {
        let mounted = self.mounted.clone();
        let unmounted = tokio::task::spawn_blocking(move || mounted.unmount(false)).await;
        unmounted.map_err(|error| MountError::Ended(error.to_string()))??;
        self.wait().await
    }

    /// Takes the mount out of the tree now; users that have files open go on with them, and [`Mount::wait`] returns when
    /// the last one is done.
    ///
    /// # Errors
    /// `Unmount`.
    pub fn detach(&self) -> Result<(), MountError> {
        self.mounted.unmount(true)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.end.borrow().is_none()
            && let Err(error) = self.detach()
        {
            tracing::warn!(%error, "a mount is left behind");
        }
    }
}

fn config(threads: u32) -> Config {
    let mut config = Config::default();
    let cores = || thread::available_parallelism().map_or(THREADS_MIN, usize::from).clamp(THREADS_MIN, THREADS_MAX);
    // One of them may wait for another: when its answer ends the last use of a mount on a block device.
    let told = (threads.min(THREADS_TOLD_MAX) as usize).max(THREADS_MIN);
    config.n_threads = Some(if threads == 0 { cores() } else { told });
    config.clone_fd = may_open_device();
    config
}
