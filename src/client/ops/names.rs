//! Names: look up, list, make, link, rename, remove.

use std::sync::Arc;

use crate::client::api::{DirItem, Handle, NewInode, OpenMode, Result};
use crate::client::core::{Apply, Core, Touch};
use crate::client::inode::{Node, State};
use crate::client::names::FIRST_COOKIE;
use crate::types::attr::Attr;
use crate::types::error::FsError;
use crate::types::id::Ino;
use crate::types::limits::READDIR_ENTRIES_MAX;
use crate::types::name::Name;
use crate::types::op::{Create, NewNode, Op, OpReply, RenameMode};
use crate::types::session::{DirPart, Hold, Lease};

impl Core {
    pub fn try_lookup(&self, dir: Ino, name: &Name) -> Option<Result<Attr>> {
        let node = self.nodes.find(dir)?;
        let entry = {
            let mut state = node.lock();
            state.dir.look_up(name).filter(|_| state.leased(&self.life))?
        };
        match entry {
            Some(ino) => self.try_getattr(ino).map(Ok),
            None => Some(Err(FsError::NotFound)),
        }
    }

    pub async fn lookup(&self, dir: Ino, name: Name) -> Result<Attr> {
        if let Some(known) = self.try_lookup(dir, &name) {
            return known;
        }
        let node = self.nodes.node(dir);
        if self.list_ahead(&node).await
            && let Some(known) = self.try_lookup(dir, &name)
        {
            return known;
        }
        // An answer that lacks what was done here would not be kept, and the next change would ask again.
        self.shipped(&node).await;
        let asked = self.nodes.asked();
        let want = {
            let state = node.lock();
            Hold { lease: state.want(self.likely_lease(&state)), open: false }
        };
        let told = self
            .ask(|session| {
                let name = name.clone();
                async move { session.lookup(dir, name, want).await }
            })
            .await;
        {
            let mut state = node.lock();
            if state.accepts(asked, told.brought(dir)) {
                match &told.result {
                    Ok(attr) => state.dir.learn(name, Some((attr.ino, attr.kind))),
                    Err(FsError::NotFound) => state.dir.learn(name, None),
                    Err(_) => {}
                }
            }
        }
        let attr = told.result.clone()?;
        let ino = attr.ino;
        match self.keep_attr(asked, &told, attr) {
            Some(attr) => Ok(attr),
            None => self.getattr(ino).await,
        }
    }

    pub async fn parent(&self, dir: Ino) -> Result<Attr> {
        let node = self.nodes.node(dir);
        let known = {
            let state = node.lock();
            state.dir.parent.filter(|_| state.leased(&self.life))
        };
        if let Some(parent) = known {
            return self.getattr(parent).await;
        }
        self.shipped(&node).await;
        let asked = self.nodes.asked();
        let told = self.ask(|session| async move { session.parent(dir).await }).await;
        let attr = told.result.clone()?;
        let parent = attr.ino;
        {
            let mut state = node.lock();
            if state.accepts(asked, told.brought(dir)) {
                state.dir.parent = Some(parent);
            }
        }
        match self.keep_attr(asked, &told, attr) {
            Some(attr) => Ok(attr),
            None => self.getattr(parent).await,
        }
    }

    pub async fn readdir(self: &Arc<Self>, dir: Ino, handle: Option<Handle>, after: u64) -> Result<Vec<DirItem>> {
        let file = handle.map(|handle| self.files.find(handle)).transpose()?;
        let (mut items, next_cookie) = self.page(dir, after).await?;
        let bound = file.map_or(u64::MAX, |file| file.listing_bound(after, next_cookie));
        items.truncate(items.partition_point(|item| item.cookie < bound));
        Ok(items)
    }

    /// Entries after a cookie, and the cookie of the next one to come.
    async fn page(self: &Arc<Self>, dir: Ino, after: u64) -> Result<(Vec<DirItem>, u64)> {
        let node = self.nodes.node(dir);
        if after < FIRST_COOKIE {
            self.note_atime(&node, None);
        }
        let known = || {
            let state = node.lock();
            state.dir.page(after, READDIR_ENTRIES_MAX).filter(|_| state.leased(&self.life))
        };
        if let Some(page) = known() {
            return Ok(page);
        }
        self.listings.ended(dir).await;
        if let Some(page) = known() {
            return Ok(page);
        }
        let lease = self.listing_lease(&node);
        if after < FIRST_COOKIE {
            self.walk_on(&node);
        }
        self.list(&node, DirPart { after, entries: READDIR_ENTRIES_MAX, attrs: true, unasked: false }, lease).await
    }

