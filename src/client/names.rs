//! What is known of one directory's names. Pure.
//!
//! Names are known one by one, from look-ups, and in the order of their cookies from the first on without a gap, from
//! listings; when the listing has come to its end the directory is *complete*: what is not known is not there. Whoever
//! holds a Write lease also knows which cookie comes next, and adds names as the leader would.

use std::collections::{BTreeMap, HashMap};

use super::api::DirItem;
use crate::types::attr::FileKind;
use crate::types::id::Ino;
use crate::types::name::Name;

/// Names cached per directory; beyond it all are forgotten.
const NAMES_MAX: usize = 64 << 10;
/// Rough cost of one of them.
const NAME_COST_BYTES: usize = 192;
/// Names asked for one by one before others are listed along with them.
const ASKED_ALONE: u32 = 4;
/// And as long as no more are listed than these.
const LISTED_MAX: usize = 16 << 10;
/// Of a directory's first entry; the lower ones are `.` and `..`.
pub const FIRST_COOKIE: u64 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    ino: Ino,
    kind: FileKind,
    /// 0 when it is not known.
    cookie: u64,
}

#[derive(Debug, Default)]
pub struct Names {
    known: HashMap<Name, Option<Known>>,
    /// Every entry with a cookie up to `upto`.
    order: BTreeMap<u64, Name>,
    upto: u64,
    next_cookie: Option<u64>,
    /// Names that were asked for since the last part of a listing.
    asked: u32,
    has_default_acl: bool,
    /// `..`
    pub parent: Option<Ino>,
}

impl Names {
    /// Of a directory that was just made.
    pub fn fresh(parent: Ino) -> Names {
        let (upto, next_cookie) = (u64::MAX, Some(FIRST_COOKIE));
        Names { upto, next_cookie, parent: Some(parent), ..Names::default() }
    }

    /// `Some(None)`: known not to be there.
    pub fn entry(&self, name: &Name) -> Option<Option<Ino>> {
        match self.known.get(name) {
            Some(known) => Some(known.map(|known| known.ino)),
            None => self.is_complete().then_some(None),
        }
    }

    /// Roughly what it takes: a name is kept twice.
    pub fn bytes(&self) -> usize {
        self.known.len() * NAME_COST_BYTES
    }

    pub fn is_complete(&self) -> bool {
        self.upto == u64::MAX
    }

    /// `None`: not known.
    pub fn is_empty(&self) -> Option<bool> {
        if self.known.values().any(Option::is_some) {
            return Some(false);
        }
        self.is_complete().then_some(true)
    }

    /// New inodes inherit an ACL: the leader makes them.
    pub fn has_default_acl(&self) -> bool {
        self.has_default_acl
    }

    /// Names can be added as the leader would.
    pub fn can_grow(&self) -> bool {
        self.next_cookie.is_some() && !self.has_default_acl
    }

    /// One name after the other is asked for: from where on to list instead. `None`: they are not, or too many are listed.
    pub fn lists_from(&self) -> Option<u64> {
        let goes_on = self.asked >= ASKED_ALONE && !self.is_complete() && self.order.len() < LISTED_MAX;
        goes_on.then_some(self.upto)
    }

    /// A part of a listing came, and could not be kept.
    pub fn listed_in_vain(&mut self) {
        self.asked = 0;
    }

    /// What a look-up, or a change at the leader, has told.
    pub fn learn(&mut self, name: Name, found: Option<(Ino, FileKind)>) {
        self.bound();
        self.asked = self.asked.saturating_add(1);
        let before = self.known.get(&name).copied().flatten();
        let known = found.map(|(ino, kind)| {
            let cookie = before.filter(|before| before.ino == ino).map_or(0, |before| before.cookie);
            Known { ino, kind, cookie }
        });
        if known.is_some() && before.is_none() && self.is_complete() {
            // It came from elsewhere: the listing is not what it was.
            self.disorder();
        }
        self.known.insert(name, known);
    }

    /// A change at the leader begins: this name is not known until it is done, nor is the order.
    pub fn forget(&mut self, name: &Name) {
        self.disorder();
        self.known.remove(name);
    }

    /// Something was changed at the leader: what comes where is not known.
    pub fn disorder(&mut self) {
        self.order = BTreeMap::new();
        self.upto = 0;
        self.next_cookie = None;
    }

    /// The entries up to this cookie are known.
    pub fn listed_up_to(&self) -> u64 {
        self.upto
    }

    /// A part of a listing, as the leader told it.
    pub fn learn_page(&mut self, after: u64, page: &[DirItem], end: bool, next_cookie: u64, has_default_acl: bool) {
        self.bound();
        self.asked = 0;
        self.next_cookie = Some(next_cookie);
        self.has_default_acl = has_default_acl;
        if after < FIRST_COOKIE {
            self.order = BTreeMap::new();
            self.upto = 0;
        }
        let adjoins = after < FIRST_COOKIE || after == self.upto;
        for item in page {
            self.known.insert(item.name.clone(), Some(Known { ino: item.ino, kind: item.kind, cookie: item.cookie }));
            if adjoins {
                self.order.insert(item.cookie, item.name.clone());
            }
        }
        if adjoins {
            self.upto = if end { u64::MAX } else { page.last().map_or(self.upto, |item| item.cookie) };
        }
    }

