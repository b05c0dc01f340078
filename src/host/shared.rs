//! Memory that outlives a process: a file without a name, whose descriptor can be given to another process.
//!
//! It is seen as words that are read and written whole. What one process has stored is there for the next one, however the
//! first ended; what it had not stored is not.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// It can be neither grown nor shrunk: whoever maps it can touch all of it.
const SEALS: libc::c_int = libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;

#[derive(Debug)]
pub struct SharedMemory {
    file: OwnedFd,
    first: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: it is reached as atomic words alone, from any thread.
unsafe impl Send for SharedMemory {}
// SAFETY: as above.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// So many words of zeros. What is never touched takes no memory.
    ///
    /// # Errors
    /// The host gives no such file, or no room for it.
    pub fn create(name: &CStr, words: usize) -> io::Result<SharedMemory> {
        // SAFETY: a NUL-terminated string that outlives the call.
        let file = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
        if file < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor that the call has made, and that nobody else has.
        let file = unsafe { OwnedFd::from_raw_fd(file) };
        let bytes = i64::try_from(words * size_of::<u64>()).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: both take a descriptor that is open, and numbers.
        let sized = unsafe {
            libc::ftruncate(file.as_raw_fd(), bytes) == 0
                && libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, SEALS) == 0
        };
        if !sized {
            return Err(io::Error::last_os_error());
        }
        SharedMemory::open(file)
    }

    /// What another process has made.
    ///
    /// # Errors
    /// `InvalidData` when it is not one of these, or what the host says.
    pub fn open(file: OwnedFd) -> io::Result<SharedMemory> {
        // SAFETY: takes a descriptor that is open.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) } != SEALS {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no memory that was left by another process"));
        }
        let bytes = usize::try_from(std::fs::File::from(file.try_clone()?).metadata()?.len());
        let words = bytes.map_err(|_| io::ErrorKind::InvalidData)? / size_of::<u64>();
        if words == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "there is nothing in it"));
        }
        let (bytes, access) = (words * size_of::<u64>(), libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: a new mapping at an address of the kernel's choice, of a file that stays as long as it is.
        let first = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if first == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let first = NonNull::new(first.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(SharedMemory { file, first, words })
    }

    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has so many bytes, is aligned to a page, and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.words) }
    }

    /// To be given to whoever goes on with it.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping that `open` has made; nobody has a reference into it any more.
        unsafe {
            libc::munmap(self.first.as_ptr().cast(), self.words * size_of::<u64>());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn the_next_finds_what_was_stored() {
        let memory = SharedMemory::create(c"test", 1000).unwrap();
        memory.words()[999].store(7, Ordering::Relaxed);
        let file = memory.file().try_clone_to_owned().unwrap();
        drop(memory);
        let next = SharedMemory::open(file).unwrap();
        assert_eq!((next.words().len(), next.words()[999].load(Ordering::Relaxed)), (1000, 7));
    }

    #[test]
    fn a_file_that_others_could_cut_short_is_refused() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        assert!(SharedMemory::open(file.into()).is_err());
    }
}
