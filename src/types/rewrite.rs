//! Rewriting a block whose list of extents has grown long: one chunk in the place of everything that is still as it was when
//! the chunk was made.
//!
//! The chunk is made from a list that was read before, while others go on writing. So what replaces it says what was
//! seen, and only what is still so is replaced: whatever was written or cut meanwhile stays, over the chunk. A rewriting is never in
//! vain because somebody writes all the time, and never undoes what they wrote.

use rkyv::{Archive, Deserialize, Serialize};

use super::digest::ChunkId;
use super::extent::{ChunkPart, Extent, Source, overlay};
use super::limits::BLOCK_EXTENTS_MAX;

/// An extent as it was read, without the bytes that it held inline.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub offset: u64,
    pub len: u32,
    pub source: SeenSource,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum SeenSource {
    Chunk(ChunkPart),
    /// The name that the bytes would have as a chunk.
    Inline(ChunkId),
    Unwritten,
}

impl Seen {
    pub fn of(extent: &Extent) -> Seen {
        let source = match &extent.source {
            Source::Chunk(part) => SeenSource::Chunk(*part),
            Source::Inline(bytes) => SeenSource::Inline(ChunkId::of(bytes)),
            Source::Unwritten => SeenSource::Unwritten,
        };
        Seen { offset: extent.offset, len: extent.len, source }
    }

    fn end(&self) -> u64 {
        self.offset.saturating_add(self.len.into())
    }

    /// Where `now` holds the same bytes as this did. Inline bytes are the same as a whole or not at all.
    fn unchanged_in(&self, now: &Extent) -> Option<(u64, u64)> {
        let same = match (&self.source, &now.source) {
            (SeenSource::Chunk(then), Source::Chunk(part)) => {
                let at = |part: &ChunkPart, offset: u64| i128::from(part.offset) - i128::from(offset);
                then.id == part.id && at(then, self.offset) == at(part, now.offset)
            }
            (SeenSource::Inline(then), Source::Inline(bytes)) => {
                (self.offset, self.len) == (now.offset, now.len) && *then == ChunkId::of(bytes)
            }
            (SeenSource::Unwritten, Source::Unwritten) => true,
            _ => false,
        };
        meet((self.offset, self.end()), (now.offset, now.end())).filter(|_| same)
    }
}

/// Whether this can be what was read of the block: in order, without overlaps, no more than a block has.
pub fn is_sound(before: &[Seen], block: (u64, u64)) -> bool {
    let within = |seen: &Seen| seen.len > 0 && seen.offset >= block.0 && seen.end() <= block.1;
    let in_order = before.windows(2).all(|pair| pair[0].end() <= pair[1].offset);
    before.len() <= 2 * BLOCK_EXTENTS_MAX && before.iter().all(within) && in_order
}

/// Puts `after` in the place of what is unchanged, and of holes below `size` that were holes before.
pub fn replace_unchanged(list: &mut Vec<Extent>, before: &[Seen], after: &Extent, size: u64) {
    let whole = (after.offset, after.end());
    let mut same = Vec::new();
    for seen in before {
        let first = list.partition_point(|extent| extent.end() <= seen.offset);
        let within = list[first..].iter().take_while(|extent| extent.offset < seen.end());
        same.extend(within.filter_map(|extent| seen.unchanged_in(extent)));
    }
    let holes_before = holes(before.iter().map(|seen| (seen.offset, seen.end())), whole);
    let holes_now = holes(list.iter().map(|extent| (extent.offset, extent.end())), whole);
    for hole in holes_before {
        let first = holes_now.partition_point(|now| now.1 <= hole.0);
        let within = holes_now[first..].iter().take_while(|now| now.0 < hole.1);
        same.extend(within.filter_map(|now| meet(meet(hole, *now)?, (0, size))));
    }
    for (from, to) in joined(same) {
        if let Some(part) = after.slice(from, to) {
            overlay(list, part);
        }
    }
}

/// Ranges in order, those that touch as one: few, where nobody wrote meanwhile.
fn joined(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if last.1 == range.0 => last.1 = range.1,
            _ => joined.push(range),
        }
    }
    joined
}

fn meet(one: (u64, u64), other: (u64, u64)) -> Option<(u64, u64)> {
    let both = (one.0.max(other.0), one.1.min(other.1));
    (both.0 < both.1).then_some(both)
}

