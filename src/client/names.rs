//! What is known of one directory's names. Pure.
//!
//! Names are known one by one, from look-ups, and in the order of their cookies from the first on without a gap, from
//! listings; when the listing has come to its end the directory is *complete*: what is not known is not there. Whoever
//! holds a Write lease also knows which cookie comes next, and adds names as the leader would.
//!
//! Of more names than can be kept, hashes of the first are kept: what has none is not among them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use super::api::DirItem;
use super::list_ahead::ListAhead;
use crate::types::attr::FileKind;
use crate::types::id::Ino;
use crate::types::name::Name;
use crate::types::session::DirPart;

/// Names cached per directory; beyond it all are forgotten, but perhaps for their hashes.
const NAMES_MAX: usize = 32 << 10;
/// Rough cost of one of them.
const NAME_COST_BYTES: usize = 192;
/// Hashes kept per directory; what a table of a million places holds before it grows.
const HASHES_MAX: usize = (1 << 20) / 8 * 7;
/// Cost of one of a table's places.
const HASH_COST_BYTES: usize = 9;
/// Names are listed ahead along with what they lead to as long as no more are listed than these.
const LED_TO_MAX: usize = 16 << 10;
/// Of a directory's first entry; the lower ones are `.` and `..`.
pub const FIRST_COOKIE: u64 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    ino: Ino,
    kind: FileKind,
    /// 0 when it is not known.
    cookie: u64,
    /// Only a listing has told it, and nobody has asked for it yet.
    unused: bool,
}

#[derive(Debug, Default)]
pub struct Names {
    known: HashMap<Name, Option<Known>>,
    /// Every entry with a cookie above `hashed_upto` and up to `upto`.
    order: BTreeMap<u64, Name>,
    upto: u64,
    next_cookie: Option<u64>,
    /// Of every name with a cookie up to `hashed_upto`, and of others.
    hashes: Option<Box<Hashes>>,
    hashed_upto: u64,
    /// There are more names than can be remembered: nothing is listed ahead.
    has_too_many: bool,
    ahead: ListAhead,
    has_default_acl: bool,
    /// `..`
    pub parent: Option<Ino>,
}

/// Hashes under a secret of this process: nobody makes names that share one.
#[derive(Debug, Default)]
struct Hashes {
    of_names: HashSet<u64>,
    secret: RandomState,
}

impl Hashes {
    fn insert(&mut self, name: &Name) {
        self.of_names.insert(self.secret.hash_one(name));
    }

