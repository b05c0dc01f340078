//! What a client has taken and the cluster does not have yet, as entries of the [`log`](super::log): pieces of writes, each within
//! one block, and changes of names and attributes as they stand in the journal.
//!
//! The order: an entry is there before the caller is answered, and ends after the cluster has what it says, or after it was
//! reported that it will not. Of one block the earlier end before the later, so that what is left of it is always the newest.
//!
//! Under which sequence changes are on their way stands beside them. What was sent is sent again under the same one, and so
//! happens once: the number is there before anything is sent, and its answer is not given up before the entries have ended.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::log::{Entry, Left, Log, Noted};
use super::sent::SentCalls;
use super::{AT_BATCH_END, AT_BATCH_SEQUENCE, Kept};
use crate::types::attr::Time;
use crate::types::id::Ino;
use crate::types::op::Dated;
use crate::wire::codec::{DecodeError, decode, encode};

/// Kinds of entries.
const DATA: u64 = 1;
const CHANGE: u64 = 2;

/// Words that are free for changes alone, which cannot wait for room.
const FOR_CHANGES: usize = 256 << 10;
/// Words that have to be free before a change is begun: each thread may be about to note one, and none is near this.
const FOR_ONE_CHANGE: usize = 64 << 10;

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    Data(Written),
    Change(Changed),
}

/// A piece of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written<Bytes = Vec<u8>> {
    pub ino: Ino,
    pub offset: u64,
    pub mtime: Time,
    pub clear_privileges: bool,
    pub bytes: Bytes,
    pub call: Option<CallPart>,
}

/// A piece belongs to a call that must not be done twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallPart {
    pub call: u64,
    /// With this piece all of the call is there.
    pub is_last: bool,
}

/// A change, and all that it concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    pub inos: Vec<Ino>,
    pub dated: Dated,
    pub call: Option<u64>,
}

/// Changes that are on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    pub sequence: u64,
    /// The last of them.
    pub upto: u64,
}

impl Kept {
    /// The ring of what was taken.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// There is room for changes.
    pub fn may_change(&self) -> bool {
        self.log.room() > FOR_ONE_CHANGE
    }

    /// Calls that were sent to the leader and are not answered.
    pub fn sent(&self) -> &Arc<SentCalls> {
        &self.sent
    }

    /// Until it is stored, and until its call is answered. `None`: there is no room.
    pub fn takes_data(&self, of: &Written<&[u8]>) -> Option<(Noted, Option<Noted>)> {
        let Time { sec, nsec } = of.mtime;
        let CallPart { call, is_last } = of.call.unwrap_or(CallPart { call: 0, is_last: false });
        let rest = u64::from(nsec) | u64::from(of.clear_privileges) << 32 | u64::from(is_last) << 33;
        let numbers = [of.ino.0, of.offset, sec.cast_unsigned(), rest, call];
        self.log.append(&Entry { kind: DATA, numbers, bytes: of.bytes }, of.call.is_some(), FOR_CHANGES)
    }

    /// Until it is stored, and until its call is answered. `None`: there is no room.
    pub fn takes_change(&self, inos: &[Ino], dated: &Dated, call: Option<u64>) -> Option<(Noted, Option<Noted>)> {
        let mut bytes: Vec<u8> = inos.iter().flat_map(|ino| ino.0.to_le_bytes()).collect();
        bytes.extend(encode(dated));
        let numbers = [inos.len() as u64, 0, 0, 0, call.unwrap_or(0)];
        self.log.append(&Entry { kind: CHANGE, numbers, bytes: &bytes }, call.is_some(), 0)
    }

    /// What the client before has taken, in order. To be called once.
    pub fn take_over(&self) -> Vec<Left> {
        self.log.take_over()
    }

