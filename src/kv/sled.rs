//! The engine on disk: sled, trusted with speed and with nothing else.
//!
//! Owns one directory. sled's own flusher never runs, because it aborts the process when a flush fails; a thread of
//! ours flushes once enough was written, only to bound the memory that unflushed pages hold. A handle of sled's belongs
//! to one thread at a time, so there is a pool of them. Every call is fenced: an error
//! or a panic inside sled comes back as [`KvError`], fails all later calls, and leaves a mark in the directory, so that
//! [`SledKv::open`] refuses it and the caller builds the index anew. The order at open is: refuse a marked directory,
//! mark it, open sled, take the mark away; a process that dies in between (sled asserting in a build that aborts on
//! panic) does not meet the same damage twice.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use parking_lot::{Condvar, Mutex};
use sled::InlineArray;

use super::{Batch, Kv, KvError, Pair};

/// Keys in a leaf. A leaf is written whole, and its keys move when one comes or goes.
const LEAF_KEYS: usize = 128;
/// Pairs that a scan takes first.
const PAGE_PAIRS_MIN: usize = 4;
/// sled's own flusher is put off for good. Not turned off: then every dropped handle would flush.
const FLUSH_NEVER_MS: usize = u32::MAX as usize;
/// The mark of a directory that must not be trusted.
const SUSPECT: &str = "SUSPECT";
/// Where sled's own files are, beside the mark.
const DATA: &str = "sled";

type Tree = sled::Tree<LEAF_KEYS>;

/// How much sled holds in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Of what it has read and written, as it counts: the process holds half as much again.
    pub cache_bytes: usize,
    /// Written, after which dirty pages go to disk; until then they are held besides.
    pub dirty_bytes_max: u64,
}

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes { cache_bytes: 128 << 20, dirty_bytes_max: 64 << 20 }
    }
}

/// One sled tree in one directory.
pub struct SledKv {
    shared: Arc<Shared>,
    flusher: Option<thread::JoinHandle<()>>,
}

struct Shared {
    /// What the others are cloned from.
    first: Mutex<Tree>,
    /// Handles nobody uses right now.
    idle: Mutex<Vec<Tree>>,
    dir: PathBuf,
    sizes: Sizes,
    dirty_bytes: AtomicU64,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    /// Why nothing works any more.
    failed: Option<KvError>,
    flush_wanted: bool,
    stopping: bool,
}

impl SledKv {
    /// Opens or makes the index in `dir`.
    ///
    /// # Errors
    /// The directory is marked as suspect, or sled does not open, or panics over it: [`SledKv::destroy`] it.
    pub fn open(dir: &Path) -> Result<SledKv, KvError> {
        SledKv::open_with(dir, Sizes::default())
    }

    /// # Errors
    /// As [`SledKv::open`].
    pub fn open_with(dir: &Path, sizes: Sizes) -> Result<SledKv, KvError> {
        let suspect = dir.join(SUSPECT);
        if suspect.exists() {
            return Err(KvError(format!("{} was left suspect", dir.display())));
        }
        fs::create_dir_all(dir).and_then(|()| File::create(&suspect)).map_err(|error| because(dir, &error))?;
        let config = sled::Config::new()
            .path(dir.join(DATA))
            .flush_every_ms(Some(FLUSH_NEVER_MS))
            .cache_capacity_bytes(sizes.cache_bytes)
            .zstd_compression_level(1);
        let opened = panic::catch_unwind(AssertUnwindSafe(|| config.open::<LEAF_KEYS>()));
        let tree = match opened {
            Ok(Ok(db)) => Tree::clone(&db),
            Ok(Err(error)) => return Err(because(dir, &error)),
            Err(_) => return Err(KvError(format!("sled panicked opening {}", dir.display()))),
        };
        fs::remove_file(&suspect).map_err(|error| because(dir, &error))?;
        let shared = Arc::new(Shared {
            first: Mutex::new(tree),
            idle: Mutex::default(),
            dir: dir.to_path_buf(),
            sizes,
            dirty_bytes: AtomicU64::new(0),
            state: Mutex::default(),
            wake: Condvar::new(),
        });
        let flushing = Arc::clone(&shared);
        let flusher = thread::Builder::new().name("kv-flush".into()).spawn(move || flushing.flush_when_asked());
        Ok(SledKv { shared, flusher: Some(flusher.map_err(|error| because(dir, &error))?) })
    }

    /// Removes the index in `dir`. Nothing there is not an error.
    ///
    /// # Errors
    /// The directory cannot be removed.
    pub fn destroy(dir: &Path) -> io::Result<()> {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }
}

