//! Mounts that are made for containers and live on without whoever made them.
//!
//! Each is a process of its own with a keeper, started as an operator would start it, by `holdfast mount`; what is there is read off
//! the kernel's table, and nothing is remembered. A mount is on its directory or is not: a call that is made again finds what the one
//! before has done, and waits for what it has begun, also when who made it is dead (`errand`).

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::errand::Errand;
use crate::host::bind::unbind;
use crate::host::mountinfo::{MountEntry, has_ended, mounted_at, mounts_of};
use crate::keeper::service;

/// What `holdfast mount` ends with when the cluster has no such volume: mount(8)'s code for what cannot be mounted, which nothing else here
/// ends with.
pub const NO_VOLUME: u8 = 32;
/// A mount that does not say soon whether anybody is there waits for the cluster: somebody is.
const LOOK_PATIENCE: Duration = Duration::from_secs(1);
/// Where it is noted, below the directory of who asks, which mounts are being made or ended.
const ERRANDS: &str = "errands";

/// Makes and ends mounts of one cluster's volumes.
#[derive(Clone, Debug)]
pub struct Mounter {
    by: By,
    /// What the mounts show for who they are.
    credential: PathBuf,
    errands: PathBuf,
}

/// Who starts the processes of mounts.
#[derive(Clone, Debug)]
enum By {
    /// This program, by its path.
    Program(PathBuf),
    /// The service on a socket: this process is in a container that they outlive.
    Service(PathBuf),
}

/// Why a mount was not made, or not ended; each is one sentence.
#[derive(Debug, thiserror::Error)]
pub enum MountFailure {
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    NoVolume(String),
    #[error("{path} is taken: {source_name} is mounted there")]
    Taken { path: PathBuf, source_name: String },
    #[error("{path}: {error}")]
    Host { path: PathBuf, error: io::Error },
}

impl Mounter {
    /// `dir` is what who asks has for itself, and finds again when it is started anew.
    ///
    /// # Errors
    /// The program that runs cannot be found.
    pub fn new(credential: PathBuf, dir: &Path) -> io::Result<Mounter> {
        Ok(Mounter::by_program(std::env::current_exe()?, credential, dir))
    }

    /// One that has them made by another program, which is called as this one is.
    pub fn by_program(program: PathBuf, credential: PathBuf, dir: &Path) -> Mounter {
        Mounter { by: By::Program(program), credential, errands: dir.join(ERRANDS) }
    }

    /// One that has them made by the service on a socket ([`service`]).
    pub fn by_service(socket: PathBuf, credential: PathBuf, dir: &Path) -> Mounter {
        Mounter { by: By::Service(socket), credential, errands: dir.join(ERRANDS) }
    }

    /// The same, for mounts that show another credential.
    pub fn with_credential(&self, credential: PathBuf) -> Mounter {
        Mounter { credential, ..self.clone() }
    }

    /// Has `volume` mounted on `dir`, which is made if need be. `metas` are the servers to ask, `options` those of the mount.
    ///
    /// # Errors
    /// Something else is mounted there, or the mount failed; what it said.
    pub async fn mount(
        &self,
        metas: &[String],
        volume: &str,
        dir: &Path,
        options: &[String],
    ) -> Result<(), MountFailure> {
        let errand = self.errand(dir).await?;
        let done = self.mounted_by(&errand, metas, volume, dir, options).await;
        ended(errand, done)
    }

    async fn mounted_by(
        &self,
        errand: &Errand,
        metas: &[String],
        volume: &str,
        dir: &Path,
        options: &[String],
    ) -> Result<(), MountFailure> {
        match mounted(dir)? {
            Some(entry) if entry.is_ours() && is_gone(dir).await => {
                tracing::warn!(dir = %dir.display(), "a mount that has ended is taken away");
                // Out of the tree, whoever uses it.
                self.run(errand, vec!["umount".into(), dir.display().to_string(), "-l".into()]).await?;
            }
            Some(entry) if entry.is_volume(volume) => return Ok(()),
            Some(entry) => return Err(MountFailure::Taken { path: dir.to_path_buf(), source_name: entry.source }),
            None => {}
        }
        fs::create_dir_all(dir).map_err(|error| host(dir, error))?;
        let (dir, credential) = (dir.display().to_string(), self.credential.display().to_string());
        let mut words = vec!["mount".into(), metas.join(","), volume.into(), dir, "--credential".into(), credential];
        if !options.is_empty() {
            words.extend(["-o".to_string(), options.join(",")]);
        }
        self.run(errand, words).await
    }

