//! Getting what is needed to make changes here: Write leases, knowledge of names, inode numbers.
//!
//! Leases are taken from who has them, but not from who has just taken them. What is not to be had now is not asked for again for a
//! while ([`State::wants_to_be_ours`](crate::client::inode::State::wants_to_be_ours)), and the change is made at the leader.

use std::sync::Arc;

use tokio::time::Instant;

use crate::client::core::Core;
use crate::client::inode::Node;
use crate::client::list_ahead::LIST_ENTRIES_MIN;
use crate::client::numbers::RESERVE;
use crate::remote::session::Lane;
use crate::types::attr::FileKind;
use crate::types::id::Ino;
use crate::types::name::Name;
use crate::types::op::{BatchReply, Op, OpReply};
use crate::types::session::{DirPart, Hold, Lease};

/// Inodes whose leases are taken at once, by how many were taken in a row in the order of a listing.
const TAKES: [usize; 3] = [1, 8, 64];
/// Times that a name is asked for before it is left to the leader, which costs all that is known of the others.
const LOOKUPS_MAX: usize = 4;

impl Core {
    /// Takes a Write lease on an inode from whoever has a lease on it, if that would be of use, and on those behind it that are
    /// likely to be changed next.
    pub async fn own(&self, node: &Arc<Node>) {
        let asks = {
            let state = node.lock();
            !state.is_ours(&self.life) && state.wants_to_be_ours()
        };
        if !asks || !self.may_act_alone() {
            return;
        }
        self.shipped(node).await;
        let (asked, inos) = (self.nodes.asked(), self.to_take(node));
        let told = self
            .ask(|session| {
                let inos = inos.clone();
                async move { session.take(inos).await }
            })
            .await;
        let mut had = false;
        for attr in told.result.iter().flatten() {
            had |= attr.ino == node.ino;
            self.keep_attr(asked, &told, attr.clone());
        }
        let mut state = node.lock();
        // It may have been looked at before the answer was here, and be had the next time.
        if state.held.lease() < Lease::Write && !had {
            state.is_shared();
        }
    }

    /// What to take with this one: whoever changes the files of a directory in the order of its listing goes on so.
    fn to_take(&self, node: &Node) -> Vec<Ino> {
        let mut inos = vec![node.ino];
        let place = {
            let state = node.lock();
            state.place.filter(|_| state.base().is_some_and(|attr| attr.kind != FileKind::Dir))
        };
        let Some(place) = place else { return inos };
        let Some(dir) = self.nodes.find(place.dir) else { return inos };
        let behind = {
            let mut state = dir.lock();
            let window = state.takes.note(place.cookie, TAKES);
            state.dir.page(place.cookie, window - 1).filter(|_| state.leased(&self.life))
        };
        let behind = behind.map(|(items, _)| items).unwrap_or_default();
        if let Some(last) = behind.last() {
            dir.lock().takes.asked_up_to(last.cookie);
        }
        for item in behind.iter().filter(|item| item.kind != FileKind::Dir) {
            let sibling = self.nodes.node(item.ino);
            let state = sibling.lock();
            if state.pending == 0 && !state.is_ours(&self.life) && state.wants_to_be_ours() {
                inos.push(item.ino);
            }
        }
        inos
    }

    /// As [`Core::own`], for a file that is written. `false`: it is not to be had.
    pub async fn own_to_write(&self, node: &Arc<Node>) -> bool {
        self.own(node).await;
        node.lock().owned(&self.life)
    }

    /// Sees to it that names in this directory can be changed here, if that is to be had. `false`: it is not.
    pub async fn make_ours(&self, dir: Ino, names: &[&Name]) -> bool {
        let node = self.nodes.node(dir);
        let (ours, wanted) = {
            let state = node.lock();
            let ours = state.is_ours(&self.life) && state.dir.can_grow();
            (ours, !state.dir.has_default_acl() && state.wants_to_be_ours())
        };
        if !self.may_act_alone() || !(ours || wanted && self.own_dir(&node).await) {
            return false;
        }
        if !ours {
            self.note_changed(&node);
        }
        for name in names {
            for _ in 0..LOOKUPS_MAX {
                if node.lock().dir.entry(name).is_some() {
                    break;
                }
                // What it says does not matter: it is known then, unless other names were changed meanwhile.
                let _ = self.lookup(dir, (*name).clone()).await;
            }
        }
        let state = node.lock();
        state.is_ours(&self.life) && state.dir.can_grow()
    }

