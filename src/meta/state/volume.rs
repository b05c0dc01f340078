//! Volumes: made with an empty root, changed in what their policy says, deleted at once, freed in steps.

use super::chunk::RefChanges;
use super::error::StateError;
use super::schema::{
    Holder, Ids, Inode, Present, Session, TREE_TABLES, Table, Tree, VolumeRef, dead_tree_key, holder_key, inode_key,
    numbers, single_key, tree_key, unpack, volume_key, volume_name_key,
};
use super::tx::Tx;
use crate::meta::command::Outcome;
use crate::types::allowance::{Allowance, Taken};
use crate::types::attr::{FileKind, Time};
use crate::types::error::FsError;
use crate::types::id::{Ino, SessionId, TreeId, VolumeId};
use crate::types::volume::{NewVolume, Volume, VolumeChange, VolumeUsage};

/// Keys of a dead tree that one command frees at most.
const REAP_KEYS_MAX: usize = 4096;

pub(super) fn create(tx: &mut Tx<'_>, new: NewVolume, now: Time) -> Result<Outcome, StateError> {
    new.check().map_err(StateError::Refused)?;
    let NewVolume { name, policy, labels, owner, mode } = new;
    if tx.contains(&volume_name_key(&name))? {
        return Err(FsError::Exists.into());
    }
    let mut ids: Ids = tx.single(Table::Ids)?;
    let (id, tree) = (VolumeId(ids.volume), TreeId(ids.tree));
    ids.volume += 1;
    ids.tree += 1;
    tx.put(single_key(Table::Ids), &ids);
    let mut root = Inode::new(Ino::ROOT, FileKind::Dir, now);
    root.attr.mode = mode;
    (root.attr.uid, root.attr.gid) = (owner.uid, owner.gid);
    root.parent = Ino::ROOT;
    tx.put(inode_key(tree, Ino::ROOT), &root);
    let usage = VolumeUsage { inodes: 1, allocated_bytes: 0 };
    let (next_ino, promised) = (Ino::ROOT.0 + 1, Allowance::default());
    let record = Tree { volume: id, chunk_bytes: policy.chunk_bytes, next_ino, usage, promised };
    tx.put(tree_key(tree), &record);
    tx.put(volume_name_key(&name), &VolumeRef { id });
    let volume = Volume { id, name, tree, policy, labels };
    tx.put(volume_key(id), &volume);
    Ok(Outcome::Volume(volume))
}

/// What is there already has a place in it afterwards, and so has what sessions were promised.
///
/// # Errors
/// `Promised` when that does not fit. Refused: what is there does not fit; another kind of access while somebody has it.
pub(super) fn change(tx: &mut Tx<'_>, name: &str, change: VolumeChange) -> Result<Outcome, StateError> {
    let mut volume = by_name(tx, name)?;
    let access = volume.policy.access;
    volume.change(change).map_err(StateError::Refused)?;
    if volume.policy.access != access {
        check_unused(tx, &volume)?;
        // Whoever had it alone before, and was not heard of since, does not go on from there.
        tx.put(holder_key(volume.id), &Holder { session: SessionId(0), attempt: 0, is_fenced: false });
    }
    let Tree { usage, promised, .. } = tx.tree(volume.tree)?;
    let leaves = |promised| Taken { usage, promised }.leaves(Allowance::default(), &volume.policy);
    if !leaves(Allowance::default()) {
        let VolumeUsage { inodes, allocated_bytes } = usage;
        return Err(StateError::Refused(format!(
            "volume {name} holds {allocated_bytes} bytes in {inodes} inodes already"
        )));
    }
    if !leaves(promised) {
        return Err(FsError::Promised.into());
    }
    tx.put(volume_key(volume.id), &volume);
    Ok(Outcome::Volume(volume))
}

pub(super) fn delete(tx: &mut Tx<'_>, name: &str) -> Result<Outcome, StateError> {
    let volume = by_name(tx, name)?;
    check_unused(tx, &volume)?;
    tx.delete(volume_name_key(name));
    tx.delete(volume_key(volume.id));
    tx.delete(holder_key(volume.id));
    tx.put(dead_tree_key(volume.tree), &Present);
    Ok(Outcome::Done)
}

fn by_name(tx: &Tx<'_>, name: &str) -> Result<Volume, StateError> {
    let Some(VolumeRef { id }) = tx.get(&volume_name_key(name))? else { return Err(FsError::NotFound.into()) };
    tx.volume(id)
}

fn check_unused(tx: &Tx<'_>, volume: &Volume) -> Result<(), StateError> {
    let mut mounts = 0;
    for pair in tx.scan_prefix(&numbers(Table::Session, &[])) {
        mounts += u64::from(unpack::<Session>(&pair?.1)?.volume == volume.id);
    }
    if mounts == 0 {
        return Ok(());
    }
    let clients = if mounts == 1 { "client" } else { "clients" };
    Err(StateError::Refused(format!("volume {} is in use by {mounts} {clients}", volume.name)))
}

/// Frees a part of a dead tree; one that is not dead is left alone.
pub(super) fn reap_tree(tx: &mut Tx<'_>, tree: TreeId) -> Result<Outcome, StateError> {
    if !tx.contains(&dead_tree_key(tree))? {
        return Ok(Outcome::TreeReaped { done: true });
    }
    let mut budget = REAP_KEYS_MAX;
    for table in TREE_TABLES {
        let page: Vec<_> =
            tx.scan_prefix(&numbers(table, &[tree.0])).take(budget).collect::<Result<_, StateError>>()?;
        budget -= page.len();
        let mut refs = RefChanges::default();
        for (key, value) in page {
            if table == Table::Extent {
                refs.drop_all(&[unpack(&value)?]);
            }
            tx.delete(key);
        }
        refs.apply(tx)?;
        if budget == 0 {
            return Ok(Outcome::TreeReaped { done: false });
        }
    }
    tx.delete(tree_key(tree));
    tx.delete(dead_tree_key(tree));
    Ok(Outcome::TreeReaped { done: true })
}
