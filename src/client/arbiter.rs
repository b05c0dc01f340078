//! Locks that are decided about here: by a client that has a Write lease on an inode on which nobody else has a lock or waits
//! for one.
//!
//! Whoever else asks about the locks of the inode recalls the lease, and what was decided is at the leader before it ends
//! ([`Core::send_locks_home`], [`Op::SetLocks`]). From then on the leader decides. It also does when two processes here are in
//! each other's way: whoever waits for a lock waits there.
//!
//! The order in which a client comes to decide: the leader says that it may, and what the client holds; meanwhile the lease
//! has not ended, and none of its other calls about these locks was under way.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::api::LockCall;
use super::core::Core;
use super::inode::{Node, State};
use super::journal::Change;
use super::kept::Kept;
use crate::types::id::{Ino, SessionId};
use crate::types::lock::{Lock, LockOwner, LockSpace, OwnLock};
use crate::types::locking;
use crate::types::op::Op;

/// So many locks on one inode are decided about here.
const LOCKS_MAX: usize = 1024;
/// After locks went home the leader decides for so long.
const PAUSE: Duration = Duration::from_secs(1);
/// All owners are of this client.
const HERE: SessionId = SessionId(0);

/// Of one inode.
#[derive(Debug, Default)]
pub struct Arbiter {
    /// `None`: the leader decides.
    here: Option<Table>,
    /// Calls about the locks that are under way at the leader.
    calls: u32,
    /// Counts what makes an earlier answer of the leader old.
    turns: u64,
    not_before: Option<Instant>,
}

#[derive(Debug, Default)]
struct Table {
    flocks: Vec<Lock>,
    ranges: Vec<Lock>,
    /// The leader has locks of this client on the inode, these or others.
    at_leader: bool,
}

impl Table {
    fn of(own: &[OwnLock]) -> Table {
        let mut table = Table { at_leader: !own.is_empty(), ..Table::default() };
        for OwnLock { space, owner, mode, range, pid } in own.iter().copied() {
            table.space(space).push(Lock { owner: LockOwner { session: HERE, owner }, mode, range, pid });
        }
        table
    }

    fn space(&mut self, space: LockSpace) -> &mut Vec<Lock> {
        match space {
            LockSpace::Flock => &mut self.flocks,
            LockSpace::Range => &mut self.ranges,
        }
    }

    fn len(&self) -> usize {
        self.flocks.len() + self.ranges.len()
    }

    fn own(&self) -> Vec<OwnLock> {
        let of = |space| {
            move |Lock { owner, mode, range, pid }: &Lock| OwnLock {
                space,
                owner: owner.owner,
                mode: *mode,
                range: *range,
                pid: *pid,
            }
        };
        let flocks = self.flocks.iter().map(of(LockSpace::Flock));
        flocks.chain(self.ranges.iter().map(of(LockSpace::Range))).collect()
    }
}

impl Arbiter {
    /// Of an inode that was just made here: nobody has a lock on it.
    pub fn made_here(&mut self) {
        self.here = Some(Table::default());
    }

    /// Takes or drops a lock. `None`: the leader is to do it. An error: the lock that is in the way.
    fn decide(&mut self, call: &LockCall) -> Option<Result<(), Lock>> {
        let table = self.here.as_mut().filter(|table| table.len() < LOCKS_MAX)?;
        let range = locking::range(call.space, call.range).ok()?;
        let owner = LockOwner { session: HERE, owner: call.owner };
        let held = table.space(call.space);
        Some(match call.mode {
            Some(mode) => locking::acquire(held, call.space, Lock { owner, mode, range, pid: call.pid }),
            None => {
                locking::release(held, owner, range);
                Ok(())
            }
        })
    }

    /// The lock that is in the way of one. `None`: the leader is to say.
    fn test(&mut self, call: &LockCall) -> Option<Option<Lock>> {
        let owner = LockOwner { session: HERE, owner: call.owner };
        let held = self.here.as_mut()?.space(call.space);
        Some(call.mode.and_then(|mode| locking::conflict(held, call.space, owner, mode, call.range).copied()))
    }

