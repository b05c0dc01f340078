//! openraft's own suite for stores.

use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};

use super::ToyMachine;
use crate::meta::raft::log::{Log, LogConfig};
use crate::meta::raft::machine::MachineStore;
use crate::meta::raft::snapshot::SnapshotDir;
use crate::meta::raft::store::LogStore;
use crate::meta::raft::types::{Position, Types};

struct Builder;

impl StoreBuilder<Types, LogStore, MachineStore, tempfile::TempDir> for Builder {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, MachineStore), StorageError<Types>> {
        let dir = tempfile::tempdir().unwrap();
        let config = LogConfig { segment_bytes: 4000, recent_bytes: 200, ahead_bytes: 512 };
        let log = Log::open(&dir.path().join("log"), 1, config).unwrap();
        let snapshots = Arc::new(SnapshotDir::open(&dir.path().join("snapshots")).unwrap());
        // The suite expects every purge to be carried out.
        let store = LogStore::new(Arc::new(log), Arc::new(|| Some(u64::MAX)));
        Ok((dir, store, MachineStore::new(ToyMachine::new(), snapshots, Position::default())))
    }
}

#[tokio::test]
async fn openraft_accepts_the_stores() {
    Suite::test_all(Builder).await.unwrap();
}
