//! Pages of mappings that no lease covers.
//!
//! The kernel fills the pages of a mapping by reads, which name no program, and drops them when a lease is recalled. A read
//! that is answered without a lease, because hosts take turns, fills pages that nobody will recall. So such a read marks
//! the inode, before it is answered, and the pages are dropped on our own account: once in a while, until a lease covers
//! what is filled or nothing is; and at once when a lock is taken, after which a program expects to see what others wrote
//! before.
//!
//! The order in which a page becomes covered: the lease is there, the mark is taken off, the pages are dropped; whatever is
//! filled after that is recalled with the lease, or marked again.

use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use super::inode::Node;
use crate::types::id::Ino;
use crate::types::limits::LEASE_QUIET_MS;

/// Between two drops of one inode: a little more than leases are not asked for after a recall.
const PAUSE: Duration = Duration::from_millis(LEASE_QUIET_MS + 100);

/// How long one drop may take. A page that is written back waits for the leader.
const PATIENCE: Duration = Duration::from_secs(4);

impl Core {
    /// The kernel is about to fill pages. Noted before the read, so that whoever ends a lease later knows of it.
    pub fn fills_pages(&self, ino: Ino) {
        self.nodes.node(ino).lock().pages = true;
    }

    /// A read is about to be answered without a lease. If it does not fill pages, and none did before, nobody is the wiser.
    pub fn note_unleased_read(self: &Arc<Self>, node: &Arc<Node>) {
        if node.lock().pages {
            self.note_uncovered(node);
        }
    }

    /// Pages may be there that no lease covers.
    pub fn note_uncovered(self: &Arc<Self>, node: &Arc<Node>) {
        let begins = {
            let mut state = node.lock();
            state.uncovered = true;
            !std::mem::replace(&mut state.covering, true)
        };
        if begins {
            let (core, node) = (self.clone(), node.clone());
            self.runtime.spawn(async move { core.cover(&node).await });
        }
    }

    async fn cover(self: &Arc<Self>, node: &Arc<Node>) {
        loop {
            tokio::time::sleep(PAUSE).await;
            if node.lock().opens > 0 {
                // Brings the lease, if it is to be had. An inode that is gone has no changes to come.
                let _ = self.getattr(node.ino).await;
            }
            self.drop_uncovered(node).await;
            let mut state = node.lock();
            if !state.uncovered {
                state.covering = false;
                return;
            }
        }
    }

    /// Drops pages that may be older than what others have written by now. Returns when that is done, whoever does it.
    pub async fn drop_uncovered(self: &Arc<Self>, node: &Arc<Node>) {
        let _turn = node.dropping.lock().await;
        let due = {
            let mut state = node.lock();
            let due = std::mem::take(&mut state.uncovered) || (state.asking > 0 && state.pages);
            // What is filled from here on is noted anew; it is filled after the drop, or dropped by it. But for what is on its way
            // already without a lease.
            state.pages &= !due || state.asking > 0;
            due
        };
        if !due {
            return;
        }
        let mut mark = Mark { core: self, node, back: true };
        let dropping = self.kernel().drop_pages(node.ino);
        match tokio::time::timeout(PATIENCE, dropping).await {
            Ok(()) => mark.back = false,
            Err(_) => tracing::warn!(ino = %node.ino, "the kernel does not give up its pages"),
        }
    }

    /// A read is about to ask the leader. The page it is for may be filled late, with what is old by then.
    pub fn ask_uncovered<'a>(&self, node: &'a Node) -> Asking<'a> {
        node.lock().asking += 1;
        Asking { node }
    }
}

/// Puts the mark back when the drop did not come to its end.
struct Mark<'a> {
    core: &'a Arc<Core>,
    node: &'a Arc<Node>,
    back: bool,
}

impl Drop for Mark<'_> {
    fn drop(&mut self) {
        if self.back {
            self.core.note_uncovered(self.node);
        }
    }
}

/// A read has asked the leader and not been answered.
pub struct Asking<'a> {
    node: &'a Node,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.node.lock().asking -= 1;
    }
}
