//! One disk: its directory, its packs, its index and its writer thread, as one thing to put to and read from.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread::JoinHandle;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::host::space::filesystem_id;
use crate::kv::{KvError, SharedKv};
use crate::pack::format::CheckedChunk;
use crate::pack::reader::ReadError;
use crate::pack::sys::Patience;
use crate::types::cluster::{DiskInfo, DiskReport};
use crate::types::digest::{ChunkId, Slot};
use crate::types::id::{ClusterId, DiskId, StoreId};
use crate::wire::store::{PackSpot, StoreError};

use super::identity::{DiskDir, IdentityError};
use super::index::{Entry, Found, Index, Position, Summary};
use super::pack::file::Packs;
use super::pack::recover::{RecoverError, Recovered, recover};
use super::pack::sys;
use super::pack::tombstones::Tombstones;
use super::pack::writer::{Job, Purpose, Writer, WriterOptions, reserve_bytes};
use super::state::DiskState;

/// Its presence says that the index failed at work and is not to be trusted.
const SUSPECT: &str = "index.suspect";
/// A chunk can move (be replaced) under a reader this often before the reader gives up.
const READ_TRIES: usize = 3;

/// Opens the index engine in a directory, making it when it is not there.
pub type OpenIndex = Arc<dyn Fn(&Path) -> Result<SharedKv, KvError> + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("disk {0}: {1}")]
    Recover(PathBuf, RecoverError),
    #[error("disk {0}: {1}")]
    Index(PathBuf, KvError),
    #[error("disk {0}: {1}")]
    Io(PathBuf, std::io::Error),
    #[error("a store needs at least one disk")]
    NoDisk,
}

/// Why a read has nothing to show.
#[derive(Debug)]
pub enum Miss {
    /// Ask again from a thread that may wait.
    WouldBlock,
    Because(StoreError),
}

/// What opening a disk needs besides its path.
pub struct DiskOptions {
    pub cluster: ClusterId,
    pub store: StoreId,
    /// Where indexes are; in the disk's own directory when `None`.
    pub index_dir: Option<PathBuf>,
    pub open_index: OpenIndex,
    pub writer: WriterOptions,
}

pub struct Disk {
    dir: DiskDir,
    packs: Arc<Packs>,
    index: Arc<Index>,
    state: Arc<DiskState>,
    reserve_bytes: Option<u64>,
    /// Which filesystem it is on; 0 when the host does not tell.
    filesystem: u64,
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    checkpointed: Mutex<Position>,
}

impl Disk {
    /// Claims the directory, recovers what is in it and starts the writer. Takes as long as the scan takes.
    ///
    /// # Errors
    /// See [`OpenError`]. A bad index is no error, it is rebuilt.
    pub fn open(path: &Path, options: &DiskOptions) -> Result<Disk, OpenError> {
        let dir = DiskDir::claim(path, options.cluster, options.store)?;
        let packs = Arc::new(Packs::new(dir.packs(), options.cluster, dir.id));
        let (index, recovered) = open_index(&dir, &packs, options)?;
        let (index, state) = (Arc::new(index), Arc::new(DiskState::default()));
        let at = match &recovered.tail {
            Some((pack, end)) => Position { pack: pack.number, offset: *end },
            None => Position { pack: recovered.next_number, offset: 0 },
        };
        state.advance(at);
        let writer = Writer {
            packs: Arc::clone(&packs),
            index: Arc::clone(&index),
            state: Arc::clone(&state),
            options: options.writer.clone(),
            tail: recovered.tail,
            next_number: recovered.next_number,
            tombstones: Tombstones::default(),
            pages: None,
        };
        let (jobs, queue) = mpsc::channel();
        let thread = std::thread::Builder::new().name("pack-writer".to_owned());
        let thread = thread.spawn(move || writer.run(&queue)).map_err(|error| OpenError::Io(path.to_owned(), error))?;
        let filesystem = filesystem_id(&dir.path).unwrap_or_else(|error| {
            tracing::warn!(%error, disk = %path.display(), "the disk's filesystem is not known; its space may count twice");
            0
        });
        let disk = Disk {
            dir,
            packs,
            index,
            state,
            reserve_bytes: options.writer.reserve_bytes,
            filesystem,
            jobs: Mutex::new(Some(jobs)),
            writer: Mutex::new(Some(thread)),
            checkpointed: Mutex::default(),
        };
        disk.checkpoint();
        Ok(disk)
    }

    pub fn id(&self) -> DiskId {
        self.dir.id
    }

    pub fn state(&self) -> &DiskState {
        &self.state
    }

    /// Stores chunks that are known to match their names; returns when all are durable.
    ///
    /// # Errors
    /// `Full` or `DiskFailed`; none, some or all of the chunks may be there then.
    pub async fn put(&self, chunks: Vec<CheckedChunk>, epoch: u64, purpose: Purpose) -> Result<(), StoreError> {
        let (done, answer) = oneshot::channel();
        self.send(Job::Put { chunks, epoch, purpose, done })?;
        answer.await.unwrap_or_else(|_| Err(closing()))
    }

