//! Getting what is needed to make changes here: Write leases, knowledge of names, inode numbers.
//!
//! Each asks once and does not insist. What is not to be had now is not asked for again for a while
//! ([`State::wants_to_be_ours`](crate::client::inode::State::wants_to_be_ours)), and the change is made at the leader.

use std::sync::Arc;

use crate::client::core::Core;
use crate::client::inode::Node;
use crate::client::list_ahead::LIST_ENTRIES_MIN;
use crate::client::names::Part;
use crate::client::numbers::RESERVE;
use crate::remote::session::Lane;
use crate::types::attr::FileKind;
use crate::types::id::Ino;
use crate::types::name::Name;
use crate::types::op::{BatchReply, Op, OpReply};
use crate::types::session::{Hold, Lease};

/// Times that a name is asked for before it is left to the leader, which costs all that is known of the others.
const LOOKUPS_MAX: usize = 4;

impl Core {
    /// Asks for a Write lease on an inode, if there is a prospect of one and it would be of use.
    pub async fn own(&self, node: &Arc<Node>) {
        let asks = {
            let state = node.lock();
            !state.is_ours(&self.life) && state.wants_to_be_ours()
        };
        if !asks || !self.may_act_alone() {
            return;
        }
        self.shipped(node).await;
        let (asked, ino) = (self.nodes.asked(), node.ino);
        let want = Hold { lease: node.lock().want(Lease::Write), open: false };
        let told = self.ask(|session| async move { session.getattr(ino, want).await }).await;
        if let Ok(attr) = told.result.clone() {
            self.keep_attr(asked, &told, attr);
        }
        let mut state = node.lock();
        if state.held.lease() < Lease::Write {
            state.is_shared();
        }
    }

    /// Sees to it that names in this directory can be changed here, if that is to be had. `false`: it is not.
    pub async fn make_ours(&self, dir: Ino, names: &[&Name]) -> bool {
        let node = self.nodes.node(dir);
        let (ours, wanted) = {
            let state = node.lock();
            let ours = state.is_ours(&self.life) && state.dir.can_grow();
            (ours, !state.dir.has_default_acl() && state.wants_to_be_ours())
        };
        if !self.may_act_alone() || !(ours || wanted && self.list_as_ours(&node).await) {
            return false;
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

    /// A short listing: it tells which cookie comes next. More is listed as names are asked for.
    async fn list_as_ours(&self, node: &Arc<Node>) -> bool {
        let part = Part { after: 0, entries: LIST_ENTRIES_MIN, attrs: true };
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
            self.list_as_ours(&node).await;
        } else {
            self.own(&node).await;
        }
    }

    /// More numbers are asked for while there are some left.
    pub fn reserve_soon(self: &Arc<Self>) {
        if self.numbers.is_low() {
            let core = self.clone();
            self.runtime.spawn(async move { core.reserve_numbers().await });
        }
    }

    /// Asks for inode numbers when few are left.
    pub async fn reserve_numbers(&self) {
        let Some(life) = self.numbers.ask() else { return };
        let session = self.session();
        let op = Op::ReserveInos { count: RESERVE };
        let answered = self.submit_in(&session, vec![op], Hold::default(), Lane::Change).await.0;
        let first = match answered {
            Ok(BatchReply::Done(replies)) => replies.first().and_then(|reply| match reply {
                OpReply::Reserved { first } => Some(*first),
                _ => None,
            }),
            _ => None,
        };
        self.numbers.told(life, first);
    }
}
