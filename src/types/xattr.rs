//! Which extended attributes there may be, and on what. ACLs have their own rules.

use super::attr::FileKind;
use super::error::FsError;
use super::limits::XATTR_NAME_BYTES_MAX;

/// # Errors
/// `Range` for a name of no or too many bytes, `NotSupported` outside of the three spaces, `Invalid` for nothing but the space.
pub fn check_name(name: &[u8]) -> Result<(), FsError> {
    if name.is_empty() || name.len() > XATTR_NAME_BYTES_MAX {
        return Err(FsError::Range);
    }
    let spaces: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
    match spaces.iter().find_map(|space| name.strip_prefix(*space)) {
        None => Err(FsError::NotSupported),
        Some(rest) if rest.is_empty() || rest.contains(&0) => Err(FsError::Invalid),
        Some(_) => Ok(()),
    }
}

/// # Errors
/// `NotPermitted`: `user.` attributes are for files and directories alone.
pub fn check_kind(kind: FileKind, name: &[u8]) -> Result<(), FsError> {
    let takes_user = matches!(kind, FileKind::File | FileKind::Dir);
    if name.starts_with(b"user.") && !takes_user { Err(FsError::NotPermitted) } else { Ok(()) }
}
