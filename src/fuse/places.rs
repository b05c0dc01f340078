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
        match known.put(dir, place) {
            Some(before) if before.0 != place.0 => Some(before),
            _ => None,
        }
    }

    /// Takes note that the kernel is about to learn of a directory, unless it has it elsewhere.
    pub fn has_at(&self, dir: Ino, place: &Place) -> bool {
        let mut known = self.known.lock();
        let is_here = known.of.get(&dir).is_none_or(|has| has.0 == place.0);
        if is_here {
            known.put(dir, place);
        }
        is_here
    }

    /// The kernel has moved something; what was at the new place may be at the old one now.
    pub fn renamed(&self, from: &Place, to: &Place, exchanged: bool) {
        let mut known = self.known.lock();
        let (moved, replaced) = (known.at.get(from).copied(), known.at.get(to).copied());
        replaced.iter().for_each(|dir| known.forget(*dir));
        moved.iter().for_each(|dir| drop(known.put(*dir, to)));
        replaced.iter().filter(|_| exchanged).for_each(|dir| drop(known.put(*dir, from)));
    }

    /// The kernel let go of the inode.
    pub fn forgot(&self, ino: Ino) {
        self.known.lock().forget(ino);
    }
}

impl Known {
    fn put(&mut self, dir: Ino, place: &Place) -> Option<Place> {
        let before = self.of.insert(dir, place.clone());
        if before.as_ref() != Some(place) {
            before.iter().for_each(|before| self.leave(before, dir));
            self.at.insert(place.clone(), dir);
        }
        before
    }

    fn forget(&mut self, dir: Ino) {
        if let Some(place) = self.of.remove(&dir) {
            self.leave(&place, dir);
        }
    }

    /// Another may be there by now.
    fn leave(&mut self, place: &Place, dir: Ino) {
        if self.at.get(place) == Some(&dir) {
            self.at.remove(place);
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
