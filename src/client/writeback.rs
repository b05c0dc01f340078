//! Shipping dirty data: what a flush does, and when flushes happen by themselves.
//!
//! A flush of a file holds the file's flush lock throughout, so commits of one file are ordered. It freezes runs, hashes
//! them off the serving threads, puts them, and commits them with one command that may carry a change which has to come
//! right after (a `setattr` of this file; never one that touches another inode: it could be parked at the leader behind
//! a recall that waits for this very lock). It runs in a task of its own: whoever waits for it may go away.
//!
//! When the cluster does not answer, the runs become dirty again and stay. When it refuses them for good (no space, the
//! session expired) they are dropped, and every open handle of the file reports that once.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::MutexGuard;
use tokio::time::{Instant, MissedTickBehavior};

use super::api::Result;
use super::atime::Access;
use super::core::{Core, Touch};
use super::dirty::Scope;
use super::gather::{Gathered, Runs, batches, gather};
use super::inode::{Asked, Node, State};
use super::session::until_stopped;
use crate::remote::session::{Lane, MetaSession};
use crate::types::attr::{Attr, Time};
use crate::types::digest::ChunkId;
use crate::types::error::FsError;
use crate::types::extent::{ChunkPart, Extent, Source};
use crate::types::id::Ino;
use crate::types::limits::{
    BLOCK_EXTENTS_MAX, BLOCK_EXTENTS_SOFT_MAX, BLOCK_INLINE_EXTENTS_SOFT_MAX, EXTENT_BLOCKS_MAX, WRITEBACK_AGE_MS,
};
use crate::types::op::{BatchReply, Op, OpReply, Piece, Write, WriteAt};
use crate::types::rewrite::Seen;
use crate::types::session::Hold;

/// Background flushes at once.
pub const FLUSHES_MAX: usize = 8;
const TICK: Duration = Duration::from_millis(100);
/// Calls to the stores at once per flush.
const PUTS_AT_ONCE: usize = 4;
/// Of a piece that is not inline, where inline ones have one: see `is_long`.
const PIECE_WEIGHT: u32 = (BLOCK_INLINE_EXTENTS_SOFT_MAX / BLOCK_EXTENTS_SOFT_MAX) as u32;
/// Flushes up to this size stay in the cache: what is small is likely to be read back soon.
const KEEP_BYTES: u64 = 4 << 20;
const PIECES_MAX: usize = 8_192;
/// Pieces of one block in one command: twice as many, over what lies there as one chunk, are well within its bound.
const BLOCK_PIECES_MAX: usize = BLOCK_EXTENTS_MAX / 4;
/// How long a rewriting may take: whoever waits for the file's flush lock, a recall perhaps, is not held up by an
/// optimisation.
const REWRITE_PATIENCE: Duration = Duration::from_secs(3);
const EVERY_TICKS_SLOW: u32 = 10;
/// How long a client waits in all, from the first put that did not fit, for what was deleted to give its space back: two rounds of
/// collecting garbage, and the stores' part in them. And between two tries.
pub const FREEING_PATIENCE: Duration = Duration::from_secs(30);
pub const FREEING_PAUSE: Duration = Duration::from_secs(1);
/// How often the blocks of one write are rewritten to make room for it.
pub const REWRITES_MAX: u32 = 20;

/// Starts the task that ships what is old or too much.
pub fn start(core: &Arc<Core>) {
    until_stopped(core, run(core.clone()));
}

async fn run(core: Arc<Core>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut slow = 0;
    loop {
        let pressed = tokio::select! {
            _ = ticks.tick() => false,
            () = core.memory.pressed() => true,
        };
        core.flush_due(pressed);
        slow += 1;
        if slow >= EVERY_TICKS_SLOW {
            slow = 0;
            core.give_back_idle();
            core.nodes.sweep();
            core.config.kept.iter().for_each(|kept| kept.log().rest());
            core.forget_old_calls();
            let telling = core.clone();
            core.runtime.spawn(async move { telling.tell_access_times().await });
        }
    }
}

