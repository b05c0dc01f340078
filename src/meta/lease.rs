//! The lease table: who may cache what, in the leader's memory.
//!
//! A pure value: time comes in, recalls come out as data, and whoever owns it sends them. It is volatile: a new
//! leader starts with an empty one and lets the sessions reclaim (see `leader`).
//!
//! The rules, per inode:
//! - any number of sessions hold `Read`, or one holds `Write`;
//! - a grant never waits and never recalls: what cannot be had at once is not granted, and the operation is served
//!   "one-shot" by the leader;
//! - a *change* ([`LeaseTable::begin_change`]) recalls every lease of other sessions, a *read*
//!   ([`LeaseTable::begin_read`]) recalls another session's `Write` down to `Read`; both wait for the answers outside
//!   of this table;
//! - while a change is under way, and for a quiet time after one that had to recall, nothing new is granted: contended
//!   inodes do not bounce leases;
//! - the mark `open` is no lease: it never conflicts, and keeps an unlinked inode alive. So does a lease: under one, inodes
//!   are opened without asking, and the mark comes with the yield.
//!
//! Every grant has a number that grows over the leader's life. A recall names the grant that it ends, so that a client
//! can tell a grant that was overtaken by its own recall.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::types::id::{Ino, SessionId, TreeId};
use crate::types::session::{Claim, Event, Hold, Lease};

/// An inode within the group.
pub type Key = (TreeId, Ino);

/// A message to a session that must answer with a `Yield`.
#[derive(Debug, Clone, PartialEq)]
pub struct Recall {
    pub session: SessionId,
    pub event: Event,
}

#[derive(Debug, Default)]
pub struct LeaseTable {
    inodes: HashMap<Key, Inode>,
    by_session: HashMap<SessionId, HashSet<Key>>,
    /// Inodes at rest, and until when, soonest first: by then nobody may be left who would look at the entry.
    resting: VecDeque<(u64, Key)>,
    last_grant: u64,
}

#[derive(Debug, Default)]
struct Inode {
    holders: Vec<Holding>,
    /// Changes under way.
    changing: u32,
    /// Being freed: cannot be opened any more.
    reaping: bool,
    no_lease_before_ms: u64,
    no_write_before_ms: u64,
}

#[derive(Debug, Clone, Copy)]
struct Holding {
    session: SessionId,
    hold: Hold,
    grant: u64,
    /// What was held before the last grant, by which grant.
    before: (Hold, u64),
    /// A recall down to this lease is on its way.
    recall: Option<Lease>,
}

impl LeaseTable {
    /// Gives `session` as much of `want` as can be had at once; `None` when it has nothing.
    ///
    /// What it holds already is granted anew: that it asks shows that it has not heard of it. (A client takes no grant
    /// that comes in answer to a question from before a change of leader.)
    ///
    /// While a recall to this session is unanswered nothing is granted to it on that inode, not even `open`: a claim
    /// that crosses its own recall on the wire could be read in two ways. Who needs `open` waits for
    /// [`LeaseTable::recalling`] to end.
    ///
    /// Call this *before* reading the state that the reply shows: a change that starts in between then sees the
    /// holder and recalls it.
    pub fn grant(&mut self, session: SessionId, key: Key, want: Hold, now_ms: u64) -> Option<Claim> {
        if want == Hold::default() {
            return None;
        }
        if self.recalling(session, key) {
            return None;
        }
        let inode = self.inodes.entry(key).or_default();
        let lease = inode.obtainable(session, want.lease, now_ms);
        let open = want.open && !inode.reaping;
        let held = inode.holding(session).map(|h| h.hold).unwrap_or_default();
        let hold = Hold { lease: lease.max(held.lease), open: open || held.open };
        if hold == Hold::default() {
            self.forget_if_idle(key, now_ms);
            return None;
        }
        Some(self.set(session, key, hold))
    }

    /// What a session holds on an inode; it may be recalled already, and still have something to ship.
    pub fn lease_of(&self, session: SessionId, key: Key) -> Lease {
        let inode = self.inodes.get(&key);
        inode.and_then(|inode| inode.holding(session)).map_or(Lease::None, |held| held.hold.lease)
    }

