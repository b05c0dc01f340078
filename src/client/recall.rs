//! Giving leases back: when the leader recalls them, and when they have not been used for a while.
//!
//! A recall of a lease in use winds down in a task of its own, in this order: what was lent to the kernel is void; it drops its pages (what it writes
//! back on that occasion is buffered like any write); what is dirty is flushed, and committed; from the last flush on
//! writers wait; the lease ends; the leader is told. Pages that the kernel took in the meantime are dropped after.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::core::Core;
use super::dirty::Scope;
use super::inode::{Node, State};
use super::lease::RecallStep;
use crate::types::id::Ino;
use crate::types::session::{Claim, Hold, Lease};

/// Flushes during which writers may go on: a fast writer must not hold up a recall for ever.
const OPEN_ROUNDS: u32 = 2;
const RETRY: Duration = Duration::from_millis(50);
/// Of an attribute's name or value, besides itself: a place in a table, and what the allocator adds.
const XATTR_COST_BYTES: usize = 96;
/// An open hold is kept this long after the last close, for the next open.
const IDLE_OPEN: Duration = Duration::from_secs(5);
/// How long the kernel may take to drop pages, what is written in them included: well within the life of the session.
const PAGES_PATIENCE: Duration = Duration::from_secs(4);
/// And when nothing can be written in them under the lease. A page that is written back at the moment waits for the leader,
/// behind this recall, so this is how long everybody waits then.
const CLEAN_PAGES_PATIENCE: Duration = Duration::from_millis(100);

impl Core {
    /// The leader wants everything beyond `keep` back that it granted up to `grant`. Does not wait.
    pub fn recalled(self: &Arc<Self>, ino: Ino, keep: Lease, grant: u64) {
        let node = self.nodes.node(ino);
        let (step, claim) = {
            let mut state = node.lock();
            let step = state.held.recall(keep, grant);
            (step, state.held.claim(ino))
        };
        let core = self.clone();
        match step {
            RecallStep::WindDown => {
                self.runtime.spawn(async move { core.wind_down(node).await });
            }
            RecallStep::Answer => {
                core.yield_claims([claim]);
            }
            RecallStep::UnderWay | RecallStep::Late => {}
        }
    }

    async fn wind_down(self: Arc<Self>, node: Arc<Node>) {
        let (pages, lease, keep) = {
            let mut state = node.lock();
            let (lease, keep) = (state.held.lease(), state.held.recall_target());
            // Under a Read lease pages are as good as the data.
            let drops = keep != Some(Lease::Read) || lease == Lease::Write;
            (drops && std::mem::take(&mut state.pages), lease, keep)
        };
        if keep != Some(Lease::Read) {
            self.outlast_lent(&node).await;
        }
        if pages {
            let patience = if lease == Lease::Write { PAGES_PATIENCE } else { CLEAN_PAGES_PATIENCE };
            self.drop_pages(&node, patience).await;
        }
        let Some(claim) = self.flush_and_end(&node).await else { return };
        // Filled since. Before the leader hears of it, if the kernel can: a drop that comes while the kernel asks for a size
        // makes it go by the one it had (`lseek` to the end).
        if tokio::time::timeout(CLEAN_PAGES_PATIENCE, self.drop_uncovered(&node)).await.is_err() {
            tracing::debug!(ino = %node.ino, "the kernel does not give up its pages yet");
            self.note_uncovered(&node);
        }
        self.yield_claims([claim]);
    }

    /// A page can be held by a request that is parked at the leader behind this recall. Then the mappings of this file
    /// go without for a while, rather than the whole session.
    async fn drop_pages(self: &Arc<Self>, node: &Arc<Node>, patience: Duration) {
        let dropping = self.kernel().drop_pages(node.ino);
        if tokio::time::timeout(patience, dropping).await.is_err() {
            tracing::debug!(ino = %node.ino, "the kernel does not give up its pages yet; going on without");
            self.note_uncovered(node);
        }
    }

    /// Flushes until nothing is dirty, and ends the lease in the same moment. `None` when it was lost meanwhile.
    async fn flush_and_end(self: &Arc<Self>, node: &Arc<Node>) -> Option<Claim> {
        let mut round = 0;
        loop {
            let lent = {
                let mut state = node.lock();
                let keep = state.held.recall_target()?;
                self.send_locks_home(node, &mut state);
                let lent = keep == Lease::None && state.lent.void_at().is_some();
                // Changes of our own may be parked at the leader behind this recall: they are not waited for. What was
                // made here is never parked.
                if state.dirty.is_empty() && state.pending == 0 && !lent {
                    return Some(end(&mut state, node.ino, keep));
                }
                state.writes_blocked = round >= OPEN_ROUNDS;
                lent
            };
            if lent {
                // It went further down than it was recalled at first.
                self.outlast_lent(node).await;
                continue;
            }
            self.shipped(node).await;
            if self.flush(node, Scope::All).await.is_err() {
                tokio::time::sleep(RETRY).await;
            }
            round += 1;
        }
    }

    /// Gives back at once what a file without names was kept open for.
    pub fn let_go(self: &Arc<Self>, node: &Arc<Node>) {
        self.let_all_go(std::slice::from_ref(node));
    }

    pub fn let_all_go(self: &Arc<Self>, nodes: &[Arc<Node>]) {
        let mut claims = Vec::new();
        for node in nodes {
            let mut state = node.lock();
            // What is not shipped would be granted once more when it is.
            let busy = state.opens > 0 || state.pending > 0 || !state.held.may_ask() || !state.arbiter.is_settled();
            if busy || state.held.hold() == Hold::default() {
                continue;
            }
            self.memory.give(state.dirty.drop_fresh());
            state.dirty_since = None;
            let hold = state.held.give_back(Hold::default());
            state.forget();
            claims.push(Claim { ino: node.ino, hold, grant: state.held.yield_grant() });
        }
        self.yield_claims(claims);
    }

