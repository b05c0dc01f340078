//! Where chunks are kept, as the client sees it: put durably, get verified.

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::remote::store::StoreClient;
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
}

impl ChunkStore for StoreClient {
    fn put<'a>(&'a self, chunks: &'a [(ChunkId, Bytes)], epoch: u64, copies: u8) -> BoxFuture<'a, Result<(), FsError>> {
        Box::pin(StoreClient::put(self, chunks, epoch, copies))
    }

    fn get(&self, id: ChunkId, offset: u32, len: u32, whole_bytes: u32) -> BoxFuture<'_, Result<Bytes, FsError>> {
        Box::pin(StoreClient::get(self, id, offset, len, whole_bytes))
    }
}
