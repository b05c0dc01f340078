//! Chunk bytes in memory: immutable, named by content, so no lease is needed and nothing is ever invalidated.
//!
//! Kept in pieces of [`PIECE_BYTES`], least recently used first to go, bounded by bytes. Pieces that several readers
//! want are fetched once; a fetch lives in a task of its own and outlives a reader who goes away.
//!
//! A little that is wanted out of turn is fetched as it is, and not kept: fetching a piece for it costs several times as
//! much. When the same piece is wanted again while the cache could still hold it, it is worth keeping (the ghost list
//! of ARC, Megiddo and Modha 2003).

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::client::chunks::ChunkStore;
use crate::client::memory::Memory;
use crate::remote::store::Part;
use crate::types::digest::ChunkId;
use crate::types::error::FsError;
use crate::types::extent::ChunkPart;
use crate::types::limits::CHUNK_BYTES_MAX;

pub const PIECE_BYTES: u32 = 64 << 10;
const SHARDS: usize = 8;
/// Reads out of turn up to this size fetch no whole piece.
const BIT_BYTES: u32 = 16 << 10;

type Key = (ChunkId, u32);
type Fetched = Result<Vec<Bytes>, FsError>;

pub struct ChunkCache {
    shards: Vec<Mutex<Shard>>,
    shard_bytes_max: u64,
    store: Arc<dyn ChunkStore>,
    memory: Arc<Memory>,
}

#[derive(Default)]
struct Shard {
    pieces: HashMap<Key, (Bytes, u64)>,
    order: BTreeMap<u64, Key>,
    bytes: u64,
    clock: u64,
    fetches: HashMap<Key, Fetch>,
    ghosts: Ghosts,
}

/// Pieces of which a bit was wanted lately, the oldest first to be forgotten.
#[derive(Default)]
struct Ghosts {
    known: HashSet<Key>,
    order: VecDeque<Key>,
}

impl Ghosts {
    /// Notes a piece; whether it had been before.
    fn note(&mut self, key: Key, max: usize) -> bool {
        if self.known.remove(&key) {
            return true;
        }
        self.known.insert(key);
        self.order.push_back(key);
        while self.order.len() > max {
            self.order.pop_front().map(|oldest| self.known.remove(&oldest));
        }
        false
    }
}

/// A run of pieces on its way; `None` until it has arrived.
#[derive(Clone)]
struct Fetch {
    first: u32,
    arrived: watch::Receiver<Option<Arc<Fetched>>>,
}

enum Found {
    Here(Bytes),
    Coming(Fetch),
}

impl ChunkCache {
    pub fn new(store: Arc<dyn ChunkStore>, memory: Arc<Memory>) -> ChunkCache {
        let shard_bytes_max = memory.cache_bytes_max() / SHARDS as u64;
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        ChunkCache { shards, shard_bytes_max, store, memory }
    }

    /// `len` bytes from `offset` of the chunk if all of them are in memory, as slices in order.
    pub fn peek(&self, part: &ChunkPart, offset: u32, len: u32) -> Option<Vec<Bytes>> {
        self.kept(part, offset, len).or_else(|| Some(vec![self.store.peek(range_of(part, offset, len))?]))
    }

    /// If all of them are here.
    fn kept(&self, part: &ChunkPart, offset: u32, len: u32) -> Option<Vec<Bytes>> {
        let (first, last) = pieces_of(part, offset, len)?;
        let mut shard = self.shard(&part.id).lock();
        let mut slices = Vec::with_capacity((last - first + 1) as usize);
        for piece in first..=last {
            slices.push(clip(shard.touch(&(part.id, piece))?, piece, offset, len)?);
        }
        Some(slices)
    }

    /// `len` bytes from `offset` of the chunk, fetched if need be.
    ///
    /// # Errors
    /// The stores do not have it, or do not answer.
    pub async fn read(self: &Arc<Self>, part: &ChunkPart, offset: u32, len: u32) -> Result<Vec<Bytes>, FsError> {
        match self.near(part, offset, len).await {
            Some(slices) => Ok(slices),
            None => self.read_pieces(part, offset, len).await,
        }
    }

