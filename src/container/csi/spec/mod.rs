//! The Container Storage Interface as it goes over the wire: its messages, and its services as traits with servers and
//! clients.
//!
//! Owns the shapes of version 1.12 with the health calls of 1.13, written after the published field numbers. What 1.13
//! took away (the condition of a volume) is still here, for orchestrators before it. The service for the metadata of
//! snapshots is not: it is of use for block devices alone.
//!
//! Messages are named as in the specification; what is nested there is in a module of the outer one's name
//! (`volume_capability`), and the enumerations that are wanted most have a short name here as well. A field that was
//! not sent has its default; one that is not known here is dropped.
//!
//! Must never: decide what is answered (a call that an implementor of a trait leaves out is `UNIMPLEMENTED`); show a
//! secret in `Debug`; give a field number another meaning.

mod common;
mod controller;
mod group;
mod identity;
mod node;
mod service;
#[cfg(test)]
mod tests;

pub use common::*;
pub use controller::*;
pub use group::*;
pub use identity::*;
pub use node::*;
pub use service::*;

pub use common::volume_capability::access_mode::Mode as AccessModeKind;
pub use controller::controller_service_capability::rpc::Type as ControllerRpc;
pub use group::group_controller_service_capability::rpc::Type as GroupControllerRpc;
pub use identity::plugin_capability::service::Type as PluginService;
pub use identity::plugin_capability::volume_expansion::Type as VolumeExpansionKind;
pub use node::node_service_capability::rpc::Type as NodeRpc;
pub use node::volume_usage::Unit as UsageUnit;

impl From<PluginService> for PluginCapability {
    fn from(service: PluginService) -> PluginCapability {
        let service = plugin_capability::Service { r#type: service.into() };
        PluginCapability { r#type: Some(plugin_capability::Type::Service(service)) }
    }
}

impl From<VolumeExpansionKind> for PluginCapability {
    fn from(kind: VolumeExpansionKind) -> PluginCapability {
        let expansion = plugin_capability::VolumeExpansion { r#type: kind.into() };
        PluginCapability { r#type: Some(plugin_capability::Type::VolumeExpansion(expansion)) }
    }
}

impl From<ControllerRpc> for ControllerServiceCapability {
    fn from(rpc: ControllerRpc) -> ControllerServiceCapability {
        let rpc = controller_service_capability::Rpc { r#type: rpc.into() };
        ControllerServiceCapability { r#type: Some(controller_service_capability::Type::Rpc(rpc)) }
    }
}

impl From<GroupControllerRpc> for GroupControllerServiceCapability {
    fn from(rpc: GroupControllerRpc) -> GroupControllerServiceCapability {
        let rpc = group_controller_service_capability::Rpc { r#type: rpc.into() };
        GroupControllerServiceCapability { r#type: Some(group_controller_service_capability::Type::Rpc(rpc)) }
    }
}

impl From<NodeRpc> for NodeServiceCapability {
    fn from(rpc: NodeRpc) -> NodeServiceCapability {
        let rpc = node_service_capability::Rpc { r#type: rpc.into() };
        NodeServiceCapability { r#type: Some(node_service_capability::Type::Rpc(rpc)) }
    }
}
