//! Memory that outlives a process: a file without a name, whose descriptor can be given to another process.
//!
//! It is seen as words that are read and written whole. What one process has stored is there for the next one, however the
//! first ended; what it had not stored is not.

use std::ffi::CStr;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

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

    /// What another process would find now, whatever becomes of this.
    ///
    /// # Panics
    /// The host has no memory for it.
    #[cfg(test)]
    pub fn copied(&self) -> SharedMemory {
        use std::os::unix::fs::FileExt;
        let copy = SharedMemory::create(c"copy", self.words).unwrap();
        let (from, to) =
            (std::fs::File::from(self.file.try_clone().unwrap()), std::fs::File::from(copy.file.try_clone().unwrap()));
        // What was never touched is not read: it would take memory.
        let seek = |at: i64, whence| {
            // SAFETY: takes a descriptor that is open, and numbers.
            unsafe { libc::lseek(self.file.as_raw_fd(), at, whence) }
        };
        let mut at = 0;
        while let Ok(begin) = u64::try_from(seek(at, libc::SEEK_DATA)) {
            at = seek(begin.cast_signed(), libc::SEEK_HOLE);
            let mut bytes = vec![0; usize::try_from(at.cast_unsigned() - begin).unwrap()];
            from.read_exact_at(&mut bytes, begin).unwrap();
            to.write_all_at(&bytes, begin).unwrap();
        }
        copy
    }

    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has so many bytes, is aligned to a page, and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.words) }
    }

    /// Gives back the memory of whole pages within these words, which are zeros then.
    ///
    /// # Errors
    /// What the host says; then it stays taken.
    pub fn give_back(&self, words: Range<usize>) -> io::Result<()> {
        let bytes = |word: usize| i64::try_from(word * size_of::<u64>()).map_err(|_| io::ErrorKind::InvalidInput);
        let (from, to) = (bytes(words.start)?, bytes(words.end)?);
        if from >= to {
            return Ok(());
        }
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: takes a descriptor that is open, and numbers; what is mapped stays mapped.
        if unsafe { libc::fallocate(self.file.as_raw_fd(), mode, from, to - from) } == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// To be given to whoever goes on with it.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// So many words hold so many bytes.
pub const fn words_for(bytes: usize) -> usize {
    bytes.div_ceil(size_of::<u64>())
}

/// Stores bytes in as many words as they take; what is left of the last word is zeros.
pub fn store_bytes(words: &[AtomicU64], bytes: &[u8]) {
    let mut whole = bytes.chunks_exact(size_of::<u64>());
    for (word, chunk) in words.iter().zip(&mut whole) {
        word.store(u64::from_ne_bytes(chunk.try_into().unwrap_or_default()), Ordering::Relaxed);
    }
    let rest = whole.remainder();
    if let Some(word) = words.get(bytes.len() / size_of::<u64>()).filter(|_| !rest.is_empty()) {
        let mut last = [0; size_of::<u64>()];
        last[..rest.len()].copy_from_slice(rest);
        word.store(u64::from_ne_bytes(last), Ordering::Relaxed);
    }
}

/// Appends what [`store_bytes`] has stored in these words.
pub fn load_bytes(words: &[AtomicU64], bytes: usize, into: &mut Vec<u8>) {
    let end = into.len() + bytes;
    for word in &words[..words_for(bytes)] {
        into.extend_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
    }
    into.truncate(end);
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
    fn a_copy_is_of_its_own() {
        let memory = SharedMemory::create(c"test", 10_000).unwrap();
        memory.words()[9_999].store(7, Ordering::Relaxed);
        let copy = memory.copied();
        memory.words()[9_999].store(8, Ordering::Relaxed);
        assert_eq!((copy.words().len(), copy.words()[9_999].load(Ordering::Relaxed)), (10_000, 7));
    }

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
    fn bytes_come_back_and_are_gone_when_given_back() {
        let memory = SharedMemory::create(c"test", 2000).unwrap();
        let bytes: Vec<u8> = (0..4099_u32).map(|n| n as u8).collect();
        store_bytes(&memory.words()[512..], &bytes);
        let mut back = vec![9];
        load_bytes(&memory.words()[512..], bytes.len(), &mut back);
        assert_eq!((back[0], &back[1..]), (9, &bytes[..]));
        store_bytes(&memory.words()[3..], b"");
        memory.give_back(512..1024).unwrap();
        let word = |at: usize| memory.words()[at].load(Ordering::Relaxed);
        assert_eq!((word(3), word(512), word(1023)), (0, 0, 0));
        assert_eq!(
            word(1024),
            u64::from_ne_bytes(bytes[4096..].iter().copied().chain([0; 5]).collect::<Vec<_>>().try_into().unwrap())
        );
    }

    #[test]
    fn a_file_that_others_could_cut_short_is_refused() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        assert!(SharedMemory::open(file.into()).is_err());
    }
}