    /// A Write lease on a directory, and a short listing: it tells which cookie comes next. More is listed as names are asked for.
    async fn own_dir(&self, node: &Arc<Node>) -> bool {
        let is_known = node.lock().leased(&self.life);
        if !is_known && !self.list_to_change(node).await {
            return false;
        }
        let is_had = |node: &Node| node.lock().owned(&self.life);
        if !is_had(node) {
            self.own(node).await;
        }
        let is_listed = node.lock().dir.can_grow();
        is_had(node) && (is_listed || self.list_to_change(node).await)
    }

    async fn list_to_change(&self, node: &Arc<Node>) -> bool {
        let part = DirPart { after: 0, entries: LIST_ENTRIES_MIN, attrs: true, unasked: false };
        self.list(node, part, Lease::Write).await.is_ok()
    }

    /// As [`Core::make_ours`], for an inode and what is in it.
    pub async fn make_child_ours(&self, dir: Ino, name: &Name) {
        let Some(Some(ino)) = self.nodes.node(dir).lock().dir.entry(name) else { return };
        let node = self.nodes.node(ino);
        let (ours, is_dir) = {
            let state = node.lock();
            let is_dir = state.base().is_some_and(|attr| attr.kind == FileKind::Dir);
            (state.is_ours(&self.life) && (!is_dir || state.dir.is_empty().is_some()), is_dir)
        };
        if ours || !node.lock().wants_to_be_ours() {
            return;
        }
        if is_dir {
            self.own_dir(&node).await;
            if node.lock().dir.is_empty().is_none() {
                self.list_to_change(&node).await;
            }
        } else {
            self.own(&node).await;
        }
    }

    /// More is set aside for this client while there is some left.
    pub fn reserve_soon(self: &Arc<Self>) {
        if (self.numbers.is_low() || self.quota_is_low()) && self.reserving.try_lock().is_ok() {
            let core = self.clone();
            self.runtime.spawn(async move { core.reserve().await });
        }
    }

    fn quota_is_low(&self) -> bool {
        self.quota.is_low(|| self.memory.dirty_bytes(), Instant::now())
    }

    /// Has inode numbers, and a part of the volume's quotas, set aside when little of them is left.
    pub async fn reserve(&self) {
        let Ok(_turn) = self.reserving.try_lock() else {
            // Somebody asks already; what comes of that is to do.
            drop(self.reserving.lock().await);
            return;
        };
        let life = self.numbers.ask();
        if life.is_some() || self.quota_is_low() {
            self.reserve_in_turn(life).await;
        }
    }

    /// One question at a time. `life`: of the numbers that are asked for, if they are.
    async fn reserve_in_turn(&self, life: Option<u64>) {
        let session = self.session();
        let numbers = if life.is_some() { RESERVE } else { 0 };
        let (quota_life, upto) = self.quota.ask(|| self.memory.dirty_bytes());
        let op = Op::Reserve { numbers, upto };
        let answered = self.submit_in(&session, vec![op], Hold::default(), Lane::Flush).await.0;
        let (first, allowance) = match answered {
            Ok(BatchReply::Done(replies)) => match replies.first() {
                Some(OpReply::Reserved { first, allowance }) => (*first, Some(*allowance)),
                _ => (None, None),
            },
            _ => (None, None),
        };
        self.quota.told(quota_life, allowance, Instant::now());
        if let Some(life) = life {
            self.numbers.told(life, first);
        }
    }

    /// Gives back what is set aside of the quotas: at once what is not used, and what is under way when it is there.
    pub fn spare(self: &Arc<Self>) {
        let first = self.quota.begin_sparing(|| self.memory.dirty_bytes());
        let core = self.clone();
        self.runtime.spawn(async move {
            core.give_back().await;
            if first {
                // What cannot be stored is reported by who asks for it.
                let _ = core.sync().await;
                core.give_back().await;
                core.quota.end_sparing(Instant::now());
            }
        });
    }

    /// As much as is not needed for what was added.
    async fn give_back(&self) {
        let _turn = self.reserving.lock().await;
        self.reserve_in_turn(None).await;
    }
}
