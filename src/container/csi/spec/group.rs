//! Snapshots of several volumes at one moment.

use super::common::{Map, Snapshot, Timestamp, hide_secrets};

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct GroupControllerGetCapabilitiesRequest {}

#[derive(Clone, PartialEq, prost::Message)]
pub struct GroupControllerGetCapabilitiesResponse {
    #[prost(message, repeated, tag = "1")]
    pub capabilities: Vec<GroupControllerServiceCapability>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct GroupControllerServiceCapability {
    #[prost(oneof = "group_controller_service_capability::Type", tags = "1")]
    pub r#type: Option<group_controller_service_capability::Type>,
}

pub mod group_controller_service_capability {
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Type {
        #[prost(message, tag = "1")]
        Rpc(Rpc),
    }

    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub struct Rpc {
        #[prost(enumeration = "rpc::Type", tag = "1")]
        pub r#type: i32,
    }

    pub mod rpc {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
        #[repr(i32)]
        pub enum Type {
            Unknown = 0,
            CreateDeleteGetVolumeGroupSnapshot = 1,
        }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct VolumeGroupSnapshot {
    #[prost(string, tag = "1")]
    pub group_snapshot_id: String,
    #[prost(message, repeated, tag = "2")]
    pub snapshots: Vec<Snapshot>,
    #[prost(message, optional, tag = "3")]
    pub creation_time: Option<Timestamp>,
    /// Whether every one of them is.
    #[prost(bool, tag = "4")]
    pub ready_to_use: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct CreateVolumeGroupSnapshotRequest {
    /// Asked again with the same name, it is the same snapshot.
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, repeated, tag = "2")]
    pub source_volume_ids: Vec<String>,
    #[prost(btree_map = "string, string", tag = "3")]
    pub secrets: Map,
    #[prost(btree_map = "string, string", tag = "4")]
    pub parameters: Map,
}

hide_secrets!(CreateVolumeGroupSnapshotRequest { name, source_volume_ids, parameters });

#[derive(Clone, PartialEq, prost::Message)]
pub struct CreateVolumeGroupSnapshotResponse {
    #[prost(message, optional, tag = "1")]
    pub group_snapshot: Option<VolumeGroupSnapshot>,
}

#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct DeleteVolumeGroupSnapshotRequest {
    #[prost(string, tag = "1")]
    pub group_snapshot_id: String,
    #[prost(string, repeated, tag = "2")]
    pub snapshot_ids: Vec<String>,
    #[prost(btree_map = "string, string", tag = "3")]
    pub secrets: Map,
}

hide_secrets!(DeleteVolumeGroupSnapshotRequest { group_snapshot_id, snapshot_ids });

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct DeleteVolumeGroupSnapshotResponse {}

#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct GetVolumeGroupSnapshotRequest {
    #[prost(string, tag = "1")]
    pub group_snapshot_id: String,
    #[prost(string, repeated, tag = "2")]
    pub snapshot_ids: Vec<String>,
    #[prost(btree_map = "string, string", tag = "3")]
    pub secrets: Map,
}

hide_secrets!(GetVolumeGroupSnapshotRequest { group_snapshot_id, snapshot_ids });

#[derive(Clone, PartialEq, prost::Message)]
pub struct GetVolumeGroupSnapshotResponse {
    #[prost(message, optional, tag = "1")]
    pub group_snapshot: Option<VolumeGroupSnapshot>,
}
