//! The middle of the client: what every operation goes through to ask the leader and to change the tree.
//!
//! [`Core::ask`] asks, takes what was granted, and outlives an expired session. [`Core::change`] changes, exactly once,
//! in a task of its own: a caller who goes away does not leave the caches ignorant of what was done.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

use super::ClientConfig;
use super::answers::Answers;
use super::api::Result;
use super::cache::chunk::ChunkCache;
use super::calls::{self, Calls};
use super::chunks::ChunkStore;
use super::files::{Files, OpenFile};
use super::inode::{Asked, Node, Nodes};
use super::journal::Journal;
use super::kernel::KernelCache;
use super::lease::Life;
use super::lent::Lending;
use super::locks::LockNotes;
use super::memory::Memory;
use super::numbers::Numbers;
use super::quota::{Adding, Quota};
use super::space::Space;
use super::walk::Listings;
use crate::remote::meta::MetaClient;
use crate::remote::session::{Answer, Lane, MetaSession};
use crate::types::allowance::Allowance;
use crate::types::attr::{Attr, FileKind, SetAttr, Time};
use crate::types::error::FsError;
use crate::types::id::Ino;
use crate::types::name::Name;
use crate::types::op::{BatchReply, Op, OpReply};
use crate::types::session::{Claim, Hold, Lease, Vitals};
use crate::types::volume::Volume;

/// Times that a change which does not fit is tried again, when others were asked for what they were promised of a quota; each
/// time the leader waits for them.
pub const PROMISED_TRIES: usize = 2;

pub struct Core {
    pub config: ClientConfig,
    pub volume: Volume,
    pub read_only: bool,
    pub block_bytes: u64,
    pub meta: Arc<MetaClient>,
    pub store: Arc<dyn ChunkStore>,
    pub kernel: RwLock<Arc<dyn KernelCache>>,
    pub runtime: tokio::runtime::Handle,
    pub nodes: Nodes,
    pub files: Files,
    pub journal: Journal,
    pub calls: Calls,
    /// Since when everything that a client before has left is taken up, and calls are answered.
    pub recovered: OnceLock<Instant>,
    /// What open files are to be told is noted by one at a time.
    pub noting_debts: Mutex<()>,
    pub listings: Listings,
    pub numbers: Numbers,
    pub quota: Quota,
    /// One question about numbers and quotas at a time: the answers come in the order of the questions.
    pub reserving: tokio::sync::Mutex<()>,
    pub cache: Arc<ChunkCache>,
    pub memory: Arc<Memory>,
    pub locks: LockNotes,
    pub life: Life,
    pub lending: Lending,
    pub clock: Clock,
    /// Files with something to flush.
    pub dirty: Mutex<BTreeSet<Ino>>,
    /// Inodes with a time of access to tell.
    pub touched: Mutex<BTreeSet<Ino>>,
    /// Inodes are being given back.
    pub evicting: AtomicBool,
    pub answers: Answers,
    /// Background flushes under way at once.
    pub flushes: Semaphore,
    pub space: Space,
    /// The root's attributes as last seen, for when the cluster is away.
    pub root: Mutex<Option<Attr>>,
    /// The collection epoch that puts carry.
    pub epoch: AtomicU64,
    /// Grows with every new leader and session: what an earlier one granted is void.
    era: AtomicU64,
    /// The term in which the session was opened.
    pub opened_term: AtomicU64,
    session: RwLock<Arc<MetaSession>>,
    renewals: watch::Sender<u64>,
    pub expired: Notify,
    pub stopping: watch::Sender<bool>,
}

/// The leader's clock as seen from here.
#[derive(Default)]
pub struct Clock {
    ahead_ns: AtomicI64,
}

impl Clock {
    pub fn set(&self, leader_ns: i64) {
        self.ahead_ns.store(leader_ns.saturating_sub(local_ns()), Ordering::Relaxed);
    }

    pub fn now(&self) -> Time {
        let ns = local_ns().saturating_add(self.ahead_ns.load(Ordering::Relaxed));
        Time { sec: ns.div_euclid(1_000_000_000), nsec: ns.rem_euclid(1_000_000_000) as u32 }
    }
}

fn local_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// An answer whose grants were taken.
pub struct Told<T> {
    pub result: Result<T>,
    leased: Vec<Ino>,
}

impl<T> Told<T> {
    /// The answer brought a lease on this inode that is in force.
    pub fn brought(&self, ino: Ino) -> bool {
        self.leased.contains(&ino)
    }
}

/// What a change is about, besides its operations.
#[derive(Default)]
pub struct Touch {
    /// Inodes whose attributes it changes.
    pub inos: Vec<Ino>,
    /// Names that it makes or removes.
    pub names: Vec<(Ino, Name)>,
    /// It moves bytes of these files about: their extents are not what they were.
    pub reshapes: bool,
    /// A hold wanted on the inode made or touched.
    pub want: Hold,
    /// The handle it is done by.
    pub by: Option<Arc<OpenFile>>,
}

