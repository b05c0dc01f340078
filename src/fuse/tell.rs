//! Telling the kernel what inodes are, and for how long it may go by that.

use std::sync::Arc;
use std::time::Duration;

use fuser::{FileHandle, FopenFlags, Generation, ReplyAttr, ReplyCreate, ReplyEntry};
use tokio::runtime::Handle as Runtime;

use super::convert::{attr_out, errno, stale};
use super::invalidate::Invalidator;
use super::places::{Place, Places};
use super::special::SpecialFiles;
use crate::client::api::{Handle, Posix, Result};
use crate::types::attr::{Attr, FileKind};
use crate::types::id::Ino;
use crate::types::name::Name;

/// Inode numbers are never reused.
pub(super) const GENERATION: Generation = Generation(0);

/// Where an inode was found: a name, or nothing that could be gone by.
pub(super) type Found = Option<Place>;

/// How long the kernel may go by a name and by attributes.
pub(super) struct Validity {
    pub name: Duration,
    pub attr: Duration,
}

/// Cheap to clone: an answer that has to wait takes one with it.
pub(super) struct Teller<F> {
    fs: Arc<F>,
    pub special_files: Arc<SpecialFiles>,
    places: Arc<Places>,
    cache: Arc<Invalidator>,
    runtime: Runtime,
}

impl<F> Clone for Teller<F> {
    fn clone(&self) -> Self {
        Teller {
            fs: self.fs.clone(),
            special_files: self.special_files.clone(),
            places: self.places.clone(),
            cache: self.cache.clone(),
            runtime: self.runtime.clone(),
        }
    }
}

impl<F: Posix> Teller<F> {
    pub fn new(fs: Arc<F>, runtime: Runtime, cache: Arc<Invalidator>) -> Teller<F> {
        Teller { fs, special_files: Arc::default(), places: Arc::default(), cache, runtime }
    }

    /// Answers with what a name leads to. A directory that another host has moved is first taken from where the kernel has it.
    pub fn entry(&self, found: Found, result: Result<Attr>, reply: ReplyEntry) {
        let attr = match result {
            Ok(attr) => attr,
            Err(error) => return reply.error(errno(&error)),
        };
        let before = match &found {
            Some(place) if attr.kind == FileKind::Dir => self.places.found(attr.ino, place),
            _ => None,
        };
        let teller = self.clone();
        let answer = move || {
            let validity = teller.learns(&found, &attr);
            reply.entry_with_ttls(&validity.attr, &validity.name, &attr_out(&attr), GENERATION);
        };
        let Some(before) = before else { return answer() };
        let cache = self.cache.clone();
        self.runtime.spawn(async move {
            cache.drop_name(before).await;
            answer();
        });
    }

    /// The kernel is told that it has moved something.
    pub fn renamed(&self, from: &Place, to: &Place, exchanged: bool) {
        self.places.renamed(from, to, exchanged);
    }

    /// Answers with a file that was made and opened.
    pub fn created(&self, found: &Found, (attr, handle): (Attr, Handle), flags: FopenFlags, reply: ReplyCreate) {
        let validity = self.learns(found, &attr);
        reply.created(&validity.attr, &validity.name, &attr_out(&attr), GENERATION, FileHandle(handle.0), flags);
    }

    /// The kernel is about to learn of an inode, or to see it anew.
    pub fn learns(&self, found: &Found, attr: &Attr) -> Validity {
        self.special_files.saw(attr);
        let name = found.as_ref().map(|(dir, name)| self.fs.lend_name(*dir, name, attr.ino));
        Validity { name: name.unwrap_or_default(), attr: self.fs.lend_attr(attr) }
    }

    /// Of a line of a listing: what the kernel may learn of it, if that is known and may be gone by.
    pub fn lends(&self, dir: Ino, name: &[u8], ino: Ino) -> Option<(Attr, Validity)> {
        let attr = self.fs.try_getattr(ino)?.ok()?;
        let place = (dir, Name::new(name).ok()?);
        if attr.kind == FileKind::Dir && !self.places.has_at(ino, &place) {
            return None;
        }
        let validity = self.learns(&Some(place), &attr);
        (!validity.name.is_zero() && !validity.attr.is_zero()).then_some((attr, validity))
    }

    /// Answers with what an inode is that the request named.
    pub fn attr(&self, result: Result<Attr>, reply: ReplyAttr) {
        match result {
            Ok(attr) => reply.attr(&self.fs.lend_attr(&attr), &attr_out(&attr)),
            Err(error) => reply.error(errno(&stale(error))),
        }
    }

    /// Answers with what a change has made of an inode. Others may be under way, and the kernel does not see which came first.
    pub fn changed_attr(&self, result: Result<Attr>, reply: ReplyAttr) {
        match result {
            Ok(attr) => reply.attr(&Duration::ZERO, &attr_out(&attr)),
            Err(error) => reply.error(errno(&stale(error))),
        }
    }

    /// The kernel let go of an inode.
    pub fn forgot(&self, ino: Ino) {
        self.special_files.forgot(ino);
        self.places.forgot(ino);
    }
}
