//! What the driver is, and which of the services this process has.

use tonic::Status;

use super::spec::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest, GetPluginInfoResponse, Identity,
    PluginService, ProbeRequest, ProbeResponse, VolumeExpansionKind,
};

/// What an orchestrator calls the driver.
pub const DRIVER_NAME: &str = "csi.holdfast.dev";

/// Which services a process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Services {
    Controller,
    Node,
    All,
}

impl Services {
    pub fn has_controller(self) -> bool {
        matches!(self, Services::Controller | Services::All)
    }

    pub fn has_node(self) -> bool {
        matches!(self, Services::Node | Services::All)
    }
}

/// The version of the specification that the capabilities are told by: who is older does not know the newer ones, and minds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecLevel {
    V1_12,
    V1_13,
}

impl SpecLevel {
    /// Volumes have a condition up to 1.12, and a health from then on.
    pub(super) fn has_condition(self) -> bool {
        self == SpecLevel::V1_12
    }
}

/// Answers for itself alone: whether the cluster is there is no reason to start this process anew.
#[derive(Debug)]
pub struct IdentityService {
    services: Services,
    has_topology: bool,
}

impl IdentityService {
    pub fn new(services: Services, has_topology: bool) -> IdentityService {
        IdentityService { services, has_topology }
    }
}

impl Identity for IdentityService {
    async fn get_plugin_info(&self, _: GetPluginInfoRequest) -> Result<GetPluginInfoResponse, Status> {
        let (name, vendor_version) = (DRIVER_NAME.to_string(), env!("CARGO_PKG_VERSION").to_string());
        Ok(GetPluginInfoResponse { name, vendor_version, ..GetPluginInfoResponse::default() })
    }

    async fn get_plugin_capabilities(
        &self,
        _: GetPluginCapabilitiesRequest,
    ) -> Result<GetPluginCapabilitiesResponse, Status> {
        let mut capabilities = vec![VolumeExpansionKind::Online.into()];
        if self.services.has_controller() {
            capabilities.push(PluginService::ControllerService.into());
        }
        if self.has_topology {
            capabilities.push(PluginService::VolumeAccessibilityConstraints.into());
        }
        Ok(GetPluginCapabilitiesResponse { capabilities })
    }

    async fn probe(&self, _: ProbeRequest) -> Result<ProbeResponse, Status> {
        Ok(ProbeResponse { ready: Some(true) })
    }
}
