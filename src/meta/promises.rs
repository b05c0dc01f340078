//! What a leader knows of the quotas that were promised to sessions: where they are scarce, and that some came back. What was
//! promised to whom is in the replicated state.
//!
//! Whoever needs what was promised to others waits for it; so that it does not go to the next who asks, nothing is promised on
//! that volume for a while.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::types::id::TreeId;

/// For so long after a change did not fit besides what was promised.
const PAUSE: Duration = Duration::from_secs(2);
/// Sessions are asked to spare once in so long, however many changes wait.
const ASKED_AGAIN: Duration = Duration::from_millis(500);

#[derive(Default)]
pub struct Promises {
    scarce: Mutex<HashMap<TreeId, Scarce>>,
    /// Counts changes of what is promised.
    changes: watch::Sender<u64>,
}

struct Scarce {
    until: Instant,
    asked: Option<Instant>,
}

impl Promises {
    /// A change did not fit.
    pub fn note_scarce(&self, tree: TreeId, now: Instant) {
        let mut scarce = self.scarce.lock();
        scarce.retain(|_, scarce| scarce.until > now);
        scarce.entry(tree).or_insert(Scarce { until: now, asked: None }).until = now + PAUSE;
    }

    pub fn are_scarce(&self, tree: TreeId, now: Instant) -> bool {
        self.scarce.lock().get(&tree).is_some_and(|scarce| scarce.until > now)
    }

    /// Whether it is for the caller to ask the sessions of a volume where they are scarce.
    pub fn may_ask(&self, tree: TreeId, now: Instant) -> bool {
        let mut scarce = self.scarce.lock();
        let Some(scarce) = scarce.get_mut(&tree) else { return false };
        let may = scarce.asked.is_none_or(|asked| now >= asked + ASKED_AGAIN);
        if may {
            scarce.asked = Some(now);
        }
        may
    }

    /// A session of this volume has perhaps given something back.
    pub fn changed(&self, tree: TreeId, now: Instant) {
        if self.are_scarce(tree, now) {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_one_of_many_and_one_asks() {
        let (promises, now) = (Promises::default(), Instant::now());
        let asks = |at| promises.may_ask(TreeId(1), at);
        assert!(!asks(now), "nothing is scarce");
        promises.note_scarce(TreeId(1), now);
        assert!(asks(now) && !asks(now) && asks(now + ASKED_AGAIN));
        let watch = promises.watch();
        promises.changed(TreeId(2), now);
        assert!(!watch.has_changed().unwrap(), "nobody waits there");
        promises.changed(TreeId(1), now);
        assert!(watch.has_changed().unwrap());
    }

    #[test]
    fn what_was_scarce_is_forgotten() {
        let (promises, now) = (Promises::default(), Instant::now());
        promises.note_scarce(TreeId(1), now);
        let scarce = |tree, at| promises.are_scarce(TreeId(tree), at);
        assert!(scarce(1, now) && !scarce(2, now) && !scarce(1, now + PAUSE));
        promises.note_scarce(TreeId(2), now + PAUSE);
        assert_eq!(promises.scarce.lock().len(), 1);
    }
}
