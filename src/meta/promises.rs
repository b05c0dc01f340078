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

#[derive(Default)]
pub struct Promises {
    scarce_until: Mutex<HashMap<TreeId, Instant>>,
    /// Counts changes of what is promised.
    changes: watch::Sender<u64>,
}

impl Promises {
    /// A change did not fit.
    pub fn note_scarce(&self, tree: TreeId, now: Instant) {
        let mut until = self.scarce_until.lock();
        until.retain(|_, until| *until > now);
        until.insert(tree, now + PAUSE);
    }

    pub fn are_scarce(&self, tree: TreeId, now: Instant) -> bool {
        self.scarce_until.lock().get(&tree).is_some_and(|until| *until > now)
    }

    /// A session has given something back, or has had more promised.
    pub fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_scarce_is_forgotten() {
        let (promises, now) = (Promises::default(), Instant::now());
        promises.note_scarce(TreeId(1), now);
        let scarce = |tree, at| promises.are_scarce(TreeId(tree), at);
        assert!(scarce(1, now) && !scarce(2, now) && !scarce(1, now + PAUSE));
        promises.note_scarce(TreeId(2), now + PAUSE);
        assert_eq!(promises.scarce_until.lock().len(), 1);
    }
}
