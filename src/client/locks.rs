//! File locks. They live with the leader, in the replicated state, or here, while this client may decide about them
//! ([`super::arbiter`]). Which owners may hold any is noted, which saves a round trip for every close of a file that was never
//! locked.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::api::{LockCall, Result};
use super::core::{Core, Touch};
use super::inode::Node;
use super::kept::{Kept, Locker};
use crate::remote::session::{Answer, MetaSession};
use crate::types::error::FsError;
use crate::types::id::Ino;
use crate::types::lock::{Lock, LockRange, LockRequest, LockSpace};
use crate::types::op::{Op, OpReply};

/// A wait whose sequence has fallen this far behind is renewed: the servers keep the replies of all later ones.
const BEHIND_MAX: u64 = 4_096;
const CHECK: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(50);

const EVERYTHING: LockRange = LockRange { start: 0, end: u64::MAX >> 1 };

/// Who may hold a lock, and who does.
pub struct LockNotes {
    /// Owners that may hold one: noted before it is asked for.
    held: Mutex<HashSet<Locker>>,
    /// What was granted and not dropped as a whole since.
    granted: Mutex<HashMap<Locker, Vec<LockRange>>>,
    kept: Option<Arc<Kept>>,
    /// Who has dropped all, and of whom the leader may not have heard yet.
    leaving: Mutex<Vec<Locker>>,
}

impl LockNotes {
    /// With those that an earlier client has noted: any of them may hold a lock on all of a file.
    pub fn new(kept: Option<Arc<Kept>>) -> LockNotes {
        let lockers = kept.as_ref().map(|kept| kept.lockers()).unwrap_or_default();
        let granted = lockers.iter().map(|locker| (*locker, vec![EVERYTHING])).collect();
        LockNotes {
            held: Mutex::new(lockers.into_iter().collect()),
            granted: Mutex::new(granted),
            kept,
            leaving: Mutex::default(),
        }
    }

    /// Nobody holds any. Returns the inodes on which somebody did.
    pub fn lose(&self) -> HashSet<Ino> {
        self.held.lock().clear();
        self.kept.iter().for_each(|kept| kept.loses_locks());
        self.granted.lock().drain().map(|((ino, ..), _)| ino).collect()
    }

    /// A lock was granted, or one dropped.
    fn settle(&self, ino: Ino, call: &LockCall) {
        let mut granted = self.granted.lock();
        let key = (ino, call.space, call.owner);
        let ranges = granted.entry(key).or_default();
        *ranges = ranges.iter().flat_map(|range| without(*range, call.range)).collect();
        if call.mode.is_some() {
            ranges.push(call.range);
        }
        if ranges.is_empty() {
            granted.remove(&key);
        }
    }

    /// Another kind of `flock` is had by giving up the first, also when it is not had then.
    fn refused(&self, ino: Ino, call: &LockCall) {
        if call.space == LockSpace::Flock {
            self.granted.lock().remove(&(ino, call.space, call.owner));
        }
    }

    /// # Errors
    /// `NoSpace`: more have locks than can be kept.
    fn note(&self, ino: Ino, space: LockSpace, owner: u64) -> Result<()> {
        if self.held.lock().insert((ino, space, owner))
            && let Some(kept) = &self.kept
        {
            kept.may_lock((ino, space, owner))?;
        }
        Ok(())
    }

    fn take(&self, ino: Ino, space: LockSpace, owner: u64) -> bool {
        self.granted.lock().remove(&(ino, space, owner));
        self.held.lock().remove(&(ino, space, owner))
    }

    /// Nothing of it is held any more here; nor at the leader, unless something is on its way there.
    fn is_gone(&self, locker: Locker, on_its_way: bool) {
        match &self.kept {
            Some(_) if on_its_way => self.leaving.lock().push(locker),
            Some(kept) => kept.locks_no_more(locker),
            None => {}
        }
    }

    /// The leader has heard what was decided here about an inode.
    pub fn are_home(&self, ino: Ino) {
        let Some(kept) = &self.kept else { return };
        self.leaving.lock().retain(|locker| {
            let is_home = locker.0 == ino;
            // It may have locked something anew.
            if is_home && !self.held.lock().contains(locker) {
                kept.locks_no_more(*locker);
            }
            !is_home
        });
    }
}

/// A wait at the leader. Given up when the waiter goes away, and counted as under way until the leader has answered: it may
/// have been granted.
struct Waiting {
    core: Arc<Core>,
    session: Arc<MetaSession>,
    /// Once it has set out.
    sequence: Arc<OnceLock<u64>>,
    task: Option<JoinHandle<Waited>>,
}

/// What came of a wait, and whether it was cancelled to be begun again.
struct Waited {
    answer: Answer<()>,
    renewing: bool,
}

impl Waiting {
    fn begin(core: &Arc<Core>, node: &Arc<Node>, request: LockRequest) -> Waiting {
        let (session, sequence) = (core.session(), Arc::new(OnceLock::new()));
        let (call, told) = (core.at_leader(node), sequence.clone());
        let (asking, waiter, node) = (session.clone(), core.clone(), node.clone());
        let task = core.runtime.spawn(async move {
            // What was decided here since the lock was tried goes ahead: it stands in the place of all that is held.
            waiter.shipped(&node).await;
            let waited = wait_at_leader(&asking, &told, request).await;
            drop(call);
            waited
        });
        Waiting { core: core.clone(), session, sequence, task: Some(task) }
    }

    async fn end(mut self) -> Option<Waited> {
        let task = self.task.as_mut()?;
        let waited = task.await.ok();
        self.task = None;
        waited
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(mut task) = self.task.take() else { return };
        let (session, sequence) = (self.session.clone(), self.sequence.clone());
        self.core.runtime.spawn(async move {
            // A cancellation that comes before the request finds nothing.
            loop {
                if let Some(sequence) = sequence.get() {
                    session.cancel_lock(*sequence).await;
                }
                if tokio::time::timeout(AGAIN, &mut task).await.is_ok() {
                    return;
                }
            }
        });
    }
}

