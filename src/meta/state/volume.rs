//! Volumes: made with an empty root, deleted at once, freed in steps.

use super::chunk::RefChanges;
use super::error::StateError;
use super::schema::{
    Ids, Inode, Present, Session, TREE_TABLES, Table, Tree, VolumeRef, dead_tree_key, holder_key, inode_key, numbers,
    single_key, tree_key, unpack, volume_key, volume_name_key,
};
use super::tx::Tx;
use crate::meta::command::Outcome;
use crate::types::allowance::Allowance;
use crate::types::attr::{FileKind, Owner, Time};
use crate::types::error::FsError;
use crate::types::id::{Ino, TreeId, VolumeId};
use crate::types::limits::{CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, REPLICAS_MAX};
use crate::types::record::{Volume, VolumePolicy, VolumeUsage};

/// Keys of a dead tree that one command frees at most.
const REAP_KEYS_MAX: usize = 4096;
const VOLUME_NAME_BYTES_MAX: usize = 128;

pub(super) fn create(
    tx: &mut Tx<'_>,
    name: String,
    policy: VolumePolicy,
    (owner, now): (Owner, Time),
) -> Result<Outcome, StateError> {
    check_name(&name)?;
    check_policy(&policy)?;
    if tx.contains(&volume_name_key(&name))? {
        return Err(FsError::Exists.into());
    }
    let mut ids: Ids = tx.single(Table::Ids)?;
    let (id, tree) = (VolumeId(ids.volume), TreeId(ids.tree));
    ids.volume += 1;
    ids.tree += 1;
    tx.put(single_key(Table::Ids), &ids);
    let mut root = Inode::new(Ino::ROOT, FileKind::Dir, now);
    root.attr.mode = 0o755;
    (root.attr.uid, root.attr.gid) = (owner.uid, owner.gid);
    root.parent = Ino::ROOT;
    tx.put(inode_key(tree, Ino::ROOT), &root);
    let usage = VolumeUsage { inodes: 1, allocated_bytes: 0 };
    let (next_ino, promised) = (Ino::ROOT.0 + 1, Allowance::default());
    let record = Tree { volume: id, chunk_bytes: policy.chunk_bytes, next_ino, usage, promised };
    tx.put(tree_key(tree), &record);
    tx.put(volume_name_key(&name), &VolumeRef { id });
    let volume = Volume { id, name, tree, policy };
    tx.put(volume_key(id), &volume);
    Ok(Outcome::Volume(volume))
}

fn check_name(name: &str) -> Result<(), StateError> {
    let may = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if first && name.len() <= VOLUME_NAME_BYTES_MAX && name.bytes().all(may) {
        return Ok(());
    }
    Err(StateError::Refused(format!(
        "a volume name is at most {VOLUME_NAME_BYTES_MAX} letters, digits, '.', '_' and '-', and begins with a letter \
         or digit"
    )))
}

fn check_policy(policy: &VolumePolicy) -> Result<(), StateError> {
    if !(1..=REPLICAS_MAX).contains(&policy.replicas) {
        return Err(StateError::Refused(format!("replicas must be 1 to {REPLICAS_MAX}")));
    }
    let bytes = policy.chunk_bytes;
    if !bytes.is_power_of_two() || !(CHUNK_BYTES_MIN..=CHUNK_BYTES_MAX).contains(&bytes) {
        return Err(StateError::Refused(format!(
            "the chunk size must be a power of two from {CHUNK_BYTES_MIN} to {CHUNK_BYTES_MAX} bytes"
        )));
    }
    Ok(())
}

pub(super) fn delete(tx: &mut Tx<'_>, name: &str) -> Result<Outcome, StateError> {
    let Some(VolumeRef { id }) = tx.get(&volume_name_key(name))? else { return Err(FsError::NotFound.into()) };
    let volume = tx.volume(id)?;
    let mut mounts = 0;
    for pair in tx.scan_prefix(&numbers(Table::Session, &[])) {
        mounts += u64::from(unpack::<Session>(&pair?.1)?.volume == id);
    }
    if mounts > 0 {
        let clients = if mounts == 1 { "client" } else { "clients" };
        return Err(StateError::Refused(format!("volume {name} is in use by {mounts} {clients}")));
    }
    tx.delete(volume_name_key(name));
    tx.delete(volume_key(id));
    tx.delete(holder_key(id));
    tx.put(dead_tree_key(volume.tree), &Present);
    Ok(Outcome::Done)
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
