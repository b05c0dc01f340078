//! Dirty data that keeps its place among other changes: written before a rename, it survives if the rename does.
//!
//! Sealing freezes what is dirty and appends it to the journal; the flush lock of the file goes with it until it is
//! shipped. A little stays inline. More is put to the stores at once, while what was done before is on its way.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinHandle;

use super::api::Result;
use super::core::Core;
use super::dirty::Scope;
use super::inode::{Node, State};
use super::journal::{Change, Record};
use super::kept::log::Noted;
use super::writeback::{Load, placed};
use crate::types::attr::{Attr, Time, mode_without_privileges};
use crate::types::error::FsError;
use crate::types::extent::Extent;
use crate::types::limits::{INLINE_BYTES_MAX, JOURNAL_DATA_BYTES_MAX};
use crate::types::op::Op;
use crate::types::session::Hold;

const PUT_AGAIN_PAUSE: Duration = Duration::from_millis(100);

/// Sealed data.
pub struct Data {
    pub node: Arc<Node>,
    load: Load,
    /// The file's flush lock.
    _turn: OwnedMutexGuard<()>,
    /// It stays inline.
    inline: bool,
    put: Mutex<Option<JoinHandle<Result<Vec<Extent>>>>>,
}

impl Data {
    pub fn bytes(&self) -> u64 {
        self.load.bytes()
    }

    /// Bytes of it that go into a command.
    pub fn inline_bytes(&self) -> u64 {
        if self.inline { self.load.bytes() } else { 0 }
    }
}

impl Core {
    /// Seals what is dirty in a file that is ours, at most `max_bytes`. `false`: that is not to be done now, it is to be
    /// flushed first.
    pub fn seal(self: &Arc<Self>, node: &Arc<Node>, state: &mut State, max_bytes: u64) -> bool {
        if !state.dirty.has_fresh() {
            return true;
        }
        // Frozen data is on its way to be committed; what was written since can only follow it.
        if state.dirty.bytes() > max_bytes.min(JOURNAL_DATA_BYTES_MAX) {
            return false;
        }
        let Ok(turn) = node.flushing.clone().try_lock_owned() else { return false };
        let when = state.mtime.take().unwrap_or_else(|| self.clock.now());
        let clear_privileges = std::mem::take(&mut state.clear_privileges);
        let runs = state.dirty.freeze(Scope::All);
        state.dirty.mark_frozen();
        let end = state.dirty.end().unwrap_or_default();
        state.dirty_since = None;
        let begun = self.nodes.asked();
        if let Some(attr) = state.change_here() {
            attr.size = attr.size.max(end);
            attr.mtime = when;
            attr.changed(when.max(attr.ctime));
            if clear_privileges {
                attr.mode = mode_without_privileges(attr.mode);
            }
        }
        state.changed_here();
        let load = Load { session: self.session(), life: state.life, runs, begun, mtime: Some(when), clear_privileges };
        let inline = !state.inline_full && load.bytes() <= u64::from(INLINE_BYTES_MAX);
        let put = Mutex::new((!inline).then(|| self.put_sealed(&load)));
        let data = Data { node: node.clone(), load, _turn: turn, inline, put };
        self.append(when, Change::Data(data), &[node], &mut [state]);
        true
    }

    /// Begins to put what does not stay inline.
    fn put_sealed(self: &Arc<Self>, load: &Load) -> JoinHandle<Result<Vec<Extent>>> {
        let (core, runs) = (self.clone(), load.runs.clone());
        let epoch = self.epoch.load(Ordering::Acquire);
        self.runtime.spawn(async move { core.put_runs(&runs, epoch, 0).await })
    }

    /// The pieces that sealed data became.
    ///
    /// # Errors
    /// They could not be put; or were taken before, and that attempt came to nothing.
    pub async fn sealed_pieces(&self, data: &Data) -> Result<Vec<Extent>> {
        let put = data.put.lock().take();
        match put {
            Some(put) => put.await.map_err(|_| FsError::Io)?,
            None if data.inline => {
                self.put_runs(&data.load.runs, self.epoch.load(Ordering::Acquire), INLINE_BYTES_MAX).await
            }
            None => Err(FsError::Io),
        }
    }

