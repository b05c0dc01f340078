//! Identifiers. Never bare integers: a store is not an inode.

use std::fmt;

use rkyv::{Archive, Deserialize, Serialize};

macro_rules! numeric_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize, Clone, Copy, Debug, Default,
            PartialEq, Eq, PartialOrd, Ord, Hash,
        )]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "{}", self.0)
            }
        }
    };
}

numeric_id!(
    /// An inode number, unique within a tree for all time (never reused).
    Ino
);
numeric_id!(
    /// A volume: one namespace with its own policy.
    VolumeId
);
numeric_id!(
    /// A namespace tree. A volume points at its live tree; snapshots will freeze one and add another.
    TreeId
);
numeric_id!(
    /// A metadata server, a member of the Raft group. Starts at 1.
    MetaId
);
numeric_id!(
    /// A storage daemon. Starts at 1.
    StoreId
);
numeric_id!(
    /// A client's registration with the metadata service. Never reused.
    SessionId
);

impl Ino {
    /// The root directory of every tree.
    pub const ROOT: Ino = Ino(1);
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Archive, Serialize, Deserialize, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[rkyv(derive(PartialEq, Eq, PartialOrd, Ord))]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "{}({self})", stringify!($name))
            }
        }

        impl std::str::FromStr for $name {
            type Err = ParseIdError;

            /// Reads 32 hexadecimal digits.
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let digits = text.as_bytes();
                if digits.len() != 32 || !digits.is_ascii() {
                    return Err(ParseIdError);
                }
                let mut id = [0; 16];
                for (byte, pair) in id.iter_mut().zip(digits.chunks(2)) {
                    let pair = std::str::from_utf8(pair).map_err(|_| ParseIdError)?;
                    *byte = u8::from_str_radix(pair, 16).map_err(|_| ParseIdError)?;
                }
                Ok($name(id))
            }
        }
    };
}

random_id!(
    /// A cluster, made by `holdfast cluster init`. Every directory and certificate carries it.
    ClusterId
);
random_id!(
    /// One directory or device of a store, written into it when it is first used.
    DiskId
);

/// The text is not 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id is 32 hexadecimal digits")]
pub struct ParseIdError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_survive_their_text_form() {
        let id = ClusterId([0xa5; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("xyz".parse::<DiskId>(), Err(ParseIdError));
    }
}
