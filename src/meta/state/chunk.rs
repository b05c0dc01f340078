//! Chunk references and garbage collection.
//!
//! ```text
//! no entry --reference--> Live --last reference gone--> Releasable --condemn--> Condemned(e) --all confirm--> no entry
//!                          ^------------reference------------'                      |
//!                          '----------reference put at epoch >= e-------------------'
//! ```
//!
//! A *stray* is a chunk that stores have and that nothing has ever referred to: it has no entry, and condemning it makes
//! one, of unknown length (0), so that a reference meanwhile is judged as any other. It does not count in the totals.
//!
//! No clock is trusted. A writer says at which collection epoch it put its bytes. Bytes put at or after the epoch of a
//! batch survive that batch's deletion (stores delete only what was last put before); bytes put earlier may be gone, and
//! so a reference to them is refused with "put it again". The same holds for a chunk that is not known here, when a
//! batch that was condemned after the put has been dropped: it may have been in it.

use std::collections::BTreeMap;

use super::error::StateError;
use super::schema::{
    ChunkRef, ChunkState, ChunkTotals, Collection, Condemned, Present, Table, chunk_ref_key, condemned_key,
    releasable_key, single_key,
};
use super::tx::Tx;
use crate::meta::command::Outcome;
use crate::types::cluster::ClusterMap;
use crate::types::digest::ChunkId;
use crate::types::error::FsError;
use crate::types::extent::{ChunkPart, Extent, Source};
use crate::types::id::StoreId;
use crate::types::limits::CHUNK_BYTES_MAX;

/// Chunks that one command condemns at most; the rest is left for the next.
const CONDEMN_MAX: usize = 8192;

/// What an operation does to reference counts: the exact difference between the extents before and after.
#[derive(Default)]
pub(super) struct RefChanges(BTreeMap<ChunkId, RefChange>);

#[derive(Default)]
struct RefChange {
    delta: i64,
    bytes: u32,
    /// The newest put that a writer claims for it.
    put_epoch: u64,
}

impl RefChanges {
    /// Extents that go.
    pub fn drop_all(&mut self, extents: &[Extent]) {
        for extent in extents {
            if let Source::Chunk(part) = &extent.source {
                self.of(part).delta -= 1;
            }
        }
    }

    /// Extents that come (or stay). They are stored without the epoch of their put.
    pub fn add_all(&mut self, extents: &mut [Extent]) {
        for extent in extents {
            if let Source::Chunk(part) = &mut extent.source {
                let change = self.of(part);
                change.delta += 1;
                change.put_epoch = change.put_epoch.max(part.put_epoch);
                part.put_epoch = 0;
            }
        }
    }

    fn of(&mut self, part: &ChunkPart) -> &mut RefChange {
        let change = self.0.entry(part.id).or_default();
        change.bytes = part.chunk_bytes;
        change
    }

    /// # Errors
    /// `PutAgain` when a new reference is to a chunk that may be on its way out; `Invalid` when a chunk has another
    /// length than is known of it.
    pub fn apply(self, tx: &mut Tx<'_>) -> Result<(), StateError> {
        if self.0.values().all(|change| change.delta == 0) {
            return Ok(());
        }
        let mut ledger = Ledger::open(tx)?;
        for (id, change) in self.0 {
            match change.delta {
                0 => {}
                delta if delta > 0 => ledger.refer(tx, id, &change)?,
                delta => ledger.release(tx, id, delta.unsigned_abs())?,
            }
        }
        ledger.close(tx);
        Ok(())
    }
}

/// The totals and the epochs while references change.
struct Ledger {
    totals: ChunkTotals,
    collection: Collection,
}

impl Ledger {
    fn open(tx: &Tx<'_>) -> Result<Ledger, StateError> {
        Ok(Ledger { totals: tx.single(Table::ChunkTotals)?, collection: tx.single(Table::Collection)? })
    }

    fn close(self, tx: &mut Tx<'_>) {
        tx.put(single_key(Table::ChunkTotals), &self.totals);
    }

