//! What is known of a file's extents while a lease holds. Pure.
//!
//! Knowledge is per block: a known block without extents is a hole. Own writes that the leader has applied are applied
//! here as well, so that a writer does not ask for what it has just told.

use std::collections::BTreeMap;

use crate::types::extent::{self, Extent, Source};

/// Blocks remembered per file; beyond it everything is forgotten and asked for again.
const BLOCKS_MAX: usize = 16 << 10;

/// The known part of one file's extents.
#[derive(Debug)]
pub struct ExtentMap {
    block_bytes: u64,
    blocks: BTreeMap<u64, Vec<Extent>>,
    bytes: usize,
    /// Every block at or after this one that is not listed is known to be a hole.
    empty_from: Option<u64>,
}

impl ExtentMap {
    pub fn new(block_bytes: u64) -> ExtentMap {
        ExtentMap { block_bytes, blocks: BTreeMap::new(), bytes: 0, empty_from: None }
    }

    /// A file that has just been made: all hole.
    pub fn set_empty(&mut self) {
        self.forget();
        self.empty_from = Some(0);
    }

    /// What it takes in memory, inline data included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn forget(&mut self) {
        self.blocks.clear();
        self.bytes = 0;
        self.empty_from = None;
    }

    /// One block is to be asked for again.
    pub fn forget_block(&mut self, block: u64) {
        self.bytes -= self.blocks.remove(&block).as_deref().map_or(0, weight);
        // Those before it that are known holes only by this are to be asked for as well.
        self.empty_from = self.empty_from.map(|from| from.max(block + 1));
    }

    /// The extents of one block in order; `None` when not known.
    pub fn block(&self, block: u64) -> Option<&[Extent]> {
        match self.blocks.get(&block) {
            Some(extents) => Some(extents),
            None => self.empty_from.is_some_and(|from| block >= from).then_some(&[]),
        }
    }

    /// The first block of `from..to` (bytes) that is not known.
    pub fn first_unknown(&self, from: u64, to: u64) -> Option<u64> {
        if from >= to {
            return None;
        }
        // From there on a block is either listed or a hole.
        let known_from = self.empty_from.unwrap_or(u64::MAX);
        let last = ((to - 1) / self.block_bytes).min(known_from);
        (from / self.block_bytes..=last).find(|block| self.block(*block).is_none())
    }

    /// How many blocks from this one on are not known, up to `max`.
    pub fn unknown_run(&self, block: u64, max: u64) -> u64 {
        (block..block.saturating_add(max)).take_while(|block| self.block(*block).is_none()).count() as u64
    }

    /// The leader's answer for the whole blocks that `from..to` touches, of a file of `size` bytes.
    pub fn learn(&mut self, from: u64, to: u64, size: u64, extents: &[Extent]) {
        if self.blocks.len() >= BLOCKS_MAX {
            self.forget();
        }
        let to = to.min(size.max(from + 1));
        for block in from / self.block_bytes..=(to.max(from + 1) - 1) / self.block_bytes {
            let known = self.blocks.insert(block, Vec::new());
            self.bytes = self.bytes + weight(&[]) - known.as_deref().map_or(0, weight);
        }
        for extent in extents {
            if let Some(known) = self.blocks.get_mut(&(extent.offset / self.block_bytes)) {
                self.bytes += weight_of(extent);
                known.push(extent.clone());
            }
        }
        let end = size.div_ceil(self.block_bytes);
        self.empty_from = Some(self.empty_from.map_or(end, |from| from.min(end)));
        // A file that shrank and grew again elsewhere is learned anew: between own changes the size is the leader's.
    }

    /// An own write that the leader has applied. Blocks that are not known stay unknown.
    pub fn apply(&mut self, piece: &Extent) {
        let mut at = piece.offset;
        while at < piece.end() {
            let block = at / self.block_bytes;
            let end = ((block + 1) * self.block_bytes).min(piece.end());
            let known_hole = !self.blocks.contains_key(&block) && self.block(block).is_some();
            if known_hole {
                self.blocks.insert(block, Vec::new());
                self.bytes += weight(&[]);
            }
            if let (Some(extents), Some(part)) = (self.blocks.get_mut(&block), piece.slice(at, end)) {
                self.bytes -= weight(extents);
                extent::overlay(extents, part);
                self.bytes += weight(extents);
            }
            at = end;
        }
        if self.blocks.len() > BLOCKS_MAX {
            self.forget();
        }
    }
}