/// What is done with the outcome of a change, before any other change is told its own.
pub type Apply = Box<dyn FnOnce(&Core, &[OpReply], &Outcome) + Send>;

/// How a change went by, for its effects on the caches.
pub struct Outcome {
    pub begun: Asked,
    leased: Vec<Ino>,
}

impl Outcome {
    /// Keeps the attributes that the change was answered with.
    pub fn learn(&self, core: &Core, attr: &Attr) {
        let node = core.nodes.node(attr.ino);
        let mut state = node.lock();
        if state.pending > 0 {
            // Neither has all of it: what is told now lacks what was done here, and the other way about.
            state.forget_attr();
        } else if state.held_since(self.begun, self.leased.contains(&attr.ino)) && !state.is_changing() {
            state.learn(attr);
        }
    }

    /// Notes a name as it is after the change.
    pub fn name(&self, core: &Core, dir: Ino, name: Name, found: Option<(Ino, FileKind)>) {
        let node = core.nodes.node(dir);
        let mut state = node.lock();
        if state.held_since(self.begun, self.leased.contains(&dir)) {
            state.dir.learn(name, found);
        }
    }

    pub fn brought(&self, ino: Ino) -> bool {
        self.leased.contains(&ino)
    }
}

pub struct Parts {
    pub config: ClientConfig,
    pub volume: Volume,
    pub read_only: bool,
    pub meta: Arc<MetaClient>,
    pub store: Arc<dyn ChunkStore>,
    pub session: MetaSession,
}

impl Core {
    pub fn new(parts: Parts, kernel: Arc<dyn KernelCache>) -> Core {
        let Parts { config, volume, read_only, meta, store, session } = parts;
        let block_bytes = u64::from(volume.policy.chunk_bytes.max(1));
        let memory = Arc::new(Memory::new(config.memory_bytes));
        Core {
            read_only,
            block_bytes,
            meta,
            store: store.clone(),
            kernel: RwLock::new(kernel),
            runtime: tokio::runtime::Handle::current(),
            nodes: Nodes::new(block_bytes),
            files: Files::new(config.kept.clone()),
            journal: Journal::default(),
            calls: Calls::default(),
            recovered: OnceLock::new(),
            noting_debts: Mutex::default(),
            listings: Listings::default(),
            numbers: Numbers::default(),
            quota: Quota::new(memory.dirty_bytes_max()),
            reserving: tokio::sync::Mutex::new(()),
            cache: Arc::new(ChunkCache::new(store, memory.clone())),
            memory,
            locks: LockNotes::new(config.kept.clone()),
            life: Life::new(),
            lending: Lending::default(),
            clock: Clock::default(),
            dirty: Mutex::default(),
            touched: Mutex::default(),
            evicting: AtomicBool::new(false),
            answers: Answers::default(),
            flushes: Semaphore::new(super::writeback::FLUSHES_MAX),
            space: Space::default(),
            root: Mutex::default(),
            epoch: AtomicU64::new(0),
            era: AtomicU64::new(0),
            opened_term: AtomicU64::new(0),
            session: RwLock::new(Arc::new(session)),
            renewals: watch::channel(0).0,
            expired: Notify::new(),
            stopping: watch::channel(false).0,
            config,
            volume,
        }
    }

    pub fn memory_high_bytes(&self) -> u64 {
        (self.config.resident_high_bytes)().unwrap_or_else(|| self.memory.high_bytes())
    }

    pub fn session(&self) -> Arc<MetaSession> {
        self.session.read().clone()
    }

    pub fn kernel(&self) -> Arc<dyn KernelCache> {
        self.kernel.read().clone()
    }

    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    pub fn era(&self) -> u64 {
        self.era.load(Ordering::Acquire)
    }

    /// Whatever is granted in answer to what was asked before is void.
    pub fn next_era(&self) -> u64 {
        self.era.fetch_add(1, Ordering::AcqRel) + 1
    }

    pub fn renewals(&self) -> watch::Receiver<u64> {
        self.renewals.subscribe()
    }

    pub fn renew(&self, session: MetaSession, term: u64) {
        let session = match self.config.kept.clone() {
            Some(kept) => {
                kept.goes_on_as(session.id(), term);
                session.telling(move |sequence| kept.uses_sequence(sequence))
            }
            None => session,
        };
        *self.session.write() = Arc::new(session);
        self.renewals.send_modify(|count| *count += 1);
    }

