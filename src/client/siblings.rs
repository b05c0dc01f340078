//! Read-ahead among files: who reads the small files of a directory one after the other is told of the next ones' extents,
//! and of inline data with them, in one answer.
//!
//! A file knows its place in the listing that it was learnt from. A miss that comes behind the last one of the same directory
//! widens the window, any other closes it. Nothing is granted and nothing is asked for that no lease is held on: what the
//! answer says holds for as long as the leases.

use std::sync::Arc;

use super::core::Core;
use super::inode::{Node, State};
use crate::types::attr::FileKind;
use crate::types::id::Ino;
use crate::types::limits::SMALL_FILE_BYTES;

/// Files asked for at once, by how many misses came in a row.
const WINDOWS: [usize; 3] = [1, 8, 64];

/// Where a file or a directory stands in a directory's listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub dir: Ino,
    pub cookie: u64,
}

/// How the files, or the directories, of a directory have been missed so far.
#[derive(Debug, Default)]
pub struct Misses {
    last: u64,
    in_a_row: usize,
}

impl Misses {
    /// How many to ask for, from the one at this place on.
    pub fn note(&mut self, cookie: u64, windows: [usize; 3]) -> usize {
        self.in_a_row = if cookie > self.last { (self.in_a_row + 1).min(windows.len() - 1) } else { 0 };
        self.last = cookie;
        windows[self.in_a_row]
    }

    /// Nothing is missed up to this place.
    pub fn asked_up_to(&mut self, cookie: u64) {
        self.last = self.last.max(cookie);
    }
}

impl Core {
    /// A read of this file does not know its extents. Asks for them together with those of the files behind it, if that is
    /// how the directory is being read. `false`: the file is to be asked for alone.
    pub async fn ask_with_siblings(&self, node: &Node) -> bool {
        let Some(place) = self.small_at(node) else { return false };
        let Some(dir) = self.nodes.find(place.dir) else { return false };
        let behind = {
            let mut state = dir.lock();
            let window = state.misses.note(place.cookie, WINDOWS);
            state.dir.page(place.cookie, window - 1).filter(|_| state.leased(&self.life))
        };
        let behind = behind.map(|(items, _)| items).unwrap_or_default();
        let mut wanted = vec![node.ino];
        for item in behind.iter().filter(|item| item.kind == FileKind::File) {
            let sibling = self.nodes.find(item.ino);
            if sibling.is_some_and(|sibling| self.small_at(&sibling).is_some()) {
                wanted.push(item.ino);
            }
        }
        if wanted.len() == 1 {
            return false;
        }
        if let Some(last) = behind.last() {
            dir.lock().misses.asked_up_to(last.cookie);
        }
        self.ask_small(wanted).await
    }

    async fn ask_small(&self, inos: Vec<Ino>) -> bool {
        let asked = self.nodes.asked();
        let told = self
            .ask(|session| {
                let inos = inos.clone();
                async move { session.small_extents(inos).await }
            })
            .await;
        let Ok(files) = told.result else { return false };
        let mut learnt = false;
        for (attr, extents) in files {
            let Some(node) = self.nodes.find(attr.ino) else { continue };
            let mut state = node.lock();
            if state.accepts(asked, false) {
                state.extents.learn(0, SMALL_FILE_BYTES, attr.size, &extents);
                state.learn(&attr);
                learnt |= Some(&attr.ino) == inos.first();
                drop(state);
                // What is not inline sets out, to be there when its turn comes.
                self.read_ahead(&node, 0, attr.size);
            }
        }
        learnt
    }

    /// Where a small file stands whose extents are not known, if it may be asked for with others.
    fn small_at(&self, node: &Node) -> Option<Place> {
        let state = node.lock();
        let small = |state: &State| state.base().is_some_and(|attr| (1..=SMALL_FILE_BYTES).contains(&attr.size));
        let may_ask = state.leased(&self.life) && state.held.may_ask() && state.pending == 0 && !state.is_changing();
        let unknown = may_ask && small(&state) && state.extents.first_unknown(0, 1).is_some();
        state.place.filter(|_| unknown)
    }

    /// Notes where the files and directories of a listing stand.
    pub fn note_places(&self, dir: &Arc<Node>, items: &[super::api::DirItem]) {
        for item in items.iter().filter(|item| matches!(item.kind, FileKind::File | FileKind::Dir)) {
            if let Some(node) = self.nodes.find(item.ino) {
                node.lock().place = Some(Place { dir: dir.ino, cookie: item.cookie });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_widens_for_who_goes_on_and_closes_for_who_does_not() {
        let mut misses = Misses::default();
        let note = |misses: &mut Misses, cookie| misses.note(cookie, WINDOWS);
        assert_eq!([note(&mut misses, 5), note(&mut misses, 6)], [8, 64], "the first file of all is behind nothing");
        misses.asked_up_to(70);
        assert_eq!([71, 9, 10].map(|cookie| note(&mut misses, cookie)), [64, 1, 8]);
    }
}
