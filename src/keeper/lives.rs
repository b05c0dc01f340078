//! What follows when a client has ended. Pure.

use std::time::Duration;

/// Who ends sooner than this has not got on.
const LIVED: Duration = Duration::from_millis(500);
/// Before each next start of a client that does not get on.
const PAUSES_MS: [u64; 6] = [0, 50, 200, 500, 1_000, 2_000];

#[derive(Debug, Default)]
pub struct Lives {
    /// There is something to go on with.
    keeps: bool,
    /// The client has said that nobody is to follow it.
    done: bool,
    /// How many in a row have not got on.
    short: usize,
    /// How many of them have never served.
    unheard: usize,
    /// One has served.
    heard: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Another client, after a pause.
    Follows(Duration),
    /// The keeper ends as the client did.
    Ends,
}

impl Lives {
    pub fn keeps(&mut self) {
        self.keeps = true;
    }

    pub fn is_done(&mut self) {
        self.done = true;
    }

    /// Nobody is to follow.
    pub fn are_over(&self) -> bool {
        self.done
    }

    /// The program that is there does not serve: it, and the one that did, are tried in turn.
    pub fn wants_the_one_before(&self) -> bool {
        self.unheard % 2 == 1
    }

    /// Neither program gets on, and none has since the keeper was started: what it was started with may be wrong.
    pub fn got_nowhere(&self) -> bool {
        !self.heard && self.unheard >= 2
    }

    /// A client has ended after it had served for so long, if it ever did; or left, as it was told to.
    pub fn ended(&mut self, served: Option<Duration>, left: bool) -> Next {
        if self.done || !self.keeps {
            return Next::Ends;
        }
        self.heard |= served.is_some();
        self.unheard = if served.is_none() { self.unheard + 1 } else { 0 };
        self.short = if served.is_none_or(|served| served < LIVED) && !left { self.short + 1 } else { 0 };
        let pause = PAUSES_MS.get(self.short.saturating_sub(1)).or(PAUSES_MS.last());
        Next::Follows(Duration::from_millis(pause.copied().unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Option<Duration> = Some(Duration::from_secs(60));
    const SHORT: Option<Duration> = Some(Duration::from_millis(10));

    #[test]
    fn who_never_mounted_anything_is_not_followed() {
        assert_eq!(Lives::default().ended(LONG, false), Next::Ends);
    }

    #[test]
    fn a_client_is_followed_at_once_and_one_that_does_not_get_on_ever_later() {
        let mut lives = Lives::default();
        lives.keeps();
        assert_eq!(lives.ended(LONG, false), Next::Follows(Duration::ZERO));
        let pauses: Vec<Next> = (0..8).map(|_| lives.ended(SHORT, false)).collect();
        let due = [0, 50, 200, 500, 1_000, 2_000, 2_000, 2_000];
        assert_eq!(pauses, due.map(|ms| Next::Follows(Duration::from_millis(ms))));
        assert_eq!(lives.ended(SHORT, true), Next::Follows(Duration::ZERO), "an upgrade is none of its doing");
        lives.is_done();
        assert_eq!(lives.ended(LONG, false), Next::Ends);
    }

    #[test]
    fn a_program_that_does_not_get_on_takes_turns_with_the_one_before() {
        let mut lives = Lives::default();
        lives.keeps();
        assert!(!lives.wants_the_one_before());
        let mut turn = |served| (lives.ended(served, false), lives.wants_the_one_before()).1;
        assert_eq!([SHORT, None, None, None].map(&mut turn), [false, true, false, true]);
        assert!(!turn(SHORT), "what is there is what was meant to be");
    }

    #[test]
    fn a_keeper_got_nowhere_if_neither_program_has_served_since_it_was_started() {
        let mut lives = Lives::default();
        lives.keeps();
        let mut turn = |served| (lives.ended(served, false), lives.got_nowhere()).1;
        assert_eq!([None, None, None].map(&mut turn), [false, true, true]);
        assert_eq!([SHORT, None, None, None].map(&mut turn), [false; 4]);
    }
}
