//! Sessions: registration, and what goes with one when it ends.

use super::error::StateError;
use super::lock;
use super::reserve;
use super::schema::VolumeRef;
use super::schema::{
    Holder, Ids, Session, Table, holder_key, numbers, parse_session_lock_key, session_key, single_key, volume_name_key,
    window_key,
};
use super::tx::Tx;
use crate::meta::command::Outcome;
use crate::types::attr::Time;
use crate::types::error::FsError;
use crate::types::id::SessionId;
use crate::types::id::VolumeId;
use crate::types::record::Role;
use crate::types::volume::Access;

pub(super) fn open(
    tx: &mut Tx<'_>,
    volume: &str,
    client: String,
    (role, credential): (Role, u64),
    read_only: bool,
    (after, attempt): (Option<SessionId>, u64),
    now: Time,
) -> Result<Outcome, StateError> {
    let Some(VolumeRef { id }) = tx.get(&volume_name_key(volume))? else { return Err(FsError::NotFound.into()) };
    let volume = tx.volume(id)?;
    if volume.policy.access == Access::Readers && !read_only {
        return Err(StateError::Refused(format!("volume {} may only be read: mount it with -o ro", volume.name)));
    }
    if volume.policy.access == Access::One
        && let Some(session) = look(tx, id, after, attempt)?
    {
        return Ok(Outcome::Session { session, volume, read_only });
    }
    let mut ids: Ids = tx.single(Table::Ids)?;
    let session = SessionId(ids.session);
    ids.session += 1;
    tx.put(single_key(Table::Ids), &ids);
    if volume.policy.access == Access::One {
        tx.put(holder_key(id), &Holder { session, attempt });
    }
    let tree = volume.tree;
    let record = Session { id: session, volume: id, tree, client, role, credential, read_only, opened: now };
    tx.put(session_key(session), &record);
    Ok(Outcome::Session { session, volume, read_only })
}

/// Whether a volume for one host at a time may be had. The session is there already when its answer was lost.
///
/// # Errors
/// `InUse` while another session is there; `TakenOver` for one that goes on from a session that was not the last.
fn look(
    tx: &Tx<'_>,
    volume: VolumeId,
    after: Option<SessionId>,
    attempt: u64,
) -> Result<Option<SessionId>, StateError> {
    let Some(holder) = tx.get::<Holder>(&holder_key(volume))? else { return Ok(None) };
    let (is_there, is_same) = (tx.contains(&session_key(holder.session))?, holder.attempt == attempt);
    match (is_same, is_there) {
        (true, true) => Ok(Some(holder.session)),
        // Nobody used it, and nobody came after it.
        (true, false) => Ok(None),
        (false, _) if after.is_some_and(|after| after != holder.session) => Err(FsError::TakenOver.into()),
        (false, true) => Err(FsError::InUse.into()),
        (false, false) => Ok(None),
    }
}

/// Ends a session: its locks, its replies, its window and what was set aside for it go with it. One that is not is ended already.
pub(super) fn close(tx: &mut Tx<'_>, session: SessionId) -> Result<Outcome, StateError> {
    for key in tx.keys(&numbers(Table::SessionLock, &[session.0]), usize::MAX)? {
        let (tree, ino, space) = parse_session_lock_key(&key)?;
        lock::drop_session(tx, session, tree, ino, space)?;
    }
    for key in tx.keys(&numbers(Table::Reply, &[session.0]), usize::MAX)? {
        tx.delete(key);
    }
    tx.delete(window_key(session));
    reserve::end(tx, session)?;
    tx.delete(session_key(session));
    Ok(Outcome::Done)
}
