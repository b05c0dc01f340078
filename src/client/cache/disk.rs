//! Chunk bytes on a disk of this host, under the cache in memory: what was read once is not fetched again, after a restart
//! either.
//!
//! Chunks are named by content, so nothing here is ever stale. Each piece is a file of its own, its bytes and behind them a
//! hash over its name and bytes; one that does not fit, because the disk or a crash has damaged it, is a piece that is not there. Nothing is
//! synced, nothing is waited for but the reading itself, and no fault of this disk is a fault of the mount: the stores have it all.
//!
//! What is there is known by the directory alone, so that memory does not grow with the cache. A file's time of modification says
//! when it was used last, to ten minutes; when the cache has grown beyond its bound, the oldest quarter of one of its
//! directories goes after the other.
//!
//! The order: a piece is fetched, handed to the reader, and then written by a thread of ours, if that has time for it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::chunk::PIECE_BYTES;
use crate::client::chunks::ChunkStore;
use crate::host::lock::{FileLock, LockError};
use crate::remote::store::Part;
use crate::types::digest::{ChunkId, hash_of};
use crate::types::error::FsError;

/// Directories that pieces are spread over.
const DIRS: usize = 256;
/// Pieces that wait to be written; what comes when so many do is not kept.
const WAITING_MAX: usize = 64;
/// How exact the time of the last use is.
const USE_GRAIN: Duration = Duration::from_secs(600);
/// Reads of this disk at once: one that hangs holds up no more threads than these.
const READS_MAX: usize = 16;
/// The stores are asked when this disk has not answered for so long.
const PATIENCE: Duration = Duration::from_millis(500);
/// It is left alone for so long after it has refused something, or not answered.
const PAUSE: Duration = Duration::from_secs(60);
const HASH_BYTES: usize = 32;

/// Why a directory cannot be a cache.
#[derive(Debug, thiserror::Error)]
pub enum DiskCacheError {
    #[error("another mount uses it")]
    InUse,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A store with a cache before it.
pub struct DiskCache {
    inner: Arc<dyn ChunkStore>,
    dir: Arc<PathBuf>,
    waiting: SyncSender<(Key, Bytes)>,
    reads: Arc<Semaphore>,
    slow: Mutex<Option<Instant>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    id: ChunkId,
    piece: u32,
}

impl DiskCache {
    /// A cache of at most about `max_bytes` in `dir`, which is made if need be, and held.
    ///
    /// # Errors
    /// Another process holds it, or it cannot be written to.
    pub fn open(dir: &Path, max_bytes: u64, inner: Arc<dyn ChunkStore>) -> Result<DiskCache, DiskCacheError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let lock = FileLock::take(&dir.join("lock")).map_err(|error| match error {
            LockError::Held(_) => DiskCacheError::InUse,
            LockError::Io(error) => DiskCacheError::Io(error),
        })?;
        for number in 0..DIRS {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir.join(format!("{number:02x}")))?;
        }
        let (waiting, pieces) = sync_channel(WAITING_MAX);
        let keeper = Keeper { dir: dir.to_path_buf(), max_bytes, bytes: 0, next: 0, refused: None, _lock: lock };
        thread::Builder::new().name("disk-cache".into()).spawn(move || keeper.run(&pieces))?;
        let reads = Arc::new(Semaphore::new(READS_MAX));
        Ok(DiskCache { inner, dir: Arc::new(dir.to_path_buf()), waiting, reads, slow: Mutex::default() })
    }

    /// The range, if every piece of it is here, and the disk says so soon.
    async fn find(&self, id: ChunkId, offset: u32, len: u32, whole_bytes: u32) -> Option<Bytes> {
        if self.slow.lock().is_some_and(|at| at.elapsed() < PAUSE) {
            return None;
        }
        let turn = self.reads.clone().try_acquire_owned().ok()?;
        let dir = self.dir.clone();
        let find = move || {
            let _turn = turn;
            let end = offset.checked_add(len).filter(|end| *end <= whole_bytes && len > 0)?;
            let (first, last) = (offset / PIECE_BYTES, (end - 1) / PIECE_BYTES);
            let mut bytes = BytesMut::with_capacity(((last - first + 1) * PIECE_BYTES) as usize);
            for piece in first..=last {
                let read = read_piece(&dir, Key { id, piece })?;
                if read.len() != piece_len(piece, whole_bytes) {
                    return None;
                }
                bytes.extend_from_slice(&read);
            }
            let start = (offset - first * PIECE_BYTES) as usize;
            Some(bytes.freeze().slice(start..start + len as usize))
        };
        let found = tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(find)).await;
        if found.is_err() {
            tracing::warn!(dir = %self.dir.display(), "the cache on disk does not answer; doing without for a while");
            *self.slow.lock() = Some(Instant::now());
        }
        found.ok()?.ok()?
    }

    /// Hands the pieces that the range has whole to the thread that writes, as far as it has time.
    fn keep(&self, id: ChunkId, offset: u32, bytes: &Bytes, whole_bytes: u32) {
        let first = offset.div_ceil(PIECE_BYTES);
        for piece in first.. {
            let start = (piece * PIECE_BYTES - offset) as usize;
            let len = piece_len(piece, whole_bytes);
            if len == 0 || start + len > bytes.len() {
                return;
            }
            let _ = self.waiting.try_send((Key { id, piece }, bytes.slice(start..start + len)));
        }
    }
}

