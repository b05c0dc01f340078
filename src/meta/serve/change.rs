//! Changing a tree: lock the names, recall the leases in the way, propose (what is too large: in parts), answer.

use std::collections::HashSet;

use tokio::time::Instant;

use super::promised::was_promised;
use super::touch::{Touched, names, touch};
use super::{Fail, Shared, granting, unexpected};
use crate::meta::command::{Command, Outcome};
use crate::meta::leader::{ChangeGuard, Leader, key};
use crate::types::allowance::Allowance;
use crate::types::attr::SetAttr;
use crate::types::error::FsError;
use crate::types::id::{Ino, SessionId, TreeId};
use crate::types::limits::COMMAND_OPS_MAX;
use crate::types::op::{BatchReply, FallocateMode, Op, OpReply};
use crate::types::session::{Claim, Hold};
use crate::wire::meta::{MetaBody, MetaReply};

/// A client's change as it came.
pub(super) struct Change {
    pub session: SessionId,
    pub sequence: u64,
    pub acknowledged: u64,
    pub ops: Vec<Op>,
    pub want: Hold,
}

impl Shared {
    pub(super) async fn change(&self, mut change: Change) -> Result<MetaReply, Fail> {
        let leader = self.lead()?;
        leader.settled().await?;
        let tree = leader.heard(change.session)?;
        self.promise_nothing_scarce(&leader, tree, &mut change)?;
        if change.ops.is_empty() || change.ops.len() > COMMAND_OPS_MAX {
            return Err(FsError::Invalid.into());
        }
        let names = leader.names.lock(tree, change.ops.iter().flat_map(names)).await;
        self.raft.read_barrier().await?;
        let no_room = self.log_is_full() && !is_for_space(&change.ops) || !self.has_room(&leader, tree, &change)?;
        if no_room {
            // What was done before is answered as it was then.
            let answered = self.state.view(|view| view.has_answered(change.session, change.sequence))?;
            if !answered {
                return Err(FsError::NoSpace.into());
            }
        }
        let reply = self.apply_change(&leader, tree, &change).await;
        drop(names);
        if was_promised(&reply) {
            self.gather_promised(&leader, tree, change.session, Allowance::of(&change.ops)).await?;
        }
        let reply = reply?;
        if change.ops.iter().any(|op| matches!(op, Op::Reserve { .. })) {
            leader.promises.changed(tree, Instant::now());
        }
        if change.ops.iter().any(|op| matches!(op, Op::Lock(_) | Op::UnlockOwner { .. })) {
            leader.locks_changed();
        }
        Ok(reply)
    }

    /// What is to be allocated fits into what was free when the stores were last heard of. It is asked here because it
    /// is not the state's to know, and leniently: nothing is refused that may fit.
    fn has_room(&self, leader: &Leader, tree: TreeId, change: &Change) -> Result<bool, Fail> {
        for op in &change.ops {
            let Some((ino, len)) = allocates(op) else { continue };
            let (attr, map, copies) = self.state.view(|view| {
                let volume = view.volume(view.session(change.session)?.volume)?;
                Ok((view.attr(tree, ino).ok(), view.map()?, volume.policy.replicas))
            })?;
            // Some of the range may be allocated already: at most as much as the file has.
            let new = len.saturating_sub(attr.map_or(len, |attr| attr.allocated_bytes));
            if leader.stores.free_at_last(&map, copies).is_some_and(|free| new > free) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// With the names locked.
    pub(super) async fn apply_change(&self, leader: &Leader, tree: TreeId, change: &Change) -> Result<MetaReply, Fail> {
        let guards = self.clear_the_way(leader, tree, change).await?;
        let ops = self.in_parts(tree, change).await?;
        let outcome = self
            .propose(&Command::Change {
                session: change.session,
                sequence: change.sequence,
                acknowledged: change.acknowledged,
                now: self.now(),
                ops,
            })
            .await?;
        drop(guards);
        leader.progressed(change.session);
        let reply = match outcome {
            Outcome::Changed(reply) => reply,
            other => return Err(unexpected(other)),
        };
        let granted = self.grant_after(leader, tree, change, &reply).await?;
        Ok(granting(MetaBody::Changed(reply), granted))
    }

    /// Recalls the leases of others on all that a change touches, and waits.
    ///
    /// A session that had to give up its lease on a directory has shipped what it did there before, names or not: other
    /// inodes may be behind the names now. So it is looked at again, until nothing is new.
    async fn clear_the_way<'a>(
        &self,
        leader: &'a Leader,
        tree: TreeId,
        change: &Change,
    ) -> Result<Vec<ChangeGuard<'a>>, Fail> {
        let session = change.session;
        let mut guards: Vec<ChangeGuard<'_>> = Vec::new();
        let mut read = HashSet::new();
        loop {
            let mut touched = self.touched(tree, &change.ops)?;
            touched.changed.retain(|key| !guards.iter().any(|guard| guard.covers(*key)));
            touched.read.retain(|key| !touched.changed.contains(key) && read.insert(*key));
            touched.read.retain(|key| !guards.iter().any(|guard| guard.covers(*key)));
            if touched.changed.is_empty() && touched.read.is_empty() {
                return Ok(guards);
            }
            if !touched.changed.is_empty() {
                guards.push(leader.begin_change(session, touched.changed).await?);
            }
            for key in touched.read {
                leader.take_down(session, key).await?;
            }
        }
    }