/// What a flush took with it.
pub struct Load {
    /// Under whose leases it was written.
    pub session: Arc<MetaSession>,
    pub life: u64,
    pub runs: Runs,
    pub begun: Asked,
    pub mtime: Option<Time>,
    pub clear_privileges: bool,
}

impl Load {
    pub fn bytes(&self) -> u64 {
        self.runs.iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }
}

/// What a flush does with data that meets full stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WhenFull {
    Lose,
    /// It stays dirty while [`Core::room_is_coming`], and the flush is `Unreachable`.
    Keep,
}

/// What became of a flush.
pub struct Shipped {
    pub pieces: Vec<Extent>,
    pub attr: Option<Attr>,
    pub tail: Result<Vec<OpReply>>,
}

impl Core {
    /// Begins to flush what is old, whole, or in the way.
    fn flush_due(self: &Arc<Self>, pressed: bool) {
        let tight = pressed || self.memory.is_tight() || self.notes_are_tight();
        let due = Duration::from_millis(WRITEBACK_AGE_MS);
        if self.space.was_full_since(Instant::now() - FREEING_PAUSE) {
            return;
        }
        let inos: Vec<Ino> = self.dirty.lock().iter().copied().collect();
        for ino in inos {
            let Some(node) = self.nodes.find(ino) else { continue };
            let (old, whole, empty) = {
                let state = node.lock();
                let old = state.dirty_since.is_some_and(|since| since.elapsed() >= due);
                (old, state.dirty.whole_blocks() > 0, state.dirty.is_empty() && state.mtime.is_none())
            };
            if empty {
                self.forget_dirty(&node);
            } else if old || tight {
                self.flush_soon(&node, Scope::All);
            } else if whole {
                self.flush_soon(&node, Scope::Whole);
            }
        }
    }

    fn forget_dirty(&self, node: &Arc<Node>) {
        let mut dirty = self.dirty.lock();
        let state = node.lock();
        if state.dirty.is_empty() && state.mtime.is_none() {
            dirty.remove(&node.ino);
        }
    }

    /// Begins a flush unless one is under way.
    pub fn flush_soon(self: &Arc<Self>, node: &Arc<Node>, scope: Scope) {
        if node.flushing.try_lock().is_err() {
            return;
        }
        let (core, node) = (self.clone(), node.clone());
        self.runtime.spawn(async move {
            let Ok(_turn) = core.flushes.acquire().await else { return };
            // What it met is kept with the inode, for the handles to report.
            let _ = core.clone().flush_with(node, scope, Vec::new(), Touch::default(), WhenFull::Keep).await;
        });
    }

    /// Makes what is dirty durable.
    ///
    /// # Errors
    /// `Unreachable`: the cluster did not answer and the data is still dirty. Anything else: the data is lost, and
    /// every handle of the file will report it.
    pub async fn flush(self: &Arc<Self>, node: &Arc<Node>, scope: Scope) -> Result<()> {
        self.flush_then(node, scope, Vec::new(), Touch::default()).await.map(|_| ())
    }