impl ChunkStore for DiskCache {
    fn put<'a>(&'a self, chunks: &'a [(ChunkId, Bytes)], epoch: u64, copies: u8) -> BoxFuture<'a, Result<(), FsError>> {
        self.inner.put(chunks, epoch, copies)
    }

    fn get(&self, id: ChunkId, offset: u32, len: u32, whole_bytes: u32) -> BoxFuture<'_, Result<Bytes, FsError>> {
        Box::pin(async move {
            if let Some(bytes) = self.find(id, offset, len, whole_bytes).await {
                return Ok(bytes);
            }
            let bytes = self.inner.get(id, offset, len, whole_bytes).await?;
            self.keep(id, offset, &bytes, whole_bytes);
            Ok(bytes)
        })
    }

    // What is on a disk of this host already is not kept on another.
    fn peek(&self, part: Part) -> Option<Bytes> {
        self.inner.peek(part)
    }

    fn read_near(&self, part: Part) -> BoxFuture<'_, Option<Bytes>> {
        self.inner.read_near(part)
    }

    fn expect(&self, parts: Vec<Part>) -> Vec<Part> {
        self.inner.expect(parts)
    }
}

fn piece_len(piece: u32, whole_bytes: u32) -> usize {
    whole_bytes.saturating_sub(piece.saturating_mul(PIECE_BYTES)).min(PIECE_BYTES) as usize
}

fn place(dir: &Path, key: Key) -> PathBuf {
    dir.join(format!("{:02x}", key.id.0[0])).join(format!("{}.{}", key.id, key.piece))
}

fn hash(key: Key, bytes: &[u8]) -> [u8; HASH_BYTES] {
    hash_of(&[&key.id.0, &key.piece.to_le_bytes(), bytes])
}

/// `None` when it is not here, or not as it was written.
fn read_piece(dir: &Path, key: Key) -> Option<Vec<u8>> {
    let path = place(dir, key);
    let mut file = File::open(&path).ok()?;
    let mut bytes = Vec::with_capacity(PIECE_BYTES as usize + HASH_BYTES + 1);
    // No file of ours is longer.
    file.by_ref().take(u64::from(PIECE_BYTES) + HASH_BYTES as u64 + 1).read_to_end(&mut bytes).ok()?;
    let end = bytes.len().checked_sub(HASH_BYTES)?;
    if hash(key, &bytes[..end])[..] != bytes[end..] {
        tracing::warn!(path = %path.display(), "a cached piece is damaged");
        let _ = fs::remove_file(&path);
        return None;
    }
    bytes.truncate(end);
    note_use(&file);
    Some(bytes)
}