    /// Write and open on an inode that this session makes under a number of its own, or may have made. What it holds
    /// already stays as it is, under its number: it may have been recalled. The flag: it is new.
    pub fn grant_made(&mut self, session: SessionId, key: Key) -> (Claim, bool) {
        match self.held(session, key) {
            Some(held) => (held, false),
            None => (self.set(session, key, Hold { lease: Lease::Write, open: true }), true),
        }
    }

    /// What a session holds on an inode, by which grant.
    pub fn held(&self, session: SessionId, key: Key) -> Option<Claim> {
        let held = self.inodes.get(&key)?.holding(session)?;
        Some(Claim { ino: key.1, hold: held.hold, grant: held.grant })
    }

    /// A recall to this session on this inode is unanswered.
    pub fn recalling(&self, session: SessionId, key: Key) -> bool {
        self.inodes.get(&key).and_then(|inode| inode.holding(session)).is_some_and(|held| held.recall.is_some())
    }

    /// Records what a session says it held under the leader before. Refuses a lease that conflicts with another
    /// claim (then only `open` is kept).
    pub fn reclaim(&mut self, session: SessionId, key: Key, hold: Hold) -> Claim {
        let inode = self.inodes.entry(key).or_default();
        let free = match hold.lease {
            Lease::None => true,
            Lease::Read => !inode.others(session).any(|h| h.hold.lease == Lease::Write),
            Lease::Write => !inode.others(session).any(|h| h.hold.lease > Lease::None),
        };
        let lease = if free { hold.lease } else { Lease::None };
        self.set(session, key, Hold { lease, open: hold.open })
    }

    /// A change of these inodes begins: no grants on them until [`LeaseTable::end_change`]. Returns the recalls to
    /// send; the change may go ahead when [`LeaseTable::clear_for_change`] says so.
    pub fn begin_change(&mut self, session: SessionId, keys: &[Key]) -> Vec<Recall> {
        let mut recalls = Vec::new();
        for key in keys {
            let inode = self.inodes.entry(*key).or_default();
            inode.changing += 1;
            inode.recall_others(session, *key, Lease::None, &mut recalls);
        }
        recalls
    }

    /// No other session holds a lease on any of these.
    pub fn clear_for_change(&self, session: SessionId, keys: &[Key]) -> bool {
        keys.iter().all(|key| {
            self.inodes.get(key).is_none_or(|inode| inode.others(session).all(|h| h.hold.lease == Lease::None))
        })
    }

    /// The change is applied (or given up). `contended`: it had to recall, so the inodes rest for `quiet_ms`.
    pub fn end_change(&mut self, keys: &[Key], contended: bool, now_ms: u64, quiet_ms: u64) {
        for key in keys {
            if let Some(inode) = self.inodes.get_mut(key) {
                inode.changing = inode.changing.saturating_sub(1);
                if contended {
                    inode.no_lease_before_ms = now_ms + quiet_ms;
                    self.resting.push_back((now_ms + quiet_ms, *key));
                }
            }
            self.forget_if_idle(*key, now_ms);
        }
        self.forget_rested(now_ms);
    }

    /// Somebody wants to read this inode: another session's `Write` must come down to `Read` first.
    pub fn begin_read(&mut self, session: SessionId, key: Key, now_ms: u64, quiet_ms: u64) -> Vec<Recall> {
        let mut recalls = Vec::new();
        if let Some(inode) = self.inodes.get_mut(&key)
            && inode.others(session).any(|h| h.hold.lease == Lease::Write)
        {
            inode.no_write_before_ms = now_ms + quiet_ms;
            inode.recall_others(session, key, Lease::Read, &mut recalls);
            self.resting.push_back((now_ms + quiet_ms, key));
            self.forget_rested(now_ms);
        }
        recalls
    }

    /// No other session may have unshipped changes of this inode.
    pub fn clear_for_read(&self, session: SessionId, key: Key) -> bool {
        self.inodes.get(&key).is_none_or(|inode| inode.others(session).all(|h| h.hold.lease < Lease::Write))
    }

