//! The bookkeeping of one inode's hold: what was granted, what was recalled, in which order. Pure.
//!
//! Grants arrive with replies and recalls on the event stream, so they overtake one another. The leader numbers grants:
//! a recall names the last one it ends, and a grant that arrives after its own recall is void.
//!
//! A recall does not take the lease away: it starts a wind-down (drop pages, flush) during which the lease still holds
//! for reading and for writes that are on their way. [`Held::finish_recall`] ends it, and only then is the yield sent.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::types::limits::SESSION_CLIENT_TTL_MS;
use crate::types::session::{Claim, Hold, Lease};

/// What is held on one inode.
#[derive(Debug, Default)]
pub struct Held {
    hold: Hold,
    grant: u64,
    /// Grants up to this one are void.
    ended: u64,
    /// A wind-down is on its way, down to this lease.
    recalled: Option<Lease>,
    /// A yield is on its way to the leader.
    yielding: bool,
}

/// What a recall asks of the client.
#[derive(Debug, PartialEq, Eq)]
pub enum RecallStep {
    /// Start winding down.
    WindDown,
    /// A wind-down that is under way covers it.
    UnderWay,
    /// Nothing is held beyond what may be kept: answer at once.
    Answer,
    /// Names grants older than one that came since: answered already.
    Late,
}

impl Held {
    pub fn lease(&self) -> Lease {
        self.hold.lease
    }

    pub fn open(&self) -> bool {
        self.hold.open
    }

    pub fn hold(&self) -> Hold {
        self.hold
    }

    /// New leases may be asked for.
    pub fn may_ask(&self) -> bool {
        self.recalled.is_none() && !self.yielding
    }

    /// Takes a grant; `false` when it is void or older than what is known. While a wind-down is under way nothing but
    /// `open` is taken.
    pub fn grant(&mut self, hold: Hold, grant: u64) -> bool {
        if grant <= self.ended || grant < self.grant {
            return false;
        }
        self.grant = grant;
        if self.recalled.is_some() {
            self.hold.open |= hold.open;
            return false;
        }
        self.hold = hold;
        true
    }

    /// Of an inode that was made here and is not shipped: nobody else can know of it. The grant comes with the answer.
    pub fn assume(&mut self, hold: Hold) {
        self.hold = hold;
    }

    pub fn recall(&mut self, keep: Lease, grant: u64) -> RecallStep {
        if grant < self.grant && self.grant > self.ended {
            return RecallStep::Late;
        }
        self.ended = self.ended.max(grant);
        if let Some(lower) = self.recalled {
            self.recalled = Some(lower.min(keep));
            return RecallStep::UnderWay;
        }
        if self.hold.lease <= keep {
            return RecallStep::Answer;
        }
        self.recalled = Some(keep);
        RecallStep::WindDown
    }

    /// The lease the wind-down under way goes down to.
    pub fn recall_target(&self) -> Option<Lease> {
        self.recalled
    }

    /// Ends the wind-down: from now on only what may be kept is held. `keep_open`: an open hold that is there stays. `is_open`:
    /// the inode is open, whether the leader knows or not; now it does.
    /// The answer goes to the leader, then [`Held::yielded`].
    pub fn finish_recall(&mut self, keep_open: bool, is_open: bool) -> Hold {
        let keep = self.recalled.take().unwrap_or(self.hold.lease);
        self.give_back(Hold { lease: self.hold.lease.min(keep), open: is_open || (self.hold.open && keep_open) })
    }

    /// Gives up everything beyond `keep` unasked.
    pub fn give_back(&mut self, keep: Hold) -> Hold {
        self.hold = keep;
        self.ended = self.ended.max(self.grant);
        self.yielding = true;
        keep
    }

    /// The number a yield names: it ends nothing granted later.
    pub fn yield_grant(&self) -> u64 {
        self.ended.max(self.grant)
    }

    /// The leader has the yield.
    pub fn yielded(&mut self) {
        self.yielding = false;
    }

    /// What to claim from a new leader, whose numbers start anew. `None` when nothing is held.
    pub fn reclaim(&mut self, is_open: bool) -> Option<Hold> {
        self.grant = 0;
        self.ended = 0;
        self.hold.open |= is_open;
        (self.hold != Hold::default()).then_some(self.hold)
    }

    /// Nothing is held, and grants up to this one are void.
    pub fn resume(&mut self, ended: u64) {
        self.ended = ended;
    }

