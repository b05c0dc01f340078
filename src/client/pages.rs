//! Which state of a file the kernel's pages show, so that a `read` from them is as true as one that asks.
//!
//! A handle that only reads may be served from the kernel's pages, which stay from one open to the next. Before each such
//! read the kernel looks whether it may go by the attributes it has (`FUSE_AUTO_INVAL_DATA`), and asks if not. So pages
//! need not be gone when a lease ends: the attributes are, and the question that comes then is answered when no page shows another
//! state than they do.
//!
//! A state is the leader's version of the inode and a count of what was done here since. The order in which it is told: pages that
//! show another are dropped; the state is noted as told; the kernel hears of it. A read that fills pages notes what was told
//! last when it begins. If something else was told before it is answered, it begins again: nothing older than what the kernel
//! has heard of comes into a page. No read waits for a page to be dropped, so a drop may wait for a page that a read holds
//! ([decision 19](crate::docs::decisions::pages_that_follow)).
//!
//! Mappings, and `splice` and `sendfile`, which the kernel serves from pages without a look at attributes, are
//! [`super::mapped`]'s.

use std::sync::Arc;

use super::api::OpenMode;
use super::core::Core;
use super::inode::{Node, State};
use crate::types::attr::{Attr, FileKind};
use crate::types::id::Ino;

/// One state of a file's bytes. Both counts only grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    version: u64,
    changes: u64,
}

impl Shape {
    fn is_no_older_than(self, other: Shape) -> bool {
        self.version >= other.version && self.changes >= other.changes
    }
}

/// What a read that fills pages began with.
#[derive(Clone, Copy, Debug)]
pub struct Begun {
    shape: Shape,
    tellings: u64,
}

/// What pages show: nothing older than this, if there are any.
#[derive(Clone, Copy, Debug, Default)]
struct Shown(Option<Shape>);

impl Begun {
    /// The leader has said which version it is about.
    pub fn of(self, version: u64) -> Begun {
        Begun { shape: Shape { version, ..self.shape }, ..self }
    }
}

impl Shown {
    fn add(&mut self, more: Shown) {
        let older = |a: Shape, b: Shape| Shape { version: a.version.min(b.version), changes: a.changes.min(b.changes) };
        self.0 = match (self.0, more.0) {
            (Some(shown), Some(more)) => Some(older(shown, more)),
            (shown, more) => shown.or(more),
        };
    }

    fn is_no_older_than(self, shape: Shape) -> bool {
        self.0.is_none_or(|shown| shown.is_no_older_than(shape))
    }
}

/// Of one file.
#[derive(Debug, Default)]
pub struct Pages {
    /// What was done to the bytes here, under whatever version.
    changes: u64,
    told: Option<Shape>,
    tellings: u64,
    /// What was filled before the newest drop began, and since.
    before: Shown,
    since: Shown,
    drops: u64,
}

impl Pages {
    /// The bytes are about to be, or were, changed here.
    pub fn changed(&mut self) {
        self.changes += 1;
        // Versions begin again where changes of ours were lost.
        self.told = None;
    }

    /// A read begins that sees what is here now over this version.
    pub fn begin(&self, version: u64) -> Begun {
        Begun { shape: self.shape(version), tellings: self.tellings }
    }

    /// A read is about to be answered and to fill pages. `false`: the kernel has heard of another state meanwhile.
    pub fn fill(&mut self, begun: Begun) -> bool {
        let current = begun.tellings == self.tellings;
        if current {
            self.since.add(Shown(Some(begun.shape)));
        }
        current
    }

    /// The kernel is about to hear of this version. `false`: some page may show an older state.
    pub fn tell(&mut self, version: u64) -> bool {
        let shape = self.shape(version);
        if !self.told.is_some_and(|told| told.is_no_older_than(shape)) {
            self.told = Some(shape);
            self.tellings += 1;
        }
        self.before.is_no_older_than(shape) && self.since.is_no_older_than(shape)
    }

    /// All pages are about to be dropped.
    pub fn begin_drop(&mut self) -> u64 {
        self.before.add(std::mem::take(&mut self.since));
        self.drops += 1;
        self.drops
    }

    /// They were. Of several drops that overlap only the newest had all that was there before it.
    pub fn dropped(&mut self, drop: u64) {
        if drop == self.drops {
            self.before = Shown::default();
        }
    }

    /// No page is there.
    pub fn is_clear(&self) -> bool {
        self.before.0.is_none() && self.since.0.is_none()
    }

