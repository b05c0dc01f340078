//! Raw block devices: a file that fills a volume, as a loop device.
//!
//! The file is called by the volume's name, which tells the kernel's list of loop devices whose a device is, also when the mount that it
//! was attached by is gone with a container. Which targets have a device is read off the table of mounts. Nothing is remembered.
//!
//! A device lives as long as the mount below it, which may be another than the one that is staged now, and of a cluster that has a volume of
//! the same name: the kernel knows of each on which mount it lies. One whose mount has ended is taken from its target when that is
//! published again, and let go of when no target has it. No device is read: that could not be ended while the cluster is away.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tonic::Status;

use super::node::host;
use super::spec::VolumeCapability;
use super::spec::volume_capability::AccessType;
use super::stats::space;
use crate::container::mounter::MountFailure;
use crate::host::bind::{bind, unbind};
use crate::host::loopdev::{self, Attached, How};
use crate::host::mountinfo::{MountEntry, mounted_at, mounts, mounts_of};

/// Before the name of the volume.
const FILE_PREFIX: &str = "holdfast-block-";
/// What the kernel shows of a file whose name is gone.
const DELETED: &str = " (deleted)";

/// For a look at a device whose cluster may be away.
const LOOK_PATIENCE: Duration = Duration::from_secs(1);

/// How a device is to be at a target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub read_only: bool,
    pub is_for_one: bool,
}

/// What a device of a volume's name lies on.
enum Whose {
    /// The volume, by this mount or another one.
    Ours,
    /// Another cluster's volume.
    Anothers,
    /// A mount that has ended.
    Nobodys,
}

/// Devices of a volume's name, without those of other clusters.
#[derive(Debug, Default)]
pub(super) struct Standing {
    ours: BTreeSet<u32>,
    /// Of mounts that have ended.
    ended: BTreeSet<u32>,
}

/// The one volume's file, and devices.
#[derive(Clone, Debug)]
pub(super) struct Block {
    file_name: String,
}

impl Block {
    pub fn of(volume: &str) -> Block {
        Block { file_name: format!("{FILE_PREFIX}{volume}") }
    }

    fn file(&self, staging: &Path) -> PathBuf {
        staging.join(&self.file_name)
    }

