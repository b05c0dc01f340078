//! Read-ahead among directories: who lists the directories of a directory one after the other (`find`, `ls -R`, `cp -r`, `rm -r`)
//! finds the next ones listed, with leases on what is in them.
//!
//! As with files ([`super::siblings`]), a directory knows its place in the listing that it was learnt from; a listing that has to
//! be asked for and comes behind the last one widens the window, any other closes it. Where directories are changed after they
//! were listed, the next ones are listed with Write leases at once. Nobody waits for a listing that nobody has asked for, but
//! for one that is under way.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::core::Core;
use super::inode::Node;
use super::names::Part;
use super::siblings::Misses;
use crate::types::attr::FileKind;
use crate::types::id::Ino;
use crate::types::session::Lease;

/// Directories listed at once, by how many listings came in a row; the first of all is one in a row. A listing costs more than a
/// file's extents, so it takes two to believe in a walk.
const WINDOWS: [usize; 3] = [1, 1, 16];
/// Entries listed of a directory that nobody has asked for.
const ENTRIES: usize = 256;
/// Names looked at for the next directories.
const LOOKED_AT: usize = 256;
/// So many directories are listed to be changed after one was changed.
const CHANGED_NEXT: u8 = 64;

/// How the directories in a directory are gone through.
#[derive(Debug, Default)]
pub struct Walk {
    misses: Misses,
    /// So many more are likely to be changed.
    changed_next: u8,
}

impl Walk {
    /// One more is listed: it is likely to be changed.
    fn is_changed_next(&mut self) -> bool {
        let likely = self.changed_next > 0;
        self.changed_next = self.changed_next.saturating_sub(1);
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
        let likely = self.likely_lease(&node.lock());
        let mut above = self.above(node);
        // Two levels up: the first directory within the next one is like those of the last.
        for _ in 0..2 {
            let Some(dir) = above.filter(|_| likely < Lease::Write) else { return likely };
            if dir.lock().walk.is_changed_next() {
                return Lease::Write;
            }
            above = self.above(&dir);
        }
        likely
    }

    /// A directory is changed that was listed to be read.
    pub fn note_changed(&self, node: &Node) {
        let mut above = self.above(node);
        for _ in 0..2 {
            let Some(dir) = above else { return };
            dir.lock().walk.changed_next = CHANGED_NEXT;
            above = self.above(&dir);
        }
    }

    /// The directory in whose listing one was seen.
    fn above(&self, node: &Node) -> Option<Arc<Node>> {
        let place = node.lock().place?;
        self.nodes.find(place.dir)
    }

    /// A directory is about to be listed. Begins to list those behind it, if that is how they are gone through.
    pub fn walk_on(self: &Arc<Self>, node: &Node, lease: Lease) {
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
        if let Some((_, last)) = behind.last() {
            above.lock().walk.misses.asked_up_to(*last);
        }
        for (dir, _) in behind {
            self.list_unasked(dir, lease);
        }
    }

    fn list_unasked(self: &Arc<Self>, dir: Ino, lease: Lease) {
        let Some(node) = self.nodes.find(dir) else { return };
        let of_use = {
            let state = node.lock();
            state.pending == 0 && state.want(lease) > Lease::None && state.dir.page(0, 1).is_none()
        };
        if !of_use || !self.listings.begin(dir) {
            return;
        }
        let ending = Ending { core: self.clone(), dir };
        self.runtime.spawn(async move {
            let part = Part { after: 0, entries: ENTRIES, attrs: true };
            // Who asks for it meets what it met.
            let _ = ending.core.list(&node, part, lease).await;
        });
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
