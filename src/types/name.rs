//! File names: parsed once, then trusted.

use std::fmt;

use rkyv::{Archive, Deserialize, Serialize};

use super::error::FsError;
use super::limits::NAME_BYTES_MAX;

/// A directory entry's name: 1 to 255 bytes, no `/`, no NUL, not `.` and not `..`.
///
/// Archived bytes are not trusted: who decodes a name from the network calls [`Name::check`].
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Vec<u8>);

impl Name {
    /// # Errors
    /// `NameTooLong` for more than 255 bytes; `Invalid` for an empty name, `.`, `..`, or one with `/` or NUL.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Name, FsError> {
        let name = Name(bytes.into());
        name.check()?;
        Ok(name)
    }

    /// # Errors
    /// As [`Name::new`].
    pub fn check(&self) -> Result<(), FsError> {
        let bytes = &self.0;
        if bytes.len() > NAME_BYTES_MAX {
            return Err(FsError::NameTooLong);
        }
        if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.iter().any(|b| matches!(b, b'/' | 0)) {
            return Err(FsError::Invalid);
        }
        Ok(())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed() {
        assert!(Name::new("a").is_ok());
        assert!(Name::new(vec![b'x'; 255]).is_ok());
        assert_eq!(Name::new(vec![b'x'; 256]), Err(FsError::NameTooLong));
        for bad in ["", ".", "..", "a/b", "a\0b"] {
            assert_eq!(Name::new(bad), Err(FsError::Invalid));
        }
    }
}
