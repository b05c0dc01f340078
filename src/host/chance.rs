//! Random bytes from the kernel.

use crate::types::id::{ClusterId, DiskId};

/// `N` unpredictable bytes, good enough for keys.
///
/// # Panics
/// When the kernel has no random bytes to give. On Linux, which Holdfast needs anyway, that does not happen, and there
/// is no way to go on safely if it does.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if let Err(error) = getrandom::fill(&mut bytes) {
        panic!("the kernel gives no random bytes: {error}");
    }
    bytes
}

pub fn number() -> u64 {
    u64::from_le_bytes(bytes())
}

/// A new cluster's id.
pub fn cluster_id() -> ClusterId {
    ClusterId(bytes())
}

/// A new disk's id.
pub fn disk_id() -> DiskId {
    DiskId(bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ() {
        assert_ne!(cluster_id(), cluster_id());
        assert_ne!(number(), number());
    }
}
