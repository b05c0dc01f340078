//! What the kernel tells a mount on a block device: of `sync`, and of its end. And that nobody waits for ever.
//!
//! Where there can be no block device (an older kernel, a mount namespace that is not the host's) it is shown that a mount
//! which demands one is refused, and that others do without.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use holdfast::fuse::blockdev::check_host;
use holdfast::fuse::invalidate::Invalidator;
use holdfast::fuse::options::MountOptions;
use holdfast::fuse::session::{Mount, MountError, Served};
use tokio::runtime::Runtime;

use crate::mounting::listed;
use crate::parked::{dies, parked, read};
use crate::reference::{Held, Reference};
use crate::sys::{self, Child, until};
use crate::{Mounted, TURN, runtime};

/// The type of mounts that this host makes by itself.
pub fn kind_here() -> &'static str {
    if check_host().is_ok() { "fuseblk.holdfast" } else { "fuse.holdfast" }
}

fn start(fs: &Arc<Reference>, path: &Path, options: &MountOptions, runtime: &Runtime) -> Result<Mount, MountError> {
    Mount::start(Served::new(fs.clone(), runtime.handle().clone(), Invalidator::new()), path, options)
}

/// A mount that hears `sync`; none where that cannot be, which is then said.
fn hearing() -> Option<Mounted> {
    if check_host().is_ok() {
        return Some(Mounted::with("syncfs", Reference::default()));
    }
    let (_turn, dir, runtime) = (TURN.lock(), tempfile::tempdir().unwrap(), runtime());
    let options = MountOptions::parse("test", "syncfs").unwrap();
    let refused = start(&Arc::default(), dir.path(), &options, &runtime);
    assert!(matches!(refused, Err(MountError::SyncUnheard(_))));
    assert_eq!(listed(dir.path()), None);
    None
}

#[test]
fn sync_syncfs_and_umount_return_when_all_is_durable() {
    let Some(m) = hearing() else { return };
    let sync = || unsafe { libc::sync() };
    let syncfs = || assert_eq!(sys::syncfs(m.dir.path()), Ok(0));
    let umount = || assert_eq!(sys::umount(m.dir.path()), Ok(0));
    let calls: [&dyn Fn(); 3] = [&sync, &syncfs, &umount];
    for call in calls {
        let before = m.fs.syncs();
        call();
        assert!(m.fs.syncs() > before);
    }
}

#[test]
fn a_mount_can_do_without_a_block_device() {
    let m = Mounted::with("nosyncfs", Reference::default());
    assert_eq!(listed(m.dir.path()).unwrap().1, "fuse.holdfast");
    sys::syncfs(m.dir.path()).unwrap();
    assert_eq!(m.fs.syncs(), 0);
}

#[test]
fn the_source_is_as_it_was_given() {
    let (_turn, dir, runtime, fs) = (TURN.lock(), tempfile::tempdir().unwrap(), runtime(), Arc::default());
    let no_file_name = "n".repeat(256);
    for (name, kind) in [
        ("holdfast:test", kind_here()),
        ("10.0.0.1:7400,10.0.0.2:7400:/main", kind_here()),
        (no_file_name.as_str(), "fuse.holdfast"),
        ("/dev/null", "fuse.holdfast"),
        ("../x", "fuse.holdfast"),
    ] {
        let options = MountOptions { fsname: name.into(), ..MountOptions::new("test") };
        let mount = start(&fs, dir.path(), &options, &runtime).unwrap();
        let (source, found, _) = listed(dir.path()).unwrap();
        assert_eq!((source.as_str(), found.as_str()), (name, kind));
        runtime.block_on(mount.unmount()).unwrap();
    }
}

#[test]
fn who_syncs_the_filesystem_waits_and_can_be_killed() {
    let Some(m) = hearing() else { return };
    let sync = || sys::syncfs(m.dir.path()).map_or_else(|errno| errno, |_| 0);
    dies(parked(&m, Held::Sync, sync));
    m.runtime.block_on(m.fs.resume());
    let child = parked(&m, Held::Sync, sync);
    m.runtime.block_on(m.fs.resume());
    assert_eq!(child.wait(), 0);
}

/// As when one of them is the last user of the mount, and so the one who unmounts it.
#[test]
fn an_unmount_does_not_wait_for_threads_that_are_stuck() {
    let Some(m) = hearing() else { return };
    let stuck: Vec<mpsc::Sender<()>> = (0..2).map(|_| stick(&m.runtime)).collect();
    let start = Instant::now();
    sys::umount(m.dir.path()).unwrap();
    assert!(start.elapsed() < Duration::from_secs(20));
    drop(stuck);
    m.runtime.block_on(m.mount.wait()).unwrap();
    assert!(m.fs.syncs() > 0, "what was left is synced after the unmount");
}

/// Holds one of the runtime's threads until the sender is dropped.
fn stick(runtime: &Runtime) -> mpsc::Sender<()> {
    let ((sender, receiver), (stuck, sticks)) = (mpsc::channel(), mpsc::channel());
    runtime.spawn(async move {
        stuck.send(()).unwrap();
        let _ = receiver.recv();
    });
    sticks.recv().unwrap();
    sender
}

#[test]
fn a_process_that_is_killed_while_it_unmounts_itself_is_gone() {
    let _turn = TURN.lock();
    let dir = tempfile::tempdir().unwrap();
    let (mut mounted, mut tell) = std::io::pipe().unwrap();
    let child = Child::run(|| {
        let (runtime, fs) = (runtime(), Arc::<Reference>::default());
        fs.hold(Held::Sync);
        let Ok(mount) = start(&fs, dir.path(), &MountOptions::new("test"), &runtime) else { return 1 };
        let told = tell.write_all(b"x");
        i32::from(told.is_err() || runtime.block_on(mount.unmount()).is_err())
    });
    mounted.read_exact(&mut [0]).unwrap();
    until(|| listed(dir.path()).is_none());
    child.signal(libc::SIGKILL);
    child.vanishes();
}

#[test]
fn a_forced_unmount_lets_go_of_everyone() {
    let m = Mounted::new();
    let path = m.path("f");
    fs::write(&path, "x").unwrap();
    let child = parked(&m, Held::Read, || read(&path));
    let target = sys::c(m.dir.path());
    sys::check(unsafe { libc::umount2(target.as_ptr(), libc::MNT_FORCE | libc::MNT_DETACH) }).unwrap();
    assert_eq!(child.wait(), 1);
    m.runtime.block_on(m.fs.resume());
}
