//! Written bytes that are not yet in the cluster. Pure.
//!
//! Two layers: *fresh* runs take writes, *frozen* ones are on their way (a flush froze them) and never change. What is
//! read sees fresh over frozen over what the cluster has. Runs are sorted, never overlap within a layer, and never
//! cross a block, so each becomes one chunk.
//!
//! Where a client may be followed by another, each piece of a write is noted for that one ([`super::kept`]). A run has with it by what
//! its bytes are noted, in the order in which they were written, and lets go of that when they are in the cluster.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::kept::log::Noted;

/// A file's dirty bytes.
#[derive(Debug)]
pub struct Dirty {
    block_bytes: u64,
    fresh: BTreeMap<u64, Run<Vec<u8>>>,
    fresh_bytes: u64,
    frozen: BTreeMap<u64, Run<Bytes>>,
    whole_blocks: usize,
}

/// Bytes in a row.
#[derive(Debug, Default)]
struct Run<B> {
    bytes: B,
    /// Dropped from the front to the back: of bytes that were written twice the first time ends first. Which run's come first where
    /// runs were joined is all one, as they never overlapped.
    noted: Vec<Noted>,
}

impl<B: AsRef<[u8]>> Run<B> {
    fn len(&self) -> usize {
        self.bytes.as_ref().len()
    }
}

/// Which runs a flush takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Blocks that are dirty from end to end.
    Whole,
    All,
}

