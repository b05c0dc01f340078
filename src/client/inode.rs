//! What the client knows of one inode, and the table of all of them.
//!
//! Everything cached here is used only while a lease holds and the session lives ([`State::leased`]). What a reply
//! brings is kept only if nothing happened meanwhile that could have made it old: see [`State::accepts`].
//!
//! Locks: a shard of the table, then the state of one inode, never across an await. More than one state only by
//! [`lock_all`], in ascending order.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::arbiter::Arbiter;
use super::atime::Access;
use super::dirty::Dirty;
use super::extents::ExtentMap;
use super::lease::{Held, Life};
use super::lent::Lent;
use super::looks::Looks;
use super::names::Names;
use super::siblings::{Misses, Place};
use super::walk::Walk;
use crate::types::attr::{Attr, FileKind, Time, mode_without_privileges};
use crate::types::error::FsError;
use crate::types::id::Ino;
use crate::types::limits::{INLINE_BYTES_MAX, LEASE_QUIET_MS};
use crate::types::session::{Hold, Lease};

const SHARDS: usize = 64;

/// One inode.
pub struct Node {
    pub ino: Ino,
    state: Mutex<State>,
    /// Flushes of this file, and changes that must not overtake them, one at a time.
    pub flushing: Arc<tokio::sync::Mutex<()>>,
    /// Held while pages that no lease covers are dropped.
    pub dropping: tokio::sync::Mutex<()>,
    /// A recall ended, a yield arrived, the session was renewed.
    pub moved: Notify,
    /// When it was last used, in the table's own count.
    used: AtomicU64,
}

/// The changing part.
pub struct State {
    pub held: Held,
    stamps: Arc<AtomicU64>,
    /// When the lease was gained or lost last: what was asked before is not kept after.
    tenure: u64,
    /// When a change of our own began or ended last.
    crossed: u64,
    changes: u32,
    /// The newest version seen: anything older is old news.
    version: u64,
    attr: Option<Attr>,
    pub dir: Names,
    /// Of a directory: how its files were missed, and taken to be changed, and how the directories in it are gone through.
    pub misses: Misses,
    pub takes: Misses,
    pub walk: Walk,
    /// Where it stands in a directory.
    pub place: Option<Place>,
    pub xattrs: HashMap<Vec<u8>, Option<Vec<u8>>>,
    pub xattr_names: Option<Vec<Vec<u8>>>,
    pub target: Option<Vec<u8>>,
    pub extents: ExtentMap,
    pub dirty: Dirty,
    pub dirty_since: Option<Instant>,
    /// Of the newest buffered write.
    pub mtime: Option<Time>,
    pub clear_privileges: bool,
    /// Noticed by readers and not told yet.
    pub access: Option<Access>,
    pub opens: u32,
    pub writers: u32,
    pub idle_since: Option<Instant>,
    /// The kernel has filled pages since they were last dropped.
    pub pages: bool,
    pub lent: Lent,
    pub looks: Looks,
    pub arbiter: Arbiter,
    /// Some of them may have been filled without a lease (see [`super::mapped`]), and a task that sees to it is under way.
    pub uncovered: bool,
    pub covering: bool,
    /// Reads that wait for the leader.
    pub asking: u32,
    /// How many sessions this inode's buffers have outlived: what was frozen under one is not to be heard of under the next.
    pub life: u64,
    /// A recall is in its last flush: writers wait.
    pub writes_blocked: bool,
    pub failure: Failure,
    /// Leases were refused or recalled a moment ago: not to be asked for before this.
    ask_after: Option<Instant>,
    /// The session that had it open has expired and the inode is gone.
    pub stale: bool,
    /// Changes made here that are not shipped yet (see [`super::journal`]), and the number of the newest.
    pub pending: u32,
    pub newest_record: u64,
    /// A Write lease was not to be had a moment ago: not to be asked for before this.
    alone_after: Option<Instant>,
    /// The file has as much inline as it may: what is written goes to the stores, until a block is rewritten.
    pub inline_full: bool,
    /// Weight of the pieces written per block since its extents were last counted, under whatever lease or none: lists
    /// grow fastest where hosts take turns.
    pub pieces: HashMap<u64, u32>,
}