impl Drop for SledKv {
    fn drop(&mut self) {
        self.shared.state.lock().stopping = true;
        self.shared.wake.notify_all();
        if let Some(flusher) = self.flusher.take() {
            // A flusher that panicked has left its mark already.
            let _ = flusher.join();
        }
        if self.shared.state.lock().failed.is_some() {
            // Dropping the last handle makes sled flush, and abort when that fails. What it holds is lost anyway.
            std::mem::forget(Arc::clone(&self.shared));
        }
    }
}

impl Shared {
    /// Runs one call into sled; the first failure is the last call.
    fn fenced<T>(&self, call: impl FnOnce(&Tree) -> io::Result<T>) -> Result<T, KvError> {
        if let Some(failed) = &self.state.lock().failed {
            return Err(failed.clone());
        }
        let idle = self.idle.lock().pop();
        let tree = idle.unwrap_or_else(|| self.first.lock().clone());
        let called = panic::catch_unwind(AssertUnwindSafe(|| call(&tree)));
        self.idle.lock().push(tree);
        let error = match called {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => because(&self.dir, &error),
            Err(_) => KvError(format!("sled panicked in {}", self.dir.display())),
        };
        // The mark is best effort: without it the next open meets the damage again and marks it then.
        let _ = File::create(self.dir.join(SUSPECT));
        Err(self.state.lock().failed.get_or_insert(error).clone())
    }

    fn flush(&self) -> Result<(), KvError> {
        self.dirty_bytes.store(0, Ordering::Relaxed);
        self.fenced(|tree| tree.flush().map(drop))
    }

    fn flush_when_asked(&self) {
        let mut state = self.state.lock();
        loop {
            while !state.flush_wanted && !state.stopping {
                self.wake.wait(&mut state);
            }
            if state.stopping {
                return;
            }
            state.flush_wanted = false;
            drop(state);
            // The failure is kept in `failed`, where the next caller meets it.
            let _ = self.flush();
            state = self.state.lock();
        }
    }

    fn wrote(&self, bytes: u64) {
        if self.dirty_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes >= self.sizes.dirty_bytes_max {
            self.state.lock().flush_wanted = true;
            self.wake.notify_all();
        }
    }
}

fn because(dir: &Path, error: &io::Error) -> KvError {
    KvError(format!("{}: {error}", dir.display()))
}

impl Kv for SledKv {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.shared.fenced(|tree| Ok(tree.get(key)?.map(|value| value.to_vec())))
    }

    fn scan<'a>(&'a self, from: &[u8], to: Option<&[u8]>) -> Box<dyn Iterator<Item = Result<Pair, KvError>> + 'a> {
        let (next, to) = (Some(from.into()), to.map(<[u8]>::to_vec));
        Box::new(Scan { shared: &self.shared, pairs: VecDeque::new(), next, to, page_pairs: PAGE_PAIRS_MIN })
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<Pair>, KvError> {
        let last = self.shared.fenced(|tree| tree.last_in(from, to))?;
        Ok(last.map(|(key, value)| (key.to_vec(), value.to_vec())))
    }

    fn count(&self, from: &[u8], to: &[u8]) -> Result<usize, KvError> {
        self.shared.fenced(|tree| {
            let (mut count, mut next) = (0, (from < to).then(|| InlineArray::from(from)));
            while let Some(from) = next.take() {
                let (pairs, rest) = tree.page(&from, Some(to), LEAF_KEYS)?;
                count += pairs.len();
                next = rest;
            }
            Ok(count)
        })
    }

    fn write(&self, batch: Batch) -> Result<(), KvError> {
        let mut changes = sled::Batch::default();
        let mut bytes = 0;
        for (key, value) in batch.changes {
            bytes += key.len() + value.as_ref().map_or(0, Vec::len);
            match value {
                Some(value) => changes.insert(key, value),
                None => changes.remove(key),
            }
        }
        self.shared.fenced(|tree| tree.apply_batch(changes))?;
        self.shared.wrote(bytes as u64);
        Ok(())
    }

    fn flush(&self) -> Result<(), KvError> {
        self.shared.flush()
    }
}

struct Scan<'a> {
    shared: &'a Shared,
    pairs: VecDeque<(InlineArray, InlineArray)>,
    /// Where to go on. `None` at the end, and after an error was given out.
    next: Option<InlineArray>,
    to: Option<Vec<u8>>,
    /// Pairs to take next.
    page_pairs: usize,
}

impl Scan<'_> {
    /// Takes as much as is likely to be asked for: most scans are short.
    fn turn(&mut self, from: &InlineArray) -> Result<(), KvError> {
        let (pairs, next) = self.shared.fenced(|tree| tree.page(from, self.to.as_deref(), self.page_pairs))?;
        self.pairs = pairs.into();
        self.next = next;
        self.page_pairs = (self.page_pairs * 4).min(LEAF_KEYS);
        Ok(())
    }
}

