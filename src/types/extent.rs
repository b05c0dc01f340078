//! Extents: how a file's bytes map to stored bytes, and the algebra of extent lists.
//!
//! Pure functions on lists. Every one of them keeps a list sorted and free of overlaps, and joins neighbours that are
//! one piece: contiguous parts of one chunk, unwritten next to unwritten, and inline next to inline while the two stay
//! small.

use rkyv::{Archive, Deserialize, Serialize};

use super::digest::ChunkId;
use super::limits::INLINE_JOINED_BYTES_MAX;

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

    /// The part of this extent within `from..to`; `None` when they do not meet.
    pub fn slice(&self, from: u64, to: u64) -> Option<Extent> {
        let (from, to) = (from.max(self.offset), to.min(self.end()));
        if from >= to {
            return None;
        }
        let skip = (from - self.offset) as u32;
        let len = (to - from) as u32;
        let source = match &self.source {
            Source::Chunk(part) => Source::Chunk(ChunkPart { offset: part.offset.saturating_add(skip), ..*part }),
            Source::Inline(bytes) => {
                let bytes = bytes.get(skip as usize..).unwrap_or_default();
                Source::Inline(bytes.get(..len as usize).unwrap_or(bytes).to_vec())
            }
            Source::Unwritten => Source::Unwritten,
        };
        Some(Extent { offset: from, len, source })
    }

    /// Whether the source can hold what the extent says: not empty, within its chunk, as many inline bytes as its
    /// length, and not past the largest offset.
    pub fn is_sound(&self) -> bool {
        let source = match &self.source {
            Source::Chunk(part) => part.offset.checked_add(self.len).is_some_and(|end| end <= part.chunk_bytes),
            Source::Inline(bytes) => bytes.len() == self.len as usize,
            Source::Unwritten => true,
        };
        source && self.len > 0 && self.offset.checked_add(self.len.into()).is_some()
    }

    /// Takes `next` into this extent if the two are one piece.
    fn join(&mut self, next: &Extent) -> bool {
        let (Some(len), true) = (self.len.checked_add(next.len), self.end() == next.offset) else { return false };
        match (&mut self.source, &next.source) {
            (Source::Unwritten, Source::Unwritten) => {}
            (Source::Chunk(part), Source::Chunk(more))
                if part.id == more.id
                    && part.chunk_bytes == more.chunk_bytes
                    && part.offset.checked_add(self.len) == Some(more.offset) =>
            {
                part.put_epoch = part.put_epoch.max(more.put_epoch);
            }
            (Source::Inline(bytes), Source::Inline(more)) if len <= INLINE_JOINED_BYTES_MAX => {
                bytes.extend_from_slice(more);
            }
            _ => return false,
        }
        self.len = len;
        true
    }
}

/// Makes `from..to` a hole.
pub fn punch(list: &mut Vec<Extent>, from: u64, to: u64) {
    cut(list, from, to);
}

/// Makes everything from `end` on a hole.
pub fn truncate(list: &mut Vec<Extent>, end: u64) {
    cut(list, end, u64::MAX);
}

/// Lays `piece` over what is there.
pub fn overlay(list: &mut Vec<Extent>, piece: Extent) {
    let at = cut(list, piece.offset, piece.end());
    insert(list, at, piece);
}

/// Makes `from..to` read as zeros and count as allocated. The range is at most `u32::MAX` long.
pub fn zero(list: &mut Vec<Extent>, from: u64, to: u64) {
    if let Some(piece) = unwritten(from, to) {
        overlay(list, piece);
    }
}

/// Allocates the holes of `from..to` as unwritten. The range is at most `u32::MAX` long.
pub fn allocate(list: &mut Vec<Extent>, from: u64, to: u64) {
    let mut holes = Vec::new();
    let mut at = from;
    for extent in list.iter().filter(|extent| extent.end() > from && extent.offset < to) {
        holes.extend(unwritten(at, extent.offset));
        at = extent.end();
    }
    holes.extend(unwritten(at, to));
    for hole in holes {
        overlay(list, hole);
    }
}

