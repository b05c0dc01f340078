//! Requests that wait for the cluster: who dies meanwhile, and what another host does meanwhile.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use holdfast::client::api::{Handle, NewInode, OpenMode, Owner, Posix, WriteRequest};
use holdfast::types::attr::Attr;
use holdfast::types::id::Ino;
use holdfast::types::name::Name;
use holdfast::types::op::{NewNode, RenameMode};

use crate::Mounted;
use crate::reference::Held;
use crate::sys::{self, Child, code, until};

/// A process that waits for `held` while it does `work`.
pub fn parked(m: &Mounted, held: Held, work: impl FnOnce() -> i32) -> Child {
    m.fs.hold(held);
    let child = Child::run(work);
    m.runtime.block_on(m.fs.holds_one());
    child
}

pub fn dies(child: Child) {
    let start = Instant::now();
    child.signal(libc::SIGKILL);
    assert_eq!(child.wait(), -libc::SIGKILL);
    assert!(start.elapsed() < Duration::from_secs(5));
}

pub fn read(path: &Path) -> i32 {
    i32::from(fs::read(path).is_err())
}

#[test]
fn a_reader_can_be_killed() {
    let m = Mounted::new();
    let path = m.path("f");
    fs::write(&path, "x").unwrap();
    dies(parked(&m, Held::Read, || read(&path)));
    m.runtime.block_on(m.fs.resume());
    assert_eq!(read(&path), 0);
}

#[test]
fn who_is_killed_while_opening_leaves_no_handle() {
    let m = Mounted::new();
    let path = m.path("f");
    fs::write(&path, "x").unwrap();
    until(|| m.fs.handles() == 0);
    dies(parked(&m, Held::Open, || read(&path)));
    m.runtime.block_on(m.fs.resume());
    dies(parked(&m, Held::Create, || code(sys::open(&m.path("new"), libc::O_CREAT | libc::O_WRONLY, 0o600))));
    m.runtime.block_on(m.fs.resume());
    until(|| m.path("new").exists());
    until(|| m.fs.handles() == 0);
}

#[test]
fn a_change_goes_on_without_the_process_that_asked_for_it() {
    let m = Mounted::new();
    let path = m.path("d");
    dies(parked(&m, Held::Make, || fs::create_dir(&path).map_or(1, |()| 0)));
    assert!(!path.exists());
    m.runtime.block_on(m.fs.resume());
    until(|| path.exists());
}

extern "C" fn ignore(_: i32) {}

/// From now on this signal interrupts whatever can be interrupted.
fn catch(signal: i32) {
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = ignore as *const () as usize;
        libc::sigaction(signal, &action, std::ptr::null_mut());
    }
}

/// What must not happen has no moment to wait for: this waits for longer than a signal takes to be noticed.
fn is_not_interrupted(m: &Mounted, child: Child) {
    child.signal(libc::SIGUSR1);
    thread::sleep(Duration::from_millis(1000));
    m.runtime.block_on(m.fs.resume());
    assert_eq!(child.wait(), 0);
}

#[test]
fn a_caught_signal_does_not_interrupt_a_read() {
    let m = Mounted::new();
    let path = m.path("f");
    fs::write(&path, "x").unwrap();
    let child = parked(&m, Held::Read, || {
        catch(libc::SIGUSR1);
        let file = sys::open(&path, libc::O_RDONLY, 0);
        file.and_then(|file| sys::pread(&file, 1, 0)).map_or_else(|errno| errno, |data| i32::from(data != b"x"))
    });
    is_not_interrupted(&m, child);
}

/// Who is told of a signal does not expect to have the lock.
#[test]
fn a_lock_that_was_granted_is_not_given_up() {
    let m = Mounted::new();
    let path = m.path("f");
    fs::write(&path, "x").unwrap();
    let child = parked(&m, Held::Locked, || {
        catch(libc::SIGUSR1);
        code(sys::open(&path, libc::O_RDWR, 0).and_then(|file| sys::flock(&file, libc::LOCK_EX)))
    });
    is_not_interrupted(&m, child);
}

/// Makes a file of root's as another host would, while a process of this one creates it.
fn made_elsewhere(m: &Mounted, name: &str, uid: u32, mode: u32, data: &[u8]) -> Attr {
    m.runtime.block_on(async {
        let owner = Owner { uid, gid: 0 };
        let new = NewInode { node: NewNode::File, mode, umask: 0, owner };
        let attr = m.fs.make(Ino::ROOT, Name::new(name).unwrap(), new).await.unwrap();
        let mode = OpenMode { read: false, write: true, sync: false };
        let handle: Handle = m.fs.open(attr.ino, mode).await.unwrap();
        let write = WriteRequest { offset: 0, data, append: false, clear_privileges: false, sync: false };
        m.fs.write(attr.ino, handle, write).await.unwrap();
        m.fs.release(attr.ino, handle, None).await.unwrap();
        attr
    })
}

#[test]
fn a_file_that_was_made_elsewhere_meanwhile_is_opened_with_all_checks() {
    let m = Mounted::new();
    fs::set_permissions(m.dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    for (name, uid, mode, expected) in [("a", 0, 0o600, libc::EACCES), ("b", 0, 0o606, 0), ("c", 1234, 0o600, 0)] {
        let path = m.path(name);
        let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
        m.fs.hold(Held::Create);
        let child = Child::run_as(1234, 1234, || {
            let Ok(file) = sys::open(&path, flags, 0o644) else {
                return std::io::Error::last_os_error().raw_os_error().unwrap();
            };
            i32::from(fs::File::from(file).write_all(b"new").is_err())
        });
        m.runtime.block_on(m.fs.holds_one());
        let attr = made_elsewhere(&m, name, uid, mode, b"what was there");
        m.runtime.block_on(m.fs.resume());
        assert_eq!(child.wait(), expected, "{name}");
        let data = fs::read(&path).unwrap();
        assert_eq!(data, if expected == 0 { &b"new"[..] } else { b"what was there" });
        assert_eq!(fs::metadata(&path).unwrap().ino(), attr.ino.0);
    }
    until(|| m.fs.handles() == 0);
}

/// The kernel can move a directory that is in use only while nothing else is moved between directories.
#[test]
fn a_directory_that_was_moved_elsewhere_is_found_while_a_rename_waits() {
    let m = Mounted::new();
    let made = ["from", "to", "x", "y", "from/d"].map(|name| {
        fs::create_dir(m.path(name)).unwrap();
        Ino(fs::metadata(m.path(name)).unwrap().ino())
    });
    fs::write(m.path("x/f"), "x").unwrap();
    let in_use = fs::File::open(m.path("from/d")).unwrap();
    let d = || Name::new("d").unwrap();
    m.runtime.block_on(m.fs.rename((made[0], d()), (made[1], d()), RenameMode::Replace)).unwrap();
    let renames = parked(&m, Held::Rename, || fs::rename(m.path("x/f"), m.path("y/f")).map_or(1, |()| 0));
    let found = m.path("to/d");
    let looks = thread::spawn(move || fs::metadata(found).map(|found| found.ino()));
    // What has to wait has no moment to wait for: this is longer than a look-up takes.
    thread::sleep(Duration::from_millis(300));
    assert!(!looks.is_finished());
    m.runtime.block_on(m.fs.resume());
    assert_eq!(renames.wait(), 0);
    assert_eq!(looks.join().unwrap().unwrap(), in_use.metadata().unwrap().ino());
}
