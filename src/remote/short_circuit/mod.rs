//! Reads past the store: a chunk of a store on this host is read from the store's disk, without a process between.
//!
//! Where storage runs on the hosts' own disks the nearest copy of a chunk is often on the host of the container that reads it,
//! and the call to the store (encrypted, copied twice, by two more threads) costs many times the read itself. So a client
//! asks a store where the packs of its disks are, once; if it can open them, it asks where in them a chunk is, and reads
//! it. (HDFS calls this a short-circuit read. Its first form, HDFS-2246, is this one: the reader opens the file by name,
//! and the kernel decides whether it may.)
//!
//! Nothing is taken on trust that is not from a store: each read checks the record's header, which names the chunk and its
//! own place in this very pack, and the checksum of every piece it gives away. What does not fit is forgotten, and the
//! chunk is read as any other, through a store, which then finds the damage and has it mended. Chunks never change, so
//! what was read is right even if the record is deleted meanwhile.
//!
//! Packs are only read here. Never waits for the store on the way of a read whose place is known, and for a disk no longer
//! than until another replica would be asked.

mod located;
mod near;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use crate::pack::format::FormatError;
use crate::pack::reader::{ReadError, Record, Spot};
use crate::pack::sys::Patience;
use crate::placement::Table;
use crate::types::digest::ChunkId;
use crate::types::id::StoreId;
use crate::types::limits::REPLICAS_DEFAULT;
use crate::wire::store::{PackSpot, StoreReply, StoreRequest};

use super::store::{Part, StoreCallError, StoreStub};
use located::{Located, Memory};
use near::{Disks, ELSEWHERE, Near, Pack, SILENT};

/// For the question where packs or chunks are.
const ASK_DEADLINE: Duration = Duration::from_secs(2);
/// Up to so much is got from a store that is asked where a chunk is.
const BIT_BYTES: u32 = 16 << 10;
/// Chunks that are brought into memory at once.
const BRING_MAX: usize = 1024;
/// Reads of disks at once: those that hang hold up no more threads than these.
const READS_MAX: usize = 64;

/// The disks of stores on this host.
pub struct ShortCircuit {
    stub: StoreStub,
    table: watch::Receiver<Arc<Table>>,
    /// A disk that takes longer is not waited for.
    patience: Duration,
    near: Near,
    located: Mutex<Memory>,
    reads: Arc<Semaphore>,
}

/// A store on this host, to ask.
struct NearStore {
    id: StoreId,
    address: String,
}

impl ShortCircuit {
    pub fn new(stub: StoreStub, table: watch::Receiver<Arc<Table>>, patience: Duration) -> Arc<ShortCircuit> {
        let reads = Arc::new(Semaphore::new(READS_MAX));
        Arc::new(ShortCircuit { stub, table, patience, near: Near::default(), located: Mutex::default(), reads })
    }

    /// The part, if where it is is known and it is in memory there. Waits for nothing.
    pub fn peek(&self, part: Part) -> Option<Bytes> {
        let located = self.find(&part.id)?;
        let pack = self.near.get(located.store)?.opened(located.at.disk, located.at.pack)?;
        self.judge(&part.id, read(&pack, located.at, part, Patience::Hurry))
    }

    /// The part, if a store of this host has it; waits for its disk. `None`: to be had through a store.
    pub async fn read(self: &Arc<Self>, part: Part) -> Option<Bytes> {
        if let Some(located) = self.find(&part.id) {
            return self.read_located(located, part).await;
        }
        let store = self.near_store(&part.id)?;
        if part.len > BIT_BYTES {
            self.locate(&store, vec![part.id], self.patience).await;
            return self.read_located(self.find(&part.id)?, part).await;
        }
        // A call that brings so little costs no more than one that only says where it is.
        match self.stub.get_located(&store.address, part, self.patience).await {
            Ok((bytes, spot)) => {
                self.remember(&store, spot.map(|spot| (part.id, spot)));
                Some(bytes)
            }
            Err(error) => {
                self.doubt(store.id, &error);
                None
            }
        }
    }

    /// A store that does not answer is not asked for a while.
    fn doubt(&self, store: StoreId, error: &StoreCallError) {
        if matches!(error, StoreCallError::Net(_) | StoreCallError::Unexpected) {
            self.near.is_away(store, SILENT);
        }
    }

    fn find(&self, id: &ChunkId) -> Option<Located> {
        self.located.lock().find(id)
    }