    /// Deletes what was last put before `epoch`; gives how many were.
    ///
    /// # Errors
    /// `DiskFailed`.
    pub async fn delete(&self, ids: Vec<ChunkId>, epoch: u64) -> Result<u64, StoreError> {
        let (done, answer) = oneshot::channel();
        self.send(Job::Delete { ids, epoch, done })?;
        answer.await.unwrap_or_else(|_| Err(closing()))
    }

    fn send(&self, job: Job) -> Result<(), StoreError> {
        let jobs = self.jobs.lock();
        jobs.as_ref().and_then(|jobs| jobs.send(job).ok()).ok_or_else(closing)
    }

    /// `len` bytes from `offset` of a chunk (0: all that follow), checked, with the length of the whole chunk.
    ///
    /// # Errors
    /// `WouldBlock` in a hurry; otherwise `NotFound`, `Damaged`, `Invalid` (outside the chunk) or `DiskFailed`.
    pub fn read(&self, id: &ChunkId, offset: u32, len: u32, patience: Patience) -> Result<(u32, Bytes), Miss> {
        let mut last = None;
        for _ in 0..READ_TRIES {
            let Some(entry) = self.entry(id).map_err(Miss::Because)? else { break };
            if last.is_some_and(|(seen, _)| seen == entry) {
                break;
            }
            let end = if len == 0 { Some(entry.payload_bytes) } else { offset.checked_add(len) };
            let end = end.filter(|end| offset < *end && *end <= entry.payload_bytes);
            let Some(end) = end else { return Err(Miss::Because(StoreError::Invalid)) };
            let result = self.packs.open(entry.pack).map_err(ReadError::from);
            let result = result.and_then(|pack| pack.record(entry.spot(), id).read(offset..end, patience));
            match result {
                Ok(bytes) => return Ok((entry.payload_bytes, bytes)),
                Err(ReadError::WouldBlock) => return Err(Miss::WouldBlock),
                // Deleted or moved under the reader, most likely; the index knows, once the deletion has come to it.
                Err(ReadError::Dead) => last = Some((entry, !self.state.is_doomed(id))),
                Err(ReadError::Damaged(error)) => {
                    tracing::debug!(chunk = %id, %error, "a read failed its checks");
                    last = Some((entry, true));
                }
                Err(ReadError::Io(error)) => {
                    tracing::warn!(chunk = %id, %error, "a read failed");
                    last = Some((entry, true));
                }
            }
        }
        Err(Miss::Because(self.judge(id, last)?))
    }

    /// What a failed read means: damage only if the index still says the chunk should be there. A dead record is damage
    /// too then, unless it is being deleted this moment (which must be asked before the index is): a store that was
    /// stopped in the middle of a deletion lists what it no longer has.
    fn judge(&self, id: &ChunkId, last: Option<(Entry, bool)>) -> Result<StoreError, Miss> {
        match last {
            Some((entry, true)) if self.entry(id).map_err(Miss::Because)? == Some(entry) => {
                self.state.found_damaged(*id);
                Ok(StoreError::Damaged)
            }
            _ => Ok(StoreError::NotFound),
        }
    }

    /// # Errors
    /// `DiskFailed`.
    pub fn entry(&self, id: &ChunkId) -> Result<Option<Entry>, StoreError> {
        self.index.entry(id).map_err(|error| self.index_failed(&error))
    }

    /// Is a copy here that is not known to be damaged?
    ///
    /// # Errors
    /// `DiskFailed`.
    pub fn has(&self, id: &ChunkId) -> Result<bool, StoreError> {
        Ok(self.entry(id)?.is_some() && !self.state.is_damaged(id))
    }

    /// Where a copy is that is not known to be damaged.
    pub fn locate(&self, id: &ChunkId) -> Option<PackSpot> {
        let entry = self.entry(id).ok().flatten().filter(|_| !self.state.is_damaged(id))?;
        let (pack, offset, chunk_bytes) = (entry.pack, entry.offset, entry.payload_bytes);
        Some(PackSpot { disk: self.id(), pack, offset, chunk_bytes })
    }

    pub fn pack_dir(&self) -> &Path {
        self.packs.dir()
    }

    pub fn summary(&self, slot: Slot) -> Summary {
        self.index.summary(slot)
    }

    /// # Errors
    /// `DiskFailed`.
    pub fn list(&self, slot: Slot, after: Option<&ChunkId>, limit: usize) -> Result<Vec<(ChunkId, u64)>, StoreError> {
        self.index.list(slot, after, limit).map_err(|error| self.index_failed(&error))
    }

    fn index_failed(&self, error: &KvError) -> StoreError {
        // The next start rebuilds it.
        let _ = fs::File::create(self.dir.path.join(SUSPECT));
        self.state.fail(&error.to_string())
    }

