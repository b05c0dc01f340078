//! The one thread that changes a disk.
//!
//! Puts queue up while it waits for the device; it takes all that wait, appends them together, syncs once, updates the
//! index and answers all (group commit). Deletes run on the same thread, so that "is it there, and since which epoch"
//! is decided and acted upon without a race.
//!
//! A failed write or sync poisons the disk: pages that a failed `fsync` dropped would read back as written, so nothing
//! more is promised on it. Only "no space" is harmless: the file is cut back to where it was.

use std::collections::{HashMap, hash_map};
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

use tokio::sync::oneshot;

use crate::pack::format::{CheckedChunk, Kind, PAGE_BYTES, RECORD_HEADER_BYTES, RecordHeader};
use crate::pack::reader::ReadError;
use crate::store::index::{Change, Entry, Index, Position};
use crate::store::state::DiskState;
use crate::types::digest::ChunkId;
use crate::wire::store::StoreError;

use super::file::{PackFile, Packs};
use super::sys::{self, PageBuffer};
use super::tombstones::Tombstones;

/// One commit takes at most this much, so that the first in it does not wait for the last too long.
const BATCH_BYTES_MAX: u64 = 32 << 20;
const BATCH_JOBS_MAX: usize = 4096;
/// Chunks deleted between two looks at the queue of puts.
const DELETE_PIECE: usize = 256;
/// A commit of at least this much goes past the page cache.
const DIRECT_BYTES_MIN: u64 = 512 << 10;
const PAGE: u64 = PAGE_BYTES as u64;
static ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

/// How file contents are made durable: `fdatasync`, or something a test can make fail.
pub type SyncFile = Arc<dyn Fn(&File) -> io::Result<()> + Send + Sync>;

/// Why chunks are put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Somebody is about to refer to them.
    Write,
    /// A replica had them and this one had not: not wanted if deleted here meanwhile.
    Repair,
}

pub enum Job {
    Put {
        chunks: Vec<CheckedChunk>,
        epoch: u64,
        purpose: Purpose,
        done: oneshot::Sender<Result<(), StoreError>>,
    },
    /// Delete what was last put before `epoch`; answers how many were.
    Delete {
        ids: Vec<ChunkId>,
        epoch: u64,
        done: oneshot::Sender<Result<u64, StoreError>>,
    },
}

#[derive(Clone)]
pub struct WriterOptions {
    /// A pack is not begun anew before it has this size, nor grows beyond it (but for a single larger record).
    pub pack_bytes: u64,
    /// Space never taken by puts; `None` is the larger of 64 MiB and one per cent.
    pub reserve_bytes: Option<u64>,
    pub sync: SyncFile,
}

pub struct Writer {
    pub packs: Arc<Packs>,
    pub index: Arc<Index>,
    pub state: Arc<DiskState>,
    pub options: WriterOptions,
    /// The pack being filled and its end.
    pub tail: Option<(Arc<PackFile>, u64)>,
    pub next_number: u32,
    pub tombstones: Tombstones,
    /// For large appends; `None` before the first.
    pub pages: Option<PageBuffer>,
}

/// A record that is to be appended.
struct Append {
    id: ChunkId,
    epoch: u64,
    /// `None` is a touch.
    chunk: Option<CheckedChunk>,
    old: Option<Entry>,
}

/// The records of one commit, each chunk at most once.
#[derive(Default)]
struct Plan {
    appends: Vec<Append>,
    by_id: HashMap<ChunkId, usize>,
}

impl Writer {
    /// Runs until every sender is gone.
    pub fn run(mut self, jobs: &Receiver<Job>) {
        while let Ok(first) = jobs.recv() {
            let mut waiting = Vec::new();
            let mut plan = Plan::default();
            let mut deletes = Vec::new();
            let mut room = self.room();
            for job in gather(first, jobs) {
                match job {
                    Job::Put { chunks, epoch, purpose, done } => {
                        match self.plan(&mut plan, &mut room, chunks, epoch, purpose) {
                            Ok(()) => waiting.push(done),
                            Err(error) => drop(done.send(Err(error))),
                        }
                    }
                    Job::Delete { ids, epoch, done } => deletes.push((ids, epoch, done)),
                }
            }
            let result = self.commit(plan);
            waiting.into_iter().for_each(|done| drop(done.send(result.clone())));
            for (ids, epoch, done) in deletes {
                let _ = done.send(self.delete(&ids, epoch));
            }
        }
    }

    /// What may still be written.
    fn room(&self) -> Result<u64, StoreError> {
        self.state.check()?;
        let space = sys::space(self.packs.dir()).map_err(|error| self.state.fail(&error.to_string()))?;
        Ok(space.free_bytes.saturating_sub(reserve_bytes(self.options.reserve_bytes, space.capacity_bytes)))
    }

