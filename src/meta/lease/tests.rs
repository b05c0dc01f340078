use super::*;

const KEY: Key = (TreeId(1), Ino(7));
const A: SessionId = SessionId(1);
const B: SessionId = SessionId(2);
const READ: Hold = Hold { lease: Lease::Read, open: false };
const WRITE: Hold = Hold { lease: Lease::Write, open: true };

fn yielded(claim: Claim, lease: Lease) -> Claim {
    Claim { hold: Hold { lease, ..claim.hold }, ..claim }
}

#[test]
fn readers_share_and_a_writer_is_alone() {
    let mut table = LeaseTable::default();
    assert_eq!(table.grant(A, KEY, READ, 0).map(|c| c.hold), Some(READ));
    assert_eq!(table.grant(B, KEY, READ, 0).map(|c| c.hold), Some(READ));
    let more = table.grant(A, KEY, WRITE, 0).expect("open is new");
    assert_eq!(more.hold, Hold { lease: Lease::Read, open: true });
    assert_eq!(table.grant(A, KEY, READ, 0).map(|c| c.hold), Some(more.hold));
}

#[test]
fn a_change_recalls_the_others_and_waits_for_them() {
    let mut table = LeaseTable::default();
    let claim = table.grant(A, KEY, READ, 0).expect("free");
    let begun = table.begin_change(B, &[KEY]);
    assert_eq!(begun.others_had, Lease::Read);
    assert_eq!(
        begun.recalls,
        [Recall { session: A, event: Event::Recall { ino: Ino(7), keep: Lease::None, grant: claim.grant } }]
    );
    assert!(table.begin_change(B, &[KEY]).recalls.is_empty(), "one recall is enough");
    assert!(!table.clear_for_change(B, &[KEY]));
    table.yield_claim(A, KEY, yielded(claim, Lease::None), 0);
    assert!(table.clear_for_change(B, &[KEY]));
    table.end_change(B, &[KEY], Lease::None, 0, 500);
    assert_eq!(table.grant(A, KEY, READ, 0), None, "one change is still under way");
    table.end_change(B, &[KEY], Lease::Write, 0, 500);
    assert_eq!((table.grant(A, KEY, READ, 499), table.grant(B, KEY, READ, 499)), (None, None), "quiet time");
    assert!(table.grant(A, KEY, READ, 500).is_some());
}

#[test]
fn what_only_readers_had_is_for_who_changed_it() {
    let mut table = LeaseTable::default();
    let claim = table.grant(A, KEY, READ, 0).expect("free");
    let begun = table.begin_change(B, &[KEY]);
    table.yield_claim(A, KEY, yielded(claim, Lease::None), 0);
    table.end_change(B, &[KEY], begun.others_had, 0, 500);
    assert_eq!(table.grant(A, KEY, READ, 499), None);
    assert_eq!(table.grant(B, KEY, WRITE, 499).map(|c| c.hold), Some(WRITE));
}

/// Looks of one session at what another has, and the number to wait for.
fn look(table: &mut LeaseTable, session: SessionId) -> (u64, usize) {
    let (look, looks) = table.begin_read(session, KEY);
    (look, looks.len())
}

#[test]
fn a_writer_that_is_looked_at_comes_down_to_read() {
    let mut table = LeaseTable::default();
    let claim = table.grant(A, KEY, WRITE, 0).expect("free");
    let (first, told) = look(&mut table, B);
    assert_eq!(told, 1);
    assert!(!table.clear_for_read(B, KEY, first));
    assert_eq!(table.grant(A, KEY, WRITE, 0), None, "not while it owes an answer");
    table.yield_claim(A, KEY, yielded(claim, Lease::Read), 0);
    assert!(table.clear_for_read(B, KEY, first));
    assert!(!table.owes(A, KEY));
    assert!(table.grant(B, KEY, READ, 0).is_some(), "reading together needs no quiet time");
    assert_eq!(table.grant(A, KEY, WRITE, 0).map(|c| c.hold.lease), Some(Lease::Read));
    table.drop_session(B, 0);
    assert_eq!(table.grant(A, KEY, WRITE, 0).map(|c| c.hold), Some(WRITE));
}