    /// # Errors
    /// It is nothing that this client could have taken.
    pub fn what(&self, left: &Left) -> Result<Taken, DecodeError> {
        let Entry { kind, numbers, bytes } = self.log.read(left.at);
        let call = Some(numbers[4]).filter(|call| *call > 0);
        match kind {
            DATA => {
                let [ino, offset, sec, rest, _] = numbers;
                let mtime = Time { sec: sec.cast_signed(), nsec: (rest & u64::from(u32::MAX)) as u32 };
                let (clear_privileges, is_last) = (rest >> 32 & 1 > 0, rest >> 33 & 1 > 0);
                let call = call.map(|call| CallPart { call, is_last });
                Ok(Taken::Data(Written { ino: Ino(ino), offset, mtime, clear_privileges, bytes, call }))
            }
            CHANGE => {
                let split = usize::try_from(numbers[0]).ok().and_then(|count| count.checked_mul(size_of::<u64>()));
                let parts = split.and_then(|split| bytes.split_at_checked(split));
                let (inos, dated) = parts.ok_or_else(|| DecodeError::Malformed("no change".into()))?;
                let inos = inos.chunks_exact(size_of::<u64>());
                let inos = inos.map(|ino| Ino(u64::from_le_bytes(ino.try_into().unwrap_or_default()))).collect();
                Ok(Taken::Change(Changed { inos, dated: decode(dated)?, call }))
            }
            other => Err(DecodeError::Malformed(format!("an entry of kind {other}"))),
        }
    }

    /// Changes are about to be sent. They stay so until [`Kept::has_shipped`].
    pub fn ships(&self, batch: Batch) {
        // Never one's sequence with the other's changes.
        self.has_shipped();
        self.set(AT_BATCH_END, batch.upto);
        self.set(AT_BATCH_SEQUENCE, batch.sequence);
    }

    /// They are there, and their entries have ended; or it is known that nothing of them came about.
    pub fn has_shipped(&self) {
        self.word(AT_BATCH_SEQUENCE).store(0, Ordering::SeqCst);
    }

    /// Changes that the client before has perhaps sent.
    pub fn shipping(&self) -> Option<Batch> {
        let sequence = self.get(AT_BATCH_SEQUENCE);
        (sequence > 0).then(|| Batch { sequence, upto: self.get(AT_BATCH_END) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::name::Name;
    use crate::types::op::Op;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_was_taken_is_there_until_it_is_stored() {
        let kept = Kept::new(16 * MIB).unwrap();
        let mtime = Time { sec: -1, nsec: 999_999_999 };
        let call = Some(CallPart { call: 77, is_last: true });
        let (ino, offset) = (Ino(5), 1 << 40);
        let of = Written { ino, offset, mtime, clear_privileges: true, bytes: &b"data"[..], call };
        let first = kept.takes_data(&of).unwrap();
        let op = Op::Unlink { dir: Ino(1), name: Name::new("gone").unwrap() };
        let changed = Changed { inos: vec![Ino(1), Ino(5)], dated: Dated { at: mtime, op }, call: None };
        let second = kept.takes_change(&changed.inos, &changed.dated, None).unwrap();
        kept.ships(Batch { sequence: 9, upto: second.0.at() });

        let next = kept.copied();
        assert_eq!(next.shipping(), Some(Batch { sequence: 9, upto: second.0.at() }));
        let left = next.take_over();
        let what: Vec<Taken> = left.iter().map(|left| next.what(left).unwrap()).collect();
        let written = Written { ino, offset, mtime, clear_privileges: true, bytes: b"data".to_vec(), call };
        assert_eq!(what, [Taken::Data(written), Taken::Change(changed)]);
        drop((first, second));
        kept.has_shipped();
        let next = kept.copied();
        assert!(next.take_over().is_empty() && next.shipping().is_none());
    }

    #[test]
    fn changes_have_room_when_data_has_none() {
        let kept = Kept::new(16 * MIB).unwrap();
        let write = |bytes: &[u8]| {
            let (mtime, call) = (Time::default(), None);
            kept.takes_data(&Written { ino: Ino(5), offset: 0, mtime, clear_privileges: false, bytes, call })
        };
        let mib = vec![0; MIB as usize];
        let taken: Vec<_> = std::iter::from_fn(|| write(&mib)).collect();
        assert!(taken.len() >= 12 && kept.may_change() && kept.log().is_tight());
        let dated = Dated { at: Time::default(), op: Op::Unlink { dir: Ino(1), name: Name::new("n").unwrap() } };
        assert!(kept.takes_change(&[Ino(1)], &dated, Some(1)).is_some());
        drop(taken);
        assert!(write(&mib).is_some());
    }
}