    fn refer(&mut self, tx: &mut Tx<'_>, id: ChunkId, change: &RefChange) -> Result<(), StateError> {
        let put_again = FsError::PutAgain { epoch: self.collection.epoch };
        let key = chunk_ref_key(&id);
        let mut chunk = match tx.get::<ChunkRef>(&key)? {
            Some(chunk) if !chunk.is_stray() && chunk.bytes != change.bytes => return Err(FsError::Invalid.into()),
            Some(chunk) => chunk,
            None if change.put_epoch < self.collection.drop_floor => return Err(put_again.into()),
            None => ChunkRef { count: 0, bytes: 0, state: ChunkState::Live },
        };
        match chunk.state {
            ChunkState::Live => {}
            ChunkState::Releasable { since_epoch } => tx.delete(releasable_key(since_epoch, &id)),
            ChunkState::Condemned { epoch } if change.put_epoch < epoch => return Err(put_again.into()),
            ChunkState::Condemned { .. } => {}
        }
        if chunk.is_stray() {
            if !(1..=CHUNK_BYTES_MAX).contains(&change.bytes) {
                return Err(FsError::Invalid.into());
            }
            chunk.bytes = change.bytes;
            self.totals.chunks += 1;
            self.totals.chunk_bytes += u64::from(change.bytes);
        }
        let shared = chunk.count.saturating_sub(1);
        chunk.count += change.delta.unsigned_abs();
        chunk.state = ChunkState::Live;
        self.totals.shared_references += chunk.count - 1 - shared;
        tx.put(key, &chunk);
        Ok(())
    }

    fn release(&mut self, tx: &mut Tx<'_>, id: ChunkId, references: u64) -> Result<(), StateError> {
        let key = chunk_ref_key(&id);
        let damaged = || StateError::Damaged(format!("chunk {id} has fewer references than files say"));
        let mut chunk = tx.get::<ChunkRef>(&key)?.ok_or_else(damaged)?;
        let count = chunk.count.checked_sub(references).ok_or_else(damaged)?;
        let fewer = chunk.count - 1 - count.saturating_sub(1);
        self.totals.shared_references = self.totals.shared_references.saturating_sub(fewer);
        chunk.count = count;
        if count == 0 {
            let since_epoch = self.collection.epoch;
            chunk.state = ChunkState::Releasable { since_epoch };
            tx.put(releasable_key(since_epoch, &id), &Present);
        }
        tx.put(key, &chunk);
        Ok(())
    }
}

/// Begins an epoch and condemns what still has no reference, known here or not.
pub(super) fn condemn(tx: &mut Tx<'_>, chunks: Vec<ChunkId>) -> Result<Outcome, StateError> {
    let mut collection: Collection = tx.single(Table::Collection)?;
    collection.epoch += 1;
    let epoch = collection.epoch;
    tx.put(single_key(Table::Collection), &collection);
    let mut batch = Vec::new();
    for id in chunks.into_iter().take(CONDEMN_MAX) {
        let bytes = match tx.get::<ChunkRef>(&chunk_ref_key(&id))? {
            None => 0,
            Some(ChunkRef { bytes, state: ChunkState::Releasable { since_epoch }, .. }) => {
                tx.delete(releasable_key(since_epoch, &id));
                bytes
            }
            Some(_) => continue,
        };
        tx.put(chunk_ref_key(&id), &ChunkRef { count: 0, bytes, state: ChunkState::Condemned { epoch } });
        batch.push(id);
    }
    let condemned = batch.len() as u64;
    let map: ClusterMap = tx.single(Table::Map)?;
    let waiting = map.stores.iter().map(|store| store.id).collect();
    if condemned > 0 {
        settle(tx, epoch, Condemned { chunks: batch, waiting })?;
    }
    Ok(Outcome::Condemned { epoch, chunks: condemned })
}

/// Takes note that a store has deleted. A batch that is not (any more) was confirmed before.
pub(super) fn confirm_delete(tx: &mut Tx<'_>, store: StoreId, epochs: &[u64]) -> Result<Outcome, StateError> {
    for epoch in epochs {
        let Some(mut batch) = tx.get::<Condemned>(&condemned_key(*epoch))? else { continue };
        batch.waiting.retain(|waiting| *waiting != store);
        settle(tx, *epoch, batch)?;
    }
    Ok(Outcome::Done)
}

/// Keeps a batch while stores have to confirm it; then drops what of it nobody revived.
fn settle(tx: &mut Tx<'_>, epoch: u64, batch: Condemned) -> Result<(), StateError> {
    if !batch.waiting.is_empty() {
        tx.put(condemned_key(epoch), &batch);
        return Ok(());
    }
    let mut totals: ChunkTotals = tx.single(Table::ChunkTotals)?;
    for id in &batch.chunks {
        let key = chunk_ref_key(id);
        match tx.get::<ChunkRef>(&key)? {
            Some(chunk) if chunk.state == (ChunkState::Condemned { epoch }) => {
                totals.chunks = totals.chunks.saturating_sub(u64::from(!chunk.is_stray()));
                totals.chunk_bytes = totals.chunk_bytes.saturating_sub(chunk.bytes.into());
                tx.delete(key);
            }
            _ => {}
        }
    }
    tx.put(single_key(Table::ChunkTotals), &totals);
    let mut collection: Collection = tx.single(Table::Collection)?;
    collection.drop_floor = collection.drop_floor.max(epoch);
    tx.put(single_key(Table::Collection), &collection);
    tx.delete(condemned_key(epoch));
    Ok(())
}