#[test]
fn a_writer_may_show_what_it_did_and_go_on() {
    let mut table = LeaseTable::default();
    table.grant(A, KEY, WRITE, 0).expect("free");
    let (first, _) = look(&mut table, B);
    let (second, told) = look(&mut table, SessionId(3));
    assert_eq!(told, 1, "what was done after the first look is not shown with it");
    table.shown(A, KEY, first);
    assert!(table.clear_for_read(B, KEY, first) && !table.clear_for_read(SessionId(3), KEY, second));
    assert!(table.owes(A, KEY));
    table.shown(A, KEY, second);
    assert!(table.clear_for_read(SessionId(3), KEY, second) && !table.owes(A, KEY));
    assert_eq!(table.lease_of(A, KEY), Lease::Write);
    assert_eq!(table.grant(B, KEY, READ, 0), None, "it may have gone on");
    let (third, told) = look(&mut table, B);
    assert_eq!((told, table.clear_for_read(B, KEY, third)), (1, false));
    table.shown(A, KEY, second);
    assert!(!table.clear_for_read(B, KEY, third), "a late answer to an earlier one");
}

/// Otherwise one that shows all the time would never be granted anything.
#[test]
fn looks_end_when_who_is_looked_at_needs_more() {
    let mut table = LeaseTable::new(3);
    let claim = table.grant(A, KEY, WRITE, 0).expect("free");
    assert!(table.end_looks(A, KEY).is_empty());
    let (first, _) = look(&mut table, B);
    let recalls = table.end_looks(A, KEY);
    assert!(matches!(recalls[..], [Recall { session: A, event: Event::Recall { keep: Lease::Read, .. } }]));
    assert_eq!((look(&mut table, B).1, table.end_looks(A, KEY).len()), (0, 0), "it comes down");
    table.shown(A, KEY, first);
    assert!(table.owes(A, KEY));
    table.yield_claim(A, KEY, yielded(claim, Lease::Read), 0);
    assert!(!table.owes(A, KEY));
    assert_eq!((look(&mut table, B).1, table.owes(A, KEY)), (0, false));
}

#[test]
fn who_is_waited_for_is_who_owes_what_is_waited_for() {
    let mut table = LeaseTable::new(3);
    table.grant(A, KEY, WRITE, 0).expect("free");
    let (first, _) = look(&mut table, B);
    let (second, _) = look(&mut table, SessionId(3));
    table.shown(A, KEY, first);
    assert!(table.debtors(B, &[KEY], Some(first)).is_empty() && table.debtors(B, &[KEY], None).is_empty());
    assert!(table.debtors(SessionId(3), &[KEY], Some(second)).contains(&A));
    table.begin_take_down(B, KEY);
    assert!(table.debtors(B, &[KEY], None).contains(&A));
}

#[test]
fn an_answer_from_elsewhere_says_no_more_than_was_asked() {
    let mut table = LeaseTable::new(3);
    table.grant(A, KEY, WRITE, 0).expect("free");
    table.shown(A, KEY, u64::MAX);
    let (first, _) = look(&mut table, B);
    assert!(!table.clear_for_read(B, KEY, first));
}

#[test]
fn who_has_a_write_since_the_look_has_nothing_to_ship_for_it() {
    let mut table = LeaseTable::new(3);
    let claim = table.grant(A, KEY, WRITE, 0).expect("free");
    let (before, _) = look(&mut table, B);
    table.yield_claim(A, KEY, yielded(claim, Lease::None), 0);
    table.grant(SessionId(3), KEY, WRITE, 0).expect("free");
    assert!(table.clear_for_read(B, KEY, before));
    let (after, told) = look(&mut table, B);
    assert_eq!((told, table.clear_for_read(B, KEY, after)), (1, false));
}

#[test]
fn a_look_that_was_not_answered_is_told_again_and_a_recall_instead_of_it() {
    let mut table = LeaseTable::default();
    let claim = table.grant(A, KEY, WRITE, 0).expect("free");
    let (number, _) = look(&mut table, B);
    let told = Event::Look { ino: KEY.1, grant: claim.grant, look: number };
    assert_eq!(table.pending_recalls(A), [told]);
    assert_eq!(table.begin_take_down(B, KEY).len(), 1);
    assert_eq!(table.pending_recalls(A), [Event::Recall { ino: KEY.1, keep: Lease::Read, grant: claim.grant }]);
    assert_eq!(look(&mut table, B).1, 0, "who gives it back ships first");
    table.shown(A, KEY, u64::MAX);
    assert!(!table.is_unowned(B, KEY), "a recall is not answered by that");
    table.yield_claim(A, KEY, yielded(claim, Lease::Read), 0);
    assert!(table.is_unowned(B, KEY) && table.pending_recalls(A).is_empty());
}

