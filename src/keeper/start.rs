//! Starting a program that goes on with what is kept, or says whether it could.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::manager;
use super::oom;
use super::socket::Socket;
use super::watch::kill;
use super::{KEPT, PROGRAM, SOCKET_VARIABLE};

/// What is kept, by its name.
pub type Kept = BTreeMap<String, Vec<OwnedFd>>;

/// What is started, and how.
pub struct Start<'a> {
    pub command: &'a [OsString],
    /// In place of the one that the command names.
    pub program: Option<&'a OwnedFd>,
    pub oom_before: &'a oom::Before,
    /// Run before it is the program.
    pub unmask: fn() -> io::Result<()>,
}

impl Start<'_> {
    /// Hands it all that is kept, and says the word after that. Its process, and the other end of its socket.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn and_say(&self, word: &str, kept: &Kept) -> io::Result<(libc::pid_t, Socket)> {
        let [named, arguments @ ..] = self.command else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no command to start"));
        };
        let (ours, theirs) = Socket::pair()?;
        let program = self.program.map(|program| OsString::from(format!("/proc/self/fd/{}", program.as_raw_fd())));
        let mut command = Command::new(program.as_ref().unwrap_or(named));
        command.arg0(named).args(arguments).env(SOCKET_VARIABLE, theirs.number().to_string());
        for variable in manager::VARIABLES {
            command.env_remove(variable);
        }
        let (number, oom_before, unmask) = (theirs.number(), self.oom_before.clone(), self.unmask);
        // SAFETY: the keeper has one thread, so that its copy may do as it likes.
        unsafe {
            command.pre_exec(move || {
                stays_open(number)?;
                oom_before.restore();
                unmask()
            });
        }
        let child = command
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("{} cannot be started: {error}", named.display())))?;
        drop(theirs);
        let pid = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
        match hand_over(&ours, kept, word) {
            // One that has ended already is buried soon.
            Err(error) if !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                // It would wait for the rest for ever.
                kill(pid, libc::SIGKILL);
                Err(io::Error::new(error.kind(), format!("a client cannot be given what is kept: {error}")))
            }
            _ => Ok((pid, ours)),
        }
    }
}

fn hand_over(socket: &Socket, kept: &Kept, word: &str) -> io::Result<()> {
    for (name, descriptors) in kept.iter().filter(|(name, _)| *name != PROGRAM) {
        let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        socket.send(&format!("{KEPT} {name}"), &descriptors)?;
    }
    socket.send(word, &[])
}

fn stays_open(descriptor: RawFd) -> io::Result<()> {
    // SAFETY: takes a descriptor that is open, and numbers.
    if unsafe { libc::fcntl(descriptor, libc::F_SETFD, 0) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
