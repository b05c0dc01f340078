//! Reads everything and tells which invariants are broken: the filesystem check of the metadata.
//!
//! Each table is read once into memory and compared with the others. What it finds it only tells.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::acl;
use super::error::StateError;
use super::schema::{
    ChunkRef, ChunkState, ChunkTotals, Collection, Condemned, Cookie, Entry, FIRST_COOKIE, Inode, Locks, Record,
    Reserved, Session, Table, Tree, VolumeRef, chunk_at_end, dead_tree_key, number_at, numbers, parse_session_lock_key,
    session_key, unpack, volume_name_key,
};
use super::tx::Tx;
use crate::types::allowance::{Allowance, Taken};
use crate::types::attr::FileKind;
use crate::types::digest::ChunkId;
use crate::types::extent::{self, Extent, Source};
use crate::types::id::{Ino, SessionId, TreeId};
use crate::types::lock::LockSpace;
use crate::types::locking;
use crate::types::name::Name;
use crate::types::volume::{Volume, VolumeUsage};

/// One broken invariant, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

pub(super) fn check(tx: &Tx<'_>) -> Result<Vec<Violation>, StateError> {
    let mut report = Report { found: Vec::new(), references: BTreeMap::new() };
    for (key, tree) in rows::<Tree>(tx, &numbers(Table::Tree, &[]))? {
        let id = TreeId(number_at(&key, 1)?);
        let dead = tx.contains(&dead_tree_key(id))?;
        let files = Namespace::read(tx, id, tree.chunk_bytes, &mut report)?;
        files.count_references(&mut report);
        if !dead {
            files.check(tx, &tree, &mut report)?;
        }
    }
    check_chunks(tx, &mut report)?;
    check_volumes(tx, &mut report)?;
    check_sessions(tx, &mut report)?;
    check_allowances(tx, &mut report)?;
    Ok(report.found)
}

struct Report {
    found: Vec<Violation>,
    /// How often extents refer to each chunk, and the length they tell of it.
    references: BTreeMap<ChunkId, (u64, u32)>,
}

impl Report {
    fn expect(&mut self, holds: bool, sentence: impl FnOnce() -> String) {
        if !holds {
            self.found.push(Violation(sentence()));
        }
    }
}

fn rows<R: Record>(tx: &Tx<'_>, prefix: &[u8]) -> Result<Vec<(Vec<u8>, R)>, StateError> {
    tx.scan_prefix(prefix)
        .map(|pair| {
            let (key, value) = pair?;
            Ok((key, unpack(&value)?))
        })
        .collect()
}

/// What follows tree and inode in a key.
fn suffix(key: &[u8]) -> &[u8] {
    key.get(17..).unwrap_or_default()
}

/// A tree's tables in memory.
struct Namespace {
    tree: TreeId,
    inodes: BTreeMap<Ino, Inode>,
    entries: BTreeMap<(Ino, Name), Entry>,
    cookies: BTreeMap<(Ino, u64), Cookie>,
    blocks: BTreeMap<(Ino, u64), Vec<Extent>>,
    xattrs: BTreeSet<(Ino, Vec<u8>)>,
    orphans: BTreeSet<Ino>,
    locks: Vec<(Ino, LockSpace, Locks)>,
}

