//! Extents: how a file's bytes map to stored bytes.

use rkyv::{Archive, Deserialize, Serialize};

use super::digest::ChunkId;

/// A byte range of a file and where its bytes are. The extents of a file never overlap and are sorted by offset; a
/// gap between them (or after the last, up to the size) is a hole and reads as zeros. No extent crosses a block
/// (the volume's chunk size).
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First byte in the file.
    pub offset: u64,
    pub len: u32,
    pub source: Source,
}

/// Where an extent's bytes are.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Part of a chunk in the stores.
    Chunk(ChunkPart),
    /// The bytes themselves (exactly `len` of them).
    Inline(Vec<u8>),
    /// Allocated by `fallocate` and not written: reads as zeros, counts as used, is a hole to `SEEK_DATA`.
    Unwritten,
}

/// `len` (the extent's) bytes from `offset` of a chunk of `chunk_bytes`.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkPart {
    pub id: ChunkId,
    pub chunk_bytes: u32,
    pub offset: u32,
    /// The collection epoch the writer knew when it put the chunk (see the garbage decision record); 0 in replies.
    pub put_epoch: u64,
}

impl Extent {
    /// One past the last byte.
    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.len)
    }

    /// The part of this extent within `from..to`; `None` when they do not touch.
    pub fn slice(&self, from: u64, to: u64) -> Option<Extent> {
        let (start, end) = (from.max(self.offset), to.min(self.end()));
        if start >= end {
            return None;
        }
        // Both fit: they are distances within one extent, whose length is a u32.
        let (skip, len) = ((start - self.offset) as u32, (end - start) as u32);
        let source = match &self.source {
            Source::Chunk(part) => Source::Chunk(ChunkPart { offset: part.offset.saturating_add(skip), ..*part }),
            Source::Inline(bytes) => {
                let bytes = bytes.get(skip as usize..).unwrap_or_default();
                Source::Inline(bytes.get(..len as usize).unwrap_or(bytes).to_vec())
            }
            Source::Unwritten => Source::Unwritten,
        };
        Some(Extent { offset: start, len, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_keeps_its_bytes() {
        let extent = Extent { offset: 10, len: 4, source: Source::Inline(b"abcd".to_vec()) };
        assert_eq!(extent.slice(0, 10), None);
        let middle = Extent { offset: 11, len: 2, source: Source::Inline(b"bc".to_vec()) };
        assert_eq!(extent.slice(11, 13), Some(middle));
        assert_eq!(extent.slice(0, 100), Some(extent));
    }
}
