//! Reading the state: every question the service asks, answered from one consistent moment.
//!
//! Changes nothing. Whether the caller may ask, and whether this replica is new enough, was decided before.

use super::edit::FileMap;
use super::error::StateError;
use super::schema::{
    self, ChunkTotals, Collection, Condemned, Cookie, Credential, Inode, Locks, Reserved, Session, Table, Token, Tree,
    VolumeRef, Xattr, chunk_at_end, number_at, numbers, unpack,
};
use super::tx::Tx;
use crate::kv::Kv;
use crate::types::allowance::{Allowance, Taken};
use crate::types::api_key::ApiKey;
use crate::types::attr::{Attr, FileKind};
use crate::types::cluster::ClusterMap;
use crate::types::digest::ChunkId;
use crate::types::error::FsError;
use crate::types::extent::{self, Extent, Source};
use crate::types::id::{Ino, SessionId, StoreId, TreeId, VolumeId};
use crate::types::limits::{EXTENT_BLOCKS_MAX, EXTENTS_BYTES_SOFT_MAX};
use crate::types::lock::{Lock, LockOwner, LockRequest, LockSpace, OwnLock};
use crate::types::locking;
use crate::types::name::Name;
use crate::types::record::{MetaInfo, Role};
use crate::types::session::{DirEntry, DirPage};
use crate::types::volume::{Volume, VolumeUsage};
use crate::wire::meta::DeleteBatch;

/// What an extent takes in a reply, but for the bytes in it.
const EXTENT_COST_BYTES: usize = 80;

/// A part of a file's extents.
#[derive(Debug)]
pub struct Extents {
    pub attr: Attr,
    pub extents: Vec<Extent>,
    /// The bytes from the offset asked for that `extents` speak for.
    pub covered: u64,
}

/// A search for the first data (or hole) at or after an offset. It may take several looks: a large file has more blocks
/// than may be gone through while commands wait.
#[derive(Clone, Copy, Debug)]
pub struct Seek {
    offset: u64,
    hole: bool,
    /// How far it has come.
    at: u64,
}

impl Seek {
    pub fn new(offset: u64, hole: bool) -> Seek {
        Seek { offset, hole, at: offset }
    }
}

/// The state at one moment. Errors that are answers come as [`StateError::Fs`].
pub struct View<'kv> {
    tx: Tx<'kv>,
}

