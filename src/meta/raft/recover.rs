//! Bringing the machine to where log and snapshots say it has to be, before openraft starts.
//!
//! The machine is an index and may be lost, old, damaged, or (after a crash, if it reached the disk sooner than the log
//! did) ahead of anything that is known. So its own position is believed only if the log or a snapshot holds exactly
//! that entry and everything after it. Otherwise the newest sound snapshot is loaded, or the machine emptied when the
//! log goes back to the beginning; then the committed entries are applied.

use std::io;

use super::Machine;
use super::log::{EntryKind, Log, LogPoint};
use super::node::RaftError;
use super::snapshot::{SnapshotDir, SnapshotFile};
use super::types::{Position, RaftStoredMembership, from_bytes, log_id, log_point, to_bytes};

const BATCH_ENTRIES: u64 = 1024;
const BATCH_BYTES: usize = 4 << 20;

/// Makes the machine's state one that the log continues, and gives back its position.
///
/// # Errors
/// `Unrecoverable` when neither snapshots nor log reach back far enough; `Io` when the machine or the disk failed.
pub fn recover(machine: &dyn Machine, log: &Log, snapshots: &SnapshotDir) -> Result<Position, RaftError> {
    let mut position = match believable(machine, log, snapshots) {
        Ok(position) => position,
        Err(why) => {
            tracing::warn!(why, "rebuilding the state from snapshot and log");
            rebuild(machine, log, snapshots)?
        }
    };
    replay(machine, log, snapshots, &mut position)?;
    Ok(position)
}

/// The machine's own position, if it can be trusted; else why not.
fn believable(machine: &dyn Machine, log: &Log, snapshots: &SnapshotDir) -> Result<Position, String> {
    let told = machine.position().map_err(|error| format!("the state does not open: {error}"))?;
    let Some(told) = told else {
        // Empty is where the beginning of the log continues.
        return if reaches_back_to(log, None) {
            Ok(Position::default())
        } else {
            Err("the state is empty".to_string())
        };
    };
    let position: Position = from_bytes(&told).map_err(|error| format!("the state's position is damaged: {error}"))?;
    let applied = position.applied.as_ref().map(log_point);
    let Some(point) = applied else {
        return if reaches_back_to(log, None) { Ok(position) } else { Err("the state is empty".to_string()) };
    };
    let is_snapshot = snapshots.all().iter().any(|file| file.meta.last_log_id.as_ref() == position.applied.as_ref());
    let is_purged = log.standing().purged == Some(point);
    let is_known = is_snapshot || is_purged || log.point(point.index) == Some(point);
    if !is_known {
        return Err(format!("the state is at {point:?}, which the log does not know"));
    }
    if !continues(log, point) {
        return Err(format!("the state is at {point:?}, before the log begins"));
    }
    Ok(position)
}

/// Whether the log holds everything after `index` (`None`: from the beginning).
fn reaches_back_to(log: &Log, index: Option<u64>) -> bool {
    log.standing().purged.map(|purged| purged.index) <= index
}

/// Whether a state that stands at `point` is continued by the log: nothing is missing, and nothing contradicts it.
fn continues(log: &Log, point: LogPoint) -> bool {
    let is_ahead = point.index >= log.range().end;
    reaches_back_to(log, Some(point.index))
        && (is_ahead || log.standing().purged == Some(point) || log.point(point.index) == Some(point))
}

fn rebuild(machine: &dyn Machine, log: &Log, snapshots: &SnapshotDir) -> Result<Position, RaftError> {
    for snapshot in snapshots.all() {
        let Some(id) = snapshot.meta.last_log_id.as_ref() else { continue };
        if !continues(log, log_point(id)) {
            continue;
        }
        match load(machine, &snapshot) {
            Ok(position) => return Ok(position),
            Err(error) => {
                tracing::error!(snapshot = %snapshot.path().display(), %error, "a snapshot does not load");
                snapshots.discard(&snapshot);
            }
        }
    }
    if !reaches_back_to(log, None) {
        let purged = log.standing().purged.map_or(0, |purged| purged.index);
        return Err(RaftError::Unrecoverable(purged));
    }
    clear(machine)?;
    Ok(Position::default())
}

fn load(machine: &dyn Machine, snapshot: &SnapshotFile) -> io::Result<Position> {
    let meta = &snapshot.meta;
    let position = Position { applied: meta.last_log_id, membership: meta.last_membership.clone() };
    machine.load(&to_bytes(&position)?, &mut snapshot.body()?)?;
    Ok(position)
}

/// Empties the machine: loading nothing either is an empty dump, or fails and leaves it empty.
fn clear(machine: &dyn Machine) -> io::Result<()> {
    let told = to_bytes(&Position::default())?;
    if machine.load(&told, &mut io::empty()).is_ok() {
        return Ok(());
    }
    match machine.position()? {
        None => Ok(()),
        Some(position) if position == told => Ok(()),
        Some(_) => Err(io::Error::other("the state could not be emptied")),
    }
}

/// Applies what is known to be committed: by the log's own mark, or because a snapshot holds it.
fn replay(machine: &dyn Machine, log: &Log, snapshots: &SnapshotDir, position: &mut Position) -> Result<(), RaftError> {
    let snapshot = snapshots.newest().and_then(|file| file.meta.last_log_id.as_ref().map(log_point));
    let covered = snapshot.filter(|point| log.point(point.index) == Some(*point));
    let committed = log.standing().committed.max(covered).map_or(0, |point| point.index + 1);
    let end = committed.min(log.range().end);
    let mut next = position.applied.map_or(0, |id| id.index + 1);
    let first = next;
    while next < end {
        let entries = log.read(next..end.min(next + BATCH_ENTRIES), BATCH_BYTES)?;
        let mut commands = Vec::with_capacity(entries.len());
        for entry in entries {
            if entry.point.index != next {
                return Err(RaftError::Unrecoverable(next));
            }
            next += 1;
            position.applied = Some(log_id(entry.point));
            match entry.kind {
                EntryKind::Blank => {}
                EntryKind::Command => commands.push(entry.payload.into()),
                EntryKind::Membership => {
                    let membership = from_bytes(&entry.payload)?;
                    position.membership = RaftStoredMembership::new(position.applied, membership);
                }
            }
        }
        machine.apply(&to_bytes(position)?, &commands)?;
    }
    if next > first {
        tracing::info!(from = first, to = next - 1, "applied committed entries of the log");
    }
    Ok(())
}