/// The states of a few inodes, locked together.
pub struct Locked<'a>(Vec<(Ino, MutexGuard<'a, State>)>);

/// Locks the states of these inodes, each once.
pub fn lock_all<'a>(nodes: &[&'a Node]) -> Locked<'a> {
    let mut nodes = nodes.to_vec();
    nodes.sort_by_key(|node| node.ino);
    nodes.dedup_by_key(|node| node.ino);
    Locked(nodes.into_iter().map(|node| (node.ino, node.lock())).collect())
}

impl Locked<'_> {
    /// The state of one of them.
    pub fn of(&mut self, ino: Ino) -> Option<&mut State> {
        self.0.iter_mut().find(|(locked, _)| *locked == ino).map(|(_, state)| &mut **state)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut State> {
        self.0.iter_mut().map(|(_, state)| &mut **state)
    }
}

/// What write-back met, for every handle to report once.
#[derive(Clone, Debug, Default)]
pub struct Failure {
    pub count: u64,
    pub error: Option<FsError>,
}

/// When a question was asked, on the table's count of gains, losses and own changes. Good for every inode: a lookup does
/// not know which one it will be told of.
#[derive(Clone, Copy, Debug)]
pub struct Asked(u64);

impl Node {
    fn new(ino: Ino, block_bytes: u64, stamps: Arc<AtomicU64>) -> Node {
        let state = State {
            held: Held::default(),
            stamps,
            tenure: 0,
            crossed: 0,
            changes: 0,
            version: 0,
            attr: None,
            dir: Names::default(),
            misses: Misses::default(),
            takes: Misses::default(),
            walk: Walk::default(),
            place: None,
            xattrs: HashMap::new(),
            xattr_names: None,
            target: None,
            extents: ExtentMap::new(block_bytes),
            dirty: Dirty::new(block_bytes),
            dirty_since: None,
            mtime: None,
            clear_privileges: false,
            access: None,
            opens: 0,
            writers: 0,
            idle_since: None,
            pages: false,
            lent: Lent::default(),
            looks: Looks::default(),
            arbiter: Arbiter::default(),
            uncovered: false,
            covering: false,
            asking: 0,
            life: 0,
            writes_blocked: false,
            failure: Failure::default(),
            ask_after: None,
            stale: false,
            pending: 0,
            newest_record: 0,
            alone_after: None,
            inline_full: false,
            pieces: HashMap::new(),
        };
        let (flushing, dropping) = (Arc::default(), tokio::sync::Mutex::new(()));
        Node { ino, state: Mutex::new(state), flushing, dropping, moved: Notify::new(), used: AtomicU64::new(0) }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// How many bytes of a write may stay inline.
    pub fn inline_bytes_max(&self) -> u32 {
        if self.lock().inline_full { 0 } else { INLINE_BYTES_MAX }
    }

    /// A regular file, as far as is known here.
    pub fn is_known_file(&self) -> bool {
        self.lock().base().is_some_and(|attr| attr.kind == FileKind::File)
    }
}

impl State {
    /// At least a read lease that may be used now.
    pub fn leased(&self, life: &Life) -> bool {
        self.held.lease() >= Lease::Read && life.alive()
    }

    /// A write lease that may be used now.
    pub fn owned(&self, life: &Life) -> bool {
        self.held.lease() == Lease::Write && life.alive()
    }

    /// This client may change it by itself: nobody else has a lease on it or waits for one, it is known, and no change of
    /// ours is at the leader.
    pub fn is_ours(&self, life: &Life) -> bool {
        self.owned(life) && self.held.may_ask() && self.changes == 0 && self.attr.is_some() && !self.stale
    }

    /// A Write lease may be worth asking for.
    pub fn wants_to_be_ours(&self) -> bool {
        self.alone_after.is_none_or(|after| Instant::now() >= after) && self.want(Lease::Write) == Lease::Write
    }

    /// # Errors
    /// What write-back met since it had met so much.
    pub fn failed_since(&self, failures: u64) -> Result<(), FsError> {
        if self.failure.count == failures {
            return Ok(());
        }
        Err(self.failure.error.clone().unwrap_or(FsError::Io))
    }