    /// Has nothing mounted on `dir`: what was written is durable then, and the volume is free for others. Who has a copy of this host's mounts
    /// for itself, as what watches over hosts does, has none of it any more.
    ///
    /// # Errors
    /// It is in use, or could not be made durable; it is as before then.
    pub async fn unmount(&self, dir: &Path) -> Result<(), MountFailure> {
        let errand = self.errand(dir).await?;
        let done = match mounted(dir)? {
            None => Ok(()),
            Some(entry) if entry.is_ours() => {
                self.run(&errand, vec!["umount".into(), dir.display().to_string(), "-e".into()]).await
            }
            Some(entry) => Err(MountFailure::Taken { path: dir.to_path_buf(), source_name: entry.source }),
        };
        ended(errand, done)
    }

    /// Has nothing mounted on `dir`, whatever was written: nobody will read it. Waits for nothing but what was begun before. What is mounted
    /// elsewhere too goes from here alone: somebody reads it there.
    ///
    /// # Errors
    /// It could not be unmounted.
    pub async fn discard(&self, dir: &Path) -> Result<(), MountFailure> {
        let errand = self.errand(dir).await?;
        let done = match mounted(dir)? {
            None => Ok(()),
            Some(entry) if mounts_of(entry.device).map_err(|error| host(dir, error))?.len() > 1 => {
                unbind(dir).map_err(|error| host(dir, error))
            }
            Some(_) => self.run(&errand, vec!["umount".into(), dir.display().to_string(), "-fl".into()]).await,
        };
        ended(errand, done)
    }

    async fn errand(&self, dir: &Path) -> Result<Errand, MountFailure> {
        Errand::begin(&self.errands, dir).await.map_err(|error| host(&self.errands, error))
    }

    /// Does as the words say: `mount …` as an operator would, `umount …` as umount(8) calls its helper. A mount goes to the background, and
    /// lets go of what it has of this process.
    async fn run(&self, errand: &Errand, words: Vec<String>) -> Result<(), MountFailure> {
        let said_to = errand.standard_error().map_err(|error| host(&self.errands, error))?;
        let code = match &self.by {
            By::Program(program) => started(program, &words, said_to).await.map_err(|error| host(program, error))?,
            By::Service(socket) => asked_for(socket, words, said_to).await.map_err(|error| host(socket, error))?,
        };
        if code == 0 {
            return Ok(());
        }
        let said = errand.said().map_err(|error| host(&self.errands, error))?;
        let said = said.trim().lines().last().unwrap_or_default();
        let said = said.split_once("holdfast: ").map_or(said, |(_, said)| said);
        let said = if said.is_empty() { format!("the mount has ended with {code}") } else { said.into() };
        match code == i32::from(NO_VOLUME) {
            true => Err(MountFailure::NoVolume(said)),
            false => Err(MountFailure::Refused(said)),
        }
    }
}

/// What the host has failed at may have left a program that runs.
fn ended(errand: Errand, done: Result<(), MountFailure>) -> Result<(), MountFailure> {
    if !matches!(done, Err(MountFailure::Host { .. })) {
        errand.end();
    }
    done
}

/// How a program ended. It goes on when nobody waits for it any more.
async fn started(program: &Path, words: &[String], said_to: File) -> io::Result<i32> {
    let mut command = Command::new(program);
    match words {
        [umount, rest @ ..] if umount == "umount" => command.arg0("umount.holdfast").args(rest),
        words => command.args(words),
    };
    let ran = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said_to).status().await?;
    Ok(ran.code().unwrap_or(128))
}

async fn asked_for(socket: &Path, words: Vec<String>, said_to: File) -> io::Result<i32> {
    let socket = socket.to_path_buf();
    let asking = tokio::task::spawn_blocking(move || service::ask(&socket, &words, said_to.as_fd()));
    asking.await.map_err(io::Error::other)?
}