    /// Has the file there, as large as the volume, or as is asked for; never smaller than it was. How large it is then.
    ///
    /// # Errors
    /// The volume does not take it. `DirectoryNotEmpty`: it has files, and none of ours: somebody uses it as a filesystem.
    pub fn fill(&self, staging: &Path, at_least: u64) -> io::Result<u64> {
        let (path, mut options) = (self.file(staging), OpenOptions::new());
        options.read(true).write(true);
        let file = match options.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if fs::read_dir(staging)?.next().is_some() {
                    let why = "the volume has files: it is no block device";
                    return Err(io::Error::new(io::ErrorKind::DirectoryNotEmpty, why));
                }
                options.create(true).open(&path)?
            }
            opened => opened?,
        };
        let has = file.metadata()?.len();
        let wanted = space(staging)?.max(at_least);
        if wanted <= has {
            return Ok(has);
        }
        file.set_len(wanted)?;
        file.sync_all()?;
        Ok(wanted)
    }

    /// Has the file there, for a volume that is staged; perhaps again, with a device of it: then it waits for no cluster.
    ///
    /// # Errors
    /// The volume does not take it, or the kernel's list cannot be read.
    pub fn fill_unless_attached(&self, staging: &Path, standing: &Standing) -> io::Result<()> {
        if standing.ours.is_empty() { self.fill(staging, 0).map(drop) } else { Ok(()) }
    }

    /// What devices there are of that name, for the mount that is staged and well.
    ///
    /// # Errors
    /// A list of the kernel's cannot be read. `TimedOut`: it is not known whose a device is, as its cluster is away.
    pub async fn standing(&self, staged: &MountEntry) -> io::Result<Standing> {
        let mut standing = Standing::default();
        for device in self.devices()? {
            match self.whose(&device, staged).await? {
                Whose::Ours => standing.ours.insert(device.number),
                Whose::Nobodys => standing.ended.insert(device.number),
                Whose::Anothers => false,
            };
        }
        Ok(standing)
    }

    async fn whose(&self, device: &Attached, staged: &MountEntry) -> io::Result<Whose> {
        let number = device.number;
        let looking = timeout(LOOK_PATIENCE, spawn_blocking(move || loopdev::lies_on(number))).await;
        // A mount that has ended is out of the tree, and what lies on it has a shorter name.
        let is_at_hand = device.file == self.file(&staged.target);
        let Ok(looked) = looking else {
            let unknown = || io::Error::new(io::ErrorKind::TimedOut, "a device of this name does not tell whose it is");
            return if is_at_hand { Ok(Whose::Ours) } else { Err(unknown()) };
        };
        match looked.map_err(io::Error::other)? {
            Ok(on) if on == staged.device => Ok(Whose::Ours),
            Ok(on) => {
                let there = mounts_of(on)?;
                let is_same = |entry: &MountEntry| entry.source == staged.source;
                Ok(match there.is_empty() {
                    true => Whose::Nobodys,
                    false if there.iter().any(is_same) => Whose::Ours,
                    false => Whose::Anothers,
                })
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::EIO) if is_at_hand => Ok(Whose::Ours),
                Some(libc::EIO | libc::ENOTCONN | libc::ECONNABORTED) => Ok(Whose::Nobodys),
                // It was let go just now.
                Some(libc::ENXIO) => Ok(Whose::Anothers),
                _ => Err(error),
            },
        }
    }

    /// Takes those from the target, and lets go of the ones that no target has.
    fn take_away(&self, ended: &BTreeSet<u32>, target: &Path) -> io::Result<()> {
        while mounted_at(target)?.and_then(|entry| number_of(&entry)).is_some_and(|number| ended.contains(&number)) {
            unbind(target)?;
        }
        self.let_go(|device| ended.contains(&device.number))
    }

    /// Of those that no target has.
    fn let_go(&self, which: impl Fn(&Attached) -> bool) -> io::Result<()> {
        for device in self.devices()?.iter().filter(|device| which(device)) {
            if targets_of(std::slice::from_ref(device))?.is_empty() {
                loopdev::detach(device.number)?;
            }
        }
        Ok(())
    }

    /// # Errors
    /// The kernel's list cannot be read.
    pub fn devices(&self) -> io::Result<Vec<Attached>> {
        let is_ours = |device: &Attached| {
            let name = device.file.file_name().map(|name| name.to_string_lossy());
            name.is_some_and(|name| name.strip_suffix(DELETED).unwrap_or(&name) == self.file_name)
        };
        Ok(loopdev::attached()?.into_iter().filter(is_ours).collect())
    }

    /// The device that is found at a target.
    ///
    /// # Errors
    /// A list of the kernel's cannot be read.
    pub fn at(&self, target: &Path) -> io::Result<Option<Attached>> {
        let Some(entry) = mounted_at(target)? else { return Ok(None) };
        Ok(self.devices()?.into_iter().find(|device| is_of(&entry, device)))
    }

    /// Has the device at the target, which may have it already. `standing`: as was found just now.
    ///
    /// # Errors
    /// The target is another's, or the device is there or elsewhere otherwise; or the host cannot do it.
    pub fn publish(&self, staging: &Path, target: &Path, wish: &Wish, standing: &Standing) -> Result<(), Status> {
        let Wish { read_only, is_for_one } = *wish;
        let failed = |error: io::Error| host(target, &error);
        self.take_away(&standing.ended, target).map_err(failed)?;
        let mut devices = self.devices().map_err(failed)?;
        devices.retain(|device| standing.ours.contains(&device.number));
        let otherwise = || Status::already_exists("the volume is there already, to be written or read otherwise");
        if devices.iter().any(|device| device.read_only != read_only) {
            return Err(otherwise());
        }
        if let Some(entry) = mounted_at(target).map_err(failed)? {
            let is_there = devices.iter().any(|device| is_of(&entry, device));
            let taken = || MountFailure::Taken { path: target.into(), source_name: entry.source.clone() }.into();
            return if is_there { Ok(()) } else { Err(taken()) };
        }
        if is_for_one && !targets_of(&devices).map_err(failed)?.is_empty() {
            return Err(Status::failed_precondition("the volume is for one workload, and another has it"));
        }
        let number = match devices.first() {
            Some(device) => device.number,
            None => self.attach(staging, read_only).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => Status::failed_precondition("the volume is not staged as a block device"),
                _ => failed(error),
            })?,
        };
        let place = || -> io::Result<()> {
            if let Some(above) = target.parent() {
                fs::create_dir_all(above)?;
            }
            OpenOptions::new().write(true).create(true).truncate(false).open(target)?;
            bind(&loopdev::path_of(number), target, false)
        };
        place().map_err(failed)
    }

    fn attach(&self, staging: &Path, read_only: bool) -> io::Result<u32> {
        let file: File = OpenOptions::new().read(true).write(!read_only).open(self.file(staging))?;
        let how = How { read_only, direct: true, until_unused: false };
        loopdev::attach(&file, &self.file_name, how).map(|(number, _)| number)
    }

    /// A device is at the target, or was begun to be taken from there: it is without a target, or its file is left. Does not touch what
    /// else is mounted there, which may hang.
    ///
    /// # Errors
    /// A list of the kernel's cannot be read.
    pub fn is_at_or_loose(&self, target: &Path) -> io::Result<bool> {
        match mounted_at(target)? {
            Some(entry) => Ok(number_of(&entry).is_some()),
            None => Ok(!self.devices()?.is_empty() || fs::symlink_metadata(target).is_ok_and(|found| found.is_file())),
        }
    }

    /// A device is what is asked for, though there is none yet.
    pub fn is_asked_for(capability: Option<&VolumeCapability>) -> bool {
        capability.is_some_and(|capability| matches!(capability.access_type, Some(AccessType::Block(_))))
    }

    /// Has no device at the target, and lets go of those that no target has any more.
    ///
    /// # Errors
    /// The host cannot do it.
    pub fn unpublish(&self, target: &Path) -> io::Result<()> {
        while mounted_at(target)?.is_some() {
            unbind(target)?;
        }
        match fs::remove_file(target) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.let_go(|_| true)
    }

    /// Devices become as large as the file is.
    ///
    /// # Errors
    /// The host cannot do it.
    pub fn resize(&self) -> io::Result<()> {
        self.devices()?.iter().try_for_each(|device| loopdev::resize(device.number))
    }
}

