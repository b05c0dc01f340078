//! What a client has taken and the cluster does not have yet, as entries of the [`log`](super::log): pieces of writes, each within
//! one block, and changes of names and attributes as they stand in the journal.
//!
//! The order: an entry is there before the caller is answered, and ends after the cluster has what it says, or after it was
//! reported that it will not. Of one block the earlier end before the later, so that what is left of it is always the newest.
//!
//! Under which sequence changes are on their way stands beside them. What was sent is sent again under the same one, and so
//! happens once: the number is there before anything is sent, and its answer is not given up before the entries have ended.

use std::sync::atomic::Ordering;

use super::log::{Entry, Log, Noted};
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
}

/// A change, and all that it concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    pub inos: Vec<Ino>,
    pub dated: Dated,
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
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// There is room for changes.
    pub fn may_change(&self) -> bool {
        self.log.room() > FOR_ONE_CHANGE
    }

    /// `None`: there is no room.
    pub fn takes_data(&self, of: &Written<&[u8]>) -> Option<Noted> {
        let Time { sec, nsec } = of.mtime;
        let numbers =
            [of.ino.0, of.offset, sec.cast_unsigned(), u64::from(nsec) | u64::from(of.clear_privileges) << 32];
        self.log.append(DATA, numbers, of.bytes, FOR_CHANGES)
    }

    /// `None`: there is no room.
    pub fn takes_change(&self, inos: &[Ino], dated: &Dated) -> Option<Noted> {
        let mut bytes: Vec<u8> = inos.iter().flat_map(|ino| ino.0.to_le_bytes()).collect();
        bytes.extend(encode(dated));
        self.log.append(CHANGE, [inos.len() as u64, 0, 0, 0], &bytes, 0)
    }

    /// What the client before has taken, in order. To be called once.
    pub fn take_over(&self) -> Vec<Noted> {
        self.log.take_over()
    }

    /// # Errors
    /// It is nothing that this client could have taken.
    pub fn what(&self, noted: &Noted) -> Result<Taken, DecodeError> {
        let Entry { kind, numbers, bytes } = self.log.read(noted);
        match kind {
            DATA => {
                let [ino, offset, sec, rest] = numbers;
                let nsec = (rest & u64::from(u32::MAX)) as u32;
                let mtime = Time { sec: sec.cast_signed(), nsec };
                Ok(Taken::Data(Written { ino: Ino(ino), offset, mtime, clear_privileges: rest >> 32 > 0, bytes }))
            }
            CHANGE => {
                let split = usize::try_from(numbers[0]).ok().and_then(|count| count.checked_mul(size_of::<u64>()));
                let parts = split.and_then(|split| bytes.split_at_checked(split));
                let (inos, dated) = parts.ok_or_else(|| DecodeError::Malformed("no change".into()))?;
                let inos = inos.chunks_exact(size_of::<u64>());
                let inos = inos.map(|ino| Ino(u64::from_le_bytes(ino.try_into().unwrap_or_default()))).collect();
                Ok(Taken::Change(Changed { inos, dated: decode(dated)? }))
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
        let piece = Written { ino: Ino(5), offset: 1 << 40, mtime, clear_privileges: true, bytes: b"data".to_vec() };
        let Written { ino, offset, clear_privileges, .. } = piece;
        let first = kept.takes_data(&Written { ino, offset, mtime, clear_privileges, bytes: b"data" }).unwrap();
        let op = Op::Unlink { dir: Ino(1), name: Name::new("gone").unwrap() };
        let changed = Changed { inos: vec![Ino(1), Ino(5)], dated: Dated { at: mtime, op } };
        let second = kept.takes_change(&changed.inos, &changed.dated).unwrap();
        kept.ships(Batch { sequence: 9, upto: second.at() });

        let next = Kept::left_behind(kept.file().try_clone_to_owned().unwrap()).unwrap();
        assert_eq!(next.shipping(), Some(Batch { sequence: 9, upto: second.at() }));
        let all = next.take_over();
        let what: Vec<Taken> = all.iter().map(|noted| next.what(noted).unwrap()).collect();
        assert_eq!(what, [Taken::Data(piece), Taken::Change(changed)]);
        all.into_iter().for_each(std::mem::forget);
        drop((first, second));
        kept.has_shipped();
        assert!(next.take_over().is_empty() && next.shipping().is_none());
    }

    #[test]
    fn changes_have_room_when_data_has_none() {
        let kept = Kept::new(16 * MIB).unwrap();
        let write = |bytes: &[u8]| {
            let mtime = Time::default();
            kept.takes_data(&Written { ino: Ino(5), offset: 0, mtime, clear_privileges: false, bytes })
        };
        let mib = vec![0; MIB as usize];
        let taken: Vec<Noted> = std::iter::from_fn(|| write(&mib)).collect();
        assert!(taken.len() >= 12 && kept.may_change() && kept.log().is_tight());
        let dated = Dated { at: Time::default(), op: Op::Unlink { dir: Ino(1), name: Name::new("n").unwrap() } };
        assert!(kept.takes_change(&[Ino(1)], &dated).is_some());
        drop(taken);
        assert!(write(&mib).is_some());
    }
}
