//! Listening for calls, on a Unix socket as the specification wants it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::stream;
use tokio::net::{UnixListener, UnixStream};
use tonic::transport::Server;

use super::spec::{ControllerServer, IdentityServer, NodeServer};
use super::{ControllerService, IdentityService, NodeService};
use crate::daemon::shutdown::Shutdown;

/// What a process answers for.
pub struct Driver {
    pub identity: IdentityService,
    pub controller: Option<ControllerService>,
    pub node: Option<NodeService>,
}

/// The path of an endpoint as orchestrators write it: `unix:///path`, `unix:/path`, or a path.
///
/// # Errors
/// It is no Unix socket.
pub fn path_of(endpoint: &str) -> Result<PathBuf, String> {
    let path = endpoint.strip_prefix("unix://").or_else(|| endpoint.strip_prefix("unix:")).unwrap_or(endpoint);
    match path.starts_with('/') {
        true => Ok(PathBuf::from(path)),
        false => Err(format!("`{endpoint}` is no Unix socket: write unix:///path/csi.sock")),
    }
}

/// Takes the place of a socket that nobody listens on.
///
/// # Errors
/// Somebody does, or the path cannot be used.
pub async fn listen(path: &Path) -> io::Result<UnixListener> {
    if UnixStream::connect(path).await.is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, format!("somebody listens on {}", path.display())));
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(path)
}

/// Serves until it is told to stop; what is under way then is answered.
///
/// # Errors
/// The socket has failed.
pub async fn serve(listener: UnixListener, driver: Driver, shutdown: Shutdown) -> Result<(), tonic::transport::Error> {
    let accepted = stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        Some((accepted, listener))
    });
    let Driver { identity, controller, node } = driver;
    let controller = controller.map(|service| ControllerServer::new(Arc::new(service)));
    let node = node.map(|service| NodeServer::new(Arc::new(service)));
    Server::builder()
        .add_service(IdentityServer::new(Arc::new(identity)))
        .add_optional_service(controller)
        .add_optional_service(node)
        .serve_with_incoming_shutdown(accepted, async move { shutdown.wait().await })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_unix_sockets() {
        for endpoint in ["unix:///run/csi.sock", "unix:/run/csi.sock", "/run/csi.sock"] {
            assert_eq!(path_of(endpoint), Ok("/run/csi.sock".into()));
        }
        for endpoint in ["tcp://0.0.0.0:10000", "csi.sock", "unix://csi.sock", ""] {
            assert!(path_of(endpoint).is_err(), "{endpoint}");
        }
    }

    #[tokio::test]
    async fn the_socket_of_a_dead_process_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("csi.sock");
        let listener = listen(&path).await.unwrap();
        assert!(listen(&path).await.is_err());
        drop(listener);
        listen(&path).await.unwrap();
    }
}