    /// It was changed here since the lease was gained.
    pub fn was_changed_under_lease(&self) -> bool {
        self.crossed > self.tenure
    }

    /// A Write lease was asked for, and others have leases.
    pub fn is_shared(&mut self) {
        self.alone_after = Some(Instant::now() + Duration::from_millis(LEASE_QUIET_MS));
    }

    /// Begins a change of our own that is not made at the leader: what was asked before is not kept after. The attributes,
    /// to be changed.
    pub fn change_here(&mut self) -> Option<&mut Attr> {
        self.crossed = self.stamp();
        self.looks.changed();
        self.attr.as_mut()
    }

    /// The attributes as they are now are the newest there are.
    pub fn changed_here(&mut self) {
        self.version = self.attr.as_ref().map_or(self.version, |attr| self.version.max(attr.version));
    }

    /// An inode that was just made here: all of it is known.
    pub fn made_here(&mut self, attr: Attr) {
        self.held.assume(Hold { lease: Lease::Write, open: true });
        self.tenure = self.stamp();
        self.version = attr.version;
        self.attr = Some(attr);
        self.arbiter.made_here();
        self.extents.set_empty();
    }

    /// One change that was made here has left the journal. Answers to what was asked before lack it.
    pub fn shipped(&mut self) {
        self.pending = self.pending.saturating_sub(1);
        self.crossed = self.stamp();
    }

    /// The attributes are not what is known here: they are to be asked for.
    pub fn forget_attr(&mut self) {
        self.attr = None;
    }

    pub fn forget_names(&mut self) {
        self.dir = Names::default();
        self.xattrs = HashMap::new();
        self.xattr_names = None;
        self.target = None;
    }

    /// What was changed here did not come about: it is to be asked for.
    pub fn disavow(&mut self) {
        self.forget();
        self.version = 0;
    }

    /// Space that the leader says is taken.
    pub fn learn_allocated(&mut self, bytes: u64) {
        if let Some(attr) = &mut self.attr {
            attr.allocated_bytes = bytes;
        }
    }

    /// Extended attributes that go with the mode, the owner or the data are to be asked for again.
    pub fn forget_followers(&mut self) {
        self.xattrs.retain(|name, _| !follows_others(name));
    }

    /// The lease to ask for, if this is the moment to ask.
    pub fn want(&self, lease: Lease) -> Lease {
        let quiet = self.ask_after.is_some_and(|after| Instant::now() < after);
        if quiet || !self.held.may_ask() { Lease::None } else { lease }
    }

    /// It can be opened without asking: who holds a lease is asked before the inode can go, and says then that it is open. (While a
    /// change of our own is under way that may take its last name, its attributes are not known.)
    pub fn may_open(&self, life: &Life) -> bool {
        let there = self.attr.as_ref().is_some_and(|attr| attr.nlink > 0);
        self.held.open() || (there && self.leased(life) && self.held.may_ask())
    }

    /// The open hold is needed and not there, and no lease stands in for it. Asked for by who has it, the leader would answer after a recall of the lease
    /// that is under way; and the recall may wait for a page that the request at hand has locked.
    pub fn wants_open(&self) -> bool {
        self.opens > 0 && self.held.lease() == Lease::None && !self.held.open()
    }

    pub fn quiet(&mut self) {
        self.ask_after = Some(Instant::now() + Duration::from_millis(LEASE_QUIET_MS));
    }

    /// A reply may be kept: a lease holds now and has held since the question was asked, or came with the reply, and no
    /// change of our own crossed it, or is still on its way to whoever answered.
    pub fn accepts(&self, asked: Asked, came_with_lease: bool) -> bool {
        self.pending == 0 && self.changes == 0 && self.crossed <= asked.0 && self.held_since(asked, came_with_lease)
    }

    /// As [`State::accepts`] for the reply to a change of our own that began at `asked`.
    pub fn held_since(&self, asked: Asked, came_with_lease: bool) -> bool {
        self.held.lease() >= Lease::Read && (self.tenure <= asked.0 || came_with_lease)
    }

