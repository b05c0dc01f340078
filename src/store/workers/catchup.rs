//! Keeping copies complete and whole.
//!
//! For every slot this store is responsible for it compares what it has with what the other replicas have, and fetches
//! what it lacks; copies found damaged are fetched anew. Chunks name themselves and never change, so there is nothing to
//! reconcile: what passes the check of its name is right. Fetched chunks keep the epoch their holder knew, so an order
//! to delete means the same on all replicas.
//!
//! Runs at start, on a new map, when a reader met damage, and every minute or so (a put leaves
//! behind a replica that was away for a moment, and nobody tells it); again soon when a round could not be
//! finished. Fetches are few at a time and bounded in bytes per second.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tokio::time::{Instant, sleep};

use crate::net::Transport;
use crate::pack::format::CheckedChunk;
use crate::placement::Table;
use crate::remote::store::{StoreCallError, StoreStub};
use crate::store::Store;
use crate::store::pack::writer::Purpose;
use crate::types::digest::{ChunkId, Slot};
use crate::types::id::StoreId;
use crate::types::limits::REPLICAS_MAX;
use crate::wire::store::StoreError;

use super::WorkerOptions;

const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// Chunks fetched at the same time.
const FETCHES: usize = 4;
/// Between two vain attempts to replace damaged copies.
const MEND_PAUSE: Duration = Duration::from_secs(1);

pub struct Catchup {
    store: Arc<Store>,
    stub: StoreStub,
    options: WorkerOptions,
    throttle: Throttle,
}

/// What one round came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    pub fetched: u64,
    /// Replicas that did not answer, and chunks that no replica gave.
    pub unfinished: u64,
}

impl Catchup {
    pub fn new(store: Arc<Store>, transport: Arc<dyn Transport>, options: WorkerOptions) -> Catchup {
        let throttle = Throttle::new(options.fetch_bytes_per_s);
        Catchup { store, stub: StoreStub::new(transport), options, throttle }
    }

    pub async fn run(self) {
        let mut tables = self.store.table();
        // The first round looks wide: this store may have been away while the map changed.
        let mut wide = true;
        let mut again = self.options.compare_again;
        loop {
            let table = Arc::clone(&tables.borrow_and_update());
            let mut pause = self.options.compare;
            if table.store(self.store.config().store).is_some() {
                let round = self.round(&table, wide).await;
                if round != Round::default() {
                    tracing::info!(round.fetched, round.unfinished, "compared with the other replicas");
                }
                // Soon again while that gets somewhere, then less and less often.
                again =
                    if round.fetched > 0 { self.options.compare_again } else { again * 2 }.min(self.options.compare);
                if round.unfinished > 0 {
                    pause = again;
                } else {
                    wide = false;
                }
            }
            let changed = tokio::select! {
                changed = tables.changed() => changed.is_ok(),
                () = sleep(pause) => false,
                () = self.mend_when_met(&table) => false,
            };
            wide |= changed;
        }
    }

    /// Replaces damaged copies as readers meet them, for ever.
    async fn mend_when_met(&self, table: &Table) {
        loop {
            self.store.damage_met().await;
            let mended = self.mend(table).await;
            tracing::info!(mended.fetched, mended.unfinished, "damaged copies fetched anew");
            if mended.fetched == 0 {
                // A chunk that nobody has whole is asked for again with every read of it.
                sleep(MEND_PAUSE).await;
            }
        }
    }

    /// Replaces what is damaged, then compares every slot with its other replicas; with `wide`, with whoever else might
    /// have held it under an earlier map.
    pub async fn round(&self, table: &Table, wide: bool) -> Round {
        let mut round = self.mend(table).await;
        let me = self.store.config().store;
        // Asked once and not a thousand times: each may cost a timeout.
        let mut absent = BTreeSet::new();
        for slot in table.slots_of(me, self.options.copies) {
            let among = if wide { REPLICAS_MAX } else { self.options.copies };
            for other in table.replicas(slot, among).iter().map(|place| place.store) {
                if other == me || absent.contains(&other) {
                    continue;
                }
                match self.compare(table, slot, other).await {
                    Ok(part) => round.add(part),
                    Err(error) => {
                        tracing::debug!(slot = slot.0, store = %other, %error, "not compared");
                        round.unfinished += 1;
                        if matches!(error, StoreCallError::Net(_)) {
                            absent.insert(other);
                        }
                    }
                }
            }
        }
        round
    }

