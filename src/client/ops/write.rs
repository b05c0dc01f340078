//! Writing: into memory under a write lease, through to the leader without one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::time::Instant;

use crate::client::api::{Handle, Result, WriteRequest};
use crate::client::calls;
use crate::client::core::Core;
use crate::client::dirty::Scope;
use crate::client::files::OpenFile;
use crate::client::inode::{Node, State};
use crate::client::kept::taken::Written;
use crate::client::writeback::{FREEING_PATIENCE, FREEING_PAUSE, REWRITES_MAX};
use crate::types::attr::Time;
use crate::types::error::FsError;
use crate::types::extent::{Extent, Source};
use crate::types::limits::FILE_BYTES_MAX;
use crate::types::op::{BatchReply, Op, OpReply, Piece, Write, WriteAt};
use crate::types::session::{Hold, Lease};

/// Goes with the bytes it was given to.
pub const CAPABILITY: &[u8] = b"security.capability";

/// How a buffered write went.
enum Buffered {
    Done,
    /// A whole block is dirty.
    Ship,
    /// There is no room to note it for the next client.
    Full,
    /// Not now: a recall is in its last flush.
    Blocked,
    /// No write lease that may be used.
    Contended,
    Failed(FsError),
}

impl Core {
    pub fn try_write(self: &Arc<Self>, handle: Handle, write: &WriteRequest<'_>) -> Option<Result<u32>> {
        let file = match self.writable(handle) {
            Ok(file) => file,
            Err(error) => return Some(Err(error)),
        };
        let bytes = write.data.len() as u64;
        self.reserve_soon();
        if write.sync || file.mode.sync || self.space_is_low() || (write.append && self.may_be_done()) {
            return None;
        }
        // Counted as of a call until it is dirty.
        let _adding = self.quota.add_bytes(bytes);
        if !self.quota.covers(|| self.memory.dirty_bytes()) || !self.memory.try_take(bytes) {
            return None;
        }
        match self.buffer(&file.node, write) {
            Buffered::Done => Some(Ok(write.data.len() as u32)),
            Buffered::Ship => {
                self.flush_soon(&file.node, Scope::Whole);
                Some(Ok(write.data.len() as u32))
            }
            Buffered::Failed(error) => {
                self.memory.give(bytes);
                Some(Err(error))
            }
            Buffered::Blocked | Buffered::Contended | Buffered::Full => {
                self.memory.give(bytes);
                None
            }
        }
    }

    pub async fn write(self: &Arc<Self>, handle: Handle, write: &WriteRequest<'_>) -> Result<u32> {
        let file = self.writable(handle)?;
        if let Some(written) = write.append.then(|| self.done_before()).flatten() {
            written?;
            if write.sync || file.mode.sync {
                self.fsync_file(&file).await?;
            }
            return Ok(write.data.len() as u32);
        }
        let (node, bytes) = (&file.node, write.data.len() as u64);
        let failures = node.lock().failure.count;
        let mut asked = false;
        loop {
            let (moved, room) = (node.moved.notified(), self.room_for_notes());
            tokio::pin!(moved, room);
            moved.as_mut().enable();
            self.know_size(node).await?;
            let adding = self.adding(bytes).await?;
            self.memory.take(bytes).await;
            // While it waited, a lock that it relies on may have gone with the session.
            if let Err(lost) = file.check_lost() {
                self.memory.give(bytes);
                return Err(lost);
            }
            let buffered = self.buffer(node, write);
            match buffered {
                Buffered::Done | Buffered::Ship => break,
                Buffered::Failed(_) | Buffered::Blocked | Buffered::Contended | Buffered::Full => {
                    self.memory.give(bytes);
                }
            }
            match buffered {
                Buffered::Failed(error) => return Err(error),
                Buffered::Blocked => {
                    drop(adding);
                    moved.await;
                }
                Buffered::Full => {
                    drop(adding);
                    room.await;
                }
                Buffered::Contended if !std::mem::replace(&mut asked, true) && self.own_to_write(node).await => {}
                _ => {
                    // What was buffered before lies below what is written now, and counts for the end of the file.
                    let flushed = self.flush_before(node).await;
                    let written = match flushed {
                        Ok(()) => self.write_through(&file, write).await,
                        Err(error) => Err(error),
                    };
                    written.inspect_err(|error| self.note_unstored(node, error))?;
                    return Ok(write.data.len() as u32);
                }
            }
        }
        if write.sync || file.mode.sync || self.space_is_low() {
            self.fsync_file(&file).await?;
            // Another write by this handle may have been told of what went with it.
            node.lock().failed_since(failures)?;
        } else {
            self.flush_soon(node, Scope::Whole);
        }
        Ok(write.data.len() as u32)
    }

