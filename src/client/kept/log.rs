//! A ring of entries in memory that outlives this process: what was taken and is not stored anywhere else.
//!
//! Owns the order of the entries and the room for them; what they say is [`super::taken`]'s. An entry is there as a whole or not
//! at all, whenever the process ends: the word that says that it is there is stored last, and before anybody is told of what it
//! says. It is there until it is stored elsewhere, and until the call that it came with is answered, if that matters: each is over
//! with its [`Noted`]. Entries end in any order, and the room of one is had again when all before it have ended. While somebody
//! holds them ([`Log::hold`]) none ends: what is lost is first reported, and ends then.
//!
//! The ring is begun anew whenever it is empty, so that a client with little to keep goes over the same few pages.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::host::shared::{SharedMemory, load_bytes, store_bytes, words_for};

/// Words of an entry ahead of its bytes: how many words it has, its state, its kind, how many bytes, its mark, and numbers of its own.
const HEAD: usize = 5 + NUMBERS;
const AT_MARK: u64 = 4;
pub const NUMBERS: usize = 5;

/// States. An entry in the first was never told of; the others are added up.
const BEGUN: u64 = 0;
const THERE: u64 = 1;
const STORED: u64 = 2;
const ANSWERED: u64 = 4;
const ENDED: u64 = STORED | ANSWERED;

/// Of a ring that is empty for a while so much memory is kept.
const WARM_WORDS: usize = 1 << 17;

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<Bytes = Vec<u8>> {
    pub kind: u64,
    pub numbers: [u64; NUMBERS],
    pub bytes: Bytes,
}

/// The ring. Positions count words, and go on over its end.
#[derive(Debug)]
pub struct Log {
    memory: Arc<SharedMemory>,
    /// The words that say where the first entry begins, and where the last ends.
    ends: [usize; 2],
    ring: Range<usize>,
    moving: Mutex<Ends>,
    /// How far into the ring entries have reached since memory was given back.
    reached: AtomicUsize,
    rested: AtomicBool,
    room: Notify,
}

/// Locked by whoever moves an end of the ring.
#[derive(Debug, Default)]
struct Ends {
    held: usize,
    /// Of what: would have ended, and is held.
    waiting: Vec<(u64, u64)>,
}

/// Nothing ends before this is dropped.
#[derive(Debug)]
pub struct Held {
    log: Arc<Log>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.log.let_go();
    }
}

/// An entry that is there, until this is dropped.
#[derive(Debug)]
pub struct Noted {
    log: Arc<Log>,
    at: u64,
    /// What is over with it.
    state: u64,
}

/// An entry that another process has left.
#[derive(Debug)]
pub struct Left {
    pub at: u64,
    /// Where the ring ended when it was marked; 0: it was not.
    pub mark: u64,
    /// `None`: it is stored.
    pub stored: Option<Noted>,
    /// `None`: it came with no call, or that is answered.
    pub answered: Option<Noted>,
}

impl Noted {
    /// Grows from entry to entry.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// What is noted from now on comes after what became of this one here. The first mark stays: a client that puts it back in front
    /// of what came then marks it again.
    pub fn mark(&self) {
        let mark = self.log.word(self.at + AT_MARK);
        let _ = mark.compare_exchange(0, self.log.tail(), Ordering::Release, Ordering::Relaxed);
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.log.end(self.at, self.state);
    }
}

impl Log {
    /// What is in this part of the memory.
    ///
    /// # Errors
    /// `InvalidData`: it is no ring.
    pub fn of(memory: Arc<SharedMemory>, ends: [usize; 2], ring: Range<usize>) -> io::Result<Log> {
        let reached = AtomicUsize::new(ring.len());
        let log = Log {
            memory,
            ends,
            ring,
            moving: Mutex::default(),
            reached,
            rested: AtomicBool::new(false),
            room: Notify::new(),
        };
        log.check()?;
        Ok(log)
    }