    /// Fetches good copies of what is known to be damaged here.
    async fn mend(&self, table: &Table) -> Round {
        let mut round = Round::default();
        for id in self.store.damaged() {
            let epoch = self.store.epoch_of(&id).unwrap_or_default();
            round.count(self.fetch(table, id, epoch, None).await);
        }
        round
    }

    /// Fetches what one other store has of a slot and this one has not.
    async fn compare(&self, table: &Table, slot: Slot, other: StoreId) -> Result<Round, StoreCallError> {
        let mut round = Round::default();
        let Some(address) = table.store(other).map(|info| info.address.clone()) else { return Ok(round) };
        let theirs = self.stub.summary(&address, slot, CALL_DEADLINE).await?;
        let ours = self.store.summary(slot);
        if theirs == (ours.chunks, ours.xor) || theirs.0 == 0 {
            return Ok(round);
        }
        let mut after = None;
        loop {
            let (page, end) = self.stub.list(&address, slot, after, CALL_DEADLINE).await?;
            after = page.last().map(|(id, _)| *id);
            let missing: Vec<(ChunkId, u64)> =
                page.into_iter().filter(|(id, _)| id.slot() == slot && !self.store.has(id)).collect();
            let fetches = missing.into_iter().map(|(id, epoch)| self.fetch(table, id, epoch, Some(other)));
            let mut fetches = stream::iter(fetches).buffer_unordered(FETCHES);
            while let Some(result) = fetches.next().await {
                if let Err(error @ StoreCallError::Store(StoreError::Full)) = result {
                    return Err(error);
                }
                round.count(result);
            }
            if end {
                return Ok(round);
            }
        }
    }

    /// Fetches one chunk from `first` or any other replica, and stores it.
    async fn fetch(
        &self,
        table: &Table,
        id: ChunkId,
        epoch: u64,
        first: Option<StoreId>,
    ) -> Result<(), StoreCallError> {
        let me = self.store.config().store;
        let others = table.ranking_of(&id).into_iter().filter(|store| *store != me && Some(*store) != first);
        let mut last = StoreCallError::Store(StoreError::NotFound);
        for other in first.into_iter().chain(others) {
            let Some(info) = table.store(other) else { continue };
            let bytes = match self.stub.get_whole(&info.address, id, CALL_DEADLINE).await {
                Ok(bytes) => bytes,
                Err(error) => {
                    tracing::debug!(chunk = %id, store = %other, %error, "not fetched");
                    last = error;
                    continue;
                }
            };
            self.throttle.spend(bytes.len()).await;
            let checked = tokio::task::spawn_blocking(move || CheckedChunk::check(id, bytes)).await;
            let Ok(Some(chunk)) = checked else { continue };
            return Ok(self.store.put(vec![chunk], epoch, Purpose::Repair).await?);
        }
        Err(last)
    }
}

impl Round {
    fn add(&mut self, other: Round) {
        self.fetched += other.fetched;
        self.unfinished += other.unfinished;
    }

    fn count(&mut self, result: Result<(), StoreCallError>) {
        match result {
            Ok(()) => self.fetched += 1,
            // Deleted there meanwhile.
            Err(StoreCallError::Store(StoreError::NotFound)) => {}
            Err(_) => self.unfinished += 1,
        }
    }
}

/// Spreads bytes over time.
struct Throttle {
    bytes_per_s: u64,
    /// When everything spent so far is paid for.
    paid: parking_lot::Mutex<Instant>,
}

impl Throttle {
    fn new(bytes_per_s: u64) -> Throttle {
        Throttle { bytes_per_s: bytes_per_s.max(1), paid: parking_lot::Mutex::new(Instant::now()) }
    }

    async fn spend(&self, bytes: usize) {
        let now = Instant::now();
        let wait = {
            let mut paid = self.paid.lock();
            let wait = paid.saturating_duration_since(now);
            *paid = now.max(*paid) + Duration::from_secs_f64(bytes as f64 / self.bytes_per_s as f64);
            wait
        };
        if !wait.is_zero() {
            sleep(wait).await;
        }
    }
}
