//! Watches the disk under the log: a metadata server that runs out of space must still be able to delete, and to go on when
//! what was deleted makes room.
//!
//! The index keeps what it has taken in memory, up to as much as the reserve, and writes it at once: so it is made to write as soon
//! as there is little room, while there is some.
//!
//! The log is cut to what two snapshots need ([`crate::meta::raft`]). On a disk that is full nothing is changed any more, so
//! nothing would come between the first and the second: then the leader puts an entry there that changes nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::host::space::free_bytes;
use crate::meta::command::Command;
use crate::meta::raft::Machine;
use crate::meta::serve::Shared;
use crate::meta::serve::room::LogRoom;
use crate::types::id::TreeId;

/// A disk is written at tens of MiB a second; the reserve must not be gone between two looks.
const PERIOD: Duration = Duration::from_millis(200);
/// With less nothing is written that need not be: a log that cannot be written to ends its server.
const NUDGE_BYTES_MIN: u64 = 16 << 20;
/// So much more of the log makes it worth while to have the index written.
const FLUSH_BYTES: u64 = 1 << 20;
/// Between two entries that change nothing.
const NUDGE: Duration = Duration::from_secs(5);

pub async fn watch(shared: Arc<Shared>, dir: PathBuf) {
    let mut nudged = Instant::now();
    let mut flushed_bytes = 0;
    loop {
        match free_bytes(&dir) {
            Ok(free) => {
                let room = LogRoom::of(free);
                let changed = shared.room.send_if_modified(|was| std::mem::replace(was, room) != room);
                if changed && room != LogRoom::Ample {
                    tracing::error!(free_bytes = free, dir = %dir.display(), "the metadata disk is nearly full");
                }
                let log_bytes = shared.raft.log_bytes();
                if room != LogRoom::Ample && log_bytes.abs_diff(flushed_bytes) >= FLUSH_BYTES {
                    flushed_bytes = log_bytes;
                    flush(&shared).await;
                }
                let helps = room == LogRoom::Full && free >= NUDGE_BYTES_MIN && shared.raft.can_be_cut();
                if helps && nudged.elapsed() >= NUDGE && shared.lead().is_ok() {
                    nudged = Instant::now();
                    let nothing = Command::Reap { tree: TreeId(0), inos: Vec::new() };
                    if shared.propose(&nothing).await.is_err() {
                        tracing::debug!("no entry could be put into the log");
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "the free space of the metadata disk is not known"),
        }
        tokio::time::sleep(PERIOD).await;
    }
}

async fn flush(shared: &Arc<Shared>) {
    let shared = Arc::clone(shared);
    let flushed = tokio::task::spawn_blocking(move || shared.state.flush()).await;
    if !matches!(flushed, Ok(Ok(()))) {
        tracing::error!("the metadata index could not be written to a disk that is nearly full");
    }
}
