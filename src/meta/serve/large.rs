//! Changes that are too large for one command: cutting, punching or allocating many blocks.
//!
//! One command is applied in one go, on every replica, while everything behind it waits: its size is bounded. So what
//! does not fit is done before it, in parts that do, under the same recall of leases: nobody who holds a lease sees the
//! parts, and who reads without one sees what a slow disk would show, too. Each part names the sequence of its change, and
//! is refused once that is answered: a retry may have overtaken it.
//!
//! A file is cut from its end, so that what a crash leaves is a longer prefix of what it held.

use super::{Fail, Shared, unexpected};
use crate::meta::command::{Command, Outcome};
use crate::meta::serve::change::{Change, is_for_space};
use crate::types::attr::SetAttr;
use crate::types::error::FsError;
use crate::types::id::{Ino, TreeId};
use crate::types::limits::EXTENT_BLOCKS_MAX;
use crate::types::op::{FallocateMode, Op};

/// Blocks that one part frees or makes.
const PART_BLOCKS: u64 = EXTENT_BLOCKS_MAX - 1;
/// Parts of one allocation: some terabytes. A record for each block of more is not to be had by one call.
const PARTS_MAX: u64 = 8192;
/// Blocks looked at between two pauses.
const PAGE_BLOCKS: usize = 16 << 10;
/// Only operations that a client sends by themselves, or with one other, are that large.
const BATCH_MAX: usize = 2;

/// What is done first, and what is left for the command itself.
struct Split {
    parts: Vec<Op>,
    last: Op,
}

impl Split {
    fn whole(op: &Op) -> Split {
        Split { parts: Vec::new(), last: op.clone() }
    }
}

impl Shared {
    /// Does of a change what does not fit into one command, and returns what remains to be proposed. The leases in the
    /// way have been recalled.
    pub(super) async fn in_parts(&self, tree: TreeId, change: &Change) -> Result<Vec<Op>, Fail> {
        if change.ops.len() > BATCH_MAX {
            return Ok(change.ops.clone());
        }
        let mut left = Vec::with_capacity(change.ops.len());
        for op in &change.ops {
            let Split { parts, last } = self.split(tree, op).await?;
            for op in parts {
                let (session, sequence, now) = (change.session, change.sequence, self.now());
                if self.log_is_full() && !is_for_space(std::slice::from_ref(&op)) {
                    return Err(FsError::NoSpace.into());
                }
                match self.propose(&Command::Part { session, sequence, now, op }).await? {
                    Outcome::Done => {}
                    // Another attempt at this change has answered it: so will the command.
                    Outcome::Error(FsError::Stale) => return Ok(change.ops.clone()),
                    other => return Err(unexpected(other)),
                }
            }
            left.push(last);
        }
        Ok(left)
    }

    async fn split(&self, tree: TreeId, op: &Op) -> Result<Split, Fail> {
        // What is not there, or not a file, is for the state machine to say.
        let known = |ino| self.state.view(|view| Ok((view.attr(tree, ino)?, view.chunk_bytes(tree)?))).ok();
        match op {
            Op::SetAttr { ino, set } => {
                let Some((size, (attr, block_bytes))) = set.size.zip(known(*ino)) else { return Ok(Split::whole(op)) };
                if attr.allocated_bytes == 0 || size > attr.size {
                    return Ok(Split::whole(op));
                }
                let marks = self.marks(tree, *ino, size / block_bytes, u64::MAX).await?;
                Ok(Split { parts: cuts(*ino, &marks, attr.size, block_bytes), last: op.clone() })
            }
            Op::Fallocate { ino, mode: FallocateMode::Punch, offset, len } => {
                let Some((_, block_bytes)) = known(*ino) else { return Ok(Split::whole(op)) };
                let last = offset.saturating_add(*len).saturating_sub(1) / block_bytes;
                let marks = self.marks(tree, *ino, offset / block_bytes, last).await?;
                Ok(ranges(op, marks.iter().map(|block| block * block_bytes)))
            }
            Op::Fallocate { ino, offset, len, .. } => {
                let Some((_, block_bytes)) = known(*ino) else { return Ok(Split::whole(op)) };
                let last = offset.saturating_add(*len).saturating_sub(1) / block_bytes;
                if (last - offset / block_bytes) / PART_BLOCKS > PARTS_MAX {
                    return Err(FsError::NoSpace.into());
                }
                let borders = (offset / block_bytes..=last).step_by(PART_BLOCKS as usize).skip(1);
                Ok(ranges(op, borders.map(|block| block * block_bytes)))
            }
            _ => Ok(Split::whole(op)),
        }
    }

