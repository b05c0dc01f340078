use super::*;

#[test]
fn a_volume_is_created() {
    let source = volume_content_source::VolumeSource { volume_id: "v0".into() };
    same(
        concat!(
            "0a057076632d31120c0880808080041080808080081a2612200a08686f6c646661737412076e6f6174696d6512056e6f",
            "6465761a04323030301a0208051a060a001a020806220b0a06636f706965731201332a120a036b6579120b6f70656e20",
            "736573616d65320612040a0276303a4e0a180a160a10686f6c64666173742e696f2f7261636b120272310a180a160a10",
            "686f6c64666173742e696f2f7261636b1202723212180a160a10686f6c64666173742e696f2f7261636b12027232420b",
            "0a04696f70731203353030"
        ),
        CreateVolumeRequest {
            name: "pvc-1".into(),
            capacity_range: Some(CapacityRange { required_bytes: 1 << 30, limit_bytes: 2 << 30 }),
            volume_capabilities: vec![mounted(), block()],
            parameters: map("copies", "3"),
            secrets: map("key", "open sesame"),
            volume_content_source: Some(VolumeContentSource {
                r#type: Some(volume_content_source::Type::Volume(source)),
            }),
            accessibility_requirements: Some(TopologyRequirement {
                requisite: vec![rack("r1"), rack("r2")],
                preferred: vec![rack("r2")],
            }),
            mutable_parameters: map("iops", "500"),
        },
    );
    same(
        concat!(
            "0a5508808080808020120276311a0c0a04706f6f6c12046661737422060a040a0273312a180a160a10686f6c64666173",
            "742e696f2f7261636b120272312a180a160a10686f6c64666173742e696f2f7261636b12027232"
        ),
        CreateVolumeResponse { volume: Some(volume()) },
    );
}

#[test]
fn a_volume_is_deleted() {
    same("0a02763112080a036b657912016b", DeleteVolumeRequest { volume_id: "v1".into(), secrets: map("key", "k") });
    same("", DeleteVolumeResponse {});
}

#[test]
fn a_volume_is_published() {
    same(
        concat!(
            "0a02763112026e311a2612200a08686f6c646661737412076e6f6174696d6512056e6f6465761a04323030301a020805",
            "20012a080a036b657912016b320c0a04706f6f6c120466617374"
        ),
        ControllerPublishVolumeRequest {
            volume_id: "v1".into(),
            node_id: "n1".into(),
            volume_capability: Some(mounted()),
            readonly: true,
            secrets: map("key", "k"),
            volume_context: map("pool", "fast"),
        },
    );
    same("0a0a0a0566656e6365120137", ControllerPublishVolumeResponse { publish_context: map("fence", "7") });
    same(
        "0a02763112026e311a080a036b657912016b",
        ControllerUnpublishVolumeRequest { volume_id: "v1".into(), node_id: "n1".into(), secrets: map("key", "k") },
    );
    same("", ControllerUnpublishVolumeResponse {});
}

#[test]
fn capabilities_are_validated() {
    same(
        concat!(
            "0a027631120c0a04706f6f6c1204666173741a2612200a08686f6c646661737412076e6f6174696d6512056e6f646576",
            "1a04323030301a020805220b0a06636f706965731201332a080a036b657912016b320b0a04696f70731203353030"
        ),
        ValidateVolumeCapabilitiesRequest {
            volume_id: "v1".into(),
            volume_context: map("pool", "fast"),
            volume_capabilities: vec![mounted()],
            parameters: map("copies", "3"),
            secrets: map("key", "k"),
            mutable_parameters: map("iops", "500"),
        },
    );
    let confirmed = validate_volume_capabilities_response::Confirmed {
        volume_context: map("pool", "fast"),
        volume_capabilities: vec![block()],
        parameters: map("copies", "3"),
        mutable_parameters: map("iops", "500"),
    };
    same(
        concat!(
            "0a300a0c0a04706f6f6c12046661737412060a001a0208061a0b0a06636f70696573120133220b0a04696f7073120335",
            "30301209616c6c206f66206974"
        ),
        ValidateVolumeCapabilitiesResponse { confirmed: Some(confirmed), message: "all of it".into() },
    );
}

#[test]
fn volumes_are_listed() {
    same("0864120174", ListVolumesRequest { max_entries: 100, starting_token: "t".into() });
    let status = list_volumes_response::VolumeStatus {
        published_node_ids: vec!["n1".into(), "n2".into()],
        volume_condition: Some(condition()),
    };
    let entry = list_volumes_response::Entry { volume: Some(volume()), status: Some(status) };
    same(
        concat!(
            "0a760a5508808080808020120276311a0c0a04706f6f6c12046661737422060a040a0273312a180a160a10686f6c6466",
            "6173742e696f2f7261636b120272312a180a160a10686f6c64666173742e696f2f7261636b12027232121d0a026e310a",
            "026e3212130801120f612073746f72652069732061776179120175"
        ),
        ListVolumesResponse { entries: vec![entry], next_token: "u".into() },
    );
}

#[test]
fn a_volume_is_shown_and_changed() {
    same("0a027631", ControllerGetVolumeRequest { volume_id: "v1".into() });
    let status = controller_get_volume_response::VolumeStatus {
        published_node_ids: vec!["n1".into()],
        volume_condition: Some(condition()),
    };
    same(
        concat!(
            "0a5508808080808020120276311a0c0a04706f6f6c12046661737422060a040a0273312a180a160a10686f6c64666173",
            "742e696f2f7261636b120272312a180a160a10686f6c64666173742e696f2f7261636b1202723212190a026e31121308",
            "01120f612073746f72652069732061776179"
        ),
        ControllerGetVolumeResponse { volume: Some(volume()), status: Some(status) },
    );
    same(
        "0a02763112080a036b657912016b1a0b0a04696f70731203353030",
        ControllerModifyVolumeRequest {
            volume_id: "v1".into(),
            secrets: map("key", "k"),
            mutable_parameters: map("iops", "500"),
        },
    );
    same("", ControllerModifyVolumeResponse {});
    same(
        "0a027631120208011a080a036b657912016b22060a001a020806",
        ControllerExpandVolumeRequest {
            volume_id: "v1".into(),
            capacity_range: Some(CapacityRange { required_bytes: 1, limit_bytes: 0 }),
            secrets: map("key", "k"),
            volume_capability: Some(block()),
        },
    );
    same("0880808080081001", ControllerExpandVolumeResponse { capacity_bytes: 1 << 31, node_expansion_required: true });
}

#[test]
fn room_is_told() {
    same(
        concat!(
            "0a2612200a08686f6c646661737412076e6f6174696d6512056e6f6465761a04323030301a020805120b0a06636f7069",
            "65731201331a180a160a10686f6c64666173742e696f2f7261636b12027231"
        ),
        GetCapacityRequest {
            volume_capabilities: vec![mounted()],
            parameters: map("copies", "3"),
            accessible_topology: Some(rack("r1")),
        },
    );
    same(
        "0809120208081a00",
        GetCapacityResponse { available_capacity: 9, maximum_volume_size: Some(8), minimum_volume_size: Some(0) },
    );
}

#[test]
fn what_the_controller_can_do() {
    same("", ControllerGetCapabilitiesRequest {});
    let rpc =
        controller_service_capability::Rpc { r#type: controller_service_capability::rpc::Type::VolumeCondition.into() };
    same(
        "0a040a02080b",
        ControllerGetCapabilitiesResponse {
            capabilities: vec![ControllerServiceCapability {
                r#type: Some(controller_service_capability::Type::Rpc(rpc)),
            }],
        },
    );
}