impl<'kv> View<'kv> {
    pub(super) fn new(kv: &'kv dyn Kv) -> View<'kv> {
        View { tx: Tx::new(kv) }
    }

    /// # Errors
    /// `SessionExpired` for one that is not (any more).
    pub fn session(&self, session: SessionId) -> Result<Session, StateError> {
        self.tx.session(session)
    }

    pub fn sessions(&self) -> Result<Vec<Session>, StateError> {
        self.all(&numbers(Table::Session, &[]))
    }

    /// # Errors
    /// `NotFound`.
    pub fn volume(&self, id: VolumeId) -> Result<Volume, StateError> {
        self.tx.volume(id)
    }

    pub fn volume_by_name(&self, name: &str) -> Result<Option<Volume>, StateError> {
        match self.tx.get::<VolumeRef>(&schema::volume_name_key(name))? {
            Some(VolumeRef { id }) => self.tx.volume(id).map(Some),
            None => Ok(None),
        }
    }

    pub fn volumes(&self) -> Result<Vec<(Volume, VolumeUsage)>, StateError> {
        let volumes = self.all::<Volume>(&numbers(Table::Volume, &[]))?;
        volumes
            .into_iter()
            .map(|volume| {
                let usage = self.usage(volume.tree)?;
                Ok((volume, usage))
            })
            .collect()
    }

    /// # Errors
    /// `NotFound` for an unknown tree.
    pub fn usage(&self, tree: TreeId) -> Result<VolumeUsage, StateError> {
        Ok(self.tx.tree(tree)?.usage)
    }

    /// # Errors
    /// `NotFound`, `NotDirectory`.
    pub fn lookup(&self, tree: TreeId, dir: Ino, name: &Name) -> Result<Attr, StateError> {
        name.check()?;
        match self.tx.entry(tree, dir, name)? {
            Some(entry) => self.attr(tree, entry.ino),
            None => {
                self.tx.dir(tree, dir)?;
                Err(FsError::NotFound.into())
            }
        }
    }

    /// `..` of a directory; the root is its own.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`.
    pub fn parent(&self, tree: TreeId, dir: Ino) -> Result<Attr, StateError> {
        let parent = self.tx.dir(tree, dir)?.parent;
        self.attr(tree, parent)
    }

    /// # Errors
    /// `NotFound`.
    pub fn attr(&self, tree: TreeId, ino: Ino) -> Result<Attr, StateError> {
        Ok(self.tx.inode(tree, ino)?.attr)
    }

    /// # Errors
    /// `NotFound`; `Invalid` for anything but a symlink.
    pub fn read_link(&self, tree: TreeId, ino: Ino) -> Result<Vec<u8>, StateError> {
        let inode = self.tx.inode(tree, ino)?;
        if inode.attr.kind != FileKind::Symlink {
            return Err(FsError::Invalid.into());
        }
        Ok(inode.target)
    }

    /// At most `max` entries after a cookie (0: from the first), in cookie order.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`.
    pub fn read_dir(&self, tree: TreeId, dir: Ino, after: u64, max: usize) -> Result<DirPage, StateError> {
        let Inode { attr, next_cookie, has_default_acl, .. } = self.tx.dir(tree, dir)?;
        let mut page = DirPage { dir: attr, has_default_acl, entries: Vec::new(), end: true, next_cookie };
        let Some(first) = after.checked_add(1) else { return Ok(page) };
        let from = schema::cookie_key(tree, dir, first);
        let to = super::tx::prefix_end(&numbers(Table::Cookie, &[tree.0, dir.0]));
        for pair in self.tx.scan(&from, to.as_deref()) {
            let (key, value) = pair?;
            if page.entries.len() == max {
                page.end = false;
                break;
            }
            let Cookie { name, ino, kind } = unpack(&value)?;
            page.entries.push(DirEntry { name, ino, kind, cookie: number_at(&key, 17)?, attr: None });
        }
        Ok(page)
    }

    /// # Errors
    /// `NotFound`; `NoAttribute`.
    pub fn xattr(&self, tree: TreeId, ino: Ino, name: &[u8]) -> Result<Vec<u8>, StateError> {
        match self.tx.get::<Xattr>(&schema::xattr_key(tree, ino, name))? {
            Some(xattr) => Ok(xattr.value),
            None => {
                self.tx.inode(tree, ino)?;
                Err(FsError::NoAttribute.into())
            }
        }
    }

    /// # Errors
    /// `NotFound`.
    pub fn xattr_names(&self, tree: TreeId, ino: Ino) -> Result<Vec<Vec<u8>>, StateError> {
        if self.tx.inode(tree, ino)?.xattr_list_bytes == 0 {
            return Ok(Vec::new());
        }
        let prefix = numbers(Table::Xattr, &[tree.0, ino.0]);
        let keys = self.tx.keys(&prefix, usize::MAX)?;
        Ok(keys.into_iter().map(|key| key[prefix.len()..].to_vec()).collect())
    }

    /// The attributes, and the extents of the whole blocks that `offset..offset + len` touches (at most
    /// `EXTENT_BLOCKS_MAX` blocks from the first).
    ///
    /// # Errors
    /// `NotFound`; `IsDirectory` or `Invalid` for what has no data.
    pub fn extents(&self, tree: TreeId, ino: Ino, offset: u64, len: u64) -> Result<Extents, StateError> {
        let inode = self.tx.file(tree, ino)?;
        let mut found = Extents { attr: inode.attr, extents: Vec::new(), covered: len };
        if found.attr.allocated_bytes == 0 || len == 0 {
            return Ok(found);
        }
        let map = self.file_map(tree, ino)?;
        let first = map.block_of(offset);
        let last = map.block_of(offset.saturating_add(len - 1)).min(first + (EXTENT_BLOCKS_MAX - 1));
        let (start, mut end) = (map.bounds(first).0, map.bounds(last).1);
        let (mut newest, mut bytes) = (first, 0);
        for extent in map.scan(&self.tx, start, end)? {
            let extent = extent?;
            let block = map.block_of(extent.offset);
            if block > newest && bytes > EXTENTS_BYTES_SOFT_MAX && block > first + 1 {
                end = map.bounds(block).0;
                break;
            }
            newest = block;
            bytes += EXTENT_COST_BYTES + extent::inline_bytes(std::slice::from_ref(&extent)) as usize;
            found.extents.push(extent);
        }
        found.covered = len.min(end - offset);
        Ok(found)
    }

    /// The session that has this number for an inode and has not used it, as far as is known here.
    ///
    /// # Errors
    /// The index failed.
    pub fn maker_of(&self, tree: TreeId, ino: Ino) -> Result<Option<SessionId>, StateError> {
        if self.tx.contains(&schema::inode_key(tree, ino))? {
            return Ok(None);
        }
        for pair in self.tx.scan_prefix(&numbers(Table::Reserved, &[])) {
            let (key, value) = pair?;
            let Reserved { ranges, .. } = unpack(&value)?;
            let session = SessionId(number_at(&key, 1)?);
            let holds = ranges.iter().any(|(first, end)| (*first..*end).contains(&ino.0));
            if holds && self.tx.session(session)?.tree == tree {
                return Ok(Some(session));
            }
        }
        Ok(None)
    }

    /// Inode numbers that a session may use: from, and up to but not including.
    ///
    /// # Errors
    /// The index failed.
    pub fn reserved(&self, session: SessionId) -> Result<Vec<(u64, u64)>, StateError> {
        let reserved: Option<Reserved> = self.tx.get(&schema::reserved_key(session))?;
        Ok(reserved.unwrap_or_default().ranges)
    }

    /// What cannot be had of a tree's quotas.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn taken(&self, tree: TreeId) -> Result<Taken, StateError> {
        let Tree { usage, promised, .. } = self.tx.tree(tree)?;
        Ok(Taken { usage, promised })
    }

