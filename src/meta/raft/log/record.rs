//! One record of the log, byte for byte, and the checks it has to pass.
//!
//! A record is valid in its own place only: into its checksum go the salt of its segment, which is random, and where in
//! the segment it is. Whatever a command carries for a user, and whatever a disk's block held before, is not taken for a
//! record by a search through a torn tail.

use bytes::Bytes;

use super::{Entry, EntryKind, LogPoint, Standing, VoteRecord};

/// A record before its payload.
pub(super) const HEAD_BYTES: usize = 40;
/// Longest payload: a command of the largest size with room for its envelope.
pub(super) const PAYLOAD_BYTES_MAX: usize = 8 << 20;
/// The header of a segment file.
pub(super) const SEGMENT_HEADER_BYTES: usize = 52;

/// Of one segment: goes into the checksums of all its records.
pub(super) type Salt = [u8; 16];

const MAGIC: &[u8; 8] = b"HFRAFTLG";
const VERSION: u32 = 2;
/// The part of a header that is the same in every version, and checked by itself.
const FIXED_HEADER_BYTES: usize = 32;
const STANDING_BYTES: usize = 72;
/// What is written of a segment when it is made: its header and a standing.
pub(super) const SEGMENT_HEAD_BYTES: usize = SEGMENT_HEADER_BYTES + HEAD_BYTES + STANDING_BYTES;
const KIND_BLANK: u8 = 1;
const KIND_COMMAND: u8 = 2;
const KIND_MEMBERSHIP: u8 = 3;
const KIND_STANDING: u8 = 16;
const KIND_TRUNCATE: u8 = 17;

/// What a segment says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub sequence: u64,
    /// The Raft node whose log this is.
    pub owner: u64,
    pub salt: Salt,
}

impl SegmentHeader {
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[0..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.owner.to_le_bytes());
        let crc = fixed_checksum(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes[32..48].copy_from_slice(&self.salt);
        let crc = crc32c::crc32c(&bytes[..48]);
        bytes[48..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `None` for bytes that are not a whole header; the version is for [`super::LogError`] to complain about.
    pub fn decode(bytes: &[u8]) -> Option<Result<SegmentHeader, u32>> {
        let fixed = bytes.get(..FIXED_HEADER_BYTES)?;
        if &fixed[0..8] != MAGIC || u32_at(fixed, 12) != Some(fixed_checksum(fixed)) {
            return None;
        }
        let version = u32_at(fixed, 8)?;
        if version != VERSION {
            return Some(Err(version));
        }
        let bytes = bytes.get(..SEGMENT_HEADER_BYTES)?;
        if u32_at(bytes, 48)? != crc32c::crc32c(&bytes[..48]) {
            return None;
        }
        let salt = bytes.get(32..48)?.try_into().ok()?;
        Some(Ok(SegmentHeader { sequence: u64_at(bytes, 16)?, owner: u64_at(bytes, 24)?, salt }))
    }
}

fn fixed_checksum(header: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[0..12]), &header[16..FIXED_HEADER_BYTES])
}

/// A record as it is read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Entry(Entry),
    Standing(Standing),
    /// Entries from this index on are gone.
    Truncate(u64),
}

/// A record with the place it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Framed {
    pub record: Record,
    /// Up to here the segment was known to be on disk when the record was made.
    pub synced: u32,
    pub bytes: usize,
}