    /// Asks the leader; when the session turns out to have expired, again under the next.
    pub async fn ask<T, F>(&self, call: impl Fn(Arc<MetaSession>) -> F) -> Told<T>
    where
        F: Future<Output = Answer<T>>,
    {
        loop {
            let (era, session) = (self.era(), self.session());
            let answer = call(session.clone()).await;
            let leased = self.install(era, answer.granted);
            match answer.result {
                Err(FsError::SessionExpired) if !self.is_stopping() => self.renewed(&session).await,
                result => return Told { result, leased },
            }
        }
    }

    /// Takes grants of the era given. Returns the inodes on which a lease came with them.
    pub fn install(&self, era: u64, granted: Vec<Claim>) -> Vec<Ino> {
        let mut leased = Vec::new();
        for claim in granted {
            let node = self.nodes.node(claim.ino);
            let mut state = node.lock();
            // Under the state's lock: a reclaim raises the era first and then collects what is held.
            if self.era() == era && state.grant(claim.hold, claim.grant) && claim.hold.lease > Lease::None {
                leased.push(claim.ino);
            }
            // Refused what was asked for; while it is quiet nothing is asked for and this says nothing.
            if claim.hold.lease == Lease::None && state.want(Lease::Read) == Lease::Read {
                state.quiet();
            }
        }
        leased
    }

    /// Waits until an expired session was replaced.
    pub async fn renewed(&self, expired: &Arc<MetaSession>) {
        let mut renewals = self.renewals();
        let mut stopping = self.stopping.subscribe();
        loop {
            renewals.mark_unchanged();
            if self.session().id() != expired.id() {
                return;
            }
            self.expired.notify_one();
            tokio::select! {
                _ = renewals.changed() => {}
                _ = stopping.wait_for(|stopping| *stopping) => return,
            }
        }
    }

    /// Sends operations, once, and takes what was granted.
    ///
    /// # Errors
    /// The first operation that failed, or `SessionExpired` when it is not known whether they were done.
    pub async fn submit(&self, ops: Vec<Op>, want: Hold) -> (Result<BatchReply>, Vec<Ino>) {
        self.submit_by(None, ops, want).await
    }

    /// As [`Core::submit`], on behalf of a handle: not under a session in which its locks are lost. Handles are marked before
    /// a new session can be seen, so who sees the session sees the mark.
    pub async fn submit_by(&self, file: Option<&OpenFile>, ops: Vec<Op>, want: Hold) -> (Result<BatchReply>, Vec<Ino>) {
        // Locks change nothing in the tree: readers may have them, and they wait for nothing that was changed.
        let changes = !ops.iter().all(|op| matches!(op, Op::Lock(_) | Op::UnlockOwner { .. }));
        if self.read_only && changes {
            return (Err(FsError::ReadOnly), Vec::new());
        }
        if changes {
            // In the order in which it was done.
            if let Err(error) = self.drain().await {
                return (Err(error), Vec::new());
            }
        }
        loop {
            let session = self.session();
            if let Some(Err(error)) = file.map(OpenFile::check_lost) {
                return (Err(error), Vec::new());
            }
            let (result, leased, uncertain) = self.submit_in(&session, ops.clone(), want, Lane::Change).await;
            match result {
                Err(FsError::SessionExpired) if !uncertain && !self.is_stopping() => self.renewed(&session).await,
                result => return (result, leased),
            }
        }
    }

    /// As [`Core::submit`] but under this session and no later one: what was buffered under its leases must not be
    /// written after others may have had them. The flag: an expired session may have seen the operations before.
    pub async fn submit_in(
        &self,
        session: &Arc<MetaSession>,
        ops: Vec<Op>,
        want: Hold,
        lane: Lane,
    ) -> (Result<BatchReply>, Vec<Ino>, bool) {
        // Inodes that the leader numbers are not of the allowance.
        let more = Allowance { inodes: 0, ..Allowance::of(&ops) };
        // Of these parts may have been done when the whole is refused.
        let in_parts = ops.iter().any(|op| matches!(op, Op::Fallocate { .. } | Op::CopyRange { .. }));
        let mut tries = 0;
        loop {
            let mut answered = self.submit_once(session, ops.clone(), want, lane).await;
            tries += 1;
            if in_parts || !matches!(answered.0, Ok(BatchReply::Failed { .. })) {
                self.quota.heard(more);
            }
            match &mut answered.0 {
                Ok(BatchReply::Failed { error: FsError::Promised, .. }) | Err(FsError::Promised)
                    if tries < PROMISED_TRIES => {}
                Ok(BatchReply::Failed { error, .. }) | Err(error) if *error == FsError::Promised => {
                    *error = FsError::QuotaExceeded;
                    return answered;
                }
                _ => return answered,
            }
        }
    }

