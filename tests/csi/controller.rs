//! Volumes made, found, grown, changed, removed.

use holdfast::container::csi::spec::volume_capability::{AccessType, BlockVolume};
use holdfast::container::csi::spec::volume_content_source::{SnapshotSource, Type, VolumeSource};
use holdfast::container::csi::spec::*;
use tonic::Code::{Aborted, AlreadyExists, InvalidArgument, NotFound, OutOfRange, Unimplemented};

use crate::world::{GIB, Outcome, World, capability, cases, code, ensure, good, many, map, range, wanted};

const ALL: [AccessModeKind; 7] = [
    AccessModeKind::SingleNodeWriter,
    AccessModeKind::SingleNodeReaderOnly,
    AccessModeKind::MultiNodeReaderOnly,
    AccessModeKind::MultiNodeSingleWriter,
    AccessModeKind::MultiNodeMultiWriter,
    AccessModeKind::SingleNodeSingleWriter,
    AccessModeKind::SingleNodeMultiWriter,
];

async fn listed(world: &mut World) -> Outcome<Vec<String>> {
    let answer = good(world.controller.list_volumes(ListVolumesRequest::default()).await)?;
    let ids = answer.entries.into_iter().filter_map(|entry| Some(entry.volume?.volume_id));
    Ok(ids.collect())
}

async fn capacity(world: &mut World, id: &str) -> Outcome<i64> {
    let request = ControllerGetVolumeRequest { volume_id: id.into() };
    let answer = good(world.controller.controller_get_volume(request).await)?;
    Ok(answer.volume.unwrap_or_default().capacity_bytes)
}

