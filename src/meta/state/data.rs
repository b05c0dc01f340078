//! File data: write, append, truncate, fallocate, copy range, compaction, and freeing orphans.
//!
//! Every operation goes through an [`Edit`], which rewrites the extent lists of blocks one by one and sums up what that
//! does to allocated bytes, inline bytes and chunk references. At the end the sums are checked (quota, inline bound,
//! chunks on their way out) and written.

use super::chunk::RefChanges;
use super::error::StateError;
use super::execute::Scope;
use super::lock;
use super::schema::{Block, Inode, Table, extent_key, inode_key, number_at, numbers, orphan_key, tree_key, unpack};
use super::tx::{Tx, prefix_end};
use super::xattr;
use crate::meta::command::Outcome;
use crate::types::attr::{Time, mode_without_privileges};
use crate::types::error::FsError;
use crate::types::extent::{self, Extent, Source};
use crate::types::id::{Ino, TreeId};
use crate::types::limits::{
    BLOCK_EXTENTS_MAX, EXTENT_BLOCKS_MAX, FILE_BYTES_MAX, INLINE_BYTES_MAX, INLINE_FILE_BYTES_MAX,
};
use crate::types::op::{FallocateMode, OpReply, Piece, Write, WriteAt};
use crate::types::rewrite::{self, Seen};

/// The extended attribute with a program's privileges.
const CAPABILITY: &[u8] = b"security.capability";
/// Extents that one command frees at most.
const REAP_EXTENTS_MAX: usize = 4096;
/// Blocks read at a time when many are rewritten.
const BLOCKS_PAGE: usize = 256;

/// Changes to the extents of one inode.
struct Edit {
    tree: TreeId,
    ino: Ino,
    allocated: i64,
    inline: i64,
    refs: RefChanges,
    /// A list has grown beyond its bound.
    is_scattered: bool,
}

impl Edit {
    fn new(tree: TreeId, ino: Ino) -> Edit {
        Edit { tree, ino, allocated: 0, inline: 0, refs: RefChanges::default(), is_scattered: false }
    }

    /// Changes the list of one block.
    fn block(&mut self, tx: &mut Tx<'_>, block: u64, change: impl FnOnce(&mut Vec<Extent>)) -> Result<(), StateError> {
        let Block { extents } = tx.get(&extent_key(self.tree, self.ino, block))?.unwrap_or_default();
        self.rewrite(tx, block, extents, change);
        Ok(())
    }

    fn rewrite(
        &mut self,
        tx: &mut Tx<'_>,
        block: u64,
        mut extents: Vec<Extent>,
        change: impl FnOnce(&mut Vec<Extent>),
    ) {
        let weigh =
            |extents: &[Extent]| (extent::allocated_bytes(extents) as i64, extent::inline_bytes(extents) as i64);
        let before = weigh(&extents);
        let count = extents.len();
        self.refs.drop_all(&extents);
        change(&mut extents);
        self.refs.add_all(&mut extents);
        let after = weigh(&extents);
        self.allocated += after.0 - before.0;
        self.inline += after.1 - before.1;
        self.is_scattered |= extents.len() > BLOCK_EXTENTS_MAX.max(count);
        let key = extent_key(self.tree, self.ino, block);
        if extents.is_empty() {
            tx.delete(key);
        } else {
            tx.put(key, &Block { extents });
        }
    }

    /// Changes the list of every block that has one, from `first` to `last`.
    fn blocks(
        &mut self,
        tx: &mut Tx<'_>,
        mut first: u64,
        last: u64,
        change: impl Fn(&mut Vec<Extent>),
    ) -> Result<(), StateError> {
        while first <= last {
            let page = blocks_from(tx, self.tree, self.ino, first, BLOCKS_PAGE)?;
            let Some((newest, _)) = page.last() else { return Ok(()) };
            let next = newest.saturating_add(1);
            for (block, extents) in page.into_iter().filter(|(block, _)| *block <= last) {
                self.rewrite(tx, block, extents, &change);
            }
            first = next;
        }
        Ok(())
    }

