//! FIFOs, sockets and device nodes that may be open without our knowing.
//!
//! The kernel opens them by itself: no request tells us, so nothing holds such an inode once its last name is gone,
//! while a descriptor of it lives on and may be asked for its attributes. Those last seen are kept for it, from the
//! moment the kernel learns of the inode until it forgets it.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::types::attr::{Attr, FileKind};
use crate::types::id::Ino;

#[derive(Debug, Default)]
pub(super) struct SpecialFiles {
    seen: Mutex<HashMap<Ino, Attr>>,
}

impl SpecialFiles {
    /// The kernel is about to learn of this inode, or to see it anew.
    pub fn saw(&self, attr: &Attr) {
        match attr.kind {
            FileKind::File | FileKind::Dir | FileKind::Symlink => {}
            FileKind::Fifo | FileKind::Socket | FileKind::Char | FileKind::Block => {
                self.seen.lock().insert(attr.ino, attr.clone());
            }
        }
    }

    /// The attributes of an inode that is gone for everyone else.
    pub fn left_of(&self, ino: Ino) -> Option<Attr> {
        let seen = self.seen.lock();
        seen.get(&ino).map(|attr| Attr { nlink: 0, ..attr.clone() })
    }

    /// The kernel let go of the inode.
    pub fn forgot(&self, ino: Ino) {
        self.seen.lock().remove(&ino);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::attr::Time;

    fn attr(ino: u64, kind: FileKind) -> Attr {
        let time = Time::default();
        Attr {
            ino: Ino(ino),
            kind,
            mode: 0o600,
            uid: 0,
            gid: 0,
            nlink: 1,
            rdev: 0,
            size: 0,
            allocated_bytes: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            version: 1,
            has_acl: false,
            has_xattr: false,
        }
    }

    #[test]
    fn only_special_files_are_kept_and_only_until_they_are_forgotten() {
        let special = SpecialFiles::default();
        special.saw(&attr(2, FileKind::File));
        special.saw(&attr(3, FileKind::Fifo));
        assert_eq!(special.left_of(Ino(2)), None);
        assert_eq!(special.left_of(Ino(3)).map(|attr| attr.nlink), Some(0));
        special.forgot(Ino(3));
        assert_eq!(special.left_of(Ino(3)), None);
    }
}