    /// Follows the entries from end to end.
    fn check(&self) -> io::Result<()> {
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "what was taken by the client before is damaged");
        let (mut at, tail) = (self.head(), self.tail());
        // It was being begun anew.
        if at >= tail {
            return Ok(());
        }
        if tail - at > self.ring.len() as u64 {
            return Err(invalid());
        }
        while at < tail {
            let words = self.word(at).load(Ordering::Acquire);
            let bytes = usize::try_from(self.word(at + 3).load(Ordering::Relaxed)).unwrap_or(usize::MAX);
            let holds = words >= HEAD as u64 && words <= tail - at && bytes / size_of::<u64>() <= words as usize;
            if !holds || words != (HEAD + words_for(bytes)) as u64 {
                return Err(invalid());
            }
            at += words;
        }
        Ok(())
    }

    fn head(&self) -> u64 {
        self.memory.words()[self.ends[0]].load(Ordering::Acquire)
    }

    fn tail(&self) -> u64 {
        self.memory.words()[self.ends[1]].load(Ordering::Acquire)
    }

    fn set_head(&self, at: u64) {
        self.memory.words()[self.ends[0]].store(at, Ordering::Release);
    }

    fn set_tail(&self, at: u64) {
        self.memory.words()[self.ends[1]].store(at, Ordering::Release);
    }

    fn offset(&self, at: u64) -> usize {
        (at % self.ring.len() as u64) as usize
    }

    fn word(&self, at: u64) -> &AtomicU64 {
        &self.memory.words()[self.ring.start + self.offset(at)]
    }

    /// So many words from a position on, in the two parts that the end of the ring cuts them into.
    fn parts(&self, at: u64, words: usize) -> (&[AtomicU64], &[AtomicU64]) {
        let ring = &self.memory.words()[self.ring.clone()];
        let from = self.offset(at);
        let first = words.min(ring.len() - from);
        (&ring[from..from + first], &ring[..words - first])
    }

    /// Words that are free.
    pub fn room(&self) -> usize {
        self.ring.len() - self.tail().saturating_sub(self.head()) as usize
    }

    /// More than half of it is taken.
    pub fn is_tight(&self) -> bool {
        self.room() < self.ring.len() / 2
    }

    /// Told whenever room is had again.
    pub fn has_room(&self) -> &Notify {
        &self.room
    }

    /// Words that an entry with so many bytes takes.
    pub const fn words(bytes: usize) -> usize {
        HEAD + words_for(bytes)
    }

    /// Notes an entry, if `spare_words` stay free. It is there when this returns. The second is there if it comes with a call.
    pub fn append(
        self: &Arc<Log>,
        Entry { kind, numbers, bytes }: &Entry<&[u8]>,
        comes_with_call: bool,
        spare_words: usize,
    ) -> Option<(Noted, Option<Noted>)> {
        let words = Log::words(bytes.len());
        let at = {
            let _moving = self.moving.lock();
            if self.room() < words + spare_words {
                return None;
            }
            // Its beginning may be a moment behind the end, see `empty`.
            let at = self.tail().max(self.head());
            let head = [words as u64, BEGUN, *kind, bytes.len() as u64, 0];
            for (n, number) in head.into_iter().chain(*numbers).enumerate() {
                self.word(at + n as u64).store(number, Ordering::Relaxed);
            }
            self.set_tail(at + words as u64);
            let end = self.offset(at) + words;
            self.reached.fetch_max(end.min(self.ring.len()), Ordering::Relaxed);
            at
        };
        self.rested.store(false, Ordering::Relaxed);
        let (first, second) = self.parts(at + HEAD as u64, words_for(bytes.len()));
        let cut = (first.len() * size_of::<u64>()).min(bytes.len());
        store_bytes(first, &bytes[..cut]);
        store_bytes(second, &bytes[cut..]);
        self.word(at + 1).store(if comes_with_call { THERE } else { THERE | ANSWERED }, Ordering::Release);
        Some((self.noted(at, STORED), comes_with_call.then(|| self.noted(at, ANSWERED))))
    }

    fn noted(self: &Arc<Log>, at: u64, state: u64) -> Noted {
        Noted { log: self.clone(), at, state }
    }

    fn state(&self, at: u64) -> u64 {
        self.word(at + 1).load(Ordering::Acquire)
    }

    fn end(&self, at: u64, state: u64) {
        {
            let mut moving = self.moving.lock();
            if moving.held > 0 {
                return moving.waiting.push((at, state));
            }
            let before = self.word(at + 1).fetch_or(state, Ordering::AcqRel);
            if self.head() != at || (before | state) & ENDED != ENDED {
                return;
            }
            self.advance();
        }
        self.room.notify_waiters();
    }

    /// Has nothing end for a while.
    pub fn hold(self: &Arc<Log>) -> Held {
        self.moving.lock().held += 1;
        Held { log: self.clone() }
    }

    fn let_go(&self) {
        {
            let mut moving = self.moving.lock();
            moving.held -= 1;
            if moving.held > 0 {
                return;
            }
            for (at, state) in std::mem::take(&mut moving.waiting) {
                self.word(at + 1).fetch_or(state, Ordering::AcqRel);
            }
            self.advance();
        }
        self.room.notify_waiters();
    }

    /// Has the room of entries that have ended. To be called by whoever may move the ends.
    fn advance(&self) {
        let (mut head, tail) = (self.head(), self.tail());
        while head < tail && self.state(head) & ENDED == ENDED {
            head += self.word(head).load(Ordering::Relaxed);
        }
        if head >= tail { self.empty(tail) } else { self.set_head(head) }
    }

    /// The next entry begins where the ring does. With the first store there is nothing in it, whatever lies behind.
    fn empty(&self, tail: u64) {
        let start = tail.next_multiple_of(self.ring.len() as u64);
        self.set_head(start);
        self.set_tail(start);
    }

    /// To be called now and then: gives memory back when nothing was noted since the last call.
    pub fn rest(&self) {
        if !self.rested.swap(true, Ordering::Relaxed) || self.reached.load(Ordering::Relaxed) <= WARM_WORDS {
            return;
        }
        let _moving = self.moving.lock();
        if self.head() < self.tail() {
            return;
        }
        let reached = self.reached.swap(WARM_WORDS, Ordering::Relaxed);
        let cold = self.ring.start + WARM_WORDS..self.ring.start + reached;
        if let Err(error) = self.memory.give_back(cold) {
            tracing::debug!(%error, "memory was not given back");
        }
    }

    /// Takes over what another process has noted, in order. What it had only begun ends. To be called once, before anything is
    /// noted here.
    pub fn take_over(self: &Arc<Log>) -> Vec<Left> {
        let mut left = Vec::new();
        let _moving = self.moving.lock();
        let (mut at, tail) = (self.head(), self.tail());
        while at < tail {
            let state = self.state(at);
            let is_to_come = |what: u64| (state & what == 0).then(|| self.noted(at, what));
            match state {
                BEGUN => self.word(at + 1).store(ENDED, Ordering::Release),
                state if state & ENDED == ENDED => {}
                _ => {
                    let mark = self.word(at + AT_MARK).load(Ordering::Acquire);
                    left.push(Left { at, mark, stored: is_to_come(STORED), answered: is_to_come(ANSWERED) });
                }
            }
            at += self.word(at).load(Ordering::Relaxed).max(1);
        }
        self.advance();
        left
    }

    /// What an entry that is there says.
    pub fn read(&self, at: u64) -> Entry {
        let number = |n: usize| self.word(at + n as u64).load(Ordering::Relaxed);
        let len = usize::try_from(number(3)).unwrap_or(0);
        let mut bytes = Vec::with_capacity(len);
        let (first, second) = self.parts(at + HEAD as u64, words_for(len));
        let cut = (first.len() * size_of::<u64>()).min(len);
        load_bytes(first, cut, &mut bytes);
        load_bytes(second, len - cut, &mut bytes);
        Entry { kind: number(2), numbers: std::array::from_fn(|n| number(HEAD - NUMBERS + n)), bytes }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RING: Range<usize> = 8..108;

    fn ring() -> (Arc<SharedMemory>, Arc<Log>) {
        let memory = Arc::new(SharedMemory::create(c"test", RING.end).unwrap());
        let log = Log::of(memory.clone(), [0, 1], RING).unwrap();
        (memory, Arc::new(log))
    }

    fn next(memory: &Arc<SharedMemory>) -> Arc<Log> {
        Arc::new(Log::of(memory.clone(), [0, 1], RING).unwrap())
    }

    const NUMBERED: Entry<&[u8]> = Entry { kind: 7, numbers: [1, 2, 3, 4, 5], bytes: b"" };

    fn append(log: &Arc<Log>, bytes: &[u8]) -> Option<Noted> {
        append_sparing(log, bytes, 0)
    }

    fn append_sparing(log: &Arc<Log>, bytes: &[u8], spare_words: usize) -> Option<Noted> {
        Some(log.append(&Entry { bytes, ..NUMBERED }, false, spare_words)?.0)
    }

    /// What the next would find. It is not the process by which it is noted, and so ends nothing of it.
    fn found(log: &Arc<Log>) -> Vec<(u64, Vec<u8>)> {
        let left = log.take_over();
        let found = left.iter().map(|left| (left.at, log.read(left.at).bytes)).collect();
        left.into_iter().for_each(|left| std::mem::forget((left.stored, left.answered)));
        found
    }

    proptest! {
        /// Entries of all sizes end in all orders; after each step another process would find just those that have not.
        #[test]
        fn the_next_finds_what_has_not_ended(steps in prop::collection::vec((0..60_usize, 0..4_usize, any::<bool>()), 1..80)) {
            let (memory, log) = ring();
            let mut there: Vec<(Noted, Vec<u8>)> = Vec::new();
            for (n, (len, which, ends)) in steps.into_iter().enumerate() {
                let bytes = vec![n as u8 + 1; len];
                match append(&log, &bytes) {
                    Some(noted) => there.push((noted, bytes)),
                    None => prop_assert!(!there.is_empty(), "there is room when it is empty"),
                }
                if ends && which < there.len() {
                    drop(there.remove(which));
                }
                let expected: Vec<_> = there.iter().map(|(noted, bytes)| (noted.at(), bytes.clone())).collect();
                prop_assert_eq!(found(&next(&memory)), expected);
            }
        }
    }

    #[test]
    fn what_was_only_begun_is_not_there() {
        let (memory, log) = ring();
        let first = append(&log, b"begun").unwrap();
        let second = append(&log, b"there").unwrap();
        log.word(first.at + 1).store(BEGUN, Ordering::Relaxed);
        std::mem::forget(first);
        let next = next(&memory);
        assert_eq!(found(&next), [(second.at, b"there".to_vec())]);
        assert_eq!(next.head(), second.at);
        drop(second);
        assert_eq!(next.room(), RING.len());
    }

    #[test]
    fn what_came_with_a_call_is_there_until_it_is_answered() {
        let (memory, log) = ring();
        let (stored, answered) = log.append(&NUMBERED, true, 0).unwrap();
        let is_left = || {
            let left = next(&memory).take_over().pop().unwrap();
            let is = (left.stored.is_some(), left.answered.is_some());
            std::mem::forget(left);
            is
        };
        assert_eq!(is_left(), (true, true));
        drop(stored);
        assert_eq!(is_left(), (false, true));
        drop(answered);
        assert_eq!(log.room(), RING.len());
        let (stored, answered) = log.append(&NUMBERED, true, 0).unwrap();
        drop(answered);
        assert_eq!(is_left(), (true, false));
        assert_eq!(next(&memory).read(stored.at).numbers, NUMBERED.numbers);
    }

    #[test]
    fn nothing_ends_while_it_is_held_and_marks_stay() {
        let (memory, log) = ring();
        let (first, second) = (append(&log, b"1").unwrap(), append(&log, b"2").unwrap());
        second.mark();
        let (held, again) = (log.hold(), log.hold());
        drop(first);
        drop(held);
        assert_eq!(found(&next(&memory)).len(), 2);
        drop(again);
        let left = next(&memory).take_over();
        assert_eq!(left.iter().map(|left| (left.at, left.mark)).collect::<Vec<_>>(), [(second.at, log.tail())]);
        std::mem::forget(left);
        drop(second);
        assert_eq!(log.room(), RING.len());
    }

    #[test]
    fn some_of_it_is_spared() {
        let (_, log) = ring();
        let words = Log::words(8);
        assert!(append_sparing(&log, b"12345678", RING.len() - words).is_some());
        let noted = append(&log, b"12345678").unwrap();
        assert!(append_sparing(&log, b"12345678", RING.len() - 2 * words + 1).is_none());
        drop(noted);
    }

    #[test]
    fn a_ring_that_cannot_be_is_refused() {
        let (memory, log) = ring();
        std::mem::forget(append(&log, b"1").unwrap());
        memory.words()[RING.start].store(HEAD as u64 + 2, Ordering::Relaxed);
        assert!(Log::of(memory.clone(), [0, 1], RING).is_err());
        memory.words()[RING.start].store(0, Ordering::Relaxed);
        assert!(Log::of(memory.clone(), [0, 1], RING).is_err());
        memory.words()[1].store(1000, Ordering::Relaxed);
        assert!(Log::of(memory, [0, 1], RING).is_err());
    }

    #[test]
    fn one_that_was_being_begun_anew_is_empty() {
        let (memory, log) = ring();
        std::mem::forget(append(&log, b"1").unwrap());
        memory.words()[0].store(RING.len() as u64, Ordering::Relaxed);
        let log = next(&memory);
        assert!(log.take_over().is_empty());
        let noted = append(&log, b"2").unwrap();
        assert_eq!(found(&next(&memory)), [(noted.at, b"2".to_vec())]);
    }

    #[test]
    fn memory_of_a_ring_that_rests_is_given_back() {
        let words = 4 * WARM_WORDS;
        let memory = Arc::new(SharedMemory::create(c"test", 8 + words).unwrap());
        let log = Arc::new(Log::of(memory.clone(), [0, 1], 8..8 + words).unwrap());
        let blocks = || {
            let file = std::fs::File::from(memory.file().try_clone_to_owned().unwrap());
            std::os::unix::fs::MetadataExt::blocks(&file.metadata().unwrap())
        };
        let noted = append(&log, &vec![1; 3 * WARM_WORDS * 8]).unwrap();
        let full = blocks();
        log.rest();
        log.rest();
        assert_eq!(blocks(), full, "something is in it");
        drop(noted);
        log.rest();
        log.rest();
        assert!(blocks() <= full / 2, "{} of {full}", blocks());
    }
}
