//! A set of rows of numbers in memory that outlives this process.
//!
//! A row is either in it or not, whenever the process ends: its numbers are stored before the word that says so, and that word
//! is cleared first. The order of the rows is nobody's concern. The first word of the part says how many slots were ever used: what
//! lies behind them is not looked at, and takes no memory.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::host::shared::SharedMemory;

const FREE: u64 = 0;
const USED: u64 = 1;

/// There is room for no more rows.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

/// Rows of `N` numbers each, in a part of the memory.
#[derive(Debug)]
pub struct Rows<const N: usize> {
    part: Range<usize>,
    known: Mutex<Known<N>>,
}

#[derive(Debug)]
struct Known<const N: usize> {
    slots: HashMap<[u64; N], usize>,
    free: Vec<usize>,
}

impl<const N: usize> Rows<N> {
    /// How many words so many rows take.
    pub const fn words(rows: usize) -> usize {
        1 + rows * (N + 1)
    }

    /// What is in this part of the memory.
    pub fn of(memory: &SharedMemory, part: Range<usize>) -> Rows<N> {
        let rows = Rows { part, known: Mutex::new(Known { slots: HashMap::new(), free: Vec::new() }) };
        let mut known = rows.known.lock();
        for slot in 0..rows.used(memory) {
            let words = rows.slot(memory, slot);
            if words[0].load(Ordering::Acquire) == USED {
                let row = std::array::from_fn(|n| words[n + 1].load(Ordering::Relaxed));
                known.slots.insert(row, slot);
            } else {
                known.free.push(slot);
            }
        }
        drop(known);
        rows
    }

    fn capacity(&self) -> usize {
        (self.part.len() - 1) / (N + 1)
    }

    /// How many slots were ever used.
    fn used(&self, memory: &SharedMemory) -> usize {
        let used = memory.words()[self.part.start].load(Ordering::Acquire);
        usize::try_from(used).unwrap_or(usize::MAX).min(self.capacity())
    }

    fn slot<'a>(&self, memory: &'a SharedMemory, slot: usize) -> &'a [AtomicU64] {
        let first = self.part.start + 1 + slot * (N + 1);
        &memory.words()[first..=first + N]
    }

    fn fresh_slot(&self, memory: &SharedMemory) -> Option<usize> {
        let slot = self.used(memory);
        (slot < self.capacity()).then(|| {
            memory.words()[self.part.start].store(slot as u64 + 1, Ordering::Release);
            slot
        })
    }

    /// Puts a row in, if it is not.
    ///
    /// # Errors
    /// `Full`: it is not in it.
    pub fn put(&self, memory: &SharedMemory, row: [u64; N]) -> Result<(), Full> {
        let mut known = self.known.lock();
        if known.slots.contains_key(&row) {
            return Ok(());
        }
        let slot = known.free.pop().or_else(|| self.fresh_slot(memory)).ok_or(Full)?;
        let words = self.slot(memory, slot);
        words[1..].iter().zip(row).for_each(|(word, number)| word.store(number, Ordering::Relaxed));
        words[0].store(USED, Ordering::Release);
        known.slots.insert(row, slot);
        Ok(())
    }

    /// Takes a row out, if it is in it.
    pub fn take(&self, memory: &SharedMemory, row: [u64; N]) {
        let mut known = self.known.lock();
        if let Some(slot) = known.slots.remove(&row) {
            self.slot(memory, slot)[0].store(FREE, Ordering::Release);
            known.free.push(slot);
        }
    }

    pub fn all(&self) -> Vec<[u64; N]> {
        self.known.lock().slots.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted<const N: usize>(rows: &Rows<N>) -> Vec<[u64; N]> {
        let mut all = rows.all();
        all.sort_unstable();
        all
    }

    #[test]
    fn rows_are_found_again() {
        let memory = SharedMemory::create(c"test", 100).unwrap();
        let part = 10..10 + Rows::<2>::words(3);
        let rows = Rows::<2>::of(&memory, part.clone());
        for row in [[1, 1], [2, 2], [2, 2], [3, 3]] {
            assert_eq!(rows.put(&memory, row), Ok(()));
        }
        assert_eq!(rows.put(&memory, [4, 4]), Err(Full));
        rows.take(&memory, [1, 1]);
        rows.take(&memory, [1, 1]);

        let next = Rows::<2>::of(&memory, part);
        assert_eq!(sorted(&next), [[2, 2], [3, 3]]);
        assert_eq!(next.put(&memory, [4, 4]), Ok(()), "what was free is used again");
        assert_eq!(next.put(&memory, [5, 5]), Err(Full));
        assert!(memory.words()[..10].iter().chain(&memory.words()[20..]).all(|word| word.load(Ordering::Relaxed) == 0));
    }
}