/// Where any of these devices is found, other than among all devices.
fn targets_of(devices: &[Attached]) -> io::Result<Vec<PathBuf>> {
    let entries = mounts()?.into_iter().filter(|entry| devices.iter().any(|device| is_of(entry, device)));
    Ok(entries.map(|entry| entry.target).collect())
}

fn is_of(entry: &MountEntry, device: &Attached) -> bool {
    number_of(entry) == Some(device.number)
}

/// What is mounted is not a filesystem, but a loop device out of the directory of all devices.
fn number_of(entry: &MountEntry) -> Option<u32> {
    let is_of_devices = ["devtmpfs", "tmpfs"].contains(&entry.fs_type.as_str());
    let name = entry.root.to_str().filter(|_| is_of_devices)?;
    name.strip_prefix("/loop")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_device_is_told_from_a_filesystem() {
        let entry = |root: &str, fs_type: &str| MountEntry {
            target: "/target".into(),
            root: root.into(),
            device: (0, 5),
            fs_type: fs_type.into(),
            source: "devtmpfs".into(),
            read_only: false,
            shared: false,
        };
        assert_eq!(number_of(&entry("/loop12", "devtmpfs")), Some(12));
        for (root, fs_type) in
            [("/loop12", "fuse.holdfast"), ("/", "devtmpfs"), ("/loop", "devtmpfs"), ("/a/loop1", "devtmpfs")]
        {
            assert_eq!(number_of(&entry(root, fs_type)), None, "{root} {fs_type}");
        }
    }

    #[test]
    fn a_volume_that_fills_has_a_file_that_never_shrinks() {
        let dir = tempfile::tempdir().unwrap();
        let block = Block::of("a");
        let bytes = block.fill(dir.path(), 0).unwrap();
        assert_eq!(bytes, fs::metadata(dir.path().join("holdfast-block-a")).unwrap().len());
        assert_eq!(block.fill(dir.path(), 1).unwrap(), bytes);
        assert!(block.devices().unwrap().is_empty());
    }
}
