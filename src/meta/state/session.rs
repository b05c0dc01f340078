//! Sessions: registration, and what goes with one when it ends.

use super::error::StateError;
use super::lock;
use super::schema::VolumeRef;
use super::schema::{
    Holder, Ids, Session, Table, holder_key, numbers, parse_session_lock_key, reserved_key, session_key, single_key,
    volume_name_key, window_key,
};
use super::tx::Tx;
use crate::meta::command::Outcome;
use crate::types::attr::Time;
use crate::types::error::FsError;
use crate::types::id::SessionId;
use crate::types::id::VolumeId;
use crate::types::record::{Access, Role};

pub(super) fn open(
    tx: &mut Tx<'_>,
    volume: &str,
    client: String,
    role: Role,
    credential: u64,
    (read_only, after): (bool, Option<SessionId>),
    now: Time,
) -> Result<Outcome, StateError> {
    let Some(VolumeRef { id }) = tx.get(&volume_name_key(volume))? else { return Err(FsError::NotFound.into()) };
    let volume = tx.volume(id)?;
    let mut ids: Ids = tx.single(Table::Ids)?;
    let session = SessionId(ids.session);
    ids.session += 1;
    if volume.policy.access == Access::One {
        hold(tx, id, session, after)?;
    }
    tx.put(single_key(Table::Ids), &ids);
    let tree = volume.tree;
    let record = Session { id: session, volume: id, tree, client, role, credential, read_only, opened: now };
    tx.put(session_key(session), &record);
    Ok(Outcome::Session { session, volume, read_only })
}

/// Gives a volume for one host at a time to a session.
///
/// # Errors
/// `InUse` while another session is there; `TakenOver` for one that goes on from a session that was not the last.
fn hold(tx: &mut Tx<'_>, volume: VolumeId, session: SessionId, after: Option<SessionId>) -> Result<(), StateError> {
    if let Some(Holder { session: last }) = tx.get(&holder_key(volume))? {
        if after.is_some_and(|after| after != last) {
            return Err(FsError::TakenOver.into());
        }
        if tx.contains(&session_key(last))? {
            return Err(FsError::InUse.into());
        }
    }
    tx.put(holder_key(volume), &Holder { session });
    Ok(())
}

/// Ends a session: its locks, its replies and its window go with it. One that is not is ended already.
pub(super) fn close(tx: &mut Tx<'_>, session: SessionId) -> Result<Outcome, StateError> {
    for key in tx.keys(&numbers(Table::SessionLock, &[session.0]), usize::MAX)? {
        let (tree, ino, space) = parse_session_lock_key(&key)?;
        lock::drop_session(tx, session, tree, ino, space)?;
    }
    for key in tx.keys(&numbers(Table::Reply, &[session.0]), usize::MAX)? {
        tx.delete(key);
    }
    tx.delete(window_key(session));
    tx.delete(reserved_key(session));
    tx.delete(session_key(session));
    Ok(Outcome::Done)
}