    /// Changes of our own are under way.
    pub fn is_changing(&self) -> bool {
        self.changes > 0
    }

    /// Nothing happened since the question that could make the answer, with what was buffered then, a torn one.
    pub fn undisturbed(&self, asked: Asked) -> bool {
        self.pending == 0 && self.changes == 0 && self.crossed <= asked.0 && self.tenure <= asked.0
    }

    fn stamp(&self) -> u64 {
        self.stamps.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Takes a grant. Returns whether it is in force.
    pub fn grant(&mut self, hold: Hold, grant: u64) -> bool {
        let before = self.held.lease();
        let taken = self.held.grant(hold, grant);
        if taken && before == Lease::None && hold.lease > Lease::None {
            self.tenure = self.stamp();
        }
        if taken && hold.lease == Lease::None && before > Lease::None {
            self.forget();
        }
        if taken && hold.lease == Lease::Write && before < Lease::Write {
            self.looks.came_up();
        }
        taken
    }

    /// The lease is gone, and what was known under it.
    pub fn forget(&mut self) {
        self.tenure = self.stamp();
        self.attr = None;
        self.forget_names();
        self.extents.forget();
        if self.arbiter.end() {
            self.fail(FsError::Io);
        }
    }

    /// A change of our own begins: attributes are not to be answered from here until it is done.
    pub fn begin_change(&mut self) {
        self.begin_flush();
        self.attr = None;
        self.dir.disorder();
        self.forget_followers();
        self.xattr_names = None;
    }

    /// A flush begins: what is buffered here lies over what it changes, so nothing needs to be forgotten.
    pub fn begin_flush(&mut self) {
        self.changes += 1;
        self.crossed = self.stamp();
    }

    pub fn end_change(&mut self) {
        self.changes -= 1;
        self.crossed = self.stamp();
    }

    /// Keeps attributes, if a lease holds and they are no older than what was seen.
    pub fn learn(&mut self, attr: &Attr) {
        let fresh = attr.version >= self.version;
        self.version = self.version.max(attr.version);
        if fresh && self.held.lease() >= Lease::Read {
            self.attr = Some(attr.clone());
        }
    }

    /// As the leader last told, without what is buffered here.
    pub fn base(&self) -> Option<&Attr> {
        self.attr.as_ref()
    }

    /// Attributes as programs are to see them.
    pub fn visible(&self) -> Option<Attr> {
        self.attr.as_ref().map(|attr| self.overlay(attr.clone()))
    }

    /// Lays what is buffered here over what the leader told.
    pub fn overlay(&self, mut attr: Attr) -> Attr {
        if let Some(end) = self.dirty.end() {
            let limit = attr.size.max(end).next_multiple_of(512);
            attr.allocated_bytes = attr.allocated_bytes.max((attr.allocated_bytes + self.dirty.bytes()).min(limit));
            attr.size = attr.size.max(end);
        }
        if let Some(mtime) = self.mtime {
            attr.mtime = mtime;
            attr.ctime = attr.ctime.max(mtime);
        }
        if let Some(access) = self.access.filter(|access| access.was == attr.atime) {
            attr.atime = access.at;
        }
        if self.clear_privileges {
            attr.mode = mode_without_privileges(attr.mode);
        }
        attr
    }

    /// The end of file as programs are to see it.
    pub fn size(&self) -> Option<u64> {
        let base = self.attr.as_ref()?.size;
        Some(self.dirty.end().map_or(base, |end| end.max(base)))
    }

    /// The leader was told of an access, and told what the time is now, if the inode is still there.
    pub fn told_access(&mut self, told: Access, atime: Option<Time>) {
        let Some(atime) = atime else {
            self.access = self.access.filter(|access| *access != told);
            return;
        };
        // Where it is not what was seen any more, something newer has come in already.
        if let Some(attr) = self.attr.as_mut().filter(|attr| attr.atime == told.was) {
            attr.atime = atime;
        }
        // One that was noticed meanwhile goes on from there.
        self.access = self.access.filter(|access| *access != told).map(|access| match access.was == told.was {
            true => Access { was: atime, ..access },
            false => access,
        });
    }

    /// Nothing needs it to stay in memory.
    pub fn is_idle(&self) -> bool {
        let quiet = self.changes == 0 && self.pending == 0 && self.access.is_none() && self.arbiter.is_settled();
        self.opens == 0 && self.dirty.is_empty() && self.held.may_ask() && quiet
    }

    /// Nothing of it matters any more, but what an answer on its way must not bring back.
    fn is_forgettable(&self) -> bool {
        self.is_idle() && self.held.hold() == Hold::default() && self.failure.error.is_none()
    }

    fn retire(&self, sweep: u64) -> Retired {
        let (ended, stamp) = (self.held.yield_grant(), self.tenure.max(self.crossed));
        Retired { ended, stamp, version: self.version, lent: self.lent, sweep }
    }

    fn resume(&mut self, before: &Retired) {
        self.held.resume(before.ended);
        (self.tenure, self.crossed, self.version) = (before.stamp, before.stamp, before.version);
        self.lent = before.lent;
    }

    /// The session is gone, with every lease and all that was buffered under them, also what a flush has on its way: others
    /// may have written since. Returns how many dirty bytes there were.
    pub fn outlive(&mut self) -> u64 {
        self.life += 1;
        self.held.lose();
        // Its handles are told so, see `Files::lose`.
        self.arbiter.end();
        self.forget();
        self.writes_blocked = false;
        if std::mem::take(&mut self.pending) > 0 {
            self.version = 0;
            self.fail(FsError::SessionExpired);
        }
        let lost = self.dirty.drop_fresh() + self.dirty.settle();
        if lost > 0 {
            self.dirty_since = None;
            self.mtime = None;
            self.clear_privileges = false;
            self.fail(FsError::SessionExpired);
        }
        lost
    }

    pub fn fail(&mut self, error: FsError) {
        self.failure = Failure { count: self.failure.count + 1, error: Some(error) };
    }
}

/// Attributes that change, or go, with the mode, the owner or the data.
fn follows_others(xattr: &[u8]) -> bool {
    xattr.starts_with(b"system.posix_acl_") || xattr == b"security.capability"
}

/// Every inode something is known of.
pub struct Nodes {
    shards: Vec<Mutex<Shard>>,
    block_bytes: u64,
    clock: AtomicU64,
    stamps: Arc<AtomicU64>,
}

#[derive(Default)]
struct Shard {
    nodes: HashMap<Ino, Arc<Node>>,
    retired: HashMap<Ino, Retired>,
}

/// What must be known of an inode that nothing is held on and nobody uses: an answer from before, with a grant or
/// attributes that are void by now, may still be on its way. And whether others wanted it a moment ago.
struct Retired {
    ended: u64,
    stamp: u64,
    version: u64,
    lent: Lent,
    sweep: u64,
}

/// After how many sweeps an unused inode is retired, and for how many more that is remembered: longer than any request
/// takes.
const SWEEPS_IDLE: u64 = 2;
const SWEEPS_KEPT: u64 = 90;

impl Nodes {
    pub fn new(block_bytes: u64) -> Nodes {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Nodes { shards, block_bytes, clock: AtomicU64::new(0), stamps: Arc::default() }
    }

