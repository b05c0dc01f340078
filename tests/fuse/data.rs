//! Reading, writing and shaping files.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::Mounted;
use crate::reference::Reference;
use crate::sys::{self, Child, code, until};

fn create(path: &Path) -> OwnedFd {
    sys::open(path, libc::O_RDWR | libc::O_CREAT, 0o644).unwrap()
}

#[test]
fn large_files_come_back_as_they_were_written() {
    let m = Mounted::new();
    let data: Vec<u8> = (0..5_000_003u32).map(|i| (i * 7 / 5) as u8).collect();
    fs::write(m.path("f"), &data).unwrap();
    assert!(fs::read(m.path("f")).unwrap() == data);
    assert_eq!(fs::metadata(m.path("f")).unwrap().blocks(), 5_000_003u64.div_ceil(512));
}

#[test]
fn appends_from_many_descriptors_are_whole() {
    let m = Mounted::new();
    let path = m.path("log");
    let children: Vec<Child> = (0..4u8)
        .map(|who| {
            Child::run(|| {
                let fd = sys::open(&path, libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT, 0o644).unwrap();
                (0..200).map(|_| code(sys::write(&fd, &[b'a' + who; 97]))).find(|code| *code != 0).unwrap_or(0)
            })
        })
        .collect();
    children.into_iter().for_each(|child| assert_eq!(child.wait(), 0));
    let data = fs::read(&path).unwrap();
    assert_eq!(data.len(), 4 * 200 * 97);
    assert!(data.chunks(97).all(|record| record.iter().all(|byte| *byte == record[0])));
}

#[test]
fn appending_may_be_switched_on_and_off() {
    let m = Mounted::new();
    let fd = create(&m.path("f"));
    sys::pwrite(&fd, b"0123456789", 0).unwrap();
    let set = |flags: i32| sys::check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags) }).unwrap();
    set(libc::O_APPEND);
    sys::pwrite(&fd, b"end", 2).unwrap();
    set(0);
    sys::pwrite(&fd, b"ab", 2).unwrap();
    assert_eq!(fs::read(m.path("f")).unwrap(), b"01ab456789end");
}

#[test]
fn direct_io_needs_no_alignment() {
    let m = Mounted::new();
    let fd = sys::open(&m.path("f"), libc::O_RDWR | libc::O_CREAT | libc::O_DIRECT, 0o644).unwrap();
    sys::pwrite(&fd, &[7; 4096], 0).unwrap();
    sys::pwrite(&fd, b"odd", 4095).unwrap();
    assert_eq!(sys::pread(&fd, 10, 4093).unwrap(), [7, 7, b'o', b'd', b'd']);
}

#[test]
fn synced_writes_say_so() {
    let m = Mounted::new();
    let fd = sys::open(&m.path("f"), libc::O_WRONLY | libc::O_CREAT | libc::O_DSYNC, 0o644).unwrap();
    let before = m.fs.syncs();
    sys::write(&fd, b"x").unwrap();
    assert_eq!(m.fs.syncs(), before + 1);
    File::open(m.dir.path()).unwrap().sync_all().unwrap();
    assert_eq!(m.fs.syncs(), before + 2);
    holdfast::fuse::control::sync_mount(m.dir.path()).unwrap();
    assert_eq!(m.fs.syncs(), before + 3);
}

#[test]
fn truncation_cuts_and_extends_with_zeros() {
    let m = Mounted::new();
    fs::write(m.path("f"), [1; 10_000]).unwrap();
    let file = File::options().write(true).open(m.path("f")).unwrap();
    file.set_len(5000).unwrap();
    file.set_len(6000).unwrap();
    let data = fs::read(m.path("f")).unwrap();
    assert!(data[..5000].iter().all(|b| *b == 1) && data[5000..] == [0; 1000]);
    file.set_len(1 << 50).unwrap();
    assert_eq!(fs::metadata(m.path("f")).unwrap().len(), 1 << 50);
    drop(File::create(m.path("f")).unwrap());
    assert_eq!(fs::metadata(m.path("f")).unwrap().len(), 0);
}