    /// Lays pieces (at their place in the file) over what is there.
    fn lay(&mut self, tx: &mut Tx<'_>, chunk_bytes: u64, pieces: Vec<Extent>) -> Result<(), StateError> {
        let mut parts = Vec::with_capacity(pieces.len());
        for piece in pieces {
            split(piece, chunk_bytes, &mut parts);
        }
        let mut parts = parts.into_iter().peekable();
        while let Some((block, part)) = parts.next() {
            let mut run = vec![part];
            while let Some((_, part)) = parts.next_if(|(next, _)| *next == block) {
                run.push(part);
            }
            self.block(tx, block, |extents| run.into_iter().for_each(|part| extent::overlay(extents, part)))?;
        }
        Ok(())
    }

    /// Writes the sums: into the inode (the caller puts it), the tree and the chunk references.
    ///
    /// # Errors
    /// `QuotaExceeded` for growth beyond the quota; `TooBig` for more inline bytes than a file may have; `Scattered` for a
    /// list beyond its bound; `PutAgain`.
    fn finish(self, scope: &mut Scope<'_, '_>, inode: &mut Inode) -> Result<(), StateError> {
        let Edit { allocated, inline, refs, is_scattered, .. } = self;
        // Taking bytes away may cut one extent in two; that is always let through.
        if is_scattered && allocated >= 0 {
            return Err(FsError::Scattered.into());
        }
        inode.inline_bytes = sum(inode.inline_bytes, inline)?;
        if inline > 0 && inode.inline_bytes > INLINE_FILE_BYTES_MAX {
            return Err(FsError::TooBig.into());
        }
        if allocated != 0 {
            inode.attr.allocated_bytes = sum(inode.attr.allocated_bytes, allocated)?;
            let mut tree = scope.tree_record()?;
            tree.usage.allocated_bytes = sum(tree.usage.allocated_bytes, allocated)?;
            let quota = scope.policy.quota_bytes;
            if allocated > 0 && quota > 0 && tree.usage.allocated_bytes > quota {
                return Err(FsError::QuotaExceeded.into());
            }
            scope.put_tree(&tree);
        }
        refs.apply(scope.tx)
    }
}

fn sum(of: u64, change: i64) -> Result<u64, StateError> {
    of.checked_add_signed(change).ok_or_else(|| StateError::Damaged("a byte counter does not add up".into()))
}

/// At most `max` blocks that have extents, from `first`.
fn blocks_from(
    tx: &Tx<'_>,
    tree: TreeId,
    ino: Ino,
    first: u64,
    max: usize,
) -> Result<Vec<(u64, Vec<Extent>)>, StateError> {
    let to = prefix_end(&numbers(Table::Extent, &[tree.0, ino.0]));
    tx.scan(&extent_key(tree, ino, first), to.as_deref())
        .take(max)
        .map(|pair| {
            let (key, value) = pair?;
            Ok((number_at(&key, 17)?, unpack::<Block>(&value)?.extents))
        })
        .collect()
}

/// Cuts a piece at block borders.
fn split(piece: Extent, chunk_bytes: u64, parts: &mut Vec<(u64, Extent)>) {
    let (first, last) = (piece.offset / chunk_bytes, (piece.end() - 1) / chunk_bytes);
    if first == last {
        parts.push((first, piece));
        return;
    }
    parts.extend((first..=last).filter_map(|block| {
        let start = block * chunk_bytes;
        piece.slice(start, start.saturating_add(chunk_bytes)).map(|part| (block, part))
    }));
}

fn chunk_bytes(scope: &Scope<'_, '_>) -> u64 {
    u64::from(scope.policy.chunk_bytes.max(1))
}