    /// The same for who may wait for space: nobody else does while this waits, and nothing is held.
    ///
    /// # Errors
    /// As [`Core::flush`].
    pub async fn flush_patiently(self: &Arc<Self>, node: &Arc<Node>) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < FREEING_PATIENCE {
            if self.is_clean(node) {
                return Ok(());
            }
            let flushing =
                self.clone().flush_with(node.clone(), Scope::All, Vec::new(), Touch::default(), WhenFull::Keep);
            match self.runtime.spawn(flushing).await.map_err(|_| FsError::Io)? {
                Err(FsError::Unreachable) if self.space.is_full() => tokio::time::sleep(FREEING_PAUSE).await,
                flushed => return flushed.map(|_| ()),
            }
        }
        // Others may have fitted meanwhile, so that the client as a whole would wait on.
        self.flush(node, Scope::All).await
    }

    fn is_clean(&self, node: &Node) -> bool {
        node.flushing.try_lock().is_ok() && {
            let state = node.lock();
            state.dirty.is_empty() && state.mtime.is_none()
        }
    }

    /// A put did not fit. Whether to try again in a while: what was deleted is about to give its space back, and has not been waited
    /// for too long.
    pub async fn room_is_coming(&self) -> bool {
        let waited = self.space.met_full(Instant::now());
        self.refresh_space().await;
        waited < FREEING_PATIENCE && self.space.is_freeing()
    }

    /// Makes what is dirty durable before something else is changed. Data that is lost does not stand in the way of that:
    /// the handles of the file report it.
    ///
    /// # Errors
    /// `Unreachable`.
    pub async fn flush_before(self: &Arc<Self>, node: &Arc<Node>) -> Result<()> {
        match self.flush(node, Scope::All).await {
            Err(FsError::Unreachable) => Err(FsError::Unreachable),
            _ => Ok(()),
        }
    }

    /// Makes what is dirty durable and changes something else in the same moment. Returns the replies to the latter.
    ///
    /// # Errors
    /// As [`Core::flush`], or what the change met.
    pub async fn flush_then(
        self: &Arc<Self>,
        node: &Arc<Node>,
        scope: Scope,
        tail: Vec<Op>,
        touch: Touch,
    ) -> Result<Vec<OpReply>> {
        if tail.is_empty() && self.is_clean(node) {
            return Ok(Vec::new());
        }
        let task = self.runtime.spawn(self.clone().flush_with(node.clone(), scope, tail, touch, WhenFull::Lose));
        task.await.map_err(|_| FsError::Io)?
    }

    async fn flush_with(
        self: Arc<Self>,
        node: Arc<Node>,
        scope: Scope,
        tail: Vec<Op>,
        touch: Touch,
        when_full: WhenFull,
    ) -> Result<Vec<OpReply>> {
        let (_turn, load) = self.load(&node, scope).await;
        let touched = self.begin(&touch);
        let shipped = self.ship(&node, &load, &tail, touch.want).await;
        touched.iter().for_each(|node| node.lock().end_change());
        match shipped {
            Ok(shipped) => {
                self.settle(&node, &load, &shipped);
                self.compact_soon(&node);
                shipped.tail
            }
            Err(failure) => {
                let waits =
                    when_full == WhenFull::Keep && failure.error == FsError::NoSpace && self.room_is_coming().await;
                self.unload(&node, &load, failure.fatal && !waits, &failure.error);
                Err(if waits { FsError::Unreachable } else { failure.error })
            }
        }
    }

    /// Freezes what is dirty, once everything that was done to the file before is at the leader.
    async fn load<'a>(&self, node: &'a Node, scope: Scope) -> (MutexGuard<'a, ()>, Load) {
        loop {
            self.shipped(node).await;
            let turn = node.flushing.lock().await;
            let begun = self.nodes.asked();
            let mut state = node.lock();
            if state.pending > 0 {
                continue;
            }
            state.begin_flush();
            let runs = state.dirty.freeze(scope);
            let mtime = state.mtime;
            let (life, clear_privileges) = (state.life, state.clear_privileges);
            let load = Load { session: self.session(), life, runs, begun, mtime, clear_privileges };
            return (turn, load);
        }
    }

    fn settle(&self, node: &Arc<Node>, load: &Load, shipped: &Shipped) {
        let mut state = node.lock();
        state.end_change();
        if state.life != load.life {
            return;
        }
        self.memory.give(state.dirty.settle());
        self.note_pieces(&mut state, shipped.pieces.iter().map(placed));
        let leased = state.held_since(load.begun, false);
        shipped.pieces.iter().filter(|_| leased).for_each(|piece| state.extents.apply(piece));
        if let Some(attr) = shipped.attr.as_ref().filter(|_| leased) {
            state.learn(attr);
        }
        if !state.dirty.has_fresh() {
            state.dirty_since = None;
            if state.mtime == load.mtime {
                state.mtime = None;
                state.clear_privileges = false;
            }
        } else {
            state.dirty_since = Some(Instant::now());
        }
    }

    /// Pieces that the leader has taken: their blocks' lists have grown, and space is taken.
    pub fn note_pieces(&self, state: &mut State, pieces: impl Iterator<Item = (u64, u64, bool)>) {
        let mut sent = 0;
        for (offset, len, is_inline) in pieces {
            let weight = if is_inline { 1 } else { PIECE_WEIGHT };
            *state.pieces.entry(offset / self.block_bytes).or_default() += weight;
            sent += len;
        }
        self.space.sent(sent);
    }

    fn unload(&self, node: &Arc<Node>, load: &Load, fatal: bool, error: &FsError) {
        let mut state = node.lock();
        state.end_change();
        // Given up with the session it was written under; that was reported then.
        if state.life != load.life {
            return;
        }
        if !fatal {
            self.memory.give(state.dirty.thaw());
            return;
        }
        let _held = self.hold_notes();
        self.memory.give(state.dirty.settle());
        if !state.dirty.has_fresh() {
            state.dirty_since = None;
            state.mtime = None;
        }
        if !load.runs.is_empty() {
            tracing::error!(ino = %node.ino, %error, "written data could not be stored and is lost");
            state.fail(error.clone());
            drop(state);
            self.note_debts();
        }
    }

    /// Puts the runs and commits them, with the tail.
    pub async fn ship(
        &self,
        node: &Node,
        load: &Load,
        tail: &[Op],
        want: Hold,
    ) -> std::result::Result<Shipped, Failed> {
        if load.runs.is_empty() && tail.is_empty() {
            return Ok(Shipped { pieces: Vec::new(), attr: None, tail: Ok(Vec::new()) });
        }
        let mut epoch = self.epoch.load(Ordering::Acquire);
        let mut inline_bytes = node.inline_bytes_max();
        let mut rewrites = 0;
        let mut committed = 0;
        loop {
            let pieces = self.put_runs(&load.runs, epoch, inline_bytes).await.map_err(Failed::of)?;
            let before = committed;
            let outcome = self.commit(node.ino, load, &pieces, &mut committed, tail, want).await;
            if committed > before {
                rewrites = 0;
            }
            match outcome {
                Err(Failed { error: FsError::TooBig, .. }) if inline_bytes > 0 => {
                    node.lock().inline_full = true;
                    inline_bytes = 0;
                }
                Err(Failed { error: FsError::Scattered, .. }) if rewrites < REWRITES_MAX => {
                    rewrites += 1;
                    // It goes on with the command that was refused: what was laid before is in the rewritten blocks.
                    self.rewrite_blocks(node.ino, load.runs.iter().map(|(offset, _)| *offset)).await;
                }
                Err(Failed { error: FsError::PutAgain { epoch: newer }, .. }) => {
                    self.epoch.fetch_max(newer, Ordering::AcqRel);
                    epoch = newer;
                }
                Err(failed) => return Err(failed),
                Ok((attr, tail)) => return Ok(Shipped { pieces, attr, tail }),
            }
        }
    }

    /// Commits pieces in as few commands as they fit into, but for the first `committed`, which were; the tail rides with
    /// the last.
    async fn commit(
        &self,
        ino: Ino,
        load: &Load,
        pieces: &[Extent],
        committed: &mut usize,
        tail: &[Op],
        want: Hold,
    ) -> std::result::Result<(Option<Attr>, Result<Vec<OpReply>>), Failed> {
        let mut commands = split(pieces, self.block_bytes);
        let last = commands.pop().unwrap_or_default();
        let mut attr = None;
        for command in commands.into_iter().skip(*committed) {
            let write = self.write_op(ino, load, command);
            attr = newest(ino, &self.send(&load.session, vec![write], Hold::default()).await?);
            *committed += 1;
        }
        let writes: Vec<Op> = if last.is_empty() { Vec::new() } else { vec![self.write_op(ino, load, last)] };
        let count = writes.len();
        let ops = writes.iter().cloned().chain(tail.iter().cloned()).collect();
        let refused = match self.send(&load.session, ops, want).await {
            // The tail was refused and undid the write with it: the write goes alone, the refusal is the tail's.
            Err(Failed { index: Some(index), error, .. }) if index >= count => Some(error),
            Err(failed) => return Err(failed),
            Ok(replies) => {
                // What the write is answered with lacks what the tail did: that has to be asked for.
                let lacks = !tail.is_empty() && !matches!(replies.last(), Some(OpReply::Attr(_)));
                let attr = newest(ino, &replies).or(attr).filter(|_| !lacks);
                return Ok((attr, Ok(replies.into_iter().skip(count).collect())));
            }
        };
        if count > 0 {
            attr = newest(ino, &self.send(&load.session, writes, Hold::default()).await?).or(attr);
        }
        Ok((attr, refused.map_or(Ok(Vec::new()), Err)))
    }

    async fn send(
        &self,
        session: &Arc<MetaSession>,
        ops: Vec<Op>,
        want: Hold,
    ) -> std::result::Result<Vec<OpReply>, Failed> {
        match self.submit_in(session, ops, want, Lane::Flush).await.0 {
            Ok(BatchReply::Done(replies)) => Ok(replies),
            Ok(BatchReply::Failed { index, error }) => Err(Failed { error, fatal: true, index: Some(index as usize) }),
            Err(error) => Err(Failed::of(error)),
        }
    }

    pub fn write_op(&self, ino: Ino, load: &Load, pieces: &[Extent]) -> Op {
        let start = pieces.first().map_or(0, |piece| piece.offset);
        let end = pieces.last().map_or(0, Extent::end);
        let relative =
            |piece: &Extent| Piece { offset: piece.offset - start, len: piece.len, source: piece.source.clone() };
        Op::Write(Write {
            ino,
            at: WriteAt::Offset(start),
            pieces: pieces.iter().map(relative).collect(),
            len: end - start,
            mtime: load.mtime,
            clear_privileges: load.clear_privileges,
        })
    }

    /// Makes runs durable in the stores, or leaves them inline when they are at most `inline_bytes` together.
    pub async fn put_runs(&self, runs: &Runs, epoch: u64, inline_bytes: u32) -> Result<Vec<Extent>> {
        let total: u64 = runs.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        if total <= u64::from(inline_bytes) {
            let inline = |(offset, bytes): &(u64, Bytes)| Extent {
                offset: *offset,
                len: bytes.len() as u32,
                source: Source::Inline(bytes.to_vec()),
            };
            return Ok(runs.iter().map(inline).collect());
        }
        let copies = self.volume.policy.replicas;
        let (block_bytes, keeps) = (self.block_bytes, total <= KEEP_BYTES);
        let put = |batch: Runs| async move {
            let _room = self.memory.put(batch.iter().map(|(_, bytes)| bytes.len() as u64).sum()).await;
            let gathering = tokio::task::spawn_blocking(move || gather(batch, block_bytes));
            let mut gathered = gathering.await.map_err(|_| FsError::Io)?;
            let chunks: Vec<(ChunkId, Bytes)> = gathered.iter().map(|chunk| (chunk.id, chunk.bytes.clone())).collect();
            self.store.put(&chunks, epoch, copies).await?;
            self.space.was_put(chunks.iter().map(|(_, bytes)| bytes.len() as u64).sum());
            if !keeps {
                // Copies, which the memory's bound does not know.
                gathered.iter_mut().for_each(|chunk| chunk.bytes = Bytes::new());
            }
            Ok::<_, FsError>(gathered)
        };
        let stored: Vec<Vec<Gathered>> =
            stream::iter(batches(runs)).map(put).buffered(PUTS_AT_ONCE).try_collect().await?;
        self.space.had_room();
        let mut pieces = Vec::with_capacity(runs.len());
        for chunk in stored.iter().flatten() {
            if keeps {
                self.cache.insert(chunk.id, &chunk.bytes);
            }
            pieces.extend(chunk.pieces(epoch));
        }
        Ok(pieces)
    }

    /// Rewrites blocks whose extent lists have grown too long, in the background.
    pub fn compact_soon(self: &Arc<Self>, node: &Arc<Node>) {
        let blocks: Vec<u64> = {
            let mut state = node.lock();
            let long = |weight: &u32| *weight as usize > BLOCK_INLINE_EXTENTS_SOFT_MAX;
            let blocks = state.pieces.iter().filter(|(_, weight)| long(weight)).map(|(block, _)| *block).collect();
            state.pieces.retain(|_, weight| !long(weight));
            if state.pieces.len() > PIECES_MAX {
                state.pieces = HashMap::new();
            }
            blocks
        };
        if blocks.is_empty() {
            return;
        }
        let (core, node) = (self.clone(), node.clone());
        self.runtime.spawn(async move {
            let Ok(_turn) = core.flushes.acquire().await else { return };
            for block in blocks {
                if let Err(error) = core.compact(node.ino, block).await {
                    tracing::debug!(ino = %node.ino, block, %error, "a block was not rewritten");
                }
            }
        });
    }

    /// Makes room in the lists of the blocks that hold these offsets.
    async fn rewrite_blocks(&self, ino: Ino, offsets: impl Iterator<Item = u64>) {
        let blocks: BTreeSet<u64> = offsets.map(|offset| offset / self.block_bytes).collect();
        for block in blocks {
            if let Err(error) = self.compact(ino, block).await {
                tracing::debug!(%ino, block, %error, "a block was not rewritten");
            }
        }
    }

    /// Rewrites a block whose list is long as one chunk. Needs no lock: what is written meanwhile, here or elsewhere, is not
    /// replaced.
    ///
    /// # Errors
    /// The block is as it was.
    pub async fn compact(&self, ino: Ino, block: u64) -> Result<()> {
        let node = self.nodes.node(ino);
        let start = block * self.block_bytes;
        let told = self.ask(|session| async move { session.extents(ino, start, 1, Hold::default()).await }).await;
        let (_, before, _) = told.result?;
        let (Some(first), Some(last)) = (before.first(), before.last()) else { return Ok(()) };
        if !is_long(&before) {
            return Ok(());
        }
        let (from, to) = (first.offset, last.end());
        let epoch = self.epoch.load(Ordering::Acquire);
        let moving = async {
            let bytes = self.read_extents(&before, from, to).await?;
            let id = ChunkId::of(&bytes);
            let chunk_bytes = bytes.len() as u32;
            self.store.put(&[(id, bytes)], epoch, self.volume.policy.replicas).await?;
            Ok::<_, FsError>((id, chunk_bytes))
        };
        let moved = tokio::time::timeout(REWRITE_PATIENCE, moving).await;
        let (id, chunk_bytes) = moved.map_err(|_| FsError::Unreachable)??;
        let source = Source::Chunk(ChunkPart { id, chunk_bytes, offset: 0, put_epoch: epoch });
        let after = Extent { offset: from, len: chunk_bytes, source };
        let before = before.iter().map(Seen::of).collect();
        node.lock().begin_flush();
        let compact = Op::Compact { ino, block_offset: start, before, after };
        let sent = self.send(&self.session(), vec![compact], Hold::default()).await;
        let mut state = node.lock();
        state.end_change();
        // A flush that crossed this may have been seen by it or not, so that what is in the block now is not known; a piece
        // of that flush that is applied later stays without effect on a block that is not known.
        state.extents.forget_block(block);
        // What was inline in it is not any more.
        state.inline_full &= sent.is_err();
        sent.map(|_| ()).map_err(|failed| failed.error)
    }

    /// Everything of this client is durable.
    ///
    /// # Errors
    /// The first thing that could not be made durable; the rest is.
    pub async fn sync(self: &Arc<Self>) -> Result<()> {
        let failures = self.journal.failures();
        let mut first = self.drain().await;
        let inos: Vec<Ino> = self.dirty.lock().iter().copied().collect();
        let flush = |ino: Ino| async move {
            match self.nodes.find(ino) {
                Some(node) => self.flush_patiently(&node).await,
                None => Ok(()),
            }
        };
        let mut flushes = stream::iter(inos).map(flush).buffer_unordered(FLUSHES_MAX);
        while let Some(flushed) = flushes.next().await {
            first = first.and(flushed);
        }
        drop(flushes);
        first = first.and(self.drain().await);
        if self.journal.failures() > failures { first.and(Err(FsError::Io)) } else { first }
    }

    /// Tells the leader when files were read.
    pub async fn tell_access_times(&self) {
        let inos = std::mem::take(&mut *self.touched.lock());
        let noted = |ino| self.nodes.find(ino).and_then(|node| node.lock().access).map(|access| (ino, access));
        let accesses: Vec<(Ino, Access)> = inos.into_iter().filter_map(noted).collect();
        for batch in accesses.chunks(256) {
            let touch = |(ino, access): &(Ino, Access)| Op::TouchAtime { ino: *ino, was: access.was, atime: access.at };
            let told = self.submit(batch.iter().map(touch).collect(), Hold::default()).await.0;
            // A time of access is not worth another try.
            let replies = match told {
                Ok(BatchReply::Done(replies)) => replies,
                Ok(BatchReply::Failed { error, .. }) | Err(error) => {
                    tracing::debug!(%error, "times of access were not told");
                    Vec::new()
                }
            };
            for (place, (ino, access)) in batch.iter().enumerate() {
                let Some(node) = self.nodes.find(*ino) else { continue };
                let atime = match replies.get(place) {
                    Some(OpReply::Attr(attr)) => Some(attr.atime),
                    _ => None,
                };
                node.lock().told_access(*access, atime);
            }
        }
    }
}

