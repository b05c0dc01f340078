//! Mounting and unmounting, in order and otherwise.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use holdfast::fuse::invalidate::Invalidator;
use holdfast::fuse::options::MountOptions;
use holdfast::fuse::session::{Mount, MountError, Served};

use crate::reference::Reference;
use crate::synced::kind_here;
use crate::sys::{self, Child, code};
use crate::{Mounted, TURN, runtime};

/// The fields of a mount in `/proc/self/mounts`: source, type, options.
pub fn listed(path: &Path) -> Option<(String, String, String)> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = mounts.lines().rfind(|line| line.split(' ').nth(1) == path.to_str())?;
    let fields: Vec<&str> = line.split(' ').collect();
    Some((fields[0].into(), fields[2].into(), fields[3].into()))
}

fn start(path: &Path, runtime: &tokio::runtime::Runtime) -> Result<Mount, MountError> {
    let (fs, options) = (Arc::new(Reference::default()), MountOptions::new("other"));
    Mount::start(Served::new(fs, runtime.handle().clone(), Invalidator::new()), path, &options)
}

#[test]
fn a_mount_shows_what_it_is() {
    let m = Mounted::with("noexec,noatime", Reference::default());
    let (source, kind, options) = listed(m.dir.path()).unwrap();
    assert_eq!((source.as_str(), kind.as_str()), ("holdfast:test", kind_here()));
    for option in ["rw", "nosuid", "nodev", "noexec", "noatime", "default_permissions", "allow_other"] {
        assert!(options.split(',').any(|one| one == option), "{option} is not in {options}");
    }
}