impl Namespace {
    fn read(tx: &Tx<'_>, tree: TreeId, chunk_bytes: u32, report: &mut Report) -> Result<Namespace, StateError> {
        let block_bytes = u64::from(chunk_bytes.max(1));
        let of = |table| numbers(table, &[tree.0]);
        let ino = |key: &[u8]| number_at(key, 9).map(Ino);
        let mut files = Namespace {
            tree,
            inodes: BTreeMap::new(),
            entries: BTreeMap::new(),
            cookies: BTreeMap::new(),
            blocks: BTreeMap::new(),
            xattrs: BTreeSet::new(),
            orphans: BTreeSet::new(),
            locks: Vec::new(),
        };
        for (key, inode) in rows(tx, &of(Table::Inode))? {
            files.inodes.insert(ino(&key)?, inode);
        }
        for (key, entry) in rows(tx, &of(Table::Entry))? {
            files.entries.insert((ino(&key)?, Name::new(suffix(&key))?), entry);
        }
        for (key, cookie) in rows(tx, &of(Table::Cookie))? {
            files.cookies.insert((ino(&key)?, number_at(&key, 17)?), cookie);
        }
        for (key, extent) in rows::<Extent>(tx, &of(Table::Extent))? {
            let (ino, offset) = (ino(&key)?, number_at(&key, 17)?);
            report.expect(extent.offset == offset, || format!("inode {ino}: {extent:?} is kept at {offset}"));
            files.blocks.entry((ino, offset / block_bytes)).or_default().push(extent);
        }
        for key in tx.keys(&of(Table::Xattr), usize::MAX)? {
            files.xattrs.insert((ino(&key)?, suffix(&key).to_vec()));
        }
        for key in tx.keys(&of(Table::Orphan), usize::MAX)? {
            files.orphans.insert(ino(&key)?);
        }
        for (key, locks) in rows(tx, &of(Table::Lock))? {
            let space = if key.last() == Some(&0) { LockSpace::Flock } else { LockSpace::Range };
            files.locks.push((ino(&key)?, space, locks));
        }
        Ok(files)
    }

    fn count_references(&self, report: &mut Report) {
        for extent in self.blocks.values().flatten() {
            if let Source::Chunk(part) = &extent.source {
                let (count, bytes) = report.references.entry(part.id).or_insert((0, part.chunk_bytes));
                *count += 1;
                let agrees = *bytes == part.chunk_bytes;
                report.expect(agrees, || format!("chunk {} has two lengths", part.id));
            }
        }
    }

    fn check(&self, tx: &Tx<'_>, tree: &Tree, report: &mut Report) -> Result<(), StateError> {
        self.check_names(report);
        self.check_links(tree, report);
        self.check_blocks(tree, report);
        self.check_xattrs(report);
        self.check_locks(tx, report)?;
        let allocated_bytes = self.inodes.values().map(|inode| inode.attr.allocated_bytes).sum();
        let usage = VolumeUsage { inodes: self.inodes.len() as u64, allocated_bytes };
        report.expect(usage == tree.usage, || format!("tree {} holds {usage:?}, says {:?}", self.tree, tree.usage));
        Ok(())
    }

    fn check_names(&self, report: &mut Report) {
        for ((dir, name), entry) in &self.entries {
            let cookie = self.cookies.get(&(*dir, entry.cookie));
            let agrees = cookie.is_some_and(|c| c.name == *name && c.ino == entry.ino && c.kind == entry.kind);
            report.expect(agrees, || format!("{dir}/{name:?}: its cookie {} says {cookie:?}", entry.cookie));
            let leads = self.inodes.get(&entry.ino).is_some_and(|inode| inode.attr.kind == entry.kind);
            report.expect(leads, || format!("{dir}/{name:?} leads to no such inode: {entry:?}"));
            let holder = self.inodes.get(dir);
            let fits = holder.is_some_and(|dir| {
                dir.is_dir() && dir.attr.nlink > 0 && (FIRST_COOKIE..dir.next_cookie).contains(&entry.cookie)
            });
            report.expect(fits, || format!("{dir}/{name:?} is in no directory that could hold it"));
        }
        report.expect(self.entries.len() == self.cookies.len(), || {
            format!("tree {}: {} names, {} cookies", self.tree, self.entries.len(), self.cookies.len())
        });
    }

