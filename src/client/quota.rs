//! What of the volume's quotas is set aside for this client ([`Allowance`]): so much it may add and say so later. Pure.
//!
//! A volume without a quota is no exception: it may get one while it is mounted.
//!
//! Counted are here: what the leader has set aside, as far as it is certain (`has`), and what was added here and is not at
//! the leader, as far as that is known: inodes that were made, bytes that are dirty (told by the caller), bytes of calls that are
//! under way. The second is never to be more than the first. The leader counts down as it is told of additions, here it is done
//! when the answers come; an addition whose answer crossed another word of the leader is taken off twice, until the next word.
//! So `has` can be too little, never too much; and what is given back is counted by what was added, not by `has`.
//! Dirty bytes are read under the lock here: what stops being under way is dirty by then.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::types::allowance::Allowance;
use crate::types::limits::JOURNAL_RECORDS_MAX;

/// Inodes to have set aside: what waits in the journal, and as many again while that is shipped.
const INODES: u64 = 2 * JOURNAL_RECORDS_MAX as u64;
/// When less was to be had than wanted, or nothing was said, the leader is not asked for more for so long,
const PAUSE: Duration = Duration::from_millis(100);
/// and when others had need of it.
const SPARED_PAUSE: Duration = Duration::from_secs(2);

pub struct Quota {
    wanted: Allowance,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    has: Allowance,
    /// Inodes that were made here, and bytes of calls that are not dirty, which are not at the leader.
    under_way: Allowance,
    /// Additions that were answered since the leader was asked: what it says may lack them.
    added: Allowance,
    not_before: Option<Instant>,
    sparing: bool,
    /// Counts sessions: what one was promised is void under the next.
    life: u64,
}

/// Something is added here. Counted until it is dropped, or, after [`Adding::keep`], until [`Quota::arrived`].
pub struct Adding<'q> {
    quota: &'q Quota,
    more: Allowance,
    life: u64,
}

impl Quota {
    /// `dirty_bytes_max`: what this client keeps of writes at most.
    pub fn new(dirty_bytes_max: u64) -> Quota {
        Quota { wanted: Allowance { inodes: INODES, bytes: 2 * dirty_bytes_max }, state: Mutex::default() }
    }

    /// An inode, if there is room for one.
    pub fn add_inode(&self) -> Option<Adding<'_>> {
        let mut state = self.state.lock();
        if state.under_way.inodes >= state.has.inodes {
            return None;
        }
        Some(self.count(&mut state, Allowance { inodes: 1, bytes: 0 }))
    }

    /// Bytes that are not counted as dirty. Whether there is room for them is to be asked afterwards ([`Quota::covers`]).
    pub fn add_bytes(&self, bytes: u64) -> Adding<'_> {
        self.count(&mut self.state.lock(), Allowance { inodes: 0, bytes })
    }

    fn count(&self, state: &mut State, more: Allowance) -> Adding<'_> {
        state.under_way = state.under_way.plus(more);
        Adding { quota: self, more, life: state.life }
    }

    /// There is room for all bytes that the leader has not heard of, so many dirty ones among them.
    pub fn covers(&self, dirty_bytes: impl FnOnce() -> u64) -> bool {
        let state = self.state.lock();
        dirty_bytes().saturating_add(state.under_way.bytes) <= state.has.bytes
    }

    /// More is to be asked for.
    pub fn is_low(&self, dirty_bytes: impl FnOnce() -> u64, now: Instant) -> bool {
        let state = self.state.lock();
        let left = state.has.less(state.unheard(dirty_bytes()));
        // Half of the bytes are there for what is kept, even if that is as much as may be.
        let low = left.inodes < self.wanted.inodes / 2 || left.bytes < self.wanted.bytes / 4;
        // What a large call was promised that came to nothing.
        let much = left.bytes > self.wanted.bytes.saturating_mul(2);
        (low || much) && !state.sparing && state.not_before.is_none_or(|at| now >= at)
    }

    /// The leader is asked for this much in all; one question at a time. With it the count of sessions, to be handed back.
    pub fn ask(&self, dirty_bytes: impl FnOnce() -> u64) -> (u64, Allowance) {
        let mut state = self.state.lock();
        state.added = Allowance::default();
        if !state.sparing {
            // A call may add more than is ever kept here.
            let bytes = self.wanted.bytes.saturating_add(state.under_way.bytes);
            return (state.life, Allowance { bytes, ..self.wanted });
        }
        let upto = state.unheard(dirty_bytes()).at_most(self.wanted);
        // It is about to be somebody else's, whatever was said last.
        state.has = state.has.at_most(upto);
        (state.life, upto)
    }

    /// The leader has set this much aside, or said nothing.
    pub fn told(&self, life: u64, has: Option<Allowance>, now: Instant) {
        let mut state = self.state.lock();
        if state.life != life {
            return;
        }
        if let Some(has) = has {
            state.has = has.less(state.added);
        }
        let plenty = has.is_some_and(|has| has.at_most(self.wanted) == self.wanted);
        state.not_before = (!plenty).then_some(now + PAUSE);
    }

    /// The leader has heard of this, and has perhaps taken it off. To be called before it stops being dirty or under way.
    pub fn heard(&self, more: Allowance) {
        let mut state = self.state.lock();
        state.has = state.has.less(more);
        state.added = state.added.plus(more);
    }

    /// Of what was kept ([`Adding::keep`]) this is at the leader, or given up.
    pub fn arrived(&self, more: Allowance) {
        let mut state = self.state.lock();
        state.under_way = state.under_way.less(more);
    }

    /// Others have need of what is set aside here: from now on there is room for no more than what was added. `false`: it is
    /// being given back already.
    pub fn begin_sparing(&self, dirty_bytes: impl FnOnce() -> u64) -> bool {
        let mut state = self.state.lock();
        state.has = state.has.at_most(state.unheard(dirty_bytes()));
        !std::mem::replace(&mut state.sparing, true)
    }

    pub fn end_sparing(&self, now: Instant) {
        let mut state = self.state.lock();
        state.sparing = false;
        state.not_before = Some(now + SPARED_PAUSE);
    }

    /// Nothing is held under the session any more.
    pub fn lose(&self) {
        let mut state = self.state.lock();
        *state = State { sparing: state.sparing, life: state.life + 1, ..State::default() };
    }
}

