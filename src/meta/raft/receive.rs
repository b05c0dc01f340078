//! Taking a snapshot from the leader, part by part.
//!
//! One transfer at a time, into a temporary file; a part that does not continue it makes the sender begin again.
//! Nothing received is believed: the finished file is read through before anybody gets it, since Raft takes a snapshot
//! that does not install for the failure of this node's disk, and ends.

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

    /// Takes one part; gives back the file after the last one, with every checksum in it checked. It is the caller's to
    /// install or to remove.
    ///
    /// # Errors
    /// The part does not continue the transfer, what was sent is no sound snapshot, or the disk failed; the transfer is
    /// over.
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
        let snapshot = SnapshotFile::unchecked(meta, path, file, total_bytes);
        let received = snapshot.clone();
        let checked = task::spawn_blocking(move || received.verify()).await.map_err(io::Error::other)?;
        if let Err(error) = checked {
            tracing::error!(%error, "a snapshot was received that is damaged");
            let _ = fs::remove_file(snapshot.path());
            return Err(error);
        }
        Ok(Some(snapshot))
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::meta::raft::log::LogPoint;
    use crate::meta::raft::types::log_id;

    /// Sends the file in parts of `part_bytes`; gives back what came of the last one.
    async fn send(receiver: &Receiver, meta: &RaftSnapshotMeta, file: &[u8], part_bytes: usize) -> io::Result<bool> {
        let mut last = Ok(None);
        for (number, bytes) in file.chunks(part_bytes).enumerate() {
            let (offset, total_bytes) = ((number * part_bytes) as u64, file.len() as u64);
            let part = SnapshotPart { vote: RaftVote::new(2, 1), meta: meta.clone(), total_bytes, offset };
            last = receiver.take(part, Bytes::copy_from_slice(bytes)).await;
        }
        last.map(|file| file.is_some())
    }

    fn temporaries(dir: &Path) -> usize {
        let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        names.filter(|path| path.extension().is_some_and(|extension| extension == "tmp")).count()
    }

    #[tokio::test]
    async fn nobody_gets_a_damaged_snapshot() {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = Arc::new(SnapshotDir::open(dir.path()).unwrap());
        let last_log_id = Some(log_id(LogPoint { term: 2, leader: 1, index: 7 }));
        let meta = RaftSnapshotMeta { last_log_id, ..RaftSnapshotMeta::default() };
        let file = snapshots.write(meta.clone(), |out| out.write_all(b"the whole state")).unwrap();
        let whole = fs::read(file.path()).unwrap();
        let receiver = Receiver::new(Arc::clone(&snapshots));
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            assert!(send(&receiver, &meta, &bytes, 30).await.is_err(), "byte {at}");
        }
        assert!(send(&receiver, &RaftSnapshotMeta::default(), &whole, 30).await.is_err());
        assert_eq!(temporaries(dir.path()), 0);
        assert!(send(&receiver, &meta, &whole, 30).await.unwrap());
    }
}