    /// The answer to a recall, or a lease given up unasked. What was granted after the claim was written is not
    /// touched by it.
    pub fn yield_claim(&mut self, session: SessionId, key: Key, claim: Claim, now_ms: u64) {
        let Some(inode) = self.inodes.get_mut(&key) else { return };
        let reaping = inode.reaping;
        let Some(holding) = inode.holders.iter_mut().find(|h| h.session == session) else { return };
        if claim.grant < holding.grant {
            return;
        }
        holding.hold.lease = holding.hold.lease.min(claim.hold.lease);
        // What was opened under a lease is told when the lease ends.
        holding.hold.open = claim.hold.open && (holding.hold.open || !reaping);
        if holding.recall.is_some_and(|keep| holding.hold.lease <= keep) {
            holding.recall = None;
        }
        if holding.hold == Hold::default() {
            self.drop_holding(session, key);
        }
        self.forget_if_idle(key, now_ms);
    }

    /// Undoes a grant that the session has not been told of: what it held before, it holds. `keep_open`: it is told of that
    /// part. Gives back what is held now.
    pub fn take_back(&mut self, session: SessionId, key: Key, grant: u64, keep_open: bool, now_ms: u64) -> Hold {
        let inode = self.inodes.get_mut(&key);
        let Some(held) = inode.and_then(|inode| inode.holders.iter_mut().find(|h| h.session == session)) else {
            return Hold::default();
        };
        // A later grant includes this one, and the session is told of it.
        if held.grant == grant {
            let (before, number) = held.before;
            held.hold.lease = held.hold.lease.min(before.lease);
            held.hold.open &= keep_open || before.open;
            if !keep_open {
                // It knows of the one before, and may give that back.
                held.grant = number;
            }
        }
        let hold = held.hold;
        if hold == Hold::default() {
            self.drop_holding(session, key);
        }
        self.forget_if_idle(key, now_ms);
        hold
    }

    /// A session is over: everything of it is free.
    pub fn drop_session(&mut self, session: SessionId, now_ms: u64) {
        for key in self.by_session.remove(&session).unwrap_or_default() {
            if let Some(inode) = self.inodes.get_mut(&key) {
                inode.holders.retain(|h| h.session != session);
            }
            self.forget_if_idle(key, now_ms);
        }
    }

    /// Starts to free an unlinked inode, unless some session has it open, or a lease under which it may have. From then on it
    /// cannot be opened.
    pub fn begin_reap(&mut self, key: Key) -> bool {
        if self.is_held(key) {
            return false;
        }
        self.inodes.entry(key).or_default().reaping = true;
        true
    }

    /// Some session has it open, or a lease on it.
    pub fn is_held(&self, key: Key) -> bool {
        self.inodes.get(&key).is_some_and(|inode| inode.holders.iter().any(|h| h.hold != Hold::default()))
    }

    pub fn end_reap(&mut self, key: Key, now_ms: u64) {
        if let Some(inode) = self.inodes.get_mut(&key) {
            inode.reaping = false;
        }
        self.forget_if_idle(key, now_ms);
    }

    /// Recalls that this session has not answered.
    pub fn pending_recalls(&self, session: SessionId) -> Vec<Event> {
        let mut events = Vec::new();
        for key in self.by_session.get(&session).into_iter().flatten() {
            if let Some(held) = self.inodes.get(key).and_then(|inode| inode.holding(session))
                && let Some(keep) = held.recall
            {
                events.push(Event::Recall { ino: key.1, keep, grant: held.grant });
            }
        }
        events
    }

    /// Numbers of grants are larger in every later term: what a client gives back of an earlier leader's, late, ends
    /// nothing that was granted since.
    pub fn new(term: u64) -> LeaseTable {
        LeaseTable { last_grant: term << 32, ..LeaseTable::default() }
    }

    /// Who besides `session` has not answered a recall on one of these.
    pub fn debtors(&self, session: SessionId, keys: &[Key]) -> HashSet<SessionId> {
        let inodes = keys.iter().filter_map(|key| self.inodes.get(key));
        inodes.flat_map(|i| i.others(session)).filter(|h| h.recall.is_some()).map(|h| h.session).collect()
    }

