//! Content addresses.

use std::fmt;

use rkyv::{Archive, Deserialize, Serialize};

/// The BLAKE3 hash of a chunk's bytes: its name, its checksum and its place.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[rkyv(derive(PartialEq, Eq, PartialOrd, Ord))]
pub struct ChunkId(pub [u8; 32]);

/// One of [`SLOTS`] buckets of the chunk-id space: the unit of placement and repair.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u16);

/// How many slots there are: the top ten bits of a chunk id choose one.
pub const SLOTS: u16 = 1024;

impl ChunkId {
    /// Names `bytes`.
    pub fn of(bytes: &[u8]) -> ChunkId {
        ChunkId(*blake3::hash(bytes).as_bytes())
    }

    pub fn slot(&self) -> Slot {
        Slot(u16::from_be_bytes([self.0[0], self.0[1]]) >> 6)
    }
}

/// The BLAKE3 hash of bytes that are no chunk: names a certificate, stores a secret so that it can be recognised and not
/// read.
pub fn fingerprint(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

/// The BLAKE3 hash of several pieces, one after the other: a checksum.
pub fn hash_of(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// A key of its own for one purpose, derived from secret `material`. `purpose` is a constant sentence, unique in the
/// program.
pub fn derived_key(purpose: &str, material: &[u8]) -> [u8; 32] {
    blake3::derive_key(purpose, material)
}

/// Authenticates `bytes` under `key`: who does not know the key cannot make it.
pub fn keyed(key: &[u8; 32], bytes: &[u8]) -> [u8; 32] {
    *blake3::keyed_hash(key, bytes).as_bytes()
}

impl fmt::Display for ChunkId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "ChunkId({:02x}{:02x}{:02x}{:02x}…)", self.0[0], self.0[1], self.0[2], self.0[3])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_the_top_ten_bits() {
        let mut id = ChunkId([0xff; 32]);
        assert_eq!(id.slot(), Slot(SLOTS - 1));
        id.0[0] = 0;
        id.0[1] = 0x40;
        assert_eq!(id.slot(), Slot(1));
    }
}