impl Iterator for Scan<'_> {
    type Item = Result<Pair, KvError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.pairs.is_empty() {
            let from = self.next.take()?;
            if let Err(error) = self.turn(&from) {
                return Some(Err(error));
            }
        }
        self.pairs.pop_front().map(|(key, value)| Ok((key.to_vec(), value.to_vec())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::suite;

    fn batch(pairs: &[(&[u8], &[u8])]) -> Batch {
        let mut batch = Batch::default();
        pairs.iter().for_each(|(key, value)| batch.put(*key, *value));
        batch
    }

    #[test]
    fn conforms() {
        suite::run(&|| Box::new(Temporary::new()));
    }

    #[test]
    fn agrees_with_memory() {
        for seed in 0..6 {
            suite::compare(&Temporary::new(), &crate::kv::memory::MemoryKv::new(), seed);
        }
    }

    #[test]
    fn flushed_batches_survive_a_reopen() {
        let dir = tempfile::tempdir().unwrap();
        let store = SledKv::open(dir.path()).unwrap();
        store.write(batch(&[(b"a", b"1"), (b"b", b"2")])).unwrap();
        store.flush().unwrap();
        drop(store);
        let store = SledKv::open(dir.path()).unwrap();
        assert_eq!(store.get(b"b").unwrap(), Some(b"2".to_vec()));
    }

    /// Hardly anything stays in memory, so that each look is at what was written, paged out and paged in again, while others
    /// flush and read.
    #[test]
    fn what_is_paged_out_comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let sizes = Sizes { cache_bytes: 16 << 10, dirty_bytes_max: 16 << 10 };
        let store = SledKv::open_with(dir.path(), sizes).unwrap();
        let model = crate::kv::memory::MemoryKv::new();
        let done = std::sync::atomic::AtomicBool::new(false);
        thread::scope(|scope| {
            for seed in 1..3 {
                let (store, done) = (&store, &done);
                scope.spawn(move || suite::read_beside(store, seed, || done.load(Ordering::Relaxed)));
            }
            // The others end with it, however it ends.
            let churned = panic::catch_unwind(AssertUnwindSafe(|| suite::churn(&store, &model, 0)));
            done.store(true, Ordering::Relaxed);
            churned.unwrap_or_else(|panic| panic::resume_unwind(panic));
        });
        store.flush().unwrap();
        drop(store);
        let reopened = SledKv::open_with(dir.path(), sizes).unwrap();
        suite::are_equal(&reopened, &model);
    }

    #[test]
    fn damage_is_an_error_and_destroy_heals() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        let store = SledKv::open(&path).unwrap();
        for n in 0..2000_u32 {
            store.write(batch(&[(&n.to_be_bytes(), &[7; 100])])).unwrap();
        }
        store.flush().unwrap();
        drop(store);
        scribble(&path.join(DATA));
        let read = SledKv::open(&path).and_then(|store| store.scan(b"", None).try_for_each(|pair| pair.map(drop)));
        assert!(read.is_err());
        assert!(SledKv::open(&path).is_err(), "a suspect index opened");
        SledKv::destroy(&path).unwrap();
        SledKv::destroy(&path).unwrap();
        assert_eq!(SledKv::open(&path).unwrap().scan(b"", None).count(), 0);
    }

    /// Overwrites the middle of every file.
    fn scribble(dir: &Path) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                scribble(&path);
            } else {
                let mut bytes = fs::read(&path).unwrap();
                bytes.iter_mut().skip(9).for_each(|byte| *byte = !*byte);
                fs::write(&path, bytes).unwrap();
            }
        }
    }

    /// A store in a directory that goes away with it.
    struct Temporary {
        store: SledKv,
        _dir: tempfile::TempDir,
    }

    impl Temporary {
        fn new() -> Temporary {
            let dir = tempfile::tempdir().unwrap();
            Temporary { store: SledKv::open(dir.path()).unwrap(), _dir: dir }
        }
    }

    impl Kv for Temporary {
        fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
            self.store.get(key)
        }

        fn scan<'a>(&'a self, from: &[u8], to: Option<&[u8]>) -> Box<dyn Iterator<Item = Result<Pair, KvError>> + 'a> {
            self.store.scan(from, to)
        }

        fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<Pair>, KvError> {
            self.store.last(from, to)
        }

        fn count(&self, from: &[u8], to: &[u8]) -> Result<usize, KvError> {
            self.store.count(from, to)
        }

        fn write(&self, batch: Batch) -> Result<(), KvError> {
            self.store.write(batch)
        }

        fn flush(&self) -> Result<(), KvError> {
            self.store.flush()
        }
    }
}
