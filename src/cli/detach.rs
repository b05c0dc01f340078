//! Going to the background: the parent waits until the child says that it is ready, or why it is not.
//!
//! Must be called before any thread exists: only the calling thread lives on in the child. In order: the log is opened
//! (a bad path fails here), the process forks, the child leaves the terminal and the working directory, does its work,
//! and reports once through a pipe; the parent prints that and exits. The child may become another program, one of whose own
//! processes then reports.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

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
const REPORT_BYTES_MAX: usize = 64 << 10;
/// Where a program that the child has become, or that was started by it, finds the number of the pipe.
const PIPE_VARIABLE: &str = "HOLDFAST_REPORT";

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

/// The code, the length of the text (32 bits, little endian), the text. Others may hold the pipe open after it.
fn wait_for_report(mut reader: impl Read, log: &Path) -> Outcome<String> {
    let died = || Failure::new(format!("the background process died; its log is {}", log.display()));
    let mut head = [0; 5];
    reader.read_exact(&mut head).map_err(|_| died())?;
    let [code, length @ ..] = head;
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX).min(REPORT_BYTES_MAX);
    let mut text = vec![0; length];
    reader.read_exact(&mut text).map_err(|_| died())?;
    let text = String::from_utf8_lossy(&text).into_owned();
    if code == 0 { Ok(text) } else { Err(Failure::with_code(code, &text)) }
}

fn report_of(code: u8, text: &str) -> Vec<u8> {
    let text = &text.as_bytes()[..text.len().min(REPORT_BYTES_MAX)];
    let length = u32::try_from(text.len()).unwrap_or_default();
    [&[code], &length.to_le_bytes()[..], text].concat()
}

impl Report {
    /// For a process that stays in the foreground: readiness is printed, failure is left to the caller.
    pub fn foreground() -> Report {
        Report { pipe: None }
    }

    /// The report that another process is waiting for, which became the one that started this; or that of the foreground. Once, and
    /// before there are threads.
    pub fn inherited() -> Report {
        let number = std::env::var(PIPE_VARIABLE).ok().and_then(|number| number.parse::<RawFd>().ok());
        // SAFETY: there are no other threads.
        unsafe { std::env::remove_var(PIPE_VARIABLE) };
        // SAFETY: takes numbers; fails for what is no open descriptor.
        let is_open = |number: &RawFd| unsafe { libc::fcntl(*number, libc::F_SETFD, libc::FD_CLOEXEC) } == 0;
        // SAFETY: a descriptor that was opened for this process's report, and that nothing else here has.
        Report { pipe: number.filter(is_open).map(|number| unsafe { File::from_raw_fd(number) }) }
    }

    /// Becomes another program, of whose processes one reports. Returns why that is not to be.
    pub fn become_program(&self, command: &mut Command) -> Failure {
        if let Some(pipe) = &self.pipe {
            // SAFETY: takes numbers; the descriptor is open.
            unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETFD, 0) };
            command.env(PIPE_VARIABLE, pipe.as_raw_fd().to_string());
        }
        let error = command.exec();
        Failure::new(format!("{} cannot be started: {error}", command.get_program().display()))
    }

    /// Everything works; the parent prints `text` and exits.
    pub fn ready(&mut self, text: &str) {
        match self.pipe.take() {
            // A parent that is gone does not matter: the work goes on.
            Some(mut pipe) => drop(pipe.write_all(&report_of(0, text))),
            // As little as whether anybody reads it.
            None => drop(print(text)),
        }
    }

    /// It did not work. `true` when the parent will tell the user.
    pub fn failed(&mut self, failure: &Failure) -> bool {
        match self.pipe.take() {
            Some(mut pipe) => pipe.write_all(&report_of(failure.code(), failure.sentence())).is_ok(),
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
        // Whoever holds the pipe on need not let go of it.
        let told = |report: Vec<u8>| wait_for_report(report.as_slice().chain(std::io::repeat(7)), log);
        assert_eq!(told(report_of(0, "mounted\n")), Ok("mounted\n".to_string()));
        let failure = told(report_of(2, "no such option")).unwrap_err();
        assert_eq!((failure.code(), failure.sentence()), (2, "no such option"));
        for cut in [&b""[..], b"\0\x08\0", b"\0\x08\0\0\0moun"] {
            assert!(wait_for_report(cut, log).unwrap_err().sentence().contains("/x/log"));
        }
    }
}
