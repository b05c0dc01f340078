//! What came after the crate that the other bytes were recorded with.

use super::*;

fn health() -> VolumeHealth {
    VolumeHealth {
        volume_id: "v1".into(),
        health_statuses: vec![
            volume_health::VolumeHealthEntry {
                status: VolumeHealthErrorType::DataLoss.into(),
                reason: "ChunksLost".into(),
                message: "3 chunks are lost".into(),
            },
            volume_health::VolumeHealthEntry {
                status: VolumeHealthErrorType::Degraded.into(),
                reason: "StoreAway".into(),
                message: String::new(),
            },
        ],
    }
}

#[test]
fn a_snapshot_is_shown() {
    same("0a02733112080a036b657912016b", GetSnapshotRequest { snapshot_id: "s1".into(), secrets: map("key", "k") });
    same(
        "0a1e088020120273311a027631220b0880a4a7da0610c096b102280132026731",
        GetSnapshotResponse { snapshot: Some(snapshot()) },
    );
}

#[test]
fn the_health_of_volumes_is_told() {
    same(
        "08091201741a080a036b657912016b",
        ControllerListVolumeHealthRequest { max_entries: 9, starting_token: "t".into(), secrets: map("key", "k") },
    );
    same(
        concat!(
            "0a360a02763112210803120a4368756e6b734c6f73741a1133206368756e6b7320617265206c6f7374120d0801120953",
            "746f726541776179120175"
        ),
        ControllerListVolumeHealthResponse { entries: vec![health()], next_token: "u".into() },
    );
    same(
        "0a02763112080a036b657912016b",
        ControllerGetVolumeHealthRequest { volume_id: "v1".into(), secrets: map("key", "k") },
    );
    same(
        concat!(
            "0a360a02763112210803120a4368756e6b734c6f73741a1133206368756e6b7320617265206c6f7374120d0801120953",
            "746f726541776179"
        ),
        ControllerGetVolumeHealthResponse { volume_health: Some(health()) },
    );
}

#[test]
fn the_health_of_a_node_is_told() {
    same(
        "0a02763112042f706f641a062f7374616765",
        NodeGetVolumeHealthRequest {
            volume_id: "v1".into(),
            volume_publish_path: "/pod".into(),
            staging_target_path: "/stage".into(),
        },
    );
    same(
        concat!(
            "0a360a02763112210803120a4368756e6b734c6f73741a1133206368756e6b7320617265206c6f7374120d0801120953",
            "746f726541776179"
        ),
        NodeGetVolumeHealthResponse { volume_health: Some(health()) },
    );
    same("0a080a036b657912016b", NodeGetStorageHealthRequest { secrets: map("key", "k") });
    let backend = node_get_storage_health_response::StorageBackendHealth {
        status: StorageHealthErrorType::StorageUnreachable.into(),
        reason: "NoStores".into(),
        message: "no store answers".into(),
        volume_capability: Some(block()),
    };
    same(
        "0a26080212084e6f53746f7265731a106e6f2073746f726520616e737765727322060a001a020806",
        NodeGetStorageHealthResponse { backend_health: vec![backend] },
    );
}

#[test]
fn what_more_can_be_done() {
    same(
        "0a040a0208040a0412020802",
        GetPluginCapabilitiesResponse {
            capabilities: vec![PluginService::SnapshotMetadataService.into(), VolumeExpansionKind::Offline.into()],
        },
    );
    same(
        "0a040a02080f0a040a0208100a040a020811",
        ControllerGetCapabilitiesResponse {
            capabilities: vec![
                ControllerRpc::GetSnapshot.into(),
                ControllerRpc::GetVolumeHealth.into(),
                ControllerRpc::ListVolumeHealth.into(),
            ],
        },
    );
    same(
        "0a040a0208070a040a020808",
        NodeGetCapabilitiesResponse {
            capabilities: vec![NodeRpc::GetVolumeHealth.into(), NodeRpc::GetStorageHealth.into()],
        },
    );
}

#[test]
fn what_is_not_known_is_dropped() {
    // Field 9, a string, after the name.
    let bytes = data_encoding::HEXLOWER.decode(b"0a0270314a0178").unwrap();
    let request = CreateVolumeRequest { name: "p1".into(), ..CreateVolumeRequest::default() };
    assert_eq!(CreateVolumeRequest::decode(bytes.as_slice()).unwrap(), request);
}
