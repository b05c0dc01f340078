//! Directories, links, special files, handles.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{DirEntryExt, FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use crate::Mounted;
use crate::sys::{self, Child, code};

#[test]
fn trees_are_built_and_torn_down() {
    let m = Mounted::new();
    fs::create_dir_all(m.path("a/b/c")).unwrap();
    assert_eq!(fs::metadata(m.path("a")).unwrap().nlink(), 3);
    assert_eq!(code(sys::check(unsafe { libc::rmdir(sys::c(&m.path("a/b")).as_ptr()) })), libc::ENOTEMPTY);
    fs::rename(m.path("a/b"), m.path("d")).unwrap();
    assert_eq!(fs::metadata(m.path("a")).unwrap().nlink(), 2);
    assert_eq!(fs::metadata(m.path("d/..")).unwrap().ino(), 1);
    fs::remove_dir_all(m.path("d")).unwrap();
    assert!(!m.path("d").exists());
}

#[test]
fn renames_may_refuse_or_exchange() {
    let m = Mounted::new();
    fs::write(m.path("f"), "f").unwrap();
    fs::create_dir(m.path("d")).unwrap();
    let (f, d) = (m.path("f"), m.path("d"));
    assert_eq!(sys::rename2(&f, &d, libc::RENAME_NOREPLACE), Err(libc::EEXIST));
    sys::rename2(&f, &d, libc::RENAME_EXCHANGE).unwrap();
    assert_eq!(fs::read(&d).unwrap(), b"f");
    assert!(f.is_dir());
    assert_eq!(sys::rename2(&f, &m.path("none"), libc::RENAME_EXCHANGE), Err(libc::ENOENT));
    assert_eq!(sys::rename2(&f, &m.path("x"), libc::RENAME_WHITEOUT), Err(libc::EINVAL));
    sys::rename2(&f, &m.path("x"), libc::RENAME_NOREPLACE).unwrap();
}

#[test]
fn long_names_and_targets_go_to_the_limit() {
    let m = Mounted::new();
    let longest = "n".repeat(255);
    File::create(m.path(&longest)).unwrap();
    assert_eq!(code(sys::open(&m.path(&"n".repeat(256)), libc::O_RDONLY, 0)), libc::ENAMETOOLONG);
    let target: String = "t".repeat(4095);
    symlink(&target, m.path("link")).unwrap();
    assert_eq!(fs::read_link(m.path("link")).unwrap(), PathBuf::from(&target));
    assert_eq!(fs::symlink_metadata(m.path("link")).unwrap().len(), 4095);
}

#[test]
fn special_files_keep_their_numbers() {
    let m = Mounted::new();
    for (major, minor) in [(1, 3), (259, 1_000_000), (0xfff, 0xfffff)] {
        let rdev = libc::makedev(major, minor);
        for kind in [libc::S_IFCHR, libc::S_IFBLK] {
            sys::mknod(&m.path("node"), kind | 0o600, rdev).unwrap();
            let stat = sys::stat(&m.path("node"));
            assert_eq!((stat.st_rdev, stat.st_mode), (rdev, kind | 0o600));
            fs::remove_file(m.path("node")).unwrap();
        }
    }
    sys::mknod(&m.path("fifo"), libc::S_IFIFO | 0o600, 0).unwrap();
    assert!(fs::metadata(m.path("fifo")).unwrap().file_type().is_fifo());
    drop(std::os::unix::net::UnixListener::bind(m.path("socket")).unwrap());
    assert!(fs::metadata(m.path("socket")).unwrap().file_type().is_socket());
    // Mounted with `dev`.
    sys::mknod(&m.path("null"), libc::S_IFCHR | 0o666, libc::makedev(1, 3)).unwrap();
    fs::write(m.path("null"), "gone").unwrap();
}

#[test]
fn an_unlinked_fifo_lives_until_it_is_closed() {
    let m = Mounted::new();
    sys::mknod(&m.path("fifo"), libc::S_IFIFO | 0o640, 0).unwrap();
    let fd = sys::open(&m.path("fifo"), libc::O_RDWR, 0).unwrap();
    fs::remove_file(m.path("fifo")).unwrap();
    let stat = sys::fstat(&fd).unwrap();
    assert_eq!((stat.st_mode, stat.st_nlink), (libc::S_IFIFO | 0o640, 0));
    assert_eq!(sys::lseek(&fd, 0, libc::SEEK_END), Err(libc::ESPIPE));
}

