//! The calls of others: decode, judge the caller, do it, answer.
//!
//! Nothing long runs on the caller's task: names are checked on blocking threads, writes wait on the disk's own thread,
//! reads that are not in memory go to a blocking thread.

use std::sync::Arc;

use bytes::Bytes;

use crate::net::{BoxFuture, Call, Frame, Peer, Service};
use crate::types::digest::{ChunkId, Slot};
use crate::types::limits::BULK_BYTES_MAX;
use crate::types::record::Role;
use crate::wire::codec::{KIND_STORE, decode, encode};
use crate::wire::store::{PutChunk, StoreError, StoreReply, StoreRequest};

use super::Store;
use super::disk::Miss;
use super::pack::writer::Purpose;
use crate::pack::format::CheckedChunk;
use crate::pack::sys::Patience;

/// Ids in one `ListSlot` reply, and in one `Has` or `Locate` request.
pub const IDS_MAX: usize = 4096;
/// Up to this much is hashed where it arrives; handing it to another thread would cost as much.
const HASH_INLINE_BYTES: usize = 32 << 10;

/// The door to a [`Store`].
#[derive(Clone)]
pub struct StoreService {
    store: Arc<Store>,
}

impl StoreService {
    pub fn new(store: Arc<Store>) -> StoreService {
        StoreService { store }
    }

    async fn answer(self, peer: Option<Peer>, request: Frame) -> Frame {
        let answer = match decode::<StoreRequest>(&request.message) {
            Ok(message) if request.kind == KIND_STORE && is_allowed(peer, &message) => {
                self.execute(message, request.bulk).await
            }
            Ok(_) if request.kind == KIND_STORE => Err(StoreError::NotAllowed),
            _ => Err(StoreError::Invalid),
        };
        let (reply, bulk) = answer.unwrap_or_else(|error| (StoreReply::Error(error), Bytes::new()));
        Frame { kind: KIND_STORE, message: encode(&reply).into(), bulk }
    }

    async fn execute(&self, request: StoreRequest, bulk: Bytes) -> Result<(StoreReply, Bytes), StoreError> {
        match request {
            StoreRequest::Put { epoch, chunks } => {
                self.put(epoch, &chunks, bulk).await?;
                Ok((StoreReply::Put, Bytes::new()))
            }
            StoreRequest::Get { id, offset, len } => {
                let (chunk_bytes, bytes) = self.get(id, offset, len).await?;
                Ok((StoreReply::Data { chunk_bytes }, bytes))
            }
            StoreRequest::GetLocated { id, offset, len } => {
                let (chunk_bytes, bytes) = self.get(id, offset, len).await?;
                Ok((StoreReply::DataAt { chunk_bytes, spot: self.store.locate(&id) }, bytes))
            }
            StoreRequest::Has { ids } if ids.len() <= IDS_MAX => {
                let look = move |store: &Store| Ok(ids.iter().map(|id| store.has(id)).collect());
                Ok((StoreReply::Has(self.in_background(look).await?), Bytes::new()))
            }
            StoreRequest::Has { .. } => Err(StoreError::Invalid),
            StoreRequest::SlotSummary { slot } => {
                let summary = self.store.summary(slot);
                Ok((StoreReply::Summary { chunks: summary.chunks, xor: summary.xor }, Bytes::new()))
            }
            StoreRequest::Disks => Ok((StoreReply::Disks(self.store.pack_dirs()), Bytes::new())),
            StoreRequest::Locate { ids } if ids.len() <= IDS_MAX => {
                let locate = move |store: &Store| Ok(ids.iter().map(|id| store.locate(id)).collect());
                Ok((StoreReply::Located(self.in_background(locate).await?), Bytes::new()))
            }
            StoreRequest::Locate { .. } => Err(StoreError::Invalid),
            StoreRequest::ListSlot { slot, after } => {
                Ok((self.in_background(move |store| list(store, slot, after)).await?, Bytes::new()))
            }
        }
    }

