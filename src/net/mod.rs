//! Calls between processes: one request, one reply (or a stream of replies), with a deadline.
//!
//! Owns connections, their authentication and the frame on the stream. Knows kinds and bytes, no message. Engines see
//! two traits: [`Transport`] to call others and [`Service`] to be called. The second implementation of both is
//! simulated.

mod fault;
mod frame;
pub mod knock;
mod pool;
mod probe;
pub mod quic;
mod serving;
pub mod settings;
pub mod sim;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::types::record::Role;

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One message with its bulk, in either direction.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    /// Which protocol (`KIND_*`).
    pub kind: u16,
    pub message: Bytes,
    pub bulk: Bytes,
}

/// Who is on the other side, as its certificate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    pub role: Role,
    pub id: u64,
    /// It may change nothing.
    pub reads_only: bool,
}

impl Peer {
    /// One that may do what its role may.
    pub const fn new(role: Role, id: u64) -> Peer {
        Peer { role, id, reads_only: false }
    }
}

/// Why a call did not bring a reply.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NetError {
    /// No connection: the peer never saw this request.
    #[error("{address} is not reachable: {why}")]
    Unreachable { address: String, why: String },
    /// The connection ended or the deadline passed after sending: the peer may or may not have acted.
    #[error("no answer from {address}: {why}")]
    NoAnswer { address: String, why: String },
    /// The peer is not of this cluster, or does not accept us.
    #[error("{address} refused the connection: {why}")]
    Refused { address: String, why: String },
    /// What came back is not a frame.
    #[error("{address} sent a malformed frame: {why}")]
    Malformed { address: String, why: String },
}

/// The way to call others.
pub trait Transport: Send + Sync {
    /// Sends a request and waits for its one reply.
    fn call<'a>(
        &'a self,
        address: &'a str,
        request: Frame,
        deadline: Duration,
    ) -> BoxFuture<'a, Result<Frame, NetError>>;

    /// Sends a request that is answered by a stream. The receiver ends when either side does; dropping it tells the
    /// peer.
    fn subscribe<'a>(
        &'a self,
        address: &'a str,
        request: Frame,
    ) -> BoxFuture<'a, Result<mpsc::Receiver<Frame>, NetError>>;
}

/// What a server does with a call.
pub trait Service: Send + Sync {
    /// Runs until the call is answered. Each call has its own task; cancelled when the caller goes away is *not*
    /// promised, so a handler always runs to its end.
    fn serve(&self, call: Call) -> BoxFuture<'static, ()>;
}

/// One incoming call.
pub struct Call {
    /// `None` only for a caller without a certificate, which may join and nothing else.
    pub peer: Option<Peer>,
    pub request: Frame,
    pub replier: Replier,
}

/// The way back to the caller. Bounded: [`Replier::send`] waits while the caller is slow.
pub struct Replier {
    frames: mpsc::Sender<Frame>,
}

impl Replier {
    pub fn new(frames: mpsc::Sender<Frame>) -> Replier {
        Replier { frames }
    }

    /// The one reply. A caller that is gone is no error.
    pub async fn reply(self, frame: Frame) {
        let _ = self.frames.send(frame).await;
    }

    /// One of a stream of replies; `false` when the caller is gone.
    pub async fn send(&self, frame: Frame) -> bool {
        self.frames.send(frame).await.is_ok()
    }

    /// Returns when the caller is gone.
    pub async fn closed(&self) {
        self.frames.closed().await;
    }
}
