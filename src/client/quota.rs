//! What of the volume's quotas is set aside for this client ([`Allowance`]): so much it may add and say so later. Pure.
//!
//! The leader counts down what it set aside as it is told of additions; here it is counted down when the answers come, so
//! that here is never more than there. An addition whose answer crossed another word of the leader is counted twice, until the
//! next word.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::types::allowance::Allowance;
use crate::types::limits::JOURNAL_RECORDS_MAX;
use crate::types::record::VolumePolicy;

/// Inodes to have set aside: what waits in the journal, and as many again while that is shipped.
const INODES: u64 = 2 * JOURNAL_RECORDS_MAX as u64;
/// When less was to be had than wanted, the leader is not asked for more for so long,
const PAUSE: Duration = Duration::from_millis(100);
/// and when others had need of it.
const SPARED_PAUSE: Duration = Duration::from_secs(2);

pub struct Quota {
    /// Nothing of what the volume has no quota on: it need not be counted.
    wanted: Allowance,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    has: Allowance,
    /// Inodes that were made here and are not at the leader.
    making: u64,
    /// Additions that were answered since the leader was asked: what it says may lack them.
    added: Allowance,
    not_before: Option<Instant>,
    sparing: bool,
}

/// An inode may be made. Dropped without [`Room::make`] it is not.
pub struct Room<'q> {
    quota: &'q Quota,
}

impl Quota {
    /// `dirty_bytes_max`: what this client keeps of writes at most.
    pub fn new(policy: &VolumePolicy, dirty_bytes_max: u64) -> Quota {
        let inodes = if policy.quota_inodes > 0 { INODES } else { 0 };
        let bytes = if policy.quota_bytes > 0 { 2 * dirty_bytes_max } else { 0 };
        Quota { wanted: Allowance { inodes, bytes }, state: Mutex::default() }
    }

    /// The volume has no quota.
    pub fn is_unbounded(&self) -> bool {
        self.wanted.is_none()
    }

    /// Room for an inode that is made here.
    pub fn room_for_inode(&self) -> Option<Room<'_>> {
        let mut state = self.state.lock();
        if self.wanted.inodes > 0 && state.making >= state.has.inodes {
            return None;
        }
        state.making += 1;
        Some(Room { quota: self })
    }

    /// There is room for so many bytes that the leader has not heard of.
    pub fn covers(&self, dirty_bytes: u64) -> bool {
        self.wanted.bytes == 0 || dirty_bytes <= self.state.lock().has.bytes
    }

    /// More is to be asked for.
    pub fn is_low(&self, dirty_bytes: u64, now: Instant) -> bool {
        if self.is_unbounded() {
            return false;
        }
        let state = self.state.lock();
        let left = state.has.less(Allowance { inodes: state.making, bytes: dirty_bytes });
        let low = left.inodes < self.wanted.inodes / 2 || left.bytes < self.wanted.bytes / 2;
        low && state.not_before.is_none_or(|at| now >= at)
    }

    /// The leader is asked for this much in all; one question at a time.
    pub fn ask(&self) -> Allowance {
        let mut state = self.state.lock();
        state.added = Allowance::default();
        if state.sparing { state.has } else { self.wanted }
    }

    /// The leader has set this much aside, or said nothing.
    pub fn told(&self, has: Option<Allowance>, now: Instant) {
        let mut state = self.state.lock();
        let Some(has) = has else { return };
        state.has = has.less(state.added);
        let plenty = state.has.at_most(self.wanted) == self.wanted;
        state.not_before = (!plenty).then_some(now + PAUSE);
    }

    /// The leader has heard of this, and has perhaps taken it off.
    pub fn added(&self, more: Allowance) {
        if self.is_unbounded() {
            return;
        }
        let mut state = self.state.lock();
        state.has = state.has.less(more);
        state.added = state.added.plus(more);
    }

    /// Inodes that were made here are at the leader, or given up.
    pub fn made(&self, inodes: u64) {
        let mut state = self.state.lock();
        state.making = state.making.saturating_sub(inodes);
    }

    /// Others have need of what is set aside here. `false`: it is being given back already.
    pub fn begin_sparing(&self, dirty_bytes: u64) -> bool {
        self.keep_only(dirty_bytes);
        !std::mem::replace(&mut self.state.lock().sparing, true)
    }

    /// From now on there is room for no more than what was added already and is not at the leader.
    pub fn keep_only(&self, dirty_bytes: u64) {
        let mut state = self.state.lock();
        state.has = state.has.at_most(Allowance { inodes: state.making, bytes: dirty_bytes });
    }

    pub fn end_sparing(&self, now: Instant) {
        let mut state = self.state.lock();
        state.sparing = false;
        state.not_before = Some(now + SPARED_PAUSE);
    }

    /// Nothing is held under the session any more.
    pub fn lose(&self) {
        let mut state = self.state.lock();
        *state = State { sparing: state.sparing, ..State::default() };
    }
}

