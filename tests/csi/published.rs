//! The specs that csi-sanity 5.5 has, by call and what is looked at, and where one stands here for several there.
//!
//! It has 96: 3 of the identity, 63 of the controller, 6 of groups and 24 of the node. 62 are cases here, each by itself: all of the
//! identity's and the node's, and 35 of the controller's. The other 34 ask what is not advertised, and csi-sanity skips them for a
//! driver without it; here [`REPLACED`] says which case they have instead: that the call is refused, in the way that an orchestrator
//! takes for «not supported». Of the 62, csi-sanity itself never runs the pages (`ListVolumes/pagination`
//! is turned off there), and skips the four of a volume made from another or from a snapshot, where the cases here are that it is
//! refused.

/// How many csi-sanity 5.5 has.
pub const SPECS: usize = 96;

/// Specs of csi-sanity in whose place there is one case.
pub struct Replaced {
    /// Our case.
    pub by: &'static str,
    /// How many of theirs.
    pub specs: usize,
}

pub const REPLACED: &[Replaced] = &[
    // No volume, node or capability named (3), more than a node takes, a volume and a node that are not there, published
    // otherwise already, and the whole life of a volume once and ten times over: nothing is attached here, a node mounts by
    // itself (decision 28). What the last two look at besides, Node/lifecycle and Node/idempotent do without attaching.
    Replaced { by: "ControllerPublishVolume/unadvertised", specs: 9 },
    Replaced { by: "ControllerUnpublishVolume/unadvertised", specs: 1 },
    // The cluster takes no snapshots yet; when it does, each of these becomes a case of its own.
    // No name, no source, twice the same, the same name of another source, a name of 128 bytes.
    Replaced { by: "CreateSnapshot/unadvertised", specs: 5 },
    // No id, one that is not there, one that is.
    Replaced { by: "DeleteSnapshot/unadvertised", specs: 3 },
    // All, by its id, by one that is not there, by its source, by one that is not there, new ones, pages.
    Replaced { by: "ListSnapshots/unadvertised", specs: 7 },
    // No id, one that is there, one that is not.
    Replaced { by: "GetSnapshot/unadvertised", specs: 3 },
    // Capabilities; made without a name; found without an id, and by one that is not there; removed so, and so.
    Replaced { by: "GroupController/unadvertised", specs: 6 },
];

pub const PUBLISHED: &[&str] = &[
    "GetPluginCapabilities/appropriate",
    "Probe/appropriate",
    "GetPluginInfo/appropriate",
    "ControllerGetCapabilities/appropriate",
    "GetCapacity/returns",
    "ListVolumes/returns",
    "ListVolumes/invalid-token",
    "ListVolumes/presence",
    "ListVolumes/pagination",
    "CreateVolume/no-name",
    "CreateVolume/no-capabilities",
    "CreateVolume/no-capacity",
    "CreateVolume/capacity",
    "CreateVolume/same-name",
    "CreateVolume/same-name-other-size",
    "CreateVolume/longest-name",
    "CreateVolume/from-snapshot",
    "CreateVolume/from-missing-snapshot",
    "CreateVolume/from-volume",
    "CreateVolume/from-missing-volume",
    "CreateVolume/mutable-parameters",
    "CreateVolume/invalid-mutable-parameters",
    "DeleteVolume/no-id",
    "DeleteVolume/unknown",
    "DeleteVolume/valid",
    "ValidateVolumeCapabilities/no-id",
    "ValidateVolumeCapabilities/no-capabilities",
    "ValidateVolumeCapabilities/valid",
    "ValidateVolumeCapabilities/unknown",
    "ControllerPublishVolume/unadvertised",
    "ControllerUnpublishVolume/unadvertised",
    "CreateSnapshot/unadvertised",
    "DeleteSnapshot/unadvertised",
    "ListSnapshots/unadvertised",
    "GetSnapshot/unadvertised",
    "ControllerExpandVolume/no-id",
    "ControllerExpandVolume/no-capacity",
    "ControllerExpandVolume/works",
    "ControllerModifyVolume/no-id",
    "ControllerModifyVolume/unknown",
    "ControllerModifyVolume/unsupported",
    "ControllerModifyVolume/works",
    "ControllerModifyVolume/after-class",
    "ControllerModifyVolume/unsupported-after-class",
    "GroupController/unadvertised",
    "NodeGetCapabilities/appropriate",
    "NodeGetInfo/appropriate",
    "NodePublishVolume/no-id",
    "NodePublishVolume/no-target",
    "NodePublishVolume/no-capability",
    "NodePublishVolume/single-writer-second-target",
    "NodeUnpublishVolume/no-id",
    "NodeUnpublishVolume/no-target",
    "NodeUnpublishVolume/removes-target",
    "NodeStageVolume/no-id",
    "NodeStageVolume/no-staging",
    "NodeStageVolume/no-capability",
    "NodeUnstageVolume/no-id",
    "NodeUnstageVolume/no-staging",
    "NodeGetVolumeStats/no-id",
    "NodeGetVolumeStats/no-path",
    "NodeGetVolumeStats/unknown",
    "NodeGetVolumeStats/bogus-path",
    "NodeExpandVolume/no-id",
    "NodeExpandVolume/no-path",
    "NodeExpandVolume/unknown",
    "NodeExpandVolume/works",
    "Node/lifecycle",
    "Node/idempotent",
];
