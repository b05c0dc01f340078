//! That the process of a mount is still there: it has things to end when its mount is gone, and the next may have to wait for that.
//!
//! While it lives it holds the lock of a file named after the mount's device and itself. A device's number is given again while a process
//! still ends, so a device may have several for a moment. Best effort: where there is no `/run` in common nobody waits.

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
    /// The file cannot be made.
    pub fn of(device: (u32, u32)) -> io::Result<Presence> {
        Presence::held(Path::new(DIR), device, std::process::id())
    }

    fn held(dir: &Path, device: (u32, u32), pid: u32) -> io::Result<Presence> {
        fs::create_dir_all(dir)?;
        // What killed processes have left.
        of_device(dir, device).into_iter().filter(|path| !is_held(path)).for_each(|path| drop(fs::remove_file(path)));
        let path = dir.join(format!("{}{pid}", prefix(device)));
        match FileLock::take(&path) {
            Ok(_lock) => Ok(Presence { path, _lock }),
            Err(LockError::Held(_)) => Err(io::ErrorKind::ResourceBusy.into()),
            Err(LockError::Io(error)) => Err(error),
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        // Whoever waits finds that it is not there.
        let _ = fs::remove_file(&self.path);
    }
}

/// Waits until the processes of the mounts on this device have ended, but not longer than so. `false`: they have not.
pub fn are_gone_within(device: (u32, u32), patience: Duration) -> bool {
    are_gone_in(Path::new(DIR), device, patience)
}

fn are_gone_in(dir: &Path, device: (u32, u32), patience: Duration) -> bool {
    let until = Instant::now() + patience;
    while of_device(dir, device).iter().any(|path| is_held(path)) {
        if Instant::now() >= until {
            return false;
        }
        thread::sleep(LOOK_PERIOD);
    }
    true
}

fn of_device(dir: &Path, device: (u32, u32)) -> Vec<PathBuf> {
    let prefix = prefix(device);
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)).map(|entry| entry.path()).collect()
}

fn is_held(path: &Path) -> bool {
    path.exists() && matches!(FileLock::take(path), Err(LockError::Held(_)))
}

fn prefix((major, minor): (u32, u32)) -> String {
    format!("mount-{major}-{minor}.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_goes_on_when_the_process_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        let held = Presence::held(&run, (0, 52), 7).unwrap();
        // The next has the number of the device already.
        let next = Presence::held(&run, (0, 52), 8).unwrap();
        assert!(!are_gone_in(&run, (0, 52), Duration::from_millis(50)), "they are still there");
        assert!(are_gone_in(&run, (0, 5), Duration::from_secs(60)));
        drop(next);
        let waiting = thread::spawn({
            let run = run.clone();
            move || are_gone_in(&run, (0, 52), Duration::from_secs(60))
        });
        drop(held);
        assert!(waiting.join().unwrap());
        assert_eq!(of_device(&run, (0, 52)), Vec::<PathBuf>::new());
    }

    #[test]
    fn what_a_killed_process_has_left_is_nobody() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("mount-0-52.7"), "").unwrap();
        assert!(are_gone_in(dir.path(), (0, 52), Duration::from_secs(60)));
        let _held = Presence::held(dir.path(), (0, 52), 8).unwrap();
        assert_eq!(of_device(dir.path(), (0, 52)).len(), 1);
    }
}
