//! How much the disk under the log can still take, and what follows from that.

use crate::types::limits::META_RESERVE_BYTES;

/// Below this, clients are told to buffer nothing: what they accept must not be refused later.
const TIGHT_BYTES: u64 = 2 * META_RESERVE_BYTES;

/// What the disk under the log can take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogRoom {
    #[default]
    Ample,
    Tight,
    /// Only changes that free something; others are refused with ENOSPC.
    Full,
}

impl LogRoom {
    pub fn of(free_bytes: u64) -> LogRoom {
        match free_bytes {
            ..META_RESERVE_BYTES => LogRoom::Full,
            META_RESERVE_BYTES..TIGHT_BYTES => LogRoom::Tight,
            _ => LogRoom::Ample,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_warned_before_changes_are_refused() {
        assert_eq!(LogRoom::of(TIGHT_BYTES), LogRoom::Ample);
        assert_eq!(LogRoom::of(TIGHT_BYTES - 1), LogRoom::Tight);
        assert_eq!(LogRoom::of(META_RESERVE_BYTES), LogRoom::Tight);
        assert_eq!(LogRoom::of(META_RESERVE_BYTES - 1), LogRoom::Full);
    }
}
