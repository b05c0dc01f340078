//! What is lent to the kernel: names and attributes that it may go by, for a moment, without asking.
//!
//! The kernel asks for every name on a path, and for the attributes of what it finds, unless it was told that it may go by
//! what it knows. Under a lease it may, for [`VALIDITY`]. Names are not called back: a lease that ends waits until all that
//! were lent under it are void ([decision 16](crate::docs::decisions::lent_for_a_moment)). Attributes that were told without a
//! name are, at once: the kernel puts the notification in order with the answers, those that are on their way included. So
//! a file that is read all the time holds up nobody who changes it.
//!
//! The order: a recall has come and nothing more is lent; what was lent is void; the lease ends; the leader hears of it.
//!
//! Where two hosts look at one thing in turns such a wait would come with each turn. So what was recalled is not lent for a
//! while, and after a wait nothing is.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::core::Core;
use super::inode::{Node, State};
use crate::types::attr::{Attr, FileKind};
use crate::types::id::Ino;
use crate::types::limits::{SESSION_CLIENT_TTL_MS, SESSION_HEARTBEAT_MS, SESSION_TTL_MS};
use crate::types::name::Name;

/// How long the kernel goes by what it was told. Long enough for all the steps of a path, and for the second and the third
/// question about the same thing.
pub const VALIDITY: Duration = Duration::from_millis(100);
/// The same on a volume that no other host has mounted, where nobody waits for it but who takes the volume over.
pub const EXCLUSIVE_VALIDITY: Duration = Duration::from_millis(500);
/// When it certainly does so no longer. It counts from when the process that asked takes note of the answer, in ticks of
/// its clock; that process may have to wait for a processor.
pub const VOID_AFTER: Duration = Duration::from_secs(1);
/// What was recalled is not lent for so long.
pub const SHARED: Duration = Duration::from_secs(60);
/// After a recall that had to wait nothing is lent for so long: others lose a thirtieth of their time at most.
pub const PAUSE: Duration = Duration::from_secs(30);
/// Bits of a mode that a write takes away without the kernel's knowing, and that must not be gone by for a moment.
const SET_ID_BITS: u32 = 0o6000;

/// A session that is not heard of is over for this side that much earlier than for the leader.
const _: () = assert!(
    SESSION_CLIENT_TTL_MS + 2 * SESSION_HEARTBEAT_MS + VOID_AFTER.as_millis() as u64 <= SESSION_TTL_MS,
    "what is lent outlives a session"
);

/// Of a whole client: whether anything is lent at all.
#[derive(Debug, Default)]
pub struct Lending {
    paused_until: Mutex<Option<Instant>>,
}

impl Lending {
    fn is_paused(&self) -> bool {
        self.paused_until.lock().is_some_and(|until| Instant::now() < until)
    }

    fn pause(&self) {
        *self.paused_until.lock() = Some(Instant::now() + PAUSE);
    }
}

/// Of one inode: its attributes, and the names in it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lent {
    void_at: Option<Instant>,
    /// Of attributes that can be called back.
    attr_void_at: Option<Instant>,
    shared_until: Option<Instant>,
}

impl Lent {
    /// Something is told now that the kernel may go by.
    fn lend(&mut self) {
        self.void_at = Some(Instant::now() + VOID_AFTER);
    }

    fn lend_attr_only(&mut self) {
        self.attr_void_at = Some(Instant::now() + VOID_AFTER);
    }

    /// When the kernel goes by nothing of it any more, if that is still to come.
    pub fn void_at(&self) -> Option<Instant> {
        self.void_at.max(self.attr_void_at).filter(|at| Instant::now() < *at)
    }

    fn can_be_called_back(&self) -> bool {
        self.attr_void_at.is_some_and(|at| Instant::now() < at)
    }

    /// Another host wanted it.
    pub fn is_shared(&mut self) {
        self.shared_until = Some(Instant::now() + SHARED);
    }

    fn may_be_lent(&self) -> bool {
        self.shared_until.is_none_or(|until| Instant::now() >= until)
    }
}

impl Core {
    /// How long the kernel may go by attributes that it is about to be told, with a name or of an inode that is new to it.
    pub fn lend_attr(&self, attr: &Attr) -> Duration {
        self.lend_attr_as(attr, Lent::lend)
    }

    /// The same of attributes that it has asked for by themselves.
    pub fn lend_attr_only(&self, attr: &Attr) -> Duration {
        self.lend_attr_as(attr, Lent::lend_attr_only)
    }

    fn lend_attr_as(&self, attr: &Attr, note: impl FnOnce(&mut Lent)) -> Duration {
        if attr.kind == FileKind::File && attr.mode & SET_ID_BITS != 0 {
            return Duration::ZERO;
        }
        // What was learnt under an earlier lease is not what holds under this one.
        let holds = |state: &mut State| state.visible().is_some_and(|now| now == *attr);
        let shows = |state: &mut State| self.is_exclusive() || state.pages_show(attr.version);
        self.lend(attr.ino, |state| holds(state) && shows(state), note)
    }

    /// How long the kernel may go by it that a name leads to an inode.
    pub fn lend_name(&self, dir: Ino, name: &Name, ino: Ino) -> Duration {
        self.lend(dir, |state| state.dir.entry(name) == Some(Some(ino)), Lent::lend)
    }

    fn lend(&self, ino: Ino, holds: impl FnOnce(&mut State) -> bool, note: impl FnOnce(&mut Lent)) -> Duration {
        let Some(node) = self.nodes.find(ino) else { return Duration::ZERO };
        let mut state = node.lock();
        if !self.may_lend(&state) || !holds(&mut state) {
            return Duration::ZERO;
        }
        note(&mut state.lent);
        if self.is_exclusive() { EXCLUSIVE_VALIDITY } else { VALIDITY }
    }

    /// A lease is there to stay, as far as is known.
    pub fn may_lend(&self, state: &State) -> bool {
        let settled = state.leased(&self.life) && state.held.may_ask() && !state.is_changing();
        settled && state.lent.may_be_lent() && !self.lending.is_paused()
    }

    /// Something of it is lent.
    pub fn is_lent(&self, ino: Ino) -> bool {
        self.nodes.find(ino).is_some_and(|node| node.lock().lent.void_at().is_some())
    }

    /// Before a lease ends: returns when the kernel goes by nothing that it was told under it.
    pub async fn outlast_lent(&self, node: &Node) {
        let calls_back = node.lock().lent.can_be_called_back();
        if calls_back && self.kernel().outdate_attr(node.ino) {
            node.lock().lent.attr_void_at = None;
        }
        let void_at = node.lock().lent.void_at();
        if let Some(void_at) = void_at {
            self.lending.pause();
            tokio::time::sleep_until(void_at).await;
        }
    }
}
