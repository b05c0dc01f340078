//! Which stores are near: the files of their packs can be opened here.
//!
//! A store is asked once where its packs are, beside the reads, so that none waits for it. Whether they can be opened
//! decides the kernel, by name and permission. Hosts that look alike have directories of the same names: only one that has
//! a pack with the disk's id in its header is the disk's.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::pack::format::{PackHeader, Salt, file_name};
use crate::pack::reader::header_of;
use crate::types::id::{DiskId, StoreId};
use crate::wire::store::PackDir;

/// Packs kept open; more than this are opened again when needed.
const OPEN_PACKS_MAX: usize = 128;
/// Packs that are looked at to know a directory.
const LOOKED_AT_MAX: usize = 4;
/// How long a store that is elsewhere is taken to stay there.
pub const ELSEWHERE: Duration = Duration::from_secs(60);
/// How long one is left alone that did not answer, or whose disk did not.
pub const SILENT: Duration = Duration::from_secs(2);

/// A pack, open for reading.
#[derive(Debug)]
pub struct Pack {
    pub file: File,
    pub salt: Salt,
}

/// The disks of a store on this host.
#[derive(Debug)]
pub struct Disks {
    dirs: HashMap<DiskId, PathBuf>,
    open: Mutex<HashMap<(DiskId, u32), Arc<Pack>>>,
}

impl Disks {
    /// Those that can be read here; `None` when none can. May wait for a device.
    pub fn find(dirs: Vec<PackDir>) -> Option<Disks> {
        let ours = dirs.into_iter().filter(|dir| is_of(Path::new(&dir.path), dir.disk));
        let dirs: HashMap<DiskId, PathBuf> = ours.map(|dir| (dir.disk, PathBuf::from(dir.path))).collect();
        (!dirs.is_empty()).then(|| Disks { dirs, open: Mutex::default() })
    }

    /// A pack that is open already.
    pub fn opened(&self, disk: DiskId, number: u32) -> Option<Arc<Pack>> {
        self.open.lock().get(&(disk, number)).cloned()
    }

    /// May wait for a device, when it is not open.
    ///
    /// # Errors
    /// What the kernel says; `InvalidData` when it is not this pack of this disk.
    pub fn pack(&self, disk: DiskId, number: u32) -> io::Result<Arc<Pack>> {
        if let Some(pack) = self.opened(disk, number) {
            return Ok(pack);
        }
        let dir = self.dirs.get(&disk).ok_or(io::ErrorKind::NotFound)?;
        let (file, header) = open(&dir.join(file_name(number)))?;
        if (header.number, header.disk) != (number, disk) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the pack belongs elsewhere"));
        }
        let pack = Arc::new(Pack { file, salt: header.salt });
        let mut open = self.open.lock();
        if open.len() >= OPEN_PACKS_MAX
            && let Some(any) = open.keys().next().copied()
        {
            open.remove(&any);
        }
        open.insert((disk, number), Arc::clone(&pack));
        Ok(pack)
    }
}

/// Whether one of the first packs of a directory is this disk's. One is enough: a directory belongs to one disk.
fn is_of(dir: &Path, disk: DiskId) -> bool {
    let Ok(entries) = std::fs::read_dir(dir) else { return false };
    entries.flatten().take(LOOKED_AT_MAX).any(|entry| open(&entry.path()).is_ok_and(|(_, header)| header.disk == disk))
}

fn open(path: &Path) -> io::Result<(File, PackHeader)> {
    // Whoever put a FIFO there must not make us wait for its other end.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let header = header_of(&file)?;
    Ok((file, header))
}

#[derive(Debug)]
enum Standing {
    Asked,
    Near(Arc<Disks>),
    Away { until: Instant },
}

/// What is known of every store.
#[derive(Debug, Default)]
pub struct Near {
    stores: Mutex<HashMap<StoreId, Standing>>,
    ever_near: Mutex<HashSet<StoreId>>,
}

impl Near {
    pub fn get(&self, store: StoreId) -> Option<Arc<Disks>> {
        match self.stores.lock().get(&store) {
            Some(Standing::Near(disks)) => Some(Arc::clone(disks)),
            _ => None,
        }
    }

    /// Whether the caller is the one to ask a store where its packs are.
    pub fn begin_to_ask(&self, store: StoreId) -> bool {
        let mut stores = self.stores.lock();
        match stores.get(&store) {
            Some(Standing::Asked | Standing::Near(_)) => false,
            Some(Standing::Away { until }) if *until > Instant::now() => false,
            _ => {
                stores.insert(store, Standing::Asked);
                true
            }
        }
    }

    /// Returns whether that is new.
    pub fn is_near(&self, store: StoreId, disks: Disks) -> bool {
        self.stores.lock().insert(store, Standing::Near(Arc::new(disks)));
        self.ever_near.lock().insert(store)
    }

    /// Returns whether it was near until now.
    pub fn is_away(&self, store: StoreId, how_long: Duration) -> bool {
        let before = self.stores.lock().insert(store, Standing::Away { until: Instant::now() + how_long });
        matches!(before, Some(Standing::Near(_)))
    }
}
