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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::container::csi::Services;

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

    /// The head of a call of `Identity.Probe` as it is on the wire (HPACK, nothing indexed), with an `:authority` or without, and its
    /// empty message.
    fn probe(stream: u32, authority: Option<&str>) -> Vec<u8> {
        let literal = |name: &[u8], value: &str| [name, &[value.len() as u8], value.as_bytes()].concat();
        // POST, http.
        let mut fields = vec![0x83, 0x86];
        fields.extend(literal(&[0x04], "/csi.v1.Identity/Probe"));
        fields.extend(authority.map(|authority| literal(&[0x01], authority)).unwrap_or_default());
        fields.extend(literal(&[0x0f, 0x10], "application/grpc"));
        fields.extend(literal(b"\x00\x02te", "trailers"));
        [frame(1, 4, stream, &fields), frame(0, 1, stream, &[0; 5])].concat()
    }

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    /// The first frame of a stream: its kind and payload.
    async fn first_of(stream: u32, socket: &mut UnixStream) -> (u8, Vec<u8>) {
        loop {
            let mut head = [0; 9];
            socket.read_exact(&mut head).await.unwrap();
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            socket.read_exact(&mut payload).await.unwrap();
            if head[5..] == stream.to_be_bytes() && matches!(head[3], HEADERS | RST_STREAM) {
                return (head[3], payload);
            }
        }
    }

    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const PROTOCOL_ERROR: [u8; 4] = [0, 0, 0, 1];

    /// A path is no authority of a URI, escaped or not (RFC 3986, 3.2.2; RFC 9113, 8.3.1: such a request is malformed). The library
    /// that reads HTTP/2 refuses it before anything of ours sees the call, on its stream alone.
    #[tokio::test]
    async fn callers_name_localhost_or_nobody_and_no_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("csi.sock");
        let (listener, shutdown) = (listen(&path).await.unwrap(), Shutdown::new());
        let identity = IdentityService::new(Services::Node, false);
        let serving =
            tokio::spawn(serve(listener, Driver { identity, controller: None, node: None }, shutdown.clone()));
        let mut socket = UnixStream::connect(&path).await.unwrap();
        socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        socket.write_all(&frame(4, 0, 0, &[])).await.unwrap();
        for (stream, authority, is_taken) in [
            (1, Some("localhost"), true),
            (3, Some("/csi/csi.sock"), false),
            (5, Some("%2Fcsi%2Fcsi.sock"), false),
            (7, None, true),
            (9, Some("localhost"), true),
        ] {
            socket.write_all(&probe(stream, authority)).await.unwrap();
            let (kind, payload) = first_of(stream, &mut socket).await;
            match is_taken {
                // 0x88 is «:status: 200».
                true => assert_eq!((kind, payload[0]), (HEADERS, 0x88), "{authority:?}"),
                false => assert_eq!((kind, &payload[..]), (RST_STREAM, &PROTOCOL_ERROR[..]), "{authority:?}"),
            }
        }
        drop(socket);
        shutdown.trigger();
        serving.await.unwrap().unwrap();
    }
}
