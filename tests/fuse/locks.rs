//! flock and fcntl locks, across processes, and what frees who waits for one.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::Mounted;
use crate::sys::{self, Child, code};

fn open(path: &Path) -> OwnedFd {
    sys::open(path, libc::O_RDWR | libc::O_CREAT, 0o644).unwrap()
}

#[test]
fn flock_and_fcntl_do_not_see_each_other() {
    let m = Mounted::new();
    let path = m.path("f");
    let held = open(&path);
    sys::flock(&held, libc::LOCK_EX).unwrap();
    let other = Child::run(|| {
        let fd = open(&path);
        let range = code(sys::lock(&fd, libc::F_SETLK, libc::F_WRLCK, 0, 0));
        let flock = code(sys::flock(&fd, libc::LOCK_SH | libc::LOCK_NB));
        i32::from(range != 0) << 1 | i32::from(flock != libc::EAGAIN)
    });
    assert_eq!(other.wait(), 0, "1: flock went through, 2: fcntl was refused");
    sys::flock(&held, libc::LOCK_UN).unwrap();
    let other = Child::run(|| code(sys::flock(&open(&path), libc::LOCK_EX | libc::LOCK_NB)));
    assert_eq!(other.wait(), 0);
}

#[test]
fn a_flock_goes_with_its_last_descriptor() {
    let m = Mounted::new();
    let (first, second) = (open(&m.path("f")), open(&m.path("f")));
    sys::flock(&first, libc::LOCK_EX).unwrap();
    let copy = first.try_clone().unwrap();
    drop(first);
    assert_eq!(sys::flock(&second, libc::LOCK_EX | libc::LOCK_NB), Err(libc::EAGAIN));
    drop(copy);
    // The release is sent behind the back of close.
    sys::flock(&second, libc::LOCK_EX).unwrap();
}

#[test]
fn ranges_split_and_are_reported() {
    let m = Mounted::new();
    let path = m.path("f");
    let fd = open(&path);
    sys::lock(&fd, libc::F_SETLK, libc::F_WRLCK, 0, 100).unwrap();
    sys::lock(&fd, libc::F_SETLK, libc::F_UNLCK, 40, 20).unwrap();
    let me = std::process::id() as i32;
    let other = Child::run(|| {
        let fd = open(&path);
        let free = sys::lock(&fd, libc::F_SETLK, libc::F_WRLCK, 40, 20).is_ok();
        let held = sys::test_lock(&fd, libc::F_RDLCK, 30, 50).unwrap();
        let first = (held.l_start, held.l_len, held.l_pid, i32::from(held.l_type)) == (0, 40, me, libc::F_WRLCK);
        let none = i32::from(sys::test_lock(&fd, libc::F_WRLCK, 100, 0).unwrap().l_type) == libc::F_UNLCK;
        i32::from(!free) | i32::from(!first) << 1 | i32::from(!none) << 2
    });
    assert_eq!(other.wait(), 0);
}

#[test]
fn closing_any_descriptor_drops_a_process_own_ranges() {
    let m = Mounted::new();
    let path = m.path("f");
    let (first, second) = (open(&path), open(&path));
    sys::lock(&first, libc::F_SETLK, libc::F_WRLCK, 0, 0).unwrap();
    let try_it = || Child::run(|| code(sys::lock(&open(&path), libc::F_SETLK, libc::F_WRLCK, 0, 0))).wait();
    assert_eq!(try_it(), libc::EAGAIN);
    drop(second);
    assert_eq!(try_it(), 0);
}

#[test]
fn open_file_description_locks_go_with_the_description() {
    let m = Mounted::new();
    let path = m.path("f");
    let (first, second) = (open(&path), open(&path));
    sys::lock(&first, libc::F_OFD_SETLK, libc::F_WRLCK, 0, 10).unwrap();
    assert_eq!(sys::lock(&second, libc::F_OFD_SETLK, libc::F_WRLCK, 5, 1), Err(libc::EAGAIN));
    // Closing another descriptor of the file does not drop it, as it would drop a process' lock.
    drop(open(&path));
    assert_eq!(sys::lock(&second, libc::F_OFD_SETLK, libc::F_WRLCK, 5, 1), Err(libc::EAGAIN));
    drop(first);
    sys::lock(&second, libc::F_OFD_SETLKW, libc::F_WRLCK, 5, 1).unwrap();
}

