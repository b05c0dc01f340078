//! What the packs say after a stop, clean or not.
//!
//! Scans from the index's last position to the end, or everything when there is no index, and applies what it finds. A
//! record that fails its checks is not indexed: if it was torn nobody was told it exists, and if it rotted the other
//! replicas have it and catch-up fetches it. Behind the last good record of the last pack the file is cut.
//!
//! What is in the last pack behind that position may be in memory only: the process was stopped before it was synced,
//! or a sync failed, after which pages read back as if they were on disk. So it is written once more in its place and
//! synced *before* any of it is indexed: from then on a put of the same chunk is acknowledged without a sync.
//!
//! Only the last pack is treated so, and only there payloads are checked: earlier ones were synced whole before the next
//! was begun, and every read checks again.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::sync::Arc;

use crate::kv::KvError;
use crate::pack::format::{
    FormatError, Kind, PAGE_BYTES, RECORD_HEADER_BYTES, RecordHeader, check_pieces, payload_start, table_bytes,
};
use crate::pack::sys::{Patience, read_at};
use crate::store::index::{Change, Entry, Index, Position};
use crate::types::digest::ChunkId;

use super::file::{PackFile, Packs, sync_dir};
use super::sys::{next_data, next_hole, punch, write_at};
use super::writer::SyncFile;

/// Records applied to the index together.
const BATCH_RECORDS: usize = 1024;
/// Bytes held in memory while a tail is written once more.
const REWRITE_BYTES: u64 = 4 << 20;
const PAGE: u64 = PAGE_BYTES as u64;

#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error("reading packs: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Index(#[from] KvError),
    #[error("pack {0} holds records of format {1}, which is newer than this program")]
    Newer(u32, u16),
}