    fn check_links(&self, tree: &Tree, report: &mut Report) {
        let mut names: BTreeMap<Ino, u32> = BTreeMap::new();
        let mut subdirs: BTreeMap<Ino, u32> = BTreeMap::new();
        let mut parents: BTreeMap<Ino, Ino> = BTreeMap::from([(Ino::ROOT, Ino::ROOT)]);
        for ((dir, _), entry) in &self.entries {
            *names.entry(entry.ino).or_default() += 1;
            if entry.kind == FileKind::Dir {
                *subdirs.entry(*dir).or_default() += 1;
                parents.insert(entry.ino, *dir);
            }
        }
        for (ino, inode) in &self.inodes {
            let count = names.get(ino).copied().unwrap_or_default();
            let named = count + u32::from(*ino == Ino::ROOT);
            let nlink = match inode.attr.kind {
                FileKind::Dir if named == 0 => 0,
                FileKind::Dir => 2 + subdirs.get(ino).copied().unwrap_or_default(),
                _ => count,
            };
            let said = inode.attr.nlink;
            report.expect(said == nlink, || format!("inode {ino} has {nlink} links, says {said}"));
            report.expect(self.orphans.contains(ino) == (nlink == 0), || format!("inode {ino}: orphan mark is wrong"));
            if inode.is_dir() && named > 0 {
                report.expect(named == 1, || format!("directory {ino} has {named} names"));
                let parent = parents.get(ino);
                report.expect(parent == Some(&inode.parent), || format!("directory {ino}: wrong parent"));
            }
            report.expect(inode.attr.ino == *ino && ino.0 < tree.next_ino, || format!("inode {ino}: wrong number"));
        }
        for ino in self.orphans.iter().filter(|ino| !self.inodes.contains_key(ino)) {
            report.expect(false, || format!("orphan {ino} is no inode"));
        }
    }

    fn check_blocks(&self, tree: &Tree, report: &mut Report) {
        let mut sums: BTreeMap<Ino, (u64, u64)> = BTreeMap::new();
        let block_bytes = u64::from(tree.chunk_bytes);
        for ((ino, block), extents) in &self.blocks {
            let (allocated, inline) = sums.entry(*ino).or_default();
            *allocated += extent::allocated_bytes(extents);
            *inline += extent::inline_bytes(extents);
            let range = block * block_bytes..=(block + 1) * block_bytes;
            let inside = extents.iter().all(|e| range.contains(&e.offset) && range.contains(&e.end()));
            let sound = !extents.is_empty() && inside && extent::is_sound(extents);
            report.expect(sound, || format!("inode {ino} block {block}: unsound extents {extents:?}"));
            let plain = extents.iter().all(|e| !matches!(&e.source, Source::Chunk(part) if part.put_epoch != 0));
            report.expect(plain, || format!("inode {ino} block {block}: a put epoch is kept"));
            let size = self.inodes.get(ino).filter(|i| i.attr.kind == FileKind::File).map(|i| i.attr.size);
            let ends = extents.iter().all(|e| e.source == Source::Unwritten || Some(e.end()) <= size);
            report.expect(ends, || format!("inode {ino} block {block}: data beyond {size:?}"));
        }
        for (ino, inode) in &self.inodes {
            let sum = sums.get(ino).copied().unwrap_or_default();
            let said = (inode.attr.allocated_bytes, inode.inline_bytes);
            report.expect(sum == said, || format!("inode {ino} holds {sum:?} bytes, says {said:?}"));
        }
    }

    fn check_xattrs(&self, report: &mut Report) {
        let mut lists: BTreeMap<Ino, u32> = BTreeMap::new();
        for (ino, name) in &self.xattrs {
            *lists.entry(*ino).or_default() += name.len() as u32 + 1;
            report.expect(self.inodes.contains_key(ino), || format!("an xattr of no inode {ino}"));
        }
        for (ino, inode) in &self.inodes {
            let list = lists.get(ino).copied().unwrap_or_default();
            report.expect(inode.attr.has_xattr == (list > 0), || format!("inode {ino}: wrong mark of xattrs"));
            report.expect(list == inode.xattr_list_bytes, || format!("inode {ino}: xattr list of {list} bytes"));
            let has = |name: &[u8]| self.xattrs.contains(&(*ino, name.to_vec()));
            let marks = (inode.attr.has_acl, inode.has_default_acl);
            report.expect(marks == (has(acl::ACCESS), has(acl::DEFAULT)), || format!("inode {ino}: ACL marks"));
        }
    }

