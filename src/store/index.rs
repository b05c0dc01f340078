//! The index of one disk: where each chunk is.
//!
//! Derived from the packs and rebuilt from them whenever it is missing or suspect; so it is never flushed on the path
//! of an acknowledgement. What was flushed is marked by a [`Position`]: packs are scanned from there on start. The
//! position is written only *after* a flush that covers it, so an engine that loses or reorders unflushed batches does
//! no harm.
//!
//! Beside the engine it keeps in memory what is asked often: per slot the number of chunks and the XOR of their ids,
//! per pack how many records are alive.
//!
//! ```text
//! key                 value
//! "c" chunk id (32)   version (1), pack u32, offset u64, payload bytes u32, put epoch u64, touch pack u32, touch offset u64
//! "i"                 version (1), disk id (16)
//! "p"                 version (1), pack u32, offset u64
//! ```
//!
//! Little-endian; touch pack 0 is no touch (packs count from 1).

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::kv::{Batch, KvError, SharedKv};
use crate::pack::reader::Spot;
use crate::types::digest::{ChunkId, SLOTS, Slot};
use crate::types::id::DiskId;

const VERSION: u8 = 1;
const ENTRY_BYTES: usize = 37;
const IDENTITY: &[u8] = b"i";
const POSITION: &[u8] = b"p";

/// Where a chunk is and when it was last put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub pack: u32,
    pub offset: u64,
    pub payload_bytes: u32,
    pub put_epoch: u64,
    /// The touch record that raised the epoch to what it is, as (pack, offset).
    pub touch: Option<(u32, u64)>,
}

/// Everything before this place in the packs is in the index, durably.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub pack: u32,
    pub offset: u64,
}

/// What becomes of one chunk: `None` is not there.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    pub id: ChunkId,
    pub old: Option<Entry>,
    pub new: Option<Entry>,
}

/// A slot at a glance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub chunks: u64,
    pub xor: [u8; 32],
}

impl Summary {
    pub fn toggle(&mut self, id: &ChunkId) {
        self.xor.iter_mut().zip(id.0).for_each(|(sum, byte)| *sum ^= byte);
    }

    pub fn merge(&mut self, other: &Summary) {
        self.chunks += other.chunks;
        self.xor.iter_mut().zip(other.xor).for_each(|(sum, byte)| *sum ^= byte);
    }
}

/// What the whole disk holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    pub chunks: u64,
    pub chunk_bytes: u64,
}

pub struct Index {
    kv: SharedKv,
    totals: Mutex<Totals>,
}

#[derive(Default)]
struct Totals {
    slots: Vec<Summary>,
    /// Live records (chunks, and touches that count) of each pack that has any.
    packs: BTreeMap<u32, u64>,
    holdings: Holdings,
}

/// How an index was found.
pub enum Found {
    /// Good up to a position.
    Ready(Index, Position),
    /// Empty, or of another disk or version: to be made anew from an empty directory.
    Foreign,
}

impl Index {
    /// Takes an engine that may hold an index of this disk; an empty one becomes it.
    ///
    /// # Errors
    /// The engine failed, or an entry is unreadable: throw it away and rebuild.
    pub fn open(kv: SharedKv, disk: &DiskId) -> Result<Found, KvError> {
        let identity = [&[VERSION][..], &disk.0].concat();
        match kv.get(IDENTITY)? {
            Some(found) if found == identity => {}
            Some(_) => return Ok(Found::Foreign),
            None if kv.scan(&[], None).next().is_some() => return Ok(Found::Foreign),
            None => {
                let mut batch = Batch::default();
                batch.put(IDENTITY, identity);
                kv.write(batch)?;
            }
        }
        let position = match kv.get(POSITION)? {
            Some(bytes) => decode_position(&bytes).ok_or_else(|| unreadable("position"))?,
            None => Position::default(),
        };
        let index = Index { kv, totals: Mutex::new(Totals::new()) };
        index.count()?;
        Ok(Found::Ready(index, position))
    }

