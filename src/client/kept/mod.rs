//! What a client leaves to the one that comes after it, on the same mount: the session and what the kernel has of it.
//!
//! Owns a piece of memory that outlives the process (its layout is in [`formats`](crate::docs::formats)): which session it was and
//! which sequences it may have used, the open files by the numbers that the kernel calls them, the locks that were decided here,
//! a few numbers of the door's, and what was taken and is not in the cluster (`taken`). A client that leaves in order leaves nothing
//! of the last; one that was killed perhaps does.
//!
//! The order: the next client reads all of it before it changes any of it; a handle is in it before the kernel is told of it, and
//! taken out after the kernel has let go of it; a lock is in it before its taker is told.

pub mod log;
mod rows;
pub mod sent;
pub mod taken;

use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use self::log::Log;
use self::rows::Rows;
use self::sent::SentCalls;
use crate::client::api::{Handle, OpenMode, Result};
use crate::host::shared::{SharedMemory, words_for};
use crate::types::error::FsError;
use crate::types::id::{Ino, SessionId, VolumeId};
use crate::types::lock::{LockMode, LockRange, LockSpace, OwnLock};

/// "HOLDKEPT", little-endian.
const MAGIC: u64 = u64::from_le_bytes(*b"HOLDKEPT");
/// Of the layout, and of changes as they are noted in it ([`crate::types::op::Dated`]).
const VERSION: u64 = 3;

/// Words at the beginning.
const AT_MAGIC: usize = 0;
const AT_VERSION: usize = 1;
const AT_SESSION: usize = 2;
const AT_SEQUENCES: usize = 3;
const AT_TERM: usize = 4;
const AT_IN_ORDER: usize = 5;
const AT_HANDLES: usize = 6;
const AT_VOLUME: usize = 7;
const AT_DOOR: usize = 8;
const DOOR_WORDS: usize = 2;
const AT_LOG: [usize; 2] = [10, 11];
const AT_LOG_WORDS: usize = 12;
const AT_BATCH_SEQUENCE: usize = 13;
const AT_BATCH_END: usize = 14;
const HEAD: usize = 64;

/// As many as a process of root may open, times sixteen.
const HANDLES: usize = 1 << 20;
const LOCKERS: usize = 1 << 16;
const LOCKS: usize = 1 << 16;
const DEBTS: usize = 1 << 16;

const HANDLE_ROWS: Range<usize> = HEAD..HEAD + Rows::<4>::words(HANDLES);
const LOCKER_ROWS: Range<usize> = HANDLE_ROWS.end..HANDLE_ROWS.end + Rows::<3>::words(LOCKERS);
const DESCRIPTION_ROWS: Range<usize> = LOCKER_ROWS.end..LOCKER_ROWS.end + Rows::<3>::words(LOCKERS);
const LOCK_ROWS: Range<usize> = DESCRIPTION_ROWS.end..DESCRIPTION_ROWS.end + Rows::<6>::words(LOCKS);
const DEBT_ROWS: Range<usize> = LOCK_ROWS.end..LOCK_ROWS.end + Rows::<2>::words(DEBTS);
const LEAVING_ROWS: Range<usize> = DEBT_ROWS.end..DEBT_ROWS.end + Rows::<3>::words(LOCKERS);
const SENT: Range<usize> = LEAVING_ROWS.end..LEAVING_ROWS.end + sent::WORDS;
/// What is taken begins with a page of its own.
const LOG_BEGIN: usize = SENT.end.next_multiple_of(512);
/// The least that is set aside for what is taken.
const LOG_BYTES_MIN: u64 = 16 << 20;

/// Sequences, and numbers of handles, are set aside so many at a time: the next client begins after all that were.
const SET_ASIDE: u64 = 4096;

/// An owner that may hold locks of a kind on an inode.
pub type Locker = (Ino, LockSpace, u64);

#[derive(Debug)]
pub struct Kept {
    memory: Arc<SharedMemory>,
    log: Arc<Log>,
    sent: Arc<SentCalls>,
    handles: Rows<4>,
    lockers: Rows<3>,
    descriptions: Rows<3>,
    locks: Rows<6>,
    debts: Rows<2>,
    leaving: Rows<3>,
}

