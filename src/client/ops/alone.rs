//! Changes made here, by a client that has Write leases on everything they concern and knows what the leader would say.
//!
//! Each does to the cached state what the state machine will do to the replicated one, with the same attributes
//! ([`crate::types::effect`]), appends itself to the journal, and is done. Nothing waits, and nothing is asked. `None`: it
//! cannot be done here, for want of a lease or of knowledge; the leader does it ([`super::names`], [`super::attrs`]).
//!
//! All states concerned are locked together, the record is appended under those locks, and the locks of the journal and of
//! the numbers are taken inside and outside of them, respectively.

use std::sync::Arc;

use crate::client::api::Result;
use crate::client::core::Core;
use crate::client::inode::{Locked, Node, State, lock_all};
use crate::client::journal::Change;
use crate::client::names::Names;
use crate::client::ops::attrs::{XATTR_KEPT_BYTES_MAX, XATTRS_MAX};
use crate::client::ops::write::{CAPABILITY, forget_capability};
use crate::client::siblings::Place;
use crate::types::attr::{Attr, FileKind, SetAttr, Time};
use crate::types::error::FsError;
use crate::types::id::Ino;
use crate::types::limits::{INLINE_FILE_BYTES_MAX, JOURNAL_DATA_BYTES_MAX, LINKS_MAX, XATTR_LIST_BYTES_MAX};
use crate::types::name::Name;
use crate::types::op::{Create, NewNode, Op, RenameMode, XattrMode};
use crate::types::xattr::{check_kind, check_name};

/// Blocks of the largest file that is emptied here, and of the longest range that is copied: hundreds of them go into one
/// command, and everything waits for it.
const BLOCKS_MAX: u64 = 16;

type Entry<'a> = (Ino, &'a Name);

impl Core {
    /// Nothing in general stands against changes made here.
    pub fn may_act_alone(&self) -> bool {
        !self.read_only && self.space_is_ample(0) && !self.journal.is_full() && self.may_note_changes()
    }

