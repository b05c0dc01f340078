//! File locks. They live with the leader, in the replicated state; nothing is cached but a note of which owners may hold
//! any, which saves a round trip for every close of a file that was never locked.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::api::{LockCall, Result};
use super::core::{Core, Touch};
use crate::remote::session::MetaSession;
use crate::types::error::FsError;
use crate::types::id::Ino;
use crate::types::lock::{Lock, LockRange, LockRequest, LockSpace};
use crate::types::op::{Op, OpReply};

/// A wait whose sequence has fallen this far behind is renewed: the servers keep the replies of all later ones.
const BEHIND_MAX: u64 = 4_096;
const CHECK: Duration = Duration::from_secs(5);

type OwnerKey = (Ino, LockSpace, u64);

/// Who may hold a lock, and who does.
#[derive(Default)]
pub struct LockNotes {
    /// Owners that may hold one: noted before it is asked for.
    held: Mutex<HashSet<OwnerKey>>,
    /// What was granted and not dropped as a whole since.
    granted: Mutex<HashMap<OwnerKey, Vec<LockRange>>>,
}

impl LockNotes {
    /// Nobody holds any. Returns the inodes on which somebody did.
    pub fn lose(&self) -> HashSet<Ino> {
        self.held.lock().clear();
        self.granted.lock().drain().map(|((ino, ..), _)| ino).collect()
    }

    /// A lock was granted, or one dropped.
    fn settle(&self, ino: Ino, call: &LockCall) {
        let mut granted = self.granted.lock();
        let key = (ino, call.space, call.owner);
        let ranges = granted.entry(key).or_default();
        ranges.retain(|range| range.start < call.range.start || range.end > call.range.end);
        if call.mode.is_some() {
            ranges.push(call.range);
        }
        if ranges.is_empty() {
            granted.remove(&key);
        }
    }

    fn note(&self, ino: Ino, space: LockSpace, owner: u64) {
        self.held.lock().insert((ino, space, owner));
    }

    fn take(&self, ino: Ino, space: LockSpace, owner: u64) -> bool {
        self.granted.lock().remove(&(ino, space, owner));
        self.held.lock().remove(&(ino, space, owner))
    }
}

/// Gives up a wait when the waiter goes away.
struct Waiting<'a> {
    core: &'a Arc<Core>,
    session: Arc<MetaSession>,
    sequence: u64,
    armed: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.armed {
            let (session, sequence) = (self.session.clone(), self.sequence);
            self.core.runtime.spawn(async move { session.cancel_lock(sequence).await });
        }
    }
}

/// Gives a lock back when its taker goes away.
struct Taken<'a> {
    core: &'a Arc<Core>,
    request: LockRequest,
    armed: bool,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if self.armed {
            let (core, unlock) = (self.core.clone(), LockRequest { mode: None, ..self.request.clone() });
            let LockRequest { space, owner, mode, range, pid, .. } = unlock;
            let dropped = LockCall { space, owner, mode, range, pid };
            core.locks.settle(unlock.ino, &dropped);
            let unlocking = async move {
                // A session that is gone has no locks.
                let _ = core.change(vec![Op::Lock(unlock)], Touch::default(), Box::new(|_, _, _| {})).await;
            };
            self.core.runtime.spawn(unlocking);
        }
    }
}

impl Core {
    pub async fn getlk(&self, ino: Ino, call: LockCall) -> Result<Option<Lock>> {
        let request = request(ino, call);
        let ask = |session: Arc<MetaSession>| {
            let request = request.clone();
            async move { session.test_lock(request).await }
        };
        self.ask(ask).await.result
    }

    pub async fn setlk(self: &Arc<Self>, ino: Ino, call: LockCall, wait: bool) -> Result<()> {
        if call.mode.is_some() {
            self.locks.note(ino, call.space, call.owner);
        }
        let tried = self.change(vec![Op::Lock(request(ino, call))], Touch::default(), Box::new(|_, _, _| {})).await?;
        match tried.first() {
            Some(OpReply::LockHeld(_)) if wait => self.wait_lock(request(ino, call)).await?,
            Some(OpReply::LockHeld(_)) => return Err(FsError::WouldBlock),
            _ => {}
        }
        self.locks.settle(ino, &call);
        if call.mode.is_some() {
            self.locked(request(ino, call)).await;
        }
        Ok(())
    }

    /// Who has a lock sees, in mappings too, what was written under it before. A caller that gives up meanwhile is never
    /// told that it has the lock, and so must not keep it.
    async fn locked(self: &Arc<Self>, request: LockRequest) {
        let Some(node) = self.nodes.find(request.ino) else { return };
        let mut taken = Taken { core: self, request, armed: true };
        self.drop_uncovered(&node).await;
        taken.armed = false;
    }

    async fn wait_lock(self: &Arc<Self>, request: LockRequest) -> Result<()> {
        loop {
            let session = self.session();
            let ticket = session.ticket();
            let sequence = ticket.sequence();
            let mut waiting = Waiting { core: self, session: session.clone(), sequence, armed: true };
            let answer = session.wait_lock(&ticket, request.clone());
            tokio::pin!(answer);
            let mut renewing = false;
            let answer = loop {
                tokio::select! {
                    answer = &mut answer => break answer,
                    () = tokio::time::sleep(CHECK), if !renewing => {
                        if ticket.behind() > BEHIND_MAX {
                            renewing = true;
                            session.cancel_lock(sequence).await;
                        }
                    }
                }
            };
            waiting.armed = false;
            match answer.result {
                Err(FsError::Interrupted) if renewing => {}
                Err(FsError::SessionExpired) if !answer.uncertain => self.renewed(&session).await,
                result => return result,
            }
        }
    }

    /// Drops the locks of one owner on an inode, if it may hold any.
    pub async fn unlock_all(self: &Arc<Self>, ino: Ino, space: LockSpace, owner: u64) -> Result<()> {
        if !self.locks.take(ino, space, owner) {
            return Ok(());
        }
        let range = LockRange { start: 0, end: u64::MAX >> 1 };
        let unlock = LockRequest { ino, space, owner, mode: None, range, pid: 0 };
        self.change(vec![Op::Lock(unlock)], Touch::default(), Box::new(|_, _, _| {})).await.map(|_| ())
    }
}

fn request(ino: Ino, call: LockCall) -> LockRequest {
    let LockCall { space, owner, mode, range, pid } = call;
    LockRequest { ino, space, owner, mode, range, pid }
}
