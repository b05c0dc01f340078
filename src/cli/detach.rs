//! Going to the background: the parent waits until the child says that it is ready, or why it is not.
//!
//! Must be called before any thread exists: only the calling thread lives on in the child. In order: the log is opened
//! (a bad path fails here), the process forks, the child leaves the terminal and the working directory, does its work,
//! and reports once through a pipe; the parent prints that and exits.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use crate::cli::failure::{Context, Failure, Outcome};
use crate::cli::out::print;

/// Which of the two processes this is.
pub enum Side {
    /// The child reported readiness with this text.
    Parent(String),
    Child(Report),
}

/// The child's one message to its parent; in a process that was not detached, to nobody.
pub struct Report {
    pipe: Option<File>,
}

/// A report longer than this is cut: it is for people.
const REPORT_BYTES_MAX: u64 = 64 << 10;

/// Forks; the child logs to `log`.
///
/// # Errors
/// The log cannot be opened, there is no second process to be had, or (in the parent) the child failed: its own
/// failure.
pub fn detach(log: &Path) -> Outcome<Side> {
    if let Some(dir) = log.parent() {
        std::fs::create_dir_all(dir).or_fail(|| format!("the log directory {} cannot be made", dir.display()))?;
    }
    let log_file = OpenOptions::new().create(true).append(true).open(log);
    let log_file = log_file.or_fail(|| format!("the log {} cannot be opened", log.display()))?;
    let (reader, writer) = std::io::pipe().or_fail(|| "the process cannot go to the background".to_string())?;
    // SAFETY: no other thread exists yet (the runtime is built after this), so the child may go on as usual.
    match unsafe { libc::fork() } {
        -1 => {
            Err(Failure::new(format!("the process cannot go to the background: {}", std::io::Error::last_os_error())))
        }
        0 => {
            drop(reader);
            leave_terminal(&log_file)?;
            Ok(Side::Child(Report { pipe: Some(File::from(OwnedFd::from(writer))) }))
        }
        _ => {
            drop(writer);
            wait_for_report(reader, log).map(Side::Parent)
        }
    }
}

fn leave_terminal(log: &File) -> Outcome {
    let leaving = || "the process cannot leave its terminal".to_string();
    let null = OpenOptions::new().read(true).write(true).open("/dev/null").or_fail(leaving)?;
    for (from, to) in [(null.as_raw_fd(), 0), (null.as_raw_fd(), 1), (log.as_raw_fd(), 2)] {
        // SAFETY: both descriptors are open; dup2 onto a standard stream is what this is for.
        if unsafe { libc::dup2(from, to) } < 0 {
            return Err(Failure::new(format!("{}: {}", leaving(), std::io::Error::last_os_error())));
        }
    }
    // SAFETY: takes no pointers; fails only for a group leader, which a fresh child is not.
    unsafe { libc::setsid() };
    std::env::set_current_dir("/").or_fail(leaving)
}

fn wait_for_report(reader: impl Read, log: &Path) -> Outcome<String> {
    let mut message = Vec::new();
    reader.take(REPORT_BYTES_MAX).read_to_end(&mut message).or_fail(|| "the background process is mute".to_string())?;
    match message.split_first() {
        Some((0, text)) => Ok(String::from_utf8_lossy(text).into_owned()),
        Some((code, text)) => Err(Failure::with_code(*code, &String::from_utf8_lossy(text))),
        None => Err(Failure::new(format!("the background process died; its log is {}", log.display()))),
    }
}

impl Report {
    /// For a process that stays in the foreground: readiness is printed, failure is left to the caller.
    pub fn foreground() -> Report {
        Report { pipe: None }
    }

    /// Everything works; the parent prints `text` and exits.
    pub fn ready(&mut self, text: &str) {
        match self.pipe.take() {
            // A parent that is gone does not matter: the work goes on.
            Some(mut pipe) => drop(pipe.write_all(&[&[0], text.as_bytes()].concat())),
            // As little as whether anybody reads it.
            None => drop(print(text)),
        }
    }

    /// It did not work. `true` when the parent will tell the user.
    pub fn failed(&mut self, failure: &Failure) -> bool {
        match self.pipe.take() {
            Some(mut pipe) => pipe.write_all(&[&[failure.code()], failure.sentence().as_bytes()].concat()).is_ok(),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_reach_the_parent() {
        let log = Path::new("/x/log");
        assert_eq!(wait_for_report(&b"\0mounted\n"[..], log), Ok("mounted\n".to_string()));
        let failure = wait_for_report(&b"\x02no such option"[..], log).unwrap_err();
        assert_eq!((failure.code(), failure.sentence()), (2, "no such option"));
        assert!(wait_for_report(&b""[..], log).unwrap_err().sentence().contains("/x/log"));
    }
}