    async fn submit_once(
        &self,
        session: &Arc<MetaSession>,
        ops: Vec<Op>,
        want: Hold,
        lane: Lane,
    ) -> (Result<BatchReply>, Vec<Ino>, bool) {
        let Some(turn) = session.turn(lane).await else {
            return (Err(FsError::SessionExpired), Vec::new(), true);
        };
        if lane == Lane::Change {
            self.note_sent(&turn.ticket, &ops);
        }
        let era = self.era();
        let answer = session.change(&turn.ticket, ops, want).await;
        let leased = self.install(era, answer.granted);
        if answer.result == Err(FsError::SessionExpired) {
            self.expired.notify_one();
        }
        (answer.result, leased, answer.uncertain)
    }

    /// Changes the tree. `apply` is called with the replies when all operations were done.
    ///
    /// # Errors
    /// The first operation that failed; then nothing happened.
    pub async fn change(self: &Arc<Self>, ops: Vec<Op>, touch: Touch, apply: Apply) -> Result<Vec<OpReply>> {
        let core = self.clone();
        let task = self.runtime.spawn(calls::within(calls::current(), async move {
            let begun = core.nodes.asked();
            let nodes = core.begin(&touch);
            let (result, leased) = core.submit_by(touch.by.as_deref(), ops, touch.want).await;
            nodes.iter().for_each(|node| node.lock().end_change());
            match result? {
                BatchReply::Done(replies) => {
                    apply(&core, &replies, &Outcome { begun, leased });
                    Ok(replies)
                }
                BatchReply::Failed { error, .. } => Err(error),
            }
        }));
        task.await.map_err(|_| FsError::Io)?
    }

    pub fn begin(&self, touch: &Touch) -> Vec<Arc<Node>> {
        let nodes: Vec<Arc<Node>> = touch.inos.iter().map(|ino| self.nodes.node(*ino)).collect();
        for node in &nodes {
            let mut state = node.lock();
            state.begin_change();
            if touch.reshapes {
                state.extents.forget();
            }
        }
        for (dir, name) in &touch.names {
            self.nodes.node(*dir).lock().dir.forget(name);
        }
        nodes
    }

    /// An operation that changes nothing and is answered with a directory's attributes: added to a change in it, it
    /// saves the question after.
    pub fn refresh(&self, dir: Ino) -> Option<Op> {
        let leased = self.nodes.find(dir).is_some_and(|node| node.lock().leased(&self.life));
        leased.then(|| Op::SetAttr { ino: dir, set: SetAttr::default() })
    }

    /// Keeps attributes that were asked for, and lays over them what is buffered here. `None`: a flush or a change of
    /// our own crossed the answer, so that what it lacks may be buffered no more; ask again.
    pub fn keep_attr<T>(&self, asked: Asked, told: &Told<T>, attr: Attr) -> Option<Attr> {
        let Some(node) = self.nodes.find(attr.ino) else { return Some(attr) };
        let mut state = node.lock();
        if state.pending > 0 {
            // The leader has not heard of everything.
            return state.visible();
        }
        let kept = state.accepts(asked, told.brought(attr.ino));
        if kept {
            state.learn(&attr);
        }
        if attr.ino == Ino::ROOT {
            *self.root.lock() = Some(attr.clone());
        }
        let whole = kept || attr.kind != FileKind::File || state.undisturbed(asked);
        whole.then(|| state.overlay(attr))
    }

    pub fn vitals(&self) -> Vitals {
        Vitals { memory_bytes: self.memory_high_bytes(), stored_bytes: self.space.put_bytes() }
    }

    /// Free space is short enough for writes to meet the end of it.
    pub fn space_is_low(&self) -> bool {
        let dirty_bytes = self.memory.dirty_bytes();
        self.space.is_low(dirty_bytes) || !self.quota.covers(|| self.memory.dirty_bytes())
    }

    /// What is written, and `more_bytes`, can be stored later.
    pub fn space_is_ample(&self, more_bytes: u64) -> bool {
        let dirty_bytes = self.memory.dirty_bytes() + more_bytes;
        self.space.is_ample(dirty_bytes) && self.quota.covers(|| self.memory.dirty_bytes() + more_bytes)
    }

    /// Before bytes are added that are not dirty: what was accepted before keeps the room that was promised for it, as it is
    /// stored first where there is not enough for both. What is given back counts them, until it is dropped.
    ///
    /// # Errors
    /// `Unreachable`.
    pub async fn adding(self: &Arc<Self>, bytes: u64) -> Result<Adding<'_>> {
        let adding = self.quota.add_bytes(bytes);
        if !self.quota.covers(|| self.memory.dirty_bytes()) {
            self.reserve().await;
        }
        if !self.quota.covers(|| self.memory.dirty_bytes()) {
            // What cannot be stored is reported by the handles it was written by.
            if let Err(FsError::Unreachable) = self.sync().await {
                return Err(FsError::Unreachable);
            }
        }
        Ok(adding)
    }
}