    /// The sessions that something of a tree's quotas is set aside for.
    ///
    /// # Errors
    /// The index failed.
    pub fn promised_to(&self, tree: TreeId) -> Result<Vec<SessionId>, StateError> {
        let mut sessions = Vec::new();
        for pair in self.tx.scan_prefix(&numbers(Table::Reserved, &[])) {
            let (key, value) = pair?;
            let Reserved { allowance, .. } = unpack(&value)?;
            let session = SessionId(number_at(&key, 1)?);
            if !allowance.is_none() && self.tx.session(session)?.tree == tree {
                sessions.push(session);
            }
        }
        Ok(sessions)
    }

    /// What is set aside for a session of its volume's quotas.
    ///
    /// # Errors
    /// The index failed.
    pub fn allowance(&self, session: SessionId) -> Result<Allowance, StateError> {
        let reserved: Option<Reserved> = self.tx.get(&schema::reserved_key(session))?;
        Ok(reserved.unwrap_or_default().allowance)
    }

    /// The reply to this change is remembered.
    ///
    /// # Errors
    /// The index failed.
    pub fn has_answered(&self, session: SessionId, sequence: u64) -> Result<bool, StateError> {
        self.tx.contains(&schema::reply_key(session, sequence))
    }

    /// The numbers of at most `max` blocks that hold something, from `first` to `last`.
    ///
    /// # Errors
    /// The index failed.
    pub fn blocks(&self, tree: TreeId, ino: Ino, first: u64, last: u64, max: usize) -> Result<Vec<u64>, StateError> {
        let map = self.file_map(tree, ino)?;
        let (mut blocks, mut from, to) = (Vec::new(), map.bounds(first).0, map.bounds(last).1);
        loop {
            let before = blocks.len();
            for extent in map.scan_from(&self.tx, from, to) {
                let block = map.block_of(extent?.offset);
                if blocks.last() == Some(&block) {
                    // There may be thousands: go on behind them.
                    break;
                }
                if blocks.len() == max {
                    return Ok(blocks);
                }
                blocks.push(block);
                from = map.bounds(block).1;
            }
            if blocks.len() == before {
                return Ok(blocks);
            }
        }
    }

