//! Volumes and their snapshots, for the cluster as a whole.

use super::common::{
    CapacityRange, Map, Snapshot, Topology, TopologyRequirement, Volume, VolumeCapability, VolumeCondition,
    VolumeContentSource, VolumeHealth, hide_secrets,
};

#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct CreateVolumeRequest {
    /// Asked again with the same name, it is the same volume.
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub capacity_range: Option<CapacityRange>,
    /// The volume has to be fit for every one of these.
    #[prost(message, repeated, tag = "3")]
    pub volume_capabilities: Vec<VolumeCapability>,
    #[prost(btree_map = "string, string", tag = "4")]
    pub parameters: Map,
    #[prost(btree_map = "string, string", tag = "5")]
    pub secrets: Map,
    #[prost(message, optional, tag = "6")]
    pub volume_content_source: Option<VolumeContentSource>,
    #[prost(message, optional, tag = "7")]
    pub accessibility_requirements: Option<TopologyRequirement>,
    /// Go before `parameters`, and may be changed later.
    #[prost(btree_map = "string, string", tag = "8")]
    pub mutable_parameters: Map,
}

hide_secrets!(CreateVolumeRequest {
    name,
    capacity_range,
    volume_capabilities,
    parameters,
    volume_content_source,
    accessibility_requirements,
    mutable_parameters
});

#[derive(Clone, PartialEq, prost::Message)]
pub struct CreateVolumeResponse {
    #[prost(message, optional, tag = "1")]
    pub volume: Option<Volume>,
}

#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct DeleteVolumeRequest {
    #[prost(string, tag = "1")]
    pub volume_id: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub secrets: Map,
}

hide_secrets!(DeleteVolumeRequest { volume_id });

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct DeleteVolumeResponse {}

#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct ControllerPublishVolumeRequest {
    #[prost(string, tag = "1")]
    pub volume_id: String,
    #[prost(string, tag = "2")]
    pub node_id: String,
    #[prost(message, optional, tag = "3")]
    pub volume_capability: Option<VolumeCapability>,
    #[prost(bool, tag = "4")]
    pub readonly: bool,
    #[prost(btree_map = "string, string", tag = "5")]
    pub secrets: Map,
    #[prost(btree_map = "string, string", tag = "6")]
    pub volume_context: Map,
}

hide_secrets!(ControllerPublishVolumeRequest { volume_id, node_id, volume_capability, readonly, volume_context });

#[derive(Clone, PartialEq, prost::Message)]
pub struct ControllerPublishVolumeResponse {
    /// Given to the node; must not hold secrets.
    #[prost(btree_map = "string, string", tag = "1")]
    pub publish_context: Map,
}

#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct ControllerUnpublishVolumeRequest {
    #[prost(string, tag = "1")]
    pub volume_id: String,
    /// Every node, where it is empty.
    #[prost(string, tag = "2")]
    pub node_id: String,
    #[prost(btree_map = "string, string", tag = "3")]
    pub secrets: Map,
}

hide_secrets!(ControllerUnpublishVolumeRequest { volume_id, node_id });

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct ControllerUnpublishVolumeResponse {}

#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct ValidateVolumeCapabilitiesRequest {
    #[prost(string, tag = "1")]
    pub volume_id: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub volume_context: Map,
    #[prost(message, repeated, tag = "3")]
    pub volume_capabilities: Vec<VolumeCapability>,
    #[prost(btree_map = "string, string", tag = "4")]
    pub parameters: Map,
    #[prost(btree_map = "string, string", tag = "5")]
    pub secrets: Map,
    #[prost(btree_map = "string, string", tag = "6")]
    pub mutable_parameters: Map,
}

hide_secrets!(ValidateVolumeCapabilitiesRequest {
    volume_id,
    volume_context,
    volume_capabilities,
    parameters,
    mutable_parameters
});

#[derive(Clone, PartialEq, prost::Message)]
pub struct ValidateVolumeCapabilitiesResponse {
    /// What was asked about, when all of it holds.
    #[prost(message, optional, tag = "1")]
    pub confirmed: Option<validate_volume_capabilities_response::Confirmed>,
    /// Why it is not confirmed.
    #[prost(string, tag = "2")]
    pub message: String,
}

