//! Our log as openraft sees it.
//!
//! One rule of our own: a purge never goes past the older of the two snapshots that are kept, so that a node whose
//! newest snapshot is damaged still has everything it needs. openraft hears of it at the next start.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use futures_util::Stream;
use futures_util::stream;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use tokio::sync::oneshot;
use tokio::task;

use super::log::Log;
use super::types::{RaftEntry, RaftLogId, RaftVote, Types, from_log, log_id, log_point, to_log, vote, vote_record};

/// Payload bytes of the entries in one message to a peer: with the largest command on top it still fits a frame.
const SEND_BYTES_MAX: usize = 2 << 20;
/// Entries, and their payload bytes, that are in memory at once while a stretch of the log is applied.
const APPLY_ENTRIES: u64 = 1024;
const APPLY_BYTES_MAX: usize = 4 << 20;

/// Says up to which index entries can be done without; `None` when all are needed.
pub type Spare = Arc<dyn Fn() -> Option<u64> + Send + Sync>;

/// The log, shared by openraft's writer and its readers.
#[derive(Clone)]
pub struct LogStore {
    log: Arc<Log>,
    spare: Spare,
}

impl LogStore {
    pub fn new(log: Arc<Log>, spare: Spare) -> LogStore {
        LogStore { log, spare }
    }

    async fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<RaftEntry>> {
        let entries = if self.log.is_recent(&range) {
            self.log.read(range, bytes_max)?
        } else {
            let log = Arc::clone(&self.log);
            task::spawn_blocking(move || log.read(range, bytes_max)).await.map_err(io::Error::other)??
        };
        entries.into_iter().map(from_log).collect()
    }

    fn clip<RB: RangeBounds<u64>>(&self, range: &RB) -> Range<u64> {
        let there = self.log.range();
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => there.start,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => there.end,
        };
        start..end.min(there.end)
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<RaftEntry>, io::Error> {
        self.read(self.clip(&range), usize::MAX).await
    }

    async fn read_vote(&mut self) -> Result<Option<RaftVote>, io::Error> {
        Ok(self.log.standing().vote.map(vote))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<RaftEntry>, io::Error> {
        self.read(start..end, SEND_BYTES_MAX).await
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = Result<RaftEntry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let range = self.clip(&range);
        let store = self.clone();
        let chunks = stream::unfold(range, move |range| {
            let store = store.clone();
            async move {
                if range.is_empty() {
                    return None;
                }
                let part = range.start..range.end.min(range.start + APPLY_ENTRIES);
                let entries = match store.read(part, APPLY_BYTES_MAX).await {
                    Ok(entries) => entries,
                    Err(error) => return Some((vec![Err(error)], range.end..range.end)),
                };
                let Some(last) = entries.last() else {
                    let missing = io::Error::other(format!("log entry {} is missing", range.start));
                    return Some((vec![Err(missing)], range.end..range.end));
                };
                let next = last.log_id.index + 1;
                Some((entries.into_iter().map(Ok).collect(), next..range.end))
            }
        });
        futures_util::StreamExt::flat_map(chunks, stream::iter)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let last_purged_log_id = self.log.standing().purged.map(log_id);
        Ok(LogState { last_purged_log_id, last_log_id: self.log.last().map(log_id) })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> Result<(), io::Error> {
        let (told, saved) = oneshot::channel();
        let done = Box::new(move |outcome| drop(told.send(outcome)));
        self.log.save_vote(vote_record(vote), done)?;
        saved.await.map_err(io::Error::other)?
    }

    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> Result<(), io::Error> {
        self.log.save_committed(committed.as_ref().map(log_point))
    }

    async fn read_committed(&mut self) -> Result<Option<RaftLogId>, io::Error> {
        Ok(self.log.standing().committed.map(log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().map(to_log).collect::<io::Result<Vec<_>>>()?;
        self.log.append(entries, Box::new(move |outcome| callback.io_completed(outcome)))
    }

    async fn truncate_after(&mut self, last_log_id: Option<RaftLogId>) -> Result<(), io::Error> {
        // Durable before it returns: a snapshot that contradicts the entries may be installed next, and is durable
        // on its own.
        let (told, truncated) = oneshot::channel();
        let done = Box::new(move |outcome| drop(told.send(outcome)));
        self.log.truncate_from(last_log_id.map_or(0, |last| last.index + 1), done)?;
        truncated.await.map_err(io::Error::other)?
    }

    async fn purge(&mut self, log_id: RaftLogId) -> Result<(), io::Error> {
        // Past the end: a snapshot from the leader has replaced everything here.
        let replaces_all = log_id.index >= self.log.range().end;
        let spare = (self.spare)();
        if replaces_all || spare.is_some_and(|spare| spare >= log_id.index) {
            return self.log.purge(log_point(&log_id));
        }
        spare.and_then(|spare| self.log.point(spare)).map_or(Ok(()), |point| self.log.purge(point))
    }
}