    /// At most `max` entries after a cookie, and the cookie of the next name to come; `None` if that is not known.
    pub fn page(&self, after: u64, max: usize) -> Option<(Vec<DirItem>, u64)> {
        let next_cookie = self.next_cookie.filter(|_| after < self.upto)?;
        let mut items = Vec::new();
        for (cookie, name) in self.order.range(after.checked_add(1)?..).take(max) {
            let Known { ino, kind, .. } = self.known.get(name).copied().flatten()?;
            items.push(DirItem { name: name.clone(), ino, kind, cookie: *cookie });
        }
        Some((items, next_cookie))
    }

    /// Adds a name that is not there. To be asked for before: [`Names::can_grow`].
    pub fn add(&mut self, name: &Name, ino: Ino, kind: FileKind) {
        self.bound();
        let Some(cookie) = self.next_cookie else { return };
        self.next_cookie = Some(cookie + 1);
        if self.is_complete() {
            self.order.insert(cookie, name.clone());
        }
        self.known.insert(name.clone(), Some(Known { ino, kind, cookie }));
    }

    /// Lets a name that is there lead elsewhere; it keeps its cookie.
    pub fn turn(&mut self, name: &Name, ino: Ino, kind: FileKind) {
        let cookie = self.known.get(name).copied().flatten().map_or(0, |known| known.cookie);
        self.known.insert(name.clone(), Some(Known { ino, kind, cookie }));
    }

    pub fn remove(&mut self, name: &Name) {
        if let Some(known) = self.known.insert(name.clone(), None).flatten() {
            self.order.remove(&known.cookie);
        }
    }

    fn bound(&mut self) {
        if self.known.len() >= NAMES_MAX {
            self.known = HashMap::new();
            self.order = BTreeMap::new();
            self.upto = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn item(text: &str, ino: u64, cookie: u64) -> DirItem {
        DirItem { name: name(text), ino: Ino(ino), kind: FileKind::File, cookie }
    }

    #[test]
    fn a_listing_that_came_to_its_end_tells_what_is_not_there() {
        let mut names = Names::default();
        names.learn_page(0, &[item("a", 5, 3), item("b", 6, 4)], false, 9, false);
        assert_eq!((names.entry(&name("a")), names.entry(&name("z"))), (Some(Some(Ino(5))), None));
        assert_eq!(names.page(3, 10), Some((vec![item("b", 6, 4)], 9)));
        assert_eq!(names.page(4, 10), None, "more may come");
        names.learn_page(4, &[item("c", 7, 8)], true, 9, false);
        assert_eq!(names.entry(&name("z")), Some(None));
        assert_eq!(names.page(8, 10), Some((Vec::new(), 9)));
    }

    #[test]
    fn a_part_that_does_not_adjoin_is_not_a_listing() {
        let mut names = Names::default();
        names.learn_page(4, &[item("c", 7, 8)], true, 9, false);
        assert_eq!(names.entry(&name("c")), Some(Some(Ino(7))));
        assert_eq!((names.entry(&name("z")), names.page(4, 10)), (None, None));
    }

    #[test]
    fn who_asks_for_one_name_after_the_other_is_to_list() {
        let mut names = Names::default();
        let ask = |names: &mut Names, from: u64| {
            (from..from + 4).for_each(|ino| names.learn(name(&format!("n{ino}")), None));
        };
        assert_eq!(names.lists_from(), None);
        ask(&mut names, 0);
        assert_eq!(names.lists_from(), Some(0));
        names.learn_page(0, &[item("a", 5, 3), item("b", 6, 4)], false, 9, false);
        assert_eq!(names.lists_from(), None, "what was listed may do");
        ask(&mut names, 4);
        assert_eq!(names.lists_from(), Some(4), "from where it ended");
        names.learn_page(4, &[item("c", 7, 8)], true, 9, false);
        ask(&mut names, 8);
        assert_eq!(names.lists_from(), None, "all of it is known");
    }

    #[test]
    fn names_come_and_go_as_at_the_leader() {
        let mut names = Names::fresh(Ino(1));
        names.add(&name("a"), Ino(5), FileKind::File);
        names.add(&name("b"), Ino(6), FileKind::File);
        names.remove(&name("a"));
        names.turn(&name("b"), Ino(7), FileKind::File);
        assert_eq!(names.page(0, 10), Some((vec![item("b", 7, 4)], 5)));
        assert_eq!((names.entry(&name("a")), names.is_empty()), (Some(None), Some(false)));
        names.remove(&name("b"));
        assert_eq!(names.is_empty(), Some(true));
        names.forget(&name("b"));
        assert_eq!((names.entry(&name("b")), names.is_empty(), names.can_grow()), (None, None, false));
    }
}