    /// Adds up everything that is there.
    fn count(&self) -> Result<(), KvError> {
        let mut totals = Totals::new();
        for pair in self.kv.scan(b"c", Some(b"d")) {
            let (id, entry) = decode_pair(pair?)?;
            totals.apply(&Change { id, old: None, new: Some(entry) });
        }
        *self.totals.lock() = totals;
        Ok(())
    }

    /// # Errors
    /// The engine failed, or the entry is unreadable.
    pub fn entry(&self, id: &ChunkId) -> Result<Option<Entry>, KvError> {
        match self.kv.get(&key_of(id))? {
            Some(value) => decode_entry(&value).map(Some).ok_or_else(|| unreadable("entry")),
            None => Ok(None),
        }
    }

    /// Applies changes atomically. The caller is the only one who changes the index, and `old` is what is there.
    ///
    /// # Errors
    /// The engine failed.
    pub fn apply(&self, changes: &[Change]) -> Result<(), KvError> {
        let mut batch = Batch::default();
        for change in changes {
            match &change.new {
                Some(entry) => batch.put(key_of(&change.id), encode_entry(entry)),
                None => batch.delete(key_of(&change.id)),
            }
        }
        self.kv.write(batch)?;
        let mut totals = self.totals.lock();
        changes.iter().for_each(|change| totals.apply(change));
        Ok(())
    }

    /// Makes the index durable, and remembers that it is good up to `position`.
    ///
    /// # Errors
    /// The engine failed.
    pub fn checkpoint(&self, position: Position) -> Result<(), KvError> {
        self.kv.flush()?;
        let mut batch = Batch::default();
        let mut value = vec![VERSION];
        value.extend_from_slice(&position.pack.to_le_bytes());
        value.extend_from_slice(&position.offset.to_le_bytes());
        batch.put(POSITION, value);
        self.kv.write(batch)
    }

    /// # Errors
    /// The engine failed.
    pub fn flush(&self) -> Result<(), KvError> {
        self.kv.flush()
    }

    pub fn summary(&self, slot: Slot) -> Summary {
        self.totals.lock().slots.get(usize::from(slot.0)).copied().unwrap_or_default()
    }

    pub fn holdings(&self) -> Holdings {
        self.totals.lock().holdings
    }

    /// Has this pack nothing alive in it?
    pub fn is_idle(&self, pack: u32) -> bool {
        !self.totals.lock().packs.contains_key(&pack)
    }

    /// Chunks of a slot in order, after one; at most `limit`.
    ///
    /// # Errors
    /// The engine failed, or an entry is unreadable.
    pub fn list(&self, slot: Slot, after: Option<&ChunkId>, limit: usize) -> Result<Vec<(ChunkId, u64)>, KvError> {
        let mut from = key_of(&first_of(slot.0));
        if let Some(after) = after.filter(|after| key_of(after) >= from) {
            from = key_of(after);
            from.push(0);
        }
        let to = if slot.0 + 1 < SLOTS { key_of(&first_of(slot.0 + 1)) } else { b"d".to_vec() };
        let pairs = self.kv.scan(&from, Some(&to)).take(limit);
        pairs.map(|pair| decode_pair(pair?).map(|(id, entry)| (id, entry.put_epoch))).collect()
    }
}

impl Entry {
    pub fn spot(&self) -> Spot {
        Spot { offset: self.offset, payload_bytes: self.payload_bytes }
    }
}

impl Totals {
    fn new() -> Totals {
        Totals { slots: vec![Summary::default(); usize::from(SLOTS)], ..Totals::default() }
    }