    /// The session is gone, and everything with it.
    pub fn lose(&mut self) {
        *self = Held::default();
    }

    pub fn claim(&self, ino: crate::types::id::Ino) -> Claim {
        Claim { ino, hold: self.hold, grant: self.yield_grant() }
    }
}

/// The life of a session as this side counts it: from the sending of the last heartbeat that was acknowledged, shorter
/// than the leader does. When it has run out no lease may be used.
pub struct Life {
    base: Instant,
    until_ms: AtomicU64,
}

impl Life {
    pub fn new() -> Life {
        Life { base: Instant::now(), until_ms: AtomicU64::new(0) }
    }

    pub fn alive(&self) -> bool {
        self.now_ms() < self.until_ms.load(Ordering::Acquire)
    }

    /// A heartbeat sent at `sent` was acknowledged.
    pub fn confirm(&self, sent: Instant) {
        let sent_ms = sent.saturating_duration_since(self.base).as_millis() as u64;
        self.until_ms.fetch_max(sent_ms + SESSION_CLIENT_TTL_MS, Ordering::AcqRel);
    }

    /// The leader has said that the session is gone.
    pub fn end(&self) {
        self.until_ms.store(0, Ordering::Release);
    }

    /// How long the session still lives if nothing is heard.
    pub fn left(&self) -> Duration {
        Duration::from_millis(self.until_ms.load(Ordering::Acquire).saturating_sub(self.now_ms()))
    }

    /// Returns when it has run out.
    pub async fn ended(&self) {
        while self.alive() {
            tokio::time::sleep(self.left().max(Duration::from_millis(1))).await;
        }
    }

    fn now_ms(&self) -> u64 {
        self.base.elapsed().as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Hold = Hold { lease: Lease::Read, open: false };
    const WRITE: Hold = Hold { lease: Lease::Write, open: true };

    #[test]
    fn a_grant_behind_its_recall_is_void() {
        let mut held = Held::default();
        assert_eq!(held.recall(Lease::None, 5), RecallStep::Answer);
        assert!(!held.grant(READ, 5));
        assert_eq!(held.lease(), Lease::None);
        assert!(held.grant(READ, 6));
        assert_eq!(held.lease(), Lease::Read);
    }

    #[test]
    fn an_older_grant_does_not_undo_a_newer() {
        let mut held = Held::default();
        assert!(held.grant(READ, 9));
        assert!(!held.grant(WRITE, 8));
        assert_eq!(held.hold(), READ);
    }

    #[test]
    fn a_wind_down_goes_to_the_lowest_and_keeps_open() {
        let mut held = Held::default();
        assert!(held.grant(WRITE, 3));
        assert_eq!(held.recall(Lease::Read, 3), RecallStep::WindDown);
        assert_eq!(held.recall(Lease::None, 3), RecallStep::UnderWay);
        assert_eq!(held.lease(), Lease::Write);
        assert_eq!(held.finish_recall(true, false), Hold { lease: Lease::None, open: true });
        assert!(!held.may_ask());
        held.yielded();
        assert!(held.may_ask());
        assert!(!held.grant(WRITE, 3));
    }

    #[test]
    fn what_was_opened_under_the_lease_is_told_when_it_ends() {
        let mut held = Held::default();
        held.grant(READ, 3);
        assert_eq!(held.recall(Lease::None, 3), RecallStep::WindDown);
        assert_eq!(held.finish_recall(true, true), Hold { lease: Lease::None, open: true });
        assert!(held.open());
        assert_eq!(held.reclaim(false), Some(Hold { lease: Lease::None, open: true }));
    }

    #[test]
    fn a_recall_of_what_was_given_back_and_granted_anew_is_late() {
        let mut held = Held::default();
        held.grant(READ, 3);
        assert_eq!(held.recall(Lease::None, 3), RecallStep::WindDown);
        held.finish_recall(false, false);
        held.yielded();
        held.grant(READ, 7);
        assert_eq!(held.recall(Lease::None, 3), RecallStep::Late);
        assert_eq!(held.lease(), Lease::Read);
    }

    #[tokio::test(start_paused = true)]
    async fn life_counts_from_the_sending() {
        let life = Life::new();
        assert!(!life.alive());
        let sent = Instant::now();
        tokio::time::advance(Duration::from_millis(1_000)).await;
        life.confirm(sent);
        assert!(life.alive());
        tokio::time::advance(Duration::from_millis(SESSION_CLIENT_TTL_MS - 1_000)).await;
        assert!(!life.alive());
    }
}