#[test]
fn holes_and_data_are_found() {
    let m = Mounted::new();
    let fd = create(&m.path("f"));
    sys::pwrite(&fd, &[1; 4096], 1 << 20).unwrap();
    sys::pwrite(&fd, &[1; 4096], 4 << 20).unwrap();
    assert_eq!(sys::lseek(&fd, 0, libc::SEEK_DATA), Ok(1 << 20));
    assert_eq!(sys::lseek(&fd, 1 << 20, libc::SEEK_HOLE), Ok((1 << 20) + 4096));
    assert_eq!(sys::lseek(&fd, 2 << 20, libc::SEEK_DATA), Ok(4 << 20));
    assert_eq!(sys::lseek(&fd, 0, libc::SEEK_HOLE), Ok(0));
    assert_eq!(sys::lseek(&fd, 4 << 20, libc::SEEK_HOLE), Ok((4 << 20) + 4096));
    assert_eq!(sys::lseek(&fd, 8 << 20, libc::SEEK_DATA), Err(libc::ENXIO));
    assert_eq!(sys::lseek(&fd, 0, libc::SEEK_END), Ok((4 << 20) + 4096));
}

#[test]
fn fallocate_in_all_its_modes() {
    const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
    let m = Mounted::new();
    let fd = create(&m.path("f"));
    sys::fallocate(&fd, 0, 0, 8192).unwrap();
    assert_eq!(sys::fstat(&fd).unwrap().st_size, 8192);
    assert_eq!(sys::fstat(&fd).unwrap().st_blocks, 16);
    sys::fallocate(&fd, KEEP, 8192, 8192).unwrap();
    assert_eq!((sys::fstat(&fd).unwrap().st_size, sys::fstat(&fd).unwrap().st_blocks), (8192, 32));
    sys::pwrite(&fd, &[9; 8192], 0).unwrap();
    sys::fallocate(&fd, libc::FALLOC_FL_PUNCH_HOLE | KEEP, 4096, 100_000).unwrap();
    assert_eq!(sys::lseek(&fd, 0, libc::SEEK_HOLE), Ok(4096));
    sys::fallocate(&fd, libc::FALLOC_FL_ZERO_RANGE, 100, 10).unwrap();
    assert_eq!(sys::pread(&fd, 12, 99).unwrap(), [9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    assert_eq!(sys::fallocate(&fd, libc::FALLOC_FL_COLLAPSE_RANGE, 0, 4096), Err(libc::EOPNOTSUPP));
    assert_eq!(sys::fallocate(&fd, libc::FALLOC_FL_INSERT_RANGE, 0, 4096), Err(libc::EOPNOTSUPP));
}

#[test]
fn ranges_are_copied_inside() {
    let m = Mounted::new();
    fs::write(m.path("a"), vec![5; 3 << 20]).unwrap();
    let (from, to) = (sys::open(&m.path("a"), libc::O_RDONLY, 0).unwrap(), create(&m.path("b")));
    let (mut from_offset, mut to_offset) = (1i64, 10i64);
    let copied = unsafe {
        libc::copy_file_range(from.as_raw_fd(), &mut from_offset, to.as_raw_fd(), &mut to_offset, 4 << 20, 0)
    };
    assert_eq!(sys::check(copied as i64), Ok((3 << 20) - 1));
    let data = fs::read(m.path("b")).unwrap();
    assert!(data[..10] == [0; 10] && data[10..].iter().all(|b| *b == 5) && data.len() == (3 << 20) + 9);
}

#[test]
fn an_unlinked_file_lives_until_it_is_closed() {
    let m = Mounted::new();
    let fd = create(&m.path("f"));
    fs::remove_file(m.path("f")).unwrap();
    sys::pwrite(&fd, b"still here", 0).unwrap();
    assert_eq!(sys::pread(&fd, 100, 6).unwrap(), b"here");
    let stat = sys::fstat(&fd).unwrap();
    assert_eq!((stat.st_nlink, stat.st_size), (0, 10));
    assert!(!m.path("f").exists());
    let free = sys::statvfs(m.dir.path()).f_ffree;
    drop(fd);
    // The release is sent behind the back of close.
    until(|| sys::statvfs(m.dir.path()).f_ffree == free + 1);
}

#[test]
fn a_full_filesystem_says_so_and_stays_usable() {
    let m = Mounted::with("", Reference::with_capacity(1 << 20));
    let space = sys::statvfs(m.dir.path());
    assert_eq!((space.f_blocks, space.f_bfree, space.f_bsize, space.f_frsize), (256, 256, 4096, 4096));
    assert_eq!(space.f_namemax, 255);
    let fd = create(&m.path("f"));
    sys::pwrite(&fd, &[1; 1 << 19], 0).unwrap();
    assert_eq!(sys::statvfs(m.dir.path()).f_bavail, 128);
    assert_eq!(sys::pwrite(&fd, &[1; 1 << 20], 1 << 19), Err(libc::ENOSPC));
    fs::remove_file(m.path("f")).unwrap();
}

#[test]
fn set_id_bits_go_with_a_write_or_truncation_by_others() {
    let m = Mounted::new();
    let path = m.path("f");
    let fd = create(&path);
    let mode = || sys::stat(&path).st_mode & 0o7777;
    let set = |mode| sys::check(unsafe { libc::fchmod(fd.as_raw_fd(), mode) }).unwrap();
    fs::set_permissions(m.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let write = || code(sys::write(&sys::open(&path, libc::O_WRONLY, 0).unwrap(), b"x"));
    let truncate = || code(sys::check(unsafe { libc::truncate(sys::c(&path).as_ptr(), 0) }));
    let allocate = || code(sys::fallocate(&sys::open(&path, libc::O_WRONLY, 0).unwrap(), 0, 0, 10));
    let open = || code(sys::open(&path, libc::O_WRONLY | libc::O_TRUNC, 0));
    let works: [&dyn Fn() -> i32; 4] = [&write, &truncate, &allocate, &open];
    for (index, work) in works.iter().enumerate() {
        set(0o6777);
        assert_eq!(Child::run(*work).wait(), 0);
        assert_eq!(mode(), 0o6777, "root keeps them, {index}");
        assert_eq!(Child::run_as(1234, 1234, *work).wait(), 0);
        assert_eq!(mode(), 0o777, "others do not, {index}");
        set(0o2767);
        assert_eq!(Child::run_as(1234, 1234, *work).wait(), 0);
        assert_eq!(mode(), 0o2767 & !0o2000 | if 0o2767 & 0o010 == 0 { 0o2000 } else { 0 }, "{index}");
    }
}

#[test]
fn file_capabilities_go_with_a_write() {
    let m = Mounted::new();
    let fd = create(&m.path("f"));
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    sys::set_xattr(&m.path("f"), "security.capability", &capability, 0).unwrap();
    sys::write(&fd, b"x").unwrap();
    assert_eq!(sys::xattr(&m.path("f"), "security.capability", 100), Err(libc::ENODATA));
}

#[test]
fn sendfile_and_ordinary_reads_agree() {
    let m = Mounted::new();
    fs::write(m.path("f"), vec![3; 200_000]).unwrap();
    let mut out = Vec::new();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let thread = std::thread::spawn(move || reader.read_to_end(&mut out).map(|_| out));
    let file = File::open(m.path("f")).unwrap();
    let mut sent = 0;
    while sent < 200_000 {
        let mut offset = sent;
        let bytes = unsafe { libc::sendfile(writer.as_raw_fd(), file.as_raw_fd(), &mut offset, 200_000) };
        sent += sys::check(bytes as i64).unwrap();
    }
    drop(writer);
    assert!(thread.join().unwrap().unwrap() == vec![3; 200_000]);
}
