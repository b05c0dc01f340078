//! The extents of one file: reading some of them, and changing them.
//!
//! Each extent is a record of its own under its place in the file, so that a small write to a block with many small pieces
//! in it costs what it writes, and not what is there. An [`Edit`] reads the extents that a change touches, and their neighbours
//! (which it may be joined with), replaces those that differ, and sums up what that does to allocated bytes, inline bytes
//! and chunk references. At the end the sums are checked (quota, inline bound, chunks on their way out) and written.

use std::collections::BTreeSet;

use super::chunk::RefChanges;
use super::error::StateError;
use super::execute::Scope;
use super::reserve;
use super::schema::{Inode, Table, Tree, extent_key, numbers, unpack};
use super::tx::{Tx, prefix_end};
use crate::types::error::FsError;
use crate::types::extent::{self, Extent};
use crate::types::id::{Ino, TreeId};
use crate::types::limits::{BLOCK_EXTENTS_MAX, INLINE_FILE_BYTES_MAX};

/// Extents read at a time when many are changed.
const EXTENTS_PAGE: usize = 256;

/// Where a file's extents are: its tree, its number, and the size of its blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileMap {
    pub tree: TreeId,
    pub ino: Ino,
    pub block_bytes: u64,
}

impl FileMap {
    pub fn key(&self, offset: u64) -> Vec<u8> {
        extent_key(self.tree, self.ino, offset)
    }

    pub fn block_of(&self, offset: u64) -> u64 {
        offset / self.block_bytes
    }

    /// From and to: no extent crosses them.
    pub fn bounds(&self, block: u64) -> (u64, u64) {
        let start = block.saturating_mul(self.block_bytes);
        (start, start.saturating_add(self.block_bytes))
    }

    /// The extents that meet `from..to` in order, and perhaps one that ends where it begins.
    pub fn scan<'t>(
        &self,
        tx: &'t Tx<'_>,
        from: u64,
        to: u64,
    ) -> Result<impl Iterator<Item = Result<Extent, StateError>> + use<'t>, StateError> {
        let (block_start, _) = self.bounds(self.block_of(from));
        let before = tx.last(&self.key(block_start), &self.key(from))?.map(|(_, value)| unpack::<Extent>(&value));
        let before = before.transpose()?.filter(|extent| extent.end() >= from);
        Ok(before.into_iter().map(Ok).chain(self.scan_from(tx, from, to)))
    }

    /// The extents that begin in `from..to`, in order.
    pub fn scan_from<'t>(
        &self,
        tx: &'t Tx<'_>,
        from: u64,
        to: u64,
    ) -> impl Iterator<Item = Result<Extent, StateError>> + use<'t> {
        let end = if to == u64::MAX {
            prefix_end(&numbers(Table::Extent, &[self.tree.0, self.ino.0]))
        } else {
            Some(self.key(to))
        };
        tx.scan(&self.key(from), end.as_deref()).map(|pair| unpack::<Extent>(&pair?.1))
    }
}

/// Changes to the extents of one inode.
pub(super) struct Edit {
    map: FileMap,
    allocated: i64,
    inline: i64,
    refs: RefChanges,
    /// Blocks that have more extents than before.
    grown: BTreeSet<u64>,
}

/// What an [`Edit`] has come to.
pub(super) struct Sums {
    pub allocated: i64,
    pub inline: i64,
    pub refs: RefChanges,
}

impl Edit {
    pub fn new(map: FileMap) -> Edit {
        Edit { map, allocated: 0, inline: 0, refs: RefChanges::default(), grown: BTreeSet::new() }
    }

    /// Changes what is in `from..to`, all of it in one block. The change is told of what adjoins, too.
    pub fn change(
        &mut self,
        tx: &mut Tx<'_>,
        (from, to): (u64, u64),
        change: impl FnOnce(&mut Vec<Extent>),
    ) -> Result<(), StateError> {
        let block = self.map.block_of(from);
        let end = to.saturating_add(1).min(self.map.bounds(block).1);
        let before = self.map.scan(tx, from, end)?.collect::<Result<Vec<_>, _>>()?;
        if self.replace(tx, before, change) {
            self.grown.insert(block);
        }
        Ok(())
    }

    /// Takes away from what is in `from..to`, which may be many blocks.
    pub fn take_away(
        &mut self,
        tx: &mut Tx<'_>,
        (from, to): (u64, u64),
        change: impl Fn(&mut Vec<Extent>),
    ) -> Result<(), StateError> {
        let mut page = self.map.scan(tx, from, to)?.take(EXTENTS_PAGE).collect::<Result<Vec<_>, _>>()?;
        while let Some(last) = page.last() {
            let (is_last, at) = (page.len() < EXTENTS_PAGE, last.end());
            // What is cut in two is always let through: without that nothing could be taken away from a block that is full.
            self.replace(tx, page, &change);
            if is_last || at >= to {
                return Ok(());
            }
            // Not from what adjoins: looking for it would go back over all that was taken away.
            page = self.map.scan_from(tx, at, to).take(EXTENTS_PAGE).collect::<Result<Vec<_>, _>>()?;
        }
        Ok(())
    }

    /// Takes at most so many extents away, from the first on; the answer is how many there were.
    pub fn take_first(&mut self, tx: &mut Tx<'_>, max: usize) -> Result<usize, StateError> {
        let page = self.map.scan_from(tx, 0, u64::MAX).take(max).collect::<Result<Vec<_>, _>>()?;
        let count = page.len();
        self.replace(tx, page, Vec::clear);
        Ok(count)
    }

