//! Ways of use, as orchestrators ask for them, and which volumes are fit for them.

use tonic::Status;

use super::spec::volume_capability::{AccessType, MountVolume};
use super::spec::{AccessModeKind, VolumeCapability};
use crate::types::volume::Access;

/// One way of use, read and found possible.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Use {
    pub mode: AccessModeKind,
    /// Options of the mount, but for whether it is to be written.
    pub flags: Vec<String>,
    /// They say that it is not.
    pub is_flagged_read_only: bool,
    /// The group that is to have what is made.
    pub group: Option<u32>,
    /// As a block device, and no filesystem.
    pub is_block: bool,
}

impl Use {
    /// # Errors
    /// `INVALID_ARGUMENT`: the mode is missing or not known, or it is to be a block device where there are none (`has_block`), or on
    /// several nodes at once.
    pub fn of(capability: &VolumeCapability, has_block: bool) -> Result<Use, Status> {
        let mode = capability.access_mode.map(|access| access.mode());
        let mode = mode.filter(|mode| *mode != AccessModeKind::Unknown);
        let mode = mode.ok_or_else(|| Status::invalid_argument("the access mode of the capability is missing"))?;
        match &capability.access_type {
            Some(AccessType::Mount(mount)) => {
                let (flags, is_flagged_read_only) = flags_of(mount)?;
                Ok(Use { mode, flags, is_flagged_read_only, group: group_of(mount)?, is_block: false })
            }
            Some(AccessType::Block(_)) if !has_block => Err(Status::invalid_argument(
                "a volume is a filesystem, and no block device: use volumeMode Filesystem, or have the driver's raw_block on",
            )),
            Some(AccessType::Block(_)) => {
                let wish = Use { mode, flags: Vec::new(), is_flagged_read_only: false, group: None, is_block: true };
                match wish.is_on_one_node() {
                    true => Ok(wish),
                    false => Err(Status::invalid_argument("a block device is for one node at a time")),
                }
            }
            None => Err(Status::invalid_argument("the access type of the capability is missing")),
        }
    }

    /// # Errors
    /// `INVALID_ARGUMENT`: there is none.
    pub fn required(capability: Option<&VolumeCapability>, has_block: bool) -> Result<Use, Status> {
        Use::of(capability.ok_or_else(|| Status::invalid_argument("the volume capability is missing"))?, has_block)
    }

    /// # Errors
    /// `INVALID_ARGUMENT`: there is none, or one of them is not possible, or not together with another.
    pub fn all(capabilities: &[VolumeCapability], has_block: bool) -> Result<Vec<Use>, Status> {
        if capabilities.is_empty() {
            return Err(Status::invalid_argument("volume capabilities are missing"));
        }
        let uses =
            capabilities.iter().map(|capability| Use::of(capability, has_block)).collect::<Result<Vec<_>, _>>()?;
        match uses.iter().any(|wish| wish.is_block != uses[0].is_block) {
            true => Err(Status::invalid_argument("a volume is a filesystem or a block device, and not both")),
            false => Ok(uses),
        }
    }

    /// Nothing is written.
    pub fn is_read_only(&self) -> bool {
        use AccessModeKind::{MultiNodeReaderOnly, SingleNodeReaderOnly};
        self.is_flagged_read_only || matches!(self.mode, SingleNodeReaderOnly | MultiNodeReaderOnly)
    }

    /// One workload has it.
    pub fn is_for_one(&self) -> bool {
        self.mode == AccessModeKind::SingleNodeSingleWriter
    }

    fn is_on_one_node(&self) -> bool {
        use AccessModeKind::{SingleNodeMultiWriter, SingleNodeReaderOnly, SingleNodeSingleWriter, SingleNodeWriter};
        matches!(self.mode, SingleNodeWriter | SingleNodeReaderOnly | SingleNodeSingleWriter | SingleNodeMultiWriter)
    }

    /// A volume of this kind can be used so.
    pub fn is_possible(&self, access: Access) -> bool {
        match access {
            Access::Many => true,
            Access::One | Access::Fenced => self.is_on_one_node(),
            Access::Container => self.mode == AccessModeKind::SingleNodeSingleWriter,
            Access::Readers => self.is_read_only(),
        }
    }
}

/// The options, without those that say whether it is read-only; and what these say, of which the last one holds.
///
/// # Errors
/// `INVALID_ARGUMENT`: one of them is of another kind than options are, or names a credential, which is not the orchestrator's to name.
fn flags_of(mount: &MountVolume) -> Result<(Vec<String>, bool), Status> {
    let is_fault = |flag: &String| flag.contains("credential=") || flag.chars().any(char::is_control);
    if mount.mount_flags.iter().any(is_fault) {
        return Err(Status::invalid_argument("a mount flag is not possible"));
    }
    let options = mount.mount_flags.iter().flat_map(|flag| flag.split(','));
    let options = options.map(|option| option.trim().to_string()).filter(|option| !option.is_empty());
    let (access, flags): (Vec<_>, Vec<_>) = options.partition(|option| option == "ro" || option == "rw");
    Ok((flags, access.last().is_some_and(|last| last == "ro")))
}

