//! Which accesses are noted, and as when: `relatime`.

use crate::types::attr::{Attr, Time};

/// An access that was noticed and is not told yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The time of access that was there to be seen. Once it is another, somebody has read or set it since.
    pub was: Time,
    pub at: Time,
}

const DAY_S: i64 = 24 * 3600;
/// A change further ahead of our clock was given its time by hand; one nearer got it from another host's clock.
const SKEW_S: i64 = 2;

/// The time of access after a read at `now`, if it is to change: once after a change, and once a day. `noted`: there was an
/// access that the leader has not been told of.
pub fn of_access(attr: &Attr, now: Time, noted: bool) -> Option<Time> {
    let changes = [attr.mtime, attr.ctime];
    let to_come = |change: &Time| change.sec > now.sec + SKEW_S;
    // What has a time to come is unread after each read: once a second will do.
    let unread = changes.iter().any(|change| attr.atime <= *change && !(to_come(change) && attr.atime.sec == now.sec));
    let old = attr.atime.sec.saturating_add(DAY_S) <= now.sec;
    // Past the changes, so that one read after them is enough.
    let past = |change: Time| Time { nsec: (change.nsec + 1).min(999_999_999), ..change };
    let time = changes.into_iter().filter(|change| !to_come(change)).map(past).fold(now, Time::max);
    (unread || (old && !noted)).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::attr::FileKind;
    use crate::types::id::Ino;

    const NOW: Time = Time { sec: 1_000_000, nsec: 5 };

    fn after(sec: i64) -> Time {
        Time { sec: NOW.sec + sec, nsec: 7 }
    }

    fn attr(atime: Time, mtime: Time) -> Attr {
        Attr { atime, mtime, ..Attr::born(Ino(7), FileKind::File, after(-2 * DAY_S)) }
    }

    #[test]
    fn once_after_a_change_and_once_a_day() {
        let read = of_access(&attr(after(-100), after(-50)), NOW, false);
        assert_eq!(read, Some(NOW));
        assert_eq!(of_access(&attr(NOW, after(-50)), after(10), false), None);
        assert_eq!(of_access(&attr(NOW, after(-50)), after(DAY_S), false), Some(after(DAY_S)));
        assert_eq!(of_access(&attr(NOW, after(-50)), after(DAY_S), true), None);
    }

    #[test]
    fn a_change_by_a_clock_that_is_ahead_is_read_once() {
        let read = of_access(&attr(after(-100), after(1)), NOW, false).unwrap();
        assert!(read > after(1));
        assert_eq!(of_access(&attr(read, after(1)), after(0), false), None);
    }

    #[test]
    fn a_time_of_change_to_come_is_no_time_of_access() {
        assert_eq!(of_access(&attr(after(-100), after(5000)), NOW, false), Some(NOW));
        assert_eq!(of_access(&attr(NOW, after(5000)), Time { nsec: 900, ..NOW }, false), None);
        assert_eq!(of_access(&attr(NOW, after(5000)), after(1), false), Some(after(1)));
    }
}
