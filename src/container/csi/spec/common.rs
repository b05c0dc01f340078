//! What several services speak of: volumes and what they can do, where they are, snapshots, health.

use std::collections::BTreeMap;
use std::fmt;

/// Words by name, as most of the open-ended parts are. Ordered, so that a message has one encoding.
pub type Map = BTreeMap<String, String>;

/// What is shown in place of secrets: how many there are.
pub(super) struct Hidden(pub(super) usize);

impl fmt::Debug for Hidden {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "<{} hidden>", self.0)
    }
}

/// `Debug` for a message that has `secrets`, and the other fields that are named: never shows the secrets.
macro_rules! hide_secrets {
    ($message:ident { $($field:ident),* }) => {
        impl std::fmt::Debug for $message {
            fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let $message { $($field,)* secrets } = self;
                let mut shown = out.debug_struct(stringify!($message));
                $(shown.field(stringify!($field), $field);)*
                shown.field("secrets", &$crate::container::csi::spec::common::Hidden(secrets.len())).finish()
            }
        }
    };
}
pub(super) use hide_secrets;

/// `google.protobuf.Timestamp`: since the start of 1970, UTC.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Timestamp {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Below 1,000,000,000.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// Bytes; 0 is «not said». Both the same ask for exactly that.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct CapacityRange {
    #[prost(int64, tag = "1")]
    pub required_bytes: i64,
    #[prost(int64, tag = "2")]
    pub limit_bytes: i64,
}

/// A place: the segment (`rack-3`) of each domain (`example.org/rack`).
#[derive(Clone, PartialEq, prost::Message)]
pub struct Topology {
    #[prost(btree_map = "string, string", tag = "1")]
    pub segments: Map,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct TopologyRequirement {
    /// At least one of these has to reach it.
    #[prost(message, repeated, tag = "1")]
    pub requisite: Vec<Topology>,
    /// To be tried in this order.
    #[prost(message, repeated, tag = "2")]
    pub preferred: Vec<Topology>,
}

/// How a volume is to be used.
#[derive(Clone, PartialEq, prost::Message)]
pub struct VolumeCapability {
    #[prost(oneof = "volume_capability::AccessType", tags = "1, 2")]
    pub access_type: Option<volume_capability::AccessType>,
    #[prost(message, optional, tag = "3")]
    pub access_mode: Option<volume_capability::AccessMode>,
}

pub mod volume_capability {
    use std::fmt;

    use super::Hidden;

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum AccessType {
        #[prost(message, tag = "1")]
        Block(BlockVolume),
        #[prost(message, tag = "2")]
        Mount(MountVolume),
    }

    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub struct BlockVolume {}

    #[derive(Clone, PartialEq, prost::Message)]
    #[prost(skip_debug)]
    pub struct MountVolume {
        #[prost(string, tag = "1")]
        pub fs_type: String,
        /// May hold secrets.
        #[prost(string, repeated, tag = "2")]
        pub mount_flags: Vec<String>,
        /// The group that new files belong to, where the plugin sees to that.
        #[prost(string, tag = "3")]
        pub volume_mount_group: String,
    }

    impl fmt::Debug for MountVolume {
        fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            let MountVolume { fs_type, mount_flags, volume_mount_group } = self;
            let mut shown = out.debug_struct("MountVolume");
            shown.field("fs_type", fs_type).field("mount_flags", &Hidden(mount_flags.len()));
            shown.field("volume_mount_group", volume_mount_group).finish()
        }
    }

    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub struct AccessMode {
        #[prost(enumeration = "access_mode::Mode", tag = "1")]
        pub mode: i32,
    }

    pub mod access_mode {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
        #[repr(i32)]
        pub enum Mode {
            Unknown = 0,
            /// One node, any number of its workloads.
            SingleNodeWriter = 1,
            SingleNodeReaderOnly = 2,
            MultiNodeReaderOnly = 3,
            /// Many nodes, one of which may write.
            MultiNodeSingleWriter = 4,
            MultiNodeMultiWriter = 5,
            /// One workload on one node.
            SingleNodeSingleWriter = 6,
            /// Many workloads on one node.
            SingleNodeMultiWriter = 7,
        }
    }
}

/// What a new volume starts as a copy of.
#[derive(Clone, PartialEq, prost::Message)]
pub struct VolumeContentSource {
    #[prost(oneof = "volume_content_source::Type", tags = "1, 2")]
    pub r#type: Option<volume_content_source::Type>,
}

pub mod volume_content_source {
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Type {
        #[prost(message, tag = "1")]
        Snapshot(SnapshotSource),
        #[prost(message, tag = "2")]
        Volume(VolumeSource),
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct SnapshotSource {
        #[prost(string, tag = "1")]
        pub snapshot_id: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct VolumeSource {
        #[prost(string, tag = "1")]
        pub volume_id: String,
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Volume {
    /// 0 where it is not known.
    #[prost(int64, tag = "1")]
    pub capacity_bytes: i64,
    #[prost(string, tag = "2")]
    pub volume_id: String,
    /// Comes back with every call about the volume; must not change, nor hold secrets.
    #[prost(btree_map = "string, string", tag = "3")]
    pub volume_context: Map,
    #[prost(message, optional, tag = "4")]
    pub content_source: Option<VolumeContentSource>,
    #[prost(message, repeated, tag = "5")]
    pub accessible_topology: Vec<Topology>,
}

/// How a volume is, for people. Up to 1.12; 1.13 has [`VolumeHealth`] instead and leaves its field numbers unused.
#[derive(Clone, PartialEq, prost::Message)]
pub struct VolumeCondition {
    #[prost(bool, tag = "1")]
    pub abnormal: bool,
    #[prost(string, tag = "2")]
    pub message: String,
}

/// What is wrong with a volume. From 1.13.
#[derive(Clone, PartialEq, prost::Message)]
pub struct VolumeHealth {
    #[prost(string, tag = "1")]
    pub volume_id: String,
    /// Nothing when it is well; no two with the same status and reason.
    #[prost(message, repeated, tag = "2")]
    pub health_statuses: Vec<volume_health::VolumeHealthEntry>,
}

pub mod volume_health {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct VolumeHealthEntry {
        #[prost(enumeration = "super::VolumeHealthErrorType", tag = "1")]
        pub status: i32,
        /// One word in `CamelCase`, for programs.
        #[prost(string, tag = "2")]
        pub reason: String,
        /// A sentence, for people.
        #[prost(string, tag = "3")]
        pub message: String,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum VolumeHealthErrorType {
    UnknownVolumeHealthType = 0,
    /// Of use, but not at its best.
    Degraded = 1,
    /// From everywhere where a controller says so; from its node where a node does.
    Inaccessible = 2,
    /// For good, known or much suspected.
    DataLoss = 3,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Snapshot {
    /// A volume made from it has to be at least this large; 0 where it is not known.
    #[prost(int64, tag = "1")]
    pub size_bytes: i64,
    #[prost(string, tag = "2")]
    pub snapshot_id: String,
    #[prost(string, tag = "3")]
    pub source_volume_id: String,
    #[prost(message, optional, tag = "4")]
    pub creation_time: Option<Timestamp>,
    #[prost(bool, tag = "5")]
    pub ready_to_use: bool,
    /// Set where it must not be deleted but with its group.
    #[prost(string, tag = "6")]
    pub group_snapshot_id: String,
}