    fn file_map(&self, tree: TreeId, ino: Ino) -> Result<FileMap, StateError> {
        Ok(FileMap { tree, ino, block_bytes: self.chunk_bytes(tree)? })
    }

    /// The size of a block of this tree's files.
    ///
    /// # Errors
    /// The tree is not there.
    pub fn chunk_bytes(&self, tree: TreeId) -> Result<u64, StateError> {
        Ok(u64::from(self.tx.tree(tree)?.chunk_bytes.max(1)))
    }

    /// Goes on with a search, over at most `max` extents; `None`: there are more. The end of file counts as a hole;
    /// unwritten space is one.
    ///
    /// # Errors
    /// `NoSuchAddress` when the search began at or beyond the end of file, and when there is no data up to it.
    pub fn seek(&self, tree: TreeId, ino: Ino, seek: &mut Seek, max: usize) -> Result<Option<u64>, StateError> {
        let Inode { attr, .. } = self.tx.file(tree, ino)?;
        if seek.offset >= attr.size {
            return Err(FsError::NoSuchAddress.into());
        }
        let extents = self.file_map(tree, ino)?.scan(&self.tx, seek.at, attr.size)?;
        let mut count = 0;
        for extent in extents {
            let extent = extent?;
            if extent.end() <= seek.at {
                continue;
            }
            if seek.hole && extent.offset > seek.at {
                return Ok(Some(seek.at));
            }
            if count == max {
                seek.at = seek.at.max(extent.offset);
                return Ok(None);
            }
            count += 1;
            if extent.source == Source::Unwritten {
                if seek.hole {
                    return Ok(Some(seek.at));
                }
                continue;
            }
            if !seek.hole {
                return Ok(Some(seek.at.max(extent.offset)));
            }
            seek.at = extent.end();
        }
        if seek.hole { Ok(Some(seek.at.min(attr.size))) } else { Err(FsError::NoSuchAddress.into()) }
    }

