//! A directory's lock: one process at a time.
//!
//! An flock on a file in the directory. The kernel drops it with the last descriptor, so nothing stays behind after
//! kill -9. It is released by name when dropped, and not left to the closing of the descriptor: a child that another
//! thread is just forking has a copy of that until it executes its program, and would hold the lock for that long.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::path::Path;

/// Held until dropped.
#[derive(Debug)]
pub struct FileLock {
    file: File,
}

/// Why a lock was not had.
#[derive(Debug)]
pub enum LockError {
    /// Another process, or another place in this one, holds it; the file can be read for what it left there.
    Held(File),
    Io(io::Error),
}

impl FileLock {
    /// Locks the file at `path`, which is made if need be. What is in it stays.
    ///
    /// # Errors
    /// See [`LockError`]. Never waits.
    pub fn take(path: &Path) -> Result<FileLock, LockError> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(LockError::Io)?;
        match file.try_lock() {
            Ok(()) => Ok(FileLock { file }),
            Err(TryLockError::WouldBlock) => Err(LockError::Held(file)),
            Err(TryLockError::Error(error)) => Err(LockError::Io(error)),
        }
    }

    /// Leaves the lock to a child that was forked while it was held, and lives on with it.
    pub fn leave_to_child(self) {
        mem::forget(self);
    }
}

impl Deref for FileLock {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl DerefMut for FileLock {
    fn deref_mut(&mut self) -> &mut File {
        &mut self.file
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Closing does it too, only later.
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_exclusive_and_ends_with_its_holder_even_while_a_copy_is_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = FileLock::take(&path).unwrap();
        assert!(matches!(FileLock::take(&path), Err(LockError::Held(_))));
        // What a child has between fork and exec.
        let copy = held.file.try_clone().unwrap();
        drop(held);
        drop(FileLock::take(&path).unwrap());
        let left = FileLock { file: copy };
        left.file.try_lock().unwrap();
        left.leave_to_child();
        assert!(matches!(FileLock::take(&path), Err(LockError::Held(_))));
    }
}
