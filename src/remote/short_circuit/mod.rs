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
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use crate::pack::format::FormatError;
use crate::pack::reader::{ReadError, Spot};
use crate::pack::sys::Patience;
use crate::placement::Table;
use crate::types::digest::ChunkId;
use crate::types::id::StoreId;
use crate::types::limits::REPLICAS_DEFAULT;
use crate::wire::store::{PackSpot, StoreReply, StoreRequest};

use super::store::{Part, StoreCallError, StoreStub};
use located::{Located, Memory};
use near::{Disks, ELSEWHERE, Near, SILENT};

/// For the question where packs or chunks are.
const ASK_DEADLINE: Duration = Duration::from_secs(2);
/// Up to so much is got from a store that is asked where a chunk is.
const BIT_BYTES: u32 = 16 << 10;
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
#[derive(Clone)]
struct NearStore {
    id: StoreId,
    address: String,
    disks: Arc<Disks>,
}

impl NearStore {
    /// May wait for a device, where a pack is not open yet.
    fn open(&self, spots: Vec<(ChunkId, PackSpot)>) -> io::Result<Vec<(ChunkId, Located)>> {
        let open = |(id, spot): (ChunkId, PackSpot)| {
            let pack = self.disks.pack(spot.disk, spot.pack)?;
            let spot = Spot { offset: spot.offset, payload_bytes: spot.chunk_bytes };
            Ok((id, Located { store: self.id, pack, spot }))
        };
        spots.into_iter().map(open).collect()
    }
}

impl ShortCircuit {
    pub fn new(stub: StoreStub, table: watch::Receiver<Arc<Table>>, patience: Duration) -> Arc<ShortCircuit> {
        let reads = Arc::new(Semaphore::new(READS_MAX));
        Arc::new(ShortCircuit { stub, table, patience, near: Near::default(), located: Mutex::default(), reads })
    }

    /// The part, if where it is is known and it is in memory there. Waits for nothing.
    pub fn peek(&self, part: Part) -> Option<Bytes> {
        let located = self.find(&part.id)?;
        self.judge(&part.id, read(&located, part, Patience::Hurry))
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
                self.remember(&store, spot.map(|spot| (part.id, spot)).into_iter().collect()).await;
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
        self.near.get(located.store)?;
        let turn = Arc::clone(&self.reads).try_acquire_owned().ok()?;
        let store = located.store;
        let reading = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            read(&located, part, Patience::Wait)
        });
        match tokio::time::timeout(self.patience, reading).await {
            Ok(read) => match self.judge(&part.id, read.ok()?) {
                Some(bytes) => Some(bytes),
                None => self.read_by_store(store, part).await,
            },
            Err(_) => {
                if self.near.is_away(store, SILENT) {
                    tracing::warn!(%store, "the disk of a store on this host is slow; its chunks are asked for");
                }
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
        for (_, (store, ids)) in by_store {
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
        let Ok(turn) = Arc::clone(&self.reads).try_acquire_owned() else { return };
        let advise = move || {
            let _turn = turn;
            found.iter().for_each(|(id, located)| located.record(id).will_need());
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
                Some(disks) if found.is_none() => {
                    found = Some(NearStore { id, address: info.address.clone(), disks });
                }
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

    /// Asks where chunks are, and opens their packs.
    async fn locate(&self, store: &NearStore, ids: Vec<ChunkId>, deadline: Duration) {
        let request = StoreRequest::Locate { ids: ids.clone() };
        let spots = match self.stub.call(&store.address, &request, Bytes::new(), deadline).await {
            Ok((StoreReply::Located(spots), _)) if spots.len() == ids.len() => spots,
            Ok(_) => return self.doubt(store.id, &StoreCallError::Unexpected),
            Err(error) => return self.doubt(store.id, &error),
        };
        self.remember(store, ids.into_iter().zip(spots).filter_map(|(id, spot)| Some((id, spot?))).collect()).await;
    }

    /// Notes where chunks are, and opens their packs.
    async fn remember(&self, store: &NearStore, spots: Vec<(ChunkId, PackSpot)>) {
        let is_open = spots.iter().all(|(_, spot)| store.disks.is_open(spot.disk, spot.pack));
        let opened = match is_open {
            true => store.open(spots),
            false => {
                let store = store.clone();
                let opening = tokio::task::spawn_blocking(move || store.open(spots));
                // It fails when the process is stopping.
                let Ok(opened) = opening.await else { return };
                opened
            }
        };
        match opened {
            Ok(found) => {
                let mut located = self.located.lock();
                found.into_iter().for_each(|(id, found)| located.insert(id, found));
            }
            Err(error) => {
                tracing::debug!(store = %store.id, %error, "a pack of a store on this host cannot be opened");
                self.near.is_away(store.id, SILENT);
            }
        }
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

fn read(located: &Located, part: Part, patience: Patience) -> Result<Bytes, ReadError> {
    let end = part.offset.checked_add(part.len).filter(|end| *end <= located.spot.payload_bytes);
    let range = part.offset..end.unwrap_or(part.offset);
    if range.is_empty() || part.chunk_bytes != located.spot.payload_bytes {
        return Err(FormatError::Field.into());
    }
    located.record(&part.id).read(range, patience)
}
