//! Calls of the kernel that the leader was asked to carry out and that are not answered: under which sequence, and what.
//!
//! In slots, not in the [`log`](super::log): one of them may wait long for another host, and must hold up nothing. A slot is taken
//! by the number of its call, which is stored last and cleared first. What finds no slot, or is too large for one, is not
//! noted, and would be done anew. What the leader said stands in it too, once another client has asked again: then the sequence
//! needs no answer any more. And what was done here for a call stands in one when another client goes on: nobody may ask for it,
//! as it was perhaps answered, and in the log it would hold up what comes after it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::host::shared::{SharedMemory, load_bytes, store_bytes, words_for};
use crate::types::id::{Ino, SessionId};
use crate::types::limits::INLINE_BYTES_MAX;
use crate::types::op::{BatchReply, Op};
use crate::wire::codec::{DecodeError, decode, encode};

/// As many changes as may be under way at the leader, and as many again that are about to be answered.
const SLOTS: usize = 512;
/// The call, its session and sequence (0: it was done here), how many bytes, how many of the answer (0: there is none), and the
/// inode that was made here.
const HEAD: usize = 6;
/// As much as is written inline, and names and pieces beside it.
const OPS_WORDS: usize = words_for(INLINE_BYTES_MAX as usize + (6 << 10));
/// Attributes of a few inodes.
const ANSWER_WORDS: usize = words_for(2 << 10) - HEAD;
const SLOT_WORDS: usize = HEAD + OPS_WORDS + ANSWER_WORDS;

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
    pub session: SessionId,
    pub sequence: u64,
    pub ops: Vec<Op>,
    pub answer: Option<BatchReply>,
    /// It was done here; with the inode that was made, if one was.
    pub done_here: Option<Option<Ino>>,
    pub sent: Sent,
}

impl Sent {
    /// What the leader said. `false`: it is too large.
    pub fn was_answered(&self, answer: &BatchReply) -> bool {
        let bytes = encode(answer);
        let (_, words) = self.calls.parts(self.slot);
        if words_for(bytes.len()) > words.len() {
            return false;
        }
        store_bytes(words, &bytes);
        self.calls.word(self.slot, 4).store(bytes.len() as u64, Ordering::Release);
        true
    }
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

    fn word(&self, slot: usize, n: usize) -> &AtomicU64 {
        &self.memory.words()[self.part.start + slot * SLOT_WORDS + n]
    }

    /// For the operations, and for the answer.
    fn parts(&self, slot: usize) -> (&[AtomicU64], &[AtomicU64]) {
        let begin = self.part.start + slot * SLOT_WORDS;
        self.memory.words()[begin + HEAD..begin + SLOT_WORDS].split_at(OPS_WORDS)
    }

    /// # Errors
    /// It cannot be so long.
    fn bytes(&self, slot: usize, n: usize, words: &[AtomicU64]) -> Result<Vec<u8>, DecodeError> {
        let len = usize::try_from(self.word(slot, n).load(Ordering::Acquire)).unwrap_or(usize::MAX);
        if len > size_of_val(words) {
            return Err(DecodeError::Malformed(format!("{len} bytes of a call")));
        }
        let mut bytes = Vec::with_capacity(len);
        load_bytes(words, len, &mut bytes);
        Ok(bytes)
    }

    /// Notes a call that is about to be sent. `None`: it is not.
    pub fn note(self: &Arc<Self>, call: u64, session: SessionId, sequence: u64, ops: &[Op]) -> Option<Sent> {
        self.take_slot(call, session, sequence, ops, None)
    }

    /// Notes a call that was done here. `None`: it is not.
    pub fn note_done(self: &Arc<Self>, call: u64, session: SessionId, made: Option<Ino>) -> Option<Sent> {
        self.take_slot(call, session, 0, &[], made)
    }

    fn take_slot(
        self: &Arc<Self>,
        call: u64,
        session: SessionId,
        sequence: u64,
        ops: &[Op],
        made: Option<Ino>,
    ) -> Option<Sent> {
        let bytes = encode(&ops.to_vec());
        if words_for(bytes.len()) > OPS_WORDS {
            return None;
        }
        let slot = self.free.lock().pop()?;
        let head = [session.0, sequence, bytes.len() as u64, 0, made.map_or(0, |ino| ino.0)];
        head.iter().enumerate().for_each(|(n, number)| self.word(slot, n + 1).store(*number, Ordering::Relaxed));
        store_bytes(self.parts(slot).0, &bytes);
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
            let (ops, answer) = self.parts(slot);
            let ops = decode(&self.bytes(slot, 3, ops)?)?;
            let answer = self.bytes(slot, 4, answer)?;
            let answer = if answer.is_empty() { None } else { Some(decode(&answer)?) };
            let [session, sequence, made] = [1, 2, 5].map(|n| self.word(slot, n).load(Ordering::Relaxed));
            let done_here = (sequence == 0).then(|| Some(Ino(made)).filter(|ino| ino.0 > 0));
            calls.push(SentCall { call, session: SessionId(session), sequence, ops, answer, done_here, sent });
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
        let session = SessionId(3);
        let first = calls.note(10, session, 7, &unlink("first")).unwrap();
        let second = calls.note(12, session, 6, &unlink("second")).unwrap();
        let answer = BatchReply::Failed { index: 0, error: crate::types::error::FsError::NotFound };
        assert!(second.was_answered(&answer));
        drop(first);
        let _third = calls.note(14, SessionId(4), 8, &unlink("third")).unwrap();
        let found = of().take_over().unwrap();
        let said: Vec<_> =
            found.iter().map(|call| (call.call, call.session, call.sequence, call.ops.clone())).collect();
        assert_eq!(said, [(12, session, 6, unlink("second")), (14, SessionId(4), 8, unlink("third"))]);
        assert_eq!((&found[0].answer, &found[1].answer), (&Some(answer), &None));
        drop(found);
        let done = [calls.note_done(20, session, Some(Ino(9))), calls.note_done(22, session, None)];
        let found: Vec<_> = of().take_over().unwrap().into_iter().map(|call| (call.call, call.done_here)).collect();
        assert_eq!(found, [(20, Some(Some(Ino(9)))), (22, Some(None))]);
        drop(done);
        assert!(of().take_over().unwrap().is_empty());
    }

    #[test]
    fn what_has_no_room_is_not_noted() {
        let memory = Arc::new(SharedMemory::create(c"test", WORDS).unwrap());
        let calls = Arc::new(SentCalls::of(memory, 0..WORDS));
        let value = vec![0; 64 << 10];
        let large = Op::SetXattr { ino: Ino(1), name: b"user.x".into(), value, mode: crate::types::op::XattrMode::Set };
        let note = |call: u64, ops: &[Op]| calls.note(call, SessionId(1), call, ops);
        assert!(note(1, &[large]).is_none());
        let all: Vec<_> = (0..=SLOTS as u64).map_while(|n| note(n + 1, &[])).collect();
        assert_eq!(all.len(), SLOTS);
        drop(all);
        assert!(note(1, &[]).is_some());
    }
}