#[test]
fn suid_and_dev_are_honoured_when_asked_for() {
    let m = Mounted::new();
    let options = listed(m.dir.path()).unwrap().2;
    assert!(!options.contains("nosuid") && !options.contains("nodev"), "{options}");
    fs::copy("/usr/bin/id", m.path("id")).unwrap();
    fs::set_permissions(m.path("id"), std::os::unix::fs::PermissionsExt::from_mode(0o4755)).unwrap();
    fs::set_permissions(m.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let child = Child::run_as(1234, 1234, || {
        let output = Command::new(m.path("id")).arg("-u").output();
        i32::from(output.is_ok_and(|output| output.stdout == b"0\n"))
    });
    assert_eq!(child.wait(), 1);
}

#[test]
fn dirsync_makes_changes_of_names_durable() {
    let m = Mounted::with("dirsync", Reference::default());
    let changes: [&dyn Fn() -> std::io::Result<()>; 5] = [
        &|| fs::create_dir(m.path("d")),
        &|| File::create(m.path("f")).map(drop),
        &|| fs::hard_link(m.path("f"), m.path("g")),
        &|| fs::rename(m.path("f"), m.path("h")),
        &|| fs::remove_file(m.path("g")),
    ];
    for change in changes {
        let before = m.fs.syncs();
        change().unwrap();
        assert_eq!(m.fs.syncs(), before + 1);
    }
    fs::rename(m.path("h"), m.path("d/h")).unwrap();
    assert_eq!(m.fs.syncs(), 7, "both directories");
}

#[test]
fn remounting_read_only_stops_writers() {
    let m = Mounted::new();
    fs::write(m.path("f"), "before").unwrap();
    let remount = |how: &str| {
        let status = Command::new("mount").args(["-i", "-o", how]).arg(m.dir.path()).status().unwrap();
        assert!(status.success());
    };
    remount("remount,ro");
    assert_eq!(code(sys::open(&m.path("f"), libc::O_WRONLY, 0)), libc::EROFS);
    assert_eq!(code(sys::open(&m.path("g"), libc::O_WRONLY | libc::O_CREAT, 0o600)), libc::EROFS);
    assert_eq!(fs::read(m.path("f")).unwrap(), b"before");
    remount("remount,rw");
    fs::write(m.path("f"), "after").unwrap();
}

#[test]
fn unmounting_syncs_and_ends_the_wait() {
    let m = Mounted::new();
    fs::write(m.path("f"), "x").unwrap();
    let before = m.fs.syncs();
    m.runtime.block_on(m.mount.unmount()).unwrap();
    assert!(m.fs.syncs() > before);
    assert_eq!(listed(m.dir.path()), None);
    // Again, and by waiting: nothing is left to do.
    m.runtime.block_on(m.mount.unmount()).unwrap();
    m.runtime.block_on(m.mount.wait()).unwrap();
}

#[test]
fn an_unmount_from_outside_ends_the_wait() {
    let m = Mounted::new();
    assert!(Command::new("umount").arg(m.dir.path()).status().unwrap().success());
    m.runtime.block_on(m.mount.wait()).unwrap();
    assert!(m.fs.syncs() > 0);
}

#[test]
fn a_mount_in_use_stays() {
    let m = Mounted::new();
    let file = File::create(m.path("f")).unwrap();
    assert!(matches!(m.runtime.block_on(m.mount.unmount()), Err(MountError::InUse(_))));
    assert!(m.path("f").exists());
    drop(file);
}

#[test]
fn taken_mountpoints_are_refused() {
    let m = Mounted::new();
    let error = start(m.dir.path(), &m.runtime).unwrap_err();
    assert!(matches!(&error, MountError::AlreadyMounted(source, _) if source == "holdfast:test"), "{error}");
    assert!(matches!(start(Path::new("/proc"), &m.runtime), Err(MountError::Busy(..))));
    assert!(matches!(start(&m.path("missing"), &m.runtime), Err(MountError::MountpointMissing(_))));
    File::create(m.path("file")).unwrap();
    assert!(matches!(start(&m.path("file"), &m.runtime), Err(MountError::NotDirectory(_))));
    assert!(m.path("file").exists(), "the mount that was there serves on");
}

#[test]
fn the_mount_of_a_dead_process_is_replaced() {
    let _turn = TURN.lock();
    let dir = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let child = Child::run(|| {
        let runtime = runtime();
        let mount = start(dir.path(), &runtime);
        let mounted = mount.is_ok();
        drop(writer);
        drop(reader);
        std::mem::forget(mount);
        i32::from(!mounted)
    });
    assert_eq!(child.wait(), 0);
    assert_eq!(fs::metadata(dir.path()).unwrap_err().raw_os_error(), Some(libc::ENOTCONN));
    let runtime = runtime();
    let mount = start(dir.path(), &runtime).unwrap();
    fs::write(dir.path().join("f"), "alive").unwrap();
    runtime.block_on(mount.unmount()).unwrap();
    assert!(!dir.path().join("f").exists());
}

#[test]
fn a_mount_on_top_of_ours_is_not_unmounted_in_its_place() {
    let m = Mounted::new();
    let mount = |arguments: &[&str]| {
        assert!(Command::new(arguments[0]).args(&arguments[1..]).arg(m.dir.path()).status().unwrap().success())
    };
    mount(&["mount", "-t", "tmpfs", "none"]);
    m.mount.detach().unwrap();
    assert_eq!(listed(m.dir.path()).unwrap().1, "tmpfs");
    mount(&["umount"]);
    assert_eq!(listed(m.dir.path()).unwrap().1, kind_here());
}

/// `nobody`, for whom fusermount3 finds a name.
const NOBODY: u32 = 65_534;

/// What an ordinary user finds; 0 if all is well.
#[test]
fn an_ordinary_user_mounts_by_fusermount() {
    let _turn = TURN.lock();
    assert!(Command::new("fusermount3").arg("-V").output().is_ok(), "this test needs fusermount3");
    let (dir, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    sys::check(unsafe { libc::chown(sys::c(dir.path()).as_ptr(), NOBODY, NOBODY) }).unwrap();
    let node = scratch.path().to_path_buf();
    let prepare = move || sys::open_device_to_all(&node);
    sys::run_alone("mounting::as_nobody_by_fusermount", &[("MOUNTPOINT", dir.path())], prepare);
}

#[test]
#[ignore = "run by an_ordinary_user_mounts_by_fusermount in a process of its own"]
fn as_nobody_by_fusermount() {
    let path = sys::given("MOUNTPOINT");
    assert!(sys::become_user(NOBODY, NOBODY));
    let runtime = runtime();
    let mount = start(&path, &runtime).unwrap();
    let (source, kind, options) = listed(&path).unwrap();
    assert_eq!((source.as_str(), kind.as_str()), ("holdfast:other", "fuse.holdfast"));
    assert!(options.contains("nosuid,nodev"), "{options}");
    // The root directory is root's in the reference; looking is allowed.
    assert!(fs::read_dir(&path).is_ok() && fs::write(path.join("f"), "x").is_err());
    assert!(matches!(start(&path, &runtime), Err(MountError::AlreadyMounted(..))));
    runtime.block_on(mount.unmount()).unwrap();
    assert_eq!(listed(&path), None);
    let demanding = MountOptions::parse("other", "syncfs").unwrap();
    let refused = Mount::start(
        Served::new(Arc::new(Reference::default()), runtime.handle().clone(), Invalidator::new()),
        &path,
        &demanding,
    );
    assert!(matches!(refused, Err(MountError::SyncUnheard(_))));
}

#[test]
fn an_ordinary_user_is_told_what_is_missing() {
    let _turn = TURN.lock();
    let dir = tempfile::tempdir().unwrap();
    sys::check(unsafe { libc::chown(sys::c(dir.path()).as_ptr(), NOBODY, NOBODY) }).unwrap();
    sys::run_alone("mounting::as_nobody_without_fusermount", &[("MOUNTPOINT", dir.path())], || true);
}

#[test]
#[ignore = "run by an_ordinary_user_is_told_what_is_missing in a process of its own"]
fn as_nobody_without_fusermount() {
    let path = sys::given("MOUNTPOINT");
    assert!(sys::become_user(NOBODY, NOBODY));
    // SAFETY: no other thread of this process looks at the environment.
    unsafe { std::env::set_var("PATH", "/nonexistent") };
    assert!(matches!(start(&path, &runtime()), Err(MountError::FusermountMissing)));
}
