//! One inode of the reference: attributes, body, extended attributes.

use std::collections::BTreeMap;

use holdfast::types::attr::{Attr, FileKind, SetAttr, SetTime, Time, mode_without_privileges};
use holdfast::types::error::FsError;
use holdfast::types::id::Ino;
use holdfast::types::limits::{XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX};
use holdfast::types::name::Name;
use holdfast::types::op::XattrMode;

use super::acl::{ACCESS, Acl, DEFAULT};
use super::sparse::Sparse;

pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

pub struct Inode {
    pub attr: Attr,
    pub body: Body,
    pub xattrs: Xattrs,
    /// Open handles.
    pub open: u32,
}

pub enum Body {
    File(Sparse),
    Dir(Dir),
    Symlink(Vec<u8>),
    Node,
}

pub struct Dir {
    pub parent: Ino,
    pub names: BTreeMap<Name, Entry>,
    order: BTreeMap<u64, Name>,
    next_cookie: u64,
}

#[derive(Clone, Copy)]
pub struct Entry {
    pub ino: Ino,
    pub cookie: u64,
}

impl Dir {
    pub fn new(parent: Ino) -> Dir {
        Dir { parent, names: BTreeMap::new(), order: BTreeMap::new(), next_cookie: 3 }
    }

    pub fn entry(&self, name: &Name) -> Result<Entry, FsError> {
        self.names.get(name).copied().ok_or(FsError::NotFound)
    }

    /// Gives `name` to `ino`. A name that was there keeps its place in listings.
    pub fn put(&mut self, name: Name, ino: Ino) {
        if let Some(entry) = self.names.get_mut(&name) {
            entry.ino = ino;
            return;
        }
        let cookie = self.next_cookie;
        self.next_cookie += 1;
        self.order.insert(cookie, name.clone());
        self.names.insert(name, Entry { ino, cookie });
    }

    pub fn take(&mut self, name: &Name) {
        if let Some(entry) = self.names.remove(name) {
            self.order.remove(&entry.cookie);
        }
    }

    pub fn after(&self, cookie: u64, items: usize) -> Vec<(u64, Name, Ino)> {
        let listed = self.order.range(cookie.saturating_add(1)..).take(items);
        listed.map(|(cookie, name)| (*cookie, name.clone(), self.names[name].ino)).collect()
    }
}

impl Inode {
    pub fn root(now: Time) -> Inode {
        let attr = Attr {
            ino: Ino::ROOT,
            kind: FileKind::Dir,
            mode: 0o755,
            uid: 0,
            gid: 0,
            nlink: 2,
            rdev: 0,
            size: 4096,
            allocated_bytes: 0,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
            version: 1,
            has_acl: false,
            has_xattr: false,
        };
        Inode { attr, body: Body::Dir(Dir::new(Ino::ROOT)), xattrs: BTreeMap::new(), open: 0 }
    }

    pub fn changed(&mut self, now: Time) {
        self.attr.ctime = now;
        self.attr.version += 1;
    }

    pub fn modified(&mut self, now: Time) {
        self.attr.mtime = now;
        self.changed(now);
    }

    /// `relatime`: when what was read is newer than the last look, or that is a day old.
    pub fn accessed(&mut self, now: Time) {
        let attr = &mut self.attr;
        if attr.atime <= attr.mtime || attr.atime <= attr.ctime || now.sec - attr.atime.sec >= 86_400 {
            attr.atime = now;
            attr.version += 1;
        }
    }

    pub fn clear_privileges(&mut self) {
        self.attr.mode = mode_without_privileges(self.attr.mode);
    }

    /// All of `set` but the size.
    pub fn set(&mut self, set: &SetAttr, now: Time) {
        if let Some(mode) = set.mode {
            self.set_mode(mode & 0o7777);
        }
        if set.clear_privileges {
            self.clear_privileges();
        }
        let time = |set: SetTime| match set {
            SetTime::Now => now,
            SetTime::At(time) => time,
        };
        let attr = &mut self.attr;
        attr.uid = set.uid.unwrap_or(attr.uid);
        attr.gid = set.gid.unwrap_or(attr.gid);
        attr.atime = set.atime.map_or(attr.atime, time);
        attr.mtime = set.mtime.map_or(attr.mtime, time);
        self.changed(set.ctime.map_or(now, time));
    }

    fn set_mode(&mut self, mode: u32) {
        self.attr.mode = mode;
        if let Some(bytes) = self.xattrs.get_mut(ACCESS) {
            let mut acl = Acl::decode(bytes).expect("checked when it was set");
            acl.follow_mode(mode);
            *bytes = acl.encode();
        }
    }

    pub fn set_xattr(&mut self, name: Vec<u8>, value: Vec<u8>, mode: XattrMode, now: Time) -> Result<(), FsError> {
        if name.is_empty() || name.len() > XATTR_NAME_BYTES_MAX {
            return Err(FsError::Range);
        }
        if value.len() > XATTR_VALUE_BYTES_MAX {
            return Err(FsError::TooBig);
        }
        match (mode, self.xattrs.contains_key(&name)) {
            (XattrMode::Create, true) => return Err(FsError::Exists),
            (XattrMode::Replace, false) => return Err(FsError::NoAttribute),
            _ => {}
        }
        match &name[..] {
            ACCESS => self.set_access_acl(&value)?,
            DEFAULT => self.set_default_acl(value)?,
            _ => {
                self.xattrs.insert(name, value);
            }
        }
        self.changed(now);
        Ok(())
    }

    fn set_access_acl(&mut self, value: &[u8]) -> Result<(), FsError> {
        if self.attr.kind == FileKind::Symlink {
            return Err(FsError::NotSupported);
        }
        let acl = Acl::decode(value)?;
        self.attr.mode = self.attr.mode & !0o777 | acl.mode();
        self.attr.has_acl = !acl.is_minimal();
        if acl.is_minimal() {
            self.xattrs.remove(ACCESS);
        } else {
            self.xattrs.insert(ACCESS.to_vec(), acl.encode());
        }
        Ok(())
    }

    fn set_default_acl(&mut self, value: Vec<u8>) -> Result<(), FsError> {
        Acl::decode(&value)?;
        if self.attr.kind != FileKind::Dir {
            return Err(FsError::AccessDenied);
        }
        self.xattrs.insert(DEFAULT.to_vec(), value);
        Ok(())
    }

    /// Removing an ACL that is not there is no error, as on ext4.
    pub fn remove_xattr(&mut self, name: &[u8], now: Time) -> Result<(), FsError> {
        if self.xattrs.remove(name).is_none() {
            return if name == ACCESS || name == DEFAULT { Ok(()) } else { Err(FsError::NoAttribute) };
        }
        if name == ACCESS {
            self.attr.has_acl = false;
        }
        self.changed(now);
        Ok(())
    }
}
