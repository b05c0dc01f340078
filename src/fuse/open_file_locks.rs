//! The locks that the kernel forgets to drop: those of open file descriptions.
//!
//! When the last descriptor of an open file goes, the kernel drops its flock (release says so) and the locks of the
//! process (flush says so), but its OFD locks only if it keeps them itself, which it does not for FUSE.
//! [`OpenFileLocks`] remembers, per open file, who locked ranges through it; whoever was not dropped by a flush when the
//! file is released is an OFD lock's owner.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::client::api::{Handle, Result};
use crate::client::kept::Kept;
use crate::types::id::Ino;

/// Who locked ranges through which open file and may still hold them.
#[derive(Debug, Default)]
pub(super) struct OpenFileLocks {
    owners: Mutex<HashMap<Ino, Vec<(Handle, u64)>>>,
    kept: Option<Arc<Kept>>,
}

impl OpenFileLocks {
    /// With those that a process before has remembered.
    pub fn new(kept: Option<Arc<Kept>>) -> OpenFileLocks {
        let mut owners: HashMap<Ino, Vec<(Handle, u64)>> = HashMap::new();
        for (ino, handle, owner) in kept.iter().flat_map(|kept| kept.descriptions()) {
            owners.entry(ino).or_default().push((handle, owner));
        }
        OpenFileLocks { owners: Mutex::new(owners), kept }
    }

    /// # Errors
    /// `NoSpace`: more have locks than can be kept.
    pub fn locked(&self, ino: Ino, handle: Handle, owner: u64) -> Result<()> {
        let mut owners = self.owners.lock();
        let owners = owners.entry(ino).or_default();
        if !owners.contains(&(handle, owner)) {
            if let Some(kept) = &self.kept {
                kept.locked_through(ino, handle, owner)?;
            }
            owners.push((handle, owner));
        }
        Ok(())
    }

    /// A process closed a descriptor of the file: what it held is dropped.
    pub fn flushed(&self, ino: Ino, owner: u64) {
        self.retain(ino, |(_, other)| other != owner);
    }

    /// The open file is gone. Returns the owners whose locks nobody dropped.
    pub fn released(&self, ino: Ino, handle: Handle) -> Vec<u64> {
        let mut left = Vec::new();
        self.retain(ino, |(other, owner)| {
            if other == handle {
                left.push(owner);
            }
            other != handle
        });
        left
    }

    fn retain(&self, ino: Ino, mut keep: impl FnMut((Handle, u64)) -> bool) {
        let mut files = self.owners.lock();
        if let Some(owners) = files.get_mut(&ino) {
            owners.retain(|entry| {
                let stays = keep(*entry);
                if let Some(kept) = self.kept.as_ref().filter(|_| !stays) {
                    kept.unlocked_through(ino, entry.0, entry.1);
                }
                stays
            });
            if owners.is_empty() {
                files.remove(&ino);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_owners_that_were_not_flushed_are_left() {
        let (ino, a, b) = (Ino(7), Handle(1), Handle(2));
        let locks = OpenFileLocks::default();
        for (handle, owner) in [(a, 10), (a, 10), (a, 11), (b, 10)] {
            locks.locked(ino, handle, owner).unwrap();
        }
        locks.flushed(ino, 10);
        assert_eq!(locks.released(ino, a), [11]);
        assert_eq!(locks.released(ino, b), [0u64; 0]);
        assert!(locks.owners.lock().is_empty());
    }
}