    fn contains(&self, name: &Name) -> bool {
        self.of_names.contains(&self.secret.hash_one(name))
    }
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
            None => (self.is_complete() && !self.may_be_hashed(name)).then_some(None),
        }
    }

    fn may_be_hashed(&self, name: &Name) -> bool {
        self.hashes.as_ref().is_some_and(|hashes| hashes.contains(name))
    }

    /// What somebody asks for; otherwise like [`Names::entry`].
    pub fn look_up(&mut self, name: &Name) -> Option<Option<Ino>> {
        if let Some(Some(known)) = self.known.get_mut(name)
            && std::mem::take(&mut known.unused)
        {
            self.ahead.used();
        }
        self.entry(name)
    }

    /// Roughly what it takes: a name is kept twice.
    pub fn bytes(&self) -> usize {
        let places = self.hashes.as_ref().map_or(0, |hashes| hashes.of_names.capacity().next_power_of_two());
        self.known.len() * NAME_COST_BYTES + places * HASH_COST_BYTES
    }

    pub fn is_complete(&self) -> bool {
        self.upto == u64::MAX
    }

    /// `None`: not known.
    pub fn is_empty(&self) -> Option<bool> {
        if self.known.values().any(Option::is_some) {
            return Some(false);
        }
        (self.is_complete() && self.hashes.is_none()).then_some(true)
    }

    /// New inodes inherit an ACL: the leader makes them.
    pub fn has_default_acl(&self) -> bool {
        self.has_default_acl
    }

    /// Names can be added as the leader would.
    pub fn can_grow(&self) -> bool {
        self.next_cookie.is_some() && !self.has_default_acl
    }

    /// What to list before the next name is asked for. `None`: nothing.
    pub fn lists_ahead(&self) -> Option<DirPart> {
        if self.is_complete() || self.has_too_many {
            return None;
        }
        let listed = self.order.len() + self.hashes.as_ref().map_or(0, |hashes| hashes.of_names.len());
        let attrs = listed < LED_TO_MAX;
        let attrs = attrs && !self.ahead.makes_names();
        let entries = if attrs { self.ahead.entries() } else { self.ahead.names() }?;
        Some(DirPart { after: self.upto, entries, attrs, unasked: false })
    }

    /// A part of a listing came, and could not be kept.
    pub fn listed_in_vain(&mut self) {
        self.ahead.listed_in_vain();
    }

    /// What a look-up, or a change at the leader, has told.
    pub fn learn(&mut self, name: Name, found: Option<(Ino, FileKind)>) {
        self.bound();
        self.ahead.missed(found.is_some());
        let before = self.known.get(&name).copied().flatten();
        let known = found.map(|(ino, kind)| {
            let cookie = before.filter(|before| before.ino == ino).map_or(0, |before| before.cookie);
            Known { ino, kind, cookie, unused: false }
        });
        if known.is_some() && self.entry(&name) == Some(None) {
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

    /// Something was changed at the leader: what comes where is not known, nor what is not there.
    pub fn disorder(&mut self) {
        self.order = BTreeMap::new();
        (self.upto, self.hashed_upto) = (0, 0);
        self.hashes = None;
        self.next_cookie = None;
    }

    /// A part of a listing, as the leader told it.
    pub fn learn_page(&mut self, after: u64, page: &[DirItem], end: bool, next_cookie: u64, has_default_acl: bool) {
        self.bound();
        self.ahead.listed(page.len());
        if after < FIRST_COOKIE && !self.begins_with(page) {
            self.disorder();
        }
        self.next_cookie = Some(next_cookie);
        self.has_default_acl = has_default_acl;
        let adjoins = after == self.upto || after < FIRST_COOKIE && self.upto == 0;
        for item in page {
            let unused = !self.known.contains_key(&item.name);
            let known = Known { ino: item.ino, kind: item.kind, cookie: item.cookie, unused };
            self.known.insert(item.name.clone(), Some(known));
            if adjoins {
                self.order.insert(item.cookie, item.name.clone());
            }
        }
        if adjoins {
            self.upto = if end { u64::MAX } else { page.last().map_or(self.upto, |item| item.cookie) };
        }
    }

    /// What is known of the order begins with these.
    fn begins_with(&self, page: &[DirItem]) -> bool {
        let (hashed, listed) = page.split_at(page.partition_point(|item| item.cookie <= self.hashed_upto));
        let known = self.order.iter().map(|(cookie, name)| (*cookie, name));
        let told = listed.iter().map(|item| (item.cookie, &item.name));
        let agrees = self.order.len() >= listed.len() && known.take(listed.len()).eq(told);
        agrees && hashed.iter().all(|item| self.may_be_hashed(&item.name))
    }

    /// At most `max` entries after a cookie, and the cookie of the next name to come; `None` if that is not known.
    pub fn page(&self, after: u64, max: usize) -> Option<(Vec<DirItem>, u64)> {
        let next_cookie = self.next_cookie.filter(|_| after >= self.hashed_upto && after < self.upto)?;
        let mut items = Vec::new();
        for (cookie, name) in self.order.range(after.checked_add(1)?..).take(max) {
            let Known { ino, kind, .. } = self.known.get(name).copied().flatten()?;
            items.push(DirItem { name: name.clone(), ino, kind, cookie: *cookie });
        }
        Some((items, next_cookie))
    }

    /// Adds a name that is not there. To be asked for before: [`Names::can_grow`]. Its cookie.
    pub fn add(&mut self, name: &Name, ino: Ino, kind: FileKind) -> u64 {
        self.bound();
        let Some(cookie) = self.next_cookie else { return 0 };
        self.next_cookie = Some(cookie + 1);
        if self.is_complete() {
            self.order.insert(cookie, name.clone());
        }
        self.known.insert(name.clone(), Some(Known { ino, kind, cookie, unused: false }));
        cookie
    }

    /// Lets a name that is there lead elsewhere; it keeps its cookie.
    pub fn turn(&mut self, name: &Name, ino: Ino, kind: FileKind) {
        let cookie = self.known.get(name).copied().flatten().map_or(0, |known| known.cookie);
        self.known.insert(name.clone(), Some(Known { ino, kind, cookie, unused: false }));
    }

    pub fn remove(&mut self, name: &Name) {
        if let Some(known) = self.known.insert(name.clone(), None).flatten() {
            self.order.remove(&known.cookie);
        }
    }

    fn bound(&mut self) {
        if self.known.len() < NAMES_MAX {
            return;
        }
        for (name, _) in self.known.iter().filter(|(_, known)| known.is_some()) {
            self.hashes.get_or_insert_default().insert(name);
        }
        let count = self.hashes.as_ref().map_or(0, |hashes| hashes.of_names.len());
        self.has_too_many |= count > HASHES_MAX - NAMES_MAX;
        self.known = HashMap::new();
        if self.has_too_many {
            let next_cookie = self.next_cookie;
            self.disorder();
            self.next_cookie = next_cookie;
            return;
        }
        let listed_upto = if self.is_complete() { self.order.keys().last().copied() } else { Some(self.upto) };
        self.hashed_upto = listed_upto.unwrap_or(self.hashed_upto);
        self.order = BTreeMap::new();
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
            (from..from + 8).for_each(|ino| names.learn(name(&format!("n{ino}")), Some((Ino(ino), FileKind::File))));
        };
        let part = |after| Some(DirPart { after, entries: 64, attrs: true, unasked: false });
        assert_eq!(names.lists_ahead(), None);
        ask(&mut names, 0);
        assert_eq!(names.lists_ahead(), part(0));
        names.learn_page(0, &[item("a", 5, 3), item("b", 6, 4)], false, 9, false);
        assert_eq!(names.lists_ahead(), None, "what was listed may do");
        ask(&mut names, 8);
        assert_eq!(names.lists_ahead(), part(4), "from where it ended");
        names.learn_page(4, &[item("c", 7, 8)], true, 9, false);
        (20..32).for_each(|n| names.learn(name(&format!("n{n}")), None));
        assert_eq!(names.lists_ahead(), None, "all of it is known");
    }

    #[test]
    fn a_name_is_of_use_once() {
        let mut names = Names::default();
        let many: Vec<DirItem> = (0..8).map(|n| item(&format!("f{n}"), 5 + n, 3 + n)).collect();
        names.learn_page(0, &many, false, 99, false);
        for _ in 0..8 {
            assert_eq!(names.look_up(&name("f1")), Some(Some(Ino(6))));
        }
        names.learn(name("other"), Some((Ino(99), FileKind::File)));
        assert_eq!(names.lists_ahead(), None);
        names.look_up(&name("f2"));
        assert_eq!(names.lists_ahead(), Some(DirPart { after: 10, entries: 64, attrs: true, unasked: false }));
    }

    #[test]
    fn listing_again_from_the_first_name_loses_nothing() {
        let mut names = Names::default();
        names.learn_page(0, &[item("a", 5, 3), item("b", 6, 4), item("c", 7, 5)], true, 9, false);
        names.learn_page(0, &[item("a", 5, 3)], false, 9, false);
        assert_eq!(names.entry(&name("z")), Some(None));
        names.learn_page(0, &[item("b", 6, 4)], false, 9, false);
        assert_eq!((names.entry(&name("z")), names.upto), (None, 4), "it is not what it was");
    }

    fn nth(n: usize) -> Name {
        name(&format!("file-{n}"))
    }

    #[test]
    fn what_is_not_there_is_known_of_more_names_than_are_kept() {
        let mut names = Names::fresh(Ino(1));
        let count = 5 * NAMES_MAX / 2;
        for n in 0..count {
            names.add(&nth(n), Ino(n as u64), FileKind::File);
        }
        assert_eq!((names.can_grow(), names.is_complete(), names.is_empty()), (true, true, Some(false)));
        for n in [0, NAMES_MAX, count - 1] {
            assert_ne!(names.entry(&nth(n)), Some(None), "{n} is there");
        }
        assert_eq!(names.entry(&nth(0)), None, "what it leads to has to be asked for");
        assert_eq!(names.entry(&nth(count)), Some(None));
        assert_eq!(names.page(0, 10), None, "nor is its place known");
        let last = FIRST_COOKIE + count as u64 - 1;
        assert_eq!(names.page(last - 1, 10).map(|(items, next)| (items.len(), next)), Some((1, last + 1)));
        names.remove(&nth(count - 1));
        assert_eq!(names.entry(&nth(count - 1)), Some(None));
        assert!(names.bytes() < 16 << 20, "{}", names.bytes());
        names.forget(&nth(1));
        assert_eq!(names.entry(&nth(count)), None, "another may have made it");
    }

    #[test]
    fn a_long_listing_comes_to_its_end() {
        let mut names = Names::default();
        let count = 3 * NAMES_MAX;
        let page = |from: usize| -> Vec<DirItem> {
            (from..from + 1024).map(|n| item(&format!("file-{n}"), n as u64, n as u64 + FIRST_COOKIE)).collect()
        };
        for from in (0..count).step_by(1024) {
            (0..128).for_each(|n| names.learn(name(&format!("absent-{from}-{n}")), None));
            let part = names.lists_ahead().unwrap();
            assert!(!part.attrs, "for who makes names");
            assert_eq!((part.after, part.entries), (if from == 0 { 0 } else { from as u64 + 2 }, 1024));
            names.learn_page(part.after, &page(from), from + 1024 == count, 1 << 20, false);
        }
        assert_eq!((names.lists_ahead(), names.is_empty()), (None, Some(false)));
        assert_eq!((names.entry(&nth(count)), names.entry(&nth(5))), (Some(None), None));
        names.learn_page(0, &page(0), false, 1 << 20, false);
        assert_eq!(names.entry(&nth(count)), Some(None), "it begins as it did");
        names.learn_page(0, &[item("new", 5, 3)], false, 1 << 20, false);
        assert_eq!(names.entry(&nth(count)), None, "it does not");
    }

    #[test]
    fn more_names_than_can_be_remembered_are_forgotten() {
        let mut names = Names::fresh(Ino(1));
        for n in 0..=HASHES_MAX {
            names.add(&nth(n), Ino(n as u64), FileKind::File);
        }
        assert_eq!((names.entry(&nth(5)), names.entry(&name("absent")), names.can_grow()), (None, None, true));
        (0..99).for_each(|n| names.learn(name(&format!("absent-{n}")), None));
        assert_eq!(names.lists_ahead(), None);
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
