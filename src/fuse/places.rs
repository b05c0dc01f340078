//! Where the kernel has each directory.
//!
//! A directory has one place in the kernel's tree. When another host has moved it, the kernel moves its own the next time that
//! it is looked up elsewhere; but not within a rename, which holds the lock that this takes: the rename fails with ESTALE, as
//! often as it is tried. So when a directory is found elsewhere than the kernel has it, the kernel is made to drop the old
//! name first. One that is in use (a working directory, say) stays where it is until a path through it is walked.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::types::id::Ino;
use crate::types::name::Name;

/// A name in a directory.
pub(super) type Place = (Ino, Name);

#[derive(Debug, Default)]
pub(super) struct Places {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    of: HashMap<Ino, Place>,
    at: HashMap<Place, Ino>,
}

impl Places {
    /// The kernel is about to learn that a directory is at this place. Where it has it otherwise, if that is in another
    /// directory: within one it can move it.
    pub fn found(&self, dir: Ino, place: &Place) -> Option<Place> {
        let mut known = self.known.lock();
        let before = known.of.get(&dir).filter(|before| before.0 != place.0).cloned();
        known.put(dir, place);
        before
    }

    /// The kernel is about to learn that there is no directory at this place: whatever it had there it lets go of by itself.
    pub fn is_no_dir(&self, place: &Place) {
        let mut known = self.known.lock();
        if let Some(dir) = known.at.get(place).copied() {
            known.forget(dir);
        }
    }

    /// Whether the kernel has a directory in another directory than this.
    pub fn is_elsewhere(&self, dir: Ino, place: &Place) -> bool {
        self.known.lock().of.get(&dir).is_some_and(|has| has.0 != place.0)
    }

    /// Whether this is (still) where the kernel has something else by now, or nothing.
    pub fn is_vacant(&self, place: &Place) -> bool {
        !self.known.lock().at.contains_key(place)
    }

    /// The kernel has moved something; what was at the new place may be at the old one now.
    pub fn renamed(&self, from: &Place, to: &Place, exchanged: bool) {
        let mut known = self.known.lock();
        let (moved, replaced) = (known.at.get(from).copied(), known.at.get(to).copied());
        replaced.iter().for_each(|dir| known.forget(*dir));
        moved.iter().for_each(|dir| known.put(*dir, to));
        replaced.iter().filter(|_| exchanged).for_each(|dir| known.put(*dir, from));
    }

    /// The kernel let go of the inode.
    pub fn forgot(&self, ino: Ino) {
        self.known.lock().forget(ino);
    }
}

impl Known {
    /// Whatever was there before is there no more.
    fn put(&mut self, dir: Ino, place: &Place) {
        if self.of.get(&dir) == Some(place) {
            return;
        }
        self.forget(dir);
        if let Some(other) = self.at.insert(place.clone(), dir) {
            self.of.remove(&other);
        }
        self.of.insert(dir, place.clone());
    }

    fn forget(&mut self, dir: Ino) {
        if let Some(place) = self.of.remove(&dir) {
            self.at.remove(&place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(dir: u64, name: &str) -> Place {
        (Ino(dir), Name::new(name).unwrap())
    }

    #[test]
    fn what_another_host_moved_to_another_directory_is_told() {
        let places = Places::default();
        let x = Ino(9);
        assert_eq!(places.found(x, &place(1, "a")), None);
        assert_eq!(places.found(x, &place(1, "a")), None);
        assert_eq!(places.found(x, &place(1, "b")), None, "the kernel can do that within a directory");
        assert_eq!(places.found(x, &place(2, "b")), Some(place(1, "b")));
        places.forgot(x);
        assert_eq!(places.found(x, &place(3, "b")), None);
        places.forgot(x);
        assert!(places.known.lock().at.is_empty());
    }

    #[test]
    fn a_place_that_has_something_else_by_now_is_left_alone() {
        let places = Places::default();
        let (x, y) = (Ino(8), Ino(9));
        places.found(x, &place(1, "a"));
        places.found(y, &place(1, "a"));
        assert_eq!(places.found(x, &place(2, "b")), None, "y is there now");
        places.found(y, &place(1, "a"));
        places.is_no_dir(&place(1, "a"));
        assert_eq!(places.found(y, &place(2, "c")), None, "a file is");
        assert!(places.is_vacant(&place(1, "a")) && !places.is_vacant(&place(2, "c")));
        assert!(places.is_elsewhere(y, &place(1, "z")) && !places.is_elsewhere(y, &place(2, "z")));
    }

    #[test]
    fn what_was_moved_here_is_where_it_was_moved_to() {
        let places = Places::default();
        let (x, y) = (Ino(8), Ino(9));
        places.found(x, &place(1, "x"));
        places.found(y, &place(2, "y"));
        places.renamed(&place(1, "x"), &place(2, "y"), true);
        assert_eq!((places.found(x, &place(2, "y")), places.found(y, &place(1, "x"))), (None, None));
        places.renamed(&place(2, "y"), &place(3, "z"), false);
        assert_eq!(places.found(x, &place(3, "z")), None);
        places.renamed(&place(1, "x"), &place(3, "z"), false);
        assert_eq!(places.found(y, &place(3, "z")), None);
        assert_eq!(places.found(x, &place(4, "x")), None, "it was replaced");
    }
}