    fn apply(&mut self, change: &Change) {
        if let Some(old) = &change.old {
            self.leave(old.pack);
            old.touch.iter().for_each(|(pack, _)| self.leave(*pack));
            self.holdings.chunk_bytes -= u64::from(old.payload_bytes);
        }
        if let Some(new) = &change.new {
            *self.packs.entry(new.pack).or_default() += 1;
            new.touch.iter().for_each(|(pack, _)| *self.packs.entry(*pack).or_default() += 1);
            self.holdings.chunk_bytes += u64::from(new.payload_bytes);
        }
        let summary = self.slots.get_mut(usize::from(change.id.slot().0));
        match (change.old.is_some(), change.new.is_some(), summary) {
            (false, true, Some(summary)) => {
                self.holdings.chunks += 1;
                summary.chunks += 1;
                summary.toggle(&change.id);
            }
            (true, false, Some(summary)) => {
                self.holdings.chunks -= 1;
                summary.chunks -= 1;
                summary.toggle(&change.id);
            }
            _ => {}
        }
    }

    fn leave(&mut self, pack: u32) {
        if let Some(records) = self.packs.get_mut(&pack) {
            *records -= 1;
            if *records == 0 {
                self.packs.remove(&pack);
            }
        }
    }
}

/// The smallest id of a slot.
fn first_of(slot: u16) -> ChunkId {
    let mut id = [0; 32];
    id[..2].copy_from_slice(&(slot << 6).to_be_bytes());
    ChunkId(id)
}

fn key_of(id: &ChunkId) -> Vec<u8> {
    [b"c", &id.0[..]].concat()
}

fn encode_entry(entry: &Entry) -> Vec<u8> {
    let (touch_pack, touch_offset) = entry.touch.unwrap_or_default();
    let mut value = Vec::with_capacity(ENTRY_BYTES);
    value.push(VERSION);
    value.extend_from_slice(&entry.pack.to_le_bytes());
    value.extend_from_slice(&entry.offset.to_le_bytes());
    value.extend_from_slice(&entry.payload_bytes.to_le_bytes());
    value.extend_from_slice(&entry.put_epoch.to_le_bytes());
    value.extend_from_slice(&touch_pack.to_le_bytes());
    value.extend_from_slice(&touch_offset.to_le_bytes());
    value
}

fn decode_entry(value: &[u8]) -> Option<Entry> {
    let rest = value.strip_prefix(&[VERSION]).filter(|rest| rest.len() == ENTRY_BYTES - 1)?;
    let (pack, rest) = rest.split_first_chunk()?;
    let (offset, rest) = rest.split_first_chunk()?;
    let (payload_bytes, rest) = rest.split_first_chunk()?;
    let (put_epoch, rest) = rest.split_first_chunk()?;
    let (touch_pack, rest) = rest.split_first_chunk()?;
    let touch = (u32::from_le_bytes(*touch_pack), u64::from_le_bytes(*rest.first_chunk()?));
    Some(Entry {
        pack: u32::from_le_bytes(*pack),
        offset: u64::from_le_bytes(*offset),
        payload_bytes: u32::from_le_bytes(*payload_bytes),
        put_epoch: u64::from_le_bytes(*put_epoch),
        touch: (touch.0 != 0).then_some(touch),
    })
}

fn decode_position(value: &[u8]) -> Option<Position> {
    let rest = value.strip_prefix(&[VERSION]).filter(|rest| rest.len() == 12)?;
    let (pack, rest) = rest.split_first_chunk()?;
    Some(Position { pack: u32::from_le_bytes(*pack), offset: u64::from_le_bytes(*rest.first_chunk()?) })
}

fn decode_pair((key, value): (Vec<u8>, Vec<u8>)) -> Result<(ChunkId, Entry), KvError> {
    let id = key.strip_prefix(b"c").and_then(|id| id.try_into().ok()).map(ChunkId);
    id.zip(decode_entry(&value)).ok_or_else(|| unreadable("entry"))
}

