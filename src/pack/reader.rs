//! Reading part of a chunk out of a pack: only the pieces needed, each checked, nothing unchecked ever returned; and
//! looking whether a record stands where the index says, which it may not after a stop in the middle of a deletion.

use std::fs::File;
use std::io;
use std::ops::Range;

use bytes::Bytes;

use crate::types::digest::ChunkId;

use super::format::{
    FormatError, Kind, PAGE_BYTES, PackHeader, RECORD_HEADER_BYTES, RecordHeader, Salt, check_pieces, payload_start,
    record_bytes, table_bytes,
};
use super::sys::{Patience, read_at, will_need};

/// Where a record is believed to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    pub offset: u64,
    pub payload_bytes: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Not in memory, and the caller would not wait.
    #[error("the bytes are not in memory")]
    WouldBlock,
    /// The chunk was deleted under the reader; or a deletion had come this far when the store was stopped.
    #[error("the record is deleted")]
    Dead,
    #[error("the record is damaged: {0}")]
    Damaged(#[from] FormatError),
    #[error("{0}")]
    Io(io::Error),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> ReadError {
        match error.kind() {
            io::ErrorKind::WouldBlock => ReadError::WouldBlock,
            _ => ReadError::Io(error),
        }
    }
}

/// A record where it is believed to be.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    pub file: &'a File,
    pub salt: &'a Salt,
    pub spot: Spot,
    pub id: &'a ChunkId,
}

impl Record<'_> {
    /// Reads `range` of the chunk's payload. The range lies within the payload and is not empty.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(&self, range: Range<u32>, patience: Patience) -> Result<Bytes, ReadError> {
        let start = payload_start(self.spot.payload_bytes);
        let pieces = widen(&range, self.spot.payload_bytes);
        // One read when most of the record is wanted anyway; two when the pieces are far from the table.
        if pieces.start >= 4 * start {
            let table = self.table(patience)?;
            let at = self.spot.offset + (start + pieces.start) as u64;
            let payload = read_at(self.file, at, pieces.len(), patience)?;
            check_pieces(&table, pieces.start / PAGE_BYTES, part(&payload, 0..pieces.len())?)?;
            let skip = range.start as usize - pieces.start;
            return Ok(Bytes::from(payload).slice(skip..skip + range.len()));
        }
        let head = read_at(self.file, self.spot.offset, start + pieces.end, patience)?;
        let table = self.check_head(&head)?;
        check_pieces(table, pieces.start / PAGE_BYTES, part(&head, start + pieces.start..start + pieces.end)?)?;
        Ok(Bytes::from(head).slice(start + range.start as usize..start + range.end as usize))
    }

    /// The checksums of the payload's pieces, checked themselves.
    fn table(&self, patience: Patience) -> Result<Vec<u8>, ReadError> {
        let head_bytes = RECORD_HEADER_BYTES + table_bytes(self.spot.payload_bytes);
        let mut head = read_at(self.file, self.spot.offset, head_bytes, patience)?;
        self.check_head(&head)?;
        Ok(head.split_off(RECORD_HEADER_BYTES))
    }

    /// Begins to bring the record into memory. May wait for a device, to learn where the bytes are.
    pub fn will_need(&self) {
        will_need(self.file, self.spot.offset, record_bytes(self.spot.payload_bytes));
    }

    /// Is the chunk's record where it is believed to be? Looks at header and table, not at the payload.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn look(&self) -> Result<(), ReadError> {
        self.table(Patience::Wait).map(drop)
    }

    /// Checks header and table, and gives the table.
    fn check_head<'a>(&self, head: &'a [u8]) -> Result<&'a [u8], ReadError> {
        let header = RecordHeader::decode(head, self.salt, self.spot.offset)?;
        match header.kind {
            Kind::Chunk => {}
            Kind::Dead => return Err(ReadError::Dead),
            Kind::Touch => return Err(FormatError::Field.into()),
        }
        if header.id != *self.id || header.payload_bytes != self.spot.payload_bytes {
            return Err(FormatError::Field.into());
        }
        let table = part(head, RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + table_bytes(self.spot.payload_bytes))?;
        match crc32c::crc32c(table) == header.table_checksum {
            true => Ok(table),
            false => Err(FormatError::Checksum.into()),
        }
    }
}

/// The header of a pack.
///
/// # Errors
/// What the kernel says; `InvalidData` when it is not a pack's.
pub fn header_of(file: &File) -> io::Result<PackHeader> {
    let page = read_at(file, 0, PAGE_BYTES, Patience::Wait)?;
    PackHeader::decode(&page).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The pieces that touch a range, as payload bytes.
fn widen(range: &Range<u32>, payload_bytes: u32) -> Range<usize> {
    let start = range.start as usize / PAGE_BYTES * PAGE_BYTES;
    let end = (range.end as usize).next_multiple_of(PAGE_BYTES).min(payload_bytes as usize);
    start..end
}

fn part(bytes: &[u8], range: Range<usize>) -> Result<&[u8], FormatError> {
    bytes.get(range).ok_or(FormatError::Short)
}
