//! Where Docker finds the plugin: a socket that systemd has opened for it, or one of its own. With it systemd hands over the calls that the
//! plugin before has left unanswered.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::calls::{self, Left};
use crate::keeper::manager;

/// Bound; a path of our own goes when this does.
#[derive(Debug)]
pub struct PluginSocket {
    listener: UnixListener,
    path: Option<PathBuf>,
    left: Vec<Left>,
}

impl PluginSocket {
    /// The one that was handed over, else one at `path`. Once, and before there are threads.
    ///
    /// # Errors
    /// Somebody listens there already, or the path cannot be used.
    pub fn open(path: &Path) -> io::Result<PluginSocket> {
        let (listener, left) = handed_over();
        let mut socket = match listener {
            Some(listener) => PluginSocket { listener, path: None, left: Vec::new() },
            None => PluginSocket::bind(path)?,
        };
        socket.left = left;
        Ok(socket)
    }

    fn bind(path: &Path) -> io::Result<PluginSocket> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        if UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, format!("somebody listens on {}", path.display())));
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        // Whoever may speak to it may have any volume of the cluster.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(PluginSocket { listener, path: Some(path.to_path_buf()), left: Vec::new() })
    }

    /// For a runtime. The path goes when `self` does.
    ///
    /// # Errors
    /// What the host says.
    pub fn listener(&self) -> io::Result<tokio::net::UnixListener> {
        let listener = self.listener.try_clone()?;
        listener.set_nonblocking(true)?;
        tokio::net::UnixListener::from_std(listener)
    }

    /// What the plugin before has not answered. Once.
    pub fn left(&mut self) -> Vec<Left> {
        std::mem::take(&mut self.left)
    }

    /// What it is called: its path.
    pub fn name(&self) -> String {
        let address = self.listener.local_addr().ok();
        let path = address.as_ref().and_then(|address| address.as_pathname());
        path.map_or_else(|| "a socket without a name".to_string(), |path| path.display().to_string())
    }
}

impl Drop for PluginSocket {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}

/// The socket, and calls.
fn handed_over() -> (Option<UnixListener>, Vec<Left>) {
    let (mut listener, mut left) = (None, Vec::new());
    for (name, descriptors) in manager::inherited() {
        for descriptor in descriptors {
            if name.starts_with(calls::NAME) {
                left.push((name.clone(), UnixStream::from(descriptor)));
            } else {
                listener = listener.or(Some(UnixListener::from(descriptor)));
            }
        }
    }
    for variable in manager::VARIABLES {
        // SAFETY: there are no other threads; and programs that this one starts are not meant.
        unsafe { std::env::remove_var(variable) };
    }
    (listener.filter(|listener| listener.local_addr().is_ok()), left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_of_a_dead_process_is_taken_over_and_one_of_a_living_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plugins/holdfast.sock");
        let socket = PluginSocket::open(&path).unwrap();
        assert_eq!(socket.name(), path.display().to_string());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(PluginSocket::open(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let PluginSocket { listener, path: own, .. } = &socket;
        drop((listener.try_clone().unwrap(), own.clone()));
        drop(socket);
        assert!(!path.exists());
        // What kill -9 leaves behind.
        drop(UnixListener::bind(&path).unwrap());
        PluginSocket::open(&path).unwrap();
    }
}