    /// What is in a directory of ours is likely to be changed by us.
    pub fn likely_lease(&self, dir: &State) -> Lease {
        if dir.owned(&self.life) { Lease::Write } else { Lease::Read }
    }

    /// Whoever asks for one name after the other is told of those to come. `false`: nothing was listed.
    async fn list_ahead(&self, node: &Arc<Node>) -> bool {
        let (part, lease) = {
            let state = node.lock();
            let lease = self.likely_lease(&state);
            (state.dir.lists_ahead().filter(|_| state.want(lease) > Lease::None), lease)
        };
        match part {
            Some(part) => self.list(node, part, lease).await.is_ok(),
            None => false,
        }
    }

    /// Asks for a part of a listing, and for leases on what is in it.
    pub async fn list(&self, node: &Arc<Node>, part: DirPart, lease: Lease) -> Result<(Vec<DirItem>, u64)> {
        let dir = node.ino;
        self.shipped(node).await;
        let asked = self.nodes.asked();
        let want = Hold { lease: node.lock().want(lease), open: false };
        let told = self.ask(|session| async move { session.readdir(dir, part, want).await }).await;
        let page = told.result.clone()?;
        let mut items = Vec::with_capacity(page.entries.len());
        for entry in page.entries {
            let (ino, kind, cookie) = (entry.ino, entry.kind, entry.cookie);
            items.push(DirItem { name: entry.name, ino, kind, cookie });
            if let Some(attr) = entry.attr {
                self.keep_attr(asked, &told, attr);
            }
        }
        self.note_places(node, &items);
        let mut state = node.lock();
        if state.accepts(asked, told.brought(dir)) {
            state.learn(&page.dir);
            state.dir.learn_page(part.after, &items, page.end, page.next_cookie, page.has_default_acl);
        } else {
            state.dir.listed_in_vain();
        }
        Ok((items, page.next_cookie))
    }

    pub async fn make(self: &Arc<Self>, dir: Ino, name: Name, new: NewInode) -> Result<Attr> {
        self.create_node(dir, name, new, true, Hold { lease: Lease::Read, open: false }).await
    }

    pub async fn create(
        self: &Arc<Self>,
        dir: Ino,
        name: Name,
        new: NewInode,
        exclusive: bool,
        mode: OpenMode,
    ) -> Result<(Attr, Handle)> {
        if self.read_only {
            // Without `O_EXCL` this may be a file that is there.
            return Err(if exclusive { FsError::ReadOnly } else { self.read_only_create(dir, name).await });
        }
        let lease = if mode.write { Lease::Write } else { Lease::Read };
        let attr = self.create_node(dir, name, new, exclusive, Hold { lease, open: true }).await?;
        let handle = self.open(attr.ino, mode).await?;
        Ok((attr, handle))
    }

    async fn read_only_create(&self, dir: Ino, name: Name) -> FsError {
        match self.lookup(dir, name).await {
            Ok(_) | Err(FsError::NotFound) => FsError::ReadOnly,
            Err(error) => error,
        }
    }

