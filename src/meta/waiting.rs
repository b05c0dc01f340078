//! Requests that wait for a file lock: so that they can be cancelled by their number, and so that owners that would wait
//! for one another for ever are told.
//!
//! Who waits is noted with what it asks for; for whom it waits is read from the locks that are held at the moment of the
//! question. One question at a time: of two that close a circle together the second is refused.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::types::id::{Ino, SessionId, TreeId};
use crate::types::lock::{LockOwner, LockRequest};

type Place = (SessionId, u64);

/// Who waits.
#[derive(Clone, Default)]
pub struct Waiting {
    noted: Arc<Mutex<Noted>>,
}

#[derive(Default)]
struct Noted {
    places: HashMap<Place, Arc<Notify>>,
    /// The range locks that each owner waits for, by the waiter: a process can have several threads.
    waits: HashMap<LockOwner, HashMap<u64, Wait>>,
    /// The inodes on which locks of either kind are waited for, by the waiter.
    inodes: HashMap<u64, (TreeId, Ino)>,
    last: u64,
}

/// A range lock that is waited for.
#[derive(Clone, Debug)]
pub struct Wait {
    pub tree: TreeId,
    pub session: SessionId,
    pub request: LockRequest,
}

/// One that waits; leaves when dropped.
pub struct Waiter {
    waiting: Waiting,
    place: Place,
    cancelled: Arc<Notify>,
    number: u64,
    /// It is noted as a wait of this owner.
    owner: Option<LockOwner>,
}

impl Wait {
    fn owner(&self) -> LockOwner {
        LockOwner { session: self.session, owner: self.request.owner }
    }
}

impl Waiting {
    pub fn enter(&self, session: SessionId, sequence: u64, inode: (TreeId, Ino)) -> Waiter {
        let cancelled = Arc::new(Notify::new());
        let place = (session, sequence);
        let mut noted = self.noted.lock();
        noted.last += 1;
        noted.places.insert(place, Arc::clone(&cancelled));
        let number = noted.last;
        noted.inodes.insert(number, inode);
        Waiter { waiting: self.clone(), place, cancelled, number, owner: None }
    }

    /// Whether anybody waits for a lock on an inode.
    pub fn on(&self, tree: TreeId, ino: Ino) -> bool {
        self.noted.lock().inodes.values().any(|inode| *inode == (tree, ino))
    }

    /// Ends a wait, if it (still) goes on.
    pub fn cancel(&self, session: SessionId, sequence: u64) {
        if let Some(waiter) = self.noted.lock().places.get(&(session, sequence)) {
            waiter.notify_one();
        }
    }
}

impl Waiter {
    pub async fn wait(&self) {
        self.cancelled.notified().await;
    }

    /// Notes what is waited for. `holders` says whose locks are in the way of a wait. `false`: it would close a circle of
    /// owners, and is not noted.
    ///
    /// # Errors
    /// What `holders` says.
    pub fn wait_for<E>(&mut self, wait: Wait, holders: impl Fn(&Wait) -> Result<Vec<LockOwner>, E>) -> Result<bool, E> {
        let mut noted = self.waiting.noted.lock();
        let owner = wait.owner();
        let circular = is_circular(owner, holders(&wait)?, |other| {
            let waits = noted.waits.get(&other).into_iter().flat_map(HashMap::values);
            waits.map(&holders).collect::<Result<Vec<_>, E>>().map(|holders| holders.concat())
        })?;
        if circular {
            noted.forget(owner, self.number);
        } else {
            noted.waits.entry(owner).or_default().insert(self.number, wait);
        }
        self.owner = (!circular).then_some(owner);
        Ok(!circular)
    }
}

