//! The host's clocks. Two, never mixed: the wall clock for timestamps people see, the monotonic one for durations.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::types::attr::Time;

/// The wall clock. May jump in either direction: for timestamps only, never for order or for a timeout.
pub fn now() -> Time {
    time_of(SystemTime::now())
}

/// A [`SystemTime`] as ours, before 1970 as well.
pub fn time_of(at: SystemTime) -> Time {
    match at.duration_since(UNIX_EPOCH) {
        Ok(after) => Time { sec: after.as_secs() as i64, nsec: after.subsec_nanos() },
        Err(before) => {
            let before = before.duration();
            match before.subsec_nanos() {
                0 => Time { sec: -(before.as_secs() as i64), nsec: 0 },
                // Nanoseconds count forward, so the second below is the one it falls into.
                nanos => Time { sec: -(before.as_secs() as i64) - 1, nsec: 1_000_000_000 - nanos },
            }
        }
    }
}

/// Time since the host booted, **sleep included**. A client counts its session's patience with this one: a host that
/// was suspended must find its leases expired when it wakes, because the servers went on counting.
pub fn since_boot() -> Duration {
    let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `at` is a valid timespec for the call to fill in.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut at) };
    debug_assert_eq!(failed, 0, "CLOCK_BOOTTIME exists since Linux 2.6.39");
    Duration::new(at.tv_sec as u64, at.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_count_nanoseconds_forward() {
        assert_eq!(time_of(UNIX_EPOCH - Duration::from_millis(1)), Time { sec: -1, nsec: 999_000_000 });
        assert_eq!(time_of(UNIX_EPOCH - Duration::from_secs(2)), Time { sec: -2, nsec: 0 });
        assert_eq!(time_of(UNIX_EPOCH + Duration::from_millis(1500)), Time { sec: 1, nsec: 500_000_000 });
    }

    #[test]
    fn the_boot_clock_goes_forward() {
        let before = since_boot();
        assert!(before > Duration::ZERO && since_boot() >= before);
    }
}
