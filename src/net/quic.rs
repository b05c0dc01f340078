//! The QUIC endpoint of a process: calls others and is called, over one UDP socket.
//!
//! Each call is a bidirectional stream of its own: the request and the end of the caller's side, then the reply (or
//! replies) and the end of the server's. A call that is dropped resets its stream.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, Endpoint, SendStream, ServerConfig, TokioRuntime, WriteError};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::fault::{self, code, no_answer, refused, unreachable};
use super::frame::{self, FrameReader};
use super::pool::{Pool, dial};
use super::serving::{self, Budgets};
use super::settings::Tuning;
use super::{BoxFuture, Frame, NetError, Service, Transport, settings};
use crate::crypto::CryptoError;
use crate::crypto::identity::Identity;
use crate::crypto::tls;
use crate::daemon::shutdown::Shutdown;
use crate::types::id::ClusterId;
use crate::wire::codec::FLAG_FAULT;

/// Frames of a subscription that wait for their reader; beyond it the peer waits.
const SUBSCRIPTION_FRAMES: usize = 64;
/// How long a closing endpoint gives its last packets.
const FAREWELL: Duration = Duration::from_millis(500);

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("cannot listen on {address}: {source}")]
    Socket { address: String, source: io::Error },
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

/// Made inside a tokio runtime. Dropping it does not close connections in use; [`QuicEndpoint::close`] does.
pub struct QuicEndpoint {
    endpoint: Endpoint,
    address: SocketAddr,
    cluster: ClusterId,
    pool: Pool,
    budgets: Budgets,
}

impl QuicEndpoint {
    /// With `listen`, calls can be served; without, the endpoint only calls, from any free port.
    ///
    /// # Errors
    /// The address is not to be had, or the identity is not usable.
    pub fn bind(listen: Option<SocketAddr>, identity: &Identity) -> Result<QuicEndpoint, BindError> {
        QuicEndpoint::bind_tuned(listen, identity, &Tuning::default())
    }

    /// As [`QuicEndpoint::bind`], to compare settings.
    ///
    /// # Errors
    /// The same.
    pub fn bind_tuned(
        listen: Option<SocketAddr>,
        identity: &Identity,
        tuning: &Tuning,
    ) -> Result<QuicEndpoint, BindError> {
        let server = listen.map(|_| server_config(identity, tuning)).transpose()?;
        let shown = || listen.map_or("any port".into(), |address| address.to_string());
        let failed = |source| BindError::Socket { address: shown(), source };
        let socket = settings::socket(listen).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        let endpoint = Endpoint::new(settings::endpoint(identity, tuning), server, socket, Arc::new(TokioRuntime))
            .map_err(failed)?;
        let pool = Pool::new(
            endpoint.clone(),
            client_config(tls::client_config(identity, tuning.cipher)?, tuning)?,
            identity.cluster,
        );
        Ok(QuicEndpoint { endpoint, address, cluster: identity.cluster, pool, budgets: Budgets::new() })
    }

    /// Where the socket is bound: the port is the real one if port 0 was asked for.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Serves calls until `shutdown`, then lets those under way end for a moment and closes every connection, also
    /// those this endpoint dialled.
    pub async fn serve(&self, service: Arc<dyn Service>, shutdown: Shutdown) {
        serving::serve(&self.endpoint, self.cluster, &self.budgets, service, shutdown).await;
        self.close().await;
    }

    /// Closes every connection and tells the peers.
    pub async fn close(&self) {
        self.endpoint.close(code::STOPPING, b"stopping");
        let _ = timeout(FAREWELL, self.endpoint.wait_idle()).await;
    }

    /// Opens a stream and sends the request. A connection that turns out to be dead costs one more dial, because
    /// nothing was acted upon.
    async fn send(&self, address: &str, request: Frame) -> Result<CallGuard, NetError> {
        if !frame::fits(&request) {
            return Err(refused(address, "the request is over the limit"));
        }
        let connection = self.pool.connection(address).await?;
        match send(&connection, address, request.clone()).await {
            Err(NetError::Unreachable { .. }) if connection.close_reason().is_some() => {
                let connection = self.pool.connection(address).await?;
                send(&connection, address, request).await
            }
            result => result,
        }
    }

    async fn exchange(&self, address: &str, request: Frame, sent: &AtomicBool) -> Result<Frame, NetError> {
        let call = self.send(address, request).await?;
        sent.store(true, Ordering::Relaxed);
        call.reply(address).await
    }
}

impl Transport for QuicEndpoint {
    fn call<'a>(
        &'a self,
        address: &'a str,
        request: Frame,
        deadline: Duration,
    ) -> BoxFuture<'a, Result<Frame, NetError>> {
        Box::pin(async move {
            let sent = AtomicBool::new(false);
            match timeout(deadline, self.exchange(address, request, &sent)).await {
                Ok(result) => result,
                Err(_) if sent.load(Ordering::Relaxed) => Err(no_answer(address, "the deadline passed")),
                Err(_) => Err(unreachable(address, "the deadline passed before the request was sent")),
            }
        })
    }

    fn subscribe<'a>(
        &'a self,
        address: &'a str,
        request: Frame,
    ) -> BoxFuture<'a, Result<mpsc::Receiver<Frame>, NetError>> {
        Box::pin(async move {
            let call = self.send(address, request).await?;
            let (frames, receiver) = mpsc::channel(SUBSCRIPTION_FRAMES);
            tokio::spawn(call.forward(address.to_string(), frames));
            Ok(receiver)
        })
    }
}

