//! Whether names of a directory that are asked for one by one are listed along with those after them, and how many. Pure.
//!
//! A listing with attributes costs as much as a look-up for every sixteen names in it (measured). So as much is listed as
//! half of what the asking has cost. Together that is at most three times what would have been best: for who asks for a
//! few names of many, for who asks for all of them in any order, and for who makes names, which a listing that has come
//! to its end serves. Whoever goes through a directory in about its order (`git status`, `tar`) shows it by using most of
//! what was listed last: then more is listed at once.

use crate::types::limits::READDIR_ENTRIES_MAX;

/// Entries of the shortest listing.
pub const LIST_ENTRIES_MIN: usize = 64;
/// Names of the shortest listing of names alone.
const LIST_NAMES_MIN: usize = 512;
/// Entries that cost half of what a look-up costs.
const LOOKUP_ENTRIES: usize = 8;
/// Names alone that do.
const LOOKUP_NAMES: usize = 64;
/// A listing is used when one in so many of its names was asked for, and
const USED_IN: usize = 4;
/// the next one is so many times as long.
const GROWTH: usize = 4;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListAhead {
    /// Names that were asked for alone since the last listing.
    alone: usize,
    /// Those of them that were not there.
    absent: usize,
    /// Of the last listing: its names, and how many of them were asked for since.
    listed: usize,
    used: usize,
}

impl ListAhead {
    /// A name was not known, and asked for.
    pub fn missed(&mut self, is_there: bool) {
        self.alone = self.alone.saturating_add(1);
        self.absent = self.absent.saturating_add(usize::from(!is_there));
    }

    /// A name that a listing has told was asked for, for the first time.
    pub fn used(&mut self) {
        self.used += 1;
    }

    /// Most of what is asked for is not there.
    pub fn makes_names(&self) -> bool {
        self.absent * 2 > self.alone
    }

    /// How many names to list without what they lead to: for who makes some.
    pub fn names(&self) -> Option<usize> {
        let paid = self.absent.saturating_mul(LOOKUP_NAMES).min(READDIR_ENTRIES_MAX);
        (paid >= LIST_NAMES_MIN).then_some(paid)
    }

    /// How many entries to list before the next name is asked for; `None`: none.
    pub fn entries(&self) -> Option<usize> {
        let paid = self.alone.saturating_mul(LOOKUP_ENTRIES);
        let goes_through = self.alone > 0 && self.listed > 0 && self.used * USED_IN >= self.listed;
        let next = if goes_through { paid.max(self.listed * GROWTH).max(LIST_ENTRIES_MIN) } else { paid };
        (next >= LIST_ENTRIES_MIN).then_some(next.min(READDIR_ENTRIES_MAX))
    }

    /// So many were listed.
    pub fn listed(&mut self, entries: usize) {
        *self = ListAhead { listed: entries, ..ListAhead::default() };
    }

    /// What was listed could not be kept: as if it had not been.
    pub fn listed_in_vain(&mut self) {
        (self.alone, self.absent) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names asked for alone until something is listed, and how many entries that is.
    fn until_listed(ahead: &mut ListAhead) -> (usize, usize) {
        for alone in 0..=READDIR_ENTRIES_MAX {
            if let Some(entries) = ahead.entries() {
                ahead.listed(entries);
                return (alone, entries);
            }
            ahead.missed(true);
        }
        panic!("never listed");
    }

    #[test]
    fn who_goes_through_a_directory_has_longer_and_longer_listings_at_once() {
        let mut ahead = ListAhead::default();
        assert_eq!(until_listed(&mut ahead), (8, 64));
        for entries in [256, 1024, 1024] {
            (0..ahead.listed / 2).for_each(|_| ahead.used());
            assert_eq!(until_listed(&mut ahead), (1, entries));
        }
    }

    #[test]
    fn who_asks_here_and_there_has_half_as_much_listed_as_the_asking_cost() {
        let mut ahead = ListAhead::default();
        until_listed(&mut ahead);
        for _ in 0..9 {
            (0..15).for_each(|_| ahead.used());
            assert_eq!(until_listed(&mut ahead), (8, 64));
        }
        (0..1000).for_each(|_| ahead.missed(true));
        assert_eq!(until_listed(&mut ahead), (0, READDIR_ENTRIES_MAX));
    }

    #[test]
    fn names_alone_are_listed_for_who_makes_some() {
        let mut ahead = ListAhead::default();
        (0..99).for_each(|_| ahead.missed(true));
        assert_eq!(ahead.names(), None);
        assert!(!ahead.makes_names());
        (0..7).for_each(|_| ahead.missed(false));
        assert_eq!(ahead.names(), None);
        ahead.missed(false);
        assert_eq!(ahead.names(), Some(512));
        (0..100).for_each(|_| ahead.missed(false));
        assert_eq!((ahead.makes_names(), ahead.names()), (true, Some(READDIR_ENTRIES_MAX)));
    }

    #[test]
    fn what_could_not_be_kept_is_tried_again_after_as_many() {
        let mut ahead = ListAhead::default();
        (0..8).for_each(|_| ahead.missed(true));
        ahead.listed_in_vain();
        assert_eq!(until_listed(&mut ahead), (8, 64));
    }
}
