//! Open files: what a handle stands for.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::api::{Handle, OpenMode, Result};
use super::inode::{Node, State};
use super::kept::{Debt, Kept, KeptFile};
use super::names::FIRST_COOKIE;
use super::readahead::Stream;
use crate::types::error::FsError;
use crate::types::id::Ino;

const SHARDS: usize = 32;

/// One open file.
pub struct OpenFile {
    pub node: Arc<Node>,
    pub mode: OpenMode,
    /// The call that opened it; 0: none of the kernel's.
    pub call: u64,
    /// How many failures of write-back this handle has reported.
    reported: AtomicU64,
    pub stream: Mutex<Stream>,
    /// Of a directory: entries from this cookie on came after its listing was begun; 0 before it is.
    listing_bound: AtomicU64,
    /// The session it was locked under has expired: others may have the lock now.
    lost: AtomicBool,
}

impl OpenFile {
    pub fn new(node: Arc<Node>, mode: OpenMode, call: u64) -> OpenFile {
        let reported = node.lock().failure.count;
        let (stream, listing_bound, lost) = (Mutex::default(), AtomicU64::new(0), AtomicBool::new(false));
        OpenFile { node, mode, call, reported: AtomicU64::new(reported), stream, listing_bound, lost }
    }

    /// Where the listing that goes on after a cookie ends. One that begins is bounded by what is there now: a file that is
    /// renamed gets a new cookie each time, and could be listed for ever.
    pub fn listing_bound(&self, after: u64, next_cookie: u64) -> u64 {
        if after < FIRST_COOKIE || self.listing_bound.load(Ordering::Acquire) == 0 {
            self.listing_bound.store(next_cookie, Ordering::Release);
        }
        self.listing_bound.load(Ordering::Acquire)
    }

    /// # Errors
    /// `Io` when a lock that this handle may have relied on was lost.
    pub fn check_lost(&self) -> Result<()> {
        if self.lost.load(Ordering::Acquire) { Err(FsError::Io) } else { Ok(()) }
    }

    fn kept_as(&self, handle: Handle) -> KeptFile {
        KeptFile { handle, ino: self.node.ino, mode: self.mode, call: self.call }
    }

    fn owes_a_report(&self) -> bool {
        self.node.lock().failure.count > self.reported.load(Ordering::Acquire)
    }

    /// What write-back met since this handle was told last.
    ///
    /// # Errors
    /// The failure, once.
    pub fn report(&self) -> Result<()> {
        let failure = self.node.lock().failure.clone();
        let before = self.reported.swap(failure.count, Ordering::AcqRel);
        match failure.error {
            Some(error) if failure.count > before => Err(error),
            _ => Ok(()),
        }
    }
}

impl State {
    /// By one more handle.
    pub fn opened(&mut self, for_writing: bool) {
        self.opens += 1;
        self.writers += u32::from(for_writing);
        self.idle_since = None;
    }

    pub fn closed(&mut self, for_writing: bool) {
        self.opens -= 1;
        self.writers -= u32::from(for_writing);
        if self.opens == 0 {
            self.idle_since = Some(Instant::now());
            self.stale = false;
        }
    }
}

/// Every open file.
pub struct Files {
    shards: [Mutex<HashMap<u64, Arc<OpenFile>>>; SHARDS],
    last: AtomicU64,
    kept: Option<Arc<Kept>>,
}

impl Files {
    pub fn new(kept: Option<Arc<Kept>>) -> Files {
        let last = kept.as_ref().map_or(0, |kept| kept.last_handle());
        Files { shards: Default::default(), last: AtomicU64::new(last), kept }
    }

    /// # Errors
    /// `NoSpace`: more are open than can be kept.
    pub fn insert(&self, file: OpenFile) -> Result<Handle> {
        let handle = Handle(self.last.fetch_add(1, Ordering::Relaxed) + 1);
        if let Some(kept) = &self.kept {
            kept.opened(&file.kept_as(handle))?;
        }
        self.restore(handle, Arc::new(file));
        Ok(handle)
    }

    /// One that an earlier client has opened.
    pub fn restore(&self, handle: Handle, file: Arc<OpenFile>) {
        self.shard(handle.0).lock().insert(handle.0, file);
    }

    /// # Errors
    /// `BadHandle` when it is not open.
    pub fn find(&self, handle: Handle) -> Result<Arc<OpenFile>> {
        self.shard(handle.0).lock().get(&handle.0).cloned().ok_or(FsError::BadHandle)
    }

    /// For reading and changing what is in the file.
    ///
    /// # Errors
    /// `BadHandle` when it is not open; `Io` when a lock that it may have relied on was lost, until it is opened anew.
    pub fn find_for_data(&self, handle: Handle) -> Result<Arc<OpenFile>> {
        let file = self.find(handle)?;
        file.check_lost()?;
        Ok(file)
    }

    /// Locks on these inodes were lost.
    pub fn lose(&self, inos: &HashSet<Ino>) {
        if inos.is_empty() {
            return;
        }
        for shard in &self.shards {
            for file in shard.lock().values().filter(|file| inos.contains(&file.node.ino)) {
                file.lost.store(true, Ordering::Release);
            }
        }
    }

    /// What open files are to be told yet.
    pub fn debts(&self) -> Vec<Debt> {
        let mut debts = Vec::new();
        for shard in &self.shards {
            for (handle, file) in shard.lock().iter() {
                let (failure, lost) = (file.owes_a_report(), file.lost.load(Ordering::Acquire));
                if failure || lost {
                    debts.push(Debt { handle: Handle(*handle), failure, lost });
                }
            }
        }
        debts
    }

    /// Takes up what a client before owed to these, and to no other.
    pub fn take_up(&self, debts: &[Debt]) {
        let owed = debts.iter().filter_map(|debt| Some((debt, self.find(debt.handle).ok()?)));
        let owed: Vec<(&Debt, Arc<OpenFile>)> = owed.collect();
        if owed.is_empty() {
            return;
        }
        for (debt, file) in &owed {
            if debt.failure {
                file.node.lock().fail(FsError::Io);
            }
            file.lost.fetch_or(debt.lost, Ordering::AcqRel);
        }
        let is_owed = |handle: u64| owed.iter().any(|(debt, _)| debt.failure && debt.handle.0 == handle);
        for shard in &self.shards {
            for (handle, file) in shard.lock().iter() {
                if !is_owed(*handle) {
                    file.reported.store(file.node.lock().failure.count, Ordering::Release);
                }
            }
        }
    }

    /// # Errors
    /// `BadHandle` when it is not open.
    pub fn remove(&self, handle: Handle) -> Result<Arc<OpenFile>> {
        let file = self.shard(handle.0).lock().remove(&handle.0).ok_or(FsError::BadHandle)?;
        if let Some(kept) = &self.kept {
            kept.closed(&file.kept_as(handle));
        }
        Ok(file)
    }

    fn shard(&self, handle: u64) -> &Mutex<HashMap<u64, Arc<OpenFile>>> {
        &self.shards[(handle % SHARDS as u64) as usize]
    }
}
