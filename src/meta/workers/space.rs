//! Watches the disk under the log: a metadata server that runs out of space must still be able to delete, and to go on when
//! what was deleted makes room.
//!
//! The log is cut to what two snapshots need ([`crate::meta::raft`]). On a disk that is full nothing is changed any more, so
//! nothing would come between the first and the second: then the leader puts an entry there that changes nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::host::space::free_bytes;
use crate::meta::command::Command;
use crate::meta::serve::Shared;
use crate::meta::serve::room::LogRoom;
use crate::types::id::TreeId;

const PERIOD: Duration = Duration::from_secs(1);
/// With less nothing is written that need not be: a log that cannot be written to ends its server.
const NUDGE_BYTES_MIN: u64 = 16 << 20;
/// Between two entries that change nothing.
const NUDGE: Duration = Duration::from_secs(5);

pub async fn watch(shared: Arc<Shared>, dir: PathBuf) {
    let mut nudged = Instant::now();
    loop {
        match free_bytes(&dir) {
            Ok(free) => {
                let room = LogRoom::of(free);
                let changed = shared.room.send_if_modified(|was| std::mem::replace(was, room) != room);
                if changed && room != LogRoom::Ample {
                    tracing::error!(free_bytes = free, dir = %dir.display(), "the metadata disk is nearly full");
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
