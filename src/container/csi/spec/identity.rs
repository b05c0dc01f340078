//! What a plugin is, what it can do as a whole, and whether it is well.

use super::common::Map;

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct GetPluginInfoRequest {}

#[derive(Clone, PartialEq, prost::Message)]
pub struct GetPluginInfoResponse {
    /// A domain name, at most 63 bytes.
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub vendor_version: String,
    #[prost(btree_map = "string, string", tag = "3")]
    pub manifest: Map,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct GetPluginCapabilitiesRequest {}

#[derive(Clone, PartialEq, prost::Message)]
pub struct GetPluginCapabilitiesResponse {
    #[prost(message, repeated, tag = "1")]
    pub capabilities: Vec<PluginCapability>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PluginCapability {
    #[prost(oneof = "plugin_capability::Type", tags = "1, 2")]
    pub r#type: Option<plugin_capability::Type>,
}

pub mod plugin_capability {
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Type {
        #[prost(message, tag = "1")]
        Service(Service),
        #[prost(message, tag = "2")]
        VolumeExpansion(VolumeExpansion),
    }

    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub struct Service {
        #[prost(enumeration = "service::Type", tag = "1")]
        pub r#type: i32,
    }

    pub mod service {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
        #[repr(i32)]
        pub enum Type {
            Unknown = 0,
            ControllerService = 1,
            /// Not every volume is reached from every node.
            VolumeAccessibilityConstraints = 2,
            GroupControllerService = 3,
            SnapshotMetadataService = 4,
        }
    }

    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub struct VolumeExpansion {
        #[prost(enumeration = "volume_expansion::Type", tag = "1")]
        pub r#type: i32,
    }

    pub mod volume_expansion {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
        #[repr(i32)]
        pub enum Type {
            Unknown = 0,
            /// While it is in use.
            Online = 1,
            /// Only while no node has it.
            Offline = 2,
        }
    }
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct ProbeRequest {}

/// An error in its place asks for the plugin to be restarted.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct ProbeResponse {
    /// `Some(false)` while it is starting; `None` is yes.
    #[prost(message, optional, tag = "1")]
    pub ready: Option<bool>,
}
