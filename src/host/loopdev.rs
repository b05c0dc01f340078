//! Loop devices: a file as a block device. Every call of the kernel's about them is here.
//!
//! Which device has which file is read off `/sys/block`, and nothing is remembered. Asking touches no file, which may be on a mount that
//! hangs.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

/// Who hands out devices.
pub const LOOP_CONTROL: &str = "/dev/loop-control";
const SYS_BLOCK: &str = "/sys/block";
/// From linux/loop.h.
const GET_FREE: libc::Ioctl = 0x4C82;
const CONFIGURE: libc::Ioctl = 0x4C0A;
const CLR_FD: libc::Ioctl = 0x4C01;
const GET_STATUS: libc::Ioctl = 0x4C05;
const SET_CAPACITY: libc::Ioctl = 0x4C07;
const READ_ONLY: u32 = 1;
const AUTOCLEAR: u32 = 4;
const DIRECT_IO: u32 = 16;
/// A free device may be somebody else's before it is ours.
const CLAIMS_MAX: usize = 64;
const SECTOR_BYTES: u64 = 512;

/// A device that has a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    pub number: u32,
    /// What its file was called when it was attached; without the directories above the mount that it is on, if that is gone.
    pub file: PathBuf,
    pub read_only: bool,
    pub bytes: u64,
}

impl Attached {
    pub fn path(&self) -> PathBuf {
        path_of(self.number)
    }
}

/// How a file is attached.
#[derive(Clone, Copy, Debug, Default)]
pub struct How {
    pub read_only: bool,
    /// Not by way of the kernel's cache of the file, where its filesystem can do without.
    pub direct: bool,
    /// Gone with its last user, of whom there is one from the beginning: who attaches it.
    pub until_unused: bool,
}

/// `struct loop_config` with its `struct loop_info64`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_bytes: u32,
    unused: [u64; 5],
    number: u32,
    encryption: [u32; 2],
    flags: u32,
    file_name: [u8; 64],
    keys: [u8; 96],
    reserved: [u64; 10],
}

/// `struct loop_info64`, of which the first word is looked at.
#[repr(C)]
struct LoopInfo {
    filesystem: u64,
    rest: [u64; 28],
}

/// A free device gets the file, under this name of at most 63 bytes. It is open to be read and written.
///
/// # Errors
/// This process may not, or none is free.
pub fn attach(file: impl AsFd, name: &str, how: How) -> io::Result<(u32, File)> {
    let control = OpenOptions::new().read(true).write(true).open(LOOP_CONTROL)?;
    for _ in 0..CLAIMS_MAX {
        // SAFETY: an ioctl without an argument, on a descriptor that is open.
        let number = check(unsafe { libc::ioctl(control.as_raw_fd(), GET_FREE) })?;
        let number = u32::try_from(number).map_err(io::Error::other)?;
        let device = open(number)?;
        match configure(&device, &file, name, how) {
            Ok(()) => return Ok((number, device)),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EBUSY))
}

/// Every device that has a file.
///
/// # Errors
/// `/sys` cannot be read.
pub fn attached() -> io::Result<Vec<Attached>> {
    let listed = match fs::read_dir(SYS_BLOCK) {
        // Without any block device there is no list.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed?,
    };
    let names = listed.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let numbers = names.filter_map(|name| name.strip_prefix("loop")?.parse().ok());
    Ok(numbers.filter_map(look).collect())
}

/// What a device has, which may have been let go at any moment.
pub fn look(number: u32) -> Option<Attached> {
    let about = |what: &str| fs::read(format!("{SYS_BLOCK}/loop{number}/{what}")).ok();
    let whole = |what: &str| String::from_utf8(about(what)?).ok()?.trim().parse::<u64>().ok();
    let mut file = about("loop/backing_file")?;
    file.pop_if(|last| *last == b'\n');
    let (read_only, sectors) = (whole("ro")? != 0, whole("size")?);
    let bytes = sectors.saturating_mul(SECTOR_BYTES);
    Some(Attached { number, file: OsString::from_vec(file).into(), read_only, bytes })
}

