use super::*;

#[test]
fn a_snapshot_is_made() {
    same(
        "0a02763112056461696c791a080a036b657912016b220a0a046b65657012023764",
        CreateSnapshotRequest {
            source_volume_id: "v1".into(),
            name: "daily".into(),
            secrets: map("key", "k"),
            parameters: map("keep", "7d"),
        },
    );
    same(
        "0a1e088020120273311a027631220b0880a4a7da0610c096b102280132026731",
        CreateSnapshotResponse { snapshot: Some(snapshot()) },
    );
}

#[test]
fn a_snapshot_is_deleted() {
    same("0a02733112080a036b657912016b", DeleteSnapshotRequest { snapshot_id: "s1".into(), secrets: map("key", "k") });
    same("", DeleteSnapshotResponse {});
}

#[test]
fn snapshots_are_listed() {
    same(
        "08031201741a027631220273312a080a036b657912016b",
        ListSnapshotsRequest {
            max_entries: 3,
            starting_token: "t".into(),
            source_volume_id: "v1".into(),
            snapshot_id: "s1".into(),
            secrets: map("key", "k"),
        },
    );
    let entry = list_snapshots_response::Entry { snapshot: Some(snapshot()) };
    same(
        "0a200a1e088020120273311a027631220b0880a4a7da0610c096b102280132026731120175",
        ListSnapshotsResponse { entries: vec![entry], next_token: "u".into() },
    );
}