pub(super) fn write(scope: &mut Scope<'_, '_>, write: &Write) -> Result<OpReply, StateError> {
    let mut inode = scope.tx.file(scope.tree, write.ino)?;
    let offset = match write.at {
        WriteAt::Offset(offset) => offset,
        WriteAt::End => inode.attr.size,
    };
    let pieces = write.pieces.iter().map(|piece| place(piece, offset)).collect::<Result<Vec<_>, _>>()?;
    if write.len == 0 && pieces.is_empty() {
        return Ok(OpReply::Written { offset, attr: inode.attr });
    }
    let end = offset.checked_add(write.len).ok_or(FsError::FileTooLarge)?;
    let end = pieces.iter().map(Extent::end).fold(end, u64::max);
    if end > FILE_BYTES_MAX {
        return Err(FsError::FileTooLarge.into());
    }
    let mut edit = Edit::new(scope.tree, write.ino);
    let block_bytes = chunk_bytes(scope);
    edit.lay(scope.tx, block_bytes, pieces)?;
    edit.finish(scope, &mut inode)?;
    inode.attr.size = inode.attr.size.max(end);
    if write.clear_privileges {
        inode.attr.mode = mode_without_privileges(inode.attr.mode);
    }
    drop_capability(scope, &mut inode)?;
    wrote(&mut inode, write.mtime.unwrap_or(scope.now))?;
    scope.put_inode(&inode);
    Ok(OpReply::Written { offset, attr: inode.attr })
}

/// What a program may do goes with its bytes: whoever changes those, root included, makes it another program.
fn drop_capability(scope: &mut Scope<'_, '_>, inode: &mut Inode) -> Result<(), StateError> {
    xattr::drop_value(scope, inode, CAPABILITY).map(drop)
}

/// The times of a write, which may have happened a while ago: the change time does not go back for it.
fn wrote(inode: &mut Inode, when: Time) -> Result<(), FsError> {
    if when.nsec >= 1_000_000_000 {
        return Err(FsError::Invalid);
    }
    inode.attr.mtime = when;
    inode.attr.changed(when.max(inode.attr.ctime));
    Ok(())
}

/// A piece of a write, checked, at its place in the file.
fn place(piece: &Piece, start: u64) -> Result<Extent, FsError> {
    let offset = start.checked_add(piece.offset).ok_or(FsError::FileTooLarge)?;
    offset.checked_add(piece.len.into()).ok_or(FsError::FileTooLarge)?;
    let extent = Extent { offset, len: piece.len, source: piece.source.clone() };
    match extent.source {
        Source::Inline(_) if extent.len > INLINE_BYTES_MAX => Err(FsError::TooBig),
        Source::Unwritten => Err(FsError::Invalid),
        _ if !extent.is_sound() => Err(FsError::Invalid),
        _ => Ok(extent),
    }
}

/// Sets the size of a file; the caller sets times and puts the inode. What lies beyond is cut, also space that was
/// allocated there.
pub(super) fn truncate(scope: &mut Scope<'_, '_>, inode: &mut Inode, size: u64) -> Result<(), StateError> {
    if size > FILE_BYTES_MAX {
        return Err(FsError::FileTooLarge.into());
    }
    if inode.attr.allocated_bytes > 0 && size <= inode.attr.size {
        let mut edit = Edit::new(scope.tree, inode.attr.ino);
        let first = size / chunk_bytes(scope);
        edit.blocks(scope.tx, first, u64::MAX, |extents| extent::truncate(extents, size))?;
        edit.finish(scope, inode)?;
    }
    inode.attr.size = size;
    Ok(())
}

