//! Telling the kernel what inodes are, and for how long it may go by that.

use std::sync::Arc;
use std::time::Duration;

use fuser::{FileHandle, FopenFlags, Generation, ReplyAttr, ReplyCreate, ReplyEntry};
use tokio::runtime::Handle as Runtime;

use super::convert::{attr_out, errno, stale};
use super::invalidate::Invalidator;
use super::places::{Place, Places};
use super::special::SpecialFiles;
use super::underway::Underway;
use crate::client::api::{Handle, Posix, Result};
use crate::types::attr::{Attr, FileKind};
use crate::types::error::FsError;
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
    pub underway: Arc<Underway>,
    places: Arc<Places>,
    cache: Arc<Invalidator>,
    runtime: Runtime,
}

impl<F> Clone for Teller<F> {
    fn clone(&self) -> Self {
        Teller {
            fs: self.fs.clone(),
            special_files: self.special_files.clone(),
            underway: self.underway.clone(),
            places: self.places.clone(),
            cache: self.cache.clone(),
            runtime: self.runtime.clone(),
        }
    }
}

impl<F: Posix> Teller<F> {
    pub fn new(fs: Arc<F>, runtime: Runtime, cache: Arc<Invalidator>) -> Teller<F> {
        let (special_files, underway, places) = (Arc::default(), Arc::default(), Arc::default());
        Teller { fs, special_files, underway, places, cache, runtime }
    }

    /// Answers with what a name leads to. A directory that another host has moved is first taken from where the kernel has it.
    pub fn entry(&self, found: Found, result: Result<Attr>, reply: ReplyEntry) {
        let before = self.place(&found, &result);
        let attr = match result {
            Ok(attr) => attr,
            Err(error) => return reply.error(errno(&error)),
        };
        let teller = self.clone();
        let answer = move || {
            let validity = teller.learns(&found, &attr);
            reply.entry_with_ttls(&validity.attr, &validity.name, &attr_out(&attr), GENERATION);
        };
        let Some(before) = before else { return answer() };
        let (underway, cache, places) = (self.underway.clone(), self.cache.clone(), self.places.clone());
        self.runtime.spawn(async move {
            underway.lets_go_of(before.0).await;
            cache.drop_name(before, places).await;
            answer();
        });
    }

    /// Takes note of where the kernel is about to have a directory. Where it has it now, if it cannot move it from there.
    fn place(&self, found: &Found, result: &Result<Attr>) -> Option<Place> {
        let place = found.as_ref()?;
        match result {
            Ok(attr) if attr.kind == FileKind::Dir => {
                // An answer from before a rename, told after it, says nothing of where the directory is.
                let leads_elsewhere = |now: Result<Attr>| now.map(|now| now.ino) != Ok(attr.ino);
                let moves = self.places.is_elsewhere(attr.ino, place);
                if moves && self.fs.try_lookup(place.0, &place.1).is_some_and(leads_elsewhere) {
                    return None;
                }
                self.places.found(attr.ino, place)
            }
            Ok(_) | Err(FsError::NotFound) => {
                self.places.is_no_dir(place);
                None
            }
            Err(_) => None,
        }
    }

    /// Answers with another name of a file that others may be writing to: the kernel does not see which came first.
    pub fn linked(&self, found: &Found, result: Result<Attr>, reply: ReplyEntry) {
        match result {
            Ok(attr) => {
                let name = self.learns(found, &attr).name;
                reply.entry_with_ttls(&Duration::ZERO, &name, &attr_out(&attr), GENERATION);
            }
            Err(error) => reply.error(errno(&error)),
        }
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
        let validity = self.fs.lend_attr(attr);
        // A name is taken along when it is moved to another directory. Then what is lent of the inode is what a change of the
        // name there waits for.
        let place = found.as_ref().filter(|_| !validity.is_zero());
        let name = place.map(|(dir, name)| self.fs.lend_name(*dir, name, attr.ino));
        Validity { name: name.unwrap_or_default(), attr: validity }
    }

    /// Of a line of a listing: what the kernel may learn of it, if that is known and may be gone by.
    pub fn lends(&self, dir: Ino, name: &[u8], ino: Ino) -> Option<(Attr, Validity)> {
        let attr = self.fs.try_getattr(ino)?.ok()?;
        let place = (dir, Name::new(name).ok()?);
        let is_dir = attr.kind == FileKind::Dir;
        if is_dir && self.places.is_elsewhere(ino, &place) {
            return None;
        }
        let found = Some(place);
        let validity = self.learns(&found, &attr);
        if validity.name.is_zero() {
            return None;
        }
        found.iter().filter(|_| is_dir).for_each(|place| drop(self.places.found(ino, place)));
        Some((attr, validity))
    }

    /// These were changed, and the kernel is about to hear of it. It drops what it knows of them when it does, and takes note again
    /// of an answer from before that comes late, unless that is made void first.
    pub fn changed(&self, inos: &[Ino]) {
        inos.iter().filter(|ino| self.fs.is_lent(**ino)).for_each(|ino| self.cache.outdate_attr(*ino));
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