/// What a block's list takes, with its place in the map.
fn weight(extents: &[Extent]) -> usize {
    64 + extents.iter().map(weight_of).sum::<usize>()
}

fn weight_of(extent: &Extent) -> usize {
    let inline = if let Source::Inline(bytes) = &extent.source { bytes.len() } else { 0 };
    size_of::<Extent>() + inline
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn inline(offset: u64, bytes: &[u8]) -> Extent {
        Extent { offset, len: bytes.len() as u32, source: Source::Inline(bytes.to_vec()) }
    }

    fn flat(map: &ExtentMap, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        for block in 0..len as u64 / map.block_bytes {
            for extent in map.block(block).unwrap() {
                let Source::Inline(bytes) = &extent.source else { panic!() };
                out[extent.offset as usize..extent.end() as usize].copy_from_slice(bytes);
            }
        }
        out
    }

    proptest! {
        #[test]
        fn writes_lie_over_one_another(
            writes in prop::collection::vec((0u64..200, prop::collection::vec(1u8.., 1..40)), 1..30),
        ) {
            let mut map = ExtentMap::new(32);
            map.set_empty();
            let mut model = vec![0; 256];
            for (at, bytes) in writes {
                map.apply(&inline(at, &bytes));
                model[at as usize..at as usize + bytes.len()].copy_from_slice(&bytes);
                prop_assert_eq!(&flat(&map, 256), &model);
                prop_assert_eq!(map.bytes(), map.blocks.values().map(|extents| weight(extents)).sum::<usize>());
            }
        }
    }

    #[test]
    fn one_block_is_forgotten_alone() {
        let mut map = ExtentMap::new(32);
        map.learn(0, 128, 128, &[inline(3, b"x"), inline(40, b"y"), inline(70, b"z")]);
        map.forget_block(1);
        assert_eq!((map.first_unknown(0, 128), map.unknown_run(1, 10)), (Some(1), 1));
        assert_eq!(map.block(2), Some(&[inline(70, b"z")][..]));
        map.apply(&inline(41, b"w"));
        assert_eq!(map.first_unknown(0, 128), Some(1), "a piece of it is not knowledge");
        map.learn(32, 64, 128, &[inline(40, b"y")]);
        assert_eq!((map.first_unknown(0, 128), map.unknown_run(1, 10)), (None, 0));

        map.set_empty();
        map.apply(&inline(96, b"x"));
        map.forget_block(3);
        assert_eq!((map.first_unknown(0, 320), map.unknown_run(3, 10)), (Some(0), 1));
        assert_eq!(map.first_unknown(128, 320), None, "what lies behind is a hole as before");
        assert_eq!(map.bytes(), 0);
    }

    #[test]
    fn what_was_not_asked_is_not_known() {
        let mut map = ExtentMap::new(32);
        assert_eq!(map.first_unknown(0, 10), Some(0));
        map.learn(0, 64, 100, &[inline(3, b"x")]);
        assert_eq!(map.first_unknown(0, 64), None);
        assert_eq!(map.first_unknown(0, 65), Some(2));
        assert_eq!(map.first_unknown(128, 1 << 40), None, "beyond the end there is nothing");
        map.apply(&inline(64, b"y"));
        assert_eq!(map.first_unknown(64, 65), Some(2), "half a block is not knowledge");
        map.forget();
        assert_eq!(map.first_unknown(0, 1), Some(0));
    }
}
