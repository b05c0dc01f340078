//! The lease table: who may cache what, in the leader's memory.
//!
//! A pure value: time comes in, recalls come out as data, and whoever owns it sends them. It is volatile: a new
//! leader starts with an empty one and lets the sessions reclaim (see `leader`).
//!
//! The rules, per inode:
//! - any number of sessions hold `Read`, or one holds `Write`;
//! - a grant never waits and never recalls: what cannot be had at once is not granted, and the operation is served
//!   "one-shot" by the leader;
//! - a *change* ([`LeaseTable::begin_change`]) recalls every lease of other sessions; so does who *takes* an inode
//!   ([`LeaseTable::begin_take`]), to change it by itself from then on; both wait for the answers outside of this table;
//! - a *read* ([`LeaseTable::begin_read`]) *looks* at what another session has a `Write` on: that one ships what it did and
//!   either comes down to `Read` or, while it goes on changing the inode, keeps what it has and says that it has shipped;
//! - while a change is under way nothing new is granted, and for a quiet time after one that took a `Write` from somebody
//!   nothing to anybody but who has it now: inodes that several change do not bounce leases. What only readers had is the
//!   changer's, if it wants it, and not the readers' until it is quiet;
//! - the mark `open` is no lease: it never conflicts, and keeps an unlinked inode alive. So does a lease: under one, inodes
//!   are opened without asking, and the mark comes with the yield.
//!
//! Every grant has a number that grows over the leader's life. A recall names the grant that it ends, so that a client
//! can tell a grant that was overtaken by its own recall.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::types::id::{Ino, SessionId, TreeId};
use crate::types::session::{Claim, Event, Hold, Lease};

/// More looks than there can be in one term.
const LOOKS_SHIFT: u32 = 40;

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
    last_look: u64,
}

#[derive(Debug, Default)]
struct Inode {
    holders: Vec<Holding>,
    /// Changes under way.
    changing: u32,
    /// Being freed: cannot be opened any more.
    reaping: bool,
    quiet: Quiet,
}

/// Until when nothing is granted, but to one session.
#[derive(Debug, Default)]
struct Quiet {
    until_ms: u64,
    but: Option<SessionId>,
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
    /// The newest look that is on its way, and the newest up to which everything is shipped.
    look: u64,
    shown: u64,
}

/// A change that has begun, or a take.
#[derive(Debug, PartialEq)]
pub struct Begun {
    pub recalls: Vec<Recall>,
    /// The most that others had.
    pub others_had: Lease,
}

impl Holding {
    fn owes_an_answer(&self) -> bool {
        self.recall.is_some() || self.look > self.shown
    }
}