    async fn read_pieces(self: &Arc<Self>, part: &ChunkPart, offset: u32, len: u32) -> Result<Vec<Bytes>, FsError> {
        let Some((first, last)) = pieces_of(part, offset, len) else { return Err(FsError::ChunkLost(part.id)) };
        let found = self.find(part, first, last);
        let mut slices = Vec::with_capacity(found.len());
        for (piece, found) in (first..=last).zip(found) {
            let bytes = match found {
                Found::Here(bytes) => bytes,
                Found::Coming(fetch) => fetch.wait(piece).await?,
            };
            slices.push(clip(bytes, piece, offset, len).ok_or(FsError::ChunkLost(part.id))?);
        }
        Ok(slices)
    }

    /// As [`ChunkCache::read`], for a reader who jumps about.
    ///
    /// # Errors
    /// The stores do not have it, or do not answer.
    pub async fn read_bit(self: &Arc<Self>, part: &ChunkPart, offset: u32, len: u32) -> Result<Vec<Bytes>, FsError> {
        if let Some(slices) = self.near(part, offset, len).await {
            return Ok(slices);
        }
        if !self.is_bit(part, offset, len) {
            return self.read_pieces(part, offset, len).await;
        }
        let bytes = self.store.get(part.id, offset, len, part.chunk_bytes).await?;
        if bytes.len() == len as usize { Ok(vec![bytes]) } else { Err(FsError::ChunkLost(part.id)) }
    }

    /// From here, or from a disk of this host, without a copy being kept.
    async fn near(&self, part: &ChunkPart, offset: u32, len: u32) -> Option<Vec<Bytes>> {
        match self.kept(part, offset, len) {
            None => Some(vec![self.store.read_near(range_of(part, offset, len)).await?]),
            slices => slices,
        }
    }

    /// Whether no more than the range itself should be fetched.
    fn is_bit(&self, part: &ChunkPart, offset: u32, len: u32) -> bool {
        let Some((first, last)) = pieces_of(part, offset, len).filter(|_| len <= BIT_BYTES) else { return false };
        let max = (self.shard_bytes_max / u64::from(PIECE_BYTES)) as usize;
        let mut shard = self.shard(&part.id).lock();
        (first..=last).all(|piece| {
            let key = (part.id, piece);
            let here = shard.pieces.contains_key(&key) || shard.fetches.contains_key(&key);
            !here && !shard.ghosts.note(key, max)
        })
    }

    /// Begins to fetch whole chunks. Must be called in the runtime.
    pub fn prefetch(self: &Arc<Self>, parts: &[ChunkPart]) {
        let mut seen = HashSet::new();
        let once = parts.iter().filter(|part| seen.insert(part.id));
        let missing = once.filter(|part| self.kept(part, 0, part.chunk_bytes).is_none());
        let missing = missing.map(|part| range_of(part, 0, part.chunk_bytes)).collect();
        let away: HashSet<ChunkId> = self.store.expect(missing).into_iter().map(|part| part.id).collect();
        for part in parts.iter().filter(|part| away.contains(&part.id)) {
            if let Some((first, last)) = pieces_of(part, 0, part.chunk_bytes) {
                self.find(part, first, last);
            }
        }
    }

    /// Keeps a chunk that has just been written.
    pub fn insert(&self, id: ChunkId, bytes: &Bytes) {
        let mut shard = self.shard(&id).lock();
        let (mut grown, mut shrunk) = (0, 0);
        for (piece, slice) in (0u32..).zip(bytes.chunks(PIECE_BYTES as usize)) {
            // A copy: a slice would pin the whole buffer for as long as one piece is kept.
            let (more, less) = shard.insert((id, piece), Bytes::copy_from_slice(slice), self.shard_bytes_max);
            (grown, shrunk) = (grown + more, shrunk + less);
        }
        drop(shard);
        self.memory.cached(grown, shrunk);
    }

    fn shard(&self, id: &ChunkId) -> &Mutex<Shard> {
        // Another byte than those the slot is taken from: chunks of one store spread as well.
        &self.shards[id.0[31] as usize % SHARDS]
    }