fn unreadable(what: &str) -> KvError {
    KvError(format!("an unreadable {what} in the chunk index"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::testing::MemoryKv;

    const DISK: DiskId = DiskId([3; 16]);

    fn fresh(kv: &SharedKv) -> Index {
        match Index::open(Arc::clone(kv), &DISK) {
            Ok(Found::Ready(index, _)) => index,
            _ => panic!("not an index"),
        }
    }

    fn entry(pack: u32, touch: Option<(u32, u64)>) -> Entry {
        Entry { pack, offset: 4096, payload_bytes: 77, put_epoch: 5, touch }
    }

    #[test]
    fn entries_survive() {
        for entry in [entry(1, None), entry(u32::MAX, Some((2, u64::MAX)))] {
            assert_eq!(decode_entry(&encode_entry(&entry)), Some(entry));
        }
        assert_eq!(decode_entry(&[VERSION; 5]), None);
        assert_eq!(decode_entry(&[9; ENTRY_BYTES]), None);
    }

    #[test]
    fn totals_follow_and_are_counted_again() {
        let kv: SharedKv = Arc::new(MemoryKv::default());
        let index = fresh(&kv);
        let ids: Vec<ChunkId> = (0..50_u32).map(|at| ChunkId::of(&at.to_le_bytes())).collect();
        for id in &ids {
            index.apply(&[Change { id: *id, old: None, new: Some(entry(1, None)) }]).unwrap();
        }
        let touched = Some(entry(1, Some((2, 8192))));
        index.apply(&[Change { id: ids[0], old: Some(entry(1, None)), new: touched }]).unwrap();
        for id in &ids[1..] {
            index.apply(&[Change { id: *id, old: Some(entry(1, None)), new: None }]).unwrap();
        }
        let mut summary = Summary { chunks: 1, xor: [0; 32] };
        summary.toggle(&ids[0]);
        for index in [&index, &fresh(&kv)] {
            assert_eq!(index.summary(ids[0].slot()), summary);
            assert_eq!(index.holdings(), Holdings { chunks: 1, chunk_bytes: 77 });
            assert!(!index.is_idle(1) && !index.is_idle(2) && index.is_idle(3));
        }
        index.apply(&[Change { id: ids[0], old: touched, new: None }]).unwrap();
        assert!(index.is_idle(1) && index.is_idle(2));
    }

    #[test]
    fn slots_are_listed_in_pages() {
        let index = fresh(&(Arc::new(MemoryKv::default()) as SharedKv));
        let mut ids: Vec<ChunkId> = (0..30_u8)
            .map(|at| {
                let mut id = ChunkId::of(&[at]);
                id.0[..2].copy_from_slice(&[0xff, 0xc0 | (at % 2) << 5]);
                id
            })
            .collect();
        for id in &ids {
            index.apply(&[Change { id: *id, old: None, new: Some(entry(1, None)) }]).unwrap();
        }
        ids.sort();
        assert_eq!(ids[0].slot(), Slot(SLOTS - 1));
        let mut listed = Vec::new();
        while let page @ [_, ..] = &index.list(Slot(SLOTS - 1), listed.last(), 7).unwrap()[..] {
            listed.extend(page.iter().map(|(id, _)| *id));
        }
        assert_eq!(listed, ids);
        assert!(index.list(Slot(SLOTS - 2), None, 7).unwrap().is_empty());
        assert_eq!(index.list(Slot(SLOTS - 1), Some(&ChunkId([0; 32])), 1).unwrap()[0].0, ids[0]);
    }

    #[test]
    fn foreign_engines_are_told() {
        let kv: SharedKv = Arc::new(MemoryKv::default());
        fresh(&kv);
        assert!(matches!(Index::open(Arc::clone(&kv), &DiskId([4; 16])), Ok(Found::Foreign)));
        let mut batch = Batch::default();
        batch.put(key_of(&ChunkId([0; 32])), vec![1]);
        kv.write(batch).unwrap();
        assert!(Index::open(kv, &DISK).is_err());
    }
}
