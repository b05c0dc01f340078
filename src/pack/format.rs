//! The bytes of a pack. All integers little-endian, all checksums CRC-32C.
//!
//! A pack begins with one page (4,096 bytes), its header, kept twice: at 0 and again at 2,048.
//!
//! ```text
//! offset  size  field
//! 0       8     magic "HFSTPACK"
//! 8       2     version (1)
//! 10      2     zero
//! 12      4     number of this pack on its disk
//! 16      16    cluster id
//! 32      16    disk id
//! 48      16    salt: random, goes into every record's checksum
//! 64      4     checksum of bytes 0..64
//! ```
//!
//! Then records follow, each on a page boundary:
//!
//! ```text
//! offset  size  field
//! 0       4     magic "HFrc"
//! 4       1     version (1)
//! 5       1     kind: 1 chunk, 2 touch, 3 dead
//! 6       2     zero
//! 8       4     payload bytes (chunk, dead; 0 for touch)
//! 12      4     checksum of the table
//! 16      8     collection epoch at which the chunk was put
//! 24      32    chunk id
//! 56      4     zero
//! 60      4     checksum of salt, record offset (8 bytes) and bytes 0..60
//! 64      4n    table: one checksum for each 4,096 bytes of payload (the last piece may be shorter)
//! …             zeros to the next page boundary
//! …       …     payload, then zeros to the next page boundary
//! ```
//!
//! Records and payloads are aligned to pages for three reasons. A write never touches a page that holds bytes already
//! acknowledged, so a torn one cannot hurt them. Punching a record out gives back exactly its blocks. A piece of
//! payload is one page of the kernel's cache, so a 4 KiB read costs one page of data and one of table. The price is
//! one page a record: nothing for a chunk of a mebibyte, and chunks below 16 KiB are rare because they ride inline.
//!
//! Salt and offset in the checksum make a record valid in its own place only: an image of a pack stored as a file, or a
//! stale block, is never taken for a record while a scan walks over damage.
//!
//! A *touch* says that the chunk was put again at a later epoch. A *dead* record is a deleted chunk whose header was
//! overwritten in place; its pages may have been punched out, header and all, in which case they read as zeros.

use bytes::Bytes;

use crate::types::digest::ChunkId;
use crate::types::id::{ClusterId, DiskId};
use crate::types::limits::CHUNK_BYTES_MAX;

pub const PAGE_BYTES: usize = 4096;
pub const RECORD_HEADER_BYTES: usize = 64;
pub const PACK_HEADER_BYTES: usize = 68;
/// Where the second copy of the pack header is.
pub const PACK_HEADER_COPY: usize = 2048;
pub const VERSION: u16 = 1;

const PACK_MAGIC: &[u8; 8] = b"HFSTPACK";
const RECORD_MAGIC: &[u8; 4] = b"HFrc";
const RECORD_VERSION: u8 = 1;

pub type Salt = [u8; 16];

/// Why bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    #[error("no record begins here")]
    Magic,
    #[error("format version {0} is newer than this program")]
    Version(u16),
    #[error("a checksum does not match")]
    Checksum,
    #[error("a field is out of bounds")]
    Field,
    #[error("the bytes end early")]
    Short,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackHeader {
    pub number: u32,
    pub cluster: ClusterId,
    pub disk: DiskId,
    pub salt: Salt,
}

impl PackHeader {
    /// The whole first page.
    pub fn encode(&self) -> [u8; PAGE_BYTES] {
        let mut one = [0; PACK_HEADER_BYTES];
        one[..8].copy_from_slice(PACK_MAGIC);
        one[8..10].copy_from_slice(&VERSION.to_le_bytes());
        one[12..16].copy_from_slice(&self.number.to_le_bytes());
        one[16..32].copy_from_slice(&self.cluster.0);
        one[32..48].copy_from_slice(&self.disk.0);
        one[48..64].copy_from_slice(&self.salt);
        let checksum = crc32c::crc32c(&one[..64]);
        one[64..].copy_from_slice(&checksum.to_le_bytes());
        let mut page = [0; PAGE_BYTES];
        page[..PACK_HEADER_BYTES].copy_from_slice(&one);
        page[PACK_HEADER_COPY..PACK_HEADER_COPY + PACK_HEADER_BYTES].copy_from_slice(&one);
        page
    }