    async fn create_node(
        self: &Arc<Self>,
        dir: Ino,
        name: Name,
        new: NewInode,
        exclusive: bool,
        want: Hold,
    ) -> Result<Attr> {
        if let Some(made) = self.done_before() {
            return self.getattr(made?.ok_or(FsError::Io)?).await;
        }
        let NewInode { node, mode, umask, owner } = new;
        let is_dir = matches!(node, NewNode::Dir);
        let create =
            Create { dir, name: name.clone(), node, mode, umask, uid: owner.uid, gid: owner.gid, exclusive, ino: None };
        if let Some(made) = self.create_alone(&create) {
            self.reserve_soon();
            return made;
        }
        if self.make_ours(dir, &[&name]).await {
            self.reserve().await;
            if let Some(made) = self.create_alone(&create) {
                return made;
            }
        }
        let mut ops = vec![Op::Create(create)];
        ops.extend(self.refresh(dir));
        let touch = Touch { inos: vec![dir], names: vec![(dir, name.clone())], want, ..Touch::default() };
        let apply: Apply = Box::new(move |core, replies, outcome| {
            for reply in replies {
                match reply {
                    OpReply::Entry { attr, created } => {
                        outcome.name(core, dir, name.clone(), Some((attr.ino, attr.kind)));
                        outcome.learn(core, attr);
                        let node = core.nodes.node(attr.ino);
                        let mut state = node.lock();
                        if *created && outcome.brought(attr.ino) && state.held.lease() == Lease::Write {
                            state.extents.set_empty();
                        }
                        if *created && is_dir && outcome.brought(attr.ino) {
                            state.dir.parent = Some(dir);
                        }
                    }
                    OpReply::Attr(attr) => outcome.learn(core, attr),
                    _ => {}
                }
            }
        });
        let replies = self.change(ops, touch, apply).await?;
        match replies.into_iter().next() {
            Some(OpReply::Entry { attr, .. }) => Ok(self.overlaid(attr)),
            _ => Err(FsError::Io),
        }
    }

    /// What is buffered here laid over what the leader told.
    pub fn overlaid(&self, attr: Attr) -> Attr {
        match self.nodes.find(attr.ino) {
            Some(node) => node.lock().overlay(attr),
            None => attr,
        }
    }

    pub async fn link(self: &Arc<Self>, ino: Ino, dir: Ino, name: Name) -> Result<Attr> {
        if let Some(linked) = self.done_before() {
            linked?;
            return self.getattr(ino).await;
        }
        self.gather_from_kernel(&self.nodes.node(ino)).await;
        if let Some(linked) = self.link_alone(ino, dir, &name) {
            return linked;
        }
        if self.make_ours(dir, &[&name]).await {
            let node = self.nodes.node(ino);
            self.own(&node).await;
            self.flush_before(&node).await?;
            if let Some(linked) = self.link_alone(ino, dir, &name) {
                return linked;
            }
        }
        self.flush_before(&self.nodes.node(ino)).await?;
        let mut ops = vec![Op::Link { ino, dir, name: name.clone() }];
        ops.extend(self.refresh(dir));
        let touch = Touch { inos: vec![ino, dir], names: vec![(dir, name.clone())], ..Touch::default() };
        let apply: Apply = Box::new(move |core, replies, outcome| {
            for reply in replies {
                match reply {
                    OpReply::Entry { attr, .. } => {
                        outcome.name(core, dir, name.clone(), Some((attr.ino, attr.kind)));
                        outcome.learn(core, attr);
                    }
                    OpReply::Attr(attr) => outcome.learn(core, attr),
                    _ => {}
                }
            }
        });
        match self.change(ops, touch, apply).await?.into_iter().next() {
            Some(OpReply::Entry { attr, .. }) => Ok(self.overlaid(attr)),
            _ => Err(FsError::Io),
        }
    }

    pub async fn remove(self: &Arc<Self>, dir: Ino, name: Name, is_dir: bool) -> Result<()> {
        if let Some(removed) = self.done_before() {
            return removed.map(drop);
        }
        if let Some(removed) = self.remove_alone(dir, &name, is_dir) {
            return removed;
        }
        if self.make_ours(dir, &[&name]).await {
            self.make_child_ours(dir, &name).await;
            if let Some(removed) = self.remove_alone(dir, &name, is_dir) {
                return removed;
            }
        }
        let op = |name: Name| if is_dir { Op::Rmdir { dir, name } } else { Op::Unlink { dir, name } };
        let mut ops = vec![op(name.clone())];
        ops.extend(self.refresh(dir));
        let mut inos = vec![dir];
        inos.extend(self.nodes.node(dir).lock().dir.entry(&name).flatten());
        let touch = Touch { inos, names: vec![(dir, name.clone())], ..Touch::default() };
        let core = self.clone();
        let apply: Apply = Box::new(move |_, replies, outcome| {
            for reply in replies {
                match reply {
                    OpReply::Removed { gone } => {
                        outcome.name(&core, dir, name.clone(), None);
                        gone.iter().for_each(|attr| core.lost_name(outcome, attr));
                    }
                    OpReply::Attr(attr) => outcome.learn(&core, attr),
                    _ => {}
                }
            }
        });
        self.change(ops, touch, apply).await.map(|_| ())
    }