impl Noted {
    fn forget(&mut self, owner: LockOwner, number: u64) {
        if let Some(waits) = self.waits.get_mut(&owner) {
            waits.remove(&number);
            if waits.is_empty() {
                self.waits.remove(&owner);
            }
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut noted = self.waiting.noted.lock();
        noted.inodes.remove(&self.number);
        // A retry of the same request may have taken the place over.
        if noted.places.get(&self.place).is_some_and(|waiter| Arc::ptr_eq(waiter, &self.cancelled)) {
            noted.places.remove(&self.place);
        }
        if let Some(owner) = self.owner {
            noted.forget(owner, self.number);
        }
    }
}

/// Whether one that waits for `holders` waits for itself in the end. `waits_for` says for whom another waits.
fn is_circular<O: Copy + Eq + Hash, E>(
    one: O,
    holders: Vec<O>,
    mut waits_for: impl FnMut(O) -> Result<Vec<O>, E>,
) -> Result<bool, E> {
    let (mut seen, mut todo) = (HashSet::new(), holders);
    while let Some(other) = todo.pop() {
        if other == one {
            return Ok(true);
        }
        if seen.insert(other) {
            todo.extend(waits_for(other)?);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::lock::{LockMode, LockRange, LockSpace};

    const PLACE: (TreeId, Ino) = (TreeId(1), Ino(5));

    #[tokio::test]
    async fn a_waiter_is_cancelled_by_number_and_leaves() {
        let waiting = Waiting::default();
        let waiter = waiting.enter(SessionId(1), 5, PLACE);
        assert!(waiting.on(PLACE.0, PLACE.1) && !waiting.on(PLACE.0, Ino(6)));
        waiting.cancel(SessionId(1), 6);
        assert!(futures_util::FutureExt::now_or_never(waiter.wait()).is_none());
        waiting.cancel(SessionId(1), 5);
        waiter.wait().await;
        drop(waiter);
        assert!(waiting.noted.lock().places.is_empty() && !waiting.on(PLACE.0, PLACE.1));
    }

    fn circular(one: u8, holders: &[u8], waits: &[(u8, &[u8])]) -> bool {
        let waits: HashMap<u8, Vec<u8>> = waits.iter().map(|(who, whom)| (*who, whom.to_vec())).collect();
        is_circular(one, holders.to_vec(), |who| Ok::<_, ()>(waits.get(&who).cloned().unwrap_or_default())).unwrap()
    }

    #[test]
    fn circles_are_found_and_nothing_else() {
        assert!(!circular(1, &[2], &[]));
        assert!(!circular(1, &[2], &[(2, &[3]), (4, &[1])]));
        assert!(circular(1, &[2], &[(2, &[1])]));
        assert!(circular(1, &[2], &[(2, &[3]), (3, &[4]), (4, &[1])]));
        assert!(circular(1, &[5, 2], &[(5, &[6]), (2, &[6, 1])]), "one of several holders is enough");
        assert!(!circular(1, &[2], &[(2, &[3]), (3, &[2])]), "a circle of others is theirs");
    }

    #[test]
    fn whoever_closes_the_circle_is_refused_and_not_noted() {
        let waiting = Waiting::default();
        let owner = |owner| LockOwner { session: SessionId(1), owner };
        let wait = |owner| {
            let range = LockRange { start: 0, end: 9 };
            let (space, mode) = (LockSpace::Range, Some(LockMode::Exclusive));
            let request = LockRequest { ino: PLACE.1, space, owner, mode, range, pid: 1 };
            Wait { tree: PLACE.0, session: SessionId(1), request }
        };
        // 1 waits for 2, and 2 for 1.
        let holders = |wait: &Wait| Ok::<_, ()>(vec![owner(3 - wait.request.owner)]);
        let (mut one, mut two) = (waiting.enter(SessionId(1), 1, PLACE), waiting.enter(SessionId(1), 2, PLACE));
        assert_eq!(one.wait_for(wait(1), holders), Ok(true));
        assert_eq!(two.wait_for(wait(2), holders), Ok(false));
        assert_eq!(one.wait_for(wait(1), holders), Ok(true), "the one that is left waits on");
        drop(one);
        assert_eq!(two.wait_for(wait(2), holders), Ok(true));
        drop((waiting.enter(SessionId(1), 2, PLACE), two));
        assert!(waiting.noted.lock().waits.is_empty());
    }
}