/// # Errors
/// `INVALID_ARGUMENT`: it is not a number.
fn group_of(mount: &MountVolume) -> Result<Option<u32>, Status> {
    match mount.volume_mount_group.as_str() {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| Status::invalid_argument("the volume mount group is not a number")),
    }
}

/// The kind of volume that is fit for all of these, and for no more: the fewer hosts may have it, the more their kernels may cache. One
/// for readers alone could never be filled.
pub(super) fn access_for(uses: &[Use]) -> Access {
    if uses.iter().all(Use::is_for_one) {
        Access::Container
    } else if uses.iter().all(Use::is_on_one_node) {
        Access::One
    } else {
        Access::Many
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::csi::spec::volume_capability::{AccessMode, BlockVolume};

    fn capability(mode: AccessModeKind) -> VolumeCapability {
        let access_type = Some(AccessType::Mount(MountVolume::default()));
        VolumeCapability { access_type, access_mode: Some(AccessMode { mode: mode.into() }) }
    }

    fn uses(modes: &[AccessModeKind]) -> Vec<Use> {
        Use::all(&modes.iter().map(|mode| capability(*mode)).collect::<Vec<_>>(), false).unwrap()
    }

    #[test]
    fn a_volume_is_for_as_few_as_it_may() {
        use AccessModeKind::*;
        assert_eq!(access_for(&uses(&[SingleNodeSingleWriter])), Access::Container);
        assert_eq!(access_for(&uses(&[SingleNodeWriter])), Access::One);
        assert_eq!(access_for(&uses(&[SingleNodeSingleWriter, SingleNodeMultiWriter])), Access::One);
        assert_eq!(access_for(&uses(&[SingleNodeWriter, MultiNodeMultiWriter])), Access::Many);
        assert_eq!(access_for(&uses(&[MultiNodeReaderOnly])), Access::Many);
    }

    #[test]
    fn what_a_volume_was_made_for_it_is_fit_for() {
        use AccessModeKind::*;
        let modes = [
            SingleNodeWriter,
            SingleNodeReaderOnly,
            MultiNodeReaderOnly,
            MultiNodeSingleWriter,
            MultiNodeMultiWriter,
            SingleNodeSingleWriter,
            SingleNodeMultiWriter,
        ];
        for mode in modes {
            let made = access_for(&uses(&[mode]));
            assert!(uses(&[mode])[0].is_possible(made), "{mode:?} of {made:?}");
        }
        assert!(!uses(&[MultiNodeMultiWriter])[0].is_possible(Access::One));
        assert!(!uses(&[SingleNodeWriter])[0].is_possible(Access::Container));
        assert!(!uses(&[MultiNodeMultiWriter])[0].is_possible(Access::Readers));
        assert!(uses(&[MultiNodeReaderOnly])[0].is_possible(Access::Readers));
    }

    #[test]
    fn an_option_may_say_that_a_mount_is_read_only() {
        let wish = |flags: &[&str], mode| {
            let mount_flags = flags.iter().map(ToString::to_string).collect();
            let access_type = Some(AccessType::Mount(MountVolume { mount_flags, ..MountVolume::default() }));
            Use::of(&VolumeCapability { access_type, ..capability(mode) }, false).unwrap()
        };
        let writer = AccessModeKind::MultiNodeMultiWriter;
        for (flags, is_read_only) in
            [(&["noatime, ro"][..], true), (&["ro", "noatime,rw"], false), (&["noatime"], false)]
        {
            let wish = wish(flags, writer);
            assert_eq!((wish.is_read_only(), wish.flags.join(" ").as_str()), (is_read_only, "noatime"), "{flags:?}");
        }
        assert!(wish(&["rw"], AccessModeKind::MultiNodeReaderOnly).is_read_only(), "it is not the mount's to say");
    }

    #[test]
    fn what_is_missing_or_impossible_is_refused() {
        let block = VolumeCapability {
            access_type: Some(AccessType::Block(BlockVolume {})),
            ..capability(AccessModeKind::SingleNodeWriter)
        };
        let modeless = VolumeCapability { access_mode: None, ..capability(AccessModeKind::SingleNodeWriter) };
        let strange = VolumeCapability {
            access_mode: Some(AccessMode { mode: 99 }),
            ..capability(AccessModeKind::SingleNodeWriter)
        };
        let typeless = VolumeCapability { access_type: None, ..capability(AccessModeKind::SingleNodeWriter) };
        let mounted = |mount| VolumeCapability { access_type: Some(AccessType::Mount(mount)), ..modeless.clone() };
        let grouped = MountVolume { volume_mount_group: "wheel".into(), ..MountVolume::default() };
        let flagged = MountVolume { mount_flags: vec!["ro,credential=/x".into()], ..MountVolume::default() };
        let with_mode = |capability| VolumeCapability {
            access_mode: Some(AccessMode { mode: AccessModeKind::SingleNodeWriter.into() }),
            ..capability
        };
        let (grouped, flagged) = (with_mode(mounted(grouped)), with_mode(mounted(flagged)));
        let unknown = capability(AccessModeKind::Unknown);
        for capability in [block, modeless, strange, typeless, grouped, flagged, unknown] {
            assert_eq!(Use::of(&capability, false).unwrap_err().code(), tonic::Code::InvalidArgument, "{capability:?}");
        }
        assert!(Use::required(None, false).is_err() && Use::all(&[], false).is_err());
    }
}