/// An open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptFile {
    pub handle: Handle,
    pub ino: Ino,
    pub mode: OpenMode,
    /// The call that opened it: handed out again, it was not answered, and has this file.
    pub call: u64,
}

/// What an open file is to be told yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Debt {
    pub handle: Handle,
    /// Something that was written could not be stored.
    pub failure: bool,
    /// A lock that it may have relied on is lost.
    pub lost: bool,
}

/// The session that the client before had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub session: SessionId,
    /// No sequence from here on was used.
    pub sequence: u64,
    /// The leader's, to which everything that was held is known.
    pub term: u64,
    /// Everything that it had taken was stored when it ended.
    pub in_order: bool,
}

impl Kept {
    /// Of a mount that begins. `log_bytes`: what may be taken before it is stored.
    ///
    /// # Errors
    /// The host has no memory for it.
    pub fn new(log_bytes: u64) -> io::Result<Kept> {
        let log_bytes = usize::try_from(log_bytes.max(LOG_BYTES_MIN)).map_err(|_| io::ErrorKind::InvalidInput)?;
        let log_words = words_for(log_bytes).next_multiple_of(512);
        let memory = SharedMemory::create(c"holdfast-kept", LOG_BEGIN + log_words)?;
        memory.words()[AT_MAGIC].store(MAGIC, Ordering::Relaxed);
        memory.words()[AT_VERSION].store(VERSION, Ordering::Relaxed);
        memory.words()[AT_LOG_WORDS].store(log_words as u64, Ordering::Relaxed);
        Kept::of(memory)
    }

    /// Whether this is what a client has that this one could follow. That one lives and writes: nothing behind the head is looked at.
    ///
    /// # Errors
    /// As [`Kept::left_behind`].
    pub fn check(file: OwnedFd) -> io::Result<()> {
        Kept::checked(file).map(drop)
    }

    /// What another client has left.
    ///
    /// # Errors
    /// `InvalidData` when it is not that, or that of a client whose layout this one does not know.
    pub fn left_behind(file: OwnedFd) -> io::Result<Kept> {
        Kept::of(Kept::checked(file)?)
    }

    fn checked(file: OwnedFd) -> io::Result<SharedMemory> {
        let memory = SharedMemory::open(file)?;
        let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
        let word = |at: usize| memory.words().get(at).map(|word| word.load(Ordering::Acquire));
        if word(AT_MAGIC) != Some(MAGIC) {
            return Err(invalid("it is not what a client leaves behind".into()));
        }
        if word(AT_VERSION) != Some(VERSION) {
            return Err(invalid("it was left behind by a client of another version".into()));
        }
        let log_words = word(AT_LOG_WORDS).and_then(|words| usize::try_from(words).ok());
        let log_end = log_words.and_then(|words| LOG_BEGIN.checked_add(words));
        if log_end != Some(memory.words().len()) || log_words == Some(0) {
            return Err(invalid("it is of another size than the client before says".into()));
        }
        Ok(memory)
    }

    fn of(memory: SharedMemory) -> io::Result<Kept> {
        let memory = Arc::new(memory);
        let log = Log::of(memory.clone(), AT_LOG, LOG_BEGIN..memory.words().len())?;
        Ok(Kept {
            log: Arc::new(log),
            sent: Arc::new(SentCalls::of(memory.clone(), SENT)),
            handles: Rows::of(&memory, HANDLE_ROWS),
            lockers: Rows::of(&memory, LOCKER_ROWS),
            descriptions: Rows::of(&memory, DESCRIPTION_ROWS),
            locks: Rows::of(&memory, LOCK_ROWS),
            debts: Rows::of(&memory, DEBT_ROWS),
            leaving: Rows::of(&memory, LEAVING_ROWS),
            memory,
        })
    }