    /// Reads whichever copy is whole.
    ///
    /// # Errors
    /// What is wrong with the first copy when neither is.
    pub fn decode(page: &[u8]) -> Result<PackHeader, FormatError> {
        let first = PackHeader::decode_copy(page);
        first.or_else(|error| PackHeader::decode_copy(page.get(PACK_HEADER_COPY..).unwrap_or_default()).or(Err(error)))
    }

    fn decode_copy(bytes: &[u8]) -> Result<PackHeader, FormatError> {
        let bytes: &[u8; PACK_HEADER_BYTES] = bytes.first_chunk().ok_or(FormatError::Short)?;
        if bytes[..8] != PACK_MAGIC[..] {
            return Err(FormatError::Magic);
        }
        if u32_at(bytes, 64) != crc32c::crc32c(&bytes[..64]) {
            return Err(FormatError::Checksum);
        }
        let version = u16::from_le_bytes(array_at(bytes, 8));
        if version != VERSION {
            return Err(FormatError::Version(version));
        }
        Ok(PackHeader {
            number: u32_at(bytes, 12),
            cluster: ClusterId(array_at(bytes, 16)),
            disk: DiskId(array_at(bytes, 32)),
            salt: array_at(bytes, 48),
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Chunk,
    Touch,
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    pub kind: Kind,
    pub id: ChunkId,
    pub payload_bytes: u32,
    pub table_checksum: u32,
    pub put_epoch: u64,
}

impl RecordHeader {
    pub fn touch(id: ChunkId, put_epoch: u64) -> RecordHeader {
        RecordHeader { kind: Kind::Touch, id, payload_bytes: 0, table_checksum: 0, put_epoch }
    }

    /// The bytes as they belong at `offset` of the pack with this `salt`.
    pub fn encode(&self, salt: &Salt, offset: u64) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        bytes[..4].copy_from_slice(RECORD_MAGIC);
        bytes[4] = RECORD_VERSION;
        bytes[5] = match self.kind {
            Kind::Chunk => 1,
            Kind::Touch => 2,
            Kind::Dead => 3,
        };
        bytes[8..12].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.table_checksum.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.put_epoch.to_le_bytes());
        bytes[24..56].copy_from_slice(&self.id.0);
        let checksum = checksum(salt, offset, &bytes);
        bytes[60..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// # Errors
    /// The bytes are not a record that was written at `offset` of the pack with this `salt`.
    pub fn decode(bytes: &[u8], salt: &Salt, offset: u64) -> Result<RecordHeader, FormatError> {
        let bytes: &[u8; RECORD_HEADER_BYTES] = bytes.first_chunk().ok_or(FormatError::Short)?;
        if bytes[..4] != RECORD_MAGIC[..] {
            return Err(FormatError::Magic);
        }
        if u32_at(bytes, 60) != checksum(salt, offset, bytes) {
            return Err(FormatError::Checksum);
        }
        if bytes[4] != RECORD_VERSION {
            return Err(FormatError::Version(bytes[4].into()));
        }
        let kind = match bytes[5] {
            1 => Kind::Chunk,
            2 => Kind::Touch,
            3 => Kind::Dead,
            _ => return Err(FormatError::Field),
        };
        let payload_bytes = u32_at(bytes, 8);
        if payload_bytes > CHUNK_BYTES_MAX {
            return Err(FormatError::Field);
        }
        Ok(RecordHeader {
            kind,
            payload_bytes,
            table_checksum: u32_at(bytes, 12),
            put_epoch: u64::from_le_bytes(array_at(bytes, 16)),
            id: ChunkId(array_at(bytes, 24)),
        })
    }

    /// From this record's first byte to the next record's.
    pub fn record_bytes(&self) -> u64 {
        match self.kind {
            Kind::Touch => PAGE_BYTES as u64,
            Kind::Chunk | Kind::Dead => record_bytes(self.payload_bytes),
        }
    }
}

fn checksum(salt: &Salt, offset: u64, header: &[u8; RECORD_HEADER_BYTES]) -> u32 {
    let sum = crc32c::crc32c_append(crc32c::crc32c(salt), &offset.to_le_bytes());
    crc32c::crc32c_append(sum, &header[..60])
}

/// A pack's file in the directory of its disk's packs.
pub fn file_name(number: u32) -> String {
    format!("{number:010}.pack")
}

/// Bytes of the table of a payload.
pub fn table_bytes(payload_bytes: u32) -> usize {
    4 * (payload_bytes as usize).div_ceil(PAGE_BYTES)
}

/// Where the payload begins, counted from the record's first byte.
pub fn payload_start(payload_bytes: u32) -> usize {
    (RECORD_HEADER_BYTES + table_bytes(payload_bytes)).next_multiple_of(PAGE_BYTES)
}

/// A chunk's whole record.
pub fn record_bytes(payload_bytes: u32) -> u64 {
    (payload_start(payload_bytes) + (payload_bytes as usize).next_multiple_of(PAGE_BYTES)) as u64
}

/// Bytes that are known to be what their name says, with the checksums that will vouch for them on disk. Only made by
/// checking the name.
#[derive(Clone, Debug)]
pub struct CheckedChunk {
    id: ChunkId,
    payload: Bytes,
    table: Vec<u8>,
}

impl CheckedChunk {
    /// `None` when the bytes do not match the name, or are empty, or too many. Hashes all of it: not for an
    /// asynchronous thread when it is long.
    pub fn check(id: ChunkId, payload: Bytes) -> Option<CheckedChunk> {
        let fits = !payload.is_empty() && payload.len() <= CHUNK_BYTES_MAX as usize;
        if !fits || ChunkId::of(&payload) != id {
            return None;
        }
        let table = payload.chunks(PAGE_BYTES).flat_map(|piece| crc32c::crc32c(piece).to_le_bytes()).collect();
        Some(CheckedChunk { id, payload, table })
    }

    pub fn id(&self) -> ChunkId {
        self.id
    }

    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    pub fn payload_bytes(&self) -> u32 {
        self.payload.len() as u32
    }

    pub fn record_bytes(&self) -> u64 {
        record_bytes(self.payload_bytes())
    }

    pub fn header(&self, put_epoch: u64) -> RecordHeader {
        RecordHeader {
            kind: Kind::Chunk,
            id: self.id,
            payload_bytes: self.payload_bytes(),
            table_checksum: crc32c::crc32c(&self.table),
            put_epoch,
        }
    }

    /// Header, table and zeros: what precedes the payload when the record is written at `offset`.
    pub fn head(&self, put_epoch: u64, salt: &Salt, offset: u64) -> Vec<u8> {
        let mut head = Vec::with_capacity(payload_start(self.payload_bytes()));
        head.extend_from_slice(&self.header(put_epoch).encode(salt, offset));
        head.extend_from_slice(&self.table);
        head.resize(payload_start(self.payload_bytes()), 0);
        head
    }

    /// How many zeros follow the payload.
    pub fn padding(&self) -> usize {
        self.payload.len().next_multiple_of(PAGE_BYTES) - self.payload.len()
    }
}

/// Checks consecutive pieces of payload, the first of which is piece `first`, against a table.
///
/// # Errors
/// `Short` when the table has no such pieces, `Checksum` when one does not match.
pub fn check_pieces(table: &[u8], first: usize, pieces: &[u8]) -> Result<(), FormatError> {
    let sums = table.get(first * 4..).unwrap_or_default().chunks_exact(4);
    if sums.len() < pieces.len().div_ceil(PAGE_BYTES) {
        return Err(FormatError::Short);
    }
    match pieces.chunks(PAGE_BYTES).zip(sums).all(|(piece, sum)| crc32c::crc32c(piece).to_le_bytes() == sum) {
        true => Ok(()),
        false => Err(FormatError::Checksum),
    }
}

fn u32_at<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

/// `M` bytes at a fixed place of a fixed array; callers pass constants that fit.
fn array_at<const N: usize, const M: usize>(bytes: &[u8; N], at: usize) -> [u8; M] {
    let mut array = [0; M];
    array.copy_from_slice(&bytes[at..at + M]);
    array
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: Salt = [9; 16];

    fn pack_header() -> PackHeader {
        PackHeader { number: 7, cluster: ClusterId([1; 16]), disk: DiskId([2; 16]), salt: SALT }
    }

    #[test]
    fn pack_headers_survive_the_loss_of_one_copy() {
        let page = pack_header().encode();
        assert_eq!(PackHeader::decode(&page), Ok(pack_header()));
        for at in 0..PACK_HEADER_BYTES {
            let mut bad = page;
            bad[at] ^= 0x10;
            assert_eq!(PackHeader::decode(&bad), Ok(pack_header()));
            bad[PACK_HEADER_COPY + 20] ^= 1;
            assert!(PackHeader::decode(&bad).is_err());
        }
        assert_eq!(PackHeader::decode(&[]), Err(FormatError::Short));
    }

    #[test]
    fn records_survive_and_every_flip_shows() {
        let chunk = CheckedChunk::check(ChunkId::of(&[5; 5000]), Bytes::from(vec![5; 5000])).unwrap();
        for header in [chunk.header(3), RecordHeader::touch(chunk.id(), u64::MAX)] {
            let bytes = header.encode(&SALT, 4096);
            assert_eq!(RecordHeader::decode(&bytes, &SALT, 4096), Ok(header));
            for bit in 0..bytes.len() * 8 {
                let mut bad = bytes;
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(RecordHeader::decode(&bad, &SALT, 4096).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_record_is_valid_in_its_place_only() {
        let header = RecordHeader::touch(ChunkId([1; 32]), 1);
        let bytes = header.encode(&SALT, 4096);
        assert_eq!(RecordHeader::decode(&bytes, &SALT, 8192), Err(FormatError::Checksum));
        assert_eq!(RecordHeader::decode(&bytes, &[8; 16], 4096), Err(FormatError::Checksum));
    }

    #[test]
    fn everything_is_on_pages() {
        for payload_bytes in [1, 4095, 4096, 4097, 1 << 20, CHUNK_BYTES_MAX] {
            assert_eq!(payload_start(payload_bytes) % PAGE_BYTES, 0);
            assert_eq!(record_bytes(payload_bytes) % PAGE_BYTES as u64, 0);
        }
        assert_eq!(record_bytes(1 << 20), (1 << 20) + 4096);
        let payload = Bytes::from(vec![1; 70_001]);
        let chunk = CheckedChunk::check(ChunkId::of(&payload), payload).unwrap();
        let written = chunk.head(1, &SALT, 0).len() + chunk.payload().len() + chunk.padding();
        assert_eq!(written as u64, chunk.record_bytes());
    }

    #[test]
    fn wrong_names_are_refused() {
        assert!(CheckedChunk::check(ChunkId::of(b"a"), Bytes::from_static(b"b")).is_none());
        assert!(CheckedChunk::check(ChunkId::of(b""), Bytes::new()).is_none());
    }

    #[test]
    fn pieces_are_checked_each() {
        let payload: Vec<u8> = (0..10_000_u32).map(|byte| byte as u8).collect();
        let chunk = CheckedChunk::check(ChunkId::of(&payload), Bytes::from(payload.clone())).unwrap();
        assert_eq!(check_pieces(&chunk.table, 0, &payload), Ok(()));
        assert_eq!(check_pieces(&chunk.table, 1, &payload[4096..8192]), Ok(()));
        assert_eq!(check_pieces(&chunk.table, 2, &payload[8192..]), Ok(()));
        assert_eq!(check_pieces(&chunk.table, 2, &payload[8192..9999]), Err(FormatError::Checksum));
        assert_eq!(check_pieces(&chunk.table, 3, &payload[8192..]), Err(FormatError::Short));
    }
}