    /// The same for data that has to be in one command with what comes after it: it waits for the stores. `None`: it is lost, and
    /// that is reported.
    pub async fn sealed_write_again(self: &Arc<Self>, data: &Data) -> Option<Op> {
        let mut pieces = self.sealed_pieces(data).await;
        let inline_bytes = if data.inline { INLINE_BYTES_MAX } else { 0 };
        while matches!(pieces, Err(FsError::Unreachable)) {
            tokio::time::sleep(PUT_AGAIN_PAUSE).await;
            pieces = self.put_runs(&data.load.runs, self.epoch.load(Ordering::Acquire), inline_bytes).await;
        }
        match pieces {
            Ok(pieces) => Some(self.sealed_write(data, &pieces)),
            Err(error) => {
                tracing::error!(ino = %data.node.ino, %error, "written data could not be stored and is lost");
                data.node.lock().fail(error);
                self.note_debts();
                self.lose_sealed(data);
                None
            }
        }
    }

    pub fn sealed_write(&self, data: &Data, pieces: &[Extent]) -> Op {
        self.write_op(data.node.ino, &data.load, pieces)
    }

    /// The leader has it.
    pub fn settle_sealed(self: &Arc<Self>, data: &Data, pieces: &[Extent], attr: Option<&Attr>) {
        let mut state = data.node.lock();
        if state.life != data.load.life {
            return;
        }
        self.memory.give(state.dirty.settle());
        self.note_pieces(&mut state, pieces.iter().map(placed));
        if state.held_since(data.load.begun, false) {
            pieces.iter().for_each(|piece| state.extents.apply(piece));
            attr.iter().for_each(|attr| state.learn_allocated(attr.allocated_bytes));
        }
        drop(state);
        self.compact_soon(&data.node);
    }

    /// Ships one that a batch could not: puts it again, rewrites blocks, whatever it takes.
    ///
    /// # Errors
    /// `Unreachable`: it is to be tried again. Anything else: the data can never be stored, and is to be given up.
    pub async fn ship_sealed_alone(self: &Arc<Self>, data: &Data) -> Result<()> {
        match self.ship(&data.node, &data.load, &[], Hold::default()).await {
            Ok(shipped) => {
                self.settle_sealed(data, &shipped.pieces, shipped.attr.as_ref());
                Ok(())
            }
            Err(failed) if !failed.fatal => Err(FsError::Unreachable),
            Err(failed) => Err(failed.error),
        }
    }

    /// It will never be shipped.
    pub fn lose_sealed(&self, data: &Data) {
        let mut state = data.node.lock();
        if state.life == data.load.life {
            self.memory.give(state.dirty.settle());
        }
    }

    /// Appends a change of nodes whose states are locked, and counts it with each.
    pub fn append(&self, at: Time, change: Change, nodes: &[&Arc<Node>], states: &mut [&mut State]) {
        let noted = match &change {
            Change::Op(op) => self.note_change(at, op, nodes),
            // Each piece of it was noted when it was written.
            Change::Data(_) => None,
        };
        self.append_noted(at, change, (nodes, states), noted);
    }

    /// The same for one that is noted already, if anything is.
    pub fn append_noted(
        &self,
        at: Time,
        change: Change,
        (nodes, states): (&[&Arc<Node>], &mut [&mut State]),
        noted: Option<Noted>,
    ) {
        let lives = states.iter().map(|state| state.life);
        let concerned = nodes.iter().map(|node| Arc::clone(node)).zip(lives).collect();
        let number = self.journal.append(at, change, concerned, noted);
        for state in states {
            state.pending += 1;
            state.newest_record = number;
        }
    }
}

impl Record {
    /// Bytes of it in a command, roughly.
    pub fn bytes(&self) -> usize {
        const PLAIN_BYTES: usize = 512;
        match &self.change {
            Change::Data(data) => PLAIN_BYTES + data.inline_bytes() as usize,
            Change::Op(Op::Create(create)) => match &create.node {
                crate::types::op::NewNode::Symlink(target) => PLAIN_BYTES + target.len(),
                _ => PLAIN_BYTES,
            },
            Change::Op(_) => PLAIN_BYTES,
        }
    }
}
