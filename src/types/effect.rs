//! What operations do to attributes. Pure: the state machine does it for good, and a client that changes things on its
//! own, under write leases, does the same beforehand. Both come to the same attributes, to the version.

use super::attr::{Attr, FileKind, S_ISGID, SetAttr, SetTime, Time, mode_without_privileges};
use super::error::FsError;
use super::id::Ino;
use super::limits::SYMLINK_BYTES_MAX;
use super::op::{Create, NewNode};

/// What `stat` calls the size of a directory.
const DIR_BYTES: u64 = 4096;

impl Attr {
    /// An inode with its first name, but without rights or owner.
    pub fn born(ino: Ino, kind: FileKind, at: Time) -> Attr {
        Attr {
            ino,
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            nlink: if kind == FileKind::Dir { 2 } else { 1 },
            rdev: 0,
            size: if kind == FileKind::Dir { DIR_BYTES } else { 0 },
            allocated_bytes: 0,
            atime: at,
            mtime: at,
            ctime: at,
            btime: at,
            version: 1,
            has_acl: false,
            has_xattr: false,
        }
    }

    /// Of a directory without a default ACL, what `create` makes in it, before the umask; see [`Attr::mask`].
    ///
    /// # Errors
    /// A symlink's target that can be none.
    pub fn child(&self, create: &Create, ino: Ino, at: Time) -> Result<Attr, FsError> {
        let kind = create.node.kind();
        let mut child = Attr::born(ino, kind, at);
        (child.uid, child.gid) = (create.uid, create.gid);
        child.mode = create.mode & 0o7777;
        if self.mode & S_ISGID != 0 {
            child.gid = self.gid;
            child.mode |= if kind == FileKind::Dir { S_ISGID } else { 0 };
        }
        match &create.node {
            NewNode::Symlink(target) => {
                check_target(target)?;
                child.mode = 0o777;
                child.size = target.len() as u64;
            }
            NewNode::Char(rdev) | NewNode::Block(rdev) => child.rdev = *rdev,
            NewNode::File | NewNode::Dir | NewNode::Fifo | NewNode::Socket => {}
        }
        Ok(child)
    }

    /// Takes away what the umask says; of a symlink nothing.
    pub fn mask(&mut self, umask: u32) {
        if self.kind != FileKind::Symlink {
            self.mode &= !(umask & 0o777);
        }
    }

    /// A change of the inode itself. The time of change does not run backwards, whoever's clock it is by.
    pub fn changed(&mut self, at: Time) {
        self.ctime = self.ctime.max(at);
        self.version += 1;
    }

    /// A change of what it holds: a file's data or a directory's names.
    pub fn modified(&mut self, at: Time) {
        self.mtime = at;
        self.changed(at);
    }

    /// Of a directory: a name was added that leads to such an inode.
    pub fn gain_entry(&mut self, kind: FileKind, at: Time) {
        self.nlink += u32::from(kind == FileKind::Dir);
        self.modified(at);
    }

    /// Of a directory: a name leads to another inode.
    pub fn turn_entry(&mut self, old: FileKind, new: FileKind, at: Time) {
        self.nlink += u32::from(new == FileKind::Dir);
        self.nlink = self.nlink.saturating_sub(u32::from(old == FileKind::Dir));
        self.modified(at);
    }

    /// Of a directory: a name was removed that led to such an inode.
    pub fn lose_entry(&mut self, kind: FileKind, at: Time) {
        self.nlink = self.nlink.saturating_sub(u32::from(kind == FileKind::Dir));
        self.modified(at);
    }

    /// A name of it is gone; of a directory the only one.
    pub fn lose_link(&mut self, at: Time) {
        self.nlink = if self.kind == FileKind::Dir { 0 } else { self.nlink.saturating_sub(1) };
        self.changed(at);
    }

    /// Another name leads to it.
    pub fn gain_link(&mut self, at: Time) {
        self.nlink += 1;
        self.changed(at);
    }

