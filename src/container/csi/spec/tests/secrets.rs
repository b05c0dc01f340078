use super::*;

const SECRET: &str = "open sesame";

#[track_caller]
fn hides<M: Message + Debug>(message: M) {
    let shown = format!("{message:?} {message:#?}");
    assert!(!shown.contains(SECRET) && !shown.contains("password"), "{shown}");
    assert!(shown.contains("<1 hidden>"), "{shown}");
}

#[test]
fn secrets_are_not_shown() {
    let secrets = map("password", SECRET);
    hides(CreateVolumeRequest { secrets: secrets.clone(), ..Default::default() });
    hides(DeleteVolumeRequest { secrets: secrets.clone(), ..Default::default() });
    hides(ControllerPublishVolumeRequest { secrets: secrets.clone(), ..Default::default() });
    hides(ControllerUnpublishVolumeRequest { secrets: secrets.clone(), ..Default::default() });
    hides(ValidateVolumeCapabilitiesRequest { secrets: secrets.clone(), ..Default::default() });
    hides(ControllerListVolumeHealthRequest { secrets: secrets.clone(), ..Default::default() });
    hides(ControllerGetVolumeHealthRequest { secrets: secrets.clone(), ..Default::default() });
    hides(ControllerModifyVolumeRequest { secrets: secrets.clone(), ..Default::default() });
    hides(CreateSnapshotRequest { secrets: secrets.clone(), ..Default::default() });
    hides(DeleteSnapshotRequest { secrets: secrets.clone(), ..Default::default() });
    hides(ListSnapshotsRequest { secrets: secrets.clone(), ..Default::default() });
    hides(GetSnapshotRequest { secrets: secrets.clone(), ..Default::default() });
    hides(ControllerExpandVolumeRequest { secrets: secrets.clone(), ..Default::default() });
    hides(NodeStageVolumeRequest { secrets: secrets.clone(), ..Default::default() });
    hides(NodePublishVolumeRequest { secrets: secrets.clone(), ..Default::default() });
    hides(NodeGetStorageHealthRequest { secrets: secrets.clone() });
    hides(NodeExpandVolumeRequest { secrets: secrets.clone(), ..Default::default() });
    hides(CreateVolumeGroupSnapshotRequest { secrets: secrets.clone(), ..Default::default() });
    hides(DeleteVolumeGroupSnapshotRequest { secrets: secrets.clone(), ..Default::default() });
    hides(GetVolumeGroupSnapshotRequest { secrets, ..Default::default() });
}

#[test]
fn mount_flags_are_not_shown() {
    let mount_flags = vec![format!("password={SECRET}")];
    let mount = volume_capability::MountVolume { fs_type: "holdfast".into(), mount_flags, ..Default::default() };
    let access_type = Some(volume_capability::AccessType::Mount(mount));
    hides(VolumeCapability { access_type, access_mode: None });
}

#[test]
fn the_rest_is_shown() {
    let request = DeleteVolumeRequest { volume_id: "v1".into(), secrets: map("a", "b") };
    assert_eq!(format!("{request:?}"), r#"DeleteVolumeRequest { volume_id: "v1", secrets: <1 hidden> }"#);
}