/// What is on top at `dir`.
///
/// # Errors
/// The kernel's table cannot be read.
pub fn mounted(dir: &Path) -> Result<Option<MountEntry>, MountFailure> {
    mounted_at(dir).map_err(|error| host(dir, error))
}

/// A mount is there that will never be of use again: its process is gone, or another host has taken the volume over.
pub async fn is_gone(dir: &Path) -> bool {
    let dir = dir.to_path_buf();
    let looked = timeout(LOOK_PATIENCE, tokio::task::spawn_blocking(move || has_ended(&dir))).await;
    matches!(looked, Ok(Ok(true)))
}

fn host(path: &Path, error: io::Error) -> MountFailure {
    MountFailure::Host { path: path.to_path_buf(), error }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Stands in for the program: does as the script says.
    fn mounter(dir: &Path, script: &str) -> Mounter {
        let program = dir.join("program");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        Mounter::by_program(program, "/c".into(), dir)
    }

    #[tokio::test]
    async fn a_mount_is_asked_for_as_an_operator_would() {
        let dir = tempfile::tempdir().unwrap();
        let said = dir.path().join("said");
        let mounter = mounter(dir.path(), &format!("echo \"$@\" > {}", said.display()));
        let place = dir.path().join("a/b");
        let metas = ["a:1".to_string(), "b:2".to_string()];
        mounter.mount(&metas, "www", &place, &["ro".to_string()]).await.unwrap();
        let asked = format!("mount a:1,b:2 www {} --credential /c -o ro\n", place.display());
        assert_eq!(fs::read_to_string(said).unwrap(), asked);
        assert!(place.is_dir());
        mounter.unmount(&place).await.unwrap();
    }

    #[tokio::test]
    async fn what_went_wrong_is_passed_on() {
        let dir = tempfile::tempdir().unwrap();
        let refusing = mounter(dir.path(), "echo 'holdfast: there is no volume www' >&2; exit 1");
        let failure = refusing.mount(&[], "www", &dir.path().join("m"), &[]).await.unwrap_err();
        assert_eq!(failure.to_string(), "there is no volume www");
        assert!(matches!(failure, MountFailure::Refused(_)), "a sentence tells nothing but people");
        let missing = mounter(dir.path(), "echo 'holdfast: volume www cannot be mounted' >&2; exit 32");
        let failure = missing.mount(&[], "www", &dir.path().join("m"), &[]).await.unwrap_err();
        assert!(matches!(failure, MountFailure::NoVolume(_)), "{failure:?}");
        let mute = mounter(dir.path(), "exit 3");
        let failure = mute.mount(&[], "www", &dir.path().join("m"), &[]).await.unwrap_err();
        assert!(failure.to_string().contains('3'), "{failure}");
        let root = mute.mount(&[], "www", Path::new("/"), &[]).await.unwrap_err();
        assert!(matches!(root, MountFailure::Taken { .. }), "{root}");
        assert!(matches!(mute.unmount(Path::new("/")).await, Err(MountFailure::Taken { .. })));
    }

    /// The first call is given up while its program is at it; the second one's begins when that has ended.
    #[tokio::test]
    async fn what_a_call_has_begun_that_is_given_up_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (log, go) = (dir.path().join("log"), dir.path().join("go"));
        let script = format!(
            "echo begin >>{0}; until [ -e {1} ]; do sleep .01; done; echo end >>{0}",
            log.display(),
            go.display()
        );
        let mounter = mounter(dir.path(), &script);
        let place = dir.path().join("m");
        let logged = || fs::read_to_string(&log).unwrap_or_default();
        {
            let first = mounter.mount(&[], "www", &place, &[]);
            tokio::pin!(first);
            while logged().is_empty() {
                assert!(timeout(Duration::from_millis(10), first.as_mut()).await.is_err());
            }
        }
        let second = mounter.mount(&[], "www", &place, &[]);
        tokio::pin!(second);
        // So long a program needs to begin, on a busy machine too.
        assert!(timeout(Duration::from_millis(500), second.as_mut()).await.is_err());
        assert_eq!(logged(), "begin\n");
        fs::write(&go, "").unwrap();
        second.await.unwrap();
        assert_eq!(logged(), "begin\nend\nbegin\nend\n");
        assert_eq!(fs::read_dir(&mounter.errands).unwrap().count(), 0);
    }
}
