//! From a command to its outcome: dispatch, exactly-once, all or nothing.

use super::error::StateError;
use super::schema::{Reply, Session, Tree, Window, reply_key, tree_key, window_key};
use super::tx::Tx;
use super::{
    acl, api_key, attr, chunk, cluster, data, lock, namespace, rename, reserve, session, token, volume, xattr,
};
use crate::meta::command::{Command, Outcome};
use crate::types::attr::Time;
use crate::types::error::FsError;
use crate::types::id::{SessionId, TreeId};
use crate::types::limits::COMMAND_OPS_MAX;
use crate::types::op::{BatchReply, Op, OpReply};
use crate::types::volume::VolumePolicy;

/// Replies that one command removes from a session's reply table at most.
const TRIM_MAX: u64 = 64;
/// How far a sequence may run ahead of what its session has acknowledged: bounds the reply table.
const WINDOW_MAX: u64 = 1 << 20;

/// Where and when an operation happens.
pub(super) struct Scope<'a, 'kv> {
    pub tx: &'a mut Tx<'kv>,
    pub session: SessionId,
    pub tree: TreeId,
    pub policy: VolumePolicy,
    pub now: Time,
}

/// Executes a command. What it refuses leaves no change behind.
///
/// # Errors
/// Only faults of this replica; everything else is an outcome.
pub(super) fn execute(tx: &mut Tx<'_>, command: Command) -> Result<Outcome, StateError> {
    let mark = tx.mark();
    let result = dispatch(tx, command);
    if result.is_err() {
        tx.roll_back(mark);
    }
    match result {
        Err(StateError::Fs(error)) => Ok(Outcome::Error(error)),
        Err(StateError::Refused(sentence)) => Ok(Outcome::Refused(sentence)),
        result => result,
    }
}

fn dispatch(tx: &mut Tx<'_>, command: Command) -> Result<Outcome, StateError> {
    match command {
        Command::OpenSession { volume, client, role, credential, read_only, after, attempt, now } => {
            session::open(tx, &volume, client, (role, credential), read_only, (after, attempt), now)
        }
        Command::CloseSession { session } | Command::ExpireSession { session } => session::close(tx, session),
        Command::Change { session, sequence, acknowledged, now, ops } => {
            let session = tx.session(session)?;
            let ops: Vec<(Time, &Op)> = ops.iter().map(|op| (now, op)).collect();
            change(tx, &session, (sequence, acknowledged), &ops, Replies::All).map(Outcome::Changed)
        }
        Command::Ship { session, sequence, acknowledged, changes } => {
            let session = tx.session(session)?;
            let ops: Vec<(Time, &Op)> = changes.iter().map(|change| (change.at, &change.op)).collect();
            change(tx, &session, (sequence, acknowledged), &ops, Replies::Written).map(Outcome::Changed)
        }
        Command::Part { session, sequence, now, op } => {
            let session = tx.session(session)?;
            part(tx, &session, sequence, now, op)
        }
        Command::Reap { tree, inos } => data::reap(tx, tree, &inos),
        Command::ReapTree { tree } => volume::reap_tree(tx, tree),
        Command::Condemn { chunks } => chunk::condemn(tx, chunks),
        Command::ConfirmDelete { store, epochs } => chunk::confirm_delete(tx, store, &epochs),
        Command::RegisterStore { info } => cluster::register_store(tx, info),
        Command::CreateVolume { volume, now } => volume::create(tx, volume, now),
        Command::ChangeVolume { name, change } => volume::change(tx, &name, change),
        Command::DeleteVolume { name } => volume::delete(tx, &name),
        Command::CreateToken { hash, role, grant, expires } => token::create(tx, &hash, role, grant, expires),
        Command::UseToken { hash, key, role, address, now } => token::spend(tx, &hash, key, role, address, now),
        Command::CreateApiKey { hash, key } => api_key::create(tx, &hash, key),
        Command::DeleteApiKey { name } => api_key::delete(tx, &name),
        Command::AddMeta { info } => cluster::add_meta(tx, info),
    }
}

/// Which replies are remembered and told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replies {
    All,
    /// Those to writes and copies: the client knows what the rest came to.
    Written,
}

/// Answers a sequence from the reply table, or executes it and remembers the answer. Each operation comes with its time.
fn change(
    tx: &mut Tx<'_>,
    session: &Session,
    (sequence, acknowledged): (u64, u64),
    ops: &[(Time, &Op)],
    told: Replies,
) -> Result<BatchReply, StateError> {
    let window: Option<Window> = tx.get(&window_key(session.id))?;
    if window.is_some_and(|window| sequence < window.floor) {
        return Err(FsError::Stale.into());
    }
    let reply_key = reply_key(session.id, sequence);
    if let Some(Reply { reply }) = tx.get(&reply_key)? {
        return Ok(reply);
    }
    advance(tx, session.id, window, sequence, acknowledged)?;
    let mark = tx.mark();
    let reply = match run(tx, session, ops) {
        Ok(mut replies) => {
            if told == Replies::Written {
                replies.retain(|reply| matches!(reply, OpReply::Written { .. } | OpReply::Copied { .. }));
            }
            BatchReply::Done(replies)
        }
        Err((index, StateError::Fs(error))) => {
            tx.roll_back(mark);
            BatchReply::Failed { index, error }
        }
        Err((_, fault)) => return Err(fault),
    };
    tx.put(reply_key, &Reply { reply: reply.clone() });
    Ok(reply)
}

