//! What a session has done on its own: check that it could, and put it through the log.
//!
//! Nothing here waits for another session, and no name is locked: whoever wants to change or read the same waits for a
//! recall of this session's leases, which it answers after it has shipped. So the batch must change nothing on which the
//! session has no Write lease, and read nothing on which it has none at all. Holds on what it made are noted before the command is proposed: whoever finds a new
//! inode in the state finds its holder in the table.

use std::collections::HashSet;

use super::change::is_for_space;
use super::promised::was_promised;
use super::touch::{Touched, touch};
use super::{Fail, Shared, granting, unexpected};
use crate::meta::command::{Command, Outcome};
use crate::meta::lease::Key;
use crate::types::allowance::Allowance;
use crate::types::error::FsError;
use crate::types::id::{Ino, SessionId, TreeId};
use crate::types::limits::COMMAND_OPS_MAX;
use crate::types::op::{BatchReply, Dated, Op};
use crate::types::session::Claim;
use crate::types::xattr::check_name;
use crate::wire::meta::{MetaBody, MetaReply};

/// A batch as it came.
pub(super) struct Batch {
    pub session: SessionId,
    pub sequence: u64,
    pub acknowledged: u64,
    pub changes: Vec<Dated>,
}

impl Shared {
    /// # Errors
    /// `Stale` when it concerns something that the session has no Write lease on: nothing was done.
    pub(super) async fn ship(&self, batch: Batch) -> Result<MetaReply, Fail> {
        let leader = self.lead()?;
        leader.settled().await?;
        let Batch { session, sequence, acknowledged, changes } = batch;
        let tree = leader.heard(session)?;
        if changes.is_empty() || changes.len() > COMMAND_OPS_MAX {
            return Err(FsError::Invalid.into());
        }
        self.raft.read_barrier().await?;
        let answered = || self.state.view(|view| view.has_answered(session, sequence));
        if self.log_is_full() && !is_for_space(changes.iter().map(|change| &change.op)) && !answered()? {
            return Err(FsError::NoSpace.into());
        }
        let made: Vec<Key> = changes.iter().filter_map(|change| made(tree, &change.op)).collect();
        // What was done before is answered as it was then, whatever is held now.
        let claims: Vec<(Claim, bool)> = if answered()? {
            leader.held(session, &made).into_iter().map(|claim| (claim, false)).collect()
        } else {
            self.check(session, &changes)?;
            let used = self.used(tree, &changes, &made)?;
            if let Some((_, ino)) = leader.lacking(session, &used.changed, &used.read) {
                tracing::warn!(%session, %ino, "a session changed what it has no lease on; refused");
                return Err(FsError::Stale.into());
            }
            leader.grant_made(session, &made)
        };
        let more = Allowance::of(changes.iter().map(|change| &change.op));
        let unlocks = changes.iter().any(|change| matches!(change.op, Op::SetLocks { .. }));
        let outcome = self.propose(&Command::Ship { session, sequence, acknowledged, changes }).await?;
        leader.progressed(session);
        if unlocks {
            leader.locks_changed();
        }
        match outcome {
            Outcome::Changed(reply @ BatchReply::Done(_)) => {
                Ok(granting(MetaBody::Changed(reply), claims.into_iter().map(|(claim, _)| claim)))
            }
            outcome => {
                for (claim, _) in claims.into_iter().filter(|(_, is_new)| *is_new) {
                    leader.take_back(session, (tree, claim.ino), claim, false);
                }
                match outcome {
                    Outcome::Changed(reply) => {
                        let reply = Ok(granting(MetaBody::Changed(reply), []));
                        if was_promised(&reply) {
                            self.gather_promised(&leader, tree, session, more).await?;
                        }
                        reply
                    }
                    other => Err(unexpected(other)),
                }
            }
        }
    }

    /// Nothing but what a client does on its own, each a bounded piece of work; and inodes under numbers that are its own.
    fn check(&self, session: SessionId, changes: &[Dated]) -> Result<(), Fail> {
        if !changes.iter().all(|change| change.at.nsec < 1_000_000_000 && is_done_alone(&change.op)) {
            return Err(FsError::Invalid.into());
        }
        let numbers = changes.iter().filter_map(|change| match &change.op {
            Op::Create(create) => create.ino,
            _ => None,
        });
        let reserved = self.state.view(|view| view.reserved(session))?;
        let owns = |ino: Ino| reserved.iter().any(|(first, end)| (*first..*end).contains(&ino.0));
        if numbers.into_iter().all(owns) { Ok(()) } else { Err(FsError::Invalid.into()) }
    }

    /// The inodes that a batch concerns, but for those it makes.
    fn used(&self, tree: TreeId, changes: &[Dated], made: &[Key]) -> Result<Touched, Fail> {
        let mut touched = Touched::default();
        self.state.view(|view| changes.iter().try_for_each(|change| touch(view, tree, &change.op, &mut touched)))?;
        let made: HashSet<Key> = made.iter().copied().collect();
        for keys in [&mut touched.changed, &mut touched.read] {
            keys.retain(|key| !made.contains(key));
            keys.sort_unstable();
            keys.dedup();
        }
        Ok(touched)
    }
}

/// The inode that an operation makes under a number of the session's own.
fn made(tree: TreeId, op: &Op) -> Option<Key> {
    match op {
        Op::Create(create) => create.ino.map(|ino: Ino| (tree, ino)),
        _ => None,
    }
}

fn is_done_alone(op: &Op) -> bool {
    match op {
        Op::Create(create) => create.exclusive && create.ino.is_some(),
        Op::SetAttr { set, .. } => set.size.is_none_or(|size| size == 0),
        Op::Link { .. } | Op::Unlink { .. } | Op::Rmdir { .. } | Op::Rename { .. } => true,
        // ACLs change the mode too.
        Op::SetXattr { name, .. } | Op::RemoveXattr { name, .. } => check_name(name).is_ok(),
        Op::Write(_) | Op::CopyRange { .. } | Op::SetLocks { .. } => true,
        _ => false,
    }
}
