//! A whole tree as far as two filesystems can be compared.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::fault::{At, Check, ensure};
use crate::sys;

/// What must be equal of one inode. The size of a directory, block counts, inode numbers and times are each
/// filesystem's own.
#[derive(Debug, PartialEq, Eq)]
pub struct Node {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u64,
    pub size: Option<i64>,
    pub device: u64,
}

impl Node {
    pub fn new(stat: &libc::stat) -> Node {
        let kind = stat.st_mode & libc::S_IFMT;
        // A write by someone outside the group clears this bit; FUSE's rule leaves it, as the server cannot know all
        // groups of the writer.
        let set_group_id = stat.st_mode & libc::S_ISGID != 0 && stat.st_mode & libc::S_IXGRP == 0;
        let vague = if kind == libc::S_IFREG && set_group_id { libc::S_ISGID } else { 0 };
        Node {
            mode: stat.st_mode & !vague,
            uid: stat.st_uid,
            gid: stat.st_gid,
            nlink: stat.st_nlink,
            size: (kind != libc::S_IFDIR).then_some(stat.st_size),
            device: stat.st_rdev,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct Object {
    node: Node,
    content: Vec<u8>,
    xattrs: Vec<(String, Vec<u8>)>,
}

pub type Tree = BTreeMap<PathBuf, Object>;

/// Reads all of it; sees on the way that listings and inodes agree.
pub fn read(root: &Path) -> Check<Tree> {
    let mut tree = Tree::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(dir) = todo.pop() {
        for entry in sys::list(root.join(&dir)).at(dir.display())? {
            let path = dir.join(String::from_utf8_lossy(&entry.name).as_ref());
            let stat = sys::lstat(root.join(&path)).at(format_args!("listed {}", path.display()))?;
            let kind = stat.st_mode & libc::S_IFMT;
            ensure!(stat.st_ino == entry.ino, "{}: d_ino {} is not {}", path.display(), entry.ino, stat.st_ino);
            ensure!(u32::from(entry.kind) << 12 == kind, "{}: d_type {}, mode {kind:o}", path.display(), entry.kind);
            let object = object(&root.join(&path), &stat).at(path.display())?;
            if kind == libc::S_IFDIR {
                todo.push(path.clone());
            }
            tree.insert(path, object);
        }
    }
    Ok(tree)
}

fn object(path: &Path, stat: &libc::stat) -> Check<Object> {
    let content = match stat.st_mode & libc::S_IFMT {
        libc::S_IFREG => sys::read_file(path)?,
        libc::S_IFLNK => sys::readlink(path)?,
        _ => Vec::new(),
    };
    let mut xattrs = Vec::new();
    for name in sys::listxattr(path)? {
        let value = sys::getxattr(path, &name)?;
        xattrs.push((name, value));
    }
    Ok(Object { node: Node::new(stat), content, xattrs })
}

pub fn compare(found: &Tree, due: &Tree) -> Check {
    for (path, object) in due {
        let Some(other) = found.get(path) else {
            return crate::fault::fault(format!("{} is missing", path.display()));
        };
        let at = path.display();
        ensure!(other.node == object.node, "{at}: {:?}, on ext4 {:?}", other.node, object.node);
        ensure!(other.xattrs == object.xattrs, "{at}: xattrs {:?}, on ext4 {:?}", other.xattrs, object.xattrs);
        let differs = other.content.iter().zip(&object.content).position(|(a, b)| a != b);
        ensure!(other.content == object.content, "{at}: content differs, first at {differs:?}");
    }
    let odd = found.keys().find(|path| !due.contains_key(*path));
    ensure!(odd.is_none(), "{} is there, on ext4 it is not", odd.map_or(Path::new(""), PathBuf::as_path).display());
    Ok(())
}
