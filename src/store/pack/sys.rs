//! The system calls of packs that the standard library has no door for. All `unsafe` of the store is here.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// May a read wait for the device?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Only what is in memory; `WouldBlock` otherwise. For threads that serve others.
    Hurry,
    Wait,
}

/// Reads up to `len` bytes at `offset`; fewer only at the end of the file.
///
/// # Errors
/// What the kernel says; `WouldBlock` when in a [`Patience::Hurry`] and not all of it was in memory.
pub fn read_at(file: &File, offset: u64, len: usize, patience: Patience) -> io::Result<Vec<u8>> {
    let mut buffer: Vec<u8> = Vec::with_capacity(len);
    while buffer.len() < len {
        let done = buffer.len();
        let spare = &mut buffer.spare_capacity_mut()[..len - done];
        let part = libc::iovec { iov_base: spare.as_mut_ptr().cast(), iov_len: spare.len() };
        let at = off(offset + done as u64)?;
        let flags = if patience == Patience::Hurry { libc::RWF_NOWAIT } else { 0 };
        // SAFETY: `part` describes spare capacity of `buffer`, which lives across the call; the descriptor is open.
        let got = unsafe { libc::preadv2(file.as_raw_fd(), &part, 1, at, flags) };
        match got {
            0 => break,
            got if got > 0 => {
                // SAFETY: the kernel has just written `got` bytes there, at most what was asked for.
                unsafe { buffer.set_len(done + got as usize) };
                if patience == Patience::Hurry && buffer.len() < len {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
            }
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                // A file system that cannot tell would wait.
                error if patience == Patience::Hurry && error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                error => return Err(error),
            },
        }
    }
    Ok(buffer)
}

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

fn off(value: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(value).map_err(|_| io::ErrorKind::InvalidInput.into())
}