    /// Sets all but the size. Every change moves the change time, also one that names nothing (`chown(-1, -1)`), as on ext4.
    ///
    /// # Errors
    /// `NotSupported` for the mode of a symlink; `Invalid` for what is no time.
    pub fn set(&mut self, set: &SetAttr, at: Time) -> Result<(), FsError> {
        if set.mode.is_some() && self.kind == FileKind::Symlink {
            return Err(FsError::NotSupported);
        }
        let resolve = |time| match time {
            SetTime::Now => at,
            SetTime::At(time) => time,
        };
        self.mode = set.mode.map_or(self.mode, |mode| mode & 0o7777);
        self.uid = set.uid.unwrap_or(self.uid);
        self.gid = set.gid.unwrap_or(self.gid);
        if set.clear_privileges {
            self.mode = mode_without_privileges(self.mode);
        }
        self.atime = set.atime.map_or(self.atime, resolve);
        self.mtime = set.mtime.map_or(self.mtime, resolve);
        self.changed(set.ctime.map_or(at, resolve));
        let times = [self.atime, self.mtime, self.ctime];
        if times.iter().any(|time| time.nsec >= 1_000_000_000) { Err(FsError::Invalid) } else { Ok(()) }
    }
}

impl NewNode {
    pub fn kind(&self) -> FileKind {
        match self {
            NewNode::File => FileKind::File,
            NewNode::Dir => FileKind::Dir,
            NewNode::Symlink(_) => FileKind::Symlink,
            NewNode::Fifo => FileKind::Fifo,
            NewNode::Socket => FileKind::Socket,
            NewNode::Char(_) => FileKind::Char,
            NewNode::Block(_) => FileKind::Block,
        }
    }
}

fn check_target(target: &[u8]) -> Result<(), FsError> {
    match target.len() {
        0 => Err(FsError::NotFound),
        len if len > SYMLINK_BYTES_MAX => Err(FsError::NameTooLong),
        _ if target.contains(&0) => Err(FsError::Invalid),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::name::Name;

    const AT: Time = Time { sec: 7, nsec: 0 };

    fn create(node: NewNode, mode: u32) -> Create {
        let name = Name::new("n").unwrap();
        Create { dir: Ino(2), name, node, mode, umask: 0o022, uid: 1, gid: 2, exclusive: true, ino: None }
    }

    #[test]
    fn a_child_inherits_the_group_of_a_set_group_id_directory() {
        let mut dir = Attr::born(Ino(2), FileKind::Dir, Time::default());
        (dir.mode, dir.gid) = (0o2775, 9);
        let file = dir.child(&create(NewNode::File, 0o644), Ino(3), AT).unwrap();
        assert_eq!((file.gid, file.mode, file.nlink), (9, 0o644, 1));
        let sub = dir.child(&create(NewNode::Dir, 0o755), Ino(4), AT).unwrap();
        assert_eq!((sub.gid, sub.mode, sub.nlink, sub.size), (9, 0o2755, 2, DIR_BYTES));
    }

    #[test]
    fn directories_count_the_directories_in_them() {
        let mut dir = Attr::born(Ino(2), FileKind::Dir, Time::default());
        dir.gain_entry(FileKind::Dir, AT);
        dir.gain_entry(FileKind::File, AT);
        assert_eq!((dir.nlink, dir.version, dir.mtime), (3, 3, AT));
        dir.turn_entry(FileKind::File, FileKind::Dir, AT);
        dir.lose_entry(FileKind::Dir, AT);
        assert_eq!(dir.nlink, 3);
        dir.lose_link(AT);
        assert_eq!(dir.nlink, 0);
    }

    #[test]
    fn what_is_no_time_is_refused() {
        let mut file = Attr::born(Ino(2), FileKind::File, AT);
        let bad = SetTime::At(Time { sec: 1, nsec: 1_000_000_000 });
        assert_eq!(file.set(&SetAttr { mtime: Some(bad), ..SetAttr::default() }, AT), Err(FsError::Invalid));
        let mut link = Attr::born(Ino(2), FileKind::Symlink, AT);
        assert_eq!(link.set(&SetAttr { mode: Some(0o600), ..SetAttr::default() }, AT), Err(FsError::NotSupported));
    }
}