    /// An inode has lost a name; without any it is not kept open for nothing.
    fn lost_name(self: &Arc<Self>, outcome: &crate::client::core::Outcome, attr: &Attr) {
        outcome.learn(self, attr);
        if attr.nlink == 0 {
            self.let_go(&self.nodes.node(attr.ino));
        }
    }

    /// An inode's name was changed at the leader. It may be another one than had the name when it was looked up here.
    fn was_renamed(self: &Arc<Self>, outcome: &crate::client::core::Outcome, attr: &Attr) {
        {
            let node = self.nodes.node(attr.ino);
            let mut state = node.lock();
            // What was asked about it and is not answered is from before.
            state.begin_change();
            state.end_change();
            state.dir.parent = None;
        }
        self.lost_name(outcome, attr);
    }

    pub async fn rename(self: &Arc<Self>, from: (Ino, Name), to: (Ino, Name), mode: RenameMode) -> Result<()> {
        if let Some(renamed) = self.done_before() {
            return renamed.map(drop);
        }
        if self.is_exclusive() {
            let moved = self.nodes.node(from.0).lock().dir.entry(&from.1).flatten();
            if let Some(moved) = moved.and_then(|ino| self.nodes.find(ino)) {
                self.gather_from_kernel(&moved).await;
            }
        }
        if let Some(renamed) = self.rename_alone((from.0, &from.1), (to.0, &to.1), mode) {
            return renamed;
        }
        if self.make_ours(from.0, &[&from.1]).await && self.make_ours(to.0, &[&to.1]).await {
            self.make_child_ours(from.0, &from.1).await;
            self.make_child_ours(to.0, &to.1).await;
            let moved = self.nodes.node(from.0).lock().dir.entry(&from.1).flatten();
            if let Some(moved) = moved {
                // More than can go with it; and what the kernel has, if its name was not known before.
                let moved = self.nodes.node(moved);
                self.gather_from_kernel(&moved).await;
                self.flush_before(&moved).await?;
            }
            if let Some(renamed) = self.rename_alone((from.0, &from.1), (to.0, &to.1), mode) {
                return renamed;
            }
        }
        let moved = self.lookup(from.0, from.1.clone()).await?.ino;
        self.gather_from_kernel(&self.nodes.node(moved)).await;
        self.flush_before(&self.nodes.node(moved)).await?;
        let replaced = self.nodes.node(to.0).lock().dir.entry(&to.1).flatten();
        if let Some(other) = replaced.filter(|_| mode == RenameMode::Exchange) {
            self.flush_before(&self.nodes.node(other)).await?;
        }
        let op = Op::Rename { from_dir: from.0, from: from.1.clone(), to_dir: to.0, to: to.1.clone(), mode };
        let mut ops = vec![op];
        ops.extend(self.refresh(from.0));
        ops.extend(self.refresh(to.0).filter(|_| from.0 != to.0));
        let mut inos = vec![from.0, moved];
        inos.extend((from.0 != to.0).then_some(to.0));
        inos.extend(replaced.filter(|other| *other != moved));
        let touch = Touch { inos, names: vec![from.clone(), to.clone()], ..Touch::default() };
        let core = self.clone();
        let apply: Apply = Box::new(move |_, replies, outcome| {
            for reply in replies {
                match reply {
                    OpReply::Renamed { moved, other } => {
                        if mode != RenameMode::Exchange && other.as_ref().is_none_or(|other| other.ino != moved.ino) {
                            outcome.name(&core, from.0, from.1.clone(), None);
                            outcome.name(&core, to.0, to.1.clone(), Some((moved.ino, moved.kind)));
                        }
                        [Some(moved), other.as_ref()]
                            .into_iter()
                            .flatten()
                            .for_each(|attr| core.was_renamed(outcome, attr));
                    }
                    OpReply::Attr(attr) => outcome.learn(&core, attr),
                    _ => {}
                }
            }
        });
        self.change(ops, touch, apply).await.map(|_| ())
    }
}
