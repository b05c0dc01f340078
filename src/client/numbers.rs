//! Inode numbers that the leader has set aside for this session.
//!
//! They are used in ascending order, each once, and in the order of the journal: whoever makes an inode holds the lock from
//! the look at the number until the record is appended.

use std::collections::VecDeque;

use parking_lot::{Mutex, MutexGuard};

use crate::types::id::Ino;

/// Numbers asked for at a time.
pub const RESERVE: u64 = 4096;
/// With fewer left more are asked for.
const LOW: u64 = RESERVE / 2;

#[derive(Default)]
pub struct Numbers {
    state: Mutex<State>,
}

#[derive(Default)]
pub struct State {
    ranges: VecDeque<(u64, u64)>,
    /// Counts sessions: what one was given is void under the next.
    life: u64,
    asking: bool,
}

impl Numbers {
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The session is gone.
    pub fn lose(&self) {
        let mut state = self.state.lock();
        let life = state.life + 1;
        *state = State { life, ..State::default() };
    }

    /// More are to be asked for, and nobody does.
    pub fn is_low(&self) -> bool {
        let state = self.state.lock();
        !state.asking && state.left() < LOW
    }

    /// Whether it is for the caller to ask for more now; under which count of sessions, to be handed back.
    pub fn ask(&self) -> Option<u64> {
        let mut state = self.state.lock();
        if state.asking || state.left() >= LOW {
            return None;
        }
        state.asking = true;
        Some(state.life)
    }

    /// Ends what [`Numbers::ask`] began.
    pub fn told(&self, life: u64, first: Option<Ino>) {
        let mut state = self.state.lock();
        if state.life != life {
            return;
        }
        state.asking = false;
        if let Some(first) = first {
            state.ranges.push_back((first.0, first.0 + RESERVE));
        }
    }
}

impl State {
    fn left(&self) -> u64 {
        self.ranges.iter().map(|(next, end)| end - next).sum()
    }

    pub fn next(&self) -> Option<Ino> {
        self.ranges.front().map(|(next, _)| Ino(*next))
    }

    /// The next one is used.
    pub fn advance(&mut self) {
        if let Some((next, end)) = self.ranges.front_mut() {
            *next += 1;
            if next == end {
                self.ranges.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_ascend_and_do_not_outlive_the_session() {
        let numbers = Numbers::default();
        let life = numbers.ask().unwrap();
        assert_eq!(numbers.ask(), None, "it is asked already");
        numbers.told(life, Some(Ino(100)));
        let next = |numbers: &Numbers| {
            let mut state = numbers.lock();
            let next = state.next();
            state.advance();
            next
        };
        assert_eq!((next(&numbers), next(&numbers)), (Some(Ino(100)), Some(Ino(101))));
        numbers.lose();
        assert_eq!(next(&numbers), None);
        numbers.told(life, Some(Ino(5000)));
        assert_eq!(next(&numbers), None, "they were another session's");
    }
}