pub mod validate_volume_capabilities_response {
    use super::{Map, VolumeCapability};

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Confirmed {
        #[prost(btree_map = "string, string", tag = "1")]
        pub volume_context: Map,
        #[prost(message, repeated, tag = "2")]
        pub volume_capabilities: Vec<VolumeCapability>,
        #[prost(btree_map = "string, string", tag = "3")]
        pub parameters: Map,
        #[prost(btree_map = "string, string", tag = "4")]
        pub mutable_parameters: Map,
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ListVolumesRequest {
    /// 0 is no bound.
    #[prost(int32, tag = "1")]
    pub max_entries: i32,
    #[prost(string, tag = "2")]
    pub starting_token: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ListVolumesResponse {
    #[prost(message, repeated, tag = "1")]
    pub entries: Vec<list_volumes_response::Entry>,
    /// Empty after the last.
    #[prost(string, tag = "2")]
    pub next_token: String,
}

pub mod list_volumes_response {
    use super::{Volume, VolumeCondition};

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Entry {
        #[prost(message, optional, tag = "1")]
        pub volume: Option<Volume>,
        #[prost(message, optional, tag = "2")]
        pub status: Option<VolumeStatus>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct VolumeStatus {
        #[prost(string, repeated, tag = "1")]
        pub published_node_ids: Vec<String>,
        /// Up to 1.12.
        #[prost(message, optional, tag = "2")]
        pub volume_condition: Option<VolumeCondition>,
    }
}

/// From 1.13.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct ControllerListVolumeHealthRequest {
    /// 0 is no bound.
    #[prost(int32, tag = "1")]
    pub max_entries: i32,
    #[prost(string, tag = "2")]
    pub starting_token: String,
    #[prost(btree_map = "string, string", tag = "3")]
    pub secrets: Map,
}

hide_secrets!(ControllerListVolumeHealthRequest { max_entries, starting_token });

#[derive(Clone, PartialEq, prost::Message)]
pub struct ControllerListVolumeHealthResponse {
    /// Those that are not well.
    #[prost(message, repeated, tag = "1")]
    pub entries: Vec<VolumeHealth>,
    /// Empty after the last.
    #[prost(string, tag = "2")]
    pub next_token: String,
}

/// From 1.13.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct ControllerGetVolumeHealthRequest {
    #[prost(string, tag = "1")]
    pub volume_id: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub secrets: Map,
}

hide_secrets!(ControllerGetVolumeHealthRequest { volume_id });

#[derive(Clone, PartialEq, prost::Message)]
pub struct ControllerGetVolumeHealthResponse {
    #[prost(message, optional, tag = "1")]
    pub volume_health: Option<VolumeHealth>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ControllerGetVolumeRequest {
    #[prost(string, tag = "1")]
    pub volume_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ControllerGetVolumeResponse {
    #[prost(message, optional, tag = "1")]
    pub volume: Option<Volume>,
    #[prost(message, optional, tag = "2")]
    pub status: Option<controller_get_volume_response::VolumeStatus>,
}

pub mod controller_get_volume_response {
    use super::VolumeCondition;

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct VolumeStatus {
        #[prost(string, repeated, tag = "1")]
        pub published_node_ids: Vec<String>,
        /// Up to 1.12.
        #[prost(message, optional, tag = "2")]
        pub volume_condition: Option<VolumeCondition>,
    }
}

#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct ControllerModifyVolumeRequest {
    #[prost(string, tag = "1")]
    pub volume_id: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub secrets: Map,
    /// What is not named stays as it is.
    #[prost(btree_map = "string, string", tag = "3")]
    pub mutable_parameters: Map,
}

hide_secrets!(ControllerModifyVolumeRequest { volume_id, mutable_parameters });

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct ControllerModifyVolumeResponse {}

#[derive(Clone, PartialEq, prost::Message)]
pub struct GetCapacityRequest {
    #[prost(message, repeated, tag = "1")]
    pub volume_capabilities: Vec<VolumeCapability>,
    #[prost(btree_map = "string, string", tag = "2")]
    pub parameters: Map,
    #[prost(message, optional, tag = "3")]
    pub accessible_topology: Option<Topology>,
}

/// Bytes.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct GetCapacityResponse {
    #[prost(int64, tag = "1")]
    pub available_capacity: i64,
    #[prost(message, optional, tag = "2")]
    pub maximum_volume_size: Option<i64>,
    #[prost(message, optional, tag = "3")]
    pub minimum_volume_size: Option<i64>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct ControllerGetCapabilitiesRequest {}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ControllerGetCapabilitiesResponse {
    #[prost(message, repeated, tag = "1")]
    pub capabilities: Vec<ControllerServiceCapability>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ControllerServiceCapability {
    #[prost(oneof = "controller_service_capability::Type", tags = "1")]
    pub r#type: Option<controller_service_capability::Type>,
}

pub mod controller_service_capability {
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
            CreateDeleteVolume = 1,
            PublishUnpublishVolume = 2,
            ListVolumes = 3,
            GetCapacity = 4,
            CreateDeleteSnapshot = 5,
            ListSnapshots = 6,
            CloneVolume = 7,
            PublishReadonly = 8,
            ExpandVolume = 9,
            ListVolumesPublishedNodes = 10,
            /// Up to 1.12.
            VolumeCondition = 11,
            GetVolume = 12,
            SingleNodeMultiWriter = 13,
            ModifyVolume = 14,
            GetSnapshot = 15,
            /// From 1.13, as the next, which has to come with it.
            GetVolumeHealth = 16,
            ListVolumeHealth = 17,
        }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct CreateSnapshotRequest {
    #[prost(string, tag = "1")]
    pub source_volume_id: String,
    /// Asked again with the same name, it is the same snapshot.
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(btree_map = "string, string", tag = "3")]
    pub secrets: Map,
    #[prost(btree_map = "string, string", tag = "4")]
    pub parameters: Map,
}

hide_secrets!(CreateSnapshotRequest { source_volume_id, name, parameters });

#[derive(Clone, PartialEq, prost::Message)]
pub struct CreateSnapshotResponse {
    #[prost(message, optional, tag = "1")]
    pub snapshot: Option<Snapshot>,
}

#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct DeleteSnapshotRequest {
    #[prost(string, tag = "1")]
    pub snapshot_id: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub secrets: Map,
}

hide_secrets!(DeleteSnapshotRequest { snapshot_id });

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct DeleteSnapshotResponse {}

#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct ListSnapshotsRequest {
    /// 0 is no bound.
    #[prost(int32, tag = "1")]
    pub max_entries: i32,
    #[prost(string, tag = "2")]
    pub starting_token: String,
    /// Those of this volume alone, where it is not empty.
    #[prost(string, tag = "3")]
    pub source_volume_id: String,
    /// This one alone, where it is not empty.
    #[prost(string, tag = "4")]
    pub snapshot_id: String,
    #[prost(btree_map = "string, string", tag = "5")]
    pub secrets: Map,
}

hide_secrets!(ListSnapshotsRequest { max_entries, starting_token, source_volume_id, snapshot_id });

#[derive(Clone, PartialEq, prost::Message)]
pub struct ListSnapshotsResponse {
    #[prost(message, repeated, tag = "1")]
    pub entries: Vec<list_snapshots_response::Entry>,
    /// Empty after the last.
    #[prost(string, tag = "2")]
    pub next_token: String,
}

pub mod list_snapshots_response {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Entry {
        #[prost(message, optional, tag = "1")]
        pub snapshot: Option<super::Snapshot>,
    }
}

#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct GetSnapshotRequest {
    #[prost(string, tag = "1")]
    pub snapshot_id: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub secrets: Map,
}

hide_secrets!(GetSnapshotRequest { snapshot_id });

#[derive(Clone, PartialEq, prost::Message)]
pub struct GetSnapshotResponse {
    #[prost(message, optional, tag = "1")]
    pub snapshot: Option<Snapshot>,
}

#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct ControllerExpandVolumeRequest {
    #[prost(string, tag = "1")]
    pub volume_id: String,
    #[prost(message, optional, tag = "2")]
    pub capacity_range: Option<CapacityRange>,
    #[prost(btree_map = "string, string", tag = "3")]
    pub secrets: Map,
    #[prost(message, optional, tag = "4")]
    pub volume_capability: Option<VolumeCapability>,
}

hide_secrets!(ControllerExpandVolumeRequest { volume_id, capacity_range, volume_capability });

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct ControllerExpandVolumeResponse {
    #[prost(int64, tag = "1")]
    pub capacity_bytes: i64,
    #[prost(bool, tag = "2")]
    pub node_expansion_required: bool,
}
