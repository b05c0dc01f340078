//! The pack files of one disk: made, opened, listed and removed.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::pack::format::{PackHeader, Salt, file_name};
use crate::pack::reader::{Record, Spot, header_of};
use crate::types::digest::ChunkId;
use crate::types::id::{ClusterId, DiskId};

use super::sys::open_direct;

/// Descriptors kept open for reading; more packs than this are opened again when needed.
const OPEN_FILES_MAX: usize = 256;

/// One pack, open.
#[derive(Debug)]
pub struct PackFile {
    pub number: u32,
    pub salt: Salt,
    pub file: File,
    /// The same file for large appends, past the page cache; opened when it is first wanted.
    direct: OnceLock<Option<File>>,
    path: PathBuf,
}

impl PackFile {
    fn new(number: u32, salt: Salt, file: File, path: PathBuf) -> PackFile {
        PackFile { number, salt, file, direct: OnceLock::new(), path }
    }

    pub fn record<'a>(&'a self, spot: Spot, id: &'a ChunkId) -> Record<'a> {
        Record { file: &self.file, salt: &self.salt, spot, id }
    }

    /// `None` where the file system has no direct I/O.
    pub fn direct(&self) -> Option<&File> {
        self.direct.get_or_init(|| open_direct(&self.path)).as_ref()
    }
}

/// The packs of one disk.
pub struct Packs {
    dir: PathBuf,
    cluster: ClusterId,
    disk: DiskId,
    open: Mutex<HashMap<u32, Arc<PackFile>>>,
}

impl Packs {
    /// `dir` exists and belongs to this disk.
    pub fn new(dir: PathBuf, cluster: ClusterId, disk: DiskId) -> Packs {
        Packs { dir, cluster, disk, open: Mutex::default() }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The numbers of the packs that are there, ascending.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn numbers(&self) -> io::Result<Vec<u32>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let digits = name.to_str().and_then(|name| name.strip_suffix(".pack"));
            numbers.extend(digits.and_then(|digits| digits.parse::<u32>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Makes an empty pack, durably: its header and its name are on the disk when this returns.
    ///
    /// # Errors
    /// The file is there already, or cannot be made.
    pub fn create(&self, number: u32) -> io::Result<Arc<PackFile>> {
        let salt = random_bytes()?;
        let header = PackHeader { number, cluster: self.cluster, disk: self.disk, salt };
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(self.path(number))?;
        file.write_all_at(&header.encode(), 0)?;
        file.sync_all()?;
        sync_dir(&self.dir)?;
        let pack = Arc::new(PackFile::new(number, salt, file, self.path(number)));
        self.remember(&pack);
        Ok(pack)
    }

    /// # Errors
    /// `NotFound`; `InvalidData` when the header is not that of this pack of this disk.
    pub fn open(&self, number: u32) -> io::Result<Arc<PackFile>> {
        if let Some(pack) = self.open.lock().get(&number) {
            return Ok(Arc::clone(pack));
        }
        let file = OpenOptions::new().read(true).write(true).open(self.path(number))?;
        let header = header_of(&file)?;
        if (header.number, header.cluster, header.disk) != (number, self.cluster, self.disk) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the pack belongs elsewhere"));
        }
        let pack = Arc::new(PackFile::new(number, header.salt, file, self.path(number)));
        self.remember(&pack);
        Ok(pack)
    }

    /// Readers that hold it open may finish.
    ///
    /// # Errors
    /// The file cannot be removed; one that is not there is no error.
    pub fn remove(&self, number: u32) -> io::Result<()> {
        self.open.lock().remove(&number);
        match fs::remove_file(self.path(number)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    fn remember(&self, pack: &Arc<PackFile>) {
        let mut open = self.open.lock();
        if open.len() >= OPEN_FILES_MAX
            && let Some(any) = open.keys().next().copied()
        {
            open.remove(&any);
        }
        open.insert(pack.number, Arc::clone(pack));
    }

    pub fn path(&self, number: u32) -> PathBuf {
        self.dir.join(file_name(number))
    }
}

/// Makes the names in a directory durable.
///
/// # Errors
/// What the kernel says.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// # Errors
/// The kernel has no randomness to give.
pub fn random_bytes() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes)
}
