//! POSIX ACLs, in the kernel's xattr form: version 2, then entries of tag, permissions and id, all little-endian.
//!
//! Enforcing them is the kernel's business. Here they are validated, kept in step with the mode bits, and inherited.

use super::error::StateError;
use super::execute::Scope;
use super::schema::{Inode, Xattr, xattr_key};
use super::xattr;
use crate::types::attr::FileKind;
use crate::types::error::FsError;
use crate::types::id::Ino;
use crate::types::op::{OpReply, XattrMode};

pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
/// Entries of one ACL: as many as an xattr value holds.
const ENTRIES_MAX: usize = 8191;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ace {
    tag: u16,
    perm: u16,
    id: u32,
}

/// A valid ACL: at least owner, group and other, in the kernel's order, with a mask where named entries need one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Acl(Vec<Ace>);

pub(super) fn is_acl(name: &[u8]) -> bool {
    name == ACCESS || name == DEFAULT
}

/// Sets an ACL. An access ACL moves the mode bits with it, and is dropped when it says no more than they do.
pub(super) fn set(
    scope: &mut Scope<'_, '_>,
    ino: Ino,
    name: &[u8],
    value: &[u8],
    // The kernel does not heed it for ACLs either.
    _mode: XattrMode,
) -> Result<OpReply, StateError> {
    let Some(mut acl) = Acl::parse(value)? else { return remove(scope, ino, name) };
    let mut inode = scope.tx.inode(scope.tree, ino)?;
    match inode.attr.kind {
        FileKind::Symlink => return Err(FsError::NotSupported.into()),
        FileKind::Dir => {}
        _ if name == DEFAULT => return Err(FsError::AccessDenied.into()),
        _ => {}
    }
    if name == ACCESS {
        inode.attr.mode = inode.attr.mode & !0o777 | acl.mode();
        keep_access(scope, &mut inode, &acl)?;
    } else {
        acl.0.shrink_to_fit();
        xattr::put(scope, &mut inode, DEFAULT, &acl.bytes())?;
        inode.has_default_acl = true;
    }
    inode.attr.changed(scope.now);
    scope.put_inode(&inode);
    Ok(OpReply::Done)
}

/// Removes an ACL; one that is not there is removed already.
pub(super) fn remove(scope: &mut Scope<'_, '_>, ino: Ino, name: &[u8]) -> Result<OpReply, StateError> {
    let mut inode = scope.tx.inode(scope.tree, ino)?;
    if inode.attr.kind == FileKind::Symlink {
        return Err(FsError::NotSupported.into());
    }
    if xattr::drop_value(scope, &mut inode, name)? {
        if name == ACCESS {
            inode.attr.has_acl = false;
        } else {
            inode.has_default_acl = false;
        }
        inode.attr.changed(scope.now);
        scope.put_inode(&inode);
    }
    Ok(OpReply::Done)
}

/// After a chmod: the access ACL says what the new mode says.
pub(super) fn follow_mode(scope: &mut Scope<'_, '_>, inode: &Inode) -> Result<(), StateError> {
    if !inode.attr.has_acl {
        return Ok(());
    }
    let mut acl = load(scope, inode.attr.ino, ACCESS)?;
    acl.follow_mode(inode.attr.mode);
    let key = xattr_key(scope.tree, inode.attr.ino, ACCESS);
    scope.tx.put(key, &Xattr { value: acl.bytes() });
    Ok(())
}

/// Gives a new inode what its directory's default ACL says, in place of the umask.
pub(super) fn inherit(scope: &mut Scope<'_, '_>, dir: Ino, inode: &mut Inode) -> Result<(), StateError> {
    let default = load(scope, dir, DEFAULT)?;
    let mut access = default.clone();
    let mode = access.restrict(inode.attr.mode);
    inode.attr.mode = inode.attr.mode & !0o777 | mode;
    keep_access(scope, inode, &access)?;
    if inode.is_dir() {
        xattr::put(scope, inode, DEFAULT, &default.bytes())?;
        inode.has_default_acl = true;
    }
    Ok(())
}

fn keep_access(scope: &mut Scope<'_, '_>, inode: &mut Inode, acl: &Acl) -> Result<(), StateError> {
    inode.attr.has_acl = !acl.is_mode();
    if inode.attr.has_acl {
        return xattr::put(scope, inode, ACCESS, &acl.bytes());
    }
    xattr::drop_value(scope, inode, ACCESS).map(drop)
}

