//! Who is killed when there is no memory left: never a keeper, if its user may say so, as it has next to none, and mounts die with it.

use std::ffi::CStr;
use std::fs;

const PATH: &str = "/proc/self/oom_score_adj";
const PATH_FOR_THE_KERNEL: &CStr = c"/proc/self/oom_score_adj";
const NEVER: &str = "-1000";

/// How it stood with a process before, and stands with those that it starts.
#[derive(Clone, Debug)]
pub struct Before(Vec<u8>);

/// This process is not to be killed. An ordinary user may not say so; then it takes its chances with everybody else.
pub fn spare_this_process() -> Before {
    let before = fs::read(PATH).unwrap_or_default();
    let _ = fs::write(PATH, NEVER);
    Before(before)
}

impl Before {
    /// This process may be killed as any other. Between fork and exec: it calls the kernel, and nothing else.
    pub fn restore(&self) {
        // SAFETY: a string that ends, a buffer with its length, and a descriptor that the first call has made.
        unsafe {
            let file = libc::open(PATH_FOR_THE_KERNEL.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            if file >= 0 {
                libc::write(file, self.0.as_ptr().cast(), self.0.len());
                libc::close(file);
            }
        }
    }
}