    fn shape(&self, version: u64) -> Shape {
        Shape { version, changes: self.changes }
    }
}

impl Core {
    /// A file that is opened like this may be read from the kernel's pages: others leave it alone, and nobody writes to it here.
    pub fn keeps_pages(&self, ino: Ino, mode: OpenMode) -> bool {
        let Some(node) = self.nodes.find(ino).filter(|_| !mode.write && !self.is_exclusive()) else { return false };
        let state = node.lock();
        state.writers == 0 && self.may_lend(&state)
    }

    /// The kernel is about to read pages by these attributes. `false`: some show an older state, and are to be dropped first
    /// ([`Core::drop_all_pages`]).
    pub fn pages_show(&self, attr: &Attr) -> bool {
        let shows = |node: Arc<Node>| node.lock().pages_show(attr.version);
        attr.kind != FileKind::File || self.is_exclusive() || self.nodes.find(attr.ino).is_none_or(shows)
    }

    /// Returns when the kernel has none of the pages that it has now.
    pub async fn drop_all_pages(&self, node: &Node) {
        let drop = node.lock().shown.as_mut().map(|pages| pages.begin_drop());
        self.kernel().drop_pages(node.ino).await;
        if let (Some(pages), Some(drop)) = (&mut node.lock().shown, drop) {
            pages.dropped(drop);
        }
    }
}

impl State {
    /// The bytes change here, or what is known of them: pages that were filled before may show an older state.
    pub fn bytes_changed(&mut self) {
        if let Some(pages) = &mut self.shown {
            pages.changed();
        }
    }

    /// See [`Pages::begin`].
    pub fn begin_fill(&mut self, version: u64) -> Begun {
        self.shown.get_or_insert_default().begin(version)
    }

    /// See [`Pages::fill`].
    pub fn fill(&mut self, begun: Begun) -> bool {
        // Or a drop since would be taken for one of this page too.
        self.pages = true;
        self.shown.get_or_insert_default().fill(begun)
    }

    /// See [`Pages::tell`]. Where no read has filled pages there are none.
    pub fn pages_show(&mut self, version: u64) -> bool {
        self.shown.as_mut().is_none_or(|pages| pages.tell(version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_state_is_told_when_the_pages_of_the_last_are_gone() {
        let mut pages = Pages::default();
        assert!(pages.fill(pages.begin(7)));
        assert!(pages.tell(7));
        assert!(!pages.tell(8));
        let drop = pages.begin_drop();
        assert!(!pages.tell(8), "not before the drop is over");
        pages.dropped(drop);
        assert!(pages.tell(8));
    }

    #[test]
    fn a_change_made_here_is_a_newer_state() {
        let mut pages = Pages::default();
        assert!(pages.fill(pages.begin(7)));
        pages.changed();
        assert!(!pages.tell(7));
    }

    #[test]
    fn a_read_that_began_before_something_newer_was_told_begins_again() {
        let mut pages = Pages::default();
        assert!(pages.tell(7));
        let begun = pages.begin(7);
        assert!(pages.tell(7) && pages.fill(begun), "the same once more is nothing new");
        assert!(!pages.tell(8));
        assert!(!pages.fill(begun));
        assert!(pages.fill(pages.begin(8)));
    }

    #[test]
    fn what_is_filled_during_a_drop_is_not_taken_for_dropped() {
        let mut pages = Pages::default();
        let (first, _) = (pages.begin_drop(), pages.fill(pages.begin(7)));
        let second = pages.begin_drop();
        pages.dropped(first);
        assert!(!pages.tell(8));
        pages.dropped(second);
        assert!(pages.tell(8));
        let drop = pages.begin_drop();
        assert!(pages.fill(pages.begin(8)));
        pages.dropped(drop);
        assert!(pages.tell(8) && !pages.tell(9));
    }

    #[test]
    fn pages_of_several_states_show_the_oldest() {
        let mut pages = Pages::default();
        assert!(pages.fill(pages.begin(8)) && pages.fill(pages.begin(7)));
        assert!(pages.tell(7), "what is newer is no lie");
        assert!(!pages.tell(8));
    }

    #[test]
    fn what_was_asked_before_and_is_told_after_takes_nothing_back() {
        let mut pages = Pages::default();
        assert!(pages.tell(8));
        let begun = pages.begin(8);
        assert!(pages.tell(7));
        assert!(pages.fill(begun));
    }
}
