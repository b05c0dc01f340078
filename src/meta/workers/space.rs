//! Watches the disk under the log: a metadata server that runs out of space must still be able to delete.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::host::space::free_bytes;
use crate::meta::serve::Shared;
use crate::meta::serve::room::LogRoom;

pub async fn watch(shared: Arc<Shared>, dir: PathBuf) {
    loop {
        match free_bytes(&dir) {
            Ok(free) => {
                let room = LogRoom::of(free);
                let changed = shared.room.send_if_modified(|was| std::mem::replace(was, room) != room);
                if changed && room != LogRoom::Ample {
                    tracing::error!(free_bytes = free, dir = %dir.display(), "the metadata disk is nearly full");
                }
            }
            Err(error) => tracing::warn!(%error, "the free space of the metadata disk is not known"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