/// Where writing goes on, and what was met on the way.
pub struct Recovered {
    /// The last pack and its end; `None` when there is none fit to be continued.
    pub tail: Option<(Arc<PackFile>, u64)>,
    /// The number the next new pack gets.
    pub next_number: u32,
    pub report: ScanReport,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanReport {
    pub records: u64,
    /// Stretches before the last good record that are no records.
    pub damaged: u64,
    /// Bytes cut off the end of the last pack.
    pub cut_bytes: u64,
}

/// Brings the index up to the packs, and the last pack into a state to be continued.
///
/// # Errors
/// The disk or the index failed. Damage is no error.
pub fn recover(packs: &Packs, index: &Index, from: Position, sync: &SyncFile) -> Result<Recovered, RecoverError> {
    let numbers = packs.numbers()?;
    let mut report = ScanReport::default();
    let mut tail = None;
    let last = numbers.last().copied();
    for number in numbers.iter().copied().filter(|number| *number >= from.pack) {
        let Some(pack) = open_or_drop(packs, number, Some(number) == last, &mut report)? else { continue };
        let start = if number == from.pack { from.offset } else { 0 };
        if Some(number) == last {
            harden(packs, &pack, start, sync)?;
        }
        let mut scan = Scan { pack: &pack, index, report, pending: HashMap::new(), deep: Some(number) == last };
        let end = scan.run(start.max(PAGE))?;
        report = scan.report;
        if Some(number) == last {
            report.cut_bytes = cut(&pack, end)?;
            tail = Some((pack, end));
        }
    }
    let next_number = last.unwrap_or(0).max(from.pack) + 1;
    Ok(Recovered { tail, next_number, report })
}

/// A last pack without a header was being made when the power went: nothing in it was ever acknowledged.
fn open_or_drop(
    packs: &Packs,
    number: u32,
    last: bool,
    report: &mut ScanReport,
) -> Result<Option<Arc<PackFile>>, RecoverError> {
    match packs.open(number) {
        Ok(pack) => Ok(Some(pack)),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            if last && std::fs::metadata(packs.path(number))?.len() <= PAGE {
                packs.remove(number)?;
            } else {
                tracing::error!(pack = number, %error, "a pack is unreadable; its chunks will be fetched from replicas");
                report.damaged += 1;
            }
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Makes what is in a pack from `start` on durable, and the pack's name. Holes stay holes.
fn harden(packs: &Packs, pack: &PackFile, start: u64, sync: &SyncFile) -> io::Result<()> {
    let length = pack.file.metadata()?.len();
    if start >= length {
        return Ok(());
    }
    let mut at = start;
    while let Some(data) = next_data(&pack.file, at)?.filter(|data| *data < length) {
        let end = next_hole(&pack.file, data)?.min(length).min(data + REWRITE_BYTES);
        let bytes = read_at(&pack.file, data, (end - data) as usize, Patience::Wait)?;
        if bytes.is_empty() {
            break;
        }
        write_at(&pack.file, data, &mut [IoSlice::new(&bytes)])?;
        at = data + bytes.len() as u64;
    }
    sync(&pack.file)?;
    sync_dir(packs.dir())
}

/// Cuts the file at `end`, durably; gives the bytes cut off.
fn cut(pack: &PackFile, end: u64) -> io::Result<u64> {
    let length = pack.file.metadata()?.len();
    if length != end {
        pack.file.set_len(end)?;
        pack.file.sync_all()?;
    }
    Ok(length.saturating_sub(end))
}

struct Scan<'a> {
    pack: &'a PackFile,
    index: &'a Index,
    report: ScanReport,
    /// Not yet in the index; at most one change a chunk.
    pending: HashMap<ChunkId, Change>,
    /// Check payloads, not only headers and tables.
    deep: bool,
}

impl Scan<'_> {
    /// Applies every good record from `start`; gives the end of the last one.
    fn run(&mut self, start: u64) -> Result<u64, RecoverError> {
        let length = self.pack.file.metadata()?.len();
        let (mut at, mut end) = (start, start);
        let mut in_damage = false;
        while at + RECORD_HEADER_BYTES as u64 <= length {
            let head = read_at(&self.pack.file, at, RECORD_HEADER_BYTES, Patience::Wait)?;
            match RecordHeader::decode(&head, &self.pack.salt, at) {
                Ok(header) => {
                    let next = at + header.record_bytes();
                    if next <= length && self.is_whole(&header, at)? {
                        self.report.damaged += u64::from(in_damage);
                        in_damage = false;
                        self.record(&header, at)?;
                        end = next;
                    } else {
                        in_damage = true;
                    }
                    at = next;
                }
                // Its checksum is right: it is no damage, and not to be cut off.
                Err(FormatError::Version(version)) => {
                    return Err(RecoverError::Newer(self.pack.number, version));
                }
                Err(_) if head.iter().all(|byte| *byte == 0) => {
                    // Most likely a hole where a chunk was deleted.
                    at = match next_data(&self.pack.file, at + PAGE)? {
                        Some(data) => (at + PAGE).max(data / PAGE * PAGE),
                        None => length,
                    };
                }
                Err(_) => {
                    in_damage = true;
                    at += PAGE;
                }
            }
        }
        self.flush()?;
        Ok(end)
    }

    fn is_whole(&self, header: &RecordHeader, at: u64) -> io::Result<bool> {
        if header.kind != Kind::Chunk {
            return Ok(true);
        }
        let table_at = at + RECORD_HEADER_BYTES as u64;
        let table = read_at(&self.pack.file, table_at, table_bytes(header.payload_bytes), Patience::Wait)?;
        if crc32c::crc32c(&table) != header.table_checksum {
            return Ok(false);
        }
        if !self.deep {
            return Ok(true);
        }
        let payload_at = at + payload_start(header.payload_bytes) as u64;
        let payload = read_at(&self.pack.file, payload_at, header.payload_bytes as usize, Patience::Wait)?;
        Ok(payload.len() == header.payload_bytes as usize && check_pieces(&table, 0, &payload).is_ok())
    }

    fn record(&mut self, header: &RecordHeader, at: u64) -> Result<(), RecoverError> {
        self.report.records += 1;
        let old = self.current(&header.id)?;
        let new = match (header.kind, old) {
            (Kind::Chunk, old) => {
                let newer_touch = old.filter(|old| old.put_epoch > header.put_epoch);
                Some(Entry {
                    pack: self.pack.number,
                    offset: at,
                    payload_bytes: header.payload_bytes,
                    put_epoch: newer_touch.map_or(header.put_epoch, |old| old.put_epoch),
                    touch: newer_touch.and_then(|old| old.touch),
                })
            }
            (Kind::Touch, Some(old)) if header.put_epoch > old.put_epoch => {
                Some(Entry { put_epoch: header.put_epoch, touch: Some((self.pack.number, at)), ..old })
            }
            (Kind::Touch, _) => return Ok(()),
            (Kind::Dead, old) => {
                // A crash between the mark and the hole leaves its pages allocated.
                let _ = punch(&self.pack.file, at, header.record_bytes());
                match old {
                    Some(old) if (old.pack, old.offset) == (self.pack.number, at) => None,
                    _ => return Ok(()),
                }
            }
        };
        // Found with what the index says now, kept with what it said before the first of the pending changes.
        self.pending.entry(header.id).or_insert(Change { id: header.id, old, new }).new = new;
        if self.pending.len() >= BATCH_RECORDS {
            self.flush()?;
        }
        Ok(())
    }

    /// What the index will say once the pending changes are applied.
    fn current(&self, id: &ChunkId) -> Result<Option<Entry>, KvError> {
        match self.pending.get(id) {
            Some(change) => Ok(change.new),
            None => self.index.entry(id),
        }
    }

    fn flush(&mut self) -> Result<(), KvError> {
        let changes: Vec<Change> = self.pending.drain().map(|(_, change)| change).collect();
        if changes.is_empty() { Ok(()) } else { self.index.apply(&changes) }
    }
}