    fn touched(&self, tree: TreeId, ops: &[Op]) -> Result<Touched, Fail> {
        let mut touched = Touched::default();
        self.state.view(|view| ops.iter().try_for_each(|op| touch(view, tree, op, &mut touched)))?;
        touched.changed.sort_unstable();
        touched.changed.dedup();
        Ok(touched)
    }

    /// The hold that was asked for on the one inode the change made or touched.
    ///
    /// A lease may be granted only if the attributes in the reply are the newest: another session's change may have
    /// come right behind. So the state is looked at once more after the grant, and what is older is not granted.
    async fn grant_after(
        &self,
        leader: &Leader,
        tree: TreeId,
        change: &Change,
        reply: &BatchReply,
    ) -> Result<Option<Claim>, Fail> {
        let BatchReply::Done(replies) = reply else { return Ok(None) };
        let Some((ino, version)) = replies.iter().rev().find_map(attr_of) else { return Ok(None) };
        // Deposed meanwhile: the change was made, only nothing can be granted any more.
        let Ok(Some(claim)) = leader.acquire(change.session, key(tree, ino), change.want).await else {
            return Ok(None);
        };
        let newest = self.state.view(|view| view.attr(tree, ino));
        if newest.is_ok_and(|newest| newest.version == version) {
            return Ok(Some(claim));
        }
        // The mark that it is open stays; the lease goes back at once.
        let hold = leader.take_back(change.session, key(tree, ino), claim, true);
        Ok(Some(Claim { hold, ..claim }))
    }
}

fn attr_of(reply: &OpReply) -> Option<(Ino, u64)> {
    match reply {
        OpReply::Entry { attr, .. }
        | OpReply::Attr(attr)
        | OpReply::Written { attr, .. }
        | OpReply::Copied { attr, .. } => Some((attr.ino, attr.version)),
        OpReply::Removed { .. }
        | OpReply::Renamed { .. }
        | OpReply::LockHeld(_)
        | OpReply::Reserved { .. }
        | OpReply::Done => None,
    }
}

/// The inode and the length that an operation makes sure of.
fn allocates(op: &Op) -> Option<(Ino, u64)> {
    match op {
        Op::Fallocate { ino, mode: FallocateMode::Allocate { .. } | FallocateMode::Zero { .. }, len, .. } => {
            Some((*ino, *len))
        }
        _ => None,
    }
}

/// What is let through when the disk under the log is nearly full.
pub(super) fn is_for_space<'a>(ops: impl IntoIterator<Item = &'a Op>) -> bool {
    ops.into_iter().all(frees)
}

fn frees(op: &Op) -> bool {
    match op {
        Op::Unlink { .. } | Op::Rmdir { .. } | Op::Lock(_) | Op::UnlockOwner { .. } | Op::SetLocks { .. } => true,
        // One that sets nothing rides with a removal, to ask for the directory as it is afterwards.
        Op::SetAttr { set, .. } => set.size.is_some() || *set == SetAttr::default(),
        Op::Fallocate { mode, .. } => *mode == FallocateMode::Punch,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::attr::SetTime;
    use crate::types::name::Name;

    #[test]
    fn a_removal_passes_on_a_full_disk_with_the_question_that_rides_with_it() {
        let unlink = || Op::Unlink { dir: Ino::ROOT, name: Name::new(b"f").unwrap() };
        let set = |set: SetAttr| Op::SetAttr { ino: Ino::ROOT, set };
        assert!(is_for_space(&[unlink(), set(SetAttr::default())]));
        assert!(is_for_space(&[set(SetAttr { size: Some(0), ..SetAttr::default() })]));
        assert!(!is_for_space(&[unlink(), set(SetAttr { mtime: Some(SetTime::Now), ..SetAttr::default() })]));
    }
}
