//! A controller that was told where volumes are reached from: region eu, zones a and b.

use holdfast::container::csi::spec::*;
use tonic::Code::ResourceExhausted;

use crate::world::{cases, code, ensure, good, map, wanted};

fn place(region: &str, zone: &str) -> Topology {
    Topology { segments: map(&[("csi-case.example/region", region), ("csi-case.example/zone", zone)]) }
}

fn in_one_of(requisite: &[Topology], preferred: &[Topology]) -> Option<TopologyRequirement> {
    Some(TopologyRequirement { requisite: requisite.to_vec(), preferred: preferred.to_vec() })
}

cases! {
    "that volumes are not of use everywhere is advertised #Topology/capability" => |world| {
        let answer = good(world.identity.get_plugin_capabilities(GetPluginCapabilitiesRequest {}).await)?;
        ensure!(answer.capabilities.contains(&PluginService::VolumeAccessibilityConstraints.into()), "{answer:?}");
    }
    "a volume is told to be of use from every place that is known #Topology/accessible" => |world| {
        let all = [place("eu", "a"), place("eu", "b")];
        let name = world.name("anywhere");
        let volume = good(world.create(wanted(&name)).await)?;
        ensure!(volume.accessible_topology == all, "{volume:?}");
        let found = good(world.controller.controller_get_volume(ControllerGetVolumeRequest { volume_id: name }).await)?;
        ensure!(found.volume.as_ref().is_some_and(|volume| volume.accessible_topology == all), "{found:?}");
        let listed = good(world.controller.list_volumes(ListVolumesRequest::default()).await)?;
        let mut volumes = listed.entries.iter().filter_map(|entry| entry.volume.as_ref());
        ensure!(volumes.all(|volume| volume.accessible_topology == all), "{listed:?}");
    }
    "one place that it is to be reached from is enough, ten times over #Topology/requisite" => |world| {
        let name = world.name("placed");
        let accessibility_requirements = in_one_of(&[place("us", "c"), place("eu", "b")], &[place("us", "c")]);
        let request = CreateVolumeRequest { accessibility_requirements, ..wanted(&name) };
        let first = good(world.create(request.clone()).await)?;
        ensure!(first.accessible_topology.contains(&place("eu", "b")), "{first:?}");
        ensure!(!first.accessible_topology.contains(&place("us", "c")), "{first:?}");
        for _ in 0..10 {
            ensure!(good(world.create(request.clone()).await)? == first, "it is another");
        }
    }
    "what is preferred and not to be had is no fault #Topology/preferred" => |world| {
        let name = world.name("preferring");
        let accessibility_requirements = in_one_of(&[], &[place("us", "c")]);
        good(world.create(CreateVolumeRequest { accessibility_requirements, ..wanted(&name) }).await)?;
    }
    "from elsewhere alone none is made #Topology/exhausted" => |world| {
        let rack = Topology { segments: map(&[("csi-case.example/rack", "7")]) };
        for unfit in [place("us", "a"), place("eu", "c"), rack] {
            let name = world.name("elsewhere");
            let accessibility_requirements = in_one_of(&[unfit], &[]);
            let request = CreateVolumeRequest { accessibility_requirements, ..wanted(&name) };
            code(ResourceExhausted, world.create(request).await)?;
            let missing = world.controller.controller_get_volume(ControllerGetVolumeRequest { volume_id: name }).await;
            ensure!(missing.is_err(), "it was made: {missing:?}");
        }
    }
    "and there is no room there #Topology/capacity" => |world| {
        let at = |place: Topology| GetCapacityRequest { accessible_topology: Some(place), ..Default::default() };
        let here = good(world.controller.get_capacity(at(place("eu", "a"))).await)?;
        ensure!(here.available_capacity > 0, "{here:?}");
        let elsewhere = good(world.controller.get_capacity(at(place("eu", "c"))).await)?;
        ensure!(elsewhere.available_capacity == 0, "{elsewhere:?}");
    }
}