    /// The lock that stands in the way of a request, if any.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn test_lock(&self, tree: TreeId, session: SessionId, ask: &LockRequest) -> Result<Option<Lock>, StateError> {
        self.tx.inode(tree, ask.ino)?;
        let locks: Locks = self.tx.get(&schema::lock_key(tree, ask.ino, ask.space))?.unwrap_or_default();
        let owner = LockOwner { session, owner: ask.owner };
        Ok(ask.mode.and_then(|mode| locking::conflict(&locks.held, ask.space, owner, mode, ask.range)).copied())
    }

    /// The locks that a session holds on an inode; `None` when another holds some.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn own_locks(&self, tree: TreeId, session: SessionId, ino: Ino) -> Result<Option<Vec<OwnLock>>, StateError> {
        self.tx.inode(tree, ino)?;
        let mut own = Vec::new();
        for space in [LockSpace::Flock, LockSpace::Range] {
            let locks: Locks = self.tx.get(&schema::lock_key(tree, ino, space))?.unwrap_or_default();
            if locks.held.iter().any(|lock| lock.owner.session != session) {
                return Ok(None);
            }
            let of = |Lock { owner, mode, range, pid }| OwnLock { space, owner: owner.owner, mode, range, pid };
            own.extend(locks.held.into_iter().map(of));
        }
        Ok(Some(own))
    }

    /// The owners of all locks that stand in the way of a request.
    pub fn lock_holders(
        &self,
        tree: TreeId,
        session: SessionId,
        ask: &LockRequest,
    ) -> Result<Vec<LockOwner>, StateError> {
        let Some(mode) = ask.mode else { return Ok(Vec::new()) };
        let locks: Locks = self.tx.get(&schema::lock_key(tree, ask.ino, ask.space))?.unwrap_or_default();
        let owner = LockOwner { session, owner: ask.owner };
        Ok(locking::conflicts(&locks.held, ask.space, owner, mode, ask.range).map(|lock| lock.owner).collect())
    }

    /// Whether any lock is held on an inode.
    pub fn is_locked(&self, tree: TreeId, ino: Ino) -> Result<bool, StateError> {
        Ok(!self.tx.keys(&numbers(Table::Lock, &[tree.0, ino.0]), 1)?.is_empty())
    }

    /// At most `max` inodes without a name, after one, in order of tree and number.
    pub fn orphans(&self, after: Option<(TreeId, Ino)>, max: usize) -> Result<Vec<(TreeId, Ino)>, StateError> {
        let (tree, ino) = after.unwrap_or_default();
        let mut from = schema::orphan_key(tree, ino);
        from.push(0);
        let to = super::tx::prefix_end(&numbers(Table::Orphan, &[]));
        self.tx
            .scan(&from, to.as_deref())
            .take(max)
            .map(|pair| {
                let (key, _) = pair?;
                Ok((TreeId(number_at(&key, 1)?), Ino(number_at(&key, 9)?)))
            })
            .collect()
    }

    /// Trees of deleted volumes, still to be freed.
    pub fn dead_trees(&self) -> Result<Vec<TreeId>, StateError> {
        let keys = self.tx.keys(&numbers(Table::DeadTree, &[]), usize::MAX)?;
        keys.iter().map(|key| Ok(TreeId(number_at(key, 1)?))).collect()
    }

    /// At most `max` chunks without a reference since a collection epoch before `before`, oldest first.
    pub fn releasable(&self, before: u64, max: usize) -> Result<Vec<ChunkId>, StateError> {
        let from = numbers(Table::Releasable, &[]);
        let to = numbers(Table::Releasable, &[before]);
        self.tx.scan(&from, Some(&to)).take(max).map(|pair| chunk_at_end(&pair?.0)).collect()
    }

    /// At most `max` batches that a store has still to delete, oldest first.
    pub fn condemned(&self, store: StoreId, max: usize) -> Result<Vec<DeleteBatch>, StateError> {
        let mut batches = Vec::new();
        for pair in self.tx.scan_prefix(&numbers(Table::Condemned, &[])) {
            let (key, value) = pair?;
            let Condemned { chunks, waiting } = unpack(&value)?;
            if waiting.contains(&store) {
                batches.push(DeleteBatch { epoch: number_at(&key, 1)?, chunks });
                if batches.len() >= max {
                    break;
                }
            }
        }
        Ok(batches)
    }

    /// Of each condemned batch, oldest first, the stores that have not confirmed it.
    pub fn condemned_waiting(&self) -> Result<Vec<Vec<StoreId>>, StateError> {
        let batches = self.tx.scan_prefix(&numbers(Table::Condemned, &[]));
        batches.map(|pair| Ok(unpack::<Condemned>(&pair?.1)?.waiting)).collect()
    }

    pub fn collection(&self) -> Result<Collection, StateError> {
        self.tx.single(Table::Collection)
    }

    /// Is a chunk referred to, or was it, and may stores still have it for that?
    pub fn is_chunk_known(&self, id: &ChunkId) -> Result<bool, StateError> {
        self.tx.contains(&schema::chunk_ref_key(id))
    }

    pub fn chunk_totals(&self) -> Result<ChunkTotals, StateError> {
        self.tx.single(Table::ChunkTotals)
    }

    pub fn map(&self) -> Result<ClusterMap, StateError> {
        self.tx.single(Table::Map)
    }

    /// Metadata servers and their last known addresses.
    pub fn metas(&self) -> Result<Vec<MetaInfo>, StateError> {
        self.all(&numbers(Table::Meta, &[]))
    }

    pub fn credential(&self, role: Role, id: u64) -> Result<Option<Credential>, StateError> {
        self.tx.get(&schema::credential_key(role, id))
    }

    pub fn token(&self, hash: &[u8; 32]) -> Result<Option<Token>, StateError> {
        self.tx.get(&schema::token_key(hash))
    }

    pub fn api_key(&self, hash: &[u8; 32]) -> Result<Option<ApiKey>, StateError> {
        self.tx.get(&schema::api_key_key(hash))
    }

    /// In the order of their names.
    pub fn api_keys(&self) -> Result<Vec<ApiKey>, StateError> {
        let mut keys = self.all::<ApiKey>(&numbers(Table::ApiKey, &[]))?;
        keys.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(keys)
    }

    fn all<R: schema::Record>(&self, prefix: &[u8]) -> Result<Vec<R>, StateError> {
        self.tx.scan_prefix(prefix).map(|pair| unpack(&pair?.1)).collect()
    }
}