    /// How many inodes have an entry: what the table costs.
    pub fn inodes(&self) -> usize {
        self.inodes.len()
    }

    fn set(&mut self, session: SessionId, key: Key, hold: Hold) -> Claim {
        self.last_grant += 1;
        let grant = self.last_grant;
        let inode = self.inodes.entry(key).or_default();
        match inode.holders.iter_mut().find(|h| h.session == session) {
            Some(held) => {
                let before = (held.hold, held.grant);
                *held = Holding { session, hold, grant, before, recall: held.recall };
            }
            None => inode.holders.push(Holding { session, hold, grant, before: (Hold::default(), 0), recall: None }),
        }
        self.by_session.entry(session).or_default().insert(key);
        Claim { ino: key.1, hold, grant }
    }

    fn drop_holding(&mut self, session: SessionId, key: Key) {
        if let Some(inode) = self.inodes.get_mut(&key) {
            inode.holders.retain(|h| h.session != session);
        }
        if let Some(keys) = self.by_session.get_mut(&session) {
            keys.remove(&key);
        }
    }

    /// Looks at those again whose quiet time is over. Called with everything that begins one, so that entries are as many
    /// as what goes on, and not as what ever went on.
    fn forget_rested(&mut self, now_ms: u64) {
        while let Some((until_ms, key)) = self.resting.front().copied()
            && until_ms <= now_ms
        {
            self.resting.pop_front();
            self.forget_if_idle(key, now_ms);
        }
    }

    fn forget_if_idle(&mut self, key: Key, now_ms: u64) {
        let idle = self.inodes.get(&key).is_some_and(|inode| {
            inode.holders.is_empty()
                && inode.changing == 0
                && !inode.reaping
                && inode.no_lease_before_ms <= now_ms
                && inode.no_write_before_ms <= now_ms
        });
        if idle {
            self.inodes.remove(&key);
        }
    }
}

impl Inode {
    fn holding(&self, session: SessionId) -> Option<&Holding> {
        self.holders.iter().find(|h| h.session == session)
    }

    fn others(&self, session: SessionId) -> impl Iterator<Item = &Holding> {
        self.holders.iter().filter(move |h| h.session != session)
    }

    /// As much of `want` as nobody and nothing stands against.
    fn obtainable(&self, session: SessionId, want: Lease, now_ms: u64) -> Lease {
        if want == Lease::None || self.changing > 0 || now_ms < self.no_lease_before_ms {
            return Lease::None;
        }
        let alone = self.others(session).all(|h| h.hold.lease == Lease::None);
        if want == Lease::Write && alone && now_ms >= self.no_write_before_ms {
            return Lease::Write;
        }
        let shareable = self.others(session).all(|h| h.hold.lease < Lease::Write);
        if shareable { Lease::Read } else { Lease::None }
    }

