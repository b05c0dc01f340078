//! What each call of Docker's does.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, sleep, timeout};

use super::book::Book;
use super::host::{Host, Mounts};
use super::protocol::{Answer, Request, VolumeAnswer};
use crate::config::value::ByteSize;
use crate::container::mounter::{MountFailure, Mounter};
use crate::container::options::{OptionError, Wanted};
use crate::host::lock::{FileLock, LockError};
use crate::remote::operator::{Operator, OperatorError};
use crate::types::volume::{Access, NewVolume, Volume, VolumeUsage};

/// Docker waits a minute for an unmount. What takes longer goes on, and the next call finds it done.
const UNMOUNT_PATIENCE: Duration = Duration::from_secs(50);
/// What is mounted here is answered for without the cluster after so long.
const LOOK_PATIENCE: Duration = Duration::from_secs(5);
/// The last use on this host may have ended just now.
const DELETE_PATIENCE: Duration = Duration::from_secs(3);
const DELETE_PAUSE: Duration = Duration::from_millis(100);
/// Between two looks at what nobody uses, at most.
const TIDY_PERIOD: Duration = Duration::from_secs(60);
const TIDY_PERIOD_MIN: Duration = Duration::from_millis(100);

/// The plugin. One for each directory.
pub struct Driver<H = Mounts> {
    cluster: Operator,
    host: H,
    /// Where volumes are mounted, each on a directory of its name.
    mounts: PathBuf,
    book: Mutex<Book>,
    /// Since when no container has been seen that has a volume, of those that are used.
    idle: Mutex<HashMap<String, Instant>>,
    /// One call at a time for each volume.
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    _lock: FileLock,
}

