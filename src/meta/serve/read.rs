//! Reading a tree.
//!
//! Each read: the Raft barrier, other hosts' unshipped changes brought home, the lease granted, and only then the
//! state looked at (so a change that starts in between recalls the new holder).

use std::sync::Arc;

use super::{Fail, Shared, granting, plain};
use crate::meta::leader::{Leader, key};
use crate::meta::state::{Extents, Seek, StateError, View};
use crate::types::attr::{Attr, FileKind};
use crate::types::error::FsError;
use crate::types::extent::{self, Extent};
use crate::types::id::{Ino, SessionId, TreeId};
use crate::types::limits::{
    EXTENTS_BYTES_SOFT_MAX, READDIR_ENTRIES_MAX, SEEK_BLOCKS_MAX, SMALL_FILE_BYTES, SMALL_FILES_MAX, TAKE_INODES_MAX,
};
use crate::types::name::Name;
use crate::types::session::{Claim, DirPart, Hold, Lease};
use crate::wire::meta::{MetaBody, MetaReply, MetaRequest};

/// How often a directory is looked for whose name moves meanwhile.
const DIR_LOOKUPS_MAX: u32 = 16;

impl Shared {
    /// The requests that read a tree.
    pub(super) async fn read_tree(&self, session: SessionId, request: MetaRequest) -> Result<MetaReply, Fail> {
        let leader = self.lead()?;
        leader.settled().await?;
        let tree = leader.heard(session)?;
        let reader = Reader { shared: self, leader, session, tree };
        match request {
            MetaRequest::Lookup { dir, name, want, .. } => reader.lookup(dir, &name, want).await,
            MetaRequest::Parent { dir, .. } => {
                reader.leader.before_read(session, key(tree, dir)).await?;
                let parent = self.read(|view| view.parent(tree, dir)).await?.ino;
                reader.leader.before_read(session, key(tree, parent)).await?;
                let attr = self.read(|view| view.parent(tree, dir)).await?;
                Ok(plain(MetaBody::Attr(attr)))
            }
            MetaRequest::GetAttr { ino, want, .. } => {
                let (attr, claim) = reader.attr(ino, want).await?;
                Ok(granting(MetaBody::Attr(attr), claim))
            }
            MetaRequest::Take { inos, .. } => reader.take(&inos).await,
            MetaRequest::ReadLink { ino, .. } => {
                reader.leader.before_read(session, key(tree, ino)).await?;
                Ok(plain(MetaBody::Target(self.read(|view| view.read_link(tree, ino)).await?)))
            }
            MetaRequest::ReadDir { dir, after, entries_max, attrs, unasked, want, .. } => {
                let entries = (entries_max as usize).clamp(1, READDIR_ENTRIES_MAX);
                reader.list(dir, DirPart { after, entries, attrs, unasked }, want).await
            }
            MetaRequest::GetXattr { ino, name, .. } => {
                reader.leader.before_read(session, key(tree, ino)).await?;
                Ok(plain(MetaBody::Value(self.read(|view| view.xattr(tree, ino, &name)).await?)))
            }
            MetaRequest::ListXattr { ino, .. } => {
                reader.leader.before_read(session, key(tree, ino)).await?;
                Ok(plain(MetaBody::Names(self.read(|view| view.xattr_names(tree, ino)).await?)))
            }
            MetaRequest::GetExtents { ino, offset, len, want, .. } => reader.extents(ino, offset, len, want).await,
            MetaRequest::GetSmallExtents { inos, .. } => reader.small_extents(&inos).await,
            MetaRequest::Seek { ino, offset, hole, .. } => {
                Ok(plain(MetaBody::Offset(reader.seek(ino, Seek::new(offset, hole)).await?)))
            }
            _ => Err(FsError::Invalid.into()),
        }
    }
}

/// One read of one session.
struct Reader<'a> {
    shared: &'a Shared,
    leader: Arc<Leader>,
    session: SessionId,
    tree: TreeId,
}

