//! The block device that a mount sits on, for no other reason than that the kernel then tells it of `sync`.
//!
//! Linux passes `sync(2)` and `syncfs(2)` on to a FUSE server only if its mount has a block device (since 6.18), and
//! only then does `umount(2)` wait for the server. So root's mounts get one: a loop device over a little memory, which
//! nobody ever reads or writes, and which the kernel takes down when the mount is gone, however that came about.
//!
//! The order: [`BlockDevice::claim`], then [`BlockDevice::mount_as`], then drop; the mount holds the device from there.

use std::ffi::{CString, OsString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};
use std::thread;

const LOOP_CONTROL: &str = "/dev/loop-control";
/// `LOOP_CTL_GET_FREE` and `LOOP_CONFIGURE`, from linux/loop.h.
const GET_FREE: libc::Ioctl = 0x4C82;
const CONFIGURE: libc::Ioctl = 0x4C0A;
/// `LO_FLAGS_AUTOCLEAR`: gone with its last user.
const AUTOCLEAR: u32 = 4;
/// A free device may be somebody else's before it is ours.
const CLAIMS_MAX: usize = 64;
/// Enough for the kernel to take it for a disk.
const DEVICE_BYTES: u64 = 4096;

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

/// A loop device that is ours while this lives, and then while something is mounted from it.
pub(super) struct BlockDevice {
    path: PathBuf,
    _open: File,
}

impl BlockDevice {
    /// # Errors
    /// There are no loop devices here, as in most containers, or not for us.
    pub fn claim() -> io::Result<BlockDevice> {
        let control = OpenOptions::new().read(true).write(true).open(LOOP_CONTROL)?;
        let memory = memory()?;
        for _ in 0..CLAIMS_MAX {
            // SAFETY: an ioctl without an argument, on a descriptor that is open.
            let number = check(unsafe { libc::ioctl(control.as_raw_fd(), GET_FREE) })?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = OpenOptions::new().read(true).write(true).open(&path)?;
            match configure(&device, &memory) {
                Ok(()) => return Ok(BlockDevice { path, _open: device }),
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::from_raw_os_error(libc::EBUSY))
    }

    /// Calls `mount` where `source`, as a path, leads to the device: what was mounted is shown by the name that was
    /// given for it, and the kernel looks that name up as a path when it mounts.
    ///
    /// # Errors
    /// `source` cannot be a path below a directory; or whatever `mount` says.
    pub fn mount_as<T: Send>(&self, source: &str, mount: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let plain = |part: Component| matches!(part, Component::Normal(_));
        if !Path::new(source).components().all(plain) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let place = Place::new()?;
        let link = place.0.join(source);
        fs::create_dir_all(link.parent().unwrap_or(&place.0))?;
        symlink(&self.path, link)?;
        in_directory(&place.0, mount)
    }
}

/// A directory of our own, gone with everything in it at the end.
struct Place(PathBuf);

impl Place {
    fn new() -> io::Result<Place> {
        let template = std::env::temp_dir().join("holdfast-mount-XXXXXX");
        let mut name = CString::new(template.into_os_string().into_vec())?.into_bytes_with_nul();
        // SAFETY: a NUL-terminated string of ours, whose last letters before the NUL are changed in place.
        if unsafe { libc::mkdtemp(name.as_mut_ptr().cast()) }.is_null() {
            return Err(io::Error::last_os_error());
        }
        name.pop();
        Ok(Place(OsString::from_vec(name).into()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs `work` on a thread that has a working directory of its own.
fn in_directory<T: Send>(path: &Path, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let moved = || {
        // SAFETY: parts this thread, and nothing else, from the directory of the process.
        check(unsafe { libc::unshare(libc::CLONE_FS) })?;
        std::env::set_current_dir(path)?;
        work()
    };
    thread::scope(|scope| {
        scope.spawn(moved).join().unwrap_or_else(|_| Err(io::Error::other("the mounting thread panicked")))
    })
}

/// Memory as a file, without a name in any directory.
fn memory() -> io::Result<File> {
    let name = CString::from(c"holdfast");
    // SAFETY: a NUL-terminated string that outlives the call.
    let number = check(unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) })?;
    // SAFETY: a descriptor that was just made, and is nobody else's.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(number) });
    file.set_len(DEVICE_BYTES)?;
    Ok(file)
}

fn configure(device: &File, memory: &File) -> io::Result<()> {
    let mut file_name = [0; 64];
    file_name[..8].copy_from_slice(b"holdfast");
    let config = LoopConfig {
        fd: memory.as_raw_fd() as u32,
        block_bytes: 0,
        unused: [0; 5],
        number: 0,
        encryption: [0; 2],
        flags: AUTOCLEAR,
        file_name,
        keys: [0; 96],
        reserved: [0; 10],
    };
    // SAFETY: `config` has the layout that the kernel reads, and outlives the call.
    check(unsafe { libc::ioctl(device.as_raw_fd(), CONFIGURE, &config) }).map(drop)
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
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

    #[test]
    fn a_source_that_leads_elsewhere_is_refused() {
        let device = BlockDevice { path: "/dev/null".into(), _open: File::open("/dev/null").unwrap() };
        for source in ["/dev/sda", "../x", "a/../../x"] {
            assert!(device.mount_as(source, || Ok(())).is_err(), "{source}");
        }
    }

    #[test]
    fn a_source_is_the_device_while_it_is_mounted_and_leaves_nothing() {
        let device = BlockDevice { path: "/dev/null".into(), _open: File::open("/dev/null").unwrap() };
        let before = std::env::current_dir().unwrap();
        for source in ["holdfast:main", "a:1,b:1:/main"] {
            let seen = device.mount_as(source, || Ok((fs::read_link(source)?, std::env::current_dir()?))).unwrap();
            assert_eq!(seen.0, Path::new("/dev/null"));
            assert_ne!(seen.1, before);
            assert!(!seen.1.exists());
        }
        assert_eq!(std::env::current_dir().unwrap(), before);
    }
}
