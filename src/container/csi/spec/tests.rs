//! Messages against bytes that another implementation has written, and the services over a socket.
//!
//! The bytes were recorded by encoding the same values with the types of the crate `bpfman-csi` 1.8.0 (the
//! specification at about 1.9); those of `newer` were worked out from the field numbers of 1.12 and 1.13.

mod controller;
mod group;
mod identity;
mod newer;
mod node;
mod secrets;
mod snapshots;
mod socket;

use std::fmt::Debug;

use prost::Message;

use super::*;

/// Reads `hex` as `message`, and writes it back.
#[track_caller]
fn same<M: Message + Default + PartialEq + Debug>(hex: &str, message: M) {
    let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap();
    assert_eq!(M::decode(bytes.as_slice()).unwrap(), message);
    assert_eq!(data_encoding::HEXLOWER.encode(&message.encode_to_vec()), hex);
}

fn map(key: &str, value: &str) -> Map {
    Map::from([(key.into(), value.into())])
}

/// For a mount, by many nodes.
fn mounted() -> VolumeCapability {
    let mount = volume_capability::MountVolume {
        fs_type: "holdfast".into(),
        mount_flags: vec!["noatime".into(), "nodev".into()],
        volume_mount_group: "2000".into(),
    };
    VolumeCapability {
        access_type: Some(volume_capability::AccessType::Mount(mount)),
        access_mode: Some(volume_capability::AccessMode {
            mode: volume_capability::access_mode::Mode::MultiNodeMultiWriter.into(),
        }),
    }
}

/// As a block device, by one workload.
fn block() -> VolumeCapability {
    VolumeCapability {
        access_type: Some(volume_capability::AccessType::Block(volume_capability::BlockVolume {})),
        access_mode: Some(volume_capability::AccessMode {
            mode: volume_capability::access_mode::Mode::SingleNodeSingleWriter.into(),
        }),
    }
}

fn rack(name: &str) -> Topology {
    Topology { segments: map("holdfast.io/rack", name) }
}

fn volume() -> Volume {
    let source = volume_content_source::SnapshotSource { snapshot_id: "s1".into() };
    Volume {
        capacity_bytes: 1 << 40,
        volume_id: "v1".into(),
        volume_context: map("pool", "fast"),
        content_source: Some(VolumeContentSource { r#type: Some(volume_content_source::Type::Snapshot(source)) }),
        accessible_topology: vec![rack("r1"), rack("r2")],
    }
}

fn snapshot() -> Snapshot {
    Snapshot {
        size_bytes: 4096,
        snapshot_id: "s1".into(),
        source_volume_id: "v1".into(),
        creation_time: Some(Timestamp { seconds: 1_800_000_000, nanos: 5_000_000 }),
        ready_to_use: true,
        group_snapshot_id: "g1".into(),
    }
}

fn condition() -> VolumeCondition {
    VolumeCondition { abnormal: true, message: "a store is away".into() }
}
