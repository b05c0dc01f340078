//! Taking a snapshot from the leader, part by part.
//!
//! One transfer at a time, into a temporary file; a part that does not continue it makes the sender begin again.
//! Nothing received is believed: the finished file is read through before it replaces anything.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::task;

use super::snapshot::{SnapshotDir, SnapshotFile};
use super::types::{RaftSnapshotMeta, RaftVote};

/// What a part says of itself; its bytes travel as bulk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SnapshotPart {
    /// The leadership that sends.
    pub vote: RaftVote,
    pub meta: RaftSnapshotMeta,
    /// Length of the whole file.
    pub total_bytes: u64,
    pub offset: u64,
}

/// The receiving end of one node.
pub struct Receiver {
    snapshots: Arc<SnapshotDir>,
    transfer: Mutex<Option<Transfer>>,
}

struct Transfer {
    vote: RaftVote,
    meta: RaftSnapshotMeta,
    total_bytes: u64,
    received_bytes: u64,
    path: PathBuf,
    file: Arc<File>,
}

impl Receiver {
    pub fn new(snapshots: Arc<SnapshotDir>) -> Receiver {
        Receiver { snapshots, transfer: Mutex::default() }
    }

    /// Takes one part; gives back the file after the last one. It is the caller's to install or to remove.
    ///
    /// # Errors
    /// The part does not continue the transfer, or the disk failed; the transfer is over.
    pub async fn take(&self, part: SnapshotPart, bytes: Bytes) -> io::Result<Option<SnapshotFile>> {
        let mut current = self.transfer.lock().await;
        let mut transfer = match current.take() {
            Some(transfer) if part.offset != 0 => transfer,
            abandoned => {
                if let Some(abandoned) = abandoned {
                    abandoned.remove();
                }
                Transfer::begin(&self.snapshots, &part)?
            }
        };
        if let Err(error) = transfer.append(&part, bytes).await {
            transfer.remove();
            return Err(error);
        }
        if transfer.received_bytes < transfer.total_bytes {
            *current = Some(transfer);
            return Ok(None);
        }
        let Transfer { meta, path, file, total_bytes, .. } = transfer;
        let file = Arc::into_inner(file).ok_or_else(|| io::Error::other("the received file is still in use"))?;
        Ok(Some(SnapshotFile::unchecked(meta, path, file, total_bytes)))
    }
}

impl Transfer {
    fn begin(snapshots: &SnapshotDir, part: &SnapshotPart) -> io::Result<Transfer> {
        let path = snapshots.temporary();
        let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&path)?;
        Ok(Transfer {
            vote: part.vote,
            meta: part.meta.clone(),
            total_bytes: part.total_bytes,
            received_bytes: 0,
            path,
            file: Arc::new(file),
        })
    }

    async fn append(&mut self, part: &SnapshotPart, bytes: Bytes) -> io::Result<()> {
        let is_next = part.offset == self.received_bytes
            && part.total_bytes == self.total_bytes
            && part.vote == self.vote
            && part.meta == self.meta;
        let end = self.received_bytes.saturating_add(bytes.len() as u64);
        if !is_next || bytes.is_empty() || end > self.total_bytes {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "this part does not continue the snapshot"));
        }
        let (file, offset) = (Arc::clone(&self.file), self.received_bytes);
        task::spawn_blocking(move || file.write_all_at(&bytes, offset)).await.map_err(io::Error::other)??;
        self.received_bytes = end;
        Ok(())
    }

    /// Best effort: the next start removes it as well.
    fn remove(self) {
        let _ = fs::remove_file(&self.path);
    }
}
