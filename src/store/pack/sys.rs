//! The system calls of writing packs that the standard library has no door for. All `unsafe` of the store is here.

use std::alloc::{self, Layout};
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::ptr::NonNull;
use std::slice;

use crate::pack::format::PAGE_BYTES;
use crate::pack::sys::off;

/// How many buffers the kernel takes in one call.
const IOV_MAX: usize = 1024;

/// Writes all buffers, one behind the other, from `offset`.
///
/// # Errors
/// What the kernel says; some of it may have been written.
pub fn write_at(file: &File, mut offset: u64, mut buffers: &mut [IoSlice<'_>]) -> io::Result<()> {
    // Not entered with nothing left to write, so that 0 bytes written is an error.
    IoSlice::advance_slices(&mut buffers, 0);
    while !buffers.is_empty() {
        let count = buffers.len().min(IOV_MAX) as libc::c_int;
        // SAFETY: `IoSlice` has the layout of `iovec`; the slices live across the call; the descriptor is open.
        let put = unsafe { libc::pwritev(file.as_raw_fd(), buffers.as_ptr().cast(), count, off(offset)?) };
        match put {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            put if put > 0 => {
                offset += put as u64;
                IoSlice::advance_slices(&mut buffers, put as usize);
            }
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
    Ok(())
}

/// Opens a file for writes that go past the page cache; `None` where the file system has none of that.
pub fn open_direct(path: &Path) -> Option<File> {
    OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path).ok()
}

/// Memory that a device can write from: whole pages.
pub struct PageBuffer {
    start: NonNull<u8>,
    filled: usize,
}

// SAFETY: it owns its memory, as a `Vec` does.
unsafe impl Send for PageBuffer {}

impl Default for PageBuffer {
    fn default() -> PageBuffer {
        // SAFETY: the layout is not of size zero. The memory is zeroed, so all of it may be read.
        let start = unsafe { alloc::alloc_zeroed(Self::LAYOUT) };
        let start = NonNull::new(start).unwrap_or_else(|| alloc::handle_alloc_error(Self::LAYOUT));
        PageBuffer { start, filled: 0 }
    }
}

impl PageBuffer {
    /// Bytes of one write.
    pub const BYTES: usize = 2 << 20;
    const LAYOUT: Layout = match Layout::from_size_align(Self::BYTES, PAGE_BYTES) {
        Ok(layout) => layout,
        Err(_) => panic!("a page is a power of two"),
    };

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the memory is ours, of that size, and was filled with zeros.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), Self::BYTES) }
    }

    /// Takes as much as there is room for; returns how much that was.
    fn fill(&mut self, from: &[u8]) -> usize {
        let filled = self.filled;
        let taken = from.len().min(Self::BYTES - filled);
        self.bytes()[filled..filled + taken].copy_from_slice(&from[..taken]);
        self.filled += taken;
        taken
    }

    fn write(&mut self, file: &File, offset: &mut u64) -> io::Result<()> {
        let filled = std::mem::take(&mut self.filled);
        file.write_all_at(&self.bytes()[..filled], *offset)?;
        *offset += filled as u64;
        Ok(())
    }
}

impl Drop for PageBuffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and nobody else has it.
        unsafe { alloc::dealloc(self.start.as_ptr(), Self::LAYOUT) }
    }
}

/// As [`write_at`], to a file of [`open_direct`]: offset and total length are whole pages. The copy into `buffer` costs a
/// third of what the page cache does with a large write (find, lock, copy, write back, drop), and none of its memory.
///
/// # Errors
/// What the kernel says; some of it may have been written.
pub fn write_direct(file: &File, mut offset: u64, buffers: &[IoSlice<'_>], buffer: &mut PageBuffer) -> io::Result<()> {
    buffer.filled = 0;
    for part in buffers {
        let mut rest = &part[..];
        while !rest.is_empty() {
            let taken = buffer.fill(rest);
            rest = &rest[taken..];
            if buffer.filled == PageBuffer::BYTES {
                buffer.write(file, &mut offset)?;
            }
        }
    }
    if buffer.filled > 0 { buffer.write(file, &mut offset) } else { Ok(()) }
}

/// Gives the blocks of a range back to the file system. The range reads as zeros from then on; the length stays.
///
/// # Errors
/// What the kernel says; `EOPNOTSUPP` from a file system without holes.
pub fn punch(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: plain integers and an open descriptor.
    match unsafe { libc::fallocate(file.as_raw_fd(), mode, off(offset)?, off(len)?) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The first byte at or after `offset` that is not in a hole; `None` when only holes follow.
///
/// # Errors
/// What the kernel says.
pub fn next_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    seek(file, offset, libc::SEEK_DATA)
}

/// The first byte at or after `offset` that is in a hole; the end of the file counts as one.
///
/// # Errors
/// What the kernel says.
pub fn next_hole(file: &File, offset: u64) -> io::Result<u64> {
    Ok(seek(file, offset, libc::SEEK_HOLE)?.unwrap_or(offset))
}

fn seek(file: &File, offset: u64, whence: libc::c_int) -> io::Result<Option<u64>> {
    // SAFETY: plain integers and an open descriptor. The file position it moves is not used by reads.
    let found = unsafe { libc::lseek(file.as_raw_fd(), off(offset)?, whence) };
    if found >= 0 {
        return Ok(Some(found as u64));
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
        error => Err(error),
    }
}

/// Capacity of a file system, and what an ordinary process may still take of it, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    pub capacity_bytes: u64,
    pub free_bytes: u64,
}

/// # Errors
/// What the kernel says.
pub fn space(path: &Path) -> io::Result<Space> {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` is NUL-terminated and `stat` has room for the answer.
    if unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so the kernel has filled it in.
    let stat = unsafe { stat.assume_init() };
    Ok(Space { capacity_bytes: stat.f_blocks * stat.f_frsize, free_bytes: stat.f_bavail * stat.f_frsize })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A temporary directory may be in memory, where there is no direct I/O; the buffer is the same for any file.
    #[test]
    fn a_page_buffer_passes_everything_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pack");
        let file = File::create(&path).unwrap();
        let parts: Vec<Vec<u8>> = [100, PageBuffer::BYTES, 0, 7, 3 * PageBuffer::BYTES - 11, 4_000 - 100 + 4 + 192]
            .iter()
            .enumerate()
            .map(|(number, len)| (0..*len).map(|at| (at * 7 + number) as u8).collect())
            .collect();
        let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let target =
            open_direct(&path).filter(|_| slices.iter().map(|part| part.len()).sum::<usize>() % PAGE_BYTES == 0);
        let mut buffer = PageBuffer::default();
        for _ in 0..2 {
            write_direct(target.as_ref().unwrap_or(&file), PAGE_BYTES as u64, &slices, &mut buffer).unwrap();
        }
        assert_eq!(std::fs::read(&path).unwrap()[PAGE_BYTES..], parts.concat());
    }
}
