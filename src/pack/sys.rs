//! Reading at a place, with or without waiting for the device, and saying what will be read: what the standard library
//! has no door for.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

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

/// Begins to bring a range into memory. May wait for a device, to learn where the bytes are.
pub fn will_need(file: &File, offset: u64, len: u64) {
    if let (Ok(offset), Ok(len)) = (off(offset), off(len)) {
        // SAFETY: plain integers and an open descriptor. Advice that is not taken costs time only.
        let _ = unsafe { libc::posix_fadvise(file.as_raw_fd(), offset, len, libc::POSIX_FADV_WILLNEED) };
    }
}

/// # Errors
/// A place beyond what the kernel can name.
pub fn off(value: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(value).map_err(|_| io::ErrorKind::InvalidInput.into())
}