/// One call without a certificate, to a server known by the fingerprint of its cluster's authority: joining.
///
/// # Errors
/// As [`Transport::call`]; `Refused` when the server is not of that cluster.
pub async fn join_call(
    address: &str,
    ca_fingerprint: [u8; 32],
    request: Frame,
    deadline: Duration,
) -> Result<Frame, NetError> {
    let local = |error: &dyn ToString| unreachable(address, error.to_string());
    let config = tls::joining_config(ca_fingerprint)
        .and_then(|config| client_config(config, &Tuning::default()))
        .map_err(|error| local(&error))?;
    let socket = settings::socket(None).map_err(|error| local(&error))?;
    let endpoint = Endpoint::new(quinn::EndpointConfig::default(), None, socket, Arc::new(TokioRuntime))
        .map_err(|error| local(&error))?;
    let sent = AtomicBool::new(false);
    let exchange = async {
        let (connection, _) = dial(&endpoint, &config, address).await?;
        let call = send(&connection, address, request).await?;
        sent.store(true, Ordering::Relaxed);
        call.reply(address).await
    };
    let result = match timeout(deadline, exchange).await {
        Ok(result) => result,
        Err(_) if sent.load(Ordering::Relaxed) => Err(no_answer(address, "the deadline passed")),
        Err(_) => Err(unreachable(address, "the deadline passed before the request was sent")),
    };
    endpoint.close(code::DONE, b"");
    let _ = timeout(FAREWELL, endpoint.wait_idle()).await;
    result
}

async fn send(connection: &Connection, address: &str, request: Frame) -> Result<CallGuard, NetError> {
    let (send, receive) = connection.open_bi().await.map_err(|error| fault::before_sending(address, &error))?;
    let mut call = CallGuard { send, replies: FrameReader::new(receive), done: false };
    match frame::write(&mut call.send, request).await {
        Ok(()) => {
            // Fails only if the peer has stopped the stream meanwhile; its reply says why.
            let _ = call.send.finish();
            Ok(call)
        }
        Err(WriteError::Stopped(code::MALFORMED)) => Ok(call),
        Err(WriteError::Stopped(code)) => Err(fault::reset(address, code)),
        Err(WriteError::ConnectionLost(error)) => Err(fault::before_sending(address, &error)),
        Err(error) => Err(unreachable(address, error)),
    }
}

/// A call under way; dropped before its end, it tells the peer that nobody waits any more.
struct CallGuard {
    send: SendStream,
    replies: FrameReader,
    done: bool,
}

impl CallGuard {
    async fn reply(mut self, address: &str) -> Result<Frame, NetError> {
        let frame = match self.next(address).await? {
            Some(frame) => frame,
            None => return Err(no_answer(address, "it ended the call without a reply")),
        };
        self.replies.expect_end().map_err(|error| fault::reading(address, error))?;
        self.done = true;
        Ok(frame)
    }

    /// The next frame of a reply, `None` at its end.
    async fn next(&mut self, address: &str) -> Result<Option<Frame>, NetError> {
        let failed = |error| fault::reading(address, error);
        let Some(header) = self.replies.header().await.map_err(failed)? else {
            self.done = true;
            return Ok(None);
        };
        let frame = self.replies.body(&header).await.map_err(failed)?;
        if header.flags & FLAG_FAULT != 0 {
            self.done = true;
            return Err(refused(address, String::from_utf8_lossy(&frame.message)));
        }
        Ok(Some(frame))
    }

    /// Hands on frames until either side ends.
    async fn forward(mut self, address: String, frames: mpsc::Sender<Frame>) {
        loop {
            let next = tokio::select! {
                next = self.next(&address) => next,
                () = frames.closed() => return,
            };
            match next {
                Ok(Some(frame)) => {
                    if frames.send(frame).await.is_err() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%error, "subscription ended");
                    return;
                }
            }
        }
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        if !self.done {
            // Both fail only when that side has ended already.
            let _ = self.send.reset(code::CANCELLED);
            let _ = self.replies.stream().stop(code::CANCELLED);
        }
    }
}

fn client_config(config: rustls::ClientConfig, tuning: &Tuning) -> Result<ClientConfig, CryptoError> {
    let config = QuicClientConfig::try_from(config).map_err(|error| CryptoError::Tls(error.to_string()))?;
    let mut config = ClientConfig::new(Arc::new(config));
    config.transport_config(settings::transport(tuning));
    Ok(config)
}

fn server_config(identity: &Identity, tuning: &Tuning) -> Result<ServerConfig, CryptoError> {
    let config = QuicServerConfig::try_from(tls::server_config(identity, tuning.cipher)?)
        .map_err(|error| CryptoError::Tls(error.to_string()))?;
    let mut config = ServerConfig::with_crypto(Arc::new(config));
    config.transport_config(settings::transport(tuning));
    // Members do not change their address in mid-connection; a packet from elsewhere is no reason to look there.
    config.migration(false);
    Ok(config)
}