    /// What is held here, if it is decided here.
    fn own(&self) -> Vec<OwnLock> {
        self.here.as_ref().map(Table::own).unwrap_or_default()
    }

    /// What an earlier client on this mount has decided. What the leader knows of it nobody can say.
    pub fn takes_up(&mut self, own: &[OwnLock]) {
        self.here = Some(Table { at_leader: true, ..Table::of(own) });
    }

    /// Nothing is held any more of what the leader has: it is to be told, once.
    fn is_all_dropped(&mut self) -> bool {
        self.here.as_mut().is_some_and(|table| table.len() == 0 && std::mem::take(&mut table.at_leader))
    }

    /// The leader decides from now on. What it is to be told, unless it knows.
    fn leave(&mut self) -> Option<Vec<OwnLock>> {
        self.turns += 1;
        let table = self.here.take()?;
        let home = (table.at_leader || table.len() > 0).then(|| table.own());
        self.rest();
        home
    }

    /// The leader decides for a while.
    fn rest(&mut self) {
        self.not_before = Some(Instant::now() + PAUSE);
    }

    /// The lease has ended. `true`: with locks that the leader does not know of.
    pub fn end(&mut self) -> bool {
        self.leave().is_some()
    }

    /// There is nothing to tell the leader.
    pub fn is_settled(&self) -> bool {
        self.calls == 0 && self.here.as_ref().is_none_or(|table| table.len() == 0 && !table.at_leader)
    }

    fn may_come(&self) -> bool {
        self.calls == 0 && self.not_before.is_none_or(|at| Instant::now() >= at)
    }

    /// The leader has said that this client may decide, when asked in the turn given.
    fn come(&mut self, turn: u64, own: &[OwnLock]) {
        if self.comes(turn) {
            self.here = Some(Table::of(own));
        }
    }

    /// What the leader said when it was asked in this turn still holds.
    fn comes(&self, turn: u64) -> bool {
        self.calls == 0 && self.turns == turn && self.here.is_none()
    }
}

/// A call about locks that is under way at the leader.
pub struct AtLeader {
    node: Arc<Node>,
}

impl Drop for AtLeader {
    fn drop(&mut self) {
        let mut state = self.node.lock();
        state.arbiter.calls -= 1;
        state.arbiter.turns += 1;
    }
}

impl Core {
    /// Takes or drops a lock here. `None`: the leader is to do it. An error: the lock that is in the way.
    pub fn lock_here(&self, node: &Arc<Node>, call: &LockCall) -> Option<Result<(), Lock>> {
        let mut state = node.lock();
        if !self.may_decide(&state) {
            return None;
        }
        let before = self.config.kept.as_ref().map(|_| state.arbiter.own());
        let done = state.arbiter.decide(call)?;
        if let (Some(kept), Some(before)) = (&self.config.kept, before)
            && kept.locks_become(node.ino, &before, &state.arbiter.own()).is_err()
        {
            // Who comes after this client would not know of it.
            self.send_locks_home(node, &mut state);
        }
        if state.arbiter.is_all_dropped() {
            self.tell_locks(node, &mut state, Vec::new());
        }
        Some(done)
    }

    /// The leader has been told of locks that were decided here.
    pub fn locks_are_home(&self, ino: Ino, locks: &[OwnLock]) {
        let Some(kept) = &self.config.kept else { return };
        let node = self.nodes.node(ino);
        let state = node.lock();
        self.locks.are_home(ino);
        // It may have come back meanwhile, with them.
        let now = state.arbiter.own();
        if kept.locks_become(ino, locks, &now).is_err() {
            tracing::warn!(%ino, "there is no room to keep locks for the next client");
        }
    }

    /// The lock that is in the way of one. `None`: the leader is to say.
    pub fn test_lock_here(&self, node: &Node, call: &LockCall) -> Option<Option<Lock>> {
        let mut state = node.lock();
        if self.may_decide(&state) { state.arbiter.test(call) } else { None }
    }

    fn may_decide(&self, state: &State) -> bool {
        state.owned(&self.life) && state.held.may_ask()
    }