    /// To be called before a question is sent.
    pub fn asked(&self) -> Asked {
        Asked(self.stamps.load(Ordering::Acquire))
    }

    pub fn find(&self, ino: Ino) -> Option<Arc<Node>> {
        let node = self.shard(ino).lock().nodes.get(&ino).cloned()?;
        node.used.store(self.clock.load(Ordering::Relaxed), Ordering::Relaxed);
        Some(node)
    }

    pub fn node(&self, ino: Ino) -> Arc<Node> {
        let mut shard = self.shard(ino).lock();
        let Shard { nodes, retired } = &mut *shard;
        let node = nodes.entry(ino).or_insert_with(|| {
            let node = Node::new(ino, self.block_bytes, self.stamps.clone());
            if let Some(before) = retired.remove(&ino) {
                node.lock().resume(&before);
            }
            Arc::new(node)
        });
        node.used.store(self.clock.load(Ordering::Relaxed), Ordering::Relaxed);
        node.clone()
    }

    pub fn all(&self) -> Vec<Arc<Node>> {
        self.shards.iter().flat_map(|shard| shard.lock().nodes.values().cloned().collect::<Vec<_>>()).collect()
    }

    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().nodes.len()).sum()
    }

    /// Drops what nothing is held on and nobody uses, and moves the count on.
    pub fn sweep(&self) {
        let now = self.clock.fetch_add(1, Ordering::Relaxed) + 1;
        for shard in &self.shards {
            let mut shard = shard.lock();
            let Shard { nodes, retired } = &mut *shard;
            retired.retain(|_, before| before.sweep + SWEEPS_KEPT > now);
            nodes.retain(|ino, node| {
                // Only the table holds it: nobody can be about to use it while the shard is locked.
                let alone = Arc::strong_count(node) == 1;
                let recent = node.used.load(Ordering::Relaxed) + SWEEPS_IDLE > now;
                let retire = alone && !recent && node.lock().is_forgettable();
                if retire {
                    retired.insert(*ino, node.lock().retire(now));
                }
                !retire
            });
        }
    }