    async fn read_located(&self, located: Located, part: Part) -> Option<Bytes> {
        let disks = self.near.get(located.store)?;
        let turn = Arc::clone(&self.reads).try_acquire_owned().ok()?;
        let reading = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let pack = disks.pack(located.at.disk, located.at.pack)?;
            read(&pack, located.at, part, Patience::Wait)
        });
        match tokio::time::timeout(self.patience, reading).await {
            Ok(read) => match self.judge(&part.id, read.ok()?) {
                Some(bytes) => Some(bytes),
                None => self.read_by_store(located.store, part).await,
            },
            Err(_) => {
                tracing::debug!(store = %located.store, "the disk of a store on this host is slow; it is left alone");
                self.near.is_away(located.store, SILENT);
                None
            }
        }
    }

    /// Asks the store itself: it knows where the chunk is by now, or finds that it is damaged, and has it mended.
    async fn read_by_store(&self, store: StoreId, part: Part) -> Option<Bytes> {
        let address = self.table.borrow().store(store)?.address.clone();
        self.stub.get(&address, part, self.patience).await.ok()
    }

    /// Chunks that will be wanted soon. Those on this host are brought into memory, beside; the others are given back.
    /// Must be called in the runtime.
    pub fn expect(self: &Arc<Self>, parts: Vec<Part>) -> Vec<Part> {
        let mut away = Vec::new();
        let mut by_store: BTreeMap<StoreId, (NearStore, Vec<ChunkId>)> = BTreeMap::new();
        for part in parts {
            match self.near_store(&part.id) {
                Some(store) => by_store.entry(store.id).or_insert((store, Vec::new())).1.push(part.id),
                None => away.push(part),
            }
        }
        for (_, (store, mut ids)) in by_store {
            ids.truncate(BRING_MAX);
            tokio::spawn(Arc::clone(self).bring(store, ids));
        }
        away
    }

    async fn bring(self: Arc<Self>, store: NearStore, ids: Vec<ChunkId>) {
        let unknown: Vec<ChunkId> = {
            let mut located = self.located.lock();
            ids.iter().filter(|id| located.find(id).is_none()).copied().collect()
        };
        if !unknown.is_empty() {
            self.locate(&store, unknown, ASK_DEADLINE).await;
        }
        let found: Vec<(ChunkId, Located)> = {
            let mut located = self.located.lock();
            ids.into_iter().filter_map(|id| Some((id, located.find(&id)?))).collect()
        };
        let Some(disks) = self.near.get(store.id) else { return };
        let Ok(turn) = Arc::clone(&self.reads).try_acquire_owned() else { return };
        let advise = move || {
            let _turn = turn;
            for (id, located) in found.into_iter().filter(|(_, located)| located.store == store.id) {
                // A read that finds it missing says so.
                if let Ok(pack) = disks.pack(located.at.disk, located.at.pack) {
                    record(&pack, located.at, &id).will_need();
                }
            }
        };
        // A read that comes too late for this waits for the disk itself.
        drop(tokio::task::spawn_blocking(advise));
    }

    /// A store on this host that should have the chunk. Finds out about those of which nothing is known, for the next
    /// time.
    fn near_store(self: &Arc<Self>, id: &ChunkId) -> Option<NearStore> {
        let table = Arc::clone(&self.table.borrow());
        let mut found = None;
        for id in table.ranking_of(id).into_iter().take(usize::from(REPLICAS_DEFAULT)) {
            let Some(info) = table.store(id) else { continue };
            match self.near.get(id) {
                Some(_) if found.is_none() => found = Some(NearStore { id, address: info.address.clone() }),
                Some(_) => {}
                None if self.near.begin_to_ask(id) => {
                    drop(tokio::spawn(Arc::clone(self).ask(id, info.address.clone())))
                }
                None => {}
            }
        }
        found
    }

    /// Asks a store where its packs are, and looks whether they can be read here.
    async fn ask(self: Arc<Self>, store: StoreId, address: String) {
        let answer = self.stub.call(&address, &StoreRequest::Disks, Bytes::new(), ASK_DEADLINE).await;
        let how_long = match answer {
            Ok((StoreReply::Disks(dirs), _)) => match tokio::task::spawn_blocking(move || Disks::find(dirs)).await {
                Ok(Some(disks)) => {
                    if self.near.is_near(store, disks) {
                        tracing::info!(%store, "this store is on this host; its chunks are read from its disks");
                    }
                    return;
                }
                _ => ELSEWHERE,
            },
            // An older program knows no such question.
            Ok(_) | Err(StoreCallError::Store(_)) => ELSEWHERE,
            Err(_) => SILENT,
        };
        self.near.is_away(store, how_long);
    }

    /// Asks where chunks are.
    async fn locate(&self, store: &NearStore, ids: Vec<ChunkId>, deadline: Duration) {
        let request = StoreRequest::Locate { ids: ids.clone() };
        match self.stub.call(&store.address, &request, Bytes::new(), deadline).await {
            Ok((StoreReply::Located(spots), _)) if spots.len() == ids.len() => {
                self.remember(store, ids.into_iter().zip(spots).filter_map(|(id, spot)| Some((id, spot?))));
            }
            Ok(_) => self.doubt(store.id, &StoreCallError::Unexpected),
            Err(error) => self.doubt(store.id, &error),
        }
    }

    fn remember(&self, store: &NearStore, spots: impl IntoIterator<Item = (ChunkId, PackSpot)>) {
        let mut located = self.located.lock();
        spots.into_iter().for_each(|(id, at)| located.insert(id, Located { store: store.id, at }));
    }

    fn judge(&self, id: &ChunkId, read: Result<Bytes, ReadError>) -> Option<Bytes> {
        match read {
            Ok(bytes) => Some(bytes),
            Err(ReadError::WouldBlock) => None,
            Err(error) => {
                tracing::debug!(chunk = %id, %error, "a chunk is not where it was in its pack");
                self.located.lock().forget(id);
                None
            }
        }
    }
}

fn record<'a>(pack: &'a Pack, at: PackSpot, id: &'a ChunkId) -> Record<'a> {
    let spot = Spot { offset: at.offset, payload_bytes: at.chunk_bytes };
    Record { file: &pack.file, salt: &pack.salt, spot, id }
}

fn read(pack: &Pack, at: PackSpot, part: Part, patience: Patience) -> Result<Bytes, ReadError> {
    let end = part.offset.checked_add(part.len).filter(|end| *end <= at.chunk_bytes);
    let range = part.offset..end.unwrap_or(part.offset);
    if range.is_empty() || part.chunk_bytes != at.chunk_bytes {
        return Err(FormatError::Field.into());
    }
    record(pack, at, &part.id).read(range, patience)
}