fn note_use(file: &File) {
    let modified = file.metadata().and_then(|meta| meta.modified());
    let is_old = modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > USE_GRAIN));
    if is_old {
        // It is only thrown out too early.
        let _ = file.set_modified(SystemTime::now());
    }
}

/// The thread that writes, and throws out.
struct Keeper {
    dir: PathBuf,
    max_bytes: u64,
    bytes: u64,
    /// The directory that is next to lose some.
    next: usize,
    refused: Option<Instant>,
    _lock: FileLock,
}

/// A file of the cache: when it was used last, how large it is.
struct Kept {
    used: SystemTime,
    bytes: u64,
    path: PathBuf,
}

impl Keeper {
    fn run(mut self, pieces: &Receiver<(Key, Bytes)>) {
        self.count();
        while let Ok((key, bytes)) = pieces.recv() {
            if self.refused.is_some_and(|at| at.elapsed() < PAUSE) {
                continue;
            }
            self.refused = None;
            if let Err(error) = self.write(key, &bytes) {
                tracing::warn!(dir = %self.dir.display(), %error, "the cache on disk takes nothing for a while");
                self.refused = Some(Instant::now());
            }
            self.throw_out();
        }
    }

    fn write(&mut self, key: Key, bytes: &[u8]) -> io::Result<()> {
        let path = place(&self.dir, key);
        if path.exists() {
            return Ok(());
        }
        // Under its own name only when it is whole, but for a crash, which the hash tells.
        let unnamed = self.dir.join("new");
        let written = (|| {
            let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unnamed)?;
            io::Write::write_all(&mut file, bytes)?;
            io::Write::write_all(&mut file, &hash(key, bytes))?;
            fs::rename(&unnamed, &path)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&unnamed);
        }
        written?;
        self.bytes += (bytes.len() + HASH_BYTES) as u64;
        Ok(())
    }

    fn count(&mut self) {
        self.bytes = (0..DIRS).flat_map(|number| self.list(number)).map(|kept| kept.bytes).sum();
    }

    /// Until it is within its bound. Others may have removed files: before anything goes they are counted.
    fn throw_out(&mut self) {
        if self.bytes > self.max_bytes {
            self.count();
        }
        // A little more than has to go, so that the next is not soon.
        let goal = if self.bytes > self.max_bytes { self.max_bytes / 16 * 15 } else { self.max_bytes };
        for _ in 0..DIRS {
            if self.bytes <= goal {
                return;
            }
            let mut all = self.list(self.next);
            self.next = (self.next + 1) % DIRS;
            all.sort_by_key(|kept| kept.used);
            let oldest = all.len().div_ceil(4);
            for kept in &all[..oldest] {
                if fs::remove_file(&kept.path).is_ok() {
                    self.bytes = self.bytes.saturating_sub(kept.bytes);
                }
            }
        }
    }

    fn list(&self, number: usize) -> Vec<Kept> {
        let Ok(entries) = fs::read_dir(self.dir.join(format!("{number:02x}"))) else { return Vec::new() };
        let kept = |entry: fs::DirEntry| {
            let meta = entry.metadata().ok()?;
            Some(Kept { used: meta.modified().ok()?, bytes: meta.len(), path: entry.path() })
        };
        entries.flatten().filter_map(kept).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Chunks that are made up from their name.
    #[derive(Default)]
    struct Counting {
        gets: AtomicU64,
    }

    const WHOLE: u32 = 3 * PIECE_BYTES + 100;

    fn content(id: ChunkId) -> Vec<u8> {
        (0..WHOLE).map(|at| id.0[0].wrapping_add((at / 7) as u8)).collect()
    }

    impl ChunkStore for Counting {
        fn put<'a>(&'a self, _: &'a [(ChunkId, Bytes)], _: u64, _: u8) -> BoxFuture<'a, Result<(), FsError>> {
            Box::pin(std::future::ready(Ok(())))
        }

        fn get(&self, id: ChunkId, offset: u32, len: u32, _: u32) -> BoxFuture<'_, Result<Bytes, FsError>> {
            self.gets.fetch_add(1, Ordering::Relaxed);
            let bytes = Bytes::from(content(id)).slice(offset as usize..(offset + len) as usize);
            Box::pin(std::future::ready(Ok(bytes)))
        }
    }

    fn id(byte: u8) -> ChunkId {
        ChunkId([byte; 32])
    }

    fn files(dir: &Path) -> Vec<PathBuf> {
        let dirs = (0..DIRS).filter_map(|number| fs::read_dir(dir.join(format!("{number:02x}"))).ok());
        dirs.flatten().flatten().map(|entry| entry.path()).collect()
    }

    async fn until(what: &str, holds: impl Fn() -> bool) {
        for _ in 0..1000 {
            if holds() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("never: {what}");
    }

    async fn read(cache: &DiskCache, byte: u8, offset: u32, len: u32) {
        let bytes = cache.get(id(byte), offset, len, WHOLE).await.unwrap();
        assert_eq!(bytes, content(id(byte))[offset as usize..(offset + len) as usize]);
    }

    #[tokio::test]
    async fn what_was_read_once_is_here_after_a_restart_too() {
        let dir = tempfile::tempdir().unwrap();
        let inner = Arc::new(Counting::default());
        for _ in 0..2 {
            let cache = DiskCache::open(dir.path(), 1 << 30, inner.clone()).unwrap();
            assert!(matches!(DiskCache::open(dir.path(), 1, inner.clone()), Err(DiskCacheError::InUse)));
            read(&cache, 5, 0, WHOLE).await;
            until("written", || files(dir.path()).len() == 4).await;
            read(&cache, 5, 0, WHOLE).await;
            // Across a border, and the end.
            read(&cache, 5, PIECE_BYTES - 10, 20).await;
            read(&cache, 5, WHOLE - 50, 50).await;
            assert_eq!(inner.gets.load(Ordering::Relaxed), 1);
            drop(cache);
            until("released", || FileLock::take(&dir.path().join("lock")).is_ok()).await;
        }
    }

    #[tokio::test]
    async fn a_damaged_piece_is_fetched_again() {
        let dir = tempfile::tempdir().unwrap();
        let inner = Arc::new(Counting::default());
        let cache = DiskCache::open(dir.path(), 1 << 30, inner.clone()).unwrap();
        read(&cache, 5, 0, WHOLE).await;
        until("written", || files(dir.path()).len() == 4).await;
        for (nth, path) in files(dir.path()).iter().enumerate() {
            let mut bytes = fs::read(path).unwrap();
            match nth % 2 {
                0 => bytes[9] ^= 1,
                _ => bytes.truncate(20),
            }
            fs::write(path, bytes).unwrap();
        }
        read(&cache, 5, 0, WHOLE).await;
        assert_eq!(inner.gets.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn it_stays_within_its_bound_and_keeps_what_was_used_last() {
        let dir = tempfile::tempdir().unwrap();
        let inner = Arc::new(Counting::default());
        let max_bytes = 8 * u64::from(WHOLE);
        let cache = DiskCache::open(dir.path(), max_bytes, inner.clone()).unwrap();
        for byte in 0..20 {
            read(&cache, byte, 0, WHOLE).await;
            until("written", || place(dir.path(), Key { id: id(byte), piece: 3 }).exists()).await;
        }
        let bytes =
            || files(dir.path()).iter().map(|path| fs::metadata(path).map_or(0, |meta| meta.len())).sum::<u64>();
        until("thrown out", || bytes() <= max_bytes).await;
        assert!(bytes() > max_bytes / 2, "{}", bytes());
    }

    #[tokio::test]
    async fn a_disk_that_takes_nothing_is_no_fault() {
        let dir = tempfile::tempdir().unwrap();
        let inner = Arc::new(Counting::default());
        let cache = DiskCache::open(&dir.path().join("cache"), 1 << 30, inner.clone()).unwrap();
        fs::remove_dir_all(dir.path().join("cache")).unwrap();
        for _ in 0..3 {
            read(&cache, 5, 0, WHOLE).await;
        }
        assert_eq!(inner.gets.load(Ordering::Relaxed), 3);
    }
}