/// Bytes that are not holes.
pub fn allocated_bytes(list: &[Extent]) -> u64 {
    list.iter().map(|extent| u64::from(extent.len)).sum()
}

/// Bytes kept in the list itself.
pub fn inline_bytes(list: &[Extent]) -> u64 {
    list.iter().filter(|extent| matches!(extent.source, Source::Inline(_))).map(|extent| u64::from(extent.len)).sum()
}

/// Whether a list is sorted, free of overlaps, and each extent sound.
pub fn is_sound(list: &[Extent]) -> bool {
    list.iter().all(Extent::is_sound) && list.windows(2).all(|pair| pair[0].end() <= pair[1].offset)
}

fn unwritten(from: u64, to: u64) -> Option<Extent> {
    let len = u32::try_from(to.checked_sub(from)?).ok().filter(|len| *len > 0)?;
    Some(Extent { offset: from, len, source: Source::Unwritten })
}

/// Removes `from..to`; the answer is where in the list the hole is.
fn cut(list: &mut Vec<Extent>, from: u64, to: u64) -> usize {
    let first = list.partition_point(|extent| extent.end() <= from);
    let after = first + list[first..].partition_point(|extent| extent.offset < to);
    if first == after || from >= to {
        return first;
    }
    let left = list[first].slice(0, from);
    let right = list[after - 1].slice(to, u64::MAX);
    let hole = first + usize::from(left.is_some());
    list.splice(first..after, left.into_iter().chain(right));
    hole
}

