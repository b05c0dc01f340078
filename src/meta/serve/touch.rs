//! Which inodes an operation changes or reads, so that the right leases are recalled before it is proposed.

use crate::meta::lease::Key;
use crate::meta::state::{StateError, View};
use crate::types::error::FsError;
use crate::types::id::{Ino, TreeId};
use crate::types::name::Name;
use crate::types::op::Op;

/// The inodes one command concerns.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Changed: every other session's lease ends.
    pub changed: Vec<Key>,
    /// Read: another session's unshipped changes come home first.
    pub read: Vec<Key>,
}

/// The names that must keep their meaning between recall and apply. File locks are locked by inode.
pub fn names(op: &Op) -> Vec<(Ino, &[u8])> {
    match op {
        Op::Create(create) => vec![(create.dir, create.name.as_bytes())],
        Op::Link { dir, name, .. } | Op::Unlink { dir, name } | Op::Rmdir { dir, name } => {
            vec![(*dir, name.as_bytes())]
        }
        Op::Rename { from_dir, from, to_dir, to, .. } => {
            vec![(*from_dir, from.as_bytes()), (*to_dir, to.as_bytes())]
        }
        Op::Lock(request) => vec![(request.ino, b"")],
        Op::UnlockOwner { ino, .. } | Op::SetLocks { ino, .. } => vec![(*ino, b"")],
        Op::SetAttr { .. }
        | Op::SetXattr { .. }
        | Op::RemoveXattr { .. }
        | Op::Write(_)
        | Op::Fallocate { .. }
        | Op::CopyRange { .. }
        | Op::TouchAtime { .. }
        | Op::Compact { .. }
        | Op::Reserve { .. } => Vec::new(),
    }
}

/// Adds what `op` touches. Names are looked up in the state, so hold their locks.
///
/// # Errors
/// The index failed. A name that is not there is no error here: the state machine decides.
pub fn touch(view: &View<'_>, tree: TreeId, op: &Op, touched: &mut Touched) -> Result<(), StateError> {
    let behind = |dir: Ino, name: &Name| match view.lookup(tree, dir, name) {
        Ok(attr) => Ok(Some((tree, attr.ino))),
        Err(StateError::Fs(FsError::NotFound | FsError::NotDirectory | FsError::Stale)) => Ok(None),
        Err(error) => Err(error),
    };
    match op {
        Op::Create(create) => {
            touched.changed.push((tree, create.dir));
            touched.read.extend(behind(create.dir, &create.name)?);
        }
        Op::Link { ino, dir, .. } => touched.changed.extend([(tree, *ino), (tree, *dir)]),
        Op::Unlink { dir, name } | Op::Rmdir { dir, name } => {
            touched.changed.push((tree, *dir));
            touched.changed.extend(behind(*dir, name)?);
        }
        Op::Rename { from_dir, from, to_dir, to, .. } => {
            touched.changed.extend([(tree, *from_dir), (tree, *to_dir)]);
            touched.changed.extend(behind(*from_dir, from)?);
            touched.changed.extend(behind(*to_dir, to)?);
        }
        Op::SetAttr { ino, .. }
        | Op::SetXattr { ino, .. }
        | Op::RemoveXattr { ino, .. }
        | Op::Fallocate { ino, .. }
        | Op::Compact { ino, .. } => touched.changed.push((tree, *ino)),
        Op::Write(write) => touched.changed.push((tree, write.ino)),
        Op::CopyRange { from, to, .. } => {
            touched.read.push((tree, *from));
            touched.changed.push((tree, *to));
        }
        Op::SetLocks { ino, .. } => touched.changed.push((tree, *ino)),
        // Another session may decide about the locks of what it has a Write lease on. Not while this one has any.
        Op::Lock(request) if request.mode.is_some() => touched.read.push((tree, request.ino)),
        // An atime is not worth a recall.
        Op::TouchAtime { .. } | Op::Lock(_) | Op::UnlockOwner { .. } | Op::Reserve { .. } => {}
    }
    Ok(())
}
