//! Requests about what inodes are: attributes, symlink targets, extended attributes, and the space of the whole.

use fuser::{ReplyAttr, ReplyData, ReplyEmpty, ReplyStatfs, ReplyXattr};

use super::adapter::Door;
use super::caller::Caller;
use super::convert::{BLOCK_BYTES, errno, stale, xattr_mode};
use super::names::reply_empty;
use super::serve::{Surrender, serve};
use crate::client::api::{Handle, Posix, Result};
use crate::types::attr::{Attr, S_ISGID, SetAttr};
use crate::types::error::FsError;
use crate::types::id::Ino;
use crate::types::limits::NAME_BYTES_MAX;

const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
const TRUSTED: &[u8] = b"trusted.";

/// A buffer of no size asks how large one must be.
fn reply_xattr(result: Result<Vec<u8>>, size: u32, reply: ReplyXattr) {
    match result {
        Ok(value) if size == 0 => reply.size(u32::try_from(value.len()).unwrap_or(u32::MAX)),
        Ok(value) if value.len() > size as usize => reply.error(errno(&FsError::Range)),
        Ok(value) => reply.data(&value),
        Err(error) => reply.error(errno(&stale(error))),
    }
}

impl<F: Posix> Door<F> {
    pub fn answer_getattr(&self, caller: Caller, number: Ino, reply: ReplyAttr) {
        let teller = self.teller.clone();
        let answer = move |result: Result<Attr>| match (result, teller.special_files.left_of(number)) {
            (Err(FsError::NotFound | FsError::Stale), Some(left)) => teller.attr(Ok(left), reply),
            (result, _) => teller.attr(result, reply),
        };
        if let Some(result) = self.fs.try_getattr(number) {
            return answer(result);
        }
        let fs = self.fs.clone();
        serve(&self.desk, caller, Surrender::Look, async move { fs.getattr(number).await }, answer);
    }

    /// `by`: of `ftruncate`, the handle.
    pub fn answer_setattr(&self, caller: Caller, number: Ino, set: SetAttr, by: Option<Handle>, reply: ReplyAttr) {
        let (fs, sync) = (self.fs.clone(), self.sync_names);
        let work = async move {
            if let (Some(handle), Some(_)) = (by, set.size) {
                fs.check_handle(handle)?;
            }
            let attr = fs.setattr(number, set).await?;
            if sync {
                fs.fsync(number, None).await?;
            }
            Ok(attr)
        };
        let teller = self.teller.clone();
        serve(&self.desk, caller, Surrender::Change, work, move |result| teller.changed_attr(result, reply));
    }

    pub fn answer_readlink(&self, caller: Caller, number: Ino, reply: ReplyData) {
        let fs = self.fs.clone();
        let work = async move { fs.readlink(number).await };
        serve(&self.desk, caller, Surrender::Look, work, move |result| match result {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(errno(&stale(error))),
        });
    }

    /// In blocks of one size for both fields that name one: programs multiply with either.
    pub fn answer_statfs(&self, reply: ReplyStatfs) {
        let space = match self.fs.statfs() {
            Ok(space) => space,
            Err(error) => return reply.error(errno(&error)),
        };
        let blocks = |bytes: u64| bytes / u64::from(BLOCK_BYTES);
        let free = blocks(space.free_bytes);
        let total = blocks(space.total_bytes);
        let name_bytes = NAME_BYTES_MAX as u32;
        reply.statfs(total, free, free, space.inodes, space.inodes_free, BLOCK_BYTES, name_bytes, BLOCK_BYTES);
    }

    pub fn answer_getxattr(&self, caller: Caller, number: Ino, name: &[u8], size: u32, reply: ReplyXattr) {
        let (fs, name) = (self.fs.clone(), name.to_vec());
        let work = async move {
            check_name(&name)?;
            fs.getxattr(number, name).await
        };
        serve(&self.desk, caller, Surrender::Look, work, move |result| reply_xattr(result, size, reply));
    }

    /// Names end with a NUL each. Who may not read `trusted.*` does not see them, as on ext4.
    pub fn answer_listxattr(&self, caller: Caller, number: Ino, size: u32, reply: ReplyXattr) {
        let fs = self.fs.clone();
        let work = async move {
            let mut names = fs.listxattr(number).await?;
            if names.iter().any(|name| name.starts_with(TRUSTED)) && !caller.is_admin() {
                names.retain(|name| !name.starts_with(TRUSTED));
            }
            Ok(names.iter().flat_map(|name| name.iter().copied().chain([0])).collect())
        };
        serve(&self.desk, caller, Surrender::Look, work, move |result| reply_xattr(result, size, reply));
    }

    pub fn answer_setxattr(&self, caller: Caller, number: Ino, pair: (&[u8], &[u8]), flags: i32, reply: ReplyEmpty) {
        let (fs, name, value) = (self.fs.clone(), pair.0.to_vec(), pair.1.to_vec());
        let teller = self.teller.clone();
        let work = async move {
            let is_access_acl = name == ACCESS_ACL;
            check_name(&name)?;
            fs.setxattr(number, name, value, xattr_mode(flags)?).await?;
            if is_access_acl {
                drop_setgid(&*fs, caller, number).await?;
            }
            teller.changed(&[number]);
            Ok(())
        };
        let answer = move |result: Result<()>| reply_empty(result.map_err(stale), reply);
        serve(&self.desk, caller, Surrender::Change, work, answer);
    }

    pub fn answer_removexattr(&self, caller: Caller, number: Ino, name: &[u8], reply: ReplyEmpty) {
        let (fs, name, teller) = (self.fs.clone(), name.to_vec(), self.teller.clone());
        let work = async move {
            check_name(&name)?;
            fs.removexattr(number, name).await?;
            teller.changed(&[number]);
            Ok(())
        };
        let answer = move |result: Result<()>| reply_empty(result.map_err(stale), reply);
        serve(&self.desk, caller, Surrender::Change, work, answer);
    }
}

/// A namespace alone is no name.
fn check_name(name: &[u8]) -> Result<()> {
    let bare = [b"user.".as_slice(), b"trusted.", b"security."].contains(&name);
    if bare { Err(FsError::Invalid) } else { Ok(()) }
}

/// Who is not in a file's group and sets its ACL loses its set-group-id bit. The kernel would say so in a field that
/// fuser does not read.
async fn drop_setgid<F: Posix>(fs: &F, caller: Caller, number: Ino) -> Result<()> {
    let attr = fs.getattr(number).await?;
    if attr.mode & S_ISGID == 0 || caller.may_keep_setgid(attr.gid) {
        return Ok(());
    }
    let set = SetAttr { mode: Some(attr.mode & !S_ISGID), ..SetAttr::default() };
    fs.setattr(number, set).await.map(|_| ())
}
