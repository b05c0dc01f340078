//! What is lent to the kernel: names and attributes that it may go by, for a moment, without asking.
//!
//! The kernel asks for every name on a path, and for the attributes of what it finds, unless it was told that it may go by
//! what it knows. Under a lease it may, for [`VALIDITY`]. Nothing is called back: a lease that ends waits until all that was
//! lent under it is void ([decision 16](crate::docs::decisions::lent_for_a_moment)).
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
    /// What an earlier client on this mount has lent is void from then on.
    earlier: Mutex<Option<Instant>>,
}

impl Lending {
    fn is_paused(&self) -> bool {
        self.paused_until.lock().is_some_and(|until| Instant::now() < until)
    }

    /// A client before has lent what nobody knows of.
    pub fn began_before(&self) {
        *self.earlier.lock() = Some(Instant::now() + VOID_AFTER);
    }

    /// Returns when nothing is lent any more that a client before has lent.
    pub async fn outlast_earlier(&self) {
        let void_at = *self.earlier.lock();
        if let Some(void_at) = void_at {
            tokio::time::sleep_until(void_at).await;
        }
    }

    fn pause(&self) {
        *self.paused_until.lock() = Some(Instant::now() + PAUSE);
    }
}

/// Of one inode: its attributes, and the names in it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lent {
    void_at: Option<Instant>,
    shared_until: Option<Instant>,
}

impl Lent {
    /// Something is told now that the kernel may go by.
    pub fn lend(&mut self) {
        self.void_at = Some(Instant::now() + VOID_AFTER);
    }

    /// When the kernel goes by nothing of it any more, if that is still to come.
    pub fn void_at(&self) -> Option<Instant> {
        self.void_at.filter(|at| Instant::now() < *at)
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
    /// How long the kernel may go by attributes that it is about to be told.
    pub fn lend_attr(&self, attr: &Attr) -> Duration {
        if attr.kind == FileKind::File && attr.mode & SET_ID_BITS != 0 {
            return Duration::ZERO;
        }
        // What was learnt under an earlier lease is not what holds under this one.
        self.lend(attr.ino, |state| state.visible().is_some_and(|now| now == *attr))
    }

    /// How long the kernel may go by it that a name leads to an inode.
    pub fn lend_name(&self, dir: Ino, name: &Name, ino: Ino) -> Duration {
        self.lend(dir, |state| state.dir.entry(name) == Some(Some(ino)))
    }

    fn lend(&self, ino: Ino, holds: impl FnOnce(&State) -> bool) -> Duration {
        let Some(node) = self.nodes.find(ino) else { return Duration::ZERO };
        let mut state = node.lock();
        let settled = state.leased(&self.life) && state.held.may_ask() && !state.is_changing();
        if !settled || !state.lent.may_be_lent() || self.lending.is_paused() || !holds(&state) {
            return Duration::ZERO;
        }
        state.lent.lend();
        if self.is_exclusive() { EXCLUSIVE_VALIDITY } else { VALIDITY }
    }

    /// Something of it is lent.
    pub fn is_lent(&self, ino: Ino) -> bool {
        self.nodes.find(ino).is_some_and(|node| node.lock().lent.void_at().is_some())
    }

    /// Before a lease ends: returns when the kernel goes by nothing that it was told under it.
    pub async fn outlast_lent(&self, node: &Node) {
        let void_at = node.lock().lent.void_at();
        if let Some(void_at) = void_at {
            self.lending.pause();
            tokio::time::sleep_until(void_at).await;
        }
    }
}
