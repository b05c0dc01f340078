//! The called side: connections in, calls to the service, replies out.
//!
//! In order: handshake, who is it, then per stream: header, room in the budget, the rest of the request, the service,
//! its replies. A peer's fault ends its stream or its connection and nothing else.

use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream};
use tokio::sync::{OwnedSemaphorePermit, RwLock, Semaphore, mpsc};
use tokio::time::timeout;

use super::fault::code;
use super::frame::{self, FrameError, FrameReader};
use super::pool::peer_of;
use super::{Call, Frame, Peer, Replier, Service};
use crate::daemon::shutdown::Shutdown;
use crate::types::id::ClusterId;
use crate::types::record::Role;
use crate::wire::codec::Header;

/// Connections at once; more are turned away before they cost anything.
const CONNECTIONS_MAX: usize = 16 << 10;
/// A peer that has begun a request must end it within this time.
const REQUEST_PATIENCE: Duration = Duration::from_secs(30);
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);
/// A caller without a certificate joins, which takes a moment, and has no reason to stay.
const STRANGER_PATIENCE: Duration = Duration::from_secs(60);
/// And its request is a token and a key.
const STRANGER_REQUEST_BYTES_MAX: usize = 64 << 10;
/// What calls under way may still take after the shutdown.
const DRAIN_PATIENCE: Duration = Duration::from_secs(2);
/// Replies that wait for a slow caller before the service does.
const REPLIES: usize = 4;

/// Requests up to this size need no room in a budget: the stream limit bounds them.
const SMALL_REQUEST_BYTES: usize = 64 << 10;
const BUDGET_BYTES: usize = 256 << 20;

/// Bounds the bytes of large requests in memory, from their first byte to the end of their handler.
///
/// Servers and clients have one each: a store that serves a client's request may have to call another store, which may
/// be doing the same in the other direction; were both in one budget, two full stores would wait for each other.
#[derive(Clone)]
pub(super) struct Budgets {
    servers: Arc<Semaphore>,
    others: Arc<Semaphore>,
}

impl Budgets {
    pub fn new() -> Budgets {
        // One permit is a KiB, since a call takes a 32-bit number of them.
        let budget = || Arc::new(Semaphore::new(BUDGET_BYTES >> 10));
        Budgets { servers: budget(), others: budget() }
    }

    /// Waits until there is room. While it waits the request is not read, so that QUIC holds the sender back.
    async fn room(&self, peer: Option<Peer>, bytes: usize) -> Option<OwnedSemaphorePermit> {
        if bytes <= SMALL_REQUEST_BYTES {
            return None;
        }
        let budget = match peer {
            Some(Peer { role: Role::Meta | Role::Store, .. }) => &self.servers,
            _ => &self.others,
        };
        // Fails only when closed, which these never are; a frame's limits are far below the budget.
        budget.clone().acquire_many_owned(bytes.div_ceil(1 << 10) as u32).await.ok()
    }
}

/// What every task of the serving side needs.
#[derive(Clone)]
struct Serving {
    cluster: ClusterId,
    budgets: Budgets,
    service: Arc<dyn Service>,
    shutdown: Shutdown,
    /// Each call holds it shared; who gets it exclusively knows that none is under way.
    under_way: Arc<RwLock<()>>,
}

/// Serves until `shutdown`, then for as long as calls are under way, but not longer than [`DRAIN_PATIENCE`].
pub(super) async fn serve(
    endpoint: &Endpoint,
    cluster: ClusterId,
    budgets: &Budgets,
    service: Arc<dyn Service>,
    shutdown: Shutdown,
) {
    let under_way = Arc::new(RwLock::new(()));
    let serving = Serving {
        cluster,
        budgets: budgets.clone(),
        service,
        shutdown: shutdown.clone(),
        under_way: under_way.clone(),
    };
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming,
            () = shutdown.wait() => break,
        };
        let Some(incoming) = incoming else { break };
        if endpoint.open_connections() > CONNECTIONS_MAX {
            incoming.refuse();
            continue;
        }
        let serving = serving.clone();
        tokio::spawn(async move { serving.handshake(incoming).await });
    }
    let _ = timeout(DRAIN_PATIENCE, under_way.write()).await;
}