    /// Adds one job to the plan, whole or not at all.
    fn plan(
        &self,
        plan: &mut Plan,
        room: &mut Result<u64, StoreError>,
        chunks: Vec<CheckedChunk>,
        epoch: u64,
        purpose: Purpose,
    ) -> Result<(), StoreError> {
        let room = room.as_mut().map_err(|error| error.clone())?;
        let mut appends = Vec::new();
        for chunk in chunks {
            match plan.by_id.get(&chunk.id()) {
                // On its way already: durable when this commit is.
                Some(at) => {
                    let pending = &mut plan.appends[*at];
                    pending.epoch = pending.epoch.max(epoch);
                    self.count_hit(&chunk, purpose);
                }
                None => appends.extend(self.append_for(chunk, epoch, purpose)?),
            }
        }
        let bytes: u64 = appends.iter().map(Append::bytes).sum();
        if bytes > *room {
            return Err(StoreError::Full);
        }
        *room -= bytes;
        for append in appends {
            // The same chunk twice in one job is stored once.
            if let hash_map::Entry::Vacant(place) = plan.by_id.entry(append.id) {
                place.insert(plan.appends.len());
                plan.appends.push(append);
            }
        }
        Ok(())
    }

    /// What must be written for a chunk, if anything. That the index lists it is not enough: a stop in the middle of a
    /// deletion leaves entries of chunks that are gone, and what is acknowledged here must be in a pack.
    fn append_for(&self, chunk: CheckedChunk, epoch: u64, purpose: Purpose) -> Result<Option<Append>, StoreError> {
        let id = chunk.id();
        let old = self.index.entry(&id).map_err(|error| self.state.fail(&error.to_string()))?;
        match old {
            Some(old) if !self.state.is_damaged(&id) && self.stands(&id, &old) => {
                self.count_hit(&chunk, purpose);
                let touch = Append { id, epoch, chunk: None, old: Some(old) };
                Ok((old.put_epoch < epoch).then_some(touch))
            }
            None if purpose == Purpose::Repair && self.tombstones.covers(&id, epoch) => Ok(None),
            old => {
                let epoch = epoch.max(old.map_or(0, |old| old.put_epoch));
                Ok(Some(Append { id, epoch, chunk: Some(chunk), old }))
            }
        }
    }