    fn writable(&self, handle: Handle) -> Result<Arc<OpenFile>> {
        let file = self.files.find_for_data(handle)?;
        if self.read_only {
            return Err(FsError::ReadOnly);
        }
        if file.mode.write { Ok(file) } else { Err(FsError::BadHandle) }
    }

    /// Under a write lease the attributes may have been forgotten by a change of our own.
    async fn know_size(&self, node: &Arc<Node>) -> Result<()> {
        let lacks = {
            let state = node.lock();
            state.owned(&self.life) && state.base().is_none()
        };
        if lacks {
            self.getattr(node.ino).await?;
        }
        Ok(())
    }

    /// Takes a write into memory. Room for all of its bytes was taken; what it did not need is given back.
    fn buffer(&self, node: &Arc<Node>, write: &WriteRequest<'_>) -> Buffered {
        let mut state = node.lock();
        if state.stale {
            return Buffered::Failed(FsError::Stale);
        }
        if state.writes_blocked {
            return Buffered::Blocked;
        }
        let Some(size) = state.size().filter(|_| self.may_buffer(&state)) else { return Buffered::Contended };
        let offset = if write.append { size } else { write.offset };
        let bytes = write.data.len() as u64;
        if offset.checked_add(bytes).is_none_or(|end| end > FILE_BYTES_MAX) {
            return Buffered::Failed(FsError::FileTooLarge);
        }
        let mtime = self.time_of_write(&state);
        let (data, clear_privileges) = (write.data, write.clear_privileges);
        let of = Written { ino: node.ino, offset, mtime, clear_privileges, bytes: data, call: None };
        let Some(noted) = self.note_data(&of, write.append) else { return Buffered::Full };
        let grown = state.dirty.write(offset, write.data, noted);
        self.memory.give(bytes - grown);
        was_written(&mut state, mtime, write.clear_privileges);
        let whole = state.dirty.whole_blocks() > 0;
        let first = state.dirty_since.is_none();
        state.dirty_since.get_or_insert_with(Instant::now);
        drop(state);
        if first {
            self.dirty.lock().insert(node.ino);
        }
        if whole { Buffered::Ship } else { Buffered::Done }
    }

    fn time_of_write(&self, state: &State) -> Time {
        // Time does not run backwards on one file, whatever the clocks say. (Its time of change, that is: the other one
        // may have been set to any time at all, and a write brings it back.)
        let newest = state.visible().map(|attr| attr.ctime).unwrap_or_default();
        self.clock.now().max(newest)
    }

    /// One write, durable when it returns, done by the leader. A lease for the next ones comes with the answer, if
    /// nothing is in its way.
    async fn write_through(self: &Arc<Self>, file: &Arc<OpenFile>, write: &WriteRequest<'_>) -> Result<()> {
        if write.data.is_empty() {
            return Ok(());
        }
        let (core, file, data) = (self.clone(), file.clone(), Bytes::copy_from_slice(write.data));
        let at = if write.append { WriteAt::End } else { WriteAt::Offset(write.offset) };
        let clear_privileges = write.clear_privileges;
        let writing = async move { core.write_at(&file, at, data, clear_privileges).await };
        let task = self.runtime.spawn(calls::within(calls::current(), writing));
        task.await.map_err(|_| FsError::Io)?
    }

