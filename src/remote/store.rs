//! Stubs to stores: one store ([`StoreStub`]), and the replicas of a chunk as one ([`StoreClient`]).
//!
//! A put goes to all replicas at once and returns when a quorum has it durably; the rest goes on in the background,
//! its bytes counted against a bound until it ends. A get asks one replica, and another when that one fails or takes
//! its time; it walks down the placement ranking, in which the holders of an older map are the next.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::net::{Frame, NetError, Transport};
use crate::placement::Table;
use crate::remote::short_circuit::ShortCircuit;
use crate::remote::store::standings::Standings;
use crate::types::digest::{ChunkId, Slot};
use crate::types::error::FsError;
use crate::types::id::StoreId;
use crate::types::limits::{CHUNK_BYTES_MAX, REPLICAS_DEFAULT};
use crate::wire::codec::{KIND_STORE, decode, encode};
use crate::wire::store::{PackSpot, PutChunk, StoreError, StoreReply, StoreRequest};

mod standings;
#[cfg(test)]
mod tests;

/// Chunks of one call together; a larger call would only delay its first chunk.
const GROUP_BYTES_MAX: usize = CHUNK_BYTES_MAX as usize;
/// Up to this much is hashed where it arrives; handing it to another thread would cost as much.
const HASH_INLINE_BYTES: usize = 128 << 10;

/// Why a call to a store has no result.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreCallError {
    #[error(transparent)]
    Net(#[from] NetError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the store's answer does not fit the question")]
    Unexpected,
}

/// One store, call by call.
#[derive(Clone)]
pub struct StoreStub {
    transport: Arc<dyn Transport>,
}

impl StoreStub {
    pub fn new(transport: Arc<dyn Transport>) -> StoreStub {
        StoreStub { transport }
    }

    /// # Errors
    /// The call failed, or the store answered with an error.
    pub async fn call(
        &self,
        address: &str,
        request: &StoreRequest,
        bulk: Bytes,
        deadline: Duration,
    ) -> Result<(StoreReply, Bytes), StoreCallError> {
        self.call_encoded(address, encode(request).into(), bulk, deadline).await
    }

    async fn call_encoded(
        &self,
        address: &str,
        message: Bytes,
        bulk: Bytes,
        deadline: Duration,
    ) -> Result<(StoreReply, Bytes), StoreCallError> {
        let frame = self.transport.call(address, Frame { kind: KIND_STORE, message, bulk }, deadline).await?;
        match decode(&frame.message) {
            Ok(StoreReply::Error(error)) => Err(error.into()),
            Ok(reply) if frame.kind == KIND_STORE => Ok((reply, frame.bulk)),
            _ => Err(StoreCallError::Unexpected),
        }
    }

    /// Part of a chunk, with the length asked for. Whole chunks are checked against their name.
    ///
    /// # Errors
    /// `Damaged` also when what came is not what was asked for.
    pub async fn get(&self, address: &str, part: Part, deadline: Duration) -> Result<Bytes, StoreCallError> {
        let request = StoreRequest::Get { id: part.id, offset: part.offset, len: part.len };
        match self.call(address, &request, Bytes::new(), deadline).await? {
            (StoreReply::Data { chunk_bytes }, bytes) => checked(part, chunk_bytes, bytes).await,
            _ => Err(StoreCallError::Unexpected),
        }
    }

    /// As [`StoreStub::get`], and where it is in the store's packs.
    ///
    /// # Errors
    /// As there.
    pub async fn get_located(
        &self,
        address: &str,
        part: Part,
        deadline: Duration,
    ) -> Result<(Bytes, Option<PackSpot>), StoreCallError> {
        let request = StoreRequest::GetLocated { id: part.id, offset: part.offset, len: part.len };
        match self.call(address, &request, Bytes::new(), deadline).await? {
            (StoreReply::DataAt { chunk_bytes, spot }, bytes) => Ok((checked(part, chunk_bytes, bytes).await?, spot)),
            _ => Err(StoreCallError::Unexpected),
        }
    }

    /// A whole chunk of unknown length, checked against its name.
    ///
    /// # Errors
    /// `Damaged` also when what came is not what was asked for.
    pub async fn get_whole(&self, address: &str, id: ChunkId, deadline: Duration) -> Result<Bytes, StoreCallError> {
        let request = StoreRequest::Get { id, offset: 0, len: 0 };
        let (reply, bytes) = self.call(address, &request, Bytes::new(), deadline).await?;
        match reply {
            StoreReply::Data { .. } if is_named(id, bytes.clone()).await => Ok(bytes),
            StoreReply::Data { .. } => Err(StoreError::Damaged.into()),
            _ => Err(StoreCallError::Unexpected),
        }
    }