    fn check_locks(&self, tx: &Tx<'_>, report: &mut Report) -> Result<(), StateError> {
        let mut holders = BTreeSet::new();
        for (ino, space, Locks { held }) in &self.locks {
            report.expect(self.inodes.contains_key(ino) && !held.is_empty(), || format!("locks of no inode {ino}"));
            for lock in held {
                let range = lock.range;
                let other = locking::conflict(held, *space, lock.owner, lock.mode, range);
                report.expect(other.is_none() && range.start <= range.end, || format!("{lock:?} against {other:?}"));
                holders.insert((lock.owner.session, *ino, *space));
            }
            let mut owners: Vec<_> = held.iter().map(|lock| (lock.owner, lock.range.start, lock.range.end)).collect();
            owners.sort_unstable();
            let apart = owners.windows(2).all(|pair| pair[0].0 != pair[1].0 || pair[0].2 < pair[1].1);
            report.expect(apart, || format!("inode {ino}: an owner's locks overlap"));
        }
        let mut marks = BTreeSet::new();
        for key in tx.keys(&numbers(Table::SessionLock, &[]), usize::MAX)? {
            let (tree, ino, space) = parse_session_lock_key(&key)?;
            if tree == self.tree {
                marks.insert((SessionId(number_at(&key, 1)?), ino, space));
            }
        }
        report.expect(holders == marks, || format!("locks of {holders:?}, marks of {marks:?}"));
        for (session, ..) in holders {
            report.expect(tx.contains(&session_key(session))?, || format!("locks of no session {session}"));
        }
        Ok(())
    }
}

fn check_chunks(tx: &Tx<'_>, report: &mut Report) -> Result<(), StateError> {
    let mut totals = ChunkTotals::default();
    let mut references = std::mem::take(&mut report.references);
    let (mut releasable, mut condemned) = (BTreeSet::new(), BTreeSet::new());
    for (key, chunk) in rows::<ChunkRef>(tx, &numbers(Table::ChunkRef, &[]))? {
        let id = chunk_at_end(&key)?;
        let (count, bytes) = references.remove(&id).unwrap_or((0, chunk.bytes));
        let agrees = count == chunk.count && bytes == chunk.bytes;
        report.expect(agrees, || format!("chunk {id} has {count} references of {bytes} bytes, says {chunk:?}"));
        totals.chunks += u64::from(!chunk.is_stray());
        totals.chunk_bytes += u64::from(chunk.bytes);
        totals.shared_references += chunk.count.saturating_sub(1);
        report.expect((chunk.state == ChunkState::Live) == (chunk.count > 0), || format!("chunk {id}: {chunk:?}"));
        let is_told = !chunk.is_stray() || matches!(chunk.state, ChunkState::Condemned { .. });
        report.expect(is_told, || format!("chunk {id} has no length: {chunk:?}"));
        match chunk.state {
            ChunkState::Live => {}
            ChunkState::Releasable { since_epoch } => drop(releasable.insert((since_epoch, id))),
            ChunkState::Condemned { epoch } => drop(condemned.insert((epoch, id))),
        }
    }
    report.expect(references.is_empty(), || format!("chunks without an entry: {:?}", references.keys()));
    let said: ChunkTotals = tx.single(Table::ChunkTotals)?;
    report.expect(said == totals, || format!("chunks add up to {totals:?}, said {said:?}"));
    for key in tx.keys(&numbers(Table::Releasable, &[]), usize::MAX)? {
        let mark = (number_at(&key, 1)?, chunk_at_end(&key)?);
        report.expect(releasable.remove(&mark), || format!("a mark of no releasable chunk: {mark:?}"));
    }
    report.expect(releasable.is_empty(), || format!("releasable chunks without a mark: {releasable:?}"));
    let collection: Collection = tx.single(Table::Collection)?;
    for (key, Condemned { chunks, waiting }) in rows(tx, &numbers(Table::Condemned, &[]))? {
        let epoch = number_at(&key, 1)?;
        let fits = epoch <= collection.epoch && !waiting.is_empty();
        report.expect(fits, || format!("batch {epoch} at {collection:?} waits for {waiting:?}"));
        condemned.retain(|(of, id)| *of != epoch || !chunks.contains(id));
    }
    report.expect(condemned.is_empty(), || format!("condemned chunks in no batch: {condemned:?}"));
    Ok(())
}