async fn wait_at_leader(session: &Arc<MetaSession>, told: &OnceLock<u64>, request: LockRequest) -> Waited {
    let ticket = session.ticket();
    let sequence = *told.get_or_init(|| ticket.sequence());
    let answer = session.wait_lock(&ticket, request);
    tokio::pin!(answer);
    let mut renewing = false;
    loop {
        tokio::select! {
            answer = &mut answer => return Waited { answer, renewing },
            () = tokio::time::sleep(CHECK), if !renewing => {
                if ticket.behind() > BEHIND_MAX {
                    renewing = true;
                    session.cancel_lock(sequence).await;
                }
            }
        }
    }
}

impl Core {
    pub async fn getlk(&self, ino: Ino, call: LockCall) -> Result<Option<Lock>> {
        let node = self.nodes.node(ino);
        if let Some(held) = self.test_lock_here(&node, &call) {
            return Ok(held);
        }
        let _call = self.at_leader(&node);
        self.shipped(&node).await;
        let request = request(ino, call);
        let ask = |session: Arc<MetaSession>| {
            let request = request.clone();
            async move { session.test_lock(request).await }
        };
        self.ask(ask).await.result
    }

    pub async fn setlk(self: &Arc<Self>, ino: Ino, call: LockCall, wait: bool) -> Result<()> {
        if call.mode.is_some() {
            self.locks.note(ino, call.space, call.owner)?;
        }
        let node = self.nodes.node(ino);
        match self.try_here(&node, &call).await {
            Some(Ok(())) => {
                self.locks.settle(ino, &call);
                return Ok(());
            }
            Some(Err(_)) if !wait => {
                self.locks.refused(ino, &call);
                return Err(FsError::WouldBlock);
            }
            _ => {}
        }
        let tried = self.lock_at_leader(&node, request(ino, call)).await?;
        if let Some(OpReply::LockHeld(_)) = tried.first() {
            self.locks.refused(ino, &call);
            if !wait {
                return Err(FsError::WouldBlock);
            }
            self.wait_lock(&node, request(ino, call)).await?;
        }
        self.locks.settle(ino, &call);
        Ok(())
    }

    /// After what was decided here, which may be on its way: the last word about a lock is the last that was said.
    async fn lock_at_leader(self: &Arc<Self>, node: &Arc<Node>, request: LockRequest) -> Result<Vec<OpReply>> {
        let call = self.at_leader(node);
        self.shipped(node).await;
        // Under way for as long as the change is, whoever still waits for it.
        self.change(vec![Op::Lock(request)], Touch::default(), Box::new(move |_, _, _| drop(call))).await
    }

    /// As [`Core::lock_here`], after asking for it when that may be had.
    async fn try_here(&self, node: &Arc<Node>, call: &LockCall) -> Option<std::result::Result<(), Lock>> {
        let done = self.lock_here(node, call);
        if done.is_some() || call.mode.is_none() {
            return done;
        }
        self.come_to_decide(node).await;
        self.lock_here(node, call)
    }

    /// A lock on this inode was granted. Who has it sees, in mappings too, what was written under it before.
    pub async fn locked(self: &Arc<Self>, ino: Ino) {
        if let Some(node) = self.nodes.find(ino) {
            self.drop_uncovered(&node).await;
        }
    }

    async fn wait_lock(self: &Arc<Self>, node: &Arc<Node>, request: LockRequest) -> Result<()> {
        loop {
            let waiting = Waiting::begin(self, node, request.clone());
            let session = waiting.session.clone();
            let Some(Waited { answer, renewing }) = waiting.end().await else { return Err(FsError::Io) };
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
        let unlock = LockCall { space, owner, mode: None, range: EVERYTHING, pid: 0 };
        let node = self.nodes.node(ino);
        if self.lock_here(&node, &unlock).is_none() {
            let unlocked = self.lock_at_leader(&node, request(ino, unlock)).await;
            if let Err(error) = unlocked {
                self.locks.note(ino, space, owner)?;
                return Err(error);
            }
        }
        let on_its_way = node.lock().pending > 0;
        self.locks.is_gone((ino, space, owner), on_its_way);
        Ok(())
    }
}

fn request(ino: Ino, call: LockCall) -> LockRequest {
    let LockCall { space, owner, mode, range, pid } = call;
    LockRequest { ino, space, owner, mode, range, pid }
}

/// What is left of a range.
fn without(range: LockRange, gone: LockRange) -> impl Iterator<Item = LockRange> {
    let apart = gone.end < range.start || range.end < gone.start;
    let before = (apart || range.start < gone.start)
        .then(|| LockRange { start: range.start, end: if apart { range.end } else { gone.start - 1 } });
    let after = (!apart && gone.end < range.end).then(|| LockRange { start: gone.end + 1, end: range.end });
    before.into_iter().chain(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(start: u64, end: u64) -> Vec<(u64, u64)> {
        let range = LockRange { start: 10, end: 19 };
        without(range, LockRange { start, end }).map(|range| (range.start, range.end)).collect()
    }

    #[test]
    fn what_is_unlocked_is_taken_out_of_what_is_held() {
        assert_eq!(left(0, 9), [(10, 19)]);
        assert_eq!(left(20, 30), [(10, 19)]);
        assert_eq!(left(0, 30), []);
        assert_eq!(left(10, 12), [(13, 19)]);
        assert_eq!(left(15, 19), [(10, 14)]);
        assert_eq!(left(13, 15), [(10, 12), (16, 19)]);
    }
}
