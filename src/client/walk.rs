//! Read-ahead among directories: who lists the directories of a directory one after the other (`find`, `ls -R`, `cp -r`, `rm -r`)
//! finds the next ones listed, with leases on what is in them.
//!
//! As with files ([`super::siblings`]), a directory knows its place in the listing that it was learnt from; a listing that has to
//! be asked for and comes behind the last one widens the window, any other closes it. Where directories are changed after they
//! were listed, the next ones are listed with Write leases at once. What nobody has asked for takes nothing from another host, and
//! nobody waits for it but who asks for what is under way.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::core::Core;
use super::inode::Node;
use super::siblings::Misses;
use crate::types::attr::FileKind;
use crate::types::id::Ino;
use crate::types::session::{DirPart, Lease};

/// Directories listed at once, by how many listings came in a row; the first of all is one in a row. A listing costs more than a
/// file's extents, so it takes two to believe in a walk.
const WINDOWS: [usize; 3] = [1, 1, 16];
/// Entries listed of a directory that nobody has asked for.
const ENTRIES: usize = 256;
/// Names looked at for the next directories.
const LOOKED_AT: usize = 256;
/// After a directory was changed, so many of those in the same directory are listed to be changed,
const CHANGED_NEXT: u8 = 16;
/// and the first ones of so many directories beside that.
const CHANGED_BESIDE: u8 = 4;

/// How the directories in a directory are gone through.
#[derive(Debug, Default)]
pub struct Walk {
    misses: Misses,
    /// So many more of them are likely to be changed.
    changed_next: u8,
    /// Of so many more of them those within are.
    changed_beside: u8,
    /// The last one that was listed to be changed.
    to_be_changed: Option<Ino>,
}

impl Walk {
    /// One more is listed: it is likely to be changed.
    fn is_changed_next(&mut self, dir: Ino) -> bool {
        let likely = self.changed_next > 0;
        if likely {
            self.changed_next -= 1;
            self.to_be_changed = Some(dir);
        }
        likely
    }

    /// One more is gone through: what is in it is likely to be changed.
    fn is_changed_beside(&mut self) -> bool {
        let likely = self.changed_beside > 0;
        self.changed_beside = self.changed_beside.saturating_sub(1);
        likely
    }
}

/// Listings under way that nobody has asked for.
#[derive(Default)]
pub struct Listings {
    under_way: Mutex<HashSet<Ino>>,
    ended: Notify,
}

impl Listings {
    fn begin(&self, dir: Ino) -> bool {
        self.under_way.lock().insert(dir)
    }

    /// Returns when no listing of this directory is under way.
    pub async fn ended(&self, dir: Ino) {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if !self.under_way.lock().contains(&dir) {
                return;
            }
            ended.await;
        }
    }
}

/// Ends a listing, however it ends.
struct Ending {
    core: Arc<Core>,
    dir: Ino,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.core.listings.under_way.lock().remove(&self.dir);
        self.core.listings.ended.notify_waiters();
    }
}

impl Core {
    /// The lease to list a directory with.
    pub fn listing_lease(&self, node: &Node) -> Lease {
        let lease = self.next_lease(node);
        let Some(above) = self.above(node).filter(|_| lease < Lease::Write) else { return lease };
        // It goes on as it did, or, of the first one in a directory, as in the directory before.
        let goes_on =
            self.was_changed(&above) || self.above(&above).is_some_and(|beside| beside.lock().walk.is_changed_beside());
        if goes_on {
            above.lock().walk.changed_next = CHANGED_NEXT;
        }
        self.next_lease(node)
    }

    fn next_lease(&self, node: &Node) -> Lease {
        let likely = self.likely_lease(&node.lock());
        let next = |above: Arc<Node>| above.lock().walk.is_changed_next(node.ino);
        if likely < Lease::Write && self.above(node).is_some_and(next) { Lease::Write } else { likely }
    }

    /// The last one that was listed to be changed was, as far as is known.
    fn was_changed(&self, above: &Node) -> bool {
        let Some(last) = above.lock().walk.to_be_changed.take() else { return false };
        self.nodes.find(last).is_none_or(|last| last.lock().was_changed_under_lease())
    }

    /// A directory is changed that was listed to be read.
    pub fn note_changed(&self, node: &Node) {
        let Some(above) = self.above(node) else { return };
        above.lock().walk.changed_next = CHANGED_NEXT;
        if let Some(beside) = self.above(&above) {
            beside.lock().walk.changed_beside = CHANGED_BESIDE;
        }
    }

    /// The directory in whose listing one was seen.
    fn above(&self, node: &Node) -> Option<Arc<Node>> {
        let place = node.lock().place?;
        self.nodes.find(place.dir)
    }

    /// A directory is about to be listed. Begins to list those behind it, if that is how they are gone through.
    pub fn walk_on(self: &Arc<Self>, node: &Node) {
        let Some(place) = node.lock().place else { return };
        let Some(above) = self.nodes.find(place.dir) else { return };
        let behind: Vec<(Ino, u64)> = {
            let mut state = above.lock();
            let window = state.walk.misses.note(place.cookie, WINDOWS);
            let names = state.dir.page(place.cookie, LOOKED_AT).filter(|_| window > 1 && state.leased(&self.life));
            let names = names.map(|(items, _)| items).unwrap_or_default();
            let dirs = names.into_iter().filter(|item| item.kind == FileKind::Dir);
            dirs.map(|item| (item.ino, item.cookie)).take(window - 1).collect()
        };
        for (dir, cookie) in behind {
            if self.list_unasked(dir) {
                above.lock().walk.misses.asked_up_to(cookie);
            }
        }
    }

    /// `false`: that would be of no use.
    fn list_unasked(self: &Arc<Self>, dir: Ino) -> bool {
        let Some(node) = self.nodes.find(dir) else { return false };
        let of_use = {
            let state = node.lock();
            state.pending == 0 && state.want(Lease::Read) > Lease::None && state.dir.page(0, 1).is_none()
        };
        if !of_use || !self.listings.begin(dir) {
            return false;
        }
        let (ending, lease) = (Ending { core: self.clone(), dir }, self.next_lease(&node));
        self.runtime.spawn(async move {
            let part = DirPart { after: 0, entries: ENTRIES, attrs: true, unasked: true };
            // Who asks for it meets what it met.
            let _ = ending.core.list(&node, part, lease).await;
        });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listing_is_waited_for_while_it_is_under_way() {
        let listings = Listings::default();
        listings.ended(Ino(5)).await;
        assert!(listings.begin(Ino(5)) && !listings.begin(Ino(5)));
        let waiting = listings.ended(Ino(5));
        tokio::pin!(waiting);
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        listings.under_way.lock().remove(&Ino(5));
        listings.ended.notify_waiters();
        waiting.await;
    }
}
