//! Telling the kernel what inodes are, and for how long it may keep that.

use std::sync::Arc;
use std::time::Duration;

use fuser::{Generation, ReplyAttr, ReplyEntry};

use super::convert::{NAME_VALIDITY, attr_out, errno, stale};
use super::known::KnownDirs;
use super::special::SpecialFiles;
use crate::client::api::{Posix, Result};
use crate::types::attr::{Attr, FileKind};
use crate::types::id::Ino;

/// Inode numbers are never reused.
pub(super) const GENERATION: Generation = Generation(0);

/// Cheap to clone: an answer that has to wait takes one with it.
pub(super) struct Teller<F> {
    fs: Arc<F>,
    pub special_files: Arc<SpecialFiles>,
    dirs: Arc<KnownDirs>,
}

impl<F> Clone for Teller<F> {
    fn clone(&self) -> Self {
        Teller { fs: self.fs.clone(), special_files: self.special_files.clone(), dirs: self.dirs.clone() }
    }
}

impl<F: Posix> Teller<F> {
    pub fn new(fs: Arc<F>) -> Teller<F> {
        Teller { fs, special_files: Arc::default(), dirs: Arc::default() }
    }

    /// Answers with what a name leads to.
    pub fn entry(&self, result: Result<Attr>, reply: ReplyEntry) {
        match result {
            Ok(attr) => {
                self.special_files.saw(&attr);
                let known = attr.kind == FileKind::Dir && self.dirs.has(attr.ino);
                let validity = if known { self.fs.validity(&attr) } else { Duration::ZERO };
                reply.entry_with_ttls(&validity, &NAME_VALIDITY, &attr_out(&attr), GENERATION);
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    /// Answers with what an inode is that the request named.
    pub fn attr(&self, result: Result<Attr>, reply: ReplyAttr) {
        match result {
            Ok(attr) => {
                if attr.kind == FileKind::Dir {
                    self.dirs.named(attr.ino);
                }
                reply.attr(&self.fs.validity(&attr), &attr_out(&attr));
            }
            Err(error) => reply.error(errno(&stale(error))),
        }
    }

    /// Answers with what a change has made of an inode. Older kernels take that for true even if they were told meanwhile that it
    /// is not, so it holds for no time.
    pub fn changed_attr(&self, result: Result<Attr>, reply: ReplyAttr) {
        match result {
            Ok(attr) => reply.attr(&Duration::ZERO, &attr_out(&attr)),
            Err(error) => reply.error(errno(&stale(error))),
        }
    }

    /// The kernel let go of an inode.
    pub fn forgot(&self, ino: Ino) {
        self.special_files.forgot(ino);
        self.dirs.forgot(ino);
    }
}