    /// For whoever keeps it while clients come and go.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.memory.file()
    }

    /// What the next client would find if this one were killed now.
    ///
    /// # Panics
    /// The host has no memory for it.
    #[cfg(test)]
    pub fn copied(&self) -> Kept {
        Kept::of(self.memory.copied()).unwrap()
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        &self.memory.words()[at]
    }

    fn get(&self, at: usize) -> u64 {
        self.word(at).load(Ordering::Acquire)
    }

    fn set(&self, at: usize, number: u64) {
        self.word(at).store(number, Ordering::Release);
    }

    // The session.

    /// `None`: there was no client before.
    pub fn standing(&self) -> Option<Standing> {
        let session = SessionId(self.get(AT_SESSION));
        (session.0 > 0).then(|| Standing {
            session,
            sequence: self.get(AT_SEQUENCES) + 1,
            term: self.get(AT_TERM),
            in_order: self.get(AT_IN_ORDER) > 0,
        })
    }

    /// From now on it is this session, of which nothing is known to be stored.
    pub fn goes_on_as(&self, session: SessionId, term: u64) {
        self.set(AT_IN_ORDER, 0);
        self.set(AT_TERM, term);
        self.set(AT_SESSION, session.0);
    }

    /// `None`: there was no client before.
    pub fn volume(&self) -> Option<VolumeId> {
        Some(VolumeId(self.get(AT_VOLUME))).filter(|volume| volume.0 > 0)
    }

    pub fn is_of(&self, volume: VolumeId) {
        self.set(AT_VOLUME, volume.0);
    }

    /// This leader knows what is held.
    pub fn is_known_to(&self, term: u64) {
        self.set(AT_TERM, term);
    }

    /// To be called before a sequence is used.
    pub fn uses_sequence(&self, sequence: u64) {
        self.uses(AT_SEQUENCES, sequence);
    }

    fn uses(&self, at: usize, number: u64) {
        if number > self.get(at) {
            self.word(at).fetch_max(number + SET_ASIDE, Ordering::AcqRel);
        }
    }

    /// Everything is stored, and nothing more is taken.
    pub fn leaves_in_order(&self) {
        self.set(AT_IN_ORDER, 1);
    }

    // The door.

    /// What the door has agreed on with the kernel.
    pub fn door(&self) -> [u64; DOOR_WORDS] {
        std::array::from_fn(|n| self.get(AT_DOOR + n))
    }

    pub fn set_door(&self, door: [u64; DOOR_WORDS]) {
        door.iter().enumerate().for_each(|(n, word)| self.set(AT_DOOR + n, *word));
    }

    // Open files.

    pub fn handles(&self) -> Vec<KeptFile> {
        self.handles.all().into_iter().map(KeptFile::of).collect()
    }

    /// No handle had a number above this one. The kernel may still say that it has let go of one that is not open any more.
    pub fn last_handle(&self) -> u64 {
        self.get(AT_HANDLES)
    }

    /// # Errors
    /// `NoSpace`: too many files are open.
    pub fn opened(&self, file: &KeptFile) -> Result<()> {
        self.uses(AT_HANDLES, file.handle.0);
        self.handles.put(&self.memory, file.row()).map_err(|_| FsError::NoSpace)
    }

    pub fn closed(&self, file: &KeptFile) {
        self.handles.take(&self.memory, file.row());
    }

    /// Open files that the kernel has let go of, with an owner each whose locks go with it (0: none), and that are not released yet.
    pub fn leaving(&self) -> Vec<(Handle, Ino, u64)> {
        self.leaving.all().into_iter().map(|[handle, ino, owner]| (Handle(handle), Ino(ino), owner)).collect()
    }

    /// The kernel is about to be told that it has let go of an open file, and not all of that is done.
    pub fn leaves(&self, handle: Handle, ino: Ino, owner: u64) {
        if self.leaving.put(&self.memory, [handle.0, ino.0, owner]).is_err() {
            tracing::warn!(%ino, "if this process is killed now, a file stays open");
        }
    }

    pub fn has_left(&self, handle: Handle, ino: Ino, owner: u64) {
        self.leaving.take(&self.memory, [handle.0, ino.0, owner]);
    }

    pub fn debts(&self) -> Vec<Debt> {
        let debt =
            |[handle, what]: [u64; 2]| Debt { handle: Handle(handle), failure: what & 1 > 0, lost: what & 2 > 0 };
        self.debts.all().into_iter().map(debt).collect()
    }

    /// These are all that is owed, and nothing else is.
    ///
    /// # Errors
    /// `NoSpace`: there are too many.
    pub fn owes(&self, debts: &[Debt]) -> Result<()> {
        let row = |debt: &Debt| [debt.handle.0, u64::from(debt.failure) | u64::from(debt.lost) << 1];
        let rows: HashSet<[u64; 2]> = debts.iter().map(row).collect();
        // Before the others go: what was owed and is owed still is in it all the time.
        for row in &rows {
            self.debts.put(&self.memory, *row).map_err(|_| FsError::NoSpace)?;
        }
        let paid = self.debts.all().into_iter().filter(|row| !rows.contains(row));
        paid.for_each(|row| self.debts.take(&self.memory, row));
        Ok(())
    }

    // Locks.

    pub fn lockers(&self) -> Vec<Locker> {
        self.lockers.all().into_iter().map(|[ino, space, owner]| (Ino(ino), space_of(space), owner)).collect()
    }

    /// # Errors
    /// `NoSpace`: too many have locks.
    pub fn may_lock(&self, locker: Locker) -> Result<()> {
        self.lockers.put(&self.memory, locker_row(locker)).map_err(|_| FsError::NoSpace)
    }

    pub fn locks_no_more(&self, locker: Locker) {
        self.lockers.take(&self.memory, locker_row(locker));
    }

    /// Through which open files ranges were locked, and by whom.
    pub fn descriptions(&self) -> Vec<(Ino, Handle, u64)> {
        self.descriptions.all().into_iter().map(|[ino, handle, owner]| (Ino(ino), Handle(handle), owner)).collect()
    }

    /// # Errors
    /// `NoSpace`: too many have locks.
    pub fn locked_through(&self, ino: Ino, handle: Handle, owner: u64) -> Result<()> {
        self.descriptions.put(&self.memory, [ino.0, handle.0, owner]).map_err(|_| FsError::NoSpace)
    }

    pub fn unlocked_through(&self, ino: Ino, handle: Handle, owner: u64) {
        self.descriptions.take(&self.memory, [ino.0, handle.0, owner]);
    }

    /// The locks that were decided here.
    pub fn locks(&self) -> Vec<(Ino, OwnLock)> {
        self.locks.all().into_iter().map(lock_of).collect()
    }

    /// Those of one inode are these now, and were those.
    ///
    /// # Errors
    /// `NoSpace`: there are too many.
    pub fn locks_become(&self, ino: Ino, before: &[OwnLock], now: &[OwnLock]) -> Result<()> {
        for lock in now.iter().filter(|lock| !before.contains(lock)) {
            self.locks.put(&self.memory, lock_row(ino, lock)).map_err(|_| FsError::NoSpace)?;
        }
        for lock in before.iter().filter(|lock| !now.contains(lock)) {
            self.locks.take(&self.memory, lock_row(ino, lock));
        }
        Ok(())
    }

    /// The session is over, and every lock with it.
    pub fn loses_locks(&self) {
        self.locks.all().into_iter().for_each(|row| self.locks.take(&self.memory, row));
        self.lockers.all().into_iter().for_each(|row| self.lockers.take(&self.memory, row));
    }
}

