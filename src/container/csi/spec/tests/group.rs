use super::*;

fn group_snapshot() -> VolumeGroupSnapshot {
    VolumeGroupSnapshot {
        group_snapshot_id: "g1".into(),
        snapshots: vec![snapshot()],
        creation_time: Some(Timestamp { seconds: 1_800_000_000, nanos: 1 }),
        ready_to_use: true,
    }
}

#[test]
fn what_the_group_controller_can_do() {
    same("", GroupControllerGetCapabilitiesRequest {});
    let rpc = group_controller_service_capability::Rpc {
        r#type: group_controller_service_capability::rpc::Type::CreateDeleteGetVolumeGroupSnapshot.into(),
    };
    same(
        "0a040a020801",
        GroupControllerGetCapabilitiesResponse {
            capabilities: vec![GroupControllerServiceCapability {
                r#type: Some(group_controller_service_capability::Type::Rpc(rpc)),
            }],
        },
    );
}

#[test]
fn a_group_is_kept() {
    same(
        "0a056461696c7912027631120276321a080a036b657912016b220a0a046b65657012023764",
        CreateVolumeGroupSnapshotRequest {
            name: "daily".into(),
            source_volume_ids: vec!["v1".into(), "v2".into()],
            secrets: map("key", "k"),
            parameters: map("keep", "7d"),
        },
    );
    same(
        concat!(
            "0a300a026731121e088020120273311a027631220b0880a4a7da0610c096b1022801320267311a080880a4a7da061001",
            "2001"
        ),
        CreateVolumeGroupSnapshotResponse { group_snapshot: Some(group_snapshot()) },
    );
}

#[test]
fn a_group_is_shown_and_deleted() {
    same(
        "0a02673112027331120273321a080a036b657912016b",
        GetVolumeGroupSnapshotRequest {
            group_snapshot_id: "g1".into(),
            snapshot_ids: vec!["s1".into(), "s2".into()],
            secrets: map("key", "k"),
        },
    );
    same(
        concat!(
            "0a300a026731121e088020120273311a027631220b0880a4a7da0610c096b1022801320267311a080880a4a7da061001",
            "2001"
        ),
        GetVolumeGroupSnapshotResponse { group_snapshot: Some(group_snapshot()) },
    );
    same(
        "0a02673112027331120273321a080a036b657912016b",
        DeleteVolumeGroupSnapshotRequest {
            group_snapshot_id: "g1".into(),
            snapshot_ids: vec!["s1".into(), "s2".into()],
            secrets: map("key", "k"),
        },
    );
    same("", DeleteVolumeGroupSnapshotResponse {});
}
