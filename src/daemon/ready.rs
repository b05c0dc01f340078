//! Saying that a role is up: to people, to scripts that wait for the line, and to systemd.

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::io::{self, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Prints the one line (`holdfast meta 1 ready on 127.0.0.1:7001`) and tells the service manager, if there is one.
/// Neither reader is owed to us: failures are logged and nothing more.
pub fn announce(role: &str, id: u64, place: impl Display) {
    let mut out = io::stdout().lock();
    // One write, so that two processes sharing an output cannot mix their lines.
    let line = format!("holdfast {role} {id} ready on {place}\n");
    if let Err(error) = out.write_all(line.as_bytes()).and_then(|()| out.flush()) {
        tracing::warn!(%error, "could not print that this process is ready");
    }
    notify("READY=1");
}

/// Tells the service manager that the process is on its way out.
pub fn stopping() {
    notify("STOPPING=1");
}

fn notify(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&socket, state) {
        tracing::warn!(%error, "could not notify the service manager");
    }
}

/// sd_notify(3): a datagram to a path, or to an abstract name when it begins with `@`.
fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(OsString::from(socket))?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_manager_hears_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), "READY=1").unwrap();
        let mut bytes = [0; 32];
        let count = manager.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..count], b"READY=1");

        let name = format!("holdfast-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        send(OsStr::new(&format!("@{name}")), "STOPPING=1").unwrap();
        let count = manager.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..count], b"STOPPING=1");
    }
}
