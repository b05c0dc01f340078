//! Room on a disk that is nearly full: snapshots before they are due, and the log cut down to what they need.
//!
//! Otherwise a log that has grown until changes are refused stays as it is: nothing is added any more that would make a
//! snapshot due, and what users delete is freed in the state alone. A snapshot is asked for only when it will fit: openraft
//! gives up on a node that cannot write one.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;

use super::Machine;
use super::log::Log;
use super::snapshot::{KEPT, SnapshotDir};
use super::types::RaftHandle;
use crate::host::space::free_bytes;

/// A snapshot, and a second if there is none, takes no more than one part in so many of what is free. What makes room is one of
/// a state from which much was deleted; on a disk that is filling up it would take the room that is set aside for deleting.
const SHARE: u64 = 4;

/// When there is little room, and how often that is looked at.
#[derive(Clone, Copy, Debug)]
pub struct RoomConfig {
    pub low_bytes: u64,
    pub period_ms: u64,
}

impl Default for RoomConfig {
    fn default() -> Self {
        RoomConfig { low_bytes: 128 << 20, period_ms: 5_000 }
    }
}

/// The watch over one node's disk. Keeps nothing open that a node which has stopped has closed.
pub struct Room {
    pub config: RoomConfig,
    pub dir: PathBuf,
    /// Of a whole segment of the log: what can be cut off at least.
    pub segment_bytes: u64,
    pub log: Weak<Log>,
    pub snapshots: Arc<SnapshotDir>,
    pub machine: Weak<dyn Machine>,
}

impl Room {
    /// Until the node ends.
    pub async fn watch(self, raft: RaftHandle) {
        let metrics = raft.metrics();
        loop {
            tokio::time::sleep(Duration::from_millis(self.config.period_ms)).await;
            let (applied, snapshot) = {
                let now = metrics.borrow_watched();
                if now.running_state.is_err() {
                    return;
                }
                (now.last_applied, now.snapshot)
            };
            let (Some(log), Some(machine)) = (self.log.upgrade(), self.machine.upgrade()) else { return };
            let Ok(free) = free_bytes(&self.dir) else { continue };
            if free >= self.config.low_bytes {
                continue;
            }
            if let Some(spare) = self.snapshots.spare().filter(|spare| log.range().contains(spare)) {
                tracing::info!(upto = spare, free, "little room: cutting the log");
                let _ = raft.trigger().purge_log(spare).await;
            }
            // With less than that nothing but the segment that is written to would be left.
            if applied <= snapshot || log.bytes_from(log.range().start) <= self.segment_bytes {
                continue;
            }
            let missing = KEPT.saturating_sub(self.snapshots.all().len()).max(1) as u64;
            let fits = |bytes: u64| bytes.saturating_mul(missing).saturating_mul(SHARE) <= free;
            if snapshot_bytes(machine).await.is_some_and(fits) {
                let _ = raft.trigger().snapshot().await;
            }
        }
    }
}

/// How large a snapshot would be now: one that is written to nowhere.
async fn snapshot_bytes(machine: Arc<dyn Machine>) -> Option<u64> {
    let measure = move || -> io::Result<Option<u64>> {
        let Some(dump) = machine.freeze()? else { return Ok(None) };
        let mut count = Count(0);
        dump(&mut count)?;
        Ok(Some(count.0))
    };
    tokio::task::spawn_blocking(measure).await.ok()?.ok()?
}

struct Count(u64);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
