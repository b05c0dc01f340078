//! A transaction: what a list of commands has changed so far, laid over the index.
//!
//! Reads see the changes. Changes since a mark can be undone, so a failed batch leaves nothing behind. Everything goes
//! to the index as one batch at the end.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::iter::Peekable;
use std::ops::Bound;

use super::error::StateError;
use super::schema::{Record, pack, unpack};
use crate::kv::{Batch, Kv, KvError, Pair};

/// A value put, or a key deleted.
type Change = Option<Vec<u8>>;

/// See the module. One that has changed nothing is a plain reader.
pub struct Tx<'kv> {
    base: &'kv dyn Kv,
    changes: BTreeMap<Vec<u8>, Change>,
    /// What each changed key was in `changes` before, oldest first.
    undo: Vec<(Vec<u8>, Option<Change>)>,
}

/// A point to roll back to.
#[derive(Clone, Copy, Debug)]
pub struct Mark(usize);

impl<'kv> Tx<'kv> {
    pub fn new(base: &'kv dyn Kv) -> Tx<'kv> {
        Tx { base, changes: BTreeMap::new(), undo: Vec::new() }
    }

    /// # Errors
    /// The index failed, or holds something else under this key.
    pub fn get<R: Record>(&self, key: &[u8]) -> Result<Option<R>, StateError> {
        match self.changes.get(key) {
            Some(Some(value)) => unpack(value).map(Some),
            Some(None) => Ok(None),
            None => self.base.get(key)?.map(|value| unpack(&value)).transpose(),
        }
    }

    /// # Errors
    /// The index failed.
    pub fn contains(&self, key: &[u8]) -> Result<bool, StateError> {
        match self.changes.get(key) {
            Some(value) => Ok(value.is_some()),
            None => Ok(self.base.get(key)?.is_some()),
        }
    }

    pub fn put<R: Record>(&mut self, key: Vec<u8>, record: &R) {
        self.change(key, Some(pack(record)));
    }

    pub fn put_raw(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.change(key, Some(value));
    }

    pub fn delete(&mut self, key: Vec<u8>) {
        self.change(key, None);
    }

    fn change(&mut self, key: Vec<u8>, value: Change) {
        let before = self.changes.insert(key.clone(), value);
        self.undo.push((key, before));
    }

    /// Pairs with `from <= key < to` in order; `None` is to the end.
    pub fn scan(&self, from: &[u8], to: Option<&[u8]>) -> Scan<'_> {
        let upper = match to {
            Some(to) if to <= from => return Scan::empty(),
            Some(to) => Bound::Excluded(to),
            None => Bound::Unbounded,
        };
        Scan {
            base: Some(self.base.scan(from, to).peekable()),
            over: Some(self.changes.range::<[u8], _>((Bound::Included(from), upper)).peekable()),
        }
    }

    /// The last of the pairs with `from <= key < to`.
    ///
    /// # Errors
    /// The index failed.
    pub fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<Pair>, StateError> {
        let mut to = to.to_vec();
        while from < to.as_slice() {
            let over =
                self.changes.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to.as_slice()))).next_back();
            let Some((key, change)) = over else { return Ok(self.base.last(from, &to)?) };
            let base = self.base.last(key, &to)?.filter(|(base_key, _)| base_key > key);
            match (base, change) {
                (Some(base), _) => return Ok(Some(base)),
                (None, Some(value)) => return Ok(Some((key.clone(), value.clone()))),
                (None, None) => to = key.clone(),
            }
        }
        Ok(None)
    }

    /// How many pairs have `from <= key < to`.
    ///
    /// # Errors
    /// The index failed.
    pub fn count(&self, from: &[u8], to: &[u8]) -> Result<usize, StateError> {
        if from >= to {
            return Ok(0);
        }
        let mut count = self.base.count(from, to)?;
        for (key, change) in self.changes.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to))) {
            count += usize::from(change.is_some());
            count -= usize::from(self.base.get(key)?.is_some());
        }
        Ok(count)
    }

    /// Every pair whose key begins with `prefix`.
    pub fn scan_prefix(&self, prefix: &[u8]) -> Scan<'_> {
        self.scan(prefix, prefix_end(prefix).as_deref())
    }

    /// The keys of at most `max` pairs whose key begins with `prefix`.
    ///
    /// # Errors
    /// The index failed.
    pub fn keys(&self, prefix: &[u8], max: usize) -> Result<Vec<Vec<u8>>, StateError> {
        self.scan_prefix(prefix).take(max).map(|pair| pair.map(|(key, _)| key)).collect()
    }

    pub fn mark(&self) -> Mark {
        Mark(self.undo.len())
    }

    /// Undoes every change since `mark`.
    pub fn roll_back(&mut self, mark: Mark) {
        while self.undo.len() > mark.0 {
            match self.undo.pop() {
                Some((key, Some(before))) => drop(self.changes.insert(key, before)),
                Some((key, None)) => drop(self.changes.remove(&key)),
                None => return,
            }
        }
    }

    /// Forgets how to undo: marks taken before are void.
    pub fn settle(&mut self) {
        self.undo.clear();
    }

    pub fn into_batch(self) -> Batch {
        Batch { changes: self.changes.into_iter().collect() }
    }
}

/// The first key after every key that begins with `prefix`; `None` when there is none.
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

type BaseScan<'s> = Peekable<Box<dyn Iterator<Item = Result<Pair, KvError>> + 's>>;
type OverScan<'s> = Peekable<btree_map::Range<'s, Vec<u8>, Change>>;

/// The index and the changes over it, merged in key order.
pub struct Scan<'s> {
    base: Option<BaseScan<'s>>,
    over: Option<OverScan<'s>>,
}

impl Scan<'_> {
    fn empty() -> Self {
        Scan { base: None, over: None }
    }
}

impl Iterator for Scan<'_> {
    type Item = Result<Pair, StateError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (base, over) = (self.base.as_mut()?, self.over.as_mut()?);
        loop {
            let Some((over_key, _)) = over.peek() else {
                return base.next().map(|pair| pair.map_err(StateError::from));
            };
            match base.peek() {
                Some(Err(_)) => return base.next().map(|pair| pair.map_err(StateError::from)),
                Some(Ok((base_key, _))) if base_key < *over_key => {
                    return base.next().map(|pair| pair.map_err(StateError::from));
                }
                Some(Ok((base_key, _))) if base_key == *over_key => drop(base.next()),
                _ => {}
            }
            if let Some((key, Some(value))) = over.next() {
                return Some(Ok((key.clone(), value.clone())));
            }
        }
    }
}
