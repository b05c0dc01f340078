//! Opening a log: reading every record back, telling a torn tail from damage, cutting the tail, and making durable what
//! is kept.
//!
//! What a kill leaves may be in the page cache only, and after a failed fsync it even counts as clean there. Whoever
//! asks for an entry that is here already is told so without another fsync. So everything that no record vouches for is
//! written once more in its place and fsynced, before the log reports any of it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::record::{self, Record, SEGMENT_HEAD_BYTES, SEGMENT_HEADER_BYTES, Salt, SegmentHeader};
use super::{LogError, Segment, Standing, State};
use crate::host::chance;
use crate::host::lock::{FileLock, LockError};

const LOCK: &str = "lock";

/// Makes the directory if need be, and takes the lock that keeps other processes out.
pub(super) fn lock(dir: &Path) -> Result<FileLock, LogError> {
    let at = |error| LogError::Io(dir.to_path_buf(), error);
    if !dir.exists() {
        fs::create_dir_all(dir).map_err(at)?;
        if let Some(parent) = dir.parent() {
            sync_dir(parent).map_err(at)?;
        }
    }
    FileLock::take(&dir.join(LOCK)).map_err(|error| match error {
        LockError::Held(_) => LogError::Busy(dir.to_path_buf()),
        LockError::Io(error) => at(error),
    })
}

/// How a segment is made durable: fsync, or something a test can make fail.
pub(super) type SyncSegment<'a> = &'a dyn Fn(&File) -> io::Result<()>;

/// Reads the whole log and leaves it ready to be appended to, all of it on disk; gives back the file that is written
/// next.
pub(super) fn open(dir: &Path, owner: u64, sync: SyncSegment<'_>) -> Result<(State, Arc<File>), LogError> {
    let mut state = State::default();
    let found = segments(dir)?;
    let last = found.last().map(|(sequence, _)| *sequence);
    for (expected, (sequence, path)) in (found.first().map_or(1, |first| first.0)..).zip(&found) {
        if *sequence != expected {
            return Err(LogError::Missing(segment_path(dir, expected)));
        }
        let sync = (Some(*sequence) == last).then_some(sync);
        replay(&mut state, path, *sequence, owner, sync)?;
    }
    settle(&mut state, dir)?;
    if state.segments.is_empty() {
        state.sequence = last.unwrap_or(1);
        let (salt, head) = segment_head(state.sequence, owner, &state.standing);
        let file = create(dir, state.sequence, &head).map_err(|error| LogError::Io(dir.to_path_buf(), error))?;
        (state.salt, state.offset) = (salt, head.len() as u32);
        state.segments.push_back(Segment { sequence: state.sequence, salt, file });
    }
    state.synced = state.offset;
    state.synced_next = state.range().end;
    let file = state.segments.back().map(|segment| Arc::clone(&segment.file));
    let file = file.ok_or_else(|| LogError::Missing(dir.to_path_buf()))?;
    Ok((state, file))
}

/// Adds one segment to `state`. The last one comes with `sync`: it may be torn, and not be on disk. The others were
/// fsynced before the next was begun.
fn replay(
    state: &mut State,
    path: &Path,
    sequence: u64,
    owner: u64,
    sync: Option<SyncSegment<'_>>,
) -> Result<(), LogError> {
    let at = |error| LogError::Io(path.to_path_buf(), error);
    let bytes = fs::read(path).map_err(at)?;
    let Some(header) = SegmentHeader::decode(&bytes) else {
        // Only a segment in the making has no header: its head is on disk before anything is written behind it.
        if sync.is_none() || bytes.len() > SEGMENT_HEAD_BYTES {
            return Err(LogError::Damaged(path.to_path_buf(), 0));
        }
        fs::remove_file(path).and_then(|()| sync_parent(path)).map_err(at)?;
        // What is written next goes to the segment before, which may be there or not.
        return Ok(());
    };
    let header = header.map_err(|version| LogError::Version(path.to_path_buf(), version))?;
    if header.owner != owner {
        return Err(LogError::Foreign(path.to_path_buf(), header.owner));
    }
    if header.sequence != sequence {
        return Err(LogError::Damaged(path.to_path_buf(), 16));
    }
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(at)?;
    let file = Arc::new(file);
    let salt = header.salt;
    state.segments.push_back(Segment { sequence, salt, file: Arc::clone(&file) });
    (state.sequence, state.salt) = (sequence, salt);
    let (end, vouched) = replay_records(state, path, &bytes, &salt)?;
    state.offset = end as u32;
    // Zeros that were written ahead are not yet anything.
    if bytes[end..].iter().any(|byte| *byte != 0) {
        if sync.is_none() || is_vouched(&bytes, end, &salt) {
            return Err(LogError::Damaged(path.to_path_buf(), end));
        }
        tracing::warn!(segment = %path.display(), kept = end, cut = bytes.len() - end, "cut a torn tail off the log");
        file.set_len(end as u64).map_err(at)?;
    }
    let Some(sync) = sync else { return Ok(()) };
    let unsure = vouched.min(end);
    file.write_all_at(&bytes[unsure..end], unsure as u64).map_err(at)?;
    sync(&file).and_then(|()| sync_parent(path)).map_err(at)
}