impl KeptFile {
    fn row(&self) -> [u64; 4] {
        let OpenMode { read, write, sync } = self.mode;
        let mode = u64::from(read) | u64::from(write) << 1 | u64::from(sync) << 2;
        [self.handle.0, self.ino.0, mode, self.call]
    }

    fn of([handle, ino, mode, call]: [u64; 4]) -> KeptFile {
        let mode = OpenMode { read: mode & 1 > 0, write: mode & 2 > 0, sync: mode & 4 > 0 };
        KeptFile { handle: Handle(handle), ino: Ino(ino), mode, call }
    }
}

fn locker_row((ino, space, owner): Locker) -> [u64; 3] {
    [ino.0, space_number(space), owner]
}

fn space_number(space: LockSpace) -> u64 {
    match space {
        LockSpace::Flock => 0,
        LockSpace::Range => 1,
    }
}

fn space_of(number: u64) -> LockSpace {
    if number == 0 { LockSpace::Flock } else { LockSpace::Range }
}

fn lock_row(ino: Ino, lock: &OwnLock) -> [u64; 6] {
    let OwnLock { space, owner, mode, range, pid } = *lock;
    let kind = space_number(space) | u64::from(mode == LockMode::Exclusive) << 1;
    [ino.0, kind, owner, range.start, range.end, u64::from(pid)]
}