pub(super) fn fallocate(
    scope: &mut Scope<'_, '_>,
    ino: Ino,
    mode: FallocateMode,
    offset: u64,
    len: u64,
) -> Result<OpReply, StateError> {
    let mut inode = scope.tx.file(scope.tree, ino)?;
    if len == 0 {
        return Err(FsError::Invalid.into());
    }
    let end = offset.checked_add(len).filter(|end| *end <= FILE_BYTES_MAX).ok_or(FsError::FileTooLarge)?;
    let block_bytes = chunk_bytes(scope);
    let (first, last) = (offset / block_bytes, (end - 1) / block_bytes);
    let mut edit = Edit::new(scope.tree, ino);
    match mode {
        FallocateMode::Punch => {
            edit.blocks(scope.tx, first, last, |extents| extent::punch(extents, offset, end))?;
        }
        _ if last - first >= EXTENT_BLOCKS_MAX => return Err(FsError::TooBig.into()),
        FallocateMode::Allocate { .. } | FallocateMode::Zero { .. } => {
            let fill = if matches!(mode, FallocateMode::Zero { .. }) { extent::zero } else { extent::allocate };
            for block in first..=last {
                let start = block * block_bytes;
                let range = (offset.max(start), end.min(start + block_bytes));
                edit.block(scope.tx, block, |extents| fill(extents, range.0, range.1))?;
            }
        }
    }
    edit.finish(scope, &mut inode)?;
    if let FallocateMode::Allocate { keep_size: false } | FallocateMode::Zero { keep_size: false } = mode {
        inode.attr.size = inode.attr.size.max(end);
    }
    drop_capability(scope, &mut inode)?;
    inode.attr.modified(scope.now);
    scope.put_inode(&inode);
    Ok(OpReply::Attr(inode.attr))
}

/// Shares extents. Copies up to the source's end of file and at most `EXTENT_BLOCKS_MAX` blocks; the answer says how
/// much.
pub(super) fn copy_range(
    scope: &mut Scope<'_, '_>,
    (from, from_offset): (Ino, u64),
    (to, to_offset): (Ino, u64),
    len: u64,
) -> Result<OpReply, StateError> {
    let source = scope.tx.file(scope.tree, from)?;
    let mut inode = scope.tx.file(scope.tree, to)?;
    let block_bytes = chunk_bytes(scope);
    let len = len.min(source.attr.size.saturating_sub(from_offset)).min((EXTENT_BLOCKS_MAX - 1) * block_bytes);
    if len == 0 {
        return Ok(OpReply::Copied { bytes: 0, attr: inode.attr });
    }
    let end = to_offset.checked_add(len).filter(|end| *end <= FILE_BYTES_MAX).ok_or(FsError::FileTooLarge)?;
    if from == to && from_offset < end && to_offset < from_offset + len {
        return Err(FsError::Invalid.into());
    }
    let pieces = shared_pieces(scope.tx, scope.tree, from, block_bytes, from_offset..from_offset + len, to_offset)?;
    let mut edit = Edit::new(scope.tree, to);
    edit.blocks(scope.tx, to_offset / block_bytes, (end - 1) / block_bytes, |extents| {
        extent::punch(extents, to_offset, end)
    })?;
    edit.lay(scope.tx, block_bytes, pieces)?;
    edit.finish(scope, &mut inode)?;
    inode.attr.size = inode.attr.size.max(end);
    drop_capability(scope, &mut inode)?;
    inode.attr.modified(scope.now);
    scope.put_inode(&inode);
    Ok(OpReply::Copied { bytes: len, attr: inode.attr })
}

/// The data of a range, moved to `to`. Unwritten space is not data: it stays a hole in the copy.
fn shared_pieces(
    tx: &Tx<'_>,
    tree: TreeId,
    ino: Ino,
    block_bytes: u64,
    range: std::ops::Range<u64>,
    to: u64,
) -> Result<Vec<Extent>, StateError> {
    let (first, last) = (range.start / block_bytes, (range.end - 1) / block_bytes);
    let blocks = tx.scan(&extent_key(tree, ino, first), Some(&extent_key(tree, ino, last + 1)));
    let mut pieces = Vec::new();
    for pair in blocks {
        let Block { extents } = unpack(&pair?.1)?;
        let parts = extents.iter().filter(|extent| extent.source != Source::Unwritten);
        pieces.extend(parts.filter_map(|extent| {
            let part = extent.slice(range.start, range.end)?;
            Some(Extent { offset: part.offset - range.start + to, ..part })
        }));
    }
    Ok(pieces)
}