    async fn write_at(
        self: &Arc<Self>,
        file: &OpenFile,
        at: WriteAt,
        data: Bytes,
        clear_privileges: bool,
    ) -> Result<()> {
        let node = &file.node;
        let start = if let WriteAt::Offset(start) = at { start } else { 0 };
        let len = data.len() as u64;
        if start.checked_add(len).is_none_or(|end| end > FILE_BYTES_MAX) {
            return Err(FsError::FileTooLarge);
        }
        let runs = cut(start, data, self.block_bytes);
        let mut epoch = self.epoch.load(Ordering::Acquire);
        let mut inline_bytes = node.inline_bytes_max();
        let started = Instant::now();
        let mut rewrites = 0;
        loop {
            let pieces = match self.put_runs(&runs, epoch, inline_bytes).await {
                Err(FsError::NoSpace) if started.elapsed() < FREEING_PATIENCE && self.room_is_coming().await => {
                    tokio::time::sleep(FREEING_PAUSE).await;
                    epoch = self.epoch.load(Ordering::Acquire);
                    continue;
                }
                put => put?,
            };
            let begun = self.nodes.asked();
            let want = {
                let mut state = node.lock();
                state.begin_flush();
                Hold { lease: state.want(Lease::Write), open: state.wants_open() }
            };
            let is_inline = pieces.iter().all(|piece| matches!(piece.source, Source::Inline(_)));
            let pieces = pieces.into_iter().map(|piece| relative(piece, start)).collect();
            let op = Op::Write(Write { ino: node.ino, at, pieces, len, mtime: None, clear_privileges });
            let (reply, leased) = self.submit_by(Some(file), vec![op], want).await;
            node.lock().end_change();
            match reply {
                Ok(BatchReply::Done(replies)) => {
                    let mut state = node.lock();
                    state.extents.forget();
                    forget_capability(&mut state);
                    let current = state.held_since(begun, leased.contains(&node.ino)) && !state.is_changing();
                    if let Some(OpReply::Written { offset, attr }) = replies.first() {
                        let placed =
                            runs.iter().map(|(at, bytes)| (at - start + offset, bytes.len() as u64, is_inline));
                        self.note_pieces(&mut state, placed);
                        if current {
                            state.learn(attr);
                        }
                    }
                    drop(state);
                    self.compact_soon(node);
                    return Ok(());
                }
                Ok(BatchReply::Failed { error: FsError::PutAgain { epoch: newer }, .. }) => {
                    self.epoch.fetch_max(newer, Ordering::AcqRel);
                    epoch = newer;
                }
                Ok(BatchReply::Failed { error: FsError::TooBig, .. }) if inline_bytes > 0 => {
                    node.lock().inline_full = true;
                    inline_bytes = 0;
                }
                Ok(BatchReply::Failed { error: FsError::Scattered, .. }) if rewrites < REWRITES_MAX => {
                    rewrites += 1;
                    self.make_room(node, at, &runs).await?;
                }
                Ok(BatchReply::Failed { error: FsError::NotFound, .. }) => return Err(FsError::Stale),
                Ok(BatchReply::Failed { error, .. }) | Err(error) => return Err(error),
            }
        }
    }
}

impl Core {
    /// Rewrites the blocks that a write could not be laid over. One that another client has just rewritten is as good.
    async fn make_room(self: &Arc<Self>, node: &Arc<Node>, at: WriteAt, runs: &[(u64, Bytes)]) -> Result<()> {
        let end = match at {
            WriteAt::Offset(_) => 0,
            WriteAt::End => self.getattr(node.ino).await?.size,
        };
        for (offset, _) in runs {
            match self.compact(node.ino, (end + offset) / self.block_bytes).await {
                Ok(()) | Err(FsError::Stale) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Something was written, and is dirty.
pub fn was_written(state: &mut State, mtime: Time, clear_privileges: bool) {
    state.mtime = Some(mtime);
    state.clear_privileges |= clear_privileges;
    state.looks.changed();
    forget_capability(state);
}

/// That there is none stays known.
pub fn forget_capability(state: &mut State) {
    if matches!(state.xattrs.get(CAPABILITY), Some(Some(_))) {
        state.xattrs.remove(CAPABILITY);
    }
}

/// Cuts data at block borders.
fn cut(start: u64, mut data: Bytes, block_bytes: u64) -> Vec<(u64, Bytes)> {
    let mut runs = Vec::new();
    let mut at = start;
    while !data.is_empty() {
        let room = (block_bytes - at % block_bytes).min(data.len() as u64);
        runs.push((at, data.split_to(room as usize)));
        at += room;
    }
    runs
}

fn relative(piece: Extent, start: u64) -> Piece {
    Piece { offset: piece.offset - start, len: piece.len, source: piece.source }
}