    /// Is the record there that the index speaks of? One that is not is noted as damaged: should the new copy not be
    /// stored either, catch-up fetches one.
    fn stands(&self, id: &ChunkId, entry: &Entry) -> bool {
        let found = self.packs.open(entry.pack).map_err(ReadError::from);
        match found.and_then(|pack| pack.record(entry.spot(), id).look()) {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(chunk = %id, %error, "the index lists a chunk that is not there");
                self.state.found_damaged(*id);
                false
            }
        }
    }

    fn count_hit(&self, chunk: &CheckedChunk, purpose: Purpose) {
        if purpose == Purpose::Repair {
            return;
        }
        self.state.counts.dedup_hits.fetch_add(1, Ordering::Relaxed);
        self.state.counts.dedup_bytes.fetch_add(chunk.payload_bytes().into(), Ordering::Relaxed);
    }

    /// Makes a plan durable and known.
    fn commit(&mut self, plan: Plan) -> Result<(), StoreError> {
        let mut rest = plan.appends;
        while !rest.is_empty() {
            let (pack, end) = self.tail_for(rest[0].bytes())?;
            let mut bytes = 0;
            let fitting = rest.iter().take_while(|append| {
                bytes += append.bytes();
                // The first one fits, or is larger than any pack.
                bytes == append.bytes() || end + bytes <= self.options.pack_bytes
            });
            let later = rest.split_off(fitting.count());
            self.append(&pack, end, &rest)?;
            rest = later;
        }
        Ok(())
    }

    /// The pack to append to, a new one when the last is full.
    fn tail_for(&mut self, bytes: u64) -> Result<(Arc<PackFile>, u64), StoreError> {
        if let Some((pack, end)) = &self.tail
            && (end + bytes <= self.options.pack_bytes || *end == PAGE)
        {
            return Ok((Arc::clone(pack), *end));
        }
        let pack = match self.packs.create(self.next_number) {
            Ok(pack) => pack,
            Err(error) => {
                // A half-made pack is in nobody's way: its number is not used again.
                let _ = self.packs.remove(self.next_number);
                self.next_number += 1;
                return Err(self.write_error(&error));
            }
        };
        self.next_number += 1;
        let full = self.tail.replace((Arc::clone(&pack), PAGE));
        self.drop_idle(full.iter().map(|(pack, _)| pack.number));
        Ok((pack, PAGE))
    }

    /// Appends records to a pack: written, synced, indexed, in this order.
    fn append(&mut self, pack: &Arc<PackFile>, start: u64, appends: &[Append]) -> Result<(), StoreError> {
        let (heads, end) = heads(appends, pack, start);
        let mut slices = Vec::with_capacity(appends.len() * 3);
        for (append, head) in appends.iter().zip(&heads) {
            slices.push(IoSlice::new(head));
            if let Some(chunk) = &append.chunk {
                slices.push(IoSlice::new(chunk.payload()));
                slices.push(IoSlice::new(&ZEROS[..chunk.padding()]));
            }
        }
        if let Err(error) = write(pack, start, end - start, &mut slices, &mut self.pages) {
            let answer = self.write_error(&error);
            return match pack.file.set_len(start) {
                Ok(()) => Err(answer),
                Err(error) => Err(self.state.fail(&error.to_string())),
            };
        }
        (self.options.sync)(&pack.file).map_err(|error| self.state.fail(&error.to_string()))?;
        self.state.counts.syncs.fetch_add(1, Ordering::Relaxed);
        self.tail = Some((Arc::clone(pack), end));
        let changes = changes(appends, pack.number, start);
        self.index.apply(&changes).map_err(|error| self.state.fail(&error.to_string()))?;
        self.state.advance(Position { pack: pack.number, offset: end });
        self.bury_replaced(&changes);
        Ok(())
    }

    /// Gives back what the new entries made useless: damaged copies, and touches that a later one outdid.
    fn bury_replaced(&self, changes: &[Change]) {
        for (id, old, new) in changes.iter().filter_map(|change| Some((change.id, change.old?, change.new?))) {
            if (old.pack, old.offset) != (new.pack, new.offset) {
                self.state.mended(&id);
                if let Ok(pack) = self.packs.open(old.pack) {
                    let _ = mark_dead(&pack, &id, &old);
                    let _ = sys::punch(&pack.file, old.offset, record_bytes(&old));
                }
            }
            if old.touch != new.touch {
                self.punch_touch(&old);
            }
            self.drop_idle([old.pack].into_iter().chain(old.touch.map(|(pack, _)| pack)));
        }
    }

    fn punch_touch(&self, entry: &Entry) {
        if let Some((number, offset)) = entry.touch
            && let Ok(pack) = self.packs.open(number)
        {
            let _ = sys::punch(&pack.file, offset, PAGE);
        }
    }

    /// Deletes chunks last put before `epoch`.
    fn delete(&mut self, ids: &[ChunkId], epoch: u64) -> Result<u64, StoreError> {
        let mut deleted = 0;
        for ids in ids.chunks(DELETE_PIECE) {
            self.state.check()?;
            let fail = |error: &dyn std::fmt::Display| self.state.fail(&error.to_string());
            let mut doomed = Vec::new();
            for id in ids {
                self.tombstones.insert(*id, epoch);
                let entry = self.index.entry(id).map_err(|error| fail(&error))?;
                doomed.extend(entry.filter(|entry| entry.put_epoch < epoch).map(|entry| (*id, entry)));
            }
            doomed.sort_unstable_by_key(|(id, entry)| (entry.pack, entry.offset, *id));
            doomed.dedup_by_key(|(id, _)| *id);
            // Until the index has forgotten them, a reader finds them listed and dead.
            self.state.begin_delete(doomed.iter().map(|(id, _)| *id));
            self.mark_all(&doomed).map_err(|error| fail(&error))?;
            let changes: Vec<Change> =
                doomed.iter().map(|(id, entry)| Change { id: *id, old: Some(*entry), new: None }).collect();
            self.index.apply(&changes).map_err(|error| fail(&error))?;
            self.state.end_delete();
            self.index.flush().map_err(|error| fail(&error))?;
            self.punch_all(&doomed);
            deleted += doomed.len() as u64;
        }
        Ok(deleted)
    }

    /// Overwrites the headers, durably: from then on no scan takes these for chunks.
    fn mark_all(&self, doomed: &[(ChunkId, Entry)]) -> io::Result<()> {
        for of_one_pack in doomed.chunk_by(|a, b| a.1.pack == b.1.pack) {
            let pack = match self.packs.open(of_one_pack[0].1.pack) {
                Ok(pack) => pack,
                // No scan reads what cannot be opened.
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => continue,
                Err(error) => return Err(error),
            };
            of_one_pack.iter().try_for_each(|(id, entry)| mark_dead(&pack, id, entry))?;
            (self.options.sync)(&pack.file)?;
        }
        Ok(())
    }

    /// The chunks are out of the index: their space goes back. A failure costs space and nothing else.
    fn punch_all(&self, doomed: &[(ChunkId, Entry)]) {
        for (id, entry) in doomed {
            self.state.mended(id);
            if let Ok(pack) = self.packs.open(entry.pack)
                && let Err(error) = sys::punch(&pack.file, entry.offset, record_bytes(entry))
            {
                tracing::warn!(pack = entry.pack, %error, "the space of a deleted chunk is not given back");
            }
            self.punch_touch(entry);
            self.drop_idle([entry.pack].into_iter().chain(entry.touch.map(|(pack, _)| pack)));
        }
    }

    /// Removes those of these packs that hold nothing alive, save the one being filled.
    fn drop_idle(&self, packs: impl IntoIterator<Item = u32>) {
        let tail = self.tail.as_ref().map(|(pack, _)| pack.number);
        for number in packs {
            if Some(number) != tail
                && self.index.is_idle(number)
                && let Err(error) = self.packs.remove(number)
            {
                tracing::warn!(pack = number, %error, "an empty pack is not removed");
            }
        }
    }

    /// No space is an answer; anything else is the end of the disk.
    fn write_error(&self, error: &io::Error) -> StoreError {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full,
            _ => self.state.fail(&error.to_string()),
        }
    }
}