/// Appends one record to `out`, as it belongs at `offset` of the segment with this `salt`.
pub(super) fn encode(out: &mut Vec<u8>, record: &Record, synced: u32, salt: &Salt, offset: u32) {
    let none = LogPoint { term: 0, leader: 0, index: 0 };
    let standing;
    let (kind, point, payload): (u8, LogPoint, &[u8]) = match record {
        Record::Entry(entry) => (kind_of(entry.kind), entry.point, &entry.payload),
        Record::Truncate(from) => (KIND_TRUNCATE, LogPoint { index: *from, ..none }, &[]),
        Record::Standing(values) => {
            standing = encode_standing(values);
            (KIND_STANDING, none, &standing)
        }
    };
    let start = out.len();
    out.extend_from_slice(&((HEAD_BYTES - 8 + payload.len()) as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&[kind, 0, 0, 0]);
    out.extend_from_slice(&synced.to_le_bytes());
    put_point(out, &point);
    out.extend_from_slice(payload);
    let crc = checksum(&out[start..], salt, offset);
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
}

/// Reads the record at the start of `bytes`; `None` when there is no whole and sound one that was written at `offset` of
/// the segment with this `salt`.
pub(super) fn decode(bytes: &[u8], salt: &Salt, offset: u32) -> Option<Framed> {
    let length = u32_at(bytes, 0)? as usize;
    if !(HEAD_BYTES - 8..=HEAD_BYTES - 8 + PAYLOAD_BYTES_MAX).contains(&length) {
        return None;
    }
    let bytes = bytes.get(..8 + length)?;
    // Before the checksum: a search for records looks here at every offset.
    let kind = *bytes.get(8)?;
    if !matches!(kind, KIND_BLANK | KIND_COMMAND | KIND_MEMBERSHIP | KIND_STANDING | KIND_TRUNCATE) {
        return None;
    }
    if u32_at(bytes, 4)? != checksum(bytes, salt, offset) {
        return None;
    }
    let point = point_at(bytes, 16)?;
    let payload = bytes.get(HEAD_BYTES..)?;
    let record = match kind {
        KIND_STANDING => Record::Standing(decode_standing(payload)?),
        KIND_TRUNCATE => Record::Truncate(point.index),
        _ => Record::Entry(Entry { point, kind: entry_kind(kind)?, payload: Bytes::copy_from_slice(payload) }),
    };
    Some(Framed { record, synced: u32_at(bytes, 12)?, bytes: bytes.len() })
}

fn checksum(record: &[u8], salt: &Salt, offset: u32) -> u32 {
    let place = crc32c::crc32c_append(crc32c::crc32c(salt), &offset.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(place, &record[0..4]), &record[8..])
}

fn kind_of(kind: EntryKind) -> u8 {
    match kind {
        EntryKind::Blank => KIND_BLANK,
        EntryKind::Command => KIND_COMMAND,
        EntryKind::Membership => KIND_MEMBERSHIP,
    }
}

fn entry_kind(kind: u8) -> Option<EntryKind> {
    match kind {
        KIND_BLANK => Some(EntryKind::Blank),
        KIND_COMMAND => Some(EntryKind::Command),
        KIND_MEMBERSHIP => Some(EntryKind::Membership),
        _ => None,
    }
}

const HAS_VOTE: u8 = 1;
const VOTE_COMMITTED: u8 = 2;
const HAS_COMMITTED: u8 = 4;
const HAS_PURGED: u8 = 8;

fn encode_standing(values: &Standing) -> Vec<u8> {
    let none = LogPoint { term: 0, leader: 0, index: 0 };
    let mut flags = 0;
    let vote = values.vote.unwrap_or(VoteRecord { term: 0, leader: 0, committed: false });
    flags |= if values.vote.is_some() { HAS_VOTE } else { 0 };
    flags |= if vote.committed { VOTE_COMMITTED } else { 0 };
    flags |= if values.committed.is_some() { HAS_COMMITTED } else { 0 };
    flags |= if values.purged.is_some() { HAS_PURGED } else { 0 };
    let mut out = vec![flags, 0, 0, 0, 0, 0, 0, 0];
    out.extend_from_slice(&vote.term.to_le_bytes());
    out.extend_from_slice(&vote.leader.to_le_bytes());
    put_point(&mut out, &values.committed.unwrap_or(none));
    put_point(&mut out, &values.purged.unwrap_or(none));
    out
}

fn decode_standing(bytes: &[u8]) -> Option<Standing> {
    let flags = *bytes.first()?;
    let vote =
        VoteRecord { term: u64_at(bytes, 8)?, leader: u64_at(bytes, 16)?, committed: flags & VOTE_COMMITTED != 0 };
    let (committed, purged) = (point_at(bytes, 24)?, point_at(bytes, 48)?);
    Some(Standing {
        vote: (flags & HAS_VOTE != 0).then_some(vote),
        committed: (flags & HAS_COMMITTED != 0).then_some(committed),
        purged: (flags & HAS_PURGED != 0).then_some(purged),
    })
}

fn put_point(out: &mut Vec<u8>, point: &LogPoint) {
    out.extend_from_slice(&point.term.to_le_bytes());
    out.extend_from_slice(&point.leader.to_le_bytes());
    out.extend_from_slice(&point.index.to_le_bytes());
}

fn point_at(bytes: &[u8], at: usize) -> Option<LogPoint> {
    Some(LogPoint { term: u64_at(bytes, at)?, leader: u64_at(bytes, at + 8)?, index: u64_at(bytes, at + 16)? })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: Salt = [9; 16];

    fn point(index: u64) -> LogPoint {
        LogPoint { term: 3, leader: 2, index }
    }

    fn samples() -> Vec<Record> {
        let vote = VoteRecord { term: 9, leader: 1, committed: true };
        vec![
            Record::Entry(Entry { point: point(7), kind: EntryKind::Command, payload: Bytes::from_static(b"command") }),
            Record::Entry(Entry { point: point(8), kind: EntryKind::Blank, payload: Bytes::new() }),
            Record::Standing(Standing { vote: Some(vote), committed: Some(point(7)), purged: None }),
            Record::Standing(Standing::default()),
            Record::Truncate(8),
        ]
    }

    #[test]
    fn records_survive() {
        for record in samples() {
            let mut bytes = Vec::new();
            encode(&mut bytes, &record, 77, &SALT, 5);
            let bytes_long = bytes.len();
            bytes.extend_from_slice(b"what follows");
            assert_eq!(decode(&bytes, &SALT, 5), Some(Framed { record, synced: 77, bytes: bytes_long }));
        }
    }

    #[test]
    fn no_flipped_bit_and_no_cut_passes() {
        for record in samples() {
            let mut bytes = Vec::new();
            encode(&mut bytes, &record, 0, &SALT, 5);
            for cut in 0..bytes.len() {
                assert_eq!(decode(&bytes[..cut], &SALT, 5), None);
            }
            for bit in 0..bytes.len() * 8 {
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(decode(&damaged, &SALT, 5), None, "bit {bit}");
            }
        }
    }

    #[test]
    fn a_record_is_valid_in_its_place_only() {
        let mut bytes = Vec::new();
        encode(&mut bytes, &Record::Truncate(8), 0, &SALT, 5);
        assert!(decode(&bytes, &SALT, 5).is_some());
        assert_eq!(decode(&bytes, &SALT, 6), None);
        assert_eq!(decode(&bytes, &[8; 16], 5), None);
    }

    #[test]
    fn headers_are_checked() {
        let header = SegmentHeader { sequence: 5, owner: 2, salt: SALT };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Some(Ok(header)));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&damaged), None, "bit {bit}");
        }
        // Another version says so, however it goes on.
        let mut other = bytes;
        other[8] = 1;
        let crc = fixed_checksum(&other);
        other[12..16].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&other[..FIXED_HEADER_BYTES]), Some(Err(1)));
    }
}