#[test]
fn hard_links_share_one_inode() {
    let m = Mounted::new();
    fs::write(m.path("a"), "1").unwrap();
    fs::hard_link(m.path("a"), m.path("b")).unwrap();
    fs::write(m.path("b"), "22").unwrap();
    let (a, b) = (fs::metadata(m.path("a")).unwrap(), fs::metadata(m.path("b")).unwrap());
    assert_eq!((a.ino(), a.len(), a.nlink()), (b.ino(), 2, 2));
    fs::remove_file(m.path("a")).unwrap();
    assert_eq!(fs::metadata(m.path("b")).unwrap().nlink(), 1);
}

#[test]
fn links_are_bounded_as_on_ext4() {
    let m = Mounted::new();
    let f = m.path("f");
    File::create(&f).unwrap();
    (1..65_000).for_each(|i| fs::hard_link(&f, m.path(&format!("{i}"))).unwrap());
    assert_eq!(fs::hard_link(&f, m.path("more")).unwrap_err().raw_os_error(), Some(libc::EMLINK));
}

#[test]
fn exclusive_creation_has_one_winner() {
    let m = Mounted::new();
    let path = m.path("f");
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY;
    let children: Vec<Child> = (0..8).map(|_| Child::run(|| code(sys::open(&path, flags, 0o600)))).collect();
    let mut codes: Vec<i32> = children.into_iter().map(Child::wait).collect();
    codes.sort_unstable();
    assert_eq!(
        codes,
        [0, libc::EEXIST, libc::EEXIST, libc::EEXIST, libc::EEXIST, libc::EEXIST, libc::EEXIST, libc::EEXIST]
    );
}

#[test]
fn the_umask_and_set_group_id_directories_count() {
    let m = Mounted::new();
    let dir = m.path("d");
    fs::create_dir(&dir).unwrap();
    sys::check(unsafe { libc::chown(sys::c(&dir).as_ptr(), 0, 77) }).unwrap();
    fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o2777)).unwrap();
    let child = Child::run_as(1234, 1234, || unsafe {
        libc::umask(0o027);
        libc::mkdir(sys::c(&dir.join("sub")).as_ptr(), 0o777) | libc::mknod(sys::c(&dir.join("f")).as_ptr(), 0o666, 0)
    });
    assert_eq!(child.wait(), 0);
    let (sub, file) = (sys::stat(&dir.join("sub")), sys::stat(&dir.join("f")));
    assert_eq!((sub.st_uid, sub.st_gid, sub.st_mode & 0o7777), (1234, 77, 0o2750));
    assert_eq!((file.st_uid, file.st_gid, file.st_mode & 0o7777), (1234, 77, 0o640));
}

/// The names and offsets a directory stream gives, from where it is to its end.
fn rest(stream: *mut libc::DIR) -> Vec<(String, i64, u8)> {
    let mut lines = Vec::new();
    loop {
        let entry = unsafe { libc::readdir(stream) };
        if entry.is_null() {
            return lines;
        }
        let (name, kind) = unsafe { (std::ffi::CStr::from_ptr((*entry).d_name.as_ptr()), (*entry).d_type) };
        lines.push((name.to_str().unwrap().to_owned(), unsafe { libc::telldir(stream) }, kind));
    }
}

#[test]
fn listings_can_be_rewound_and_resumed() {
    let m = Mounted::new();
    for i in 0..2000 {
        fs::create_dir(m.path(&format!("{i}"))).unwrap();
    }
    let stream = unsafe { libc::opendir(sys::c(m.dir.path()).as_ptr()) };
    let all = rest(stream);
    assert_eq!(all.len(), 2002);
    assert_eq!((all[0].0.as_str(), all[1].0.as_str()), (".", ".."));
    assert!(all.iter().all(|line| line.2 == libc::DT_DIR));
    for at in [0, 1, 2, 700, 2001] {
        unsafe { libc::seekdir(stream, all[at].1) };
        assert_eq!(rest(stream), all[at + 1..]);
    }
    unsafe { libc::rewinddir(stream) };
    assert_eq!(rest(stream), all);
    unsafe { libc::closedir(stream) };
    let kinds: Vec<bool> = fs::read_dir(m.dir.path()).unwrap().map(|e| e.unwrap().ino() > 1).collect();
    assert_eq!(kinds, [true; 2000]);
}

