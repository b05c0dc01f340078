//! Others look at what is changed here.
//!
//! Who reads an inode on which this client has a Write lease has the leader tell it: a *look*. The first one takes the lease
//! down to Read, as both may go on by themselves then. But if the inode is changed again, and read again, that is two trips and a
//! wait for each turn, at both ends. So where an inode is changed and read in turns, its lease is kept: what was done before
//! the look is shipped, the leader is told so, and the reader reads there. Changing it costs nothing then, and each
//! read what it costs to ship. (Lustre's glimpse of a size is the idea, for all of an inode.)
//!
//! The order: a look has come; what was done up to now is shipped, names and data; the leader is told. A recall that comes
//! meanwhile is answered instead, and answers the looks too.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::core::Core;
use super::dirty::Scope;
use super::inode::{Node, State};
use crate::types::error::FsError;
use crate::types::id::Ino;
use crate::types::session::{Lease, Shown};

/// A lease that was given down to readers and is needed again within this: the inode is changed and read in turns,
const TURN: Duration = Duration::from_secs(1);
/// and taken to be for so long after each look that was answered without giving it down.
const IN_TURNS: Duration = Duration::from_secs(10);
/// Who has not changed it for so long is done with it for now, and the readers may have it.
const BUSY: Duration = Duration::from_millis(100);
const RETRY: Duration = Duration::from_millis(50);

/// Of one inode: whether it is changed and read in turns.
#[derive(Debug, Default)]
pub struct Looks {
    changed: Option<Instant>,
    came_down: Option<Instant>,
    in_turns_until: Option<Instant>,
    /// The newest look that has come.
    newest: u64,
    /// A task ships for it.
    showing: bool,
}

impl Looks {
    /// It was changed here, under a Write lease.
    pub fn changed(&mut self) {
        self.changed = Some(Instant::now());
    }

    /// A Write lease came down to Read: somebody looks at it, or locks it.
    pub fn came_down(&mut self) {
        self.came_down = Some(Instant::now());
    }

    /// A Write lease is there (again).
    pub fn came_up(&mut self) {
        if self.came_down.take().is_some_and(|at| at.elapsed() < TURN) {
            self.in_turns_until = Some(Instant::now() + IN_TURNS);
        }
    }

    /// The lease is kept when somebody looks now.
    fn keeps(&self) -> bool {
        let now = Instant::now();
        self.in_turns_until.is_some_and(|until| now < until) && self.changed.is_some_and(|at| now < at + BUSY)
    }
}

impl State {
    /// Takes note of a look that may be answered without giving the lease down. Not where the kernel has something of it:
    /// what it has written into its pages only a recall brings here.
    fn is_shown(&mut self, core: &Core, grant: u64, look: u64) -> bool {
        let granted = self.owned(&core.life) && self.held.may_ask() && grant <= self.held.yield_grant();
        let keeps = granted && self.looks.keeps() && !self.pages && !self.uncovered && !core.is_exclusive();
        if keeps {
            self.looks.newest = self.looks.newest.max(look);
            self.looks.in_turns_until = Some(Instant::now() + IN_TURNS);
        }
        keeps
    }
}

impl Core {
    /// Somebody looks at an inode that was granted to this client. Does not wait.
    pub fn looked_at(self: &Arc<Self>, ino: Ino, grant: u64, look: u64) {
        let node = self.nodes.node(ino);
        let begins = {
            // Pages that are being dropped may have something in them.
            let dropping = node.dropping.try_lock();
            let mut state = node.lock();
            let is_shown = dropping.is_ok() && state.is_shown(self, grant, look);
            is_shown.then(|| !std::mem::replace(&mut state.looks.showing, true))
        };
        match begins {
            None => self.recalled(ino, Lease::Read, grant),
            Some(true) => {
                let core = self.clone();
                self.runtime.spawn(async move { core.show(&node).await });
            }
            // The task looks for newer ones before it ends.
            Some(false) => {}
        }
    }

    async fn show(self: &Arc<Self>, node: &Arc<Node>) {
        loop {
            let look = node.lock().looks.newest;
            self.shipped(node).await;
            while self.flush(node, Scope::All).await == Err(FsError::Unreachable) && !self.is_stopping() {
                tokio::time::sleep(RETRY).await;
            }
            let mut state = node.lock();
            if state.held.lease() < Lease::Write || state.held.recall_target().is_some() {
                state.looks.showing = false;
                return;
            }
            self.answer_look(Shown { ino: node.ino, look });
            if state.looks.newest == look {
                state.looks.showing = false;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_changed_and_read_in_turns_is_kept_while_it_is_changed() {
        let mut looks = Looks::default();
        looks.came_up();
        looks.changed();
        assert!(!looks.keeps(), "the first who looks gets it");
        looks.came_down();
        tokio::time::advance(TURN / 2).await;
        looks.came_up();
        looks.changed();
        assert!(looks.keeps());
        tokio::time::advance(BUSY).await;
        assert!(!looks.keeps(), "done with it for now");
        looks.changed();
        assert!(looks.keeps());
        tokio::time::advance(IN_TURNS).await;
        looks.changed();
        assert!(!looks.keeps());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_needed_again_much_later_is_not_in_turns() {
        let mut looks = Looks::default();
        looks.came_down();
        tokio::time::advance(TURN).await;
        looks.came_up();
        looks.changed();
        assert!(!looks.keeps());
    }
}
