//! Requests that wait for a file lock, so that they can be cancelled by their number.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::types::id::SessionId;

type Place = (SessionId, u64);

/// Who waits.
#[derive(Clone, Default)]
pub struct Waiting {
    places: Arc<Mutex<HashMap<Place, Arc<Notify>>>>,
}

/// One that waits; leaves when dropped.
pub struct Waiter {
    waiting: Waiting,
    place: Place,
    cancelled: Arc<Notify>,
}

impl Waiting {
    pub fn enter(&self, session: SessionId, sequence: u64) -> Waiter {
        let cancelled = Arc::new(Notify::new());
        let place = (session, sequence);
        self.places.lock().insert(place, Arc::clone(&cancelled));
        Waiter { waiting: self.clone(), place, cancelled }
    }

    /// Ends a wait, if it (still) goes on.
    pub fn cancel(&self, session: SessionId, sequence: u64) {
        if let Some(waiter) = self.places.lock().get(&(session, sequence)) {
            waiter.notify_one();
        }
    }
}

impl Waiter {
    pub async fn wait(&self) {
        self.cancelled.notified().await;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut places = self.waiting.places.lock();
        // A retry of the same request may have taken the place over.
        if places.get(&self.place).is_some_and(|waiter| Arc::ptr_eq(waiter, &self.cancelled)) {
            places.remove(&self.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_waiter_is_cancelled_by_number_and_leaves() {
        let waiting = Waiting::default();
        let waiter = waiting.enter(SessionId(1), 5);
        waiting.cancel(SessionId(1), 6);
        assert!(futures_util::FutureExt::now_or_never(waiter.wait()).is_none());
        waiting.cancel(SessionId(1), 5);
        waiter.wait().await;
        drop(waiter);
        assert!(waiting.places.lock().is_empty());
    }
}