    /// As it goes into the cluster map.
    ///
    /// # Errors
    /// `DiskFailed` when the file system does not say how large it is.
    pub fn info(&self) -> Result<DiskInfo, StoreError> {
        let space = sys::space(&self.dir.path).map_err(|error| self.state.fail(&error.to_string()))?;
        let gib = (space.capacity_bytes >> 30).max(1);
        Ok(DiskInfo { id: self.id(), weight: u32::try_from(gib).unwrap_or(u32::MAX) })
    }

    /// As it goes into a heartbeat.
    pub fn report(&self) -> DiskReport {
        let space = sys::space(&self.dir.path).unwrap_or_default();
        let holdings = self.index.holdings();
        let counts = &self.state.counts;
        DiskReport {
            id: self.id(),
            filesystem: self.filesystem,
            capacity_bytes: space.capacity_bytes,
            free_bytes: space.free_bytes.saturating_sub(reserve_bytes(self.reserve_bytes, space.capacity_bytes)),
            chunks: holdings.chunks,
            chunk_bytes: holdings.chunk_bytes,
            dedup_hits: counts.dedup_hits.load(Ordering::Relaxed),
            dedup_bytes: counts.dedup_bytes.load(Ordering::Relaxed),
            damaged: counts.damaged.load(Ordering::Relaxed),
            failed: self.state.is_failed(),
        }
    }

    /// Makes the index durable up to now, so that the next start has little to scan. May wait for the device.
    pub fn checkpoint(&self) {
        let position = self.state.position();
        let mut checkpointed = self.checkpointed.lock();
        if *checkpointed == position || self.state.is_failed() {
            return;
        }
        match self.index.checkpoint(position) {
            Ok(()) => *checkpointed = position,
            Err(error) => drop(self.index_failed(&error)),
        }
    }

    /// Finishes what is queued and leaves a clean disk. Waits for the writer.
    pub fn close(&self) {
        drop(self.jobs.lock().take());
        let Some(writer) = self.writer.lock().take() else { return };
        if writer.join().is_err() {
            self.state.fail("its writer stopped by accident");
        }
        self.checkpoint();
        if !self.state.is_failed()
            && let Err(error) = self.index.flush()
        {
            self.index_failed(&error);
        }
    }
}

impl Drop for Disk {
    /// The directory's lock must outlive the writer.
    fn drop(&mut self) {
        self.close();
    }
}

fn closing() -> StoreError {
    StoreError::DiskFailed("it is closing".to_owned())
}

/// Opens the index and brings it up to the packs. One that does not open, does not belong or fails on the way is
/// thrown away, once, and built anew.
fn open_index(dir: &DiskDir, packs: &Packs, options: &DiskOptions) -> Result<(Index, Recovered), OpenError> {
    let path = match &options.index_dir {
        Some(indexes) => indexes.join(dir.id.to_string()),
        None => dir.path.join("index"),
    };
    let suspect = dir.path.join(SUSPECT);
    if !suspect.exists() {
        match try_index(&path, dir, packs, options) {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => tracing::warn!(index = %path.display(), "the chunk index is not this disk's; it is rebuilt"),
            Err(OpenError::Index(_, error)) => {
                tracing::warn!(index = %path.display(), %error, "the chunk index is unusable; it is rebuilt");
            }
            Err(error) => return Err(error),
        }
    }
    let io = |error| OpenError::Io(dir.path.clone(), error);
    if path.exists() {
        fs::remove_dir_all(&path).map_err(io)?;
    }
    let unfit = || OpenError::Index(dir.path.clone(), KvError("a new index is not empty".to_owned()));
    let found = try_index(&path, dir, packs, options)?.ok_or_else(unfit)?;
    if suspect.exists() {
        fs::remove_file(&suspect).map_err(io)?;
    }
    Ok(found)
}

fn try_index(
    path: &Path,
    dir: &DiskDir,
    packs: &Packs,
    options: &DiskOptions,
) -> Result<Option<(Index, Recovered)>, OpenError> {
    let bad = |error| OpenError::Index(dir.path.clone(), error);
    fs::create_dir_all(path).map_err(|error| OpenError::Io(dir.path.clone(), error))?;
    let kv = (options.open_index)(path).map_err(bad)?;
    let Found::Ready(index, from) = Index::open(kv, &dir.id).map_err(bad)? else { return Ok(None) };
    let recovered = recover(packs, &index, from, &options.writer.sync).map_err(|error| match error {
        RecoverError::Index(error) => bad(error),
        error => OpenError::Recover(dir.path.clone(), error),
    })?;
    let report = recovered.report;
    if report.records > 0 || report.damaged > 0 || report.cut_bytes > 0 {
        let (records, damaged, cut_bytes) = (report.records, report.damaged, report.cut_bytes);
        tracing::info!(disk = %dir.id, records, damaged, cut_bytes, "packs scanned");
    }
    Ok(Some((index, recovered)))
}
