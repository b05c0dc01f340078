//! A mount's life: mounted, serving on its own threads, unmounted by us or by anyone.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use fuser::{Config, Gate, Session, SessionACL};
use tokio::runtime::Handle as Runtime;
use tokio::sync::watch;

use super::adapter::Door;
use super::invalidate::Invalidator;
pub use super::mount::MountError;
use super::mount::{Mounted, may_open_device};
use super::options::MountOptions;
use super::serve::Afterwork;
use crate::client::api::Posix;
use crate::client::kept::Kept;

/// Threads that take requests, unless told otherwise. They answer what is cached themselves, so more than one pays; what
/// waits does not hold them, so more than a few do not.
const THREADS_MIN: usize = 2;
const THREADS_MAX: usize = 8;
const THREADS_TOLD_MAX: u32 = 64;
/// Between two looks at whether everything is answered.
const ANSWERED_TICK: Duration = Duration::from_millis(1);

/// How serving ended; `None` while it goes on. Text, because every waiter gets a copy.
type End = Option<Result<(), String>>;

/// A namespace mounted on a directory. Dropped while it is mounted, it is detached from the tree, and what was not
/// synced by then is synced behind the back of whoever dropped it: call [`Mount::unmount`].
#[derive(Debug)]
pub struct Mount {
    mounted: Mounted,
    end: watch::Receiver<End>,
    gate: Arc<Gate>,
    afterwork: Afterwork,
    descriptors: Vec<OwnedFd>,
}

/// What answers the requests.
pub struct Served<F> {
    pub fs: Arc<F>,
    pub runtime: Runtime,
    /// What the client drops the kernel's pages through; it works from here on.
    pub cache: Arc<Invalidator>,
    /// For the process that goes on with the mount after this one.
    pub kept: Option<Arc<Kept>>,
}

impl<F> Served<F> {
    /// By this process alone.
    pub fn new(fs: Arc<F>, runtime: Runtime, cache: Arc<Invalidator>) -> Served<F> {
        Served { fs, runtime, cache, kept: None }
    }
}

impl Mount {
    /// Mounts it and serves. Blocks for a few milliseconds.
    ///
    /// # Errors
    /// See [`MountError`]; nothing is left mounted then.
    pub fn start<F: Posix>(served: Served<F>, mountpoint: &Path, options: &MountOptions) -> Result<Mount, MountError> {
        let (mounted, device) = Mounted::make(mountpoint, options)?;
        let (cache, keeps) = (served.cache.clone(), served.kept.is_some());
        let mut mount = Mount::of(mounted);
        // From here on an error drops `mount`, which undoes it. Who may use the mount is the kernel's to check.
        let door = Door::new(served, options.sync || options.dirsync);
        mount.afterwork = door.desk.afterwork.clone();
        let mut session =
            Session::from_fd(door, device, SessionACL::All, config(options.threads)).map_err(MountError::Handshake)?;
        if keeps {
            mount.descriptors = session.descriptors().map_err(MountError::Handshake)?;
        }
        mount.serve(session, cache)?;
        Ok(mount)
    }

    /// Goes on serving what another process has mounted and served before it ended, by all the [`Mount::descriptors`] that it had.
    /// What it had taken and not answered is done anew, and what the kernel goes by of names is asked for again.
    ///
    /// # Errors
    /// See [`MountError`]; it stays mounted then, and nobody answers.
    pub fn resume<F: Posix>(
        served: Served<F>,
        mountpoint: &Path,
        options: &MountOptions,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Mount, MountError> {
        let mounted = Mounted::adopt(mountpoint);
        let cache = served.cache.clone();
        let door = Door::resumed(served, options.sync || options.dirsync);
        let afterwork = door.desk.afterwork.clone();
        let session = Session::resume(door, descriptors, SessionACL::All, config(options.threads))
            .map_err(MountError::Handshake)?;
        let notifier = session.notifier();
        if let Err(error) = notifier.increment_epoch() {
            tracing::debug!(%error, "the kernel goes by names that it was told before, for as long as it was told");
        }
        // Before anything is taken: what is taken and not answered is handed out again, whoever has taken it.
        if let Err(error) = notifier.resend() {
            tracing::error!(%error, "whoever waited for an answer before may wait for ever: Linux 6.9 is needed");
        }
        let mut mount = Mount::of(mounted);
        mount.afterwork = afterwork;
        let serving = mount.serve(session, cache);
        // Whoever dropped it would unmount it.
        serving.inspect_err(|_| mount.end = watch::channel(Some(Ok(()))).1)?;
        Ok(mount)
    }

    fn of(mounted: Mounted) -> Mount {
        let (end, gate, afterwork) = (watch::channel(None).1, Arc::default(), Afterwork::default());
        Mount { mounted, end, gate, afterwork, descriptors: Vec::new() }
    }

    fn serve<F: Posix>(&mut self, session: Session<Door<F>>, cache: Arc<Invalidator>) -> Result<(), MountError> {
        let (ended, end) = watch::channel(None);
        (self.end, self.gate) = (end, session.gate());
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
        // Before the mount is dropped: whoever keeps the connection open would have to answer its unmount.
        started.inspect_err(|_| cache.unmounted()).map_err(MountError::Handshake)
    }

    /// All that requests are read from, for the process that keeps them; once, and of a mount that something is kept of.
    pub fn descriptors(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.descriptors)
    }

    /// Takes no more requests, and returns when those that were taken are answered, but for what whoever goes on with the mount is
    /// asked again.
    ///
    /// # Errors
    /// `false`: some are not answered within this time. Requests are taken as before.
    pub async fn stop_taking(&self, patience: Duration) -> bool {
        self.gate.close();
        let answered = async {
            while self.gate.taken() > 0 || !self.afterwork.is_done() {
                tokio::time::sleep(ANSWERED_TICK).await;
            }
        };
        let answered = tokio::time::timeout(patience, answered).await.is_ok();
        if !answered {
            self.go_on_taking();
        }
        answered
    }

    pub fn go_on_taking(&self) {
        self.gate.open();
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

/// Takes what another process has mounted out of the tree.
///
/// # Errors
/// `Unmount`.
pub fn detach(mountpoint: &Path) -> Result<(), MountError> {
    Mounted::adopt(mountpoint).unmount(true)
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