impl State {
    fn unheard(&self, dirty_bytes: u64) -> Allowance {
        self.under_way.plus(Allowance { inodes: 0, bytes: dirty_bytes })
    }
}

impl Adding<'_> {
    /// It is in the journal.
    pub fn keep(mut self) {
        self.more = Allowance::default();
    }
}

impl Drop for Adding<'_> {
    fn drop(&mut self) {
        let mut state = self.quota.state.lock();
        if state.life == self.life {
            state.under_way = state.under_way.less(self.more);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIRTY_MAX: u64 = 64 << 20;

    fn of(inodes: u64, bytes: u64) -> Allowance {
        Allowance { inodes, bytes }
    }

    fn promised(inodes: u64, bytes: u64) -> (Quota, Instant) {
        let (quota, now) = (Quota::new(DIRTY_MAX), Instant::now());
        let (life, _) = quota.ask(|| 0);
        quota.told(life, Some(of(inodes, bytes)), now);
        (quota, now)
    }

    #[test]
    fn so_much_is_added_as_was_set_aside() {
        let quota = Quota::new(DIRTY_MAX);
        assert!(quota.add_inode().is_none() && !quota.covers(|| 1) && quota.is_low(|| 0, Instant::now()));
        assert_eq!(quota.ask(|| 0), (0, of(INODES, 2 * DIRTY_MAX)));
        let (quota, now) = promised(2, 100);
        assert!(!quota.is_low(|| 0, now), "there was no more");
        assert!(quota.is_low(|| 0, now + PAUSE));
        drop(quota.add_inode().unwrap());
        quota.add_inode().unwrap().keep();
        quota.add_inode().unwrap().keep();
        assert!(quota.add_inode().is_none() && quota.covers(|| 100) && !quota.covers(|| 101));
        quota.heard(of(1, 0));
        quota.arrived(of(1, 0));
        assert!(quota.add_inode().is_none(), "there it is counted as well");
    }

    #[test]
    fn bytes_of_a_call_count_while_it_is_under_way() {
        let (quota, _) = promised(2, 100);
        let call = quota.add_bytes(60);
        assert!(quota.covers(|| 40) && !quota.covers(|| 41));
        quota.add_bytes(30).keep();
        drop(call);
        assert!(quota.covers(|| 70) && !quota.covers(|| 71));
        quota.heard(of(0, 30));
        quota.arrived(of(0, 30));
        assert!(quota.covers(|| 70) && !quota.covers(|| 71));
    }

    #[test]
    fn an_answer_may_lack_what_was_answered_since_it_was_asked_for() {
        let (quota, now) = promised(5, 100);
        let (life, _) = quota.ask(|| 0);
        quota.heard(of(0, 60));
        quota.told(life, Some(of(5, 100)), now);
        assert!(quota.covers(|| 40) && !quota.covers(|| 41));
        let (life, _) = quota.ask(|| 0);
        quota.told(life, Some(of(5, 100)), now);
        assert!(quota.covers(|| 100));
        quota.told(life, None, now);
        assert!(quota.covers(|| 100));
    }

    #[test]
    fn what_a_session_was_promised_ends_with_it() {
        let (quota, now) = promised(5, 100);
        let adding = quota.add_inode().unwrap();
        quota.lose();
        quota.told(0, Some(of(5, 100)), now);
        assert!(quota.add_inode().is_none() && !quota.covers(|| 1), "it was another session's");
        let (life, _) = quota.ask(|| 0);
        quota.told(life, Some(of(1, 100)), now);
        quota.add_inode().unwrap().keep();
        drop(adding);
        assert!(quota.add_inode().is_none(), "that was none of this session's");
    }

    #[test]
    fn what_others_need_is_given_back_but_for_what_was_added() {
        let (quota, now) = promised(5, 100);
        quota.add_inode().unwrap().keep();
        quota.add_bytes(7).keep();
        assert!(quota.begin_sparing(|| 30) && !quota.begin_sparing(|| 30));
        assert!(quota.add_inode().is_none() && quota.covers(|| 30) && !quota.covers(|| 31));
        assert!(!quota.is_low(|| 30, now + PAUSE), "nothing is asked for meanwhile");
        // By what was added: what is known of the leader's count may be too little.
        quota.heard(of(1, 37));
        assert_eq!(quota.ask(|| 30), (0, of(1, 37)));
        // An answer to an earlier question is not to be gone by any more.
        quota.told(0, Some(of(5, 100)), now);
        quota.arrived(of(1, 7));
        assert_eq!(quota.ask(|| 0), (0, of(0, 0)));
        assert!(quota.add_inode().is_none() && !quota.covers(|| 1));
        quota.end_sparing(now);
        assert!(!quota.is_low(|| 0, now + PAUSE) && quota.is_low(|| 0, now + SPARED_PAUSE));
    }
}
