//! Reading: the dirty bytes over the extents over nothing.
//!
//! Under a lease a read is planned under the inode's lock, from what is dirty and which extents are known, and then the
//! chunk bytes are fetched; they are immutable, so the plan stays right whatever happens meanwhile. Without a lease the
//! leader is asked for the extents each time; it answers from the state before anybody who waits for a lease.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::try_join_all;

use crate::client::api::{Handle, Result};
use crate::client::atime::{self, Access};
use crate::client::core::Core;
use crate::client::files::OpenFile;
use crate::client::inode::{Node, State};
use crate::client::plan::Plan;
use crate::types::attr::Attr;
use crate::types::error::FsError;
use crate::types::extent::Extent;
use crate::types::id::Ino;
use crate::types::session::{Hold, Lease};

/// Blocks whose extents are asked for at once.
const EXTENT_BLOCKS_AHEAD: u64 = 256;
/// How often a read whose extents changed under it starts again before it takes what it was told.
const TRIES: u32 = 4;

impl Core {
    pub fn try_read(&self, handle: Handle, offset: u64, len: u32) -> Option<Result<Bytes>> {
        let file = match self.files.find_for_data(handle) {
            Ok(file) => file,
            Err(error) => return Some(Err(error)),
        };
        let plan = self.plan_leased(&file.node, offset, len)?.ok()?;
        let mut parts = Vec::with_capacity(plan.chunks().len());
        for read in plan.chunks() {
            parts.push(self.cache.peek(&read.part, read.part.offset, read.len)?);
        }
        self.note_read(&file, offset, len, None);
        Some(Ok(plan.assemble(parts)))
    }

    pub async fn read(self: &Arc<Self>, handle: Handle, offset: u64, len: u32) -> Result<Bytes> {
        let file = self.files.find_for_data(handle)?;
        if file.node.lock().stale {
            return Err(FsError::Stale);
        }
        let plan = self.plan(&file.node, offset, len).await?;
        let straight = file.stream.lock().is_straight(offset, len.into());
        let fetches = plan.chunks().iter().map(|read| async move {
            match straight {
                true => self.cache.read(&read.part, read.part.offset, read.len).await,
                false => self.cache.read_bit(&read.part, read.part.offset, read.len).await,
            }
        });
        let parts = try_join_all(fetches).await?;
        self.note_read(&file, offset, len, plan.seen.as_ref());
        Ok(plan.assemble(parts))
    }

    /// The bytes `from..to` of what the extents say, for rewriting a block.
    pub async fn read_extents(&self, extents: &[Extent], from: u64, to: u64) -> Result<Bytes> {
        let plan = Plan::new(extents.iter(), from, (to - from) as usize, &[]);
        let fetches = plan.chunks().iter().map(|read| self.cache.read(&read.part, read.part.offset, read.len));
        let parts = try_join_all(fetches).await?;
        Ok(plan.assemble(parts))
    }

    async fn plan(self: &Arc<Self>, node: &Arc<Node>, offset: u64, len: u32) -> Result<Plan> {
        for attempt in 0.. {
            // A missing block is asked for; what the answer says is taken as it is when it cannot be kept.
            if let Some(Ok(plan)) = self.plan_leased(node, offset, len) {
                return Ok(plan);
            }
            self.shipped(node).await;
            if attempt == 0 && self.ask_with_siblings(node).await {
                continue;
            }
            let _asking = self.ask_uncovered(node);
            let asked = self.nodes.asked();
            let (over, buffered_end, want) = {
                let state = node.lock();
                let lease = if state.writers > 0 { Lease::Write } else { Lease::Read };
                let want = Hold { lease: state.want(lease), open: state.wants_open() };
                let over = dirty_runs(&state, offset, offset.saturating_add(u64::from(len)));
                (over, state.dirty.end().unwrap_or(0), want)
            };
            // What will not be kept is asked for as far as it is needed.
            let start = if attempt < TRIES { self.first_unknown(node, offset, len) } else { offset };
            let ahead = if want.lease == Lease::None { 0 } else { self.unknown_ahead(node, start) };
            let span = ahead.max(offset.saturating_add(u64::from(len)) - start).min(u64::MAX - start);
            let ino = node.ino;
            let told = self.ask(|session| async move { session.extents(ino, start, span, want).await }).await;
            let (attr, extents, covered) = match &told.result {
                Ok((attr, extents, covered)) => (attr.clone(), extents, *covered),
                Err(FsError::NotFound) => return Err(FsError::Stale),
                Err(error) => return Err(error.clone()),
            };
            let kept = {
                let mut state = node.lock();
                let kept = state.accepts(asked, told.brought(ino));
                if kept {
                    state.extents.learn(start, start + covered, attr.size, extents);
                    state.learn(&attr);
                }
                kept
            };
            let unchanged = node.lock().undisturbed(asked);
            if !kept && start == offset && (unchanged || attempt >= TRIES) {
                let mut extents = extents.clone();
                if self.ask_rest(ino, attr.version, offset + covered..offset + u64::from(len), &mut extents).await? {
                    self.note_unleased_read(node);
                    return Ok(one_shot(&attr, &extents, (over, buffered_end), offset, len));
                }
            }
        }
        Err(FsError::Io)
    }

