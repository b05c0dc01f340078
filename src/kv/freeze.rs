//! A view of an index as it was, while it goes on changing.
//!
//! For as long as a view is held, every write first keeps what it is about to replace. A view reads the index as it is
//! now, and then lets what was kept take precedence: whichever of the two a write comes between, the old value is seen.
//! Memory grows with what changes while the view is held, not with what there is.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};

use super::{Batch, Kv, KvError, Pair, SharedKv};

/// Pairs a view reads at a time.
const CHUNK_PAIRS: usize = 512;

type Kept = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// An index that can be frozen. All writes must go through this.
pub struct FreezableKv {
    inner: SharedKv,
    /// The views there are. Held shared by each write, from before it keeps to after it has written.
    views: RwLock<Vec<Weak<Mutex<Kept>>>>,
}

impl FreezableKv {
    pub fn new(inner: SharedKv) -> FreezableKv {
        FreezableKv { inner, views: RwLock::default() }
    }

    /// The index as it is now, until the view is dropped.
    pub fn freeze(&self) -> FrozenKv {
        let kept = Arc::default();
        let mut views = self.views.write();
        views.retain(|view| view.strong_count() > 0);
        views.push(Arc::downgrade(&kept));
        FrozenKv { inner: Arc::clone(&self.inner), kept }
    }

    fn keep(&self, kept: &Mutex<Kept>, batch: &Batch) -> Result<(), KvError> {
        for (key, _) in &batch.changes {
            if !kept.lock().contains_key(key) {
                let old = self.inner.get(key)?;
                kept.lock().entry(key.clone()).or_insert(old);
            }
        }
        Ok(())
    }
}

impl Kv for FreezableKv {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.inner.get(key)
    }

    fn scan<'a>(&'a self, from: &[u8], to: Option<&[u8]>) -> Box<dyn Iterator<Item = Result<Pair, KvError>> + 'a> {
        self.inner.scan(from, to)
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<Pair>, KvError> {
        self.inner.last(from, to)
    }

    fn count(&self, from: &[u8], to: &[u8]) -> Result<usize, KvError> {
        self.inner.count(from, to)
    }

    /// Writers that race for one key while a view is held must be kept apart by the caller: which of their values is
    /// the old one is theirs to know.
    fn write(&self, batch: Batch) -> Result<(), KvError> {
        let views = self.views.read();
        for kept in views.iter().filter_map(Weak::upgrade) {
            self.keep(&kept, &batch)?;
        }
        self.inner.write(batch)
    }

    fn flush(&self) -> Result<(), KvError> {
        self.inner.flush()
    }
}

/// A view: reads what was there when it was made.
pub struct FrozenKv {
    inner: SharedKv,
    kept: Arc<Mutex<Kept>>,
}

impl FrozenKv {
    /// # Errors
    /// The engine failed.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        let now = self.inner.get(key)?;
        Ok(self.kept.lock().get(key).cloned().unwrap_or(now))
    }

    /// Pairs with `from <= key < to`, in key order. `to = None` is to the end.
    pub fn scan<'a>(&'a self, from: &[u8], to: Option<&[u8]>) -> impl Iterator<Item = Result<Pair, KvError>> + 'a {
        FrozenScan { view: self, from: Some(from.to_vec()), to: to.map(<[u8]>::to_vec), fetched: VecDeque::new() }
    }
}

struct FrozenScan<'a> {
    view: &'a FrozenKv,
    /// Where the next chunk begins; `None` after the last one.
    from: Option<Vec<u8>>,
    to: Option<Vec<u8>>,
    fetched: VecDeque<Pair>,
}

impl FrozenScan<'_> {
    fn fetch(&mut self, from: Vec<u8>) -> Result<(), KvError> {
        let now = self.view.inner.scan(&from, self.to.as_deref()).take(CHUNK_PAIRS);
        let mut chunk = now.collect::<Result<BTreeMap<_, _>, _>>()?;
        let next = (chunk.len() == CHUNK_PAIRS).then(|| chunk.keys().next_back().map(|last| [last, &[0][..]].concat()));
        let next = next.flatten();
        let end = next.as_ref().or(self.to.as_ref());
        if end.is_none_or(|end| from < *end) {
            let end = end.map_or(Bound::Unbounded, |end| Bound::Excluded(end.clone()));
            // After the index was read: whatever was replaced before that is here by now.
            for (key, old) in self.view.kept.lock().range((Bound::Included(from), end)) {
                match old {
                    Some(old) => chunk.insert(key.clone(), old.clone()),
                    None => chunk.remove(key),
                };
            }
        }
        self.fetched.extend(chunk);
        self.from = next;
        Ok(())
    }
}

impl Iterator for FrozenScan<'_> {
    type Item = Result<Pair, KvError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.fetched.is_empty() {
            let from = self.from.take()?;
            if let Err(error) = self.fetch(from) {
                return Some(Err(error));
            }
        }
        self.fetched.pop_front().map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::kv::memory::MemoryKv;
    use crate::kv::suite;

    fn put(store: &dyn Kv, number: u32, value: &str) {
        let mut batch = Batch::default();
        batch.put(number.to_be_bytes(), value);
        store.write(batch).unwrap();
    }

    fn all(view: &FrozenKv) -> Vec<Pair> {
        view.scan(b"", None).collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn conforms() {
        suite::run(&|| Box::new(FreezableKv::new(Arc::new(MemoryKv::new()))));
    }

    #[test]
    fn a_view_stays_as_it_was() {
        let store = FreezableKv::new(Arc::new(MemoryKv::new()));
        (0..3000).step_by(2).for_each(|number| put(&store, number, "old"));
        let before: Vec<Pair> = store.scan(b"", None).collect::<Result<_, _>>().unwrap();
        let view = store.freeze();
        assert_eq!(all(&view), before);
        for number in 0..3000 {
            match number % 4 {
                0 => put(&store, number, "new"),
                2 => {
                    let mut batch = Batch::default();
                    batch.delete(number.to_be_bytes());
                    store.write(batch).unwrap();
                }
                _ => put(&store, number, "added"),
            }
        }
        assert_eq!(all(&view), before);
        assert_eq!(view.get(&2_u32.to_be_bytes()).unwrap(), Some(b"old".to_vec()));
        assert_eq!(view.get(&1_u32.to_be_bytes()).unwrap(), None);
        let part: Vec<Pair> =
            view.scan(&10_u32.to_be_bytes(), Some(&20_u32.to_be_bytes())).map(Result::unwrap).collect();
        assert_eq!(part, before[5..10]);
        assert_eq!(store.freeze().get(&2_u32.to_be_bytes()).unwrap(), None);
        drop(view);
        put(&store, 1, "later");
        assert_eq!(store.views.read().iter().filter_map(Weak::upgrade).count(), 0);
    }

    #[test]
    fn a_view_stays_as_it_was_beside_a_writer() {
        let store = FreezableKv::new(Arc::new(MemoryKv::new()));
        (0..4000).for_each(|number| put(&store, number, "0"));
        for round in 1..5 {
            let view = store.freeze();
            let before = all(&view);
            thread::scope(|scope| {
                let writer = scope.spawn(|| {
                    (0..4000).for_each(|number| put(&store, number * 7919 % 8000, &round.to_string()));
                });
                while !writer.is_finished() {
                    assert_eq!(all(&view), before);
                }
            });
            assert_eq!(all(&view), before);
        }
    }
}
