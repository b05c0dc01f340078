//! Times, extended attributes, ACLs.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::Mounted;
use crate::sys::{self, Child};

#[test]
fn times_of_all_ages_survive() {
    let m = Mounted::new();
    File::create(m.path("f")).unwrap();
    let times = [
        (0, 0),
        (-1, 0),
        (-2, 500_000_000),
        (-1, 999_999_999),
        (-1, 1),
        (-10_000_000_000, 7),
        (7_258_118_400, 123_456_789),
        (i64::MIN + 1, 1),
        (1 << 40, 999_999_999),
    ];
    for time in times {
        sys::set_times(&m.path("f"), time, (time.0, 5)).unwrap();
        let stat = sys::stat(&m.path("f"));
        assert_eq!((stat.st_atime, stat.st_atime_nsec), time);
        assert_eq!((stat.st_mtime, stat.st_mtime_nsec), (time.0, 5));
    }
    // At the very first second the kernel drops the rest.
    sys::set_times(&m.path("f"), (i64::MIN, 9), (0, libc::UTIME_OMIT)).unwrap();
    assert_eq!((sys::stat(&m.path("f")).st_atime, sys::stat(&m.path("f")).st_atime_nsec), (i64::MIN, 0));
    sys::set_times(&m.path("f"), *times.last().unwrap(), (0, libc::UTIME_OMIT)).unwrap();
    // One of the two may stay, or be now.
    sys::set_times(&m.path("f"), (0, libc::UTIME_OMIT), (0, libc::UTIME_NOW)).unwrap();
    let stat = sys::stat(&m.path("f"));
    assert_eq!((stat.st_atime, stat.st_atime_nsec), *times.last().unwrap());
    assert!(stat.st_mtime > 1_600_000_000);
}

#[test]
fn writes_move_times_and_reads_do_sometimes() {
    let m = Mounted::new();
    fs::write(m.path("f"), "x").unwrap();
    sys::set_times(&m.path("f"), (100, 0), (200, 0)).unwrap();
    fs::read(m.path("f")).unwrap();
    let read = sys::stat(&m.path("f"));
    assert!(read.st_atime > 200, "relatime");
    assert_eq!(read.st_mtime, 200);
    fs::write(m.path("f"), "y").unwrap();
    assert!(sys::stat(&m.path("f")).st_mtime > 200);
}

#[test]
fn a_thousand_attributes_and_a_large_one() {
    let m = Mounted::new();
    let path = m.path("f");
    File::create(&path).unwrap();
    let large: Vec<u8> = (0..65_536u32).map(|i| (i / 3) as u8).collect();
    sys::set_xattr(&path, "user.large", &large, 0).unwrap();
    for i in 0..1000 {
        sys::set_xattr(&path, &format!("user.a{i}"), format!("value {i}").as_bytes(), 0).unwrap();
    }
    assert!(sys::xattr(&path, "user.large", 65_536).unwrap() == large);
    assert_eq!(sys::xattr(&path, "user.a999", 100).unwrap(), b"value 999");
    let names: BTreeSet<String> = sys::xattrs(&path, 65_536).unwrap().into_iter().collect();
    assert_eq!(names.len(), 1001);
    sys::set_xattr(&path, "user.large", b"small", 0).unwrap();
    assert_eq!(sys::xattr(&path, "user.large", 65_536).unwrap(), b"small");
}

#[test]
fn attribute_calls_fail_as_they_should() {
    let m = Mounted::new();
    let path = m.path("f");
    File::create(&path).unwrap();
    sys::set_xattr(&path, "user.a", b"12345", libc::XATTR_CREATE).unwrap();
    assert_eq!(sys::set_xattr(&path, "user.a", b"x", libc::XATTR_CREATE), Err(libc::EEXIST));
    assert_eq!(sys::set_xattr(&path, "user.b", b"x", libc::XATTR_REPLACE), Err(libc::ENODATA));
    assert_eq!(sys::xattr(&path, "user.a", 0).unwrap().len(), 5);
    assert_eq!(sys::xattr(&path, "user.a", 4), Err(libc::ERANGE));
    assert_eq!(sys::xattr(&path, "user.none", 4), Err(libc::ENODATA));
    assert_eq!(sys::xattrs(&path, 3), Err(libc::ERANGE));
    sys::set_xattr(&path, "user.empty", b"", 0).unwrap();
    assert_eq!(sys::xattr(&path, "user.empty", 10).unwrap(), b"");
    sys::remove_xattr(&path, "user.a").unwrap();
    assert_eq!(sys::remove_xattr(&path, "user.a"), Err(libc::ENODATA));
    assert_eq!(sys::set_xattr(&path, "user.big", &[0; 65_537], 0), Err(libc::E2BIG));
}

