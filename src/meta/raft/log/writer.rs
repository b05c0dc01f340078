//! The one thread that writes the log: takes what has gathered, writes it, fsyncs once, tells everybody.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::record::Salt;
use super::scan::{create, segment_path, sync_dir};
use super::{Done, Segment, Shared, Task};

pub(super) struct Writer {
    shared: Arc<Shared>,
    file: Arc<File>,
    offset: u64,
    /// Where the file ends: at the records, or behind zeros.
    end: u64,
}

/// What was taken from the queue at once, and what stood when it was.
struct Turn {
    tasks: Vec<Task>,
    next: u64,
    truncations: u64,
}

/// What is left to do once the writes of a turn are on disk.
#[derive(Default)]
struct After {
    waiting: Vec<Done>,
    delete_below: Option<u64>,
}

impl Writer {
    pub fn new(shared: Arc<Shared>, file: Arc<File>) -> Writer {
        let offset = shared.state.lock().offset.into();
        Writer { shared, file, offset, end: offset }
    }

    pub fn run(mut self) {
        // Poisons the log if this thread panics: nobody would ever be called back.
        let mut guard = PoisonOnPanic { shared: Arc::clone(&self.shared), armed: true };
        while let Some(turn) = self.take() {
            let mut after = After::default();
            let before = self.offset;
            let written = self.write(turn.tasks, &mut after);
            self.write_ahead(self.offset.saturating_sub(before));
            let written = written.and_then(|()| self.file.sync_data());
            if written.is_ok() {
                self.note_synced(turn.next, turn.truncations);
            }
            finish(&self.shared, &written, after);
        }
        guard.armed = false;
    }

    /// Waits for something that is to be on disk; `None` at the end, with nothing left.
    fn take(&self) -> Option<Turn> {
        let mut state = self.shared.state.lock();
        loop {
            // Records alone (a commit) wait for company, or for the end.
            let urgent = state.queue.iter().any(|task| matches!(task, Task::Sync(_) | Task::Delete { .. }));
            if urgent || (state.stopping && !state.queue.is_empty()) {
                break;
            }
            if state.stopping {
                return None;
            }
            self.shared.wake.wait(&mut state);
        }
        let tasks = std::mem::take(&mut state.queue);
        Some(Turn { tasks, next: state.range().end, truncations: state.truncations })
    }

    /// Carries tasks out in order. Waiting callers are collected even after a failure, so that they hear of it.
    fn write(&mut self, tasks: Vec<Task>, after: &mut After) -> io::Result<()> {
        let failed = self.shared.state.lock().failed.clone();
        let mut outcome = failed.map_or(Ok(()), |why| Err(io::Error::other(why)));
        for task in tasks {
            match task {
                Task::Sync(done) => after.waiting.push(done),
                Task::Delete { below } => after.delete_below = Some(below),
                Task::Write(bytes) if outcome.is_ok() => outcome = self.append(&bytes),
                Task::Rotate { sequence, salt, head } if outcome.is_ok() => {
                    outcome = self.rotate(sequence, salt, &head);
                }
                Task::Write(_) | Task::Rotate { .. } => {}
            }
        }
        outcome
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.offset)?;
        self.offset += bytes.len() as u64;
        self.end = self.end.max(self.offset);
        Ok(())
    }

    /// Zeros behind the records, when those of a turn would soon reach their end; large turns have nothing to gain. They are
    /// on disk with the next fsync. Without them, for want of space say, everything is as it was.
    fn write_ahead(&mut self, turn_bytes: u64) {
        let ahead_bytes = u64::from(self.shared.config.ahead_bytes);
        let short_bytes = ahead_bytes / 4;
        if turn_bytes >= short_bytes || self.end - self.offset >= short_bytes {
            return;
        }
        let upto = self.offset + ahead_bytes;
        match self.file.write_all_at(&vec![0; (upto - self.end) as usize], self.end) {
            Ok(()) => self.end = upto,
            Err(error) => tracing::debug!(%error, "nothing is written ahead of the log"),
        }
    }

    /// The old segment is on disk before the new one is there: only the last one can be torn.
    fn rotate(&mut self, sequence: u64, salt: Salt, head: &[u8]) -> io::Result<()> {
        self.file.sync_data()?;
        self.file = create(&self.shared.dir, sequence, head)?;
        self.offset = head.len() as u64;
        self.end = self.offset;
        let mut state = self.shared.state.lock();
        state.segments.push_back(Segment { sequence, salt, file: Arc::clone(&self.file) });
        Ok(())
    }

    fn note_synced(&self, next: u64, truncations: u64) {
        let mut state = self.shared.state.lock();
        if state.segments.back().is_some_and(|segment| segment.sequence == state.sequence) {
            state.synced = self.offset as u32;
        }
        if state.truncations == truncations {
            state.synced_next = state.synced_next.max(next);
        }
        state.shrink_recent(self.shared.config.recent_bytes);
    }
}

/// Tells the waiting, and deletes what may go.
fn finish(shared: &Shared, written: &io::Result<()>, after: After) {
    if let Err(error) = written {
        poison(shared, &format!("the log failed: {error}"));
    }
    for done in after.waiting {
        done(match written {
            Ok(()) => Ok(()),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        });
    }
    let Some(below) = after.delete_below.filter(|_| written.is_ok()) else { return };
    // Segments that cannot be deleted now are found and deleted by the next purge after a restart.
    if let Err(error) = delete(shared, below) {
        tracing::warn!(%error, "old segments of the log stay behind");
    }
}

fn delete(shared: &Shared, below: u64) -> io::Result<()> {
    let mut gone = VecDeque::new();
    {
        let mut state = shared.state.lock();
        while state.segments.front().is_some_and(|segment| segment.sequence < below) {
            gone.extend(state.segments.pop_front());
        }
    }
    for segment in &gone {
        // Oldest first: whatever a crash leaves has no gaps.
        fs::remove_file(segment_path(&shared.dir, segment.sequence))?;
    }
    if gone.is_empty() { Ok(()) } else { sync_dir(&shared.dir) }
}

fn poison(shared: &Shared, why: &str) {
    tracing::error!(why, "the raft log is poisoned");
    shared.state.lock().failed.get_or_insert_with(|| why.to_string());
}

struct PoisonOnPanic {
    shared: Arc<Shared>,
    armed: bool,
}

impl Drop for PoisonOnPanic {
    fn drop(&mut self) {
        if self.armed {
            poison(&self.shared, "the log's writer panicked");
        }
    }
}
