//! Listening: TLS with a certificate that is given, or this host alone.
//!
//! A certificate that was renewed is taken without a restart: its files are looked at every ten seconds.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use axum_server::tls_rustls::RustlsConfig;
use axum_server::{Handle, Server};

use super::{Shared, routes};
use crate::crypto::{CryptoError, tls};
use crate::daemon::shutdown::Shutdown;
use crate::remote::operator::Operator;

/// For the head of a request, the first and the next.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Requests that are under way when the process is told to stop may take so long.
const FAREWELL: Duration = Duration::from_secs(20);
const RENEWAL_PERIOD: Duration = Duration::from_secs(10);

/// Where the certificate (with those above it) and its key are, both PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Why the HTTP interface does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("{0} is not of this host alone: without TLS (tls_cert, tls_key) keys would be read on the way")]
    Open(SocketAddr),
    #[error(transparent)]
    Tls(#[from] CryptoError),
    #[error("{address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("the HTTP interface has failed: {0}")]
    Failed(std::io::Error),
}

/// Bound, and not serving yet.
pub struct ApiServer {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<(TlsFiles, RustlsConfig)>,
}

impl ApiServer {
    /// # Errors
    /// The address is taken, would be open without TLS, or the certificate cannot be used.
    pub fn bind(address: SocketAddr, tls: Option<TlsFiles>) -> Result<ApiServer, ServeError> {
        if tls.is_none() && !address.ip().is_loopback() {
            return Err(ServeError::Open(address));
        }
        let tls = match tls {
            Some(files) => {
                let config = tls::web_config(&files.certificate, &files.key)?;
                Some((files, RustlsConfig::from_config(config)))
            }
            None => None,
        };
        let listen = |source| ServeError::Listen { address, source };
        let listener = TcpListener::bind(address).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        Ok(ApiServer { listener, address, tls })
    }

    /// Where it listens, as a URL.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Serves until it is told to stop; what is under way then is answered.
    ///
    /// # Errors
    /// The listener failed.
    pub async fn serve(self, cluster: Operator, shutdown: Shutdown) -> Result<(), ServeError> {
        let service = routes::router(Shared::new(cluster)).into_make_service();
        let handle = Handle::new();
        tokio::spawn(stop_with(handle.clone(), shutdown.clone()));
        let served = match self.tls {
            Some((files, config)) => {
                let renewing = tokio::spawn(renew(files, config.clone()));
                let server = axum_server::from_tcp_rustls(self.listener, config).map_err(ServeError::Failed)?;
                let served = patient(server).handle(handle).serve(service).await;
                renewing.abort();
                served
            }
            None => {
                let server = axum_server::from_tcp(self.listener).map_err(ServeError::Failed)?;
                patient(server).handle(handle).serve(service).await
            }
        };
        served.map_err(ServeError::Failed)
    }
}

/// HTTP/1.1, and for so long: whoever says nothing holds a descriptor.
fn patient<A>(server: Server<SocketAddr, A>) -> Server<SocketAddr, A> {
    let mut server = server.http1_only().first_request_timeout(HEADER_TIMEOUT);
    server.http_builder().http1().header_read_timeout(HEADER_TIMEOUT);
    server
}

async fn stop_with(handle: Handle<SocketAddr>, shutdown: Shutdown) {
    shutdown.wait().await;
    handle.graceful_shutdown(Some(FAREWELL));
}

/// A certificate that cannot be used is none: the one before goes on.
async fn renew(files: TlsFiles, config: RustlsConfig) {
    let mut ticks = tokio::time::interval(RENEWAL_PERIOD);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        match tls::web_config(&files.certificate, &files.key) {
            Ok(renewed) => config.reload_from_config(renewed),
            Err(error) => tracing::warn!(%error, "the certificate cannot be renewed; going on with the one before"),
        }
    }
}