#[test]
fn what_readers_have_is_taken_and_what_a_writer_has_once_and_on_purpose() {
    let mut table = LeaseTable::default();
    let other = (TreeId(1), Ino(8));
    let read = table.grant(A, other, READ, 0).expect("free");
    let write = table.grant(A, KEY, WRITE, 0).expect("free");
    assert_eq!(table.begin_take(B, vec![other, KEY], 0, 500).0, [other], "it may be changed, and this is a guess");
    table.end_take(B, &[other], false, 0);
    let (keys, recalls) = table.begin_take(B, vec![KEY, other], 0, 500);
    assert_eq!((keys.len(), recalls.len()), (2, 1), "the other one is recalled already");
    assert!(!table.has_answers(B, &keys));
    table.yield_claim(A, KEY, yielded(write, Lease::None), 0);
    table.yield_claim(A, other, yielded(read, Lease::None), 0);
    assert!(table.has_answers(B, &keys));
    assert_eq!(table.grant(SessionId(3), KEY, READ, 0), None, "it is being taken");
    let taken = table.end_take(B, &keys, true, 0);
    assert!(taken.len() == 2 && taken.iter().all(|claim| claim.hold.lease == Lease::Write));
    assert_eq!(table.begin_take(A, vec![KEY, other], 499, 500).0, [], "not what was taken from a writer just now");
    assert_eq!(table.begin_take(A, vec![other], 499, 500).0, [other]);
    assert_eq!(table.begin_take(A, vec![KEY], 500, 500).0, [KEY]);
}

#[test]
fn of_two_who_take_at_the_same_time_neither_waits_for_the_other() {
    let mut table = LeaseTable::default();
    let read = table.grant(A, KEY, READ, 0).expect("free");
    let third = SessionId(3);
    let (one, _) = table.begin_take(B, vec![KEY], 0, 500);
    let (two, recalls) = table.begin_take(third, vec![KEY], 0, 500);
    assert!(recalls.is_empty());
    table.yield_claim(A, KEY, yielded(read, Lease::None), 0);
    assert!(table.has_answers(B, &one) && table.has_answers(third, &two));
    assert_eq!(table.end_take(B, &one, true, 0), []);
    assert_eq!(table.end_take(third, &two, true, 0).len(), 1);
}

#[test]
fn a_stale_yield_does_not_end_a_newer_grant() {
    let mut table = LeaseTable::default();
    let old = table.grant(A, KEY, READ, 0).expect("free");
    let new = table.grant(A, KEY, WRITE, 0).expect("alone");
    table.yield_claim(A, KEY, yielded(old, Lease::None), 0);
    assert!(!table.is_unowned(B, KEY));
    table.yield_claim(A, KEY, yielded(new, Lease::None), 0);
    assert!(table.is_unowned(B, KEY));
}

#[test]
fn nothing_is_granted_across_a_recall() {
    let mut table = LeaseTable::default();
    let open = Hold { lease: Lease::Read, open: true };
    let claim = table.grant(A, KEY, READ, 0).expect("free");
    table.begin_change(B, &[KEY]);
    assert!(table.owes(A, KEY));
    assert_eq!(table.grant(A, KEY, open, 0), None);
    table.yield_claim(A, KEY, yielded(claim, Lease::None), 0);
    assert!(table.clear_for_change(B, &[KEY]));
    let opened = table.grant(A, KEY, open, 0).expect("answered");
    assert_eq!(opened.hold, Hold { lease: Lease::None, open: true });
    assert!(!table.begin_reap(KEY), "it is open");
}

#[test]
fn an_open_inode_is_not_reaped_and_a_reaped_one_not_opened() {
    let mut table = LeaseTable::default();
    let open = Hold { lease: Lease::None, open: true };
    let claim = table.grant(A, KEY, open, 0).expect("open");
    assert!(!table.begin_reap(KEY));
    table.yield_claim(A, KEY, Claim { hold: Hold::default(), ..claim }, 0);
    assert!(table.begin_reap(KEY));
    assert_eq!(table.grant(B, KEY, open, 0), None);
    table.end_reap(KEY, 0);
    assert_eq!(table.inodes(), 0, "idle inodes cost nothing");
}

