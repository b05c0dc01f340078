use super::*;

#[test]
fn a_volume_is_staged() {
    same(
        concat!(
            "0a027631120a0a0566656e63651201371a062f7374616765222612200a08686f6c646661737412076e6f6174696d6512",
            "056e6f6465761a04323030301a0208052a080a036b657912016b320c0a04706f6f6c120466617374"
        ),
        NodeStageVolumeRequest {
            volume_id: "v1".into(),
            publish_context: map("fence", "7"),
            staging_target_path: "/stage".into(),
            volume_capability: Some(mounted()),
            secrets: map("key", "k"),
            volume_context: map("pool", "fast"),
        },
    );
    same("", NodeStageVolumeResponse {});
    same(
        "0a02763112062f7374616765",
        NodeUnstageVolumeRequest { volume_id: "v1".into(), staging_target_path: "/stage".into() },
    );
    same("", NodeUnstageVolumeResponse {});
}

#[test]
fn a_volume_is_published() {
    same(
        concat!(
            "0a027631120a0a0566656e63651201371a062f737461676522042f706f642a060a001a02080630013a080a036b657912",
            "016b420c0a04706f6f6c120466617374"
        ),
        NodePublishVolumeRequest {
            volume_id: "v1".into(),
            publish_context: map("fence", "7"),
            staging_target_path: "/stage".into(),
            target_path: "/pod".into(),
            volume_capability: Some(block()),
            readonly: true,
            secrets: map("key", "k"),
            volume_context: map("pool", "fast"),
        },
    );
    same("", NodePublishVolumeResponse {});
    same("0a02763112042f706f64", NodeUnpublishVolumeRequest { volume_id: "v1".into(), target_path: "/pod".into() });
    same("", NodeUnpublishVolumeResponse {});
}

#[test]
fn use_is_told() {
    same(
        "0a02763112042f706f641a062f7374616765",
        NodeGetVolumeStatsRequest {
            volume_id: "v1".into(),
            volume_path: "/pod".into(),
            staging_target_path: "/stage".into(),
        },
    );
    same(
        "0a08083c1064182820010a080806100a1804200212130801120f612073746f72652069732061776179",
        NodeGetVolumeStatsResponse {
            usage: vec![
                VolumeUsage { available: 60, total: 100, used: 40, unit: volume_usage::Unit::Bytes.into() },
                VolumeUsage { available: 6, total: 10, used: 4, unit: volume_usage::Unit::Inodes.into() },
            ],
            volume_condition: Some(condition()),
        },
    );
}

#[test]
fn what_the_node_can_do() {
    same("", NodeGetCapabilitiesRequest {});
    let rpc = node_service_capability::Rpc { r#type: node_service_capability::rpc::Type::VolumeMountGroup.into() };
    same(
        "0a040a020806",
        NodeGetCapabilitiesResponse {
            capabilities: vec![NodeServiceCapability { r#type: Some(node_service_capability::Type::Rpc(rpc)) }],
        },
    );
}

#[test]
fn what_the_node_is() {
    same("", NodeGetInfoRequest {});
    same(
        "0a026e3110321a180a160a10686f6c64666173742e696f2f7261636b12027231",
        NodeGetInfoResponse { node_id: "n1".into(), max_volumes_per_node: 50, accessible_topology: Some(rack("r1")) },
    );
}

#[test]
fn a_volume_grows() {
    same(
        concat!(
            "0a02763112042f706f641a040805100622062f73746167652a2612200a08686f6c646661737412076e6f6174696d6512",
            "056e6f6465761a04323030301a02080532080a036b657912016b"
        ),
        NodeExpandVolumeRequest {
            volume_id: "v1".into(),
            volume_path: "/pod".into(),
            capacity_range: Some(CapacityRange { required_bytes: 5, limit_bytes: 6 }),
            staging_target_path: "/stage".into(),
            volume_capability: Some(mounted()),
            secrets: map("key", "k"),
        },
    );
    same("0805", NodeExpandVolumeResponse { capacity_bytes: 5 });
}