/// Puts one chunk in the place of what is in a block as it was seen. What is not, or was not seen, stays: who writes all the
/// time does not keep a block from being rewritten.
///
/// # Errors
/// `Invalid` when it is not a chunk within the block, or nobody can have seen that.
pub(super) fn compact(
    scope: &mut Scope<'_, '_>,
    ino: Ino,
    block_offset: u64,
    before: &[Seen],
    after: &Extent,
) -> Result<OpReply, StateError> {
    let mut inode = scope.tx.file(scope.tree, ino)?;
    let block_bytes = chunk_bytes(scope);
    let block = block_offset / block_bytes;
    let (start, end) = (block * block_bytes, (block + 1).saturating_mul(block_bytes));
    let fits = after.offset >= start && after.is_sound() && after.end() <= end;
    if !fits || !rewrite::is_sound(before, (start, end)) || !matches!(after.source, Source::Chunk(_)) {
        return Err(FsError::Invalid.into());
    }
    let size = inode.attr.size;
    let mut edit = Edit::new(scope.tree, ino);
    edit.block(scope.tx, block, |extents| rewrite::replace_unchanged(extents, before, after, size))?;
    edit.finish(scope, &mut inode)?;
    inode.attr.version += 1;
    scope.put_inode(&inode);
    Ok(OpReply::Done)
}

/// Frees orphans until the bound of one command is reached; the answer names those that are left.
pub(super) fn reap(tx: &mut Tx<'_>, tree: TreeId, inos: &[Ino]) -> Result<Outcome, StateError> {
    let mut budget = REAP_EXTENTS_MAX;
    let mut left = Vec::new();
    for ino in inos {
        let done = budget > 0 && reap_one(tx, tree, *ino, &mut budget)?;
        if !done {
            left.push(*ino);
        }
    }
    Ok(Outcome::Reaped { left })
}

/// Whether nothing is left of it. An inode that has a name, or is not, is left alone.
fn reap_one(tx: &mut Tx<'_>, tree: TreeId, ino: Ino, budget: &mut usize) -> Result<bool, StateError> {
    if !tx.contains(&orphan_key(tree, ino))? {
        return Ok(true);
    }
    let mut inode = tx.inode(tree, ino)?;
    let mut record = tx.tree(tree)?;
    let mut edit = Edit::new(tree, ino);
    let mut is_empty = inode.attr.allocated_bytes == 0;
    while !is_empty && *budget > 0 {
        let page = blocks_from(tx, tree, ino, 0, BLOCKS_PAGE)?;
        is_empty = page.is_empty();
        for (block, extents) in page {
            if *budget == 0 {
                break;
            }
            *budget = budget.saturating_sub(extents.len());
            edit.rewrite(tx, block, extents, Vec::clear);
        }
    }
    inode.attr.allocated_bytes = sum(inode.attr.allocated_bytes, edit.allocated)?;
    inode.inline_bytes = sum(inode.inline_bytes, edit.inline)?;
    record.usage.allocated_bytes = sum(record.usage.allocated_bytes, edit.allocated)?;
    edit.refs.apply(tx)?;
    is_empty |= inode.attr.allocated_bytes == 0;
    if is_empty {
        for key in tx.keys(&numbers(Table::Xattr, &[tree.0, ino.0]), usize::MAX)? {
            tx.delete(key);
        }
        lock::drop_inode(tx, tree, ino)?;
        tx.delete(orphan_key(tree, ino));
        tx.delete(inode_key(tree, ino));
        record.usage.inodes = record.usage.inodes.saturating_sub(1);
    } else {
        tx.put(inode_key(tree, ino), &inode);
    }
    tx.put(tree_key(tree), &record);
    Ok(is_empty)
}
