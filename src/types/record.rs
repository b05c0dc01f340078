//! What the cluster remembers of roles and its own members, and how it is doing, as programs and operators see it.

use rkyv::{Archive, Deserialize, Serialize};

use super::cluster::{DiskReport, StoreInfo};
use super::id::{ClusterId, MetaId, SessionId, StoreId};
use super::volume::{Volume, VolumeUsage};

/// `statfs` in bytes; exact at the moment of the answer.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpaceReport {
    pub total_bytes: u64,
    pub free_bytes: u64,
    /// As `free_bytes`, whatever the quota leaves.
    pub disk_free_bytes: u64,
    pub inodes: u64,
    pub inodes_free: u64,
    /// The metadata servers have next to no room for records: what is accepted must be stored before it is acknowledged.
    pub tight: bool,
    /// What was deleted is about to give its space back.
    pub freeing: bool,
}

/// What a certificate's holder may do. The certificate's common name is `role-id`, its organisation the cluster id.
#[derive(
    Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Meta,
    Store,
    Client,
    Admin,
}

/// What a client credential allows; empty `volumes` means every volume.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientGrant {
    pub volumes: Vec<String>,
    pub read_only: bool,
}

/// A metadata server as a Raft node.
#[derive(
    Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize, Clone, Debug, Default, PartialEq, Eq,
)]
pub struct MetaInfo {
    pub id: MetaId,
    /// `host:port` where it serves clients, stores and its Raft peers.
    pub address: String,
}

/// The whole cluster at a glance: what `holdfast status` prints.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ClusterStatus {
    pub cluster: ClusterId,
    pub leader: Option<MetaId>,
    pub term: u64,
    pub metas: Vec<MetaStatus>,
    pub map_epoch: u64,
    pub stores: Vec<StoreStatus>,
    pub volumes: Vec<(Volume, VolumeUsage)>,
    pub sessions: Vec<SessionStatus>,
    /// Chunks known to the metadata (each counted once) and their bytes.
    pub chunks: u64,
    pub chunk_bytes: u64,
    /// References beyond the first: what deduplication saved across files and volumes.
    pub shared_references: u64,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct MetaStatus {
    pub info: MetaInfo,
    pub voter: bool,
    /// Log entries this server is behind the leader; `None` when the leader has not heard of it.
    pub lag: Option<u64>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct StoreStatus {
    pub info: StoreInfo,
    pub up: bool,
    pub disks: Vec<DiskReport>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct SessionStatus {
    pub id: SessionId,
    pub volume: String,
    pub client: String,
    /// Since the last heartbeat, in milliseconds.
    pub silent_ms: u64,
    /// The most that it has held in buffers and caches so far, as it says.
    pub memory_bytes: u64,
}

/// A store's own id with the disks it joined with.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct StoreMember {
    pub id: StoreId,
    pub info: StoreInfo,
}