#[test]
fn what_stays_is_listed_once_while_the_rest_goes() {
    let m = Mounted::new();
    let dir = m.path("d");
    fs::create_dir(&dir).unwrap();
    for i in 0..10_000 {
        sys::mknod(&dir.join(format!("{i}")), libc::S_IFREG | 0o600, 0).unwrap();
    }
    let mut seen = Vec::new();
    let remover = std::thread::spawn({
        let dir = dir.clone();
        move || (0..10_000).filter(|i| i % 2 == 1).for_each(|i| fs::remove_file(dir.join(format!("{i}"))).unwrap())
    });
    for entry in fs::read_dir(&dir).unwrap() {
        seen.push(entry.unwrap().file_name().into_string().unwrap().parse::<u32>().unwrap());
    }
    remover.join().unwrap();
    let set: BTreeSet<u32> = seen.iter().copied().collect();
    assert_eq!(set.len(), seen.len(), "a name was listed twice");
    assert!((0..10_000).step_by(2).all(|i| set.contains(&i)));
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 5000);
}

#[test]
fn a_removed_directory_that_is_open_is_still_there_for_its_descriptor() {
    let m = Mounted::new();
    fs::create_dir(m.path("d")).unwrap();
    let fd = sys::open(&m.path("d"), libc::O_RDONLY | libc::O_DIRECTORY, 0).unwrap();
    fs::remove_dir(m.path("d")).unwrap();
    assert_eq!(sys::fstat(&fd).unwrap().st_nlink, 0);
    let made = unsafe { libc::mkdirat(fd.as_raw_fd(), c"x".as_ptr(), 0o755) };
    assert_eq!(sys::check(made), Err(libc::ENOENT));
}

#[repr(C)]
struct FileHandle {
    bytes: u32,
    kind: i32,
    data: [u8; 128],
}

fn to_handle(path: &Path) -> FileHandle {
    let mut handle = FileHandle { bytes: 128, kind: 0, data: [0; 128] };
    let mut mount_id = 0i32;
    let path = sys::c(path);
    let result = unsafe {
        libc::syscall(libc::SYS_name_to_handle_at, libc::AT_FDCWD, path.as_ptr(), &mut handle, &mut mount_id, 0)
    };
    sys::check(result).unwrap();
    handle
}

fn open_handle(m: &Mounted, handle: &FileHandle, flags: i32) -> Result<OwnedFd, i32> {
    let root = File::open(m.dir.path()).unwrap();
    let fd = sys::check(unsafe { libc::syscall(libc::SYS_open_by_handle_at, root.as_raw_fd(), handle, flags) })?;
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

#[test]
fn file_handles_outlive_the_caches() {
    let m = Mounted::new();
    fs::create_dir_all(m.path("a/b")).unwrap();
    fs::write(m.path("a/b/f"), "found").unwrap();
    let (file, dir) = (to_handle(&m.path("a/b/f")), to_handle(&m.path("a/b")));
    sys::drop_caches();
    let fd = open_handle(&m, &file, libc::O_RDONLY).unwrap();
    assert_eq!(sys::pread(&fd, 10, 0).unwrap(), b"found");
    drop(fd);
    sys::drop_caches();
    let fd = open_handle(&m, &dir, libc::O_RDONLY | libc::O_DIRECTORY).unwrap();
    let up = unsafe { libc::openat(fd.as_raw_fd(), c"../b/f".as_ptr(), libc::O_RDONLY) };
    let up = unsafe { OwnedFd::from_raw_fd(sys::check(up).unwrap() as i32) };
    assert_eq!(sys::pread(&up, 10, 0).unwrap(), b"found");
    drop((fd, up));
    fs::remove_file(m.path("a/b/f")).unwrap();
    sys::drop_caches();
    assert_eq!(open_handle(&m, &file, libc::O_RDONLY).err(), Some(libc::ESTALE));
    let _: FileHandle = unsafe { mem::zeroed() };
}

#[test]
fn ioctls_are_not_for_us() {
    let m = Mounted::new();
    let fd = sys::open(&m.path("f"), libc::O_RDWR | libc::O_CREAT, 0o644).unwrap();
    let mut flags = 0;
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::FS_IOC_GETFLAGS, &mut flags) };
    assert_eq!(sys::check(result), Err(libc::ENOTTY));
}