#[test]
fn a_waiter_gets_the_lock_when_its_holder_dies() {
    let m = Mounted::new();
    let path = m.path("f");
    let holder = Child::run(|| {
        let fd = open(&path);
        let result = code(sys::lock(&fd, libc::F_SETLK, libc::F_WRLCK, 0, 0));
        if result == 0 {
            unsafe { libc::pause() };
        }
        result
    });
    holder.blocked_in(libc::SYS_pause);
    let waiter = Child::run(|| code(sys::lock(&open(&path), libc::F_SETLKW, libc::F_WRLCK, 0, 0)));
    waiter.blocked_in(libc::SYS_fcntl);
    holder.signal(libc::SIGKILL);
    assert_eq!(holder.wait(), -libc::SIGKILL);
    assert_eq!(waiter.wait(), 0);
}

#[test]
fn a_circle_of_waiters_is_refused() {
    let m = Mounted::new();
    let path = m.path("f");
    let fd = open(&path);
    sys::lock(&fd, libc::F_SETLK, libc::F_WRLCK, 0, 1).unwrap();
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    let other = Child::run(|| {
        let fd = open(&path);
        let held = sys::lock(&fd, libc::F_SETLK, libc::F_WRLCK, 1, 1);
        if held.is_err() || writer.write_all(b"held").is_err() {
            return 99;
        }
        code(sys::lock(&fd, libc::F_SETLKW, libc::F_WRLCK, 0, 1))
    });
    drop(writer);
    reader.read_exact(&mut [0; 4]).unwrap();
    // Whoever closes the circle is refused; then the other gets what it waits for.
    let mine = code(sys::lock(&fd, libc::F_SETLKW, libc::F_WRLCK, 1, 1));
    sys::lock(&fd, libc::F_SETLK, libc::F_UNLCK, 0, 0).unwrap();
    assert!([(libc::EDEADLK, 0), (0, libc::EDEADLK)].contains(&(mine, other.wait())), "{mine}");
}

/// A process that waits for a lock another holds.
fn blocked(path: &Path, command: i64, before: fn()) -> Child {
    let child = Child::run(|| {
        let fd = open(path);
        before();
        match command {
            libc::SYS_flock => code(sys::flock(&fd, libc::LOCK_EX)),
            _ => code(sys::lock(&fd, libc::F_SETLKW, libc::F_WRLCK, 0, 0)),
        }
    });
    child.blocked_in(command);
    child
}

#[test]
fn a_waiter_can_be_killed() {
    let m = Mounted::new();
    let path = m.path("f");
    let held = open(&path);
    sys::flock(&held, libc::LOCK_EX).unwrap();
    sys::lock(&held, libc::F_SETLK, libc::F_WRLCK, 0, 0).unwrap();
    for command in [libc::SYS_flock, libc::SYS_fcntl] {
        let child = blocked(&path, command, || {});
        child.signal(libc::SIGKILL);
        let start = Instant::now();
        assert_eq!(child.wait(), -libc::SIGKILL);
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn an_alarm_interrupts_a_waiter() {
    extern "C" fn handler(_: i32) {}
    fn set_alarm() {
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as *const () as usize;
            libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut());
            libc::alarm(1);
        }
    }
    let m = Mounted::new();
    let path = m.path("f");
    let held = open(&path);
    sys::flock(&held, libc::LOCK_EX).unwrap();
    sys::lock(&held, libc::F_SETLK, libc::F_WRLCK, 0, 0).unwrap();
    for command in [libc::SYS_flock, libc::SYS_fcntl] {
        assert_eq!(blocked(&path, command, set_alarm).wait(), libc::EINTR);
    }
    // Who gave up is forgotten: the lock is free when its holder lets go.
    sys::flock(&held, libc::LOCK_UN).unwrap();
    sys::flock(&open(&path), libc::LOCK_EX | libc::LOCK_NB).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(held.as_raw_fd() > 0);
}