    /// Where a read has to begin to ask: what lies before is known under a lease.
    fn first_unknown(&self, node: &Node, offset: u64, len: u32) -> u64 {
        let state = node.lock();
        let end = offset.saturating_add(u64::from(len)).min(state.size().unwrap_or(0));
        let known = state.leased(&self.life).then(|| state.extents.first_unknown(offset, end)).flatten();
        known.map_or(offset, |block| offset.max(block * self.block_bytes))
    }

    /// How many bytes to ask for besides, so that the next read need not ask: up to the next block that is known.
    fn unknown_ahead(&self, node: &Node, start: u64) -> u64 {
        let state = node.lock();
        let known = state.leased(&self.life);
        let run = || state.extents.unknown_run(start / self.block_bytes, EXTENT_BLOCKS_AHEAD);
        let blocks = if known { run() } else { EXTENT_BLOCKS_AHEAD };
        (blocks * self.block_bytes).saturating_sub(start % self.block_bytes)
    }

    /// Adds the extents that one reply had no room for. `false`: the file has changed meanwhile.
    async fn ask_rest(&self, ino: Ino, version: u64, rest: Range<u64>, extents: &mut Vec<Extent>) -> Result<bool> {
        let (mut from, to) = (rest.start, rest.end);
        while from < to {
            let told = self.ask(|session| async move { session.extents(ino, from, to - from, Hold::default()).await });
            let (attr, more, covered) = told.await.result?;
            if attr.version != version || covered == 0 {
                return Ok(false);
            }
            // A block that the border lies in comes twice.
            extents.retain(|extent| extent.offset < from / self.block_bytes * self.block_bytes);
            extents.extend(more);
            from += covered;
        }
        Ok(true)
    }

    /// `None`: not to be answered from here. `Err`: some extents are not known.
    fn plan_leased(&self, node: &Node, offset: u64, len: u32) -> Option<std::result::Result<Plan, ()>> {
        let state = node.lock();
        if state.stale || !state.leased(&self.life) {
            return None;
        }
        let end = state.size()?.min(offset.saturating_add(u64::from(len)));
        if end <= offset {
            return Some(Ok(Plan::new([].iter(), offset, 0, &[])));
        }
        let dirty = dirty_runs(&state, offset, end);
        let covered: u64 = dirty.iter().map(|(_, run)| run.len() as u64).sum();
        if covered == end - offset {
            return Some(Ok(Plan::new([].iter(), offset, covered as usize, &dirty)));
        }
        if state.extents.first_unknown(offset, end).is_some() {
            return Some(Err(()));
        }
        let blocks = offset / self.block_bytes..=(end - 1) / self.block_bytes;
        let extents = blocks.flat_map(|block| state.extents.block(block).unwrap_or_default());
        Some(Ok(Plan::new(extents, offset, (end - offset) as usize, &dirty)))
    }

    fn note_read(&self, file: &OpenFile, offset: u64, len: u32, seen: Option<&Attr>) {
        let ahead = file.stream.lock().note(offset, u64::from(len));
        if let Some((from, to)) = ahead {
            self.read_ahead(&file.node, from, to);
        }
        self.note_atime(&file.node, seen);
    }

    /// As `relatime`: once after a change, and once a day. `seen`: the attributes when none are held.
    pub fn note_atime(&self, node: &Node, seen: Option<&Attr>) {
        if self.config.noatime || self.read_only {
            return;
        }
        let mut state = node.lock();
        let Some(base) = state.base().or(seen) else { return };
        let (was, attr) = (base.atime, state.overlay(base.clone()));
        let noted = state.access.is_some_and(|access| access.was == was);
        if let Some(at) = atime::of_access(&attr, self.clock.now(), noted) {
            state.access = Some(Access { was, at });
            drop(state);
            self.touched.lock().insert(node.ino);
        }
    }
}

/// Copies of the dirty bytes of a range.
fn dirty_runs(state: &State, from: u64, to: u64) -> Vec<(u64, Bytes)> {
    let copy = |(at, len): (u64, u64)| {
        let mut run = vec![0; len as usize];
        state.dirty.copy(at, &mut run);
        (at, Bytes::from(run))
    };
    state.dirty.covered(from, to).into_iter().map(copy).collect()
}

/// What the leader told, under what was buffered here when it was asked. The file may end with bytes that are buffered
/// far behind those that are read.
fn one_shot(attr: &Attr, extents: &[Extent], buffered: (Vec<(u64, Bytes)>, u64), offset: u64, len: u32) -> Plan {
    let (over, buffered_end) = buffered;
    let end = attr.size.max(buffered_end).min(offset.saturating_add(u64::from(len)));
    let mut plan = Plan::new(extents.iter(), offset, end.saturating_sub(offset) as usize, &over);
    plan.seen = Some(attr.clone());
    plan
}
