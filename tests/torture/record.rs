//! Records that prove themselves: who wrote them, which of his they are, and that they are whole.
//!
//! `[magic 4][writer 4][sequence 8][length 4][crc32c of all else 4][payload]`, little-endian; the length is the
//! payload's.

use crate::fault::{Check, ensure};
use crate::random::Random;

const MAGIC: [u8; 4] = *b"rec!";
pub const HEADER_BYTES: usize = 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag {
    pub writer: u32,
    pub sequence: u64,
}

/// A record of `payload_bytes` random bytes.
pub fn encode(tag: Tag, payload_bytes: usize, random: &mut Random) -> Vec<u8> {
    let mut record = vec![0; HEADER_BYTES + payload_bytes];
    record[0..4].copy_from_slice(&MAGIC);
    record[4..8].copy_from_slice(&tag.writer.to_le_bytes());
    record[8..16].copy_from_slice(&tag.sequence.to_le_bytes());
    record[16..20].copy_from_slice(&(payload_bytes as u32).to_le_bytes());
    random.fill(&mut record[HEADER_BYTES..]);
    let crc = checksum(&record);
    record[20..24].copy_from_slice(&crc.to_le_bytes());
    record
}

/// The record at the start of `bytes`, and the bytes it takes.
pub fn decode(bytes: &[u8]) -> Check<(Tag, usize)> {
    ensure!(bytes.len() >= HEADER_BYTES, "torn record: {} bytes left for a header", bytes.len());
    ensure!(bytes[0..4] == MAGIC, "no record here but {:02x?}", &bytes[..bytes.len().min(24)]);
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let sequence = u64::from_le_bytes(bytes[8..16].try_into().expect("eight bytes"));
    let tag = Tag { writer: number(4), sequence };
    let length = HEADER_BYTES + number(16) as usize;
    ensure!(bytes.len() >= length, "torn record {tag:?}: {} of {length} bytes", bytes.len());
    ensure!(checksum(&bytes[..length]) == number(20), "torn record {tag:?}: checksum");
    Ok((tag, length))
}

/// All records of a file with the offsets they begin at.
pub fn decode_all(bytes: &[u8]) -> Check<Vec<(u64, Tag)>> {
    let mut records = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let (tag, length) = decode(&bytes[at..]).map_err(|f| crate::fault::Fault(format!("at {at}: {}", f.0)))?;
        records.push((at as u64, tag));
        at += length;
    }
    Ok(records)
}

fn checksum(record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&record[..20]), &record[HEADER_BYTES..])
}