    /// Where each piece is, with fetches begun for those that are nowhere. Pieces missing in a row are one fetch.
    fn find(self: &Arc<Self>, part: &ChunkPart, first: u32, last: u32) -> Vec<Found> {
        let mut found = Vec::with_capacity((last - first + 1) as usize);
        let mut shard = self.shard(&part.id).lock();
        let mut piece = first;
        while piece <= last {
            let key = (part.id, piece);
            if let Some(bytes) = shard.touch(&key) {
                found.push(Found::Here(bytes));
                piece += 1;
            } else if let Some(fetch) = shard.fetches.get(&key) {
                found.push(Found::Coming(fetch.clone()));
                piece += 1;
            } else {
                let missing = |at: &u32| {
                    let key = (part.id, *at);
                    !shard.pieces.contains_key(&key) && !shard.fetches.contains_key(&key)
                };
                let end = (piece..=last).take_while(missing).last().unwrap_or(piece);
                let fetch = self.fetch(part, piece, end);
                for at in piece..=end {
                    shard.fetches.insert((part.id, at), fetch.clone());
                    found.push(Found::Coming(fetch.clone()));
                }
                piece = end + 1;
            }
        }
        found
    }

    fn fetch(self: &Arc<Self>, part: &ChunkPart, first: u32, last: u32) -> Fetch {
        let (done, arrived) = watch::channel(None);
        let (cache, part) = (self.clone(), *part);
        tokio::spawn(async move {
            let offset = first * PIECE_BYTES;
            let len = ((last + 1).saturating_mul(PIECE_BYTES)).min(part.chunk_bytes) - offset;
            let got = cache.store.get(part.id, offset, len, part.chunk_bytes).await;
            let got =
                got.and_then(
                    |bytes| {
                        if bytes.len() == len as usize { Ok(bytes) } else { Err(FsError::ChunkLost(part.id)) }
                    },
                );
            let pieces = got.map(|bytes| bytes.chunks(PIECE_BYTES as usize).map(Bytes::copy_from_slice).collect());
            cache.arrived(part.id, first, last, &pieces);
            let _ = done.send(Some(Arc::new(pieces)));
        });
        Fetch { first, arrived }
    }

    fn arrived(&self, id: ChunkId, first: u32, last: u32, pieces: &Fetched) {
        let (mut grown, mut shrunk) = (0, 0);
        {
            let mut shard = self.shard(&id).lock();
            for piece in first..=last {
                shard.fetches.remove(&(id, piece));
            }
            for (piece, bytes) in (first..).zip(pieces.iter().flatten()) {
                let (more, less) = shard.insert((id, piece), bytes.clone(), self.shard_bytes_max);
                (grown, shrunk) = (grown + more, shrunk + less);
            }
        }
        self.memory.cached(grown, shrunk);
    }
}

impl Fetch {
    async fn wait(mut self, piece: u32) -> Result<Bytes, FsError> {
        let arrived = self.arrived.wait_for(Option::is_some).await;
        let Some(fetched) = arrived.ok().and_then(|arrived| arrived.clone()) else { return Err(FsError::Io) };
        match fetched.as_ref() {
            Ok(pieces) => pieces.get((piece - self.first) as usize).cloned().ok_or(FsError::Io),
            Err(error) => Err(error.clone()),
        }
    }
}

impl Shard {
    fn touch(&mut self, key: &Key) -> Option<Bytes> {
        let (bytes, stamp) = self.pieces.get_mut(key)?;
        self.order.remove(stamp);
        self.clock += 1;
        *stamp = self.clock;
        self.order.insert(self.clock, *key);
        Some(bytes.clone())
    }

    /// Returns how many bytes came and how many had to go.
    fn insert(&mut self, key: Key, bytes: Bytes, bytes_max: u64) -> (u64, u64) {
        if self.touch(&key).is_some() {
            return (0, 0);
        }
        let grown = bytes.len() as u64;
        self.clock += 1;
        self.order.insert(self.clock, key);
        self.pieces.insert(key, (bytes, self.clock));
        self.bytes += grown;
        let mut shrunk = 0;
        while self.bytes > bytes_max {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            let gone = self.pieces.remove(&oldest).map_or(0, |(bytes, _)| bytes.len() as u64);
            self.bytes -= gone;
            shrunk += gone;
        }
        (grown, shrunk)
    }
}

/// A range of a chunk, as stores know it.
fn range_of(part: &ChunkPart, offset: u32, len: u32) -> Part {
    Part { id: part.id, offset, len, chunk_bytes: part.chunk_bytes }
}

/// First and last piece of a range; `None` when the range is empty or not within the chunk.
fn pieces_of(part: &ChunkPart, offset: u32, len: u32) -> Option<(u32, u32)> {
    let end = offset.checked_add(len)?;
    let sound = len > 0 && end <= part.chunk_bytes && part.chunk_bytes <= CHUNK_BYTES_MAX;
    sound.then(|| (offset / PIECE_BYTES, (end - 1) / PIECE_BYTES))
}