/// Does a part of a change that is not answered yet.
fn part(tx: &mut Tx<'_>, session: &Session, sequence: u64, now: Time, op: Op) -> Result<Outcome, StateError> {
    let window: Option<Window> = tx.get(&window_key(session.id))?;
    if window.is_some_and(|window| sequence < window.floor) || tx.contains(&reply_key(session.id, sequence))? {
        return Err(FsError::Stale.into());
    }
    run(tx, session, &[(now, &op)]).map(|_| Outcome::Done).map_err(|(_, error)| error)
}

/// Moves a session's window up to what it has acknowledged and trims some of the replies below.
fn advance(
    tx: &mut Tx<'_>,
    session: SessionId,
    window: Option<Window>,
    sequence: u64,
    acknowledged: u64,
) -> Result<(), StateError> {
    let acknowledged = acknowledged.min(sequence);
    let before = window.unwrap_or(Window { floor: acknowledged, trimmed: acknowledged });
    let floor = before.floor.max(acknowledged);
    if sequence - floor > WINDOW_MAX {
        return Err(FsError::Invalid.into());
    }
    // Sequences are dense, so going one by one costs less than looking which are there.
    let trimmed = floor.min(before.trimmed.saturating_add(TRIM_MAX));
    for sequence in before.trimmed..trimmed {
        tx.delete(reply_key(session, sequence));
    }
    let after = Window { floor, trimmed };
    if window != Some(after) {
        tx.put(window_key(session), &after);
    }
    Ok(())
}

/// Executes a batch; the error names the operation it is of.
fn run(tx: &mut Tx<'_>, session: &Session, ops: &[(Time, &Op)]) -> Result<Vec<OpReply>, (u32, StateError)> {
    if ops.len() > COMMAND_OPS_MAX {
        return Err((0, FsError::Invalid.into()));
    }
    let volume = tx.volume(session.volume).map_err(|error| (0, error))?;
    let now = Time::default();
    let mut scope = Scope { tx, session: session.id, tree: session.tree, policy: volume.policy, now };
    let mut replies = Vec::with_capacity(ops.len());
    for (index, (at, op)) in ops.iter().enumerate() {
        scope.now = *at;
        let is_lock = matches!(op, Op::Lock(_) | Op::UnlockOwner { .. });
        let reply = if session.read_only && !is_lock { Err(FsError::ReadOnly.into()) } else { operate(&mut scope, op) };
        replies.push(reply.map_err(|error| (index as u32, error))?);
    }
    Ok(replies)
}

fn operate(scope: &mut Scope<'_, '_>, op: &Op) -> Result<OpReply, StateError> {
    match op {
        Op::Create(create) => namespace::create(scope, create),
        Op::Link { ino, dir, name } => namespace::link(scope, *ino, *dir, name),
        Op::Unlink { dir, name } => namespace::unlink(scope, *dir, name),
        Op::Rmdir { dir, name } => namespace::rmdir(scope, *dir, name),
        Op::Rename { from_dir, from, to_dir, to, mode } => {
            rename::rename(scope, (*from_dir, from), (*to_dir, to), *mode)
        }
        Op::SetAttr { ino, set } => attr::set_attr(scope, *ino, set),
        Op::SetXattr { ino, name, value, mode } if acl::is_acl(name) => acl::set(scope, *ino, name, value, *mode),
        Op::SetXattr { ino, name, value, mode } => xattr::set(scope, *ino, name, value, *mode),
        Op::RemoveXattr { ino, name } if acl::is_acl(name) => acl::remove(scope, *ino, name),
        Op::RemoveXattr { ino, name } => xattr::remove(scope, *ino, name),
        Op::Write(write) => data::write(scope, write),
        Op::Fallocate { ino, mode, offset, len } => data::fallocate(scope, *ino, *mode, *offset, *len),
        Op::CopyRange { from, from_offset, to, to_offset, len } => {
            data::copy_range(scope, (*from, *from_offset), (*to, *to_offset), *len)
        }
        Op::TouchAtime { ino, was, atime } => attr::touch_atime(scope, *ino, *was, *atime),
        Op::Compact { ino, block_offset, before, after } => data::compact(scope, *ino, *block_offset, before, after),
        Op::Lock(request) => lock::lock(scope, request),
        Op::UnlockOwner { ino, owner } => lock::unlock_owner(scope, *ino, *owner),
        Op::SetLocks { ino, locks } => lock::set(scope, *ino, locks),
        Op::Reserve { numbers, upto } => reserve::reserve(scope, *numbers, *upto),
    }
}

impl Scope<'_, '_> {
    pub fn tree_record(&self) -> Result<Tree, StateError> {
        self.tx.tree(self.tree)
    }

    pub fn put_tree(&mut self, record: &Tree) {
        self.tx.put(tree_key(self.tree), record);
    }
}