    /// Locks all of these if each is ours.
    fn lock_ours<'a>(&self, nodes: &[&'a Node]) -> Option<Locked<'a>> {
        let mut locked = lock_all(nodes);
        let ours = locked.iter_mut().all(|state| state.is_ours(&self.life));
        ours.then_some(locked)
    }

    pub fn create_alone(self: &Arc<Self>, create: &Create) -> Option<Result<Attr>> {
        let dir = self.nodes.find(create.dir)?;
        if !self.may_act_alone() {
            return None;
        }
        let adding = self.quota.add_inode()?;
        let mut numbers = self.numbers.lock();
        let ino = numbers.next()?;
        let node = self.nodes.node(ino);
        let mut locked = lock_all(&[&dir, &node]);
        let parent = locked.of(create.dir)?;
        if !parent.is_ours(&self.life) || !parent.dir.can_grow() {
            return None;
        }
        match parent.dir.entry(&create.name)? {
            None => {}
            Some(_) if create.exclusive => return Some(Err(FsError::Exists)),
            Some(_) => return None,
        }
        let on_dir = parent.base().filter(|attr| attr.nlink > 0)?;
        let at = self.clock.now().max(on_dir.ctime);
        let mut attr = match on_dir.child(create, ino, at) {
            Ok(attr) => attr,
            Err(error) => return Some(Err(error)),
        };
        attr.mask(create.umask);
        change_attr(parent, |attr| attr.gain_entry(create.node.kind(), at));
        let cookie = parent.dir.add(&create.name, ino, attr.kind);
        let made = locked.of(ino)?;
        made.place = Some(Place { dir: create.dir, cookie });
        made.made_here(attr.clone());
        match &create.node {
            NewNode::Dir => made.dir = Names::fresh(create.dir),
            NewNode::Symlink(target) => made.target = Some(target.clone()),
            _ => {}
        }
        let op = Op::Create(Create { ino: Some(ino), exclusive: true, ..create.clone() });
        self.append_all(at, op, &[&dir, &node], locked);
        numbers.advance();
        adding.keep();
        Some(Ok(attr))
    }

    pub fn link_alone(self: &Arc<Self>, ino: Ino, dir: Ino, name: &Name) -> Option<Result<Attr>> {
        let (node, parent) = (self.nodes.find(ino)?, self.nodes.find(dir)?);
        let mut locked = self.may_act_alone().then(|| self.lock_ours(&[&node, &parent]))??;
        if !locked.of(dir)?.dir.can_grow() || locked.of(dir)?.base()?.nlink == 0 {
            return None;
        }
        if locked.of(dir)?.dir.entry(name)?.is_some() {
            return Some(Err(FsError::Exists));
        }
        let state = locked.of(ino)?;
        let kind = state.base()?.kind;
        let linkable = kind != FileKind::Dir && (1..LINKS_MAX).contains(&state.base()?.nlink);
        if !linkable || !self.seal(&node, state, JOURNAL_DATA_BYTES_MAX) {
            return None;
        }
        let at = self.time_of(&mut locked);
        change_attr(locked.of(ino)?, |attr| attr.gain_link(at));
        let attr = locked.of(ino)?.visible()?;
        let parent_state = locked.of(dir)?;
        change_attr(parent_state, |attr| attr.gain_entry(kind, at));
        parent_state.dir.add(name, ino, kind);
        self.append_all(at, Op::Link { ino, dir, name: name.clone() }, &[&node, &parent], locked);
        Some(Ok(attr))
    }

    pub fn remove_alone(self: &Arc<Self>, dir: Ino, name: &Name, is_dir: bool) -> Option<Result<()>> {
        let parent = self.nodes.find(dir)?;
        let ino = parent.lock().dir.entry(name)??;
        let node = self.nodes.find(ino)?;
        let mut locked = self.may_act_alone().then(|| self.lock_ours(&[&node, &parent]))??;
        if locked.of(dir)?.dir.entry(name)? != Some(ino) {
            return None;
        }
        let state = locked.of(ino)?;
        let kind = state.base()?.kind;
        match (is_dir, kind) {
            (false, FileKind::Dir) => return Some(Err(FsError::IsDirectory)),
            (true, FileKind::Dir) if !state.dir.is_empty()? => return Some(Err(FsError::NotEmpty)),
            (true, FileKind::Dir) | (false, _) => {}
            (true, _) => return Some(Err(FsError::NotDirectory)),
        }
        let at = self.time_of(&mut locked);
        self.lose_link(locked.of(ino)?, at);
        let state = locked.of(dir)?;
        change_attr(state, |attr| attr.lose_entry(kind, at));
        state.dir.remove(name);
        let name = name.clone();
        let op = if is_dir { Op::Rmdir { dir, name } } else { Op::Unlink { dir, name } };
        self.append_all(at, op, &[&node, &parent], locked);
        Some(Ok(()))
    }

    /// A directory is not moved to another one here: whether it would lie within itself is the leader's to say.
    pub fn rename_alone(self: &Arc<Self>, from: Entry<'_>, to: Entry<'_>, mode: RenameMode) -> Option<Result<()>> {
        let (from_dir, to_dir) = (self.nodes.find(from.0)?, self.nodes.find(to.0)?);
        let moved = from_dir.lock().dir.entry(from.1)??;
        let target = to_dir.lock().dir.entry(to.1)?;
        let moved_node = self.nodes.find(moved)?;
        let target_node = match target {
            Some(target) => Some(self.nodes.find(target)?),
            None => None,
        };
        let mut nodes = vec![&from_dir, &to_dir, &moved_node];
        nodes.extend(target_node.as_ref());
        nodes.sort_by_key(|node| node.ino);
        nodes.dedup_by_key(|node| node.ino);
        let plain: Vec<&Node> = nodes.iter().map(|node| &***node).collect();
        let mut locked = self.may_act_alone().then(|| self.lock_ours(&plain))??;
        let still = locked.of(from.0)?.dir.entry(from.1)? == Some(moved) && locked.of(to.0)?.dir.entry(to.1)? == target;
        if !still || locked.of(to.0)?.base()?.nlink == 0 {
            return None;
        }
        let kind = locked.of(moved)?.base()?.kind;
        if kind == FileKind::Dir && from.0 != to.0 {
            return None;
        }
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => return Some(Err(FsError::Exists)),
            (RenameMode::Exchange, None) => return Some(Err(FsError::NotFound)),
            // Rare, and the leader knows how.
            (RenameMode::Exchange, Some(_)) => return None,
            (_, Some(target)) if target == moved => return Some(Ok(())),
            (_, None) if !locked.of(to.0)?.dir.can_grow() => return None,
            _ => {}
        }
        if let Some(target) = target {
            let state = locked.of(target)?;
            match (kind == FileKind::Dir, state.base()?.kind == FileKind::Dir) {
                (true, false) => return Some(Err(FsError::NotDirectory)),
                (false, true) => return Some(Err(FsError::IsDirectory)),
                (true, true) if !state.dir.is_empty()? => return Some(Err(FsError::NotEmpty)),
                _ => {}
            }
        }
        if !self.seal(&moved_node, locked.of(moved)?, JOURNAL_DATA_BYTES_MAX) {
            return None;
        }
        let at = self.time_of(&mut locked);
        let source = locked.of(from.0)?;
        change_attr(source, |attr| attr.lose_entry(kind, at));
        source.dir.remove(from.1);
        match target {
            Some(target) => {
                let old = locked.of(target)?.base()?.kind;
                let state = locked.of(to.0)?;
                change_attr(state, |attr| attr.turn_entry(old, kind, at));
                state.dir.turn(to.1, moved, kind);
                self.lose_link(locked.of(target)?, at);
            }
            None => {
                let state = locked.of(to.0)?;
                change_attr(state, |attr| attr.gain_entry(kind, at));
                let cookie = state.dir.add(to.1, moved, kind);
                locked.of(moved)?.place = Some(Place { dir: to.0, cookie });
            }
        }
        change_attr(locked.of(moved)?, |attr| attr.changed(at));
        let (from_name, to_name) = (from.1.clone(), to.1.clone());
        let op = Op::Rename { from_dir: from.0, from: from_name, to_dir: to.0, to: to_name, mode };
        self.append_all(at, op, &nodes, locked);
        Some(Ok(()))
    }

    /// Of a size nothing but zero is set here: what the last block of a longer file comes to is the leader's to say.
    pub fn set_attr_alone(self: &Arc<Self>, ino: Ino, set: &SetAttr) -> Option<Result<Attr>> {
        let node = self.nodes.find(ino)?;
        if set.size.is_some_and(|size| size > 0) || !self.may_act_alone() {
            return None;
        }
        let mut locked = self.lock_ours(&[&node])?;
        let state = locked.of(ino)?;
        if set.size.is_some() && !self.empty(state) {
            return None;
        }
        if !self.seal(&node, state, JOURNAL_DATA_BYTES_MAX) {
            return None;
        }
        let at = self.clock.now().max(state.base()?.ctime);
        let mut attr = state.base()?.clone();
        if set.size.is_some() {
            (attr.size, attr.allocated_bytes, attr.mtime) = (0, 0, at);
        }
        if let Err(error) = attr.set(set, at) {
            return Some(Err(error));
        }
        change_attr(state, |old| *old = attr);
        state.forget_followers();
        state.xattr_names = None;
        if set.atime.is_some() {
            state.access = None;
        }
        if set.mtime.is_some() {
            state.mtime = None;
        }
        let attr = state.visible()?;
        self.append_all(at, Op::SetAttr { ino, set: set.clone() }, &[&node], locked);
        Some(Ok(attr))
    }

    pub fn set_xattr_alone(
        self: &Arc<Self>,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
    ) -> Option<Result<()>> {
        let node = self.nodes.find(ino)?;
        let mut locked = self.may_act_alone().then(|| self.lock_ours(&[&node]))??;
        let state = locked.of(ino)?;
        let mut names = known_names(state, name)?;
        let exists = names.iter().any(|known| known == name);
        match mode {
            XattrMode::Create if exists => return Some(Err(FsError::Exists)),
            XattrMode::Replace if !exists => return Some(Err(FsError::NoAttribute)),
            _ => {}
        }
        if !exists {
            names.push(name.to_vec());
        }
        let list_bytes: usize = names.iter().map(|name| name.len() + 1).sum();
        let fits = names.len() <= XATTRS_MAX && list_bytes <= XATTR_LIST_BYTES_MAX;
        if !fits || value.len() > XATTR_KEPT_BYTES_MAX || !self.seal(&node, state, JOURNAL_DATA_BYTES_MAX) {
            return None;
        }
        let at = self.time_of(&mut locked);
        let state = locked.of(ino)?;
        change_xattrs(state, names, at);
        state.xattrs.insert(name.to_vec(), Some(value.to_vec()));
        let op = Op::SetXattr { ino, name: name.to_vec(), value: value.to_vec(), mode };
        self.append_all(at, op, &[&node], locked);
        Some(Ok(()))
    }

    pub fn remove_xattr_alone(self: &Arc<Self>, ino: Ino, name: &[u8]) -> Option<Result<()>> {
        let node = self.nodes.find(ino)?;
        let mut locked = self.may_act_alone().then(|| self.lock_ours(&[&node]))??;
        let state = locked.of(ino)?;
        let mut names = known_names(state, name)?;
        let before = names.len();
        names.retain(|known| known != name);
        if names.len() == before {
            return Some(Err(FsError::NoAttribute));
        }
        if !self.seal(&node, state, JOURNAL_DATA_BYTES_MAX) {
            return None;
        }
        let at = self.time_of(&mut locked);
        let state = locked.of(ino)?;
        change_xattrs(state, names, at);
        state.xattrs.insert(name.to_vec(), None);
        self.append_all(at, Op::RemoveXattr { ino, name: name.to_vec() }, &[&node], locked);
        Some(Ok(()))
    }

    /// Drops what a file holds, before its size is set to zero. `false`: not here.
    fn empty(&self, state: &mut State) -> bool {
        let small = |attr: &Attr| attr.kind == FileKind::File && attr.size <= BLOCKS_MAX * self.block_bytes;
        if !state.base().is_some_and(small) || state.dirty.has_frozen() {
            return false;
        }
        self.memory.give(state.dirty.drop_fresh());
        state.dirty_since = None;
        state.mtime = None;
        state.clear_privileges = false;
        state.extents.set_empty();
        state.pieces.clear();
        state.inline_full = false;
        true
    }

    /// Shares a range with another file that is ours, whole blocks at its end: nothing stands against that. Answers how many
    /// bytes.
    pub fn copy_alone(self: &Arc<Self>, from: (Ino, u64), to: (Ino, u64), len: u64) -> Option<Result<u64>> {
        let (source, target) = (self.nodes.find(from.0)?, self.nodes.find(to.0)?);
        if from.0 == to.0 || !self.may_act_alone() {
            return None;
        }
        let mut locked = lock_all(&[&source, &target]);
        let state = locked.of(from.0)?;
        let readable = state.leased(&self.life) && state.held.may_ask() && !state.is_changing();
        let size = state.size().filter(|_| readable && state.base().is_some_and(|attr| attr.kind == FileKind::File))?;
        let clean =
            state.dirty.is_empty() || (state.is_ours(&self.life) && self.seal(&source, state, JOURNAL_DATA_BYTES_MAX));
        if !clean {
            return None;
        }
        let len = len.min(size.saturating_sub(from.1)).min(BLOCKS_MAX * self.block_bytes);
        if len == 0 {
            return Some(Ok(0));
        }
        // So short that it can be inline in the source without being too much for the target.
        let end = to.1.checked_add(len).filter(|end| *end <= INLINE_FILE_BYTES_MAX / 2)?;
        let adding = self.quota.add_bytes(len);
        if !self.space_is_ample(0) || !self.space.is_ample(self.memory.dirty_bytes() + len) {
            return None;
        }
        let state = locked.of(to.0)?;
        let aligned = from.1.is_multiple_of(self.block_bytes) && to.1.is_multiple_of(self.block_bytes);
        let at_end = |attr: &Attr| attr.kind == FileKind::File && attr.size <= to.1;
        let fits = aligned && state.dirty.is_empty() && state.base().is_some_and(at_end);
        if !fits || !state.is_ours(&self.life) {
            return None;
        }
        let at = self.time_of(&mut locked);
        let state = locked.of(to.0)?;
        state.mtime = None;
        change_attr(state, |attr| {
            attr.size = attr.size.max(end);
            // Until the answer tells how much.
            attr.allocated_bytes += len.next_multiple_of(512);
            attr.modified(at);
        });
        state.extents.forget();
        forget_capability(state);
        self.space.sent(len);
        adding.keep();
        let op = Op::CopyRange { from: from.0, from_offset: from.1, to: to.0, to_offset: to.1, len };
        self.append_all(at, op, &[&source, &target], locked);
        Some(Ok(len))
    }

    /// A moment that is not before anything that happened to these.
    fn time_of(&self, locked: &mut Locked<'_>) -> Time {
        let newest = locked.iter_mut().filter_map(|state| state.base().map(|attr| attr.ctime)).max();
        self.clock.now().max(newest.unwrap_or_default())
    }

    /// A name is gone. With the last one go bytes that nobody can read any more.
    fn lose_link(&self, state: &mut State, at: Time) {
        change_attr(state, |attr| attr.lose_link(at));
        let gone = state.base().is_some_and(|attr| attr.nlink == 0);
        if gone && state.opens == 0 {
            self.memory.give(state.dirty.drop_fresh());
            state.dirty_since = None;
            state.mtime = None;
            state.clear_privileges = false;
        }
    }

    /// Appends the change to the journal, and counts it with everything it concerns.
    fn append_all(&self, at: Time, op: Op, nodes: &[&Arc<Node>], mut locked: Locked<'_>) {
        let mut nodes = nodes.to_vec();
        nodes.sort_by_key(|node| node.ino);
        nodes.dedup_by_key(|node| node.ino);
        let mut states: Vec<&mut State> = locked.iter_mut().collect();
        self.append(at, Change::Op(op), &nodes, &mut states);
    }
}

/// The names of all extended attributes, if they are known, and if changing this one does nothing else.
fn known_names(state: &State, name: &[u8]) -> Option<Vec<Vec<u8>>> {
    let attr = state.base()?;
    let plain = check_name(name).and_then(|()| check_kind(attr.kind, name)).is_ok() && name != CAPABILITY;
    if !plain {
        return None;
    }
    if attr.has_xattr { state.xattr_names.clone() } else { Some(Vec::new()) }
}

fn change_xattrs(state: &mut State, names: Vec<Vec<u8>>, at: Time) {
    change_attr(state, |attr| {
        attr.has_xattr = !names.is_empty();
        attr.changed(at);
    });
    state.xattr_names = Some(names);
}

fn change_attr(state: &mut State, change: impl FnOnce(&mut Attr)) {
    if let Some(attr) = state.change_here() {
        change(attr);
    }
    state.changed_here();
}