/// Why a flush failed.
pub struct Failed {
    pub error: FsError,
    /// The data can never be stored.
    pub fatal: bool,
    /// Which operation of the last command was refused.
    pub index: Option<usize>,
}

impl Failed {
    fn of(error: FsError) -> Failed {
        Failed { fatal: error != FsError::Unreachable, error, index: None }
    }
}

/// Where a piece is, how long, and whether it is inline.
pub fn placed(piece: &Extent) -> (u64, u64, bool) {
    (piece.offset, piece.len.into(), matches!(piece.source, Source::Inline(_)))
}

/// A list that is to be rewritten as one chunk. Inline pieces cost a reader nothing, but the leader's memory.
fn is_long(list: &[Extent]) -> bool {
    let apart = list.iter().filter(|extent| !matches!(extent.source, Source::Inline(_))).count();
    apart > BLOCK_EXTENTS_SOFT_MAX || list.len() > BLOCK_INLINE_EXTENTS_SOFT_MAX
}

/// The newest attributes of the file among the replies.
fn newest(ino: Ino, replies: &[OpReply]) -> Option<Attr> {
    replies.iter().rev().find_map(|reply| match reply {
        OpReply::Written { attr, .. } | OpReply::Attr(attr) if attr.ino == ino => Some(attr.clone()),
        _ => None,
    })
}

/// Cuts pieces into commands: each covers a bounded span of blocks and a bounded number of pieces.
pub fn split(pieces: &[Extent], block_bytes: u64) -> Vec<&[Extent]> {
    let mut commands = Vec::new();
    let mut rest = pieces;
    while let Some(first) = rest.first() {
        let end = (first.offset / block_bytes + EXTENT_BLOCKS_MAX) * block_bytes;
        let fits = rest.partition_point(|piece| piece.end() <= end).min(PIECES_MAX);
        // A piece behind so many others of its block begins another command.
        let block_of = |place: usize| rest[place].offset / block_bytes;
        let crowd = (BLOCK_PIECES_MAX..fits).find(|place| block_of(*place) == block_of(place - BLOCK_PIECES_MAX));
        let fits = crowd.unwrap_or(fits).max(1);
        let (command, others) = rest.split_at(fits);
        commands.push(command);
        rest = others;
    }
    commands
}