/// The filesystem that a device's file is on, by its number: `(major, minor)`. Asks the filesystem for the file's attributes, and waits for
/// it as whoever looks at a file does.
///
/// # Errors
/// The filesystem does not tell: that of a mount which has ended. Or the device has no file.
pub fn lies_on(number: u32) -> io::Result<(u32, u32)> {
    let device = File::open(path_of(number))?;
    let mut told = LoopInfo { filesystem: 0, rest: [0; 28] };
    // SAFETY: an open descriptor, and room for what is told.
    check(unsafe { libc::ioctl(device.as_raw_fd(), GET_STATUS, &raw mut told) })?;
    Ok((libc::major(told.filesystem), libc::minor(told.filesystem)))
}

/// Lets go of the file: at once, or when the last who has the device open has closed it.
///
/// # Errors
/// This process may not. A device that has no file is let go of already.
pub fn detach(number: u32) -> io::Result<()> {
    // SAFETY: an ioctl without an argument, on a descriptor that is open.
    match check(unsafe { libc::ioctl(open(number)?.as_raw_fd(), CLR_FD, 0) }) {
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(()),
        done => done.map(drop),
    }
}

/// The device becomes as large as its file is now.
///
/// # Errors
/// This process may not, or the device has no file.
pub fn resize(number: u32) -> io::Result<()> {
    // SAFETY: an ioctl without an argument, on a descriptor that is open.
    check(unsafe { libc::ioctl(open(number)?.as_raw_fd(), SET_CAPACITY, 0) }).map(drop)
}

pub fn path_of(number: u32) -> PathBuf {
    PathBuf::from(format!("/dev/loop{number}"))
}

/// # Errors
/// It is not there, or no block device: something was left in its place.
fn open(number: u32) -> io::Result<File> {
    let path = path_of(number);
    let device = OpenOptions::new().read(true).write(true).open(&path)?;
    match device.metadata()?.file_type().is_block_device() {
        true => Ok(device),
        false => Err(io::Error::other(format!("{} is no block device", path.display()))),
    }
}

fn configure(device: &File, file: &impl AsFd, name: &str, how: How) -> io::Result<()> {
    let mut file_name = [0; 64];
    let shown = name.len().min(file_name.len() - 1);
    file_name[..shown].copy_from_slice(&name.as_bytes()[..shown]);
    let flag = |is_set: bool, flag: u32| if is_set { flag } else { 0 };
    let config = LoopConfig {
        fd: file.as_fd().as_raw_fd() as u32,
        block_bytes: 0,
        unused: [0; 5],
        number: 0,
        encryption: [0; 2],
        flags: flag(how.read_only, READ_ONLY) | flag(how.direct, DIRECT_IO) | flag(how.until_unused, AUTOCLEAR),
        file_name,
        keys: [0; 96],
        reserved: [0; 10],
    };
    // SAFETY: `config` has the layout that the kernel reads, and outlives the call.
    check(unsafe { libc::ioctl(device.as_raw_fd(), CONFIGURE, &config) }).map(drop)
}

fn check(answer: libc::c_int) -> io::Result<libc::c_int> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_layout_is_met() {
        assert_eq!(size_of::<LoopConfig>(), 304);
        assert_eq!(std::mem::offset_of!(LoopConfig, flags), 8 + 52);
        assert_eq!(std::mem::offset_of!(LoopConfig, file_name), 8 + 56);
    }

    /// Needs the right to have loop devices; what lacks it has none.
    #[test]
    fn a_file_is_a_device_and_grows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("file");
        let file = File::create_new(&path).unwrap();
        file.set_len(1 << 20).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let Ok((number, device)) = attach(&file, "test", How { direct: true, ..How::default() }) else { return };
        let wanted = Attached { number, file: path, read_only: false, bytes: 1 << 20 };
        assert_eq!(look(number), Some(wanted.clone()));
        assert!(attached().unwrap().contains(&wanted));
        file.set_len(2 << 20).unwrap();
        resize(number).unwrap();
        assert_eq!(look(number).unwrap().bytes, 2 << 20);
        drop(device);
        detach(number).unwrap();
        assert_eq!(look(number).filter(|found| found.file == wanted.file), None);
    }
}