    fn recall_others(&mut self, session: SessionId, key: Key, keep: Lease, recalls: &mut Vec<Recall>) {
        for holding in self.holders.iter_mut().filter(|h| h.session != session && h.hold.lease > keep) {
            // A recall that goes at least as far is on its way already.
            if holding.recall.is_some_and(|to| to <= keep) {
                continue;
            }
            holding.recall = Some(keep);
            let event = Event::Recall { ino: key.1, keep, grant: holding.grant };
            recalls.push(Recall { session: holding.session, event });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = (TreeId(1), Ino(7));
    const A: SessionId = SessionId(1);
    const B: SessionId = SessionId(2);
    const READ: Hold = Hold { lease: Lease::Read, open: false };
    const WRITE: Hold = Hold { lease: Lease::Write, open: true };

    fn yielded(claim: Claim, lease: Lease) -> Claim {
        Claim { hold: Hold { lease, ..claim.hold }, ..claim }
    }

    #[test]
    fn readers_share_and_a_writer_is_alone() {
        let mut table = LeaseTable::default();
        assert_eq!(table.grant(A, KEY, READ, 0).map(|c| c.hold), Some(READ));
        assert_eq!(table.grant(B, KEY, READ, 0).map(|c| c.hold), Some(READ));
        let more = table.grant(A, KEY, WRITE, 0).expect("open is new");
        assert_eq!(more.hold, Hold { lease: Lease::Read, open: true });
        assert_eq!(table.grant(A, KEY, READ, 0).map(|c| c.hold), Some(more.hold));
    }

    #[test]
    fn a_change_recalls_the_others_and_waits_for_them() {
        let mut table = LeaseTable::default();
        let claim = table.grant(A, KEY, READ, 0).expect("free");
        let recalls = table.begin_change(B, &[KEY]);
        assert_eq!(
            recalls,
            [Recall { session: A, event: Event::Recall { ino: Ino(7), keep: Lease::None, grant: claim.grant } }]
        );
        assert!(table.begin_change(B, &[KEY]).is_empty(), "one recall is enough");
        assert!(!table.clear_for_change(B, &[KEY]));
        table.yield_claim(A, KEY, yielded(claim, Lease::None), 0);
        assert!(table.clear_for_change(B, &[KEY]));
        table.end_change(&[KEY], false, 0, 500);
        assert_eq!(table.grant(A, KEY, READ, 0), None, "one change is still under way");
        table.end_change(&[KEY], true, 0, 500);
        assert_eq!(table.grant(A, KEY, READ, 499), None, "quiet time");
        assert!(table.grant(A, KEY, READ, 500).is_some());
    }

    #[test]
    fn a_read_takes_a_writer_down_to_read() {
        let mut table = LeaseTable::default();
        let claim = table.grant(A, KEY, WRITE, 0).expect("free");
        assert_eq!(table.begin_read(B, KEY, 0, 500).len(), 1);
        assert!(!table.clear_for_read(B, KEY));
        assert_eq!(table.grant(A, KEY, WRITE, 0), None, "not while it is recalled");
        table.yield_claim(A, KEY, yielded(claim, Lease::Read), 0);
        assert!(table.clear_for_read(B, KEY));
        assert!(table.grant(B, KEY, READ, 0).is_some(), "reading together needs no quiet time");
        table.drop_session(B, 0);
        assert_eq!(table.grant(A, KEY, WRITE, 499).map(|c| c.hold.lease), Some(Lease::Read));
        assert_eq!(table.grant(A, KEY, WRITE, 500).map(|c| c.hold), Some(WRITE));
    }

    #[test]
    fn a_stale_yield_does_not_end_a_newer_grant() {
        let mut table = LeaseTable::default();
        let old = table.grant(A, KEY, READ, 0).expect("free");
        let new = table.grant(A, KEY, WRITE, 0).expect("alone");
        table.yield_claim(A, KEY, yielded(old, Lease::None), 0);
        assert!(!table.clear_for_read(B, KEY));
        table.yield_claim(A, KEY, yielded(new, Lease::None), 0);
        assert!(table.clear_for_read(B, KEY));
    }

    #[test]
    fn nothing_is_granted_across_a_recall() {
        let mut table = LeaseTable::default();
        let open = Hold { lease: Lease::Read, open: true };
        let claim = table.grant(A, KEY, READ, 0).expect("free");
        table.begin_change(B, &[KEY]);
        assert!(table.recalling(A, KEY));
        assert_eq!(table.grant(A, KEY, open, 0), None);
        table.yield_claim(A, KEY, yielded(claim, Lease::None), 0);
        assert!(table.clear_for_change(B, &[KEY]));
        let opened = table.grant(A, KEY, open, 0).expect("answered");
        assert_eq!(opened.hold, Hold { lease: Lease::None, open: true });
        assert!(!table.begin_reap(KEY), "it is open");
    }

    #[test]
    fn an_open_inode_is_not_reaped_and_a_reaped_one_not_opened() {
        let mut table = LeaseTable::default();
        let open = Hold { lease: Lease::None, open: true };
        let claim = table.grant(A, KEY, open, 0).expect("open");
        assert!(!table.begin_reap(KEY));
        table.yield_claim(A, KEY, Claim { hold: Hold::default(), ..claim }, 0);
        assert!(table.begin_reap(KEY));
        assert_eq!(table.grant(B, KEY, open, 0), None);
        table.end_reap(KEY, 0);
        assert_eq!(table.inodes(), 0, "idle inodes cost nothing");
    }

    #[test]
    fn what_was_recalled_before_it_was_shipped_stays_recalled() {
        let mut table = LeaseTable::new(3);
        let (assumed, _) = table.grant_made(A, KEY);
        assert_eq!(table.begin_read(B, KEY, 0, 500).len(), 1);
        assert_eq!(table.grant_made(A, KEY), (assumed, false), "the recall names this grant");
        assert_eq!(
            (table.lease_of(A, KEY), table.lease_of(B, KEY)),
            (Lease::Write, Lease::None),
            "it has still to ship it"
        );
        table.yield_claim(A, KEY, Claim { hold: Hold::default(), ..assumed }, 0);
        assert!(table.clear_for_read(B, KEY));
        assert!(table.grant_made(A, KEY).0.grant > assumed.grant);
    }

    #[test]
    fn contended_inodes_are_forgotten_when_they_have_rested() {
        let mut table = LeaseTable::default();
        for ino in 0..1000 {
            let key = (TreeId(1), Ino(ino));
            let hold = if ino % 2 == 0 { READ } else { WRITE };
            table.grant(A, key, hold, ino).expect("free");
            // Every other one is read before, and its holder goes before the quiet time is over.
            table.begin_read(B, key, ino, 500);
            table.begin_change(B, &[key]);
            table.drop_session(A, ino);
            table.end_change(&[key], true, ino, 500);
        }
        assert!(table.inodes() > 400, "they rest");
        table.begin_change(B, &[KEY]);
        table.end_change(&[KEY], false, 1400, 500);
        assert_eq!(table.inodes(), 99, "those of the last half second");
        table.begin_change(B, &[KEY]);
        table.end_change(&[KEY], false, 1500, 500);
        assert_eq!((table.inodes(), table.resting.len()), (0, 0));
    }

    #[test]
    fn reclaimed_leases_that_conflict_are_refused() {
        let mut table = LeaseTable::default();
        assert_eq!(table.reclaim(A, KEY, WRITE).hold, WRITE);
        assert_eq!(table.reclaim(B, KEY, WRITE).hold, Hold { lease: Lease::None, open: true });
        table.drop_session(A, 0);
        assert_eq!(table.reclaim(B, KEY, READ).hold, READ);
    }

    #[test]
    fn a_grant_that_was_not_told_is_undone() {
        let mut table = LeaseTable::new(3);
        let read = table.grant(A, KEY, READ, 0).unwrap();
        let more = table.grant(A, KEY, WRITE, 0).unwrap();
        assert_eq!(table.take_back(A, KEY, read.grant, false, 0), more.hold, "the later one was told");
        assert_eq!(table.take_back(A, KEY, more.grant, true, 0), Hold { lease: Lease::Read, open: true });
        assert_eq!(table.take_back(A, KEY, more.grant, false, 0), READ);
        let other = table.grant(B, KEY, READ, 0).unwrap();
        assert_eq!(table.take_back(B, KEY, other.grant, false, 0), Hold::default());
        assert!(table.clear_for_change(A, &[KEY]));
    }

    #[test]
    fn what_is_held_is_granted_again_to_who_asks() {
        let mut table = LeaseTable::new(3);
        let want = Hold { lease: Lease::Write, open: true };
        let first = table.grant(A, KEY, want, 0).unwrap();
        let again = table.grant(A, KEY, want, 0).unwrap();
        assert_eq!((first.hold, again.hold), (want, want));
        assert!(again.grant > first.grant);
        table.yield_claim(A, KEY, Claim { hold: Hold::default(), ..first }, 0);
        let third = table.grant(A, KEY, Hold { open: true, ..Hold::default() }, 0).unwrap();
        assert_eq!(third.hold, want);
        assert_eq!(table.take_back(A, KEY, third.grant, false, 0), want, "what it knew of before it keeps");
    }
}
