//! One errand at a time for each place: a program that makes a mount there or ends it, and may outlive who has sent it.
//!
//! A call is given up, and the process that made it killed, while its program goes on: a mount is half made, or just about to go. Who comes
//! next would find it mounted, or not, and be wrong a moment later. So it waits until the program has ended, and looks then.
//!
//! Nothing is noted of that: the program has open what it says on standard error, a file that is locked (flock(2)) for as long as anybody
//! has it open. A mount that has gone to the background has let go of it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::HEXLOWER;
use tokio::time::sleep;

use crate::types::digest::fingerprint;

/// Between two looks whether the one before has ended.
const PAUSE: Duration = Duration::from_millis(20);
/// Of what a program says so much is read.
const SAID_BYTES_MAX: u64 = 64 << 10;

/// Nobody else's program runs for the place, until this and the program's own standard error are closed.
#[derive(Debug)]
pub(super) struct Errand {
    file: File,
    path: PathBuf,
}

impl Errand {
    /// Waits for the end of the one before, however long that takes. `dir` is for the files.
    ///
    /// # Errors
    /// There can be no file.
    pub async fn begin(dir: &Path, place: &Path) -> io::Result<Errand> {
        fs::create_dir_all(dir)?;
        let path = dir.join(HEXLOWER.encode(&fingerprint(place.as_os_str().as_bytes())));
        loop {
            let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path)?;
            match file.try_lock() {
                Ok(()) if is_at(&file, &path)? => return Ok(Errand { file, path }),
                // The one before has ended, and has just taken its file away.
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => sleep(PAUSE).await,
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    /// For the standard error of a program.
    ///
    /// # Errors
    /// The host gives no descriptor.
    pub fn standard_error(&self) -> io::Result<File> {
        self.file.set_len(0)?;
        self.file.try_clone()
    }

    /// What the program has said, which has ended.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn said(&self) -> io::Result<String> {
        let mut said = Vec::new();
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0))?;
        file.take(SAID_BYTES_MAX).read_to_end(&mut said)?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    }

    /// All has ended. What is dropped instead may have left a program that runs, and is waited for.
    pub fn end(self) {
        // Whoever waits for it looks whether it is still there.
        let _ = fs::remove_file(&self.path);
    }
}

fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_program_that_runs_is_waited_for_though_nobody_else_knows_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let begin = |place: &'static str| Errand::begin(dir.path(), Path::new(place));
        let errand = begin("/a").await.unwrap();
        let mut program = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(errand.standard_error().unwrap())
            .spawn()
            .unwrap();
        // As when the process is killed.
        drop(errand);
        begin("/b").await.unwrap().end();
        let waiting = begin("/a");
        tokio::pin!(waiting);
        assert!(timeout(Duration::from_millis(100), waiting.as_mut()).await.is_err());
        drop(program.stdin.take());
        let errand = waiting.await.unwrap();
        assert_eq!(program.try_wait().unwrap().map(|status| status.success()), Some(true));
        errand.end();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn who_waited_for_a_file_that_is_gone_has_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let begin = || Errand::begin(dir.path(), Path::new("/a"));
        let first = begin().await.unwrap();
        let second = tokio::spawn({
            let dir = dir.path().to_owned();
            async move { Errand::begin(&dir, Path::new("/a")).await }
        });
        tokio::task::yield_now().await;
        first.end();
        let second = second.await.unwrap().unwrap();
        assert!(timeout(Duration::from_millis(50), begin()).await.is_err());
        second.end();
        begin().await.unwrap();
    }

    #[tokio::test]
    async fn what_a_program_says_is_what_the_last_one_said() {
        let dir = tempfile::tempdir().unwrap();
        let errand = Errand::begin(dir.path(), Path::new("/a")).await.unwrap();
        for text in ["a longer first word", "second"] {
            let mut program = Command::new("sh");
            let script = format!("echo {text} >&2");
            program.args(["-c", &script]).stderr(errand.standard_error().unwrap()).status().unwrap();
            assert_eq!(errand.said().unwrap(), format!("{text}\n"));
        }
    }
}
