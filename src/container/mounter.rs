//! Mounts that are made for containers and live on without whoever made them.
//!
//! Each is a process of its own with a keeper, started as an operator would start it, by `holdfast mount`; what is there is read off
//! the kernel's table, and nothing is remembered. A mount is on its directory or is not: a call that is made again finds what the one
//! before has done.

use std::fs;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::host::bind::unbind;
use crate::host::mountinfo::{MountEntry, is_dead, mounted_at, mounts_of};
use crate::keeper::service;

/// What `holdfast mount` ends with when the cluster has no such volume: mount(8)'s code for what cannot be mounted, which nothing else here
/// ends with.
pub const NO_VOLUME: u8 = 32;
/// A mount that does not say soon whether anybody is there waits for the cluster: somebody is.
const LOOK_PATIENCE: Duration = Duration::from_secs(1);

/// Makes and ends mounts of one cluster's volumes.
#[derive(Clone, Debug)]
pub struct Mounter {
    by: By,
    /// What the mounts show for who they are.
    credential: PathBuf,
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
    /// # Errors
    /// The program that runs cannot be found.
    pub fn new(credential: PathBuf) -> io::Result<Mounter> {
        Ok(Mounter::by_program(std::env::current_exe()?, credential))
    }

    /// One that has them made by another program, which is called as this one is.
    pub fn by_program(program: PathBuf, credential: PathBuf) -> Mounter {
        Mounter { by: By::Program(program), credential }
    }

    /// One that has them made by the service on a socket ([`service`]).
    pub fn by_service(socket: PathBuf, credential: PathBuf) -> Mounter {
        Mounter { by: By::Service(socket), credential }
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
        match mounted(dir)? {
            Some(entry) if entry.is_ours() && is_gone(dir).await => {
                tracing::warn!(dir = %dir.display(), "a mount whose process is gone is taken away");
                self.detach(dir).await?;
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
        self.run(words).await
    }

    /// Has nothing mounted on `dir`: what was written is durable then, and the volume is free for others.
    ///
    /// # Errors
    /// It is in use, or could not be made durable; it is as before then.
    pub async fn unmount(&self, dir: &Path) -> Result<(), MountFailure> {
        let Some(entry) = mounted(dir)? else { return Ok(()) };
        if !entry.is_ours() {
            return Err(MountFailure::Taken { path: dir.to_path_buf(), source_name: entry.source });
        }
        self.run(vec!["umount".into(), dir.display().to_string()]).await
    }

    /// Has nothing mounted on `dir`, whatever was written: nobody will read it. Waits for nothing. What is mounted elsewhere too goes from
    /// here alone: somebody reads it there.
    ///
    /// # Errors
    /// It could not be unmounted.
    pub async fn discard(&self, dir: &Path) -> Result<(), MountFailure> {
        let Some(entry) = mounted(dir)? else { return Ok(()) };
        if mounts_of(entry.device).map_err(|error| host(dir, error))?.len() > 1 {
            return unbind(dir).map_err(|error| host(dir, error));
        }
        self.run(vec!["umount".into(), dir.display().to_string(), "-fl".into()]).await
    }

    /// Takes a mount out of the tree, whoever uses it.
    async fn detach(&self, dir: &Path) -> Result<(), MountFailure> {
        self.run(vec!["umount".into(), dir.display().to_string(), "-l".into()]).await
    }

    /// Does as the words say: `mount …` as an operator would, `umount …` as umount(8) calls its helper. A mount goes to the background, and
    /// lets go of what it has of this process.
    async fn run(&self, words: Vec<String>) -> Result<(), MountFailure> {
        let (code, said) = match &self.by {
            By::Program(program) => started(program, &words).await.map_err(|error| host(program, error))?,
            By::Service(socket) => asked_for(socket, words).await.map_err(|error| host(socket, error))?,
        };
        if code == 0 {
            return Ok(());
        }
        let said = said.trim().lines().last().unwrap_or_default();
        let said = said.split_once("holdfast: ").map_or(said, |(_, said)| said);
        let said = if said.is_empty() { format!("the mount has ended with {code}") } else { said.into() };
        match code == i32::from(NO_VOLUME) {
            true => Err(MountFailure::NoVolume(said)),
            false => Err(MountFailure::Refused(said)),
        }
    }
}

/// How a program ended, and what it has said.
async fn started(program: &Path, words: &[String]) -> io::Result<(i32, String)> {
    let mut command = Command::new(program);
    match words {
        [umount, rest @ ..] if umount == "umount" => command.arg0("umount.holdfast").args(rest),
        words => command.args(words),
    };
    let ran = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output().await?;
    Ok((ran.status.code().unwrap_or(128), String::from_utf8_lossy(&ran.stderr).into_owned()))
}

async fn asked_for(socket: &Path, words: Vec<String>) -> io::Result<(i32, String)> {
    let socket = socket.to_path_buf();
    let (mut reader, writer) = io::pipe()?;
    let asking = tokio::task::spawn_blocking(move || service::ask(&socket, &words, writer.as_fd()));
    let listening = tokio::task::spawn_blocking(move || {
        let mut said = Vec::new();
        reader.read_to_end(&mut said).map(|_| String::from_utf8_lossy(&said).into_owned())
    });
    let code = asking.await.map_err(io::Error::other)??;
    Ok((code, listening.await.map_err(io::Error::other)??))
}

/// What is on top at `dir`.
///
/// # Errors
/// The kernel's table cannot be read.
pub fn mounted(dir: &Path) -> Result<Option<MountEntry>, MountFailure> {
    mounted_at(dir).map_err(|error| host(dir, error))
}

/// A mount is there, and its process is not.
pub async fn is_gone(dir: &Path) -> bool {
    let dir = dir.to_path_buf();
    let looked = timeout(LOOK_PATIENCE, tokio::task::spawn_blocking(move || is_dead(&dir))).await;
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
        Mounter::by_program(program, "/c".into())
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
}