impl LeaseTable {
    /// Gives `session` as much of `want` as can be had at once; `None` when it has nothing.
    ///
    /// What it holds already is granted anew: that it asks shows that it has not heard of it. (A client takes no grant
    /// that comes in answer to a question from before a change of leader.)
    ///
    /// While a recall to this session, or a look, is unanswered nothing is granted to it on that inode, not even `open`: a claim
    /// that crosses its own recall on the wire could be read in two ways. Who needs `open` has the looks ended
    /// ([`LeaseTable::end_looks`]), and waits for [`LeaseTable::owes`] to end.
    ///
    /// Call this *before* reading the state that the reply shows: a change that starts in between then sees the
    /// holder and recalls it.
    pub fn grant(&mut self, session: SessionId, key: Key, want: Hold, now_ms: u64) -> Option<Claim> {
        if want == Hold::default() {
            return None;
        }
        if self.owes(session, key) {
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

    /// What a session holds on inodes after this one, at most so many, in their order.
    pub fn holdings(&self, session: SessionId, after: Ino, max: usize) -> Vec<Claim> {
        let keys = self.by_session.get(&session).into_iter().flatten().filter(|(_, ino)| *ino > after);
        let mut claims: Vec<Claim> = keys.filter_map(|key| self.held(session, *key)).collect();
        if claims.len() > max {
            claims.select_nth_unstable_by_key(max, |claim| claim.ino);
            claims.truncate(max);
        }
        claims.sort_unstable_by_key(|claim| claim.ino);
        claims
    }

    /// A recall to this session on this inode, or a look, is unanswered.
    pub fn owes(&self, session: SessionId, key: Key) -> bool {
        self.inodes.get(&key).and_then(|inode| inode.holding(session)).is_some_and(Holding::owes_an_answer)
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

    /// A change of these inodes begins: no grants on them until [`LeaseTable::end_change`]. With the recalls to
    /// send; the change may go ahead when [`LeaseTable::clear_for_change`] says so.
    pub fn begin_change(&mut self, session: SessionId, keys: &[Key]) -> Begun {
        let mut begun = Begun { recalls: Vec::new(), others_had: Lease::None };
        for key in keys {
            let inode = self.inodes.entry(*key).or_default();
            inode.changing += 1;
            begun.others_had = begun.others_had.max(inode.most_of_others(session));
            inode.recall_others(session, *key, Lease::None, &mut begun.recalls);
        }
        begun
    }

    /// No other session holds a lease on any of these.
    pub fn clear_for_change(&self, session: SessionId, keys: &[Key]) -> bool {
        keys.iter().all(|key| {
            self.inodes.get(key).is_none_or(|inode| inode.others(session).all(|h| h.hold.lease == Lease::None))
        })
    }

    /// Whoever looks at what is changed all the time sends one look after the other, and who owes an answer is granted nothing. So this
    /// takes the lease down to Read: after that there is nothing to look at.
    pub fn end_looks(&mut self, session: SessionId, key: Key) -> Vec<Recall> {
        let inode = self.inodes.get_mut(&key);
        let held = inode.and_then(|inode| inode.holders.iter_mut().find(|held| held.session == session));
        let Some(held) = held.filter(|held| held.recall.is_none() && held.owes_an_answer()) else { return Vec::new() };
        held.recall = Some(Lease::Read);
        let event = Event::Recall { ino: key.1, keep: Lease::Read, grant: held.grant };
        vec![Recall { session, event }]
    }

    /// The change is applied (or given up). If it had to recall, the inodes rest for `quiet_ms`; where only readers had leases,
    /// who made it may have one meanwhile.
    pub fn end_change(&mut self, session: SessionId, keys: &[Key], others_had: Lease, now_ms: u64, quiet_ms: u64) {
        let but = (others_had < Lease::Write).then_some(session);
        for key in keys {
            if let Some(inode) = self.inodes.get_mut(key) {
                inode.changing = inode.changing.saturating_sub(1);
                if others_had > Lease::None {
                    self.rest(*key, Quiet { until_ms: now_ms + quiet_ms, but });
                }
            }
            self.forget_if_idle(*key, now_ms);
        }
        self.forget_rested(now_ms);
    }

    /// A session wants to change the first of these inodes by itself, and is likely to want that of the others: recalls what others
    /// have on them, but what others may be changing only from the first. Those that are to be waited for, until
    /// [`LeaseTable::has_answers`]; then [`LeaseTable::end_take`]. What rests is left out: it changes hands too often.
    pub fn begin_take(
        &mut self,
        session: SessionId,
        mut keys: Vec<Key>,
        now_ms: u64,
        quiet_ms: u64,
    ) -> (Vec<Key>, Vec<Recall>) {
        let first = keys.first().copied();
        keys.retain(|key| {
            self.inodes.get(key).is_none_or(|inode| {
                let may_be_changed = Some(*key) != first && inode.most_of_others(session) == Lease::Write;
                !may_be_changed && !inode.quiet.is_for(session, now_ms)
            })
        });
        if keys.first().copied() != first {
            // The others go with it, or nobody has need of them yet.
            keys.clear();
        }
        let mut recalls = Vec::new();
        for key in &keys {
            let inode = self.inodes.entry(*key).or_default();
            inode.changing += 1;
            let others_had = inode.most_of_others(session);
            inode.recall_others(session, *key, Lease::None, &mut recalls);
            if others_had == Lease::Write {
                self.rest(*key, Quiet { until_ms: now_ms + quiet_ms, but: Some(session) });
            }
        }
        self.forget_rested(now_ms);
        (keys, recalls)
    }

    /// Nobody else owes an answer to a recall on any of these.
    pub fn has_answers(&self, session: SessionId, keys: &[Key]) -> bool {
        let inodes = keys.iter().filter_map(|key| self.inodes.get(key));
        inodes.flat_map(|inode| inode.others(session)).all(|held| held.recall.is_none())
    }

    /// Ends a take. Gives those to the session that nobody else has got in the meantime, if `grants`.
    pub fn end_take(&mut self, session: SessionId, keys: &[Key], grants: bool, now_ms: u64) -> Vec<Claim> {
        let mut claims = Vec::new();
        for key in keys {
            if let Some(inode) = self.inodes.get_mut(key) {
                inode.changing = inode.changing.saturating_sub(1);
            }
            let want = Hold { lease: Lease::Write, open: false };
            claims.extend(grants.then(|| self.grant(session, *key, want, now_ms)).flatten());
            self.forget_if_idle(*key, now_ms);
        }
        claims
    }

    /// Somebody wants to read this inode: who has a `Write` on it is to ship first. The number is for
    /// [`LeaseTable::clear_for_read`].
    pub fn begin_read(&mut self, session: SessionId, key: Key) -> (u64, Vec<Recall>) {
        let mut looks = Vec::new();
        // Without a writer there is nothing to show: who gets a Write lease later shows what it does after.
        let look = self.last_look + u64::from(!self.is_unowned(session, key));
        self.last_look = look;
        if let Some(inode) = self.inodes.get_mut(&key) {
            let writers = inode.holders.iter_mut().filter(|h| h.session != session && h.hold.lease == Lease::Write);
            for holding in writers {
                holding.look = look;
                // One that has to give it back ships, too.
                if holding.recall.is_none() {
                    let event = Event::Look { ino: key.1, grant: holding.grant, look };
                    looks.push(Recall { session: holding.session, event });
                }
            }
        }
        (look, looks)
    }

    /// No other session has changes of this inode that it made before the look and has not shipped.
    pub fn clear_for_read(&self, session: SessionId, key: Key, look: u64) -> bool {
        let shipped = |held: &Holding| held.hold.lease < Lease::Write || held.shown >= look;
        self.inodes.get(&key).is_none_or(|inode| inode.others(session).all(shipped))
    }

    /// A session has shipped what it did to this inode before that look, and keeps what it has.
    pub fn shown(&mut self, session: SessionId, key: Key, look: u64) {
        let inode = self.inodes.get_mut(&key);
        if let Some(held) = inode.and_then(|inode| inode.holders.iter_mut().find(|held| held.session == session)) {
            // No further than it was told, whatever it says.
            held.shown = held.shown.max(look.min(held.look));
        }
    }

    /// Another session's `Write` on this inode is to come down to `Read`, whatever it does: what it decides about by itself
    /// (locks) is asked of the leader.
    pub fn begin_take_down(&mut self, session: SessionId, key: Key) -> Vec<Recall> {
        let mut recalls = Vec::new();
        if let Some(inode) = self.inodes.get_mut(&key) {
            inode.recall_others(session, key, Lease::Read, &mut recalls);
        }
        recalls
    }

    /// No other session has a `Write` on it.
    pub fn is_unowned(&self, session: SessionId, key: Key) -> bool {
        self.inodes.get(&key).is_none_or(|inode| inode.most_of_others(session) < Lease::Write)
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
        if holding.hold.lease < Lease::Write {
            holding.shown = holding.look;
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

    /// What this session was asked on an inode and has not answered.
    pub fn pending_on(&self, session: SessionId, key: Key) -> Option<Event> {
        let held = self.inodes.get(&key)?.holding(session)?;
        let (ino, grant) = (key.1, held.grant);
        match held.recall {
            Some(keep) => Some(Event::Recall { ino, keep, grant }),
            None => held.owes_an_answer().then_some(Event::Look { ino, grant, look: held.look }),
        }
    }

    /// Recalls and looks that this session has not answered.
    pub fn pending_recalls(&self, session: SessionId) -> Vec<Event> {
        let mut events = Vec::new();
        for key in self.by_session.get(&session).into_iter().flatten() {
            events.extend(self.pending_on(session, *key));
        }
        events
    }

    /// Numbers of grants and looks are larger in every later term: what a client gives back of an earlier leader's, or says
    /// to it, late, ends nothing that was granted since, and answers nothing.
    pub fn new(term: u64) -> LeaseTable {
        LeaseTable { last_grant: term << 32, last_look: term << LOOKS_SHIFT, ..LeaseTable::default() }
    }

    /// Who besides `session` has not answered a recall on one of these, or that look.
    pub fn debtors(&self, session: SessionId, keys: &[Key], look: Option<u64>) -> HashSet<SessionId> {
        let inodes = keys.iter().filter_map(|key| self.inodes.get(key));
        let owes = |held: &&Holding| {
            let is_looked_at = |look| held.hold.lease == Lease::Write && held.shown < look;
            held.recall.is_some() || look.is_some_and(is_looked_at)
        };
        inodes.flat_map(|inode| inode.others(session)).filter(owes).map(|held| held.session).collect()
    }

    /// How many inodes have an entry: what the table costs.
    pub fn inodes(&self) -> usize {
        self.inodes.len()
    }

    fn set(&mut self, session: SessionId, key: Key, hold: Hold) -> Claim {
        self.last_grant += 1;
        let grant = self.last_grant;
        let inode = self.inodes.entry(key).or_default();
        // What was done before a Write was granted was not done under it: there is nothing to ship.
        let fresh = Holding {
            session,
            hold,
            grant,
            before: (Hold::default(), 0),
            recall: None,
            look: 0,
            shown: self.last_look,
        };
        match inode.holders.iter_mut().find(|h| h.session == session) {
            Some(held) => {
                let before = (held.hold, held.grant);
                let gains = hold.lease > held.hold.lease;
                let (look, shown) = (held.look, if gains { self.last_look } else { held.shown });
                *held = Holding { before, recall: held.recall, look, shown, ..fresh };
            }
            None => inode.holders.push(fresh),
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

    fn rest(&mut self, key: Key, quiet: Quiet) {
        self.resting.push_back((quiet.until_ms, key));
        self.inodes.entry(key).or_default().quiet = quiet;
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
            inode.holders.is_empty() && inode.changing == 0 && !inode.reaping && inode.quiet.until_ms <= now_ms
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

    fn most_of_others(&self, session: SessionId) -> Lease {
        self.others(session).map(|held| held.hold.lease).max().unwrap_or_default()
    }

    /// As much of `want` as nobody and nothing stands against.
    fn obtainable(&self, session: SessionId, want: Lease, now_ms: u64) -> Lease {
        if want == Lease::None || self.changing > 0 || self.quiet.is_for(session, now_ms) {
            return Lease::None;
        }
        match self.most_of_others(session) {
            Lease::None => want,
            Lease::Read => Lease::Read,
            Lease::Write => Lease::None,
        }
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

impl Quiet {
    /// Nothing is granted to this session.
    fn is_for(&self, session: SessionId, now_ms: u64) -> bool {
        now_ms < self.until_ms && self.but != Some(session)
    }
}

#[cfg(test)]
mod tests;