/// Why a call was not done; one sentence, which Docker shows its user.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    #[error(transparent)]
    Option(#[from] OptionError),
    #[error(transparent)]
    Cluster(#[from] OperatorError),
    #[error(transparent)]
    Mount(#[from] MountFailure),
    #[error("{0}")]
    Name(String),
    #[error("there is a volume {volume} already, with {differences}")]
    Differs { volume: String, differences: String },
    #[error("volume {0} is in use on this host")]
    Used(String),
    #[error("volume {0} is for one container at a time, and another has it")]
    ForOne(String),
    #[error("volume {0} is still being unmounted: what was written to it is on its way to the stores")]
    Unfinished(String),
    #[error("the uses of volumes cannot be written down: {0}")]
    Book(io::Error),
    #[error("who uses it cannot be looked up: {0}")]
    Look(io::Error),
    #[error("another process has {}", .0.display())]
    Taken(PathBuf),
}

impl Driver {
    /// Takes up where the process before has stopped: what is mounted and nobody uses is unmounted. A use of which no container is seen
    /// for as long as `forget` has ended. Mounts ask `metas`.
    ///
    /// # Errors
    /// Another process has the directory, or it cannot be used.
    pub fn start(
        cluster: Operator,
        metas: Vec<String>,
        mounter: Mounter,
        dir: &Path,
        forget: Duration,
    ) -> Result<Arc<Driver>, DriverError> {
        Driver::start_on(Mounts { metas, mounter }, cluster, dir, forget)
    }
}

impl<H: Host> Driver<H> {
    /// On a host that is the kernel's, or a test's.
    pub(super) fn start_on(
        host: H,
        cluster: Operator,
        dir: &Path,
        forget: Duration,
    ) -> Result<Arc<Driver<H>>, DriverError> {
        let mounts = dir.join("mounts");
        fs::create_dir_all(&mounts).map_err(DriverError::Book)?;
        let lock = FileLock::take(&dir.join("lock")).map_err(|error| match error {
            LockError::Held(_) => DriverError::Taken(dir.to_path_buf()),
            LockError::Io(error) => DriverError::Book(error),
        })?;
        let book = Mutex::new(Book::open(dir).map_err(DriverError::Book)?);
        let (turns, idle) = (Mutex::default(), Mutex::default());
        let driver = Arc::new(Driver { cluster, host, mounts, book, turns, idle, _lock: lock });
        tokio::spawn(driver.clone().keep_tidy(forget));
        Ok(driver)
    }

    /// Ends uses that Docker has forgotten, and unmounts what nobody uses: at once what a process before has left, uses when no container
    /// was seen for so long.
    async fn keep_tidy(self: Arc<Self>, forget: Duration) {
        let mut ticks = tokio::time::interval((forget / 4).clamp(TIDY_PERIOD_MIN, TIDY_PERIOD));
        loop {
            ticks.tick().await;
            let mounted = fs::read_dir(&self.mounts).into_iter().flatten().flatten();
            let mounted = mounted.map(|entry| entry.file_name().to_string_lossy().into_owned());
            let volumes: BTreeSet<String> = mounted.chain(self.book.lock().used()).collect();
            for volume in volumes {
                if let Err(error) = self.tidy(&volume, forget).await {
                    tracing::warn!(volume, %error, "who uses a volume is not known");
                }
            }
        }
    }

    /// Waits neither for a call about the volume, of which there is news at the next look, nor for the end of its mount: that may wait
    /// for the cluster, and other volumes are not to.
    async fn tidy(self: &Arc<Self>, volume: &str, forget: Duration) -> Result<(), DriverError> {
        let Ok(turn) = self.turn_of(volume).try_lock_owned() else { return Ok(()) };
        if self.users(volume).await? > 0 {
            self.idle.lock().remove(volume);
            return Ok(());
        }
        if self.book.lock().is_used(volume) {
            let since = *self.idle.lock().entry(volume.to_string()).or_insert_with(Instant::now);
            if since.elapsed() < forget {
                return Ok(());
            }
            tracing::warn!(volume, "no container has it: whoever asked for it has forgotten to say so");
            self.book.lock().forget(volume).map_err(DriverError::Book)?;
        }
        self.idle.lock().remove(volume);
        let (driver, volume) = (self.clone(), volume.to_string());
        tokio::spawn(async move {
            if let Err(error) = driver.clear(&volume, turn).await {
                tracing::warn!(volume, %error, "a volume that nobody uses stays mounted");
            }
        });
        Ok(())
    }

    /// How many containers have a volume, or what else has it besides where it is mounted for them.
    async fn users(&self, volume: &str) -> Result<usize, DriverError> {
        self.host.users(&self.mounts.join(volume)).await
    }

    /// # Errors
    /// An option is not understood, there is such a volume and it is otherwise, or the cluster refuses.
    pub(super) async fn create(&self, request: &Request) -> Result<Answer, DriverError> {
        let wanted = Wanted::parse(request.opts.iter().flatten())?;
        match self.cluster.create_volume(wanted.volume(&request.name)).await {
            Ok(_) => Ok(Answer::default()),
            Err(OperatorError::Exists(_)) => {
                let (volume, _) = self.cluster.volume(&request.name).await?;
                let differences = wanted.differences(&volume);
                if differences.is_empty() {
                    return Ok(Answer::default());
                }
                let differences = differences.iter().map(|(key, has)| format!("{key} {has}")).collect::<Vec<_>>();
                Err(DriverError::Differs { volume: request.name.clone(), differences: differences.join(", ") })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a volume that no container has. Docker removes none that a container of its own is to have, so uses of which no container
    /// is seen are over: it has forgotten them.
    ///
    /// # Errors
    /// It is in use, here or elsewhere, or the cluster does not answer.
    pub(super) async fn remove(self: Arc<Self>, request: &Request) -> Result<Answer, DriverError> {
        self.place(&request.name)?;
        let turn = self.turn(&request.name).await;
        if self.users(&request.name).await? > 0 {
            return Err(DriverError::Used(request.name.clone()));
        }
        self.book.lock().forget(&request.name).map_err(DriverError::Book)?;
        self.idle.lock().remove(&request.name);
        let _turn = self.clone().clear_soon(&request.name, turn).await?;
        let since = Instant::now();
        loop {
            match self.cluster.delete_volume(&request.name).await {
                Ok(()) | Err(OperatorError::NotFound(_)) => return Ok(Answer::default()),
                Err(OperatorError::Refused(_)) if since.elapsed() < DELETE_PATIENCE => sleep(DELETE_PAUSE).await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// # Errors
    /// The mount failed, or the use could not be written down; it is not used then.
    pub(super) async fn mount(&self, request: &Request) -> Result<Answer, DriverError> {
        let place = self.place(&request.name)?;
        let _turn = self.turn(&request.name).await;
        let (was_used, was_known) = {
            let book = self.book.lock();
            (book.is_used(&request.name), book.uses_with(&request.name, &request.id).is_some())
        };
        if self.book.lock().is_taken(&request.name, &request.id) {
            return Err(DriverError::ForOne(request.name.clone()));
        }
        // While it is used that cannot change, and the cluster may be away.
        let is_for_one = !was_used && self.cluster.volume(&request.name).await?.0.policy.access == Access::Container;
        self.book.lock().add(&request.name, &request.id, is_for_one).map_err(DriverError::Book)?;
        self.idle.lock().remove(&request.name);
        if let Err(error) = self.host.mount(&request.name, &place).await {
            // A use that is there stays: the call may be made again by a container that goes on.
            if !was_known {
                self.book.lock().remove(&request.name, &request.id).map_err(DriverError::Book)?;
            }
            return Err(error.into());
        }
        Ok(Answer { mountpoint: Some(place.display().to_string()), ..Answer::default() })
    }

    /// Ends one use, and with the last the mount. A use that is not known has ended.
    ///
    /// # Errors
    /// It could not be unmounted, or is still being: somebody in this host's own namespace uses it, or the cluster is away.
    pub(super) async fn unmount(self: Arc<Self>, request: &Request) -> Result<Answer, DriverError> {
        self.place(&request.name)?;
        let turn = self.turn(&request.name).await;
        let uses = self.book.lock().uses_with(&request.name, &request.id);
        let users = self.users(&request.name).await?;
        // Docker says that a use has ended, by the name that the container's has, when it has copied something into it.
        if uses.is_some_and(|uses| users >= uses) {
            return Ok(Answer::default());
        }
        self.book.lock().remove(&request.name, &request.id).map_err(DriverError::Book)?;
        if users > 0 || self.book.lock().is_used(&request.name) {
            return Ok(Answer::default());
        }
        self.clear_soon(&request.name, turn).await.map(|_| Answer::default())
    }

    /// As [`Driver::clear`], which goes on when it takes longer than Docker waits, or nobody waits for it.
    async fn clear_soon(
        self: Arc<Self>,
        volume: &str,
        turn: OwnedMutexGuard<()>,
    ) -> Result<OwnedMutexGuard<()>, DriverError> {
        let (driver, name) = (self, volume.to_string());
        let clearing = tokio::spawn(async move { driver.clear(&name, turn).await });
        match timeout(UNMOUNT_PATIENCE, clearing).await {
            Ok(Ok(cleared)) => cleared,
            // It cannot panic but with the process.
            Ok(Err(_)) | Err(_) => Err(DriverError::Unfinished(volume.to_string())),
        }
    }

    /// Unmounts a volume that is in use no longer. Its turn is given back.
    async fn clear(&self, volume: &str, turn: OwnedMutexGuard<()>) -> Result<OwnedMutexGuard<()>, DriverError> {
        let place = self.mounts.join(volume);
        self.host.unmount(&place).await?;
        // Only an empty one goes, and one that stays does no harm.
        let _ = fs::remove_dir(&place);
        Ok(turn)
    }

    /// # Errors
    /// It is no name of a volume.
    pub(super) fn path(&self, request: &Request) -> Result<Answer, DriverError> {
        let place = self.place(&request.name)?;
        Ok(Answer { mountpoint: Some(self.mountpoint(&request.name, &place)), ..Answer::default() })
    }

    /// # Errors
    /// There is none, or the cluster does not answer and the volume is not mounted here.
    pub(super) async fn get(&self, request: &Request) -> Result<Answer, DriverError> {
        let place = self.place(&request.name)?;
        let mountpoint = self.mountpoint(&request.name, &place);
        let answer = |status| {
            let volume = VolumeAnswer { name: request.name.clone(), mountpoint: mountpoint.clone(), status };
            Ok(Answer { volume: Some(volume), ..Answer::default() })
        };
        let asking = self.cluster.volume(&request.name);
        if mountpoint.is_empty() {
            let (volume, usage) = asking.await?;
            return answer(status(&volume, &usage));
        }
        match timeout(LOOK_PATIENCE, asking).await {
            Ok(Ok((volume, usage))) => answer(status(&volume, &usage)),
            Ok(Err(OperatorError::Away(_))) | Err(_) => answer([("cluster", "does not answer".to_string())].into()),
            Ok(Err(error)) => Err(error.into()),
        }
    }

    /// # Errors
    /// The cluster does not answer.
    pub(super) async fn list(&self) -> Result<Answer, DriverError> {
        let volumes = self.cluster.volumes().await?;
        let answer = |(volume, _): &(Volume, VolumeUsage)| VolumeAnswer {
            mountpoint: self.mountpoint(&volume.name, &self.mounts.join(&volume.name)),
            name: volume.name.clone(),
            ..VolumeAnswer::default()
        };
        Ok(Answer { volumes: Some(volumes.iter().map(answer).collect()), ..Answer::default() })
    }

    /// Where it is mounted; nothing where it is not.
    fn mountpoint(&self, volume: &str, place: &Path) -> String {
        if self.host.has(volume, place) { place.display().to_string() } else { String::new() }
    }

    fn place(&self, volume: &str) -> Result<PathBuf, DriverError> {
        NewVolume::named(volume).check().map_err(DriverError::Name)?;
        Ok(self.mounts.join(volume))
    }

    async fn turn(&self, volume: &str) -> OwnedMutexGuard<()> {
        self.turn_of(volume).lock_owned().await
    }

    fn turn_of(&self, volume: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock();
        // Those that nobody waits for or has are made anew.
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        turns.entry(volume.to_string()).or_default().clone()
    }
}

fn status(volume: &Volume, usage: &VolumeUsage) -> std::collections::BTreeMap<&'static str, String> {
    let policy = &volume.policy;
    let size = if policy.quota_bytes == 0 { "none".to_string() } else { ByteSize(policy.quota_bytes).to_string() };
    [
        ("access", policy.access.name().to_string()),
        ("replicas", policy.replicas.to_string()),
        ("size", size),
        ("usedBytes", usage.allocated_bytes.to_string()),
        ("inodes", usage.inodes.to_string()),
    ]
    .into()
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::fs::{File, OpenOptions};
    use std::os::fd::AsRawFd;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::host::bind::unbind;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A mount as ours are, of which nobody answers for; what keeps it. Needs the right to mount.
    fn mount(volume: &str, place: &Path) -> Option<File> {
        fs::create_dir_all(place).unwrap();
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").ok()?;
        let text = |text: &str| CString::new(text).unwrap();
        let (source, kind) = (text(&format!("a:1:/{volume}")), text("fuse.holdfast"));
        let target = CString::new(place.as_os_str().as_bytes()).unwrap();
        let data = text(&format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd()));
        let (source, kind, data) = (source.as_ptr(), kind.as_ptr(), data.as_ptr().cast());
        // SAFETY: NUL-terminated strings that live through the call.
        (unsafe { libc::mount(source, target.as_ptr(), kind, 0, data) } == 0).then_some(device)
    }

    async fn wait_for(condition: impl Fn() -> bool) -> bool {
        let since = Instant::now();
        while !condition() && since.elapsed() < PATIENCE {
            sleep(Duration::from_millis(10)).await;
        }
        condition()
    }

    #[tokio::test]
    async fn a_volume_that_waits_to_be_unmounted_holds_up_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let [one, two] = ["one", "two"].map(|volume| root.join("mounts").join(volume));
        let Some(_devices) = mount("one", &one).and_then(|device| Some((device, mount("two", &two)?))) else { return };
        let (program, begun) = (root.join("umount"), |volume: &str| root.join(format!("{volume}.begun")).exists());
        // The first waits until there is a file, or the test has ended; neither unmounts anything.
        let waiting = "case $1 in */one) while [ -d mounts ] && [ ! -e go ]; do sleep 0.02; done;; esac";
        let begins = format!("cd {} && touch $(basename $1).begun; {waiting}", root.display());
        fs::write(&program, format!("#!/bin/sh\n{begins}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        let mounter = Mounter::by_program(program, root.join("credential"), &root);
        let driver = Driver::start(Operator::of_nobody(), Vec::new(), mounter, &root, Duration::from_secs(1)).unwrap();
        let are_begun = wait_for(|| begun("one") && begun("two")).await;
        fs::write(root.join("go"), "").unwrap();
        for place in [&one, &two] {
            unbind(place).unwrap();
        }
        drop(driver);
        assert!(are_begun, "one: {}, two: {}", begun("one"), begun("two"));
    }
}
