//! What the driver is.

use holdfast::container::csi::spec::*;

use crate::world::{cases, ensure, good};

cases! {
    "the plugin's capabilities are known ones #GetPluginCapabilities/appropriate" => |world| {
        let answer = good(world.identity.get_plugin_capabilities(GetPluginCapabilitiesRequest {}).await)?;
        ensure!(answer.capabilities.contains(&PluginService::ControllerService.into()), "{answer:?}");
        ensure!(answer.capabilities.contains(&VolumeExpansionKind::Online.into()), "{answer:?}");
        let strange = answer.capabilities.iter().any(|capability| capability.r#type.is_none());
        ensure!(!strange, "{answer:?}");
    }
    "it is ready #Probe/appropriate" => |world| {
        let answer = good(world.identity.probe(ProbeRequest {}).await)?;
        ensure!(answer.ready != Some(false), "{answer:?}");
    }
    "its name is one #GetPluginInfo/appropriate" => |world| {
        let answer = good(world.identity.get_plugin_info(GetPluginInfoRequest {}).await)?;
        let (name, letters) = (&answer.name, |byte: u8| byte.is_ascii_alphabetic());
        let inner = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        let ends = name.bytes().next().is_some_and(letters) && name.bytes().last().is_some_and(letters);
        ensure!(inner && ends && name.len() <= 63, "{name}");
        ensure!(!answer.vendor_version.is_empty(), "it has no version");
    }
}
