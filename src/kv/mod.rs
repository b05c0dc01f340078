//! An ordered key-value store: the seam under the metadata state machine and the chunk index.
//!
//! Whatever is kept here is an index that can be rebuilt (from the Raft log and snapshots, or from packs): an engine
//! that does not open, or fails a check, is thrown away. So this is never the only copy of anything, and never on the
//! path of an acknowledgement.

pub mod freeze;
pub mod memory;
pub mod sled;
#[cfg(test)]
mod suite;

use std::sync::Arc;

/// The store failed. The index is to be thrown away and rebuilt.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the index failed: {0}")]
pub struct KvError(pub String);

/// A pair of key and value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// Puts (`Some`) and deletes (`None`), applied together or not at all. Later entries win.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    pub changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Batch {
    pub fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.changes.push((key.into(), Some(value.into())));
    }

    pub fn delete(&mut self, key: impl Into<Vec<u8>>) {
        self.changes.push((key.into(), None));
    }
}

/// Keys are compared as unsigned bytes. All methods may be called from any thread; a reader beside a writer sees each
/// batch whole or not at all per key, and callers that need a consistent view of several keys bring their own lock.
pub trait Kv: Send + Sync {
    /// # Errors
    /// The engine failed.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError>;

    /// Pairs with `from <= key < to`, in key order. `to = None` is to the end.
    fn scan<'a>(&'a self, from: &[u8], to: Option<&[u8]>) -> Box<dyn Iterator<Item = Result<Pair, KvError>> + 'a>;

    /// The last of the pairs with `from <= key < to`.
    ///
    /// # Errors
    /// The engine failed.
    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<Pair>, KvError>;

    /// How many pairs have `from <= key < to`; each is looked at.
    ///
    /// # Errors
    /// The engine failed.
    fn count(&self, from: &[u8], to: &[u8]) -> Result<usize, KvError>;

    /// Applies a batch atomically. Not necessarily durable until [`Kv::flush`].
    ///
    /// # Errors
    /// The engine failed; the batch may or may not be there.
    fn write(&self, batch: Batch) -> Result<(), KvError>;

    /// Makes every batch so far durable.
    ///
    /// # Errors
    /// The engine failed.
    fn flush(&self) -> Result<(), KvError>;
}

/// How the rest of the program holds one.
pub type SharedKv = Arc<dyn Kv>;