/// Puts a piece into a hole, joined with its neighbours where they are one.
fn insert(list: &mut Vec<Extent>, at: usize, piece: Extent) {
    let piece = match at.checked_sub(1).map(|before| list[before].join(&piece)) {
        Some(true) => at - 1,
        _ => {
            list.insert(at, piece);
            at
        }
    };
    if let [extent, next, ..] = &mut list[piece..]
        && extent.join(next)
    {
        list.remove(piece + 1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, any, prop_oneof, proptest};

    use super::*;

    const SPACE: usize = 64;

    #[derive(Clone, Debug)]
    enum Step {
        Write { from: usize, bytes: Vec<u8> },
        Share { from: usize, len: usize, chunk: u8, offset: usize },
        Punch(usize, usize),
        Zero(usize, usize),
        Allocate(usize, usize),
        Truncate(usize),
    }

    fn range() -> impl Strategy<Value = (usize, usize)> {
        (0..SPACE, 1..SPACE).prop_map(|(from, len)| (from, (from + len).min(SPACE)))
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (range(), any::<u8>()).prop_map(|((from, to), byte)| Step::Write {
                from,
                bytes: (0..to - from).map(|i| byte.wrapping_add(i as u8)).collect()
            }),
            (range(), 0..3u8, 0..SPACE).prop_map(|((from, to), chunk, offset)| Step::Share {
                from,
                len: to - from,
                chunk,
                offset
            }),
            range().prop_map(|(from, to)| Step::Punch(from, to)),
            range().prop_map(|(from, to)| Step::Zero(from, to)),
            range().prop_map(|(from, to)| Step::Allocate(from, to)),
            (0..SPACE).prop_map(Step::Truncate),
        ]
    }

    /// What the byte at `offset` of a made-up chunk is.
    fn chunk_byte(chunk: u8, offset: usize) -> u8 {
        chunk.wrapping_mul(101).wrapping_add(offset as u8) | 1
    }

    /// Each byte of the space: `None` is a hole, `Some(None)` unwritten, else the byte.
    type Model = [Option<Option<u8>>; SPACE];

    fn act(list: &mut Vec<Extent>, model: &mut Model, step: Step) {
        match step {
            Step::Write { from, bytes } => {
                for (i, byte) in bytes.iter().enumerate() {
                    model[from + i] = Some(Some(*byte));
                }
                let len = bytes.len() as u32;
                overlay(list, Extent { offset: from as u64, len, source: Source::Inline(bytes) });
            }
            Step::Share { from, len, chunk, offset } => {
                for i in 0..len {
                    model[from + i] = Some(Some(chunk_byte(chunk, offset + i)));
                }
                let (id, chunk_bytes) = (ChunkId([chunk; 32]), 2 * SPACE as u32);
                let part = ChunkPart { id, chunk_bytes, offset: offset as u32, put_epoch: 0 };
                overlay(list, Extent { offset: from as u64, len: len as u32, source: Source::Chunk(part) });
            }
            Step::Punch(from, to) => {
                model[from..to].fill(None);
                punch(list, from as u64, to as u64);
            }
            Step::Zero(from, to) => {
                model[from..to].fill(Some(None));
                zero(list, from as u64, to as u64);
            }
            Step::Allocate(from, to) => {
                model[from..to].iter_mut().filter(|byte| byte.is_none()).for_each(|byte| *byte = Some(None));
                allocate(list, from as u64, to as u64);
            }
            Step::Truncate(end) => {
                model[end..].fill(None);
                truncate(list, end as u64);
            }
        }
    }

    fn render(list: &[Extent]) -> Model {
        let mut model = [None; SPACE];
        for extent in list {
            for i in 0..extent.len as usize {
                model[extent.offset as usize + i] = Some(match &extent.source {
                    Source::Chunk(part) => Some(chunk_byte(part.id.0[0], part.offset as usize + i)),
                    Source::Inline(bytes) => Some(bytes[i]),
                    Source::Unwritten => None,
                });
            }
        }
        model
    }

    proptest! {
        #[test]
        fn lists_act_like_an_array_of_bytes(steps in proptest::collection::vec(step(), 1..40)) {
            let (mut list, mut model) = (Vec::new(), [None; SPACE]);
            for step in steps {
                act(&mut list, &mut model, step);
                assert!(is_sound(&list), "{list:?}");
                assert_eq!(render(&list), model);
                assert_eq!(allocated_bytes(&list), model.iter().flatten().count() as u64);
                assert!(list.windows(2).all(|pair| !pair[0].clone().join(&pair[1])
                    || matches!(pair[0].source, Source::Inline(_))), "not joined: {list:?}");
            }
        }
    }

    #[test]
    fn a_chunk_overwritten_in_the_middle_and_restored_is_one_piece_again() {
        let part = |offset| ChunkPart { id: ChunkId([7; 32]), chunk_bytes: 100, offset, put_epoch: 0 };
        let whole = Extent { offset: 0, len: 100, source: Source::Chunk(part(0)) };
        let mut list = vec![whole.clone()];
        punch(&mut list, 40, 60);
        assert_eq!(list.len(), 2);
        overlay(&mut list, Extent { offset: 40, len: 20, source: Source::Chunk(part(40)) });
        assert_eq!(list, [whole]);
    }

    #[test]
    fn inline_pieces_join_only_up_to_their_bound() {
        let piece = |offset, len: u32| Extent { offset, len, source: Source::Inline(vec![1; len as usize]) };
        let mut list = vec![piece(0, INLINE_JOINED_BYTES_MAX - 1)];
        overlay(&mut list, piece(u64::from(INLINE_JOINED_BYTES_MAX) - 1, 1));
        assert_eq!(list.len(), 1);
        overlay(&mut list, piece(INLINE_JOINED_BYTES_MAX.into(), 1));
        assert_eq!(list.len(), 2);
    }

    #[test]
    fn unsound_extents_are_told() {
        let part = ChunkPart { id: ChunkId([7; 32]), chunk_bytes: 100, offset: u32::MAX, put_epoch: 0 };
        assert!(!Extent { offset: 0, len: 2, source: Source::Chunk(part) }.is_sound());
        assert!(!Extent { offset: 0, len: 2, source: Source::Inline(vec![1]) }.is_sound());
        assert!(!Extent { offset: u64::MAX, len: 2, source: Source::Unwritten }.is_sound());
    }
}