#[test]
fn trusted_attributes_are_hidden_from_others() {
    let m = Mounted::new();
    let path = m.path("f");
    File::create(&path).unwrap();
    sys::set_xattr(&path, "trusted.t", b"x", 0).unwrap();
    sys::set_xattr(&path, "security.s", b"x", 0).unwrap();
    sys::set_xattr(&path, "user.u", b"x", 0).unwrap();
    assert_eq!(sys::xattrs(&path, 1000).unwrap(), ["security.s", "trusted.t", "user.u"]);
    let child = Child::run_as(1234, 1234, || i32::from(sys::xattrs(&path, 1000).unwrap() != ["security.s", "user.u"]));
    assert_eq!(child.wait(), 0);
}

fn run(program: &str, arguments: &[&str], path: &std::path::Path) -> String {
    let output = Command::new(program).args(arguments).arg(path).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn access_lists_are_enforced_and_follow_the_mode() {
    let m = Mounted::new();
    fs::set_permissions(m.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = m.path("f");
    fs::write(&path, "secret").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let can_read = |uid| Child::run_as(uid, uid, || i32::from(fs::read(&path).is_err())).wait() == 0;
    assert!(!can_read(1234));
    run("setfacl", &["-m", "u:1234:r"], &path);
    assert!(can_read(1234) && !can_read(1235));
    assert_eq!(sys::stat(&path).st_mode & 0o777, 0o640);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(!can_read(1234), "the mask follows the group bits");
    let listed = run("getfacl", &["-cpnE"], &path);
    assert_eq!(listed.trim(), "user::rw-\nuser:1234:r--\ngroup::---\nmask::---\nother::---");
    run("setfacl", &["-b"], &path);
    assert_eq!(sys::xattrs(&path, 1000).unwrap(), [""; 0]);
}

#[test]
fn default_lists_are_inherited_in_place_of_the_umask() {
    let m = Mounted::new();
    let dir = m.path("d");
    fs::create_dir(&dir).unwrap();
    run("setfacl", &["-d", "-m", "u:1234:rwx,g::r,o::-"], &dir);
    unsafe { libc::umask(0o077) };
    fs::create_dir(dir.join("sub")).unwrap();
    File::create(dir.join("f")).unwrap();
    unsafe { libc::umask(0o022) };
    let listed = run("getfacl", &["-cpnE"], &dir.join("f"));
    assert_eq!(listed.trim(), "user::rw-\nuser:1234:rwx\ngroup::r--\nmask::rw-\nother::---");
    assert!(run("getfacl", &["-cpnE"], &dir.join("sub")).contains("default:user:1234:rwx"));
}

#[test]
fn who_is_not_in_the_group_loses_set_group_id_with_an_access_list() {
    let m = Mounted::new();
    let path = m.path("f");
    File::create(&path).unwrap();
    let as_owner = || {
        let status = Command::new("setfacl").args(["-m", "u:5:r"]).arg(&path).status();
        i32::from(!status.is_ok_and(|status| status.success()))
    };
    for (gid, mode) in [(77, 0o0765), (1234, 0o2765)] {
        sys::check(unsafe { libc::chown(sys::c(&path).as_ptr(), 1234, gid) }).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o2765)).unwrap();
        assert_eq!(Child::run_as(1234, 1234, as_owner).wait(), 0);
        assert_eq!(sys::stat(&path).st_mode & 0o7777, mode);
    }
}
