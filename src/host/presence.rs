//! That the process of a mount is still there: it has things to end when its mount is gone, and the next may have to wait for that.
//!
//! While it lives it holds the lock of a file named after the mount's device, which no two mounts share. Best effort: where there is
//! no `/run` in common nobody waits.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::lock::{FileLock, LockError};

const DIR: &str = "/run/holdfast";
const LOOK_PERIOD: Duration = Duration::from_millis(10);

/// Held by the process of a mount until it ends.
#[derive(Debug)]
pub struct Presence {
    path: PathBuf,
    _lock: FileLock,
}

impl Presence {
    /// # Errors
    /// The file cannot be made, or another process holds it.
    pub fn of(device: (u32, u32)) -> io::Result<Presence> {
        Presence::held(path_of(Path::new(DIR), device))
    }

    fn held(path: PathBuf) -> io::Result<Presence> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        match FileLock::take(&path) {
            Ok(_lock) => Ok(Presence { path, _lock }),
            Err(LockError::Held(_)) => Err(io::Error::new(io::ErrorKind::ResourceBusy, "another process holds it")),
            Err(LockError::Io(error)) => Err(error),
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        // Whoever waits has it open, or finds that it is not there.
        let _ = fs::remove_file(&self.path);
    }
}

/// Waits until the process of the mount on this device has ended, but not longer than so.
pub fn wait_until_gone(device: (u32, u32), patience: Duration) {
    wait_for(&path_of(Path::new(DIR), device), patience);
}

fn wait_for(path: &Path, patience: Duration) {
    let until = Instant::now() + patience;
    while path.exists() && matches!(FileLock::take(path), Err(LockError::Held(_))) && Instant::now() < until {
        thread::sleep(LOOK_PERIOD);
    }
}

fn path_of(dir: &Path, (major, minor): (u32, u32)) -> PathBuf {
    dir.join(format!("mount-{major}-{minor}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_goes_on_when_the_process_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let path = path_of(&dir.path().join("run"), (0, 52));
        let held = Presence::held(path.clone()).unwrap();
        assert!(Presence::held(path.clone()).is_err());
        let before = Instant::now();
        wait_for(&path, Duration::from_millis(50));
        assert!(before.elapsed() >= Duration::from_millis(50), "it is still there");
        let waiting = thread::spawn({
            let path = path.clone();
            move || wait_for(&path, Duration::from_secs(60))
        });
        drop(held);
        waiting.join().unwrap();
        assert!(!path.exists());
        wait_for(&path, Duration::from_secs(60));
        drop(Presence::held(path).unwrap());
    }
}
