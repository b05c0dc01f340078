//! The client's end.

use std::collections::HashMap;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

use super::socket::Socket;
use super::{DONE, FITS, GO, HEARS, KEEP, KEPT, LEAVE, REFUSES, SOCKET_VARIABLE, TRY};

/// What was kept of the client before, by its name.
pub type Inherited = HashMap<String, Vec<OwnedFd>>;

/// What a process with a keeper begins with.
#[derive(Debug)]
pub struct Found {
    pub ward: Ward,
    pub inherited: Inherited,
    /// It is only to say whether it could go on with that.
    pub is_trial: bool,
}

/// A process whose mount outlives it.
#[derive(Debug)]
pub struct Ward {
    socket: Socket,
}

impl Ward {
    /// Whether this process has a keeper, and what that has kept. Once, and before there are threads.
    ///
    /// # Errors
    /// The keeper is gone, or speaks otherwise.
    pub fn find() -> io::Result<Option<Found>> {
        let Some(number) = std::env::var(SOCKET_VARIABLE).ok().and_then(|number| number.parse().ok()) else {
            return Ok(None);
        };
        // SAFETY: there are no other threads; and programs that this one starts are not the keeper's.
        unsafe { std::env::remove_var(SOCKET_VARIABLE) };
        // SAFETY: fails for what is no open descriptor; what is one was opened by the keeper for this process alone.
        let file = unsafe {
            if libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(number)
        };
        let ward = Ward { socket: Socket::of(file) };
        let mut inherited = Inherited::new();
        loop {
            let Some((message, descriptors)) = ward.socket.receive()? else {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the keeper is gone"));
            };
            match message.split_once(' ') {
                Some((KEPT, name)) => drop(inherited.insert(name.to_owned(), descriptors)),
                _ if message == GO || message == TRY => {
                    return Ok(Some(Found { ward, inherited, is_trial: message == TRY }));
                }
                _ => return Err(io::Error::new(io::ErrorKind::InvalidData, format!("the keeper says {message:?}"))),
            }
        }
    }

    /// Has it keep copies of these, in place of those of the same name.
    ///
    /// # Errors
    /// The keeper is gone.
    pub fn keep(&self, name: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.socket.send(&format!("{KEEP} {name}"), descriptors)
    }

    /// It could go on with what it was given.
    ///
    /// # Errors
    /// The keeper is gone.
    pub fn fits(&self) -> io::Result<()> {
        self.socket.send(FITS, &[])
    }

    /// It serves; from now on a signal, or a word, makes this process end in order.
    pub fn hears(&self) {
        self.say(HEARS);
    }

    /// Nobody is to follow this process.
    pub fn is_done(&self) {
        self.say(DONE);
    }

    /// It cannot leave now.
    pub fn refuses(&self, why: &str) {
        self.say(&format!("{REFUSES} {why}"));
    }

    /// Without a keeper the process goes on as others do.
    fn say(&self, message: &str) {
        if let Err(error) = self.socket.send(message, &[]) {
            tracing::warn!(%error, "the keeper of this mount is gone: the mount ends with this process");
        }
    }

    /// Waits until the keeper wants another to follow. `false`: it is gone.
    pub fn is_to_leave(&self) -> bool {
        loop {
            match self.socket.receive() {
                Ok(Some((message, _))) if message == LEAVE => return true,
                Ok(Some(_)) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(None) | Err(_) => return false,
            }
        }
    }
}
