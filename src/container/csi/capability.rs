//! Ways of use, as orchestrators ask for them, and which volumes are fit for them.

use tonic::Status;

use super::spec::volume_capability::{AccessType, MountVolume};
use super::spec::{AccessModeKind, VolumeCapability};
use crate::types::volume::Access;

/// One way of use, read and found possible.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Use {
    pub mode: AccessModeKind,
    /// Options of the mount.
    pub flags: Vec<String>,
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
                Ok(Use { mode, flags: flags_of(mount)?, group: group_of(mount)?, is_block: false })
            }
            Some(AccessType::Block(_)) if !has_block => Err(Status::invalid_argument(
                "a volume is a filesystem, and no block device: use volumeMode Filesystem, or have the driver's raw_block on",
            )),
            Some(AccessType::Block(_)) => {
                let wish = Use { mode, flags: Vec::new(), group: None, is_block: true };
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
        matches!(self.mode, AccessModeKind::SingleNodeReaderOnly | AccessModeKind::MultiNodeReaderOnly)
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

/// # Errors
/// `INVALID_ARGUMENT`: one of them is of another kind than options are, or names a credential, which is not the orchestrator's to name.
fn flags_of(mount: &MountVolume) -> Result<Vec<String>, Status> {
    let is_fault = |flag: &String| flag.contains("credential=") || flag.chars().any(char::is_control);
    match mount.mount_flags.iter().any(is_fault) {
        true => Err(Status::invalid_argument("a mount flag is not possible")),
        false => Ok(mount.mount_flags.clone()),
    }
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