fn lock_of([ino, kind, owner, start, end, pid]: [u64; 6]) -> (Ino, OwnLock) {
    let mode = if kind & 2 > 0 { LockMode::Exclusive } else { LockMode::Shared };
    // It was a smaller number when it was stored.
    let pid = u32::try_from(pid).unwrap_or(0);
    (Ino(ino), OwnLock { space: space_of(kind & 1), owner, mode, range: LockRange { start, end }, pid })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODE: OpenMode = OpenMode { read: true, write: true, sync: false };

    fn next(kept: Kept) -> Kept {
        Kept::left_behind(kept.file().try_clone_to_owned().unwrap()).unwrap()
    }

    #[test]
    fn the_next_client_finds_the_session_and_may_use_what_was_not_used() {
        let kept = Kept::new(0).unwrap();
        assert_eq!(kept.standing(), None);
        kept.goes_on_as(SessionId(7), 3);
        kept.uses_sequence(1);
        kept.uses_sequence(2);
        let standing = Standing { session: SessionId(7), sequence: SET_ASIDE + 2, term: 3, in_order: false };
        let kept = next(kept);
        assert_eq!(kept.standing(), Some(standing));
        kept.is_known_to(4);
        kept.leaves_in_order();
        assert_eq!(next(kept).standing(), Some(Standing { term: 4, in_order: true, ..standing }));
    }

    #[test]
    fn the_next_client_finds_files_and_locks() {
        let kept = Kept::new(0).unwrap();
        let file = KeptFile { handle: Handle(2), ino: Ino(5), mode: MODE, call: 7 };
        let closed = KeptFile { handle: Handle(1), mode: OpenMode::default(), ..file };
        kept.opened(&closed).unwrap();
        kept.opened(&file).unwrap();
        kept.closed(&closed);
        kept.may_lock((Ino(5), LockSpace::Range, 9)).unwrap();
        kept.locked_through(Ino(5), Handle(2), 9).unwrap();
        let range = LockRange { start: 1, end: u64::MAX >> 1 };
        let one = OwnLock { space: LockSpace::Range, owner: 9, mode: LockMode::Exclusive, range, pid: 42 };
        let other = OwnLock { space: LockSpace::Flock, mode: LockMode::Shared, ..one };
        kept.locks_become(Ino(5), &[], &[one]).unwrap();
        kept.locks_become(Ino(5), &[one], &[other]).unwrap();
        kept.set_door([4, 5]);
        let debt = Debt { handle: Handle(2), failure: true, lost: false };
        kept.owes(&[Debt { lost: true, ..debt }]).unwrap();
        kept.owes(&[debt]).unwrap();

        let kept = next(kept);
        assert_eq!(kept.handles(), [file]);
        assert!(kept.last_handle() >= 2);
        assert_eq!(kept.lockers(), [(Ino(5), LockSpace::Range, 9)]);
        assert_eq!(kept.descriptions(), [(Ino(5), Handle(2), 9)]);
        assert_eq!(kept.locks(), [(Ino(5), other)]);
        assert_eq!(kept.door(), [4, 5]);
        assert_eq!(kept.debts(), [debt]);
        kept.leaves(Handle(2), Ino(5), 9);
        assert_eq!(
            next(Kept::left_behind(kept.file().try_clone_to_owned().unwrap()).unwrap()).leaving(),
            [(Handle(2), Ino(5), 9)]
        );
        kept.has_left(Handle(2), Ino(5), 9);
        assert!(kept.leaving().is_empty());
        kept.loses_locks();
        assert!(kept.locks().is_empty() && kept.lockers().is_empty());
    }

    #[test]
    fn what_a_client_did_not_leave_is_refused() {
        let other = SharedMemory::create(c"test", LOG_BEGIN + 512).unwrap();
        assert!(Kept::left_behind(other.file().try_clone_to_owned().unwrap()).is_err());
        let kept = Kept::new(0).unwrap();
        kept.set(AT_VERSION, VERSION + 1);
        assert!(Kept::left_behind(kept.file().try_clone_to_owned().unwrap()).is_err());
    }
}
