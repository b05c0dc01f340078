//! Changes of the tree in the fake.

use super::*;
use crate::types::op::{RenameMode, XattrMode};
use crate::types::rewrite::{self, Seen};

impl State {
    pub(super) fn change(
        &mut self,
        session: SessionId,
        sequence: u64,
        ops: &[Op],
        want: Hold,
        has_chunk: &dyn Fn(&ChunkId) -> bool,
    ) -> Option<MetaReply> {
        if let Some(done) = self.sessions.get(&session).and_then(|session| session.replies.get(&sequence)) {
            return reply(MetaBody::Changed(done.clone()));
        }
        let touched: Vec<Ino> = ops.iter().flat_map(|op| self.touched(op)).collect();
        let mut clear = true;
        for ino in touched {
            clear &= self.clear(session, ino, Lease::None, false);
        }
        for op in ops {
            if let Op::Lock(request) = op
                && request.mode.is_some()
            {
                clear &= self.clear(session, request.ino, Lease::Read, false);
            }
        }
        if !clear {
            return None;
        }
        self.tally("change");
        let before = self.inodes.clone();
        let mut replies = Vec::new();
        let mut outcome = None;
        for (index, op) in ops.iter().enumerate() {
            match self.apply(session, op, has_chunk) {
                Ok(done) => replies.push(done),
                Err(error) => {
                    self.inodes = before;
                    outcome = Some(BatchReply::Failed { index: index as u32, error });
                    break;
                }
            }
        }
        let granted = match (&outcome, replies.first()) {
            (None, Some(OpReply::Entry { attr, .. } | OpReply::Written { attr, .. } | OpReply::Attr(attr))) => {
                self.grant(session, attr.ino, want)
            }
            _ => Vec::new(),
        };
        let outcome = outcome.unwrap_or(BatchReply::Done(replies));
        if let Some(session) = self.sessions.get_mut(&session) {
            session.replies.insert(sequence, outcome.clone());
        }
        Some(MetaReply { body: MetaBody::Changed(outcome), granted })
    }

    /// What the session did under its own leases.
    pub(super) fn ship(
        &mut self,
        session: SessionId,
        sequence: u64,
        changes: &[Dated],
        has_chunk: &dyn Fn(&ChunkId) -> bool,
    ) -> MetaReply {
        let answer = |body, granted| MetaReply { body, granted };
        if let Some(done) = self.sessions.get(&session).and_then(|session| session.replies.get(&sequence)) {
            return answer(MetaBody::Changed(done.clone()), Vec::new());
        }
        self.tally("ship");
        let before = self.inodes.clone();
        let hold = Hold { lease: Lease::Write, open: true };
        let made: Vec<Ino> = changes.iter().filter_map(|change| made(&change.op)).collect();
        let granted = made.iter().map(|ino| self.put_hold(*ino, session, hold)).collect();
        let mut replies = Vec::new();
        for (index, Dated { op, .. }) in changes.iter().enumerate() {
            for ino in self.touched(op) {
                let held = self.holds.get(&(ino, session)).map(|(hold, _)| hold.lease);
                assert!(made.contains(&ino) || held == Some(Lease::Write), "{op:?} without a lease on {ino}");
            }
            self.use_up(session, op);
            match self.apply(session, op, has_chunk) {
                Ok(written @ (OpReply::Written { .. } | OpReply::Copied { .. })) => replies.push(written),
                Ok(_) => {}
                Err(error) => {
                    self.inodes = before;
                    self.holds.retain(|(ino, holder), _| *holder != session || !made.contains(ino));
                    return answer(MetaBody::Changed(BatchReply::Failed { index: index as u32, error }), Vec::new());
                }
            }
        }
        let outcome = BatchReply::Done(replies);
        if let Some(session) = self.sessions.get_mut(&session) {
            session.replies.insert(sequence, outcome.clone());
        }
        answer(MetaBody::Changed(outcome), granted)
    }

    /// What a client does on its own is covered by what it was promised.
    fn use_up(&mut self, session: SessionId, op: &Op) {
        let more = Allowance::of([op]);
        let allowance = self.allowances.entry(session).or_default();
        assert!(more.at_most(*allowance) == more, "{op:?} with {allowance:?}");
        *allowance = allowance.less(more);
    }

    fn child(&self, dir: Ino, name: &Name) -> Option<Ino> {
        self.inodes.get(&dir)?.entries.get(name).copied()
    }

