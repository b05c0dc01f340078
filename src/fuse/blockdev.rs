//! The block device that a mount sits on, for no other reason than that the kernel then tells it of `sync`.
//!
//! Linux passes `sync(2)` and `syncfs(2)` on to a FUSE server only if its mount has a block device (since 6.18), and
//! only then does `umount(2)` wait for the server. So root's mounts get one: a loop device over a little memory, which
//! nobody ever reads or writes, and which the kernel takes down when the mount is gone, however that came about.
//!
//! Only in the first mount namespace. Anywhere else a mount can end because the last process there was killed, and if
//! that is the server itself, it would wait, while it dies, for its own answer.
//!
//! The order: `BlockDevice::claim`, then `BlockDevice::mount_as`, then drop; the mount holds the device from there.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::ptr;

use super::apart::{check, with_own_directory};

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
/// `MNT_NS_INIT_INO` of linux/nsfs.h. Linux has it since 6.18; before, the first mount namespace has any number.
const FIRST_NAMESPACE: u64 = 0xEFFF_FFF8;
/// `FSCONFIG_CMD_CREATE`, `FSOPEN_CLOEXEC` and `FSMOUNT_CLOEXEC` of linux/mount.h.
const CMD_CREATE: libc::c_uint = 6;
const CLOEXEC: libc::c_uint = 1;

/// Whether mounts made here, by root, may have a block device and hear of `sync` by it.
///
/// # Errors
/// Why not.
pub fn check_host() -> io::Result<()> {
    if fs::metadata("/proc/self/ns/mnt")?.ino() != FIRST_NAMESPACE {
        return Err(io::Error::other("it takes Linux 6.18 and the host's own mount namespace"));
    }
    OpenOptions::new().read(true).write(true).open(LOOP_CONTROL).map(drop)
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

/// A loop device that is ours while this lives, and then while something is mounted from it.
pub(super) struct BlockDevice {
    path: PathBuf,
    _open: File,
}

impl BlockDevice {
    /// # Errors
    /// See [`check_host`]; or no loop device can be had.
    pub fn claim() -> io::Result<BlockDevice> {
        check_host()?;
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
    /// given for it, and the kernel looks that name up as a path when it mounts. The place where it does so is a
    /// filesystem of its own that is mounted nowhere and ends with this call.
    ///
    /// # Errors
    /// `source` cannot be a path below a directory (a part of it may have 255 bytes); or whatever `mount` says.
    pub fn mount_as<T: Send>(&self, source: &str, mount: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let source = Path::new(source);
        if !source.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let place = nowhere()?;
        with_own_directory(|| {
            // SAFETY: a descriptor that is open.
            check(unsafe { libc::fchdir(place.as_raw_fd()) })?;
            if let Some(above) = source.parent().filter(|above| !above.as_os_str().is_empty()) {
                fs::create_dir_all(above)?;
            }
            symlink(&self.path, source)?;
            mount()
        })
    }
}

/// The root of an empty filesystem in memory that is mounted nowhere.
fn nowhere() -> io::Result<OwnedFd> {
    // SAFETY: a NUL-terminated string that outlives the call.
    let context = descriptor(unsafe { libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), CLOEXEC) })?;
    let no_text = ptr::null::<libc::c_char>();
    // SAFETY: a command without arguments, on a descriptor that is open.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), CMD_CREATE, no_text, no_text, 0) })?;
    // SAFETY: a descriptor that is open, and numbers.
    descriptor(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), CLOEXEC, 0) })
}

/// Memory as a file, without a name in any directory.
fn memory() -> io::Result<File> {
    let name = CString::from(c"holdfast");
    // SAFETY: a NUL-terminated string that outlives the call.
    let file = File::from(descriptor(unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) }.into())?);
    file.set_len(DEVICE_BYTES)?;
    Ok(file)
}

/// A descriptor that a system call just made.
fn descriptor(answer: i64) -> io::Result<OwnedFd> {
    // SAFETY: it is open, and nobody else's.
    check(answer).map(|number| unsafe { OwnedFd::from_raw_fd(number as libc::c_int) })
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
}
