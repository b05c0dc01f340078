//! Files as memory: shared and private mappings, and taking their pages back.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};

use bytes::Bytes;
use holdfast::client::api::{OpenMode, Posix, WriteRequest};
use holdfast::client::kernel::KernelCache;
use holdfast::types::id::Ino;

use crate::Mounted;
use crate::sys;

/// A mapping of the first `len` bytes of a file.
struct Mapping {
    at: *mut u8,
    len: usize,
}

impl Mapping {
    fn new(fd: &OwnedFd, len: usize, how: i32) -> Mapping {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, access, how, fd.as_raw_fd(), 0) };
        assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        Mapping { at: at.cast(), len }
    }

    fn get(&self, at: usize) -> u8 {
        assert!(at < self.len);
        unsafe { self.at.add(at).read_volatile() }
    }

    fn set(&self, at: usize, value: u8) {
        assert!(at < self.len);
        unsafe { self.at.add(at).write_volatile(value) }
    }

    fn sync(&self) {
        sys::check(unsafe { libc::msync(self.at.cast(), self.len, libc::MS_SYNC) }).unwrap();
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        unsafe { libc::munmap(self.at.cast(), self.len) };
    }
}

fn open(m: &Mounted) -> OwnedFd {
    fs::write(m.path("f"), [1; 8192]).unwrap();
    sys::open(&m.path("f"), libc::O_RDWR, 0).unwrap()
}

#[test]
fn a_shared_mapping_is_the_file() {
    let m = Mounted::new();
    let fd = open(&m);
    let mapping = Mapping::new(&fd, 8192, libc::MAP_SHARED);
    assert_eq!(mapping.get(5000), 1);
    mapping.set(5000, 2);
    mapping.sync();
    assert_eq!(fs::read(m.path("f")).unwrap()[4999..5002], [1, 2, 1]);
    // What is written by call is seen in the mapping, and what the mapping has not written yet is seen by a read.
    sys::pwrite(&fd, &[3], 0).unwrap();
    assert_eq!(mapping.get(0), 3);
    mapping.set(1, 4);
    assert_eq!(sys::pread(&fd, 2, 0).unwrap(), [3, 4]);
    mapping.set(2, 5);
    drop(fd);
    drop(mapping);
    assert_eq!(fs::read(m.path("f")).unwrap()[..4], [3, 4, 5, 1]);
}

#[test]
fn a_mapping_written_back_through_an_appending_descriptor_stays_in_place() {
    let m = Mounted::new();
    drop(open(&m));
    let fd = sys::open(&m.path("f"), libc::O_RDWR | libc::O_APPEND, 0).unwrap();
    let mapping = Mapping::new(&fd, 8192, libc::MAP_SHARED);
    mapping.set(10, 9);
    mapping.sync();
    let data = fs::read(m.path("f")).unwrap();
    assert_eq!((data.len(), data[10]), (8192, 9));
}

#[test]
fn a_private_mapping_is_not() {
    let m = Mounted::new();
    let fd = open(&m);
    let mapping = Mapping::new(&fd, 8192, libc::MAP_PRIVATE);
    mapping.set(0, 7);
    assert_eq!(mapping.get(0), 7);
    assert_eq!(mapping.get(4096), 1);
    drop(mapping);
    assert_eq!(fs::read(m.path("f")).unwrap()[0], 1);
}

#[test]
fn programs_run() {
    let m = Mounted::new();
    fs::copy("/bin/true", m.path("true")).unwrap();
    assert!(std::process::Command::new(m.path("true")).status().unwrap().success());
}

/// Changes a byte behind the kernel's back, as another host would.
fn change(m: &Mounted, ino: Ino, offset: u64, byte: u8) {
    m.runtime.block_on(async {
        let mode = OpenMode { read: true, write: true, sync: false };
        let handle = m.fs.open(ino, mode).await.unwrap();
        let write = WriteRequest { offset, data: &[byte], append: false, clear_privileges: false, sync: false };
        m.fs.write(ino, handle, write).await.unwrap();
        let back: Bytes = m.fs.read(ino, handle, offset, 1).await.unwrap();
        assert_eq!(back[..], [byte]);
        m.fs.release(ino, handle, None).await.unwrap();
    });
}

#[test]
fn dropped_pages_are_read_again_and_dirty_ones_are_not_lost() {
    let m = Mounted::new();
    let fd = open(&m);
    let ino = Ino(sys::fstat(&fd).unwrap().st_ino);
    let mapping = Mapping::new(&fd, 8192, libc::MAP_SHARED);
    assert_eq!(mapping.get(0), 1);
    mapping.set(4096, 6);
    change(&m, ino, 0, 8);
    assert_eq!(mapping.get(0), 1, "the page is cached");
    m.runtime.block_on(m.cache.drop_pages(ino));
    assert_eq!(mapping.get(0), 8);
    assert_eq!(mapping.get(4096), 6);
    assert_eq!(sys::pread(&fd, 1, 4096).unwrap(), [6]);
}

#[test]
fn dropping_what_nobody_cached_is_done_at_once() {
    let m = Mounted::new();
    m.runtime.block_on(m.cache.drop_pages(Ino(12_345)));
    drop(File::open(m.dir.path()).unwrap());
}