impl Room<'_> {
    /// The inode is made.
    pub fn make(self) {
        std::mem::forget(self);
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.quota.made(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIRTY_MAX: u64 = 64 << 20;

    fn bounded() -> Quota {
        let policy = VolumePolicy { quota_inodes: 1000, quota_bytes: 1 << 30, ..VolumePolicy::default() };
        Quota::new(&policy, DIRTY_MAX)
    }

    fn of(inodes: u64, bytes: u64) -> Allowance {
        Allowance { inodes, bytes }
    }

    #[test]
    fn without_a_quota_nothing_is_counted() {
        let quota = Quota::new(&VolumePolicy::default(), DIRTY_MAX);
        assert!(quota.is_unbounded() && quota.covers(u64::MAX) && !quota.is_low(u64::MAX, Instant::now()));
        (0..9).for_each(|_| quota.room_for_inode().unwrap().make());
    }

    #[test]
    fn so_much_is_added_as_was_set_aside() {
        let (quota, now) = (bounded(), Instant::now());
        assert!(quota.room_for_inode().is_none() && !quota.covers(1) && quota.is_low(0, now));
        assert_eq!(quota.ask(), of(INODES, 2 * DIRTY_MAX));
        quota.told(Some(of(2, 100)), now);
        assert!(!quota.is_low(0, now), "there was no more");
        assert!(quota.is_low(0, now + PAUSE));
        drop(quota.room_for_inode().unwrap());
        quota.room_for_inode().unwrap().make();
        quota.room_for_inode().unwrap().make();
        assert!(quota.room_for_inode().is_none() && quota.covers(100) && !quota.covers(101));
        quota.made(1);
        quota.added(of(1, 0));
        assert!(quota.room_for_inode().is_none(), "there it is counted as well");
    }

    #[test]
    fn an_answer_may_lack_what_was_answered_since_it_was_asked_for() {
        let (quota, now) = (bounded(), Instant::now());
        quota.ask();
        quota.added(of(0, 60));
        quota.told(Some(of(5, 100)), now);
        assert!(quota.covers(40) && !quota.covers(41));
        quota.ask();
        quota.told(Some(of(5, 100)), now);
        assert!(quota.covers(100));
        quota.told(None, now);
        assert!(quota.covers(100));
    }

    #[test]
    fn what_others_need_is_given_back() {
        let (quota, now) = (bounded(), Instant::now());
        quota.ask();
        quota.told(Some(of(5, 100)), now);
        quota.room_for_inode().unwrap().make();
        assert!(quota.begin_sparing(30) && !quota.begin_sparing(30));
        assert!(quota.room_for_inode().is_none() && quota.covers(30) && !quota.covers(31));
        assert_eq!(quota.ask(), of(1, 30), "no more than that");
        quota.made(1);
        quota.keep_only(0);
        assert_eq!(quota.ask(), of(0, 0));
        quota.end_sparing(now);
        assert!(!quota.is_low(0, now + PAUSE) && quota.is_low(0, now + SPARED_PAUSE));
    }
}