fn load(scope: &Scope<'_, '_>, ino: Ino, name: &[u8]) -> Result<Acl, StateError> {
    let missing = || StateError::Damaged(format!("inode {ino} lacks the ACL it is marked with"));
    let Xattr { value } = scope.tx.get(&xattr_key(scope.tree, ino, name))?.ok_or_else(missing)?;
    Acl::parse(&value).map_err(|_| missing())?.ok_or_else(missing)
}

impl Acl {
    /// `None` for an ACL without entries, which stands for none at all.
    ///
    /// # Errors
    /// `NotSupported` for another version; `Invalid` for what is not a valid ACL.
    pub fn parse(value: &[u8]) -> Result<Option<Acl>, FsError> {
        let Some((version, entries)) = value.split_first_chunk::<4>() else {
            return if value.is_empty() { Ok(None) } else { Err(FsError::Invalid) };
        };
        if u32::from_le_bytes(*version) != VERSION {
            return Err(FsError::NotSupported);
        }
        let (entries, rest) = entries.as_chunks::<8>();
        if !rest.is_empty() || entries.len() > ENTRIES_MAX {
            return Err(FsError::Invalid);
        }
        if entries.is_empty() {
            return Ok(None);
        }
        let acl = Acl(entries.iter().map(Ace::parse).collect());
        if acl.is_valid() { Ok(Some(acl)) } else { Err(FsError::Invalid) }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for Ace { tag, perm, id } in &self.0 {
            bytes.extend_from_slice(&tag.to_le_bytes());
            bytes.extend_from_slice(&perm.to_le_bytes());
            bytes.extend_from_slice(&id.to_le_bytes());
        }
        bytes
    }

    /// Owner, users, group, groups, mask, other: each tag in its place, the single ones exactly once.
    fn is_valid(&self) -> bool {
        let tags: Vec<u16> = self.0.iter().map(|ace| ace.tag).collect();
        let count = |tag| tags.iter().filter(|t| **t == tag).count();
        let named = count(USER) + count(GROUP) > 0;
        tags.is_sorted()
            && tags.iter().all(|tag| [USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER].contains(tag))
            && [USER_OBJ, GROUP_OBJ, OTHER].into_iter().all(|tag| count(tag) == 1)
            && (count(MASK) == 1 || count(MASK) == 0 && !named)
            && self.0.iter().all(|ace| ace.perm <= 7)
            && self.0.iter().all(|ace| !matches!(ace.tag, USER | GROUP) || ace.id != u32::MAX)
    }

    /// Whether mode bits alone say the same.
    fn is_mode(&self) -> bool {
        self.0.iter().all(|ace| matches!(ace.tag, USER_OBJ | GROUP_OBJ | OTHER))
    }

    /// The mode bits that go with it: the mask, where there is one, stands for the group.
    fn mode(&self) -> u32 {
        let perm = |tag| self.0.iter().find(|ace| ace.tag == tag).map(|ace| u32::from(ace.perm));
        let group = perm(MASK).or_else(|| perm(GROUP_OBJ)).unwrap_or_default();
        perm(USER_OBJ).unwrap_or_default() << 6 | group << 3 | perm(OTHER).unwrap_or_default()
    }

    /// The entries that mode bits stand for, with what a mode says for each.
    fn mapped(&mut self, mode: u32) -> impl Iterator<Item = (&mut u16, u16)> {
        let group = if self.0.iter().any(|ace| ace.tag == MASK) { MASK } else { GROUP_OBJ };
        self.0.iter_mut().filter_map(move |ace| {
            let bits = match ace.tag {
                USER_OBJ => mode >> 6,
                OTHER => mode,
                tag if tag == group => mode >> 3,
                _ => return None,
            };
            Some((&mut ace.perm, (bits & 7) as u16))
        })
    }

    fn follow_mode(&mut self, mode: u32) {
        self.mapped(mode).for_each(|(perm, bits)| *perm = bits);
    }

    /// Takes away what `mode` does not grant; the answer is the mode bits that go with what is left.
    fn restrict(&mut self, mode: u32) -> u32 {
        self.mapped(mode).for_each(|(perm, bits)| *perm &= bits);
        self.mode()
    }
}

impl Ace {
    fn parse(bytes: &[u8; 8]) -> Ace {
        let [t0, t1, p0, p1, i0, i1, i2, i3] = *bytes;
        Ace {
            tag: u16::from_le_bytes([t0, t1]),
            perm: u16::from_le_bytes([p0, p1]),
            id: u32::from_le_bytes([i0, i1, i2, i3]),
        }
    }
}
