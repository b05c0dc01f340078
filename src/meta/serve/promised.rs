//! What of a quota was promised to sessions, when a change does not fit besides it, or a volume that becomes smaller: it is asked
//! back.
//!
//! In this order: the state refuses the change ([`FsError::Promised`]), and its names are free; nothing more is promised for a
//! while; the sessions are told; they give back what they do not need, by `Op::Reserve`; the change is answered, and its
//! client tries again. What is left when nothing is promised any more is for the state to say.

use std::time::Duration;

use tokio::time::Instant;

use super::change::Change;
use super::{Fail, Shared};
use crate::meta::leader::Leader;
use crate::meta::state::{StateError, View};
use crate::types::allowance::Allowance;
use crate::types::error::FsError;
use crate::types::id::{SessionId, TreeId};
use crate::types::op::{BatchReply, Op};
use crate::types::volume::VolumeChange;
use crate::wire::meta::{MetaBody, MetaReply};

/// What a session has added and not shipped it keeps: its data may be on its way to a store that is slow. With all tries of a client
/// below the patience with recalls, for which it may be wanted.
const PATIENCE: Duration = Duration::from_secs(2);
/// Look again: an event is lost with its stream.
const TICK: Duration = Duration::from_millis(500);

/// The change would have fitted if nothing had been promised.
pub(super) fn was_promised(reply: &Result<MetaReply, Fail>) -> bool {
    match reply {
        Ok(MetaReply { body: MetaBody::Changed(BatchReply::Failed { error, .. }), .. }) | Err(Fail::Fs(error)) => {
            *error == FsError::Promised
        }
        _ => false,
    }
}

impl Shared {
    /// Where quotas are scarce nobody is promised more than it was.
    pub(super) fn promise_nothing_scarce(
        &self,
        leader: &Leader,
        tree: TreeId,
        change: &mut Change,
    ) -> Result<(), Fail> {
        for op in &mut change.ops {
            if let Op::Reserve { upto, .. } = op
                && leader.promises.are_scarce(tree, Instant::now())
            {
                *upto = upto.at_most(self.state.view(|view| view.allowance(change.session))?);
            }
        }
        Ok(())
    }

    /// Gets back what was promised, until `more` fits or nothing is left of it.
    pub(super) async fn gather_promised(
        &self,
        leader: &Leader,
        tree: TreeId,
        session: SessionId,
        more: Allowance,
    ) -> Result<(), Fail> {
        let fits = |view: &View<'_>| {
            let policy = view.volume(view.session(session)?.volume)?.policy;
            let mut taken = view.taken(tree)?;
            // Its own bytes come out of its own allowance; the inodes that the leader numbers do not.
            let own = Allowance { inodes: 0, ..view.allowance(session)? };
            taken.promised = taken.promised.less(own);
            Ok(taken.leaves(more, &policy))
        };
        self.gather_until(leader, tree, fits).await
    }

    /// The same, until it fits into what the volume is to be.
    pub(super) async fn gather_for_change(
        &self,
        leader: &Leader,
        name: &str,
        change: &VolumeChange,
    ) -> Result<(), Fail> {
        let Some(mut volume) = self.state.view(|view| view.volume_by_name(name))? else {
            return Err(FsError::NotFound.into());
        };
        volume.change(change.clone()).map_err(Fail::Refused)?;
        let fits = |view: &View<'_>| Ok(view.taken(volume.tree)?.leaves(Allowance::default(), &volume.policy));
        self.gather_until(leader, volume.tree, fits).await
    }

    async fn gather_until(
        &self,
        leader: &Leader,
        tree: TreeId,
        fits: impl Fn(&View<'_>) -> Result<bool, StateError>,
    ) -> Result<(), Fail> {
        let begun = Instant::now();
        let waits = |view: &View<'_>| if fits(view)? { Ok(Vec::new()) } else { view.promised_to(tree) };
        let mut changes = leader.promises.watch();
        while begun.elapsed() < PATIENCE {
            leader.promises.note_scarce(tree, Instant::now());
            changes.mark_unchanged();
            let holders = self.state.view(waits)?;
            if holders.is_empty() {
                break;
            }
            if leader.promises.may_ask(tree, Instant::now()) {
                leader.ask_to_spare(&holders);
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep(TICK) => {}
                () = leader.deposed() => return Err(FsError::Unreachable.into()),
            }
        }
        Ok(())
    }
}
