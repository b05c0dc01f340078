//! Locks on names: while one is held, the name keeps pointing at the inode that was seen.
//!
//! A change that goes by name (unlink, rename, create) must recall leases on the inode *behind* the name before the
//! command is proposed; the lock keeps another change from putting a different inode there meanwhile. Names share a
//! fixed number of stripes, which are always taken in ascending order, so two changes cannot wait for each other.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::types::id::{Ino, TreeId};

const STRIPES: usize = 4096;

pub struct NameLocks {
    stripes: Vec<Arc<Mutex<()>>>,
}

/// Holds some names until dropped.
pub struct NameGuard {
    _held: Vec<OwnedMutexGuard<()>>,
}

impl Default for NameLocks {
    fn default() -> Self {
        NameLocks { stripes: (0..STRIPES).map(|_| Arc::default()).collect() }
    }
}

impl NameLocks {
    /// Locks names; `(dir, b"")` stands for the inode itself (its file locks).
    pub async fn lock<'a>(&self, tree: TreeId, names: impl IntoIterator<Item = (Ino, &'a [u8])>) -> NameGuard {
        let wanted: BTreeSet<usize> = names.into_iter().map(|(dir, name)| stripe(tree, dir, name)).collect();
        let mut held = Vec::with_capacity(wanted.len());
        for index in wanted {
            held.push(Arc::clone(&self.stripes[index]).lock_owned().await);
        }
        NameGuard { _held: held }
    }
}

fn stripe(tree: TreeId, dir: Ino, name: &[u8]) -> usize {
    let mut hasher = DefaultHasher::new();
    (tree, dir, name).hash(&mut hasher);
    (hasher.finish() % STRIPES as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_name_twice_is_one_lock() {
        let names = NameLocks::default();
        let guard = names.lock(TreeId(1), [(Ino(1), b"a".as_slice()), (Ino(1), b"a".as_slice())]).await;
        assert_eq!(guard._held.len(), 1);
        let again = names.lock(TreeId(1), [(Ino(1), b"a".as_slice())]);
        assert!(futures_util::FutureExt::now_or_never(again).is_none(), "it is held");
        drop(guard);
        names.lock(TreeId(1), [(Ino(1), b"a".as_slice())]).await;
    }
}