    /// How many chunks of a slot the store has, and the XOR of their ids.
    ///
    /// # Errors
    /// The call failed.
    pub async fn summary(
        &self,
        address: &str,
        slot: Slot,
        deadline: Duration,
    ) -> Result<(u64, [u8; 32]), StoreCallError> {
        match self.call(address, &StoreRequest::SlotSummary { slot }, Bytes::new(), deadline).await?.0 {
            StoreReply::Summary { chunks, xor } => Ok((chunks, xor)),
            _ => Err(StoreCallError::Unexpected),
        }
    }

    /// A page of the chunks of a slot after one, with the epoch each was last put at, and whether it is the last page.
    ///
    /// # Errors
    /// The call failed, or the page leads nowhere.
    pub async fn list(
        &self,
        address: &str,
        slot: Slot,
        after: Option<ChunkId>,
        deadline: Duration,
    ) -> Result<(Vec<(ChunkId, u64)>, bool), StoreCallError> {
        match self.call(address, &StoreRequest::ListSlot { slot, after }, Bytes::new(), deadline).await?.0 {
            // An empty page that is not the last would be asked for again for ever.
            StoreReply::Slot { ids, end } if end || ids.last().map(|(id, _)| *id) > after => Ok((ids, end)),
            _ => Err(StoreCallError::Unexpected),
        }
    }
}

/// `len` bytes from `offset` of a chunk of `chunk_bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub id: ChunkId,
    pub offset: u32,
    pub len: u32,
    pub chunk_bytes: u32,
}

/// That this is the part, whole chunks by their name.
async fn checked(part: Part, chunk_bytes: u32, bytes: Bytes) -> Result<Bytes, StoreCallError> {
    if chunk_bytes != part.chunk_bytes || bytes.len() != part.len as usize {
        return Err(StoreError::Damaged.into());
    }
    let whole = part.offset == 0 && part.len == part.chunk_bytes;
    if whole && !is_named(part.id, bytes.clone()).await {
        return Err(StoreError::Damaged.into());
    }
    Ok(bytes)
}

async fn is_named(id: ChunkId, bytes: Bytes) -> bool {
    if bytes.len() <= HASH_INLINE_BYTES {
        return ChunkId::of(&bytes) == id;
    }
    tokio::task::spawn_blocking(move || ChunkId::of(&bytes) == id).await.unwrap_or(false)
}

/// How patient a [`StoreClient`] is, and how much it lets lie around.
#[derive(Clone, Copy, Debug)]
pub struct StoreClientOptions {
    /// Bytes on their way to stores, stragglers included; a put waits for room.
    pub inflight_bytes: u32,
    pub put_deadline: Duration,
    pub get_deadline: Duration,
    /// Without an answer for this long, another replica is asked as well.
    pub hedge_after: Duration,
    /// Whether chunks of stores on this host are read from their disks.
    pub short_circuit: bool,
}

impl Default for StoreClientOptions {
    fn default() -> StoreClientOptions {
        StoreClientOptions {
            inflight_bytes: 64 << 20,
            put_deadline: Duration::from_secs(20),
            get_deadline: Duration::from_secs(5),
            hedge_after: Duration::from_millis(50),
            short_circuit: false,
        }
    }
}

/// The replicas of every chunk, as one store.
pub struct StoreClient {
    stub: StoreStub,
    table: watch::Receiver<Arc<Table>>,
    options: StoreClientOptions,
    inflight: Arc<Semaphore>,
    standings: Standings,
    /// Which of the equals this client prefers, so that many clients do not all ask the same.
    bias: usize,
    short_circuit: Option<Arc<ShortCircuit>>,
}

impl StoreClient {
    pub fn new(
        transport: Arc<dyn Transport>,
        table: watch::Receiver<Arc<Table>>,
        options: StoreClientOptions,
    ) -> StoreClient {
        let mut bias = [0];
        // Without randomness all clients prefer the same replica: slower, not wrong.
        let _ = getrandom::fill(&mut bias);
        let stub = StoreStub::new(transport);
        let short_circuit =
            options.short_circuit.then(|| ShortCircuit::new(stub.clone(), table.clone(), options.hedge_after));
        StoreClient {
            stub,
            table,
            short_circuit,
            options,
            inflight: Arc::new(Semaphore::new(options.inflight_bytes as usize)),
            standings: Standings::default(),
            bias: usize::from(bias[0]),
        }
    }