/// Replays sound records until there are no more; gives back where they end, and up to where one of them says that the
/// segment was on disk.
fn replay_records(state: &mut State, path: &Path, bytes: &[u8], salt: &Salt) -> Result<(usize, usize), LogError> {
    let mut offset = SEGMENT_HEADER_BYTES;
    let mut vouched = 0;
    while let Some(framed) = bytes.get(offset..).and_then(|bytes| record::decode(bytes, salt, offset as u32)) {
        vouched = vouched.max(framed.synced as usize);
        match framed.record {
            Record::Standing(standing) => state.standing = standing,
            Record::Truncate(index) => state.drop_from(index),
            Record::Entry(entry) => {
                let point = entry.point;
                if state.standing.purged.is_some_and(|purged| state.range().end <= purged.index) {
                    // The entries before were purged away as a whole; a new run begins.
                    state.places.clear();
                }
                if !state.places.is_empty() && state.range().end != point.index {
                    return Err(LogError::Hole(path.to_path_buf(), point.index));
                }
                state.place(point, offset as u32, framed.bytes as u32);
            }
        }
        offset += framed.bytes;
    }
    Ok((offset, vouched))
}

/// Does a sound record behind `end`, wherever it begins, say that something from there on was on disk?
fn is_vouched(bytes: &[u8], end: usize, salt: &Salt) -> bool {
    let vouches =
        |at: usize| record::decode(&bytes[at..], salt, at as u32).is_some_and(|framed| framed.synced as usize > end);
    (end..bytes.len()).any(vouches)
}

/// Drops what was purged, and checks that what is left follows it.
fn settle(state: &mut State, dir: &Path) -> Result<(), LogError> {
    match state.standing.purged {
        Some(purged) => {
            state.drop_through(purged.index);
            if state.first != purged.index + 1 {
                return Err(LogError::Hole(dir.to_path_buf(), state.first));
            }
        }
        None if state.first != 0 && !state.places.is_empty() => {
            return Err(LogError::Hole(dir.to_path_buf(), state.first));
        }
        None if state.places.is_empty() => state.first = 0,
        None => {}
    }
    // A commit goes to disk whenever; it may say more than the tail that was left.
    let last = state.last();
    if state.standing.committed.map(|committed| committed.index) > last.map(|last| last.index) {
        state.standing.committed = last;
    }
    Ok(())
}

/// The salt of a new segment and its first bytes: its header, and the standing at that moment.
pub(super) fn segment_head(sequence: u64, owner: u64, standing: &Standing) -> (Salt, Vec<u8>) {
    let salt = chance::bytes();
    let mut head = SegmentHeader { sequence, owner, salt }.encode().to_vec();
    record::encode(&mut head, &Record::Standing(*standing), 0, &salt, SEGMENT_HEADER_BYTES as u32);
    debug_assert_eq!(head.len(), SEGMENT_HEAD_BYTES);
    (salt, head)
}

/// Makes a segment that is there after a crash, head and name.
pub(super) fn create(dir: &Path, sequence: u64, head: &[u8]) -> io::Result<Arc<File>> {
    let path = segment_path(dir, sequence);
    let mut file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&path)?;
    file.write_all(head)?;
    file.sync_all()?;
    sync_dir(dir)?;
    Ok(Arc::new(file))
}

pub(super) fn segment_path(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(format!("{sequence:016x}.log"))
}

/// Makes the names in a directory durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir)?.sync_all()
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), sync_dir)
}

/// The segments there are, oldest first.
fn segments(dir: &Path) -> Result<Vec<(u64, PathBuf)>, LogError> {
    let at = |error| LogError::Io(dir.to_path_buf(), error);
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(at)? {
        let path = entry.map_err(at)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".log"));
        if let Some(sequence) = name.and_then(|name| u64::from_str_radix(name, 16).ok()) {
            found.push((sequence, path));
        }
    }
    found.sort();
    Ok(found)
}