/// What sorted ranges leave of `whole`.
fn holes(ranges: impl Iterator<Item = (u64, u64)>, whole: (u64, u64)) -> Vec<(u64, u64)> {
    let mut holes = Vec::new();
    let mut at = whole.0;
    for (from, to) in ranges {
        holes.extend(meet((at, from), whole));
        at = at.max(to);
    }
    holes.extend(meet((at, whole.1), whole));
    holes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, prop_oneof, proptest};

    use super::*;
    use crate::types::extent::{self, allocate, punch};

    const SPACE: u64 = 64;
    const REWRITTEN: ChunkId = ChunkId([255; 32]);

    #[derive(Clone, Debug)]
    enum Step {
        Inline(u64, u64, u8),
        Chunk(u64, u64, u8),
        Punch(u64, u64),
        Allocate(u64, u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let range = || (0..SPACE, 1..20_u64).prop_map(|(from, len)| (from, (from + len).min(SPACE)));
        prop_oneof![
            (range(), 1..255_u8).prop_map(|((from, to), byte)| Step::Inline(from, to, byte)),
            (range(), 1..4_u8).prop_map(|((from, to), id)| Step::Chunk(from, to, id)),
            range().prop_map(|(from, to)| Step::Punch(from, to)),
            range().prop_map(|(from, to)| Step::Allocate(from, to)),
        ]
    }

    fn part(id: ChunkId, offset: u64) -> Source {
        Source::Chunk(ChunkPart { id, chunk_bytes: 4 * SPACE as u32, offset: offset as u32, put_epoch: 0 })
    }

    fn act(list: &mut Vec<Extent>, step: &Step) {
        match *step {
            Step::Inline(from, to, byte) => {
                let bytes: Vec<u8> = (from..to).map(|at| byte.wrapping_add(at as u8) | 1).collect();
                overlay(list, Extent { offset: from, len: bytes.len() as u32, source: Source::Inline(bytes) });
            }
            Step::Chunk(from, to, id) => {
                let source = part(ChunkId([id; 32]), from + u64::from(id));
                overlay(list, Extent { offset: from, len: (to - from) as u32, source });
            }
            Step::Punch(from, to) => punch(list, from, to),
            Step::Allocate(from, to) => allocate(list, from, to),
        }
    }

    fn bytes(list: &[Extent], rewritten: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; SPACE as usize];
        for extent in list {
            for at in 0..extent.len as usize {
                bytes[extent.offset as usize + at] = match &extent.source {
                    Source::Chunk(part) if part.id == REWRITTEN => rewritten[part.offset as usize + at],
                    Source::Chunk(part) => part.id.0[0].wrapping_mul(7).wrapping_add((part.offset as usize + at) as u8),
                    Source::Inline(bytes) => bytes[at],
                    Source::Unwritten => 0,
                };
            }
        }
        bytes
    }

    proptest! {
        #[test]
        fn a_rewritten_block_reads_as_before_whatever_happened_meanwhile(
            first in proptest::collection::vec(step(), 1..20),
            meanwhile in proptest::collection::vec(step(), 0..6),
        ) {
            let mut list = Vec::new();
            first.iter().for_each(|step| act(&mut list, step));
            let seen: Vec<Seen> = list.iter().map(Seen::of).collect();
            let (from, to) = (list.first().map_or(0, |extent| extent.offset), list.last().map_or(0, Extent::end));
            let rewritten = bytes(&list, &[])[from as usize..to as usize].to_vec();
            meanwhile.iter().for_each(|step| act(&mut list, step));
            let before = bytes(&list, &[]);
            let after = Extent { offset: from, len: (to - from) as u32, source: part(REWRITTEN, 0) };
            replace_unchanged(&mut list, &seen, &after, SPACE);
            assert!(extent::is_sound(&list), "{list:?}");
            assert_eq!(bytes(&list, &rewritten), before);
            if meanwhile.is_empty() && to > from {
                assert_eq!(list, [after]);
            }
        }
    }

    #[test]
    fn what_cannot_have_been_read_is_told() {
        let seen = |offset, len| Seen { offset, len, source: SeenSource::Unwritten };
        assert!(is_sound(&[seen(10, 5), seen(15, 5)], (10, 20)));
        for wrong in [vec![seen(10, 6), seen(15, 5)], vec![seen(9, 2)], vec![seen(15, 6)], vec![seen(15, 0)]] {
            assert!(!is_sound(&wrong, (10, 20)), "{wrong:?}");
        }
        assert!(!is_sound(&vec![seen(10, 5); 9000], (10, 20)));
    }

    #[test]
    fn nothing_is_filled_behind_the_end() {
        let inline = |offset, text: &[u8]| Extent { offset, len: 1, source: Source::Inline(text.to_vec()) };
        let seen = [Seen::of(&inline(0, b"a")), Seen::of(&inline(9, b"b"))];
        let after = Extent { offset: 0, len: 10, source: part(REWRITTEN, 0) };
        let mut cut = vec![inline(0, b"a")];
        replace_unchanged(&mut cut, &seen, &after, 4);
        assert_eq!(cut, [Extent { len: 4, ..after }]);
    }
}
