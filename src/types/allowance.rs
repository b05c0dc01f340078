//! What of a volume's quotas is set aside for one session, so that it can add to the volume and say so later. Pure.

use rkyv::{Archive, Deserialize, Serialize};

use super::op::{FallocateMode, Op};
use super::volume::{VolumePolicy, VolumeUsage};

/// Inodes, and allocated bytes before copies. Of what the volume has no quota on all that is wanted is set aside: when it gets one,
/// what was added by then, and not said, is known to fit.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    pub inodes: u64,
    pub bytes: u64,
}

/// With less to be had than this nothing more is set aside: every change asks then.
const LEAST: Allowance = Allowance { inodes: 16, bytes: 256 << 10 };

/// Nobody is promised more than this, whatever it asks for: sums of promises are to be exact.
const MOST: Allowance = Allowance { inodes: 1 << 32, bytes: 1 << 44 };

impl Allowance {
    /// What operations may add at most.
    pub fn of<'a>(ops: impl IntoIterator<Item = &'a Op>) -> Allowance {
        ops.into_iter().map(most).fold(Allowance::default(), Allowance::plus)
    }

    pub fn plus(self, other: Allowance) -> Allowance {
        Allowance { inodes: self.inodes.saturating_add(other.inodes), bytes: self.bytes.saturating_add(other.bytes) }
    }

    pub fn less(self, other: Allowance) -> Allowance {
        Allowance { inodes: self.inodes.saturating_sub(other.inodes), bytes: self.bytes.saturating_sub(other.bytes) }
    }

    pub fn at_most(self, other: Allowance) -> Allowance {
        Allowance { inodes: self.inodes.min(other.inodes), bytes: self.bytes.min(other.bytes) }
    }

    pub fn is_none(self) -> bool {
        self == Allowance::default()
    }

    /// What a session has from now on that wants to have `upto` in all: that, if it is less than it had; and up to half of
    /// what nobody uses and nobody was promised, so that something is left for the next who asks.
    pub fn adjusted(self, upto: Allowance, policy: &VolumePolicy, taken: Taken) -> Allowance {
        let upto = upto.at_most(MOST);
        let adjust = |had: u64, upto: u64, quota: u64, taken: u64, least: u64| match quota {
            _ if upto <= had => upto,
            0 => upto,
            quota => {
                let more = (upto - had).min(quota.saturating_sub(taken) / 2);
                if more < least { had } else { had + more }
            }
        };
        let all = taken.all();
        Allowance {
            inodes: adjust(self.inodes, upto.inodes, policy.quota_inodes, all.inodes, LEAST.inodes),
            bytes: adjust(self.bytes, upto.bytes, policy.quota_bytes, all.bytes, LEAST.bytes),
        }
    }
}

/// What of a volume's quotas cannot be had.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    pub usage: VolumeUsage,
    /// Set aside for sessions.
    pub promised: Allowance,
}

impl Taken {
    fn all(self) -> Allowance {
        Allowance { inodes: self.usage.inodes, bytes: self.usage.allocated_bytes }.plus(self.promised)
    }

    /// So much more can be had, besides all that was promised.
    pub fn leaves(self, more: Allowance, policy: &VolumePolicy) -> bool {
        let all = self.all().plus(more);
        let fits = |all: u64, quota: u64| quota == 0 || all <= quota;
        fits(all.inodes, policy.quota_inodes) && fits(all.bytes, policy.quota_bytes)
    }
}

fn most(op: &Op) -> Allowance {
    let bytes = |bytes: u64| Allowance { inodes: 0, bytes };
    match op {
        Op::Create(_) => Allowance { inodes: 1, bytes: 0 },
        Op::Write(write) => bytes(write.pieces.iter().map(|piece| u64::from(piece.len)).sum()),
        Op::CopyRange { len, .. } => bytes(*len),
        Op::Fallocate { mode: FallocateMode::Allocate { .. } | FallocateMode::Zero { .. }, len, .. } => bytes(*len),
        _ => Allowance::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn policy(quota_inodes: u64, quota_bytes: u64) -> VolumePolicy {
        VolumePolicy { quota_inodes, quota_bytes, ..VolumePolicy::default() }
    }

    fn taken(inodes: u64, bytes: u64, promised: Allowance) -> Taken {
        Taken { usage: VolumeUsage { inodes, allocated_bytes: bytes }, promised }
    }

    #[test]
    fn half_of_what_is_left_can_be_had_at_a_time() {
        let (policy, upto) = (policy(1000, 100 * MIB), Allowance { inodes: 300, bytes: 200 * MIB });
        let first = Allowance::default().adjusted(upto, &policy, taken(100, 0, Allowance::default()));
        assert_eq!(first, Allowance { inodes: 300, bytes: 50 * MIB });
        let more = first.adjusted(upto, &policy, taken(100, 0, first));
        assert_eq!(more, Allowance { inodes: 300, bytes: 75 * MIB });
        let scarce = taken(990, 100 * MIB, Allowance::default());
        assert_eq!(Allowance::default().adjusted(upto, &policy, scarce), Allowance::default(), "too little");
    }

    #[test]
    fn who_wants_less_gives_back() {
        let (policy, had) = (policy(1000, 100 * MIB), Allowance { inodes: 300, bytes: MIB });
        let less = Allowance { inodes: 7, bytes: 0 };
        assert_eq!(had.adjusted(less, &policy, taken(100, 0, had)), less);
    }

    #[test]
    fn of_what_has_no_bounds_all_that_is_wanted_is_set_aside() {
        let upto = Allowance { inodes: 300, bytes: MIB };
        let free = taken(100, 5 * MIB, Allowance::default());
        assert_eq!(Allowance::default().adjusted(upto, &policy(0, 0), free), upto);
        let absurd = Allowance { inodes: u64::MAX, bytes: u64::MAX };
        assert_eq!(Allowance::default().adjusted(absurd, &policy(0, 0), free), MOST);
        assert!(free.leaves(Allowance { inodes: u64::MAX, bytes: u64::MAX }, &policy(0, 0)));
    }

    #[test]
    fn what_was_promised_is_not_left_to_others() {
        let (policy, promised) = (policy(1000, 0), Allowance { inodes: 300, bytes: 0 });
        let one = |inodes| Allowance { inodes, bytes: 0 };
        assert!(taken(600, 0, promised).leaves(one(100), &policy));
        assert!(!taken(600, 0, promised).leaves(one(101), &policy));
    }
}