impl Serving {
    async fn handshake(self, incoming: Incoming) {
        let from = incoming.remote_address();
        let connection = tokio::select! {
            connection = timeout(HANDSHAKE_PATIENCE, incoming) => match connection {
                Ok(Ok(connection)) => connection,
                Ok(Err(error)) => return tracing::debug!(%from, %error, "handshake failed"),
                Err(_) => return tracing::debug!(%from, "handshake took too long"),
            },
            () = self.shutdown.wait() => return,
        };
        match peer_of(&connection, self.cluster) {
            Ok(Some(peer)) => self.member(connection, peer).await,
            Ok(None) => {
                let _ = timeout(STRANGER_PATIENCE, self.stranger(&connection)).await;
                connection.close(code::DONE, b"");
            }
            Err(error) => {
                tracing::warn!(%from, %error, "connection refused");
                connection.close(code::REFUSED, b"not of this cluster");
            }
        }
    }

    /// Each call of a member has a task of its own. After the shutdown, while calls under way come to their end, new
    /// ones are turned away unread.
    async fn member(self, connection: Connection, peer: Peer) {
        while let Ok((mut send, mut receive)) = connection.accept_bi().await {
            if self.shutdown.is_triggered() {
                let _ = send.reset(code::STOPPING);
                let _ = receive.stop(code::STOPPING);
                continue;
            }
            let serving = self.clone();
            tokio::spawn(async move { serving.call(Some(peer), send, receive).await });
        }
    }

    /// A caller without a certificate is served one call at a time, so that it costs little.
    async fn stranger(&self, connection: &Connection) {
        while !self.shutdown.is_triggered() {
            let Ok((send, receive)) = connection.accept_bi().await else { return };
            // In a task of its own, because a handler runs to its end even if the caller's time is up.
            let serving = self.clone();
            let _ = tokio::spawn(async move { serving.call(None, send, receive).await }).await;
        }
    }

    async fn call(&self, peer: Option<Peer>, mut send: SendStream, receive: RecvStream) {
        let _under_way = self.under_way.read().await;
        let mut reader = FrameReader::new(receive);
        let read = timeout(REQUEST_PATIENCE, self.request(peer, &mut reader)).await;
        let (request, _room) = match read {
            Ok(Ok(Some(request))) => request,
            Ok(Ok(None) | Err(FrameError::Lost(_) | FrameError::Truncated)) | Err(_) => {
                // Nobody is there to hear more than this.
                let _ = send.reset(code::MALFORMED);
                let _ = reader.stream().stop(code::MALFORMED);
                return;
            }
            Ok(Err(error)) => {
                tracing::debug!(?peer, %error, "malformed request");
                let _ = reader.stream().stop(code::MALFORMED);
                if frame::write_fault(&mut send, 0, error.to_string()).await.is_ok() {
                    let _ = send.finish();
                }
                return;
            }
        };
        drop(reader);
        let (frames, replies) = mpsc::channel(REPLIES);
        let handler = self.service.serve(Call { peer, request, replier: Replier::new(frames) });
        tokio::join!(handler, pump(send, replies));
    }

    async fn request(
        &self,
        peer: Option<Peer>,
        reader: &mut FrameReader,
    ) -> Result<Option<(Frame, Option<OwnedSemaphorePermit>)>, FrameError> {
        let Some(header) = reader.header().await? else { return Ok(None) };
        let Header { message_bytes, bulk_bytes, .. } = header;
        let bytes = message_bytes as usize + bulk_bytes as usize;
        if peer.is_none() && bytes > STRANGER_REQUEST_BYTES_MAX {
            return Err(FrameError::TooLarge(bytes));
        }
        let room = self.budgets.room(peer, bytes).await;
        let frame = reader.body(&header).await?;
        reader.expect_end()?;
        Ok(Some((frame, room)))
    }
}

/// Sends what the service gives until it has no more, or the caller has gone; then the service's [`Replier`] is closed.
async fn pump(mut send: SendStream, mut replies: mpsc::Receiver<Frame>) {
    loop {
        let frame = tokio::select! {
            biased;
            frame = replies.recv() => frame,
            _ = send.stopped() => return,
        };
        let Some(frame) = frame else { break };
        if !frame::fits(&frame) {
            tracing::error!(kind = frame.kind, "a reply over the limit was not sent");
            let _ = send.reset(code::MALFORMED);
            return;
        }
        if frame::write(&mut send, frame).await.is_err() {
            return;
        }
    }
    let _ = send.finish();
}
