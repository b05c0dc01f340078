//! Where chunks are kept, as the client sees it: put durably, get verified.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::remote::store::{Part, StoreClient};
use crate::types::digest::ChunkId;
use crate::types::error::FsError;

pub trait ChunkStore: Send + Sync + 'static {
    /// Stores chunks at the collection epoch the caller knows. Resolves when every one is durable on the write quorum
    /// of `copies`.
    ///
    /// # Errors
    /// `NoSpace`, or `Unreachable` when no quorum answers.
    fn put<'a>(&'a self, chunks: &'a [(ChunkId, Bytes)], epoch: u64, copies: u8) -> BoxFuture<'a, Result<(), FsError>>;

    /// `len` verified bytes from `offset` of a chunk of `whole_bytes`.
    ///
    /// # Errors
    /// `ChunkLost` when no good copy is left, `Unreachable` when no replica answers.
    fn get(&self, id: ChunkId, offset: u32, len: u32, whole_bytes: u32) -> BoxFuture<'_, Result<Bytes, FsError>>;

    /// The part, if it is in this host's memory already. Waits for nothing.
    fn peek(&self, _part: Part) -> Option<Bytes> {
        None
    }

    /// The part from a disk of this host, whose pages keep it better than a copy in the client would. `None`: `get` it.
    fn read_near(&self, _part: Part) -> BoxFuture<'_, Option<Bytes>> {
        Box::pin(ready(None))
    }

    /// Chunks that will be wanted soon: brings those of this host into its memory, beside, and gives back the others. Must
    /// be called in the runtime.
    fn expect(&self, parts: Vec<Part>) -> Vec<Part> {
        parts
    }
}

impl ChunkStore for StoreClient {
    fn put<'a>(&'a self, chunks: &'a [(ChunkId, Bytes)], epoch: u64, copies: u8) -> BoxFuture<'a, Result<(), FsError>> {
        Box::pin(StoreClient::put(self, chunks, epoch, copies))
    }

    fn get(&self, id: ChunkId, offset: u32, len: u32, whole_bytes: u32) -> BoxFuture<'_, Result<Bytes, FsError>> {
        Box::pin(StoreClient::get(self, id, offset, len, whole_bytes))
    }

    fn peek(&self, part: Part) -> Option<Bytes> {
        StoreClient::peek(self, part)
    }

    fn read_near(&self, part: Part) -> BoxFuture<'_, Option<Bytes>> {
        Box::pin(StoreClient::read_near(self, part))
    }

    fn expect(&self, parts: Vec<Part>) -> Vec<Part> {
        StoreClient::expect(self, parts)
    }
}

/// Stores that are away are waited for, as the leader is: what an application waits for comes later, not wrong.
pub struct Patient {
    inner: Arc<dyn ChunkStore>,
    /// `None`: for ever.
    patience: Option<Duration>,
}

const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);

impl Patient {
    pub fn new(inner: Arc<dyn ChunkStore>, patience: Option<Duration>) -> Patient {
        Patient { inner, patience }
    }

    async fn insist<T, F>(&self, call: impl Fn() -> F) -> Result<T, FsError>
    where
        F: Future<Output = Result<T, FsError>>,
    {
        let begun = Instant::now();
        let mut pause = PAUSE_MIN;
        loop {
            match call().await {
                Err(FsError::Unreachable) if self.patience.is_none_or(|patience| begun.elapsed() < patience) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                result => return result,
            }
        }
    }
}

impl ChunkStore for Patient {
    fn put<'a>(&'a self, chunks: &'a [(ChunkId, Bytes)], epoch: u64, copies: u8) -> BoxFuture<'a, Result<(), FsError>> {
        Box::pin(self.insist(move || self.inner.put(chunks, epoch, copies)))
    }

    fn get(&self, id: ChunkId, offset: u32, len: u32, whole_bytes: u32) -> BoxFuture<'_, Result<Bytes, FsError>> {
        Box::pin(self.insist(move || self.inner.get(id, offset, len, whole_bytes)))
    }

    fn peek(&self, part: Part) -> Option<Bytes> {
        self.inner.peek(part)
    }

    fn read_near(&self, part: Part) -> BoxFuture<'_, Option<Bytes>> {
        self.inner.read_near(part)
    }

    fn expect(&self, parts: Vec<Part>) -> Vec<Part> {
        self.inner.expect(parts)
    }
}