fn from(source: Type) -> CreateVolumeRequest {
    let volume_content_source = Some(VolumeContentSource { r#type: Some(source) });
    CreateVolumeRequest { volume_content_source, ..wanted("csi-case-copy") }
}

fn expanding(id: &str, capacity_range: Option<CapacityRange>) -> ControllerExpandVolumeRequest {
    ControllerExpandVolumeRequest { volume_id: id.into(), capacity_range, ..ControllerExpandVolumeRequest::default() }
}

fn modifying(id: &str, pairs: &[(&str, &str)]) -> ControllerModifyVolumeRequest {
    let mutable_parameters = map(pairs);
    ControllerModifyVolumeRequest {
        volume_id: id.into(),
        mutable_parameters,
        ..ControllerModifyVolumeRequest::default()
    }
}

fn validating(id: &str, volume_capabilities: Vec<VolumeCapability>) -> ValidateVolumeCapabilitiesRequest {
    let volume_id = id.into();
    ValidateVolumeCapabilitiesRequest { volume_id, volume_capabilities, ..ValidateVolumeCapabilitiesRequest::default() }
}

cases! {
    "the controller's capabilities are known ones #ControllerGetCapabilities/appropriate" => |world| {
        use ControllerRpc::*;
        let request = ControllerGetCapabilitiesRequest {};
        let answer = good(world.controller.controller_get_capabilities(request).await)?;
        // Those that csi-sanity 5.5 knows end with 15.
        let known: Vec<ControllerServiceCapability> =
            (1..=15).filter_map(|number| Some(ControllerRpc::try_from(number).ok()?.into())).collect();
        let strange = answer.capabilities.iter().find(|capability| !known.contains(capability));
        ensure!(strange.is_none(), "{strange:?}");
        for needed in [CreateDeleteVolume, ListVolumes, GetCapacity, ExpandVolume, GetVolume, ModifyVolume, SingleNodeMultiWriter] {
            ensure!(answer.capabilities.contains(&needed.into()), "{needed:?} is missing");
        }
    }
    "there is room #GetCapacity/returns" => |world| {
        let answer = good(world.controller.get_capacity(GetCapacityRequest::default()).await)?;
        ensure!(answer.available_capacity > 0 && answer.maximum_volume_size > Some(0), "{answer:?}");
        let one = GetCapacityRequest { parameters: map(&[("replicas", "1")]), ..GetCapacityRequest::default() };
        let more = good(world.controller.get_capacity(one).await)?;
        ensure!(more.available_capacity > answer.available_capacity, "one copy takes no less than three");
    }
    "volumes are listed #ListVolumes/returns" => |world| {
        let id = world.volume().await?;
        ensure!(listed(world).await?.contains(&id), "{id} is not listed");
        let answer = good(world.controller.list_volumes(ListVolumesRequest::default()).await)?;
        ensure!(answer.next_token.is_empty(), "without a bound there is a next page");
    }
    "a page that nobody gave is refused #ListVolumes/invalid-token" => |world| {
        let request = ListVolumesRequest { starting_token: "invalid-token".into(), max_entries: 0 };
        code(Aborted, world.controller.list_volumes(request).await)?;
    }
    "what is made is listed, and what is removed is not #ListVolumes/presence" => |world| {
        let before = listed(world).await?.len();
        let id = world.volume().await?;
        ensure!(listed(world).await?.len() == before + 1, "it is not one more");
        world.tidy().await?;
        let after = listed(world).await?;
        ensure!(after.len() == before && !after.contains(&id), "it is listed when it is gone");
    }
    "pages follow one another, each volume on one of them #ListVolumes/pagination" => |world| {
        for _ in 0..5 {
            world.volume().await?;
        }
        let whole = listed(world).await?;
        let (mut paged, mut token) = (Vec::new(), String::new());
        loop {
            let request = ListVolumesRequest { max_entries: 2, starting_token: token };
            let answer = good(world.controller.list_volumes(request).await)?;
            ensure!(answer.entries.len() <= 2, "a page of {}", answer.entries.len());
            paged.extend(answer.entries.into_iter().filter_map(|entry| Some(entry.volume?.volume_id)));
            token = answer.next_token;
            if token.is_empty() {
                break;
            }
        }
        ensure!(paged == whole, "{paged:?} are not {whole:?}");
    }
    "a volume has a name #CreateVolume/no-name" => |world| {
        code(InvalidArgument, world.create(wanted("")).await)?;
    }
    "and capabilities #CreateVolume/no-capabilities" => |world| {
        let name = world.name("bare");
        let request = CreateVolumeRequest { volume_capabilities: Vec::new(), ..wanted(&name) };
        code(InvalidArgument, world.create(request).await)?;
    }
    "it need not have a size #CreateVolume/no-capacity" => |world| {
        let name = world.name("any");
        let volume = good(world.create(CreateVolumeRequest { capacity_range: None, ..wanted(&name) }).await)?;
        ensure!(!volume.volume_id.is_empty(), "it has no id");
    }
    "it has the size that is asked for #CreateVolume/capacity" => |world| {
        let name = world.name("sized");
        let volume = good(world.create(wanted(&name)).await)?;
        ensure!(volume.capacity_bytes == GIB, "{} bytes", volume.capacity_bytes);
    }
    "asked for again it is the same #CreateVolume/same-name" => |world| {
        let name = world.name("twice");
        let one = good(world.create(wanted(&name)).await)?;
        let two = good(world.create(wanted(&name)).await)?;
        ensure!(one == two, "{one:?} and {two:?}");
    }
    "with another size it is another #CreateVolume/same-name-other-size" => |world| {
        let name = world.name("larger");
        good(world.create(wanted(&name)).await)?;
        code(AlreadyExists, world.create(CreateVolumeRequest { capacity_range: range(2 * GIB), ..wanted(&name) }).await)?;
        let limited = Some(CapacityRange { required_bytes: 0, limit_bytes: GIB / 2 });
        code(AlreadyExists, world.create(CreateVolumeRequest { capacity_range: limited, ..wanted(&name) }).await)?;
    }
    "and with other parameters, or for a use that it is not fit for" => |world| {
        let name = world.name("other");
        let one = capability(AccessModeKind::SingleNodeWriter);
        let made = CreateVolumeRequest { volume_capabilities: vec![one], parameters: map(&[("replicas", "2")]), ..wanted(&name) };
        good(world.create(made.clone()).await)?;
        let other = CreateVolumeRequest { parameters: map(&[("replicas", "3")]), ..made.clone() };
        code(AlreadyExists, world.create(other).await)?;
        code(AlreadyExists, world.create(CreateVolumeRequest { volume_capabilities: vec![many()], ..made }).await)?;
    }
    "a name may be 128 bytes #CreateVolume/longest-name" => |world| {
        let name = format!("{:x<128}", world.name("long"));
        good(world.create(wanted(&name)).await)?;
    }
    "and of any letters" => |world| {
        let name = format!("{} <ü/./..>", world.name("strange"));
        let volume = good(world.create(wanted(&name)).await)?;
        let again = good(world.create(wanted(&name)).await)?;
        ensure!(volume == again, "{volume:?} and {again:?}");
    }
    "none is made from a snapshot, which cannot be taken #CreateVolume/from-snapshot" => |world| {
        let source = Type::Snapshot(SnapshotSource { snapshot_id: "any".into() });
        code(InvalidArgument, world.create(from(source)).await)?;
    }
    "nor from one that is not there #CreateVolume/from-missing-snapshot" => |world| {
        let source = Type::Snapshot(SnapshotSource { snapshot_id: "missing".into() });
        code(InvalidArgument, world.create(from(source)).await)?;
    }
    "nor from a volume #CreateVolume/from-volume" => |world| {
        let volume_id = world.volume().await?;
        code(InvalidArgument, world.create(from(Type::Volume(VolumeSource { volume_id }))).await)?;
    }
    "nor from one that is not there #CreateVolume/from-missing-volume" => |world| {
        let source = Type::Volume(VolumeSource { volume_id: "missing".into() });
        code(InvalidArgument, world.create(from(source)).await)?;
    }
    "a class of attributes is taken #CreateVolume/mutable-parameters" => |world| {
        let name = world.name("class");
        let mutable_parameters = map(&[("inodes", "1000"), ("patience", "30s")]);
        good(world.create(CreateVolumeRequest { mutable_parameters, ..wanted(&name) }).await)?;
    }
    "one that is not known is refused #CreateVolume/invalid-mutable-parameters" => |world| {
        for (key, value) in [("colour", "red"), ("replicas", "2"), ("inodes", "many")] {
            let name = world.name("classless");
            let mutable_parameters = map(&[(key, value)]);
            code(InvalidArgument, world.create(CreateVolumeRequest { mutable_parameters, ..wanted(&name) }).await)?;
        }
    }
    "parameters are taken, and refused where they are not understood" => |world| {
        let parameters = [
            ("replicas", "2"), ("chunkSize", "256KiB"), ("mode", "2770"), ("gid", "1000"), ("labels", "team=web"),
            ("csi.storage.k8s.io/pvc/name", "claim"), ("csi.storage.k8s.io/fstype", "xfs"),
        ];
        let name = world.name("parameters");
        good(world.create(CreateVolumeRequest { parameters: map(&parameters), ..wanted(&name) }).await)?;
        for (key, value) in [("replicas", "99"), ("colour", "red"), ("access", "both"), ("chunkSize", "3")] {
            let name = world.name("fault");
            code(InvalidArgument, world.create(CreateVolumeRequest { parameters: map(&[(key, value)]), ..wanted(&name) }).await)?;
        }
    }
    "every access mode is taken, and no block device" => |world| {
        for mode in ALL {
            let name = world.name("mode");
            good(world.create(CreateVolumeRequest { volume_capabilities: vec![capability(mode)], ..wanted(&name) }).await)?;
        }
        let block = VolumeCapability { access_type: Some(AccessType::Block(BlockVolume {})), ..many() };
        let name = world.name("block");
        code(InvalidArgument, world.create(CreateVolumeRequest { volume_capabilities: vec![block], ..wanted(&name) }).await)?;
    }
    "no size is between 2 and 1, nor below nothing" => |world| {
        for (required_bytes, limit_bytes) in [(2 * GIB, GIB), (-1, 0), (0, -1)] {
            let name = world.name("range");
            let capacity_range = Some(CapacityRange { required_bytes, limit_bytes });
            code(OutOfRange, world.create(CreateVolumeRequest { capacity_range, ..wanted(&name) }).await)?;
        }
    }
    "what is removed has an id #DeleteVolume/no-id" => |world| {
        code(InvalidArgument, world.controller.delete_volume(DeleteVolumeRequest::default()).await)?;
    }
    "what is not there is removed #DeleteVolume/unknown" => |world| {
        for volume_id in ["reallyfakevolumeid", "no name of a volume", "../main"] {
            let request = DeleteVolumeRequest { volume_id: volume_id.into(), ..DeleteVolumeRequest::default() };
            good(world.controller.delete_volume(request).await)?;
        }
    }
    "and so is what is, ten times over #DeleteVolume/valid" => |world| {
        let volume_id = world.volume().await?;
        for _ in 0..10 {
            let request = DeleteVolumeRequest { volume_id: volume_id.clone(), ..DeleteVolumeRequest::default() };
            good(world.controller.delete_volume(request).await)?;
        }
        ensure!(!listed(world).await?.contains(&volume_id), "it is there");
    }
    "capabilities are those of a volume #ValidateVolumeCapabilities/no-id" => |world| {
        code(InvalidArgument, world.controller.validate_volume_capabilities(validating("", vec![many()])).await)?;
    }
    "of which there are some #ValidateVolumeCapabilities/no-capabilities" => |world| {
        let id = world.volume().await?;
        code(InvalidArgument, world.controller.validate_volume_capabilities(validating(&id, Vec::new())).await)?;
    }
    "they are confirmed where the volume is fit, and not where it is not #ValidateVolumeCapabilities/valid" => |world| {
        let id = world.volume().await?;
        let wanted_all: Vec<_> = ALL.into_iter().map(capability).collect();
        let answer = good(world.controller.validate_volume_capabilities(validating(&id, wanted_all.clone())).await)?;
        let confirmed = answer.confirmed.ok_or(answer.message)?;
        ensure!(confirmed.volume_capabilities == wanted_all, "{confirmed:?}");
        let name = world.name("one");
        let one = capability(AccessModeKind::SingleNodeWriter);
        good(world.create(CreateVolumeRequest { volume_capabilities: vec![one], ..wanted(&name) }).await)?;
        let answer = good(world.controller.validate_volume_capabilities(validating(&name, vec![many()])).await)?;
        ensure!(answer.confirmed.is_none() && !answer.message.is_empty(), "{answer:?}");
    }
    "of a volume that is not there none are #ValidateVolumeCapabilities/unknown" => |world| {
        code(NotFound, world.controller.validate_volume_capabilities(validating("missing", vec![many()])).await)?;
    }
    "volumes are not published by the controller #ControllerPublishVolume/unadvertised" => |world| {
        let request = ControllerPublishVolumeRequest::default();
        code(Unimplemented, world.controller.controller_publish_volume(request).await)?;
    }
    "nor unpublished #ControllerUnpublishVolume/unadvertised" => |world| {
        let request = ControllerUnpublishVolumeRequest::default();
        code(Unimplemented, world.controller.controller_unpublish_volume(request).await)?;
    }
    "snapshots are not taken yet #CreateSnapshot/unadvertised" => |world| {
        code(Unimplemented, world.controller.create_snapshot(CreateSnapshotRequest::default()).await)?;
    }
    "nor removed #DeleteSnapshot/unadvertised" => |world| {
        code(Unimplemented, world.controller.delete_snapshot(DeleteSnapshotRequest::default()).await)?;
    }
    "nor listed #ListSnapshots/unadvertised" => |world| {
        code(Unimplemented, world.controller.list_snapshots(ListSnapshotsRequest::default()).await)?;
    }
    "nor found #GetSnapshot/unadvertised" => |world| {
        code(Unimplemented, world.controller.get_snapshot(GetSnapshotRequest::default()).await)?;
    }
    "what grows has an id #ControllerExpandVolume/no-id" => |world| {
        code(InvalidArgument, world.controller.controller_expand_volume(expanding("", range(GIB))).await)?;
    }
    "and a size #ControllerExpandVolume/no-capacity" => |world| {
        let id = world.volume().await?;
        code(InvalidArgument, world.controller.controller_expand_volume(expanding(&id, None)).await)?;
    }
    "it grows, and never shrinks #ControllerExpandVolume/works" => |world| {
        let id = world.volume().await?;
        for _ in 0..10 {
            let answer = good(world.controller.controller_expand_volume(expanding(&id, range(2 * GIB))).await)?;
            ensure!(answer.capacity_bytes == 2 * GIB && !answer.node_expansion_required, "{answer:?}");
        }
        let answer = good(world.controller.controller_expand_volume(expanding(&id, range(GIB))).await)?;
        ensure!(answer.capacity_bytes == 2 * GIB, "{answer:?}");
        ensure!(capacity(world, &id).await? == 2 * GIB, "it has {} bytes", capacity(world, &id).await?);
        let limited = Some(CapacityRange { required_bytes: GIB, limit_bytes: GIB });
        code(OutOfRange, world.controller.controller_expand_volume(expanding(&id, limited)).await)?;
        code(NotFound, world.controller.controller_expand_volume(expanding("missing", range(GIB))).await)?;
        // What was made with the first size is asked for again by whoever had no answer.
        good(world.create(wanted(&id)).await)?;
    }
    "what is changed has an id #ControllerModifyVolume/no-id" => |world| {
        code(InvalidArgument, world.controller.controller_modify_volume(modifying("", &[("inodes", "9")])).await)?;
    }
    "and is there #ControllerModifyVolume/unknown" => |world| {
        code(NotFound, world.controller.controller_modify_volume(modifying("missing", &[("inodes", "9")])).await)?;
    }
    "what cannot be changed is said #ControllerModifyVolume/unsupported" => |world| {
        let id = world.volume().await?;
        for pair in [("replicas", "2"), ("size", "2GiB"), ("colour", "red")] {
            code(InvalidArgument, world.controller.controller_modify_volume(modifying(&id, &[pair])).await)?;
        }
    }
    "what can is #ControllerModifyVolume/works" => |world| {
        let id = world.volume().await?;
        for _ in 0..10 {
            good(world.controller.controller_modify_volume(modifying(&id, &[("inodes", "500"), ("patience", "1m")])).await)?;
        }
    }
    "also of a volume that has a class #ControllerModifyVolume/after-class" => |world| {
        let name = world.name("class");
        let mutable_parameters = map(&[("inodes", "1000")]);
        good(world.create(CreateVolumeRequest { mutable_parameters, ..wanted(&name) }).await)?;
        good(world.controller.controller_modify_volume(modifying(&name, &[("inodes", "2000"), ("labels", "tier=2")])).await)?;
    }
    "where what cannot is said too #ControllerModifyVolume/unsupported-after-class" => |world| {
        let name = world.name("class");
        let mutable_parameters = map(&[("inodes", "1000")]);
        good(world.create(CreateVolumeRequest { mutable_parameters, ..wanted(&name) }).await)?;
        code(InvalidArgument, world.controller.controller_modify_volume(modifying(&name, &[("colour", "red")])).await)?;
    }
    "a volume is found by its id, with how it is" => |world| {
        let id = world.volume().await?;
        let request = ControllerGetVolumeRequest { volume_id: id.clone() };
        let answer = good(world.controller.controller_get_volume(request).await)?;
        let condition = answer.status.and_then(|status| status.volume_condition).ok_or("it has no condition")?;
        ensure!(!condition.abnormal, "{condition:?}");
        let missing = ControllerGetVolumeRequest { volume_id: "missing".into() };
        code(NotFound, world.controller.controller_get_volume(missing).await)?;
        code(InvalidArgument, world.controller.controller_get_volume(ControllerGetVolumeRequest::default()).await)?;
    }
    "groups of snapshots are not taken yet #GroupController/unadvertised" => |world| {
        let request = GroupControllerGetCapabilitiesRequest {};
        let refused = world.groups.group_controller_get_capabilities(request).await;
        ensure!(refused.as_ref().is_err_and(|status| status.code() == Unimplemented), "{refused:?}");
    }
}