fn check_volumes(tx: &Tx<'_>, report: &mut Report) -> Result<(), StateError> {
    let volumes = rows::<Volume>(tx, &numbers(Table::Volume, &[]))?;
    for (_, volume) in &volumes {
        let by_name = tx.get::<VolumeRef>(&volume_name_key(&volume.name))?;
        let named = by_name.is_some_and(|by_name| by_name.id == volume.id);
        report.expect(named, || format!("volume {}: its name leads elsewhere", volume.name));
        let tree = tx.tree(volume.tree).ok();
        let owned = tree.is_some_and(|tree| tree.volume == volume.id && tree.chunk_bytes == volume.policy.chunk_bytes);
        report.expect(owned, || format!("volume {}: its tree is {tree:?}", volume.name));
    }
    let names = tx.keys(&numbers(Table::VolumeName, &[]), usize::MAX)?.len();
    let trees = tx.keys(&numbers(Table::Tree, &[]), usize::MAX)?.len();
    let dead = tx.keys(&numbers(Table::DeadTree, &[]), usize::MAX)?.len();
    let agrees = names == volumes.len() && trees == volumes.len() + dead;
    report.expect(agrees, || format!("{} volumes, {names} names, {trees} trees, {dead} dead", volumes.len()));
    Ok(())
}

fn check_allowances(tx: &Tx<'_>, report: &mut Report) -> Result<(), StateError> {
    let mut promised: BTreeMap<TreeId, Allowance> = BTreeMap::new();
    for (key, reserved) in rows::<Reserved>(tx, &numbers(Table::Reserved, &[]))? {
        let session: Option<Session> = tx.get(&session_key(SessionId(number_at(&key, 1)?)))?;
        report.expect(session.is_some(), || format!("{reserved:?} of no session"));
        let sum = session.map(|session| promised.entry(session.tree).or_default());
        sum.into_iter().for_each(|sum| *sum = sum.plus(reserved.allowance));
    }
    for (_, volume) in rows::<Volume>(tx, &numbers(Table::Volume, &[]))? {
        let Ok(Tree { usage, promised: said, .. }) = tx.tree(volume.tree) else { continue };
        let sum = promised.remove(&volume.tree).unwrap_or_default();
        report.expect(said == sum, || format!("volume {} has promised {sum:?}, says {said:?}", volume.name));
        let kept = Taken { usage, promised: said }.leaves(Allowance::default(), &volume.policy);
        report.expect(kept, || format!("volume {} holds {usage:?} and has promised {said:?}", volume.name));
    }
    report.expect(promised.is_empty(), || format!("promises of no volume: {promised:?}"));
    Ok(())
}

fn check_sessions(tx: &Tx<'_>, report: &mut Report) -> Result<(), StateError> {
    let mut sessions = BTreeSet::new();
    for (key, session) in rows::<Session>(tx, &numbers(Table::Session, &[]))? {
        sessions.insert(number_at(&key, 1)?);
        let volume = tx.volume(session.volume).ok();
        report.expect(volume.is_some_and(|v| v.tree == session.tree), || format!("session {session:?}: no volume"));
    }
    for table in [Table::Window, Table::Reply, Table::SessionLock] {
        for key in tx.keys(&numbers(table, &[]), usize::MAX)? {
            let session = number_at(&key, 1)?;
            report.expect(sessions.contains(&session), || format!("{table:?} of no session {session}"));
        }
    }
    Ok(())
}
