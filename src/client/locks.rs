//! File locks. They live with the leader, in the replicated state; nothing is cached but a note of which owners may hold
//! any, which saves a round trip for every close of a file that was never locked.

use std::collections::HashSet;
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

/// Owners that may hold a lock.
#[derive(Default)]
pub struct LockNotes {
    held: Mutex<HashSet<(Ino, LockSpace, u64)>>,
}

impl LockNotes {
    pub fn clear(&self) {
        self.held.lock().clear();
    }

    fn note(&self, ino: Ino, space: LockSpace, owner: u64) {
        self.held.lock().insert((ino, space, owner));
    }

    fn take(&self, ino: Ino, space: LockSpace, owner: u64) -> bool {
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
            Some(OpReply::LockHeld(_)) if wait => self.wait_lock(request(ino, call)).await,
            Some(OpReply::LockHeld(_)) => Err(FsError::WouldBlock),
            _ => Ok(()),
        }
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
