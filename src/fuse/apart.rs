//! Threads that are apart from their process in one respect: they have a working directory, or a table of descriptors,
//! of their own. For system calls that would otherwise drag the whole process along.

use std::io;
use std::thread;

/// Runs `work` where changing the working directory changes it for nobody else.
///
/// # Errors
/// No thread can be made or parted; or what `work` says.
pub(super) fn with_own_directory<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    on_a_thread(|| {
        // SAFETY: parts this thread, which is new, from its process; nothing else is changed.
        check(unsafe { libc::unshare(libc::CLONE_FS) })?;
        work()
    })
}

/// Runs `work` without descriptors but the first three, where the kernel can do that. A call in it that never returns does
/// not keep the descriptors of the process open when that is killed.
///
/// # Errors
/// No thread can be made; or what `work` says.
pub(super) fn without_descriptors<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    on_a_thread(|| {
        // SAFETY: parts this thread, which is new, from its process; nothing else is changed.
        if unsafe { libc::unshare(libc::CLONE_FILES) } == 0 {
            // SAFETY: closes copies of descriptors, in a table that only this thread has and that nothing in `work` uses.
            unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
        }
        work()
    })
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    })
}

/// What a system call answered.
pub(super) fn check<T: Into<i64> + Copy>(answer: T) -> io::Result<T> {
    if answer.into() < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_directory_of_its_own() {
        let before = std::env::current_dir().unwrap();
        let inside = with_own_directory(|| {
            std::env::set_current_dir("/proc")?;
            std::env::current_dir()
        });
        assert_eq!(inside.unwrap().as_os_str(), "/proc");
        assert_eq!(std::env::current_dir().unwrap(), before);
    }

    #[test]
    fn no_descriptors_and_none_lost() {
        let file = File::open("/proc/self/status").unwrap();
        let number = file.as_raw_fd();
        // SAFETY: asks about a number; it need not be open.
        let flags = without_descriptors(|| check(unsafe { libc::fcntl(number, libc::F_GETFD) }));
        assert_eq!(flags.unwrap_err().raw_os_error(), Some(libc::EBADF));
        assert!(file.metadata().is_ok());
    }
}