    /// Asks whether locks may be decided about here, if there is a prospect.
    pub async fn come_to_decide(&self, node: &Node) {
        let turn = {
            let state = node.lock();
            if !self.may_decide(&state) || !state.arbiter.may_come() {
                return;
            }
            state.arbiter.turns
        };
        // What went home before is to be counted.
        self.shipped(node).await;
        let ino: Ino = node.ino;
        let told = self.ask(|session| async move { session.own_locks(ino).await }).await;
        let mut state = node.lock();
        match told.result {
            Ok(Some(own)) if self.may_decide(&state) => {
                let is_kept = |kept: &Arc<Kept>| kept.locks_become(node.ino, &[], &own).is_ok();
                if state.arbiter.comes(turn) && self.config.kept.as_ref().is_none_or(is_kept) {
                    state.arbiter.come(turn, &own);
                }
            }
            // Others have locks: not to be asked with every lock.
            Ok(None) => state.arbiter.rest(),
            _ => {}
        }
    }

    /// Before a call about locks goes to the leader, which decides from now on.
    pub fn at_leader(&self, node: &Arc<Node>) -> AtLeader {
        let mut state = node.lock();
        self.send_locks_home(node, &mut state);
        state.arbiter.calls += 1;
        AtLeader { node: node.clone() }
    }

    /// The leader decides from now on. What was decided here is on its way to it, ahead of whatever comes later.
    pub fn send_locks_home(&self, node: &Arc<Node>, state: &mut State) {
        if let Some(locks) = state.arbiter.leave() {
            self.tell_locks(node, state, locks);
        }
    }

    fn tell_locks(&self, node: &Arc<Node>, state: &mut State, locks: Vec<OwnLock>) {
        let change = Change::Op(Op::SetLocks { ino: node.ino, locks });
        self.append(self.clock.now(), change, &[node], &mut [state]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::lock::{LockMode, LockRange};

    fn call(owner: u64, mode: Option<LockMode>, start: u64, end: u64) -> LockCall {
        LockCall { space: LockSpace::Range, owner, mode, range: LockRange { start, end }, pid: 1 }
    }

    const EXCLUSIVE: Option<LockMode> = Some(LockMode::Exclusive);

    #[test]
    fn what_is_held_here_is_in_the_way_here_and_goes_home() {
        let mut arbiter = Arbiter::default();
        assert!(arbiter.decide(&call(1, EXCLUSIVE, 0, 9)).is_none(), "the leader decides");
        arbiter.made_here();
        assert_eq!(arbiter.decide(&call(1, EXCLUSIVE, 0, 9)), Some(Ok(())));
        assert!(arbiter.decide(&call(2, EXCLUSIVE, 9, 9)).unwrap().is_err());
        assert_eq!(arbiter.test(&call(2, EXCLUSIVE, 9, 9)).unwrap().map(|lock| lock.owner.owner), Some(1));
        assert!(!arbiter.is_settled());
        let home = arbiter.leave().unwrap();
        assert_eq!(home.iter().map(|lock| (lock.owner, lock.range.end)).collect::<Vec<_>>(), [(1, 9)]);
        assert!(arbiter.leave().is_none() && arbiter.is_settled());
    }

    #[test]
    fn what_the_leader_has_and_nobody_holds_is_told_once() {
        let mut arbiter = Arbiter::default();
        let range = LockRange { start: 0, end: 9 };
        let own = OwnLock { space: LockSpace::Range, owner: 1, mode: LockMode::Exclusive, range, pid: 1 };
        arbiter.come(0, &[own]);
        assert!(!arbiter.is_all_dropped());
        assert_eq!(arbiter.decide(&call(1, None, 0, 99)), Some(Ok(())));
        assert!(arbiter.is_all_dropped());
        assert!(!arbiter.is_all_dropped() && arbiter.leave().is_none());
    }

    #[test]
    fn an_answer_from_before_a_turn_is_void() {
        let mut arbiter = Arbiter::default();
        let turn = arbiter.turns;
        arbiter.end();
        arbiter.come(turn, &[]);
        assert!(arbiter.here.is_none(), "the lease has ended in between");
        arbiter.calls = 1;
        arbiter.come(arbiter.turns, &[]);
        assert!(arbiter.here.is_none(), "another call is under way");
    }
}