impl Append {
    fn bytes(&self) -> u64 {
        self.chunk.as_ref().map_or(PAGE, CheckedChunk::record_bytes)
    }
}

/// Writes the records of one commit: many bytes past the page cache, where the next reader is far away anyway, few bytes
/// through it.
fn write(
    pack: &PackFile,
    start: u64,
    bytes: u64,
    slices: &mut [IoSlice<'_>],
    pages: &mut Option<PageBuffer>,
) -> io::Result<()> {
    if bytes >= DIRECT_BYTES_MIN
        && let Some(file) = pack.direct()
    {
        match sys::write_direct(file, start, slices, pages.get_or_insert_default()) {
            // A device with blocks larger than pages.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
            result => return result,
        }
    }
    sys::write_at(&pack.file, start, slices)
}

/// The space puts leave alone.
pub fn reserve_bytes(configured: Option<u64>, capacity_bytes: u64) -> u64 {
    configured.unwrap_or_else(|| (64 << 20).max(capacity_bytes / 100))
}

/// Takes all that waits, within bounds.
fn gather(first: Job, jobs: &Receiver<Job>) -> Vec<Job> {
    let mut bytes = first.bytes();
    let mut batch = vec![first];
    while bytes < BATCH_BYTES_MAX
        && batch.len() < BATCH_JOBS_MAX
        && let Ok(job) = jobs.try_recv()
    {
        bytes += job.bytes();
        batch.push(job);
    }
    batch
}

impl Job {
    fn bytes(&self) -> u64 {
        match self {
            Job::Put { chunks, .. } => chunks.iter().map(CheckedChunk::record_bytes).sum(),
            Job::Delete { .. } => 0,
        }
    }
}

/// What precedes each payload, and where the last record ends.
fn heads(appends: &[Append], pack: &PackFile, start: u64) -> (Vec<Vec<u8>>, u64) {
    let mut at = start;
    let heads = appends.iter().map(|append| {
        let head = match &append.chunk {
            Some(chunk) => chunk.head(append.epoch, &pack.salt, at),
            None => {
                let mut page = RecordHeader::touch(append.id, append.epoch).encode(&pack.salt, at).to_vec();
                page.resize(PAGE_BYTES, 0);
                page
            }
        };
        at += append.bytes();
        head
    });
    (heads.collect(), at)
}

/// What the index must say of records appended from `start`.
fn changes(appends: &[Append], pack: u32, start: u64) -> Vec<Change> {
    let mut at = start;
    let changes = appends.iter().map(|append| {
        let offset = at;
        at += append.bytes();
        let new = match (&append.chunk, append.old) {
            (None, Some(old)) => Entry { put_epoch: append.epoch, touch: Some((pack, offset)), ..old },
            (chunk, _) => Entry {
                pack,
                offset,
                payload_bytes: chunk.as_ref().map_or(0, CheckedChunk::payload_bytes),
                put_epoch: append.epoch,
                touch: None,
            },
        };
        Change { id: append.id, old: append.old, new: Some(new) }
    });
    changes.collect()
}

fn mark_dead(pack: &PackFile, id: &ChunkId, entry: &Entry) -> io::Result<()> {
    let header = RecordHeader {
        kind: Kind::Dead,
        id: *id,
        payload_bytes: entry.payload_bytes,
        table_checksum: 0,
        put_epoch: entry.put_epoch,
    };
    let bytes: [u8; RECORD_HEADER_BYTES] = header.encode(&pack.salt, entry.offset);
    pack.file.write_all_at(&bytes, entry.offset)
}

fn record_bytes(entry: &Entry) -> u64 {
    crate::pack::format::record_bytes(entry.payload_bytes)
}
