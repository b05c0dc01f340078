//! The frame and the one way in and out of rkyv.
//!
//! ```text
//! offset  size  field
//! 0       1     protocol version (1)
//! 1       1     flags: bit 0 = this reply is an error of the transport (`Fault`)
//! 2       2     kind, little-endian: which message follows (see the KIND_* constants)
//! 4       4     message bytes, little-endian, at most MESSAGE_BYTES_MAX
//! 8       4     bulk bytes, little-endian, at most BULK_BYTES_MAX
//! 12      4     reserved, zero
//! 16      …     message (an rkyv archive, aligned to 16), then bulk
//! ```

use rkyv::Archive;
use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Error as RkyvError;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;

use crate::types::limits::{BULK_BYTES_MAX, MESSAGE_BYTES_MAX};

pub const HEADER_BYTES: usize = 16;
pub const VERSION: u8 = 1;
/// The oldest peer still understood.
pub const VERSION_MIN: u8 = 1;
pub const FLAG_FAULT: u8 = 1;

pub const KIND_META: u16 = 1;
pub const KIND_STORE: u16 = 2;
pub const KIND_JOIN: u16 = 3;
pub const KIND_RAFT: u16 = 4;

/// What precedes every message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub flags: u8,
    pub kind: u16,
    pub message_bytes: u32,
    pub bulk_bytes: u32,
}

/// Bytes that are not a message of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the peer speaks protocol {0}, this program {VERSION_MIN} to {VERSION}")]
    Version(u8),
    #[error("a message of {0} bytes is over the limit")]
    TooLarge(u64),
    #[error("the message is malformed: {0}")]
    Malformed(String),
    #[error("unexpected message kind {0}")]
    Kind(u16),
}

impl Header {
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = VERSION;
        bytes[1] = self.flags;
        bytes[2..4].copy_from_slice(&self.kind.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.message_bytes.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.bulk_bytes.to_le_bytes());
        bytes
    }

    /// # Errors
    /// `Version` for an unknown protocol, `TooLarge` for lengths over the limits.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Header, DecodeError> {
        if !(VERSION_MIN..=VERSION).contains(&bytes[0]) {
            return Err(DecodeError::Version(bytes[0]));
        }
        let header = Header {
            flags: bytes[1],
            kind: u16::from_le_bytes([bytes[2], bytes[3]]),
            message_bytes: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
            bulk_bytes: u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]),
        };
        if header.message_bytes as usize > MESSAGE_BYTES_MAX {
            return Err(DecodeError::TooLarge(header.message_bytes.into()));
        }
        if header.bulk_bytes as usize > BULK_BYTES_MAX {
            return Err(DecodeError::TooLarge(header.bulk_bytes.into()));
        }
        Ok(header)
    }
}

/// What [`encode`] takes: any rkyv type.
pub trait Encode: for<'a> rkyv::Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, RkyvError>> {}
impl<T> Encode for T where T: for<'a> rkyv::Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, RkyvError>> {}

/// What [`decode`] gives back: any rkyv type whose archive can be checked.
pub trait Decode: Archive + Sized {
    /// # Errors
    /// `Malformed` when the bytes are not a valid archive of this type.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError>;
}

impl<T> Decode for T
where
    T: Archive,
    T::Archived: for<'a> CheckBytes<HighValidator<'a, RkyvError>> + rkyv::Deserialize<T, HighDeserializer<RkyvError>>,
{
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        // The archive must be aligned; bytes off the network or a key-value store are where they are.
        let mut aligned = AlignedVec::<16>::with_capacity(bytes.len());
        aligned.extend_from_slice(bytes);
        rkyv::from_bytes::<T, RkyvError>(&aligned).map_err(|error| DecodeError::Malformed(error.to_string()))
    }
}

/// Archives a value.
///
/// # Panics
/// Never in practice: serialising our plain owned types into memory cannot fail.
pub fn encode<T: Encode>(value: &T) -> Vec<u8> {
    match rkyv::to_bytes::<RkyvError>(value) {
        Ok(bytes) => bytes.into_vec(),
        Err(error) => unreachable!("an owned value was not archived: {error}"),
    }
}

/// Reads an archive back, validated.
///
/// # Errors
/// `Malformed` when the bytes are not a valid archive of `T`.
pub fn decode<T: Decode>(bytes: &[u8]) -> Result<T, DecodeError> {
    T::decode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::id::Ino;

    #[test]
    fn headers_survive() {
        let header = Header { flags: 0, kind: KIND_META, message_bytes: 77, bulk_bytes: 1 << 20 };
        assert_eq!(Header::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn foreign_versions_and_sizes_are_refused() {
        let mut bytes = Header { flags: 0, kind: 1, message_bytes: u32::MAX, bulk_bytes: 0 }.encode();
        assert_eq!(Header::decode(&bytes), Err(DecodeError::TooLarge(u32::MAX.into())));
        bytes[0] = 9;
        assert_eq!(Header::decode(&bytes), Err(DecodeError::Version(9)));
    }

    #[test]
    fn garbage_is_an_error() {
        assert!(decode::<Vec<Vec<u8>>>(&[0xff; 24]).is_err());
        assert_eq!(decode::<Ino>(&encode(&Ino(7))), Ok(Ino(7)));
    }
}
