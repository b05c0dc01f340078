//! How much room is left on the disks, as this client may believe it: what the leader told last, less what was sent to the stores
//! since, less what is still to be sent. Pure.
//!
//! The leader adds up what stores report, and both are told once a second. So what was sent in the last few rounds is
//! taken off once more: too little room makes writes slow, too much makes them fail after they had been accepted.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::types::record::SpaceReport;

/// With less than this left, writes go through at once, so that the one that does not fit is the one that fails.
const LOW_BYTES: u64 = 64 << 20;
/// With less than this left, closing a file waits until its data is stored: it is the last call that can report that
/// it was not.
const AMPLE_BYTES: u64 = 1 << 30;
/// Reports that what was sent may be missing from.
const ROUNDS: usize = 3;

#[derive(Default)]
pub struct Space {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    report: SpaceReport,
    /// Bytes sent to the stores, per round; the newest last.
    sent: VecDeque<u64>,
    /// And all of them; now, and when the report was asked for.
    sent_bytes: u64,
    sent_when_asked: u64,
    put_bytes: u64,
    /// The first and the newest put that did not fit, since one fitted.
    full_since: Option<Instant>,
    met_full: Option<Instant>,
}

/// When a report was asked for.
pub struct Asked(u64);

impl Space {
    /// For `statfs`: less what is to be sent, and what the report lacks for certain.
    pub fn report(&self, dirty_bytes: u64) -> SpaceReport {
        let state = self.state.lock();
        let unheard = state.sent_bytes - state.sent_when_asked;
        let free_bytes = state.report.free_bytes.saturating_sub(dirty_bytes).saturating_sub(unheard);
        SpaceReport { free_bytes, ..state.report }
    }

    /// A put did not fit. For how long that has been so.
    pub fn met_full(&self, now: Instant) -> Duration {
        let mut state = self.state.lock();
        state.met_full = Some(now);
        now - *state.full_since.get_or_insert(now)
    }

    /// The newest put did not fit.
    pub fn is_full(&self) -> bool {
        self.state.lock().full_since.is_some()
    }

    pub fn was_full_since(&self, when: Instant) -> bool {
        let state = self.state.lock();
        state.full_since.is_some() && state.met_full.is_some_and(|met| met > when)
    }

    /// What was deleted is about to give its space back.
    pub fn is_freeing(&self) -> bool {
        self.state.lock().report.freeing
    }

    /// The leader is asked. What it tells may have everything that was sent before.
    pub fn asked(&self) -> Asked {
        Asked(self.state.lock().sent_bytes)
    }

    /// The leader has told anew.
    pub fn told(&self, asked: Asked, report: SpaceReport) {
        let mut state = self.state.lock();
        if asked.0 < state.sent_when_asked {
            // A later one was told before.
            return;
        }
        state.report = report;
        state.sent_when_asked = asked.0;
        state.sent.push_back(0);
        if state.sent.len() > ROUNDS {
            state.sent.pop_front();
        }
    }

    /// So much more is in the stores.
    pub fn sent(&self, bytes: u64) {
        let mut state = self.state.lock();
        state.sent_bytes += bytes;
        match state.sent.back_mut() {
            Some(round) => *round += bytes,
            None => state.sent.push_back(bytes),
        }
    }

    /// A put fitted.
    pub fn had_room(&self) {
        self.state.lock().full_since = None;
    }

    /// A part of what is flushed is in the stores.
    pub fn was_put(&self, bytes: u64) {
        self.state.lock().put_bytes += bytes;
    }

    /// All that was put so far, whether the leader has heard of it or not.
    pub fn put_bytes(&self) -> u64 {
        self.state.lock().put_bytes
    }

    /// As far as the disks go, the next write may be the one that does not fit.
    pub fn is_low(&self, dirty_bytes: u64) -> bool {
        self.left(dirty_bytes) < LOW_BYTES
    }

    /// As far as the disks go, what was written and closed can be stored later.
    pub fn is_ample(&self, dirty_bytes: u64) -> bool {
        self.left(dirty_bytes) >= AMPLE_BYTES
    }

    fn left(&self, dirty_bytes: u64) -> u64 {
        let state = self.state.lock();
        if state.report.tight {
            return 0;
        }
        if state.report.total_bytes == 0 {
            // Nobody knows.
            return AMPLE_BYTES;
        }
        state.report.disk_free_bytes.saturating_sub(dirty_bytes).saturating_sub(state.sent.iter().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn report(free_bytes: u64) -> SpaceReport {
        SpaceReport { total_bytes: 10 << 30, free_bytes, disk_free_bytes: free_bytes, ..SpaceReport::default() }
    }

    #[test]
    fn what_was_sent_counts_until_every_report_has_it() {
        let space = Space::default();
        assert!(space.is_ample(u64::MAX), "before the first report");
        space.told(space.asked(), report(300 * MIB));
        assert!(!space.is_low(100 * MIB) && !space.is_ample(0));
        assert!(space.is_low(240 * MIB), "dirty bytes need room too");
        space.sent(240 * MIB);
        assert!(space.is_low(0));
        for _ in 0..ROUNDS - 1 {
            space.told(space.asked(), report(300 * MIB));
            assert!(space.is_low(0), "the report may be older than what was sent");
        }
        space.told(space.asked(), report(300 * MIB));
        assert!(!space.is_low(0));
        space.told(space.asked(), report(2 << 30));
        assert!(space.is_ample(MIB));
    }

    #[test]
    fn what_was_sent_is_not_free_before_the_leader_says_so() {
        let space = Space::default();
        space.told(space.asked(), report(100 * MIB));
        assert_eq!(space.report(20 * MIB).free_bytes, 80 * MIB);
        let early = space.asked();
        space.sent(20 * MIB);
        assert_eq!(space.report(0).free_bytes, 80 * MIB);
        space.told(early, report(100 * MIB));
        assert_eq!(space.report(0).free_bytes, 80 * MIB, "it was asked before");
        space.told(space.asked(), report(80 * MIB));
        assert_eq!(space.report(0).free_bytes, 80 * MIB);
    }

    #[test]
    fn without_room_for_records_there_is_none_for_bytes() {
        let space = Space::default();
        space.told(space.asked(), SpaceReport { tight: true, ..report(5 << 30) });
        assert!(space.is_low(0) && !space.is_ample(0));
    }
}
