//! What a service manager has in its keeping for a process: copies of what that has open, which the next one finds when this one was
//! killed and is started again (systemd's [file descriptor
//! store](https://systemd.io/FILE_DESCRIPTOR_STORE/), `FileDescriptorStoreMax=` in the unit).
//!
//! Only the main process of a service has one: whoever a service starts besides has the same environment.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use super::say;
use super::socket::Socket;

const SOCKET: &str = "NOTIFY_SOCKET";
const MAIN_PROCESS: &str = "SYSTEMD_EXEC_PID";
const LISTEN_PROCESS: &str = "LISTEN_PID";
const LISTEN_COUNT: &str = "LISTEN_FDS";
const LISTEN_NAMES: &str = "LISTEN_FDNAMES";
/// What is meant for this process alone.
pub const VARIABLES: [&str; 3] = [LISTEN_PROCESS, LISTEN_COUNT, LISTEN_NAMES];
/// The first descriptor that a manager hands over.
const FIRST: RawFd = 3;

pub struct Manager {
    socket: Socket,
}

impl Manager {
    /// `None`: nobody keeps anything for this process.
    pub fn find() -> Option<Manager> {
        let is_main = number_of(MAIN_PROCESS) == Some(std::process::id());
        let path = std::env::var_os(SOCKET).map(PathBuf::from).filter(|path| is_main && path.is_absolute())?;
        match Manager::at(&path) {
            Ok(manager) => Some(manager),
            Err(error) => {
                say(format_args!("the service manager keeps nothing: {}: {error}", path.display()));
                None
            }
        }
    }

    /// # Errors
    /// Nobody listens there.
    pub fn at(path: &Path) -> io::Result<Manager> {
        Ok(Manager { socket: Socket::datagrams_to(path)? })
    }

    /// Has it keep copies of these, in place of those of the same name.
    pub fn keep(&self, name: &str, descriptors: &[OwnedFd]) {
        self.forget(name);
        let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        // Not to be looked at: that would wake the manager with each request of the kernel.
        self.say(&format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}"), &descriptors);
    }

    /// Has it keep a copy of a connection until that is forgotten, or has ended at its other end.
    pub fn keep_connection(&self, name: &str, connection: BorrowedFd<'_>) {
        self.say(&format!("FDSTORE=1\nFDNAME={name}"), &[connection]);
    }

    pub fn forget(&self, name: &str) {
        self.say(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[]);
    }

    fn say(&self, message: &str, descriptors: &[BorrowedFd<'_>]) {
        if let Err(error) = self.socket.send(message, descriptors) {
            say(format_args!("the service manager keeps nothing: {error}"));
        }
    }
}

/// What was kept of the process before, or is handed to this one besides, by its name, in the order in which it was given. Once, and before anything is opened.
pub fn inherited() -> BTreeMap<String, Vec<OwnedFd>> {
    let count = number_of(LISTEN_COUNT).filter(|_| number_of(LISTEN_PROCESS) == Some(std::process::id()));
    let names = std::env::var(LISTEN_NAMES).unwrap_or_default();
    let mut kept: BTreeMap<String, Vec<OwnedFd>> = BTreeMap::new();
    for (number, name) in (FIRST..).take(count.unwrap_or(0) as usize).zip(names.split(':')) {
        // SAFETY: fails for what is no open descriptor; what is one was handed over to this process.
        let file = unsafe {
            if libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) < 0 {
                continue;
            }
            OwnedFd::from_raw_fd(number)
        };
        kept.entry(name.to_owned()).or_default().push(file);
    }
    kept
}

fn number_of(variable: &str) -> Option<u32> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Stands in for a service manager: what it is told, with what it is given.
#[cfg(test)]
pub struct Told {
    socket: Socket,
}

#[cfg(test)]
impl Told {
    pub fn listen(path: &Path) -> Told {
        Told { socket: Socket::of(std::os::unix::net::UnixDatagram::bind(path).unwrap().into()) }
    }

    /// Waits for the next.
    pub fn next(&self) -> (String, Vec<OwnedFd>) {
        self.socket.receive().unwrap().unwrap()
    }
}
