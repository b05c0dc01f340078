//! The score a disk draws for a slot, in integers.

use std::cmp::Ordering;

use crate::types::digest::{ChunkId, Slot};
use crate::types::id::DiskId;

/// Fraction bits of the logarithm.
const FRACTION_BITS: u32 = 40;

/// `weight / -log2(u)` for a `u` in (0, 1) drawn from (disk, slot): the largest wins, and a disk wins in proportion to
/// its weight. Kept as the two numbers and compared crosswise, so that nothing is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Score {
    weight: u32,
    /// `-log2(u)` with [`FRACTION_BITS`] of fraction; at least 1.
    distance: u64,
}

impl Score {
    pub fn new(disk: &DiskId, weight: u32, slot: Slot) -> Score {
        Score { weight, distance: distance(draw(disk, slot)) }
    }
}

impl Ord for Score {
    fn cmp(&self, other: &Score) -> Ordering {
        // weight_a / distance_a against weight_b / distance_b.
        let ours = u128::from(self.weight) * u128::from(other.distance);
        let theirs = u128::from(other.weight) * u128::from(self.distance);
        ours.cmp(&theirs)
    }
}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Score) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// 64 uniform bits that every program draws alike, for ever.
fn draw(disk: &DiskId, slot: Slot) -> u64 {
    let mut seed = [0; 18];
    seed[..16].copy_from_slice(&disk.0);
    seed[16..].copy_from_slice(&slot.0.to_be_bytes());
    let hash = ChunkId::of(&seed).0;
    u64::from_be_bytes([hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7]])
}

/// `-log2(draw / 2^64)` in fixed point, at least 1.
fn distance(draw: u64) -> u64 {
    // A draw of zero would be infinitely far; one in 2^64 may as well be one.
    let draw = draw.max(1);
    let whole = u64::from(63 - draw.leading_zeros());
    // The mantissa, in [1, 2) with 63 bits of fraction; squaring it doubles its logarithm, which shifts out one bit.
    let mut mantissa = draw << draw.leading_zeros();
    let mut fraction = 0_u64;
    for _ in 0..FRACTION_BITS {
        let square = (u128::from(mantissa) * u128::from(mantissa)) >> 63;
        let carry = (square >> 64) as u64;
        mantissa = if carry == 1 { (square >> 1) as u64 } else { square as u64 };
        fraction = (fraction << 1) | carry;
    }
    ((64 << FRACTION_BITS) - ((whole << FRACTION_BITS) | fraction)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_is_a_logarithm() {
        for draw in [1, 2, 3, 1000, u64::from(u32::MAX), 1 << 63, (1 << 63) + 12345, u64::MAX] {
            let exact = 64.0 - (draw as f64).log2();
            let ours = distance(draw) as f64 / (1_u64 << FRACTION_BITS) as f64;
            assert!((ours - exact).abs() < 1e-9, "{draw}: {ours} and not {exact}");
        }
        assert_eq!(distance(0), distance(1));
    }

    #[test]
    fn the_draw_never_changes() {
        // A change here moves every chunk of every cluster.
        assert_eq!(draw(&DiskId([7; 16]), Slot(5)), 13_663_701_488_550_494_106);
    }
}
