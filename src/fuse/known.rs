//! Directories whose inode the kernel has for certain.
//!
//! The kernel keeps attributes for as long as a reply says, and drops them when it is told to, if it has the inode by then.
//! A reply to the look-up by which it learns of an inode may be overtaken by that. So that reply says "for no time", and
//! later ones, which find the inode there, say more.

use std::collections::HashSet;

use parking_lot::Mutex;

use crate::types::id::Ino;

#[derive(Debug, Default)]
pub(super) struct KnownDirs {
    known: Mutex<HashSet<Ino>>,
}

impl KnownDirs {
    /// A request named this inode: the kernel has it.
    pub fn named(&self, ino: Ino) {
        self.known.lock().insert(ino);
    }

    pub fn has(&self, ino: Ino) -> bool {
        self.known.lock().contains(&ino)
    }

    /// The kernel let go of the inode.
    pub fn forgot(&self, ino: Ino) {
        self.known.lock().remove(&ino);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_named_is_known_until_it_is_forgotten() {
        let dirs = KnownDirs::default();
        assert!(!dirs.has(Ino(2)));
        dirs.named(Ino(2));
        assert!(dirs.has(Ino(2)));
        dirs.forgot(Ino(2));
        assert!(!dirs.has(Ino(2)));
    }
}