    /// Puts chunks; returns when each is durable on a quorum (`copies / 2 + 1`) of its replicas.
    ///
    /// # Errors
    /// `NoSpace` when too many replicas are full, `Io` when they do not take the bytes for what they are called,
    /// `Unreachable` otherwise: try again later. Chunks may be stored nevertheless; that does no harm.
    pub async fn put(&self, chunks: &[(ChunkId, Bytes)], epoch: u64, copies: u8) -> Result<(), FsError> {
        let table = Arc::clone(&self.table.borrow());
        let groups = group(&table, chunks, copies);
        let puts = groups.into_iter().map(|group| self.put_group(&table, group, epoch, copies));
        let errors: Vec<FsError> = join_all(puts).await.into_iter().filter_map(Result::err).collect();
        // Waiting does not help against a full disk, so that is the one to tell.
        match errors.iter().find(|error| **error == FsError::NoSpace).or(errors.first()) {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    async fn put_group(&self, table: &Table, group: Group, epoch: u64, copies: u8) -> Result<(), FsError> {
        let quorum = usize::from(copies) / 2 + 1;
        let addresses: Vec<(StoreId, String)> =
            group.stores.iter().filter_map(|id| Some((*id, table.store(*id)?.address.clone()))).collect();
        if addresses.len() < quorum {
            return Err(FsError::Unreachable);
        }
        let permit = Arc::new(self.room_for(group.bytes).await?);
        let chunks = group.chunks.iter().map(|(id, bytes)| PutChunk { id: *id, bytes: bytes.len() as u32 }).collect();
        let message = Bytes::from(encode(&StoreRequest::Put { epoch, chunks }));
        let bulk = joined(group.chunks);
        let (answers, mut answered) = mpsc::channel(addresses.len());
        let replicas = addresses.len();
        for (store, address) in addresses {
            let (stub, standings) = (self.stub.clone(), self.standings.clone());
            let (message, bulk, answers) = (message.clone(), bulk.clone(), answers.clone());
            let (permit, deadline) = (Arc::clone(&permit), self.options.put_deadline);
            tokio::spawn(async move {
                let result = stub.call_encoded(&address, message, bulk, deadline).await;
                standings.judge(store, !is_silence(result.as_ref().err()), Instant::now());
                drop(permit);
                // Nobody waits for a straggler.
                let _ = answers.send(result.map(drop)).await;
            });
        }
        drop(answers);
        let mut tally = Tally { replicas, quorum, durable: 0, full: 0, refused: 0, lost: 0 };
        loop {
            if let Some(verdict) = tally.verdict() {
                return verdict;
            }
            match answered.recv().await {
                Some(result) => tally.count(result),
                None => return Err(FsError::Unreachable),
            }
        }
    }

    async fn room_for(&self, bytes: usize) -> Result<OwnedSemaphorePermit, FsError> {
        // What is larger than the bound goes alone.
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.options.inflight_bytes);
        Arc::clone(&self.inflight).acquire_many_owned(bytes).await.map_err(|_| FsError::Unreachable)
    }

    /// `len` bytes from `offset` of a chunk of `chunk_bytes`, from whichever replica has a good copy. Whole chunks are
    /// checked against their name here, parts were checked by the store.
    ///
    /// # Errors
    /// `ChunkLost` only when every store has answered that it has no good copy; otherwise `Unreachable`: try again.
    pub async fn get(&self, id: ChunkId, offset: u32, len: u32, chunk_bytes: u32) -> Result<Bytes, FsError> {
        let part = Part { id, offset, len, chunk_bytes };
        let table = Arc::clone(&self.table.borrow());
        let mut candidates = self.candidates(&table, &id).into_iter();
        let mut asked = FuturesUnordered::new();
        let (mut all_denied, mut known) = (true, false);
        loop {
            let another = candidates.next();
            let more = another.is_some();
            asked.extend(another.map(|(store, address)| {
                known = true;
                self.ask(store, address, part)
            }));
            if asked.is_empty() {
                return Err(if all_denied && known { FsError::ChunkLost(id) } else { FsError::Unreachable });
            }
            tokio::select! {
                Some(answer) = asked.next() => match answer {
                    Ok(bytes) => return Ok(bytes),
                    Err(error) => all_denied &= is_denial(&error),
                },
                () = tokio::time::sleep(self.options.hedge_after), if more => {}
            }
        }
    }

    /// The part, if it is in the memory of this host: of a store's disk that this client may read.
    pub fn peek(&self, part: Part) -> Option<Bytes> {
        self.short_circuit.as_ref()?.peek(part)
    }

    /// The part from a store's disk on this host, which keeps it in memory better than a copy would. `None`: to be had by
    /// [`StoreClient::get`].
    pub async fn read_near(&self, part: Part) -> Option<Bytes> {
        self.short_circuit.as_ref()?.read(part).await
    }

    /// Chunks that will be wanted soon. Gives those back that are not on this host. Must be called in the runtime.
    pub fn expect(&self, parts: Vec<Part>) -> Vec<Part> {
        match &self.short_circuit {
            Some(near) => near.expect(parts),
            None => parts,
        }
    }

    async fn ask(&self, store: StoreId, address: String, part: Part) -> Result<Bytes, StoreCallError> {
        let asked = self.standings.begin(store, Instant::now());
        let result = self.stub.get(&address, part, self.options.get_deadline).await;
        asked.end(result.is_ok(), Instant::now());
        if let Err(error) = &result {
            tracing::debug!(%store, chunk = %part.id, %error, "a replica did not give a chunk");
        }
        self.judge(store, result.as_ref().err());
        result
    }

    fn judge(&self, store: StoreId, error: Option<&StoreCallError>) {
        self.standings.judge(store, !is_silence(error), Instant::now());
    }

    /// All stores in the order in which to ask them.
    fn candidates(&self, table: &Table, id: &ChunkId) -> Vec<(StoreId, String)> {
        let mut ranking = table.ranking_of(id);
        let equals = ranking.len().min(usize::from(REPLICAS_DEFAULT));
        if equals > 0 {
            ranking[..equals].rotate_left((self.bias + usize::from(id.0[31])) % equals);
        }
        let now = Instant::now();
        self.standings.choose(&mut ranking[..equals], now);
        // Stable: those that answer keep their order.
        ranking.sort_by_key(|store| self.standings.is_shunned(*store, now));
        ranking.into_iter().filter_map(|id| Some((id, table.store(id)?.address.clone()))).collect()
    }
}

fn is_silence(error: Option<&StoreCallError>) -> bool {
    matches!(error, Some(StoreCallError::Net(_)))
}

/// Chunks that go to the same stores in one call.
struct Group {
    stores: Vec<StoreId>,
    chunks: Vec<(ChunkId, Bytes)>,
    bytes: usize,
}

fn group(table: &Table, chunks: &[(ChunkId, Bytes)], copies: u8) -> Vec<Group> {
    let mut open: BTreeMap<Vec<StoreId>, Group> = BTreeMap::new();
    let mut full = Vec::new();
    for (id, bytes) in chunks {
        let mut stores: Vec<StoreId> = table.replicas_of(id, copies).iter().map(|place| place.store).collect();
        // All are written at once, so their order is nothing.
        stores.sort_unstable();
        let empty = || Group { stores: stores.clone(), chunks: Vec::new(), bytes: 0 };
        let group = open.entry(stores.clone()).or_insert_with(empty);
        if !group.chunks.is_empty() && group.bytes + bytes.len() > GROUP_BYTES_MAX {
            full.push(std::mem::replace(group, empty()));
        }
        group.bytes += bytes.len();
        group.chunks.push((*id, bytes.clone()));
    }
    full.extend(open.into_values());
    full
}

/// One buffer for the wire; a single chunk is not copied.
fn joined(mut chunks: Vec<(ChunkId, Bytes)>) -> Bytes {
    if let [(_, only)] = &mut chunks[..] {
        return std::mem::take(only);
    }
    let mut bulk = BytesMut::with_capacity(chunks.iter().map(|(_, bytes)| bytes.len()).sum());
    chunks.iter().for_each(|(_, bytes)| bulk.extend_from_slice(bytes));
    bulk.freeze()
}

/// The answers to one put so far.
struct Tally {
    replicas: usize,
    quorum: usize,
    durable: usize,
    full: usize,
    refused: usize,
    lost: usize,
}

impl Tally {
    fn count(&mut self, result: Result<(), StoreCallError>) {
        match result {
            Ok(()) => self.durable += 1,
            Err(StoreCallError::Store(StoreError::Full)) => self.full += 1,
            Err(StoreCallError::Store(StoreError::Mismatch | StoreError::Invalid | StoreError::NotAllowed)) => {
                self.refused += 1;
            }
            Err(_) => self.lost += 1,
        }
    }

    /// `None` while it may go either way.
    fn verdict(&self) -> Option<Result<(), FsError>> {
        let spare = self.replicas - self.quorum;
        if self.durable >= self.quorum {
            Some(Ok(()))
        } else if self.refused > spare {
            Some(Err(FsError::Io))
        } else if self.full > spare {
            Some(Err(FsError::NoSpace))
        } else if self.full + self.refused + self.lost > spare {
            // Enough are full or gone; those that are gone may come back.
            Some(Err(FsError::Unreachable))
        } else {
            None
        }
    }
}

/// Has the store said that it has no good copy?
fn is_denial(error: &StoreCallError) -> bool {
    matches!(error, StoreCallError::Store(StoreError::NotFound | StoreError::Damaged | StoreError::Invalid))
}