#[test]
fn what_was_recalled_before_it_was_shipped_stays_recalled() {
    let mut table = LeaseTable::new(3);
    let (assumed, _) = table.grant_made(A, KEY);
    assert_eq!(look(&mut table, B).1, 1);
    assert_eq!(table.grant_made(A, KEY), (assumed, false), "the recall names this grant");
    assert_eq!(
        (table.lease_of(A, KEY), table.lease_of(B, KEY)),
        (Lease::Write, Lease::None),
        "it has still to ship it"
    );
    table.yield_claim(A, KEY, Claim { hold: Hold::default(), ..assumed }, 0);
    assert!(table.is_unowned(B, KEY));
    assert!(table.grant_made(A, KEY).0.grant > assumed.grant);
}

#[test]
fn contended_inodes_are_forgotten_when_they_have_rested() {
    let mut table = LeaseTable::default();
    for ino in 0..1000 {
        let key = (TreeId(1), Ino(ino));
        let hold = if ino % 2 == 0 { READ } else { WRITE };
        table.grant(A, key, hold, ino).expect("free");
        // Every other one is taken, and its holder goes before the quiet time is over.
        let (taken, _) = table.begin_take(B, vec![key], ino, 500);
        let begun = table.begin_change(B, &[key]);
        table.drop_session(A, ino);
        table.end_take(B, &taken, false, ino);
        table.end_change(B, &[key], begun.others_had, ino, 500);
    }
    assert!(table.inodes() > 400, "they rest");
    table.begin_change(B, &[KEY]);
    table.end_change(B, &[KEY], Lease::None, 1400, 500);
    assert_eq!(table.inodes(), 99, "those of the last half second");
    table.begin_change(B, &[KEY]);
    table.end_change(B, &[KEY], Lease::None, 1500, 500);
    assert_eq!((table.inodes(), table.resting.len()), (0, 0));
}

#[test]
fn reclaimed_leases_that_conflict_are_refused() {
    let mut table = LeaseTable::default();
    assert_eq!(table.reclaim(A, KEY, WRITE).hold, WRITE);
    assert_eq!(table.reclaim(B, KEY, WRITE).hold, Hold { lease: Lease::None, open: true });
    table.drop_session(A, 0);
    assert_eq!(table.reclaim(B, KEY, READ).hold, READ);
}

#[test]
fn a_grant_that_was_not_told_is_undone() {
    let mut table = LeaseTable::new(3);
    let read = table.grant(A, KEY, READ, 0).unwrap();
    let more = table.grant(A, KEY, WRITE, 0).unwrap();
    assert_eq!(table.take_back(A, KEY, read.grant, false, 0), more.hold, "the later one was told");
    assert_eq!(table.take_back(A, KEY, more.grant, true, 0), Hold { lease: Lease::Read, open: true });
    assert_eq!(table.take_back(A, KEY, more.grant, false, 0), READ);
    let other = table.grant(B, KEY, READ, 0).unwrap();
    assert_eq!(table.take_back(B, KEY, other.grant, false, 0), Hold::default());
    assert!(table.clear_for_change(A, &[KEY]));
}

#[test]
fn what_is_held_is_granted_again_to_who_asks() {
    let mut table = LeaseTable::new(3);
    let want = Hold { lease: Lease::Write, open: true };
    let first = table.grant(A, KEY, want, 0).unwrap();
    let again = table.grant(A, KEY, want, 0).unwrap();
    assert_eq!((first.hold, again.hold), (want, want));
    assert!(again.grant > first.grant);
    table.yield_claim(A, KEY, Claim { hold: Hold::default(), ..first }, 0);
    let third = table.grant(A, KEY, Hold { open: true, ..Hold::default() }, 0).unwrap();
    assert_eq!(third.hold, want);
    assert_eq!(table.take_back(A, KEY, third.grant, false, 0), want, "what it knew of before it keeps");
}

#[test]
fn what_a_session_holds_is_told_in_order_and_in_parts() {
    let mut table = LeaseTable::new(3);
    for ino in [5, 3, 9, 1, 7] {
        table.grant(A, (TreeId(1), Ino(ino)), READ, 0).unwrap();
        table.grant(B, (TreeId(1), Ino(ino + 1)), READ, 0).unwrap();
    }
    let told = |after, max| table.holdings(A, Ino(after), max).iter().map(|claim| claim.ino.0).collect::<Vec<_>>();
    assert_eq!(told(0, 2), [1, 3]);
    assert_eq!(told(3, 2), [5, 7]);
    assert_eq!(told(7, 2), [9]);
    assert_eq!(told(9, 2), [0u64; 0]);
}
