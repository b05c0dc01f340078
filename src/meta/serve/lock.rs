//! Waiting for file locks.
//!
//! A session may decide about the locks of an inode by itself: while it has a Write lease, nobody else has a lock, and nobody
//! waits for one. So whoever asks about locks recalls the Write leases of others first.
//!
//! A waiting request holds nothing: it looks whether the lock is free, and if so takes it under the inode's name lock,
//! so that look and command cannot be parted by another. It ends when the lock is had, when it is cancelled, when the
//! session ends, when the caller is gone, or, for a lock on a range, when owners wait for one another in a circle.

use super::change::Change;
use super::{Fail, Shared, plain};
use crate::meta::leader::key;
use crate::meta::state::View;
use crate::meta::waiting::Wait;
use crate::net::Replier;
use crate::types::error::FsError;
use crate::types::id::{Ino, SessionId};
use crate::types::lock::{LockRequest, LockSpace};
use crate::types::op::Op;
use crate::types::session::Hold;
use crate::wire::meta::{MetaBody, MetaReply};

impl Shared {
    pub(super) async fn test_lock(&self, session: SessionId, request: &LockRequest) -> Result<MetaReply, Fail> {
        let leader = self.lead()?;
        leader.settled().await?;
        let tree = leader.heard(session)?;
        leader.take_down(session, key(tree, request.ino)).await?;
        let held = self.read(|view| view.test_lock(tree, session, request)).await?;
        Ok(plain(MetaBody::Lock(held)))
    }

    /// What the session holds on an inode, if it may decide about its locks from now on for as long as its Write lease holds.
    pub(super) async fn own_locks(&self, session: SessionId, ino: Ino) -> Result<MetaReply, Fail> {
        let leader = self.lead()?;
        leader.settled().await?;
        let tree = leader.heard(session)?;
        // Whoever is about to take one has it then.
        let _name = leader.names.lock(tree, [(ino, b"".as_slice())]).await;
        let own = self.read(|view| view.own_locks(tree, session, ino)).await?;
        let decides = leader.lacking(session, &[key(tree, ino)], &[]).is_none() && !self.waiting.on(tree, ino);
        Ok(plain(MetaBody::OwnLocks(own.filter(|_| decides))))
    }

    pub(super) async fn wait_lock(
        &self,
        session: SessionId,
        sequence: u64,
        acknowledged: u64,
        request: LockRequest,
        replier: &Replier,
    ) -> Result<MetaReply, Fail> {
        let leader = self.lead()?;
        leader.settled().await?;
        let change =
            Change { session, sequence, acknowledged, ops: vec![Op::Lock(request.clone())], want: Hold::default() };
        let mut unlocked = leader.watch_locks();
        let place = (leader.tree_of(session)?, request.ino);
        let mut waiter = self.waiting.enter(session, sequence, place);
        loop {
            let tree = leader.tree_of(session)?;
            unlocked.mark_unchanged();
            {
                let _name = leader.names.lock(tree, [(request.ino, b"".as_slice())]).await;
                leader.take_down(session, key(tree, request.ino)).await?;
                let in_the_way = self.read(|view| view.test_lock(tree, session, &request)).await?;
                if in_the_way.is_none() {
                    let reply = self.apply_change(&leader, tree, &change).await?;
                    // Taking a lock may let go of another (a downgrade).
                    leader.locks_changed();
                    return Ok(reply);
                }
            }
            // Every time: a lock that another thread of an owner has got meanwhile can close a circle too.
            if request.space == LockSpace::Range {
                let wait = Wait { tree, session, request: request.clone() };
                let holders = |view: &View<'_>, wait: &Wait| view.lock_holders(wait.tree, wait.session, &wait.request);
                if !self.state.view(|view| waiter.wait_for(wait, |wait| holders(view, wait)))? {
                    return Err(FsError::Deadlock.into());
                }
            }
            tokio::select! {
                _ = unlocked.changed() => {}
                () = waiter.wait() => return Err(FsError::Interrupted.into()),
                () = replier.closed() => return Err(FsError::Interrupted.into()),
                () = leader.deposed() => return Err(Fail::NotLeader(None)),
            }
        }
    }
}