impl Dirty {
    pub fn new(block_bytes: u64) -> Dirty {
        Dirty { block_bytes, fresh: BTreeMap::new(), fresh_bytes: 0, frozen: BTreeMap::new(), whole_blocks: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.frozen.is_empty()
    }

    pub fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// Some of it is on its way.
    pub fn has_frozen(&self) -> bool {
        !self.frozen.is_empty()
    }

    /// Blocks that are fresh from end to end.
    pub fn whole_blocks(&self) -> usize {
        self.whole_blocks
    }

    /// Bytes of both layers.
    pub fn bytes(&self) -> u64 {
        self.fresh_bytes + self.frozen.values().map(|run| run.len() as u64).sum::<u64>()
    }

    /// One past the last dirty byte.
    pub fn end(&self) -> Option<u64> {
        let fresh = self.fresh.last_key_value().map(|(start, run)| start + run.len() as u64);
        let frozen = self.frozen.last_key_value().map(|(start, run)| start + run.len() as u64);
        fresh.max(frozen)
    }

    /// Takes a write, with what notes each of its pieces, if they are noted. Returns by how many bytes the fresh layer grew.
    pub fn write(&mut self, offset: u64, data: &[u8], noted: Vec<Noted>) -> u64 {
        let before = self.fresh_bytes;
        let mut noted = noted.into_iter();
        for (at, piece) in pieces(offset, data, self.block_bytes) {
            self.write_in_block(at, piece, noted.next().into_iter().collect());
        }
        self.fresh_bytes - before
    }

    fn write_in_block(&mut self, at: u64, data: &[u8], noted: Vec<Noted>) {
        let end = at + data.len() as u64;
        let block = at - at % self.block_bytes;
        let before = self.fresh.range(block..=at).next_back().map(|(start, run)| (*start, run.len() as u64));
        if let Some((start, len)) = before.filter(|(start, len)| start + len >= at) {
            let next = self.fresh.range(at + 1..=end).next().is_some();
            if !next || start + len >= end {
                return self.extend_run(start, at, data, noted);
            }
        }
        self.merge(at, data, noted);
    }

    /// The common case: the write lies within or at the end of one run and touches no other.
    fn extend_run(&mut self, start: u64, at: u64, data: &[u8], noted: Vec<Noted>) {
        let block_bytes = self.block_bytes;
        let Some(Run { bytes: run, noted: before }) = self.fresh.get_mut(&start) else { return };
        before.extend(noted);
        let before = run.len();
        let skip = (at - start) as usize;
        let overlap = (before - skip).min(data.len());
        run[skip..skip + overlap].copy_from_slice(&data[..overlap]);
        reserve(run, data.len() - overlap, (block_bytes - start % block_bytes) as usize);
        run.extend_from_slice(&data[overlap..]);
        self.fresh_bytes += (run.len() - before) as u64;
        if before as u64 != block_bytes && run.len() as u64 == block_bytes {
            self.whole_blocks += 1;
        }
    }

    /// The general case: joins every run of the block that overlaps or touches.
    fn merge(&mut self, at: u64, data: &[u8], noted: Vec<Noted>) {
        let end = at + data.len() as u64;
        let block = at - at % self.block_bytes;
        let touching: Vec<u64> = self
            .fresh
            .range(block..(block + self.block_bytes).min(end + 1))
            .filter(|(start, run)| *start + run.len() as u64 >= at)
            .map(|(start, _)| *start)
            .collect();
        let first = touching.first().copied().unwrap_or(at).min(at);
        let (mut joined, mut notes) = (Vec::new(), Vec::new());
        for start in touching {
            let Some(Run { bytes: run, noted }) = self.fresh.remove(&start) else { continue };
            notes.extend(noted);
            self.fresh_bytes -= run.len() as u64;
            if run.len() as u64 == self.block_bytes {
                self.whole_blocks -= 1;
            }
            let skip = (start - first) as usize;
            if joined.len() < skip + run.len() {
                joined.resize(skip + run.len(), 0);
            }
            joined[skip..skip + run.len()].copy_from_slice(&run);
        }
        let skip = (at - first) as usize;
        if joined.len() < skip + data.len() {
            joined.resize(skip + data.len(), 0);
        }
        joined[skip..skip + data.len()].copy_from_slice(data);
        self.fresh_bytes += joined.len() as u64;
        if joined.len() as u64 == self.block_bytes {
            self.whole_blocks += 1;
        }
        notes.extend(noted);
        self.fresh.insert(first, Run { bytes: joined, noted: notes });
    }

    /// Freezes what the scope takes, for a flush; nothing may be frozen already. The runs also stay here until
    /// [`Dirty::settle`].
    pub fn freeze(&mut self, scope: Scope) -> Vec<(u64, Bytes)> {
        let take: Vec<u64> = match scope {
            Scope::All => self.fresh.keys().copied().collect(),
            Scope::Whole => {
                let whole = self.fresh.iter().filter(|(_, run)| run.len() as u64 == self.block_bytes);
                whole.map(|(start, _)| *start).collect()
            }
        };
        for start in take {
            let Some(Run { bytes, noted }) = self.fresh.remove(&start) else { continue };
            self.fresh_bytes -= bytes.len() as u64;
            self.frozen.insert(start, Run { bytes: bytes.into(), noted });
        }
        self.whole_blocks = 0;
        self.frozen.iter().map(|(start, run)| (*start, run.bytes.clone())).collect()
    }

    /// What comes next comes after the frozen runs.
    pub fn mark_frozen(&self) {
        self.frozen.values().flat_map(|run| &run.noted).for_each(Noted::mark);
    }

    /// The frozen runs are in the cluster (or given up). Returns how many bytes they were.
    pub fn settle(&mut self) -> u64 {
        std::mem::take(&mut self.frozen).values().map(|run| run.len() as u64).sum()
    }

    /// The flush did not come about: the frozen runs are dirty again, under what was written since. Returns by how
    /// many bytes there are fewer now, because some were overwritten.
    pub fn thaw(&mut self) -> u64 {
        let before = self.bytes();
        let newer = std::mem::take(&mut self.fresh);
        self.fresh_bytes = 0;
        self.whole_blocks = 0;
        for (start, Run { bytes, noted }) in std::mem::take(&mut self.frozen) {
            self.write_in_block(start, &bytes, noted);
        }
        for (start, Run { bytes, noted }) in newer {
            self.write_in_block(start, &bytes, noted);
        }
        before - self.bytes()
    }

    /// Forgets the fresh runs. Returns how many bytes they were.
    pub fn drop_fresh(&mut self) -> u64 {
        self.fresh.clear();
        self.whole_blocks = 0;
        std::mem::take(&mut self.fresh_bytes)
    }

    /// The dirty parts of `from..to`, as `(offset, length)` in order without overlap; each lies in one run of one
    /// layer, and is read with [`Dirty::copy`].
    pub fn covered(&self, from: u64, to: u64) -> Vec<(u64, u64)> {
        let mut spans: Vec<(u64, u64)> = Vec::new();
        let fresh = overlapping(&self.fresh, self.block_bytes, from, to);
        let frozen = overlapping(&self.frozen, self.block_bytes, from, to);
        let mut all: Vec<(u64, u64)> = fresh.chain(frozen).collect();
        all.sort_unstable();
        for (start, end) in all {
            match spans.last_mut() {
                Some((first, len)) if *first + *len >= start => *len = (*len).max(end - *first),
                _ => spans.push((start, end - start)),
            }
        }
        spans
    }

    /// Lays the dirty bytes over `out`, which begins at `from`.
    pub fn copy(&self, from: u64, out: &mut [u8]) {
        let to = from + out.len() as u64;
        for (start, end) in overlapping(&self.frozen, self.block_bytes, from, to) {
            copy_run(&self.frozen, start, end, from, out);
        }
        for (start, end) in overlapping(&self.fresh, self.block_bytes, from, to) {
            copy_run(&self.fresh, start, end, from, out);
        }
    }
}

/// Doubles as `Vec` does, but never beyond the block.
fn reserve(run: &mut Vec<u8>, more: usize, block: usize) {
    if run.capacity() - run.len() < more {
        let target = (run.capacity() * 2).max(run.len() + more).min(block.max(run.len() + more));
        run.reserve_exact(target - run.len());
    }
}

/// A write, cut where blocks begin.
pub fn pieces(offset: u64, mut data: &[u8], block_bytes: u64) -> impl Iterator<Item = (u64, &[u8])> {
    let mut at = offset;
    std::iter::from_fn(move || {
        let room = usize::try_from(block_bytes - at % block_bytes).unwrap_or(usize::MAX);
        let (piece, rest) = data.split_at(room.min(data.len()));
        let begin = at;
        (data, at) = (rest, at + piece.len() as u64);
        (!piece.is_empty()).then_some((begin, piece))
    })
}

/// The parts of runs within `from..to`.
fn overlapping<B: AsRef<[u8]>>(
    runs: &BTreeMap<u64, Run<B>>,
    block_bytes: u64,
    from: u64,
    to: u64,
) -> impl Iterator<Item = (u64, u64)> {
    let block = from - from % block_bytes;
    runs.range(block..to.max(block)).filter_map(move |(start, run)| {
        let (start, end) = ((*start).max(from), (start + run.len() as u64).min(to));
        (start < end).then_some((start, end))
    })
}

fn copy_run<B: AsRef<[u8]>>(runs: &BTreeMap<u64, Run<B>>, start: u64, end: u64, from: u64, out: &mut [u8]) {
    let Some((first, run)) = runs.range(..=start).next_back() else { return };
    let source = &run.bytes.as_ref()[(start - first) as usize..(end - first) as usize];
    out[(start - from) as usize..(end - from) as usize].copy_from_slice(source);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BLOCK: u64 = 64;

    fn check(dirty: &Dirty, model: &[Option<u8>]) {
        let mut out = vec![0xEE; model.len()];
        dirty.copy(0, &mut out);
        for (at, byte) in model.iter().enumerate() {
            assert_eq!(out[at], byte.unwrap_or(0xEE), "at {at}");
        }
        let covered: u64 = dirty.covered(0, model.len() as u64).iter().map(|(_, len)| len).sum();
        assert_eq!(covered, model.iter().filter(|byte| byte.is_some()).count() as u64);
        let whole = model.chunks(BLOCK as usize).filter(|block| block.len() as u64 == BLOCK);
        if dirty.frozen.is_empty() {
            assert_eq!(dirty.whole_blocks(), whole.filter(|block| block.iter().all(Option::is_some)).count());
            assert_eq!(dirty.bytes(), covered);
        }
        for (start, run) in &dirty.fresh {
            assert!(start % BLOCK + run.len() as u64 <= BLOCK, "a run crosses a block");
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, Vec<u8>),
        Freeze(bool),
        Settle,
        Thaw,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0u64..250, prop::collection::vec(1u8..200, 1..100)).prop_map(|(at, data)| Step::Write(at, data)),
            1 => any::<bool>().prop_map(Step::Freeze),
            1 => Just(Step::Settle),
            1 => Just(Step::Thaw),
        ]
    }

    proptest! {
        #[test]
        fn what_was_written_is_what_is_read(steps in prop::collection::vec(step(), 1..40)) {
            let mut dirty = Dirty::new(BLOCK);
            let mut fresh: Vec<Option<u8>> = vec![None; 384];
            let mut frozen = fresh.clone();
            for step in steps {
                match step {
                    Step::Write(at, data) => {
                        dirty.write(at, &data, Vec::new());
                        data.iter().enumerate().for_each(|(i, byte)| fresh[at as usize + i] = Some(*byte));
                    }
                    Step::Freeze(all) if frozen.iter().all(Option::is_none) => {
                        let scope = if all { Scope::All } else { Scope::Whole };
                        for (start, run) in dirty.freeze(scope) {
                            for i in start as usize..start as usize + run.len() {
                                frozen[i] = fresh[i].take();
                            }
                        }
                        if all {
                            prop_assert!(!dirty.has_fresh());
                        }
                    }
                    Step::Freeze(_) => {}
                    Step::Settle => {
                        dirty.settle();
                        frozen.fill(None);
                    }
                    Step::Thaw => {
                        dirty.thaw();
                        for (fresh, frozen) in fresh.iter_mut().zip(&mut frozen) {
                            *fresh = fresh.or(frozen.take());
                        }
                    }
                }
                let seen: Vec<Option<u8>> = fresh.iter().zip(&frozen).map(|(fresh, frozen)| fresh.or(*frozen)).collect();
                check(&dirty, &seen);
            }
        }
    }

    #[test]
    fn growth_counts_only_new_bytes() {
        let mut dirty = Dirty::new(BLOCK);
        assert_eq!(dirty.write(0, &[1; 10], Vec::new()), 10);
        assert_eq!(dirty.write(5, &[2; 10], Vec::new()), 5);
        assert_eq!(dirty.write(60, &[3; 10], Vec::new()), 10);
        assert_eq!(dirty.end(), Some(70));
    }
}
