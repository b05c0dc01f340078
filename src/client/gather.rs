//! From the runs of a flush to the chunks that hold them.
//!
//! Many small runs of one block (random writes) become one chunk: it is hashed, put, indexed and counted once, where each run
//! would be otherwise. Large ones stay chunks of their own, so that equal data is found wherever it lies.

use bytes::{Bytes, BytesMut};

use crate::types::digest::ChunkId;
use crate::types::extent::{ChunkPart, Extent, Source};

/// Runs from this size on are chunks of their own.
const OWN_CHUNK_BYTES: usize = 64 << 10;
/// Bytes of one call to the stores.
const PUT_BYTES: u64 = 4 << 20;

/// Runs as they were frozen: where in the file, and what.
pub type Runs = Vec<(u64, Bytes)>;

/// One chunk, and where in the file its parts are, in order and without gaps.
pub struct Gathered {
    pub id: ChunkId,
    /// May be let go of when they are stored.
    pub bytes: Bytes,
    chunk_bytes: u32,
    places: Vec<(u64, u32)>,
}

impl Gathered {
    fn of(runs: &[(u64, Bytes)]) -> Gathered {
        let bytes = match runs {
            [(_, bytes)] => bytes.clone(),
            _ => {
                let mut all = BytesMut::with_capacity(runs.iter().map(|(_, bytes)| bytes.len()).sum());
                runs.iter().for_each(|(_, bytes)| all.extend_from_slice(bytes));
                all.freeze()
            }
        };
        let places = runs.iter().map(|(offset, bytes)| (*offset, bytes.len() as u32)).collect();
        Gathered { id: ChunkId::of(&bytes), chunk_bytes: bytes.len() as u32, bytes, places }
    }

    /// What the file's extents are to be.
    pub fn pieces(&self, put_epoch: u64) -> impl Iterator<Item = Extent> {
        let chunk_bytes = self.chunk_bytes;
        self.places.iter().scan(0, move |at, (offset, len)| {
            let part = ChunkPart { id: self.id, chunk_bytes, offset: *at, put_epoch };
            *at += len;
            Some(Extent { offset: *offset, len: *len, source: Source::Chunk(part) })
        })
    }
}

/// Copies and hashes: not for a thread that serves.
pub fn gather(runs: Runs, block_bytes: u64) -> Vec<Gathered> {
    let is_small = |run: &(u64, Bytes)| run.1.len() < OWN_CHUNK_BYTES;
    let belong = |one: &(u64, Bytes), next: &(u64, Bytes)| {
        is_small(one) && is_small(next) && one.0 / block_bytes == next.0 / block_bytes
    };
    runs.chunk_by(belong).map(Gathered::of).collect()
}

/// Groups runs into calls to the stores.
pub fn batches(runs: &Runs) -> Vec<Runs> {
    let mut batches: Vec<Runs> = Vec::new();
    let mut room = 0;
    for (offset, bytes) in runs {
        let len = bytes.len() as u64;
        if batches.is_empty() || room < len {
            batches.push(Vec::new());
            room = PUT_BYTES;
        }
        room = room.saturating_sub(len);
        if let Some(batch) = batches.last_mut() {
            batch.push((*offset, bytes.clone()));
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u64 = 1 << 20;

    fn run(offset: u64, len: usize, byte: u8) -> (u64, Bytes) {
        (offset, Bytes::from(vec![byte; len]))
    }

    #[test]
    fn small_runs_of_a_block_are_one_chunk() {
        let runs = vec![run(0, 10, 1), run(100, 20, 2), run(BLOCK, 30, 3), run(BLOCK + 50, OWN_CHUNK_BYTES, 4)];
        let gathered = gather(runs.clone(), BLOCK);
        let lens: Vec<_> = gathered.iter().map(|chunk| chunk.bytes.len()).collect();
        assert_eq!(lens, [30, 30, OWN_CHUNK_BYTES]);
        let mut at = runs.iter();
        for chunk in &gathered {
            assert_eq!(chunk.id, ChunkId::of(&chunk.bytes));
            for piece in chunk.pieces(7) {
                let (offset, bytes) = at.next().unwrap();
                assert!(piece.is_sound() && piece.offset == *offset);
                let Source::Chunk(part) = piece.source else { panic!("{piece:?}") };
                let from = part.offset as usize;
                assert_eq!(chunk.bytes[from..from + piece.len as usize], bytes[..]);
                assert_eq!(part.put_epoch, 7);
            }
        }
        assert!(at.next().is_none());
    }

    #[test]
    fn calls_are_bounded() {
        let runs: Runs = (0..9).map(|n| run(n * BLOCK, BLOCK as usize, 1)).collect();
        let lens: Vec<_> = batches(&runs).iter().map(Vec::len).collect();
        assert_eq!(lens, [4, 4, 1]);
    }
}
