//! Calls of the kernel that the leader was asked to carry out and that are not answered: under which sequence, and what.
//!
//! In slots, not in the [`log`](super::log): one of them may wait long for another host, and must hold up nothing. A slot is taken
//! by the number of its call, which is stored last and cleared first. What finds no slot, or is too large for one, is not
//! noted, and would be done anew.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use crate::host::shared::{SharedMemory, load_bytes, store_bytes, words_for};
use crate::types::limits::INLINE_BYTES_MAX;
use crate::types::op::Op;
use crate::wire::codec::{DecodeError, decode, encode};

/// As many changes as may be under way at the leader, and as many again that are about to be answered.
const SLOTS: usize = 512;
/// The call, its sequence, how many bytes.
const HEAD: usize = 3;
/// As much as is written inline, and names and pieces beside it.
const SLOT_WORDS: usize = words_for(INLINE_BYTES_MAX as usize + (8 << 10));

pub const WORDS: usize = SLOTS * SLOT_WORDS;

#[derive(Debug)]
pub struct SentCalls {
    memory: Arc<SharedMemory>,
    part: Range<usize>,
    free: Mutex<Vec<usize>>,
}

/// A call that is noted until this is dropped.
#[derive(Debug)]
pub struct Sent {
    calls: Arc<SentCalls>,
    slot: usize,
}

/// What was to be done for a call.
#[derive(Debug)]
pub struct SentCall {
    pub call: u64,
    pub sequence: u64,
    pub ops: Vec<Op>,
    pub sent: Sent,
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.calls.word(self.slot, 0).store(0, Ordering::SeqCst);
        self.calls.free.lock().push(self.slot);
    }
}

impl SentCalls {
    /// What is in this part of the memory.
    pub fn of(memory: Arc<SharedMemory>, part: Range<usize>) -> SentCalls {
        let calls = SentCalls { memory, part, free: Mutex::default() };
        let is_free = |slot: &usize| calls.word(*slot, 0).load(Ordering::Acquire) == 0;
        // The first are used first: the others take no memory.
        let free = (0..SLOTS).rev().filter(is_free).collect();
        *calls.free.lock() = free;
        calls
    }

    fn word(&self, slot: usize, n: usize) -> &std::sync::atomic::AtomicU64 {
        &self.memory.words()[self.part.start + slot * SLOT_WORDS + n]
    }

    fn bytes(&self, slot: usize) -> &[std::sync::atomic::AtomicU64] {
        let begin = self.part.start + slot * SLOT_WORDS;
        &self.memory.words()[begin + HEAD..begin + SLOT_WORDS]
    }

    /// Notes a call that is about to be sent. `None`: it is not.
    pub fn note(self: &Arc<Self>, call: u64, sequence: u64, ops: &[Op]) -> Option<Sent> {
        let bytes = encode(&ops.to_vec());
        if words_for(bytes.len()) > SLOT_WORDS - HEAD {
            return None;
        }
        let slot = self.free.lock().pop()?;
        self.word(slot, 1).store(sequence, Ordering::Relaxed);
        self.word(slot, 2).store(bytes.len() as u64, Ordering::Relaxed);
        store_bytes(self.bytes(slot), &bytes);
        self.word(slot, 0).store(call, Ordering::Release);
        Some(Sent { calls: self.clone(), slot })
    }

    /// What another process has sent, by sequence. To be called once, before anything is noted here.
    ///
    /// # Errors
    /// It is nothing that could have been sent.
    pub fn take_over(self: &Arc<Self>) -> Result<Vec<SentCall>, DecodeError> {
        let mut calls = Vec::new();
        for slot in 0..SLOTS {
            let call = self.word(slot, 0).load(Ordering::Acquire);
            if call == 0 {
                continue;
            }
            let sent = Sent { calls: self.clone(), slot };
            let len = usize::try_from(self.word(slot, 2).load(Ordering::Relaxed)).unwrap_or(usize::MAX);
            if len > (SLOT_WORDS - HEAD) * size_of::<u64>() {
                return Err(DecodeError::Malformed(format!("a call of {len} bytes")));
            }
            let mut bytes = Vec::with_capacity(len);
            load_bytes(self.bytes(slot), len, &mut bytes);
            let sequence = self.word(slot, 1).load(Ordering::Relaxed);
            calls.push(SentCall { call, sequence, ops: decode(&bytes)?, sent });
        }
        calls.sort_by_key(|call| call.sequence);
        Ok(calls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::id::Ino;
    use crate::types::name::Name;

    #[test]
    fn the_next_finds_what_was_sent_and_not_answered() {
        let memory = Arc::new(SharedMemory::create(c"test", 8 + WORDS).unwrap());
        let of = || Arc::new(SentCalls::of(memory.clone(), 8..8 + WORDS));
        let calls = of();
        let unlink = |text: &str| vec![Op::Unlink { dir: Ino(1), name: Name::new(text).unwrap() }];
        let first = calls.note(10, 7, &unlink("first")).unwrap();
        let _second = calls.note(12, 6, &unlink("second")).unwrap();
        drop(first);
        let _third = calls.note(14, 8, &unlink("third")).unwrap();
        let found = of().take_over().unwrap();
        let said: Vec<_> = found.iter().map(|call| (call.call, call.sequence, call.ops.clone())).collect();
        assert_eq!(said, [(12, 6, unlink("second")), (14, 8, unlink("third"))]);
        drop(found);
        assert!(of().take_over().unwrap().is_empty());
    }

    #[test]
    fn what_has_no_room_is_not_noted() {
        let memory = Arc::new(SharedMemory::create(c"test", WORDS).unwrap());
        let calls = Arc::new(SentCalls::of(memory, 0..WORDS));
        let value = vec![0; 64 << 10];
        let large = Op::SetXattr { ino: Ino(1), name: b"user.x".into(), value, mode: crate::types::op::XattrMode::Set };
        assert!(calls.note(1, 1, &[large]).is_none());
        let all: Vec<_> = (0..=SLOTS as u64).map_while(|n| calls.note(n + 1, n + 1, &[])).collect();
        assert_eq!(all.len(), SLOTS);
        drop(all);
        assert!(calls.note(1, 1, &[]).is_some());
    }
}
