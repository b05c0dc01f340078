//! File data: write, append, truncate, fallocate, copy range, compaction, and freeing orphans.
//!
//! Every operation goes through an [`Edit`].

use super::edit::{Edit, FileMap, Sums, sum};
use super::error::StateError;
use super::execute::Scope;
use super::lock;
use super::schema::{Inode, Table, inode_key, numbers, orphan_key, tree_key};
use super::tx::Tx;
use super::xattr;
use crate::meta::command::Outcome;
use crate::types::attr::{Time, mode_without_privileges};
use crate::types::error::FsError;
use crate::types::extent::{self, Extent, Source};
use crate::types::id::{Ino, TreeId};
use crate::types::limits::{EXTENT_BLOCKS_MAX, FILE_BYTES_MAX, INLINE_BYTES_MAX};
use crate::types::op::{FallocateMode, OpReply, Piece, Write, WriteAt};
use crate::types::rewrite::{self, Seen};

/// The extended attribute with a program's privileges.
const CAPABILITY: &[u8] = b"security.capability";
/// Extents that one command frees at most.
const REAP_EXTENTS_MAX: usize = 4096;

fn map(scope: &Scope<'_, '_>, ino: Ino) -> FileMap {
    FileMap { tree: scope.tree, ino, block_bytes: u64::from(scope.policy.chunk_bytes.max(1)) }
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
    let mut edit = Edit::new(map(scope, write.ino));
    edit.lay(scope.tx, pieces)?;
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
        let mut edit = Edit::new(map(scope, inode.attr.ino));
        edit.take_away(scope.tx, (size, u64::MAX), |extents| extent::truncate(extents, size))?;
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
    let map = map(scope, ino);
    let (first, last) = (map.block_of(offset), map.block_of(end - 1));
    let mut edit = Edit::new(map);
    match mode {
        FallocateMode::Punch => {
            edit.take_away(scope.tx, (offset, end), |extents| extent::punch(extents, offset, end))?;
        }
        _ if last - first >= EXTENT_BLOCKS_MAX => return Err(FsError::TooBig.into()),
        FallocateMode::Allocate { .. } | FallocateMode::Zero { .. } => {
            let fill = if matches!(mode, FallocateMode::Zero { .. }) { extent::zero } else { extent::allocate };
            for block in first..=last {
                let bounds = map.bounds(block);
                let range = (offset.max(bounds.0), end.min(bounds.1));
                edit.change(scope.tx, range, |extents| fill(extents, range.0, range.1))?;
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
    let (source_map, map) = (map(scope, from), map(scope, to));
    let len = len.min(source.attr.size.saturating_sub(from_offset)).min((EXTENT_BLOCKS_MAX - 1) * map.block_bytes);
    if len == 0 {
        return Ok(OpReply::Copied { bytes: 0, attr: inode.attr });
    }
    let end = to_offset.checked_add(len).filter(|end| *end <= FILE_BYTES_MAX).ok_or(FsError::FileTooLarge)?;
    if from == to && from_offset < end && to_offset < from_offset + len {
        return Err(FsError::Invalid.into());
    }
    let pieces = shared_pieces(scope.tx, &source_map, from_offset..from_offset + len, to_offset)?;
    let mut edit = Edit::new(map);
    edit.take_away(scope.tx, (to_offset, end), |extents| extent::punch(extents, to_offset, end))?;
    edit.lay(scope.tx, pieces)?;
    edit.finish(scope, &mut inode)?;
    inode.attr.size = inode.attr.size.max(end);
    drop_capability(scope, &mut inode)?;
    inode.attr.modified(scope.now);
    scope.put_inode(&inode);
    Ok(OpReply::Copied { bytes: len, attr: inode.attr })
}

/// The data of a range, moved to `to`. Unwritten space is not data: it stays a hole in the copy.
fn shared_pieces(tx: &Tx<'_>, map: &FileMap, range: std::ops::Range<u64>, to: u64) -> Result<Vec<Extent>, StateError> {
    let mut pieces = Vec::new();
    for extent in map.scan(tx, range.start, range.end)? {
        let part = extent?.slice(range.start, range.end).filter(|part| part.source != Source::Unwritten);
        pieces.extend(part.map(|part| Extent { offset: part.offset - range.start + to, ..part }));
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
    let map = map(scope, ino);
    let (start, end) = map.bounds(map.block_of(block_offset));
    let fits = after.offset >= start && after.is_sound() && after.end() <= end;
    if !fits || !rewrite::is_sound(before, (start, end)) || !matches!(after.source, Source::Chunk(_)) {
        return Err(FsError::Invalid.into());
    }
    let size = inode.attr.size;
    let mut edit = Edit::new(map);
    edit.change(scope.tx, (start, end), |extents| rewrite::replace_unchanged(extents, before, after, size))?;
    // It fills holes that are in the block, which no client has counted.
    edit.finish_uncounted(scope, &mut inode)?;
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
    let mut edit = Edit::new(FileMap { tree, ino, block_bytes: u64::from(record.chunk_bytes.max(1)) });
    let mut is_empty = inode.attr.allocated_bytes == 0;
    while !is_empty && *budget > 0 {
        let taken = edit.take_first(tx, *budget)?;
        is_empty = taken == 0;
        *budget -= taken;
    }
    let Sums { allocated, inline, refs } = edit.sums();
    inode.attr.allocated_bytes = sum(inode.attr.allocated_bytes, allocated)?;
    inode.inline_bytes = sum(inode.inline_bytes, inline)?;
    record.usage.allocated_bytes = sum(record.usage.allocated_bytes, allocated)?;
    refs.apply(tx)?;
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
