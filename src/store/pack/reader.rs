//! Reading part of a chunk out of a pack: only the pieces needed, each checked, nothing unchecked ever returned; and
//! looking whether a record stands where the index says, which it may not after a stop in the middle of a deletion.

use std::io;
use std::ops::Range;

use bytes::Bytes;

use crate::types::digest::ChunkId;

use super::file::PackFile;
use super::format::{
    FormatError, Kind, PAGE_BYTES, RECORD_HEADER_BYTES, RecordHeader, check_pieces, payload_start, table_bytes,
};
use super::sys::{Patience, read_at};

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

/// Reads `range` of a chunk's payload. The range lies within the payload and is not empty.
///
/// # Errors
/// See [`ReadError`].
pub fn read(
    pack: &PackFile,
    spot: Spot,
    id: &ChunkId,
    range: Range<u32>,
    patience: Patience,
) -> Result<Bytes, ReadError> {
    let start = payload_start(spot.payload_bytes);
    let pieces = widen(&range, spot.payload_bytes);
    // One read when most of the record is wanted anyway; two when the pieces are far from the table.
    let at_once = pieces.start < 4 * start;
    let head_bytes = if at_once { start + pieces.end } else { RECORD_HEADER_BYTES + table_bytes(spot.payload_bytes) };
    let head = read_at(&pack.file, spot.offset, head_bytes, patience)?;
    let table = check_head(&head, pack, spot, id)?;
    let first = pieces.start / PAGE_BYTES;
    let payload = if at_once {
        check_pieces(table, first, part(&head, start + pieces.start..start + pieces.end)?)?;
        Bytes::from(head).slice(start + pieces.start..start + pieces.end)
    } else {
        let at = spot.offset + (start + pieces.start) as u64;
        let payload = read_at(&pack.file, at, pieces.len(), patience)?;
        check_pieces(table, first, part(&payload, 0..pieces.len())?)?;
        Bytes::from(payload)
    };
    Ok(payload.slice(range.start as usize - pieces.start..range.end as usize - pieces.start))
}

/// Is the chunk's record where it is believed to be? Looks at header and table, not at the payload.
///
/// # Errors
/// See [`ReadError`].
pub fn look(pack: &PackFile, spot: Spot, id: &ChunkId) -> Result<(), ReadError> {
    let head_bytes = RECORD_HEADER_BYTES + table_bytes(spot.payload_bytes);
    let head = read_at(&pack.file, spot.offset, head_bytes, Patience::Wait)?;
    check_head(&head, pack, spot, id).map(drop)
}

/// The pieces that touch a range, as payload bytes.
fn widen(range: &Range<u32>, payload_bytes: u32) -> Range<usize> {
    let start = range.start as usize / PAGE_BYTES * PAGE_BYTES;
    let end = (range.end as usize).next_multiple_of(PAGE_BYTES).min(payload_bytes as usize);
    start..end
}

/// Checks header and table, and gives the table.
fn check_head<'a>(head: &'a [u8], pack: &PackFile, spot: Spot, id: &ChunkId) -> Result<&'a [u8], ReadError> {
    let header = RecordHeader::decode(head, &pack.salt, spot.offset)?;
    match header.kind {
        Kind::Chunk => {}
        Kind::Dead => return Err(ReadError::Dead),
        Kind::Touch => return Err(FormatError::Field.into()),
    }
    if header.id != *id || header.payload_bytes != spot.payload_bytes {
        return Err(FormatError::Field.into());
    }
    let table = head
        .get(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + table_bytes(spot.payload_bytes))
        .ok_or(FormatError::Short)?;
    match crc32c::crc32c(table) == header.table_checksum {
        true => Ok(table),
        false => Err(FormatError::Checksum.into()),
    }
}

fn part(bytes: &[u8], range: Range<usize>) -> Result<&[u8], FormatError> {
    bytes.get(range).ok_or(FormatError::Short)
}