    /// Idle inodes of which something holds, those longest unused first.
    pub fn coldest(&self, count: usize, holds: impl Fn(&State) -> bool) -> Vec<Arc<Node>> {
        let mut idle = self.all();
        idle.retain(|node| {
            let state = node.lock();
            state.is_idle() && holds(&state)
        });
        idle.sort_by_key(|node| node.used.load(Ordering::Relaxed));
        idle.truncate(count);
        idle
    }

    fn shard(&self, ino: Ino) -> &Mutex<Shard> {
        &self.shards[(ino.0 % SHARDS as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Hold = Hold { lease: Lease::Read, open: false };

    #[test]
    fn an_answer_from_before_the_lease_is_not_kept() {
        let nodes = Nodes::new(64);
        let node = nodes.node(Ino(5));
        let early = nodes.asked();
        assert!(node.lock().grant(READ, 1));
        assert!(!node.lock().accepts(early, false), "somebody may have changed it between this answer and the grant");
        assert!(node.lock().accepts(early, true));
        assert!(node.lock().accepts(nodes.asked(), false));
    }

    #[test]
    fn an_answer_that_an_own_change_crossed_is_not_kept() {
        let nodes = Nodes::new(64);
        let node = nodes.node(Ino(5));
        node.lock().grant(READ, 1);
        let before = nodes.asked();
        node.lock().begin_change();
        let during = nodes.asked();
        assert!(!node.lock().accepts(during, true));
        node.lock().end_change();
        assert!(!node.lock().accepts(before, false));
        assert!(!node.lock().accepts(during, false));
        assert!(node.lock().accepts(nodes.asked(), false));
    }

    #[test]
    fn an_answer_that_lacks_what_was_done_here_is_not_kept() {
        let nodes = Nodes::new(64);
        let node = nodes.node(Ino(5));
        node.lock().grant(READ, 1);
        node.lock().pending = 1;
        let asked = nodes.asked();
        assert!(!node.lock().accepts(asked, false), "the leader has not heard of it");
        node.lock().shipped();
        assert!(!node.lock().accepts(asked, false), "nor had it when it was asked");
        assert!(node.lock().accepts(nodes.asked(), false));
    }

    #[test]
    fn what_was_void_stays_void_after_an_inode_was_forgotten() {
        let nodes = Nodes::new(64);
        let early = {
            let node = nodes.node(Ino(5));
            let early = nodes.asked();
            node.lock().grant(READ, 7);
            node.lock().held.give_back(Hold::default());
            node.lock().forget();
            node.lock().held.yielded();
            early
        };
        for _ in 0..=SWEEPS_IDLE {
            nodes.sweep();
        }
        assert_eq!(nodes.len(), 0);
        let node = nodes.node(Ino(5));
        assert!(!node.lock().grant(READ, 7), "it was given back");
        assert!(node.lock().grant(READ, 8));
        assert!(!node.lock().accepts(early, false));
        let change = nodes.asked();
        assert!(node.lock().accepts(change, false));
    }
}
