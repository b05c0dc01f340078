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
    if volume.policy.access.is_for_one() {
        match look(tx, id, after, attempt)? {
            Found::Free => {}
            Found::Ours(session) => return Ok(Outcome::Session { session, volume, read_only }),
            Found::Held(holder) if volume.policy.access == Access::Fenced && after.is_none() => {
                tx.put(holder_key(id), &Holder { is_fenced: true, ..holder });
                return Ok(Outcome::Fenced { session: holder.session });
            }
            Found::Held(_) => return Err(FsError::InUse.into()),
        }
    }
    let mut ids: Ids = tx.single(Table::Ids)?;
    let session = SessionId(ids.session);
    ids.session += 1;
    tx.put(single_key(Table::Ids), &ids);
    if volume.policy.access.is_for_one() {
        tx.put(holder_key(id), &Holder { session, attempt, is_fenced: false });
    }
    let tree = volume.tree;
    let record = Session { id: session, volume: id, tree, client, role, credential, read_only, opened: now };
    tx.put(session_key(session), &record);
    Ok(Outcome::Session { session, volume, read_only })
}

/// Who has a volume for one host at a time, when somebody asks for it.
enum Found {
    Free,
    /// Who asks: the answer was lost.
    Ours(SessionId),
    /// Another session, which is there.
    Held(Holder),
}

/// # Errors
/// `TakenOver` for one that goes on from a session that was not the last, or from one that was fenced.
fn look(tx: &Tx<'_>, volume: VolumeId, after: Option<SessionId>, attempt: u64) -> Result<Found, StateError> {
    let Some(holder) = tx.get::<Holder>(&holder_key(volume))? else { return Ok(Found::Free) };
    let (is_there, is_same) = (tx.contains(&session_key(holder.session))?, holder.attempt == attempt);
    match (is_same, is_there) {
        (true, true) => Ok(Found::Ours(holder.session)),
        // Nobody used it, and nobody came after it.
        (true, false) => Ok(Found::Free),
        (false, _) if after.is_some_and(|after| after != holder.session || holder.is_fenced) => {
            Err(FsError::TakenOver.into())
        }
        (false, true) => Ok(Found::Held(holder)),
        (false, false) => Ok(Found::Free),
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