    fn touched(&self, op: &Op) -> Vec<Ino> {
        match op {
            Op::Create(create) => vec![create.dir],
            Op::Link { ino, dir, .. } => vec![*ino, *dir],
            Op::Unlink { dir, name } | Op::Rmdir { dir, name } => {
                [*dir].into_iter().chain(self.child(*dir, name)).collect()
            }
            Op::Rename { from_dir, from, to_dir, to, .. } => {
                let children = self.child(*from_dir, from).into_iter().chain(self.child(*to_dir, to));
                [*from_dir, *to_dir].into_iter().chain(children).collect()
            }
            Op::SetAttr { ino, .. } | Op::SetXattr { ino, .. } | Op::RemoveXattr { ino, .. } => vec![*ino],
            Op::Write(write) => vec![write.ino],
            Op::Compact { ino, .. } | Op::Fallocate { ino, .. } | Op::SetLocks { ino, .. } => vec![*ino],
            Op::CopyRange { from, to, .. } => vec![*from, *to],
            Op::TouchAtime { .. } | Op::Lock(_) | Op::UnlockOwner { .. } | Op::Reserve { .. } => Vec::new(),
        }
    }

    fn inode(&mut self, ino: Ino) -> Result<&mut Inode, FsError> {
        let inode = self.inodes.get_mut(&ino).ok_or(FsError::NotFound)?;
        inode.attr.version += 1;
        Ok(inode)
    }

    fn apply(&mut self, session: SessionId, op: &Op, has_chunk: &dyn Fn(&ChunkId) -> bool) -> Result<OpReply, FsError> {
        match op {
            Op::Create(create) => self.create(create),
            Op::Link { ino, dir, name } => self.link(*ino, *dir, name),
            Op::Rename { to_dir, to, mode: RenameMode::NoReplace, .. } if self.child(*to_dir, to).is_some() => {
                Err(FsError::Exists)
            }
            Op::Unlink { dir, name } | Op::Rmdir { dir, name } => {
                let ino = self.inode(*dir)?.entries.remove(name).ok_or(FsError::NotFound)?;
                Ok(OpReply::Removed { gone: self.drop_name(ino)? })
            }
            Op::Rename { from_dir, from, to_dir, to, .. } => {
                let ino = self.inode(*from_dir)?.entries.remove(from).ok_or(FsError::NotFound)?;
                let replaced = self.inode(*to_dir)?.entries.insert(to.clone(), ino);
                self.inode(ino)?;
                let other = match replaced {
                    Some(other) => self.drop_name(other)?,
                    None => None,
                };
                Ok(OpReply::Renamed { moved: self.attr(ino)?, other })
            }
            Op::SetAttr { ino, set } => {
                let inode = self.inode(*ino)?;
                if let Some(size) = set.size {
                    let kept = inode.extents.iter().filter_map(|extent| extent.slice(0, size)).collect();
                    inode.extents = kept;
                    inode.attr.size = size;
                }
                inode.attr.mode = set.mode.unwrap_or(inode.attr.mode);
                if let Some(SetTime::At(mtime)) = set.mtime {
                    inode.attr.mtime = mtime;
                }
                if let Some(SetTime::At(atime)) = set.atime {
                    inode.attr.atime = atime;
                }
                Ok(OpReply::Attr(inode.attr.clone()))
            }
            Op::SetXattr { ino, name, value, mode } => self.set_xattr(*ino, name, value, *mode),
            Op::RemoveXattr { ino, name } => {
                let inode = self.inode(*ino)?;
                inode.xattrs.remove(name).ok_or(FsError::NoAttribute)?;
                inode.attr.has_xattr = !inode.xattrs.is_empty();
                Ok(OpReply::Done)
            }
            Op::Write(write) => self.write(write, has_chunk),
            Op::CopyRange { from, from_offset, to, to_offset, len } => {
                self.copy_range((*from, *from_offset), (*to, *to_offset), *len)
            }
            Op::Compact { ino, before, after, .. } => self.compact(*ino, before, after),
            Op::Lock(request) => Ok(self.lock(session, request)),
            Op::SetLocks { ino, locks } => {
                self.set_locks(session, *ino, locks);
                Ok(OpReply::Done)
            }
            Op::Reserve { numbers, upto } => Ok(self.reserve(session, *numbers, *upto)),
            Op::TouchAtime { ino, was, atime } => {
                let attr = &mut self.inode(*ino)?.attr;
                if attr.atime == *was {
                    attr.atime = *atime;
                }
                Ok(OpReply::Attr(attr.clone()))
            }
            _ => Err(FsError::NotSupported),
        }
    }

    fn reserve(&mut self, session: SessionId, numbers: u64, upto: Allowance) -> OpReply {
        let first = (numbers > 0).then_some(Ino(self.last_ino + 1));
        self.last_ino += numbers;
        if numbers > 0 {
            self.numbers.insert(self.last_ino, session);
        }
        let had = self.allowances.get(&session).copied().unwrap_or_default();
        let promises = if self.faults.scarce { Some(had) } else { self.faults.promises };
        let allowance = promises.map_or(upto, |promises| upto.at_most(promises));
        self.allowances.insert(session, allowance);
        OpReply::Reserved { first, allowance }
    }

    fn link(&mut self, ino: Ino, dir: Ino, name: &Name) -> Result<OpReply, FsError> {
        if self.child(dir, name).is_some() {
            return Err(FsError::Exists);
        }
        self.inode(dir)?.entries.insert(name.clone(), ino);
        let inode = self.inode(ino)?;
        inode.attr.nlink += 1;
        Ok(OpReply::Entry { attr: inode.attr.clone(), created: true })
    }