    async fn put(&self, epoch: u64, chunks: &[PutChunk], bulk: Bytes) -> Result<(), StoreError> {
        let parts = split(chunks, &bulk)?;
        let checked = if bulk.len() <= HASH_INLINE_BYTES {
            check(parts)?
        } else {
            self.in_background(move |_| check(parts)).await?
        };
        self.store.put(checked, epoch, Purpose::Write).await
    }

    async fn get(&self, id: ChunkId, offset: u32, len: u32) -> Result<(u32, Bytes), StoreError> {
        if len as usize > BULK_BYTES_MAX {
            return Err(StoreError::Invalid);
        }
        match self.store.read(&id, offset, len, Patience::Hurry) {
            Err(Miss::WouldBlock) => {
                let read = move |store: &Store| match store.read(&id, offset, len, Patience::Wait) {
                    Ok(found) => Ok(found),
                    Err(Miss::Because(error)) => Err(error),
                    Err(Miss::WouldBlock) => Err(StoreError::DiskFailed("a read would not wait".to_owned())),
                };
                self.in_background(read).await
            }
            Err(Miss::Because(error)) => Err(error),
            Ok(found) => Ok(found),
        }
    }

    /// Runs something that takes long, or waits for a device, where it is in nobody's way.
    async fn in_background<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = Arc::clone(&self.store);
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        done.unwrap_or_else(|_| Err(StoreError::DiskFailed("the store is stopping".to_owned())))
    }
}

impl Service for StoreService {
    fn serve(&self, call: Call) -> BoxFuture<'static, ()> {
        let service = self.clone();
        Box::pin(async move {
            let reply = service.answer(call.peer, call.request).await;
            call.replier.reply(reply).await;
        })
    }
}

/// Every member may read what it knows the id of; only other stores, and clients whose certificate does not say that they only read, bring
/// chunks; a stranger may nothing. Which chunks there are is no client's to know: ids are hashes of what is in them, so who has a volume's
/// metadata, and nobody else, has its data.
fn is_allowed(peer: Option<Peer>, request: &StoreRequest) -> bool {
    match (peer.map(|peer| peer.role), request) {
        (None, _) => false,
        (Some(_), StoreRequest::Put { .. }) if peer.is_some_and(|peer| peer.reads_only) => false,
        // An operator may mount any volume, so an operator may write.
        (Some(role), StoreRequest::Put { .. }) => matches!(role, Role::Client | Role::Store | Role::Admin),
        (Some(role), StoreRequest::SlotSummary { .. } | StoreRequest::ListSlot { .. }) => role != Role::Client,
        (Some(Role::Client | Role::Store | Role::Meta | Role::Admin), _) => true,
    }
}

/// Cuts the bulk into the chunks it is said to hold.
fn split(chunks: &[PutChunk], bulk: &Bytes) -> Result<Vec<(ChunkId, Bytes)>, StoreError> {
    let mut parts = Vec::with_capacity(chunks.len());
    let mut at = 0_usize;
    for chunk in chunks {
        let end = at.checked_add(chunk.bytes as usize).filter(|end| *end <= bulk.len()).ok_or(StoreError::Invalid)?;
        parts.push((chunk.id, bulk.slice(at..end)));
        at = end;
    }
    if at == bulk.len() { Ok(parts) } else { Err(StoreError::Invalid) }
}

fn check(parts: Vec<(ChunkId, Bytes)>) -> Result<Vec<CheckedChunk>, StoreError> {
    parts.into_iter().map(|(id, bytes)| CheckedChunk::check(id, bytes).ok_or(StoreError::Mismatch)).collect()
}

fn list(store: &Store, slot: Slot, after: Option<ChunkId>) -> Result<StoreReply, StoreError> {
    let ids = store.list(slot, after.as_ref(), IDS_MAX)?;
    let end = ids.len() < IDS_MAX;
    Ok(StoreReply::Slot { ids, end })
}