impl Reader<'_> {
    /// The inode that the name had when it was looked for, as it is now. `want.lease` is wanted on the directory (to cache the
    /// name, or its absence) and, with `open`, on the inode.
    ///
    /// What another session did to the inode is waited for, and the name may move in the meantime, each time for who replaces a
    /// file all the time. So it is not looked for again, only not to be cached. (But for directories, of which the asker's kernel
    /// knows one place.)
    async fn lookup(&self, dir: Ino, name: &Name, want: Hold) -> Result<MetaReply, Fail> {
        name.check()?;
        let on_dir = Hold { lease: want.lease.min(Lease::Read), open: false };
        let mut tries = 0;
        loop {
            tries += 1;
            self.leader.before_read(self.session, key(self.tree, dir)).await?;
            self.shared.raft.read_barrier().await?;
            let dir_claim = self.leader.grant(self.session, key(self.tree, dir), on_dir);
            let find = |view: &View<'_>| match view.lookup(self.tree, dir, name) {
                Err(StateError::Fs(FsError::NotFound)) => Ok(None),
                found => found.map(|attr| Some(attr.ino)),
            };
            let Some(ino) = self.or_give_back(dir_claim, find)? else {
                return Ok(granting(MetaBody::Error(FsError::NotFound), dir_claim));
            };
            self.leader.before_read(self.session, key(self.tree, ino)).await?;
            let claim = self.leader.acquire(self.session, key(self.tree, ino), want).await?;
            let (attr, is_named) = self.shared.state.view(|view| {
                let attr = match view.attr(self.tree, ino) {
                    Err(StateError::Fs(_)) => None,
                    attr => Some(attr?),
                };
                Ok((attr, find(view).is_ok_and(|found| found == Some(ino))))
            })?;
            if !is_named {
                self.give_back(dir_claim);
            }
            match attr {
                Some(attr) if is_named || attr.kind != FileKind::Dir || tries == DIR_LOOKUPS_MAX => {
                    let claims = dir_claim.filter(|_| is_named).into_iter().chain(claim);
                    return Ok(granting(MetaBody::Attr(attr), claims));
                }
                // It has another name, or none and was freed.
                _ => self.give_back(claim),
            }
        }
    }

    /// Entries, and with `attrs` what they lead to, under leases like the directory's where they can be had at once. What
    /// another session may have changed is listed without attributes.
    ///
    /// What nobody has asked for recalls nothing: a lease of one's own is proof that nobody else has changes.
    async fn list(&self, dir: Ino, part: DirPart, want: Hold) -> Result<MetaReply, Fail> {
        if !part.unasked {
            self.leader.before_read(self.session, key(self.tree, dir)).await?;
        }
        self.shared.raft.read_barrier().await?;
        let claim = self.leader.grant(self.session, key(self.tree, dir), want);
        if part.unasked && claim.is_none_or(|claim| claim.hold.lease == Lease::None) {
            self.give_back(claim);
            return Err(FsError::WouldBlock.into());
        }
        let list = |view: &View<'_>| view.read_dir(self.tree, dir, part.after, part.entries);
        let mut page = self.or_give_back(claim, list)?;
        let Some(on_dir) = claim.filter(|_| part.attrs) else { return Ok(granting(MetaBody::Entries(page), claim)) };
        let want = Hold { lease: on_dir.hold.lease, open: false };
        let inos: Vec<Ino> = page.entries.iter().map(|entry| entry.ino).collect();
        let granted = self.leader.grant_clear(self.session, self.tree, &inos, want);
        self.shared.state.view(|view| {
            for (entry, granted) in page.entries.iter_mut().zip(&granted) {
                if granted.is_some() {
                    entry.attr = Some(view.attr(self.tree, entry.ino)?);
                }
            }
            Ok(())
        })?;
        Ok(granting(MetaBody::Entries(page), claim.into_iter().chain(granted.into_iter().flatten())))
    }

    /// Some session has this number for inodes that it makes, and may have made one that it has not shipped. (Who has
    /// never seen its name can know it by a file handle.)
    fn bring_home(&self, ino: Ino) -> Result<(), Fail> {
        let maker = self.shared.state.view(|view| view.maker_of(self.tree, ino))?;
        if let Some(maker) = maker.filter(|maker| *maker != self.session && self.leader.tree_of(*maker).is_ok()) {
            self.leader.grant_made(maker, &[key(self.tree, ino)]);
        }
        Ok(())
    }

    async fn attr(&self, ino: Ino, want: Hold) -> Result<(Attr, Option<Claim>), Fail> {
        self.bring_home(ino)?;
        self.leader.before_read(self.session, key(self.tree, ino)).await?;
        self.shared.raft.read_barrier().await?;
        let claim = self.leader.acquire(self.session, key(self.tree, ino), want).await?;
        let attr = self.or_give_back(claim, |view| view.attr(self.tree, ino))?;
        Ok((attr, claim))
    }

    /// Write leases, and the attributes that they are on. What is not there (any more) is left out, as is what was not granted.
    async fn take(&self, inos: &[Ino]) -> Result<MetaReply, Fail> {
        if inos.len() > TAKE_INODES_MAX {
            return Err(FsError::Invalid.into());
        }
        // What its maker has not shipped is nobody else's.
        let there = |view: &View<'_>, ino: &Ino| match view.attr(self.tree, *ino) {
            Ok(_) => Ok(true),
            Err(StateError::Fs(_)) => Ok(false),
            Err(error) => Err(error),
        };
        let keys = self.shared.state.view(|view| {
            let mut keys = Vec::with_capacity(inos.len());
            for (number, ino) in inos.iter().enumerate() {
                match there(view, ino)? {
                    true => keys.push(key(self.tree, *ino)),
                    false if number == 0 => break,
                    false => {}
                }
            }
            Ok(keys)
        })?;
        let taking = self.leader.begin_take(self.session, keys).await?;
        self.shared.raft.read_barrier().await?;
        let (mut attrs, mut told) = (Vec::new(), Vec::new());
        for claim in taking.grant() {
            match self.shared.state.view(|view| view.attr(self.tree, claim.ino)) {
                Ok(attr) => {
                    attrs.extend((claim.hold.lease == Lease::Write).then_some(attr));
                    told.push(claim);
                }
                Err(_) => self.give_back(Some(claim)),
            }
        }
        Ok(granting(MetaBody::Attrs(attrs), told))
    }

    async fn extents(&self, ino: Ino, offset: u64, len: u64, want: Hold) -> Result<MetaReply, Fail> {
        self.leader.before_read(self.session, key(self.tree, ino)).await?;
        self.shared.raft.read_barrier().await?;
        let claim = self.leader.acquire(self.session, key(self.tree, ino), want).await?;
        let found = self.or_give_back(claim, |view| view.extents(self.tree, ino, offset, len))?;
        let Extents { attr, extents, covered } = found;
        Ok(granting(MetaBody::Extents { attr, extents, covered }, claim))
    }

    /// The leases are looked at before the state: a change that begins in between recalls them, and the session drops what
    /// it is told here.
    async fn small_extents(&self, inos: &[Ino]) -> Result<MetaReply, Fail> {
        if inos.len() > SMALL_FILES_MAX {
            return Err(FsError::Invalid.into());
        }
        self.shared.raft.read_barrier().await?;
        let leased = self.leader.leased(self.session, self.tree, inos);
        let files = self.shared.state.view(|view| {
            let (mut files, mut bytes) = (Vec::new(), 0);
            for ino in leased {
                let Ok(found) = view.extents(self.tree, ino, 0, SMALL_FILE_BYTES) else { continue };
                if found.attr.size > SMALL_FILE_BYTES {
                    continue;
                }
                bytes += extent::inline_bytes(&found.extents) + (found.extents.len() * size_of::<Extent>()) as u64;
                files.push((found.attr, found.extents));
                if bytes > EXTENTS_BYTES_SOFT_MAX as u64 {
                    break;
                }
            }
            Ok(files)
        })?;
        Ok(plain(MetaBody::SmallExtents(files)))
    }

    /// Looks at the file a part at a time: no command waits for more than one. Who changes the file meanwhile may be
    /// seen in the parts that follow, as on a local disk.
    async fn seek(&self, ino: Ino, mut seek: Seek) -> Result<u64, Fail> {
        self.leader.before_read(self.session, key(self.tree, ino)).await?;
        loop {
            let look = |view: &View<'_>| view.seek(self.tree, ino, &mut seek, SEEK_BLOCKS_MAX);
            if let Some(found) = self.shared.read(look).await? {
                return Ok(found);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Reads under a fresh claim, which is void when the read fails.
    fn or_give_back<R>(
        &self,
        claim: Option<Claim>,
        read: impl FnOnce(&View<'_>) -> Result<R, StateError>,
    ) -> Result<R, Fail> {
        self.shared.state.view(read).map_err(|error| {
            self.give_back(claim);
            error.into()
        })
    }

    fn give_back(&self, claim: Option<Claim>) {
        if let Some(claim) = claim {
            self.leader.take_back(self.session, key(self.tree, claim.ino), claim, false);
        }
    }
}