    /// Gives back open holds that nobody came back for, and the coldest inodes when there are too many.
    pub fn give_back_idle(self: &Arc<Self>) {
        let mut claims = Vec::new();
        let (mut extent_bytes, mut name_bytes) = (0, 0);
        let mut unknown = Vec::new();
        for node in self.nodes.all() {
            let mut state = node.lock();
            extent_bytes += state.extents.bytes();
            name_bytes += name_bytes_of(&state);
            // Nobody can come back for it, and the leader keeps it for as long as anything is held on it.
            let gone = state.is_idle() && state.base().is_some_and(|attr| attr.nlink == 0);
            if gone && state.held.hold() != Hold::default() {
                let hold = state.held.give_back(Hold::default());
                state.forget();
                claims.push(Claim { ino: node.ino, hold, grant: state.held.yield_grant() });
                continue;
            }
            let idle = state.idle_since.is_some_and(|since| since.elapsed() >= IDLE_OPEN);
            if idle && state.is_idle() && state.held.open() {
                if state.base().is_none() {
                    unknown.push(node.ino);
                }
                let keep = Hold { lease: state.held.lease(), open: false };
                let hold = state.held.give_back(keep);
                state.idle_since = None;
                claims.push(Claim { ino: node.ino, hold, grant: state.held.yield_grant() });
            }
        }
        let surplus = self.nodes.len().saturating_sub(self.memory.nodes_max());
        if surplus > 0 && !self.evicting.swap(true, Ordering::AcqRel) {
            let core = self.clone();
            self.runtime.spawn(async move {
                core.evict(surplus + surplus / 4).await;
                core.evicting.store(false, Ordering::Release);
            });
        }
        let surplus = extent_bytes.saturating_sub(self.memory.extent_bytes_max());
        self.forget_coldest(surplus, |state| state.extents.bytes(), |state| state.extents.forget());
        let surplus = name_bytes.saturating_sub(self.memory.name_bytes_max());
        self.forget_coldest(surplus, name_bytes_of, State::forget_names);
        self.yield_claims(claims);
        self.look_after(unknown);
    }

    /// Files that were opened by a client before this one may be without names, and kept by nothing but the lease.
    fn look_after(self: &Arc<Self>, unknown: Vec<Ino>) {
        if !unknown.is_empty() {
            let core = self.clone();
            self.runtime.spawn(async move {
                for ino in unknown {
                    // What is gone, or not to be had, is looked at no more.
                    let _ = core.getattr(ino).await;
                }
            });
        }
    }

    /// Gives the coldest inodes back: first what the kernel may hold of them, then the lease.
    async fn evict(self: &Arc<Self>, count: usize) {
        for node in self.nodes.coldest(count, |state| state.held.hold() != Hold::default()) {
            let had_pages = {
                let mut state = node.lock();
                if !state.is_idle() {
                    continue;
                }
                std::mem::take(&mut state.pages)
            };
            if had_pages {
                self.drop_pages(&node, PAGES_PATIENCE).await;
            }
            {
                let mut state = node.lock();
                // Opened again meanwhile, it may have pages again, or is not idle. What is lent is not cold.
                let unused = state.is_idle() && !state.pages && state.lent.void_at().is_none();
                if unused && state.held.hold() != Hold::default() {
                    let hold = state.held.give_back(Hold::default());
                    state.forget();
                    self.yield_claims([Claim { ino: node.ino, hold, grant: state.held.yield_grant() }]);
                }
            }
        }
    }

    /// Forgets so many bytes of what can be asked for again, of the coldest inodes first.
    fn forget_coldest(&self, mut surplus: usize, bytes: impl Fn(&State) -> usize, forget: impl Fn(&mut State)) {
        if surplus == 0 {
            return;
        }
        for node in self.nodes.coldest(usize::MAX, |state| bytes(state) > 0) {
            let mut state = node.lock();
            // Used again meanwhile, it may have something that is not at the leader.
            if !state.is_idle() {
                continue;
            }
            surplus = surplus.saturating_sub(bytes(&state));
            forget(&mut state);
            if surplus == 0 {
                return;
            }
        }
    }
}

/// Names in a directory, of attributes and what they say, and what a symlink leads to.
pub fn name_bytes_of(state: &State) -> usize {
    let xattrs = state.xattrs.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len));
    let names = state.xattr_names.iter().flatten().map(Vec::len);
    let others: usize = xattrs.chain(names).map(|bytes| XATTR_COST_BYTES + bytes).sum();
    state.dir.bytes() + others + state.target.as_ref().map_or(0, Vec::len)
}

fn end(state: &mut State, ino: Ino, keep: Lease) -> Claim {
    let open = state.opens > 0 || keep > Lease::None;
    let had = state.held.lease();
    let hold = state.held.finish_recall(open, state.opens > 0);
    state.arbiter.end();
    if hold.lease == Lease::None {
        state.forget();
        state.lent.is_shared();
        // What was filled since the last drop.
        state.uncovered |= std::mem::take(&mut state.pages);
    }
    if !hold.open {
        state.idle_since = None;
    } else if state.opens == 0 {
        state.idle_since = Some(Instant::now());
    }
    state.writes_blocked = false;
    match (had, hold.lease) {
        (Lease::Write, Lease::Read) => state.looks.came_down(),
        _ => state.quiet(),
    }
    Claim { ino, hold, grant: state.held.yield_grant() }
}