/// The part of a piece within the range.
fn clip(bytes: Bytes, piece: u32, offset: u32, len: u32) -> Option<Bytes> {
    let start = piece * PIECE_BYTES;
    let from = offset.saturating_sub(start) as usize;
    let to = (offset + len - start).min(PIECE_BYTES) as usize;
    (from <= to && to <= bytes.len()).then(|| bytes.slice(from..to))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures_util::future::BoxFuture;

    use super::*;

    struct Counting {
        bytes: Bytes,
        gets: AtomicU64,
    }

    impl ChunkStore for Counting {
        fn put<'a>(&'a self, _: &'a [(ChunkId, Bytes)], _: u64, _: u8) -> BoxFuture<'a, Result<(), FsError>> {
            Box::pin(async { Ok(()) })
        }

        fn get(&self, _: ChunkId, offset: u32, len: u32, _: u32) -> BoxFuture<'_, Result<Bytes, FsError>> {
            self.gets.fetch_add(1, Ordering::Relaxed);
            let bytes = self.bytes.slice(offset as usize..(offset + len) as usize);
            Box::pin(async move {
                tokio::task::yield_now().await;
                Ok(bytes)
            })
        }
    }

    fn setup(chunk_bytes: usize, bound: u64) -> (Arc<ChunkCache>, Arc<Counting>, ChunkPart) {
        let bytes: Bytes = (0..chunk_bytes).map(|at| (at / 7) as u8).collect::<Vec<u8>>().into();
        let part = ChunkPart { id: ChunkId::of(&bytes), chunk_bytes: chunk_bytes as u32, offset: 0, put_epoch: 0 };
        let store = Arc::new(Counting { bytes, gets: AtomicU64::new(0) });
        (Arc::new(ChunkCache::new(store.clone(), Arc::new(Memory::new(bound)))), store, part)
    }

    #[tokio::test]
    async fn readers_of_one_piece_fetch_once() {
        let (cache, store, part) = setup(200_000, 64 << 20);
        let (a, b) = tokio::join!(cache.read(&part, 10, 20), cache.read(&part, 30, 20));
        assert_eq!(a.unwrap().concat(), &store.bytes[10..30]);
        assert_eq!(b.unwrap().concat(), &store.bytes[30..50]);
        assert_eq!(store.gets.load(Ordering::Relaxed), 1);
        let whole = cache.read(&part, 0, 200_000).await.unwrap().concat();
        assert_eq!(whole, store.bytes);
        assert_eq!(store.gets.load(Ordering::Relaxed), 2, "the missing pieces are one more fetch");
        assert_eq!(cache.peek(&part, 65_000, 70_000).unwrap().concat(), &store.bytes[65_000..135_000]);
        assert!(cache.read(&part, 199_999, 2).await.is_err());
    }

    #[tokio::test]
    async fn a_bit_is_fetched_alone_and_its_piece_when_it_is_wanted_again() {
        let (cache, store, part) = setup(200_000, 64 << 20);
        assert_eq!(cache.read_bit(&part, 70_000, 4_096).await.unwrap().concat(), &store.bytes[70_000..74_096]);
        assert!(cache.peek(&part, 70_000, 4_096).is_none(), "not kept");
        assert_eq!(cache.read_bit(&part, 80_000, 4_096).await.unwrap().concat(), &store.bytes[80_000..84_096]);
        assert!(cache.peek(&part, 70_000, 4_096).is_some(), "the whole piece");
        assert_eq!(cache.read_bit(&part, 90_000, 4_096).await.unwrap().concat(), &store.bytes[90_000..94_096]);
        assert_eq!(store.gets.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn the_oldest_pieces_go() {
        let bound = 2 * u64::from(PIECE_BYTES) * SHARDS as u64 / 3 * 64;
        let (cache, store, part) = setup(4 * PIECE_BYTES as usize, bound);
        cache.insert(part.id, &store.bytes);
        assert!(cache.peek(&part, 0, 1).is_none());
        assert!(cache.peek(&part, 3 * PIECE_BYTES, 10).is_some());
        assert!(cache.memory.high_bytes() <= 4 * u64::from(PIECE_BYTES));
    }
}