    /// Of the blocks from `first` to `last` that hold something, each that begins a new part.
    async fn marks(&self, tree: TreeId, ino: Ino, first: u64, last: u64) -> Result<Vec<u64>, Fail> {
        let (mut marks, mut next, mut seen) = (Vec::new(), first, 0);
        loop {
            let page = self.state.view(|view| view.blocks(tree, ino, next, last, PAGE_BLOCKS))?;
            for block in &page {
                if seen > 0 && seen % PART_BLOCKS == 0 {
                    marks.push(*block);
                }
                seen += 1;
            }
            match page.last() {
                Some(newest) if page.len() == PAGE_BLOCKS && *newest < last => next = newest + 1,
                _ => return Ok(marks),
            }
            tokio::task::yield_now().await;
        }
    }
}

/// Cuts a file of `size` bytes at one mark after the other, the last first. Space that was allocated beyond the end is
/// punched out: a cut there would make the file longer.
fn cuts(ino: Ino, marks: &[u64], size: u64, block_bytes: u64) -> Vec<Op> {
    let mut end = crate::types::limits::FILE_BYTES_MAX;
    let mut parts = Vec::with_capacity(marks.len());
    for mark in marks.iter().rev() {
        let offset = mark.saturating_mul(block_bytes);
        parts.push(if offset < size {
            Op::SetAttr { ino, set: SetAttr { size: Some(offset), ..SetAttr::default() } }
        } else {
            Op::Fallocate { ino, mode: FallocateMode::Punch, offset, len: end - offset }
        });
        end = offset;
    }
    parts
}

/// Divides a range operation at borders within it. No part changes the size: the last one does.
fn ranges(op: &Op, borders: impl Iterator<Item = u64>) -> Split {
    let Op::Fallocate { ino, mode, offset, len } = op else { return Split::whole(op) };
    let part_mode = match mode {
        FallocateMode::Punch => FallocateMode::Punch,
        FallocateMode::Allocate { .. } => FallocateMode::Allocate { keep_size: true },
        FallocateMode::Zero { .. } => FallocateMode::Zero { keep_size: true },
    };
    let (mut start, mut parts) = (*offset, Vec::new());
    for border in borders {
        parts.push(Op::Fallocate { ino: *ino, mode: part_mode, offset: start, len: border - start });
        start = border;
    }
    let len = offset.saturating_add(*len) - start;
    Split { parts, last: Op::Fallocate { ino: *ino, mode: *mode, offset: start, len } }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INO: Ino = Ino(5);

    #[test]
    fn a_file_is_cut_from_its_end_and_never_grows() {
        let parts = cuts(INO, &[10, 20, 30], 25 * 64, 64);
        let punch = Op::Fallocate {
            ino: INO,
            mode: FallocateMode::Punch,
            offset: 30 * 64,
            len: crate::types::limits::FILE_BYTES_MAX - 30 * 64,
        };
        let cut = |size| Op::SetAttr { ino: INO, set: SetAttr { size: Some(size), ..SetAttr::default() } };
        assert_eq!(parts, [punch, cut(20 * 64), cut(10 * 64)]);
    }

    #[test]
    fn ranges_are_divided_without_gaps_and_only_the_last_sets_the_size() {
        let mode = FallocateMode::Allocate { keep_size: false };
        let keep = FallocateMode::Allocate { keep_size: true };
        let op = |mode, offset, len| Op::Fallocate { ino: INO, mode, offset, len };
        let split = ranges(&op(mode, 100, 1000), [128, 640].into_iter());
        assert_eq!(split.parts, [op(keep, 100, 28), op(keep, 128, 512)]);
        assert_eq!(split.last, op(mode, 640, 460));
        let small = ranges(&op(mode, 100, 1000), [].into_iter());
        assert!(small.parts.is_empty());
        assert_eq!(small.last, op(mode, 100, 1000));
    }
}
