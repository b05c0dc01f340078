//! The cluster map: stores, their disks, and where chunks belong. Has an epoch; grows with every change.

use rkyv::{Archive, Deserialize, Serialize};

use super::id::{DiskId, StoreId};

#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterMap {
    pub epoch: u64,
    pub stores: Vec<StoreInfo>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct StoreInfo {
    pub id: StoreId,
    /// `host:port` where it serves.
    pub address: String,
    /// Failure domain above the store: the host it runs on.
    pub host: String,
    /// Failure domain above the host; empty when not told.
    pub zone: String,
    pub disks: Vec<DiskInfo>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct DiskInfo {
    pub id: DiskId,
    /// Relative share of the data: its capacity in GiB, at least 1.
    pub weight: u32,
}

/// What a store says of one of its disks in each heartbeat.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct DiskReport {
    pub id: DiskId,
    /// Disks with the same number are on one filesystem and share its space; 0 when that is not known.
    pub filesystem: u64,
    pub capacity_bytes: u64,
    pub free_bytes: u64,
    pub chunks: u64,
    pub chunk_bytes: u64,
    /// Puts that found their chunk already there, and the bytes not stored because of it, since the store started.
    pub dedup_hits: u64,
    pub dedup_bytes: u64,
    /// Copies found damaged since the store started.
    pub damaged: u64,
    pub failed: bool,
}
