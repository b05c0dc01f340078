//! The engine in memory: the reference for the other one, and what tests and simulations run on.
//!
//! Nothing here outlives the process, and nothing here fails.

use std::collections::{BTreeMap, VecDeque, btree_map};
use std::ops::Bound;

use parking_lot::RwLock;

use super::{Batch, Kv, KvError, Pair};

/// Pairs copied out under the lock at a time: a long scan never keeps writers out.
const SCAN_PAIRS: usize = 256;

/// An ordered map behind a lock.
#[derive(Debug, Default)]
pub struct MemoryKv {
    pairs: RwLock<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl MemoryKv {
    pub fn new() -> MemoryKv {
        MemoryKv::default()
    }
}

impl Kv for MemoryKv {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        Ok(self.pairs.read().get(key).cloned())
    }

    fn scan<'a>(&'a self, from: &[u8], to: Option<&[u8]>) -> Box<dyn Iterator<Item = Result<Pair, KvError>> + 'a> {
        Box::new(Scan {
            store: self,
            next: Some(Bound::Included(from.to_vec())),
            to: to.map(<[u8]>::to_vec),
            fetched: VecDeque::new(),
        })
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<Pair>, KvError> {
        Ok(within(&self.pairs.read(), from, to).next_back().map(|(key, value)| (key.clone(), value.clone())))
    }

    fn count(&self, from: &[u8], to: &[u8]) -> Result<usize, KvError> {
        Ok(within(&self.pairs.read(), from, to).count())
    }

    fn write(&self, batch: Batch) -> Result<(), KvError> {
        let mut pairs = self.pairs.write();
        for (key, value) in batch.changes {
            match value {
                Some(value) => pairs.insert(key, value),
                None => pairs.remove(&key),
            };
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), KvError> {
        Ok(())
    }
}

fn within<'m>(pairs: &'m BTreeMap<Vec<u8>, Vec<u8>>, from: &[u8], to: &[u8]) -> btree_map::Range<'m, Vec<u8>, Vec<u8>> {
    pairs.range::<[u8], _>((Bound::Included(from), Bound::Excluded(from.max(to))))
}

struct Scan<'a> {
    store: &'a MemoryKv,
    /// Where the next chunk begins; `None` after the last one.
    next: Option<Bound<Vec<u8>>>,
    to: Option<Vec<u8>>,
    fetched: VecDeque<Pair>,
}

impl Scan<'_> {
    fn fetch(&mut self) {
        let Some(from) = self.next.take() else { return };
        let pairs = self.store.pairs.read();
        let within = |key: &[u8]| self.to.as_ref().is_none_or(|to| key < to.as_slice());
        let chunk = pairs.range((from, Bound::Unbounded)).take_while(|(key, _)| within(key)).take(SCAN_PAIRS);
        self.fetched.extend(chunk.map(|(key, value)| (key.clone(), value.clone())));
        if self.fetched.len() == SCAN_PAIRS {
            self.next = self.fetched.back().map(|(key, _)| Bound::Excluded(key.clone()));
        }
    }
}

impl Iterator for Scan<'_> {
    type Item = Result<Pair, KvError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.fetched.is_empty() {
            self.fetch();
        }
        self.fetched.pop_front().map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::suite;

    #[test]
    fn conforms() {
        suite::run(&|| Box::new(MemoryKv::new()));
    }
}
