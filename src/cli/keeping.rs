//! A mount that is kept: what its process has of the one before it, and leaves to the next.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::cli::failure::{Context, Failure, Outcome};
use crate::client::kept::Kept;
use crate::client::memory::log_bytes;
use crate::fuse::session::Mount;
use crate::host::facts::mounts_outlive_processes;
use crate::keeper::{Found, Ward};

/// What the kernel's requests are read from.
const DEVICE: &str = "device";
/// What the client leaves to the next.
const CLIENT: &str = "client";

/// This process has a keeper.
pub struct Keeping {
    ward: Ward,
    pub kept: Arc<Kept>,
    device: Mutex<Option<Vec<OwnedFd>>>,
    goes_on: bool,
    is_trial: bool,
}

impl Keeping {
    /// `None`: nobody keeps this process's mount. `memory_bytes`: what the mount may take. To be called before there are threads.
    ///
    /// # Errors
    /// The keeper cannot be understood, or what it has kept is of another version.
    pub fn find(memory_bytes: u64) -> Outcome<Option<Arc<Keeping>>> {
        let found = Ward::find().or_fail(|| "the keeper of this mount".to_string())?;
        let Some(Found { ward, mut inherited, is_trial }) = found else { return Ok(None) };
        if !mounts_outlive_processes() && !is_trial {
            // Whoever waited for an answer would wait for ever; with nothing kept the keeper ends as this process does.
            tracing::warn!("this kernel is too old for the mount to outlive this process");
            return Ok(None);
        }
        let device = inherited.remove(DEVICE);
        let left = inherited.remove(CLIENT).and_then(|mut files| files.pop()).filter(|_| device.is_some());
        let is_left = left.is_some();
        let kept = match left {
            // Who has it writes to it still.
            Some(left) if is_trial => Kept::check(left).map(|()| None),
            Some(left) => Kept::left_behind(left).map(Some),
            None => Ok(None),
        };
        let kept = kept.or_fail(|| "what the client before left".to_string())?;
        let goes_on = is_trial && is_left || kept.as_ref().is_some_and(|kept| kept.standing().is_some());
        let device = device.filter(|_| goes_on);
        let kept = match kept {
            Some(kept) => kept,
            None => {
                Kept::new(log_bytes(memory_bytes)).or_fail(|| "nothing can be left to the next client".to_string())?
            }
        };
        Ok(Some(Arc::new(Keeping { ward, kept: Arc::new(kept), device: Mutex::new(device), goes_on, is_trial })))
    }

    /// Whether this process is only to say if it could go on with the mount. `true`: it has said so, and nothing is left to be done.
    ///
    /// # Errors
    /// There is no mount to go on with, or the keeper is gone.
    pub fn was_a_trial(&self) -> Outcome<bool> {
        if self.is_trial {
            if !self.goes_on {
                return Err(Failure::new("there is no mount to go on with"));
            }
            self.ward.fits().or_fail(|| "the keeper of this mount".to_string())?;
        }
        Ok(self.is_trial)
    }

    /// What the process before served, to be gone on with.
    pub fn device(&self) -> Option<Vec<OwnedFd>> {
        self.device.lock().take()
    }

    /// There is a mount to go on with.
    pub fn goes_on(&self) -> bool {
        self.goes_on
    }

    /// Has a mount that was just made kept.
    ///
    /// # Errors
    /// The keeper is gone.
    pub fn keep(&self, mount: &mut Mount) -> io::Result<()> {
        self.ward.keep(CLIENT, &[self.kept.file()])?;
        let device = mount.descriptors();
        self.ward.keep(DEVICE, &device.iter().map(AsFd::as_fd).collect::<Vec<_>>())
    }

    /// It is mounted, and signals are heard.
    pub fn hears(&self) {
        self.ward.hears();
    }

    /// Nobody is to follow this process.
    pub fn is_done(&self) {
        self.ward.is_done();
    }

    /// The mount cannot be left to another process now.
    pub fn refuses(&self, why: &str) {
        tracing::warn!(why, "the mount is not left to another process");
        self.ward.refuses(why);
    }

    /// Told each time that the mount is to be left to another process.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn calls(self: &Arc<Self>) -> Outcome<mpsc::Receiver<()>> {
        let (call, calls) = mpsc::channel(1);
        let keeping = self.clone();
        let listen = move || while keeping.ward.is_to_leave() && call.blocking_send(()).is_ok() {};
        let listening = thread::Builder::new().name("keeper".into()).spawn(listen);
        listening.or_fail(|| "the keeper of this mount cannot be listened to".to_string())?;
        Ok(calls)
    }
}