    /// Lays pieces (at their place in the file) over what is there.
    pub fn lay(&mut self, tx: &mut Tx<'_>, pieces: Vec<Extent>) -> Result<(), StateError> {
        let mut parts = Vec::with_capacity(pieces.len());
        for piece in pieces {
            self.split(piece, &mut parts);
        }
        let mut parts = parts.into_iter().peekable();
        while let Some(part) = parts.next() {
            // Together: each change reads what is there.
            let (block, mut from, mut to) = (self.map.block_of(part.offset), part.offset, part.end());
            let mut run = vec![part];
            while let Some(part) = parts.next_if(|next| self.map.block_of(next.offset) == block) {
                (from, to) = (from.min(part.offset), to.max(part.end()));
                run.push(part);
            }
            self.change(tx, (from, to), |extents| run.into_iter().for_each(|part| extent::overlay(extents, part)))?;
        }
        Ok(())
    }

    /// Cuts a piece at block borders.
    fn split(&self, piece: Extent, parts: &mut Vec<Extent>) {
        let (first, last) = (self.map.block_of(piece.offset), self.map.block_of(piece.end() - 1));
        if first == last {
            parts.push(piece);
            return;
        }
        parts.extend((first..=last).filter_map(|block| {
            let (start, end) = self.map.bounds(block);
            piece.slice(start, end)
        }));
    }

    /// Puts the changed list in the place of `before`. Whether it is longer.
    fn replace(&mut self, tx: &mut Tx<'_>, before: Vec<Extent>, change: impl FnOnce(&mut Vec<Extent>)) -> bool {
        let mut after = before.clone();
        change(&mut after);
        self.refs.drop_all(&before);
        self.refs.add_all(&mut after);
        self.allocated += extent::allocated_bytes(&after) as i64 - extent::allocated_bytes(&before) as i64;
        self.inline += extent::inline_bytes(&after) as i64 - extent::inline_bytes(&before) as i64;
        let at = |list: &[Extent], offset: u64| list.binary_search_by_key(&offset, |extent| extent.offset).ok();
        for gone in before.iter().filter(|extent| at(&after, extent.offset).is_none()) {
            tx.delete(self.map.key(gone.offset));
        }
        for extent in &after {
            if at(&before, extent.offset).is_none_or(|index| before[index] != *extent) {
                tx.put(self.map.key(extent.offset), extent);
            }
        }
        after.len() > before.len()
    }

    /// What it comes to; nothing is checked.
    pub fn sums(self) -> Sums {
        Sums { allocated: self.allocated, inline: self.inline, refs: self.refs }
    }

    /// Writes the sums: into the inode (the caller puts it), the tree and the chunk references.
    ///
    /// # Errors
    /// `QuotaExceeded` or `Promised` for growth beyond the quota; `TooBig` for more inline bytes than a file may have; `Scattered` for a
    /// block with more extents than it may have; `PutAgain`.
    pub fn finish(self, scope: &mut Scope<'_, '_>, inode: &mut Inode) -> Result<(), StateError> {
        self.finish_by(scope, inode, reserve::spend_bytes)
    }

    /// As [`Edit::finish`], for what a client does not count as an addition: its allowance is left alone.
    ///
    /// # Errors
    /// Those of [`Edit::finish`], but for `Promised`.
    pub fn finish_uncounted(self, scope: &mut Scope<'_, '_>, inode: &mut Inode) -> Result<(), StateError> {
        self.finish_by(scope, inode, |scope, tree, _| reserve::check_bytes(scope, tree))
    }

    fn finish_by(
        self,
        scope: &mut Scope<'_, '_>,
        inode: &mut Inode,
        spend: impl FnOnce(&mut Scope<'_, '_>, &mut Tree, u64) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        self.check_blocks(scope.tx)?;
        let Sums { allocated, inline, refs } = self.sums();
        inode.inline_bytes = sum(inode.inline_bytes, inline)?;
        if inline > 0 && inode.inline_bytes > INLINE_FILE_BYTES_MAX {
            return Err(FsError::TooBig.into());
        }
        if allocated != 0 {
            inode.attr.allocated_bytes = sum(inode.attr.allocated_bytes, allocated)?;
            let mut tree = scope.tree_record()?;
            tree.usage.allocated_bytes = sum(tree.usage.allocated_bytes, allocated)?;
            if allocated > 0 {
                spend(scope, &mut tree, allocated.unsigned_abs())?;
            }
            scope.put_tree(&tree);
        }
        refs.apply(scope.tx)
    }

    /// Taking bytes away may cut one extent in two; that is always let through.
    fn check_blocks(&self, tx: &Tx<'_>) -> Result<(), StateError> {
        if self.allocated < 0 {
            return Ok(());
        }
        for block in &self.grown {
            let (start, end) = self.map.bounds(*block);
            if tx.count(&self.map.key(start), &self.map.key(end))? > BLOCK_EXTENTS_MAX {
                return Err(FsError::Scattered.into());
            }
        }
        Ok(())
    }
}

pub(super) fn sum(of: u64, change: i64) -> Result<u64, StateError> {
    of.checked_add_signed(change).ok_or_else(|| StateError::Damaged("a byte counter does not add up".into()))
}