    fn set_xattr(&mut self, ino: Ino, name: &[u8], value: &[u8], mode: XattrMode) -> Result<OpReply, FsError> {
        let inode = self.inode(ino)?;
        match (mode, inode.xattrs.contains_key(name)) {
            (XattrMode::Create, true) => return Err(FsError::Exists),
            (XattrMode::Replace, false) => return Err(FsError::NoAttribute),
            _ => {}
        }
        inode.xattrs.insert(name.to_vec(), value.to_vec());
        inode.attr.has_xattr = true;
        Ok(OpReply::Done)
    }

    fn create(&mut self, create: &crate::types::op::Create) -> Result<OpReply, FsError> {
        if let Some(ino) = self.child(create.dir, &create.name) {
            if create.exclusive {
                return Err(FsError::Exists);
            }
            return Ok(OpReply::Entry { attr: self.attr(ino)?, created: false });
        }
        self.last_ino += u64::from(create.ino.is_none());
        let ino = create.ino.unwrap_or(Ino(self.last_ino));
        let kind = match &create.node {
            NewNode::Dir => FileKind::Dir,
            NewNode::Symlink(_) => FileKind::Symlink,
            _ => FileKind::File,
        };
        self.inode(create.dir)?.entries.insert(create.name.clone(), ino);
        let mut inode = Inode::new(ino, kind, create.mode & !create.umask, create.dir);
        if let NewNode::Symlink(target) = &create.node {
            inode.target = target.clone();
        }
        let attr = inode.attr.clone();
        self.inodes.insert(ino, inode);
        Ok(OpReply::Entry { attr, created: true })
    }

    fn drop_name(&mut self, ino: Ino) -> Result<Option<Attr>, FsError> {
        let inode = self.inode(ino)?;
        inode.attr.nlink = if inode.attr.kind == FileKind::Dir { 0 } else { inode.attr.nlink - 1 };
        let attr = inode.attr.clone();
        self.reap(ino);
        Ok(Some(attr))
    }

    fn write(
        &mut self,
        write: &crate::types::op::Write,
        has_chunk: &dyn Fn(&ChunkId) -> bool,
    ) -> Result<OpReply, FsError> {
        if self.faults.full {
            return Err(FsError::NoSpace);
        }
        let again = std::mem::take(&mut self.faults.put_again);
        let inode = self.inode(write.ino)?;
        let start = match write.at {
            WriteAt::Offset(offset) => offset,
            WriteAt::End => inode.attr.size,
        };
        for piece in &write.pieces {
            if let Source::Chunk(part) = &piece.source {
                assert!(has_chunk(&part.id), "a pointer came before its data");
                if again {
                    return Err(FsError::PutAgain { epoch: part.put_epoch + 1 });
                }
            }
            let whole = Extent { offset: start + piece.offset, len: piece.len, source: piece.source.clone() };
            let mut at = whole.offset;
            while at < whole.end() {
                let end = (at / u64::from(CHUNK_BYTES) + 1) * u64::from(CHUNK_BYTES);
                lay_over(&mut inode.extents, whole.slice(at, end).unwrap());
                at = end;
            }
        }
        inode.attr.size = inode.attr.size.max(start + write.len);
        inode.attr.mtime = write.mtime.unwrap_or(Time { sec: 2_000, nsec: 0 });
        Ok(OpReply::Written { offset: start, attr: inode.attr.clone() })
    }

    fn copy_range(&mut self, from: (Ino, u64), to: (Ino, u64), len: u64) -> Result<OpReply, FsError> {
        let source = self.inode(from.0)?.extents.clone();
        let inode = self.inode(to.0)?;
        for part in source.iter().filter_map(|extent| extent.slice(from.1, from.1 + len)) {
            lay_over(&mut inode.extents, Extent { offset: part.offset - from.1 + to.1, ..part });
        }
        inode.attr.size = inode.attr.size.max(to.1 + len);
        Ok(OpReply::Copied { bytes: len, attr: inode.attr.clone() })
    }

    fn compact(&mut self, ino: Ino, before: &[Seen], after: &Extent) -> Result<OpReply, FsError> {
        self.tally("compact");
        let inode = self.inode(ino)?;
        rewrite::replace_unchanged(&mut inode.extents, before, after, inode.attr.size);
        Ok(OpReply::Done)
    }
}

/// The inode that a client makes under a number of its own.
fn made(op: &Op) -> Option<Ino> {
    match op {
        Op::Create(create) => create.ino,
        _ => None,
    }
}

fn lay_over(extents: &mut Vec<Extent>, new: Extent) {
    let old = std::mem::take(extents);
    extents.extend(old.iter().filter_map(|extent| extent.slice(0, new.offset)));
    let after: Vec<Extent> = old.iter().filter_map(|extent| extent.slice(new.end(), u64::MAX)).collect();
    extents.push(new);
    extents.extend(after);
}
